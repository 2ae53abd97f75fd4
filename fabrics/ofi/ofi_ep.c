/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_ep.c -- endpoints: opened, named, connected to one peer, aborted, closed.
 *
 * A reliable datagram endpoint has no connection of its own, so two hellos make one: each
 * side sends the nonce and takes what comes from the peer's address alone (directed
 * receives). Both are through when both have the other's, and the nonces are the same.
 *
 * An address, big-endian: "OFI1", u8 length and the provider's name, u16 length and the
 * provider's address of the lane for messages.
 */
#include "fabrics/ofi/ofi.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/secret.h"
#include "core/wire.h"

/* Between two looks while connecting, where no descriptor tells. */
#define CONNECT_POLL_MS 2

/* Names of the provider's own that may be taken before it gives up. */
#define NAME_TRIES 256

static const uint8_t magic[4] = {'O', 'F', 'I', '1'};

static int fail_ep(const struct via_fabric *base, const char *call, int code, const char *why,
		   struct via_error *err)
{
	return via_fail(err, code,
			"open an endpoint of ofi:%s\n%s: %s\n"
			"FI_LOG_LEVEL=warn shows the provider's own words",
			((const struct ofi_fabric *)base)->provider, call, why);
}

/* -- open ------------------------------------------------------------------------ */

static int take_id(struct ofi_fabric *fab, struct ofi_ep *ep)
{
	for (unsigned i = 0; i < OFI_EPS_MAX; i++)
		if (!fab->ep[i]) {
			fab->ep[i] = ep;
			ep->base.id = i;
			ep->serial = ++fab->next_serial;
			return 0;
		}
	return -ENOBUFS;
}

static int make_ops(struct ofi_ep *ep)
{
	const struct via_fabric_caps *caps = &ep->base.fab->caps;
	unsigned n = caps->tx_depth + caps->rx_depth;

	ep->ngenerations = caps->tx_depth + 2;
	ep->ops = calloc(n, sizeof(*ep->ops));
	ep->in_generation = calloc(ep->ngenerations, sizeof(*ep->in_generation));
	if (!ep->ops || !ep->in_generation)
		return -ENOMEM;
	for (unsigned i = n; i-- > 0;) {
		struct ofi_op **list = i < caps->tx_depth ? &ep->free_tx : &ep->free_rx;

		ep->ops[i].next = *list;
		*list = &ep->ops[i];
	}
	ep->held_writes.tail = &ep->held_writes.head;
	ep->held_sends.tail = &ep->held_sends.head;
	ep->generation = ep->oldest_generation = 1;
	return 0;
}

static int watch(struct ofi_ep *ep, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* The queue of a lane, with its descriptor among what the owner sleeps on. */
static int open_cq(struct ofi_fabric *fab, struct ofi_ep *ep, struct ofi_lane *lane)
{
	const struct via_fabric_caps *caps = &fab->base.caps;
	struct fi_cq_attr attr = {.size = 2 * (size_t)(caps->tx_depth + caps->rx_depth) + 16,
				  .format = FI_CQ_FORMAT_MSG,
				  .wait_obj = fab->has_fd ? FI_WAIT_FD : FI_WAIT_NONE};
	int fd, rc = fi_cq_open(lane->domain.domain, &attr, &lane->cq, NULL);

	if (rc || !fab->has_fd)
		return rc;
	rc = fi_control(&lane->cq->fid, FI_GETWAIT, &fd);
	return rc ? rc : watch(ep, fd);
}

/* Where the provider has no descriptor the owner should know that the peer writes. */
static int open_counter(struct ofi_fabric *fab, struct ofi_ep *ep, struct ofi_lane *lane)
{
	struct fi_cntr_attr attr = {.events = FI_CNTR_EVENTS_COMP, .wait_obj = FI_WAIT_NONE};
	int rc;

	if (fab->has_fd || !(fab->info->caps & FI_RMA_EVENT))
		return 0;
	ep->landed_seen = 0;
	rc = fi_cntr_open(lane->domain.domain, &attr, &ep->landed, NULL);
	return rc ? rc : fi_ep_bind(lane->ep, &ep->landed->fid, FI_REMOTE_WRITE);
}

static int open_parts(struct ofi_fabric *fab, struct ofi_ep *ep, enum ofi_lane_kind kind,
		      const char **call)
{
	struct ofi_lane *lane = &ep->lane[kind];
	struct fi_av_attr av = {.type = FI_AV_TABLE, .count = 1};
	int rc;

	*call = "fi_cq_open";
	rc = open_cq(fab, ep, lane);
	if (rc)
		return rc;
	*call = "fi_av_open";
	rc = fi_av_open(lane->domain.domain, &av, &lane->av, NULL);
	if (rc)
		return rc;
	*call = "fi_endpoint";
	rc = fi_endpoint(lane->domain.domain, fab->info, &lane->ep, NULL);
	if (rc)
		return rc;
	*call = "fi_ep_bind";
	rc = fi_ep_bind(lane->ep, &lane->av->fid, 0);
	if (!rc)
		rc = fi_ep_bind(lane->ep, &lane->cq->fid, FI_TRANSMIT | FI_RECV);
	if (!rc && kind == OFI_IN)
		rc = open_counter(fab, ep, lane);
	if (rc)
		return rc;
	*call = "fi_enable";
	return fi_enable(lane->ep);
}

/* The domain is left: registrations may be in it. */
static void close_parts(struct ofi_ep *ep, enum ofi_lane_kind kind)
{
	struct ofi_lane *lane = &ep->lane[kind];

	if (lane->ep)
		fi_close(&lane->ep->fid);
	lane->ep = NULL;
	if (kind == OFI_IN && ep->landed) {
		fi_close(&ep->landed->fid);
		ep->landed = NULL;
	}
	if (lane->cq)
		fi_close(&lane->cq->fid);
	lane->cq = NULL;
	if (lane->av)
		fi_close(&lane->av->fid);
	lane->av = NULL;
	lane->peer_name_len = 0;
}

static void close_domain(struct ofi_ep *ep, struct ofi_lane *lane)
{
	if (((struct ofi_fabric *)ep->base.fab)->own_domains)
		ofi_domain_close(&lane->domain);
	lane->domain = (struct ofi_domain){0};
}

/* Nothing of the lane is open after a failure. */
static int open_lane(struct ofi_fabric *fab, struct ofi_ep *ep, enum ofi_lane_kind kind,
		     struct via_error *err)
{
	struct ofi_lane *lane = &ep->lane[kind];
	const char *call = "";
	int rc;

	lane->domain = fab->shared;
	if (fab->own_domains) {
		lane->domain = (struct ofi_domain){0};
		rc = ofi_domain_open(fab, &lane->domain, err);
		if (rc)
			return rc;
	}
	/* shm names an endpoint by process id and a count, and a killed process leaves its names. */
	for (unsigned i = 0; i < NAME_TRIES; i++) {
		rc = open_parts(fab, ep, kind, &call);
		if (!rc)
			return 0;
		close_parts(ep, kind);
		if (rc != -FI_EBUSY)
			break;
	}
	close_domain(ep, lane);
	return fail_ep(&fab->base, call, ofi_code(rc), fi_strerror(-rc), err);
}

static void enter(struct ofi_ep *ep)
{
	while (!ofi_ep_enter(ep)) /* whoever is inside leaves at the end of its poll or post */
		sched_yield();
}

void ofi_ep_pass(struct ofi_ep *ep)
{
	enter(ep);
	ofi_ep_leave(ep);
}

int ofi_ep_need_lane(struct ofi_ep *ep, enum ofi_lane_kind kind)
{
	int rc = 0;

	enter(ep);
	if (!ep->lane[OFI_MSG].ep)
		rc = -ECONNRESET;
	else if (!ep->lane[kind].ep)
		rc = open_lane((struct ofi_fabric *)ep->base.fab, ep, kind, NULL);
	ofi_ep_leave(ep);
	return rc;
}

/* Where the provider has no descriptor: a timer. */
static int open_timer(const struct ofi_fabric *fab, struct ofi_ep *ep)
{
	if (fab->has_fd)
		return 0;
	ep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return ep->timer_fd < 0 ? -errno : watch(ep, ep->timer_fd);
}

int ofi_ep_open(struct via_fabric *base, enum via_ep_side side, struct via_ep **out,
		struct via_error *err)
{
	struct ofi_fabric *fab = (struct ofi_fabric *)base;
	struct ofi_ep *ep = calloc(1, sizeof(*ep));
	int rc;

	(void)side;
	if (!ep)
		return fail_ep(base, "calloc", -ENOMEM, "out of memory", err);
	ep->base.fab = base;
	ep->base.id = OFI_EPS_MAX;
	ep->timer_fd = -1;
	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->epoll_fd < 0 || ep->abort_fd < 0 || watch(ep, ep->abort_fd) ||
	    open_timer(fab, ep)) {
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
	rc = open_lane(fab, ep, OFI_MSG, err);
	if (!rc)
		rc = base->ops->mr_reg(base, ep->hello, sizeof(ep->hello), VIA_MR_LOCAL,
				       &ep->hello_mr, err);
	if (rc)
		goto fail;
	*out = &ep->base;
	return 0;
fail:
	ofi_ep_close(&ep->base);
	return rc;
}

int ofi_ep_put_name(struct via_wire *w, const struct ofi_lane *lane)
{
	uint8_t addr[OFI_ADDR_MAX];
	size_t len = sizeof(addr);
	int rc = lane->ep ? fi_getname(&lane->ep->fid, addr, &len) : -FI_EINVAL;

	if (rc)
		return ofi_code(rc);
	via_wire_put_u16(w, (uint16_t)len);
	via_wire_put_bytes(w, addr, len);
	return 0;
}

ssize_t ofi_ep_address(const struct via_ep *base, void *buf, size_t cap)
{
	const struct ofi_ep *ep = (const struct ofi_ep *)base;
	const struct ofi_fabric *fab = (const struct ofi_fabric *)base->fab;
	struct via_wire w = via_wire_writer(buf, cap);
	int rc;

	via_wire_put_bytes(&w, magic, sizeof(magic));
	via_wire_put_u8(&w, (uint8_t)strlen(fab->provider));
	via_wire_put_bytes(&w, fab->provider, strlen(fab->provider));
	rc = ofi_ep_put_name(&w, &ep->lane[OFI_MSG]);
	if (!rc)
		rc = via_wire_status(&w);
	return rc ? rc : (ssize_t)w.pos;
}

/* -- connect ----------------------------------------------------------------------- */

/* Has @addr the form of our own address @own, and is it not that? */
static bool may_be_peer(const struct ofi_ep *ep, const uint8_t *addr, size_t len,
			const uint8_t *own, size_t own_len)
{
	const struct ofi_fabric *fab = (const struct ofi_fabric *)ep->base.fab;

	if (len < 2 || (len == own_len && !memcmp(addr, own, len)))
		return false;
	if (fab->info->addr_format == FI_ADDR_STR)
		return memchr(addr, 0, len) == addr + len - 1;
	/* Of one size and, as socket addresses, of one family. */
	return len == own_len && !memcmp(addr, own, 2);
}

int ofi_ep_take_name(const struct ofi_ep *ep, struct ofi_lane *lane, struct via_wire *w,
		     fi_addr_t *peer)
{
	size_t len = via_wire_get_u16(w), own_len = OFI_ADDR_MAX;
	const uint8_t *addr = via_wire_get_view(w, len);
	uint8_t own[OFI_ADDR_MAX];

	if (!addr || len > sizeof(lane->peer_name) || fi_getname(&lane->ep->fid, own, &own_len) ||
	    !may_be_peer(ep, addr, len, own, own_len))
		return -EPROTO;
	if (len != lane->peer_name_len || memcmp(addr, lane->peer_name, len) != 0) {
		if (fi_av_insert(lane->av, addr, 1, &lane->peer, 0, NULL) != 1)
			return -EPROTO;
		memcpy(lane->peer_name, addr, len);
		lane->peer_name_len = len;
	}
	*peer = lane->peer;
	return 0;
}

/* Take the peer's address for messages out of @buf. */
static int insert_peer(struct ofi_ep *ep, const void *buf, size_t len)
{
	const struct ofi_fabric *fab = (const struct ofi_fabric *)ep->base.fab;
	size_t own_len = strlen(fab->provider);
	struct via_wire w = via_wire_reader(buf, len);
	const uint8_t *m = via_wire_get_view(&w, sizeof(magic));
	size_t name_len = via_wire_get_u8(&w);
	const uint8_t *name = via_wire_get_view(&w, name_len);
	struct via_wire rest;
	fi_addr_t peer;

	if (!m || memcmp(m, magic, sizeof(magic)) != 0 || !name || name_len != own_len ||
	    memcmp(name, fab->provider, own_len) != 0)
		return -EPROTO;
	rest = w;
	(void)via_wire_get_view(&rest, via_wire_get_u16(&rest));
	return via_wire_finish(&rest) ? -EPROTO
				      : ofi_ep_take_name(ep, &ep->lane[OFI_MSG], &w, &peer);
}

/* Has the caller's patience ended? Sleeps a little where there is nothing else to wait for. */
static int be_patient(struct ofi_ep *ep, const struct via_wait *wait)
{
	struct pollfd p[2] = {{.events = POLLIN}, {.fd = wait->cancel_fd, .events = POLLIN}};
	int timeout = via_deadline_poll_ms(wait->deadline_ns);
	int rc = ofi_arm(&ep->base, &p[0].fd);

	/* While it connects a provider may need to be asked again without any event. */
	if (timeout < 0 || timeout > CONNECT_POLL_MS)
		timeout = CONNECT_POLL_MS;
	if (poll(p, 2, rc == -EAGAIN ? 0 : timeout) < 0 && errno != EINTR)
		return -EIO;
	if (wait->cancel_fd >= 0 && p[1].revents)
		return -ECANCELED;
	return via_deadline_passed(wait->deadline_ns) ? -ETIMEDOUT : 0;
}

/* Exchange the hellos. Returns 0 when both are through. */
static int exchange(struct ofi_ep *ep, const struct via_wait *wait)
{
	struct via_sge out = {.mr = ep->hello_mr, .addr = ep->hello[0], .len = OFI_NONCE_LEN};
	struct via_sge in = {.mr = ep->hello_mr, .addr = ep->hello[1], .len = OFI_NONCE_LEN};
	bool sent = false, received = false;
	int rc = ofi_post_recv(&ep->base, &in, ep->hello[1]);
	int post = -EAGAIN;

	while (!rc && !(sent && received)) {
		struct via_comp comp[2];
		int n;

		if (post == -EAGAIN)
			post = ofi_post_send(&ep->base, &out, 1, ep->hello[0], 0);
		if (post && post != -EAGAIN)
			return post;
		n = ofi_poll(&ep->base, comp, 2);
		for (int i = 0; i < n; i++) {
			if (comp[i].status)
				return comp[i].status;
			if (comp[i].kind == VIA_COMP_RECV && comp[i].len != OFI_NONCE_LEN)
				return -EPROTO;
			sent = sent || comp[i].kind == VIA_COMP_SEND;
			received = received || comp[i].kind == VIA_COMP_RECV;
		}
		rc = n < 0 ? n : n == 0 ? be_patient(ep, wait) : 0;
	}
	return rc;
}

static int fail_connect(const struct ofi_ep *ep, int code, struct via_error *err)
{
	const char *provider = ((const struct ofi_fabric *)ep->base.fab)->provider;

	switch (code) {
	case -EACCES:
		return via_fail(err, code,
				"connect a channel over ofi:%s\n"
				"the peer's nonce is wrong: it is not the one that was announced\n"
				"check that nobody else connects to this host's ports",
				provider);
	case -ETIMEDOUT:
		return via_fail(err, code,
				"connect a channel over ofi:%s\n"
				"the peer did not answer before the deadline\n"
				"check the firewall for the fabric's ports, and that the peer runs",
				provider);
	case -ECANCELED:
		return via_fail(err, code,
				"connect a channel over ofi:%s\naborted\n"
				"see the first error of this session",
				provider);
	}
	return via_fail(err, code,
			"connect a channel over ofi:%s\n%s\n"
			"check the firewall for the fabric's ports, and that the peer runs",
			provider, via_err_text(code));
}

int ofi_ep_connect(struct via_ep *base, const void *addr, size_t addr_len, const uint8_t nonce[16],
		   const struct via_wait *wait, struct via_error *err)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	int rc = ep->reason ? ep->reason : insert_peer(ep, addr, addr_len);

	if (rc)
		return via_fail(err, rc,
				"connect a channel over ofi:%s\n"
				"the peer's address of %zu bytes is not one of this fabric\n"
				"give both sides the same --fabric",
				((struct ofi_fabric *)base->fab)->provider, addr_len);
	memcpy(ep->hello[0], nonce, OFI_NONCE_LEN);
	rc = exchange(ep, wait);
	if (!rc && !via_secret_equal(ep->hello[0], ep->hello[1], OFI_NONCE_LEN))
		rc = -EACCES;
	explicit_bzero(ep->hello[0], OFI_NONCE_LEN);
	explicit_bzero(ep->hello[1], OFI_NONCE_LEN);
	if (!rc)
		return 0;
	ofi_ep_kill(ep, rc);
	return fail_connect(ep, rc, err);
}

/* -- the end ----------------------------------------------------------------------- */

void ofi_ep_abort(struct via_ep *base)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;

	atomic_store(&ep->aborted, true);
	eventfd_write(ep->abort_fd, 1);
}

bool ofi_ep_enter(struct ofi_ep *ep)
{
	return !atomic_exchange_explicit(&ep->inside, true, memory_order_acquire);
}

void ofi_ep_leave(struct ofi_ep *ep)
{
	atomic_store_explicit(&ep->inside, false, memory_order_release);
}

void ofi_ep_revoke(struct ofi_ep *ep)
{
	enter(ep);
	ofi_mr_forget(ep, OFI_IN);
	close_parts(ep, OFI_IN);
	close_domain(ep, &ep->lane[OFI_IN]);
	ofi_ep_leave(ep);
}

void ofi_ep_kill(struct ofi_ep *ep, int reason)
{
	if (!ep->reason)
		ep->reason = reason;
	enter(ep);
	for (unsigned i = 0; i < OFI_LANES; i++)
		close_parts(ep, i);
	ofi_ep_leave(ep);
	eventfd_write(ep->abort_fd, 1); /* who sleeps on the descriptor finds the reason */
}

void ofi_ep_close(struct via_ep *base)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	struct ofi_fabric *fab;

	if (!ep)
		return;
	fab = (struct ofi_fabric *)base->fab;
	ofi_ep_kill(ep, -ECANCELED);
	ofi_mr_dereg(ep->hello_mr);
	for (unsigned i = 0; i < OFI_LANES; i++) {
		if (base->id < OFI_EPS_MAX)
			ofi_mr_forget(ep, i);
		close_domain(ep, &ep->lane[i]);
	}
	if (base->id < OFI_EPS_MAX)
		fab->ep[base->id] = NULL;
	if (ep->timer_fd >= 0)
		close(ep->timer_fd);
	if (ep->abort_fd >= 0)
		close(ep->abort_fd);
	if (ep->epoll_fd >= 0)
		close(ep->epoll_fd);
	free(ep->ops);
	free(ep->in_generation);
	free(ep);
}
