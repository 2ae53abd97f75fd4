/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_map.h -- private to migrate/: the pages that the destination lacks, as messages:
 * runs, so that a map costs about what it says and not what the guest is large.
 *
 * A map is a row of PAGE_MAP messages, which together cover every page of every region in
 * order, and one more that only says that it was the last (docs/wire.md).
 */
#ifndef VIA_MIGRATE_PAGE_MAP_H
#define VIA_MIGRATE_PAGE_MAP_H

#include "core/bitmap.h"
#include "transport/transport.h"

/* Where the next message of a map begins. Zero it first. */
struct page_map_place {
	unsigned region;
	uint64_t page;
	bool complete; /* the last message was dealt with */
};

/* The most bytes of one message, and the least room to make one in. */
#define PAGE_MAP_MESSAGE_LEN 8000u
#define PAGE_MAP_MESSAGE_MIN 44u

/*
 * The next message of the map of @lacking (one bitmap for each of @nregions regions) into @buf of
 * at least PAGE_MAP_MESSAGE_MIN bytes: its length; 0 when it is complete.
 */
size_t page_map_encode(const struct via_bitmap *lacking, unsigned nregions,
		       struct page_map_place *place, uint8_t *buf, size_t cap);

/* Set in @lacking what the message says, which must follow where @place is. -EPROTO */
int page_map_decode(struct via_bitmap *lacking, unsigned nregions, struct page_map_place *place,
		    const uint8_t *buf, size_t len);

/* Send the whole map on main. */
int page_map_send(struct via_session *session, const struct via_bitmap *lacking, unsigned nregions,
		  struct via_error *err);

#endif
