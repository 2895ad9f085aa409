/* Schedulers and payloads: programs, their output, and how sched_ext stands. */
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_COMMANDS 64
#define SCX "/sys/kernel/sched_ext"
#define LINE_BYTES 1000

struct running {
	s32 pid; /* 0: not started, or ended */
	s32 status;
	int output, begun, attached, told_gone;
	size_t length;
	char line[LINE_BYTES];
};
static struct running running[MOST_COMMANDS];
static int kernel_log = -1;

static void tell(u32 command, u32 what)
{
	struct scheduler_state state = { .command = command, .what = what, .status = command < MOST_COMMANDS ? running[command].status : 0 };
	char text[64];
	if (read_file(SCX "/state", text, sizeof(text)) > 0 && strncmp(text, "enabled", 7) == 0)
		state.flags |= SCX_ENABLED;
	if (read_file(SCX "/switch_all", text, sizeof(text)) > 0 && text[0] == '1')
		state.flags |= SCX_SWITCH_ALL;
	if (command < MOST_COMMANDS && running[command].pid != 0)
		state.cpu_known = (u32)cpu_time(running[command].pid, &state.cpu_ns);
	if (read_file(SCX "/root/ops", state.ops, sizeof(state.ops)) > 0)
		state.ops[strcspn(state.ops, "\n")] = 0;
	put_record(RECORD_SCHEDULER, &state, sizeof(state), NULL, 0);
}

static void put_line(u32 source, u32 command, const char *text, size_t length)
{
	struct line line = { source, command };
	if (length > 0)
		put_record(RECORD_LINE, &line, sizeof(line), text, (u32)length);
}

static int begin(u32 command)
{
	const struct plan_command *spec = command_at(command);
	struct running *one = &running[command];
	int ends[2];
	if (one->pid != 0)
		return EBUSY;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
		return errno;
	memset(one, 0, sizeof(*one));
	one->begun = 1;
	one->output = ends[0];
	one->pid = fork();
	if (one->pid == 0) {
		char *words[257] = { 0 };
		const char *at = text_at(spec->arguments);
		for (u32 i = 0; i < spec->count; i++, at += strlen(at) + 1)
			words[i] = (char *)at;
		fcntl(ends[1], F_SETFL, 0);
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		if (spec->group != NOTHING && group_join(spec->group, 0) != 0)
			_exit(126);
		setsid();
		execv(words[0], words);
		dprintf(2, "ktstr: cannot run %s: %s\n", words[0], strerror(errno));
		_exit(127);
	}
	close(ends[1]);
	if (one->pid < 0) {
		one->pid = 0;
		return errno;
	}
	return 0;
}

static int is_ours(u32 command)
{
	const char *wanted = text_at(command_at(command)->ops);
	char state[64], ops[128];
	if (read_file(SCX "/state", state, sizeof(state)) <= 0 || strncmp(state, "enabled", 7) != 0)
		return 0;
	return read_file(SCX "/root/ops", ops, sizeof(ops)) > 0 && strncmp(ops, wanted, strlen(wanted)) == 0;
}

static int attached_or_dead(void *about)
{
	u32 command = *(const u32 *)about;
	return running[command].pid == 0 || is_ours(command);
}

static int ended(void *about) { return running[*(const u32 *)about].pid == 0; }

static int attach(const struct plan_op *op)
{
	u32 command = op->a;
	char state[64];
	if (read_file(SCX "/state", state, sizeof(state)) <= 0) {
		tell(command, SCHEDULER_NO_SCHED_EXT);
		return ENOSYS;
	}
	int error = begin(command);
	if (error != 0)
		return error;
	tell(command, SCHEDULER_STARTED);
	attend_until(now_ns() + op->ns, attached_or_dead, &command);
	if (is_ours(command) && running[command].pid != 0) {
		running[command].attached = 1;
		tell(command, SCHEDULER_ATTACHED);
		return 0;
	}
	if (running[command].pid == 0) {
		tell(command, is_ours(command) ? SCHEDULER_LEFT : SCHEDULER_DIED);
		return ECHILD;
	}
	int other = read_file(SCX "/state", state, sizeof(state)) > 0 && strncmp(state, "enabled", 7) == 0;
	tell(command, other ? SCHEDULER_OTHER : SCHEDULER_LATE);
	return ETIMEDOUT;
}

static int end_command(u32 command, u64 limit)
{
	struct running *one = &running[command];
	if (one->pid == 0)
		return ESRCH;
	one->told_gone = 1;
	kill(one->pid, SIGINT);
	attend_until(now_ns() + limit, ended, &command);
	if (one->pid != 0) {
		kill(-one->pid, SIGKILL);
		kill(one->pid, SIGKILL);
		attend_until(now_ns() + limit, ended, &command);
		return ETIMEDOUT;
	}
	return 0;
}

static int perform(const struct plan_op *op)
{
	int error;
	switch (op->code) {
	case OP_ATTACH:
		return attach(op);
	case OP_DETACH:
		error = end_command(op->a, op->ns);
		tell(op->a, SCHEDULER_DETACHED);
		return error;
	case OP_RUN:
		return begin(op->a);
	case OP_KILL:
		return end_command(op->a, op->ns);
	case OP_WAIT:
		attend_until(now_ns() + op->ns, ended, (void *)&op->a);
		return running[op->a].pid == 0 ? 0 : ETIMEDOUT;
	default:
		return EINVAL;
	}
}

int command_op(const struct plan_op *op, struct op_done *done)
{
	done->subject = op->a;
	if (op->a >= MOST_COMMANDS)
		return EINVAL;
	int error = perform(op);
	if (error == ETIMEDOUT && running[op->a].pid != 0)
		done->state = task_state(running[op->a].pid);
	return error;
}

int command_reaped(s32 pid, s32 status)
{
	for (u32 i = 0; i < head->commands && i < MOST_COMMANDS; i++) {
		struct command_ended end = { i, status };
		if (running[i].pid != pid)
			continue;
		running[i].pid = 0;
		running[i].status = status;
		put_record(RECORD_COMMAND_ENDED, &end, sizeof(end), NULL, 0);
		return 1;
	}
	return 0;
}

/* Lines as they come; one that is longer than LINE_BYTES is cut into several. */
static void read_output(u32 command)
{
	struct running *one = &running[command];
	char bytes[4096];
	ssize_t length;
	for (int pieces = 0; pieces < 16 && (length = read(one->output, bytes, sizeof(bytes))) > 0; pieces++) {
		for (ssize_t i = 0; i < length; i++) {
			if (bytes[i] != '\n' && one->length < sizeof(one->line)) {
				one->line[one->length++] = bytes[i];
				continue;
			}
			put_line(LINE_COMMAND, command, one->line, one->length);
			one->length = 0;
			if (bytes[i] != '\n')
				one->line[one->length++] = bytes[i];
		}
	}
}

/* A read of /dev/kmsg is a record; those of before the agent are passed over. */
static void read_kernel_log(void)
{
	char record[8192];
	ssize_t length;
	if (kernel_log < 0) {
		kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		lseek(kernel_log, 0, SEEK_END);
	}
	while ((length = read(kernel_log, record, sizeof(record))) > 0 || (length < 0 && errno == EPIPE)) {
		char *end = length > 0 ? memchr(record, '\n', (size_t)length) : NULL;
		if (end != NULL)
			put_line(LINE_KERNEL, 0, record, (size_t)(end - record));
	}
}

void commands_look(void)
{
	read_kernel_log();
	for (u32 i = 0; i < head->commands && i < MOST_COMMANDS; i++) {
		struct running *one = &running[i];
		if (one->begun)
			read_output(i);
		if (one->attached && !one->told_gone && !is_ours(i)) {
			one->told_gone = 1;
			tell(i, SCHEDULER_GONE);
		}
	}
}

void commands_end(void)
{
	commands_look();
	for (u32 i = 0; i < head->commands && i < MOST_COMMANDS; i++) {
		if (running[i].begun && command_at(i)->ops != NOTHING)
			tell(i, SCHEDULER_AT_END);
		put_line(LINE_COMMAND, i, running[i].line, running[i].length);
	}
}
