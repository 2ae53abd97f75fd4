/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_stream.c -- the framed beginning of main, and the messages of its return path.
 *
 * Must never gather more than a frame's fixed fields and one name: what is longer is stepped
 * over by counting.
 *
 * Invariant: a frame is gathered until have == need; then its function either asks for more
 * (need grows) or ends it. So what is seen does not depend on how the bytes were cut.
 */
#include "relay/main_stream.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/wire.h"
#include "relay/qemu_wire.h"

#define NOTE_LEN 96u

/* -- frames ------------------------------------------------------------------------ */

static void frame_init(struct relay_frame *f, size_t need)
{
	memset(f, 0, sizeof(*f));
	f->need = need;
}

/* This one is understood: the next begins behind @skip more bytes, with @need bytes at least. */
static void frame_end(struct relay_frame *f, uint64_t skip, size_t need)
{
	f->skip = skip;
	f->have = 0;
	f->need = need;
}

/* Take bytes off the front of *@bytes. True when the frame has all it asked for. */
static bool frame_take(struct relay_frame *f, const uint8_t **bytes, size_t *len)
{
	size_t n = f->skip < *len ? (size_t)f->skip : *len;

	f->skip -= n;
	f->position += n;
	*bytes += n;
	*len -= n;

	n = f->need - f->have < *len ? f->need - f->have : *len;
	memcpy(f->bytes + f->have, *bytes, n);
	f->have += n;
	f->position += n;
	*bytes += n;
	*len -= n;
	return f->have == f->need;
}

/* Look no further. */
__attribute__((format(printf, 3, 4))) static void
frame_give_up(struct relay_frame *f, char note[NOTE_LEN], const char *fmt, ...)
{
	va_list args;
	int n = snprintf(note, NOTE_LEN, "byte %" PRIu64 ": ", f->position - f->have);

	va_start(args, fmt);
	(void)vsnprintf(note + n, NOTE_LEN - (size_t)n, fmt, args);
	va_end(args);
	f->done = true;
}

/* @cap bytes at most, NUL-terminated, and fit to be printed. */
static void copy_name(char *dst, size_t cap, const uint8_t *src, size_t len)
{
	size_t n = len < cap ? len : cap - 1;

	for (size_t i = 0; i < n; i++)
		dst[i] = src[i] < 0x20 || src[i] >= 0x7f ? '?' : (char)src[i];
	dst[n] = '\0';
}

/* -- main: u8 type, and what the type says ---------------------------------------------- */

enum frame_type {
	FRAME_EOF = 0x00,
	FRAME_SECTION_START,
	FRAME_SECTION_PART,
	FRAME_SECTION_END,
	FRAME_SECTION_FULL,
	FRAME_SUBSECTION,
	FRAME_VMDESCRIPTION,
	FRAME_CONFIGURATION,
	FRAME_COMMAND = QEMU_FRAME_COMMAND,
};

enum command {
	CMD_OPEN_RETURN_PATH = 1,
	CMD_POSTCOPY_ADVISE = 3,
	CMD_PACKAGED = 7,
};

#define PAGE_BITS_MIN 10u
#define PAGE_BITS_MAX 16u

void relay_main_init(struct relay_main *m)
{
	memset(m, 0, sizeof(*m));
	frame_init(&m->frame, 1);
}

/* The first frame: be32 magic, be32 version. */
static void main_header(struct relay_main *m)
{
	struct relay_frame *f = &m->frame;
	struct via_wire w = via_wire_reader(f->bytes, 8);
	uint32_t magic, version;

	if (f->have < 8) {
		f->need = 8;
		return;
	}
	magic = via_wire_get_u32(&w);
	version = via_wire_get_u32(&w);
	if (magic != QEMU_MAIN_MAGIC || version != QEMU_MAIN_VERSION) {
		frame_give_up(f, m->note, "magic %08" PRIx32 ", version %" PRIu32, magic, version);
		return;
	}
	m->header = true;
	frame_end(f, 0, 1);
}

/* u8 type, be32 length, name of the machine. */
static void main_configuration(struct relay_main *m)
{
	struct relay_frame *f = &m->frame;
	struct via_wire w = via_wire_reader(f->bytes + 1, 4);
	uint32_t len = via_wire_get_u32(&w);

	if (f->have < 5) {
		f->need = 5;
	} else if (!len || len > UINT8_MAX) {
		frame_give_up(f, m->note, "a machine's name of %" PRIu32 " bytes", len);
	} else if (f->have < 5 + len) {
		f->need = 5 + len;
	} else {
		copy_name(m->machine, sizeof(m->machine), f->bytes + 5, len);
		frame_end(f, 0, 1);
	}
}

static bool is_name(const uint8_t *bytes, size_t len, const char *name)
{
	return len == strlen(name) && memcmp(bytes, name, len) == 0;
}

/* u8 type, u8 length, name, be32 version, fields without a length. */
static void main_subsection(struct relay_main *m)
{
	struct relay_frame *f = &m->frame;
	size_t len = f->bytes[1], fields = 2 + len + 4;
	struct via_wire w = via_wire_reader(f->bytes + fields, 4);
	uint32_t value;

	if (f->have < 2) {
		f->need = 2;
		return;
	}
	if (f->have < fields) {
		f->need = fields;
		return;
	}
	if (is_name(f->bytes + 2, len, "configuration/uuid")) {
		frame_end(f, 16, 1);
		return;
	}
	if (f->have < fields + 4) {
		f->need = fields + 4;
		return;
	}
	value = via_wire_get_u32(&w);
	if (is_name(f->bytes + 2, len, "configuration/capabilities")) {
		m->capabilities = value;
	} else if (is_name(f->bytes + 2, len, "configuration/target-page-bits") &&
		   value >= PAGE_BITS_MIN && value <= PAGE_BITS_MAX) {
		m->page_len = 1u << value;
	} else {
		char name[40];

		copy_name(name, sizeof(name), f->bytes + 2, len);
		frame_give_up(f, m->note, "subsection %s", name);
		return;
	}
	frame_end(f, 0, 1);
}

/* The data of commands that matter, whose length is @len as it has to be; false: it is not. */
static bool main_command_data(struct relay_main *m, unsigned command, uint16_t len, uint64_t *skip)
{
	struct via_wire w = via_wire_reader(m->frame.bytes + 5, len);
	uint64_t page_len;

	switch (command) {
	case CMD_OPEN_RETURN_PATH:
		m->return_path = len == 0;
		return len == 0;
	case CMD_PACKAGED: /* its data is the length of what follows outside of the frame */
		*skip = via_wire_get_u32(&w);
		return len == 4;
	case CMD_POSTCOPY_ADVISE: /* without data: not for RAM */
		if (len == 0)
			return true;
		(void)via_wire_get_u64(&w);
		page_len = via_wire_get_u64(&w);
		m->postcopy = len == 16;
		if (page_len >= 1u << PAGE_BITS_MIN && page_len <= 1u << PAGE_BITS_MAX)
			m->page_len = (uint32_t)page_len;
		return len == 16;
	default:
		return true;
	}
}

/* u8 type, be16 command, be16 length, data. */
static void main_command(struct relay_main *m)
{
	struct relay_frame *f = &m->frame;
	struct via_wire w = via_wire_reader(f->bytes + 1, 4);
	unsigned command = via_wire_get_u16(&w);
	uint16_t len = via_wire_get_u16(&w);
	bool wanted = command == CMD_OPEN_RETURN_PATH || command == CMD_PACKAGED ||
		      command == CMD_POSTCOPY_ADVISE;
	uint64_t skip = 0;

	if (f->have < 5) {
		f->need = 5;
		return;
	}
	if (!m->header)
		m->recovery = true;
	if (!wanted) {
		frame_end(f, len, 1);
		return;
	}
	if (len <= 16 && f->have < 5u + len) {
		f->need = 5u + len;
		return;
	}
	if (len > 16 || !main_command_data(m, command, len, &skip))
		frame_give_up(f, m->note, "command %u with %u bytes", command, len);
	else
		frame_end(f, skip, 1);
}

static void main_frame(struct relay_main *m)
{
	struct relay_frame *f = &m->frame;

	if (m->capabilities) { /* u8 length, name */
		m->capabilities--;
		frame_end(f, f->bytes[0], 1);
		return;
	}
	if (!m->header && !m->recovery && f->bytes[0] != FRAME_COMMAND) {
		main_header(m);
		return;
	}
	switch (f->bytes[0]) {
	case FRAME_CONFIGURATION:
		main_configuration(m);
		break;
	case FRAME_SUBSECTION:
		main_subsection(m);
		break;
	case FRAME_COMMAND:
		main_command(m);
		break;
	case FRAME_EOF:
	case FRAME_SECTION_START:
	case FRAME_SECTION_PART:
	case FRAME_SECTION_END:
	case FRAME_SECTION_FULL:
		m->body = true;
		f->done = true;
		break;
	default:
		frame_give_up(f, m->note, "a frame of type %02x", f->bytes[0]);
	}
}

void relay_main_feed(struct relay_main *m, const void *bytes, size_t len)
{
	const uint8_t *from = bytes;

	while (len && !m->frame.done)
		if (frame_take(&m->frame, &from, &len))
			main_frame(m);
}

/* -- return path: be16 type, be16 length, data -------------------------------------- */

enum rp_type {
	RP_SHUT = 1,
	RP_PONG,
	RP_REQ_PAGES_ID,
	RP_REQ_PAGES,
	RP_RECV_BITMAP,
	RP_RESUME_ACK,
	RP_SWITCHOVER_ACK,
};

#define RP_FRAME_LEN      4u
#define RP_BITMAP_LEN_MAX (UINT64_C(1) << 40) /* bytes: 2^55 bytes of guest memory */

void relay_return_init(struct relay_return *r)
{
	memset(r, 0, sizeof(*r));
	frame_init(&r->frame, RP_FRAME_LEN);
}

/* Can a message of @type have @len bytes of data? */
static bool rp_len_fits(unsigned type, size_t len)
{
	switch (type) {
	case RP_SHUT:
	case RP_PONG:
	case RP_RESUME_ACK:
		return len == 4;
	case RP_REQ_PAGES_ID: /* be64 start, be32 length, u8 length of the name, name */
		return len >= 13 && len <= 13 + UINT8_MAX;
	case RP_REQ_PAGES:
		return len == 12;
	case RP_RECV_BITMAP: /* u8 length of the name, name */
		return len >= 1 && len <= 1 + UINT8_MAX;
	case RP_SWITCHOVER_ACK:
		return len == 0;
	default:
		return false;
	}
}

/* Behind the frame and outside of its length: be64 size, so many bytes, be64 end mark. */
static void rp_bitmap(struct relay_return *r, size_t frame_len)
{
	struct relay_frame *f = &r->frame;
	struct via_wire w = via_wire_reader(f->bytes + frame_len, 8);
	uint64_t size = via_wire_get_u64(&w);

	if (f->have < frame_len + 8) {
		f->need = frame_len + 8;
	} else if (size > RP_BITMAP_LEN_MAX) {
		frame_give_up(f, r->note, "a bitmap of %" PRIu64 " bytes", size);
	} else {
		r->bitmaps++;
		frame_end(f, size + 8, RP_FRAME_LEN);
	}
}

static void rp_number(struct relay_return *r, unsigned type)
{
	struct via_wire w = via_wire_reader(r->frame.bytes + RP_FRAME_LEN, 4);
	uint32_t value = via_wire_get_u32(&w);

	if (type == RP_PONG) {
		r->pongs++;
		r->last_pong = value;
	} else if (type == RP_RESUME_ACK) {
		r->resumed = true;
	} else {
		r->shut = true;
		r->shut_value = value;
	}
}

static void return_frame(struct relay_return *r)
{
	struct relay_frame *f = &r->frame;
	struct via_wire w = via_wire_reader(f->bytes, RP_FRAME_LEN);
	unsigned type = via_wire_get_u16(&w);
	size_t len = via_wire_get_u16(&w);

	if (!rp_len_fits(type, len)) {
		frame_give_up(f, r->note, "a message of type %u with %zu bytes", type, len);
		return;
	}
	if (f->have < RP_FRAME_LEN + len) {
		f->need = RP_FRAME_LEN + len;
		return;
	}
	if (type == RP_RECV_BITMAP) {
		rp_bitmap(r, RP_FRAME_LEN + len);
		return;
	}
	if (type == RP_REQ_PAGES || type == RP_REQ_PAGES_ID)
		r->requests++;
	else if (len == 4)
		rp_number(r, type);
	frame_end(f, 0, RP_FRAME_LEN);
}

void relay_return_feed(struct relay_return *r, const void *bytes, size_t len)
{
	const uint8_t *from = bytes;

	while (len && !r->frame.done)
		if (frame_take(&r->frame, &from, &len))
			return_frame(r);
}
