/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * failing.c -- see failing.h. A place is a return address.
 */
#include "tests/faults/failing.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

#define SITES_MAX 1024u

static atomic_uint calls, fails_at;
static atomic_bool counting;
static struct site {
	_Atomic uintptr_t address;
	atomic_bool failed;
} * site; /* of all processes */

static void note(uintptr_t address, bool failed)
{
	for (unsigned i = 0; i < SITES_MAX; i++) {
		uintptr_t seen = 0;

		if (atomic_compare_exchange_strong(&site[i].address, &seen, address) ||
		    seen == address) {
			if (failed)
				atomic_store(&site[i].failed, true);
			return;
		}
	}
}

static bool fails(const void *caller)
{
	bool failed;

	if (!atomic_load(&counting))
		return false;
	failed = atomic_fetch_add(&calls, 1) + 1 == atomic_load(&fails_at);
	note((uintptr_t)caller, failed);
	if (failed)
		errno = ENOMEM;
	return failed;
}

void failing_init(void)
{
	site = mmap(NULL, SITES_MAX * sizeof(*site), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (site == MAP_FAILED)
		abort();
}

void failing_begin(unsigned n)
{
	atomic_store(&calls, 0);
	atomic_store(&fails_at, n);
	atomic_store(&counting, true);
}

unsigned failing_end(void)
{
	atomic_store(&counting, false);
	return atomic_load(&calls);
}

unsigned failing_sites(void)
{
	unsigned n = 0;

	while (n < SITES_MAX && atomic_load(&site[n].address))
		n++;
	return n;
}

unsigned failing_sites_failed(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SITES_MAX; i++)
		n += atomic_load(&site[i].failed);
	return n;
}

/* -- the calls --------------------------------------------------------------------------- */

#define WRAP(type, function, parameters, arguments, failure)                                       \
	type __real_##function parameters;                                                         \
	type __wrap_##function parameters;                                                         \
	type __wrap_##function parameters                                                          \
	{                                                                                          \
		return fails(__builtin_return_address(0)) ? (failure)                              \
							  : __real_##function arguments;           \
	}

WRAP(void *, malloc, (size_t len), (len), NULL)
WRAP(void *, calloc, (size_t n, size_t len), (n, len), NULL)
WRAP(void *, realloc, (void *p, size_t len), (p, len), NULL)
WRAP(void *, aligned_alloc, (size_t align, size_t len), (align, len), NULL)
WRAP(char *, strdup, (const char *s), (s), NULL)
WRAP(void *, mmap, (void *addr, size_t len, int prot, int flags, int fd, off_t off),
     (addr, len, prot, flags, fd, off), MAP_FAILED)
WRAP(int, eventfd, (unsigned value, int flags), (value, flags), -1)
WRAP(int, timerfd_create, (int clock, int flags), (clock, flags), -1)
WRAP(int, epoll_create1, (int flags), (flags), -1)
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg),
     (thread, attr, start, arg), EAGAIN)
#undef WRAP
