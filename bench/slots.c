// Maps whose values are kernel objects, a million entries each: every slot holds the same object. Static; runs in the guest.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 1000000

static int call(int command, union bpf_attr *attr)
{
	int result = syscall(SYS_bpf, command, attr, sizeof(*attr));
	if (result < 0) {
		fprintf(stderr, "bpf(%d): %m\n", command);
		exit(1);
	}
	return result;
}

static int make(const char *name, int type, int value_size, unsigned entries, int inner)
{
	union bpf_attr attr = { .map_type = type, .key_size = 4, .value_size = value_size, .max_entries = entries };
	attr.inner_map_fd = inner;
	strcpy(attr.map_name, name);
	return call(BPF_MAP_CREATE, &attr);
}

/* One by one each would wait for an RCU grace period. */
static void fill_with_maps(const char *name, int type, int inner)
{
	static __u32 keys[ENTRIES], values[ENTRIES];
	union bpf_attr attr = { .batch.map_fd = make(name, type, 4, ENTRIES, inner) };
	for (__u32 i = 0; i < ENTRIES; i++) {
		keys[i] = i;
		values[i] = inner;
	}
	attr.batch.keys = (unsigned long)keys;
	attr.batch.values = (unsigned long)values;
	attr.batch.count = ENTRIES;
	call(BPF_MAP_UPDATE_BATCH, &attr);
}

static void fill(const char *name, int type, __u32 value)
{
	__u32 key;
	union bpf_attr attr = { .map_fd = make(name, type, 4, ENTRIES, 0) };
	attr.key = (unsigned long)&key;
	attr.value = (unsigned long)&value;
	for (key = 0; key < ENTRIES; key++)
		call(BPF_MAP_UPDATE_ELEM, &attr);
}

static int program(void)
{
	struct bpf_insn code[] = { { .code = 0xb7 }, { .code = 0x95 } };
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2 };
	attr.insns = (unsigned long)code;
	attr.license = (unsigned long)"GPL";
	strcpy(attr.prog_name, "nothing");
	return call(BPF_PROG_LOAD, &attr);
}

int main(void)
{
	int inner = make("inner", BPF_MAP_TYPE_HASH, 4, 1, 0);
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	if (bind(udp, (struct sockaddr *)&here, sizeof(here))) return 1;
	fill_with_maps("hash_of_maps", BPF_MAP_TYPE_HASH_OF_MAPS, inner);
	fill_with_maps("array_of_maps", BPF_MAP_TYPE_ARRAY_OF_MAPS, inner);
	fill("prog_array", BPF_MAP_TYPE_PROG_ARRAY, program());
	fill("cgroup_array", BPF_MAP_TYPE_CGROUP_ARRAY, open("/sys/fs/cgroup", O_RDONLY));
	fill("devmap", BPF_MAP_TYPE_DEVMAP, if_nametoindex("lo"));
	fill("devmap_hash", BPF_MAP_TYPE_DEVMAP_HASH, if_nametoindex("lo"));
	fill("sockmap", BPF_MAP_TYPE_SOCKMAP, udp);
	fill("sockhash", BPF_MAP_TYPE_SOCKHASH, udp);
	if (daemon(0, 0)) return 1;
	pause();
}
