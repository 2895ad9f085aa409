// A struct_ops map: a scheduler that leaves everything to sched_ext's defaults, but for a program that does nothing.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

struct task_struct;
// The members that are set; the loader finds their places in the kernel's BTF.
struct sched_ext_ops {
	void (*enable)(struct task_struct *p);
	__u64 flags;
	__u32 timeout_ms;
	char name[128];
};

SEC("struct_ops/plain_enable")
void BPF_PROG(plain_enable, struct task_struct *p)
{
}

SEC(".struct_ops")
struct sched_ext_ops plain = {
	.enable = (void *)plain_enable,
	.timeout_ms = 4000,
	.name = "ktstr_plain",
};
