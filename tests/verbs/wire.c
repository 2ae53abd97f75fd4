/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire.c -- the bytes of the verbs back end that travel: as documented, and nothing else taken.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "fabrics/verbs/verbs_choose.h"

static const uint8_t nonce[VERBS_NONCE_LEN] = "sixteen bytes !";
static const uint8_t other_start[VERBS_NONCE_LEN] = "Sixteen bytes !";
static const uint8_t other_end[VERBS_NONCE_LEN] = "sixteen bytes ?";

/* -- addresses -- */

static const uint8_t golden_address[] = {
	'V', 'V',  'A', '1', 2, 2, 0xa, 0xb, 0xc, 0xd, 1, 2, 3, 4, 0,                   /* head */
	4,   10,   0,   0,   7, 0, 0,   0,   0,   0,   0, 0, 0, 0, 0, 0, 0, 0x1f, 0x90, /* v4 */
	6,   0xfd, 0,   0,   5, 0, 0,   0,   0,   0,   0, 0, 0, 0, 0, 0, 1, 0x4e, 0x20, /* v6 */
};

static struct verbs_address two_places(void)
{
	return (struct verbs_address){
		.passive = true,
		.id = {0xa, 0xb, 0xc, 0xd, 1, 2, 3, 4},
		.nplaces = 2,
		.place = {{.ip = verbs_ip_parse("10.0.0.7"), .port = 8080},
			  {.ip = verbs_ip_parse("fd00:5::1"), .port = 20000}}};
}

Test(verbs_wire, address_is_as_documented)
{
	struct verbs_address a = two_places(), back;
	uint8_t buf[VERBS_ADDRESS_MAX];

	cr_assert_eq(verbs_address_encode(&a, buf, sizeof(buf)), (ssize_t)sizeof(golden_address));
	cr_assert_arr_eq(buf, golden_address, sizeof(golden_address));
	cr_assert_eq(verbs_address_decode(buf, sizeof(golden_address), &back), 0);
	cr_assert(back.passive);
	cr_assert_eq(back.nplaces, 2);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert(verbs_ip_equal(&back.place[i].ip, &a.place[i].ip));
		cr_assert_eq(back.place[i].port, a.place[i].port);
	}
	cr_assert_arr_eq(back.id, a.id, sizeof(a.id));
}

Test(verbs_wire, active_address_has_no_place)
{
	struct verbs_address a = {.passive = false}, back;
	uint8_t buf[VERBS_ADDRESS_MAX];
	ssize_t len = verbs_address_encode(&a, buf, sizeof(buf));

	cr_assert_eq(len, 15);
	cr_assert_eq(verbs_address_decode(buf, (size_t)len, &back), 0);
	cr_assert_not(back.passive);
	buf[4] = 2; /* passive, and nowhere to connect to */
	cr_assert_eq(verbs_address_decode(buf, (size_t)len, &back), -EPROTO);
}

Test(verbs_wire, address_fits_its_maximum)
{
	struct verbs_address a = two_places();
	uint8_t buf[VERBS_ADDRESS_MAX];

	a.nplaces = VERBS_RAILS_MAX;
	cr_assert_eq(verbs_address_encode(&a, buf, sizeof(buf)), (ssize_t)sizeof(buf));
	cr_assert_eq(verbs_address_encode(&a, buf, sizeof(buf) - 1), -ENOBUFS);
}

Test(verbs_wire, address_of_any_other_length_is_refused)
{
	uint8_t buf[sizeof(golden_address) + 1] = {0};
	struct verbs_address a;

	memcpy(buf, golden_address, sizeof(golden_address));
	for (size_t len = 0; len <= sizeof(buf); len++)
		cr_assert_eq(verbs_address_decode(buf, len, &a),
			     len == sizeof(golden_address) ? 0 : -EPROTO, "%zu bytes", len);
}

Test(verbs_wire, address_with_a_wrong_byte_is_refused)
{
	static const struct {
		size_t at;
		uint8_t value;
	} wrong[] = {
		{0, 'v'}, {3, '2'}, {4, 0},  {4, 1},  {4, 3},  {5, 0},  {5, 1},
		{5, 3},   {5, 5},   {14, 1}, {15, 5}, {20, 1}, {31, 9}, {34, 0},
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint8_t buf[sizeof(golden_address)];
		struct verbs_address a;

		memcpy(buf, golden_address, sizeof(buf));
		buf[wrong[i].at] = wrong[i].value;
		cr_assert_eq(verbs_address_decode(buf, sizeof(buf), &a), -EPROTO, "byte %zu as %u",
			     wrong[i].at, wrong[i].value);
	}
}

/* -- greetings -- */

Test(verbs_wire, greeting_shows_half_of_the_nonce)
{
	static const uint8_t active[] = {'V', 'V', 'G', '1', 1,   0,   4,   0,
					 's', 'i', 'x', 't', 'e', 'e', 'n', ' '};
	static const uint8_t passive[] = {'V', 'V', 'G', '1', 2,   0,   0,   0,
					  'b', 'y', 't', 'e', 's', ' ', '!', 0};
	struct verbs_greeting g = {.nonce = nonce, .mtu = 1024};
	uint8_t buf[VERBS_GREETING];

	verbs_greeting_encode(&g, buf);
	cr_assert_arr_eq(buf, active, sizeof(active));
	g = (struct verbs_greeting){.passive = true, .nonce = nonce};
	verbs_greeting_encode(&g, buf);
	cr_assert_arr_eq(buf, passive, sizeof(passive));
}

Test(verbs_wire, greeting_is_checked)
{
	for (unsigned passive = 0; passive < 2; passive++) {
		struct verbs_greeting g = {.passive = passive, .nonce = nonce, .mtu = 2048};
		struct verbs_greeting seen = {.passive = passive, .nonce = nonce};
		uint8_t buf[VERBS_GREETING + 40] = {0}; /* transports pad */

		verbs_greeting_encode(&g, buf);
		cr_assert_eq(verbs_greeting_check(buf, sizeof(buf), &seen), 0);
		cr_assert_eq(seen.mtu, 2048);
		for (size_t len = 0; len < VERBS_GREETING; len++)
			cr_assert_eq(verbs_greeting_check(buf, len, &seen), -EPROTO);
		seen.nonce = passive ? other_end : other_start;
		cr_assert_eq(verbs_greeting_check(buf, sizeof(buf), &seen), -EACCES);
		seen.nonce = nonce;
		seen.passive = !passive;
		cr_assert_eq(verbs_greeting_check(buf, sizeof(buf), &seen), -EPROTO,
			     "an echo is no proof");
		buf[3] = '2';
		seen.passive = passive;
		cr_assert_eq(verbs_greeting_check(buf, sizeof(buf), &seen), -EPROTO);
	}
}

Test(verbs_wire, every_byte_of_the_half_counts)
{
	struct verbs_greeting g = {.nonce = nonce};
	uint8_t buf[VERBS_GREETING];

	verbs_greeting_encode(&g, buf);
	for (size_t at = 8; at < VERBS_GREETING; at++) {
		buf[at] ^= 0x10;
		cr_assert_eq(verbs_greeting_check(buf, sizeof(buf), &g), -EACCES, "byte %zu", at);
		buf[at] ^= 0x10;
	}
}

Test(verbs_wire, refusal_says_why)
{
	uint8_t buf[VERBS_REFUSAL];

	verbs_refusal_encode(-EACCES, buf);
	cr_assert_eq(verbs_refusal_decode(buf, sizeof(buf)), -EACCES);
	verbs_refusal_encode(-EPROTO, buf);
	cr_assert_eq(verbs_refusal_decode(buf, sizeof(buf)), -EPROTO);
	cr_assert_eq(verbs_refusal_decode(NULL, 0), -ECONNREFUSED, "nobody listens: no words");
	buf[4] = 77;
	cr_assert_eq(verbs_refusal_decode(buf, sizeof(buf)), -ECONNREFUSED);
}

/* -- keys -- */

Test(verbs_wire, key_is_as_documented)
{
	static const uint8_t golden[] = {'V', 'K', 1,    0,    0x12, 0x34, 0x56, 0x78,
					 0,   0,   0x7f, 0xaa, 0xbb, 0,    0,    0};
	struct verbs_key key = {.rkey = 0x12345678, .addr = UINT64_C(0x7faabb000000)}, back;
	uint8_t buf[VERBS_KEY_LEN + 1] = {0};

	cr_assert_eq(verbs_key_encode(&key, buf, sizeof(buf)), (ssize_t)sizeof(golden));
	cr_assert_arr_eq(buf, golden, sizeof(golden));
	cr_assert_eq(verbs_key_encode(&key, buf, sizeof(golden) - 1), -ENOBUFS);
	for (size_t len = 0; len <= sizeof(buf); len++)
		cr_assert_eq(verbs_key_decode(buf, len, 4096, &back),
			     len == sizeof(golden) ? 0 : -EPROTO, "%zu bytes", len);
	cr_assert_eq(back.rkey, key.rkey);
	cr_assert_eq(back.addr, key.addr);
}

Test(verbs_wire, key_to_a_region_that_wraps_is_refused)
{
	struct verbs_key key = {.addr = UINT64_MAX - 4096}, back;
	uint8_t buf[VERBS_KEY_LEN];

	cr_assert_eq(verbs_key_encode(&key, buf, sizeof(buf)), VERBS_KEY_LEN);
	cr_assert_eq(verbs_key_decode(buf, sizeof(buf), 4095, &back), 0);
	cr_assert_eq(verbs_key_decode(buf, sizeof(buf), 4096, &back), 0);
	cr_assert_eq(verbs_key_decode(buf, sizeof(buf), 4097, &back), -EPROTO);
}
