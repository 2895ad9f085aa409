// The parts of sched_ext that the wrong schedulers use; libbpf finds the places of members in the kernel's BTF.
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

#define LOCAL (1ull << 63 | 2)
#define LOCAL_ON (1ull << 63 | 1ull << 62)
#define GLOBAL (1ull << 63 | 1)
#define SLICE 20000000ull

struct task_struct {
	int pid;
	int nr_cpus_allowed;
	unsigned int flags;
} __attribute__((preserve_access_index));
#define PF_KTHREAD 0x200000

// The members that are set.
struct sched_ext_ops {
	int (*select_cpu)(struct task_struct *p, int previous, __u64 flags);
	void (*enqueue)(struct task_struct *p, __u64 flags);
	void (*dispatch)(int cpu, struct task_struct *previous);
	void (*cpu_release)(int cpu, void *args);
	int (*init)(void);
	__u64 flags;
	__u32 timeout_ms;
	char name[128];
};

// Before v6.13 its name is scx_bpf_dispatch: whoever compiles says so.
#ifdef BEFORE_6_13
#define scx_bpf_dsq_insert scx_bpf_dispatch
#endif
extern void scx_bpf_dsq_insert(struct task_struct *p, __u64 queue, __u64 slice, __u64 flags) __ksym;
