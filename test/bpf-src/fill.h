// What the programs that fill maps share: bpf(2) by the names of pinned objects, and JSON of what was put in.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *programs, *maps;
static int first = 1;

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static inline long must(long result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static inline long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static inline int pinned(const char *directory, const char *name)
{
	char path[256];
	union bpf_attr attr = {};

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	attr.pathname = (uintptr_t)path;
	return must(bpf(BPF_OBJ_GET, &attr), path);
}

static inline int create(const char *name, int type, int key, int value, int entries, int flags, uint64_t extra)
{
	union bpf_attr attr = {};

	attr.map_type = type;
	attr.key_size = key;
	attr.value_size = value;
	attr.max_entries = entries;
	attr.map_flags = flags;
	attr.map_extra = extra;
	strcpy(attr.map_name, name);
	return bpf(BPF_MAP_CREATE, &attr);
}

static inline void update(int map, const void *key, const void *value, const char *what)
{
	union bpf_attr attr = {};

	attr.map_fd = map;
	attr.key = (uintptr_t)key;
	attr.value = (uintptr_t)value;
	must(bpf(BPF_MAP_UPDATE_ELEM, &attr), what);
}

static inline void put(int map, uint32_t key, uint32_t value, const char *what)
{
	update(map, &key, &value, what);
}

static inline int run(const char *name)
{
	static char packet[64];
	union bpf_attr attr = {};

	attr.test.prog_fd = pinned(programs, name);
	if (!strstr(name, "_stack")) { // those get no packet
		attr.test.data_in = (uintptr_t)packet;
		attr.test.data_size_in = sizeof(packet);
	}
	must(bpf(BPF_PROG_TEST_RUN, &attr), name);
	close(attr.test.prog_fd);
	return attr.test.retval;
}

static inline uint32_t program_id(int program)
{
	struct bpf_prog_info info = {};
	union bpf_attr attr = {};

	attr.info.bpf_fd = program;
	attr.info.info = (uintptr_t)&info;
	attr.info.info_len = sizeof(info);
	must(bpf(BPF_OBJ_GET_INFO_BY_FD, &attr), "program info");
	return info.id;
}

/** Begin what is expected of a map: `"name": ` and JSON. */
static inline void expect(const char *name, const char *format, ...)
{
	va_list list;

	printf("%s\n\"%s\": ", first ? "{" : ",", name);
	first = 0;
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
}

static inline uint64_t inode_of(int fd)
{
	struct stat stat;

	must(fstat(fd, &stat), "fstat");
	return stat.st_ino;
}
