/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_ep.c -- endpoints: their queues and listeners opened, named, aborted, closed.
 *
 * A passive endpoint listens on every rail, for the peer chooses the one that suits its own; its
 * queues move there when it comes over another one than expected.
 *
 * Invariant: a queue pair is destroyed only after the windows that are bound on it, for some
 * devices wait for those (soft-RoCE: 50 s, Linux 6.12 to 7.3; for ever, 6.1).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "fabrics/verbs/verbs.h"

/* Messages up to this length travel within their work request, where the device takes that. */
#define INLINE_WANTED 256u

/* Requests of strangers that may wait to be refused. */
#define BACKLOG 8

static int fail_ep(const struct verbs_ep *ep, const char *call, int errnum, struct via_error *err)
{
	return via_fail(err, verbs_code(errnum),
			"open an endpoint of verbs:%s\n%s: %s\n"
			"check the device with `ibv_devinfo`",
			ep->rail->name, call, strerror(errnum));
}

/* -- rings -------------------------------------------------------------------------- */

static int make_ring(struct verbs_ring *ring, unsigned depth)
{
	uint32_t places = 1;

	while (places < depth)
		places <<= 1;
	ring->depth = depth;
	ring->mask = places - 1;
	ring->op = calloc(places, sizeof(*ring->op));
	return ring->op ? 0 : -ENOMEM;
}

static int make_records(struct verbs_ep *ep, struct via_error *err)
{
	const struct via_fabric_caps *caps = &ep->base.fab->caps;

	ep->wc_cap = caps->tx_depth + caps->rx_depth + 1;
	ep->wc = calloc(ep->wc_cap, sizeof(*ep->wc));
	if (!ep->wc || make_ring(&ep->tx, caps->tx_depth) || make_ring(&ep->rx, caps->rx_depth))
		return fail_ep(ep, "calloc", ENOMEM, err);
	ep->signal_every = caps->tx_depth / 4;
	if (ep->signal_every > VERBS_CHAIN_MAX)
		ep->signal_every = VERBS_CHAIN_MAX;
	if (!ep->signal_every)
		ep->signal_every = 1;
	return 0;
}

/* -- queues ------------------------------------------------------------------------- */

static int watch(struct verbs_ep *ep, int fd, enum verbs_watch what)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = what}};

	return epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? errno : 0;
}

static int set_nonblocking(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 ? errno : 0;
}

/* The device may grant less to be sent inline, or nothing. */
static int create_qp(struct verbs_ep *ep)
{
	const struct via_fabric_caps *caps = &ep->base.fab->caps;

	for (uint32_t size = INLINE_WANTED;; size /= 2) {
		struct ibv_qp_init_attr attr = {
			.qp_context = ep,
			.send_cq = ep->cq,
			.recv_cq = ep->cq,
			.qp_type = IBV_QPT_RC,
			.cap = {.max_send_wr = caps->tx_depth + 1, /* one binds windows */
				.max_recv_wr = caps->rx_depth,
				.max_send_sge = caps->sge_max,
				.max_recv_sge = 1,
				.max_inline_data = size}};

		ep->qp = ibv_create_qp(ep->rail->pd, &attr);
		if (ep->qp)
			ep->inline_max = attr.cap.max_inline_data;
		if (ep->qp || !size)
			return ep->qp ? 0 : errno;
	}
}

static int open_queues(struct verbs_ep *ep, struct via_error *err)
{
	const struct via_fabric_caps *caps = &ep->base.fab->caps;
	struct ibv_context *ctx = ep->rail->ctx;
	size_t len = 256 * ((size_t)caps->tx_depth + caps->rx_depth); /* about what they take */
	int rc;

	ep->base.device = ep->rail->name;
	ep->comp = ibv_create_comp_channel(ctx);
	if (!ep->comp)
		return fail_ep(ep, "ibv_create_comp_channel", errno, err);
	rc = set_nonblocking(ep->comp->fd);
	if (!rc)
		rc = watch(ep, ep->comp->fd, VERBS_WATCH_COMP);
	if (!rc)
		rc = watch(ep, ctx->async_fd, VERBS_WATCH_ASYNC);
	if (rc)
		return fail_ep(ep, "epoll_ctl", rc, err);
	ep->cq = ibv_create_cq(ctx, (int)(caps->tx_depth + caps->rx_depth + 1), ep, ep->comp,
			       (int)(ep->base.id % (unsigned)ctx->num_comp_vectors));
	if (!ep->cq)
		return verbs_fail_memory("create a completion queue", len, errno, err);
	rc = create_qp(ep);
	return rc ? verbs_fail_memory("create a queue pair", len, rc, err) : 0;
}

static void close_queues(struct verbs_ep *ep)
{
	if (ep->qp) {
		verbs_forget_windows(ep);
		ibv_destroy_qp(ep->qp);
	}
	if (ep->cq) {
		ibv_ack_cq_events(ep->cq, ep->cq_events);
		ibv_destroy_cq(ep->cq);
	}
	if (ep->comp) {
		/* The device's descriptor stays open: it must be taken out by hand. */
		epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, ep->rail->ctx->async_fd, NULL);
		ibv_destroy_comp_channel(ep->comp);
	}
	ep->qp = NULL;
	ep->cq = NULL;
	ep->comp = NULL;
	ep->cq_events = 0;
	ep->armed = false;
}

int verbs_ep_change_rail(struct verbs_ep *ep, struct verbs_rail *rail, struct via_error *err)
{
	struct verbs_fabric *fab = (struct verbs_fabric *)ep->base.fab;

	if (rail == ep->rail)
		return 0;
	close_queues(ep);
	pthread_mutex_lock(&fab->events_lock);
	ep->rail = rail;
	pthread_mutex_unlock(&fab->events_lock);
	return open_queues(ep, err);
}

/* -- listeners ---------------------------------------------------------------------- */

static int fail_listen(const struct verbs_rail *rail, const char *call, int errnum,
		       struct via_error *err)
{
	char ip[64];

	return via_fail(err, verbs_code(errnum),
			"listen at %s of %s\n%s: %s\n"
			"check with `rdma link` and `ip addr` that the address is the device's",
			verbs_ip_text(&rail->source.ip, ip, sizeof(ip)), rail->name, call,
			strerror(errnum));
}

static int listen_on(struct verbs_ep *ep, struct verbs_rail *rail, struct rdma_cm_id **id,
		     struct via_error *err)
{
	struct sockaddr_storage at;

	verbs_ip_to_sockaddr(&rail->source.ip, 0, &at);
	if (rdma_create_id(ep->channel, id, ep, RDMA_PS_TCP)) {
		*id = NULL;
		return fail_listen(rail, "rdma_create_id", errno, err);
	}
	if (rdma_bind_addr(*id, (struct sockaddr *)&at))
		return fail_listen(rail, "rdma_bind_addr", errno, err);
	if (rdma_listen(*id, BACKLOG))
		return fail_listen(rail, "rdma_listen", errno, err);
	return 0;
}

static int open_listeners(struct verbs_ep *ep, struct via_error *err)
{
	struct verbs_fabric *fab = (struct verbs_fabric *)ep->base.fab;
	int rc = 0;

	for (unsigned i = 0; ep->passive && i < fab->nrails && !rc; i++)
		rc = listen_on(ep, &fab->rail[i], &ep->listener[i], err);
	return rc;
}

void verbs_close_listeners(struct verbs_ep *ep)
{
	for (unsigned i = 0; i < VERBS_RAILS_MAX; i++) {
		if (ep->listener[i])
			rdma_destroy_id(ep->listener[i]);
		ep->listener[i] = NULL;
	}
}

/* -- endpoints ---------------------------------------------------------------------- */

static int take_place(struct verbs_ep *ep)
{
	struct verbs_fabric *fab = (struct verbs_fabric *)ep->base.fab;
	int rc = -ENOBUFS;

	pthread_mutex_lock(&fab->events_lock);
	for (unsigned i = 0; i < VERBS_EPS_MAX && rc; i++)
		if (!fab->ep[i]) {
			fab->ep[i] = ep;
			ep->base.id = i;
			rc = 0;
		}
	pthread_mutex_unlock(&fab->events_lock);
	ep->rail = &fab->rail[ep->base.id % fab->nrails];
	return rc;
}

static void leave_place(struct verbs_ep *ep)
{
	struct verbs_fabric *fab = (struct verbs_fabric *)ep->base.fab;

	pthread_mutex_lock(&fab->events_lock);
	if (ep->base.id < VERBS_EPS_MAX)
		fab->ep[ep->base.id] = NULL;
	pthread_mutex_unlock(&fab->events_lock);
}

/* What the owner sleeps on, but for the queues' part. */
static int open_descriptors(struct verbs_ep *ep, struct via_error *err)
{
	int rc;

	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ep->epoll_fd < 0 || ep->wake_fd < 0)
		return fail_ep(ep, "eventfd", errno, err);
	ep->channel = rdma_create_event_channel();
	if (!ep->channel)
		return fail_ep(ep, "rdma_create_event_channel", errno, err);
	rc = set_nonblocking(ep->channel->fd);
	if (!rc)
		rc = watch(ep, ep->wake_fd, VERBS_WATCH_WAKE);
	if (!rc)
		rc = watch(ep, ep->channel->fd, VERBS_WATCH_CM);
	return rc ? fail_ep(ep, "epoll_ctl", rc, err) : 0;
}

int verbs_ep_open(struct via_fabric *base, enum via_ep_side side, struct via_ep **out,
		  struct via_error *err)
{
	struct verbs_ep *ep = calloc(1, sizeof(*ep));
	int rc;

	if (!ep)
		return via_fail(err, -ENOMEM,
				"open an endpoint of verbs\nout of memory\nfree some memory");
	ep->base.fab = base;
	ep->base.id = VERBS_EPS_MAX;
	ep->passive = side == VIA_EP_PASSIVE;
	ep->epoll_fd = ep->wake_fd = -1;
	rc = take_place(ep);
	if (rc)
		rc = via_fail(err, rc, "open an endpoint of verbs\n%u are open\nclose some",
			      VERBS_EPS_MAX);
	if (!rc && getrandom(ep->id, sizeof(ep->id), 0) != (ssize_t)sizeof(ep->id))
		rc = fail_ep(ep, "getrandom", EIO, err);
	if (!rc)
		rc = make_records(ep, err);
	if (!rc)
		rc = open_descriptors(ep, err);
	if (!rc)
		rc = open_queues(ep, err);
	if (!rc)
		rc = open_listeners(ep, err);
	if (rc) {
		verbs_ep_close(&ep->base);
		return rc;
	}
	*out = &ep->base;
	return 0;
}

ssize_t verbs_ep_address(const struct via_ep *base, void *buf, size_t cap)
{
	const struct verbs_ep *ep = (const struct verbs_ep *)base;
	const struct verbs_fabric *fab = (const struct verbs_fabric *)base->fab;
	struct verbs_address a = {.passive = ep->passive};

	memcpy(a.id, ep->id, sizeof(a.id));
	for (unsigned i = 0; ep->passive && i < fab->nrails; i++) {
		a.place[i].ip = fab->rail[i].source.ip;
		if (ep->listener[i])
			a.place[i].port = be16toh(rdma_get_src_port(ep->listener[i]));
		a.nplaces++;
	}
	return verbs_address_encode(&a, buf, cap);
}

void verbs_ep_abort(struct via_ep *base)
{
	verbs_alarm((struct verbs_ep *)base, VERBS_ABORTED);
}

void verbs_ep_close(struct via_ep *base)
{
	struct verbs_ep *ep = (struct verbs_ep *)base;

	if (!ep)
		return;
	leave_place(ep); /* from here on no event is handed to it */
	if (ep->conn)
		rdma_disconnect(ep->conn); /* says it to the peer; waits for nothing */
	close_queues(ep);
	if (ep->conn)
		rdma_destroy_id(ep->conn);
	verbs_close_listeners(ep);
	if (ep->channel)
		rdma_destroy_event_channel(ep->channel);
	if (ep->wake_fd >= 0)
		close(ep->wake_fd);
	if (ep->epoll_fd >= 0)
		close(ep->epoll_fd);
	free(ep->wc);
	free(ep->tx.op);
	free(ep->rx.op);
	free(ep);
}
