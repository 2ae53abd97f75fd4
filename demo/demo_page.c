/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_page.c -- the page pattern: written and checked at memory speed.
 *
 * It must never take a wrong page for a right one: the check makes every word anew and
 * compares it. Only a page that fails is looked at again, to say in what way.
 */
#include "demo/demo_page.h"

#include <stdbool.h>
#include <string.h>

#define WORDS        (DEMO_PAGE_SIZE / sizeof(uint64_t))
#define HEADER_WORDS 5u
#define ZERO_VERSION 64u /* each so many versions the page is zero */

/* The odd constants are those of the golden ratio and of splitmix64, which mix well. */
#define STEP UINT64_C(0x9e3779b97f4a7c15)
#define MIX  UINT64_C(0xbf58476d1ce4e5b9)

static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 32) * MIX;
	return x ^ x >> 29;
}

static void make_header(uint64_t *word, uint64_t seed, uint64_t number, uint32_t version)
{
	word[0] = DEMO_PAGE_MAGIC;
	word[1] = seed;
	word[2] = number;
	word[3] = version;
	word[4] = 0;
	for (unsigned i = 0; i < 4; i++)
		word[4] = mix((word[4] + STEP) ^ word[i]);
}

void demo_page_write(void *page, uint64_t seed, uint64_t number, uint32_t version)
{
	uint64_t *word = page, x;

	if (version % ZERO_VERSION == 0) {
		memset(page, 0, DEMO_PAGE_SIZE);
		return;
	}
	make_header(word, seed, number, version);
	x = word[4];
	for (unsigned i = HEADER_WORDS; i < WORDS; i++)
		word[i] = mix(x += STEP);
}

static bool is_zero(const uint64_t *word)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < WORDS; i++)
		any |= word[i];
	return !any;
}

static bool is_version(const uint64_t *word, uint64_t seed, uint64_t number, uint32_t version)
{
	uint64_t header[HEADER_WORDS], differ = 0, x;

	if (version % ZERO_VERSION == 0)
		return is_zero(word);
	make_header(header, seed, number, version);
	for (unsigned i = 0; i < HEADER_WORDS; i++)
		differ |= word[i] ^ header[i];
	x = header[4];
	for (unsigned i = HEADER_WORDS; i < WORDS; i++)
		differ |= word[i] ^ mix(x += STEP);
	return !differ;
}

enum demo_page_state demo_page_check(const void *page, uint64_t seed, uint64_t number,
				     uint32_t version)
{
	const uint64_t *word = page;

	if (is_version(word, seed, number, version))
		return DEMO_PAGE_RIGHT;
	if (is_zero(word))
		return DEMO_PAGE_MISSING;
	/* Whole, as what its own header says it is? A zero version has no header. */
	if (word[3] > UINT32_MAX || word[3] % ZERO_VERSION == 0 ||
	    !is_version(word, word[1], word[2], (uint32_t)word[3]))
		return DEMO_PAGE_TORN;
	return word[1] == seed && word[2] == number ? DEMO_PAGE_STALE : DEMO_PAGE_MISSING;
}
