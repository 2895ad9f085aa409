/* Makes threads that sleep, and says how many they are. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *sleeper(void *unused) {
	for (;;)
		pause();
	return unused;
}

int main(int argc, char **argv) {
	int wanted = argc > 1 ? atoi(argv[1]) : 0, made = 0;
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16384);
	while (made < wanted && pthread_create(&thread, &small, sleeper, NULL) == 0)
		made++;
	printf("%d\n", made);
	fflush(stdout);
	for (;;)
		pause();
}
