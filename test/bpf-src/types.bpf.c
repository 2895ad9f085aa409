// Every map type that is read entry by entry and every C type that a value may hold, filled with values that depend on
// nothing but the entry's number (and, in per-CPU maps, the CPU's). fill.sh loads and runs this; the maps are then
// compared with what bpftool says of them.
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

enum color { COLOR_INFRARED = -2, COLOR_NONE = 0, COLOR_RED = 1, COLOR_GREEN = 7, COLOR_MAX = 2147483647 };

typedef enum { MODE_OFF, MODE_ON, MODE_AUTO } run_mode;

typedef __u32 task_id;
typedef task_id worker_id;
typedef char letter;

struct opaque;

#define TYPE_TAG(name) __attribute__((btf_type_tag(#name)))
#define DECL_TAG(name) __attribute__((btf_decl_tag(#name)))

struct point {
	__s32 x, y;
};

struct bits {
	__u32 low : 3;
	__s32 sign : 5; // sign kept: -16..15
	__u32 across : 17; // bits 8..24
	__s32 last : 7;
	__u64 : 0; // ends a run: clang handles a longer one as an integer of 128 bits or more, which BPF has not
	__u64 wide : 33;
	__s64 wide_sign : 31;
	__u64 : 0;
	__s64 most : 63;
	__u64 top : 1;
	__u64 : 0;
	bool yes : 1;
	bool no : 1;
	enum color tint : 4;
	__s32 one : 1; // 0 or -1
	__u32 : 3;
	__u8 tail : 2;
} __attribute__((aligned(8)));

struct everything {
	__u64 past_double; // beyond 2^53 for most entries
	__s64 negative;
	__s32 s32;
	__u16 u16;
	__s16 s16;
	__u8 u8;
	__s8 s8;
	char single;
	bool truth;
	enum color color;
	enum color unknown_color;
	run_mode mode;
	worker_id worker;
	struct point at;
	const struct point *pointer;
	struct opaque *forward;
	int (*callback)(int, const char *);
	struct everything *next;
	union {
		__u64 whole;
		__u32 halves[2];
		struct {
			__u16 lowest;
			__s16 second;
		};
	};
	struct {
		__u32 inner;
		struct {
			__s32 innermost;
		};
	};
	union {
		__s32 as_int;
		struct point as_point;
		__u8 as_bytes[8];
	} named;
	struct {
		__u8 kind;
		struct bits bits;
	} nested;
	__u8 grid[3][2];
	__s16 signed_grid[2][1][2];
	struct point corners[2];
	enum color palette[3];
	bool answers[3];
	const void *pointers[2];
	char comm[16];
	char quoted[16];
	char words[2][8];
	char unterminated[4];
	char binary[6];
	char empty[4];
	letter aliased[4]; // a typedef of char
	__u8 raw[5];
	const volatile __u32 qualified;
	const char TYPE_TAG(user) *tagged;
	__u32 noted DECL_TAG(a_note);
	__u32 none[0];
};

struct wide {
	__int128 i128;
	unsigned __int128 u128;
	__u64 after;
};

struct reals {
	float f32;
	double f64;
	__u32 after;
};

struct padded_key { // 3 bytes of padding after `kind`, 6 after `port`
	__u8 kind;
	__u32 id;
	__u64 cookie;
	__u16 port;
};

struct bytes3 { __u8 b[3]; };
struct bytes5 { __u8 b[5]; };
struct bytes7 { __u8 b[7]; };
struct bytes13 { __u8 b[13]; };
struct packed9 {
	__u8 tag;
	__u64 value;
} __attribute__((packed));

struct counter {
	__u64 count;
	__s64 delta;
	__u32 cpu;
	struct bits bits;
	char name[8];
};

struct large { // more than a page
	__u32 number;
	char text[2000];
	__u32 words[1000];
};

struct locked {
	struct bpf_spin_lock lock;
	__u32 guarded;
};

struct between { // the kernel knows this struct by name; bpf(2) shows zeros in its place
	__u32 before;
	struct bpf_spin_lock lock;
	__u32 after;
};

#define MAP(map_name, map_type, entries, key_type, value_type)                                                        \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} map_name SEC(".maps")
#define MAP_FLAGS(map_name, map_type, entries, key_type, value_type, flags)                                           \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__uint(map_flags, flags);                                                                              \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} map_name SEC(".maps")

MAP(array_struct, BPF_MAP_TYPE_ARRAY, 20, __u32, struct everything);
MAP(array_odd, BPF_MAP_TYPE_ARRAY, 33, __u32, struct bytes13);
MAP(array_byte, BPF_MAP_TYPE_ARRAY, 7, __u32, __u8);
MAP(array_locked, BPF_MAP_TYPE_ARRAY, 2, __u32, struct between);
MAP(array_wide, BPF_MAP_TYPE_ARRAY, 5, __u32, struct wide);
MAP(array_reals, BPF_MAP_TYPE_ARRAY, 3, __u32, struct reals);
MAP_FLAGS(array_mmap, BPF_MAP_TYPE_ARRAY, 600, __u32, struct counter, BPF_F_MMAPABLE);
MAP(hash_4096, BPF_MAP_TYPE_HASH, 4096, struct padded_key, struct counter);
MAP(hash_struct, BPF_MAP_TYPE_HASH, 200, struct padded_key, struct everything);
// The kernel keeps 15 bytes of a name.
MAP_FLAGS(hash_made_on_demand, BPF_MAP_TYPE_HASH, 512, __u64, struct counter, BPF_F_NO_PREALLOC);
MAP(hash_full, BPF_MAP_TYPE_HASH, 64, worker_id, struct packed9);
MAP(hash_empty, BPF_MAP_TYPE_HASH, 100, __u32, struct point);
MAP(hash_key1, BPF_MAP_TYPE_HASH, 256, __u8, struct bytes3);
MAP(hash_key3, BPF_MAP_TYPE_HASH, 50, struct bytes3, struct bytes5);
MAP(hash_key5, BPF_MAP_TYPE_HASH, 50, struct bytes5, struct bytes7);
MAP(hash_key7, BPF_MAP_TYPE_HASH, 50, struct bytes7, __u16);
MAP_FLAGS(hash_key9, BPF_MAP_TYPE_HASH, 50, struct packed9, struct bytes13, BPF_F_NO_PREALLOC);
MAP(hash_key13, BPF_MAP_TYPE_HASH, 50, struct bytes13, __u8);
MAP(hash_enum, BPF_MAP_TYPE_HASH, 16, enum color, run_mode);
MAP(hash_locked, BPF_MAP_TYPE_HASH, 16, __s32, struct locked);
MAP(lru, BPF_MAP_TYPE_LRU_HASH, 1024, __u64, struct counter);
MAP_FLAGS(lru_own_lists, BPF_MAP_TYPE_LRU_HASH, 1024, struct bytes5, struct point, BPF_F_NO_COMMON_LRU);
MAP(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY, 9, __u32, struct counter);
MAP(percpu_odd, BPF_MAP_TYPE_PERCPU_ARRAY, 4, __u32, struct bytes13);
MAP(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, 64, struct bytes3, struct counter);
MAP_FLAGS(percpu_lazy, BPF_MAP_TYPE_PERCPU_HASH, 64, __u64, struct bytes5, BPF_F_NO_PREALLOC);
MAP(lru_percpu, BPF_MAP_TYPE_LRU_PERCPU_HASH, 128, __u32, struct counter);
MAP(array_large, BPF_MAP_TYPE_ARRAY, 3, __u32, struct large);
MAP_FLAGS(hash_large, BPF_MAP_TYPE_HASH, 4, __u32, struct large, BPF_F_NO_PREALLOC);
MAP(percpu_large, BPF_MAP_TYPE_PERCPU_ARRAY, 2, __u32, struct large);

const volatile __u64 threshold = 18446744073709551615ULL;
const volatile char banner[32] = "tabs\tno, quotes \"yes\" \\";
const volatile struct point origin = { -1, 2147483647 };
static const volatile __s8 hidden_constant = -7;
__s64 balance = -9223372036854775807LL - 1;
enum color favourite = COLOR_GREEN;
struct point *first_corner = (struct point *)0xffff888000001234;
struct bits knobs = { .low = 5, .sign = -11, .across = 0x15555, .last = -1, .wide = 0x1aaaaaaaaULL, .wide_sign = -3 };
static volatile char label[8] = "static";
__u32 matrix[2][3] = { { 1, 2, 3 }, { 4, 5, 4294967295U } };
__u64 runs;
__u32 cpus_seen;
bool finished;
static volatile __u32 hidden_counter;
struct everything scratch; // large values are made here: the stack has 512 bytes
struct large large;
__u32 extra SEC(".data.extra") = 77;

static __always_inline __u64 mix(__u64 i)
{
	i = (i + 1) * 0x9e3779b97f4a7c15ULL;
	return i ^ (i >> 29);
}

static __always_inline void bytes_of(__u8 *to, __u32 length, __u64 i)
{
	__u64 x = mix(i);

	for (__u32 n = 0; n < length; n++)
		to[n] = n == 0 ? i : x >> (n * 5 % 57);
}

static __always_inline void digits(char *to, __u32 i)
{
	to[0] = '0' + i / 1000 % 10;
	to[1] = '0' + i / 100 % 10;
	to[2] = '0' + i / 10 % 10;
	to[3] = '0' + i % 10;
}

static __always_inline void fill_bits(struct bits *b, __u64 i)
{
	__u64 x = mix(i & 15); // few different ones: the capture of 4096 entries compresses better

	b->low = i;
	b->sign = i - 16;
	b->across = x;
	b->last = x >> 20;
	b->wide = x >> 3;
	b->wide_sign = x >> 30;
	b->most = x ^ 0x5555555555555555ULL;
	b->top = i;
	b->yes = i & 1;
	b->no = i & 2;
	b->tint = i % 5 == 4 ? COLOR_GREEN : i % 5;
	b->one = i;
	b->tail = i >> 1;
}

static __always_inline enum color color_of(__u64 i)
{
	switch (i % 5) {
	case 0: return COLOR_NONE;
	case 1: return COLOR_RED;
	case 2: return COLOR_GREEN;
	case 3: return COLOR_INFRARED;
	default: return COLOR_MAX;
	}
}

static __always_inline void fill_everything(struct everything *e, __u32 i)
{
	__u64 x = mix(i);

	e->past_double = i == 0 ? 9007199254740991ULL : i == 1 ? 9007199254740992ULL : x;
	e->negative = i == 0 ? -9007199254740991LL : i == 1 ? -9007199254740993LL : -(__s64)(x >> 1);
	e->s32 = -(__s32)i;
	e->u16 = x;
	e->s16 = x;
	e->u8 = x;
	e->s8 = x;
	e->single = ' ' + i % 95;
	e->truth = x & 1;
	e->color = color_of(i);
	*(__s32 *)&e->unknown_color = i & 1 ? 1234 : -1234;
	e->mode = i % 3;
	e->worker = x >> 7;
	e->at.x = i;
	e->at.y = -(__s32)i;
	e->pointer = (void *)(0xffff888000000000ULL | x >> 40 << 3);
	e->forward = (void *)(i & 1 ? ~0ULL : 0);
	e->callback = (void *)(0xffffffffc0000000ULL + i);
	e->next = (void *)(__u64)i;
	e->whole = x;
	e->inner = i;
	e->innermost = -(__s32)i;
	e->named.as_point.x = i;
	e->named.as_point.y = x;
	e->nested.kind = i;
	fill_bits(&e->nested.bits, i);
	for (int n = 0; n < 6; n++)
		e->grid[n / 2][n % 2] = i + n;
	for (int n = 0; n < 4; n++)
		e->signed_grid[n / 2][0][n % 2] = n - (__s32)i;
	for (int n = 0; n < 2; n++) {
		e->corners[n].x = n + i;
		e->corners[n].y = n - i;
		e->pointers[n] = (void *)(x << n);
	}
	for (int n = 0; n < 3; n++) {
		e->palette[n] = color_of(i + n);
		e->answers[n] = i >> n & 1;
	}
	__builtin_memcpy(e->comm, "task/", 5);
	digits(e->comm + 5, i);
	__builtin_memcpy(e->quoted, "\"a\\b\"/'", 8); // and bytes after the NUL
	digits(e->quoted + 8, i);
	__builtin_memcpy(e->words[0], "left", 5);
	if (i & 1)
		__builtin_memcpy(e->words[1], "right77", 8);
	digits(e->unterminated, i);
	__builtin_memcpy(e->binary, "\x01\x7f\x80\xff\xc3", 6);
	e->empty[1] = 'x';
	digits(e->aliased, i);
	e->aliased[3] = 0;
	for (int n = 0; n < 5; n++)
		e->raw[n] = x >> n * 8;
	*(volatile __u32 *)&e->qualified = i * 3;
	e->tagged = (void *)(0x7fff00000000ULL + i);
	e->noted = i;
}

static __always_inline void fill_counter(struct counter *c, __u64 i, __u32 cpu)
{
	c->count = mix(i * 131 + cpu);
	c->delta = -(__s64)(i * 1000 + cpu);
	c->cpu = cpu;
	fill_bits(&c->bits, i + cpu);
	__builtin_memcpy(c->name, "cpu-", 4);
	c->name[4] = '0' + cpu % 10;
	c->name[5] = 0;
}

static __always_inline void fill_large(struct large *l, __u32 i)
{
	l->number = i;
	digits(l->text, i);
	l->text[1999] = 'z'; // behind the string's NUL
	l->words[0] = i + 1;
	l->words[520] = i + 2; // about where a page ends, if one begins with the value
	l->words[523] = i + 3;
	l->words[999] = i + 4;
}

static long fill_big(__u32 i, void *unused)
{
	struct padded_key key;
	struct counter counter = {};

	__builtin_memset(&key, 0, sizeof(key)); // the padding is part of the key
	key.kind = i;
	key.id = i;
	key.cookie = mix(i);
	key.port = i * 7;
	fill_counter(&counter, i, 0);
	bpf_map_update_elem(&hash_4096, &key, &counter, 0);
	if (i < 150) {
		__builtin_memset(&scratch, 0, sizeof(scratch));
		fill_everything(&scratch, i);
		bpf_map_update_elem(&hash_struct, &key, &scratch, 0);
	}
	return 0;
}

static long fill_small(__u32 i, void *unused)
{
	__u64 wide_key = mix(i);
	struct counter *slot, counter = {};

	fill_counter(&counter, i, 0);
	slot = bpf_map_lookup_elem(&array_mmap, &i);
	if (slot)
		*slot = counter;
	if (i < 400)
		bpf_map_update_elem(&hash_made_on_demand, &wide_key, &counter, 0);
	if (i < 700)
		bpf_map_update_elem(&lru, &wide_key, &counter, 0);
	if (i < 500) {
		struct bytes5 key;
		struct point value = { i, -(__s32)i };

		bytes_of(key.b, 5, wide_key);
		bpf_map_update_elem(&lru_own_lists, &key, &value, 0);
	}
	return 0;
}

static long fill_odd(__u32 i, void *unused)
{
	struct bytes3 b3;
	struct bytes5 b5;
	struct bytes7 b7;
	struct bytes13 b13, *slot;
	struct packed9 p9 = { i, mix(i) };
	__u16 u16 = i * 257;
	__u8 u8 = i, *byte;

	bytes_of(b3.b, 3, i);
	bytes_of(b5.b, 5, i);
	bytes_of(b7.b, 7, i);
	bytes_of(b13.b, 13, i);
	slot = bpf_map_lookup_elem(&array_odd, &i);
	if (slot)
		*slot = b13;
	byte = bpf_map_lookup_elem(&array_byte, &i);
	if (byte)
		*byte = i * 40;
	bpf_map_update_elem(&hash_full, &i, &p9, 0); // fails when the map is full: that is the point
	bpf_map_update_elem(&hash_key1, &u8, &b3, 0);
	b3.b[0] = u8;
	bpf_map_update_elem(&hash_key1, &u8, &b3, 0); // replaces: another element now holds the entry
	if (i % 7 == 3)
		bpf_map_delete_elem(&hash_key1, &u8);
	if (i < 50) {
		bpf_map_update_elem(&hash_key3, &b3, &b5, 0);
		bpf_map_update_elem(&hash_key5, &b5, &b7, 0);
		bpf_map_update_elem(&hash_key7, &b7, &u16, 0);
		bpf_map_update_elem(&hash_key9, &p9, &b13, 0);
		bpf_map_update_elem(&hash_key13, &b13, &u8, 0);
	}
	if (i < 10) {
		__s32 color = i < 5 ? color_of(i) : i * 100;
		__u32 mode = i;
		__s32 signed_key = 3 - (__s32)i;
		struct locked locked = { .guarded = i };

		bpf_map_update_elem(&hash_enum, &color, &mode, 0);
		bpf_map_update_elem(&hash_locked, &signed_key, &locked, 0);
	}
	return 0;
}

static long fill_arrays(__u32 i, void *unused)
{
	struct everything *e = bpf_map_lookup_elem(&array_struct, &i);
	struct wide *w = bpf_map_lookup_elem(&array_wide, &i);
	struct reals *r = bpf_map_lookup_elem(&array_reals, &i);
	struct between *b = bpf_map_lookup_elem(&array_locked, &i);

	if (e)
		fill_everything(e, i);
	if (b) {
		b->before = i + 1;
		b->after = i + 2;
	}
	if (w) {
		__u64 *words = (__u64 *)w;

		words[0] = i == 0 ? 42 : mix(i);
		words[1] = i == 0 ? 0 : i == 1 ? ~0ULL : mix(i + 1);
		words[2] = i == 0 ? 42 : ~mix(i);
		words[3] = i == 0 ? 0 : mix(i + 2);
		w->after = i;
	}
	if (i < 3) {
		struct large *l = bpf_map_lookup_elem(&array_large, &i);

		if (l)
			fill_large(l, i);
		fill_large(&large, i + 100);
		bpf_map_update_elem(&hash_large, &i, &large, 0);
	}
	if (r) { // BPF has no floating point: store the bits
		*(__u32 *)&r->f32 = i == 0 ? 0x3fc00000 : i == 1 ? 0xc2f6e979 : 0x7f800000; // 1.5, -123.456, inf
		*(__u64 *)&r->f64 = i == 0 ? 0x3fb999999999999aULL : i == 1 ? 0xc3e0000000000000ULL : 0x7ff8000000000000ULL;
		r->after = i;
	}
	return 0;
}

static long fill_percpu(__u32 i, void *unused)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct counter *slot, counter = {};
	struct bytes13 *odd;
	struct large *large;
	struct bytes3 key;
	struct bytes5 small;
	__u64 wide_key = mix(i);

	fill_counter(&counter, i, cpu);
	slot = bpf_map_lookup_elem(&percpu_array, &i);
	if (slot)
		*slot = counter;
	odd = bpf_map_lookup_elem(&percpu_odd, &i);
	if (odd)
		bytes_of(odd->b, 13, i * 16 + cpu);
	large = bpf_map_lookup_elem(&percpu_large, &i);
	if (large)
		fill_large(large, i * 100 + cpu);
	if (i >= 40)
		return 0;
	bytes_of(key.b, 3, i);
	bytes_of(small.b, 5, i * 16 + cpu);
	bpf_map_update_elem(&percpu_hash, &key, &counter, 0);
	bpf_map_update_elem(&percpu_lazy, &wide_key, &small, 0);
	bpf_map_update_elem(&lru_percpu, &i, &counter, 0);
	return 0;
}

#ifdef BY_STEPS
__u32 steps, cpu_steps;
#define LOOP(step, count, fill)                                                                                      \
	if (step < count)                                                                                             \
	fill(step, 0)
#else
#define LOOP(step, count, fill) bpf_loop(count, fill, 0, 0)
#endif

/** Once, on any CPU; by steps as many times as entries are filled. */
SEC("tc")
int fill_all(struct __sk_buff *skb)
{
	LOOP(steps, 4096, fill_big);
	LOOP(steps, 1000, fill_small);
	LOOP(steps, 256, fill_odd);
	LOOP(steps, 20, fill_arrays);
#ifdef BY_STEPS
	steps++;
#endif
	hidden_counter = 4096 + hidden_constant + label[0];
	runs = threshold + (__u64)banner[0] + origin.x + extra + balance + favourite + knobs.low + matrix[1][2];
	runs += first_corner == 0;
	finished = true;
	return 0;
}

/** Once on each CPU; by steps as many times as entries are filled. */
SEC("tc")
int fill_cpu(struct __sk_buff *skb)
{
#ifdef BY_STEPS
	fill_percpu(cpu_steps++ % 40, 0);
#else
	bpf_loop(40, fill_percpu, 0, 0);
#endif
	cpus_seen |= 1U << (bpf_get_smp_processor_id() & 31);
	return 0;
}
