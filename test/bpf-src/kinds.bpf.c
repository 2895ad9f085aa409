// Maps of the types that are no plain keys and values. What only user space can put into them is done by kinds-fill.c.
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
struct owned {
	__u64 number;
	char text[8];
};
MAP(task_storage, BPF_MAP_TYPE_TASK_STORAGE, 0, int, struct owned, BPF_F_NO_PREALLOC);
MAP(sk_storage, BPF_MAP_TYPE_SK_STORAGE, 0, int, struct owned, BPF_F_NO_PREALLOC);
MAP(inode_storage, BPF_MAP_TYPE_INODE_STORAGE, 0, int, struct owned, BPF_F_NO_PREALLOC);
MAP(cgroup_storage, BPF_MAP_TYPE_CGROUP_STORAGE, 0, struct bpf_cgroup_storage_key, struct owned, 0);
MAP(percpu_storage, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE, 0, struct bpf_cgroup_storage_key, struct owned, 0);
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
	__uint(max_entries, 16);
	__uint(map_flags, BPF_F_STACK_BUILD_ID);
	__uint(key_size, 4);
	__uint(value_size, 4 * sizeof(struct bpf_stack_build_id));
} stack_build_ids SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring_wrapped SEC(".maps");
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

__u8 record[256];
__u32 records;

/** One record: 1 to 128 bytes that all say its number; of five the last is discarded. */
SEC("tc")
int fill_ring(struct __sk_buff *skb)
{
	__u32 number = records++, length = 1 + (number * 37 & 127);

	for (__u32 n = 0; n < sizeof(record); n++)
		record[n] = number;
	if (number % 5 == 4) {
		__u8 *reserved = bpf_ringbuf_reserve(&ring_wrapped, 40, 0);

		if (!reserved)
			return 1;
		__builtin_memset(reserved, number, 40);
		bpf_ringbuf_discard(reserved, 0);
		return 0;
	}
	return bpf_ringbuf_output(&ring_wrapped, record, length, 0) < 0;
}

/** The ids of the kernel stack and of the user stack from here. */
SEC("raw_tp")
int kernel_stack(void *context)
{
	return bpf_get_stackid(context, &stack_traces, 0);
}

SEC("raw_tp")
int user_stack(void *context)
{
	return bpf_get_stackid(context, &stack_build_ids, BPF_F_USER_STACK);
}

/** Makes the kernel keep storage for each cgroup that this is attached to. */
SEC("cgroup_skb/egress")
int use_storage(struct __sk_buff *skb)
{
	struct owned *shared = bpf_get_local_storage(&cgroup_storage, 0);
	struct owned *own = bpf_get_local_storage(&percpu_storage, 0);

	shared->number++;
	own->number++;
	return 1;
}
