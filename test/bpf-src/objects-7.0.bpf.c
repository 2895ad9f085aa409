// objects.bpf.c for kernels from v7.0 on.
#define SET_CALLBACK(wq, callback) bpf_wq_set_callback(wq, callback, 0)
struct bpf_wq;
extern int bpf_wq_set_callback(struct bpf_wq *wq, int(callback)(void *map, int *key, void *value), unsigned int flags)
	__attribute__((section(".ksyms")));
#include "objects.bpf.c"
