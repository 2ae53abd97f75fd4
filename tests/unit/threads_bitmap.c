/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * threads_bitmap.c -- set against take: no bit is lost, none is taken twice, and
 * who takes a bit sees what was written before it was set.
 *
 * A plain program, because Criterion does not start under ThreadSanitizer.
 * The payload is written and read without atomics: ThreadSanitizer finds any
 * set and take that do not order it.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/bitmap.h"
#include "core/clock.h"

#define SETTERS 3u
#define TAKERS  2u
#define NBITS   (64u * 500u + 7u)
#define ROUNDS  5u

static struct via_bitmap map;
static unsigned payload[NBITS];       /* written by the bit's setter, then read by its taker */
static _Atomic unsigned taken[NBITS]; /* how often each bit was taken */
static _Atomic size_t total;          /* bits taken */
static _Atomic bool torn;             /* a taker saw an old payload */
static unsigned round_no;
static uint64_t deadline_ns;

/* Neighbouring runs go to different setters, so that they meet in every word. */
static void *setter(void *arg)
{
	size_t mine = *(const unsigned *)arg, n;

	for (size_t first = 0, turn = 0; first < NBITS; first += n, turn++) {
		n = turn % 5 + 1;
		if (n > NBITS - first)
			n = NBITS - first;
		if (turn % SETTERS != mine)
			continue;
		for (size_t i = first; i < first + n; i++)
			payload[i] = round_no;
		via_bitmap_set(&map, first, n);
	}
	return NULL;
}

static void take_all(uint64_t word, size_t w)
{
	for (; word; word &= word - 1) {
		size_t i = w * VIA_BITMAP_WORD_BITS + (size_t)__builtin_ctzll(word);

		if (payload[i] != round_no)
			torn = true;
		taken[i]++;
		total++;
	}
}

static void *taker(void *arg)
{
	(void)arg;
	while (total < NBITS && !via_deadline_passed(deadline_ns)) {
		for (size_t w = 0; w < via_bitmap_nwords(&map); w++)
			take_all(via_bitmap_take_word(&map, w), w);
	}
	return NULL;
}

static int run_round(void)
{
	static const unsigned numbers[SETTERS] = {0, 1, 2};
	pthread_t threads[SETTERS + TAKERS];

	total = 0;
	for (unsigned t = 0; t < SETTERS + TAKERS; t++) {
		void *arg = t < SETTERS ? (void *)(uintptr_t)&numbers[t] : NULL;

		if (pthread_create(&threads[t], NULL, t < SETTERS ? setter : taker, arg))
			abort();
	}
	for (unsigned t = 0; t < SETTERS + TAKERS; t++)
		pthread_join(threads[t], NULL);

	for (size_t i = 0; i < NBITS; i++) {
		if (taken[i] != round_no) {
			fprintf(stderr, "round %u: bit %zu was taken %u times in all\n", round_no,
				i, taken[i]);
			return 1;
		}
	}
	if (torn || via_bitmap_count(&map)) {
		fprintf(stderr, "round %u: %s\n", round_no,
			torn ? "a bit came before its payload" : "bits are left over");
		return 1;
	}
	return 0;
}

int main(void)
{
	int status = 0;

	deadline_ns = via_deadline_in(60 * VIA_NS_PER_S);
	if (via_bitmap_init(&map, NBITS))
		return 1;
	for (round_no = 1; round_no <= ROUNDS && !status; round_no++)
		status = run_round();
	via_bitmap_fini(&map);
	return status;
}
