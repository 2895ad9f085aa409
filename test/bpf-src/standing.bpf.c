// A program that keeps a CPU in the timer's interrupt for a minute of the guest's, once a task named `stand` runs there: no
// tick moves that run queue's clock.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

#define NANOS 60000000000ULL

static long step(__u64 index, void *ends)
{
	return bpf_ktime_get_ns() > *(__u64 *)ends;
}

static long steps(__u64 index, void *ends)
{
	bpf_loop(1 << 20, step, ends, 0);
	return bpf_ktime_get_ns() > *(__u64 *)ends;
}

SEC("raw_tp/local_timer_entry")
int standing(void *context)
{
	__u64 ends = bpf_ktime_get_ns() + NANOS;
	char comm[16] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	if (comm[0] != 's' || comm[1] != 't' || comm[2] != 'a' || comm[3] != 'n' || comm[4] != 'd' || comm[5] != 0)
		return 0;
	bpf_loop(1 << 20, steps, &ends, 0);
	return 0;
}
