/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_mr.c -- memory and the keys that travel.
 *
 * UCX is told nothing of the memory that a peer may write: what comes is copied here, to where a
 * key leads. A key is an index into the endpoint's table and a random number. So memory is revoked
 * by taking its keys out of the tables, while nobody is inside, and nothing else is lost.
 *
 * A packed key, big-endian: "UCXK", u32 index, u64 secret.
 */
#include "fabrics/ucx/ucx.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const uint8_t magic[4] = {'U', 'C', 'X', 'K'};

/* The peer's key @index leads nowhere any more. Inside. */
static void free_key(struct ucx_ep *ep, uint32_t index)
{
	ep->keys[index] = (struct ucx_key){.next_free = ep->free_key};
	ep->free_key = index;
}

int ucx_mr_reg(struct via_fabric *base, void *addr, size_t len, unsigned access,
	       struct via_mr **out, struct via_error *err)
{
	struct ucx_mr *mr = calloc(1, sizeof(*mr));

	if (!mr)
		return via_fail(err, -ENOMEM, "register memory\nout of memory\nfree some memory");
	mr->base = (struct via_mr){.fab = base, .addr = addr, .len = len};
	mr->access = access;
	*out = &mr->base;
	return 0;
}

void ucx_mr_dereg(struct via_mr *base)
{
	struct ucx_mr *mr = (struct ucx_mr *)base;
	const struct ucx_fabric *fab;

	if (!mr)
		return;
	fab = (const struct ucx_fabric *)base->fab;
	for (unsigned i = 0; i < mr->ngiven; i++) {
		struct ucx_ep *ep = fab->ep[mr->given[i].id];

		if (!ep || ep->serial != mr->given[i].serial)
			continue;
		ucx_ep_enter(ep);
		free_key(ep, mr->given[i].index);
		ucx_ep_leave(ep);
	}
	free(mr->given);
	free(mr);
}

/* -- keys that we give --------------------------------------------------------------- */

static int grow_keys(struct ucx_ep *ep)
{
	uint32_t n = ep->nkeys ? 2 * ep->nkeys : 8;
	struct ucx_key *keys = realloc(ep->keys, n * sizeof(*keys));

	if (!keys)
		return -ENOMEM;
	ep->keys = keys;
	while (n > ep->nkeys) {
		ep->nkeys++;
		free_key(ep, ep->nkeys - 1);
	}
	return 0;
}

/* Make a key to @mr in @ep's table. Inside. */
static int make_key(struct ucx_ep *ep, const struct ucx_mr *mr, uint32_t *index)
{
	uint64_t secret;

	if (ep->free_key == UCX_NO_KEY && grow_keys(ep))
		return -ENOMEM;
	if (getrandom(&secret, sizeof(secret), 0) != (ssize_t)sizeof(secret))
		return -EIO;
	*index = ep->free_key;
	ep->free_key = ep->keys[*index].next_free;
	ep->keys[*index] = (struct ucx_key){.mr = mr, .secret = secret};
	return 0;
}

/* The key to @mr that @ep's peer has, made at its first use. Inside. */
static int find_key(struct ucx_mr *mr, struct ucx_ep *ep, uint32_t *index)
{
	struct ucx_given *given;
	int rc;

	for (unsigned i = 0; i < mr->ngiven; i++)
		if (mr->given[i].serial == ep->serial) {
			*index = mr->given[i].index;
			return 0;
		}
	given = realloc(mr->given, (mr->ngiven + 1) * sizeof(*given));
	if (!given)
		return -ENOMEM;
	mr->given = given;
	rc = make_key(ep, mr, index);
	if (!rc)
		mr->given[mr->ngiven++] = (struct ucx_given){
			.id = ep->base.id, .serial = ep->serial, .index = *index};
	return rc;
}

ssize_t ucx_rkey_pack(const struct via_mr *base, struct via_ep *vep, void *buf, size_t cap)
{
	struct ucx_mr *mr = (struct ucx_mr *)(uintptr_t)base; /* const to its user, not to us */
	struct ucx_ep *ep = (struct ucx_ep *)vep;
	struct via_wire w = via_wire_writer(buf, cap);
	uint64_t secret = 0;
	uint32_t index;
	int rc;

	if (!(mr->access & VIA_MR_REMOTE_WRITE))
		return -EINVAL;
	ucx_ep_enter(ep);
	rc = find_key(mr, ep, &index);
	if (!rc)
		secret = ep->keys[index].secret;
	ucx_ep_leave(ep);
	if (rc)
		return rc;
	via_wire_put_bytes(&w, magic, sizeof(magic));
	via_wire_put_u32(&w, index);
	via_wire_put_u64(&w, secret);
	rc = via_wire_status(&w);
	return rc ? rc : (ssize_t)w.pos;
}

uint8_t *ucx_key_look_up(const struct ucx_ep *ep, uint32_t index, uint64_t secret, uint64_t off,
			 size_t len)
{
	const struct ucx_key *key = index < ep->nkeys ? &ep->keys[index] : NULL;

	if (!key || !key->mr || key->secret != secret || off > key->mr->base.len ||
	    len > key->mr->base.len - off)
		return NULL;
	return (uint8_t *)key->mr->base.addr + off;
}

/* -- keys that we use ---------------------------------------------------------------- */

int ucx_rkey_unpack(struct via_ep *base, const void *buf, size_t len, uint64_t region_len,
		    struct via_rkey **out, struct via_error *err)
{
	struct via_wire w = via_wire_reader(buf, len);
	struct ucx_rkey *key = calloc(1, sizeof(*key));
	const uint8_t *m = via_wire_get_view(&w, sizeof(magic));

	if (!key)
		return via_fail(err, -ENOMEM,
				"take a key of the peer\nout of memory\nfree some memory");
	key->base = (struct via_rkey){.ep = base, .len = region_len};
	key->index = via_wire_get_u32(&w);
	key->secret = via_wire_get_u64(&w);
	if (m && !memcmp(m, magic, sizeof(magic)) && !via_wire_finish(&w)) {
		*out = &key->base;
		return 0;
	}
	free(key);
	return via_fail(err, -EPROTO,
			"take a key of the peer\n%zu bytes that are no key of ucx\n"
			"give both sides the same --fabric",
			len);
}

void ucx_rkey_free(struct via_rkey *base)
{
	free(base);
}
