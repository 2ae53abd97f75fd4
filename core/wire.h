/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire.h -- a bounded cursor that puts and gets big-endian numbers and bytes.
 *
 * A cursor never reads or writes outside its buffer. The first overrun makes
 * it sticky: later puts do nothing, later gets return 0, and via_wire_status()
 * says so, so a codec checks once at its end.
 */
#ifndef VIA_CORE_WIRE_H
#define VIA_CORE_WIRE_H

#include <stddef.h>
#include <stdint.h>

struct via_wire {
	uint8_t *buf;
	size_t cap; /* bytes in buf that may be used */
	size_t pos; /* next byte */
	int status; /* 0; -ENOBUFS after a put, -EPROTO after a get that did not fit */
};

/* A cursor that writes into @buf. */
struct via_wire via_wire_writer(void *buf, size_t cap);

/* A cursor that reads @len bytes of @buf; gets alone may be used on it. */
struct via_wire via_wire_reader(const void *buf, size_t len);

void via_wire_put_u8(struct via_wire *w, uint8_t v);
void via_wire_put_u16(struct via_wire *w, uint16_t v);
void via_wire_put_u32(struct via_wire *w, uint32_t v);
void via_wire_put_u64(struct via_wire *w, uint64_t v);
void via_wire_put_bytes(struct via_wire *w, const void *src, size_t len);
/* A u16 length and that many bytes; -ENOBUFS when longer than 65535. */
void via_wire_put_str(struct via_wire *w, const char *s);

uint8_t via_wire_get_u8(struct via_wire *w);
uint16_t via_wire_get_u16(struct via_wire *w);
uint32_t via_wire_get_u32(struct via_wire *w);
uint64_t via_wire_get_u64(struct via_wire *w);
void via_wire_get_bytes(struct via_wire *w, void *dst, size_t len);
/* The next @len bytes in place (valid as long as the buffer); NULL when they are not there. */
const uint8_t *via_wire_get_view(struct via_wire *w, size_t len);
/*
 * A string of via_wire_put_str() into @dst of @cap bytes, NUL-terminated. Bytes
 * below 0x20 and 0x7f become '?', so that a peer's text can be printed.
 * -EPROTO when it does not fit or holds a NUL.
 */
void via_wire_get_str(struct via_wire *w, char *dst, size_t cap);

/* Bytes left. */
size_t via_wire_left(const struct via_wire *w);

/* 0, or the error of the first put or get that did not fit. */
int via_wire_status(const struct via_wire *w);

/* As above, and -EPROTO when bytes are left over: the end of a decoder. */
int via_wire_finish(const struct via_wire *w);

#endif
