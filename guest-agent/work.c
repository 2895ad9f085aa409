/* What workers do. Each type counts units in its page; a unit's end is also where gaps and migrations are seen. */
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* include/uapi/linux/futex.h; musl-gcc has no kernel headers */
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1

struct self {
	u32 index;
	const struct plan_worker *spec;
	struct worker_page *page, *leader;
	int read, write; /* of a pipe to the other worker */
	u64 random;
};

static void event(struct worker_page *page, u64 ns)
{
	/* 32 buckets an octave from 64 ns on: the octave, and the five bits below the highest */
	u64 value = ns < 64 ? 64 : ns;
	int high = 63 - __builtin_clzll(value);
	u32 bucket = (u32)(high - 6) * 32 + (u32)((value >> (high - 5)) & 31);
	page->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
	page->events++;
	if (ns > page->event_max)
		page->event_max = ns;
}

/* As getcpu(2) of the vDSO where there is no RDPID, without the calls to it: a third of a unit's telemetry. The limit of the
 * segment is the CPU, and from bit 12 on its node: arch/x86/include/asm/segment.h `__CPUNODE_SEG`, v4.20 to v7.3 */
static u32 current_cpu(void)
{
	u32 limit;
	__asm__ volatile("lsl %1, %0" : "=r"(limit) : "r"(0x7b) : "cc");
	return limit & 0xfff;
}

/* The end of a unit. */
static void unit(struct self *self)
{
	struct worker_page *page = self->page;
	u64 now = now_ns();
	u32 cpu = current_cpu(), phase = mailbox->step;
	if (page->phase != phase) {
		page->phase = phase;
		page->gap_max = 0;
	} else if (now - page->last > page->gap_max) {
		page->gap_max = now - page->last;
		page->gap_at = now;
		page->gap_cpu = cpu;
	}
	page->last = now;
	if (page->cpu != cpu) {
		page->migrations++;
		page->cpu = cpu;
	}
	page->cpus_used |= 1ull << (cpu & 63);
	__atomic_store_n(&page->units, page->units + 1, __ATOMIC_RELAXED);
}

static void turns(u64 count)
{
	for (u64 i = 0; i < count; i++)
		__asm__ volatile("" ::: "memory");
}

static u64 cpu_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
	return (u64)at.tv_sec * 1000000000u + (u64)at.tv_nsec;
}

/* Compute for that much of this thread's CPU time: no loop is calibrated. */
static void burn(struct self *self, u64 ns)
{
	u64 until = cpu_ns() + ns;
	while (cpu_ns() < until) {
		turns(256);
		unit(self);
	}
}

static void sleep_ns(u64 ns)
{
	struct timespec time = { .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
	nanosleep(&time, NULL);
}

static u64 next_random(struct self *self)
{
	self->random ^= self->random << 13;
	self->random ^= self->random >> 7;
	self->random ^= self->random << 17;
	return self->random;
}

static void futex(u32 *word, int op, u32 value)
{
	syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

/* params: loop turns */
static void spin(struct self *self) { turns(self->spec->params[0]); unit(self); }

static void yield(struct self *self) { turns(self->spec->params[0]); sched_yield(); unit(self); }

/* Computes, then half of the time yields. */
static void mixed(struct self *self)
{
	turns(self->spec->params[0]);
	if (next_random(self) & 1)
		sched_yield();
	unit(self);
}

/* params: ns of CPU time on, ns off */
static void bursty(struct self *self)
{
	burn(self, self->spec->params[0]);
	u64 before = now_ns();
	sleep_ns(self->spec->params[1]);
	u64 slept = now_ns() - before;
	event(self->page, slept > self->spec->params[1] ? slept - self->spec->params[1] : 0);
	unit(self);
}

/* params: ns between wake-ups; what is counted is how late each came */
static void timer(struct self *self)
{
	u64 *due = &self->page->scratch[0];
	*due = (*due == 0 ? now_ns() : *due) + self->spec->params[0];
	struct timespec at = { .tv_sec = (time_t)(*due / 1000000000u), .tv_nsec = (long)(*due % 1000000000u) };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
	u64 now = now_ns();
	event(self->page, now - *due);
	if (now > *due + self->spec->params[0])
		*due = now; /* what was missed is not made up for */
	unit(self);
}

/* Two workers send each other the time; params: loop turns before each answer. The first one's unit is a round trip. */
static void pipe_pair(struct self *self)
{
	u64 sent = now_ns();
	if (self->index == self->spec->leader && write(self->write, &sent, sizeof(sent)) != sizeof(sent))
		_exit(1);
	if (read(self->read, &sent, sizeof(sent)) != sizeof(sent))
		_exit(1);
	event(self->page, now_ns() - sent);
	turns(self->spec->params[0]);
	sent = now_ns();
	if (self->index != self->spec->leader && write(self->write, &sent, sizeof(sent)) != sizeof(sent))
		_exit(1);
	unit(self);
}

/* The same by a futex in the first one's page: even, it is the first one's turn. */
static void futex_pair(struct self *self)
{
	u32 *word = &self->leader->word;
	u32 mine = self->index == self->spec->leader ? 0 : 1;
	for (;;) {
		u32 now = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		if ((now & 1) == mine)
			break;
		futex(word, FUTEX_WAIT, now);
	}
	if (self->leader->scratch[0] != 0)
		event(self->page, now_ns() - self->leader->scratch[0]);
	turns(self->spec->params[0]);
	self->leader->scratch[0] = now_ns();
	__atomic_add_fetch(word, 1, __ATOMIC_RELEASE);
	futex(word, FUTEX_WAKE, 1);
	unit(self);
}

/* The first one wakes all others at once; params: loop turns of a woken one, ns between two wake-ups. */
static void fan_out(struct self *self)
{
	u32 *word = &self->leader->word;
	if (self->index == self->spec->leader) {
		sleep_ns(self->spec->params[1]);
		self->page->scratch[0] = now_ns();
		__atomic_add_fetch(word, 1, __ATOMIC_RELEASE);
		futex(word, FUTEX_WAKE, 0x7fffffff);
		unit(self);
		return;
	}
	u32 seen = self->page->turns;
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == seen)
		futex(word, FUTEX_WAIT, seen);
	event(self->page, now_ns() - self->leader->scratch[0]);
	self->page->turns = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	turns(self->spec->params[0]);
	unit(self);
}

/* A lock of three states, 0 free, 1 held, 2 held and waited for; params: loop turns with it, and without it. */
static void mutex(struct self *self)
{
	u32 *word = &self->leader->word, free = 0;
	u64 asked = now_ns();
	if (!__atomic_compare_exchange_n(word, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		while (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE) != 0)
			futex(word, FUTEX_WAIT, 2);
	}
	event(self->page, now_ns() - asked);
	turns(self->spec->params[0]);
	if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2)
		futex(word, FUTEX_WAKE, 1);
	turns(self->spec->params[1]);
	unit(self);
}

static void fork_exit(struct self *self)
{
	u64 before = now_ns();
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	if (child < 0 || waitpid(child, NULL, 0) != child)
		_exit(1);
	event(self->page, now_ns() - before);
	unit(self);
}

/* params: pages to fault in, which are given back then */
static void page_faults(struct self *self)
{
	size_t bytes = self->spec->params[0] * PAGE;
	char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		_exit(1);
	madvise(at, bytes, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < bytes; i += PAGE)
		((volatile char *)at)[i] = 1;
	munmap(at, bytes);
	unit(self);
}

/* params: loop turns, then another CPU by chance */
static void affinity_churn(struct self *self)
{
	cpu_set_t set;
	turns(self->spec->params[0]);
	CPU_ZERO(&set);
	CPU_SET((int)(next_random(self) % cpus_online()), &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0 && errno != EINVAL) /* a CPU outside of its cpuset */
		_exit(1);
	unit(self);
}

/* params: loop turns, then the next nice value from -20 to 19 */
static void nice_sweep(struct self *self)
{
	turns(self->spec->params[0]);
	setpriority(PRIO_PROCESS, 0, (int)(self->page->units % 40) - 20);
	unit(self);
}

/* In the order of src/harness/scenario/WorkTypes.ts. */
static void (*const types[])(struct self *) = {
	spin, yield, mixed, bursty, timer, pipe_pair, futex_pair, fan_out, mutex, fork_exit, page_faults, affinity_churn, nice_sweep,
};

u32 work_types(void) { return sizeof(types) / sizeof(types[0]); }
int needs_pipes(const struct plan_worker *spec) { return spec->type < work_types() && types[spec->type] == pipe_pair; }

void work_forever(u32 worker, const struct plan_worker *spec, const struct pair *pair)
{
	int first = worker == spec->leader;
	struct self self = {
		.index = worker, .spec = spec, .page = worker_page(worker), .leader = worker_page(spec->leader),
		.read = first ? pair->in[0] : pair->out[0], .write = first ? pair->out[1] : pair->in[1],
		.random = (head->seed ^ (worker + 1) * 0x9e3779b97f4a7c15ull) | 1,
	};
	self.page->cpu = current_cpu();
	self.page->last = now_ns();
	self.page->phase = mailbox->step;
	__atomic_store_n(&self.page->state, WORKER_RUNNING, __ATOMIC_RELEASE);
	for (;;)
		types[spec->type](&self);
}
