/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_page.h -- the content of one page of the demo guest.
 *
 * A page is 512 words of 8 bytes in the host's byte order:
 *   0     DEMO_PAGE_MAGIC
 *   1     seed of the guest
 *   2     page number
 *   3     version
 *   4     checksum of the four
 *   5..   body: word i is a mix of the checksum and i
 * Versions 0, 64, 128, ... are 512 zero words instead.
 */
#ifndef VIA_DEMO_DEMO_PAGE_H
#define VIA_DEMO_DEMO_PAGE_H

#include <stdint.h>

#define DEMO_PAGE_SIZE  4096u
#define DEMO_PAGE_MAGIC UINT64_C(0x5669616475637447) /* "ViaductG" */

enum demo_page_state {
	DEMO_PAGE_RIGHT = 0,
	DEMO_PAGE_MISSING, /* all zero, or whole but of another page or guest */
	DEMO_PAGE_STALE,   /* whole, this page, another version */
	DEMO_PAGE_TORN,    /* anything else */
	DEMO_PAGE_STATES
};

/*
 * Write a page in full at @page (8-byte aligned), word after word from its start: whoever
 * copies it meanwhile gets a torn one, as from a real guest.
 */
void demo_page_write(void *page, uint64_t seed, uint64_t number, uint32_t version);

/* What is at @page, where that version should be. */
enum demo_page_state demo_page_check(const void *page, uint64_t seed, uint64_t number,
				     uint32_t version);

#endif
