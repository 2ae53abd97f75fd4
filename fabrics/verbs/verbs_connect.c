/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_connect.c -- two endpoints become a connection.
 *
 *   active                                   passive (listens since ep_open)
 *   resolve address and route
 *   request {greeting}         ->            wrong nonce: rejects, and goes on listening
 *                              <-            accept {greeting}
 *   checks the nonce's other half
 *   establish                  ->
 *   hello, an empty message    ->            has it: may send
 *   it is acknowledged: done
 *
 * The hello makes sure that the active side is the first to send, as iWARP wants it, and that
 * both queue pairs work before either side says so.
 *
 * The queue pair is this back end's: rdma_cm says what the path is like (rdma_init_qp_attr), the
 * settings go on top. Waits for events only, never longer than the caller allows.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "fabrics/verbs/verbs.h"

/* Before a message without a receive is tried again: 1.28 ms (InfiniBand's table of them). */
#define RNR_TIMER 14

/* rdma_resolve_addr() wants a number; the caller's patience is shorter. */
#define RESOLVE_MS_MAX (60 * 60 * 1000)

/* A connection being made. */
struct connect {
	struct verbs_ep *ep;
	const struct via_wait *wait;
	const uint8_t *nonce;
	struct via_error *err;
	bool stranger; /* somebody came with a wrong nonce */
	char peer[64]; /* in words */
};

/* An event of rdma_cm, acknowledged. */
struct event {
	enum rdma_cm_event_type type;
	int status;
	struct rdma_cm_id *id;
	uint8_t data[VERBS_GREETING];
	size_t len;
};

/* -- failures ----------------------------------------------------------------------- */

static const char *name_of(const struct connect *c)
{
	return c->ep->rail->name;
}

static int fail_call(const struct connect *c, const char *call, int errnum)
{
	return via_fail(c->err, verbs_code(errnum),
			"connect %s to %s\n%s: %s\n"
			"check that each side can ping the other's address from the device's",
			name_of(c), c->peer, call, strerror(errnum));
}

static int fail_code(const struct connect *c, int code)
{
	switch (code) {
	case -EACCES:
		return via_fail(c->err, code,
				"connect %s to %s\n"
				"the nonce shown is not the one that was announced\n"
				"check that nobody else connects to this host's ports",
				name_of(c), c->peer);
	case -ECANCELED:
		return via_fail(c->err, code,
				"connect %s to %s\naborted\nsee the first error of this session",
				name_of(c), c->peer);
	case -ETIMEDOUT:
		return via_fail(c->err, code,
				"connect %s to %s\nno answer before the deadline\n"
				"check that the peer runs, and that RDMA traffic passes: rping -s "
				"there, rping -c -a ADDRESS here",
				name_of(c), c->peer);
	case -EPROTO:
		return via_fail(c->err, code,
				"connect %s to %s\nthe greeting is not one of this fabric\n"
				"check that both sides run the same release",
				name_of(c), c->peer);
	case -ECONNREFUSED:
		return via_fail(c->err, code,
				"connect %s to %s\nnobody listens there any more\n"
				"see the peer's own error",
				name_of(c), c->peer);
	}
	return via_fail(c->err, code, "connect %s to %s\n%s\nsee the peer's own error", name_of(c),
			c->peer, via_err_text(code));
}

/* An event that ends the attempt. */
static int fail_event(const struct connect *c, const struct event *e)
{
	int errnum = e->status < 0 ? -e->status : e->status;

	switch (e->type) {
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
		if (errnum == ETIMEDOUT && via_deadline_passed(c->wait->deadline_ns))
			return fail_code(c, -ETIMEDOUT);
		return via_fail(c->err, -EHOSTUNREACH,
				"connect %s to %s\n%s: %s\n"
				"check that the two addresses reach each other: ping -I %s ADDRESS",
				name_of(c), c->peer, rdma_event_str(e->type), strerror(errnum),
				"INTERFACE");
	case RDMA_CM_EVENT_REJECTED:
		return fail_code(c, verbs_refusal_decode(e->data, e->len));
	case RDMA_CM_EVENT_UNREACHABLE:
		return via_fail(c->err, -EHOSTUNREACH,
				"connect %s to %s\nno answer to the request (%s)\n"
				"check that RDMA traffic passes: rping -s there, rping -c -a "
				"ADDRESS here",
				name_of(c), c->peer, rdma_event_str(e->type));
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
		return fail_code(c, -ECONNRESET);
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		return via_fail(c->err, -ECONNRESET,
				"connect %s to %s\nthe device was removed\nsee the kernel's log",
				name_of(c), c->peer);
	default:
		return via_fail(c->err, -EIO,
				"connect %s to %s\n%s (%d)\nsee the kernel's log at both ends",
				name_of(c), c->peer, rdma_event_str(e->type), e->status);
	}
}

/* -- waiting ------------------------------------------------------------------------ */

/* Sleep until something happens to the endpoint. 0, -ECANCELED or -ETIMEDOUT. */
static int wait_a_little(struct connect *c)
{
	struct pollfd p[2] = {{.fd = c->ep->epoll_fd, .events = POLLIN},
			      {.fd = c->wait->cancel_fd, .events = POLLIN}};

	if (poll(p, 2, via_deadline_poll_ms(c->wait->deadline_ns)) < 0 && errno != EINTR)
		return -EIO;
	if (c->wait->cancel_fd >= 0 && p[1].revents)
		return -ECANCELED;
	verbs_look(c->ep);
	verbs_heed(c->ep);
	if (c->ep->reason)
		return c->ep->reason;
	return via_deadline_passed(c->wait->deadline_ns) ? -ETIMEDOUT : 0;
}

/* The next event of rdma_cm into @e. A failure is in c->err. */
static int next_event(struct connect *c, struct event *e)
{
	struct rdma_cm_event *got;
	int rc = 0;

	while (rdma_get_cm_event(c->ep->channel, &got)) {
		if (errno != EAGAIN && errno != EINTR)
			return fail_call(c, "rdma_get_cm_event", errno);
		rc = wait_a_little(c);
		/* Who shut the door on a stranger, and saw nobody else, has seen the wrong one. */
		if (rc)
			return fail_code(c, rc == -ETIMEDOUT && c->stranger ? -EACCES : rc);
	}
	*e = (struct event){.type = got->event, .status = got->status, .id = got->id};
	if (got->event == RDMA_CM_EVENT_CONNECT_REQUEST || got->event == RDMA_CM_EVENT_REJECTED ||
	    got->event == RDMA_CM_EVENT_CONNECT_RESPONSE ||
	    got->event == RDMA_CM_EVENT_ESTABLISHED) {
		e->len = got->param.conn.private_data_len;
		if (e->len > sizeof(e->data))
			e->len = sizeof(e->data);
		if (e->len)
			memcpy(e->data, got->param.conn.private_data, e->len);
	}
	rdma_ack_cm_event(got);
	return 0;
}

/* Wait for @type, or @other, which is as good. */
static int expect(struct connect *c, enum rdma_cm_event_type type, enum rdma_cm_event_type other,
		  struct event *e)
{
	int rc = next_event(c, e);

	if (rc)
		return rc;
	return e->type == type || e->type == other ? 0 : fail_event(c, e);
}

/* -- the queue pair ----------------------------------------------------------------- */

static unsigned mtu_bytes(enum ibv_mtu mtu)
{
	return 128u << mtu;
}

static enum ibv_mtu mtu_code(unsigned bytes)
{
	enum ibv_mtu mtu = IBV_MTU_256;

	while (mtu < IBV_MTU_4096 && mtu_bytes(mtu + 1) <= bytes)
		mtu++;
	return mtu;
}

/* What the user set goes over what rdma_cm found. */
static void apply_settings(const struct verbs_ep *ep, struct ibv_qp_attr *attr, int mask)
{
	const struct verbs_settings *s = &((const struct verbs_fabric *)ep->base.fab)->settings;

	/* The least: a peer may write, where it has a key. */
	attr->qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
	if (s->pkey_index >= 0)
		attr->pkey_index = (uint16_t)s->pkey_index;
	if (s->service_level >= 0)
		attr->ah_attr.sl = (uint8_t)s->service_level;
	if (s->traffic_class >= 0)
		attr->ah_attr.grh.traffic_class = (uint8_t)s->traffic_class;
	if (s->gid_index >= 0 && ep->rail->link == VERBS_INFINIBAND)
		attr->ah_attr.grh.sgid_index = (uint8_t)s->gid_index;
	if (mask & IBV_QP_PATH_MTU && mtu_bytes(attr->path_mtu) > ep->mtu)
		attr->path_mtu = mtu_code(ep->mtu);
	attr->min_rnr_timer = RNR_TIMER;
	attr->timeout = (uint8_t)s->timeout;
	attr->retry_cnt = (uint8_t)s->retry_count;
	attr->rnr_retry = (uint8_t)s->rnr_retry_count;
}

/* Did rdma_cm take the GID that was asked for? */
static int check_gid(const struct connect *c, const struct ibv_qp_attr *attr, int mask)
{
	const struct verbs_ep *ep = c->ep;
	int wanted = ((const struct verbs_fabric *)ep->base.fab)->settings.gid_index;

	if (!(mask & IBV_QP_AV) || wanted < 0 || ep->rail->link != VERBS_ROCE ||
	    attr->ah_attr.grh.sgid_index == wanted)
		return 0;
	return via_fail(c->err, -EINVAL,
			"connect %s to %s\nrdma_cm takes GID %u, not gid-index=%d\n"
			"leave gid-index out, or set the RoCE version with cma_roce_mode",
			name_of(c), c->peer, attr->ah_attr.grh.sgid_index, wanted);
}

static int move_qp(const struct connect *c, struct rdma_cm_id *id, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = {.qp_state = state};
	int mask, rc;

	if (rdma_init_qp_attr(id, &attr, &mask))
		return fail_call(c, "rdma_init_qp_attr", errno);
	rc = check_gid(c, &attr, mask);
	if (rc)
		return rc;
	apply_settings(c->ep, &attr, mask);
	rc = ibv_modify_qp(c->ep->qp, &attr, mask);
	return rc ? via_fail(c->err, verbs_code(rc),
			     "connect %s to %s\n"
			     "ibv_modify_qp to %s: %s\n"
			     "check pkey-index, service-level, gid-index and mtu",
			     name_of(c), c->peer,
			     state == IBV_QPS_INIT  ? "INIT"
			     : state == IBV_QPS_RTR ? "RTR"
						    : "RTS",
			     strerror(rc))
		  : 0;
}

static int move_qp_to_work(const struct connect *c, struct rdma_cm_id *id)
{
	int rc = move_qp(c, id, IBV_QPS_RTR);

	return rc ? rc : move_qp(c, id, IBV_QPS_RTS);
}

/* The largest MTU this side takes. */
static unsigned own_mtu(const struct connect *c)
{
	unsigned set = ((const struct verbs_fabric *)c->ep->base.fab)->settings.mtu;

	return set && set < c->ep->rail->mtu ? set : c->ep->rail->mtu;
}

static void agree_on_mtu(const struct connect *c, unsigned theirs)
{
	c->ep->mtu = theirs < own_mtu(c) ? theirs : own_mtu(c);
}

static struct rdma_conn_param connect_param(const struct connect *c,
					    const uint8_t data[VERBS_GREETING])
{
	const struct verbs_settings *s = &((const struct verbs_fabric *)c->ep->base.fab)->settings;

	return (struct rdma_conn_param){.private_data = data,
					.private_data_len = VERBS_GREETING,
					.responder_resources = 1, /* iWARP devices may ask for it */
					.initiator_depth = 1,
					.retry_count = (uint8_t)s->retry_count,
					.rnr_retry_count = (uint8_t)s->rnr_retry_count,
					.qp_num = c->ep->qp->qp_num};
}

/* -- hello -------------------------------------------------------------------------- */

/* Wait until the hello was acknowledged, or came. */
static int await_hello(struct connect *c)
{
	for (;;) {
		struct via_comp comp;
		int fd, n = verbs_poll(&c->ep->base, &comp, 1);

		if (n == 1 && !comp.status && comp.ctx == c->ep)
			return 0;
		if (n < 0 || n == 1) {
			int rc = n < 0 ? n : comp.status;

			return rc == -ECANCELED || !c->ep->base.why[0]
				       ? fail_code(c, rc)
				       : via_fail(c->err, rc,
						  "connect %s to %s\n%s\n"
						  "see the peer's own error",
						  name_of(c), c->peer, c->ep->base.why);
		}
		if (!verbs_arm(&c->ep->base, &fd)) {
			int rc = wait_a_little(c);

			if (rc)
				return fail_code(c, rc);
		}
	}
}

/* -- active ------------------------------------------------------------------------- */

/* The peer's place that suits this rail: the one of the same number, else any of its family. */
static const struct verbs_place *choose_place(const struct verbs_ep *ep,
					      const struct verbs_address *peer)
{
	const struct verbs_fabric *fab = (const struct verbs_fabric *)ep->base.fab;
	unsigned first = (unsigned)(ep->rail - fab->rail) % peer->nplaces;

	for (unsigned i = 0; i < peer->nplaces; i++) {
		const struct verbs_place *place = &peer->place[(first + i) % peer->nplaces];

		if (place->ip.family == ep->rail->source.ip.family)
			return place;
	}
	return NULL;
}

static int resolve(struct connect *c, const struct verbs_place *place)
{
	struct verbs_ep *ep = c->ep;
	struct verbs_ip to = place->ip;
	int ms = via_deadline_poll_ms(c->wait->deadline_ns);
	struct sockaddr_storage src, dst;
	struct event e;
	int rc;

	if (ms < 0 || ms > RESOLVE_MS_MAX)
		ms = RESOLVE_MS_MAX;
	to.scope = verbs_ip_is_link_local(&to) ? ep->rail->source.ip.scope : 0;
	verbs_ip_to_sockaddr(&ep->rail->source.ip, 0, &src);
	verbs_ip_to_sockaddr(&to, place->port, &dst);
	if (rdma_create_id(ep->channel, &ep->conn, ep, RDMA_PS_TCP)) {
		ep->conn = NULL;
		return fail_call(c, "rdma_create_id", errno);
	}
	if (rdma_resolve_addr(ep->conn, (struct sockaddr *)&src, (struct sockaddr *)&dst, ms))
		return fail_call(c, "rdma_resolve_addr", errno);
	rc = expect(c, RDMA_CM_EVENT_ADDR_RESOLVED, RDMA_CM_EVENT_ADDR_RESOLVED, &e);
	if (rc)
		return rc;
	if (strcmp(ibv_get_device_name(ep->conn->verbs->device), ep->rail->device) != 0 ||
	    ep->conn->port_num != ep->rail->port)
		return via_fail(c->err, -EHOSTUNREACH,
				"connect %s to %s\nthe route goes over %s/%u\n"
				"name that device, or set a route over this one",
				name_of(c), c->peer, ibv_get_device_name(ep->conn->verbs->device),
				ep->conn->port_num);
	ms = via_deadline_poll_ms(c->wait->deadline_ns);
	if (rdma_resolve_route(ep->conn, ms < 0 || ms > RESOLVE_MS_MAX ? RESOLVE_MS_MAX : ms))
		return fail_call(c, "rdma_resolve_route", errno);
	return expect(c, RDMA_CM_EVENT_ROUTE_RESOLVED, RDMA_CM_EVENT_ROUTE_RESOLVED, &e);
}

/* Ask the peer, and check what it shows. */
static int request(struct connect *c, struct event *e)
{
	struct verbs_greeting ours = {.nonce = c->nonce, .mtu = own_mtu(c)};
	struct verbs_greeting theirs = {.passive = true, .nonce = c->nonce};
	uint8_t data[VERBS_GREETING];
	struct rdma_conn_param param;
	int rc = move_qp(c, c->ep->conn, IBV_QPS_INIT);

	if (rc)
		return rc;
	verbs_greeting_encode(&ours, data);
	param = connect_param(c, data);
	if (rdma_connect(c->ep->conn, &param))
		return fail_call(c, "rdma_connect", errno);
	/* Where the kernel moves the queue pair itself (iWARP) it is established at once. */
	rc = expect(c, RDMA_CM_EVENT_CONNECT_RESPONSE, RDMA_CM_EVENT_ESTABLISHED, e);
	if (rc)
		return rc;
	rc = verbs_greeting_check(e->data, e->len, &theirs);
	if (rc) {
		if (e->type == RDMA_CM_EVENT_CONNECT_RESPONSE)
			(void)rdma_reject(c->ep->conn, NULL, 0);
		return fail_code(c, rc);
	}
	agree_on_mtu(c, theirs.mtu);
	return 0;
}

static int connect_active(struct connect *c, const struct verbs_address *peer)
{
	const struct verbs_place *place = choose_place(c->ep, peer);
	struct event e;
	char ip[64];
	int rc;

	if (!place)
		return via_fail(c->err, -EHOSTUNREACH,
				"connect %s\nthe peer listens on %s addresses, this side has the "
				"other kind\ngive both devices addresses of one kind",
				name_of(c), peer->place[0].ip.family == AF_INET ? "IPv4" : "IPv6");
	snprintf(c->peer, sizeof(c->peer), "%s port %u", verbs_ip_text(&place->ip, ip, sizeof(ip)),
		 place->port);
	rc = resolve(c, place);
	if (!rc)
		rc = request(c, &e);
	if (!rc)
		rc = move_qp_to_work(c, c->ep->conn);
	if (!rc && e.type == RDMA_CM_EVENT_CONNECT_RESPONSE && rdma_establish(c->ep->conn))
		rc = fail_call(c, "rdma_establish", errno);
	if (rc)
		return rc;
	c->ep->connected = true;
	rc = verbs_post_hello(c->ep);
	return rc ? fail_code(c, rc) : await_hello(c);
}

/* -- passive ------------------------------------------------------------------------ */

static void refuse(struct rdma_cm_id *id, int code)
{
	uint8_t data[VERBS_REFUSAL];

	verbs_refusal_encode(code, data);
	(void)rdma_reject(id, data, sizeof(data));
	rdma_destroy_id(id);
}

/* Wait for the one who has the nonce. Whoever has not is turned away and changes nothing. */
static int await_request(struct connect *c, struct verbs_greeting *theirs)
{
	struct event e;
	int rc;

	for (;;) {
		rc = next_event(c, &e);
		if (rc)
			return rc;
		if (e.type == RDMA_CM_EVENT_DEVICE_REMOVAL)
			return fail_event(c, &e);
		if (e.type != RDMA_CM_EVENT_CONNECT_REQUEST)
			continue; /* of one who was turned away */
		rc = verbs_greeting_check(e.data, e.len, theirs);
		if (!rc) {
			c->ep->conn = e.id;
			return 0;
		}
		c->stranger = c->stranger || rc == -EACCES;
		refuse(e.id, rc);
	}
}

/* The rail that the request came in on. */
static struct verbs_rail *rail_of(struct verbs_fabric *fab, const struct rdma_cm_id *id)
{
	for (unsigned i = 0; i < fab->nrails; i++)
		if (id->verbs && id->port_num == fab->rail[i].port &&
		    !strcmp(ibv_get_device_name(id->verbs->device), fab->rail[i].device))
			return &fab->rail[i];
	return NULL;
}

static int connect_passive(struct connect *c)
{
	struct verbs_fabric *fab = (struct verbs_fabric *)c->ep->base.fab;
	struct verbs_greeting theirs = {.nonce = c->nonce};
	struct verbs_greeting ours = {.passive = true, .nonce = c->nonce};
	struct verbs_rail *rail;
	struct rdma_conn_param param;
	uint8_t data[VERBS_GREETING];
	int rc;

	snprintf(c->peer, sizeof(c->peer), "the peer");
	rc = await_request(c, &theirs);
	if (rc)
		return rc;
	verbs_close_listeners(c->ep);
	rail = rail_of(fab, c->ep->conn);
	if (!rail)
		return fail_code(c, -EHOSTUNREACH);
	rc = verbs_ep_change_rail(c->ep, rail, c->err);
	if (rc)
		return rc;
	agree_on_mtu(c, theirs.mtu);
	rc = move_qp(c, c->ep->conn, IBV_QPS_INIT);
	if (!rc && (rc = verbs_post_hello_recv(c->ep)))
		rc = fail_code(c, rc);
	if (!rc)
		rc = move_qp_to_work(c, c->ep->conn);
	if (rc)
		return rc;
	ours.mtu = c->ep->mtu;
	verbs_greeting_encode(&ours, data);
	param = connect_param(c, data);
	if (rdma_accept(c->ep->conn, &param))
		return fail_call(c, "rdma_accept", errno);
	c->ep->connected = true;
	return await_hello(c);
}

/* -- both --------------------------------------------------------------------------- */

int verbs_ep_connect(struct via_ep *base, const void *addr, size_t addr_len,
		     const uint8_t nonce[16], const struct via_wait *wait, struct via_error *err)
{
	struct verbs_ep *ep = (struct verbs_ep *)base;
	struct connect c = {.ep = ep, .wait = wait, .nonce = nonce, .err = err};
	struct verbs_address peer;
	int rc = verbs_address_decode(addr, addr_len, &peer);

	if (rc || peer.passive == ep->passive || !memcmp(peer.id, ep->id, sizeof(ep->id)))
		return via_fail(err, -EPROTO,
				"connect %s\n"
				"the peer's address of %zu bytes is not one of this fabric\n"
				"give both sides the same --fabric",
				ep->rail->name, addr_len);
	rc = ep->passive ? connect_passive(&c) : connect_active(&c, &peer);
	if (rc)
		verbs_die(ep, rc, "%s: it never got connected", ep->rail->name);
	return rc;
}
