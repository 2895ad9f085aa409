// Ends itself after a hundred tasks, with a code and a message of its own.
#include "scx.h"

extern void scx_bpf_exit_bstr(__s64 code, char *format, unsigned long long *data, __u32 size) __ksym;

int seen;

SEC("struct_ops/quits_enqueue")
void BPF_PROG(quits_enqueue, struct task_struct *p, __u64 flags)
{
	static char format[] = "enough";
	unsigned long long none[1] = {};

	scx_bpf_dsq_insert(p, GLOBAL, SLICE, flags);
	if (seen++ == 100)
		scx_bpf_exit_bstr(7, format, none, 0);
}

SEC(".struct_ops")
struct sched_ext_ops quits = { .enqueue = (void *)quits_enqueue, .name = "quits" };
