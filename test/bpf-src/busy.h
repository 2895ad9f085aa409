// Ten seconds of the guest's in a BPF program.
#define NANOS 10000000000ULL

static long is_over(__u64 index, void *end)
{
	return bpf_ktime_get_ns() > *(__u64 *)end;
}

static long turns(__u64 index, void *end)
{
	bpf_loop(1 << 20, is_over, end, 0);
	return is_over(index, end);
}

static void busy(void)
{
	__u64 end = bpf_ktime_get_ns() + NANOS;

	bpf_loop(1 << 20, turns, &end, 0);
}
