// A scheduler that parks tasks: one that wakes up goes where its name says and is not taken from there. All others run.
// `parkf3`: user queue 0x10, in the order in which they come; v: user queue 0x20, by virtual time; g: the global queue;
// l: its CPU's own queue; h: it is held, in no queue. The digit gives slice and virtual time.
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

/* include/linux/sched/ext.h, v6.12 to v7.3 */
#define SCX_DSQ_GLOBAL (1ULL << 63 | 1)
#define SCX_DSQ_LOCAL (1ULL << 63 | 2)
#define SCX_ENQ_WAKEUP 1
#define SCX_OPS_SWITCH_PARTIAL (1 << 3)
#define FIFO 0x10
#define VTIME 0x20

struct task_struct {
	char comm[16];
} __attribute__((preserve_access_index));

struct scx_exit_info {
	int kind;
} __attribute__((preserve_access_index));

// The members that are set; the loader finds their places in the kernel's BTF.
struct sched_ext_ops {
	__s32 (*select_cpu)(struct task_struct *p, __s32 prev_cpu, __u64 wake_flags);
	void (*enqueue)(struct task_struct *p, __u64 enq_flags);
	__s32 (*init)(void);
	void (*exit)(struct scx_exit_info *ei);
	__u64 flags;
	char name[128];
};

// not to be called in Debian's 7.1 and 7.2, in 7.2 both: their BTF shows an argument that the verifier gives
__s32 scx_bpf_create_dsq(__u64 id, __s32 node) __ksym __weak;
void scx_bpf_error_bstr(char *format, unsigned long long *data, __u32 size) __ksym __weak;
// before v6.13, and since
void scx_bpf_dispatch(struct task_struct *p, __u64 id, __u64 slice, __u64 flags) __ksym __weak;
void scx_bpf_dispatch_vtime(struct task_struct *p, __u64 id, __u64 slice, __u64 vtime, __u64 flags) __ksym __weak;
void scx_bpf_dsq_insert(struct task_struct *p, __u64 id, __u64 slice, __u64 flags) __ksym __weak;
void scx_bpf_dsq_insert_vtime(struct task_struct *p, __u64 id, __u64 slice, __u64 vtime, __u64 flags) __ksym __weak;

static __always_inline void insert(struct task_struct *p, __u64 id, __u64 slice, __u64 flags)
{
	if (scx_bpf_dsq_insert)
		scx_bpf_dsq_insert(p, id, slice, flags);
	else
		scx_bpf_dispatch(p, id, slice, flags);
}

static __always_inline void insert_vtime(struct task_struct *p, __u64 slice, __u64 vtime, __u64 flags)
{
	if (scx_bpf_dsq_insert_vtime)
		scx_bpf_dsq_insert_vtime(p, VTIME, slice, vtime, flags);
	else
		scx_bpf_dispatch_vtime(p, VTIME, slice, vtime, flags);
}

// Set from outside: the next task that comes ends the scheduler.
int fail = 0;

SEC("struct_ops/park_select_cpu")
__s32 BPF_PROG(park_select_cpu, struct task_struct *p, __s32 prev_cpu, __u64 wake_flags)
{
	return prev_cpu;
}

SEC("struct_ops/park_enqueue")
void BPF_PROG(park_enqueue, struct task_struct *p, __u64 enq_flags)
{
	char kind = p->comm[4];
	__u64 digit = p->comm[5] - '0';
	__u64 slice = 1000000 + digit;

	if (fail) {
		static char format[] = "the test said %lld";
		unsigned long long said = fail;

		if (!scx_bpf_create_dsq || !scx_bpf_error_bstr)
			return insert(p, FIFO, slice, enq_flags); // which is not there
		scx_bpf_error_bstr(format, &said, sizeof(said));
		return;
	}
	if (p->comm[0] != 'p' || p->comm[1] != 'a' || p->comm[2] != 'r' || p->comm[3] != 'k' || digit > 9 ||
	    !(enq_flags & SCX_ENQ_WAKEUP))
		kind = 0;
	switch (kind) {
	case 'f':
		return insert(p, FIFO, slice, enq_flags);
	case 'v':
		return insert_vtime(p, slice, digit * 7 % 10 * 1000, enq_flags);
	case 'g':
		return insert(p, SCX_DSQ_GLOBAL, slice, enq_flags);
	case 'l':
		return insert(p, SCX_DSQ_LOCAL, slice, enq_flags);
	case 'h':
		return;
	default:
		return insert(p, SCX_DSQ_LOCAL, 20000000, enq_flags);
	}
}

SEC("struct_ops.s/park_init")
__s32 BPF_PROG(park_init)
{
	__s32 error;

	if (!scx_bpf_create_dsq)
		return 0;
	error = scx_bpf_create_dsq(FIFO, -1);
	return error ? error : scx_bpf_create_dsq(VTIME, -1);
}

// Set from outside: the exit ends.
volatile int gone = 0;

static long is_gone(__u64 index, void *context)
{
	return gone != 0;
}

static long wait_gone(__u64 index, void *context)
{
	bpf_loop(1 << 20, is_gone, NULL, 0);
	return gone != 0;
}

/* So the scheduler is seen while it ends; bounded, as all that a program may do. */
SEC("struct_ops.s/park_exit")
void BPF_PROG(park_exit, struct scx_exit_info *ei)
{
	bpf_loop(2048, wait_gone, NULL, 0);
}

SEC(".struct_ops")
struct sched_ext_ops park = {
	.select_cpu = (void *)park_select_cpu,
	.enqueue = (void *)park_enqueue,
	.init = (void *)park_init,
	.exit = (void *)park_exit,
	.flags = SCX_OPS_SWITCH_PARTIAL,
	.name = "ktstr_park",
};
