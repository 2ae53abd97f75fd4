/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bare_verbs.c -- the baseline straight on libibverbs: reliable connections made by librdmacm in
 * its blocking mode, all with one completion queue.
 *
 * One write of SIGNAL_EVERY reports, and the last of each call.
 */
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bare.h"

#define DEPTH        128u /* writes in flight on one queue pair */
#define SIGNAL_EVERY 16u
#define ENDS_MAX     16u
#define MSG_MAX      8192u
#define RECVS        2u /* a request is taken while the buffer of the one before is posted again */
#define RESOLVE_MS   5000
#define SLEEP_MS     10
#define GIDS_MAX     64
#define SEND_ID      UINT64_MAX
#define WRITABLE     (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

struct bare_end {
	struct rdma_cm_id *id;
	uint32_t posted, done; /* writes; done: as far as known */
};

struct bare {
	bool near, sleeps;
	struct rdma_cm_id *bound; /* to the device: far listens on it */
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_mr *mr, *msg_mr;
	struct bare_end end[ENDS_MAX];
	unsigned n;
	char *memory;
	size_t len;
	uint64_t peer_addr;
	uint32_t peer_key;
	bool sending, received;
	unsigned received_in;
	char *msg; /* one to send from, then RECVS to receive into */
};

/* What the other end must know. */
struct card {
	uint64_t addr;
	uint32_t key;
	struct sockaddr_storage at; /* where far listens */
};

static void check(bool good, const char *what)
{
	char where[96];

	if (good)
		return;
	snprintf(where, sizeof(where), "bare verbs loop: %s", what);
	bench_die(where, strerror(errno));
}

static void version(char *buf, size_t cap)
{
	snprintf(buf, cap, "%s", BARE_VERBS);
}

/* -- set-up -------------------------------------------------------------------------------- */

/* The first IPv4 address of a device: that called @name, or any where it is empty. */
static bool find_address(const char *name, struct sockaddr_in *in)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	bool found = false;

	for (unsigned d = 0; list && list[d] && !found; d++) {
		struct ibv_context *c;

		if (name[0] && strcmp(ibv_get_device_name(list[d]), name) != 0)
			continue;
		c = ibv_open_device(list[d]);
		for (int i = 0; c && i < GIDS_MAX && !found; i++) {
			static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
			union ibv_gid gid;

			if (ibv_query_gid(c, 1, i, &gid) || memcmp(gid.raw, mapped, sizeof(mapped)))
				continue;
			memcpy(&in->sin_addr, gid.raw + sizeof(mapped), sizeof(in->sin_addr));
			found = true;
		}
		if (c)
			ibv_close_device(c);
	}
	if (list)
		ibv_free_device_list(list);
	return found;
}

/* A connection on loopback says nothing about the device. */
static void local_address(const struct via_fabric_spec *spec, struct sockaddr_storage *at)
{
	struct sockaddr_in *in = (struct sockaddr_in *)at;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)at;
	char name[sizeof(spec->device)];

	memset(at, 0, sizeof(*at));
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(spec->device, "/"), spec->device);
	in->sin_family = AF_INET;
	if (strncmp(spec->local_host, "127.", 4) != 0 && strcmp(spec->local_host, "::1") != 0) {
		if (inet_pton(AF_INET, spec->local_host, &in->sin_addr) == 1)
			return;
		if (inet_pton(AF_INET6, spec->local_host, &in6->sin6_addr) == 1) {
			in6->sin6_family = AF_INET6;
			return;
		}
	}
	errno = ENODEV;
	check(find_address(name, in), "a device with an IPv4 address");
}

static void register_memory(struct bare *b)
{
	b->mr = ibv_reg_mr(b->pd, b->memory, b->len, WRITABLE);
	check(b->mr, "ibv_reg_mr");
	b->msg = calloc(1 + RECVS, MSG_MAX);
	check(b->msg, "memory");
	b->msg_mr = ibv_reg_mr(b->pd, b->msg, (1 + RECVS) * MSG_MAX, IBV_ACCESS_LOCAL_WRITE);
	check(b->msg_mr, "ibv_reg_mr");
}

static void add_memory(struct bare *b, void *memory, size_t len)
{
	check(ibv_reg_mr(b->pd, memory, len, WRITABLE), "ibv_reg_mr");
}

static struct bare *open_bare(const struct bare_config *config)
{
	struct bare *b = calloc(1, sizeof(*b));
	struct sockaddr_storage at;

	check(b && config->memory && config->endpoints <= ENDS_MAX, "memory");
	b->near = config->near;
	b->sleeps = config->sleeps;
	b->memory = config->memory;
	b->len = config->len;
	b->n = config->endpoints;
	local_address(config->spec, &at);
	check(!rdma_create_id(NULL, &b->bound, NULL, RDMA_PS_TCP), "rdma_create_id");
	check(!rdma_bind_addr(b->bound, (struct sockaddr *)&at), "rdma_bind_addr");
	check(b->bound->verbs, "rdma_bind_addr: no device");
	if (!b->near)
		check(!rdma_listen(b->bound, (int)b->n), "rdma_listen");
	b->pd = ibv_alloc_pd(b->bound->verbs);
	check(b->pd, "ibv_alloc_pd");
	b->channel = ibv_create_comp_channel(b->bound->verbs);
	check(b->channel, "ibv_create_comp_channel");
	b->cq = ibv_create_cq(b->bound->verbs, (int)(b->n * (DEPTH + RECVS + 1)), NULL, b->channel,
			      0);
	check(b->cq, "ibv_create_cq");
	register_memory(b);
	return b;
}

static size_t address(struct bare *b, void *buf, size_t cap)
{
	struct card card = {.addr = (uintptr_t)b->memory, .key = b->mr->rkey};

	check(sizeof(card) <= cap, "address");
	memcpy(&card.at, rdma_get_local_addr(b->bound), sizeof(struct sockaddr_in6));
	memcpy(buf, &card, sizeof(card));
	return sizeof(card);
}

static void post_recv(struct bare *b, unsigned i)
{
	struct ibv_sge sge = {(uintptr_t)(b->msg + (1 + i) * MSG_MAX), MSG_MAX, b->msg_mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1}, *bad;

	errno = ibv_post_recv(b->end[0].id->qp, &wr, &bad);
	check(!errno, "ibv_post_recv");
}

static void make_qp(struct bare *b, struct bare_end *e)
{
	struct ibv_qp_init_attr attr = {.send_cq = b->cq,
					.recv_cq = b->cq,
					.qp_type = IBV_QPT_RC,
					.cap = {.max_send_wr = DEPTH + 1,
						.max_recv_wr = RECVS,
						.max_send_sge = 1,
						.max_recv_sge = 1,
						.max_inline_data = BARE_REQUEST_LEN}};

	check(!rdma_create_qp(e->id, b->pd, &attr), "rdma_create_qp");
	for (unsigned i = 0; e == b->end && i < RECVS; i++)
		post_recv(b, i);
}

static void connect_one(struct bare *b, struct bare_end *e, struct card *card)
{
	struct rdma_conn_param param = {.retry_count = 7, .rnr_retry_count = 7};

	if (!b->near) {
		check(!rdma_get_request(b->bound, &e->id), "rdma_get_request");
		make_qp(b, e);
		check(!rdma_accept(e->id, &param), "rdma_accept");
		return;
	}
	check(!rdma_create_id(NULL, &e->id, NULL, RDMA_PS_TCP), "rdma_create_id");
	check(!rdma_resolve_addr(e->id, NULL, (struct sockaddr *)&card->at, RESOLVE_MS),
	      "rdma_resolve_addr");
	check(!rdma_resolve_route(e->id, RESOLVE_MS), "rdma_resolve_route");
	make_qp(b, e);
	check(!rdma_connect(e->id, &param), "rdma_connect");
}

static void connect_bare(struct bare *b, const void *buf, size_t len)
{
	struct card card;

	check(len == sizeof(card), "address");
	memcpy(&card, buf, sizeof(card));
	b->peer_addr = card.addr;
	b->peer_key = card.key;
	for (unsigned i = 0; i < b->n; i++)
		connect_one(b, &b->end[i], &card);
}

static void close_bare(struct bare *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		rdma_disconnect(b->end[i].id);
		rdma_destroy_qp(b->end[i].id);
		rdma_destroy_id(b->end[i].id);
	}
	ibv_dereg_mr(b->mr);
	ibv_dereg_mr(b->msg_mr);
	ibv_destroy_cq(b->cq);
	ibv_destroy_comp_channel(b->channel);
	ibv_dealloc_pd(b->pd);
	rdma_destroy_id(b->bound);
	free(b->msg);
	free(b);
}

/* -- completions ------------------------------------------------------------------------------- */

static int reap(struct bare *b)
{
	struct ibv_wc wc[SIGNAL_EVERY];
	int n = ibv_poll_cq(b->cq, SIGNAL_EVERY, wc);

	check(n >= 0, "ibv_poll_cq");
	for (int i = 0; i < n; i++) {
		if (wc[i].status != IBV_WC_SUCCESS)
			bench_die("bare verbs loop: an operation", ibv_wc_status_str(wc[i].status));
		if (wc[i].opcode & IBV_WC_RECV) {
			b->received = true;
			b->received_in = (unsigned)wc[i].wr_id;
		} else if (wc[i].wr_id == SEND_ID) {
			b->sending = false;
		} else {
			b->end[wc[i].wr_id >> 32].done = (uint32_t)wc[i].wr_id;
		}
	}
	return n;
}

static void progress(struct bare *b)
{
	struct pollfd p = {.fd = b->channel->fd, .events = POLLIN};
	struct ibv_cq *cq;
	void *context;

	if (reap(b) || !b->sleeps)
		return;
	check(!ibv_req_notify_cq(b->cq, 0), "ibv_req_notify_cq");
	if (reap(b) || poll(&p, 1, SLEEP_MS) < 1)
		return;
	check(!ibv_get_cq_event(b->channel, &cq, &context), "ibv_get_cq_event");
	ibv_ack_cq_events(cq, 1);
}

/* -- writes ------------------------------------------------------------------------------ */

static void write_one(struct bare *b, unsigned i, uint64_t off, size_t len, bool last)
{
	struct bare_end *e = &b->end[i];
	bool signal = ++e->posted % SIGNAL_EVERY == 0 || last;
	struct ibv_sge sge = {(uintptr_t)(b->memory + off), (uint32_t)len, b->mr->lkey};
	struct ibv_send_wr wr = {.wr_id = (uint64_t)i << 32 | e->posted,
				 .sg_list = &sge,
				 .num_sge = 1,
				 .opcode = IBV_WR_RDMA_WRITE,
				 .send_flags = signal ? IBV_SEND_SIGNALED : 0},
			   *bad;

	wr.wr.rdma.remote_addr = b->peer_addr + off;
	wr.wr.rdma.rkey = b->peer_key;
	errno = ibv_post_send(e->id->qp, &wr, &bad);
	check(!errno, "ibv_post_send");
}

static void write_some(struct bare *b, const uint64_t *off, size_t n, size_t len)
{
	for (size_t i = 0; i < n; i++) {
		unsigned e = (unsigned)(i % b->n);

		while (b->end[e].posted - b->end[e].done == DEPTH)
			progress(b);
		write_one(b, e, off[i], len, i + b->n >= n);
	}
	for (unsigned e = 0; e < b->n; e++)
		while (b->end[e].posted != b->end[e].done)
			progress(b);
}

static void flush(struct bare *b)
{
	uint64_t off[ENDS_MAX] = {0};

	/* Acknowledged is there; and the first time it connects. */
	write_some(b, off, b->n, 8);
}

/* -- messages ---------------------------------------------------------------------------- */

static void send_message(struct bare *b, size_t len)
{
	struct ibv_sge sge = {(uintptr_t)b->msg, (uint32_t)len, b->msg_mr->lkey};
	struct ibv_send_wr wr = {.wr_id = SEND_ID,
				 .sg_list = &sge,
				 .num_sge = 1,
				 .opcode = IBV_WR_SEND,
				 .send_flags = IBV_SEND_SIGNALED |
					       (len <= BARE_REQUEST_LEN ? IBV_SEND_INLINE : 0)},
			   *bad;

	b->sending = true;
	errno = ibv_post_send(b->end[0].id->qp, &wr, &bad);
	check(!errno, "ibv_post_send");
}

/* The next message; its buffer is posted again. */
static bool take_message(struct bare *b)
{
	if (!b->received || b->sending)
		return false;
	b->received = false;
	post_recv(b, b->received_in);
	return true;
}

static void ask(struct bare *b)
{
	send_message(b, BARE_REQUEST_LEN);
	while (!take_message(b))
		progress(b);
}

static void answer(struct bare *b, size_t len)
{
	progress(b);
	if (take_message(b))
		send_message(b, len);
}

const struct bare_ops bare_verbs = {
	.fabric = "verbs",
	.library = "libibverbs",
	.writes = "RDMA writes, 128 in flight on each queue pair, one of 16 signalled",
	.sends = "send and receive",
	.version = version,
	.open = open_bare,
	.address = address,
	.connect = connect_bare,
	.close = close_bare,
	.write = write_some,
	.flush = flush,
	.progress = progress,
	.add_memory = add_memory,
	.ask = ask,
	.answer = answer,
};
