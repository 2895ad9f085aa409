/* Control groups, and the file systems that the guest needs. */
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define CGROUPS "/sys/fs/cgroup"
#define WORK CGROUPS "/ktstr.work"

int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int error = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : errno;
	close(fd);
	return error;
}

int read_file(const char *path, char *into, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, into, size - 1);
	if (fd >= 0)
		close(fd);
	into[length < 0 ? 0 : length] = 0;
	return (int)length;
}

static const struct { const char *name; u32 bit; } controllers[] = {
	{ "cpu", CONTROLLER_CPU }, { "cpuset", CONTROLLER_CPUSET }, { "memory", CONTROLLER_MEMORY }, { "pids", CONTROLLER_PIDS },
};

/* What the kernel has of it is told by the answer: features and, from bit 16 on, controllers. */
u32 groups_mount(void)
{
	static const struct { const char *type, *at; u32 feature; } mounts[] = {
		{ "proc", "/proc", 0 }, { "sysfs", "/sys", 0 }, { "devtmpfs", "/dev", 0 }, { "tmpfs", "/tmp", 0 },
		{ "cgroup2", CGROUPS, HAS_CGROUP2 }, { "bpf", "/sys/fs/bpf", HAS_BPF_FS }, { "tracefs", "/sys/kernel/tracing", 0 },
		{ "debugfs", "/sys/kernel/debug", 0 },
	};
	u32 has = 0;
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++)
		if (mount(mounts[i].type, mounts[i].at, mounts[i].type, 0, NULL) == 0)
			has |= mounts[i].feature;
	if (access("/sys/kernel/sched_ext/state", R_OK) == 0)
		has |= HAS_SCHED_EXT;
	mkdir(WORK, 0755);
	for (size_t i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++) {
		char word[32];
		snprintf(word, sizeof(word), "+%s", controllers[i].name);
		if (write_file(CGROUPS "/cgroup.subtree_control", word) == 0 &&
		    write_file(WORK "/cgroup.subtree_control", word) == 0)
			has |= controllers[i].bit << 16;
	}
	return has;
}

static void path_of(char *into, size_t size, u32 group, const char *file)
{
	snprintf(into, size, "%s/%s%s%s", WORK, text_at(group_at(group)->path), file == NULL ? "" : "/", file == NULL ? "" : file);
}

int group_join(u32 group, s32 pid)
{
	char path[512], text[16];
	path_of(path, sizeof(path), group, "cgroup.procs");
	snprintf(text, sizeof(text), "%d", pid);
	return write_file(path, text);
}

int group_op(const struct plan_op *op, u32 *subject)
{
	char path[512];
	*subject = op->a;
	path_of(path, sizeof(path), op->a, op->code == OP_CGROUP_WRITE ? text_at(op->b) : NULL);
	if (op->code == OP_CGROUP_ADD)
		return mkdir(path, 0755) == 0 ? 0 : errno;
	if (op->code == OP_CGROUP_REMOVE)
		return rmdir(path) == 0 ? 0 : errno;
	return write_file(path, text_at(op->c));
}

void groups_report(u32 step, u32 end)
{
	for (u32 i = 0; i < head->groups; i++) {
		char path[512], text[1024];
		unsigned long long micros = 0;
		path_of(path, sizeof(path), i, "cpu.stat");
		int known = read_file(path, text, sizeof(text)) > 0 && sscanf(text, "usage_usec %llu", &micros) == 1;
		struct group_usage usage = { i, step, end, (u32)known, micros };
		put_record(RECORD_GROUP, &usage, sizeof(usage), NULL, 0);
	}
}
