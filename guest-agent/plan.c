/* The plan: checked whole before the first operation, so that nothing later has to doubt an index. */
#define _GNU_SOURCE
#include "agent.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const unsigned char *plan;
const struct plan_header *head;

const char *text_at(u32 offset) { return (const char *)plan + head->strings_at + offset; }
const struct plan_group *group_at(u32 i) { return (const struct plan_group *)(plan + head->groups_at) + i; }
const struct plan_worker *worker_at(u32 i) { return (const struct plan_worker *)(plan + head->workers_at) + i; }
const struct plan_command *command_at(u32 i) { return (const struct plan_command *)(plan + head->commands_at) + i; }
const struct plan_op *op_at(u32 i) { return (const struct plan_op *)(plan + head->ops_at) + i; }

static int outside(u32 at, u32 count, size_t each)
{
	return at % 8 != 0 || at > head->size || (u64)count * each > head->size - at;
}

static int bad_text(u32 offset) { return offset >= head->strings_bytes; }
static int bad_option(u32 offset) { return offset != NOTHING && bad_text(offset); }

static const char *check_worker(const struct plan_worker *worker)
{
	if (worker->type >= work_types())
		return "a work type that this agent does not know";
	if (worker->group != NOTHING && worker->group >= head->groups)
		return "a worker of no group";
	if (bad_text(worker->comm) || bad_option(worker->cpus))
		return "a worker's text";
	if (worker->leader >= head->workers || worker->size < 1 || worker->size > head->workers - worker->leader)
		return "workers that work together";
	if (needs_pipes(worker) && worker->size != 2)
		return "a pipe of other than two workers";
	return NULL;
}

static const char *check_command(const struct plan_command *command)
{
	u32 at = command->arguments;
	if (command->count < 1 || command->count > 256 || bad_option(command->ops))
		return "a command";
	if (command->group != NOTHING && command->group >= head->groups)
		return "a command of no group";
	for (u32 i = 0; i < command->count; i++) {
		if (bad_text(at))
			return "a command's arguments";
		at += (u32)strlen(text_at(at)) + 1;
	}
	return NULL;
}

static const char *check_op(const struct plan_op *op)
{
	int range = op->a >= head->workers || op->b < 1 || op->b > head->workers - op->a;
	switch (op->code) {
	case OP_CGROUP_ADD:
	case OP_CGROUP_REMOVE:
		return op->a < head->groups ? NULL : "an operation on no group";
	case OP_CGROUP_WRITE:
		return op->a < head->groups && !bad_text(op->b) && !bad_text(op->c) ? NULL : "a write to no group";
	case OP_SPAWN:
	case OP_STOP:
	case OP_NICE:
	case OP_POLICY:
		return range ? "an operation on no worker" : NULL;
	case OP_MOVE:
		return range || op->c >= head->groups ? "a move of no worker" : NULL;
	case OP_AFFINITY:
		return range || bad_text(op->c) ? "an affinity of no worker" : NULL;
	case OP_ATTACH:
	case OP_DETACH:
		return op->a < head->commands && command_at(op->a)->ops != NOTHING ? NULL : "an operation on no scheduler";
	case OP_RUN:
	case OP_WAIT:
	case OP_KILL:
		return op->a < head->commands ? NULL : "an operation on no command";
	case OP_HOLD:
	case OP_PHASE_BEGIN:
	case OP_PHASE_END:
		return NULL;
	default:
		return "an operation that this agent does not know";
	}
}

/* Goes through a table; at the first entry that is wrong its offset. */
#define CHECK_ALL(count, at_of, check) \
	for (u32 i = 0; i < (count); i++) { \
		const char *why = check(at_of(i)); \
		*offset = (u32)((const unsigned char *)at_of(i) - plan); \
		if (why != NULL) \
			return why; \
	}

static const char *check_group(const struct plan_group *group) { return bad_text(group->path) ? "a group's path" : NULL; }

static const char *check_plan(size_t size, u32 *offset)
{
	struct plan_header without = *head;
	*offset = 0;
	if (memcmp(head->magic, PLAN_MAGIC, 8) != 0 || head->size != size)
		return "not a plan of this version";
	without.crc = 0;
	if (crc32_of(crc32_of(0, &without, sizeof(without)), plan + sizeof(without), size - sizeof(without)) != head->crc)
		return "its checksum is wrong";
	if (outside(head->strings_at, head->strings_bytes, 1) || outside(head->groups_at, head->groups, sizeof(struct plan_group)) ||
	    outside(head->workers_at, head->workers, sizeof(struct plan_worker)) ||
	    outside(head->commands_at, head->commands, sizeof(struct plan_command)) ||
	    outside(head->ops_at, head->ops, sizeof(struct plan_op)) || head->workers > MOST_WORKERS)
		return "a table that is not in it";
	if (head->strings_bytes == 0 || text_at(head->strings_bytes)[-1] != 0)
		return "texts without an end";
	CHECK_ALL(head->groups, group_at, check_group)
	CHECK_ALL(head->workers, worker_at, check_worker)
	CHECK_ALL(head->commands, command_at, check_command)
	CHECK_ALL(head->ops, op_at, check_op)
	return NULL;
}

const char *plan_load(u32 *offset)
{
	static const struct plan_header none;
	struct stat info;
	int fd = open(PLAN_PATH, O_RDONLY | O_CLOEXEC);
	head = &none;
	*offset = 0;
	if (fd < 0 || fstat(fd, &info) != 0 || info.st_size < (off_t)sizeof(struct plan_header) || info.st_size > 1 << 20)
		return "there is none of 72 bytes to 1 MiB";
	plan = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	close(fd);
	if (plan == MAP_FAILED)
		return "it cannot be read";
	head = (const struct plan_header *)plan;
	const char *why = check_plan((size_t)info.st_size, offset);
	if (why != NULL)
		head = &none;
	return why;
}
