/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * channel_messages.c -- the messages of the channels (docs/wire.md).
 *
 * Runs on the data path: must never allocate, format a text or make a system
 * call, and never trust what it reads.
 *
 * Invariant: what a decoder accepts, the encoder turns into bytes that decode
 * to the same message.
 */
#include <errno.h>
#include <string.h>

#include "core/wire.h"
#include "transport/messages.h"

static ssize_t encoded(const struct via_wire *w)
{
	return w->status ? w->status : (ssize_t)w->pos;
}

void via_message_header_encode(const struct via_message_header *h, void *buf)
{
	struct via_wire w = via_wire_writer(buf, VIA_MESSAGE_HEADER_LEN);

	via_wire_put_u8(&w, h->type);
	via_wire_put_u8(&w, h->flags);
	via_wire_put_u16(&w, h->credits);
	via_wire_put_u32(&w, h->len);
}

int via_message_header_decode(const void *buf, size_t len, struct via_message_header *h)
{
	struct via_wire r = via_wire_reader(buf, len);
	bool more;

	h->type = via_wire_get_u8(&r);
	h->flags = via_wire_get_u8(&r);
	h->credits = via_wire_get_u16(&r);
	h->len = via_wire_get_u32(&r);
	if (via_wire_status(&r) || h->len != via_wire_left(&r))
		return -EPROTO;
	if (h->type == 0 || (h->type > VIA_MESSAGE_STREAM_END && h->type < VIA_MESSAGE_USER))
		return -EPROTO;
	if (h->flags & ~VIA_MESSAGE_MORE)
		return -EPROTO;
	more = h->flags & VIA_MESSAGE_MORE;
	/* An empty fragment before the last would let a peer go on for ever. */
	if (more && (h->len == 0 || h->type == VIA_MESSAGE_CREDIT))
		return -EPROTO;
	if (h->type == VIA_MESSAGE_CREDIT && h->len > 0)
		return -EPROTO;
	return 0;
}

ssize_t via_fence_encode(const struct via_fence_message *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_u64(&w, m->count.epoch);
	via_wire_put_u64(&w, m->count.writes);
	via_wire_put_u64(&w, m->count.bytes);
	via_wire_put_u16(&w, m->index);
	return encoded(&w);
}

int via_fence_decode(const void *buf, size_t len, struct via_fence_message *m)
{
	struct via_wire r = via_wire_reader(buf, len);

	m->count.epoch = via_wire_get_u64(&r);
	m->count.writes = via_wire_get_u64(&r);
	m->count.bytes = via_wire_get_u64(&r);
	m->index = via_wire_get_u16(&r);
	if (m->count.epoch == 0 || m->index >= VIA_MULTIFD_MAX)
		return -EPROTO;
	return via_wire_finish(&r);
}

ssize_t via_drained_encode(const struct via_drained_message *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	if (m->n > VIA_MULTIFD_MAX)
		return -ENOBUFS;
	via_wire_put_u64(&w, m->epoch);
	via_wire_put_u16(&w, (uint16_t)m->n);
	for (unsigned i = 0; i < m->n; i++) {
		via_wire_put_u64(&w, m->count[i].writes);
		via_wire_put_u64(&w, m->count[i].bytes);
	}
	return encoded(&w);
}

int via_drained_decode(const void *buf, size_t len, struct via_drained_message *m)
{
	struct via_wire r = via_wire_reader(buf, len);

	memset(m, 0, sizeof(*m));
	m->epoch = via_wire_get_u64(&r);
	m->n = via_wire_get_u16(&r);
	if (m->epoch == 0 || m->n > VIA_MULTIFD_MAX)
		return -EPROTO;
	for (unsigned i = 0; i < m->n; i++) {
		m->count[i].epoch = m->epoch;
		m->count[i].writes = via_wire_get_u64(&r);
		m->count[i].bytes = via_wire_get_u64(&r);
	}
	return via_wire_finish(&r);
}

ssize_t via_epoch_encode(uint64_t epoch, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_u64(&w, epoch);
	return encoded(&w);
}

int via_epoch_decode(const void *buf, size_t len, uint64_t *epoch)
{
	struct via_wire r = via_wire_reader(buf, len);

	*epoch = via_wire_get_u64(&r);
	if (*epoch == 0)
		return -EPROTO;
	return via_wire_finish(&r);
}

void via_stream_prefix_encode(uint32_t slot_len, void *buf)
{
	struct via_wire w = via_wire_writer(buf, VIA_STREAM_PREFIX_LEN);

	via_wire_put_u32(&w, slot_len);
}

int via_stream_decode(const void *buf, size_t len, struct via_stream_message *m)
{
	struct via_wire r = via_wire_reader(buf, len);

	m->slot_len = via_wire_get_u32(&r);
	m->len = via_wire_left(&r);
	m->bytes = via_wire_get_view(&r, m->len);
	if (!m->slot_len && !m->len)
		return -EPROTO; /* a peer could go on for ever */
	return via_wire_finish(&r);
}
