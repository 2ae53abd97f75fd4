/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_data.c -- writes, messages, completions, and how an owner sleeps.
 *
 * A write asks for FI_DELIVERY_COMPLETE: its completion then says that it was placed, and a key
 * that was revoked is noticed (docs/fence.md has what was measured without it). So a message
 * with VIA_AFTER_WRITES is held back here until every write before it has completed, and the
 * promise rests on nothing that a provider may or may not order. With no write in flight it
 * leaves at once. Over tcp, where one stream of bytes places them one after the other, only the last of
 * a chain asks: else the peer answers each. For that the last write with VIA_MORE waits here for
 * its successor, until the next poll at most.
 *
 * Invariant: an operation is busy from its post until its one report; once the provider's
 * endpoint is closed (ofi_ep_kill) nothing but flush() reports.
 *
 * VIA_MORE is not passed on: a provider that saves up posts for a bell may wait for one
 * that was refused with -EAGAIN.
 */
#include "fabrics/ofi/ofi.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>

#define READ_MAX 32u

/*
 * Where the provider has no descriptor (shm), its owner looks again and again, leaving the
 * processor to others, for as long as something has happened lately; then it sleeps, short
 * first, longer while nothing comes.
 */
#define ACTIVE_NS    (200 * VIA_NS_PER_US)
#define TIMER_MIN_NS (20 * VIA_NS_PER_US)
#define TIMER_MAX_NS (250 * VIA_NS_PER_US)

/* 0, or why nothing more can be posted. */
static int check_alive(const struct ofi_ep *ep)
{
	if (atomic_load_explicit(&ep->aborted, memory_order_relaxed))
		return -ECANCELED;
	return !ep->reason ? 0 : ep->reason == -ECANCELED ? -ECANCELED : -ECONNRESET;
}

static struct ofi_op *take_op(struct ofi_op **list, enum via_comp_kind kind, void *ctx)
{
	struct ofi_op *op = *list;

	if (op) {
		*list = op->next;
		op->kind = kind;
		op->ctx = ctx;
		op->busy = true;
	}
	return op;
}

static void free_op(struct ofi_ep *ep, struct ofi_op *op)
{
	struct ofi_op **list = op->kind == VIA_COMP_RECV ? &ep->free_rx : &ep->free_tx;

	op->busy = false;
	op->next = *list;
	*list = op;
}

/* What the provider needs to use @mr. */
static int describe(struct ofi_ep *ep, enum ofi_lane_kind kind, const struct via_mr *mr,
		    void **desc)
{
	*desc = NULL;
	if (kind == OFI_MSG && ((const struct ofi_fabric *)ep->base.fab)->copies_messages)
		return 0;
	return ofi_mr_desc(mr, ep, kind, desc);
}

/* Put the pieces into @op as the provider wants them. */
static int take_pieces(struct ofi_ep *ep, enum ofi_lane_kind kind, const struct via_sge *sge,
		       unsigned n, struct ofi_op *op)
{
	op->n = n;
	op->len = 0;
	for (unsigned i = 0; i < n; i++) {
		int rc = describe(ep, kind, sge[i].mr, &op->desc[i]);

		if (rc)
			return rc;
		op->iov[i] = (struct iovec){.iov_base = sge[i].addr, .iov_len = sge[i].len};
		op->mr[i] = (const struct ofi_mr *)sge[i].mr;
		op->mr_serial[i] = atomic_load_explicit(&op->mr[i]->serial, memory_order_relaxed);
		op->len += sge[i].len;
	}
	return 0;
}

/* -- posts -------------------------------------------------------------------------- */

static unsigned *writes_of(struct ofi_ep *ep, uint64_t generation)
{
	return &ep->in_generation[generation % ep->ngenerations];
}

/* Step over generations whose writes have all completed. */
static void retire_generations(struct ofi_ep *ep)
{
	while (ep->oldest_generation < ep->generation && !*writes_of(ep, ep->oldest_generation))
		ep->oldest_generation++;
}

/* Will the completion of the write behind @op say that @op was placed, too? */
static bool next_tells(const struct ofi_ep *ep, const struct ofi_op *op)
{
	return ((const struct ofi_fabric *)ep->base.fab)->places_in_order && op->next &&
	       op->next->generation == op->generation && op->next->peer == op->peer;
}

static int write_now(struct ofi_ep *ep, struct ofi_op *op)
{
	struct fid_ep *out = ep->lane[OFI_OUT].ep;

	if (!out)
		return -FI_ECONNRESET;
	for (unsigned i = 0; i < op->n; i++)
		if (atomic_load(&op->mr[i]->serial) != op->mr_serial[i])
			return -FI_EFAULT; /* it was held back, and its memory was given up */
	return (int)fi_writemsg(
		out,
		&(struct fi_msg_rma){.msg_iov = op->iov,
				     .desc = op->desc,
				     .iov_count = op->n,
				     .addr = op->peer,
				     .rma_iov = &(struct fi_rma_iov){.addr = op->addr,
								     .len = op->len,
								     .key = op->key},
				     .rma_iov_count = 1,
				     .context = &op->fi_context},
		FI_COMPLETION | (next_tells(ep, op) ? 0 : FI_DELIVERY_COMPLETE));
}

static int send_now(struct ofi_ep *ep, struct ofi_op *op)
{
	struct ofi_lane *lane = &ep->lane[OFI_MSG];

	return (int)fi_sendmsg(lane->ep,
			       &(struct fi_msg){.msg_iov = op->iov,
						.desc = op->desc,
						.iov_count = op->n,
						.addr = lane->peer,
						.context = &op->fi_context},
			       FI_COMPLETION);
}

static bool may_write(struct ofi_ep *ep)
{
	return ep->held_writes.head != NULL;
}

static bool has_successor(struct ofi_ep *ep)
{
	return ep->held_writes.head && ep->held_writes.head->next;
}

static bool may_send(struct ofi_ep *ep)
{
	retire_generations(ep);
	return ep->held_sends.head && ep->held_sends.head->generation < ep->oldest_generation;
}

/* Give the provider what it takes of @queue while @may says so. 0 or the failure of a post. */
static int release(struct ofi_ep *ep, struct ofi_queue *queue, bool (*may)(struct ofi_ep *ep),
		   int (*post_now)(struct ofi_ep *ep, struct ofi_op *op))
{
	while (may(ep)) {
		struct ofi_op *op = queue->head, *next = op->next;
		int rc = post_now(ep, op);

		if (rc)
			return rc == -FI_EAGAIN ? 0 : ofi_code(rc);
		queue->head = next;
		if (!next)
			queue->tail = &queue->head;
	}
	return 0;
}

/* @more: but the last, whose successor is about to come. */
static int release_writes(struct ofi_ep *ep, bool more)
{
	return release(ep, &ep->held_writes, more ? has_successor : may_write, write_now);
}

static int release_sends(struct ofi_ep *ep)
{
	return release(ep, &ep->held_sends, may_send, send_now);
}

static void hold(struct ofi_queue *queue, struct ofi_op *op)
{
	op->next = NULL;
	*queue->tail = op;
	queue->tail = &op->next;
}

/* Take an operation with its pieces, @max bytes at most. */
static int take_tx(struct ofi_ep *ep, enum ofi_lane_kind kind, const struct via_sge *sge,
		   unsigned n, size_t max, void *ctx, struct ofi_op **op)
{
	int rc = check_alive(ep);

	if (rc)
		return rc;
	if (n == 0 || n > ep->base.fab->caps.sge_max)
		return -EINVAL;
	*op = take_op(&ep->free_tx, kind == OFI_OUT ? VIA_COMP_WRITE : VIA_COMP_SEND, ctx);
	if (!*op)
		return -EAGAIN;
	rc = take_pieces(ep, kind, sge, n, *op);
	if (!rc && (*op)->len > max)
		rc = -EMSGSIZE;
	if (rc)
		free_op(ep, *op);
	return rc;
}

/*
 * The provider refused an operation that was taken already: the endpoint is dead, and the
 * operation's completion tells. The post itself has succeeded.
 */
static int fail_post(struct ofi_ep *ep, int code)
{
	ofi_ep_kill(ep, code == -ECANCELED ? -ECONNRESET : code);
	return 0;
}

int ofi_post_write(struct via_ep *base, const struct via_sge *sge, unsigned n,
		   const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	const struct ofi_rkey *key = (const struct ofi_rkey *)rkey;
	struct ofi_op *op;
	int rc = take_tx(ep, OFI_OUT, sge, n, base->fab->caps.write_len_max, ctx, &op);

	if (rc)
		return rc;
	if (off > rkey->len || op->len > rkey->len - off) {
		free_op(ep, op);
		return -ERANGE;
	}
	op->peer = key->peer;
	op->key = key->key;
	op->addr = key->addr + off;
	op->generation = ep->generation;
	++*writes_of(ep, op->generation);
	hold(&ep->held_writes, op);
	if (!ofi_ep_enter(ep))
		return 0; /* the next poll gives it to the provider */
	rc = release_writes(ep, flags & VIA_MORE);
	ofi_ep_leave(ep);
	return rc ? fail_post(ep, rc) : 0;
}

int ofi_post_send(struct via_ep *base, const struct via_sge *sge, unsigned n, void *ctx,
		  unsigned flags)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	struct ofi_op *op;
	int rc = take_tx(ep, OFI_MSG, sge, n, base->fab->caps.msg_len_max, ctx, &op);

	if (rc)
		return rc;
	/* Generation 0 has no writes: such a send only follows the sends before it. */
	op->generation = flags & VIA_AFTER_WRITES ? ep->generation++ : 0;
	hold(&ep->held_sends, op);
	rc = release_sends(ep);
	return rc ? fail_post(ep, rc) : 0;
}

int ofi_post_recv(struct via_ep *base, const struct via_sge *sge, void *ctx)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	struct ofi_lane *lane = &ep->lane[OFI_MSG];
	struct ofi_op *op;
	int rc = check_alive(ep);

	if (rc)
		return rc;
	op = take_op(&ep->free_rx, VIA_COMP_RECV, ctx);
	if (!op)
		return -EAGAIN;
	rc = take_pieces(ep, OFI_MSG, sge, 1, op);
	if (!rc)
		rc = (int)fi_recvmsg(lane->ep,
				     &(struct fi_msg){.msg_iov = op->iov,
						      .desc = op->desc,
						      .iov_count = 1,
						      .addr = lane->peer,
						      .context = &op->fi_context},
				     FI_COMPLETION);
	if (rc)
		free_op(ep, op);
	return rc == -FI_EAGAIN ? -EAGAIN : rc ? ofi_code(rc) : 0;
}

/* -- completions ------------------------------------------------------------------------ */

/* @op is through with @status. Returns 1 when it is to be reported in *comp, else 0. */
static int finish(struct ofi_ep *ep, struct ofi_op *op, size_t len, int status, int native,
		  struct via_comp *comp)
{
	*comp = (struct via_comp){
		.ctx = op->ctx, .len = len, .status = status, .kind = op->kind, .native = native};
	if (op->kind == VIA_COMP_WRITE)
		--*writes_of(ep, op->generation);
	if (op->kind != VIA_COMP_RECV)
		comp->len = 0;
	free_op(ep, op);
	return comp->ctx || status;
}

static struct ofi_op *op_of(void *context)
{
	return (struct ofi_op *)context; /* fi_context is its first member */
}

static int write_status(int err)
{
	switch (err) {
	case FI_EACCES:
	case FI_EPERM:
	case FI_EREMOTEIO:
	case FI_ENOKEY:
	case FI_EKEYREJECTED:
	case FI_EFAULT:
		return -EREMOTEIO;
	}
	return ofi_code(-err);
}

/* Of the provider's own accord: it dropped the operation because its connection went. */
static int error_status(const struct ofi_op *op, int err)
{
	int status = op->kind == VIA_COMP_WRITE ? write_status(err) : ofi_code(-err);

	return status == -ECANCELED ? -ECONNRESET : status;
}

/* In words, where the provider has some: what a dead endpoint died of. */
static void explain(struct ofi_ep *ep, const struct ofi_op *op, struct fid_cq *cq,
		    const struct fi_cq_err_entry *e)
{
	static const char *const names[] = {[VIA_COMP_WRITE] = "write",
					    [VIA_COMP_SEND] = "message",
					    [VIA_COMP_RECV] = "receive"};
	char buf[80] = "";
	const char *own = fi_cq_strerror(cq, e->prov_errno, e->err_data, buf, sizeof(buf));

	snprintf(ep->base.why, sizeof(ep->base.why), "%s: %s (%s: %s, code %d)", names[op->kind],
		 fi_strerror(e->err), ((const struct ofi_fabric *)ep->base.fab)->provider,
		 own ? own : "no words", e->prov_errno);
}

/* The queue has an error: report that operation. */
static int take_error(struct ofi_ep *ep, struct fid_cq *cq, struct via_comp *comp)
{
	struct fi_cq_err_entry e = {0};
	ssize_t n = fi_cq_readerr(cq, &e, 0);
	int reported = 0;

	if (n == -FI_EAGAIN)
		return 0;
	if (n > 0 && e.op_context) {
		struct ofi_op *op = op_of(e.op_context);

		explain(ep, op, cq, &e);
		reported = finish(ep, op, 0, error_status(op, e.err),
				  e.prov_errno ? e.prov_errno : e.err, comp);
	}
	return reported;
}

/* A dead endpoint: what is still busy was dropped with the provider's endpoint. */
static int flush(struct ofi_ep *ep, struct via_comp *comp, unsigned max)
{
	const struct via_fabric_caps *caps = &ep->base.fab->caps;
	int status = ep->reason == -ECANCELED ? -ECANCELED : -ECONNRESET;
	int n = 0;

	while ((unsigned)n < max && ep->flush_next < caps->tx_depth + caps->rx_depth) {
		struct ofi_op *op = &ep->ops[ep->flush_next++];

		if (op->busy)
			n += finish(ep, op, 0, status, 0, &comp[n]);
	}
	return n ? n : max ? ep->reason : 0;
}

static int take_entries(struct ofi_ep *ep, const struct fi_cq_msg_entry *entry, ssize_t n,
			struct via_comp *comp)
{
	int reported = 0;

	for (ssize_t i = 0; i < n; i++)
		reported +=
			finish(ep, op_of(entry[i].op_context), entry[i].len, 0, 0, &comp[reported]);
	return reported;
}

/* Did anything happen, be it only that the peer wrote? */
static void note_activity(struct ofi_ep *ep)
{
	uint64_t landed = ep->landed ? fi_cntr_read(ep->landed) : 0;

	if (!ep->progressed && landed == ep->landed_seen)
		return;
	ep->progressed = false;
	ep->landed_seen = landed;
	ep->active_ns = via_now_ns();
	ep->timer_ns = 0;
}

/* Completions of one lane. *reason: what the endpoint dies of. */
static int read_lane(struct ofi_ep *ep, enum ofi_lane_kind kind, struct via_comp *comp,
		     unsigned max, int *reason)
{
	struct fid_cq *cq = ep->lane[kind].cq;
	struct fi_cq_msg_entry entry[READ_MAX];
	ssize_t n;

	if (!cq || !max)
		return 0;
	n = fi_cq_read(cq, entry, max < READ_MAX ? max : READ_MAX);
	if (n == -FI_EAGAIN || n == 0)
		return 0;
	ep->progressed = true;
	if (n > 0)
		return take_entries(ep, entry, n, comp);
	*reason = n == -FI_EAVAIL ? -ECONNRESET : ofi_code((long)n);
	return n == -FI_EAVAIL ? take_error(ep, cq, comp) : 0;
}

/* All lanes: completions, and what may follow them. */
static int progress(struct ofi_ep *ep, struct via_comp *comp, unsigned max, int *reason)
{
	int n = read_lane(ep, OFI_MSG, comp, max, reason);

	if (!*reason && ofi_ep_enter(ep)) { /* else a lane is being opened or closed just now */
		for (unsigned i = OFI_IN; i <= OFI_OUT && !*reason; i++)
			n += read_lane(ep, i, comp + n, max - (unsigned)n, reason);
		if (ep->timer_fd >= 0)
			note_activity(ep);
		if (!*reason)
			*reason = release_writes(ep, false);
		ofi_ep_leave(ep);
	}
	if (!*reason)
		*reason = release_sends(ep);
	return n;
}

int ofi_poll(struct via_ep *base, struct via_comp *comp, unsigned max)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	int reported, reason = 0;

	if (atomic_load_explicit(&ep->aborted, memory_order_relaxed) && !ep->reason)
		ofi_ep_kill(ep, -ECANCELED);
	if (ep->reason)
		return flush(ep, comp, max);
	if (!max)
		return 0;
	reported = progress(ep, comp, max, &reason);
	if (reason)
		ofi_ep_kill(ep, reason == -ECANCELED ? -ECONNRESET : reason);
	return reported || !reason ? reported : flush(ep, comp, max);
}

static int set_timer(struct ofi_ep *ep)
{
	struct itimerspec t = {0};

	if (via_now_ns() - ep->active_ns < ACTIVE_NS) {
		sched_yield();
		return -EAGAIN;
	}
	ep->timer_ns = ep->timer_ns ? ep->timer_ns * 2 : TIMER_MIN_NS;
	if (ep->timer_ns > TIMER_MAX_NS)
		ep->timer_ns = TIMER_MAX_NS;
	t.it_value.tv_nsec = (long)ep->timer_ns;
	return timerfd_settime(ep->timer_fd, 0, &t, NULL) ? -EIO : 0;
}

static int try_wait_lane(struct ofi_lane *lane)
{
	struct fid *fids[1];
	int rc;

	if (!lane->cq)
		return 0;
	fids[0] = &lane->cq->fid;
	rc = fi_trywait(lane->domain.fabric, fids, 1);
	return rc == -FI_EAGAIN ? -EAGAIN : rc ? ofi_code(rc) : 0;
}

/* May the owner sleep on the provider's descriptors? 0, -EAGAIN or a failure. */
static int try_wait(struct ofi_ep *ep)
{
	int rc = try_wait_lane(&ep->lane[OFI_MSG]);

	if (rc)
		return rc;
	if (!ofi_ep_enter(ep))
		return -EAGAIN;
	for (unsigned i = OFI_IN; i <= OFI_OUT && !rc; i++)
		rc = try_wait_lane(&ep->lane[i]);
	ofi_ep_leave(ep);
	return rc;
}

int ofi_arm(struct via_ep *base, int *fd)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	int rc;

	*fd = ep->epoll_fd;
	if (ep->reason || atomic_load(&ep->aborted) || may_send(ep))
		return -EAGAIN;
	if (ep->timer_fd >= 0)
		return set_timer(ep);
	rc = try_wait(ep);
	/* No event tells that the provider has room again for a write it refused. */
	return rc ? rc : may_write(ep) ? -EAGAIN : 0;
}
