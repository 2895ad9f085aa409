// types.bpf.c for kernels without bpf_loop, before 5.17: a run of a program fills the next entry of each map.
#define BY_STEPS
#include "types.bpf.c"
