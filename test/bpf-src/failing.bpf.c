// A scheduler that fails for a task that wakes up with one of these names, each in its way. All others run.
// `failq`: it stays in user queue 0x30; failh: it is held, in no queue; faile: an error of the scheduler's own; failc: it is
// for a CPU that there is not; failn: it is for a queue that there is not; failx: the scheduler leaves by itself.
// Two are no failures while CPU 1 is online: failp: it is for the queue from which only CPU 1 takes; failo: it is for CPU 1.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

/* include/linux/sched/ext.h, v6.12 to v7.3 */
#define SCX_DSQ_LOCAL (1ULL << 63 | 2)
#define SCX_DSQ_LOCAL_ON (3ULL << 62)
#define SCX_ENQ_WAKEUP 1
#define SCX_OPS_SWITCH_PARTIAL (1 << 3)
#define NEVER_SERVED 0x30
#define OF_CPU_1 0x31
#define NO_QUEUE 0x99
#define NO_CPU 4095

struct task_struct {
	char comm[16];
} __attribute__((preserve_access_index));

// The members that are set; the loader finds their places in the kernel's BTF.
struct sched_ext_ops {
	__s32 (*select_cpu)(struct task_struct *p, __s32 prev_cpu, __u64 wake_flags);
	void (*enqueue)(struct task_struct *p, __u64 enq_flags);
	void (*dispatch)(__s32 cpu, struct task_struct *prev);
	__s32 (*init)(void);
	__u64 flags;
	__u32 timeout_ms;
	char name[128];
};

__s32 scx_bpf_create_dsq(__u64 id, __s32 node) __ksym;
void scx_bpf_error_bstr(char *format, unsigned long long *data, __u32 size) __ksym;
void scx_bpf_exit_bstr(__s64 code, char *format, unsigned long long *data, __u32 size) __ksym;
// before v6.13, and since
void scx_bpf_dispatch(struct task_struct *p, __u64 id, __u64 slice, __u64 flags) __ksym __weak;
void scx_bpf_dsq_insert(struct task_struct *p, __u64 id, __u64 slice, __u64 flags) __ksym __weak;
_Bool scx_bpf_consume(__u64 id) __ksym __weak;
_Bool scx_bpf_dsq_move_to_local(__u64 id) __ksym __weak;

static __always_inline void insert(struct task_struct *p, __u64 id, __u64 flags)
{
	if (scx_bpf_dsq_insert)
		scx_bpf_dsq_insert(p, id, 20000000, flags);
	else
		scx_bpf_dispatch(p, id, 20000000, flags);
}

SEC("struct_ops/failing_select_cpu")
__s32 BPF_PROG(failing_select_cpu, struct task_struct *p, __s32 prev_cpu, __u64 wake_flags)
{
	return prev_cpu;
}

SEC("struct_ops/failing_enqueue")
void BPF_PROG(failing_enqueue, struct task_struct *p, __u64 enq_flags)
{
	static char format[] = "the test said %lld";
	unsigned long long said = 7;
	char kind = p->comm[4];

	if (p->comm[0] != 'f' || p->comm[1] != 'a' || p->comm[2] != 'i' || p->comm[3] != 'l' ||
	    !(enq_flags & SCX_ENQ_WAKEUP))
		kind = 0;
	switch (kind) {
	case 'q':
		return insert(p, NEVER_SERVED, enq_flags);
	case 'h':
		return;
	case 'e':
		return scx_bpf_error_bstr(format, &said, sizeof(said));
	case 'c':
		return insert(p, SCX_DSQ_LOCAL_ON | NO_CPU, enq_flags);
	case 'n':
		return insert(p, NO_QUEUE, enq_flags);
	case 'p':
		return insert(p, OF_CPU_1, enq_flags);
	case 'o':
		return insert(p, SCX_DSQ_LOCAL_ON | 1, enq_flags);
	case 'x':
		scx_bpf_exit_bstr(said, format, &said, sizeof(said));
	}
	insert(p, SCX_DSQ_LOCAL, enq_flags);
}

SEC("struct_ops/failing_dispatch")
void BPF_PROG(failing_dispatch, __s32 cpu, struct task_struct *prev)
{
	if (cpu != 1)
		return;
	if (scx_bpf_dsq_move_to_local)
		scx_bpf_dsq_move_to_local(OF_CPU_1);
	else
		scx_bpf_consume(OF_CPU_1);
}

SEC("struct_ops.s/failing_init")
__s32 BPF_PROG(failing_init)
{
	__s32 error = scx_bpf_create_dsq(NEVER_SERVED, -1);

	return error ? error : scx_bpf_create_dsq(OF_CPU_1, -1);
}

SEC(".struct_ops")
struct sched_ext_ops failing = {
	.select_cpu = (void *)failing_select_cpu,
	.enqueue = (void *)failing_enqueue,
	.dispatch = (void *)failing_dispatch,
	.init = (void *)failing_init,
	.flags = SCX_OPS_SWITCH_PARTIAL,
	.timeout_ms = 2000,
	.name = "ktstr_failing",
};
