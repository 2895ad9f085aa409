// Has each task enqueued again instead of run, without an end. v7.3 counts that; before v7.1 it just never runs one.
#include "scx.h"

#define OWN 1
extern int scx_bpf_create_dsq(__u64 queue, int node) __ksym;
extern void scx_bpf_dsq_reenq(__u64 queue, __u64 flags) __ksym __weak;

SEC("struct_ops/again_select_cpu")
int BPF_PROG(again_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return previous;
}

SEC("struct_ops/again_enqueue")
void BPF_PROG(again_enqueue, struct task_struct *p, __u64 flags)
{
	scx_bpf_dsq_insert(p, p->flags & PF_KTHREAD ? LOCAL : OWN, SLICE, flags);
}

SEC("struct_ops/again_dispatch")
void BPF_PROG(again_dispatch, int cpu, struct task_struct *previous)
{
	if (scx_bpf_dsq_reenq)
		scx_bpf_dsq_reenq(OWN, 0);
}

SEC("struct_ops/again_init")
int BPF_PROG(again_init)
{
	return scx_bpf_create_dsq(OWN, -1);
}

SEC(".struct_ops")
struct sched_ext_ops again = {
	.select_cpu = (void *)again_select_cpu, .enqueue = (void *)again_enqueue, .dispatch = (void *)again_dispatch,
	.init = (void *)again_init, .timeout_ms = 1000, .name = "again",
};
