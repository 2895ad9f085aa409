// One map of each type that is found and described; whether its entries are read is up to the reader.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct prefix {
	__u32 length;
	__u8 address[4];
};

#define MAP(map_name, map_type, entries, key_type, value_type, flags)                                                 \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__uint(map_flags, flags);                                                                              \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} map_name SEC(".maps")
#define KEYLESS(map_name, map_type, entries, value_bytes)                                                             \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__uint(value_size, value_bytes);                                                                       \
	} map_name SEC(".maps")
#define FD_MAP(map_name, map_type, entries)                                                                           \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__uint(key_size, 4);                                                                                   \
		__uint(value_size, 4);                                                                                 \
	} map_name SEC(".maps")

MAP(lpm_trie, BPF_MAP_TYPE_LPM_TRIE, 16, struct prefix, __u64, BPF_F_NO_PREALLOC);
MAP(task_storage, BPF_MAP_TYPE_TASK_STORAGE, 0, int, __u64, BPF_F_NO_PREALLOC);
MAP(sk_storage, BPF_MAP_TYPE_SK_STORAGE, 0, int, __u64, BPF_F_NO_PREALLOC);
KEYLESS(queue, BPF_MAP_TYPE_QUEUE, 8, 4);
KEYLESS(stack, BPF_MAP_TYPE_STACK, 8, 8);
KEYLESS(bloom, BPF_MAP_TYPE_BLOOM_FILTER, 100, 4);
FD_MAP(prog_array, BPF_MAP_TYPE_PROG_ARRAY, 4);
FD_MAP(perf_events, BPF_MAP_TYPE_PERF_EVENT_ARRAY, 0);
FD_MAP(cgroup_array, BPF_MAP_TYPE_CGROUP_ARRAY, 2);
FD_MAP(devmap, BPF_MAP_TYPE_DEVMAP, 4);
FD_MAP(cpumap, BPF_MAP_TYPE_CPUMAP, 4);
FD_MAP(sockmap, BPF_MAP_TYPE_SOCKMAP, 4);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ringbuf SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} user_ringbuf SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 32);
	__uint(key_size, 4);
	__uint(value_size, 80);
} stack_traces SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} inner_first SEC(".maps"), inner_second SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} array_of_maps SEC(".maps") = { .values = { [0] = &inner_first, [2] = &inner_second } };
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} hash_of_maps SEC(".maps") = { .values = { [1] = &inner_first } };

SEC("tc")
int fill_kinds(struct __sk_buff *skb)
{
	struct prefix prefix = { .length = 24, .address = { 10, 0, 1, 0 } };
	__u64 wide = 1234567890123456789ULL;
	__u32 number = 7, key = 1;
	__u64 *inner;

	bpf_map_update_elem(&lpm_trie, &prefix, &wide, 0);
	prefix.length = 8;
	wide = 8;
	bpf_map_update_elem(&lpm_trie, &prefix, &wide, 0);
	bpf_map_push_elem(&queue, &number, 0);
	bpf_map_push_elem(&stack, &wide, 0);
	bpf_map_push_elem(&bloom, &number, 0);
	bpf_ringbuf_output(&ringbuf, &wide, sizeof(wide), 0);
	inner = bpf_map_lookup_elem(&inner_first, &key);
	if (inner)
		*inner = 11;
	return 0;
}
