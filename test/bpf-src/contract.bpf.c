// The maps of test/bpf/contract, filled with values that depend on nothing but the entry and, in per-CPU maps, the CPU.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct prefix {
	__u32 length;
	__u8 address[4];
};

enum mode { MODE_OFF, MODE_ON };

struct row {
	__u64 wide; // beyond 2^53
	__s32 negative;
	enum mode mode;
	char text[8];
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

MAP(ct_hash, BPF_MAP_TYPE_HASH, 16, __u32, struct row, 0);
MAP(ct_array, BPF_MAP_TYPE_ARRAY, 3, __u32, __u64, 0);
MAP(ct_lru, BPF_MAP_TYPE_LRU_HASH, 64, __u32, __u64, 0);
MAP(ct_percpu, BPF_MAP_TYPE_PERCPU_ARRAY, 2, __u32, __u32, 0);
MAP(ct_percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, 8, __u32, __u64, 0);
MAP(ct_lru_percpu, BPF_MAP_TYPE_LRU_PERCPU_HASH, 64, __u32, __u64, 0);
MAP(ct_trie, BPF_MAP_TYPE_LPM_TRIE, 16, struct prefix, __u64, BPF_F_NO_PREALLOC);
MAP(ct_empty, BPF_MAP_TYPE_HASH, 4, __u32, __u32, 0);
KEYLESS(ct_queue, BPF_MAP_TYPE_QUEUE, 8, 4);
KEYLESS(ct_stack, BPF_MAP_TYPE_STACK, 8, 4);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ct_ring SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} ct_progs SEC(".maps");
struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} ct_inner SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} ct_outer SEC(".maps") = { .values = { [1] = &ct_inner } };
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} ct_outer_hash SEC(".maps") = { .values = { [2] = &ct_inner } };

static void fill_copies(void)
{
	__u32 key = 1;
	__u64 none = 0;

	bpf_map_update_elem(&ct_percpu_hash, &key, &none, 0);
	bpf_map_update_elem(&ct_lru_percpu, &key, &none, 0);
	for (__u32 cpu = 0; cpu < 256; cpu++) {
		__u32 *number = bpf_map_lookup_percpu_elem(&ct_percpu, &key, cpu);
		__u64 *hashed = bpf_map_lookup_percpu_elem(&ct_percpu_hash, &key, cpu);
		__u64 *recent = bpf_map_lookup_percpu_elem(&ct_lru_percpu, &key, cpu);

		if (!number || !hashed || !recent)
			break; // the number of CPUs that there may be
		*number = 100 + cpu;
		*hashed = 200 + cpu;
		*recent = 300 + cpu;
	}
}

SEC("tc")
int fill_contract(struct __sk_buff *skb)
{
	struct row row = { .wide = 1234567890123456789ULL, .negative = -5, .mode = MODE_ON, .text = "first" };
	struct row hiding = { .wide = 2, .negative = 3, .text = { 'a', 0, 'b' } }; // a byte behind the text's end
	struct prefix prefix = { .length = 24, .address = { 10, 0, 1, 0 } };
	__u32 key = 7, first = 0, second = 1;
	__u64 wide = 0x0102030405060708ULL;
	__u64 *number;

	bpf_map_update_elem(&ct_hash, &key, &row, 0);
	key = 8;
	bpf_map_update_elem(&ct_hash, &key, &hiding, 0);
	for (__u32 n = 0; n < 3; n++) {
		__u32 at = n;
		__u64 squared = n * n;
		__u32 queued = 10 + n;

		bpf_map_update_elem(&ct_array, &at, &squared, 0);
		bpf_map_update_elem(&ct_lru, &at, &squared, 0);
		bpf_map_push_elem(&ct_queue, &queued, 0);
		bpf_map_push_elem(&ct_stack, &queued, 0);
	}
	bpf_map_update_elem(&ct_trie, &prefix, &wide, 0);
	prefix.length = 8;
	prefix.address[2] = 0;
	wide = 8;
	bpf_map_update_elem(&ct_trie, &prefix, &wide, 0);
	bpf_ringbuf_output(&ct_ring, &wide, 8, 0);
	void *reserved = bpf_ringbuf_reserve(&ct_ring, 4, 0);
	if (reserved) {
		__builtin_memset(reserved, 0x5a, 4);
		bpf_ringbuf_discard(reserved, 0);
	}
	bpf_ringbuf_output(&ct_ring, "abc", 3, 0);
	number = bpf_map_lookup_elem(&ct_inner, &second);
	if (number)
		*number = 11;
	fill_copies();
	return 0;
}
