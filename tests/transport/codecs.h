/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * codecs.h -- all encoders and decoders in one table, for tests and fuzzers that
 * do the same with each, and one golden vector of each.
 */
#ifndef VIA_TESTS_TRANSPORT_CODECS_H
#define VIA_TESTS_TRANSPORT_CODECS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct codec {
	const char *name;
	size_t size; /* bytes of the struct */
	ssize_t (*encode)(const void *m, void *buf, size_t cap);
	int (*decode)(const void *buf, size_t len, void *m);
	/* The vector, written by hand from docs/wire.md. */
	const uint8_t *golden;
	size_t golden_len;
};

enum control_codec {
	CODEC_HELLO,
	CODEC_SETUP,
	CODEC_OPEN,
	CODEC_ADDR,
	CODEC_READY,
	CODEC_REFUSED,
	CODEC_ERROR,
	CODEC_PING,
	CONTROL_CODECS,
};

enum channel_codec { CODEC_FENCE, CODEC_DRAINED, CODEC_EPOCH, CODEC_STREAM_END, CHANNEL_CODECS };

extern const struct codec control_codecs[CONTROL_CODECS];
extern const struct codec channel_codecs[CHANNEL_CODECS];

#endif
