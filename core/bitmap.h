/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bitmap.h -- the dirty bitmap: one bit for each page, set by any thread, taken
 * word by word by the threads that send.
 *
 * A bit set while its word is being taken is either in the word taken or stays
 * for the next take: none is lost, none is taken twice. Bits at and above
 * nbits are always 0.
 */
#ifndef VIA_CORE_BITMAP_H
#define VIA_CORE_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIA_BITMAP_WORD_BITS 64u

struct via_bitmap {
	_Atomic uint64_t *words;
	size_t nbits;
};

/* All bits 0. -ENOMEM; -EINVAL when @nbits is 0. Release with via_bitmap_fini(). */
int via_bitmap_init(struct via_bitmap *map, size_t nbits);

/* Free the words. Accepts a zeroed or finished bitmap. */
void via_bitmap_fini(struct via_bitmap *map);

/* Number of words that hold @map's bits. */
size_t via_bitmap_nwords(const struct via_bitmap *map);

/* Set bits [first, first + n), atomically word by word. The range lies inside the map. */
void via_bitmap_set(struct via_bitmap *map, size_t first, size_t n);

/* Clear bits [first, first + n), atomically word by word. */
void via_bitmap_clear(struct via_bitmap *map, size_t first, size_t n);

/* Is bit @i set? */
bool via_bitmap_test(const struct via_bitmap *map, size_t i);

/* Take and clear word @w (bits 64w to 64w + 63) in one atomic step. */
uint64_t via_bitmap_take_word(struct via_bitmap *map, size_t w);

/* Take and clear those bits of word @w that are in @mask, in one atomic step: which were set. */
uint64_t via_bitmap_take_bits(struct via_bitmap *map, size_t w, uint64_t mask);

/* Set bit @i; was it set before? One atomic step. */
bool via_bitmap_test_and_set(struct via_bitmap *map, size_t i);

/* Number of bits set. Exact when nobody writes meanwhile. */
size_t via_bitmap_count(const struct via_bitmap *map);

/*
 * Find the first run of set bits at or after @from.
 * Returns its length and sets *@first; 0 when no bit is set there (and *@first
 * is left alone). Does not clear. Exact when nobody writes meanwhile.
 */
size_t via_bitmap_next_run(const struct via_bitmap *map, size_t from, size_t *first);

/*
 * Find the first run of set bits at or after bit @from of one plain array of
 * @nbits bits (as taken with via_bitmap_take_word). Same results as above.
 */
size_t via_bits_next_run(const uint64_t *words, size_t nbits, size_t from, size_t *first);

#endif
