/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bitmap.h -- the dirty bitmap: one bit for each page, set by any thread, taken
 * word by word by the threads that send.
 *
 * A bit set while its word is being taken is either in the word taken or stays
 * for the next take: none is lost, none is taken twice. Bits at and above
 * nbits are always 0.
 *
 * Threads: any, but for init and fini. Nothing here blocks. Indices are checked in debug builds
 * alone: they are the caller's.
 */
#ifndef VIA_CORE_BITMAP_H
#define VIA_CORE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifndef __cplusplus
#include <stdatomic.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define VIA_BITMAP_WORD_BITS 64u

/* The bits. Read and write them by the functions below: C++ does not see that they are atomic. */
struct via_bitmap {
#ifdef __cplusplus
	uint64_t *words;
#else
	_Atomic uint64_t *words;
#endif
	size_t nbits;
};

/*
 * Make a bitmap of @nbits bits, all 0. Release it with via_bitmap_fini().
 *
 *  -ENOMEM  no memory for the bits
 *  -EINVAL  @nbits is 0
 */
int via_bitmap_init(struct via_bitmap *map, size_t nbits);

/* Free the bits. Accepts a zeroed or finished bitmap. */
void via_bitmap_fini(struct via_bitmap *map);

/* How many words hold the bits. Returns their number. */
size_t via_bitmap_nwords(const struct via_bitmap *map);

/*
 * Set bits [first, first + n), atomically word by word.
 *
 * @n may be 0. The range lies inside the map.
 */
void via_bitmap_set(struct via_bitmap *map, size_t first, size_t n);

/*
 * Clear bits [first, first + n), atomically word by word.
 *
 * @n may be 0. The range lies inside the map.
 */
void via_bitmap_clear(struct via_bitmap *map, size_t first, size_t n);

/* Is bit @i set? Returns whether it is. */
bool via_bitmap_test(const struct via_bitmap *map, size_t i);

/* Take and clear word @w, bits 64w to 64w + 63, in one atomic step. Returns what was set. */
uint64_t via_bitmap_take_word(struct via_bitmap *map, size_t w);

/* Take and clear those bits of word @w that are in @mask, atomically. Returns which were set. */
uint64_t via_bitmap_take_bits(struct via_bitmap *map, size_t w, uint64_t mask);

/* Set bit @i, in one atomic step. Returns whether it was set before. */
bool via_bitmap_test_and_set(struct via_bitmap *map, size_t i);

/* Count the bits that are set. Returns their number: exact when nobody writes meanwhile. */
size_t via_bitmap_count(const struct via_bitmap *map);

/*
 * Find the first run of set bits at or after bit @from.
 *
 * Does not clear. Exact when nobody writes meanwhile.
 *
 * Returns its length and sets *@first; 0 when no bit is set there, and *@first is left alone.
 */
size_t via_bitmap_next_run(const struct via_bitmap *map, size_t from, size_t *first);

/*
 * Find the first run of set bits at or after bit @from of a plain array.
 *
 * @words are @nbits bits, as via_bitmap_take_word() or KVM_GET_DIRTY_LOG give them.
 *
 * Returns its length and sets *@first; 0 when no bit is set there, and *@first is left alone.
 */
size_t via_bits_next_run(const uint64_t *words, size_t nbits, size_t from, size_t *first);

#ifdef __cplusplus
}
#endif

#endif
