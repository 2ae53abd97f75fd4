/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * round_trip.c -- what must hold for every codec and any bytes at all.
 */
#include "tests/fuzz/round_trip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/messages.h"

#define REQUIRE(condition)                                                                         \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

/* As many keys as announced can be taken out, and their bytes are there to be read. */
static void take_keys(const struct via_channel_ready *m)
{
	struct via_packed_key key;
	volatile uint8_t sum = 0;
	uint32_t n = 0;
	size_t pos = 0;

	while (via_channel_ready_next_key(m, &pos, &key) == 0) {
		for (uint16_t i = 0; i < key.len; i++)
			sum = (uint8_t)(sum + key.bytes[i]);
		n++;
	}
	REQUIRE(n == m->nkeys);
	REQUIRE(pos == m->keys_len);
}

void round_trip(const struct codec *codec, const uint8_t *data, size_t size)
{
	/* No encoding is longer than what it came from but for names of errors. */
	size_t cap = size + 64;
	uint8_t *first = malloc(cap), *second = malloc(cap);
	void *m = malloc(codec->size);
	ssize_t n1, n2;
	int rc;

	REQUIRE(first && second && m);
	rc = codec->decode(data, size, m);
	if (rc) {
		REQUIRE(rc == -EPROTO ||
			(rc == -EPROTONOSUPPORT && codec == &control_codecs[CODEC_HELLO]));
		goto out;
	}
	if (codec == &control_codecs[CODEC_READY])
		take_keys(m);
	n1 = codec->encode(m, first, cap);
	REQUIRE(n1 > 0);
	REQUIRE(codec->decode(first, (size_t)n1, m) == 0);
	n2 = codec->encode(m, second, cap);
	REQUIRE(n1 == n2);
	REQUIRE(!memcmp(first, second, (size_t)n1));
out:
	free(m);
	free(first);
	free(second);
}
