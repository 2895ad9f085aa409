// Attaches the scheduler that it was compiled with, by a link, and stays until it gets a signal.
// -w N: waits N seconds before that. -d N: detaches and ends N seconds after it. -k N: is killed by itself N seconds after it.
// -g: prints what is not text. -b: keeps a CPU busy.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

__asm__(".section .rodata\nobject: .incbin \"" OBJECT "\"\nobject_end:\n.previous");
extern const char object[], object_end[];

// The libbpf of Debian 12 has no links of struct_ops.
static int create_link(int map)
{
	struct { unsigned map, target, type, rest[13]; } attr = { .map = map, .type = 44 }; // BPF_STRUCT_OPS, v6.4

	return syscall(SYS_bpf, 28, &attr, sizeof(attr)); // BPF_LINK_CREATE
}

static void print_garbage(void)
{
	for (int i = 0; i < 4096; i++) {
		putchar(i * 7);
		if (i % 97 == 0)
			printf("\n\033[31m\033]0;title\007\xff");
	}
	fflush(stdout);
}

int main(int count, char **arguments)
{
	int option, wait = 0, last = 0, killed = 0, garbage = 0, busy = 0;
	struct bpf_object *opened;
	struct bpf_map *map, *ops = NULL;
	struct bpf_program *program;

	while ((option = getopt(count, arguments, "w:d:k:gb")) != -1)
		switch (option) {
		case 'w': wait = atoi(optarg); break;
		case 'd': last = atoi(optarg); break;
		case 'k': killed = atoi(optarg); break;
		case 'g': garbage = 1; break;
		case 'b': busy = 1; break;
		default: return 2;
		}
	opened = bpf_object__open_mem(object, object_end - object, NULL);
	if (opened == NULL) {
		perror("cannot open");
		return 1;
	}
	bpf_object__for_each_map(map, opened)
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
			ops = map;
	bpf_map__set_map_flags(ops, 1 << 13); // BPF_F_LINK
	// which does not know the section struct_ops.s either
	bpf_object__for_each_program(program, opened)
		if (strstr(bpf_program__name(program), "_init") != NULL)
			bpf_program__set_flags(program, BPF_F_SLEEPABLE);
	sleep(wait);
	if (bpf_object__load(opened) || !bpf_map__attach_struct_ops(ops) || create_link(bpf_map__fd(ops)) < 0) {
		perror("cannot attach");
		return 1;
	}
	for (int second = 0; last == 0 || second < last; second++) {
		if (garbage)
			print_garbage();
		if (killed != 0 && second == killed)
			abort();
		for (time_t now = time(NULL); busy && time(NULL) == now;)
			;
		if (!busy)
			sleep(1);
	}
	return 0;
}
