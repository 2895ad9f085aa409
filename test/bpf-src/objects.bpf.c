// Objects that programs allocate, in lists, trees and map values, and kernel objects that map values hold: what kernels from
// 6.10 on have. special-fill.c runs the programs.
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

#define KPTR __attribute__((btf_type_tag("kptr")))
#define PERCPU_KPTR __attribute__((btf_type_tag("percpu_kptr")))
#define CONTAINS(type, node) __attribute__((btf_decl_tag("contains:" #type ":" #node)))
#define NEW(type) bpf_obj_new_impl(bpf_core_type_id_local(type), NULL)
#define ITEM(node_pointer, member) ((struct item *)((void *)(node_pointer)-offsetof(struct item, member)))

// include/uapi/linux/bpf.h, v6.12
struct bpf_list_head { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_node { __u64 __opaque[3]; } __attribute__((aligned(8)));
struct bpf_rb_root { __u64 __opaque[2]; } __attribute__((aligned(8)));
struct bpf_rb_node { __u64 __opaque[4]; } __attribute__((aligned(8)));
struct bpf_refcount { __u32 __opaque[1]; } __attribute__((aligned(4)));
struct bpf_wq { __u64 __opaque[2]; } __attribute__((aligned(8)));

struct task_struct { int pid; } __attribute__((preserve_access_index));
struct cgroup { int level; } __attribute__((preserve_access_index));
struct bpf_cpumask { int usage; } __attribute__((preserve_access_index));

extern void *bpf_obj_new_impl(__u64 local_type_id, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *object, void *meta) __ksym;
extern void *bpf_percpu_obj_new_impl(__u64 local_type_id, void *meta) __ksym;
extern void bpf_percpu_obj_drop_impl(void *object, void *meta) __ksym;
extern void *bpf_refcount_acquire_impl(void *object, void *meta) __ksym;
extern int bpf_list_push_back_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, __u64 off) __ksym;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
extern int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node,
			       bool(less)(struct bpf_rb_node *a, const struct bpf_rb_node *b), void *meta, __u64 off) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern struct cgroup *bpf_cgroup_from_id(__u64 id) __ksym;
extern void bpf_cgroup_release(struct cgroup *cgroup) __ksym;
extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym;
extern void bpf_cpumask_release(struct bpf_cpumask *mask) __ksym;
extern void bpf_cpumask_set_cpu(__u32 cpu, struct bpf_cpumask *mask) __ksym;
extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym;
extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;
#ifndef SET_CALLBACK
#define SET_CALLBACK(wq, callback) bpf_wq_set_callback_impl(wq, callback, 0, NULL)
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq, int(callback)(void *map, int *key, void *value), unsigned int flags,
				    void *aux) __ksym;
#endif

struct item {
	__u64 number;
	struct bpf_list_node node;
	struct bpf_rb_node branch;
	struct bpf_refcount references;
	char name[8];
};
struct member {
	struct bpf_list_node node;
	__u32 number;
};
struct group {
	struct bpf_spin_lock lock;
	__u32 id;
	struct bpf_list_head members CONTAINS(member, node);
};
struct count {
	__u64 count;
};

struct shelf {
	struct bpf_spin_lock lock;
	__u32 number;
	struct bpf_list_head items CONTAINS(item, node);
	struct bpf_rb_root sorted CONTAINS(item, branch);
};
// 0: 5 items, 1: had one, 2: never used
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct shelf);
} shelves SEC(".maps");

// clang 14 drops the tag of a pointer to a struct, but not to a typedef of it.
typedef struct task_struct a_task;
typedef struct cgroup a_cgroup;
typedef struct bpf_cpumask a_mask;
typedef struct item an_item;
typedef struct group a_group;
typedef struct count a_count;
struct held {
	a_task KPTR *task;
	a_cgroup KPTR *cgroup;
	a_mask KPTR *mask;
	an_item KPTR *item;
	a_group KPTR *group;
	a_count PERCPU_KPTR *counts;
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct held);
} holders SEC(".maps");

struct job {
	struct bpf_wq work;
	__u32 done;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct job);
} jobs SEC(".maps");

// In a data section of its own, as programs keep what is not part of a map's value.
#define PRIVATE static __attribute__((section(".data.private"), aligned(8)))
PRIVATE struct bpf_spin_lock private_lock;
PRIVATE struct bpf_list_head private_items CONTAINS(item, node);

static bool by_number(struct bpf_rb_node *a, const struct bpf_rb_node *b)
{
	return ITEM(a, branch)->number < ITEM(b, branch)->number;
}

static __always_inline struct item *new_item(__u32 n)
{
	struct item *item = NEW(struct item);

	if (item) {
		item->number = n * 7 % 5 + 100;
		item->name[0] = 'a' + n;
	}
	return item;
}

/** Items 100, 102, 104, 101, 103 to list and tree. */
SEC("tc")
int fill_shelf(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct shelf *shelf = bpf_map_lookup_elem(&shelves, &key);

	if (!shelf)
		return 1;
	for (__u32 n = 0; n < 5; n++) {
		struct item *item = new_item(n), *again;

		if (!item)
			return 2;
		again = bpf_refcount_acquire_impl(item, NULL);
		if (!again) {
			bpf_obj_drop_impl(item, NULL);
			return 3;
		}
		bpf_spin_lock(&shelf->lock);
		bpf_list_push_back_impl(&shelf->items, &item->node, NULL, 0);
		bpf_rbtree_add_impl(&shelf->sorted, &again->branch, by_number, NULL, 0);
		bpf_spin_unlock(&shelf->lock);
	}
	shelf->number = 5;
	return 0;
}

/** One in, the same one out. */
SEC("tc")
int empty_shelf(struct __sk_buff *skb)
{
	__u32 key = 1;
	struct shelf *shelf = bpf_map_lookup_elem(&shelves, &key);
	struct item *item = shelf ? new_item(0) : NULL;
	struct bpf_list_node *node;

	if (!item)
		return 1;
	bpf_spin_lock(&shelf->lock);
	bpf_list_push_back_impl(&shelf->items, &item->node, NULL, 0);
	node = bpf_list_pop_front(&shelf->items);
	bpf_spin_unlock(&shelf->lock);
	if (!node)
		return 2;
	bpf_obj_drop_impl(ITEM(node, node), NULL);
	return 0;
}

SEC("tc")
int fill_private(struct __sk_buff *skb)
{
	for (__u32 n = 0; n < 2; n++) {
		struct item *item = new_item(n);

		if (!item)
			return 1;
		bpf_spin_lock(&private_lock);
		bpf_list_push_back_impl(&private_items, &item->node, NULL, 0);
		bpf_spin_unlock(&private_lock);
	}
	return 0;
}

static __always_inline struct group *new_group(void)
{
	struct group *group = NEW(struct group);

	if (!group)
		return NULL;
	group->id = 77;
	for (__u32 n = 0; n < 3; n++) {
		struct member *member = NEW(struct member);

		if (!member)
			break;
		member->number = n;
		bpf_spin_lock(&group->lock);
		bpf_list_push_back_impl(&group->members, &member->node, NULL, 0);
		bpf_spin_unlock(&group->lock);
	}
	return group;
}

struct wanted {
	__u64 cgroup;
	__u32 pid;
};

/** Entry 1 holds one of everything, entry 2 nothing. */
SEC("syscall")
int hold_kernels(struct wanted *wanted)
{
	struct held none = {}, *held;
	struct task_struct *task;
	struct cgroup *cgroup;
	struct bpf_cpumask *mask;
	__u32 key = 2;

	bpf_map_update_elem(&holders, &key, &none, BPF_ANY);
	key = 1;
	bpf_map_update_elem(&holders, &key, &none, BPF_ANY);
	held = bpf_map_lookup_elem(&holders, &key);
	if (!held)
		return 1;
	task = bpf_task_from_pid(wanted->pid);
	if (!task)
		return 2;
	task = bpf_kptr_xchg(&held->task, task);
	if (task)
		bpf_task_release(task);
	cgroup = bpf_cgroup_from_id(wanted->cgroup);
	if (!cgroup)
		return 3;
	cgroup = bpf_kptr_xchg(&held->cgroup, cgroup);
	if (cgroup)
		bpf_cgroup_release(cgroup);
	mask = bpf_cpumask_create();
	if (!mask)
		return 4;
	bpf_cpumask_set_cpu(0, mask);
	bpf_cpumask_set_cpu(2, mask);
	bpf_cpumask_set_cpu(3, mask);
	mask = bpf_kptr_xchg(&held->mask, mask);
	if (mask)
		bpf_cpumask_release(mask);
	return 0;
}

SEC("tc")
int hold_objects(struct __sk_buff *skb)
{
	__u32 key = 1;
	struct held *held = bpf_map_lookup_elem(&holders, &key);
	struct item *item;
	struct group *group;
	struct count *counts;

	if (!held)
		return 1;
	item = new_item(1);
	if (!item)
		return 2;
	item = bpf_kptr_xchg(&held->item, item);
	if (item)
		bpf_obj_drop_impl(item, NULL);
	group = new_group();
	if (!group)
		return 3;
	group = bpf_kptr_xchg(&held->group, group);
	if (group)
		bpf_obj_drop_impl(group, NULL);
	counts = bpf_percpu_obj_new_impl(bpf_core_type_id_local(struct count), NULL);
	if (!counts)
		return 4;
	counts = bpf_kptr_xchg(&held->counts, counts);
	if (counts)
		bpf_percpu_obj_drop_impl(counts, NULL);
	return 0;
}

/** Each CPU's count is 500 and its number. */
SEC("tc")
int count_percpu(struct __sk_buff *skb)
{
	__u32 key = 1;
	struct held *held = bpf_map_lookup_elem(&holders, &key);
	struct count *counts = held ? held->counts : NULL;

	if (!counts)
		return 1;
	for (__u32 cpu = 0; cpu < 3; cpu++) {
		struct count *count = bpf_per_cpu_ptr(counts, cpu);

		if (!count)
			return 2;
		count->count = 500 + cpu;
	}
	return 0;
}

static int on_work(void *map, int *key, void *value)
{
	struct job *job = value;

	job->done++;
	return 0;
}

/** Job 0 is done once, job 1 is not initialised. */
SEC("tc")
int start_work(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct job *job = bpf_map_lookup_elem(&jobs, &key);

	if (!job || bpf_wq_init(&job->work, &jobs, 0))
		return 1;
	if (SET_CALLBACK(&job->work, on_work))
		return 2;
	return bpf_wq_start(&job->work, 0) != 0;
}
