/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_engine_messages.c -- what the engines say to each other: the map of pages, requests and
 * answers, zero pages, status, digests. The first byte picks the decoder.
 *
 * What is accepted is encoded again: to the same bytes, and a map, which can be said in more than
 * one way, to the same map.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/engine_messages.h"
#include "migrate/page_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                         \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

/* page_map.c sends, too; nobody does here. */
int via_main_send(struct via_session *session, uint8_t type, const void *payload, size_t len,
		  struct via_error *err)
{
	(void)session;
	(void)type;
	(void)payload;
	(void)len;
	(void)err;
	abort();
}

/* -- PAGE_MAP ------------------------------------------------------------------------ */

#define NREGIONS 3u
static const size_t npages[NREGIONS] = {1, 64, 1000};

static void init_maps(struct via_bitmap *map)
{
	for (unsigned i = 0; i < NREGIONS; i++)
		REQUIRE(!via_bitmap_init(&map[i], npages[i]));
}

static void fini_maps(struct via_bitmap *map)
{
	for (unsigned i = 0; i < NREGIONS; i++)
		via_bitmap_fini(&map[i]);
}

/* No bit behind the end, and no place either. */
static void check_maps(const struct via_bitmap *map, const struct page_map_place *place)
{
	for (unsigned i = 0; i < NREGIONS; i++)
		if (npages[i] % VIA_BITMAP_WORD_BITS)
			REQUIRE(!(map[i].words[npages[i] / VIA_BITMAP_WORD_BITS] >>
				  npages[i] % VIA_BITMAP_WORD_BITS));
	REQUIRE(place->region <= NREGIONS);
	REQUIRE(place->page < (place->region < NREGIONS ? npages[place->region] : 1));
}

/* @map in messages as small as they may be arrives as it is. */
static void send_again(const struct via_bitmap *map)
{
	struct page_map_place from = {0}, to = {0};
	uint8_t *buf = malloc(PAGE_MAP_MESSAGE_MIN);
	struct via_bitmap got[NREGIONS];
	size_t len;

	REQUIRE(buf);
	init_maps(got);
	while ((len = page_map_encode(map, NREGIONS, &from, buf, PAGE_MAP_MESSAGE_MIN)))
		REQUIRE(!page_map_decode(got, NREGIONS, &to, buf, len));
	REQUIRE(to.complete);
	for (unsigned i = 0; i < NREGIONS; i++)
		for (size_t w = 0; w < via_bitmap_nwords(&map[i]); w++)
			REQUIRE(map[i].words[w] == got[i].words[w]);
	fini_maps(got);
	free(buf);
}

/* A row of messages, before each the number of its bytes, until one is refused. */
static void page_map(const uint8_t *data, size_t size)
{
	struct page_map_place place = {0};
	struct via_bitmap map[NREGIONS];
	int rc = 0;

	init_maps(map);
	while (!rc && size) {
		size_t len = data[0] < size ? data[0] : size - 1;
		uint8_t *copy = malloc(len + 1); /* of its own: a read too far is found */
		bool was_complete = place.complete;

		REQUIRE(copy);
		memcpy(copy + 1, data + 1, len);
		rc = page_map_decode(map, NREGIONS, &place, copy + 1, len);
		free(copy);
		REQUIRE(!rc || rc == -EPROTO);
		REQUIRE(rc || !was_complete);
		check_maps(map, &place);
		data += 1 + len;
		size -= 1 + len;
	}
	if (!rc && place.complete)
		send_again(map);
	fini_maps(map);
}

/* -- the others ------------------------------------------------------------------------- */

static void page(const uint8_t *data, size_t size)
{
	uint8_t buf[ENGINE_PAGE_LEN];
	struct engine_page m;
	int rc = engine_page_decode(data, size, &m);

	REQUIRE(!rc || rc == -EPROTO);
	if (rc)
		return;
	engine_page_encode(&m, buf);
	REQUIRE(!memcmp(buf, data, sizeof(buf)));
	REQUIRE(size == sizeof(buf) + (m.kind == ENGINE_PAGE_HERE ? m.len : 0));
}

static void zero(const uint8_t *data, size_t size)
{
	uint8_t *buf = malloc(size + 1);
	struct engine_zero m;
	int rc = engine_zero_decode(data, size, &m);

	REQUIRE(buf);
	REQUIRE(!rc || rc == -EPROTO);
	if (rc)
		goto out;
	engine_zero_put_header(buf, &m);
	for (unsigned i = 0; i < m.nranges; i++) {
		struct engine_zero_range range;

		rc = engine_zero_get_range(data, i, npages[2], &range);
		REQUIRE(!rc || rc == -EPROTO);
		if (!rc)
			REQUIRE(range.n && range.first + range.n <= npages[2]);
		engine_zero_put_range(buf, i, &range);
	}
	REQUIRE(!memcmp(buf, data, size));
out:
	free(buf);
}

static void status(const uint8_t *data, size_t size)
{
	struct engine_status m;
	int rc = engine_status_decode(data, size, &m);
	uint8_t buf[64];

	REQUIRE(!rc || rc == -EPROTO);
	if (rc)
		return;
	REQUIRE(engine_status_encode(&m, buf, sizeof(buf)) == (ssize_t)size);
	REQUIRE(!memcmp(buf, data, size));
}

static void digest(const uint8_t *data, size_t size)
{
	struct engine_digest_run run;
	uint8_t *buf = malloc(size + ENGINE_DIGEST_HEADER_LEN), *pos;
	struct engine_digest m;
	int rc = engine_digest_decode(data, size, &m);

	REQUIRE(buf);
	REQUIRE(!rc || rc == -EPROTO);
	pos = rc ? buf : engine_digest_put_header(buf, m.nruns);
	while (!rc && m.nruns) {
		rc = engine_digest_next_run(&m, &run);
		REQUIRE(!rc || rc == -EPROTO);
		if (rc)
			break;
		pos = engine_digest_put_run(pos, run.region, run.first, run.n);
		memcpy(pos, run.digests, (size_t)run.n * ENGINE_DIGEST_LEN);
		pos += (size_t)run.n * ENGINE_DIGEST_LEN;
	}
	if (!rc)
		REQUIRE((size_t)(pos - buf) == size && !memcmp(buf, data, size));
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const decoders[])(const uint8_t *data, size_t size) = {page_map, page, zero,
									     status, digest};

	if (size > 0)
		decoders[data[0] % 8 % 5](data + 1, size - 1);
	return 0;
}
