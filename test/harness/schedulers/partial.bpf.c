// Schedules the tasks of SCHED_EXT alone, and leaves all others to the kernel's own scheduler.
#include "scx.h"

SEC("struct_ops/partial_enqueue")
void BPF_PROG(partial_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, GLOBAL, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops partial = { .enqueue = (void *)partial_enqueue, .flags = 1 << 3, .name = "partial" };
