/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_stream.c -- a small generator of QEMU's migration streams.
 *
 * Written from the formats, not from the parsers: it shares no code with them.
 */
#include "tests/relay/qemu_stream.h"

#include <stdlib.h>
#include <string.h>

const char *const flavour_name[FLAVOURS] = {"7.2", "8.2", "9.0", "9.2", "10.0"};

static struct stream the_stream;

struct stream *stream_new(enum flavour flavour, uint32_t page_len)
{
	memset(&the_stream, 0, sizeof(the_stream));
	the_stream.flavour = flavour;
	the_stream.page_len = page_len;
	return &the_stream;
}

const struct stream *stream_at_hand(void)
{
	return &the_stream;
}

static void put(struct stream *s, uint8_t byte, enum relay_part part)
{
	if (s->len == sizeof(s->bytes))
		abort();
	s->part[s->len] = (uint8_t)part;
	s->bytes[s->len++] = byte;
}

static void put_part(struct stream *s, uint64_t value, unsigned len, enum relay_part part)
{
	while (len-- > 0)
		put(s, (uint8_t)(value >> 8 * len), part);
}

void put_bytes(struct stream *s, const void *bytes, size_t len)
{
	const uint8_t *from = bytes;

	for (size_t i = 0; i < len; i++)
		put(s, from[i], 0);
}

void put_be(struct stream *s, uint64_t value, unsigned len)
{
	put_part(s, value, len, 0);
}

void put_zeros(struct stream *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		put(s, 0, 0);
}

/* -- multifd ------------------------------------------------------------------------ */

static void put_header_be(struct stream *s, uint64_t value, unsigned len)
{
	put_part(s, value, len, RELAY_PART_HEADER);
}

static void may_end(struct stream *s)
{
	if (s->nmay_end == sizeof(s->may_end) / sizeof(s->may_end[0]))
		abort();
	s->may_end[s->nmay_end++] = s->len;
}

void put_init(struct stream *s, uint8_t id)
{
	put_part(s, 0x11223344, 4, RELAY_PART_INIT);
	put_part(s, 1, 4, RELAY_PART_INIT);
	for (unsigned i = 0; i < 16; i++)
		put(s, (uint8_t)(0xa0 + i), RELAY_PART_INIT); /* UUID */
	put(s, id, RELAY_PART_INIT);
	for (unsigned i = 25; i < 64; i++)
		put(s, 0, RELAY_PART_INIT);
	may_end(s);
}

static void put_payload(struct stream *s, uint32_t len)
{
	/* Full of what a header begins with: a parser that loses its place finds one. */
	for (uint32_t i = 0; i < len; i++)
		put(s, (uint8_t)(0x11223344u >> 8 * (3 - i % 4)), RELAY_PART_PAYLOAD);
}

static void put_name(struct stream *s, const char *name)
{
	for (unsigned i = 0; i < 256; i++)
		put(s, i < strlen(name) ? (uint8_t)name[i] : 0, RELAY_PART_HEADER);
}

void put_pages(struct stream *s, uint32_t flags, uint32_t normal, uint32_t zero,
	       uint32_t compressed)
{
	uint32_t alloc = 524288 / s->page_len;
	bool has_zeros = s->flavour >= QEMU_9_0;
	bool method = flags & ~(uint32_t)SYNC;
	bool clean = s->flavour >= QEMU_9_2 && !normal && !zero;
	uint32_t size = normal ? (method ? compressed : normal * s->page_len) : 0;

	s->stats.packets++;
	s->stats.sync_packets += flags & SYNC;
	s->stats.pages += normal;
	s->stats.zero_pages += has_zeros ? zero : 0;
	s->stats.payload_len += size;

	put_header_be(s, 0x11223344, 4);
	put_header_be(s, 1, 4);
	put_header_be(s, flags, 4);
	put_header_be(s, clean ? 0 : alloc, 4);
	put_header_be(s, normal, 4);
	put_header_be(s, !normal && s->flavour == QEMU_7_2 ? s->last_size : size, 4);
	put_header_be(s, clean ? 0 : s->stats.packets, 8);
	put_header_be(s, has_zeros ? zero : 0, 4);
	put_header_be(s, 0, 8);
	put_header_be(s, 0, 8);
	put_header_be(s, 0, 8);
	put_header_be(s, 0, 4);
	put_name(s, clean ? "" : "pc.ram");
	for (uint32_t i = 0; i < alloc; i++)
		put_header_be(s, clean ? 0 : UINT64_C(0x1100) + i * s->page_len, 8);
	put_payload(s, size);
	if (size)
		s->last_size = size;
	may_end(s);
}

void put_sync(struct stream *s)
{
	put_pages(s, SYNC, 0, 0, 0);
}

void put_device(struct stream *s, uint32_t size)
{
	s->stats.packets++;
	s->stats.device_packets++;
	s->stats.payload_len += size;
	put_header_be(s, 0x11223344, 4);
	put_header_be(s, 1, 4);
	put_header_be(s, DEVICE_STATE, 4);
	put_name(s, "0000:00:02.0/vfio");
	put_header_be(s, 7, 4);
	put_header_be(s, size, 4);
	put_payload(s, size);
	may_end(s);
}

/* -- main and return path --------------------------------------------------------------- */

void put_header(struct stream *s)
{
	put_bytes(s, "QEVM", 4);
	put_be(s, 3, 4);
}

void put_configuration(struct stream *s, const char *machine)
{
	put_be(s, 7, 1);
	put_be(s, strlen(machine), 4);
	put_bytes(s, machine, strlen(machine));
}

void put_subsection(struct stream *s, const char *name)
{
	put_be(s, 5, 1);
	put_be(s, strlen(name), 1);
	put_bytes(s, name, strlen(name));
	put_be(s, 1, 4);
}

void put_command(struct stream *s, unsigned command, unsigned len)
{
	put_be(s, 8, 1);
	put_be(s, command, 2);
	put_be(s, len, 2);
}

void put_message(struct stream *s, unsigned type, unsigned len)
{
	put_be(s, type, 2);
	put_be(s, len, 2);
}

void put_number(struct stream *s, unsigned type, uint32_t value)
{
	put_message(s, type, 4);
	put_be(s, value, 4);
}

void put_bitmap(struct stream *s, const char *block, uint64_t size)
{
	put_message(s, 5, (unsigned)strlen(block) + 1);
	put_be(s, strlen(block), 1);
	put_bytes(s, block, strlen(block));
	put_be(s, size, 8);
	for (uint64_t i = 0; i < size; i++)
		put_be(s, i & 1 ? 2 : 0, 1); /* looks like PONGs */
	put_be(s, UINT64_C(0x0123456789abcdef), 8);
}

uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}
