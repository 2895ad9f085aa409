// Each run counts, adds a key and removes an old one: two looks at it differ in known ways.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct {
	__u64 runs;
	__s64 down;
	char text[8];
} state = { .text = "same" };

int go; // set from outside

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} window SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} each_cpu SEC(".maps");

SEC("tc")
int step(struct __sk_buff *skb)
{
	__u64 now = ++state.runs, square = now * now, old = now - 8;
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&each_cpu, &zero);

	state.down -= 3;
	bpf_map_update_elem(&window, &now, &square, BPF_ANY);
	bpf_map_delete_elem(&window, &old);
	if (count)
		++*count;
	return 0;
}
