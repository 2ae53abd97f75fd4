/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clock.c -- time and deadlines.
 *
 * Sums must never wrap: a deadline that wrapped would have passed already.
 *
 * Invariant: VIA_NEVER is later than every time the clock can show.
 */
#include "core/clock.h"

#include <limits.h>
#include <time.h>

uint64_t via_now_ns(void)
{
	struct timespec ts;

	/* Cannot fail: the clock exists on every Linux and ts is ours. */
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * VIA_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t via_deadline_in(uint64_t ns)
{
	uint64_t now = via_now_ns();

	return ns > VIA_NEVER - now ? VIA_NEVER : now + ns;
}

bool via_deadline_passed(uint64_t deadline_ns)
{
	return deadline_ns != VIA_NEVER && via_now_ns() >= deadline_ns;
}

int via_deadline_poll_ms(uint64_t deadline_ns)
{
	uint64_t now, ms;

	if (deadline_ns == VIA_NEVER)
		return -1;
	now = via_now_ns();
	if (now >= deadline_ns)
		return 0;
	/* Rounded up: rounded down, the last millisecond would be spent spinning. */
	ms = (deadline_ns - now - 1) / VIA_NS_PER_MS + 1;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}
