/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_map.c -- see page_map.h. A message:
 *
 *   u16 region, u8 1 in the last message else 0, u8 0, u32 0, u64 first page, u64 pages, and
 *   then runs, which alternate between present and lacking, present first: each its number of
 *   pages, 7 bits to a byte from the lowest, bit 7 of a byte: more follow
 *
 * The decoder must never set a bit beyond its region, and takes each page once.
 */
#include "migrate/page_map.h"

#include <string.h>

#include "core/wire.h"
#include "migrate/engine_messages.h"

#define HEADER_LEN  24u
#define RUN_LEN_MAX 10u /* bytes of one run */

static void put_run(struct via_wire *w, uint64_t n)
{
	for (; n > 0x7f; n >>= 7)
		via_wire_put_u8(w, (uint8_t)(n | 0x80));
	via_wire_put_u8(w, (uint8_t)n);
}

static uint64_t get_run(struct via_wire *r)
{
	uint64_t n = 0;

	for (unsigned shift = 0; shift < 63; shift += 7) {
		uint8_t byte = via_wire_get_u8(r);

		n |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return n;
	}
	return UINT64_MAX; /* longer than any region */
}

static void put_header(uint8_t *buf, unsigned region, bool last, uint64_t first, uint64_t n)
{
	struct via_wire w = via_wire_writer(buf, HEADER_LEN);

	via_wire_put_u16(&w, (uint16_t)region);
	via_wire_put_u8(&w, last);
	via_wire_put_u8(&w, 0);
	via_wire_put_u32(&w, 0);
	via_wire_put_u64(&w, first);
	via_wire_put_u64(&w, n);
}

/* Runs of @map from @page on, as many as there is room for. Returns where they end. */
static uint64_t put_runs(const struct via_bitmap *map, uint64_t page, struct via_wire *w,
			 size_t cap)
{
	while (page < map->nbits && w->pos + 2 * RUN_LEN_MAX <= cap) {
		size_t first = map->nbits;
		size_t n = via_bitmap_next_run(map, page, &first);

		put_run(w, first - page);
		if (n)
			put_run(w, n);
		page = first + n;
	}
	return page;
}

size_t page_map_encode(const struct via_bitmap *lacking, unsigned nregions,
		       struct page_map_place *place, uint8_t *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);
	uint64_t first = place->page, end;

	if (place->complete)
		return 0;
	if (place->region == nregions) {
		put_header(buf, 0, true, 0, 0);
		place->complete = true;
		return HEADER_LEN;
	}
	w.pos = HEADER_LEN;
	end = put_runs(&lacking[place->region], first, &w, cap);
	put_header(buf, place->region, false, first, end - first);
	place->page = end;
	if (end == lacking[place->region].nbits) {
		place->region++;
		place->page = 0;
	}
	return w.pos;
}

static int take_runs(struct via_bitmap *map, uint64_t page, uint64_t n, struct via_wire *r)
{
	uint64_t end = page + n;
	bool lacks = false;

	while (via_wire_left(r)) {
		uint64_t run = get_run(r);

		if (via_wire_status(r) || run > end - page)
			return -EPROTO;
		if (lacks && run)
			via_bitmap_set(map, page, run);
		page += run;
		lacks = !lacks;
	}
	return page == end ? 0 : -EPROTO;
}

int page_map_decode(struct via_bitmap *lacking, unsigned nregions, struct page_map_place *place,
		    const uint8_t *buf, size_t len)
{
	struct via_wire r = via_wire_reader(buf, len);
	uint16_t region = via_wire_get_u16(&r);
	uint8_t last = via_wire_get_u8(&r);
	uint32_t reserved = via_wire_get_u8(&r);
	uint64_t first, n;

	reserved |= via_wire_get_u32(&r);
	first = via_wire_get_u64(&r);
	n = via_wire_get_u64(&r);
	if (via_wire_status(&r) || reserved || last > 1 || place->complete)
		return -EPROTO;
	if (last) {
		place->complete = true;
		return region || first || n || place->region != nregions ? -EPROTO
									 : via_wire_finish(&r);
	}
	if (place->region == nregions || region != place->region || first != place->page || !n ||
	    n > lacking[region].nbits - first || take_runs(&lacking[region], first, n, &r))
		return -EPROTO;
	place->page += n;
	if (place->page == lacking[region].nbits) {
		place->region++;
		place->page = 0;
	}
	return 0;
}

int page_map_send(struct via_session *session, const struct via_bitmap *lacking, unsigned nregions,
		  struct via_error *err)
{
	struct page_map_place place = {0};
	uint8_t buf[PAGE_MAP_MESSAGE_LEN];
	size_t len;
	int rc = 0;

	while (!rc && (len = page_map_encode(lacking, nregions, &place, buf, sizeof(buf))) != 0)
		rc = via_main_send(session, ENGINE_PAGE_MAP, buf, len, err);
	return rc;
}
