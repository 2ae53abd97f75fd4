/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * data.c -- the data path of the fault injector: links are cut, completions come late.
 *
 * Must never lose a completion or report one twice, and never let an owner sleep past one that it
 * holds back.
 *
 * Invariant: a cut is the inner fabric's ep_abort(), so that the inner fabric completes what is
 * outstanding; all that is done here is to call it a lost connection, unless the caller aborted too.
 */
#include <assert.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/buffer.h"
#include "core/clock.h"
#include "fabrics/fault/wrap.h"

#define POLL_BATCH 32u

/* No write of Viaduct's is longer. */
#define FLIP_LEN ((size_t)1 << 20)

static atomic_uint cuts;
static atomic_uint writes; /* posted, while one is to be made wrong */
static atomic_bool flipped;

static const struct fault_fabric *fabric_of(const struct fault_ep *ep)
{
	return (const struct fault_fabric *)ep->base.fab;
}

static const struct via_fabric_ops *inner_ops(const struct fault_ep *ep)
{
	return ep->inner->fab->ops;
}

/* -- cutting --------------------------------------------------------------- */

unsigned via_fault_cuts(void)
{
	return atomic_load(&cuts);
}

void fault_reset_cuts(void)
{
	atomic_store(&cuts, 0);
}

void via_fault_cut(struct via_ep *base)
{
	struct fault_ep *ep = (struct fault_ep *)base;

	if (!atomic_exchange(&ep->cut, true))
		atomic_fetch_add(&cuts, 1);
	/* Also when another thread was first: it may not have come this far. */
	inner_ops(ep)->ep_abort(ep->inner);
}

/* The endpoint has seen its number of completions. */
static void cut_as_planned(struct fault_ep *ep)
{
	uint64_t times = fabric_of(ep)->times;
	unsigned done = atomic_load(&cuts);

	if (atomic_load(&ep->aborted))
		return;
	while (done < times && !atomic_compare_exchange_weak(&cuts, &done, done + 1))
		;
	if (done >= times)
		return;
	if (atomic_exchange(&ep->cut, true))
		atomic_fetch_sub(&cuts, 1); /* via_fault_cut() was first and counted it */
	inner_ops(ep)->ep_abort(ep->inner);
}

bool fault_is_lost(struct fault_ep *ep)
{
	return atomic_load(&ep->cut) && !atomic_load(&ep->aborted);
}

/* What the owner is told where the inner fabric said @code. */
static int told(struct fault_ep *ep, int code)
{
	if (code < 0 && ep->inner->why[0])
		memcpy(ep->base.why, ep->inner->why, sizeof(ep->base.why));
	return code == -ECANCELED && fault_is_lost(ep) ? -ECONNRESET : code;
}

/* -- posting --------------------------------------------------------------- */

static int caller_error(void)
{
	assert(!"error of the caller, see fabric.h");
	return -EINVAL;
}

/* The pieces with the inner fabric's own regions. */
static int inner_pieces(const struct via_ep *ep, const struct via_sge *sge, unsigned n,
			struct via_sge in[FAULT_SGE_MAX])
{
	if (n > ep->fab->caps.sge_max)
		return caller_error();
	for (unsigned i = 0; i < n; i++) {
		if (sge[i].mr->fab != ep->fab)
			return caller_error();
		in[i] = (struct via_sge){((const struct fault_mr *)sge[i].mr)->inner, sge[i].addr,
					 sge[i].len};
	}
	return 0;
}

/*
 * What is held back has left the inner queue, but not ours: a caller must not find more operations
 * outstanding than the depth. Only then: else the inner fabric knows better.
 */
static bool is_full(const struct fault_ep *ep, unsigned used, unsigned depth)
{
	return ep->held_count && used >= depth;
}

/* A refusal of ours would not ring for what was posted before it, so there is no waiting for it. */
static unsigned inner_flags(const struct fault_ep *ep, unsigned flags)
{
	return fabric_of(ep)->delay_ns ? flags & ~(unsigned)VIA_MORE : flags;
}

static int posted(struct fault_ep *ep, int ret, const void *ctx, unsigned *used)
{
	if (!ret && ctx)
		++*used;
	return told(ep, ret);
}

/* -- a wrong bit ----------------------------------------------------------- */

void fault_reset_flips(void)
{
	atomic_store(&writes, 0);
	atomic_store(&flipped, false);
}

int fault_flip_init(struct fault_ep *ep, struct via_error *err)
{
	struct via_fabric *inner = fabric_of(ep)->inner;

	ep->flip_buf = via_pages_alloc(FLIP_LEN);
	if (!ep->flip_buf)
		return via_fail(err, -ENOMEM,
				"endpoint that injects faults\nno memory\nfree some memory");
	return inner->ops->mr_reg(inner, ep->flip_buf, FLIP_LEN, VIA_MR_LOCAL, &ep->flip_mr, err);
}

void fault_flip_fini(struct fault_ep *ep)
{
	if (ep->flip_mr)
		ep->flip_mr->fab->ops->mr_dereg(ep->flip_mr);
	via_pages_free(ep->flip_buf, FLIP_LEN);
}

/* Is it this write's turn? Only one of the process is made wrong. */
static bool is_flipped(const struct fault_ep *ep)
{
	uint64_t turn = fabric_of(ep)->flip;

	return turn && atomic_load(&writes) + 1 >= turn && !atomic_exchange(&flipped, true);
}

/* What the pieces say, in one piece of ours, and not quite. How many pieces there are then. */
static unsigned flip(struct fault_ep *ep, struct via_sge in[FAULT_SGE_MAX], unsigned n)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; len += in[i++].len)
		if (in[i].len > FLIP_LEN - len)
			return n;
	len = 0;
	for (unsigned i = 0; i < n; len += in[i++].len)
		memcpy(ep->flip_buf + len, in[i].addr, in[i].len);
	ep->flip_buf[len / 2] ^= 1;
	in[0] = (struct via_sge){.mr = ep->flip_mr, .addr = ep->flip_buf, .len = len};
	return 1;
}

int fault_post_write(struct via_ep *base, const struct via_sge *sge, unsigned n,
		     const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags)
{
	struct fault_ep *ep = (struct fault_ep *)base;
	struct via_sge in[FAULT_SGE_MAX];
	bool wrong;
	int ret;

	if (inner_pieces(base, sge, n, in))
		return -EINVAL;
	if (rkey->ep != base)
		return caller_error();
	if (is_full(ep, ep->tx_used, base->fab->caps.tx_depth))
		return -EAGAIN;
	wrong = is_flipped(ep);
	if (wrong)
		n = flip(ep, in, n);
	ret = inner_ops(ep)->post_write(ep->inner, in, n, ((const struct fault_rkey *)rkey)->inner,
					off, ctx, inner_flags(ep, flags));
	if (!ret)
		atomic_fetch_add(&writes, fabric_of(ep)->flip != 0);
	else if (wrong)
		atomic_store(&flipped, false);
	return posted(ep, ret, ctx, &ep->tx_used);
}

int fault_post_send(struct via_ep *base, const struct via_sge *sge, unsigned n, void *ctx,
		    unsigned flags)
{
	struct fault_ep *ep = (struct fault_ep *)base;
	struct via_sge in[FAULT_SGE_MAX];
	int ret;

	if (inner_pieces(base, sge, n, in))
		return -EINVAL;
	if (is_full(ep, ep->tx_used, base->fab->caps.tx_depth))
		return -EAGAIN;
	ret = inner_ops(ep)->post_send(ep->inner, in, n, ctx, inner_flags(ep, flags));
	return posted(ep, ret, ctx, &ep->tx_used);
}

int fault_post_recv(struct via_ep *base, const struct via_sge *sge, void *ctx)
{
	struct fault_ep *ep = (struct fault_ep *)base;
	struct via_sge in[FAULT_SGE_MAX];

	if (inner_pieces(base, sge, 1, in))
		return -EINVAL;
	if (is_full(ep, ep->rx_used, base->fab->caps.rx_depth))
		return -EAGAIN;
	return posted(ep, inner_ops(ep)->post_recv(ep->inner, in, ctx), ctx, &ep->rx_used);
}

/* -- completions ----------------------------------------------------------- */

static void hold(struct fault_ep *ep, const struct via_comp *comp, uint64_t due_ns)
{
	unsigned at = (ep->held_head + ep->held_count++) % ep->held_cap;

	ep->held[at] = (struct fault_held){*comp, due_ns};
}

static bool is_due(const struct fault_ep *ep, uint64_t now_ns)
{
	return ep->held_count && ep->held[ep->held_head].due_ns <= now_ns;
}

/* Take in what there is and room for; report what has been held for long enough. */
static int poll_held(struct fault_ep *ep, struct via_comp *comp, unsigned max)
{
	unsigned room = ep->held_cap - ep->held_count, n = 0;
	struct via_comp batch[POLL_BATCH];
	uint64_t now_ns;
	int ret = 0;

	if (room)
		ret = inner_ops(ep)->poll(ep->inner, batch, room < POLL_BATCH ? room : POLL_BATCH);
	now_ns = via_now_ns();
	for (int i = 0; i < ret; i++)
		hold(ep, &batch[i], now_ns + fabric_of(ep)->delay_ns);
	for (; n < max && is_due(ep, now_ns); n++) {
		comp[n] = ep->held[ep->held_head].comp;
		ep->held_head = (ep->held_head + 1) % ep->held_cap;
		ep->held_count--;
	}
	return n || ep->held_count ? (int)n : ret;
}

static void report(struct fault_ep *ep, struct via_comp *comp)
{
	if (comp->ctx)
		--*(comp->kind == VIA_COMP_RECV ? &ep->rx_used : &ep->tx_used);
	comp->status = told(ep, comp->status);
	if (!comp->status && ep->cut_in && !--ep->cut_in)
		cut_as_planned(ep);
}

int fault_poll(struct via_ep *base, struct via_comp *comp, unsigned max)
{
	struct fault_ep *ep = (struct fault_ep *)base;
	int n = fabric_of(ep)->delay_ns ? poll_held(ep, comp, max)
					: inner_ops(ep)->poll(ep->inner, comp, max);

	for (int i = 0; i < n; i++)
		report(ep, &comp[i]);
	return told(ep, n);
}

/* -- sleeping -------------------------------------------------------------- */

static int join(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int fault_sleep_init(struct fault_ep *ep, struct via_error *err)
{
	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (ep->epoll_fd >= 0 && ep->timer_fd >= 0 && !join(ep->epoll_fd, ep->timer_fd))
		return 0;
	return via_fail(err, via_err_from_errno(errno),
			"endpoint that delays completions\nepoll and timerfd: %s\n"
			"raise the limit of open files",
			strerror(errno));
}

void fault_sleep_fini(struct fault_ep *ep)
{
	if (ep->epoll_fd >= 0)
		close(ep->epoll_fd);
	if (ep->timer_fd >= 0)
		close(ep->timer_fd);
}

/* The timer runs out when the oldest held completion is due; it does not run when none is held. */
static int set_timer(struct fault_ep *ep)
{
	struct itimerspec when = {0};

	if (ep->held_count) {
		uint64_t due_ns = ep->held[ep->held_head].due_ns;

		when.it_value.tv_sec = (time_t)(due_ns / VIA_NS_PER_S);
		when.it_value.tv_nsec = (long)(due_ns % VIA_NS_PER_S);
	} else if (!ep->timer_set) {
		return 0;
	}
	ep->timer_set = ep->held_count;
	return timerfd_settime(ep->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

int fault_arm(struct via_ep *base, int *fd)
{
	struct fault_ep *ep = (struct fault_ep *)base;
	int inner_fd, ret;

	if (!fabric_of(ep)->delay_ns)
		return inner_ops(ep)->arm(ep->inner, fd);
	if (is_due(ep, via_now_ns()))
		return -EAGAIN;
	ret = inner_ops(ep)->arm(ep->inner, &inner_fd);
	if (ret)
		return ret;
	/* Without a descriptor to sleep on, the owner looks again and again. */
	if (!ep->joined && join(ep->epoll_fd, inner_fd))
		return -EAGAIN;
	ep->joined = true;
	if (set_timer(ep))
		return -EAGAIN;
	*fd = ep->epoll_fd;
	return 0;
}
