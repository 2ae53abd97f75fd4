/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_multifd_stream.c -- any bytes at all on a multifd channel of QEMU: every byte is taken,
 * and told to be the same whether it comes with all others or in pieces.
 *
 * The first byte picks the page size that is known, the second the length of the pieces.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/multifd_stream.h"

#define STREAM_MAX 16384u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feed @bytes in pieces of at most @piece bytes; the part of each goes to @parts. */
static void feed(struct relay_multifd *m, const uint8_t *bytes, size_t len, size_t piece,
		 uint8_t *parts)
{
	for (size_t at = 0, n; at < len; at += n) {
		size_t some = len - at < piece ? len - at : piece;
		enum relay_part part = 0;

		if (relay_multifd_left(m) == 0)
			abort();
		n = relay_multifd_take(m, bytes + at, some, &part);
		if (n == 0 || n > some || part < RELAY_PART_INIT || part > RELAY_PART_OPAQUE)
			abort();
		memset(parts + at, part, n);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t page_lens[] = {0, 1024, 4096, 65536};
	static uint8_t whole_parts[STREAM_MAX], parts[STREAM_MAX];
	struct relay_multifd whole, m;
	uint32_t page_len;
	size_t piece;

	if (size < 2 || size - 2 > STREAM_MAX)
		return 0;
	page_len = page_lens[data[0] % 4];
	piece = data[1] + 1u;
	data += 2;
	size -= 2;

	relay_multifd_init(&whole, page_len);
	feed(&whole, data, size, size, whole_parts);
	relay_multifd_init(&m, page_len);
	feed(&m, data, size, piece, parts);
	if (memcmp(parts, whole_parts, size) != 0 ||
	    memcmp(&m.stats, &whole.stats, sizeof(m.stats)) != 0 || m.page_len != whole.page_len ||
	    strcmp(m.note, whole.note) != 0 || relay_multifd_left(&m) != relay_multifd_left(&whole))
		abort();
	return 0;
}
