// Runs the process that came last; those that came before wait for as long as others come.
#include "scx.h"
#include <bpf/bpf_core_read.h>

enum scx_enq_flags {
	SCX_ENQ_HEAD = 1,
	SCX_ENQ_WIDE = 1ull << 63, // it has 64 bits
};

SEC("struct_ops/newest_select_cpu")
int BPF_PROG(newest_select_cpu, struct task_struct *p, int previous, __u64 flags)
{
	return previous;
}

SEC("struct_ops/newest_enqueue")
void BPF_PROG(newest_enqueue, struct task_struct *p, __u64 flags)
{
	__u64 head = bpf_core_enum_value(enum scx_enq_flags, SCX_ENQ_HEAD);

	scx_bpf_dsq_insert(p, LOCAL, SLICE, p->flags & PF_KTHREAD ? flags : flags | head);
}

SEC(".struct_ops")
struct sched_ext_ops newest = {
	.select_cpu = (void *)newest_select_cpu, .enqueue = (void *)newest_enqueue, .name = "newest",
};
