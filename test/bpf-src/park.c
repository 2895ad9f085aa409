// Makes sleeping tasks of sched_ext, each with a name and for a CPU if told (`parkl1@1`), and wakes them in this order.
// Prints each one's name and pid when all have been woken. Those whose fifth letter is s compute from then on, others end.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SCHED_EXT 7 /* include/uapi/linux/sched.h, v6.12 */
#define MOST 64

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void sleep_until_woken(const char *name, int from, volatile int *ready)
{
	struct sched_param param = { 0 };
	char byte;

	prctl(PR_SET_NAME, name);
	if (sched_setscheduler(0, SCHED_EXT, &param))
		fail("sched_setscheduler");
	*ready = 1;
	if (read(from, &byte, 1) != 1)
		fail("read");
	while (name[4] == 's')
		;
	_exit(0);
}

/* Whether a task sleeps, by /proc/PID/stat. */
static int sleeps(int pid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file)
		fail(path);
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		fail(path);
	fclose(file);
	return state == 'S';
}

int main(int argc, char **argv)
{
	volatile int *ready = mmap(NULL, MOST * sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int pids[MOST], ends[MOST], i;

	if (argc > MOST || ready == MAP_FAILED)
		return 1;
	for (i = 1; i < argc; i++) {
		char *cpu = strchr(argv[i], '@');
		int ways[2];

		if (cpu)
			*cpu++ = 0;
		if (pipe(ways))
			fail("pipe");
		pids[i] = fork();
		if (pids[i] < 0)
			fail("fork");
		if (!pids[i])
			sleep_until_woken(argv[i], ways[0], &ready[i]);
		while (!ready[i] || !sleeps(pids[i]))
			usleep(1000);
		if (cpu) {
			cpu_set_t set;

			CPU_ZERO(&set);
			CPU_SET(atoi(cpu), &set);
			if (sched_setaffinity(pids[i], sizeof(set), &set))
				fail("sched_setaffinity");
		}
		ends[i] = ways[1];
	}
	for (i = 1; i < argc; i++)
		if (write(ends[i], "", 1) != 1)
			fail("write");
	for (i = 1; i < argc; i++)
		printf("@parked %s %d\n", argv[i], pids[i]);
	return 0;
}
