/* A payload that does harm from inside of the guest: what its first argument says. */
#define _GNU_SOURCE
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

/* Every process of that name, but this one, gets SIGKILL; fails when there is none. */
static int kill_named(const char *name)
{
	char path[300], comm[64];
	int found = 0;
	DIR *proc = opendir("/proc");
	for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
		pid_t pid = atoi(entry->d_name);
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		FILE *file = pid > 1 && pid != getpid() ? fopen(path, "r") : NULL;
		if (file == NULL)
			continue;
		if (fgets(comm, sizeof(comm), file) != NULL && strcmp(strtok(comm, "\n"), name) == 0)
			found += kill(pid, SIGKILL) == 0;
		fclose(file);
	}
	printf("killed %d of %s\n", found, name);
	return found == 0;
}

/* Each CPU gets a task that nothing is above of, and that does not let go. An emulator does nothing for a nop: the guest's
 * time passes quickly. */
static void starve(void)
{
	struct sched_param highest = { .sched_priority = 99 };
	cpu_set_t one;
	for (long cpu = sysconf(_SC_NPROCESSORS_ONLN); cpu-- > 0;) {
		if (cpu > 0 && fork() != 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET((int)cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		sched_setscheduler(0, SCHED_FIFO, &highest);
		for (;;)
			__asm__ volatile(".rept 200; nop; .endr");
	}
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";
	if (strcmp(what, "kill") == 0)
		return kill_named(words[2]);
	if (strcmp(what, "init") == 0)
		return kill(1, SIGKILL) | kill(1, SIGSEGV) | kill(1, SIGSTOP);
	if (strcmp(what, "reset") == 0)
		return reboot(RB_AUTOBOOT);
	if (strcmp(what, "starve") == 0)
		starve();
	if (strcmp(what, "endless") != 0)
		return 2;
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	for (;;)
		pause();
}
