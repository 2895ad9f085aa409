// Runs as root in the guest: attaches pinned programs, and small ones of its own, by plain bpf(2), each by a link. Prints as
// JSON the ids of the links that this kernel could make, by name, and why it could not make the others. Stays (in a child).
// Arguments: the directory of the pinned programs; a cgroup's directory; the BTF id of `a_subprogram`.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// enum bpf_attach_type and enum bpf_prog_type of kernels newer than the headers
#define NETFILTER 45
#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define UPROBE_MULTI 48
#define PROG_TYPE_NETFILTER 32

static const char *pins;
static char separator = '{';

static int bpf(int command, void *attr, int size)
{
	return syscall(SYS_bpf, command, attr, size);
}

static int program(const char *name)
{
	char path[256];
	union bpf_attr attr = {};

	snprintf(path, sizeof(path), "%s/%s", pins, name);
	attr.pathname = (uintptr_t)path;
	return bpf(BPF_OBJ_GET, &attr, sizeof(attr));
}

// A program that returns `result`.
static int load(int type, int attach_type, const char *name, int result, int target, int btf_id)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = result },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = type,
		.expected_attach_type = attach_type,
		.insns = (uintptr_t)code,
		.insn_cnt = 2,
		.license = (uintptr_t)"GPL",
		.attach_prog_fd = target,
		.attach_btf_id = btf_id,
	};

	strcpy(attr.prog_name, name);
	return bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
}

static void report(const char *name, int link)
{
	struct bpf_link_info info = {};
	union bpf_attr attr = { .info = { .bpf_fd = link, .info_len = sizeof(info), .info = (uintptr_t)&info } };

	printf("%c\n\"%s\":", separator, name);
	separator = ',';
	if (link < 0 || bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr)) < 0)
		printf("\"%s\"", strerror(errno));
	else
		printf("%u", info.id);
}

struct request {
	uint32_t program, target, attach_type, flags;
	union {
		struct {
			uint32_t pf, hook;
			int32_t priority;
			uint32_t flags;
		} netfilter;
		struct {
			uint32_t flags, count;
			uint64_t symbols, addresses, cookies;
		} kprobes;
		struct {
			uint64_t path, offsets, counters, cookies;
			uint32_t count, flags, pid;
		} uprobes;
		char room[64];
	};
};

static int attach(const char *name, struct request request)
{
	int link = (int)request.program < 0 ? -1 : bpf(BPF_LINK_CREATE, &request, sizeof(request));

	report(name, link);
	return link;
}

static void trace(const char *name, int fd, const char *tracepoint)
{
	union bpf_attr attr = { .raw_tracepoint = { .name = (uintptr_t)tracepoint, .prog_fd = fd } };

	report(name, fd < 0 ? -1 : bpf(BPF_RAW_TRACEPOINT_OPEN, &attr, sizeof(attr)));
}

static int number_in(const char *path)
{
	int number = -1;
	FILE *file = fopen(path, "r");

	if (file) {
		if (fscanf(file, "%d", &number) != 1)
			number = -1;
		fclose(file);
	}
	return number;
}

static int event(int type, uint64_t config, const char *text, uint64_t offset)
{
	struct perf_event_attr attr = { .size = sizeof(attr), .type = type, .config = config };

	attr.kprobe_func = (uintptr_t)text; // or uprobe_path, the same field
	attr.probe_offset = offset;
	return syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
}

#ifdef __aarch64__
#define SYSTEM_CALL "__arm64_sys_"
#else
#define SYSTEM_CALL "__x64_sys_"
#endif
#define SOURCES "/sys/bus/event_source/devices/"

int main(int count, char **arguments)
{
	const char *symbols[] = { SYSTEM_CALL "sethostname", SYSTEM_CALL "setdomainname" };
	uint64_t offsets[] = { 0x1000, 0x1010 };
	int cgroup, netns, target, btf_id;

	if (count != 4)
		return 2;
	pins = arguments[1];
	cgroup = open(arguments[2], O_RDONLY);
	btf_id = atoi(arguments[3]);

	attach("cgroup", (struct request){ program("connect4"), cgroup, BPF_CGROUP_INET4_CONNECT });
	attach("iter", (struct request){ program("each_task"), 0, BPF_TRACE_ITER });
	trace("raw_tracepoint", program("raw_rename"), "task_rename");
	trace("tp_btf", program("typed_rename"), NULL);
	trace("fentry", program("entry"), NULL);
	trace("fexit", program("exit_of_test"), NULL);
	trace("lsm", program("mounting"), NULL);
	target = program("classifier_with_a_name_that_the_kernel_cuts");
	trace("fentry_of_program",
	      load(BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, "on_subprogram", 0, target, btf_id), NULL);
	load(BPF_PROG_TYPE_TRACING, BPF_TRACE_FEXIT, "not_attached", 0, target, btf_id);

	attach("kprobe", (struct request){ program("probe"),
		event(number_in(SOURCES "kprobe/type"), 0, symbols[0], 0), BPF_PERF_EVENT });
	attach("kretprobe", (struct request){ program("probe_return"),
		event(number_in(SOURCES "kprobe/type"), 1, symbols[0], 0), BPF_PERF_EVENT });
	attach("uprobe", (struct request){ program("probe"),
		event(number_in(SOURCES "uprobe/type"), 0, "/bin/busybox", 0x1234), BPF_PERF_EVENT });
	attach("tracepoint", (struct request){ program("enter"),
		event(PERF_TYPE_TRACEPOINT, number_in("/sys/kernel/tracing/events/syscalls/sys_enter_sethostname/id"), NULL, 0),
		BPF_PERF_EVENT });
	attach("software_event", (struct request){ load(BPF_PROG_TYPE_PERF_EVENT, 0, "on_event", 0, 0, 0),
		event(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_MIGRATIONS, NULL, 0), BPF_PERF_EVENT });
	attach("kprobe_multi", (struct request){
		load(BPF_PROG_TYPE_KPROBE, BPF_TRACE_KPROBE_MULTI, "multi", 0, 0, 0), 0, BPF_TRACE_KPROBE_MULTI,
		.kprobes = { 0, 2, (uintptr_t)symbols } });
	attach("uprobe_multi", (struct request){ load(BPF_PROG_TYPE_KPROBE, UPROBE_MULTI, "umulti", 0, 0, 0), 0, UPROBE_MULTI,
		.uprobes = { (uintptr_t)"/bin/busybox", (uintptr_t)offsets, .count = 2, .flags = 1 } });
	attach("tcx", (struct request){ program("fifteen_letters"), 1, TCX_INGRESS });
	// The old way, without a link: the request's first fields are those of BPF_PROG_ATTACH.
	struct request old = { 1, load(BPF_PROG_TYPE_SCHED_CLS, 0, "linkless", 0, 0, 0), TCX_EGRESS };

	printf(",\n\"tcx_egress\":%s", bpf(BPF_PROG_ATTACH, &old, sizeof(old)) < 0 ? "\"no\"" : "null");
	attach("netfilter", (struct request){ load(PROG_TYPE_NETFILTER, NETFILTER, "nf", 1, 0, 0), 0, NETFILTER,
		.netfilter = { 2, 1, -7, 0 } });

	fflush(stdout);
	if (unshare(CLONE_NEWNET) < 0)
		return 1;
	netns = open("/proc/self/ns/net", O_RDONLY);
	attach("netns", (struct request){ program("lookup"), netns, BPF_SK_LOOKUP });
	attach("xdp", (struct request){ program("xdp_all"), 1, BPF_XDP, 1 << 1 });
	printf("}\n");
	fflush(stdout);
	if (fork() == 0) {
		close(0);
		close(1);
		for (;;)
			pause();
	}
	return 0;
}
