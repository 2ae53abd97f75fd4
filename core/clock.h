/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clock.h -- time and deadlines. Times are absolute CLOCK_MONOTONIC nanoseconds.
 */
#ifndef VIA_CORE_CLOCK_H
#define VIA_CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define VIA_NEVER UINT64_MAX

#define VIA_NS_PER_US UINT64_C(1000)
#define VIA_NS_PER_MS UINT64_C(1000000)
#define VIA_NS_PER_S  UINT64_C(1000000000)

/* Now. Any thread; never fails. */
uint64_t via_now_ns(void);

/* The time @ns from now; VIA_NEVER stays VIA_NEVER and sums do not wrap. */
uint64_t via_deadline_in(uint64_t ns);

/* True once @deadline_ns has been reached; never for VIA_NEVER. */
bool via_deadline_passed(uint64_t deadline_ns);

/*
 * The timeout for poll(2) until @deadline_ns: whole milliseconds rounded up, 0 when
 * it has passed, -1 for VIA_NEVER, at most INT_MAX.
 */
int via_deadline_poll_ms(uint64_t deadline_ns);

#endif
