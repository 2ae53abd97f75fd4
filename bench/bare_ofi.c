/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bare_ofi.c -- the baseline straight on libfabric: reliable datagram endpoints in one domain with
 * one completion queue.
 *
 * Writes are plain ones: a completion says that the local bytes may change, and flush() asks once,
 * by a write of FI_DELIVERY_COMPLETE, whether all are there.
 */
#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bare.h"

#define DEPTH    64u /* writes in flight on one endpoint */
#define NAME_MAX 256u
#define MSG_MAX  8192u
#define RECVS    2u /* a request is taken while the buffer of the one before is posted again */
#define SLEEP_MS 10

struct bare_end {
	struct fid_ep *ep;
	fi_addr_t peer;
};

struct bare {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_mr *mr, *msg_mr;
	uint64_t last_key; /* that was asked for */
	struct bare_end *end;
	unsigned n; /* endpoints */
	char *memory;
	size_t len;
	uint64_t peer_addr, peer_key;
	int fd; /* of the queue; -1: it spins, or yields */
	bool yields;
	struct fi_context *context; /* of writes */
	struct fi_context **free;
	unsigned nfree, ncontexts;
	struct fi_context out, in[RECVS];
	bool sending;
	struct fi_context *received; /* a message that is not dealt with yet */
	char *msg;                   /* one to send from, then RECVS to receive into */
};

/* What the other end must know: of each endpoint its name as well. */
struct card {
	uint64_t addr, key;
	struct {
		char name[NAME_MAX];
		size_t len;
	} end[16];
};

static void check(long rc, const char *what)
{
	char where[96];

	if (rc >= 0)
		return;
	snprintf(where, sizeof(where), "bare libfabric loop: %s", what);
	bench_die(where, fi_strerror((int)-rc));
}

static void version(char *buf, size_t cap)
{
	snprintf(buf, cap, "%s", BARE_OFI);
}

/* -- set-up ------------------------------------------------------------------------------- */

static struct fi_info *find(const char *provider, const char *host)
{
	struct fi_info *hints = fi_allocinfo(), *info = NULL;

	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT;
	hints->ep_attr->type = FI_EP_RDM;
	hints->domain_attr->mr_mode =
		FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_LOCAL | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup(provider);
	if (fi_getinfo(FI_VERSION(1, 14), host, NULL, host ? FI_SOURCE : 0, hints, &info))
		info = NULL;
	fi_freeinfo(hints);
	return info;
}

/* The provider of that name, alone or below rxm, as ours takes it. */
static struct fi_info *select_provider(const struct via_fabric_spec *spec)
{
	const char *name = spec->device[0] ? spec->device : "tcp";
	const char *host = spec->local_host[0] ? spec->local_host : "127.0.0.1";
	char layered[80];
	struct fi_info *info;

	if (!strcmp(name, "shm"))
		return find(name, NULL);
	info = find(name, host);
	if (info)
		return info;
	snprintf(layered, sizeof(layered), "%s;ofi_rxm", name);
	return find(layered, host);
}

static void open_cq(struct bare *b, bool sleeps)
{
	struct fi_cq_attr attr = {.size = b->ncontexts + 64,
				  .format = FI_CQ_FORMAT_MSG,
				  .wait_obj = sleeps ? FI_WAIT_FD : FI_WAIT_NONE};
	int rc = fi_cq_open(b->domain, &attr, &b->cq, NULL);

	b->fd = -1;
	if (!rc && sleeps)
		rc = fi_control(&b->cq->fid, FI_GETWAIT, &b->fd);
	if (rc && sleeps) { /* it has no descriptor */
		b->yields = true;
		attr.wait_obj = FI_WAIT_NONE;
		rc = fi_cq_open(b->domain, &attr, &b->cq, NULL);
	}
	check(rc, "fi_cq_open");
}

static void open_end(struct bare *b, struct bare_end *e)
{
	check(fi_endpoint(b->domain, b->info, &e->ep, NULL), "fi_endpoint");
	check(fi_ep_bind(e->ep, &b->av->fid, 0), "fi_ep_bind");
	check(fi_ep_bind(e->ep, &b->cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
	check(fi_enable(e->ep), "fi_enable");
}

static struct fid_mr *register_memory(struct bare *b, void *memory, size_t len, uint64_t access)
{
	struct fid_mr *mr;

	check(fi_mr_reg(b->domain, memory, len, access, 0, ++b->last_key, 0, &mr, NULL),
	      "fi_mr_reg");
	return mr;
}

static void add_memory(struct bare *b, void *memory, size_t len)
{
	(void)register_memory(b, memory, len, FI_WRITE | FI_REMOTE_WRITE);
}

/* As ours does: what a message and an endpoint take is the same then. */
static void tune(void)
{
	setenv("FI_OFI_RXM_EAGER_LIMIT", "8448", 0);
	setenv("FI_OFI_RXM_BUFFER_SIZE", access("/sys/class/infiniband", F_OK) ? "128" : "8448", 0);
	setenv("FI_OFI_RXM_MSG_RX_SIZE", "256", 0);
	setenv("FI_UNIVERSE_SIZE", "16", 0);
	setenv("FI_OFI_RXM_USE_SRX", "1", 0);
}

static struct bare *open_bare(const struct bare_config *config)
{
	struct fi_av_attr av = {.type = FI_AV_TABLE};
	struct bare *b = calloc(1, sizeof(*b));

	check(b && config->memory ? 0 : -FI_ENOMEM, "memory");
	tune();
	b->memory = config->memory;
	b->len = config->len;
	b->n = config->endpoints;
	b->ncontexts = b->n * DEPTH;
	b->context = calloc(b->ncontexts, sizeof(*b->context));
	b->free = calloc(b->ncontexts, sizeof(*b->free));
	b->end = calloc(b->n, sizeof(*b->end));
	b->msg = calloc(1 + RECVS, MSG_MAX);
	check(b->context && b->free && b->end && b->msg ? 0 : -FI_ENOMEM, "memory");
	for (unsigned i = 0; i < b->ncontexts; i++)
		b->free[b->nfree++] = &b->context[i];
	b->info = select_provider(config->spec);
	check(b->info ? 0 : -FI_ENODATA, "fi_getinfo");
	check(fi_fabric(b->info->fabric_attr, &b->fabric, NULL), "fi_fabric");
	check(fi_domain(b->fabric, b->info, &b->domain, NULL), "fi_domain");
	open_cq(b, config->sleeps);
	check(fi_av_open(b->domain, &av, &b->av, NULL), "fi_av_open");
	for (unsigned i = 0; i < b->n; i++)
		open_end(b, &b->end[i]);
	b->mr = register_memory(b, b->memory, b->len, FI_WRITE | FI_REMOTE_WRITE);
	b->msg_mr = register_memory(b, b->msg, (1 + RECVS) * MSG_MAX, FI_SEND | FI_RECV);
	return b;
}

static size_t address(struct bare *b, void *buf, size_t cap)
{
	struct card card = {.key = fi_mr_key(b->mr)};

	check(sizeof(card) <= cap ? 0 : -FI_ETOOSMALL, "address");
	if (b->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR)
		card.addr = (uintptr_t)b->memory;
	for (unsigned i = 0; i < b->n; i++) {
		card.end[i].len = NAME_MAX;
		check(fi_getname(&b->end[i].ep->fid, card.end[i].name, &card.end[i].len),
		      "fi_getname");
	}
	memcpy(buf, &card, sizeof(card));
	return sizeof(card);
}

static void post_recv(struct bare *b, struct fi_context *context)
{
	size_t at = (size_t)(context - b->in) + 1;

	check(fi_recv(b->end[0].ep, b->msg + at * MSG_MAX, MSG_MAX, fi_mr_desc(b->msg_mr),
		      FI_ADDR_UNSPEC, context),
	      "fi_recv");
}

static void connect_bare(struct bare *b, const void *buf, size_t len)
{
	struct card card;

	check(len == sizeof(card) ? 0 : -FI_EINVAL, "address");
	memcpy(&card, buf, sizeof(card));
	b->peer_addr = card.addr;
	b->peer_key = card.key;
	for (unsigned i = 0; i < b->n; i++)
		check(fi_av_insert(b->av, card.end[i].name, 1, &b->end[i].peer, 0, NULL) == 1
			      ? 0
			      : -FI_EINVAL,
		      "fi_av_insert");
	for (unsigned i = 0; i < RECVS; i++)
		post_recv(b, &b->in[i]);
}

static void close_bare(struct bare *b)
{
	for (unsigned i = 0; i < b->n; i++)
		fi_close(&b->end[i].ep->fid);
	fi_close(&b->mr->fid);
	fi_close(&b->msg_mr->fid);
	fi_close(&b->cq->fid);
	fi_close(&b->av->fid);
	fi_close(&b->domain->fid);
	fi_close(&b->fabric->fid);
	fi_freeinfo(b->info);
	free(b->msg);
	free(b->end);
	free(b->free);
	free(b->context);
	free(b);
}

/* -- completions ------------------------------------------------------------------------- */

/* Take what has completed; returns how many. */
static ssize_t reap(struct bare *b)
{
	struct fi_cq_msg_entry entry[DEPTH];
	struct fi_cq_err_entry wrong = {0};
	ssize_t n = fi_cq_read(b->cq, entry, DEPTH);

	if (n == -FI_EAGAIN)
		return 0;
	if (n == -FI_EAVAIL && fi_cq_readerr(b->cq, &wrong, 0) > 0)
		check(-wrong.err, "an operation");
	check(n, "fi_cq_read");
	for (ssize_t i = 0; i < n; i++) {
		if (entry[i].flags & FI_RECV)
			b->received = entry[i].op_context;
		else if (entry[i].op_context == &b->out)
			b->sending = false;
		else
			b->free[b->nfree++] = entry[i].op_context;
	}
	return n;
}

static void progress(struct bare *b)
{
	struct fid *fid = &b->cq->fid;
	struct pollfd p = {.fd = b->fd, .events = POLLIN};

	if (reap(b))
		return;
	if (b->yields)
		sched_yield();
	if (b->fd >= 0 && !fi_trywait(b->fabric, &fid, 1))
		(void)poll(&p, 1, SLEEP_MS);
}

/* -- writes ------------------------------------------------------------------------------ */

static void write_some(struct bare *b, const uint64_t *off, size_t n, size_t len)
{
	size_t posted = 0;

	while (posted < n || b->nfree < b->ncontexts) {
		while (posted < n && b->nfree) {
			struct bare_end *e = &b->end[posted % b->n];
			ssize_t rc = fi_write(
				e->ep, b->memory + off[posted], len, fi_mr_desc(b->mr), e->peer,
				b->peer_addr + off[posted], b->peer_key, b->free[b->nfree - 1]);

			if (rc == -FI_EAGAIN)
				break;
			check(rc, "fi_write");
			b->nfree--;
			posted++;
		}
		progress(b);
	}
}

static void flush(struct bare *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct iovec iov = {b->memory, 8};
		struct fi_rma_iov to = {b->peer_addr, 8, b->peer_key};
		void *desc = fi_mr_desc(b->mr);
		struct fi_msg_rma msg = {
			&iov, &desc, 1, b->end[i].peer, &to, 1, b->free[b->nfree - 1], 0};
		ssize_t rc;

		while ((rc = fi_writemsg(b->end[i].ep, &msg,
					 FI_COMPLETION | FI_DELIVERY_COMPLETE)) == -FI_EAGAIN)
			progress(b);
		check(rc, "fi_writemsg");
		b->nfree--;
		while (b->nfree < b->ncontexts)
			progress(b);
	}
}

/* -- messages ---------------------------------------------------------------------------- */

static void send_message(struct bare *b, size_t len)
{
	ssize_t rc;

	while ((rc = fi_send(b->end[0].ep, b->msg, len, fi_mr_desc(b->msg_mr), b->end[0].peer,
			     &b->out)) == -FI_EAGAIN)
		(void)reap(b); /* it connects, or has no room */
	check(rc, "fi_send");
	b->sending = true;
}

/* The next message; its buffer is posted again. */
static bool take_message(struct bare *b)
{
	struct fi_context *context = b->received;

	if (!context || b->sending)
		return false;
	b->received = NULL;
	post_recv(b, context);
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

const struct bare_ops bare_ofi = {
	.fabric = "ofi",
	.library = "libfabric",
	.writes = "fi_write, 64 in flight on each endpoint",
	.sends = "fi_send and fi_recv",
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
