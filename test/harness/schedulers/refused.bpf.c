// The verifier refuses it: it follows a pointer that is a number.
#include "scx.h"

SEC("struct_ops/refused_enqueue")
void BPF_PROG(refused_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, *(volatile __u64 *)flags, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops refused = { .enqueue = (void *)refused_enqueue, .name = "refused" };
