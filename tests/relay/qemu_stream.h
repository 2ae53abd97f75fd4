/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_stream.h -- streams as QEMU writes them, in the flavours of its versions, for the tests
 * of the parsers.
 */
#ifndef VIA_TESTS_RELAY_QEMU_STREAM_H
#define VIA_TESTS_RELAY_QEMU_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "relay/multifd_stream.h"

/* What differs between versions on a multifd channel. */
enum flavour {
	QEMU_7_2, /* to 8.1: a packet without pages repeats the size, name and offsets of the last */
	QEMU_8_2,  /* says 0 as its size */
	QEMU_9_0,  /* zero pages are in packets */
	QEMU_9_2,  /* SYNC packets are 0 behind their flags */
	QEMU_10_0, /* device state */
	FLAVOURS,
};
extern const char *const flavour_name[FLAVOURS];

enum {
	SYNC = 0x01,
	ZLIB = 0x02,
	ZSTD = 0x04,
	QATZIP = 0x20,
	DEVICE_STATE = 0x40,
};

struct stream {
	size_t len;
	size_t may_end[64]; /* positions at which QEMU may end the channel */
	unsigned nmay_end;
	struct relay_multifd_stats stats;
	enum flavour flavour;
	uint32_t page_len;
	uint32_t last_size; /* of a payload */
	uint8_t part[1 << 20];
	uint8_t bytes[1 << 20];
};

/* Static memory: one at a time. */
struct stream *stream_new(enum flavour flavour, uint32_t page_len);
const struct stream *stream_at_hand(void);

void put_bytes(struct stream *s, const void *bytes, size_t len);
void put_be(struct stream *s, uint64_t value, unsigned len);
void put_zeros(struct stream *s, size_t len);

/* -- multifd ---------------------------------------------------------------- */

void put_init(struct stream *s, uint8_t id);
/* @compressed: bytes of the payload when @flags has a method. */
void put_pages(struct stream *s, uint32_t flags, uint32_t normal, uint32_t zero,
	       uint32_t compressed);
void put_sync(struct stream *s);
void put_device(struct stream *s, uint32_t size);

/* -- main and return path ------------------------------------------------------ */

void put_header(struct stream *s);
void put_configuration(struct stream *s, const char *machine);
/* Name and version; the fields follow. */
void put_subsection(struct stream *s, const char *name);
/* Its data follows. */
void put_command(struct stream *s, unsigned command, unsigned len);
/* Its data follows. */
void put_message(struct stream *s, unsigned type, unsigned len);
void put_number(struct stream *s, unsigned type, uint32_t value);
void put_bitmap(struct stream *s, const char *block, uint64_t size);

/* -- pieces ------------------------------------------------------------------- */

/* The next number of a sequence that @state, not 0, begins. */
uint64_t next_random(uint64_t *state);

#endif
