/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hist.h -- a log-linear histogram of 64-bit values (nanoseconds, bytes).
 *
 * Values below 64 are exact; above, each power of two is divided into 32
 * buckets, so that a reported value is at most 3.2 % above the true one. No sample is
 * dropped; minimum, maximum and sum are exact. One writer; copy it to read
 * elsewhere. About 15 KiB.
 */
#ifndef VIA_CORE_HIST_H
#define VIA_CORE_HIST_H

#include <stdint.h>

#define VIA_HIST_SUB_BITS 5
#define VIA_HIST_BUCKETS  ((64 - VIA_HIST_SUB_BITS + 1) << VIA_HIST_SUB_BITS)

struct via_hist {
	uint64_t count;
	uint64_t sum; /* saturates */
	uint64_t min; /* 0 while empty */
	uint64_t max;
	uint64_t bucket[VIA_HIST_BUCKETS];
};

/* Empty it. A zeroed histogram is empty too. */
void via_hist_init(struct via_hist *h);

/* Add one sample. */
void via_hist_add(struct via_hist *h, uint64_t value);

/* Add all samples of @from to @h. */
void via_hist_merge(struct via_hist *h, const struct via_hist *from);

/*
 * The smallest value that at least @permille thousandths of the samples do not
 * exceed (500: median, 999: p99.9), reported as its bucket's upper bound, never above the
 * maximum. 0 when empty. @permille above 1000 counts as 1000.
 */
uint64_t via_hist_permille(const struct via_hist *h, unsigned permille);

#endif
