// Runs as root in the guest: runs the programs of special.bpf.o and, where they are pinned, of objects.bpf.o, and puts
// devices, CPUs and sockets into maps. Prints as JSON what it put in, one object by map name, and stays (in a child) so that
// all of it lives on. Arguments: the directories of the pinned programs and maps of the one, and of the other.
#include "fill.h"
#include <arpa/inet.h>
#include <linux/if_xdp.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define PAGE 4096
#define SOL_XDP 283

struct timed {
	uint64_t from, to, timer[2];
	uint32_t fired;
};

static void lookup(int map, uint32_t key, void *value, const char *what)
{
	union bpf_attr attr = {};

	attr.map_fd = map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)value;
	must(bpf(BPF_MAP_LOOKUP_ELEM, &attr), what);
}

static void ran(const char *name)
{
	int result = run(name);

	if (result) {
		fprintf(stderr, "special-fill: %s gave %d\n", name, result);
		exit(1);
	}
}

/** Run a program of type SYSCALL. */
static int run_with(const char *name, void *context, int size)
{
	union bpf_attr attr = {};

	attr.test.prog_fd = pinned(programs, name);
	attr.test.ctx_in = (uintptr_t)context;
	attr.test.ctx_size_in = size;
	must(bpf(BPF_PROG_TEST_RUN, &attr), name);
	close(attr.test.prog_fd);
	return attr.test.retval;
}

/** What /proc/kallsyms call a function of a BPF program. */
static void print_function(const char *ending)
{
	FILE *symbols = fopen("/proc/kallsyms", "r");
	char line[600], name[512] = "";

	while (fgets(line, sizeof(line), symbols)) {
		if (sscanf(line, "%*x %*c %511s", name) == 1 && !strncmp(name, "bpf_prog_", 9) && strlen(name) > strlen(ending) &&
		    !strcmp(name + strlen(name) - strlen(ending), ending))
			break;
		name[0] = 0;
	}
	fclose(symbols);
	printf("\"%s\"", name);
}

static void timers(void)
{
	int map = pinned(maps, "timers");
	struct timed value = {};

	ran("fill_timers");
	for (int wait = 0; wait < 1000 && !value.fired; wait++) {
		usleep(10000);
		lookup(map, 2, &value, "timers");
	}
	if (!value.fired) {
		fprintf(stderr, "special-fill: the timer did not fire in 10 s\n");
		exit(1);
	}
	expect("timers", "{\"program\":%u,\"callback\":", program_id(pinned(programs, "fill_timers")));
	print_function("_on_timer");
	printf(",\"times\":[");
	for (int n = 0; n < 5; n++) {
		lookup(map, n, &value, "timers");
		printf("%s[\"%lu\",\"%lu\",%u]", n ? "," : "", value.from, value.to, value.fired);
	}
	printf("]}");
}

static void records(int mark)
{
	static char packet[64];
	struct __sk_buff context = { .mark = mark };
	union bpf_attr attr = {};

	attr.test.prog_fd = pinned(programs, "add_record");
	attr.test.data_in = (uintptr_t)packet;
	attr.test.data_size_in = sizeof(packet);
	attr.test.ctx_in = (uintptr_t)&context;
	attr.test.ctx_size_in = sizeof(context);
	must(bpf(BPF_PROG_TEST_RUN, &attr), "add_record");
	close(attr.test.prog_fd);
}

/** A child in which a program has reserved a record and waits for a page for ever; 0 on kernels without userfaultfd. */
static int reserve(void)
{
	int faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	uint64_t *producer = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, pinned(maps, "ring_busy"), PAGE);

	if (faults < 0 && errno == ENOSYS)
		return 0;
	must(faults, "userfaultfd");
	if (producer == MAP_FAILED)
		fail("mmap ring_busy");
	uint64_t before = __atomic_load_n(producer, __ATOMIC_ACQUIRE);
	close(faults);
	if (must(fork(), "fork") == 0) {
		void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct uffdio_api api = { .api = UFFD_API };
		struct uffdio_register range = { .range = { (uintptr_t)page, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
		uint64_t address = (uintptr_t)page;

		faults = must(syscall(SYS_userfaultfd, O_CLOEXEC), "userfaultfd");
		must(ioctl(faults, UFFDIO_API, &api), "UFFDIO_API");
		must(ioctl(faults, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
		close(0);
		close(1);
		close(2);
		run_with("reserve_and_wait", &address, sizeof(address));
		exit(1);
	}
	for (int wait = 0; wait < 1000; wait++) {
		if (__atomic_load_n(producer, __ATOMIC_ACQUIRE) != before)
			return 1;
		usleep(10000);
	}
	fprintf(stderr, "special-fill: no record was reserved in 10 s\n");
	exit(1);
}

static void ring(void)
{
	records(2);
	records(5);
	int busy = reserve();

	records(8);
	expect("ring_busy", "[[\"committed\",24,2],[\"discarded\",24,5],%s[\"committed\",24,8]]", busy ? "[\"busy\",40,187]," : "");
}

/** Slots that name a program, and slots that do not. */
static void programs_of_slots(void)
{
	int on_device = pinned(programs, "on_device"), on_cpu = pinned(programs, "on_cpu");
	uint32_t with_device[] = { 1, on_device }, device[] = { 1, 0 };
	uint32_t with_queue[] = { 192, on_cpu }, queue[] = { 64, 0 };

	for (uint32_t cpu = 0; cpu < 2; cpu++) {
		uint32_t slot = cpu + 1, far = slot * 11;

		update(pinned(maps, "devices"), &slot, cpu ? device : with_device, "devices");
		update(pinned(maps, "device_hash"), &far, cpu ? device : with_device, "device_hash");
		update(pinned(maps, "cpus"), &cpu, cpu ? queue : with_queue, "cpus");
	}
	expect("devices", "{\"id\":%u,\"name\":\"on_device\",\"type\":\"xdp\"}", program_id(on_device));
	expect("cpus", "{\"id\":%u,\"name\":\"on_cpu\",\"type\":\"xdp\"}", program_id(on_cpu));
}

/** An AF_XDP socket that receives what comes to queue 0 of lo. */
static void xdp_socket(void)
{
	int fd = must(socket(AF_XDP, SOCK_RAW, 0), "AF_XDP"), size = 64;
	void *memory = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct xdp_umem_reg umem = { .addr = (uintptr_t)memory, .len = 16 * PAGE, .chunk_size = PAGE };
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY, .sxdp_ifindex = 1 };

	must(setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)), "XDP_UMEM_REG");
	must(setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &size, sizeof(size)), "XDP_UMEM_FILL_RING");
	must(setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &size, sizeof(size)), "XDP_UMEM_COMPLETION_RING");
	must(setsockopt(fd, SOL_XDP, XDP_RX_RING, &size, sizeof(size)), "XDP_RX_RING");
	must(bind(fd, (void *)&address, sizeof(address)), "bind AF_XDP");
	put(must(create("xsk_bound", BPF_MAP_TYPE_XSKMAP, 4, 4, 2, 0, 0), "xsk_bound"), 1, fd, "xsk_bound");
	expect("xsk_bound", "{\"inode\":%lu}", inode_of(fd));
}

/** `{ cookie, inode, family, protocol, state, local, remote }` */
static void print_tcp(int fd, int state)
{
	struct sockaddr_in local = {}, remote = {};
	socklen_t length = sizeof(local), size = sizeof(uint64_t);
	char ends[2][INET_ADDRSTRLEN];
	uint64_t cookie;

	must(getsockname(fd, (void *)&local, &length), "getsockname");
	length = sizeof(remote);
	getpeername(fd, (void *)&remote, &length); // a listener has no peer
	must(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size), "SO_COOKIE");
	inet_ntop(AF_INET, &local.sin_addr, ends[0], sizeof(ends[0]));
	inet_ntop(AF_INET, &remote.sin_addr, ends[1], sizeof(ends[1]));
	printf("{\"cookie\":%lu,\"inode\":%lu,\"family\":\"AF_INET\",\"protocol\":6,\"state\":%d,\"local\":\"%s:%d\","
	       "\"remote\":\"%s:%d\"}",
	       cookie, inode_of(fd), state, ends[0], ntohs(local.sin_port), ends[1], ntohs(remote.sin_port));
}

static int listening(struct sockaddr_in *address)
{
	int fd = must(socket(AF_INET, SOCK_STREAM, 0), "socket"), one = 1;
	socklen_t length = sizeof(*address);

	must(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), "SO_REUSEPORT");
	must(bind(fd, (void *)address, sizeof(*address)), "bind");
	must(listen(fd, 4), "listen");
	must(getsockname(fd, (void *)address, &length), "getsockname");
	return fd;
}

/** A listener and both ends of a connection, in maps of both kinds that hold them; and the listener's sibling. */
static void tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int map = must(create("sockmap_tcp", BPF_MAP_TYPE_SOCKMAP, 4, 8, 4, 0, 0), "sockmap_tcp");
	int hash = must(create("sockhash_tcp", BPF_MAP_TYPE_SOCKHASH, 4, 8, 4, 0, 0), "sockhash_tcp");
	int reuseport = must(create("reuseport_tcp", BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, 4, 8, 2, 0, 0), "reuseport_tcp");
	int listener = listening(&address);
	int client = must(socket(AF_INET, SOCK_STREAM, 0), "socket");

	must(connect(client, (void *)&address, sizeof(address)), "connect");
	uint64_t sockets[] = { listener, client, must(accept(listener, NULL, NULL), "accept"), listening(&address) };

	for (uint32_t n = 0; n < 3; n++) {
		uint32_t far = 1000 + n;

		update(map, &n, &sockets[n], "sockmap_tcp");
		update(hash, &far, &sockets[n], "sockhash_tcp");
	}
	update(reuseport, &(uint32_t){ 1 }, &sockets[3], "reuseport_tcp");
	expect("tcp", "[");
	for (int n = 0; n < 4; n++) {
		printf(n ? "," : "");
		print_tcp(sockets[n], n % 3 ? 1 : 10);
	}
	printf("]");
}

/** Storage of a cgroup below two others. */
static uint64_t cgroup(void)
{
	union bpf_attr attr = {};

	mkdir("/sys/fs/cgroup/special", 0755);
	mkdir("/sys/fs/cgroup/special/of one", 0755);
	int fd = must(open("/sys/fs/cgroup/special/of one", O_RDONLY), "cgroup");
	uint64_t id = inode_of(fd), value = 4321;

	attr.target_fd = fd;
	attr.attach_bpf_fd = pinned(programs, "share_storage");
	attr.attach_type = BPF_CGROUP_INET_EGRESS;
	must(bpf(BPF_PROG_ATTACH, &attr), "attach share_storage");
	update(pinned(maps, "shared_storage"), &id, &value, "shared_storage");
	expect("shared_storage", "%lu", id);
	return id;
}

/** A process that stays, with a name. */
static pid_t stay(const char *name)
{
	int channel[2];
	char ready;

	must(pipe(channel), "pipe");
	pid_t child = must(fork(), "fork");
	if (child == 0) {
		FILE *comm = fopen("/proc/self/comm", "w");

		fputs(name, comm);
		fclose(comm);
		close(0);
		close(1);
		close(2);
		(void)!write(channel[1], "", 1);
		for (;;)
			pause();
	}
	must(read(channel[0], &ready, 1) == 1 ? 0 : -1, "child");
	return child;
}

static void objects(uint64_t cgroup)
{
	struct {
		uint64_t cgroup;
		uint32_t pid, padding;
	} wanted = { cgroup, stay("held task") };
	struct {
		uint64_t work[2];
		uint32_t done, padding;
	} job = {};

	ran("fill_shelf");
	ran("empty_shelf");
	ran("fill_private");
	int result = run_with("hold_kernels", &wanted, sizeof(wanted));
	if (result) {
		fprintf(stderr, "special-fill: hold_kernels gave %d\n", result);
		exit(1);
	}
	ran("hold_objects");
	ran("count_percpu");
	expect("holders", "{\"pid\":%d,\"cgroup\":%lu}", wanted.pid, cgroup);
	ran("start_work");
	for (int wait = 0; wait < 1000 && !job.done; wait++) {
		usleep(10000);
		lookup(pinned(maps, "jobs"), 0, &job, "jobs");
	}
	expect("jobs", "{\"done\":%u,\"program\":%u,\"callback\":", job.done, program_id(pinned(programs, "start_work")));
	print_function("_on_work");
	printf("}");
}

int main(int count, char **arguments)
{
	if (count != 5) {
		fprintf(stderr, "usage: special-fill PROGRAMS MAPS OBJECTS-PROGRAMS OBJECTS-MAPS\n");
		return 2;
	}
	int channel[2];
	char done;
	must(pipe(channel), "pipe");
	if (must(fork(), "fork") != 0) {
		close(channel[1]);
		return read(channel[0], &done, 1) == 1 ? 0 : 1;
	}
	close(channel[0]);
	programs = arguments[1];
	maps = arguments[2];
	timers();
	expect("watched_tasks", "%d", getpid());
	ran("watch_task");
	ring();
	programs_of_slots();
	xdp_socket();
	tcp();
	uint64_t id = cgroup();
	programs = arguments[3];
	maps = arguments[4];
	if (access(programs, F_OK) == 0)
		objects(id);
	printf("\n}\n");
	fflush(stdout);
	(void)!write(channel[1], "", 1);
	close(channel[1]);
	close(0);
	close(1);
	close(2);
	// With the sockets, and as the task that was watched.
	for (;;)
		pause();
}
