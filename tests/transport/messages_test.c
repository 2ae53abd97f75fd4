/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * messages_test.c -- what every codec must do with every message (random ones survive
 * the way there and back, cut ones do not decode), and each rule of docs/wire.md at
 * its bound and just beyond.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/transport/codecs.h"
#include "transport/messages.h"

#define BUF_LEN (256u << 10)
#define ROUNDS  300u
#define SEED    UINT64_C(0x5eed0f0a11ce5)

static uint8_t buf[BUF_LEN];

/* -- random messages ------------------------------------------------------------- */

static uint64_t state = SEED;

/* splitmix64: the whole sequence follows from SEED. */
static uint64_t random64(void)
{
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* From @min to @max; each bound in one of eight cases. */
static uint64_t between(uint64_t min, uint64_t max)
{
	uint64_t r = random64();

	switch (r & 7) {
	case 0:
		return min;
	case 1:
		return max;
	default:
		return max - min == UINT64_MAX ? r : min + (r >> 3) % (max - min + 1);
	}
}

static void fill(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)random64();
}

/* A string of @min to @cap - 1 printable bytes. */
static void fill_str(char *s, size_t min, size_t cap)
{
	size_t len = between(min, cap - 1);

	for (size_t i = 0; i < len; i++)
		s[i] = (char)between(0x20, 0x7e);
	s[len] = '\0';
}

static struct via_channel_id random_id(unsigned kind)
{
	static const unsigned last[] = {0, 0, VIA_MULTIFD_MAX - 1, VIA_PREEMPT_MAX - 1};

	return (struct via_channel_id){.kind = (uint8_t)kind,
				       .index = (uint16_t)between(0, last[kind]),
				       .epoch = between(1, UINT64_MAX)};
}

static void random_error(struct via_error *e)
{
#define X(code, scope, text) -(code),
	static const int codes[] = {VIA_ERROR_LIST(X)};
#undef X

	e->code = codes[random64() % (sizeof(codes) / sizeof(codes[0]))];
	fill_str(e->what, 0, sizeof(e->what));
	fill_str(e->seen, 0, sizeof(e->seen));
	fill_str(e->remedy, 0, sizeof(e->remedy));
}

static void random_hello(struct via_hello *m)
{
	m->version_min = VIA_PROTOCOL_VERSION_MIN;
	m->version_max = (uint16_t)between(VIA_PROTOCOL_VERSION, UINT16_MAX);
	m->features = random64();
	fill(m->session_id, sizeof(m->session_id));
	m->role = (uint8_t)between(VIA_ROLE_SOURCE, VIA_ROLE_DESTINATION);
	fill_str(m->program, 0, sizeof(m->program));
	m->noffers = (unsigned)between(0, VIA_OFFERS_MAX);
	for (unsigned i = 0; i < m->noffers; i++) {
		m->offer[i].rank = (uint16_t)random64();
		fill_str(m->offer[i].kind, 1, sizeof(m->offer[i].kind));
		fill_str(m->offer[i].reach, 0, sizeof(m->offer[i].reach));
		fill_str(m->offer[i].reason, 0, sizeof(m->offer[i].reason));
	}
}

static void random_setup(struct via_setup *m)
{
	m->version = VIA_PROTOCOL_VERSION;
	fill_str(m->fabric, 1, sizeof(m->fabric));
	m->multifd = (uint16_t)between(1, VIA_MULTIFD_MAX);
	m->preempt = (uint16_t)between(0, VIA_PREEMPT_MAX);
	m->slice_len = between(1, UINT64_MAX / 4096) * 4096;
	m->epoch = between(1, UINT64_MAX);
	m->nregions = (unsigned)between(0, VIA_REGIONS_MAX);
	for (unsigned i = 0; i < m->nregions; i++) {
		struct via_region_desc *r = &m->region[i];

		r->page_size = 1u << between(12, 30);
		/* At most 2^55 bytes each: 256 of them are less than 2^64. */
		r->len = between(1, UINT64_C(1) << 25) * r->page_size;
		fill_str(r->name, 8, sizeof(r->name));
		memcpy(r->name, (char[4]){'r', (char)('a' + i % 26), (char)('a' + i / 26), '.'}, 4);
	}
}

static uint8_t blob[VIA_REGIONS_MAX * (2 + VIA_RKEY_MAX)];

static void random_ready(struct via_channel_ready *m)
{
	struct via_packed_key key = {.bytes = buf};

	m->id = random_id((unsigned)between(VIA_MAIN, VIA_PREEMPT));
	m->credits = (uint16_t)random64();
	m->msg_len = (uint32_t)between(64, UINT32_MAX);
	m->keys = blob;
	m->nkeys = m->id.kind != VIA_MAIN ? (uint32_t)between(0, VIA_REGIONS_MAX) : 0;
	for (uint32_t i = 0; i < m->nkeys; i++) {
		size_t before = m->keys_len;

		key.len = (uint16_t)between(0, VIA_RKEY_MAX);
		fill(buf, key.len);
		cr_assert_eq(via_packed_key_append(&key, blob, sizeof(blob), &m->keys_len), 0);
		cr_assert_eq(m->keys_len - before, via_packed_key_len(key.len));
	}
}

static void random_control(unsigned codec, void *m)
{
	struct via_channel_open *open = m;
	struct via_channel_addr *addr = m;
	struct via_channel_refused *refused = m;

	switch (codec) {
	case CODEC_HELLO:
		random_hello(m);
		break;
	case CODEC_SETUP:
		random_setup(m);
		break;
	case CODEC_OPEN:
		open->id = random_id((unsigned)between(VIA_MAIN, VIA_PREEMPT));
		fill(open->session_id, sizeof(open->session_id));
		fill(open->nonce, sizeof(open->nonce));
		open->addr = blob;
		open->addr_len = (uint16_t)between(0, VIA_ADDRESS_MAX);
		fill(blob, open->addr_len);
		break;
	case CODEC_ADDR:
		addr->id = random_id((unsigned)between(VIA_MAIN, VIA_PREEMPT));
		addr->addr = blob;
		addr->addr_len = (uint16_t)between(0, VIA_ADDRESS_MAX);
		fill(blob, addr->addr_len);
		break;
	case CODEC_READY:
		random_ready(m);
		break;
	case CODEC_REFUSED:
		refused->id = random_id((unsigned)between(VIA_MAIN, VIA_PREEMPT));
		random_error(&refused->error);
		break;
	case CODEC_ERROR:
		random_error(m);
		break;
	case CODEC_PING:
		*(uint64_t *)m = random64();
		break;
	}
}

static void random_channel(unsigned codec, void *m)
{
	struct via_fence_message *fence = m;
	struct via_drained_message *drained = m;

	switch (codec) {
	case CODEC_FENCE:
		fence->index = (uint16_t)between(0, VIA_MULTIFD_MAX - 1);
		fence->count.epoch = between(1, UINT64_MAX);
		fence->count.writes = random64();
		fence->count.bytes = random64();
		break;
	case CODEC_DRAINED:
		drained->epoch = between(1, UINT64_MAX);
		drained->n = (unsigned)between(0, VIA_MULTIFD_MAX);
		for (unsigned i = 0; i < drained->n; i++)
			drained->count[i] =
				(struct via_fence_count){drained->epoch, random64(), random64()};
		break;
	case CODEC_EPOCH:
		*(uint64_t *)m = between(1, UINT64_MAX);
		break;
	case CODEC_STREAM_END:
		*(int *)m = between(0, 1) ? 0 : -EPROTO;
		break;
	}
}

/* Messages hold views of what was decoded: compare what they show, then forget them. */
static void compare_views(unsigned codec, void *a, void *b)
{
	struct via_channel_open *open[] = {a, b};
	struct via_channel_addr *addr[] = {a, b};
	struct via_channel_ready *ready[] = {a, b};

	switch (codec) {
	case CODEC_OPEN:
		cr_assert_eq(open[0]->addr_len, open[1]->addr_len);
		cr_assert(!memcmp(open[0]->addr, open[1]->addr, open[0]->addr_len));
		open[0]->addr = open[1]->addr = NULL;
		break;
	case CODEC_ADDR:
		cr_assert_eq(addr[0]->addr_len, addr[1]->addr_len);
		cr_assert(!memcmp(addr[0]->addr, addr[1]->addr, addr[0]->addr_len));
		addr[0]->addr = addr[1]->addr = NULL;
		break;
	case CODEC_READY:
		cr_assert_eq(ready[0]->keys_len, ready[1]->keys_len);
		cr_assert(!memcmp(ready[0]->keys, ready[1]->keys, ready[0]->keys_len));
		ready[0]->keys = ready[1]->keys = NULL;
		break;
	}
}

/* Every codec by one number: those of the control connection, then those of channels. */
static const struct codec *codec_at(unsigned i)
{
	return i < CONTROL_CODECS ? &control_codecs[i] : &channel_codecs[i - CONTROL_CODECS];
}

static unsigned all_codecs[CONTROL_CODECS + CHANNEL_CODECS];

static struct criterion_test_params every_codec(void)
{
	for (unsigned i = 0; i < CONTROL_CODECS + CHANNEL_CODECS; i++)
		all_codecs[i] = i;
	return cr_make_param_array(unsigned, all_codecs, CONTROL_CODECS + CHANNEL_CODECS);
}

ParameterizedTestParameters(messages, random_ones_survive)
{
	return every_codec();
}

ParameterizedTest(unsigned *index, messages, random_ones_survive)
{
	const struct codec *codec = codec_at(*index);
	uint8_t *sent = malloc(codec->size), *received = malloc(codec->size);

	for (unsigned round = 0; round < ROUNDS; round++) {
		ssize_t n;

		/* Padding too, so that whole structs can be compared. */
		memset(sent, 0, codec->size);
		memset(received, 0, codec->size);
		if (*index < CONTROL_CODECS)
			random_control(*index, sent);
		else
			random_channel(*index - CONTROL_CODECS, sent);
		n = codec->encode(sent, buf, sizeof(buf));
		cr_assert_gt(n, 0, "%s, round %u", codec->name, round);
		cr_assert_eq(codec->decode(buf, (size_t)n, received), 0, "%s, round %u",
			     codec->name, round);
		if (*index < CONTROL_CODECS)
			compare_views(*index, sent, received);
		cr_assert(!memcmp(sent, received, codec->size), "%s, round %u", codec->name, round);
	}
	free(sent);
	free(received);
}

ParameterizedTestParameters(messages, cut_or_padded_ones_are_refused)
{
	return every_codec();
}

ParameterizedTest(unsigned *index, messages, cut_or_padded_ones_are_refused)
{
	const struct codec *codec = codec_at(*index);
	void *m = malloc(codec->size);

	for (size_t len = 0; len < codec->golden_len; len++) {
		/* In a block of its own, so that AddressSanitizer sees a read beyond it. */
		uint8_t *copy = malloc(len ? len : 1);

		memcpy(copy, codec->golden, len);
		cr_assert_eq(codec->decode(len ? copy : NULL, len, m), -EPROTO, "%s of %zu bytes",
			     codec->name, len);
		free(copy);
	}
	memcpy(buf, codec->golden, codec->golden_len);
	buf[codec->golden_len] = 0;
	cr_assert_eq(codec->decode(buf, codec->golden_len + 1, m), -EPROTO, "%s and a byte",
		     codec->name);
	free(m);
}

/* -- rules ------------------------------------------------------------------------- */

/* Decode what @m encodes to. */
static int redecode(const struct codec *codec, const void *m)
{
	void *out = malloc(codec->size);
	ssize_t n = codec->encode(m, buf, sizeof(buf));
	int rc = n < 0 ? (int)n : codec->decode(buf, (size_t)n, out);

	free(out);
	return rc;
}

/* Decode the vector with byte @at changed to @value. */
static int with_byte(const struct codec *codec, size_t at, unsigned value)
{
	void *out = malloc(codec->size);
	int rc;

	memcpy(buf, codec->golden, codec->golden_len);
	buf[at] = (uint8_t)value;
	rc = codec->decode(buf, codec->golden_len, out);
	free(out);
	return rc;
}

static void decode_golden(const struct codec *codec, void *m)
{
	cr_assert_eq(codec->decode(codec->golden, codec->golden_len, m), 0);
}

/* A string of @len bytes. */
static void set_str(char *s, size_t len)
{
	memset(s, 'x', len);
	s[len] = '\0';
}

Test(messages, versions_that_do_not_meet_are_told_apart_from_nonsense)
{
	/* All that version 1 knows of a HELLO of version 7: 12 bytes and then anything. */
	static const uint8_t future[] = {'V', 'I', 'A', 'D', 'U', 'C',  'T',  '\n', 0,
					 7,   0,   8,   'w', 'h', 0xff, 0x00, 0x13};
	static struct via_hello m;
	uint8_t copy[sizeof(future)];

	for (size_t len = 12; len <= sizeof(future); len++) {
		memset(&m, 0xff, sizeof(m));
		cr_assert_eq(via_hello_decode(future, len, &m), -EPROTONOSUPPORT);
		cr_assert_eq(m.version_min, 7);
		cr_assert_eq(m.version_max, 8);
		cr_assert_eq(m.noffers, 0, "only the range is set");
		cr_assert_eq(m.program[0], '\0');
	}
	cr_assert_eq(via_hello_decode(future, 11, &m), -EPROTO);

	memcpy(copy, future, sizeof(copy));
	copy[0] = 'v';
	cr_assert_eq(via_hello_decode(copy, sizeof(copy), &m), -EPROTO, "magic");
	memcpy(copy, future, sizeof(copy));
	copy[11] = 6;
	cr_assert_eq(via_hello_decode(copy, sizeof(copy), &m), -EPROTO, "7 to 6");
	copy[9] = 0;
	cr_assert_eq(via_hello_decode(copy, sizeof(copy), &m), -EPROTO, "0 to 6");
}

Test(messages, hello_with_a_wider_range_is_read)
{
	static struct via_hello m;

	decode_golden(&control_codecs[CODEC_HELLO], &m);
	m.version_max = 900;
	cr_assert_eq(redecode(&control_codecs[CODEC_HELLO], &m), 0);
}

Test(messages, hello_rules)
{
	const struct codec *hello = &control_codecs[CODEC_HELLO];
	static struct via_hello m;

	cr_assert_eq(with_byte(hello, 36, 2), 0, "destination");
	cr_assert_eq(with_byte(hello, 36, 0), -EPROTO, "role 0");
	cr_assert_eq(with_byte(hello, 36, 3), -EPROTO, "role 3");
	cr_assert_eq(with_byte(hello, 37, 1), -EPROTO, "reserved");
	cr_assert_eq(with_byte(hello, 38, 1), -EPROTO, "258 offers");

	decode_golden(hello, &m);
	m.noffers = VIA_OFFERS_MAX;
	for (unsigned i = 0; i < m.noffers; i++)
		set_str(m.offer[i].kind, sizeof(m.offer[i].kind) - 1);
	cr_assert_eq(redecode(hello, &m), 0);
	m.offer[7].kind[0] = '\0';
	cr_assert_eq(redecode(hello, &m), -EPROTO, "an offer without a name");
	m.noffers = VIA_OFFERS_MAX + 1;
	cr_assert_eq(hello->encode(&m, buf, sizeof(buf)), -ENOBUFS);
}

/* One offer more than the limit, all of them whole. */
Test(messages, hello_with_33_offers_is_refused)
{
	static const uint8_t offer[] = {0, 1, 0, 1, 'x', 0, 0, 0, 0};
	static struct via_hello m;
	size_t n;

	decode_golden(&control_codecs[CODEC_HELLO], &m);
	m.noffers = 0;
	n = (size_t)via_hello_encode(&m, buf, sizeof(buf));
	for (unsigned i = 0; i <= VIA_OFFERS_MAX; i++, n += sizeof(offer)) {
		buf[39] = (uint8_t)i;
		cr_assert_eq(via_hello_decode(buf, n, &m), 0, "%u offers", i);
		memcpy(buf + n, offer, sizeof(offer));
	}
	buf[39] = VIA_OFFERS_MAX + 1;
	cr_assert_eq(via_hello_decode(buf, n, &m), -EPROTO);
}

Test(messages, names_are_ascii_and_texts_are_made_printable)
{
	static struct via_hello m;

	decode_golden(&control_codecs[CODEC_HELLO], &m);
	m.program[0] = '\x1b';
	memcpy(m.offer[0].reason, "\xc3\xa9\n", 4);
	cr_assert_gt(via_hello_encode(&m, buf, sizeof(buf)), 0);
	cr_assert_eq(via_hello_decode(buf, (size_t)via_hello_encode(&m, buf, sizeof(buf)), &m), 0);
	cr_assert_eq(m.program[0], '?');
	cr_assert_str_eq(m.offer[0].reason, "\xc3\xa9?", "UTF-8 stays");

	m.offer[0].kind[0] = '\xc3';
	cr_assert_eq(redecode(&control_codecs[CODEC_HELLO], &m), -EPROTO);
	m.offer[0].kind[0] = '\n';
	cr_assert_eq(redecode(&control_codecs[CODEC_HELLO], &m), -EPROTO);
	m.offer[0].kind[0] = '?';
	cr_assert_eq(redecode(&control_codecs[CODEC_HELLO], &m), 0);
	m.offer[0].reach[0] = '\x7f';
	cr_assert_eq(redecode(&control_codecs[CODEC_HELLO], &m), -EPROTO);
}

Test(messages, setup_rules)
{
	const struct codec *setup = &control_codecs[CODEC_SETUP];
	static struct via_setup good, m;

#define SETUP(expected, change)                                                                    \
	do {                                                                                       \
		m = good;                                                                          \
		change;                                                                            \
		cr_assert_eq(redecode(setup, &m), expected, #change);                              \
	} while (0)

	decode_golden(setup, &good);
	SETUP(-EPROTO, m.version = VIA_PROTOCOL_VERSION_MIN - 1);
	SETUP(-EPROTO, m.version = VIA_PROTOCOL_VERSION + 1);
	SETUP(0, m.multifd = VIA_MULTIFD_MAX);
	SETUP(-EPROTO, m.multifd = VIA_MULTIFD_MAX + 1);
	SETUP(-EPROTO, m.multifd = 0);
	SETUP(0, m.multifd = m.nregions = 0);
	SETUP(0, m.preempt = VIA_PREEMPT_MAX);
	SETUP(-EPROTO, m.preempt = VIA_PREEMPT_MAX + 1);
	SETUP(0, m.nregions = 0);
	SETUP(-ENOBUFS, m.nregions = VIA_REGIONS_MAX + 1);
	SETUP(0, m.slice_len = 4096);
	SETUP(-EPROTO, m.slice_len = 0);
	SETUP(-EPROTO, m.slice_len = 4097);
	SETUP(0, m.epoch = 1);
	SETUP(-EPROTO, m.epoch = 0);
	SETUP(0, set_str(m.fabric, sizeof(m.fabric) - 1));
	SETUP(-EPROTO, m.fabric[0] = '\0');
	SETUP(-EPROTO, m.fabric[0] = '\t');
	SETUP(0, set_str(m.region[0].name, sizeof(m.region[0].name) - 1));
	SETUP(-EPROTO, m.region[0].name[0] = '\0');
	SETUP(-EPROTO, m.region[0].name[0] = '\x01');
	SETUP(-EPROTO, memcpy(m.region[1].name, "ram", 4));
	SETUP(-EPROTO, m.region[0].len = 0);
	SETUP(-EPROTO, m.region[0].len += 1);
	SETUP(-EPROTO, m.region[1].len += 4096);
#undef SETUP
}

Test(messages, page_sizes)
{
	const struct codec *setup = &control_codecs[CODEC_SETUP];
	static struct via_setup m;

	decode_golden(setup, &m);
	for (unsigned bit = 0; bit < 32; bit++) {
		m.region[0].page_size = 1u << bit;
		m.region[0].len = UINT64_C(1) << 32;
		cr_assert_eq(redecode(setup, &m), bit >= 12 && bit <= 30 ? 0 : -EPROTO,
			     "pages of 2^%u", bit);
		m.region[0].page_size |= 1u << ((bit + 5) % 32);
		m.region[0].len = m.region[0].page_size;
		cr_assert_eq(redecode(setup, &m), -EPROTO, "not a power of two");
	}
	m.region[0].page_size = 0;
	cr_assert_eq(redecode(setup, &m), -EPROTO);
}

Test(messages, regions_together_stay_below_2_to_the_64)
{
	const struct codec *setup = &control_codecs[CODEC_SETUP];
	static struct via_setup m;

	decode_golden(setup, &m);
	m.region[1].page_size = 4096;
	m.region[0].len = UINT64_MAX - 4095 - 4096;
	m.region[1].len = 4096;
	cr_assert_eq(redecode(setup, &m), 0);
	m.region[1].len = 8192;
	cr_assert_eq(redecode(setup, &m), -EPROTO);
}

/* 256 regions are taken, 257 whole ones are not. */
Test(messages, setup_with_257_regions_is_refused)
{
	static struct via_setup m;
	uint8_t region[] = {0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 2, 0, 0};
	size_t n;

	decode_golden(&control_codecs[CODEC_SETUP], &m);
	m.nregions = 0;
	n = (size_t)via_setup_encode(&m, buf, sizeof(buf));
	for (unsigned i = 0; i <= VIA_REGIONS_MAX + 1; i++, n += sizeof(region)) {
		buf[6] = (uint8_t)(i >> 8);
		buf[7] = (uint8_t)i;
		cr_assert_eq(via_setup_decode(buf, n, &m), i <= VIA_REGIONS_MAX ? 0 : -EPROTO,
			     "%u regions", i);
		region[14] = (uint8_t)('a' + i / 26);
		region[15] = (uint8_t)('a' + i % 26);
		memcpy(buf + n, region, sizeof(region));
	}
}

Test(messages, channel_identity_rules)
{
	const struct codec *addr = &control_codecs[CODEC_ADDR];
	static const unsigned count[] = {0, 1, VIA_MULTIFD_MAX, VIA_PREEMPT_MAX, 0};
	struct via_channel_addr m;

	decode_golden(addr, &m);
	for (unsigned kind = 0; kind < 5; kind++) {
		m.id.kind = (uint8_t)kind;
		m.id.index = (uint16_t)count[kind];
		cr_assert_eq(redecode(addr, &m), -EPROTO, "%s %u", via_channel_kind_name(kind),
			     m.id.index);
		m.id.index--;
		cr_assert_eq(redecode(addr, &m), count[kind] ? 0 : -EPROTO, "%s %u",
			     via_channel_kind_name(kind), m.id.index);
	}
	decode_golden(addr, &m);
	m.id.kind = 255;
	cr_assert_eq(redecode(addr, &m), -EPROTO);
	decode_golden(addr, &m);
	m.id.epoch = 0;
	cr_assert_eq(redecode(addr, &m), -EPROTO);
	for (unsigned i = CODEC_OPEN; i <= CODEC_REFUSED; i++)
		cr_assert_eq(with_byte(&control_codecs[i], 1, 1), -EPROTO, "reserved byte of %s",
			     control_codecs[i].name);
}

Test(messages, addresses_and_keys_are_bounded)
{
	static uint8_t bytes[VIA_RKEY_MAX + 1];
	struct via_channel_addr addr;
	struct via_channel_open open;
	struct via_packed_key key = {.bytes = bytes, .len = VIA_RKEY_MAX};
	size_t pos = 0;

	decode_golden(&control_codecs[CODEC_ADDR], &addr);
	decode_golden(&control_codecs[CODEC_OPEN], &open);
	addr.addr = open.addr = bytes;
	addr.addr_len = open.addr_len = VIA_ADDRESS_MAX;
	cr_assert_eq(redecode(&control_codecs[CODEC_ADDR], &addr), 0);
	cr_assert_eq(redecode(&control_codecs[CODEC_OPEN], &open), 0);
	addr.addr_len = open.addr_len = VIA_ADDRESS_MAX + 1;
	cr_assert_eq(redecode(&control_codecs[CODEC_ADDR], &addr), -ENOBUFS);
	cr_assert_eq(redecode(&control_codecs[CODEC_OPEN], &open), -ENOBUFS);

	/* What an honest encoder refuses, as a peer would send it. */
	memset(buf, 0, 14 + VIA_ADDRESS_MAX + 1);
	memcpy(buf, control_codecs[CODEC_ADDR].golden, 12);
	buf[12] = 0x02;
	buf[13] = 0x01;
	cr_assert_eq(via_channel_addr_decode(buf, 14 + VIA_ADDRESS_MAX + 1, &addr), -EPROTO);

	cr_assert_eq(via_packed_key_append(&key, buf, sizeof(buf), &pos), 0);
	cr_assert_eq(pos, 2 + VIA_RKEY_MAX);
	key.len++;
	cr_assert_eq(via_packed_key_append(&key, buf, sizeof(buf), &pos), -ENOBUFS);
	key.len = 10;
	cr_assert_eq(via_packed_key_append(&key, buf, pos + 11, &pos), -ENOBUFS);
	cr_assert_eq(via_packed_key_append(&key, buf, pos - 1, &pos), -ENOBUFS);
	cr_assert_eq(pos, 2 + VIA_RKEY_MAX, "and it has not moved");
	cr_assert_eq(via_packed_key_append(&key, buf, pos + 12, &pos), 0);
}

Test(messages, ready_rules)
{
	const struct codec *ready = &control_codecs[CODEC_READY];
	struct via_channel_ready good, m;
	static uint8_t key[2 + VIA_RKEY_MAX + 1];

	decode_golden(ready, &good);
	m = good;
	m.msg_len = 64;
	cr_assert_eq(redecode(ready, &m), 0);
	m.msg_len = 63;
	cr_assert_eq(redecode(ready, &m), -EPROTO, "fragments of nothing");
	m = good;
	m.id.kind = VIA_PREEMPT;
	cr_assert_eq(redecode(ready, &m), 0, "a key to its staging");
	m.id.kind = VIA_MAIN;
	m.id.index = 0;
	cr_assert_eq(redecode(ready, &m), -EPROTO, "keys for main");
	m.nkeys = 1;
	m.keys_len = 4;
	cr_assert_eq(redecode(ready, &m), 0, "one, to its staging");
	m.nkeys = 0;
	m.keys_len = 0;
	cr_assert_eq(redecode(ready, &m), 0);
	cr_assert_eq(with_byte(ready, 14, 1), -EPROTO, "reserved");
	for (uint32_t n = 0; n < 5; n++) {
		m = good;
		m.nkeys = n;
		cr_assert_eq(redecode(ready, &m), n == 2 ? 0 : -EPROTO, "%u keys are not 2", n);
	}
	m = good;
	m.nkeys = UINT32_MAX;
	cr_assert_eq(redecode(ready, &m), -EPROTO);
	m.nkeys = 1;
	m.keys = key;
	key[0] = VIA_RKEY_MAX >> 8;
	m.keys_len = sizeof(key) - 1;
	cr_assert_eq(redecode(ready, &m), 0);
	key[1] = 1;
	m.keys_len = sizeof(key);
	cr_assert_eq(redecode(ready, &m), -EPROTO, "a key of 513 bytes");
}

Test(messages, every_error_code_travels_by_its_name)
{
	const struct codec *error = &control_codecs[CODEC_ERROR];
	struct via_error m = {0}, out;

#define X(c, scope, text)                                                                          \
	m.code = -(c);                                                                             \
	cr_assert_eq(error->decode(buf, (size_t)error->encode(&m, buf, sizeof(buf)), &out), 0);    \
	cr_assert_eq(out.code, -(c), #c);
	VIA_ERROR_LIST(X)
#undef X
	m.code = 0; /* an error that is none */
	cr_assert_eq(error->decode(buf, (size_t)error->encode(&m, buf, sizeof(buf)), &out), 0);
	cr_assert_eq(out.code, -EIO);
	memcpy(buf, error->golden, error->golden_len);
	buf[2] = 'e'; /* eTIMEDOUT */
	cr_assert_eq(error->decode(buf, error->golden_len, &out), 0);
	cr_assert_eq(out.code, -EIO);
	cr_assert_str_eq(out.what, "drain", "the text is kept");
	buf[2] = '\0';
	cr_assert_eq(error->decode(buf, error->golden_len, &out), -EPROTO);
}

Test(messages, a_text_that_does_not_fit_is_refused)
{
	struct via_error m = {.code = -EIO}, out;
	const size_t what_at = 2 + 3;
	ssize_t n;

	set_str(m.what, sizeof(m.what) - 1);
	n = via_error_encode(&m, buf, sizeof(buf));
	cr_assert_eq(via_error_decode(buf, (size_t)n, &out), 0);
	cr_assert_str_eq(out.what, m.what);
	/* One byte more in the text, taken from nowhere. */
	memmove(buf + what_at + 3, buf + what_at + 2, (size_t)n - what_at - 2);
	buf[what_at + 1]++;
	cr_assert_eq(via_error_decode(buf, (size_t)n + 1, &out), -EPROTO);
}

Test(messages, channel_kinds_have_names)
{
	cr_assert_str_eq(via_channel_kind_name(VIA_MAIN), "main");
	cr_assert_str_eq(via_channel_kind_name(VIA_MULTIFD), "multifd");
	cr_assert_str_eq(via_channel_kind_name(VIA_PREEMPT), "preempt");
	cr_assert_str_eq(via_channel_kind_name(0), "?");
	cr_assert_str_eq(via_channel_kind_name(4), "?");
}

static int decode_header(unsigned type, unsigned flags, uint32_t announced, size_t len)
{
	struct via_message_header h = {
		.type = (uint8_t)type, .flags = (uint8_t)flags, .len = announced};

	via_message_header_encode(&h, buf);
	return via_message_header_decode(buf, VIA_MESSAGE_HEADER_LEN + len, &h);
}

Test(messages, message_header_rules)
{
	struct via_message_header h;

	for (unsigned type = 0; type < 256; type++) {
		bool known = (type >= VIA_MESSAGE_CREDIT && type <= VIA_MESSAGE_STREAM_END) ||
			     type >= VIA_MESSAGE_USER;

		cr_assert_eq(decode_header(type, 0, 0, 0), known ? 0 : -EPROTO, "type %u", type);
	}
	for (unsigned bit = 1; bit < 8; bit++)
		cr_assert_eq(decode_header(VIA_MESSAGE_USER, 1u << bit, 0, 0), -EPROTO);
	cr_assert_eq(decode_header(VIA_MESSAGE_USER, VIA_MESSAGE_MORE, 1, 1), 0);
	cr_assert_eq(decode_header(VIA_MESSAGE_USER, VIA_MESSAGE_MORE, 0, 0), -EPROTO);
	cr_assert_eq(decode_header(VIA_MESSAGE_CREDIT, VIA_MESSAGE_MORE, 0, 0), -EPROTO);
	cr_assert_eq(decode_header(VIA_MESSAGE_CREDIT, 0, 1, 1), -EPROTO);
	cr_assert_eq(decode_header(VIA_MESSAGE_USER, 0, 9, 9), 0);
	cr_assert_eq(decode_header(VIA_MESSAGE_USER, 0, 9, 8), -EPROTO, "cut");
	cr_assert_eq(decode_header(VIA_MESSAGE_USER, 0, 9, 10), -EPROTO, "more than announced");
	cr_assert_eq(decode_header(VIA_MESSAGE_USER, 0, UINT32_MAX, 7), -EPROTO);
	for (size_t len = 0; len < VIA_MESSAGE_HEADER_LEN; len++)
		cr_assert_eq(via_message_header_decode(buf, len, &h), -EPROTO);
}

Test(messages, fence_and_drained_rules)
{
	struct via_fence_message fence;
	static struct via_drained_message drained;
	uint64_t epoch = 0;
	ssize_t n;

	decode_golden(&channel_codecs[CODEC_FENCE], &fence);
	fence.index = VIA_MULTIFD_MAX - 1;
	cr_assert_eq(redecode(&channel_codecs[CODEC_FENCE], &fence), 0);
	fence.index = VIA_MULTIFD_MAX;
	cr_assert_eq(redecode(&channel_codecs[CODEC_FENCE], &fence), -EPROTO);
	fence.index = 0;
	fence.count.epoch = 0;
	cr_assert_eq(redecode(&channel_codecs[CODEC_FENCE], &fence), -EPROTO);

	decode_golden(&channel_codecs[CODEC_DRAINED], &drained);
	drained.n = VIA_MULTIFD_MAX;
	n = via_drained_encode(&drained, buf, sizeof(buf));
	cr_assert_eq(via_drained_decode(buf, (size_t)n, &drained), 0);
	buf[8] = 1;
	buf[9] = 1;
	memset(buf + n, 0, 16);
	cr_assert_eq(via_drained_decode(buf, (size_t)n + 16, &drained), -EPROTO, "257 channels");
	drained.n = VIA_MULTIFD_MAX + 1;
	cr_assert_eq(via_drained_encode(&drained, buf, sizeof(buf)), -ENOBUFS);
	drained.n = 0;
	drained.epoch = 1;
	cr_assert_eq(redecode(&channel_codecs[CODEC_DRAINED], &drained), 0);
	drained.epoch = 0;
	cr_assert_eq(redecode(&channel_codecs[CODEC_DRAINED], &drained), -EPROTO);
	cr_assert_eq(redecode(&channel_codecs[CODEC_EPOCH], &epoch), -EPROTO);
}

Test(messages, stream_rules)
{
	const struct codec *end = &channel_codecs[CODEC_STREAM_END];
	struct via_stream_message m;
	int status;

	for (size_t len = 0; len < VIA_STREAM_PREFIX_LEN; len++)
		cr_assert_eq(via_stream_decode(buf, len, &m), -EPROTO, "%zu bytes", len);
	for (uint32_t slot_len = 0; slot_len < 2; slot_len++) {
		via_stream_prefix_encode(slot_len, buf);
		for (size_t len = 0; len < 2; len++) {
			int rc = via_stream_decode(buf, VIA_STREAM_PREFIX_LEN + len, &m);

			cr_assert_eq(rc, slot_len + len ? 0 : -EPROTO, "%u and %zu", slot_len, len);
			cr_assert(rc || (m.slot_len == slot_len && m.len == len));
		}
	}
#define X(c, scope, text)                                                                          \
	status = -(c);                                                                             \
	cr_assert(!end->decode(buf, (size_t)end->encode(&status, buf, sizeof(buf)), &status));     \
	cr_assert_eq(status, -(c), #c);
	VIA_ERROR_LIST(X)
#undef X
	memcpy(buf, end->golden, end->golden_len);
	buf[2] = 'e';
	cr_assert_eq(end->decode(buf, end->golden_len, &status), 0);
	cr_assert_eq(status, -EIO, "a code that is not known");
	buf[1] = 32;
	memset(buf + 2, 'E', 32);
	cr_assert_eq(end->decode(buf, 34, &status), -EPROTO, "a name of 32 bytes");
}
