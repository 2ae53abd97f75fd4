/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_main_stream.c -- any bytes at all on main and its return path: what is seen does not
 * depend on the pieces in which they come.
 *
 * The first byte picks the direction, the second the length of the pieces.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/main_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t shorter(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void main_stream(const uint8_t *data, size_t size, size_t piece)
{
	struct relay_main whole, m;

	relay_main_init(&whole);
	relay_main_feed(&whole, data, size);
	relay_main_init(&m);
	for (size_t at = 0; at < size; at += piece)
		relay_main_feed(&m, data + at, shorter(piece, size - at));
	if (m.header != whole.header || m.recovery != whole.recovery ||
	    m.return_path != whole.return_path || m.postcopy != whole.postcopy ||
	    m.body != whole.body || m.page_len != whole.page_len ||
	    strcmp(m.machine, whole.machine) != 0 || strcmp(m.note, whole.note) != 0)
		abort();
}

static void return_path(const uint8_t *data, size_t size, size_t piece)
{
	struct relay_return whole, r;

	relay_return_init(&whole);
	relay_return_feed(&whole, data, size);
	relay_return_init(&r);
	for (size_t at = 0; at < size; at += piece)
		relay_return_feed(&r, data + at, shorter(piece, size - at));
	if (r.pongs != whole.pongs || r.bitmaps != whole.bitmaps || r.requests != whole.requests ||
	    r.last_pong != whole.last_pong || r.resumed != whole.resumed || r.shut != whole.shut ||
	    r.shut_value != whole.shut_value || strcmp(r.note, whole.note) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	if (data[0] & 1)
		return_path(data + 2, size - 2, data[1] + 1u);
	else
		main_stream(data + 2, size - 2, data[1] + 1u);
	return 0;
}
