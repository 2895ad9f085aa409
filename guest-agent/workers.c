/* Workers: processes of their own, each with a page of the mailbox. */
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Of the agent: musl counts the CPUs that the caller may use. */
static u32 cpus;
u32 cpus_online(void) { return cpus; }

static s32 *pids; /* by worker; 0: none */
static struct pair *pairs; /* by worker that leads two */

void workers_make(void)
{
	cpus = (u32)sysconf(_SC_NPROCESSORS_ONLN);
	pids = calloc(head->workers + 1, sizeof(*pids));
	pairs = calloc(head->workers + 1, sizeof(*pairs));
	if (pids == NULL || pairs == NULL)
		die("no memory for the workers");
}

int set_affinity(s32 pid, const char *list)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	for (const char *at = list; *at != 0;) {
		char *end;
		long from = strtol(at, &end, 10), to = from;
		if (*end == '-')
			to = strtol(end + 1, &end, 10);
		for (long cpu = from; cpu >= 0 && cpu <= to && cpu < CPU_SETSIZE; cpu++)
			CPU_SET((int)cpu, &set);
		if (end == at || (*end != ',' && *end != 0))
			return EINVAL;
		at = *end == ',' ? end + 1 : end;
	}
	return sched_setaffinity(pid, sizeof(set), &set) == 0 ? 0 : errno;
}

/* musl's sched_setscheduler is a stub. The classes are those of include/uapi/linux/sched.h; 7 is SCHED_EXT, v6.12. */
static int set_policy(s32 pid, u32 policy, u32 priority)
{
	struct sched_param param = { .sched_priority = (int)priority };
	return syscall(SYS_sched_setscheduler, pid, policy, &param) == 0 ? 0 : errno;
}

enum { SETUP_CGROUP = 1, SETUP_AFFINITY, SETUP_NICE, SETUP_POLICY };

static int set_up(u32 *step, const struct plan_worker *spec)
{
	int error = 0;
	prctl(PR_SET_NAME, text_at(spec->comm));
	*step = SETUP_CGROUP;
	if (spec->group != NOTHING && (error = group_join(spec->group, 0)) != 0)
		return error;
	*step = SETUP_AFFINITY;
	if (spec->cpus != NOTHING && (error = set_affinity(0, text_at(spec->cpus))) != 0)
		return error;
	*step = SETUP_NICE;
	if (spec->nice != 0 && setpriority(PRIO_PROCESS, 0, spec->nice) != 0)
		return errno;
	*step = SETUP_POLICY;
	if (spec->policy != 0 && (error = set_policy(0, spec->policy, spec->priority)) != 0)
		return error;
	return 0;
}

static void start(u32 worker)
{
	const struct plan_worker *spec = worker_at(worker);
	struct worker_page *page = worker_page(worker);
	struct pair *pair = &pairs[spec->leader];
	if (needs_pipes(spec) && worker == spec->leader && (pipe(pair->in) != 0 || pipe(pair->out) != 0))
		die("no pipe for two workers");
	page->state = WORKER_STARTING;
	pid_t pid = fork();
	if (pid != 0) {
		pids[worker] = pid;
		page->pid = (u32)pid;
		return;
	}
	int error = set_up(&page->setup_step, spec);
	if (error != 0) {
		page->setup_errno = error;
		_exit(125);
	}
	work_forever(worker, spec, pair);
}

static int is_starting(u32 worker) { return pids[worker] != 0 && worker_page(worker)->state == WORKER_STARTING; }
static int is_there(u32 worker) { return pids[worker] != 0; }

struct awaited {
	const struct plan_op *op;
	int (*is)(u32 worker);
};

static int none(void *about)
{
	const struct awaited *awaited = about;
	for (u32 i = awaited->op->a; i < awaited->op->a + awaited->op->b; i++)
		if (awaited->is(i))
			return 0;
	return 1;
}

/* Waits until no worker of an operation `is`; when some still are, the first of them is told, and how many others. */
static int await_none(const struct plan_op *op, int (*is)(u32 worker), struct op_done *done)
{
	struct awaited awaited = { op, is };
	u32 late = 0;
	attend_until(now_ns() + op->ns, none, &awaited);
	for (u32 i = op->a; i < op->a + op->b; i++) {
		if (!is(i) || late++ > 0)
			continue;
		done->subject = i;
		done->state = task_state(pids[i]);
	}
	done->others = late > 0 ? late - 1 : 0;
	return late > 0 ? ETIMEDOUT : 0;
}

static int spawn(const struct plan_op *op, struct op_done *done)
{
	for (u32 i = op->a; i < op->a + op->b; i++)
		if (pids[i] == 0)
			start(i);
	int error = await_none(op, is_starting, done);
	for (u32 i = op->a; i < op->a + op->b; i++) {
		if (pids[i] != 0)
			continue;
		done->subject = i;
		done->state = done->others = 0;
		return worker_page(i)->setup_errno != 0 ? worker_page(i)->setup_errno : ECHILD;
	}
	return error;
}

static int stop(const struct plan_op *op, struct op_done *done)
{
	for (u32 i = op->a; i < op->a + op->b; i++)
		if (pids[i] != 0)
			kill(pids[i], SIGKILL);
	return await_none(op, is_there, done);
}

static int each(const struct plan_op *op, u32 worker)
{
	switch (op->code) {
	case OP_MOVE:
		return group_join(op->c, pids[worker]);
	case OP_AFFINITY:
		return set_affinity(pids[worker], text_at(op->c));
	case OP_POLICY:
		return set_policy(pids[worker], op->c & 255, op->c >> 8);
	default:
		return setpriority(PRIO_PROCESS, (id_t)pids[worker], (s32)op->c) == 0 ? 0 : errno;
	}
}

int worker_op(const struct plan_op *op, struct op_done *done)
{
	if (op->code == OP_SPAWN)
		return spawn(op, done);
	if (op->code == OP_STOP)
		return stop(op, done);
	for (u32 i = op->a; i < op->a + op->b; i++) {
		int error = pids[i] == 0 ? ESRCH : each(op, i);
		done->subject = i;
		if (error != 0)
			return error;
	}
	return 0;
}

int worker_reaped(s32 pid, s32 status)
{
	for (u32 i = 0; i < head->workers; i++) {
		struct worker_page *page = worker_page(i);
		if (pids[i] != pid)
			continue;
		struct worker_ended ended = { i, status, page->setup_errno, page->setup_step };
		pids[i] = 0;
		page->state = WORKER_ENDED;
		put_record(RECORD_WORKER_ENDED, &ended, sizeof(ended), NULL, 0);
		return 1;
	}
	return 0;
}

/* The letter behind the name, which is in parentheses; 0: there is no such process. */
u32 task_state(s32 pid)
{
	char path[64], text[128];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	read_file(path, text, sizeof(text));
	const char *end = strrchr(text, ')');
	return end != NULL && end[1] == ' ' ? (unsigned char)end[2] : 0;
}

/* include/linux/posix-timers.h: a process's CPU clock is the inverted pid, and 2 is CPUCLOCK_SCHED. */
int cpu_time(s32 pid, u64 *ns)
{
	struct timespec at;
	if (clock_gettime((clockid_t)((~(u32)pid << 3) | 2), &at) != 0)
		return 0;
	*ns = (u64)at.tv_sec * 1000000000u + (u64)at.tv_nsec;
	return 1;
}

/* Bring the kernel's account of workers that run up to now, and of their groups: without, it is of each one's last tick.
 * kernel/sched/core.c `task_sched_runtime`, v6.12 */
void workers_account(void)
{
	u64 ns;
	for (u32 i = 0; i < head->workers; i++)
		if (pids[i] != 0)
			cpu_time(pids[i], &ns);
}

/* The second and third number of /proc/PID/schedstat: ns that it waited for a CPU, and how often it was given one. */
static void read_schedstat(s32 pid, struct worker_counters *counters)
{
	char path[64], text[128];
	unsigned long long on, waited, runs;
	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	if (read_file(path, text, sizeof(text)) <= 0 || sscanf(text, "%llu %llu %llu", &on, &waited, &runs) != 3)
		return;
	counters->run_delay = waited;
	counters->runs = (u32)runs;
}

void workers_report(u32 step, u32 end)
{
	for (u32 i = 0; i < head->workers; i++) {
		struct worker_page *page = worker_page(i);
		struct worker_counters counters = {
			.worker = i, .step = step, .end = end, .units = page->units, .gap_max = page->gap_max, .gap_at = page->gap_at,
			.gap_cpu = page->gap_cpu, .migrations = page->migrations, .cpus_used = page->cpus_used,
			.events = page->events, .event_max = page->event_max, .phase_seen = page->phase,
		};
		if (pids[i] == 0)
			continue;
		u64 since = now_ns() - page->last;
		if (page->phase != mailbox->step)
			counters.gap_max = 0;
		if (since > counters.gap_max) {
			counters.gap_max = since; /* it has not come to the end of a unit for that long */
			counters.gap_at = now_ns();
			counters.gap_cpu = page->cpu;
		}
		counters.cpu_known = (u32)cpu_time(pids[i], &counters.cpu_ns);
		read_schedstat(pids[i], &counters);
		put_record(RECORD_WORKER, &counters, sizeof(counters), NULL, 0);
	}
}
