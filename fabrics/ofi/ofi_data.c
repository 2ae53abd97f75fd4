/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_data.c -- writes, messages, completions, and how an owner sleeps.
 *
 * Every write asks for FI_DELIVERY_COMPLETE: its completion then says that it was placed, and a key
 * that was revoked is noticed (docs/fence.md has what was measured without it). So a message
 * with VIA_AFTER_WRITES is held back here until every write before it has completed, and the
 * promise rests on nothing that a provider may or may not order. With no write in flight it
 * leaves at once.
 *
 * Invariant: an operation is busy from its post until its one report; once the provider's
 * endpoint is closed (ofi_ep_kill) nothing but flush() reports.
 *
 * VIA_MORE is not passed on: a provider that saves up posts for a bell may wait for one
 * that was refused with -EAGAIN.
 */
#include "fabrics/ofi/ofi.h"

#include <string.h>
#include <sys/timerfd.h>

#define READ_MAX 32u

/* Sleeps where the provider has no descriptor: short first, longer while nothing comes. */
#define TIMER_MIN_NS (20 * VIA_NS_PER_US)
#define TIMER_MAX_NS VIA_NS_PER_MS

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

/* The pieces as the provider wants them. Returns the sum of their lengths, or a negated code. */
static ssize_t take_pieces(struct ofi_ep *ep, const struct via_sge *sge, unsigned n,
			   struct iovec *iov, void **desc)
{
	size_t len = 0;

	if (n == 0 || n > ep->base.fab->caps.sge_max)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		int rc = ofi_mr_desc(sge[i].mr, ep, &desc[i]);

		if (rc)
			return rc;
		iov[i] = (struct iovec){.iov_base = sge[i].addr, .iov_len = sge[i].len};
		len += sge[i].len;
	}
	return (ssize_t)len;
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

static bool writes_outstanding(struct ofi_ep *ep)
{
	retire_generations(ep);
	return ep->oldest_generation < ep->generation || *writes_of(ep, ep->generation);
}

int ofi_post_write(struct via_ep *base, const struct via_sge *sge, unsigned n,
		   const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	const struct ofi_rkey *key = (const struct ofi_rkey *)rkey;
	struct iovec iov[OFI_SGE_MAX];
	void *desc[OFI_SGE_MAX];
	ssize_t len = take_pieces(ep, sge, n, iov, desc);
	int rc = check_alive(ep);
	struct ofi_op *op;

	(void)flags;
	if (rc || len < 0)
		return rc ? rc : (int)len;
	if ((size_t)len > base->fab->caps.write_len_max)
		return -EMSGSIZE;
	if (off > rkey->len || (uint64_t)len > rkey->len - off)
		return -ERANGE;
	op = take_op(&ep->free_tx, VIA_COMP_WRITE, ctx);
	if (!op)
		return -EAGAIN;
	rc = (int)fi_writemsg(ep->ep,
			      &(struct fi_msg_rma){
				      .msg_iov = iov,
				      .desc = desc,
				      .iov_count = n,
				      .addr = ep->peer,
				      .rma_iov = &(struct fi_rma_iov){.addr = key->addr + off,
								      .len = (size_t)len,
								      .key = key->key},
				      .rma_iov_count = 1,
				      .context = &op->fi_context},
			      FI_COMPLETION | FI_DELIVERY_COMPLETE);
	if (rc) {
		free_op(ep, op);
		return rc == -FI_EAGAIN ? -EAGAIN : ofi_code(rc);
	}
	op->generation = ep->generation;
	++*writes_of(ep, op->generation);
	return 0;
}

static int send_now(struct ofi_ep *ep, struct ofi_op *op)
{
	struct iovec iov[OFI_SGE_MAX];
	void *desc[OFI_SGE_MAX];
	ssize_t len = take_pieces(ep, op->sge, op->n, iov, desc);
	int rc;

	if (len < 0)
		return (int)len;
	rc = (int)fi_sendmsg(ep->ep,
			     &(struct fi_msg){.msg_iov = iov,
					      .desc = desc,
					      .iov_count = op->n,
					      .addr = ep->peer,
					      .context = &op->fi_context},
			     FI_COMPLETION);
	return rc == -FI_EAGAIN ? -EAGAIN : rc ? ofi_code(rc) : 0;
}

static void hold(struct ofi_ep *ep, struct ofi_op *op, bool after_writes)
{
	/* Generation 0 has no writes: such a send only follows the sends before it. */
	op->generation = after_writes ? ep->generation++ : 0;
	op->next = NULL;
	*ep->held_tail = op;
	ep->held_tail = &op->next;
}

static bool may_release(struct ofi_ep *ep)
{
	retire_generations(ep);
	return ep->held && ep->held->generation < ep->oldest_generation;
}

/* Send what no longer has to wait. 0 or the failure of a post. */
static int release_held(struct ofi_ep *ep)
{
	while (may_release(ep)) {
		struct ofi_op *op = ep->held, *next = op->next;
		int rc = send_now(ep, op);

		if (rc)
			return rc == -EAGAIN ? 0 : rc;
		ep->held = next;
		if (!next)
			ep->held_tail = &ep->held;
	}
	return 0;
}

int ofi_post_send(struct via_ep *base, const struct via_sge *sge, unsigned n, void *ctx,
		  unsigned flags)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	bool after_writes = flags & VIA_AFTER_WRITES;
	struct ofi_op *op;
	size_t len = 0;
	int rc = check_alive(ep);

	if (rc)
		return rc;
	if (n == 0 || n > base->fab->caps.sge_max)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++)
		len += sge[i].len;
	if (len > base->fab->caps.msg_len_max)
		return -EMSGSIZE;
	op = take_op(&ep->free_tx, VIA_COMP_SEND, ctx);
	if (!op)
		return -EAGAIN;
	memcpy(op->sge, sge, n * sizeof(*sge));
	op->n = n;
	if (ep->held || (after_writes && writes_outstanding(ep))) {
		hold(ep, op, after_writes);
		return 0;
	}
	rc = send_now(ep, op);
	if (rc)
		free_op(ep, op);
	return rc;
}

int ofi_post_recv(struct via_ep *base, const struct via_sge *sge, void *ctx)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	struct iovec iov;
	void *desc;
	ssize_t len = take_pieces(ep, sge, 1, &iov, &desc);
	int rc = check_alive(ep);
	struct ofi_op *op;

	if (rc || len < 0)
		return rc ? rc : (int)len;
	op = take_op(&ep->free_rx, VIA_COMP_RECV, ctx);
	if (!op)
		return -EAGAIN;
	rc = (int)fi_recvmsg(ep->ep,
			     &(struct fi_msg){.msg_iov = &iov,
					      .desc = &desc,
					      .iov_count = 1,
					      .addr = ep->peer,
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

/* The queue has an error: report that operation; the endpoint dies of it. */
static int take_error(struct ofi_ep *ep, struct via_comp *comp)
{
	struct fi_cq_err_entry e = {0};
	ssize_t n = fi_cq_readerr(ep->cq, &e, 0);
	int reported = 0;

	if (n == -FI_EAGAIN)
		return 0;
	if (n > 0 && e.op_context) {
		struct ofi_op *op = op_of(e.op_context);

		reported = finish(ep, op, 0,
				  op->kind == VIA_COMP_WRITE ? write_status(e.err)
							     : ofi_code(-e.err),
				  e.prov_errno ? e.prov_errno : e.err, comp);
	}
	ofi_ep_kill(ep, -ECONNRESET);
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
		reported += finish(ep, op_of(entry[i].op_context), entry[i].len, 0, 0,
				   &comp[reported]);
	return reported;
}

int ofi_poll(struct via_ep *base, struct via_comp *comp, unsigned max)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	struct fi_cq_msg_entry entry[READ_MAX];
	ssize_t n;
	int reported;

	if (atomic_load_explicit(&ep->aborted, memory_order_relaxed) && !ep->reason)
		ofi_ep_kill(ep, -ECANCELED);
	if (ep->reason)
		return flush(ep, comp, max);
	if (!max)
		return 0;
	n = fi_cq_read(ep->cq, entry, max < READ_MAX ? max : READ_MAX);
	if (n == -FI_EAVAIL) {
		reported = take_error(ep, comp);
	} else if (n == -FI_EAGAIN || n >= 0) {
		reported = n > 0 ? take_entries(ep, entry, n, comp) : 0;
	} else {
		ofi_ep_kill(ep, ofi_code((long)n));
		reported = 0;
	}
	if (n != -FI_EAGAIN)
		ep->timer_ns = 0;
	if (!ep->reason && release_held(ep))
		ofi_ep_kill(ep, -ECONNRESET);
	return reported || !ep->reason ? reported : flush(ep, comp, max);
}

static int set_timer(struct ofi_ep *ep)
{
	struct itimerspec t = {0};

	ep->timer_ns = ep->timer_ns ? ep->timer_ns * 2 : TIMER_MIN_NS;
	if (ep->timer_ns > TIMER_MAX_NS)
		ep->timer_ns = TIMER_MAX_NS;
	t.it_value.tv_nsec = (long)ep->timer_ns;
	return timerfd_settime(ep->timer_fd, 0, &t, NULL) ? -EIO : 0;
}

int ofi_arm(struct via_ep *base, int *fd)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	const struct ofi_fabric *fab = (const struct ofi_fabric *)base->fab;
	int rc = 0;

	if (ep->reason || atomic_load(&ep->aborted) || may_release(ep)) {
		*fd = ep->epoll_fd;
		return -EAGAIN;
	}
	if (ep->timer_fd >= 0) {
		rc = set_timer(ep);
	} else {
		struct fid *fids[] = {&ep->cq->fid};

		rc = fi_trywait(fab->fabric, fids, 1);
		if (rc)
			rc = rc == -FI_EAGAIN ? -EAGAIN : ofi_code(rc);
	}
	if (!rc)
		*fd = ep->epoll_fd;
	return rc;
}
