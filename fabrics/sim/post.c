/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * post.c -- the data operations: post, poll, arm.
 *
 * Must never take a part of an operation: each is taken or refused whole.
 *
 * Invariant: arm() says that one may sleep only when nothing on the connection can happen without
 * a call of either side, and whoever changes that wakes the sleeper (sim_link_unlock()).
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "fabrics/sim/link.h"

/* The bytes of all pieces, or -EINVAL when one is not inside its region. */
static ssize_t sge_total(const struct via_ep *ep, const struct via_sge *sge, unsigned n)
{
	size_t total = 0;

	if (n > SIM_SGE_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		uintptr_t base = (uintptr_t)sge[i].mr->addr, at = (uintptr_t)sge[i].addr;

		if (sge[i].mr->fab != ep->fab || at < base || at - base > sge[i].mr->len ||
		    sge[i].len > sge[i].mr->len - (at - base))
			return -EINVAL;
		total += sge[i].len;
	}
	return (ssize_t)total;
}

/* Why @end takes nothing now; 0 when it does. */
static int refusal(const struct sim_end *end)
{
	if (end->aborted)
		return -ECANCELED;
	if (end->reason)
		return -ECONNRESET;
	return end->tx_used == end->opt.tx_depth ? -EAGAIN : 0;
}

/* A NIC without mercy: a message that finds no receive posted ends the connection. */
static bool peer_can_receive(const struct sim_end *end)
{
	unsigned on_the_way = 0;

	if (end->peer->reason)
		return true;
	for (const struct sim_op *op = end->ops; op; op = op->next)
		on_the_way += op->kind == VIA_COMP_SEND && !op->piece[0].landed && !op->lost;
	return on_the_way < end->peer->rx_count;
}

/*
 * A provider may run short of something before the queue is full. Only while the connection is
 * busy: who polls and tries again, or sleeps, gets on.
 */
static bool short_of_room(struct sim_end *end)
{
	if (!end->tx_used || sim_below(end->link, 8))
		return false;
	sim_end_ring(end);
	return sim_link_busy(end->link);
}

static int take(struct sim_end *end, struct sim_op *op, unsigned flags)
{
	bool received = op->kind != VIA_COMP_SEND || peer_can_receive(end);

	sim_end_append(end, op);
	end->tx_used++;
	if (!received) {
		op->lost = true;
		sim_op_complete(end, op, -EIO, VIA_SIM_NATIVE_NO_RECEIVE);
		sim_end_kill(end, -EIO, -ECONNRESET);
	}
	if (!(flags & VIA_MORE))
		sim_end_ring(end);
	return 0;
}

/* Post what @like describes, which is complete but for its pieces and bytes. */
static int submit(struct sim_end *end, const struct sim_op *like, const struct via_sge *sge,
		  unsigned flags)
{
	struct sim_op *op = NULL;
	int ret;

	sim_link_lock(end->link);
	ret = refusal(end);
	if (!ret) {
		op = short_of_room(end) ? NULL : malloc(sizeof(*op) + like->len);
		ret = op ? 0 : -EAGAIN;
	}
	if (!ret) {
		*op = *like;
		memcpy(op->sge, sge, like->nsge * sizeof(*sge));
		ret = take(end, op, flags);
	} else {
		sim_end_ring(end);
	}
	sim_link_unlock(end->link);
	return ret;
}

/* A post that its arguments rule out still ends a chain of VIA_MORE. */
static int refuse(struct sim_end *end, int code)
{
	sim_link_lock(end->link);
	sim_end_ring(end);
	sim_link_unlock(end->link);
	return code;
}

int sim_post_write(struct via_ep *ep, const struct via_sge *sge, unsigned n,
		   const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags)
{
	struct sim_end *end = ((struct sim_ep *)ep)->end;
	ssize_t len = sge_total(ep, sge, n);
	struct sim_op like = {.kind = VIA_COMP_WRITE, .ctx = ctx, .nsge = n, .off = off};

	if (!end || len < 0 || rkey->ep != ep || flags & ~(unsigned)VIA_MORE)
		return sim_caller_error();
	if ((size_t)len > ep->fab->caps.write_len_max)
		return refuse(end, -EMSGSIZE);
	if (off > rkey->len || (uint64_t)len > rkey->len - off)
		return refuse(end, -ERANGE);
	like.len = (size_t)len;
	like.key = ((const struct sim_rkey *)rkey)->number;
	return submit(end, &like, sge, flags);
}

int sim_post_send(struct via_ep *ep, const struct via_sge *sge, unsigned n, void *ctx,
		  unsigned flags)
{
	struct sim_end *end = ((struct sim_ep *)ep)->end;
	ssize_t len = sge_total(ep, sge, n);
	struct sim_op like = {.kind = VIA_COMP_SEND, .ctx = ctx, .nsge = n};

	if (!end || len < 0 || flags & ~(unsigned)(VIA_MORE | VIA_AFTER_WRITES))
		return sim_caller_error();
	if ((size_t)len > ep->fab->caps.msg_len_max)
		return refuse(end, -EMSGSIZE);
	like.len = (size_t)len;
	like.after_writes = flags & VIA_AFTER_WRITES;
	return submit(end, &like, sge, flags);
}

int sim_post_recv(struct via_ep *ep, const struct via_sge *sge, void *ctx)
{
	struct sim_end *end = ((struct sim_ep *)ep)->end;
	int ret = 0;

	if (!end || sge_total(ep, sge, 1) < 0)
		return sim_caller_error();
	sim_link_lock(end->link);
	sim_end_ring(end);
	if (end->aborted) {
		ret = -ECANCELED;
	} else if (end->reason) {
		ret = -ECONNRESET;
	} else if (end->rx_used == end->opt.rx_depth) {
		ret = -EAGAIN;
	} else {
		unsigned at = (end->rx_head + end->rx_count++) % end->opt.rx_depth;

		end->rx[at] = (struct sim_recv){.sge = *sge, .ctx = ctx};
		end->rx_used++;
	}
	sim_link_unlock(end->link);
	return ret;
}

/* -- progress -------------------------------------------------------------- */

static int unconnected(struct sim_ep *ep)
{
	int ret;

	sim_registry_lock();
	ret = ep->aborted ? -ECANCELED : 0;
	sim_registry_unlock();
	return ret;
}

int sim_poll(struct via_ep *ep, struct via_comp *comp, unsigned max)
{
	struct sim_end *end = ((struct sim_ep *)ep)->end;
	int n;

	if (!end)
		return unconnected((struct sim_ep *)ep);
	sim_link_lock(end->link);
	sim_link_step(end->link);
	n = (int)sim_end_take(end, comp, max);
	if (!n && !end->cq_count && end->reason)
		n = end->reason;
	sim_link_unlock(end->link);
	return n;
}

int sim_arm(struct via_ep *base, int *fd)
{
	struct sim_ep *ep = (struct sim_ep *)base;
	struct sim_end *end = ep->end;
	eventfd_t seen;
	int ret = 0;

	if (!end) {
		ret = unconnected(ep) ? -EAGAIN : 0;
	} else {
		sim_link_lock(end->link);
		if (end->cq_count || end->reason || sim_link_busy(end->link)) {
			ret = -EAGAIN;
		} else {
			eventfd_read(ep->event_fd, &seen);
			end->armed = true;
		}
		sim_link_unlock(end->link);
	}
	if (!ret)
		*fd = ep->event_fd;
	return ret;
}
