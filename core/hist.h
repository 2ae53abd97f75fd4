/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hist.h -- a log-linear histogram of 64-bit values (nanoseconds, bytes).
 *
 * Values below 64 are exact; above, each power of two is divided into 32
 * buckets, so that a reported value is at most 3.2 % above the true one. No sample is
 * dropped; minimum, maximum and sum are exact. One writer; others read a copy of
 * via_hist_copy(). About 15 KiB.
 *
 * Threads: one that adds, at a time. Nothing here blocks.
 */
#ifndef VIA_CORE_HIST_H
#define VIA_CORE_HIST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VIA_HIST_SUB_BITS 5
#define VIA_HIST_BUCKETS  ((64 - VIA_HIST_SUB_BITS + 1) << VIA_HIST_SUB_BITS)

/* The samples. A zeroed one is empty. */
struct via_hist {
	uint64_t count;
	uint64_t sum; /* saturates */
	uint64_t min; /* 0 while empty */
	uint64_t max;
	uint64_t bucket[VIA_HIST_BUCKETS];
};

/* Empty a histogram. One that is zeroed is empty, too. */
void via_hist_init(struct via_hist *h);

/* Add one sample to a histogram. */
void via_hist_add(struct via_hist *h, uint64_t value);

/*
 * Copy a histogram to which its writer may be adding.
 *
 * The copy is a histogram again: its count is the sum of its buckets; of a sample that is just
 * being added minimum, maximum and sum may lack. Any thread.
 */
void via_hist_copy(struct via_hist *to, const struct via_hist *from);

/* Add all samples of one histogram to another. @from stays as it is. */
void via_hist_merge(struct via_hist *h, const struct via_hist *from);

/*
 * A quantile of the samples, in thousandths: 500 is the median, 999 is p99.9.
 *
 * @permille above 1000 counts as 1000.
 *
 * Returns the smallest value that at least @permille thousandths of the samples do not exceed, as
 * its bucket's upper bound and never above the maximum; 0 when there are none.
 */
uint64_t via_hist_permille(const struct via_hist *h, unsigned permille);

/*
 * How many samples are at most so large.
 *
 * @value counts as the end of its bucket, so that samples less than 3.2 % above it may be counted.
 *
 * Returns their number.
 */
uint64_t via_hist_count_to(const struct via_hist *h, uint64_t value);

#ifdef __cplusplus
}
#endif

#endif
