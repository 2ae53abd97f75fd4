/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_map_test.c -- what the engines tell each other about pages: the map of those that are
 * lacking, requests and answers.
 *
 * A map that was sent is the map that arrives, however it is cut into messages; the bytes are those
 * of docs/wire.md; and of what is malformed nothing is taken for a map.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/engine_messages.h"
#include "migrate/page_map.h"

#define REGIONS_MAX 4u

/* -- maps, and their way over ------------------------------------------------------ */

struct map {
	struct via_bitmap region[REGIONS_MAX];
	unsigned n;
};

static uint64_t random_state = 1;

static uint64_t below(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

static void map_init(struct map *map, const size_t *npages, unsigned n)
{
	map->n = n;
	for (unsigned i = 0; i < n; i++)
		cr_assert_eq(via_bitmap_init(&map->region[i], npages[i]), 0);
}

static void map_fini(struct map *map)
{
	for (unsigned i = 0; i < map->n; i++)
		via_bitmap_fini(&map->region[i]);
}

enum fill { EMPTY, FULL, ALTERNATING, SPARSE, DENSE, RANDOM_RUNS, NFILLS };

static void fill(struct via_bitmap *map, enum fill how)
{
	size_t n = map->nbits, at = 0;

	switch (how) {
	case EMPTY:
		break;
	case FULL:
		via_bitmap_set(map, 0, n);
		break;
	case ALTERNATING:
		for (at = below(2); at < n; at += 2)
			via_bitmap_set(map, at, 1);
		break;
	case DENSE:
		via_bitmap_set(map, 0, n);
		for (at = below(n); at < n; at += 1 + below(1000))
			via_bitmap_clear(map, at, 1);
		break;
	case SPARSE:
		for (at = below(n); at < n; at += 1 + below(1000))
			via_bitmap_set(map, at, 1);
		break;
	default: /* of lengths that take one byte, two or three */
		for (at = below(200); at < n; at += 1 + below(200)) {
			size_t run = 1 + below(below(2) ? 20000 : 10);

			run = run < n - at ? run : n - at;
			via_bitmap_set(map, at, run);
			at += run;
		}
	}
}

/* Send @map in messages of at most @cap bytes. How many there were. */
static size_t carry(const struct map *map, size_t cap)
{
	size_t npages[REGIONS_MAX], total = 0, messages = 0, len;
	struct page_map_place from = {0}, to = {0};
	uint8_t *buf = malloc(cap); /* of its own, so that a byte too many is found */
	struct map got;

	for (unsigned i = 0; i < map->n; i++)
		total += npages[i] = map->region[i].nbits;
	map_init(&got, npages, map->n);
	while ((len = page_map_encode(map->region, map->n, &from, buf, cap))) {
		cr_assert_leq(len, cap);
		cr_assert_eq(page_map_decode(got.region, map->n, &to, buf, len), 0,
			     "message %zu of %zu bytes", messages, len);
		cr_assert_leq(++messages, total + 1, "a message that says nothing");
	}
	cr_assert(from.complete);
	cr_assert(to.complete);
	cr_assert_eq(page_map_encode(map->region, map->n, &from, buf, cap), 0);
	for (unsigned i = 0; i < map->n; i++)
		for (size_t w = 0; w < via_bitmap_nwords(&map->region[i]); w++)
			cr_assert_eq(got.region[i].words[w], map->region[i].words[w],
				     "region %u of %zu pages, word %zu", i, npages[i], w);
	map_fini(&got);
	free(buf);
	return messages;
}

Test(page_map, every_kind_of_map_arrives)
{
	static const size_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 129, 4096, 16384, 99999, 100000};

	for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (unsigned how = 0; how < NFILLS; how++) {
			struct map map;

			map_init(&map, &sizes[s], 1);
			fill(&map.region[0], how);
			carry(&map, PAGE_MAP_MESSAGE_LEN);
			map_fini(&map);
		}
}

Test(page_map, random_maps_of_several_regions_arrive_in_messages_of_any_length)
{
	for (unsigned i = 0; i < 300; i++) {
		size_t npages[REGIONS_MAX];
		unsigned n = 1 + (unsigned)below(REGIONS_MAX);
		struct map map;

		for (unsigned k = 0; k < n; k++)
			npages[k] = 1 + below(i % 20 ? 3000 : 100000);
		map_init(&map, npages, n);
		for (unsigned k = 0; k < n; k++)
			fill(&map.region[k], below(NFILLS));
		carry(&map, PAGE_MAP_MESSAGE_MIN + below(200));
		map_fini(&map);
	}
}

/* It costs what it says, not what the guest is large. */
Test(page_map, a_map_that_says_little_is_short)
{
	static const size_t npages = 100000;
	struct map map;

	map_init(&map, &npages, 1);
	cr_assert_eq(carry(&map, PAGE_MAP_MESSAGE_MIN), 2, "one message, and the last");
	fill(&map.region[0], FULL);
	cr_assert_eq(carry(&map, PAGE_MAP_MESSAGE_MIN), 2);
	via_bitmap_clear(&map.region[0], 0, npages);
	fill(&map.region[0], ALTERNATING);
	cr_assert_leq(carry(&map, PAGE_MAP_MESSAGE_LEN), npages / 7900 + 2);
	cr_assert_gt(carry(&map, 64), npages / 64, "a byte a run: many messages");
	map_fini(&map);
}

/* -- golden bytes (docs/wire.md, PAGE_MAP) --------------------------------------------- */

static const uint8_t golden_first[] = {
	0x00, 0x00,                                     /* region */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00,             /* not the last */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* from page 0 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x2c, /* 300 pages */
	0x02, 0x03,                                     /* 2 present, 3 lacking */
	0x80, 0x01, 0xa7, 0x01,                         /* 128 present, 167 lacking */
};
static const uint8_t golden_second[] = {
	0x00, 0x01,                                     /* region */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00,             /* not the last */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* from page 0 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, /* 1 page */
	0x00, 0x01,                                     /* 0 present, 1 lacking */
};
static const uint8_t golden_last[] = {
	0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, /* the last */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

static const struct {
	const uint8_t *bytes;
	size_t len;
} golden[] = {
	{golden_first, sizeof(golden_first)},
	{golden_second, sizeof(golden_second)},
	{golden_last, sizeof(golden_last)},
};

#define NGOLDEN (sizeof(golden) / sizeof(golden[0]))

static const size_t golden_pages[] = {300, 1};

Test(page_map, golden_bytes)
{
	struct page_map_place place = {0};
	uint8_t buf[PAGE_MAP_MESSAGE_LEN];
	struct map map;

	map_init(&map, golden_pages, 2);
	via_bitmap_set(&map.region[0], 2, 3);
	via_bitmap_set(&map.region[0], 133, 167);
	via_bitmap_set(&map.region[1], 0, 1);
	for (unsigned i = 0; i < NGOLDEN; i++) {
		size_t len = page_map_encode(map.region, 2, &place, buf, sizeof(buf));

		cr_assert_eq(len, golden[i].len, "message %u has %zu bytes", i, len);
		cr_assert_eq(memcmp(buf, golden[i].bytes, len), 0, "message %u", i);
	}
	cr_assert_eq(page_map_encode(map.region, 2, &place, buf, sizeof(buf)), 0);
	map_fini(&map);
}

/* -- what is refused -------------------------------------------------------------------- */

/* The golden map up to message @before, and then these @len bytes. */
static int decode_after(unsigned before, const uint8_t *bytes, size_t len)
{
	struct page_map_place place = {0};
	uint8_t *copy = malloc(len + !len); /* of its own, so that a read too far is found */
	struct map map;
	int rc;

	map_init(&map, golden_pages, 2);
	for (unsigned i = 0; i < before; i++)
		cr_assert_eq(page_map_decode(map.region, 2, &place, golden[i].bytes, golden[i].len),
			     0);
	memcpy(copy, bytes, len);
	rc = page_map_decode(map.region, 2, &place, copy, len);
	map_fini(&map);
	free(copy);
	return rc;
}

/* Golden message @i with the byte @at changed to @value, in its turn. */
static int decode_changed(unsigned i, size_t at, uint8_t value)
{
	uint8_t bytes[64];

	memcpy(bytes, golden[i].bytes, golden[i].len);
	bytes[at] = value;
	return decode_after(i, bytes, golden[i].len);
}

/* @runs from the beginning of region 0, which say that they are @npages. */
static int decode_runs(uint64_t npages, const uint8_t *runs, size_t len)
{
	uint8_t bytes[128] = {0};

	for (unsigned i = 0; i < 8; i++)
		bytes[16 + i] = (uint8_t)(npages >> (56 - 8 * i));
	memcpy(bytes + 24, runs, len);
	return decode_after(0, bytes, 24 + len);
}

#define RUNS(npages, ...)                                                                          \
	decode_runs(npages, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

Test(page_map, truncated_at_any_byte_is_refused)
{
	for (unsigned i = 0; i < NGOLDEN; i++) {
		cr_assert_eq(decode_after(i, golden[i].bytes, golden[i].len), 0);
		for (size_t len = 0; len < golden[i].len; len++)
			cr_assert_eq(decode_after(i, golden[i].bytes, len), -EPROTO,
				     "%zu bytes of message %u", len, i);
	}
}

Test(page_map, one_byte_more_is_refused)
{
	for (unsigned i = 0; i < NGOLDEN; i++) {
		uint8_t bytes[64];

		memcpy(bytes, golden[i].bytes, golden[i].len);
		bytes[golden[i].len] = 1;
		cr_assert_eq(decode_after(i, bytes, golden[i].len + 1), -EPROTO, "message %u", i);
	}
}

Test(page_map, header_rules)
{
	for (size_t at = 3; at < 8; at++)
		for (unsigned i = 0; i < NGOLDEN; i++)
			cr_assert_eq(decode_changed(i, at, 1), -EPROTO, "reserved byte %zu", at);
	for (size_t at = 8; at < 24; at++)
		cr_assert_eq(decode_changed(2, at, 1), -EPROTO, "the last has no pages");
	cr_assert_eq(decode_changed(0, 2, 1), -EPROTO, "it says last, and more");
	cr_assert_eq(decode_changed(2, 2, 2), -EPROTO);
	cr_assert_eq(decode_changed(2, 2, 0), -EPROTO, "no region is left");
	cr_assert_eq(decode_changed(2, 1, 1), -EPROTO, "the last has no region");
}

Test(page_map, order_is_kept)
{
	cr_assert_eq(decode_after(0, golden_second, sizeof(golden_second)), -EPROTO,
		     "region 1 before region 0");
	cr_assert_eq(decode_after(1, golden_first, sizeof(golden_first)), -EPROTO,
		     "region 0 twice");
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(decode_after(i, golden_last, sizeof(golden_last)), -EPROTO,
			     "the last, and region %u is lacking", i);
		cr_assert_eq(decode_changed(1, i, 2), -EPROTO, "there is no such region");
		cr_assert_eq(decode_changed(0, 14 + i, 1), -EPROTO, "a gap");
		cr_assert_eq(decode_changed(0, 8 + i, 0x80), -EPROTO, "a gap");
	}
	for (unsigned i = 0; i < NGOLDEN; i++)
		cr_assert_eq(decode_after(NGOLDEN, golden[i].bytes, golden[i].len), -EPROTO,
			     "message %u behind the last", i);
}

/* The second part of a region begins where the first ended. */
Test(page_map, a_part_follows_the_one_before)
{
	for (uint8_t first = 8; first <= 12; first++) {
		struct page_map_place place = {0};
		uint8_t bytes[25] = {0};
		struct map map;

		map_init(&map, golden_pages, 2);
		bytes[23] = bytes[24] = 10;
		cr_assert_eq(page_map_decode(map.region, 2, &place, bytes, sizeof(bytes)), 0);
		bytes[15] = first;
		cr_assert_eq(page_map_decode(map.region, 2, &place, bytes, sizeof(bytes)),
			     first == 10 ? 0 : -EPROTO, "10 pages, then from page %u", first);
		map_fini(&map);
	}
}

Test(page_map, pages_covered_and_runs_agree)
{
	cr_assert_eq(RUNS(300, 0xac, 0x02), 0);
	cr_assert_eq(RUNS(300, 0xab, 0x02), -EPROTO, "299 of 300");
	cr_assert_eq(RUNS(300, 0xad, 0x02), -EPROTO, "301 of 300");
	cr_assert_eq(RUNS(301, 0xad, 0x02), -EPROTO, "run past the region");
	cr_assert_eq(RUNS(301, 0x00, 0xad, 0x02), -EPROTO);
	cr_assert_eq(RUNS(UINT64_MAX, 0x01), -EPROTO);
	cr_assert_eq(RUNS(10, 0x00, 0x05, 0x00, 0x05), 0, "runs may be empty");
	cr_assert_eq(RUNS(10, 0x0a, 0x00, 0x00), 0);
	cr_assert_eq(RUNS(10, 0x05, 0x05, 0x01), -EPROTO);
	cr_assert_eq(RUNS(0, 0x00), -EPROTO, "it covers nothing");
	cr_assert_eq(decode_runs(0, golden_first, 0), -EPROTO);
	cr_assert_eq(decode_runs(10, golden_first, 0), -EPROTO);
}

Test(page_map, a_run_has_at_most_nine_bytes)
{
	cr_assert_eq(RUNS(1, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00), 0);
	cr_assert_eq(RUNS(1, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00), -EPROTO);
	cr_assert_eq(RUNS(1, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80), -EPROTO,
		     "it goes on, and ends");
	/* 2^63 - 1: the largest; and a sum that would come around */
	cr_assert_eq(RUNS(10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), -EPROTO);
	cr_assert_eq(RUNS(10, 0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff,
			  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x02),
		     -EPROTO);
}

/* -- REQUEST and PAGE ---------------------------------------------------------------------- */

static const uint8_t golden_request[ENGINE_PAGE_LEN] = {
	0x01, 0x02,                                     /* region */
	0x00, 0x00,                                     /* a request */
	0x00, 0x20, 0x00, 0x00,                         /* a page of 2 MiB */
	0x00, 0x00, 0x00, 0x12, 0x34, 0x60, 0x00, 0x00, /* offset */
};

Test(engine_page, golden_request)
{
	struct engine_page m = {.region = 0x102, .len = 2u << 20, .off = 0x1234600000}, got;
	uint8_t buf[ENGINE_PAGE_LEN];

	engine_page_encode(&m, buf);
	cr_assert_eq(memcmp(buf, golden_request, sizeof(buf)), 0);
	cr_assert_eq(engine_page_decode(buf, sizeof(buf), &got), 0);
	cr_assert_eq(got.region, m.region);
	cr_assert_eq(got.kind, ENGINE_PAGE_ASKED);
	cr_assert_eq(got.len, m.len);
	cr_assert_eq(got.off, m.off);
}

Test(engine_page, content_follows_where_the_kind_says_so)
{
	uint8_t buf[ENGINE_PAGE_LEN + 5] = {0};

	for (unsigned kind = ENGINE_PAGE_ASKED; kind <= ENGINE_PAGE_COMING; kind++)
		for (size_t more = 0; more <= 5; more++) {
			struct engine_page m = {.kind = (uint8_t)kind, .len = 4}, got;
			bool right = more == (kind == ENGINE_PAGE_HERE ? 4 : 0);

			engine_page_encode(&m, buf);
			cr_assert_eq(buf[2], kind);
			cr_assert_eq(engine_page_decode(buf, ENGINE_PAGE_LEN + more, &got),
				     right ? 0 : -EPROTO, "kind %u with %zu bytes", kind, more);
		}
}

Test(engine_page, malformed_is_refused)
{
	struct engine_page m;
	uint8_t buf[ENGINE_PAGE_LEN];

	for (size_t len = 0; len < sizeof(buf); len++) {
		uint8_t *copy = malloc(len + !len);

		memcpy(copy, golden_request, len);
		cr_assert_eq(engine_page_decode(copy, len, &m), -EPROTO, "%zu bytes", len);
		free(copy);
	}
	memcpy(buf, golden_request, sizeof(buf));
	buf[3] = 1;
	cr_assert_eq(engine_page_decode(buf, sizeof(buf), &m), -EPROTO, "reserved");
	buf[3] = 0;
	buf[2] = ENGINE_PAGE_COMING + 1;
	cr_assert_eq(engine_page_decode(buf, sizeof(buf), &m), -EPROTO, "no such kind");
}
