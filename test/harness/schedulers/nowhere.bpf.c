// Puts tasks on a queue that it never made.
#include "scx.h"

SEC("struct_ops/nowhere_enqueue")
void BPF_PROG(nowhere_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, 4711, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops nowhere = { .enqueue = (void *)nowhere_enqueue, .name = "nowhere" };
