// Never runs a process whose number can be divided by seven; its watchdog would wait for half a minute.
#include "scx.h"

SEC("struct_ops/seventh_select_cpu")
int BPF_PROG(seventh_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return previous;
}

SEC("struct_ops/seventh_enqueue")
void BPF_PROG(seventh_enqueue, struct task_struct *p, __u64 flags)
{
	if ((unsigned int)p->pid % 7 != 0 || p->flags & PF_KTHREAD)
		scx_bpf_dsq_insert(p, GLOBAL, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops seventh = {
	.select_cpu = (void *)seventh_select_cpu, .enqueue = (void *)seventh_enqueue, .name = "seventh",
};
