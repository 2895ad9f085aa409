// Gives every task its turn in the order in which they come.
#include "scx.h"

SEC("struct_ops/good_enqueue")
void BPF_PROG(good_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, GLOBAL, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops good = { .enqueue = (void *)good_enqueue, .name = "good" };
