/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * facts.c -- the record in front of main's bytes: docs/wire.md has it byte by byte.
 *
 * Must never take more bytes than the record has: what follows is QEMU's.
 *
 * Invariant: there is one encoding of each fact, and what is decoded encodes to the same bytes.
 */
#include "relay/facts.h"

#include <errno.h>
#include <string.h>

#include "core/wire.h"

#define MARK 'M'

enum { FLAG_KNOWN = 1 << 0, FLAG_BINDING = 1 << 1 };

const char *relay_capability_name(enum relay_capability capability)
{
	static const char *const names[RELAY_CAPS] = {
		[RELAY_CAP_MULTIFD] = "multifd",
		[RELAY_CAP_POSTCOPY_RAM] = "postcopy-ram",
		[RELAY_CAP_POSTCOPY_PREEMPT] = "postcopy-preempt",
		[RELAY_CAP_RETURN_PATH] = "return-path",
		[RELAY_CAP_SWITCHOVER_ACK] = "switchover-ack",
		[RELAY_CAP_XBZRLE] = "xbzrle",
		[RELAY_CAP_IGNORE_SHARED] = "x-ignore-shared",
	};

	return names[capability];
}

/* A name that QEMU could have: it goes into a command. */
static bool is_name(const char *name, size_t len)
{
	return len > 0 && len <= RELAY_COMPRESSION_MAX &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static bool is_sound(const struct relay_facts *f)
{
	size_t len = strnlen(f->multifd_compression, sizeof(f->multifd_compression));

	if (f->on >> RELAY_CAPS)
		return false;
	if (!(f->on & 1 << RELAY_CAP_MULTIFD))
		return f->multifd_channels == 0 && len == 0;
	return f->multifd_channels >= 1 && f->multifd_channels <= UINT8_MAX &&
	       is_name(f->multifd_compression, len);
}

ssize_t relay_facts_encode(const struct relay_facts *facts, uint8_t *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);
	size_t len;
	int rc;

	via_wire_put_u8(&w, MARK);
	if (!facts->known) {
		via_wire_put_u8(&w, 0);
	} else if (is_sound(facts)) {
		len = strlen(facts->multifd_compression);
		via_wire_put_u8(&w, FLAG_KNOWN | (facts->binding ? FLAG_BINDING : 0));
		via_wire_put_u16(&w, facts->on);
		via_wire_put_u8(&w, (uint8_t)facts->multifd_channels);
		via_wire_put_u8(&w, (uint8_t)len);
		via_wire_put_bytes(&w, facts->multifd_compression, len);
	} else {
		return -EINVAL;
	}
	rc = via_wire_status(&w);
	return rc ? rc : (ssize_t)w.pos;
}

ssize_t relay_facts_decode(const uint8_t *buf, size_t len, struct relay_facts *facts)
{
	struct via_wire r = via_wire_reader(buf, len);
	struct relay_facts f = {0};
	uint8_t flags, name_len;

	if (len >= 1 && buf[0] != MARK)
		return -EPROTO;
	if (len < 2)
		return 0;
	(void)via_wire_get_u8(&r);
	flags = via_wire_get_u8(&r);
	if (flags & ~(FLAG_KNOWN | FLAG_BINDING) || flags == FLAG_BINDING)
		return -EPROTO;
	f.known = flags & FLAG_KNOWN;
	f.binding = flags & FLAG_BINDING;
	if (f.known) {
		f.on = via_wire_get_u16(&r);
		f.multifd_channels = via_wire_get_u8(&r);
		name_len = via_wire_get_u8(&r);
		if (name_len > RELAY_COMPRESSION_MAX)
			return -EPROTO;
		via_wire_get_bytes(&r, f.multifd_compression, name_len);
		if (via_wire_status(&r))
			return 0;
		if (strlen(f.multifd_compression) != name_len || !is_sound(&f))
			return -EPROTO;
	}
	*facts = f;
	return (ssize_t)r.pos;
}
