// Never dispatches a task.
#include "scx.h"

SEC("struct_ops/never_select_cpu")
int BPF_PROG(never_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return previous;
}

SEC("struct_ops/never_enqueue")
void BPF_PROG(never_enqueue, struct task_struct *p, __u64 flags)
{
}

SEC(".struct_ops")
struct sched_ext_ops never = {
	.select_cpu = (void *)never_select_cpu, .enqueue = (void *)never_enqueue, .timeout_ms = 1000, .name = "never",
};
