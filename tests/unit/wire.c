/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire.c -- the cursor: byte order, bounds, sticky errors, strings from a peer.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/wire.h"

static const uint8_t golden[] = {
	0x12,                                           /* u8 */
	0x34, 0x56,                                     /* u16 */
	0x78, 0x9a, 0xbc, 0xde,                         /* u32 */
	0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, /* u64 */
	'r',  'a',  'w',                                /* bytes */
	0x00, 0x02, 'h',  'i',                          /* string */
};

static void put_golden(struct via_wire *w)
{
	via_wire_put_u8(w, 0x12);
	via_wire_put_u16(w, 0x3456);
	via_wire_put_u32(w, 0x789abcde);
	via_wire_put_u64(w, UINT64_C(0x0123456789abcdef));
	via_wire_put_bytes(w, "raw", 3);
	via_wire_put_str(w, "hi");
}

Test(wire, puts_big_endian)
{
	uint8_t buf[sizeof(golden)];
	struct via_wire w = via_wire_writer(buf, sizeof(buf));

	put_golden(&w);
	cr_assert_eq(via_wire_finish(&w), 0);
	cr_assert_arr_eq(buf, golden, sizeof(golden));
}

Test(wire, gets_what_was_put)
{
	struct via_wire r = via_wire_reader(golden, sizeof(golden));
	char raw[3], str[3];

	cr_assert_eq(via_wire_get_u8(&r), 0x12);
	cr_assert_eq(via_wire_get_u16(&r), 0x3456);
	cr_assert_eq(via_wire_get_u32(&r), 0x789abcde);
	cr_assert_eq(via_wire_get_u64(&r), UINT64_C(0x0123456789abcdef));
	via_wire_get_bytes(&r, raw, 3);
	cr_assert_arr_eq(raw, "raw", 3);
	cr_assert_eq(via_wire_left(&r), 4);
	cr_assert_eq(via_wire_finish(&r), -EPROTO, "bytes are left over");
	cr_assert_eq(via_wire_status(&r), 0);
	via_wire_get_str(&r, str, sizeof(str));
	cr_assert_str_eq(str, "hi");
	cr_assert_eq(via_wire_finish(&r), 0);
}

/* Every length short of the whole: an error, no byte beyond, and whole fields only. */
Test(wire, writer_stops_at_its_end)
{
	for (size_t cap = 0; cap < sizeof(golden); cap++) {
		uint8_t buf[sizeof(golden) + 1];
		struct via_wire w = via_wire_writer(buf, cap);

		memset(buf, '#', sizeof(buf));
		put_golden(&w);
		cr_assert_eq(via_wire_status(&w), -ENOBUFS);
		cr_assert_eq(via_wire_finish(&w), -ENOBUFS);
		cr_assert_leq(w.pos, cap);
		cr_assert_arr_eq(buf, golden, w.pos);
		for (size_t i = w.pos; i < sizeof(buf); i++)
			cr_assert_eq(buf[i], '#', "byte %zu of %zu was written", i, cap);
	}
}

Test(wire, reader_stops_at_its_end)
{
	for (size_t len = 0; len < sizeof(golden); len++) {
		uint8_t copy[sizeof(golden)];
		struct via_wire r;
		char raw[3], str[3];

		memcpy(copy, golden, len);
		r = via_wire_reader(copy, len);
		(void)via_wire_get_u8(&r);
		(void)via_wire_get_u16(&r);
		(void)via_wire_get_u32(&r);
		(void)via_wire_get_u64(&r);
		via_wire_get_bytes(&r, raw, sizeof(raw));
		via_wire_get_str(&r, str, sizeof(str));
		cr_assert_eq(via_wire_status(&r), -EPROTO, "%zu bytes were enough", len);
		cr_assert_str_empty(str);
		cr_assert_leq(r.pos, len);
	}
}

Test(wire, an_error_stays)
{
	uint8_t buf[4] = {1, 2, 3, 4}, out[4] = {9, 9, 9, 9};
	struct via_wire r = via_wire_reader(buf, sizeof(buf));
	struct via_wire w = via_wire_writer(buf, sizeof(buf));

	cr_assert_eq(via_wire_get_u64(&r), 0);
	cr_assert_eq(via_wire_get_u8(&r), 0, "a get went on after the error");
	cr_assert_null(via_wire_get_view(&r, 1));
	cr_assert_null(via_wire_get_view(&r, 0));
	via_wire_get_bytes(&r, out, 4);
	cr_assert_eq(out[0] | out[3], 0);
	cr_assert_eq(via_wire_left(&r), 4);
	cr_assert_eq(via_wire_status(&r), -EPROTO);

	via_wire_put_u64(&w, 0);
	via_wire_put_u8(&w, 77);
	via_wire_put_str(&w, "");
	cr_assert_eq(buf[0], 1, "a put went on after the error");
	cr_assert_eq(via_wire_status(&w), -ENOBUFS);
	/* The first error is the one that is kept, also by the other kind of access. */
	(void)via_wire_get_u8(&w);
	cr_assert_eq(via_wire_status(&w), -ENOBUFS);
}

Test(wire, lengths_near_the_end_do_not_wrap)
{
	uint8_t buf[4] = {0};
	struct via_wire r = via_wire_reader(buf, sizeof(buf));

	(void)via_wire_get_u8(&r);
	cr_assert_null(via_wire_get_view(&r, SIZE_MAX));
	cr_assert_eq(via_wire_status(&r), -EPROTO);
	r = via_wire_reader(buf, sizeof(buf));
	(void)via_wire_get_u8(&r);
	cr_assert_null(via_wire_get_view(&r, 4));
	r = via_wire_reader(buf, sizeof(buf));
	(void)via_wire_get_u8(&r);
	cr_assert_eq(via_wire_get_view(&r, 3), buf + 1);
	cr_assert_eq(via_wire_finish(&r), 0);
}

Test(wire, empty_buffers)
{
	struct via_wire r = via_wire_reader(NULL, 0), w = via_wire_writer(NULL, 0);

	cr_assert_eq(via_wire_finish(&r), 0);
	cr_assert_not_null(via_wire_get_view(&r, 0));
	via_wire_get_bytes(&r, NULL, 0);
	cr_assert_eq(via_wire_finish(&r), 0);
	cr_assert_eq(via_wire_get_u8(&r), 0);
	cr_assert_eq(via_wire_status(&r), -EPROTO);
	via_wire_put_bytes(&w, NULL, 0);
	cr_assert_eq(via_wire_finish(&w), 0);
	via_wire_put_u8(&w, 1);
	cr_assert_eq(via_wire_status(&w), -ENOBUFS);
}

/* Read @len bytes of @raw as a string into a buffer of @cap bytes. */
static int get_str(const void *raw, size_t len, char *dst, size_t cap)
{
	struct via_wire r = via_wire_reader(raw, len);

	via_wire_get_str(&r, dst, cap);
	return via_wire_finish(&r);
}

Test(wire, strings_fit_or_are_refused)
{
	char dst[8];

	cr_assert_eq(get_str("\0\3abc", 5, dst, 5), 0);
	cr_assert_str_eq(dst, "abc");
	cr_assert_eq(get_str("\0\3abc", 5, dst, 4), 0);
	cr_assert_str_eq(dst, "abc");
	cr_assert_eq(get_str("\0\3abc", 5, dst, 3), -EPROTO);
	cr_assert_str_empty(dst);
	cr_assert_eq(get_str("\0\0", 2, dst, 1), 0);
	cr_assert_str_empty(dst);
	cr_assert_eq(get_str("\0\0", 2, NULL, 0), -EPROTO);
	cr_assert_eq(get_str("\0\4abc", 5, dst, 8), -EPROTO, "longer than the message");
	cr_assert_eq(get_str("\xff\xff", 2, dst, 8), -EPROTO);
	cr_assert_eq(get_str("\0", 1, dst, 8), -EPROTO);
}

Test(wire, strings_of_a_peer_can_be_printed)
{
	char dst[32];

	cr_assert_eq(get_str("\0\4a\0bc", 6, dst, sizeof(dst)), -EPROTO, "a NUL inside");
	cr_assert_str_empty(dst);
	cr_assert_eq(get_str("\0\1\0", 3, dst, sizeof(dst)), -EPROTO);
	cr_assert_eq(get_str("\0\7\x1b[2J\n\x1f\x7f", 9, dst, sizeof(dst)), 0);
	cr_assert_str_eq(dst, "?[2J???");
	cr_assert_eq(get_str("\0\4 ~\xc3\xa9", 6, dst, sizeof(dst)), 0);
	cr_assert_str_eq(dst, " ~\xc3\xa9", "printable bytes are kept");
}

Test(wire, longest_string)
{
	static char text[65537], back[65536];
	static uint8_t buf[2 + 65536];
	struct via_wire w = via_wire_writer(buf, sizeof(buf));

	memset(text, 'x', 65536);
	via_wire_put_str(&w, text);
	cr_assert_eq(via_wire_status(&w), -ENOBUFS);
	cr_assert_eq(w.pos, 0, "a length was put without its bytes");
	w = via_wire_writer(buf, 4);
	via_wire_put_str(&w, "abc");
	cr_assert_eq(via_wire_status(&w), -ENOBUFS);
	cr_assert_eq(w.pos, 0, "a length was put without its bytes");

	text[65535] = '\0';
	w = via_wire_writer(buf, sizeof(buf));
	via_wire_put_str(&w, text);
	cr_assert_eq(via_wire_status(&w), 0);
	cr_assert_eq(w.pos, 65537);
	cr_assert_eq(get_str(buf, w.pos, back, sizeof(back)), 0);
	cr_assert_str_eq(back, text);
}
