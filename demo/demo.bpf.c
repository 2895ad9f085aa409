// A snapshot of the scheduler, taken by the kernel itself: every task with what it did so far, every CPU's run queue, and
// a histogram of CPU time. An iterator program needs nobody to attach it; reading its pinned file runs it:
//     bpftool iter pin demo.bpf.o /sys/fs/bpf/demo && cat /sys/fs/bpf/demo
// Run on one CPU after the other (taskset), each CPU counts its own tasks.
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

// The few members of the kernel's structures that are used; the loader finds their real offsets in the kernel's BTF.
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct thread_info { __u32 cpu; };
struct sched_entity { __u64 sum_exec_runtime, vruntime; };
struct task_struct {
	struct thread_info thread_info;
	struct sched_entity se;
	struct task_struct *real_parent;
	void *mm;
	unsigned int __state, policy, on_cpu; // on_cpu is a byte since v7.2: only unsigned members may change their width
	int pid, tgid, prio, static_prio;
	unsigned long nvcsw, nivcsw;
	char comm[16];
};
struct rq { unsigned int nr_running; __u64 nr_switches, clock; };
struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; };
#pragma clang attribute pop
extern const struct rq runqueues __ksym; // per CPU

enum task_state { RUNNABLE, SLEEPING, BLOCKED, IDLE, ENDED };
enum task_policy { POLICY_NORMAL, POLICY_FIFO, POLICY_RR, POLICY_BATCH, POLICY_IDLE = 5, POLICY_DEADLINE, POLICY_EXT };

struct task_key { __u32 pid, cpu; };
struct task_info {
	char comm[16];
	enum task_state state;
	enum task_policy policy;
	struct {
		__s32 nice : 6; // -20..19
		__u32 kernel_thread : 1;
		__u32 on_cpu : 1;
		__u32 priority : 8;
	} flags;
	__u32 parent;
	struct { __u64 voluntary, forced; } switches;
	__u64 runtime_ns, vruntime_ns;
	const void *address; // of its task_struct
};
struct run_queue { __u32 runnable; __u64 switches, clock_ns; };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct task_key);
	__type(value, struct task_info);
} tasks SEC(".maps");

#define SLOTS 8
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} runtime_hist SEC(".maps"); // tasks of this CPU that ran < 1 us, < 10 us, < 100 us, ...

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct run_queue);
} run_queues SEC(".maps");

const volatile __u64 first_slot_ns = 1000;
__s32 lowest_nice = 19; // of all tasks seen
__u64 visited, kernel_threads, longest_runtime_ns;
char longest_running[16];

static enum task_state state_of(unsigned int state)
{
	if (state == 0)
		return RUNNABLE;
	if (state & 0x400) // TASK_NOLOAD: an idle kernel thread
		return IDLE;
	return state & 1 ? SLEEPING : state & 2 ? BLOCKED : ENDED;
}

SEC("iter/task")
int snapshot(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 here = bpf_get_smp_processor_id(), zero = 0, slot = 0;
	const struct rq *rq = bpf_this_cpu_ptr(&runqueues);
	struct run_queue *queue = bpf_map_lookup_elem(&run_queues, &zero);

	if (queue) {
		queue->runnable = rq->nr_running;
		queue->switches = rq->nr_switches;
		queue->clock_ns = rq->clock;
	}
	if (!task || task->thread_info.cpu != here)
		return 0;

	struct task_key key = { .pid = task->pid, .cpu = here };
	struct task_info info = {
		.state = state_of(task->__state),
		.policy = task->policy,
		.parent = task->real_parent->pid,
		.switches = { task->nvcsw, task->nivcsw },
		.runtime_ns = task->se.sum_exec_runtime,
		.vruntime_ns = task->se.vruntime,
		.address = task,
	};
	int nice = task->static_prio - 120;
	__u64 limit = first_slot_ns;

	info.flags.nice = nice;
	info.flags.kernel_thread = !task->mm;
	info.flags.on_cpu = task->on_cpu;
	info.flags.priority = task->prio;
	bpf_probe_read_kernel_str(info.comm, sizeof(info.comm), task->comm);
	bpf_map_update_elem(&tasks, &key, &info, BPF_ANY);

	for (; slot < SLOTS - 1 && info.runtime_ns >= limit; slot++)
		limit *= 10;
	__u64 *count = bpf_map_lookup_elem(&runtime_hist, &slot);
	if (count)
		++*count;

	visited++;
	kernel_threads += info.flags.kernel_thread;
	if (nice < lowest_nice)
		lowest_nice = nice;
	if (info.runtime_ns > longest_runtime_ns) {
		longest_runtime_ns = info.runtime_ns;
		__builtin_memcpy(longest_running, info.comm, sizeof(longest_running));
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
