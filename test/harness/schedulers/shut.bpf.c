// CPU 1 takes nothing from the queue in which all wait, for as long as it lives.
#include "scx.h"

#define OWN 1
extern int scx_bpf_create_dsq(__u64 queue, int node) __ksym;
extern bool scx_bpf_dsq_move_to_local(__u64 queue) __ksym;

SEC("struct_ops/shut_enqueue")
void BPF_PROG(shut_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, p->nr_cpus_allowed == 1 ? LOCAL : OWN, SLICE, flags);
}

SEC("struct_ops/shut_select_cpu")
int BPF_PROG(shut_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return p->nr_cpus_allowed == 1 ? previous : 0;
}

SEC("struct_ops/shut_dispatch")
void BPF_PROG(shut_dispatch, int cpu, struct task_struct *previous)
{
	if (cpu != 1)
		scx_bpf_dsq_move_to_local(OWN);
}

SEC("struct_ops/shut_init")
int BPF_PROG(shut_init)
{
	return scx_bpf_create_dsq(OWN, -1);
}

SEC(".struct_ops")
struct sched_ext_ops shut = {
	.select_cpu = (void *)shut_select_cpu, .enqueue = (void *)shut_enqueue, .dispatch = (void *)shut_dispatch,
	.init = (void *)shut_init, .name = "shut",
};
