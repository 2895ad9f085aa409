// The struct_ops map of test/bpf/contract: a congestion control of TCP under a name that no other test registers.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

struct sock;
struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
	__u32 flags;
};

SEC("struct_ops/ct_ssthresh")
__u32 BPF_PROG(ct_ssthresh, struct sock *sk)
{
	return 2;
}

SEC("struct_ops/ct_avoid")
void BPF_PROG(ct_avoid, struct sock *sk, __u32 ack, __u32 acked)
{
}

SEC("struct_ops/ct_undo")
__u32 BPF_PROG(ct_undo, struct sock *sk)
{
	return 2;
}

SEC(".struct_ops")
struct tcp_congestion_ops ct_ops = {
	.ssthresh = (void *)ct_ssthresh,
	.cong_avoid = (void *)ct_avoid,
	.undo_cwnd = (void *)ct_undo,
	.name = "ktstr_contract",
};
