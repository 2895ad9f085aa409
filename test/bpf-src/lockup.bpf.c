// A program that keeps the CPU of whoever executes a file named `lockup` for ten seconds of the guest's, and lets nothing
// else run there: a soft lockup.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

#define NANOS 10000000000ULL

void bpf_preempt_disable(void) __ksym;
void bpf_preempt_enable(void) __ksym;

static long step(__u64 index, void *ends)
{
	return bpf_ktime_get_ns() > *(__u64 *)ends;
}

static long steps(__u64 index, void *ends)
{
	bpf_loop(1 << 20, step, ends, 0);
	return bpf_ktime_get_ns() > *(__u64 *)ends;
}

SEC("raw_tp/sched_process_exec")
int lockup(void *context)
{
	__u64 ends = bpf_ktime_get_ns() + NANOS;
	char comm[16] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	if (comm[0] != 'l' || comm[1] != 'o' || comm[2] != 'c' || comm[3] != 'k' || comm[4] != 'u' || comm[5] != 'p')
		return 0;
	bpf_preempt_disable();
	bpf_loop(1 << 20, steps, &ends, 0);
	bpf_preempt_enable();
	return 0;
}
