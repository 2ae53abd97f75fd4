/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_data.c -- posts, completions, and how an owner sleeps.
 *
 * Writes and messages go into one queue and out in its order (ucx_am.c), which is all that
 * VIA_AFTER_WRITES needs. VIA_MORE says nothing here: UCX gathers nothing that a bell would ring
 * for.
 *
 * Invariant: once the worker is closed (ucx_ep_kill) nothing but flush_out() reports.
 */
#include "fabrics/ucx/ucx.h"

#include <sched.h>

/* 0, or why nothing more can be posted. */
static int check_alive(const struct ucx_ep *ep)
{
	if (atomic_load_explicit(&ep->aborted, memory_order_relaxed))
		return -ECANCELED;
	return !ep->reason ? 0 : ep->reason == -ECANCELED ? -ECANCELED : -ECONNRESET;
}

/* -- posts -------------------------------------------------------------------------- */

static void take_pieces(struct ucx_op *op, const struct via_sge *sge, unsigned n)
{
	op->n = n;
	op->len = 0;
	for (unsigned i = 0; i < n; i++) {
		op->iov[i] = (ucp_dt_iov_t){.buffer = sge[i].addr, .length = sge[i].len};
		op->len += sge[i].len;
	}
}

/* Take an operation with its pieces, @max bytes at most. */
static int take_tx(struct ucx_ep *ep, enum via_comp_kind kind, const struct via_sge *sge,
		   unsigned n, size_t max, void *ctx, struct ucx_op **op)
{
	int rc = check_alive(ep);

	if (rc)
		return rc;
	if (n == 0 || n > ep->base.fab->caps.sge_max)
		return -EINVAL;
	*op = ucx_op_take(&ep->free_tx, kind, ctx);
	if (!*op)
		return -EAGAIN;
	take_pieces(*op, sge, n);
	if ((*op)->len <= max)
		return 0;
	ucx_op_free(ep, *op);
	return -EMSGSIZE;
}

/* @op is taken: what becomes of it its completion tells. */
static int post(struct ucx_ep *ep, struct ucx_op *op)
{
	ucx_queue_push(&ep->outgoing, op);
	ucx_am_push(ep);
	if (ep->broken)
		ucx_ep_kill(ep, ep->broken);
	return 0;
}

int ucx_post_write(struct via_ep *base, const struct via_sge *sge, unsigned n,
		   const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;
	const struct ucx_rkey *key = (const struct ucx_rkey *)rkey;
	struct ucx_op *op;
	int rc = take_tx(ep, VIA_COMP_WRITE, sge, n, base->fab->caps.write_len_max, ctx, &op);

	(void)flags;
	if (rc)
		return rc;
	if (off > rkey->len || op->len > rkey->len - off) {
		ucx_op_free(ep, op);
		return -ERANGE;
	}
	op->index = key->index;
	op->secret = key->secret;
	op->off = off;
	op->i = 0;
	op->done = 0;
	op->number = ++ep->posted;
	return post(ep, op);
}

int ucx_post_send(struct via_ep *base, const struct via_sge *sge, unsigned n, void *ctx,
		  unsigned flags)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;
	struct ucx_op *op;
	int rc = take_tx(ep, VIA_COMP_SEND, sge, n, base->fab->caps.msg_len_max, ctx, &op);

	(void)flags;
	return rc ? rc : post(ep, op);
}

int ucx_post_hello(struct ucx_ep *ep)
{
	struct ucx_op *op = ucx_op_take(&ep->free_tx, VIA_COMP_SEND, NULL);

	if (!op)
		return -ENOBUFS;
	take_pieces(op, NULL, 0);
	ucx_queue_push(&ep->outgoing, op);
	ucx_am_push(ep);
	return ep->broken;
}

int ucx_post_recv(struct via_ep *base, const struct via_sge *sge, void *ctx)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;
	struct ucx_op *op;
	int rc = check_alive(ep);

	if (rc)
		return rc;
	op = ucx_op_take(&ep->free_rx, VIA_COMP_RECV, ctx);
	if (!op)
		return -EAGAIN;
	take_pieces(op, sge, 1);
	ucx_queue_push(&ep->receives, op);
	return 0;
}

/* -- completions ------------------------------------------------------------------------ */

static int report(struct ucx_ep *ep, struct via_comp *comp, unsigned max)
{
	unsigned n = 0;

	while (n < max && ep->done.head) {
		struct ucx_op *op = ucx_queue_pop(&ep->done);

		comp[n++] = (struct via_comp){.ctx = op->ctx,
					      .len = op->kind == VIA_COMP_RECV ? op->len : 0,
					      .status = op->status,
					      .kind = op->kind,
					      .native = op->native};
		ucx_op_free(ep, op);
	}
	return (int)n;
}

/* What an operation that a dead endpoint drops completes with. */
static int drop_status(const struct ucx_ep *ep, const struct ucx_op *op)
{
	if (ep->reason == -ECANCELED || (ep->reason == -EREMOTEIO && op->kind == VIA_COMP_WRITE))
		return ep->reason;
	return -ECONNRESET;
}

/* A dead endpoint: first what was through, then what is still busy, dropped with the worker. */
static int flush_out(struct ucx_ep *ep, struct via_comp *comp, unsigned max)
{
	const struct via_fabric_caps *caps = &ep->base.fab->caps;
	int n = report(ep, comp, max);

	while ((unsigned)n < max && ep->flush_next < caps->tx_depth + caps->rx_depth) {
		struct ucx_op *op = &ep->ops[ep->flush_next++];

		if (!op->busy)
			continue;
		comp[n] = (struct via_comp){.ctx = op->ctx,
					    .status = drop_status(ep, op),
					    .kind = op->kind,
					    .native = ep->native};
		/* The hello alone is silent and not the user's. */
		n += op->kind != VIA_COMP_SEND || op->ctx || op->n;
		ucx_op_free(ep, op);
	}
	return n ? n : max ? ep->reason : 0;
}

static void progress(struct ucx_ep *ep)
{
	if (!ucx_ep_try_enter(ep))
		return; /* a key is given or revoked just now */
	(void)ucp_worker_progress(ep->worker);
	ucx_ep_leave(ep);
	ucx_am_retire(ep);
	if (!ep->broken)
		ucx_am_push(ep);
}

int ucx_poll(struct via_ep *base, struct via_comp *comp, unsigned max)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;

	if (atomic_load_explicit(&ep->aborted, memory_order_relaxed) && !ep->reason)
		ucx_ep_kill(ep, -ECANCELED);
	if (!ep->reason && max) {
		progress(ep);
		if (ep->broken)
			ucx_ep_kill(ep, ep->broken);
	}
	return ep->reason ? flush_out(ep, comp, max) : report(ep, comp, max);
}

/* Is there something that needs no event? */
static bool has_work(const struct ucx_ep *ep)
{
	return ep->reason || ep->broken || atomic_load(&ep->aborted) || ep->done.head ||
	       ucx_am_can_push(ep);
}

/* One look at the worker. False when there may be more. */
static bool is_quiet(struct ucx_ep *ep)
{
	unsigned events;

	if (!ucx_ep_try_enter(ep))
		return false;
	events = ucp_worker_progress(ep->worker);
	ucx_ep_leave(ep);
	return !events && !has_work(ep);
}

int ucx_arm(struct via_ep *base, int *fd)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;
	ucs_status_t status;

	*fd = ep->epoll_fd;
	if (has_work(ep))
		return -EAGAIN;
	status = ucp_worker_arm(ep->worker);
	if (status != UCS_OK && status != UCS_ERR_BUSY)
		return ucx_code(status);
	/* Armed, look again: an RDMA device tells of nothing that came before. */
	if (status == UCS_OK && is_quiet(ep))
		return 0;
	sched_yield(); /* in shared memory the peer may have to make room first */
	return -EAGAIN;
}
