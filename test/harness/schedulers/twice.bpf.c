// Dispatches each task twice.
#include "scx.h"

SEC("struct_ops/twice_enqueue")
void BPF_PROG(twice_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, GLOBAL, SLICE, flags);
	scx_bpf_dsq_insert(p, GLOBAL, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops twice = { .enqueue = (void *)twice_enqueue, .name = "twice" };
