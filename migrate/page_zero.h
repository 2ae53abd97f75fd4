/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_zero.h -- private to migrate/: is a page all zero?
 */
#ifndef VIA_MIGRATE_PAGE_ZERO_H
#define VIA_MIGRATE_PAGE_ZERO_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* @len: bytes, a multiple of 8. */
static inline bool page_is_zero(const uint8_t *page, size_t len)
{
	uint64_t word;

	memcpy(&word, page, sizeof(word));
	/* Equal to itself one word further on: all words equal the first. */
	return word == 0 && memcmp(page, page + sizeof(word), len - sizeof(word)) == 0;
}

#endif
