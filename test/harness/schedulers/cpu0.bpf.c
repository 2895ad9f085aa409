// Runs everything on CPU 0 that may run there.
#include "scx.h"

SEC("struct_ops/cpu0_select_cpu")
int BPF_PROG(cpu0_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return p->nr_cpus_allowed == 1 ? previous : 0;
}

SEC("struct_ops/cpu0_enqueue")
void BPF_PROG(cpu0_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, p->nr_cpus_allowed == 1 ? LOCAL : LOCAL_ON, SLICE, flags);
}

SEC(".struct_ops")
struct sched_ext_ops cpu0 = {
	.select_cpu = (void *)cpu0_select_cpu, .enqueue = (void *)cpu0_enqueue, .timeout_ms = 1000, .name = "cpu0",
};
