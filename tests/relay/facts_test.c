/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * facts_test.c -- the record in front of main's bytes, against its golden vectors and against bytes
 * that are none. A change of a vector is a new version of the protocol.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "relay/facts.h"

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

#define ON(NAME) (1 << RELAY_CAP_##NAME)

struct vector {
	struct relay_facts facts;
	size_t len;
	uint8_t bytes[RELAY_FACTS_MAX];
};

/* clang-format off */
static const struct vector vectors[] = {
	{{.known = false}, 2, {'M', 0}},
	{{.known = true}, 6, {'M', 1, 0, 0, 0, 0}},
	{{.known = true, .binding = true, .on = ON(RETURN_PATH) | ON(POSTCOPY_RAM) | ON(POSTCOPY_PREEMPT)},
	 6, {'M', 3, 0, 0x0e, 0, 0}},
	{{.known = true, .on = ON(MULTIFD) | ON(IGNORE_SHARED), .multifd_channels = 255,
	  .multifd_compression = "zstd"},
	 10, {'M', 1, 0, 0x41, 255, 4, 'z', 's', 't', 'd'}},
	{{.known = true, .binding = true, .on = 0x7f, .multifd_channels = 1,
	  .multifd_compression = "fifteen-bytes-0"},
	 21, {'M', 3, 0, 0x7f, 1, 15, 'f', 'i', 'f', 't', 'e', 'e', 'n', '-', 'b', 'y', 't', 'e', 's', '-', '0'}},
};

static const struct {
	size_t len;
	uint8_t bytes[RELAY_FACTS_MAX];
} refused[] = {
	{1, {'P'}},
	{1, {'Q'}}, /* QEMU's own first byte */
	{2, {'M', 4}},
	{2, {'M', 2}},                        /* binding, and nothing known */
	{6, {'M', 1, 0, 0x80, 0, 0}},         /* a capability that nobody knows */
	{6, {'M', 1, 1, 0, 0, 0}},
	{6, {'M', 1, 0, 0, 2, 0}},            /* channels without multifd */
	{10, {'M', 1, 0, 0, 0, 4, 'n', 'o', 'n', 'e'}},
	{10, {'M', 1, 0, 1, 0, 4, 'n', 'o', 'n', 'e'}}, /* and multifd without */
	{6, {'M', 1, 0, 1, 2, 0}},
	{6, {'M', 1, 0, 1, 2, 16}},           /* a name that is too long */
	{7, {'M', 1, 0, 1, 2, 1, 'Z'}},
	{7, {'M', 1, 0, 1, 2, 1, '"'}},
	{8, {'M', 1, 0, 1, 2, 2, 'z', 0}},
};
/* clang-format on */

Test(facts, golden)
{
	for (size_t i = 0; i < LEN(vectors); i++) {
		const struct vector *v = &vectors[i];
		uint8_t buf[RELAY_FACTS_MAX];
		struct relay_facts is = {0};

		cr_assert_eq(relay_facts_encode(&v->facts, buf, sizeof(buf)), (ssize_t)v->len,
			     "vector %zu", i);
		cr_assert_arr_eq(buf, v->bytes, v->len);
		for (size_t cap = 0; cap < v->len; cap++)
			cr_assert_eq(relay_facts_encode(&v->facts, buf, cap), -ENOBUFS);
		cr_assert_eq(relay_facts_decode(v->bytes, v->len, &is), (ssize_t)v->len,
			     "vector %zu", i);
		cr_assert_eq(is.known, v->facts.known);
		cr_assert_eq(is.binding, v->facts.binding);
		cr_assert_eq(is.on, v->facts.on);
		cr_assert_eq(is.multifd_channels, v->facts.multifd_channels);
		cr_assert_str_eq(is.multifd_compression, v->facts.multifd_compression);
	}
}

/* In any number of pieces, and whatever of QEMU's follows: no byte of that is taken. */
Test(facts, in_pieces_and_with_more_behind)
{
	for (size_t i = 0; i < LEN(vectors); i++) {
		const struct vector *v = &vectors[i];
		uint8_t more[RELAY_FACTS_MAX + 8];
		struct relay_facts is = {.on = 4711};

		memcpy(more, v->bytes, v->len);
		memset(more + v->len, 'Q', sizeof(more) - v->len);
		for (size_t len = 0; len < v->len; len++)
			cr_assert_eq(relay_facts_decode(more, len, &is), 0, "vector %zu, %zu bytes",
				     i, len);
		cr_assert_eq(is.on, 4711, "written though it was not whole");
		for (size_t len = v->len; len < sizeof(more); len++)
			cr_assert_eq(relay_facts_decode(more, len, &is), (ssize_t)v->len);
	}
}

Test(facts, refused)
{
	for (size_t i = 0; i < LEN(refused); i++) {
		struct relay_facts is = {.on = 4711};

		cr_assert_eq(relay_facts_decode(refused[i].bytes, refused[i].len, &is), -EPROTO,
			     "case %zu", i);
		cr_assert_eq(is.on, 4711);
	}
}

Test(facts, what_no_decoder_takes_is_not_encoded)
{
	static const struct relay_facts bad[] = {
		{.known = true, .on = 1 << RELAY_CAPS},
		{.known = true, .multifd_channels = 1},
		{.known = true, .multifd_compression = "none"},
		{.known = true, .on = ON(MULTIFD), .multifd_compression = "none"},
		{.known = true, .on = ON(MULTIFD), .multifd_channels = 2},
		{.known = true,
		 .on = ON(MULTIFD),
		 .multifd_channels = 256,
		 .multifd_compression = "none"},
		{.known = true,
		 .on = ON(MULTIFD),
		 .multifd_channels = 2,
		 .multifd_compression = "No"},
	};
	uint8_t buf[RELAY_FACTS_MAX];

	for (size_t i = 0; i < LEN(bad); i++)
		cr_assert_eq(relay_facts_encode(&bad[i], buf, sizeof(buf)), -EINVAL, "case %zu", i);
}

Test(facts, names)
{
	for (enum relay_capability c = 0; c < RELAY_CAPS; c++) {
		cr_assert(relay_capability_name(c));
		for (enum relay_capability d = 0; d < c; d++)
			cr_assert_str_neq(relay_capability_name(c), relay_capability_name(d));
	}
	cr_assert_str_eq(relay_capability_name(RELAY_CAP_IGNORE_SHARED), "x-ignore-shared");
}
