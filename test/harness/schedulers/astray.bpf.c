// Sends every process to CPU 0, whatever its affinity.
#include "scx.h"

SEC("struct_ops/astray_enqueue")
void BPF_PROG(astray_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, p->flags & PF_KTHREAD ? LOCAL : LOCAL_ON, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops astray = { .enqueue = (void *)astray_enqueue, .name = "astray" };
