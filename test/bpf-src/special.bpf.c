// Parts of values that the kernel keeps for programs, and maps whose slots name programs, as kernels from 6.1 on have them:
// special-fill.c fills them. A dynptr is not among them: the verifier lets programs keep one on their stack alone.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

// The tag of a pointer that is not counted is `kptr` up to v6.3.
#ifndef UNCOUNTED
#define UNCOUNTED "kptr_untrusted"
#endif
#define MONOTONIC 1
#define BOOTTIME 7
#define HOUR 3600000000000ull

char _license[] SEC("license") = "GPL";

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

struct timed {
	__u64 from, to; // when it was started, by bpf_ktime_get_ns
	struct bpf_timer timer;
	__u32 fired;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 5);
	__type(key, __u32);
	__type(value, struct timed);
} timers SEC(".maps");

typedef struct task_struct a_task; // clang 14 drops the tag of a pointer to a struct, but not to a typedef of it
struct watched {
	a_task __attribute__((btf_type_tag(UNCOUNTED))) *task;
	int pid;
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct watched);
} watched_tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring_busy SEC(".maps");

struct device_value {
	__u32 ifindex, program;
};
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct device_value);
} devices SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct device_value);
} device_hash SEC(".maps");
struct cpu_value {
	__u32 qsize, program;
};
struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct cpu_value);
} cpus SEC(".maps");
// Of a cgroup, whatever it is attached as: the key is the cgroup's id alone.
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, __u64);
} shared_storage SEC(".maps");

static int on_timer(void *map, __u32 *key, struct timed *value)
{
	__sync_fetch_and_add(&value->fired, 1);
	return 0;
}

/** 0 is armed, 1 was cancelled, 2 fires at once, 3 was never started, 4 is not initialised. */
SEC("tc")
int fill_timers(struct __sk_buff *skb)
{
	for (__u32 n = 0; n < 4; n++) {
		__u32 key = n;
		struct timed *value = bpf_map_lookup_elem(&timers, &key);

		if (!value || bpf_timer_init(&value->timer, &timers, n == 3 ? BOOTTIME : MONOTONIC))
			return 1;
		if (bpf_timer_set_callback(&value->timer, on_timer))
			return 2;
		if (n == 3)
			continue;
		value->from = bpf_ktime_get_ns();
		if (bpf_timer_start(&value->timer, n == 2 ? 1 : HOUR, 0))
			return 3;
		value->to = bpf_ktime_get_ns();
		if (n == 1 && bpf_timer_cancel(&value->timer) != 1)
			return 4;
	}
	return 0;
}

/** The task that runs this. */
SEC("tc")
int watch_task(struct __sk_buff *skb)
{
	__u32 key = 7;
	struct watched none = {}, *value;
	struct task_struct *task = bpf_get_current_task_btf();

	bpf_map_update_elem(&watched_tasks, &key, &none, BPF_ANY);
	key = 8;
	bpf_map_update_elem(&watched_tasks, &key, &none, BPF_ANY);
	value = bpf_map_lookup_elem(&watched_tasks, &key);
	if (!value)
		return 1;
	value->task = task;
	value->pid = task->pid;
	return 0;
}

/** A record of `length` bytes of `fill`: submitted, or discarded. */
SEC("tc")
int add_record(struct __sk_buff *skb)
{
	__u8 *record = bpf_ringbuf_reserve(&ring_busy, 24, 0);

	if (!record)
		return 1;
	__builtin_memset(record, skb->mark, 24);
	if (skb->mark & 1)
		bpf_ringbuf_discard(record, 0);
	else
		bpf_ringbuf_submit(record, 0);
	return 0;
}

struct address {
	__u64 at;
};

/** Reserves a record and then waits for a page that never comes. */
SEC("syscall")
int reserve_and_wait(struct address *context)
{
	__u8 *record = bpf_ringbuf_reserve(&ring_busy, 40, 0);
	char byte;

	if (!record)
		return 1;
	__builtin_memset(record, 0xbb, 40);
	bpf_copy_from_user(&byte, 1, (void *)context->at);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("xdp/devmap")
int on_device(struct xdp_md *context)
{
	return XDP_PASS;
}

SEC("xdp/cpumap")
int on_cpu(struct xdp_md *context)
{
	return XDP_DROP;
}

SEC("cgroup_skb/egress")
int share_storage(struct __sk_buff *skb)
{
	__u64 *shared = bpf_get_local_storage(&shared_storage, 0);

	(*shared)++;
	return 1;
}
