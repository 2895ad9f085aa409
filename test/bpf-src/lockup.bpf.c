// A program that keeps the CPU of whoever executes a file named `lockup` for ten seconds of the guest's, and lets nothing
// else run there: a soft lockup.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "busy.h"

char _license[] SEC("license") = "GPL";

void bpf_preempt_disable(void) __ksym;
void bpf_preempt_enable(void) __ksym;

SEC("raw_tp/sched_process_exec")
int lockup(void *context)
{
	char comm[16] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	if (bpf_strncmp(comm, 6, "lockup") != 0)
		return 0;
	bpf_preempt_disable();
	busy();
	bpf_preempt_enable();
	return 0;
}
