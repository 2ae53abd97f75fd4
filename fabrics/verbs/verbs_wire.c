/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_wire.c -- the bytes of this back end that travel. All numbers are big-endian.
 *
 * All of it comes from a peer: nothing is taken that is short, long or of another version.
 *
 * An address:    0  "VVA1"
 *                4  u8 side: 1 active, 2 passive
 *                5  u8 places n, 0 when active
 *                6  8 bytes: the endpoint's id
 *               14  u8 0
 *               15  n times: u8 family (4, 6), 16 bytes IP address (4: the first four), u16 port
 *
 * A greeting:    0  "VVG1"
 *                4  u8 side
 *                5  u8 0
 *                6  u16 largest MTU
 *                8  8 bytes of the nonce: the first half from the active side, the second from
 *                   the passive one. Neither shows what the other has to show, so that an echo
 *                   proves nothing.
 *
 * A rejection:   0  "VVN1"
 *                4  u8 why: 1 wrong nonce, 2 malformed
 *
 * A key:         0  "VK"
 *                2  u8 version 1
 *                3  u8 0
 *                4  u32 rkey
 *                8  u64 address of byte 0 of the region
 */
#include <string.h>

#include "core/secret.h"
#include "core/wire.h"
#include "fabrics/verbs/verbs_choose.h"

#define SIDE_ACTIVE  1u
#define SIDE_PASSIVE 2u
#define HALF         (VERBS_NONCE_LEN / 2)

enum { REFUSED_NONCE = 1, REFUSED_MALFORMED };

static bool take_magic(struct via_wire *w, const char *magic)
{
	const uint8_t *m = via_wire_get_view(w, 4);

	return m && !memcmp(m, magic, 4);
}

/* -- addresses ---------------------------------------------------------------------- */

ssize_t verbs_address_encode(const struct verbs_address *a, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_bytes(&w, "VVA1", 4);
	via_wire_put_u8(&w, a->passive ? SIDE_PASSIVE : SIDE_ACTIVE);
	via_wire_put_u8(&w, (uint8_t)a->nplaces);
	via_wire_put_bytes(&w, a->id, sizeof(a->id));
	via_wire_put_u8(&w, 0);
	for (unsigned i = 0; i < a->nplaces; i++) {
		via_wire_put_u8(&w, a->place[i].ip.family == AF_INET ? 4 : 6);
		via_wire_put_bytes(&w, a->place[i].ip.bytes, sizeof(a->place[i].ip.bytes));
		via_wire_put_u16(&w, a->place[i].port);
	}
	return via_wire_status(&w) ? via_wire_status(&w) : (ssize_t)w.pos;
}

static bool take_place(struct via_wire *w, struct verbs_place *place)
{
	static const uint8_t zeroes[12];
	uint8_t family = via_wire_get_u8(w);

	place->ip = (struct verbs_ip){.family = family == 4 ? AF_INET : AF_INET6};
	via_wire_get_bytes(w, place->ip.bytes, sizeof(place->ip.bytes));
	place->port = via_wire_get_u16(w);
	if (family == 4)
		return place->port && !memcmp(place->ip.bytes + 4, zeroes, sizeof(zeroes));
	return family == 6 && place->port;
}

int verbs_address_decode(const void *buf, size_t len, struct verbs_address *a)
{
	struct via_wire w = via_wire_reader(buf, len);
	struct verbs_address got = {0};
	uint8_t side;

	if (!take_magic(&w, "VVA1"))
		return -EPROTO;
	side = via_wire_get_u8(&w);
	got.passive = side == SIDE_PASSIVE;
	got.nplaces = via_wire_get_u8(&w);
	via_wire_get_bytes(&w, got.id, sizeof(got.id));
	if (via_wire_get_u8(&w) || (side != SIDE_ACTIVE && side != SIDE_PASSIVE) ||
	    got.nplaces > VERBS_RAILS_MAX || got.passive != (got.nplaces > 0))
		return -EPROTO;
	for (unsigned i = 0; i < got.nplaces; i++)
		if (!take_place(&w, &got.place[i]))
			return -EPROTO;
	if (via_wire_finish(&w))
		return -EPROTO;
	*a = got;
	return 0;
}

/* -- greetings ---------------------------------------------------------------------- */

void verbs_greeting_encode(const struct verbs_greeting *g, uint8_t buf[VERBS_GREETING])
{
	struct via_wire w = via_wire_writer(buf, VERBS_GREETING);

	via_wire_put_bytes(&w, "VVG1", 4);
	via_wire_put_u8(&w, g->passive ? SIDE_PASSIVE : SIDE_ACTIVE);
	via_wire_put_u8(&w, 0);
	via_wire_put_u16(&w, (uint16_t)g->mtu);
	via_wire_put_bytes(&w, g->nonce + (g->passive ? HALF : 0), HALF);
}

int verbs_greeting_check(const void *buf, size_t len, struct verbs_greeting *g)
{
	struct via_wire w = via_wire_reader(buf, len < VERBS_GREETING ? len : VERBS_GREETING);
	const uint8_t *half;
	uint8_t side;
	uint16_t mtu;

	if (!take_magic(&w, "VVG1"))
		return -EPROTO;
	side = via_wire_get_u8(&w);
	if (via_wire_get_u8(&w) || side != (g->passive ? SIDE_PASSIVE : SIDE_ACTIVE))
		return -EPROTO;
	mtu = via_wire_get_u16(&w);
	half = via_wire_get_view(&w, HALF);
	if (!half || via_wire_finish(&w))
		return -EPROTO;
	if (!via_secret_equal(half, g->nonce + (g->passive ? HALF : 0), HALF))
		return -EACCES;
	g->mtu = mtu;
	return 0;
}

void verbs_refusal_encode(int code, uint8_t buf[VERBS_REFUSAL])
{
	memcpy(buf, "VVN1", 4);
	buf[4] = code == -EACCES ? REFUSED_NONCE : REFUSED_MALFORMED;
}

int verbs_refusal_decode(const void *buf, size_t len)
{
	struct via_wire w = via_wire_reader(buf, len);

	if (!take_magic(&w, "VVN1"))
		return -ECONNREFUSED;
	switch (via_wire_get_u8(&w)) {
	case REFUSED_NONCE:
		return -EACCES;
	case REFUSED_MALFORMED:
		return -EPROTO;
	}
	return -ECONNREFUSED;
}

/* -- keys --------------------------------------------------------------------------- */

ssize_t verbs_key_encode(const struct verbs_key *key, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_bytes(&w, "VK\x01\0", 4);
	via_wire_put_u32(&w, key->rkey);
	via_wire_put_u64(&w, key->addr);
	return via_wire_status(&w) ? via_wire_status(&w) : (ssize_t)w.pos;
}

int verbs_key_decode(const void *buf, size_t len, uint64_t region_len, struct verbs_key *key)
{
	struct via_wire w = via_wire_reader(buf, len);
	struct verbs_key got;

	if (!take_magic(&w, "VK\x01\0"))
		return -EPROTO;
	got.rkey = via_wire_get_u32(&w);
	got.addr = via_wire_get_u64(&w);
	if (via_wire_finish(&w) || got.addr > UINT64_MAX - region_len)
		return -EPROTO;
	*key = got;
	return 0;
}
