/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mr.c -- memory, its keys, and how they are revoked.
 *
 * Must never leave a key behind that opens memory after mr_dereg() (but as break=dereg says).
 *
 * Invariant: a key is in the list of exactly one end, which it was packed for, and its region is
 * registered.
 */
#include <stdlib.h>

#include "core/wire.h"
#include "fabrics/sim/link.h"

#define RKEY_MAGIC   UINT32_C(0x56534b59) /* "VSKY" */
#define RKEY_VERSION 1u

int sim_mr_reg(struct via_fabric *fab, void *addr, size_t len, unsigned access, struct via_mr **mr,
	       struct via_error *err)
{
	struct sim_mr *new;

	if (!addr || !len)
		return via_fail(err, -EFAULT,
				"simulated region\n%zu bytes at %p\ngive it memory that is mapped",
				len, addr);
	new = calloc(1, sizeof(*new));
	if (!new)
		return via_fail(err, -ENOMEM, "simulated region\nno memory\nfree some memory");
	new->base = (struct via_mr){.fab = fab, .addr = addr, .len = len};
	new->access = access;
	*mr = &new->base;
	return 0;
}

/* -- revoking -------------------------------------------------------------- */

/* The peer's writes to @key that are on their way: in part they come to land, then no more. */
static void refuse_writes(struct sim_end *end, uint64_t number)
{
	struct sim_end *peer = end->peer;

	for (struct sim_op *op = peer->ops; op; op = op->next) {
		if (op->kind != VIA_COMP_WRITE || op->key != number || op->lost || op->held)
			continue;
		sim_op_land_some(peer, op);
		if (!sim_op_landed(op))
			sim_op_refuse(peer, op);
	}
}

static void revoke(struct sim_end *end, const struct via_mr *mr)
{
	struct sim_key **at = &end->keys;

	while (*at) {
		struct sim_key *key = *at;

		if (key->mr != mr) {
			at = &key->next;
		} else if (end->opt.breaks & SIM_BREAK_DEREG) {
			key->mr = NULL;
		} else {
			refuse_writes(end, key->number);
			*at = key->next;
			free(key);
		}
	}
}

/* @end's own operations must not touch the memory any more either. */
static void leave(struct sim_end *end, const struct via_mr *mr)
{
	for (struct sim_op *op = end->ops; op; op = op->next)
		for (unsigned i = 0; i < op->nsge && !op->completed; i++)
			if (op->sge[i].mr == mr)
				sim_op_read(op);
	for (unsigned i = 0; i < end->rx_count; i++) {
		struct sim_recv *recv = &end->rx[(end->rx_head + i) % end->opt.rx_depth];

		recv->revoked = recv->revoked || recv->sge.mr == mr;
	}
}

void sim_mr_dereg(struct via_mr *mr)
{
	struct sim_ep *ep;

	if (!mr)
		return;
	sim_registry_lock();
	for (ep = sim_registry_next(mr->fab, NULL); ep; ep = sim_registry_next(mr->fab, ep)) {
		if (!ep->end)
			continue;
		sim_link_lock(ep->end->link);
		revoke(ep->end, mr);
		leave(ep->end, mr);
		sim_link_unlock(ep->end->link);
	}
	sim_registry_unlock();
	free((struct sim_mr *)mr);
}

/* -- keys ------------------------------------------------------------------ */

/*
 *  0  u32  magic
 *  4  u8   version
 *  5  u64  connection
 * 13  u64  number of the key
 */
size_t sim_rkey_max(void)
{
	return 21;
}

/* The key to @mr at @end, made when there is none. NULL without memory. */
static struct sim_key *key_for(struct sim_end *end, const struct via_mr *mr)
{
	struct sim_key *key = end->keys;

	while (key && key->mr != mr)
		key = key->next;
	if (key)
		return key;
	key = calloc(1, sizeof(*key));
	if (!key)
		return NULL;
	key->mr = mr;
	key->number = sim_random(end->link);
	key->addr = mr->addr;
	key->len = mr->len;
	key->access = ((const struct sim_mr *)mr)->access;
	key->next = end->keys;
	end->keys = key;
	return key;
}

ssize_t sim_rkey_pack(const struct via_mr *mr, struct via_ep *base, void *buf, size_t cap)
{
	struct sim_end *end = ((struct sim_ep *)base)->end;
	struct via_wire w = via_wire_writer(buf, cap);
	struct sim_key *key;

	if (!end || mr->fab != base->fab)
		return sim_caller_error();
	if (cap < sim_rkey_max())
		return -ENOBUFS;
	sim_link_lock(end->link);
	key = key_for(end, mr);
	if (key) {
		via_wire_put_u32(&w, RKEY_MAGIC);
		via_wire_put_u8(&w, RKEY_VERSION);
		via_wire_put_u64(&w, end->link->id);
		via_wire_put_u64(&w, key->number);
	}
	sim_link_unlock(end->link);
	return key ? (ssize_t)w.pos : -ENOMEM;
}

int sim_rkey_unpack(struct via_ep *base, const void *buf, size_t len, uint64_t region_len,
		    struct via_rkey **rkey, struct via_error *err)
{
	const struct sim_end *end = ((const struct sim_ep *)base)->end;
	struct via_wire w = via_wire_reader(buf, len);
	uint32_t magic = via_wire_get_u32(&w);
	uint8_t version = via_wire_get_u8(&w);
	uint64_t link = via_wire_get_u64(&w);
	uint64_t number = via_wire_get_u64(&w);
	struct sim_rkey *new;

	if (!end)
		return sim_caller_error();
	if (via_wire_finish(&w) || magic != RKEY_MAGIC || version != RKEY_VERSION ||
	    link != end->link->id)
		return via_fail(err, -EPROTO,
				"simulated key\n%zu bytes are not a key of this connection\n"
				"a key serves the endpoint only that it was packed for",
				len);
	new = calloc(1, sizeof(*new));
	if (!new)
		return via_fail(err, -ENOMEM, "simulated key\nno memory\nfree some memory");
	new->base = (struct via_rkey){.ep = base, .len = region_len};
	new->number = number;
	*rkey = &new->base;
	return 0;
}

void sim_rkey_free(struct via_rkey *rkey)
{
	free((struct sim_rkey *)rkey);
}
