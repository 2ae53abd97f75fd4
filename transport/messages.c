/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * messages.c -- the messages of the control connection (docs/wire.md).
 *
 * Must never trust a length, a count or a number that it reads, never read
 * past the payload, and never let a decoded struct out that breaks a rule of
 * its header: what is wrong is -EPROTO.
 *
 * Invariant: what a decoder accepts, the encoder turns into bytes that decode
 * to the same message.
 */
#include "transport/messages.h"

#include <errno.h>
#include <string.h>

#include "core/wire.h"

#define MAGIC         "VIADUCT\n"
#define MAGIC_LEN     8u
#define ERROR_NAME    32u /* bytes of an error code's name, with the NUL */
#define PAGE_SIZE_MIN 4096u
#define PAGE_SIZE_MAX (1u << 30)
#define MSG_LEN_MIN   64u /* below, fragments would be headers and little else */

/* What an encoder returns. */
static ssize_t encoded(const struct via_wire *w)
{
	return w->status ? w->status : (ssize_t)w->pos;
}

/* A rule of the format that the bytes read so far must keep. */
static void require(struct via_wire *r, bool kept)
{
	if (!kept && !r->status)
		r->status = -EPROTO;
}

/* A string that is compared by the machine: printable ASCII, as it was sent or not at all. */
static void get_name(struct via_wire *r, char *dst, size_t cap)
{
	size_t start = r->pos + 2; /* behind the length */

	via_wire_get_str(r, dst, cap);
	for (size_t i = start; !r->status && i < r->pos; i++)
		require(r, r->buf[i] >= 0x20 && r->buf[i] <= 0x7e);
}

/* -- HELLO ------------------------------------------------------------------ */

ssize_t via_hello_encode(const struct via_hello *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	if (m->noffers > VIA_OFFERS_MAX)
		return -ENOBUFS;
	via_wire_put_bytes(&w, MAGIC, MAGIC_LEN);
	via_wire_put_u16(&w, m->version_min);
	via_wire_put_u16(&w, m->version_max);
	via_wire_put_u64(&w, m->features);
	via_wire_put_bytes(&w, m->session_id, sizeof(m->session_id));
	via_wire_put_u8(&w, m->role);
	via_wire_put_u8(&w, 0);
	via_wire_put_u16(&w, (uint16_t)m->noffers);
	via_wire_put_str(&w, m->program);
	for (unsigned i = 0; i < m->noffers; i++) {
		via_wire_put_u16(&w, m->offer[i].rank);
		via_wire_put_str(&w, m->offer[i].kind);
		via_wire_put_str(&w, m->offer[i].reach);
		via_wire_put_str(&w, m->offer[i].reason);
	}
	return encoded(&w);
}

static void get_offer(struct via_wire *r, struct via_offer *offer)
{
	offer->rank = via_wire_get_u16(r);
	get_name(r, offer->kind, sizeof(offer->kind));
	require(r, offer->kind[0]);
	get_name(r, offer->reach, sizeof(offer->reach));
	via_wire_get_str(r, offer->reason, sizeof(offer->reason));
}

/* The part that stays for ever. 0, -EPROTO, or -EPROTONOSUPPORT. */
static int get_versions(struct via_wire *r, struct via_hello *m)
{
	uint8_t magic[MAGIC_LEN];

	via_wire_get_bytes(r, magic, sizeof(magic));
	m->version_min = via_wire_get_u16(r);
	m->version_max = via_wire_get_u16(r);
	require(r, !memcmp(magic, MAGIC, MAGIC_LEN));
	require(r, m->version_min > 0 && m->version_min <= m->version_max);
	if (via_wire_status(r))
		return -EPROTO;
	if (m->version_min > VIA_PROTOCOL_VERSION || m->version_max < VIA_PROTOCOL_VERSION_MIN)
		return -EPROTONOSUPPORT;
	return 0;
}

int via_hello_decode(const void *buf, size_t len, struct via_hello *m)
{
	struct via_wire r = via_wire_reader(buf, len);
	int err;

	memset(m, 0, sizeof(*m));
	err = get_versions(&r, m);
	if (err)
		return err;
	/*
	 * The rest is laid out as version_min says, which is 1 here: there is no
	 * other that a range which meets ours could begin with.
	 */
	m->features = via_wire_get_u64(&r);
	via_wire_get_bytes(&r, m->session_id, sizeof(m->session_id));
	m->role = via_wire_get_u8(&r);
	require(&r, m->role == VIA_ROLE_SOURCE || m->role == VIA_ROLE_DESTINATION);
	require(&r, via_wire_get_u8(&r) == 0);
	m->noffers = via_wire_get_u16(&r);
	require(&r, m->noffers <= VIA_OFFERS_MAX);
	via_wire_get_str(&r, m->program, sizeof(m->program));
	for (unsigned i = 0; i < m->noffers && !via_wire_status(&r); i++)
		get_offer(&r, &m->offer[i]);
	return via_wire_finish(&r);
}

/* -- SETUP ------------------------------------------------------------------ */

ssize_t via_setup_encode(const struct via_setup *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	if (m->nregions > VIA_REGIONS_MAX)
		return -ENOBUFS;
	via_wire_put_u16(&w, m->version);
	via_wire_put_u16(&w, m->multifd);
	via_wire_put_u16(&w, m->preempt);
	via_wire_put_u16(&w, (uint16_t)m->nregions);
	via_wire_put_u64(&w, m->slice_len);
	via_wire_put_u64(&w, m->epoch);
	via_wire_put_str(&w, m->fabric);
	for (unsigned i = 0; i < m->nregions; i++) {
		via_wire_put_u64(&w, m->region[i].len);
		via_wire_put_u32(&w, m->region[i].page_size);
		via_wire_put_str(&w, m->region[i].name);
	}
	return encoded(&w);
}

static void get_region(struct via_wire *r, struct via_region_desc *region)
{
	region->len = via_wire_get_u64(r);
	region->page_size = via_wire_get_u32(r);
	require(r, region->page_size >= PAGE_SIZE_MIN && region->page_size <= PAGE_SIZE_MAX &&
			   (region->page_size & (region->page_size - 1)) == 0);
	/* The remainder last: the page size may still be 0 above. */
	require(r, !via_wire_status(r) && region->len > 0 && region->len % region->page_size == 0);
	get_name(r, region->name, sizeof(region->name));
	require(r, region->name[0]);
}

static bool name_is_new(const struct via_setup *m, unsigned index)
{
	for (unsigned i = 0; i < index; i++) {
		if (!strcmp(m->region[i].name, m->region[index].name))
			return false;
	}
	return true;
}

int via_setup_decode(const void *buf, size_t len, struct via_setup *m)
{
	struct via_wire r = via_wire_reader(buf, len);
	uint64_t total = 0;

	memset(m, 0, sizeof(*m));
	m->version = via_wire_get_u16(&r);
	require(&r, m->version >= VIA_PROTOCOL_VERSION_MIN && m->version <= VIA_PROTOCOL_VERSION);
	m->multifd = via_wire_get_u16(&r);
	m->preempt = via_wire_get_u16(&r);
	require(&r, m->multifd <= VIA_MULTIFD_MAX && m->preempt <= VIA_PREEMPT_MAX);
	m->nregions = via_wire_get_u16(&r);
	require(&r, m->nregions <= VIA_REGIONS_MAX);
	require(&r, m->multifd > 0 || m->nregions == 0); /* who would carry them? */
	m->slice_len = via_wire_get_u64(&r);
	require(&r, m->slice_len > 0 && m->slice_len % PAGE_SIZE_MIN == 0);
	m->epoch = via_wire_get_u64(&r);
	require(&r, m->epoch > 0);
	get_name(&r, m->fabric, sizeof(m->fabric));
	require(&r, m->fabric[0]);
	for (unsigned i = 0; i < m->nregions && !via_wire_status(&r); i++) {
		get_region(&r, &m->region[i]);
		require(&r, name_is_new(m, i));
		require(&r, !__builtin_add_overflow(total, m->region[i].len, &total));
	}
	return via_wire_finish(&r);
}

/* -- CHANNEL_* -------------------------------------------------------------- */

const char *via_channel_kind_name(unsigned kind)
{
	switch (kind) {
	case VIA_MAIN:
		return "main";
	case VIA_MULTIFD:
		return "multifd";
	case VIA_PREEMPT:
		return "preempt";
	default:
		return "?";
	}
}

static void put_id(struct via_wire *w, const struct via_channel_id *id)
{
	via_wire_put_u8(w, id->kind);
	via_wire_put_u8(w, 0);
	via_wire_put_u16(w, id->index);
	via_wire_put_u64(w, id->epoch);
}

static void get_id(struct via_wire *r, struct via_channel_id *id)
{
	static const unsigned count[] = {
		[VIA_MAIN] = 1, [VIA_MULTIFD] = VIA_MULTIFD_MAX, [VIA_PREEMPT] = VIA_PREEMPT_MAX};

	id->kind = via_wire_get_u8(r);
	require(r, via_wire_get_u8(r) == 0);
	id->index = via_wire_get_u16(r);
	/* Kind 0 has room for no index at all. */
	require(r, id->kind < sizeof(count) / sizeof(count[0]) && id->index < count[id->kind]);
	id->epoch = via_wire_get_u64(r);
	require(r, id->epoch > 0);
}

static void put_blob(struct via_wire *w, const uint8_t *bytes, uint16_t len)
{
	via_wire_put_u16(w, len);
	via_wire_put_bytes(w, bytes, len);
}

static void get_blob(struct via_wire *r, size_t max, const uint8_t **bytes, uint16_t *len)
{
	*len = via_wire_get_u16(r);
	require(r, *len <= max);
	*bytes = via_wire_get_view(r, *len);
}

ssize_t via_channel_open_encode(const struct via_channel_open *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	if (m->addr_len > VIA_ADDRESS_MAX)
		return -ENOBUFS;
	put_id(&w, &m->id);
	via_wire_put_bytes(&w, m->session_id, sizeof(m->session_id));
	via_wire_put_bytes(&w, m->nonce, sizeof(m->nonce));
	put_blob(&w, m->addr, m->addr_len);
	return encoded(&w);
}

int via_channel_open_decode(const void *buf, size_t len, struct via_channel_open *m)
{
	struct via_wire r = via_wire_reader(buf, len);

	memset(m, 0, sizeof(*m));
	get_id(&r, &m->id);
	via_wire_get_bytes(&r, m->session_id, sizeof(m->session_id));
	via_wire_get_bytes(&r, m->nonce, sizeof(m->nonce));
	get_blob(&r, VIA_ADDRESS_MAX, &m->addr, &m->addr_len);
	return via_wire_finish(&r);
}

ssize_t via_channel_addr_encode(const struct via_channel_addr *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	if (m->addr_len > VIA_ADDRESS_MAX)
		return -ENOBUFS;
	put_id(&w, &m->id);
	put_blob(&w, m->addr, m->addr_len);
	return encoded(&w);
}

int via_channel_addr_decode(const void *buf, size_t len, struct via_channel_addr *m)
{
	struct via_wire r = via_wire_reader(buf, len);

	memset(m, 0, sizeof(*m));
	get_id(&r, &m->id);
	get_blob(&r, VIA_ADDRESS_MAX, &m->addr, &m->addr_len);
	return via_wire_finish(&r);
}

size_t via_packed_key_len(size_t key_len)
{
	return 2 + key_len;
}

int via_packed_key_append(const struct via_packed_key *key, void *buf, size_t cap, size_t *pos)
{
	struct via_wire w;

	if (key->len > VIA_RKEY_MAX || *pos > cap)
		return -ENOBUFS;
	w = via_wire_writer(buf, cap);
	w.pos = *pos;
	put_blob(&w, key->bytes, key->len);
	if (via_wire_status(&w))
		return via_wire_status(&w);
	*pos = w.pos;
	return 0;
}

ssize_t via_channel_ready_encode(const struct via_channel_ready *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	put_id(&w, &m->id);
	via_wire_put_u16(&w, m->credits);
	via_wire_put_u16(&w, 0);
	via_wire_put_u32(&w, m->msg_len);
	via_wire_put_u32(&w, m->nkeys);
	via_wire_put_bytes(&w, m->keys, m->keys_len);
	return encoded(&w);
}

int via_channel_ready_decode(const void *buf, size_t len, struct via_channel_ready *m)
{
	struct via_wire r = via_wire_reader(buf, len);
	const uint8_t *bytes;
	uint16_t key_len;

	memset(m, 0, sizeof(*m));
	get_id(&r, &m->id);
	m->credits = via_wire_get_u16(&r);
	require(&r, via_wire_get_u16(&r) == 0);
	m->msg_len = via_wire_get_u32(&r);
	require(&r, m->msg_len >= MSG_LEN_MIN);
	m->nkeys = via_wire_get_u32(&r);
	require(&r, m->nkeys <= 1 || m->id.kind != VIA_MAIN);
	m->keys_len = via_wire_left(&r);
	m->keys = r.buf + r.pos;
	/* Each key takes two bytes at least, so that the payload bounds the loop. */
	for (uint32_t i = 0; i < m->nkeys && !via_wire_status(&r); i++)
		get_blob(&r, VIA_RKEY_MAX, &bytes, &key_len);
	return via_wire_finish(&r);
}

int via_channel_ready_next_key(const struct via_channel_ready *m, size_t *pos,
			       struct via_packed_key *key)
{
	struct via_wire r = via_wire_reader(m->keys, m->keys_len);

	if (*pos >= m->keys_len)
		return -ENOENT;
	r.pos = *pos;
	get_blob(&r, VIA_RKEY_MAX, &key->bytes, &key->len);
	if (via_wire_status(&r))
		return -ENOENT; /* never after via_channel_ready_decode() */
	*pos = r.pos;
	return 0;
}

/* -- errors ----------------------------------------------------------------- */

static int code_of_name(const char *name)
{
#define X(code, scope, text)                                                                       \
	if (!strcmp(name, #code))                                                                  \
		return -(code);
	VIA_ERROR_LIST(X)
#undef X
	return -EIO;
}

static void put_error(struct via_wire *w, const struct via_error *m)
{
	via_wire_put_str(w, via_err_name(m->code));
	via_wire_put_str(w, m->what);
	via_wire_put_str(w, m->seen);
	via_wire_put_str(w, m->remedy);
}

static void get_error(struct via_wire *r, struct via_error *m)
{
	char name[ERROR_NAME];

	get_name(r, name, sizeof(name));
	m->code = code_of_name(name);
	via_wire_get_str(r, m->what, sizeof(m->what));
	via_wire_get_str(r, m->seen, sizeof(m->seen));
	via_wire_get_str(r, m->remedy, sizeof(m->remedy));
}

ssize_t via_channel_refused_encode(const struct via_channel_refused *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	put_id(&w, &m->id);
	put_error(&w, &m->error);
	return encoded(&w);
}

int via_channel_refused_decode(const void *buf, size_t len, struct via_channel_refused *m)
{
	struct via_wire r = via_wire_reader(buf, len);

	memset(m, 0, sizeof(*m));
	get_id(&r, &m->id);
	get_error(&r, &m->error);
	return via_wire_finish(&r);
}

ssize_t via_error_encode(const struct via_error *m, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	put_error(&w, m);
	return encoded(&w);
}

int via_error_decode(const void *buf, size_t len, struct via_error *m)
{
	struct via_wire r = via_wire_reader(buf, len);

	memset(m, 0, sizeof(*m));
	get_error(&r, m);
	return via_wire_finish(&r);
}

/* Of a channel, but an error like the others. */
ssize_t via_stream_end_encode(int status, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_str(&w, status ? via_err_name(status) : "");
	return encoded(&w);
}

int via_stream_end_decode(const void *buf, size_t len, int *status)
{
	struct via_wire r = via_wire_reader(buf, len);
	char name[ERROR_NAME];

	get_name(&r, name, sizeof(name));
	*status = name[0] ? code_of_name(name) : 0;
	return via_wire_finish(&r);
}

/* -- PING and PONG ---------------------------------------------------------- */

ssize_t via_ping_encode(uint64_t stamp, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_u64(&w, stamp);
	return encoded(&w);
}

int via_ping_decode(const void *buf, size_t len, uint64_t *stamp)
{
	struct via_wire r = via_wire_reader(buf, len);

	*stamp = via_wire_get_u64(&r);
	return via_wire_finish(&r);
}
