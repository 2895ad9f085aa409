// Programs of many kinds, for the lists of programs and links; programs-fill.sh runs and attaches them.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} first_map SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} second_map SEC(".maps");

__u64 runs;

__attribute__((noinline)) int a_subprogram(struct __sk_buff *skb)
{
	__u32 key = skb->len & 1;
	__u64 *slot = bpf_map_lookup_elem(&first_map, &key);

	if (slot)
		__sync_fetch_and_add(slot, 1);
	return skb->len;
}

SEC("tc")
int classifier_with_a_name_that_the_kernel_cuts(struct __sk_buff *skb)
{
	__u32 key = 7;

	runs++;
	bpf_map_update_elem(&second_map, &key, &runs, BPF_ANY);
	return a_subprogram(skb) > 0 ? 0 : 1;
}

// Exactly as long as the kernel's name, without its NUL: 15.
SEC("tc")
int fifteen_letters(struct __sk_buff *skb)
{
	return 0;
}

SEC("xdp")
int xdp_all(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int xdp_other(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx)
{
	return SK_PASS;
}

SEC("kprobe/__x64_sys_sethostname")
int probe(void *ctx)
{
	return 0;
}

SEC("kretprobe/__x64_sys_sethostname")
int probe_return(void *ctx)
{
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_sethostname")
int enter(void *ctx)
{
	return 0;
}

SEC("raw_tp/task_rename")
int raw_rename(void *ctx)
{
	return 0;
}

SEC("tp_btf/task_rename")
int typed_rename(void *ctx)
{
	return 0;
}

SEC("fentry/bpf_fentry_test1")
int entry(void *ctx)
{
	return 0;
}

SEC("fexit/bpf_fentry_test1")
int exit_of_test(void *ctx)
{
	return 0;
}

SEC("lsm/sb_mount")
int mounting(void *ctx)
{
	return 0;
}

SEC("iter/task")
int each_task(void *ctx)
{
	return 0;
}
