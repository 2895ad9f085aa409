/*
 * Keeps every CPU of a guest busy and counts in memory that can be read from outside: the values of the BPF array "beats",
 * one a CPU, mapped here. Each CPU has a thread that spins and watches the clocks, one that sleeps by timer, and one end of
 * a ping-pong over a pipe with the next CPU; two more threads do that over TCP on lo. Prints "seq N" from 0 on, every 25
 * ms, and each tenth on /dev/kmsg too, whose time is the kernel's own. Ends on a line on stdin, and says then
 * "seq over N" with the number of those lines.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* load.ts reads it by these positions. Times in nanoseconds. */
struct beat {
	uint64_t count;	       /* turns of the spinning thread */
	uint64_t monotonic;    /* CLOCK_MONOTONIC, as last seen by it */
	uint64_t largest_step; /* of it, from turn to turn */
	uint64_t back;	       /* largest step back */
	uint64_t apart;	       /* most that CLOCK_REALTIME or CLOCK_BOOTTIME went another way than it */
	uint64_t naps;	       /* of the sleeping thread, of 5 ms */
	uint64_t early;	       /* naps that were over too early */
	uint64_t pongs;	       /* answers over the pipe */
	uint64_t wrong;	       /* answers that were not what was sent */
};

static volatile struct beat *beats;
static int cpus;

static void check(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	check(clock_gettime(clock, &t) == 0, "clock_gettime");
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	check(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity");
}

static void most(volatile uint64_t *of, uint64_t value)
{
	if (value > *of)
		*of = value;
}

static void *spin(void *argument)
{
	volatile struct beat *beat = argument;
	int64_t real = 0, boot = 0;

	pin(beat - beats);
	check(setpriority(PRIO_PROCESS, 0, 15) == 0, "setpriority"); /* of this thread: the others get their turns soon */
	beat->monotonic = now(CLOCK_MONOTONIC);
	for (;;) {
		uint64_t before = beat->monotonic, after = now(CLOCK_MONOTONIC);
		/* how far apart the clocks are; known to what passes while they are read */
		int64_t real_now = now(CLOCK_REALTIME) - after, boot_now = now(CLOCK_BOOTTIME) - after;

		if (now(CLOCK_MONOTONIC) - after < 1000000) {
			if (real == 0) {
				real = real_now;
				boot = boot_now;
			}
			most(&beat->apart, llabs(real_now - real));
			most(&beat->apart, llabs(boot_now - boot));
		}
		if (after < before)
			most(&beat->back, before - after);
		else
			most(&beat->largest_step, after - before);
		beat->monotonic = after;
		beat->count++;
	}
	return NULL;
}

static void *nap(void *argument)
{
	volatile struct beat *beat = argument;
	const struct timespec length = { 0, 5000000 };

	pin(beat - beats);
	for (;;) {
		uint64_t start = now(CLOCK_MONOTONIC);

		nanosleep(&length, NULL);
		if (now(CLOCK_MONOTONIC) - start < 5000000)
			beat->early++;
		beat->naps++;
	}
	return NULL;
}

struct line {
	int in, out, cpu;
	volatile struct beat *beat;
};

static void *ping(void *argument)
{
	struct line *line = argument;
	uint64_t sent, got;

	if (line->cpu >= 0)
		pin(line->cpu);
	for (sent = 0;; sent++) {
		got = ~0ull;
		check(write(line->out, &sent, sizeof(sent)) == sizeof(sent), "write");
		check(read(line->in, &got, sizeof(got)) == sizeof(got), "read");
		if (got != sent)
			line->beat->wrong++;
		line->beat->pongs++;
		usleep(1000);
	}
	return NULL;
}

static void *pong(void *argument)
{
	struct line *line = argument;
	uint64_t got;

	if (line->cpu >= 0)
		pin(line->cpu);
	for (;;) {
		check(read(line->in, &got, sizeof(got)) == sizeof(got), "read");
		check(write(line->out, &got, sizeof(got)) == sizeof(got), "write");
	}
	return NULL;
}

static void start(void *(*run)(void *), void *argument)
{
	pthread_t thread;

	check(pthread_create(&thread, NULL, run, argument) == 0, "pthread_create");
}

static void ping_pong(int there[2], int back[2], int from, int to, volatile struct beat *beat)
{
	struct line *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));

	*a = (struct line){ back[0], there[1], from, beat };
	*b = (struct line){ there[0], back[1], to, beat };
	start(pong, b);
	start(ping, a);
}

static void over_tcp(volatile struct beat *beat)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), server;

	check(bind(listener, (struct sockaddr *)&address, length) == 0, "bind");
	check(listen(listener, 1) == 0, "listen");
	check(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
	check(connect(client, (struct sockaddr *)&address, length) == 0, "connect");
	server = accept(listener, NULL, NULL);
	check(server >= 0, "accept");
	ping_pong((int[]){ server, client }, (int[]){ client, server }, -1, -1, beat);
}

int main(void)
{
	union bpf_attr attr;
	struct pollfd in = { 0, POLLIN, 0 };
	uint64_t said = 0;
	int map, kmsg, cpu;

	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = 4;
	attr.value_size = sizeof(struct beat);
	attr.max_entries = cpus + 1; /* the last one is TCP's */
	attr.map_flags = BPF_F_MMAPABLE;
	strcpy(attr.map_name, "beats");
	map = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
	check(map >= 0, "BPF_MAP_CREATE");
	beats = mmap(NULL, (cpus + 1) * sizeof(struct beat), PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
	check(beats != MAP_FAILED, "mmap");
	kmsg = open("/dev/kmsg", O_WRONLY);
	check(kmsg >= 0, "/dev/kmsg");

	for (cpu = 0; cpu < cpus; cpu++) {
		int there[2], back[2];

		check(pipe(there) == 0 && pipe(back) == 0, "pipe");
		ping_pong(there, back, cpu, (cpu + 1) % cpus, &beats[cpu]);
		start(nap, (void *)&beats[cpu]);
		start(spin, (void *)&beats[cpu]);
	}
	over_tcp(&beats[cpus]);
	while (poll(&in, 1, 25) == 0) {
		/* one write each: it is a line of the log, and no line of another's tears it */
		char line[40];
		int length = snprintf(line, sizeof(line), "seq %llu\n", (unsigned long long)said);

		check(write(1, line, length) == length, "write");
		if (said++ % 10 == 0)
			check(write(kmsg, line, length) == length, "/dev/kmsg");
	}
	printf("seq over %llu\n", (unsigned long long)said);
	return 0;
}
