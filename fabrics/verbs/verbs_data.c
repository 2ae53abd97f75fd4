/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_data.c -- writes, messages, completions, and how an owner sleeps.
 *
 * A completion of a write on a reliable connection means that the peer's adapter acknowledged
 * it. A message is a SEND on the same queue pair, so it is received only after every write posted
 * before it is placed: VIA_AFTER_WRITES needs nothing more (docs/fence.md).
 *
 * Not every operation asks for a completion of its own: a completion is also that of all before it
 * in its queue. One in signal_every asks, and the last of a chain when any of it is to be
 * reported; so the send queue never fills up with operations that nobody will hear of.
 *
 * Invariant: the rings hold what was taken and not reported. What completes is reported
 * from there and nowhere else, so exactly once; a dead endpoint reports what is left there.
 */
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>

#include "fabrics/verbs/verbs.h"

/* Completions taken at once. */
#define BATCH 16u

/* Polls without a completion until an owner that never sleeps looks at its other descriptors. */
#define IDLE_POLLS 1024u

/* A window is bound by the device itself, behind what was posted before. */
#define BIND_NS (5 * VIA_NS_PER_S)

/* wr_id: whose it is, and its number in the ring. */
enum { OF_TX = 1, OF_RX, OF_BIND };
#define WR_ID(of, number) ((uint64_t)(of) << 32 | (number))

/* -- posts -------------------------------------------------------------------------- */

static struct verbs_op *op_at(const struct verbs_ring *ring, uint32_t number)
{
	return &ring->op[number & ring->mask];
}

static bool is_full(const struct verbs_ring *ring)
{
	return ring->tail - ring->head >= ring->depth;
}

static void record(struct verbs_ring *ring, enum via_comp_kind kind, void *ctx)
{
	*op_at(ring, ring->tail++) = (struct verbs_op){.ctx = ctx, .kind = kind};
}

/* 0, or why nothing more can be posted. */
static int check_alive(const struct verbs_ep *ep)
{
	if (atomic_load_explicit(&ep->alarms, memory_order_relaxed) & VERBS_ABORTED)
		return -ECANCELED;
	return !ep->reason && !ep->post_error ? 0
	       : ep->reason == -ECANCELED     ? -ECANCELED
					      : -ECONNRESET;
}

/* Give the device what waits for it. What it does not take has failed: poll() tells. */
static void ring_bell(struct verbs_ep *ep)
{
	struct ibv_send_wr *bad;

	if (!ep->nchain)
		return;
	if (ep->owed) {
		ep->chain[ep->nchain - 1].send_flags |= IBV_SEND_SIGNALED;
		ep->unsignalled = 0;
		ep->owed = false;
	}
	ep->chain[ep->nchain - 1].next = NULL;
	ep->nchain = 0;
	if (!ep->post_error)
		ep->post_error = ibv_post_send(ep->qp, ep->chain, &bad);
}

/* Take the pieces into the next work request of the chain, without counting it in. */
static int prepare(struct verbs_ep *ep, const struct via_sge *sge, unsigned n, size_t max,
		   struct ibv_send_wr **out, size_t *len)
{
	const struct verbs_fabric *fab = (const struct verbs_fabric *)ep->base.fab;
	struct ibv_send_wr *wr = &ep->chain[ep->nchain];
	struct ibv_sge *to = ep->chain_sge[ep->nchain];
	size_t rail = (size_t)(ep->rail - fab->rail), total = 0;
	int rc = check_alive(ep);

	if (rc)
		return rc;
	if (n == 0 || n > fab->base.caps.sge_max)
		return -EINVAL;
	*wr = (struct ibv_send_wr){.sg_list = to};
	for (unsigned i = 0; i < n; i++) {
		const struct verbs_mr *mr = (const struct verbs_mr *)sge[i].mr;

		if (sge[i].len > max - total)
			return -EMSGSIZE;
		total += sge[i].len;
		if (sge[i].len) /* a length of 0 means 2 GiB to some devices */
			to[wr->num_sge++] = (struct ibv_sge){.addr = (uintptr_t)sge[i].addr,
							     .length = (uint32_t)sge[i].len,
							     .lkey = mr->by_rail[rail]->lkey};
	}
	*out = wr;
	*len = total;
	return 0;
}

/* The work request that was prepared goes into the chain. -EAGAIN when the queue is full. */
static int append(struct verbs_ep *ep, struct ibv_send_wr *wr, enum via_comp_kind kind, size_t len,
		  void *ctx, unsigned flags)
{
	if (is_full(&ep->tx)) {
		ring_bell(ep); /* nothing may wait for a post that was refused */
		return -EAGAIN;
	}
	wr->wr_id = WR_ID(OF_TX, ep->tx.tail);
	wr->send_flags = len && len <= ep->inline_max ? IBV_SEND_INLINE : 0;
	if (++ep->unsignalled >= ep->signal_every) {
		wr->send_flags |= IBV_SEND_SIGNALED;
		ep->unsignalled = 0;
		ep->owed = false;
	} else if (ctx) {
		ep->owed = true;
	}
	record(&ep->tx, kind, ctx);
	if (ep->nchain)
		ep->chain[ep->nchain - 1].next = wr;
	ep->nchain++;
	if (!(flags & VIA_MORE) || ep->nchain == VERBS_CHAIN_MAX)
		ring_bell(ep);
	return 0;
}

int verbs_post_write(struct via_ep *base, const struct via_sge *sge, unsigned n,
		     const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags)
{
	struct verbs_ep *ep = (struct verbs_ep *)base;
	const struct verbs_key *key = &((const struct verbs_rkey *)rkey)->key;
	struct ibv_send_wr *wr;
	size_t len;
	int rc = prepare(ep, sge, n, base->fab->caps.write_len_max, &wr, &len);

	if (rc)
		return rc;
	if (off > rkey->len || len > rkey->len - off)
		return -ERANGE;
	wr->opcode = IBV_WR_RDMA_WRITE;
	wr->wr.rdma.remote_addr = key->addr + off;
	wr->wr.rdma.rkey = key->rkey;
	return append(ep, wr, VIA_COMP_WRITE, len, ctx, flags);
}

int verbs_post_send(struct via_ep *base, const struct via_sge *sge, unsigned n, void *ctx,
		    unsigned flags)
{
	struct verbs_ep *ep = (struct verbs_ep *)base;
	struct ibv_send_wr *wr;
	size_t len;
	int rc = prepare(ep, sge, n, base->fab->caps.msg_len_max, &wr, &len);

	if (rc)
		return rc;
	wr->opcode = IBV_WR_SEND;
	return append(ep, wr, VIA_COMP_SEND, len, ctx, flags);
}

static int post_recv(struct verbs_ep *ep, struct ibv_sge *sge, void *ctx)
{
	struct ibv_recv_wr wr = {.wr_id = WR_ID(OF_RX, ep->rx.tail),
				 .sg_list = sge,
				 .num_sge = sge && sge->length ? 1 : 0};
	struct ibv_recv_wr *bad;
	int rc = check_alive(ep);

	if (rc)
		return rc;
	if (is_full(&ep->rx))
		return -EAGAIN;
	record(&ep->rx, VIA_COMP_RECV, ctx);
	rc = ibv_post_recv(ep->qp, &wr, &bad);
	if (rc)
		ep->post_error = rc; /* taken all the same: poll() tells */
	return 0;
}

int verbs_post_recv(struct via_ep *base, const struct via_sge *sge, void *ctx)
{
	struct verbs_ep *ep = (struct verbs_ep *)base;
	const struct verbs_fabric *fab = (const struct verbs_fabric *)base->fab;
	const struct verbs_mr *mr = (const struct verbs_mr *)sge->mr;
	struct ibv_sge to = {.addr = (uintptr_t)sge->addr,
			     .length = sge->len < UINT32_MAX ? (uint32_t)sge->len : UINT32_MAX,
			     .lkey = mr->by_rail[ep->rail - fab->rail]->lkey};

	return post_recv(ep, &to, ctx);
}

int verbs_post_hello(struct verbs_ep *ep)
{
	struct ibv_send_wr *wr = &ep->chain[ep->nchain];

	*wr = (struct ibv_send_wr){.opcode = IBV_WR_SEND};
	return append(ep, wr, VIA_COMP_SEND, 0, ep, 0);
}

int verbs_post_hello_recv(struct verbs_ep *ep)
{
	return post_recv(ep, NULL, ep);
}

/* -- completions -------------------------------------------------------------------- */

static bool enter(struct verbs_ep *ep)
{
	return !atomic_exchange_explicit(&ep->inside, true, memory_order_acquire);
}

static void leave(struct verbs_ep *ep)
{
	atomic_store_explicit(&ep->inside, false, memory_order_release);
}

/* Is @wc the end of a bind? Then the set-up thread is told, and it is no one else's. */
static bool take_bind(struct verbs_ep *ep, const struct ibv_wc *wc)
{
	if (wc->wr_id >> 32 != OF_BIND)
		return false;
	atomic_store(&ep->bind, wc->status ? VERBS_BIND_FAILED : VERBS_BIND_DONE);
	return true;
}

/* Take up to BATCH completions off the queue into the buffer. Returns their number. Inside. */
static unsigned collect(struct verbs_ep *ep)
{
	unsigned room;
	int n;

	/* There is room for all that can be outstanding, once what was dealt with is out. */
	if (ep->wc_head && (ep->wc_head == ep->wc_tail || ep->wc_tail == ep->wc_cap)) {
		memmove(ep->wc, &ep->wc[ep->wc_head],
			(ep->wc_tail - ep->wc_head) * sizeof(*ep->wc));
		ep->wc_tail -= ep->wc_head;
		ep->wc_head = 0;
	}
	room = ep->wc_cap - ep->wc_tail;
	if (!room || ep->cq_done)
		return 0;
	n = ibv_poll_cq(ep->cq, (int)(room < BATCH ? room : BATCH), &ep->wc[ep->wc_tail]);
	if (n < 0) {
		verbs_alarm(ep, VERBS_CQ_ERR);
		return 0;
	}
	ep->wc_tail += (unsigned)n;
	return (unsigned)n;
}

/* The first completion with an error: what the endpoint dies of. */
static void die_of(struct verbs_ep *ep, enum via_comp_kind kind, const struct ibv_wc *wc)
{
	static const char *const names[] = {"", "write", "send", "receive"};
	const char *hint = verbs_status_hint(wc->status);

	if (wc->status == IBV_WC_WR_FLUSH_ERR) {
		verbs_look(ep); /* flushed: an event should tell why */
		verbs_heed(ep);
	}
	verbs_die(ep, verbs_status_code(wc->status), "%s: %s: %s (%s, vendor code 0x%x)%s%s",
		  ep->rail->name, names[kind], ibv_wc_status_str(wc->status),
		  verbs_status_name(wc->status), wc->vendor_err, *hint ? ": " : "", hint);
}

/* What an operation that did not come to its end completes with. */
static int status_of(const struct verbs_ep *ep, const struct ibv_wc *wc)
{
	if (wc->status != IBV_WC_WR_FLUSH_ERR)
		return verbs_status_code(wc->status);
	return ep->reason == -ECANCELED ? -ECANCELED : -ECONNRESET;
}

/*
 * Report the operations that @wc completes: its own, and those before it in its queue, which were
 * successful, for they did not say otherwise. False when there is no room for all of them;
 * then it goes on in the next poll.
 */
static bool report(struct verbs_ep *ep, struct verbs_ring *ring, const struct ibv_wc *wc,
		   struct via_comp *comp, unsigned max, unsigned *n)
{
	uint32_t last = (uint32_t)wc->wr_id;

	for (;;) {
		struct verbs_op *op = op_at(ring, ring->head);
		bool own = ring->head == last, failed = own && wc->status;

		if (*n == max)
			return false;
		if (failed)
			die_of(ep, op->kind, wc);
		ring->head++;
		if (op->ctx || failed)
			comp[(*n)++] = (struct via_comp){
				.ctx = op->ctx,
				.kind = op->kind,
				.status = failed ? status_of(ep, wc) : 0,
				.native = own ? (int)wc->status : 0,
				.len = op->kind == VIA_COMP_RECV && !failed ? wc->byte_len : 0};
		if (own)
			return true;
	}
}

/* One completion of the buffer. False when there is no room for what it reports. */
static bool take_one(struct verbs_ep *ep, const struct ibv_wc *wc, struct via_comp *comp,
		     unsigned max, unsigned *n)
{
	struct verbs_ring *ring = wc->wr_id >> 32 == OF_RX ? &ep->rx : &ep->tx;

	if (take_bind(ep, wc))
		return true;
	if ((uint32_t)wc->wr_id - ring->head >= ring->tail - ring->head) {
		verbs_alarm(ep, VERBS_CQ_ERR); /* of nothing that was posted */
		return true;
	}
	return report(ep, ring, wc, comp, max, n);
}

/* What is left on a dead endpoint whose queue has nothing more to say. */
static unsigned flush(struct verbs_ep *ep, struct via_comp *comp, unsigned max)
{
	struct verbs_ring *rings[] = {&ep->tx, &ep->rx};
	int status = ep->reason == -ECANCELED ? -ECANCELED : -ECONNRESET;
	unsigned n = 0;

	for (unsigned i = 0; i < 2; i++)
		while (n < max && rings[i]->head != rings[i]->tail) {
			const struct verbs_op *op = op_at(rings[i], rings[i]->head++);

			comp[n++] = (struct via_comp){
				.ctx = op->ctx, .kind = op->kind, .status = status};
		}
	return n;
}

static void look_around(struct verbs_ep *ep)
{
	if (ep->slept || ep->idle_polls >= IDLE_POLLS)
		verbs_look(ep);
	if (atomic_load_explicit(&ep->alarms, memory_order_relaxed))
		verbs_heed(ep);
	if (ep->post_error)
		verbs_die(ep, -ECONNRESET, "%s: the device takes no more work: %s", ep->rail->name,
			  strerror(ep->post_error));
}

static int progress(struct verbs_ep *ep, struct via_comp *comp, unsigned max)
{
	bool more = true;
	unsigned n = 0;

	ring_bell(ep);
	look_around(ep);
	while (n < max && (ep->wc_head < ep->wc_tail || more)) {
		if (ep->wc_head == ep->wc_tail)
			more = collect(ep) == BATCH;
		while (ep->wc_head < ep->wc_tail &&
		       take_one(ep, &ep->wc[ep->wc_head], comp, max, &n))
			ep->wc_head++;
	}
	if (n) {
		ep->idle_polls = 0;
		return (int)n;
	}
	ep->idle_polls++;
	if (!ep->reason || !max || collect(ep))
		return 0;
	ep->cq_done = true;
	n = flush(ep, comp, max);
	return n ? (int)n : ep->reason;
}

int verbs_poll(struct via_ep *base, struct via_comp *comp, unsigned max)
{
	struct verbs_ep *ep = (struct verbs_ep *)base;
	int n;

	if (!enter(ep))
		return 0; /* a window is being bound: there is time for the rest */
	n = progress(ep, comp, max);
	leave(ep);
	return n;
}

/* Arm first, then look once more: what came between would wake nobody. */
static int try_sleep(struct verbs_ep *ep)
{
	ring_bell(ep);
	if (ep->reason || ep->post_error || ep->wc_head < ep->wc_tail)
		return -EAGAIN;
	if (!ep->armed) {
		if (ibv_req_notify_cq(ep->cq, 0))
			return -EIO;
		ep->armed = true;
	}
	ep->slept = true;
	return collect(ep) || atomic_load(&ep->alarms) ? -EAGAIN : 0;
}

int verbs_arm(struct via_ep *base, int *fd)
{
	struct verbs_ep *ep = (struct verbs_ep *)base;
	int rc;

	*fd = ep->epoll_fd;
	if (!enter(ep))
		return -EAGAIN;
	rc = try_sleep(ep);
	leave(ep);
	return rc;
}

/* -- binding a window --------------------------------------------------------------- */

/* Look for the end of the bind; what else there is stays for the owner, who is woken. Inside. */
static void collect_for_bind(struct verbs_ep *ep)
{
	unsigned n = collect(ep), kept = ep->wc_tail - n;

	for (unsigned i = kept; i < ep->wc_tail; i++)
		if (!take_bind(ep, &ep->wc[i]))
			ep->wc[kept++] = ep->wc[i];
	ep->wc_tail = kept;
	if (ep->wc_tail > ep->wc_head)
		eventfd_write(ep->wake_fd, 1);
}

int verbs_bind(struct verbs_ep *ep, struct ibv_mw *mw, const struct verbs_mr *mr, uint32_t rkey)
{
	const struct verbs_fabric *fab = (const struct verbs_fabric *)ep->base.fab;
	struct ibv_send_wr *bad, wr = {.wr_id = WR_ID(OF_BIND, 0),
				       .opcode = IBV_WR_BIND_MW,
				       .send_flags = IBV_SEND_SIGNALED};
	uint64_t deadline_ns = via_deadline_in(BIND_NS);
	bool dead = false;
	int rc;

	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = rkey;
	wr.bind_mw.bind_info =
		(struct ibv_mw_bind_info){.mr = mr->by_rail[ep->rail - fab->rail],
					  .addr = (uintptr_t)mr->base.addr,
					  .length = mr->base.len,
					  .mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
	atomic_store(&ep->bind, VERBS_BIND_PENDING);
	/* The send queue has a place for it beside the owner's, and a lock of its own. */
	rc = ibv_post_send(ep->qp, &wr, &bad);
	if (rc)
		return verbs_code(rc);
	while (atomic_load(&ep->bind) == VERBS_BIND_PENDING && !dead &&
	       !via_deadline_passed(deadline_ns)) {
		if (enter(ep)) {
			collect_for_bind(ep);
			dead = ep->reason != 0;
			leave(ep);
		}
		sched_yield();
	}
	switch (atomic_load(&ep->bind)) {
	case VERBS_BIND_DONE:
		return 0;
	case VERBS_BIND_PENDING: /* it may come still: nothing can be built on this queue */
		verbs_alarm(ep, VERBS_QP_FATAL);
		return dead ? -ECONNRESET : -EIO;
	default:
		return dead ? -ECONNRESET : -EIO;
	}
}
