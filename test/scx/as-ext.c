/* as-ext COMMAND...: runs it under SCHED_EXT, a policy that busybox's chrt does not know. */
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define SCHED_EXT 7 /* include/uapi/linux/sched.h, v6.12 */

int main(int argc, char **argv)
{
	struct sched_param param = { 0 };

	if (argc < 2 || sched_setscheduler(0, SCHED_EXT, &param) != 0) {
		perror("as-ext");
		return 1;
	}
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 1;
}
