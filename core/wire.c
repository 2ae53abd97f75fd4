/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire.c -- the bounded big-endian cursor.
 *
 * Must never touch a byte outside the buffer and never assert on what the
 * bytes say: they come from the peer.
 *
 * Invariant: pos <= cap, and a cursor whose status is not 0 never moves again.
 */
#include "core/wire.h"

#include <errno.h>
#include <string.h>

/* Stands in for the NULL of an empty buffer: no arithmetic on NULL, no memcpy from it. */
static uint8_t nothing[1];

struct via_wire via_wire_writer(void *buf, size_t cap)
{
	return (struct via_wire){.buf = buf ? buf : nothing, .cap = buf ? cap : 0};
}

struct via_wire via_wire_reader(const void *buf, size_t len)
{
	/* Gets alone are used on it, and they only read. */
	return via_wire_writer((void *)(uintptr_t)buf, len);
}

/* The next @len bytes, and step over them; NULL and @error for good when they are not there. */
static uint8_t *step(struct via_wire *w, size_t len, int error)
{
	uint8_t *at;

	if (w->status)
		return NULL;
	if (len > w->cap - w->pos) {
		w->status = error;
		return NULL;
	}
	at = w->buf + w->pos;
	w->pos += len;
	return at;
}

static void put_number(struct via_wire *w, uint64_t v, size_t len)
{
	uint8_t *at = step(w, len, -ENOBUFS);

	if (!at)
		return;
	for (size_t i = len; i-- > 0; v >>= 8)
		at[i] = (uint8_t)v;
}

static uint64_t get_number(struct via_wire *w, size_t len)
{
	const uint8_t *at = step(w, len, -EPROTO);
	uint64_t v = 0;

	for (size_t i = 0; at && i < len; i++)
		v = v << 8 | at[i];
	return v;
}

void via_wire_put_u8(struct via_wire *w, uint8_t v)
{
	put_number(w, v, 1);
}

void via_wire_put_u16(struct via_wire *w, uint16_t v)
{
	put_number(w, v, 2);
}

void via_wire_put_u32(struct via_wire *w, uint32_t v)
{
	put_number(w, v, 4);
}

void via_wire_put_u64(struct via_wire *w, uint64_t v)
{
	put_number(w, v, 8);
}

void via_wire_put_bytes(struct via_wire *w, const void *src, size_t len)
{
	uint8_t *at = step(w, len, -ENOBUFS);

	if (at && len)
		memcpy(at, src, len);
}

void via_wire_put_str(struct via_wire *w, const char *s)
{
	size_t len = strlen(s);

	/* Whole or not at all: no length without its bytes. */
	if (!w->status && (len > UINT16_MAX || len + 2 > w->cap - w->pos))
		w->status = -ENOBUFS;
	via_wire_put_u16(w, (uint16_t)len);
	via_wire_put_bytes(w, s, len);
}

uint8_t via_wire_get_u8(struct via_wire *w)
{
	return (uint8_t)get_number(w, 1);
}

uint16_t via_wire_get_u16(struct via_wire *w)
{
	return (uint16_t)get_number(w, 2);
}

uint32_t via_wire_get_u32(struct via_wire *w)
{
	return (uint32_t)get_number(w, 4);
}

uint64_t via_wire_get_u64(struct via_wire *w)
{
	return get_number(w, 8);
}

void via_wire_get_bytes(struct via_wire *w, void *dst, size_t len)
{
	const uint8_t *at = step(w, len, -EPROTO);

	if (!len)
		return;
	/* Zeros rather than what was there: a decoder that checks late leaks nothing. */
	if (at)
		memcpy(dst, at, len);
	else
		memset(dst, 0, len);
}

const uint8_t *via_wire_get_view(struct via_wire *w, size_t len)
{
	return step(w, len, -EPROTO);
}

void via_wire_get_str(struct via_wire *w, char *dst, size_t cap)
{
	size_t len = via_wire_get_u16(w);
	const uint8_t *at = step(w, len, -EPROTO);

	if (at && (len >= cap || memchr(at, '\0', len))) {
		w->status = -EPROTO;
		at = NULL;
	}
	if (!at) {
		if (cap)
			dst[0] = '\0';
		return;
	}
	for (size_t i = 0; i < len; i++)
		dst[i] = at[i] < 0x20 || at[i] == 0x7f ? '?' : (char)at[i];
	dst[len] = '\0';
}

size_t via_wire_left(const struct via_wire *w)
{
	return w->cap - w->pos;
}

int via_wire_status(const struct via_wire *w)
{
	return w->status;
}

int via_wire_finish(const struct via_wire *w)
{
	if (w->status)
		return w->status;
	return via_wire_left(w) ? -EPROTO : 0;
}
