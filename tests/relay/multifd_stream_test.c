/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * multifd_stream_test.c -- channels of every version, cut in every way: each byte is told to be
 * what it is, and what is not understood is opaque and no more.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/relay/qemu_stream.h"

static const uint32_t page_lens[] = {1024, 4096, 8192, 16384, 65536};
#define PAGE_LENS (sizeof(page_lens) / sizeof(page_lens[0]))

/* All kinds of packet that the flavour has; few pages in each, so that streams stay short. */
static struct stream *channel(enum flavour flavour, uint32_t page_len, bool sync_first)
{
	struct stream *s = stream_new(flavour, page_len);

	put_init(s, 3);
	if (sync_first) {
		put_sync(s);
		put_sync(s);
	}
	put_pages(s, 0, 1, 0, 0);
	put_pages(s, 0, 2, flavour >= QEMU_9_0 ? 3 : 0, 0);
	put_sync(s);
	put_pages(s, ZLIB, 3, 0, 77);
	put_pages(s, ZSTD, 1, 0, 1);
	if (flavour >= QEMU_9_0)
		put_pages(s, QATZIP, 0, 5, 0);
	else
		put_pages(s, SYNC, 1, 0, 0); /* before 9.0 data may come along */
	if (flavour >= QEMU_10_0) {
		put_device(s, 333);
		put_device(s, 0);
	}
	put_sync(s);
	return s;
}

/* For each position, how far its part goes on. */
static size_t run_end[sizeof(((struct stream *)0)->bytes) + 1];

static void find_runs(const struct stream *s)
{
	size_t end = s->len;

	for (size_t i = s->len; i-- > 0;) {
		if (i + 1 < s->len && s->part[i] != s->part[i + 1])
			end = i + 1;
		run_end[i] = end;
	}
}

/* Feed s->bytes[from, to) and compare; run_end is that of @s. */
static void feed(struct relay_multifd *m, const struct stream *s, size_t from, size_t to)
{
	while (from < to) {
		uint64_t left = relay_multifd_left(m);
		enum relay_part part = 0;
		bool in_payload = relay_multifd_in_payload(m);
		size_t n = relay_multifd_take(m, s->bytes + from, to - from, &part);

		cr_assert_eq(in_payload, part == RELAY_PART_PAYLOAD, "byte %zu", from);
		cr_assert(n >= 1 && n <= to - from);
		cr_assert_eq(part, s->part[from], "byte %zu: %u, not %u: %s", from, part,
			     s->part[from], m->note);
		cr_assert(from + n <= run_end[from], "byte %zu: %zu bytes", from, n);
		/* Of a spoilt header more is expected than there is. */
		cr_assert(left >= 1 && (from + left <= run_end[from] ||
					s->part[run_end[from]] == RELAY_PART_OPAQUE),
			  "byte %zu", from);
		from += n;
	}
}

static void finish(const struct relay_multifd *m, const struct stream *s)
{
	cr_assert_str_empty(m->note);
	cr_assert(relay_multifd_may_end(m));
	cr_assert_arr_eq(&m->stats, &s->stats, sizeof(s->stats));
	cr_assert_eq(m->page_len, s->page_len);
}

/* The smallest pages keep the header long and the stream short. */
Test(multifd_stream, cut_at_every_byte)
{
	for (unsigned f = 0; f < FLAVOURS; f++) {
		for (unsigned known = 0; known < 2; known++) {
			const struct stream *s = channel(f, 1024, true);

			find_runs(s);
			for (size_t cut = 0; cut <= s->len; cut++) {
				struct relay_multifd m;

				relay_multifd_init(&m, known ? 1024 : 0);
				feed(&m, s, 0, cut);
				feed(&m, s, cut, s->len);
				finish(&m, s);
			}
		}
	}
}

Test(multifd_stream, in_random_pieces)
{
	uint64_t random = 42;

	for (unsigned i = 0; i < 4 * FLAVOURS * PAGE_LENS; i++) {
		uint32_t page_len = page_lens[i / FLAVOURS % PAGE_LENS];
		const struct stream *s = channel(i % FLAVOURS, page_len, i % 2);
		size_t piece_max = 1 + next_random(&random) % 5000, at = 0;
		struct relay_multifd m;

		find_runs(s);
		relay_multifd_init(&m, i % 3 ? 0 : page_len);
		while (at < s->len) {
			size_t n = 1 + next_random(&random) % piece_max;

			n = n < s->len - at ? n : s->len - at;
			feed(&m, s, at, at + n);
			at += n;
		}
		finish(&m, s);
	}
}

/* As one whole and byte by byte, for every version and page size, known, unknown or wrong. */
Test(multifd_stream, every_version_and_page_size)
{
	for (unsigned i = 0; i < FLAVOURS * PAGE_LENS; i++) {
		uint32_t page_len = page_lens[i / FLAVOURS];
		const uint32_t hints[] = {0, page_len, page_len ^ 12345, 2 * page_len};

		/* A wrong one is corrected by the first packet that says better. */
		for (unsigned h = 0; h < 4; h++) {
			bool says = i % FLAVOURS < QEMU_9_2;
			const struct stream *s = channel(i % FLAVOURS, page_len, h < 3 || says);
			struct relay_multifd m;

			find_runs(s);
			relay_multifd_init(&m, hints[h]);
			feed(&m, s, 0, s->len);
			finish(&m, s);
			relay_multifd_init(&m, hints[h]);
			for (size_t at = 0; at < s->len; at++)
				feed(&m, s, at, at + 1);
			finish(&m, s);
		}
	}
}

Test(multifd_stream, may_end_between_packets_only)
{
	for (unsigned f = 0; f < FLAVOURS; f++) {
		const struct stream *s = channel(f, 4096, true);
		struct relay_multifd m;
		unsigned next = 0;

		find_runs(s);
		relay_multifd_init(&m, 4096);
		for (size_t at = 0; at < s->len; at++) {
			cr_assert_eq(relay_multifd_may_end(&m), at == s->may_end[next], "byte %zu",
				     at);
			next += at == s->may_end[next];
			feed(&m, s, at, at + 1);
		}
		cr_assert(relay_multifd_may_end(&m));
		cr_assert_eq(next + 1, s->nmay_end);
	}
}

/* A last SYNC whose length nobody knows: it may end where one of that page size would. */
Test(multifd_stream, a_header_of_unknown_length_may_be_the_last)
{
	for (unsigned i = 0; i < PAGE_LENS; i++) {
		struct stream *s = stream_new(QEMU_9_2, page_lens[i]);
		struct relay_multifd m;

		put_init(s, 0);
		put_sync(s);
		find_runs(s);
		relay_multifd_init(&m, 0);
		feed(&m, s, 0, s->len);
		cr_assert(relay_multifd_may_end(&m));
		cr_assert_eq(m.stats.sync_packets, 1);
		cr_assert_str_empty(m.note);
	}
}

/* -- what is not understood ------------------------------------------------------------- */

struct spoilt {
	const char *what;
	size_t off; /* in the second packet: of pages, 4096 bytes each */
	uint8_t value;
	bool unknown; /* the page size; and the first packet does not tell it */
	size_t known; /* bytes of the packet that are still told to be header */
};

static const struct spoilt spoilt[] = {
	{"magic", 0, 0x12, false, 12},
	{"magic", 3, 0x45, false, 12},
	{"version", 7, 2, false, 12},
	{"flags", 8, 0x80, false, 12},
	{"flags", 11, 0x80, false, 12},
	{"flags", 11, ZLIB | ZSTD, false, 12},
	{"flags", 11, DEVICE_STATE | SYNC, false, 12},
	{"flags", 11, DEVICE_STATE | ZLIB, false, 12},
	{"packet of 129 pages", 15, 129, false, 36},
	{"packet of 64 pages", 15, 64, false, 36},
	{"129+0 pages of 128", 19, 129, false, 36},
	{"2+127 pages of 128", 35, 127, false, 36},
	{"3 pages in 8192 bytes", 19, 3, false, 36},
	{"2 pages in 8193 bytes", 23, 1, false, 36},
	{"12 where a header ends", 0, 0x12, true, 0},
};
#define SPOILT (sizeof(spoilt) / sizeof(spoilt[0]))

Test(multifd_stream, what_is_not_understood_is_opaque)
{
	for (unsigned i = 0; i < SPOILT; i++) {
		struct stream *s = stream_new(spoilt[i].unknown ? QEMU_9_2 : QEMU_8_2, 4096);
		char position[32];
		struct relay_multifd m;
		size_t at, seen;

		put_init(s, 0);
		put_sync(s);
		at = s->len;
		put_pages(s, 0, 2, 0, 0);
		put_sync(s);
		if (spoilt[i].off == 15)
			s->bytes[at + 14] = 0;
		s->bytes[at + spoilt[i].off] = spoilt[i].value;
		seen = at + spoilt[i].known;
		memset(s->part + seen, RELAY_PART_OPAQUE, s->len - seen);
		find_runs(s);
		for (size_t piece = 1; piece < 100; piece += 7) {
			relay_multifd_init(&m, 0);
			for (size_t from = 0; from < s->len; from += piece)
				feed(&m, s, from, from + piece < s->len ? from + piece : s->len);
			cr_assert(strstr(m.note, spoilt[i].what), "case %u: %s", i, m.note);
			snprintf(position, sizeof(position), "byte %zu: ", seen);
			cr_assert_eq(strncmp(m.note, position, strlen(position)), 0, "case %u: %s",
				     i, m.note);
			cr_assert_eq(relay_multifd_left(&m), UINT64_MAX);
			cr_assert(relay_multifd_may_end(&m));
			cr_assert_eq(m.stats.packets, 1);
		}
	}
}

Test(multifd_stream, no_init)
{
	static const char *const starts[] = {"QEVM\0\0\0\3", "\x11\x22\x33\x44\0\0\0\2"};

	for (unsigned i = 0; i < 2; i++) {
		struct stream *s = stream_new(QEMU_10_0, 4096);
		struct relay_multifd m;

		put_init(s, 0);
		memcpy(s->bytes, starts[i], 8);
		put_sync(s);
		memset(s->part + 64, RELAY_PART_OPAQUE, s->len - 64);
		find_runs(s);
		relay_multifd_init(&m, 4096);
		feed(&m, s, 0, s->len);
		cr_assert(strstr(m.note, "init of magic"), "%s", m.note);
		cr_assert_eq(m.stats.packets, 0);
	}
}

/* Content where all should be 0 says that the header is none that we know. */
Test(multifd_stream, a_header_of_unknown_length_is_empty)
{
	struct stream *s = stream_new(QEMU_9_2, 4096);
	struct relay_multifd m;

	put_init(s, 0);
	put_sync(s);
	s->bytes[64 + 100] = 'x';
	memset(s->part + 64 + 100, RELAY_PART_OPAQUE, s->len - 64 - 100);
	find_runs(s);
	for (size_t piece = 1; piece < 300; piece += 13) {
		relay_multifd_init(&m, 0);
		for (size_t from = 0; from < s->len; from += piece)
			feed(&m, s, from, from + piece < s->len ? from + piece : s->len);
		cr_assert_str_eq(m.note, "byte 164: 78 in a header without pages");
	}
}

/* No page size lets it be longer than that of 1 KiB pages. */
Test(multifd_stream, zeros_are_no_header_for_ever)
{
	struct stream *s = stream_new(QEMU_9_2, 1024);
	struct relay_multifd m;

	put_init(s, 0);
	put_sync(s);
	put_zeros(s, 5000);
	memset(s->part + s->len - 5000, RELAY_PART_OPAQUE, 5000);
	find_runs(s);
	relay_multifd_init(&m, 0);
	feed(&m, s, 0, s->len);
	cr_assert_str_eq(m.note, "byte 4480: 00 where a header ends");
}

Test(multifd_stream, nothing_is_nothing)
{
	enum relay_part part = RELAY_PART_PAYLOAD;
	struct relay_multifd m;

	relay_multifd_init(&m, 4096);
	cr_assert_eq(relay_multifd_take(&m, "", 0, &part), 0);
	cr_assert_eq(part, RELAY_PART_PAYLOAD);
	cr_assert_eq(relay_multifd_left(&m), 64);
	cr_assert(!relay_multifd_may_end(&m));
}
