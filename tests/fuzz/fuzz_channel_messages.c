/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_channel_messages.c -- the messages of the channels and the header before them.
 * The first byte picks the decoder.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/round_trip.h"
#include "transport/messages.h"

/* The header is decoded with all that follows it, and encoded alone. */
static void header(const uint8_t *data, size_t size)
{
	uint8_t buf[VIA_MESSAGE_HEADER_LEN];
	struct via_message_header h;

	if (via_message_header_decode(data, size, &h))
		return;
	via_message_header_encode(&h, buf);
	if (memcmp(buf, data, sizeof(buf)) != 0 || h.len != size - sizeof(buf))
		abort();
}

/* As the header: the prefix alone is encoded. */
static void stream(const uint8_t *data, size_t size)
{
	uint8_t buf[VIA_STREAM_PREFIX_LEN];
	struct via_stream_message m;

	if (via_stream_decode(data, size, &m))
		return;
	via_stream_prefix_encode(m.slot_len, buf);
	if (memcmp(buf, data, sizeof(buf)) != 0 || m.bytes != data + sizeof(buf) ||
	    m.len != size - sizeof(buf))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned which;

	if (size == 0)
		return 0;
	which = data[0] % (CHANNEL_CODECS + 2);
	if (which < CHANNEL_CODECS)
		round_trip(&channel_codecs[which], data + 1, size - 1);
	else if (which == CHANNEL_CODECS)
		header(data + 1, size - 1);
	else
		stream(data + 1, size - 1);
	return 0;
}
