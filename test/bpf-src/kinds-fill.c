// Runs as root in the guest: fills the maps that only a process can fill, with sockets, cgroups, programs, events and
// memory of its own, by plain bpf(2). Prints as JSON what it put in, one object by map name, and stays (in a child) so
// that all of it lives on. Arguments: the directories of kinds.bpf.o's pinned programs and maps.
#include "fill.h"
#include <arpa/inet.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define ARENA 33 // enum bpf_map_type of v6.9
#define CGRP_STORAGE 32 // of v6.2
#define PAGE 4096
#define ARENA_AT 0x100000200000ull

struct owned {
	uint64_t number;
	char text[8];
};

static void pop(int map, void *value)
{
	union bpf_attr attr = {};

	attr.map_fd = map;
	attr.value = (uintptr_t)value;
	must(bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &attr), "pop");
}

/** A UDP socket on a loopback address, and its description. */
static int udp(int family, char *description, size_t size, int is_connected)
{
	int fd = must(socket(family, SOCK_DGRAM, 0), "socket"), one = 1;
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr *address = family == AF_INET ? (void *)&in : (void *)&in6;
	socklen_t length = family == AF_INET ? sizeof(in) : sizeof(in6);
	uint64_t cookie;
	socklen_t cookie_size = sizeof(cookie);

	must(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), "SO_REUSEPORT");
	must(bind(fd, address, length), "bind");
	must(getsockname(fd, address, &length), "getsockname");
	int port = ntohs(family == AF_INET ? in.sin_port : in6.sin6_port);
	if (is_connected) {
		in.sin_port = htons(4242);
		must(connect(fd, address, length), "connect");
	}
	must(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_size), "SO_COOKIE");
	const char *host = family == AF_INET ? "127.0.0.1" : "[::1]", *none = family == AF_INET ? "0.0.0.0" : "[::]";
	snprintf(description, size,
		 "{\"cookie\":%lu,\"inode\":%lu,\"family\":\"%s\",\"protocol\":17,\"state\":%d,\"local\":\"%s:%d\","
		 "\"remote\":\"%s:%d\"}",
		 cookie, inode_of(fd), family == AF_INET ? "AF_INET" : "AF_INET6", is_connected ? 1 : 7, host, port,
		 is_connected ? host : none, is_connected ? 4242 : 0);
	return fd;
}

static void tries(void)
{
	int map = must(create("lpm_many", BPF_MAP_TYPE_LPM_TRIE, 8, 3, 4096, BPF_F_NO_PREALLOC, 0), "lpm_many");
	uint32_t seed = 12345;

	for (int n = 0; n < 1500; n++) {
		struct { uint32_t length; uint8_t bytes[4]; } key = { n % 33, {} };
		uint8_t value[3] = { n, n >> 8, 0x5a };

		for (int byte = 0; byte < 4; byte++) {
			seed = seed * 1103515245 + 12345;
			key.bytes[byte] = seed >> 16 & (n % 2 ? 0xff : 0x83); // half of them close together
		}
		update(map, &key, value, "lpm_many");
	}
	expect("lpm_many", "\"as bpftool says\"");
}

static void queues(void)
{
	const int types[] = { BPF_MAP_TYPE_QUEUE, BPF_MAP_TYPE_STACK };

	for (int stack = 0; stack < 2; stack++) {
		const char *name = stack ? "stack_popped" : "queue_wrapped";
		int map = must(create(name, types[stack], 0, 12, 5, 0, 0), name);
		uint32_t value[3];

		for (uint32_t n = 0; n < 8; n++) { // 5 in, 3 out, 3 in: around the end
			if (n == 5)
				for (int out = 0; out < 3; out++)
					pop(map, value);
			value[0] = n;
			value[1] = ~n;
			value[2] = 7;
			update(map, NULL, value, name);
		}
		expect(name, stack ? "[7,6,5,1,0]" : "[3,4,5,6,7]");
	}
	int empty = must(create("queue_empty", BPF_MAP_TYPE_QUEUE, 0, 4, 3, 0, 0), "queue_empty");
	uint32_t value = 1;

	update(empty, NULL, &value, "queue_empty");
	pop(empty, &value);
	expect("queue_empty", "[]");
}

static void bloom(void)
{
	int map = must(create("bloom_known", BPF_MAP_TYPE_BLOOM_FILTER, 0, 4, 1000, 1 << 6 /* BPF_F_ZERO_SEED */, 3), "bloom");

	for (uint32_t value = 100; value < 140; value++)
		update(map, NULL, &value, "bloom_known");
	expect("bloom_known", "{\"hashFunctions\":3,\"from\":100,\"to\":140}");
}

static uint32_t record_bytes(uint32_t number)
{
	return number % 5 == 4 ? 40 : 1 + (number * 37 & 127);
}

/** Run the program and consume until the ring has wrapped; the last records stay. */
static void ring(void)
{
	int map = pinned(maps, "ring_wrapped");
	uint64_t *consumer = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
	uint64_t position = 0, start = 0;
	uint32_t kept = 0, number = 0;

	if (consumer == MAP_FAILED)
		fail("mmap ring");
	// Until one goes over the end of the ring for the second time, and 20 are in it.
	for (; position < 2 * 4096 + 900; number++) {
		position += (record_bytes(number) + 8 + 7) / 8 * 8;
		while (position - start > 4000) {
			start += (record_bytes(kept++) + 8 + 7) / 8 * 8;
			__atomic_store_n(consumer, start, __ATOMIC_RELEASE);
		}
		if (run("fill_ring"))
			fail("fill_ring");
	}
	expect("ring_wrapped", "{\"consumer\":%lu,\"producer\":%lu,\"records\":[", start, position);
	for (uint64_t at = start; kept < number; kept++) {
		printf("%s[%lu,\"%s\",%u,%u]", at == start ? "" : ",", at, kept % 5 == 4 ? "discarded" : "committed",
		       record_bytes(kept), kept & 255);
		at += (record_bytes(kept) + 8 + 7) / 8 * 8;
	}
	printf("]}");
}

/** Produce as user space does: a record, a discarded one, one that is still being written. */
static void user_ring(void)
{
	int map = pinned(maps, "user_ringbuf");
	uint8_t *producer = mmap(NULL, PAGE + 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, map, PAGE);
	static const uint32_t headers[] = { 5, 16 | BPF_RINGBUF_DISCARD_BIT, 3 | BPF_RINGBUF_BUSY_BIT };
	uint64_t position = 0;

	if (producer == MAP_FAILED)
		fail("mmap user ring");
	for (int n = 0; n < 3; n++) {
		uint32_t length = headers[n] & 0xffff;

		memcpy(producer + PAGE + position, &headers[n], 4);
		memset(producer + PAGE + position + 8, 0xa0 + n, length);
		position += (length + 8 + 7) / 8 * 8;
	}
	__atomic_store_n((uint64_t *)producer, position, __ATOMIC_RELEASE);
	expect("user_ringbuf",
	       "{\"consumer\":0,\"producer\":%lu,\"records\":[[0,\"committed\",5,160],[16,\"discarded\",16,161],"
	       "[40,\"busy\",3,162]]}",
	       position);
}

/** `name+0x…` of an address as /proc/kallsyms have it. */
static void print_symbol(uint64_t address)
{
	FILE *symbols = fopen("/proc/kallsyms", "r");
	char line[600], name[512], best[512] = "";
	uint64_t start, nearest = 0;
	char type;

	while (fgets(line, sizeof(line), symbols)) {
		if (sscanf(line, "%lx %c %511s", &start, &type, name) == 3 && start <= address && start > nearest) {
			nearest = start;
			strcpy(best, name);
		}
	}
	fclose(symbols);
	printf("\"%s+0x%lx\"", best, address - nearest);
}

static void stacks(void)
{
	int map = pinned(maps, "stack_traces");
	uint32_t id = must(run("kernel_stack"), "kernel stack");
	uint64_t frames[10] = {};
	union bpf_attr attr = {};

	attr.map_fd = map;
	attr.key = (uintptr_t)&id;
	attr.value = (uintptr_t)frames;
	must(bpf(BPF_MAP_LOOKUP_ELEM, &attr), "stack");
	expect("stack_traces", "{\"id\":%u,\"frames\":[", id);
	for (int n = 0; n < 10 && frames[n]; n++) {
		printf(n ? "," : "");
		print_symbol(frames[n]);
	}
	printf("]}");
	id = must(run("user_stack"), "user stack");
	expect("stack_build_ids", "{\"id\":%u}", id);
}

static void arena(void)
{
	int map = create("arena", ARENA, 0, 0, 2000, 1 << 10 /* BPF_F_MMAPABLE */, ARENA_AT);
	static const int pages[] = { 0, 3, 1999 };

	if (map < 0)
		return; // before v6.9
	uint8_t *memory = mmap((void *)ARENA_AT, 2000 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, map, 0);
	if (memory == MAP_FAILED)
		fail("mmap arena");
	for (int n = 0; n < 3; n++)
		memset(memory + pages[n] * PAGE, 0x31 + n, PAGE - n);
	expect("arena", "{\"at\":\"0x%llx\",\"pages\":[0,3,1999]}", ARENA_AT);
}

static void objects(void)
{
	int fill = pinned(programs, "fill_kinds");
	int program_array = pinned(maps, "prog_array");

	put(program_array, 1, fill, "prog_array");
	put(program_array, 3, pinned(programs, "fill_ring"), "prog_array");
	expect("prog_array", "{\"1\":%u,\"3\":%u}", program_id(fill), program_id(pinned(programs, "fill_ring")));

	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(event), .config = PERF_COUNT_SW_DUMMY };
	int event_fd = must(syscall(SYS_perf_event_open, &event, -1, 0, -1, 0), "perf_event_open");
	put(pinned(maps, "perf_events"), 0, event_fd, "perf_events");
	expect("perf_events", "{\"0\":{\"type\":\"PERF_TYPE_SOFTWARE\",\"config\":%d,\"cpu\":0}}", PERF_COUNT_SW_DUMMY);

	mkdir("/sys/fs/cgroup/outer", 0755);
	must(mkdir("/sys/fs/cgroup/outer/inner", 0755), "mkdir cgroup");
	int root = must(open("/sys/fs/cgroup", O_RDONLY), "cgroup");
	int inner = must(open("/sys/fs/cgroup/outer/inner", O_RDONLY), "cgroup");
	put(pinned(maps, "cgroup_array"), 0, root, "cgroup_array");
	put(pinned(maps, "cgroup_array"), 1, inner, "cgroup_array");
	expect("cgroup_array", "{\"0\":{\"id\":%lu,\"path\":\"/\"},\"1\":{\"id\":%lu,\"path\":\"/outer/inner\"}}",
	       inode_of(root), inode_of(inner));

	put(pinned(maps, "devmap"), 2, 1, "devmap");
	expect("devmap", "{\"2\":{\"device\":{\"ifindex\":1,\"name\":\"lo\"}}}");
	int device_hash = must(create("devmap_hash", BPF_MAP_TYPE_DEVMAP_HASH, 4, 4, 8, 0, 0), "devmap_hash");
	put(device_hash, 77, 1, "devmap_hash");
	put(device_hash, 85, 1, "devmap_hash"); // in the same bucket of 8
	expect("devmap_hash",
	       "{\"77\":{\"device\":{\"ifindex\":1,\"name\":\"lo\"}},\"85\":{\"device\":{\"ifindex\":1,\"name\":\"lo\"}}}");
	put(pinned(maps, "cpumap"), 0, 192, "cpumap");
	expect("cpumap", "{\"0\":{\"cpu\":0,\"qsize\":192}}");

	int xsk = must(socket(AF_XDP, SOCK_RAW, 0), "AF_XDP");
	int ring_size = 64;
	must(setsockopt(xsk, 283 /* SOL_XDP */, 2 /* XDP_RX_RING */, &ring_size, sizeof(ring_size)), "XDP_RX_RING");
	put(must(create("xskmap", BPF_MAP_TYPE_XSKMAP, 4, 4, 4, 0, 0), "xskmap"), 1, xsk, "xskmap");
	expect("xskmap",
	       "{\"1\":{\"device\":\"0x0\",\"queue\":0,\"socket\":{\"cookie\":0,\"inode\":%lu,\"family\":\"AF_XDP\","
	       "\"protocol\":0,\"state\":7}}}",
	       inode_of(xsk));

	char description[512];
	uint32_t key = 2;
	uint64_t fd = udp(AF_INET, description, sizeof(description), 1);
	update(must(create("sockmap_wide", BPF_MAP_TYPE_SOCKMAP, 4, 8, 4, 0, 0), "sockmap_wide"), &key, &fd, "sockmap");
	expect("sockmap_wide", "{\"2\":%s}", description);
	update(must(create("sockhash", BPF_MAP_TYPE_SOCKHASH, 6, 8, 16, 0, 0), "sockhash"), "sixbyt", &fd, "sockhash");
	expect("sockhash", "{\"736978627974\":%s}", description);
	fd = udp(AF_INET6, description, sizeof(description), 0);
	update(must(create("reuseport", BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, 4, 8, 4, 0, 0), "reuseport"), &key, &fd, "reuseport");
	expect("reuseport", "{\"2\":%s}", description);

	struct owned value = { 11, "socket" };
	int socket_fd = fd;
	update(pinned(maps, "sk_storage"), &socket_fd, &value, "sk_storage");
	expect("sk_storage", "[[%s,{\"number\":11,\"text\":\"socket\"}]]", description);

	int file = must(open("/tmp/kinds-inode", O_CREAT | O_RDWR, 0600), "file");
	value = (struct owned){ 12, "inode" };
	update(pinned(maps, "inode_storage"), &file, &value, "inode_storage");
	expect("inode_storage", "[[{\"inode\":%lu,\"device\":\"tmpfs\"},{\"number\":12,\"text\":\"inode\"}]]", inode_of(file));

	// A map of this type with the BTF of another: there is no BTF to be had otherwise without a loader of objects.
	int task_map = pinned(maps, "task_storage");
	struct bpf_map_info info = {};
	union bpf_attr attr = {};
	attr.info.bpf_fd = task_map;
	attr.info.info = (uintptr_t)&info;
	attr.info.info_len = sizeof(info);
	must(bpf(BPF_OBJ_GET_INFO_BY_FD, &attr), "map info");
	memset(&attr, 0, sizeof(attr));
	attr.btf_id = info.btf_id;
	int btf = must(bpf(BPF_BTF_GET_FD_BY_ID, &attr), "btf");
	memset(&attr, 0, sizeof(attr));
	attr.map_type = CGRP_STORAGE;
	attr.key_size = 4;
	attr.value_size = sizeof(value);
	attr.map_flags = BPF_F_NO_PREALLOC;
	strcpy(attr.map_name, "cgrp_storage");
	attr.btf_fd = btf;
	attr.btf_key_type_id = info.btf_key_type_id;
	attr.btf_value_type_id = info.btf_value_type_id;
	int cgroup_map = bpf(BPF_MAP_CREATE, &attr);
	if (cgroup_map >= 0) {
		value = (struct owned){ 13, "cgroup" };
		update(cgroup_map, &inner, &value, "cgrp_storage");
		expect("cgrp_storage", "[[{\"id\":%lu,\"path\":\"/outer/inner\"},{\"number\":13,\"text\":\"cgroup\"}]]",
		       inode_of(inner));
	}

	memset(&attr, 0, sizeof(attr));
	attr.target_fd = inner;
	attr.attach_bpf_fd = pinned(programs, "use_storage");
	attr.attach_type = BPF_CGROUP_INET_EGRESS;
	must(bpf(BPF_PROG_ATTACH, &attr), "attach use_storage");
	struct bpf_cgroup_storage_key storage_key = { inode_of(inner), BPF_CGROUP_INET_EGRESS };
	value = (struct owned){ 14, "kept" };
	update(pinned(maps, "cgroup_storage"), &storage_key, &value, "cgroup_storage");
	struct owned each[64] = {};
	for (int cpu = 0; cpu < 64; cpu++)
		each[cpu] = (struct owned){ 100 + cpu, "percpu" };
	update(pinned(maps, "percpu_storage"), &storage_key, each, "percpu_storage");
	expect("cgroup_storage", "{\"cgroup\":%lu,\"path\":\"/outer/inner\"}", inode_of(inner));
}

/** A child whose task has storage, named so that it is known; it never ends. */
static void tasks(void)
{
	int map = pinned(maps, "task_storage");
	int channel[2];

	must(pipe(channel), "pipe");
	pid_t child = must(fork(), "fork");
	if (child == 0) {
		FILE *comm = fopen("/proc/self/comm", "w");

		fputs("owning task", comm);
		fclose(comm);
		close(1);
		close(2);
		(void)!write(channel[1], "", 1);
		for (;;)
			pause();
	}
	char ready;
	must(read(channel[0], &ready, 1) == 1 ? 0 : -1, "child");
	int task = must(syscall(SYS_pidfd_open, child, 0), "pidfd_open");
	struct owned value = { ~0ull, "task" };

	update(map, &task, &value, "task_storage");
	expect("task_storage",
	       "[[{\"pid\":%d,\"tgid\":%d,\"comm\":\"owning task\"},{\"number\":\"18446744073709551615\",\"text\":\"task\"}]]",
	       child, child);
}

int main(int count, char **arguments)
{
	if (count != 3) {
		fprintf(stderr, "usage: kinds-fill PROGRAMS MAPS\n");
		return 2;
	}
	programs = arguments[1];
	maps = arguments[2];
	tries();
	queues();
	bloom();
	ring();
	user_ring();
	stacks();
	arena();
	objects();
	tasks();
	printf("\n}\n");
	fflush(stdout);
	if (must(fork(), "fork") == 0) { // keeps the sockets, the memory and the maps
		close(0);
		close(1);
		close(2);
		for (;;)
			pause();
	}
	_exit(0);
}
