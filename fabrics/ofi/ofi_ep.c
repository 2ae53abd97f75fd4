/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_ep.c -- endpoints: opened, named, connected to one peer, aborted, closed.
 *
 * A reliable datagram endpoint has no connection of its own, so two hellos make one: each
 * side sends the nonce and takes what comes from the peer's address alone (directed
 * receives). Both are through when both have the other's, and the nonces are the same.
 *
 * An address, big-endian: "OFI1", u8 length and the provider's name, then for messages and for
 * writes: u16 length and the provider's address.
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

#include "core/wire.h"

/* Between two looks while connecting, where no descriptor tells. */
#define CONNECT_POLL_MS 2

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

static int open_lane(struct ofi_fabric *fab, struct ofi_ep *ep, struct ofi_lane *lane,
		     const char **call)
{
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
	return rc ? rc : fi_ep_bind(lane->ep, &lane->cq->fid, FI_TRANSMIT | FI_RECV);
}

/* Where the provider has no descriptor: a timer, and a counter of the peer's writes. */
static int open_timer(struct ofi_fabric *fab, struct ofi_ep *ep)
{
	struct fi_cntr_attr attr = {.events = FI_CNTR_EVENTS_COMP, .wait_obj = FI_WAIT_NONE};
	struct ofi_lane *rma = &ep->lane[OFI_RMA];
	int rc;

	ep->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (ep->timer_fd < 0 || watch(ep, ep->timer_fd))
		return -errno;
	if (!(fab->info->caps & FI_RMA_EVENT))
		return 0;
	rc = fi_cntr_open(rma->domain.domain, &attr, &ep->landed, NULL);
	return rc ? rc : fi_ep_bind(rma->ep, &ep->landed->fid, FI_REMOTE_WRITE);
}

static int open_lanes(struct ofi_fabric *fab, struct ofi_ep *ep, const char **call)
{
	int rc = open_lane(fab, ep, &ep->lane[OFI_MSG], call);

	if (!rc)
		rc = open_lane(fab, ep, &ep->lane[OFI_RMA], call);
	if (rc)
		return rc;
	*call = "fi_cntr_open";
	rc = fab->has_fd ? 0 : open_timer(fab, ep);
	if (rc)
		return rc;
	*call = "fi_enable";
	rc = fi_enable(ep->lane[OFI_MSG].ep);
	return rc ? rc : fi_enable(ep->lane[OFI_RMA].ep);
}

static int open_domains(struct ofi_fabric *fab, struct ofi_ep *ep, struct via_error *err)
{
	int rc = 0;

	for (unsigned i = 0; i < OFI_LANES && !rc; i++)
		if (fab->own_domains)
			rc = ofi_domain_open(fab, &ep->lane[i].domain, err);
		else
			ep->lane[i].domain = fab->shared;
	return rc;
}

int ofi_ep_open(struct via_fabric *base, enum via_ep_side side, struct via_ep **out,
		struct via_error *err)
{
	struct ofi_fabric *fab = (struct ofi_fabric *)base;
	struct ofi_ep *ep = calloc(1, sizeof(*ep));
	const char *call = "";
	int rc;

	(void)side;
	if (!ep)
		return fail_ep(base, "calloc", -ENOMEM, "out of memory", err);
	ep->base.fab = base;
	ep->base.id = OFI_EPS_MAX;
	ep->timer_fd = -1;
	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->epoll_fd < 0 || ep->abort_fd < 0 || watch(ep, ep->abort_fd)) {
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
	rc = open_domains(fab, ep, err);
	if (rc)
		goto fail;
	rc = open_lanes(fab, ep, &call);
	if (!rc)
		rc = base->ops->mr_reg(base, ep->hello, sizeof(ep->hello), VIA_MR_LOCAL,
				       &ep->hello_mr, NULL);
	if (rc) {
		rc = fail_ep(base, call, ofi_code(rc), fi_strerror(-rc), err);
		goto fail;
	}
	*out = &ep->base;
	return 0;
fail:
	ofi_ep_close(&ep->base);
	return rc;
}

static int put_name(struct via_wire *w, struct fid_ep *one)
{
	uint8_t addr[OFI_ADDR_MAX];
	size_t len = sizeof(addr);
	int rc = one ? fi_getname(&one->fid, addr, &len) : -FI_EINVAL;

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
	rc = put_name(&w, ep->lane[OFI_MSG].ep);
	if (!rc)
		rc = put_name(&w, ep->lane[OFI_RMA].ep);
	if (!rc)
		rc = via_wire_status(&w);
	return rc ? rc : (ssize_t)w.pos;
}

/* -- connect ----------------------------------------------------------------------- */

/*
 * The next address in @w, for a peer of @one; NULL when it is none. Its form must be that of
 * our own, because providers trust what fi_av_insert() is given; and it must not be our own.
 */
static const uint8_t *take_name(const struct ofi_ep *ep, struct fid_ep *one, struct via_wire *w)
{
	const struct ofi_fabric *fab = (const struct ofi_fabric *)ep->base.fab;
	size_t len = via_wire_get_u16(w), own_len = OFI_ADDR_MAX;
	const uint8_t *addr = via_wire_get_view(w, len);
	uint8_t own[OFI_ADDR_MAX];

	if (!addr || len < 2 || len > sizeof(own) || fi_getname(&one->fid, own, &own_len))
		return NULL;
	if (len == own_len && !memcmp(addr, own, len))
		return NULL;
	if (fab->info->addr_format == FI_ADDR_STR)
		return memchr(addr, 0, len) == addr + len - 1 ? addr : NULL;
	/* Of one size and, as socket addresses, of one family. */
	return len == own_len && !memcmp(addr, own, 2) ? addr : NULL;
}

/* Take the peer's addresses out of @buf into the address vector. */
static int insert_peer(struct ofi_ep *ep, const void *buf, size_t len)
{
	const struct ofi_fabric *fab = (const struct ofi_fabric *)ep->base.fab;
	size_t own_len = strlen(fab->provider);
	struct via_wire w = via_wire_reader(buf, len);
	const uint8_t *m = via_wire_get_view(&w, sizeof(magic));
	size_t name_len = via_wire_get_u8(&w);
	const uint8_t *name = via_wire_get_view(&w, name_len);
	const uint8_t *addr[OFI_LANES];

	if (!m || memcmp(m, magic, sizeof(magic)) != 0 || !name || name_len != own_len ||
	    memcmp(name, fab->provider, own_len) != 0)
		return -EPROTO;
	for (unsigned i = 0; i < OFI_LANES; i++)
		addr[i] = take_name(ep, ep->lane[i].ep, &w);
	if (via_wire_finish(&w))
		return -EPROTO;
	for (unsigned i = 0; i < OFI_LANES; i++)
		if (!addr[i] ||
		    fi_av_insert(ep->lane[i].av, addr[i], 1, &ep->lane[i].peer, 0, NULL) != 1)
			return -EPROTO;
	return 0;
}

static bool same_nonce(const uint8_t *a, const uint8_t *b)
{
	uint8_t difference = 0;

	for (unsigned i = 0; i < OFI_NONCE_LEN; i++)
		difference |= a[i] ^ b[i];
	return !difference;
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
	if (!rc && !same_nonce(ep->hello[0], ep->hello[1]))
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

/* The domain stays: registrations may be left in it. */
static void close_lane(struct ofi_lane *lane)
{
	if (lane->ep)
		fi_close(&lane->ep->fid);
	lane->ep = NULL;
	if (lane->cq)
		fi_close(&lane->cq->fid);
	lane->cq = NULL;
	if (lane->av)
		fi_close(&lane->av->fid);
	lane->av = NULL;
}

static void enter(struct ofi_ep *ep)
{
	while (!ofi_ep_enter(ep)) /* whoever is inside leaves at the end of its poll or post */
		sched_yield();
}

static void close_rma(struct ofi_ep *ep)
{
	close_lane(&ep->lane[OFI_RMA]);
	if (ep->landed)
		fi_close(&ep->landed->fid);
	ep->landed = NULL;
}

void ofi_ep_revoke(struct ofi_ep *ep)
{
	enter(ep);
	ofi_mr_forget(ep, OFI_RMA);
	close_rma(ep);
	ofi_ep_leave(ep);
}

void ofi_ep_kill(struct ofi_ep *ep, int reason)
{
	if (!ep->reason)
		ep->reason = reason;
	enter(ep);
	close_rma(ep);
	ofi_ep_leave(ep);
	close_lane(&ep->lane[OFI_MSG]);
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
		if (fab->own_domains)
			ofi_domain_close(&ep->lane[i].domain);
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
