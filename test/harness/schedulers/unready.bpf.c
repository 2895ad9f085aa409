// Its init fails.
#include "scx.h"

SEC("struct_ops/unready_init")
int BPF_PROG(unready_init)
{
	return -12; // ENOMEM
}

SEC(".struct_ops")
struct sched_ext_ops unready = { .init = (void *)unready_init, .name = "unready" };
