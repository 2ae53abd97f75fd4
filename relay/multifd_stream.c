/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * multifd_stream.c -- init, packet headers and payloads of one multifd channel, byte by byte.
 *
 * Must never take a length from the wire for anything but counting, and never tell a byte's
 * part differently when the bytes come in other pieces.
 *
 * Invariant: between two calls have < need, except at a place where a header of unknown
 * length may end (STAGE_GUESS), which the next byte decides.
 *
 * A header, by its offsets (u32 unless said otherwise):
 *    0 magic, 4 version, 8 flags
 *   12 pages_alloc: pages that fit a packet, 524288 / page size; 0 in SYNC packets since 9.2
 *   16 normal_pages, 20 next_packet_size (stale without normal pages up to 8.1), 24 u64 number
 *   32 zero_pages (9.0 and later), 36 unused, 64 name of the RAM block, 256 bytes
 *  320 u64 for each of pages_alloc pages, in SYNC packets of 9.2 and later just as many
 * or, with device state: 12 name, 256 bytes, 268 instance, 272 next_packet_size; 276 in all.
 */
#include "relay/multifd_stream.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/wire.h"
#include "relay/qemu_wire.h"

enum {
	FLAG_SYNC = 0x01,
	FLAGS_COMPRESSION = 0x3e, /* one bit for each method, none without compression */
	FLAG_DEVICE_STATE = 0x40,
};

#define HEADER_START_LEN  12u /* what both kinds of header have in common */
#define HEADER_FIELDS_LEN 36u
#define HEADER_FIXED_LEN  320u
#define PACKET_PAGES_LEN  524288u /* bytes of pages in a full packet, whatever their size */
#define PAGE_LEN_MIN      1024u
#define PAGE_LEN_MAX      65536u

enum stage {
	STAGE_INIT = 1,
	STAGE_START,  /* of a header, up to its flags */
	STAGE_FIELDS, /* up to zero_pages */
	STAGE_REST,   /* of a header whose length is known */
	STAGE_GUESS,  /* of one that says nothing about its length: it ends where the next begins */
	STAGE_DEVICE, /* of a header with device state */
	STAGE_PAYLOAD,
	STAGE_OPAQUE,
};

static void enter(struct relay_multifd *m, enum stage stage, uint64_t need)
{
	m->stage = stage;
	m->need = need;
}

static void next_packet(struct relay_multifd *m)
{
	m->have = 0;
	enter(m, STAGE_START, HEADER_START_LEN);
}

/* The rest of the channel is carried as it is. */
__attribute__((format(printf, 2, 3))) static void give_up(struct relay_multifd *m, const char *fmt,
							  ...)
{
	va_list args;
	int n = snprintf(m->note, sizeof(m->note), "byte %" PRIu64 ": ", m->position);

	va_start(args, fmt);
	(void)vsnprintf(m->note + n, sizeof(m->note) - (size_t)n, fmt, args);
	va_end(args);
	m->have = 0;
	enter(m, STAGE_OPAQUE, UINT64_MAX);
}

static uint32_t header_len(uint32_t page_len)
{
	return HEADER_FIXED_LEN + PACKET_PAGES_LEN / page_len * 8;
}

static bool is_page_len(uint32_t len)
{
	return len >= PAGE_LEN_MIN && len <= PAGE_LEN_MAX && (len & (len - 1)) == 0;
}

void relay_multifd_init(struct relay_multifd *m, uint32_t page_len)
{
	memset(m, 0, sizeof(*m));
	m->page_len = is_page_len(page_len) ? page_len : 0;
	enter(m, STAGE_INIT, QEMU_MULTIFD_INIT_LEN);
}

/* -- headers ------------------------------------------------------------------- */

static bool magic_is_right(struct relay_multifd *m, const char *of)
{
	struct via_wire w = via_wire_reader(m->head, 8);
	uint32_t magic = via_wire_get_u32(&w), version = via_wire_get_u32(&w);

	if (magic == QEMU_MULTIFD_MAGIC && version == QEMU_MULTIFD_VERSION)
		return true;
	give_up(m, "%s of magic %08" PRIx32 ", version %" PRIu32, of, magic, version);
	return false;
}

/* The header is through: what it announced comes next. */
static void header_done(struct relay_multifd *m)
{
	if (!m->payload_len) {
		next_packet(m);
		return;
	}
	m->have = 0;
	enter(m, STAGE_PAYLOAD, m->payload_len);
}

static void count_packet(struct relay_multifd *m)
{
	m->stats.packets++;
	m->stats.payload_len += m->payload_len;
}

static void start_done(struct relay_multifd *m)
{
	struct via_wire w = via_wire_reader(m->head + 8, 4);
	uint32_t flags = via_wire_get_u32(&w), method = flags & FLAGS_COMPRESSION;

	if (!magic_is_right(m, "packet"))
		return;
	if (flags == FLAG_DEVICE_STATE)
		enter(m, STAGE_DEVICE, RELAY_DEVICE_HEADER_LEN);
	else if ((flags & ~(uint32_t)(FLAG_SYNC | FLAGS_COMPRESSION)) || (method & (method - 1)))
		give_up(m, "packet with flags %08" PRIx32, flags);
	else
		enter(m, STAGE_FIELDS, HEADER_FIELDS_LEN);
}

static void device_done(struct relay_multifd *m)
{
	struct via_wire w = via_wire_reader(m->head + 272, 4);

	m->payload_len = via_wire_get_u32(&w);
	m->stats.device_packets++;
	count_packet(m);
	header_done(m);
}

/* Learn or check the page size. False, and opaque, when the packet contradicts it. */
static bool page_len_agrees(struct relay_multifd *m, uint32_t pages_alloc)
{
	uint32_t len = PACKET_PAGES_LEN / pages_alloc;

	if (PACKET_PAGES_LEN % pages_alloc || !is_page_len(len) ||
	    (m->page_len_seen && len != m->page_len)) {
		give_up(m, "packet of %" PRIu32 " pages", pages_alloc);
		return false;
	}
	/* What the packet says is worth more than what was given to us. */
	m->page_len = len;
	m->page_len_seen = true;
	return true;
}

static void fields_done(struct relay_multifd *m)
{
	struct via_wire w = via_wire_reader(m->head + 8, HEADER_FIELDS_LEN - 8);
	uint32_t flags = via_wire_get_u32(&w), pages_alloc = via_wire_get_u32(&w);
	uint32_t normal = via_wire_get_u32(&w), size = via_wire_get_u32(&w), zero;

	(void)via_wire_get_u64(&w); /* a number that nobody checks */
	zero = via_wire_get_u32(&w);
	if (pages_alloc && !page_len_agrees(m, pages_alloc))
		return;
	if ((uint64_t)normal + zero > pages_alloc) {
		give_up(m, "packet with %" PRIu32 "+%" PRIu32 " pages of %" PRIu32, normal, zero,
			pages_alloc);
		return;
	}
	if (normal && !(flags & FLAGS_COMPRESSION) && size != normal * m->page_len) {
		give_up(m, "%" PRIu32 " pages in %" PRIu32 " bytes", normal, size);
		return;
	}
	m->payload_len = normal ? size : 0; /* else the size may be an older packet's */
	m->stats.sync_packets += flags & FLAG_SYNC;
	m->stats.pages += normal;
	m->stats.zero_pages += zero;
	count_packet(m);
	if (m->page_len)
		enter(m, STAGE_REST, header_len(m->page_len));
	else
		enter(m, STAGE_GUESS, header_len(PAGE_LEN_MAX));
}

static void part_done(struct relay_multifd *m)
{
	switch (m->stage) {
	case STAGE_INIT:
		if (magic_is_right(m, "init"))
			next_packet(m);
		break;
	case STAGE_START:
		start_done(m);
		break;
	case STAGE_FIELDS:
		fields_done(m);
		break;
	case STAGE_DEVICE:
		device_done(m);
		break;
	case STAGE_REST:
		header_done(m);
		break;
	case STAGE_PAYLOAD:
		next_packet(m);
		break;
	}
}

/* -- a header of unknown length -------------------------------------------------------- */

/*
 * A SYNC packet of 9.2 or later, and no page size to know its length by. All that is left of it
 * is 0, and the next packet's first byte is not: so the byte at each place where a page
 * size would let the header end says whether it does.
 */
static void guess(struct relay_multifd *m, uint8_t next)
{
	uint32_t page_len = PACKET_PAGES_LEN / (((uint32_t)m->need - HEADER_FIXED_LEN) / 8);

	if (next == QEMU_MULTIFD_MAGIC >> 24) {
		m->page_len = page_len;
		m->page_len_seen = true;
		next_packet(m);
	} else if (next == 0 && page_len > PAGE_LEN_MIN) {
		enter(m, STAGE_GUESS, header_len(page_len / 2));
	} else {
		give_up(m, "%02x where a header ends", next);
	}
}

/* How many of the @len bytes are 0 before one is not. */
static size_t zeros(const uint8_t *bytes, size_t len)
{
	size_t n = 0;

	while (n < len && !bytes[n])
		n++;
	return n;
}

/* -- the channel ----------------------------------------------------------------- */

static enum relay_part part_of(unsigned stage)
{
	switch (stage) {
	case STAGE_INIT:
		return RELAY_PART_INIT;
	case STAGE_PAYLOAD:
		return RELAY_PART_PAYLOAD;
	case STAGE_OPAQUE:
		return RELAY_PART_OPAQUE;
	default:
		return RELAY_PART_HEADER;
	}
}

size_t relay_multifd_take(struct relay_multifd *m, const void *bytes, size_t len,
			  enum relay_part *part)
{
	const uint8_t *from = bytes;
	uint64_t room;

	if (!len)
		return 0;
	if (m->stage == STAGE_GUESS && m->have == m->need)
		guess(m, from[0]);
	room = m->need - m->have;
	if (len > room)
		len = (size_t)room;
	if (m->stage == STAGE_GUESS) {
		size_t n = zeros(from, len);

		if (!n)
			give_up(m, "%02x in a header without pages", from[0]);
		else
			len = n;
	}
	*part = part_of(m->stage);
	if (m->have < sizeof(m->head) && *part != RELAY_PART_PAYLOAD &&
	    *part != RELAY_PART_OPAQUE) {
		size_t keep = sizeof(m->head) - (size_t)m->have;

		memcpy(m->head + m->have, from, len < keep ? len : keep);
	}
	m->position += len;
	if (m->stage == STAGE_OPAQUE)
		return len;
	m->have += len;
	if (m->have == m->need)
		part_done(m);
	return len;
}

uint64_t relay_multifd_left(const struct relay_multifd *m)
{
	return m->have == m->need ? 1 : m->need - m->have;
}

bool relay_multifd_in_payload(const struct relay_multifd *m)
{
	return m->stage == STAGE_PAYLOAD;
}

bool relay_multifd_may_end(const struct relay_multifd *m)
{
	switch (m->stage) {
	case STAGE_START:
		return m->have == 0;
	case STAGE_GUESS:
		return m->have == m->need;
	default:
		return m->stage == STAGE_OPAQUE;
	}
}
