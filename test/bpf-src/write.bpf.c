// Variables and maps that are written from outside; `look` copies what it sees of them into `seen`.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

enum mode { IDLE, BUSY = 5 };
struct inner {
	int a;
	__u64 big;
};
struct stat {
	struct inner in;
	short cpus[4];
	enum mode mode;
	unsigned low : 3, high : 5;
};
struct guarded {
	struct bpf_spin_lock lock;
	int count;
};
// More than a page: a value that lies in two.
struct wide {
	char pad[4090];
	__u64 across[2];
};

struct stat g_stat = { .in = { -1, 1 } };
struct wide g_wide;
const volatile int constant = 3;
int same_name;

struct seen {
	int a;
	__u64 big;
	short cpu2;
	enum mode mode;
	int low, high;
	__u64 across, element, hashed, own;
	int count;
} seen;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1000);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");
struct key {
	__u32 id;
	__u16 port;
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct key);
	__type(value, struct inner);
} table SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} own SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct guarded);
} locked SEC(".maps");

SEC("tc")
int fill(struct __sk_buff *skb)
{
	struct inner value = { 1, 2 };
	struct guarded guarded = {};
	struct key key = {};
	__u32 number = 3;
	__u64 zero = 0;

	for (int i = 0; i < 40; i++) {
		key.id = i;
		key.port = 80;
		bpf_map_update_elem(&table, &key, &value, BPF_ANY);
	}
	bpf_map_update_elem(&own, &number, &zero, BPF_ANY);
	bpf_map_update_elem(&locked, &number, &guarded, BPF_ANY);
	return 0;
}

SEC("tc")
int look(struct __sk_buff *skb)
{
	struct key key = { .id = 17, .port = 80 };
	__u32 number = 999, three = 3;
	struct inner *inner = bpf_map_lookup_elem(&table, &key);
	__u64 *element = bpf_map_lookup_elem(&numbers, &number);
	__u64 *mine = bpf_map_lookup_elem(&own, &three);
	struct guarded *guarded = bpf_map_lookup_elem(&locked, &three);

	seen.a = g_stat.in.a;
	seen.big = g_stat.in.big;
	seen.cpu2 = g_stat.cpus[2];
	seen.mode = g_stat.mode;
	seen.low = g_stat.low;
	seen.high = g_stat.high;
	seen.across = g_wide.across[0];
	if (inner)
		seen.hashed = inner->big;
	if (element)
		seen.element = *element;
	if (mine)
		seen.own = *mine;
	if (guarded)
		seen.count = guarded->count;
	return constant;
}
