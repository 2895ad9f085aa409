// A struct_ops map: a congestion control of TCP whose functions are programs.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

struct sock;
// The members that are set; the loader finds their places in the kernel's BTF.
struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
	__u32 flags;
};

SEC("struct_ops/still_ssthresh")
__u32 BPF_PROG(still_ssthresh, struct sock *sk)
{
	return 2;
}

SEC("struct_ops/still_avoid")
void BPF_PROG(still_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC("struct_ops/still_undo")
__u32 BPF_PROG(still_undo, struct sock *sk)
{
	return 2;
}

SEC(".struct_ops")
struct tcp_congestion_ops still = {
	.ssthresh = (void *)still_ssthresh,
	.cong_avoid = (void *)still_avoid,
	.undo_cwnd = (void *)still_undo,
	.name = "ktstr_still",
};
