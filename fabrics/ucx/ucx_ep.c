/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_ep.c -- endpoints: opened, named, connected to one peer, aborted, closed.
 *
 * Each active message shows the nonce and its number, so what anybody else may send to the worker
 * is never taken for the peer's. The first, number 0, is a hello with nothing else in it. Both
 * sides are through when each has the other's.
 *
 * An address, big-endian: "UCX1", u8 length and name of the transport, u16 length and UCX's address
 * of the worker, u64 checksum.
 */
#include "fabrics/ucx/ucx.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Between two looks while connecting, where no descriptor tells. */
#define CONNECT_POLL_MS 2

static const uint8_t magic[4] = {'U', 'C', 'X', '1'};

static int fail_ep(const struct via_fabric *base, const char *call, int code, const char *why,
		   struct via_error *err)
{
	return via_fail(err, code, "open an endpoint of ucx:%s\n%s: %s\nfree some of the resource",
			((const struct ucx_fabric *)base)->name, call, why);
}

/* -- open ------------------------------------------------------------------------ */

static int take_id(struct ucx_fabric *fab, struct ucx_ep *ep)
{
	for (unsigned i = 0; i < UCX_EPS_MAX; i++)
		if (!fab->ep[i]) {
			fab->ep[i] = ep;
			ep->base.id = i;
			ep->serial = ++fab->next_serial;
			return 0;
		}
	return -ENOBUFS;
}

static int make_ops(struct ucx_ep *ep)
{
	const struct via_fabric_caps *caps = &ep->base.fab->caps;
	unsigned n = caps->tx_depth + caps->rx_depth;

	ep->ops = calloc(n, sizeof(*ep->ops));
	if (!ep->ops)
		return -ENOMEM;
	for (unsigned i = n; i-- > 0;) {
		struct ucx_op **list = i < caps->tx_depth ? &ep->free_tx : &ep->free_rx;

		ep->ops[i].next = *list;
		*list = &ep->ops[i];
	}
	for (unsigned i = UCX_PARTS; i-- > 0;) {
		ep->part[i].ep = ep;
		ep->part[i].next = ep->free_parts;
		ep->free_parts = &ep->part[i];
	}
	ep->answer.ep = ep;
	ucx_queue_init(&ep->outgoing);
	ucx_queue_init(&ep->issued);
	ucx_queue_init(&ep->receives);
	ucx_queue_init(&ep->done);
	return 0;
}

int ucx_ep_open(struct via_fabric *base, enum via_ep_side side, struct via_ep **out,
		struct via_error *err)
{
	struct ucx_fabric *fab = (struct ucx_fabric *)base;
	struct ucx_ep *ep = calloc(1, sizeof(*ep));
	struct epoll_event event = {.events = EPOLLIN};
	int rc;

	(void)side;
	if (!ep)
		return fail_ep(base, "calloc", -ENOMEM, "out of memory", err);
	ep->base.fab = base;
	ep->base.id = UCX_EPS_MAX;
	ep->free_key = UCX_NO_KEY;
	ep->base.device = fab->resources;
	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->epoll_fd < 0 || ep->abort_fd < 0 ||
	    epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, ep->abort_fd, &event)) {
		rc = fail_ep(base, "eventfd", via_err_from_errno(errno), strerror(errno), err);
		goto fail;
	}
	rc = take_id(fab, ep);
	if (!rc)
		rc = make_ops(ep);
	if (rc) {
		fail_ep(base, "make its tables", rc, via_err_text(rc), err);
		goto fail;
	}
	rc = ucx_worker_open(ep, err);
	if (rc)
		goto fail;
	*out = &ep->base;
	return 0;
fail:
	ucx_ep_close(&ep->base);
	return rc;
}

ssize_t ucx_ep_address(const struct via_ep *base, void *buf, size_t cap)
{
	const struct ucx_ep *ep = (const struct ucx_ep *)base;
	const struct ucx_fabric *fab = (const struct ucx_fabric *)base->fab;
	struct via_wire w = via_wire_writer(buf, cap);
	int rc;

	via_wire_put_bytes(&w, magic, sizeof(magic));
	via_wire_put_u8(&w, (uint8_t)strlen(fab->name));
	via_wire_put_bytes(&w, fab->name, strlen(fab->name));
	rc = ucx_worker_put_name(ep, &w);
	ucx_put_checksum(&w);
	if (!rc)
		rc = via_wire_status(&w);
	return rc ? rc : (ssize_t)w.pos;
}

/* -- connect ----------------------------------------------------------------------- */

/* Connect to the peer's worker, which @buf names. */
static int take_peer(struct ucx_ep *ep, const void *buf, size_t len)
{
	const struct ucx_fabric *fab = (const struct ucx_fabric *)ep->base.fab;
	size_t own_len = strlen(fab->name);
	const uint8_t *m, *transport;
	struct via_wire w;
	uint8_t n;

	if (!ucx_checksum_is_right(buf, len))
		return -EPROTO;
	w = via_wire_reader(buf, len - UCX_CHECKSUM_LEN);
	m = via_wire_get_view(&w, sizeof(magic));
	n = via_wire_get_u8(&w);
	transport = via_wire_get_view(&w, n);
	if (!m || memcmp(m, magic, sizeof(magic)) != 0 || !transport || n != own_len ||
	    memcmp(transport, fab->name, own_len) != 0)
		return -EPROTO;
	return ucx_worker_connect(ep, &w);
}

/* Has the caller's patience ended? Sleeps a little where there is nothing else to wait for. */
static int be_patient(struct ucx_ep *ep, const struct via_wait *wait)
{
	struct pollfd p[2] = {{.events = POLLIN}, {.fd = wait->cancel_fd, .events = POLLIN}};
	int timeout = via_deadline_poll_ms(wait->deadline_ns);
	int rc = ucx_arm(&ep->base, &p[0].fd);

	if (timeout < 0 || timeout > CONNECT_POLL_MS)
		timeout = CONNECT_POLL_MS;
	if (poll(p, 2, rc == -EAGAIN ? 0 : timeout) < 0 && errno != EINTR)
		return -EIO;
	if (wait->cancel_fd >= 0 && p[1].revents)
		return -ECANCELED;
	return via_deadline_passed(wait->deadline_ns) ? -ETIMEDOUT : 0;
}

/* UCX is through with our hello, which may take progress of ours, and the peer's is here. */
static bool is_through(const struct ucx_ep *ep)
{
	for (unsigned i = 0; i < UCX_PARTS; i++)
		if (ep->part[i].busy)
			return false;
	return ep->sent && ep->received;
}

/* Exchange the hellos. Returns 0 when both are through. */
static int exchange(struct ucx_ep *ep, const struct via_wait *wait)
{
	struct via_comp comp;
	int rc = ucx_post_hello(ep);

	while (!rc && !ep->stranger && !is_through(ep)) {
		rc = ucx_poll(&ep->base, &comp, 1);
		if (!rc && !is_through(ep))
			rc = be_patient(ep, wait);
	}
	return rc ? rc : ep->stranger ? -EACCES : 0;
}

static int fail_connect(const struct ucx_ep *ep, int code, struct via_error *err)
{
	const char *name = ((const struct ucx_fabric *)ep->base.fab)->name;

	switch (code) {
	case -EPROTO:
		return via_fail(err, code,
				"connect a channel over ucx:%s\n"
				"the peer's address is not one of this fabric\n"
				"give both sides the same --fabric",
				name);
	case -EACCES:
		return via_fail(err, code,
				"connect a channel over ucx:%s\n"
				"the peer's nonce is wrong: it is not the one that was announced\n"
				"check that nobody else connects to this host's ports",
				name);
	case -ETIMEDOUT:
		return via_fail(err, code,
				"connect a channel over ucx:%s\n"
				"the peer did not answer before the deadline\n"
				"check the firewall for the fabric's ports, and that the peer runs",
				name);
	case -ECANCELED:
		return via_fail(err, code,
				"connect a channel over ucx:%s\naborted\n"
				"see the first error of this session",
				name);
	}
	return via_fail(err, code,
			"connect a channel over ucx:%s\n%s\n"
			"check that both sides reach each other by %s, and that the peer runs",
			name, ep->base.why[0] ? ep->base.why : via_err_text(code),
			((const struct ucx_fabric *)ep->base.fab)->resources);
}

int ucx_ep_connect(struct via_ep *base, const void *addr, size_t addr_len, const uint8_t nonce[16],
		   const struct via_wait *wait, struct via_error *err)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;
	int rc;

	memcpy(ep->nonce, nonce, UCX_NONCE_LEN);
	rc = ep->reason ? ep->reason : take_peer(ep, addr, addr_len);
	if (!rc)
		rc = exchange(ep, wait);
	if (!rc)
		return 0;
	ucx_ep_kill(ep, rc);
	return fail_connect(ep, rc, err);
}

/* -- the end ----------------------------------------------------------------------- */

void ucx_ep_abort(struct via_ep *base)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;

	atomic_store(&ep->aborted, true);
	eventfd_write(ep->abort_fd, 1);
}

bool ucx_ep_try_enter(struct ucx_ep *ep)
{
	return !atomic_exchange_explicit(&ep->inside, true, memory_order_acquire);
}

void ucx_ep_enter(struct ucx_ep *ep)
{
	while (!ucx_ep_try_enter(ep)) /* whoever is inside leaves at the end of its poll */
		sched_yield();
}

void ucx_ep_leave(struct ucx_ep *ep)
{
	atomic_store_explicit(&ep->inside, false, memory_order_release);
}

void ucx_ep_break(struct ucx_ep *ep, const char *what, int code, ucs_status_t status)
{
	if (ep->broken || ep->reason)
		return;
	ep->broken = code == -ECANCELED ? -ECONNRESET : code;
	ep->native = status;
	snprintf(ep->base.why, sizeof(ep->base.why), "%s: %s (UCX status %d)", what,
		 ucs_status_string(status), (int)status);
}

void ucx_ep_kill(struct ucx_ep *ep, int reason)
{
	if (!ep->reason)
		ep->reason = reason;
	ucx_worker_close(ep);
	eventfd_write(ep->abort_fd, 1); /* who sleeps on the descriptor finds the reason */
}

void ucx_ep_close(struct via_ep *base)
{
	struct ucx_ep *ep = (struct ucx_ep *)base;

	if (!ep)
		return;
	ucx_ep_kill(ep, -ECANCELED);
	if (base->id < UCX_EPS_MAX)
		((struct ucx_fabric *)base->fab)->ep[base->id] = NULL;
	if (ep->abort_fd >= 0)
		close(ep->abort_fd);
	if (ep->epoll_fd >= 0)
		close(ep->epoll_fd);
	explicit_bzero(ep->nonce, sizeof(ep->nonce));
	free(ep->keys);
	free(ep->ops);
	free(ep);
}
