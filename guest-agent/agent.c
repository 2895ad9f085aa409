/* The guest's init: makes the mailbox, does what the plan says, and switches the guest off. It runs at FIFO 99 with its
 * memory locked, so that the scheduler under test has no say in when it runs. */
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How often output, sched_ext and dead processes are looked at. */
#define BEAT_NS 5000000u
/* include/uapi/linux/sched.h: children are of the ordinary class again. */
#define RESET_ON_FORK 0x40000000

/* A reset ends the VM too, and needs no ACPI; printk would write "Restarting system" on a slow console. An orderly reboot
 * waits for tasks that a scheduler may starve: sysrq's does not. */
static void power_off(void)
{
	write_file("/proc/sys/kernel/printk", "0");
	write_file("/proc/sysrq-trigger", "b");
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

void die(const char *why)
{
	struct refused refused = { 0 };
	if (mailbox != NULL) {
		put_record(RECORD_REFUSED, &refused, sizeof(refused), why, (u32)strlen(why));
		mailbox->state = STATE_DONE;
	}
	dprintf(2, "ktstr agent: %s\n", why);
	int fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY);
	dprintf(fd, "ktstr died %s\n", why);
	close(fd); /* waits until it is sent: a reset would lose it */
	power_off();
	_exit(1);
}

/* A process that ends the guest when the agent does not come back from a system call: under a scheduler that starves the
 * kernel's own tasks a write to a control group may never return. */
static void watch_over(void)
{
	if (fork() != 0)
		return;
	struct sched_param highest = { .sched_priority = 99 };
	struct timespec often = { .tv_nsec = 250000000 };
	mlockall(MCL_CURRENT | MCL_FUTURE);
	syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &highest);
	for (;;) {
		nanosleep(&often, NULL);
		/* before the time of now: the agent may set it on another CPU in between */
		u64 latest = __atomic_load_n(&mailbox->heartbeat, __ATOMIC_ACQUIRE) + head->call_ns;
		if (mailbox->state == STATE_READY && now_ns() > latest) {
			mailbox->state = STATE_STUCK;
			power_off();
		}
	}
}

static void reap(void)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!worker_reaped(pid, status))
			command_reaped(pid, status);
}

void attend_until(u64 deadline, int (*over)(void *), void *about)
{
	for (;;) {
		u64 now = now_ns();
		__atomic_store_n(&mailbox->heartbeat, now, __ATOMIC_RELAXED);
		reap();
		commands_look();
		if (now >= deadline || (over != NULL && over(about)))
			return;
		u64 until = deadline - now < BEAT_NS ? deadline : now + BEAT_NS;
		struct timespec at = { .tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u) };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
	}
}

static void phase(const struct plan_op *op)
{
	u32 end = op->code == OP_PHASE_END;
	struct phase record = { op->a, end };
	if (!end)
		mailbox->step = op->a + 1;
	workers_report(op->a, end);
	workers_account();
	groups_report(op->a, end);
	put_record(RECORD_PHASE, &record, sizeof(record), NULL, 0);
	if (end)
		mailbox->step = 0;
}

static int perform(const struct plan_op *op, struct op_done *done)
{
	switch (op->code) {
	case OP_CGROUP_ADD:
	case OP_CGROUP_REMOVE:
	case OP_CGROUP_WRITE:
		return group_op(op, &done->subject);
	case OP_SPAWN:
	case OP_STOP:
	case OP_MOVE:
	case OP_AFFINITY:
	case OP_NICE:
	case OP_POLICY:
		return worker_op(op, done);
	case OP_HOLD:
		attend_until(now_ns() + op->ns, NULL, NULL);
		return 0;
	case OP_PHASE_BEGIN:
	case OP_PHASE_END:
		phase(op);
		return 0;
	default:
		return command_op(op, done);
	}
}

static void run_plan(void)
{
	for (u32 i = 0; i < head->ops; i++) {
		const struct plan_op *op = op_at(i);
		struct op_done done = { .op = i, .code = op->code, .subject = NOTHING };
		mailbox->op = i;
		__atomic_store_n(&mailbox->heartbeat, now_ns(), __ATOMIC_RELAXED);
		done.error = perform(op, &done);
		put_record(RECORD_OP, &done, sizeof(done), NULL, 0);
		if (op->code == OP_ATTACH && done.error != 0)
			return; /* what the others would do says nothing of this scheduler */
	}
}

static void say_hello(u32 has, u64 init_ns)
{
	struct hello hello = {
		.version = PROTOCOL_VERSION, .cpus = (u32)sysconf(_SC_NPROCESSORS_ONLN), .controllers = has >> 16, .features = has & 0xffff,
		.init_ns = init_ns,
	};
	struct utsname name;
	if (uname(&name) == 0)
		strncpy(hello.release, name.release, sizeof(hello.release) - 1);
	put_record(RECORD_HELLO, &hello, sizeof(hello), NULL, 0);
}

int main(void)
{
	struct sched_param highest = { .sched_priority = 99 };
	u64 began = now_ns();
	u32 offset;
	u32 has = groups_mount();
	const char *why = plan_load(&offset);
	mailbox_make(head->workers);
	if (why != NULL) {
		struct refused refused = { .offset = offset };
		put_record(RECORD_REFUSED, &refused, sizeof(refused), why, (u32)strlen(why));
		mailbox->state = STATE_DONE;
		power_off();
	}
	workers_make();
	if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
		die("its memory cannot be locked");
	if (syscall(SYS_sched_setscheduler, 0, SCHED_FIFO | RESET_ON_FORK, &highest) != 0)
		die("it cannot have a real-time priority");
	signal(SIGPIPE, SIG_IGN);
	setenv("PATH", "/bin:/usr/bin", 1);
	static char directories[4096];
	if (read_file("/libraries", directories, sizeof(directories)) > 0)
		setenv("LD_LIBRARY_PATH", directories, 1);
	watch_over();
	say_hello(has, began);
	mailbox->heartbeat = now_ns();
	mailbox->state = STATE_READY;
	commands_look();
	run_plan();
	commands_end();
	put_record(RECORD_DONE, NULL, 0, NULL, 0);
	mailbox->state = STATE_DONE;
	power_off();
}
