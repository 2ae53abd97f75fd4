/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bitmap.c -- the dirty bitmap.
 *
 * Any thread sets bits while others take words. It must never lose a bit that
 * was set and never hand out one bit twice.
 *
 * Invariant: every change of a word is one atomic read-modify-write of that
 * word, and bits at and above nbits are 0.
 *
 * Order: a thread that changes a page sets its bit with release, after the
 * change; the thread that takes the bit does so with acquire, before it reads
 * the page. So whoever takes a bit sees at least the page as it was when the
 * bit was set. Even a bit that is set already must be set again by the full
 * read-modify-write: skipping it would skip the release.
 */
#include "core/bitmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define WORD_BITS VIA_BITMAP_WORD_BITS

/* A bitmap that is only read: either shared with writers, or an array of our own. */
struct bits {
	const _Atomic uint64_t *shared;
	const uint64_t *plain;
	size_t nbits;
};

static size_t words_for(size_t nbits)
{
	return nbits / WORD_BITS + (nbits % WORD_BITS != 0);
}

/* The bits of word @w that [first, end) covers; the range has a bit there. */
static uint64_t word_mask(size_t w, size_t first, size_t end)
{
	uint64_t mask = UINT64_MAX;

	if (w == first / WORD_BITS)
		mask &= UINT64_MAX << first % WORD_BITS;
	if (w == (end - 1) / WORD_BITS)
		mask &= UINT64_MAX >> (WORD_BITS - 1 - (end - 1) % WORD_BITS);
	return mask;
}

int via_bitmap_init(struct via_bitmap *map, size_t nbits)
{
	map->words = NULL;
	map->nbits = 0;
	if (!nbits)
		return -EINVAL;
	map->words = calloc(words_for(nbits), sizeof(*map->words));
	if (!map->words)
		return -ENOMEM;
	map->nbits = nbits;
	return 0;
}

void via_bitmap_fini(struct via_bitmap *map)
{
	free(map->words);
	map->words = NULL;
	map->nbits = 0;
}

size_t via_bitmap_nwords(const struct via_bitmap *map)
{
	return words_for(map->nbits);
}

void via_bitmap_set(struct via_bitmap *map, size_t first, size_t n)
{
	size_t end = first + n;

	assert(first <= map->nbits && n <= map->nbits - first);
	if (!n)
		return;
	/* Pairs with the acquire in via_bitmap_take_word(). */
	for (size_t w = first / WORD_BITS; w < words_for(end); w++)
		atomic_fetch_or_explicit(&map->words[w], word_mask(w, first, end),
					 memory_order_release);
}

void via_bitmap_clear(struct via_bitmap *map, size_t first, size_t n)
{
	size_t end = first + n;

	assert(first <= map->nbits && n <= map->nbits - first);
	if (!n)
		return;
	/* Acquire for the same reason as a take: who clears a bit deals with its page. */
	for (size_t w = first / WORD_BITS; w < words_for(end); w++)
		atomic_fetch_and_explicit(&map->words[w], ~word_mask(w, first, end),
					  memory_order_acquire);
}

bool via_bitmap_test(const struct via_bitmap *map, size_t i)
{
	uint64_t word;

	assert(i < map->nbits);
	word = atomic_load_explicit(&map->words[i / WORD_BITS], memory_order_acquire);
	return word >> i % WORD_BITS & 1;
}

uint64_t via_bitmap_take_word(struct via_bitmap *map, size_t w)
{
	assert(w < words_for(map->nbits));
	/*
	 * Most words are 0, and reading one leaves its cache line shared. A bit that
	 * is set just after this load stays for the next take, as the header allows.
	 */
	if (!atomic_load_explicit(&map->words[w], memory_order_relaxed))
		return 0;
	/* Pairs with the release in via_bitmap_set(). */
	return atomic_exchange_explicit(&map->words[w], 0, memory_order_acquire);
}

uint64_t via_bitmap_take_bits(struct via_bitmap *map, size_t w, uint64_t mask)
{
	return atomic_fetch_and(&map->words[w], ~mask) & mask;
}

bool via_bitmap_test_and_set(struct via_bitmap *map, size_t i)
{
	uint64_t bit = UINT64_C(1) << i % VIA_BITMAP_WORD_BITS;

	return atomic_fetch_or(&map->words[i / VIA_BITMAP_WORD_BITS], bit) & bit;
}

size_t via_bitmap_count(const struct via_bitmap *map)
{
	size_t count = 0;

	for (size_t w = 0; w < words_for(map->nbits); w++)
		count += (size_t)__builtin_popcountll(
			atomic_load_explicit(&map->words[w], memory_order_relaxed));
	return count;
}

/*
 * The first bit at or after @from that is set in the map xor @flip (0: the
 * first set bit, all ones: the first clear one); nbits when there is none.
 */
static size_t find(const struct bits *bits, size_t from, uint64_t flip)
{
	uint64_t mask = UINT64_MAX << from % WORD_BITS;

	for (size_t w = from / WORD_BITS; w < words_for(bits->nbits); w++, mask = UINT64_MAX) {
		uint64_t word =
			bits->shared ? atomic_load_explicit(&bits->shared[w], memory_order_relaxed)
				     : bits->plain[w];
		size_t i;

		word = (word ^ flip) & mask;
		if (!word)
			continue;
		/* What lies above nbits in the last word of a plain array is not ours. */
		i = w * WORD_BITS + (size_t)__builtin_ctzll(word);
		return i < bits->nbits ? i : bits->nbits;
	}
	return bits->nbits;
}

static size_t next_run(const struct bits *bits, size_t from, size_t *first)
{
	size_t start;

	if (from >= bits->nbits)
		return 0;
	start = find(bits, from, 0);
	if (start == bits->nbits)
		return 0;
	*first = start;
	/* From the next bit on: the one found may be cleared by now, yet a run is never empty. */
	return find(bits, start + 1, UINT64_MAX) - start;
}

size_t via_bitmap_next_run(const struct via_bitmap *map, size_t from, size_t *first)
{
	struct bits bits = {.shared = map->words, .nbits = map->nbits};

	return next_run(&bits, from, first);
}

size_t via_bits_next_run(const uint64_t *words, size_t nbits, size_t from, size_t *first)
{
	struct bits bits = {.plain = words, .nbits = nbits};

	return next_run(&bits, from, first);
}
