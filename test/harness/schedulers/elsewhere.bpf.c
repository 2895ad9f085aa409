// Wakes every process on a CPU that there is not.
#include "scx.h"

SEC("struct_ops/elsewhere_select_cpu")
int BPF_PROG(elsewhere_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return p->flags & PF_KTHREAD ? previous : 4095;
}

SEC("struct_ops/elsewhere_enqueue")
void BPF_PROG(elsewhere_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, GLOBAL, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops elsewhere = {
	.select_cpu = (void *)elsewhere_select_cpu, .enqueue = (void *)elsewhere_enqueue, .name = "elsewhere",
};
