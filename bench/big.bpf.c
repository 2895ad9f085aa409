// A map of a million entries: key 8 bytes (of an array 4), value 72. TYPE is the map's type, hash if it is not given; with
// PERCPU the values of both CPUs are filled.
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
enum kind { K_NONE = 0, K_A = 1, K_B = 7 };
#ifndef TYPE
#define TYPE BPF_MAP_TYPE_HASH
#endif
#ifdef ARRAY
typedef __u32 map_key;
#define KEY(i) (i)
#else
struct key { __u32 pid, cpu; }; /* of a trie: 32 bits of prefix, so all of them count */
typedef struct key map_key;
#ifdef TRIE
#define KEY(i) { 32, i }
#else
#define KEY(i) { i, i & 7 }
#endif
#endif
struct inner { __u32 a; __s32 b : 5; __u32 c : 3; __s32 d : 11; char name[16]; };
struct value {
	__u64 count;
	struct inner in;
	enum kind kind;
	__u8 grid[3][2];
	void *pointer;
	union { __u64 whole; __u32 halves[2]; };
	bool flag;
};
_Static_assert(sizeof(struct value) == 72, "72 bytes");
struct {
	__uint(type, TYPE);
#ifdef TRIE
	__uint(map_flags, BPF_F_NO_PREALLOC);
#endif
	__uint(max_entries, 1000000);
	__type(key, map_key);
	__type(value, struct value);
} big_map SEC(".maps");
__u32 next_index;
static long one(__u32 n, void *unused)
{
	__u32 i = next_index++;
	map_key key = KEY(i);
	struct value v;
	__u64 x = (i + 1ULL) * 0x9e3779b97f4a7c15ULL;
	__builtin_memset(&v, 0, sizeof(v));
	v.count = x >> (i & 31);
	v.in.a = i; v.in.b = i - 16; v.in.c = i >> 5; v.in.d = i;
	__builtin_memcpy(v.in.name, "task/", 5);
	__u32 d = i;
	#pragma unroll
	for (int p = 0; p < 7; p++) { v.in.name[11 - p] = '0' + d % 10; d /= 10; }
	v.kind = i % 3 == 0 ? K_NONE : i % 3 == 1 ? K_A : K_B;
	#pragma unroll
	for (int p = 0; p < 6; p++) v.grid[p / 2][p % 2] = i + p;
	v.pointer = (void *)(0xffff888000000000ULL + (__u64)i * 64);
	v.whole = x;
	v.flag = i & 1;
#ifdef PERCPU
	struct value *copy;
#ifndef ARRAY
	bpf_map_update_elem(&big_map, &key, &v, 0);
#endif
	for (__u32 cpu = 0; cpu < 2; cpu++) {
		v.in.d = cpu;
		copy = bpf_map_lookup_percpu_elem(&big_map, &key, cpu);
		if (copy)
			*copy = v;
	}
#else
	bpf_map_update_elem(&big_map, &key, &v, 0);
#endif
	return 0;
}
SEC("tc") int fill_big_map(struct __sk_buff *skb) { bpf_loop(1000, one, 0, 0); return 0; }
