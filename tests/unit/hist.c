/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hist.c -- percentiles against a sorted array of the same samples.
 *
 * What a benchmark reports stands on this file: the error bound is checked for
 * every shape of distribution, and the ends of the range by hand.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/hist.h"

#define NSAMPLES 5000u

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint64_t random64(void)
{
	return (uint64_t)random() << 42 ^ (uint64_t)random() << 21 ^ (uint64_t)random();
}

/* Shapes: tiny, flat, every magnitude, long tail, all equal, huge. */
static uint64_t sample(unsigned shape)
{
	switch (shape) {
	case 0:
		return random64() % 100;
	case 1:
		return random64() % 1000000;
	case 2:
		return random64() >> random64() % 64;
	case 3:
		return 1000 + (random64() % 1000 ? random64() % 50 : random64() % 100000000);
	case 4:
		return 12345;
	default:
		return UINT64_MAX - random64() % 1000;
	}
}

/* The true value: the smallest that at least @permille thousandths do not exceed. */
static uint64_t exact(const uint64_t *sorted, size_t n, unsigned permille)
{
	size_t rank = (n * permille + 999) / 1000;

	return sorted[rank ? rank - 1 : 0];
}

static void check(const struct via_hist *h, const uint64_t *sorted, size_t n)
{
	for (unsigned permille = 0; permille <= 1000; permille++) {
		uint64_t want = exact(sorted, n, permille), got = via_hist_permille(h, permille);

		cr_assert_geq(got, want, "permille %u of %zu is too low", permille, n);
		cr_assert_leq(got - want, want / 31, "permille %u of %zu is too high", permille, n);
		cr_assert_leq(got, h->max);
		if (want < 64)
			cr_assert_eq(got, want, "values below 64 are exact");
	}
	cr_assert_eq(h->count, n);
	cr_assert_eq(h->min, sorted[0]);
	cr_assert_eq(h->max, sorted[n - 1]);
}

Test(hist, percentiles_of_every_shape)
{
	static uint64_t values[NSAMPLES];

	srandom(7);
	for (unsigned shape = 0; shape <= 5; shape++) {
		static struct via_hist h;

		via_hist_init(&h);
		for (size_t i = 0; i < NSAMPLES; i++) {
			values[i] = sample(shape);
			via_hist_add(&h, values[i]);
		}
		qsort(values, NSAMPLES, sizeof(values[0]), by_value);
		check(&h, values, NSAMPLES);
	}
}

/* Few samples: where a rank that is rounded the wrong way shows. */
Test(hist, percentiles_of_few_samples)
{
	uint64_t values[12];

	srandom(8);
	for (size_t n = 1; n <= 12; n++) {
		static struct via_hist h;

		via_hist_init(&h);
		for (size_t i = 0; i < n; i++) {
			values[i] = random64() % 64;
			via_hist_add(&h, values[i]);
		}
		qsort(values, n, sizeof(values[0]), by_value);
		check(&h, values, n);
	}
}

Test(hist, empty)
{
	static struct via_hist h;

	for (unsigned permille = 0; permille <= 1001; permille++)
		cr_assert_eq(via_hist_permille(&h, permille), 0);
	cr_assert_eq(h.min, 0);
}

Test(hist, above_a_thousand_is_the_maximum)
{
	static struct via_hist h;

	via_hist_add(&h, 5);
	via_hist_add(&h, 1000001);
	cr_assert_eq(via_hist_permille(&h, 1000), 1000001);
	cr_assert_eq(via_hist_permille(&h, 1001), 1000001);
	cr_assert_eq(via_hist_permille(&h, ~0u), 1000001);
}

/* Each bucket's edges: one sample is reported as itself, never as a neighbour. */
Test(hist, one_sample_is_reported_exactly)
{
	static struct via_hist h;

	for (unsigned bit = 0; bit < 64; bit++) {
		for (int d = -1; d <= 1; d++) {
			uint64_t v = (UINT64_C(1) << bit) + (uint64_t)d;

			via_hist_init(&h);
			via_hist_add(&h, v);
			cr_assert_eq(via_hist_permille(&h, 500), v);
		}
	}
	via_hist_init(&h);
	via_hist_add(&h, 0);
	cr_assert_eq(via_hist_permille(&h, 1000), 0);
}

/* With a larger sample beside it, a value is reported as its bucket's upper bound. */
Test(hist, error_bound_at_every_power_of_two)
{
	static struct via_hist h;

	for (unsigned bit = 0; bit < 63; bit++) {
		for (int d = -1; d <= 1; d++) {
			uint64_t v = (UINT64_C(1) << bit) + (uint64_t)d, got;

			via_hist_init(&h);
			via_hist_add(&h, v);
			via_hist_add(&h, UINT64_MAX);
			got = via_hist_permille(&h, 500);
			cr_assert_geq(got, v);
			cr_assert_leq(got - v, v / 32, "2^%u%+d", bit, d);
		}
	}
	cr_assert_eq(via_hist_permille(&h, 1000), UINT64_MAX);
}

Test(hist, sum_is_exact_and_saturates)
{
	static struct via_hist h, other;

	via_hist_add(&h, 3);
	via_hist_add(&h, 4);
	cr_assert_eq(h.sum, 7);
	via_hist_add(&other, UINT64_MAX - 7);
	via_hist_merge(&h, &other);
	cr_assert_eq(h.sum, UINT64_MAX);
	via_hist_add(&h, 1);
	cr_assert_eq(h.sum, UINT64_MAX);
	cr_assert_eq(h.count, 4);
}

Test(hist, merge_equals_adding_all)
{
	static struct via_hist all, a, b, none;

	srandom(9);
	for (size_t i = 0; i < NSAMPLES; i++) {
		uint64_t v = 17 + sample(2) / NSAMPLES;

		via_hist_add(&all, v);
		via_hist_add(i % 3 ? &a : &b, v);
	}
	via_hist_merge(&a, &b);
	cr_assert_eq(memcmp(&a, &all, sizeof(all)), 0);
	via_hist_merge(&a, &none);
	cr_assert_eq(memcmp(&a, &all, sizeof(all)), 0, "an empty one changes nothing");
	via_hist_merge(&none, &all);
	cr_assert_eq(memcmp(&none, &all, sizeof(all)), 0, "into an empty one is a copy");
}

Test(hist, a_copy_is_the_same)
{
	static struct via_hist h, copy;

	srandom(11);
	for (size_t i = 0; i < NSAMPLES; i++)
		via_hist_add(&h, sample(2));
	via_hist_copy(&copy, &h);
	cr_assert_eq(memcmp(&copy, &h, sizeof(h)), 0);
}

/* Never less than there are, and more only by what shares the bucket. */
Test(hist, count_to_a_value)
{
	static struct via_hist h;

	for (uint64_t v = 0; v < 5000; v++)
		via_hist_add(&h, v);
	for (uint64_t v = 0; v < 5000; v++) {
		uint64_t got = via_hist_count_to(&h, v);

		cr_assert_geq(got, v + 1);
		cr_assert_leq(got, v + 1 + v / 32);
	}
	cr_assert_eq(via_hist_count_to(&h, 4999), 5000);
	cr_assert_eq(via_hist_count_to(&h, UINT64_MAX), 5000);
}
