/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clock.h -- time and deadlines. Times are absolute CLOCK_MONOTONIC nanoseconds.
 *
 * Threads: any. Nothing here blocks.
 */
#ifndef VIA_CORE_CLOCK_H
#define VIA_CORE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VIA_NEVER UINT64_MAX

#define VIA_NS_PER_US UINT64_C(1000)
#define VIA_NS_PER_MS UINT64_C(1000000)
#define VIA_NS_PER_S  UINT64_C(1000000000)

/* How long a call may wait. */
struct via_wait {
	uint64_t deadline_ns; /* -ETIMEDOUT from then on */
	int cancel_fd;        /* -ECANCELED once readable; -1: no such descriptor */
};

/* What time it is. Returns now, in nanoseconds; never fails. */
uint64_t via_now_ns(void);

/*
 * The time that is so many nanoseconds from now.
 *
 * Returns now plus @ns, or VIA_NEVER where that is VIA_NEVER or would wrap.
 */
uint64_t via_deadline_in(uint64_t ns);

/* Has a deadline been reached? Returns true from then on; never for VIA_NEVER. */
bool via_deadline_passed(uint64_t deadline_ns);

/*
 * The timeout for poll(2) until a deadline.
 *
 * Returns whole milliseconds, rounded up, at most INT_MAX; 0 when @deadline_ns has passed; -1 for
 * VIA_NEVER.
 */
int via_deadline_poll_ms(uint64_t deadline_ns);

#ifdef __cplusplus
}
#endif

#endif
