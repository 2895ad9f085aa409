// special.bpf.c for kernels up to v6.3.
#define UNCOUNTED "kptr"
#include "special.bpf.c"
