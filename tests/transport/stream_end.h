/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream_end.h -- ends of streams that a test plays itself: chunks of any length, of bytes that are known
 * by their number. What is wrong fails the test.
 */
#ifndef VIA_TESTS_STREAM_END_H
#define VIA_TESTS_STREAM_END_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/stream.h"

/* Fabrics that streams are tested over. Skips the test where the build lacks the one. */
#define STREAM_FABRICS 6u
const char *stream_fabric(unsigned i);

/* A channel of each kind. */
#define STREAM_CHANNELS 3u
extern const struct stream_channel {
	enum via_channel_kind kind;
	unsigned index;
	size_t slot_len; /* 0: messages alone */
} stream_channels[STREAM_CHANNELS];

/* One end of a stream: what it sends and has received. */
struct stream_end {
	struct via_stream *st;
	uint64_t sent, total; /* bytes; finished at total */
	uint64_t received;
	int finishes_with, status; /* and what the peer did */
};

/* Where the choices of the functions below start. */
void stream_seed(uint64_t seed);
/* Bytes @at and on of every stream. */
void stream_fill(uint8_t *buf, uint64_t at, size_t len);
uint8_t stream_byte_at(uint64_t at);

/* @rc is no failure. */
void expect_ok(int rc);

/* Send a chunk of up to @max bytes, some with a head. False: there is no room. */
bool stream_send_some(struct stream_end *e, size_t max);
/* Consume up to @max bytes of what came. False: nothing did. */
bool stream_take_some(struct stream_end *e, size_t max);
/* Progress without sleeping. */
void stream_poll(struct stream_end *e);
/* Both until both are done, with everything that each was to send. */
void stream_play(struct stream_end *source, struct stream_end *destination, size_t max);

#endif
