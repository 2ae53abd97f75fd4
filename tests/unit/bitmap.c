/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bitmap.c -- the dirty bitmap in one thread: ranges, bounds, runs, takes.
 *
 * Each result is compared with a plain array of bools that is changed the same
 * way, so a wrong mask cannot hide. threads_bitmap.c has the case for many threads.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/bitmap.h"

/* Around one word, two words and three: where masks go wrong. */
static const size_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 1000};

#define NSIZES (sizeof(sizes) / sizeof(sizes[0]))

static void check_equal(const struct via_bitmap *map, const bool *model)
{
	size_t count = 0;

	for (size_t i = 0; i < map->nbits; i++) {
		cr_assert_eq(via_bitmap_test(map, i), model[i], "bit %zu of %zu", i, map->nbits);
		count += model[i];
	}
	cr_assert_eq(via_bitmap_count(map), count);
}

/* Walk over all runs and compare them with the model's. */
static void check_runs(const struct via_bitmap *map, const bool *model)
{
	size_t from = 0, first, n;

	while ((n = via_bitmap_next_run(map, from, &first))) {
		for (size_t i = from; i < first; i++)
			cr_assert_not(model[i], "bit %zu was passed over", i);
		for (size_t i = first; i < first + n; i++)
			cr_assert(model[i], "bit %zu is not set", i);
		from = first + n;
		cr_assert_leq(from, map->nbits);
		cr_assert(from == map->nbits || !model[from], "the run ends early at %zu", from);
	}
	for (size_t i = from; i < map->nbits; i++)
		cr_assert_not(model[i], "bit %zu was never found", i);
}

Test(bitmap, no_bits_is_refused)
{
	struct via_bitmap map;

	cr_assert_eq(via_bitmap_init(&map, 0), -EINVAL);
	via_bitmap_fini(&map);
}

Test(bitmap, fini_accepts_zeroed_and_finished)
{
	struct via_bitmap map = {0};

	via_bitmap_fini(&map);
	cr_assert_eq(via_bitmap_init(&map, 10), 0);
	via_bitmap_fini(&map);
	via_bitmap_fini(&map);
}

Test(bitmap, too_large_is_out_of_memory)
{
	struct via_bitmap map;

	cr_assert_eq(via_bitmap_init(&map, SIZE_MAX), -ENOMEM);
	via_bitmap_fini(&map);
}

Test(bitmap, words_cover_the_bits)
{
	static const size_t want[NSIZES] = {1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 16};

	for (size_t s = 0; s < NSIZES; s++) {
		struct via_bitmap map;

		cr_assert_eq(via_bitmap_init(&map, sizes[s]), 0);
		cr_assert_eq(via_bitmap_nwords(&map), want[s], "%zu bits", sizes[s]);
		cr_assert_eq(via_bitmap_count(&map), 0);
		via_bitmap_fini(&map);
	}
}

/* Every range [first, first + n) of small maps, set and cleared again. */
Test(bitmap, every_range)
{
	for (size_t nbits = 126; nbits <= 130; nbits++) {
		struct via_bitmap map;

		cr_assert_eq(via_bitmap_init(&map, nbits), 0);
		for (size_t first = 0; first <= nbits; first++) {
			for (size_t n = 0; n <= nbits - first; n++) {
				size_t at = nbits;

				via_bitmap_set(&map, first, n);
				if (via_bitmap_count(&map) != n ||
				    via_bitmap_next_run(&map, 0, &at) != n || (n && at != first))
					cr_assert_fail("set [%zu, +%zu) of %zu", first, n, nbits);
				via_bitmap_clear(&map, first, n);
				if (via_bitmap_count(&map))
					cr_assert_fail("clear [%zu, +%zu) of %zu", first, n, nbits);
			}
		}
		via_bitmap_fini(&map);
	}
}

Test(bitmap, random_ranges_match_a_model)
{
	srandom(1);
	for (size_t s = 0; s < NSIZES; s++) {
		struct via_bitmap map;
		bool model[1000] = {false};

		cr_assert_eq(via_bitmap_init(&map, sizes[s]), 0);
		for (unsigned step = 0; step < 100; step++) {
			size_t first = (size_t)random() % sizes[s];
			size_t n = (size_t)random() % (sizes[s] - first + 1);
			bool set = random() & 1;

			if (set)
				via_bitmap_set(&map, first, n);
			else
				via_bitmap_clear(&map, first, n);
			for (size_t i = first; i < first + n; i++)
				model[i] = set;
			check_runs(&map, model);
		}
		check_equal(&map, model);
		via_bitmap_fini(&map);
	}
}

Test(bitmap, clear_leaves_the_neighbours)
{
	struct via_bitmap map;

	cr_assert_eq(via_bitmap_init(&map, 200), 0);
	via_bitmap_set(&map, 0, 200);
	via_bitmap_clear(&map, 63, 66);
	cr_assert(via_bitmap_test(&map, 62));
	cr_assert_not(via_bitmap_test(&map, 63));
	cr_assert_not(via_bitmap_test(&map, 128));
	cr_assert(via_bitmap_test(&map, 129));
	cr_assert_eq(via_bitmap_count(&map), 200 - 66);
	via_bitmap_fini(&map);
}

Test(bitmap, take_returns_and_clears_one_word)
{
	struct via_bitmap map;

	cr_assert_eq(via_bitmap_init(&map, 130), 0);
	via_bitmap_set(&map, 0, 130);
	cr_assert_eq(via_bitmap_take_word(&map, 1), UINT64_MAX);
	cr_assert_eq(via_bitmap_take_word(&map, 1), 0, "a bit was taken twice");
	cr_assert_eq(via_bitmap_count(&map), 66);
	cr_assert_eq(via_bitmap_take_word(&map, 2), 3, "bits above nbits are set");
	via_bitmap_set(&map, 64, 1);
	via_bitmap_set(&map, 127, 1);
	cr_assert_eq(via_bitmap_take_word(&map, 1), UINT64_C(1) << 63 | 1);
	cr_assert_eq(via_bitmap_count(&map), 64);
	via_bitmap_fini(&map);
}

Test(bitmap, take_bits_takes_those_of_the_mask)
{
	static const uint64_t masks[] = {0, 1, UINT64_C(1) << 63, 0xf0f0, UINT64_MAX};

	for (unsigned i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		const uint64_t word = UINT64_C(0x8000000000ff00ff);
		struct via_bitmap map;

		cr_assert_eq(via_bitmap_init(&map, 192), 0);
		via_bitmap_set(&map, 0, 192);
		via_bitmap_clear(&map, 64 + 8, 8);
		via_bitmap_clear(&map, 64 + 24, 39);
		cr_assert_eq(via_bitmap_take_bits(&map, 1, masks[i]), word & masks[i]);
		cr_assert_eq(via_bitmap_take_bits(&map, 1, masks[i]), 0, "a bit was taken twice");
		cr_assert_eq(via_bitmap_take_word(&map, 1), word & ~masks[i], "others stay");
		cr_assert_eq(via_bitmap_count(&map), 128, "other words stay");
		via_bitmap_fini(&map);
	}
}

Test(bitmap, test_and_set_says_what_was)
{
	static const size_t at[] = {0, 1, 63, 64, 127, 128, 129};
	struct via_bitmap map;

	cr_assert_eq(via_bitmap_init(&map, 130), 0);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		cr_assert_not(via_bitmap_test_and_set(&map, at[i]), "bit %zu", at[i]);
		cr_assert(via_bitmap_test(&map, at[i]));
		cr_assert(via_bitmap_test_and_set(&map, at[i]), "bit %zu", at[i]);
		cr_assert_eq(via_bitmap_count(&map), i + 1);
	}
	via_bitmap_clear(&map, 63, 1);
	cr_assert_not(via_bitmap_test_and_set(&map, 63));
	via_bitmap_fini(&map);
}

Test(bitmap, next_run_at_the_end)
{
	struct via_bitmap map;
	size_t first = 77;

	cr_assert_eq(via_bitmap_init(&map, 128), 0);
	cr_assert_eq(via_bitmap_next_run(&map, 0, &first), 0);
	cr_assert_eq(first, 77, "first was written though nothing was found");
	via_bitmap_set(&map, 127, 1);
	cr_assert_eq(via_bitmap_next_run(&map, 127, &first), 1);
	cr_assert_eq(first, 127);
	cr_assert_eq(via_bitmap_next_run(&map, 128, &first), 0);
	cr_assert_eq(via_bitmap_next_run(&map, 129, &first), 0);
	cr_assert_eq(via_bitmap_next_run(&map, SIZE_MAX, &first), 0);
	via_bitmap_fini(&map);
}

Test(bitmap, next_run_starts_inside_a_run)
{
	struct via_bitmap map;
	size_t first;

	cr_assert_eq(via_bitmap_init(&map, 300), 0);
	via_bitmap_set(&map, 10, 250);
	cr_assert_eq(via_bitmap_next_run(&map, 100, &first), 160);
	cr_assert_eq(first, 100);
	via_bitmap_fini(&map);
}

Test(bitmap, plain_array_ignores_what_lies_above)
{
	uint64_t words[2] = {0, UINT64_MAX};
	size_t first = 5;

	cr_assert_eq(via_bits_next_run(words, 64, 0, &first), 0);
	cr_assert_eq(first, 5);
	cr_assert_eq(via_bits_next_run(words, 65, 0, &first), 1);
	cr_assert_eq(first, 64);
	cr_assert_eq(via_bits_next_run(words, 66, 0, &first), 2);
	cr_assert_eq(via_bits_next_run(words, 127, 0, &first), 63);
	cr_assert_eq(via_bits_next_run(words, 128, 0, &first), 64);
	words[1] = 6;
	first = 5;
	cr_assert_eq(via_bits_next_run(words, 65, 0, &first), 0, "a set bit above was found");
	cr_assert_eq(first, 5);
	words[1] = 7;
	cr_assert_eq(via_bits_next_run(words, 66, 0, &first), 2, "a run ends at a bit above");
	words[0] = UINT64_C(1) << 63;
	words[1] = 1;
	cr_assert_eq(via_bits_next_run(words, 128, 0, &first), 2, "a run stops at a word's end");
	cr_assert_eq(first, 63);
	cr_assert_eq(via_bits_next_run(words, 64, 0, &first), 1);
	cr_assert_eq(via_bits_next_run(words, 63, 0, &first), 0);
	cr_assert_eq(via_bits_next_run(NULL, 0, 0, &first), 0);
}
