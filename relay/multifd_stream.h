/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * multifd_stream.h -- what the bytes of one multifd channel of QEMU are, as they pass.
 *
 * A channel is an init of 64 bytes, then packets: a header and, when it has pages or device
 * state, a payload. QEMU 7.2 to 11.1 are understood, whatever the target's page size, with
 * and without compression. The parser looks and counts; it holds no byte back and changes none.
 * Where it does not understand a byte the rest of the channel is opaque, and note says why:
 * that is never an error of the relay, because the two QEMUs may still understand each other.
 *
 * One thread owns a parser. Nothing here blocks, allocates or fails.
 */
#ifndef VIA_RELAY_MULTIFD_STREAM_H
#define VIA_RELAY_MULTIFD_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Header of a packet of device state (QEMU 10.0 and later), the longest that is kept. */
#define RELAY_DEVICE_HEADER_LEN 276u

enum relay_part {
	RELAY_PART_INIT = 1,
	RELAY_PART_HEADER,
	RELAY_PART_PAYLOAD,
	RELAY_PART_OPAQUE, /* not understood; to the end of the channel */
};

/* Counted when the fields of a header have passed, before its payload has. */
struct relay_multifd_stats {
	uint64_t packets;
	uint64_t sync_packets;   /* of them: the end of a round on this channel */
	uint64_t device_packets; /* of them: with device state */
	uint64_t pages;          /* with content */
	uint64_t zero_pages;     /* without; QEMU 9.0 and later */
	uint64_t payload_len;    /* bytes behind the headers */
};

struct relay_multifd {
	struct relay_multifd_stats stats;
	uint32_t page_len; /* of the target, bytes; 0: not known yet */
	char note[96];     /* why the rest is opaque; empty: it is not */

	/* private */
	unsigned stage;
	bool page_len_seen;   /* in a packet: it cannot change */
	uint64_t position;    /* bytes taken */
	uint64_t have, need;  /* bytes of the part at hand: taken, and known to belong to it */
	uint64_t payload_len; /* of the packet at hand */
	uint8_t head[RELAY_DEVICE_HEADER_LEN];
};

/*
 * Start at the first byte of a channel. @page_len is the target's page size in bytes when it
 * is known from elsewhere, or 0: then it is learnt from the first packet that has it, or
 * from the place where the second packet begins.
 */
void relay_multifd_init(struct relay_multifd *m, uint32_t page_len);

/*
 * Take bytes from the start of @bytes: as many of its @len as are seen at once to belong to one
 * part, which goes to *@part. Call again with the rest.
 * Returns their number, at least 1; 0, and *@part untouched, when @len is 0.
 */
size_t relay_multifd_take(struct relay_multifd *m, const void *bytes, size_t len,
			  enum relay_part *part);

/*
 * Bytes from here on that are known to belong to the part at hand, at least 1: all that are left
 * of a payload; of a header the whole rest or, where its length is not known yet, less.
 * UINT64_MAX: opaque.
 */
uint64_t relay_multifd_left(const struct relay_multifd *m);

/* Does the next byte belong to the payload of a packet? */
bool relay_multifd_in_payload(const struct relay_multifd *m);

/* True when QEMU may end the channel here: after the init or a packet, or when it is opaque. */
bool relay_multifd_may_end(const struct relay_multifd *m);

#endif
