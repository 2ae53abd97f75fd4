/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bite.c -- errors on purpose, for sanitizers_bite.sh: `bite leak|overflow|undefined|race`.
 * Without an argument it does nothing wrong.
 */
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void *volatile kept;
static volatile int number;
static int shared;

static void *write_shared(void *arg)
{
	shared++;
	return arg;
}

static void race(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, write_shared, NULL))
		abort();
	shared++;
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	const char *error = argc > 1 ? argv[1] : "";

	if (!strcmp(error, "leak")) {
		kept = malloc(10);
		kept = NULL;
	} else if (!strcmp(error, "overflow")) {
		kept = malloc(10);
		((volatile char *)kept)[10] = 1;
	} else if (!strcmp(error, "undefined")) {
		number = INT_MAX;
		number++;
	} else if (!strcmp(error, "race")) {
		race();
	}
	return 0;
}
