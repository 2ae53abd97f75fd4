/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_stream_test.c -- the beginnings of main and its return path, cut in every way.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "relay/main_stream.h"
#include "tests/relay/qemu_stream.h"

/* -- main -------------------------------------------------------------------------- */

/* The first section, and bytes behind it that look like what matters. */
static void put_body(struct stream *s)
{
	put_be(s, 1, 1);
	put_be(s, 2, 4);
	put_be(s, 3, 1);
	put_bytes(s, "ram", 3);
	put_command(s, 1, 0);
	put_command(s, 3, 16);
	put_be(s, 0xff, 1);
}

static void put_advise(struct stream *s, uint64_t page_len)
{
	put_command(s, 3, 16);
	put_be(s, 0x201000, 8);
	put_be(s, page_len, 8);
}

/* One beginning, and what is known after it. */
struct beginning {
	void (*put)(struct stream *s);
	struct relay_main seen; /* without what is private */
};

static void precopy(struct stream *s)
{
	put_header(s);
	put_configuration(s, "pc-q35-10.0");
	put_body(s);
}

static void postcopy(struct stream *s)
{
	put_header(s);
	put_configuration(s, "pc-i440fx-7.2");
	put_command(s, 1, 0);
	put_command(s, 2, 4);
	put_be(s, 1, 4);
	put_advise(s, 4096);
	put_body(s);
}

/* Page bits, capabilities and UUID, as an arm64 machine with all of them says. */
static void all_subsections(struct stream *s)
{
	put_header(s);
	put_configuration(s, "virt-9.2");
	put_subsection(s, "configuration/target-page-bits");
	put_be(s, 14, 4);
	put_subsection(s, "configuration/capabilities");
	put_be(s, 2, 4);
	put_be(s, 15, 1);
	put_bytes(s, "x-ignore-shared", 15);
	put_be(s, 0, 1); /* a name of no bytes */
	put_subsection(s, "configuration/uuid");
	put_bytes(s, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10", 16);
	put_command(s, 1, 0);
	put_body(s);
}

/* A return path without postcopy; ADVISE for something else than RAM; an unknown command. */
static void not_for_ram(struct stream *s)
{
	put_header(s);
	put_command(s, 1, 0);
	put_command(s, 3, 0);
	put_command(s, 99, 300);
	put_zeros(s, 300);
	put_body(s);
}

static void longest_machine(struct stream *s)
{
	char name[256];

	memset(name, 'm', 255);
	name[255] = '\0';
	put_header(s);
	put_configuration(s, name);
	put_body(s);
}

static void strange_machine(struct stream *s)
{
	put_header(s);
	put_configuration(s, "a\033[2Jb\xff");
	put_body(s);
}

static void recovery(struct stream *s)
{
	put_command(s, 10, 7);
	put_bytes(s, "\x06pc.ram", 7);
	put_command(s, 10, 9);
	put_bytes(s, "\x08vga.vram", 9);
	put_command(s, 9, 0);
	put_be(s, 2, 1);
	put_advise(s, 4096);
}

/* What follows PACKAGED outside of its frame is not looked at. */
static void packaged(struct stream *s)
{
	put_header(s);
	put_command(s, 7, 4);
	put_be(s, 5 + 21, 4);
	put_command(s, 1, 0);
	put_advise(s, 4096);
	put_command(s, 1, 0);
	put_body(s);
}

static void page_len_that_cannot_be(struct stream *s)
{
	put_header(s);
	put_command(s, 1, 0);
	put_advise(s, 512);
	put_body(s);
}

#define MS "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm" /* 63 */

static const struct beginning beginnings[] = {
	{precopy, {.header = true, .body = true, .machine = "pc-q35-10.0"}},
	{postcopy,
	 {.header = true,
	  .return_path = true,
	  .postcopy = true,
	  .body = true,
	  .page_len = 4096,
	  .machine = "pc-i440fx-7.2"}},
	{all_subsections,
	 {.header = true,
	  .return_path = true,
	  .body = true,
	  .page_len = 16384,
	  .machine = "virt-9.2"}},
	{not_for_ram, {.header = true, .return_path = true, .body = true}},
	{longest_machine, {.header = true, .body = true, .machine = MS}},
	{strange_machine, {.header = true, .body = true, .machine = "a?[2Jb?"}},
	{recovery, {.recovery = true, .body = true}},
	{packaged, {.header = true, .return_path = true, .body = true}},
	{page_len_that_cannot_be,
	 {.header = true, .return_path = true, .postcopy = true, .body = true}},
};
#define BEGINNINGS (sizeof(beginnings) / sizeof(beginnings[0]))

static void expect_seen(const struct relay_main *m, const struct relay_main *seen, unsigned i)
{
	cr_assert_eq(m->header, seen->header, "beginning %u", i);
	cr_assert_eq(m->recovery, seen->recovery, "beginning %u", i);
	cr_assert_eq(m->return_path, seen->return_path, "beginning %u", i);
	cr_assert_eq(m->postcopy, seen->postcopy, "beginning %u", i);
	cr_assert_eq(m->body, seen->body, "beginning %u", i);
	cr_assert_eq(m->page_len, seen->page_len, "beginning %u", i);
	cr_assert_str_eq(m->machine, seen->machine, "beginning %u", i);
	cr_assert_str_eq(m->note, seen->note, "beginning %u", i);
}

Test(main_stream, beginnings_cut_at_every_byte)
{
	for (unsigned i = 0; i < BEGINNINGS; i++) {
		struct stream *s = stream_new(QEMU_10_0, 4096);

		beginnings[i].put(s);
		for (size_t cut = 0; cut <= s->len; cut++) {
			struct relay_main m;

			relay_main_init(&m);
			relay_main_feed(&m, s->bytes, cut);
			relay_main_feed(&m, s->bytes + cut, s->len - cut);
			expect_seen(&m, &beginnings[i].seen, i);
		}
	}
}

Test(main_stream, beginnings_byte_by_byte)
{
	for (unsigned i = 0; i < BEGINNINGS; i++) {
		struct stream *s = stream_new(QEMU_10_0, 4096);
		struct relay_main m;

		beginnings[i].put(s);
		relay_main_init(&m);
		for (size_t at = 0; at < s->len; at++)
			relay_main_feed(&m, s->bytes + at, 1);
		expect_seen(&m, &beginnings[i].seen, i);
	}
}

/* Nothing is known before its last byte has passed. */
Test(main_stream, known_when_it_has_passed)
{
	struct stream *s = stream_new(QEMU_10_0, 4096);
	struct relay_main m;
	size_t path, advise;

	put_header(s);
	put_command(s, 1, 0);
	path = s->len;
	put_advise(s, 4096);
	advise = s->len;
	put_body(s);
	relay_main_init(&m);
	for (size_t at = 0; at < s->len; at++) {
		cr_assert_eq(m.header, at >= 8);
		cr_assert_eq(m.return_path, at >= path);
		cr_assert_eq(m.postcopy, at >= advise);
		cr_assert_eq(m.body, at > advise);
		relay_main_feed(&m, s->bytes + at, 1);
	}
}

struct unknown {
	const char *bytes;
	size_t len;
	const char *note;
};

static const struct unknown unknown_mains[] = {
	{"QEVM\0\0\0\2", 8, "byte 0: magic 5145564d, version 2"},
	{"GET / HT", 8, "byte 0: magic 47455420, version 790644820"},
	{"QEVM\0\0\0\3\6", 9, "byte 8: a frame of type 06"},
	{"QEVM\0\0\0\3\x7e", 9, "byte 8: a frame of type 7e"},
	{"QEVM\0\0\0\3\7\0\0\0\0", 13, "byte 8: a machine's name of 0 bytes"},
	{"QEVM\0\0\0\3\7\0\0\1\0", 13, "byte 8: a machine's name of 256 bytes"},
	{"QEVM\0\0\0\3\5\3new\0\0\0\1....", 21, "byte 8: subsection new"},
	{"QEVM\0\0\0\3\x08\0\1\0\2..", 15, "byte 8: command 1 with 2 bytes"},
	{"QEVM\0\0\0\3\x08\0\3\0\x0f...............", 28, "byte 8: command 3 with 15 bytes"},
	{"QEVM\0\0\0\3\x08\0\3\1\0", 13, "byte 8: command 3 with 256 bytes"},
	{"QEVM\0\0\0\3\x08\0\7\0\2..", 15, "byte 8: command 7 with 2 bytes"},
};

Test(main_stream, what_is_not_understood_is_noted)
{
	for (unsigned i = 0; i < sizeof(unknown_mains) / sizeof(unknown_mains[0]); i++) {
		const struct unknown *u = &unknown_mains[i];

		for (size_t cut = 0; cut <= u->len; cut++) {
			struct relay_main m;

			relay_main_init(&m);
			relay_main_feed(&m, u->bytes, cut);
			relay_main_feed(&m, u->bytes + cut, u->len - cut);
			cr_assert_str_eq(m.note, u->note, "case %u", i);
			cr_assert_not(m.body);
			cr_assert_not(m.return_path);
			cr_assert_not(m.postcopy);
			relay_main_feed(&m, "\x08\0\1\0\0", 5);
			cr_assert_not(m.return_path, "it looks no further");
		}
	}
}

Test(main_stream, page_bits_that_cannot_be)
{
	for (uint32_t bits = 0; bits < 40; bits++) {
		struct stream *s = stream_new(QEMU_10_0, 4096);
		bool possible = bits >= 10 && bits <= 16;
		struct relay_main m;

		put_header(s);
		put_subsection(s, "configuration/target-page-bits");
		put_be(s, bits, 4);
		put_body(s);
		relay_main_init(&m);
		relay_main_feed(&m, s->bytes, s->len);
		cr_assert_eq(m.page_len, possible ? 1u << bits : 0);
		cr_assert_eq(m.body, possible);
		cr_assert_eq(m.note[0] == '\0', possible);
	}
}

/* -- return path ---------------------------------------------------------------------- */

static void put_request(struct stream *s, const char *block)
{
	put_message(s, block ? 3 : 4, 12 + (block ? 1 + (unsigned)strlen(block) : 0));
	put_be(s, 0x12345000, 8);
	put_be(s, 4096, 4);
	if (block) {
		put_be(s, strlen(block), 1);
		put_bytes(s, block, strlen(block));
	}
}

static struct stream *every_message(void)
{
	struct stream *s = stream_new(QEMU_10_0, 4096);

	put_number(s, 2, 1);
	put_message(s, 7, 0);
	put_request(s, "pc.ram");
	put_request(s, NULL);
	put_bitmap(s, "pc.ram", 64);
	put_bitmap(s, "", 0);
	put_request(s, "");
	put_number(s, 6, 1);
	put_message(s, 7, 0);
	put_number(s, 2, 0x42);
	put_number(s, 1, 5);
	return s;
}

static void expect_every_message(const struct relay_return *r)
{
	cr_assert_str_empty(r->note);
	cr_assert_eq(r->pongs, 2);
	cr_assert_eq(r->last_pong, 0x42);
	cr_assert_eq(r->bitmaps, 2);
	cr_assert_eq(r->requests, 3);
	cr_assert(r->resumed);
	cr_assert(r->shut);
	cr_assert_eq(r->shut_value, 5);
}

Test(main_stream, return_path_cut_at_every_byte)
{
	const struct stream *s = every_message();

	for (size_t cut = 0; cut <= s->len; cut++) {
		struct relay_return r;

		relay_return_init(&r);
		relay_return_feed(&r, s->bytes, cut);
		relay_return_feed(&r, s->bytes + cut, s->len - cut);
		expect_every_message(&r);
	}
}

Test(main_stream, return_path_in_random_pieces)
{
	const struct stream *s = every_message();
	uint64_t random = 7;

	for (unsigned i = 0; i < 2000; i++) {
		size_t piece_max = 1 + next_random(&random) % 40, at = 0;
		struct relay_return r;

		relay_return_init(&r);
		while (at < s->len) {
			size_t n = 1 + next_random(&random) % piece_max;

			n = n < s->len - at ? n : s->len - at;
			relay_return_feed(&r, s->bytes + at, n);
			at += n;
		}
		expect_every_message(&r);
	}
}

/* A large bitmap that comes in large pieces. */
Test(main_stream, a_bitmap_of_many_bytes_is_stepped_over)
{
	struct stream *s = stream_new(QEMU_10_0, 4096);
	struct relay_return r;

	put_bitmap(s, "pc.ram", 500000);
	put_number(s, 2, 9);
	relay_return_init(&r);
	for (size_t at = 0; at < s->len; at += 65536) {
		cr_assert_eq(r.pongs, 0);
		relay_return_feed(&r, s->bytes + at, s->len - at < 65536 ? s->len - at : 65536);
	}
	cr_assert_eq(r.bitmaps, 1);
	cr_assert_eq(r.pongs, 1);
	cr_assert_eq(r.last_pong, 9);
}

static const struct unknown unknown_returns[] = {
	{"\0\0\0\0", 4, "byte 0: a message of type 0 with 0 bytes"},
	{"\0\x08\0\4....", 8, "byte 0: a message of type 8 with 4 bytes"},
	{"\0\1\0\5.....", 9, "byte 0: a message of type 1 with 5 bytes"},
	{"\0\2\0\3...", 7, "byte 0: a message of type 2 with 3 bytes"},
	{"\0\3\0\x0c............", 16, "byte 0: a message of type 3 with 12 bytes"},
	{"\0\3\1\x0d", 4, "byte 0: a message of type 3 with 269 bytes"},
	{"\0\4\0\x0d", 4, "byte 0: a message of type 4 with 13 bytes"},
	{"\0\5\0\0", 4, "byte 0: a message of type 5 with 0 bytes"},
	{"\0\5\1\1", 4, "byte 0: a message of type 5 with 257 bytes"},
	{"\0\5\0\1\0\0\0\1\0\0\0\0\1", 13, "byte 0: a bitmap of 1099511627777 bytes"},
	{"\0\6\0\0", 4, "byte 0: a message of type 6 with 0 bytes"},
	{"\0\7\0\1.", 5, "byte 0: a message of type 7 with 1 bytes"},
	{"\0\7\0\0\x16\x03\1\2", 8, "byte 4: a message of type 5635 with 258 bytes"},
};

Test(main_stream, a_message_that_is_not_understood_is_noted)
{
	for (unsigned i = 0; i < sizeof(unknown_returns) / sizeof(unknown_returns[0]); i++) {
		const struct unknown *u = &unknown_returns[i];

		for (size_t cut = 0; cut <= u->len; cut++) {
			struct relay_return r;

			relay_return_init(&r);
			relay_return_feed(&r, u->bytes, cut);
			relay_return_feed(&r, u->bytes + cut, u->len - cut);
			cr_assert_str_eq(r.note, u->note, "case %u", i);
			relay_return_feed(&r, "\0\2\0\4\0\0\0\1", 8);
			cr_assert_eq(r.pongs, 0, "it looks no further");
		}
	}
}
