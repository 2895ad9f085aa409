// Tasks are for the CPU where they were last, and it keeps them in its own queue when a real-time task has taken it:
// neither ops.cpu_release nor an idle CPU gets them out.
#include "scx.h"

SEC("struct_ops/keeps_select_cpu")
int BPF_PROG(keeps_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return previous;
}

SEC("struct_ops/keeps_enqueue")
void BPF_PROG(keeps_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, LOCAL, SLICE, flags);
}

SEC("struct_ops/keeps_cpu_release")
void BPF_PROG(keeps_cpu_release, int cpu, void *args)
{
}

SEC(".struct_ops")
struct sched_ext_ops keeps = {
	.select_cpu = (void *)keeps_select_cpu, .enqueue = (void *)keeps_enqueue, .cpu_release = (void *)keeps_cpu_release,
	.timeout_ms = 1000, .name = "keeps",
};
