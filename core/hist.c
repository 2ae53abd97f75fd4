/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hist.c -- the log-linear histogram.
 *
 * Must never drop a sample, and never report less than the true value.
 *
 * Invariant: count is the sum of all buckets. Bucket i below 2^(SUB_BITS+1)
 * holds the value i; above, bucket (s << SUB_BITS) + m, with m in
 * [2^SUB_BITS, 2^(SUB_BITS+1)), holds the values v with v >> s == m.
 */
#include "core/hist.h"

#include <string.h>

#define EXACT (2u << VIA_HIST_SUB_BITS) /* values below it have a bucket each */

static unsigned bucket_of(uint64_t value)
{
	unsigned shift;

	if (value < EXACT)
		return (unsigned)value;
	shift = 63u - (unsigned)__builtin_clzll(value) - VIA_HIST_SUB_BITS;
	return (shift << VIA_HIST_SUB_BITS) + (unsigned)(value >> shift);
}

/* The largest value that bucket @i holds. */
static uint64_t bucket_top(unsigned i)
{
	unsigned shift;
	uint64_t mantissa;

	if (i < EXACT)
		return i;
	shift = (i >> VIA_HIST_SUB_BITS) - 1;
	mantissa = i - (shift << VIA_HIST_SUB_BITS);
	/* Filled with ones from below, not (m + 1) << s: that would wrap in the last bucket. */
	return mantissa << shift | ((UINT64_C(1) << shift) - 1);
}

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

void via_hist_init(struct via_hist *h)
{
	memset(h, 0, sizeof(*h));
}

/* Relaxed, and nothing more: one thread writes, and via_hist_copy() may read meanwhile. */
static void put(uint64_t *number, uint64_t value)
{
	__atomic_store_n(number, value, __ATOMIC_RELAXED);
}

static uint64_t get(const uint64_t *number)
{
	return __atomic_load_n(number, __ATOMIC_RELAXED);
}

void via_hist_add(struct via_hist *h, uint64_t value)
{
	uint64_t *bucket = &h->bucket[bucket_of(value)];

	if (!h->count || value < h->min)
		put(&h->min, value);
	if (value > h->max)
		put(&h->max, value);
	put(&h->count, h->count + 1);
	put(&h->sum, add_saturated(h->sum, value));
	put(bucket, *bucket + 1);
}

void via_hist_copy(struct via_hist *to, const struct via_hist *from)
{
	to->min = get(&from->min);
	to->max = get(&from->max);
	to->sum = get(&from->sum);
	to->count = 0;
	for (unsigned i = 0; i < VIA_HIST_BUCKETS; i++) {
		to->bucket[i] = get(&from->bucket[i]);
		to->count += to->bucket[i];
	}
}

void via_hist_merge(struct via_hist *h, const struct via_hist *from)
{
	if (!from->count)
		return;
	if (!h->count || from->min < h->min)
		h->min = from->min;
	if (from->max > h->max)
		h->max = from->max;
	h->count += from->count;
	h->sum = add_saturated(h->sum, from->sum);
	for (unsigned i = 0; i < VIA_HIST_BUCKETS; i++)
		h->bucket[i] += from->bucket[i];
}

uint64_t via_hist_permille(const struct via_hist *h, unsigned permille)
{
	uint64_t rank, seen = 0;

	if (permille > 1000)
		permille = 1000;
	/* count * permille / 1000 rounded up, in parts that cannot overflow. */
	rank = h->count / 1000 * permille + (h->count % 1000 * permille + 999) / 1000;
	for (unsigned i = 0; i < VIA_HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen && seen >= rank)
			return bucket_top(i) < h->max ? bucket_top(i) : h->max;
	}
	return 0;
}

uint64_t via_hist_count_to(const struct via_hist *h, uint64_t value)
{
	uint64_t n = 0;

	for (unsigned i = 0; i <= bucket_of(value); i++)
		n += h->bucket[i];
	return n;
}
