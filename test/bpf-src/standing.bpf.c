// Keeps the CPU of a task named `standing` for ten seconds, once, in the interrupt of its timer: meanwhile no other comes there.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "busy.h"

char _license[] SEC("license") = "GPL";

int has_stood;

SEC("raw_tp/local_timer_entry")
int standing(void *context)
{
	char comm[16] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	if (has_stood || bpf_strncmp(comm, 8, "standing") != 0)
		return 0;
	has_stood = 1;
	busy();
	return 0;
}
