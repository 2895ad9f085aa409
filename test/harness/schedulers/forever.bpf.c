// Who has a CPU keeps it: slices have no end.
#include "scx.h"

SEC("struct_ops/forever_enqueue")
void BPF_PROG(forever_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, GLOBAL, p->flags & PF_KTHREAD ? SLICE : ~0ull, flags);
}

SEC(".struct_ops")
struct sched_ext_ops forever = { .enqueue = (void *)forever_enqueue, .name = "forever" };
