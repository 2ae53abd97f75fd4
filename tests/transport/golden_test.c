/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * golden_test.c -- each message against its vector of codecs.c: the struct gives
 * these bytes, and these bytes give the struct. A change here is a new protocol version.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/transport/codecs.h"
#include "transport/messages.h"

static const uint8_t session_id[] = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
				     0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
static const uint8_t nonce[] = {0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7,
				0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf};

/* @m encodes to the codec's vector, and to nothing in less room. */
static void check_encode(const struct codec *codec, const void *m)
{
	uint8_t buf[256];
	ssize_t n = codec->encode(m, buf, sizeof(buf));

	cr_assert_eq(n, (ssize_t)codec->golden_len, "%s: %zd bytes", codec->name, n);
	for (size_t i = 0; i < codec->golden_len; i++)
		cr_assert_eq(buf[i], codec->golden[i], "%s: byte %zu is %02x", codec->name, i,
			     buf[i]);
	for (size_t cap = 0; cap < codec->golden_len; cap++)
		cr_assert_eq(codec->encode(m, buf, cap), -ENOBUFS, "%s in %zu bytes", codec->name,
			     cap);
}

static void decode(const struct codec *codec, void *m)
{
	cr_assert_eq(codec->decode(codec->golden, codec->golden_len, m), 0);
}

static void check_id(const struct via_channel_id *id, unsigned kind, unsigned index, uint64_t epoch)
{
	cr_assert_eq(id->kind, kind);
	cr_assert_eq(id->index, index);
	cr_assert_eq(id->epoch, epoch);
}

Test(golden, hello)
{
	static struct via_hello m;

	decode(&control_codecs[CODEC_HELLO], &m);
	cr_assert_eq(m.version_min, 1);
	cr_assert_eq(m.version_max, 1);
	cr_assert_eq(m.features, 5);
	cr_assert_arr_eq(m.session_id, session_id, sizeof(session_id));
	cr_assert_eq(m.role, VIA_ROLE_SOURCE);
	cr_assert_str_eq(m.program, "viaduct 0.1.0");
	cr_assert_eq(m.noffers, 2);
	cr_assert_eq(m.offer[0].rank, 3);
	cr_assert_str_eq(m.offer[0].kind, "ofi:tcp");
	cr_assert_str_eq(m.offer[0].reach, "");
	cr_assert_str_eq(m.offer[0].reason, "");
	cr_assert_eq(m.offer[1].rank, 0);
	cr_assert_str_eq(m.offer[1].kind, "ofi:shm");
	cr_assert_str_eq(m.offer[1].reach, "h7");
	cr_assert_str_eq(m.offer[1].reason, "full");
	check_encode(&control_codecs[CODEC_HELLO], &m);
}

Test(golden, setup)
{
	static struct via_setup m;

	decode(&control_codecs[CODEC_SETUP], &m);
	cr_assert_eq(m.version, 1);
	cr_assert_eq(m.multifd, 4);
	cr_assert_eq(m.preempt, 1);
	cr_assert_eq(m.slice_len, UINT64_C(1) << 30);
	cr_assert_eq(m.epoch, 7);
	cr_assert_str_eq(m.fabric, "ofi:tcp");
	cr_assert_eq(m.nregions, 2);
	cr_assert_str_eq(m.region[0].name, "ram");
	cr_assert_eq(m.region[0].len, UINT64_C(4) << 30);
	cr_assert_eq(m.region[0].page_size, 4096);
	cr_assert_str_eq(m.region[1].name, "vram");
	cr_assert_eq(m.region[1].len, 4 << 20);
	cr_assert_eq(m.region[1].page_size, 2 << 20);
	check_encode(&control_codecs[CODEC_SETUP], &m);
}

Test(golden, channel_open)
{
	static const uint8_t addr[] = {10, 0, 0, 7};
	struct via_channel_open m;

	decode(&control_codecs[CODEC_OPEN], &m);
	check_id(&m.id, VIA_MULTIFD, 3, 9);
	cr_assert_arr_eq(m.session_id, session_id, sizeof(session_id));
	cr_assert_arr_eq(m.nonce, nonce, sizeof(nonce));
	cr_assert_eq(m.addr_len, sizeof(addr));
	cr_assert_arr_eq(m.addr, addr, sizeof(addr));
	check_encode(&control_codecs[CODEC_OPEN], &m);
}

Test(golden, channel_addr)
{
	static const uint8_t addr[] = {1, 2, 3};
	struct via_channel_addr m;

	decode(&control_codecs[CODEC_ADDR], &m);
	check_id(&m.id, VIA_PREEMPT, 63, UINT64_MAX);
	cr_assert_eq(m.addr_len, sizeof(addr));
	cr_assert_arr_eq(m.addr, addr, sizeof(addr));
	check_encode(&control_codecs[CODEC_ADDR], &m);
}

Test(golden, channel_ready)
{
	static const uint8_t first[] = {0xc0, 0xc1}, second[] = {0xc2, 0xc3, 0xc4};
	struct via_channel_ready m;
	struct via_packed_key key;
	size_t pos = 0;

	decode(&control_codecs[CODEC_READY], &m);
	check_id(&m.id, VIA_MULTIFD, 0, 1);
	cr_assert_eq(m.credits, 64);
	cr_assert_eq(m.msg_len, 8192);
	cr_assert_eq(m.nkeys, 2);
	cr_assert_eq(via_channel_ready_next_key(&m, &pos, &key), 0);
	cr_assert_eq(key.len, sizeof(first));
	cr_assert_arr_eq(key.bytes, first, sizeof(first));
	cr_assert_eq(via_channel_ready_next_key(&m, &pos, &key), 0);
	cr_assert_eq(key.len, sizeof(second));
	cr_assert_arr_eq(key.bytes, second, sizeof(second));
	cr_assert_eq(via_channel_ready_next_key(&m, &pos, &key), -ENOENT);
	cr_assert_eq(via_channel_ready_next_key(&m, &pos, &key), -ENOENT, "and stays there");
	check_encode(&control_codecs[CODEC_READY], &m);
}

Test(golden, channel_refused)
{
	struct via_channel_refused m;

	decode(&control_codecs[CODEC_REFUSED], &m);
	check_id(&m.id, VIA_MAIN, 0, 2);
	cr_assert_eq(m.error.code, -ESTALE);
	cr_assert_str_eq(m.error.what, "open");
	cr_assert_str_eq(m.error.seen, "2");
	cr_assert_str_eq(m.error.remedy, "");
	check_encode(&control_codecs[CODEC_REFUSED], &m);
}

Test(golden, error)
{
	struct via_error m;

	decode(&control_codecs[CODEC_ERROR], &m);
	cr_assert_eq(m.code, -ETIMEDOUT);
	cr_assert_str_eq(m.what, "drain");
	cr_assert_str_eq(m.seen, "10s");
	cr_assert_str_eq(m.remedy, "wait");
	check_encode(&control_codecs[CODEC_ERROR], &m);
}

Test(golden, ping)
{
	uint64_t stamp;

	decode(&control_codecs[CODEC_PING], &stamp);
	cr_assert_eq(stamp, UINT64_C(0x0123456789abcdef));
	check_encode(&control_codecs[CODEC_PING], &stamp);
}

Test(golden, fence)
{
	struct via_fence_message m;

	decode(&channel_codecs[CODEC_FENCE], &m);
	cr_assert_eq(m.index, 2);
	cr_assert_eq(m.count.epoch, 7);
	cr_assert_eq(m.count.writes, 4096);
	cr_assert_eq(m.count.bytes, UINT64_C(1) << 32);
	check_encode(&channel_codecs[CODEC_FENCE], &m);
}

Test(golden, drained)
{
	struct via_drained_message m;

	decode(&channel_codecs[CODEC_DRAINED], &m);
	cr_assert_eq(m.epoch, 7);
	cr_assert_eq(m.n, 2);
	cr_assert_eq(m.count[0].epoch, 7);
	cr_assert_eq(m.count[0].writes, 17);
	cr_assert_eq(m.count[0].bytes, 0x2200);
	cr_assert_eq(m.count[1].epoch, 7);
	cr_assert_eq(m.count[1].writes, 0);
	cr_assert_eq(m.count[1].bytes, 0);
	check_encode(&channel_codecs[CODEC_DRAINED], &m);
}

Test(golden, epoch)
{
	uint64_t epoch;

	decode(&channel_codecs[CODEC_EPOCH], &epoch);
	cr_assert_eq(epoch, 256);
	check_encode(&channel_codecs[CODEC_EPOCH], &epoch);
}

Test(golden, stream_end)
{
	int status;

	decode(&channel_codecs[CODEC_STREAM_END], &status);
	cr_assert_eq(status, -ECONNRESET);
	check_encode(&channel_codecs[CODEC_STREAM_END], &status);
}

Test(golden, stream)
{
	static const uint8_t golden[] = {
		0x00, 0x02, 0x00, 0x00, /* 128 KiB in the slot */
		0xe0, 0xe1, 0xe2,       /* behind these bytes */
	};
	struct via_stream_message m;
	uint8_t buf[VIA_STREAM_PREFIX_LEN];

	cr_assert_eq(via_stream_decode(golden, sizeof(golden), &m), 0);
	cr_assert_eq(m.slot_len, 131072);
	cr_assert_eq(m.bytes, golden + 4);
	cr_assert_eq(m.len, 3);
	via_stream_prefix_encode(m.slot_len, buf);
	cr_assert_arr_eq(buf, golden, sizeof(buf));
}

Test(golden, message_header)
{
	static const uint8_t golden[] = {
		0x41, 0x01,             /* the engine's second type, MORE */
		0x00, 0x10,             /* credits */
		0x00, 0x00, 0x00, 0x03, /* length */
		0xd0, 0xd1, 0xd2,
	};
	struct via_message_header h;
	uint8_t buf[VIA_MESSAGE_HEADER_LEN];

	cr_assert_eq(via_message_header_decode(golden, sizeof(golden), &h), 0);
	cr_assert_eq(h.type, VIA_MESSAGE_USER + 1);
	cr_assert_eq(h.flags, VIA_MESSAGE_MORE);
	cr_assert_eq(h.credits, 16);
	cr_assert_eq(h.len, 3);
	via_message_header_encode(&h, buf);
	cr_assert_arr_eq(buf, golden, sizeof(buf));
}
