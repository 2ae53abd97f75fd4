/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bare_ofi_request.c -- the baseline of a page request: a small message up and one with a page
 * down, straight on libfabric, between two processes of this host.
 *
 *   bare_ofi_request [--sleep] [--load[=N]] [--count=N] PROVIDER     e.g. "tcp;ofi_rxm"
 *
 * One process asks with 24 bytes, the other answers with 16 and a page, one request at
 * a time. Taken is the time from the post of the request to the completion of the answer's
 * receive. Both ends spin; with --sleep they sleep on their queue's descriptor, as Viaduct's do.
 * --load adds a bulk flow from the answering side to the asking one: N (default 2) endpoints with a
 * thread at either end, each with one write of 128 KiB in flight at a time. These threads
 * sleep where the provider has descriptors, and else yield the processor whenever they
 * look in vain. Prints one JSON object, times in microseconds.
 *
 * Every endpoint has a domain, a queue and memory of its own, and one thread that uses it.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/latency.h"
#include "core/clock.h"

#define REQUEST_LEN 24u
#define ANSWER_LEN  (4096u + 16u)
#define BULK_LEN    (128u << 10)
#define END_LEN     1u /* a message of so many bytes is the last one */
#define MSG_MAX     8192u
#define RECVS       2u /* a request is taken while the buffer of the one before is posted again */
#define LOAD_MAX    16u
#define COUNT_MAX   100000000u
#define WARM_UP     1000u
#define SLEEP_MS    100 /* then a look at whether this is over */
#define LIMIT_S     300u
#define KEY         1u

enum waiting { SPINS, YIELDS, SLEEPS };

struct end {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_ep *ep;
	struct fid_mr *mr;
	fi_addr_t peer;
	uint64_t peer_addr, peer_key; /* its memory */
	enum waiting waiting;
	int fd; /* of the queue, where it SLEEPS */
	char *mem;
	size_t len;
	bool sending; /* a send has not completed */
	struct fi_context out, in[RECVS];
	pthread_t thread; /* of the load */
};

/* What the other side must know. Both are one program on one host. */
struct card {
	char name[256];
	size_t name_len;
	uint64_t addr, key;
};

/* Seen by both processes. */
struct shared {
	_Atomic bool writers_stop, targets_stop;
	_Atomic uint64_t written; /* writes of the load */
};

static struct options {
	const char *provider;
	unsigned long count;
	unsigned long load; /* endpoints; 0: none */
	bool sleep;
} options = {.count = 20000};

static struct shared *shared;

static void check(long rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "bare_ofi_request: %s: %s\n", what, fi_strerror((int)-rc));
	exit(1);
}

/* -- endpoints --------------------------------------------------------------------- */

static void open_cq(struct end *e)
{
	struct fi_cq_attr attr = {.size = 64,
				  .format = FI_CQ_FORMAT_MSG,
				  .wait_obj = e->waiting == SLEEPS ? FI_WAIT_FD : FI_WAIT_NONE};
	int rc = fi_cq_open(e->domain, &attr, &e->cq, NULL);

	check(rc, attr.wait_obj == FI_WAIT_FD ? "fi_cq_open with a descriptor" : "fi_cq_open");
	if (attr.wait_obj == FI_WAIT_FD)
		check(fi_control(&e->cq->fid, FI_GETWAIT, &e->fd), "FI_GETWAIT");
}

static bool has_descriptors(const struct end *e)
{
	struct fi_cq_attr attr = {.size = 64, .wait_obj = FI_WAIT_FD};
	struct fid_cq *cq;
	int fd, rc = fi_cq_open(e->domain, &attr, &cq, NULL);

	if (rc)
		return false;
	rc = fi_control(&cq->fid, FI_GETWAIT, &fd);
	fi_close(&cq->fid);
	return !rc;
}

static void open_domain(struct end *e)
{
	struct fi_info *hints = fi_allocinfo();
	const char *host = strstr(options.provider, "shm") ? NULL : "127.0.0.1";

	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT;
	hints->ep_attr->type = FI_EP_RDM;
	hints->domain_attr->mr_mode =
		FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_LOCAL | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup(options.provider);
	check(fi_getinfo(FI_VERSION(1, 14), host, NULL, host ? FI_SOURCE : 0, hints, &e->info),
	      "fi_getinfo");
	fi_freeinfo(hints);
	check(fi_fabric(e->info->fabric_attr, &e->fabric, NULL), "fi_fabric");
	check(fi_domain(e->fabric, e->info, &e->domain, NULL), "fi_domain");
}

static void open_endpoint(struct end *e)
{
	struct fi_av_attr av = {.type = FI_AV_TABLE};

	open_cq(e);
	check(fi_av_open(e->domain, &av, &e->av, NULL), "fi_av_open");
	check(fi_endpoint(e->domain, e->info, &e->ep, NULL), "fi_endpoint");
	check(fi_ep_bind(e->ep, &e->av->fid, 0), "fi_ep_bind");
	check(fi_ep_bind(e->ep, &e->cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
	check(fi_enable(e->ep), "fi_enable");
	e->mem = mmap(NULL, e->len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	check(e->mem == MAP_FAILED ? -errno : 0, "mmap");
	memset(e->mem, 0x5a, e->len);
	check(fi_mr_reg(e->domain, e->mem, e->len, FI_SEND | FI_RECV | FI_WRITE | FI_REMOTE_WRITE,
			0, KEY, 0, &e->mr, NULL),
	      "fi_mr_reg");
}

static void meet(struct end *e, int fd)
{
	struct card mine = {.name_len = sizeof(mine.name), .key = fi_mr_key(e->mr)}, theirs;

	if (e->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR)
		mine.addr = (uintptr_t)e->mem;
	check(fi_getname(&e->ep->fid, mine.name, &mine.name_len), "fi_getname");
	if (write(fd, &mine, sizeof(mine)) != sizeof(mine) ||
	    recv(fd, &theirs, sizeof(theirs), MSG_WAITALL) != sizeof(theirs))
		check(-FI_EIO, "swap addresses");
	check(fi_av_insert(e->av, theirs.name, 1, &e->peer, 0, NULL) == 1 ? 0 : -FI_EINVAL,
	      "fi_av_insert");
	e->peer_addr = theirs.addr;
	e->peer_key = theirs.key;
}

static void close_end(struct end *e)
{
	fi_close(&e->ep->fid);
	fi_close(&e->mr->fid);
	fi_close(&e->cq->fid);
	fi_close(&e->av->fid);
	fi_close(&e->domain->fid);
	fi_close(&e->fabric->fid);
	fi_freeinfo(e->info);
	munmap(e->mem, e->len);
}

/* -- completions ------------------------------------------------------------------- */

static void wait_a_little(struct end *e)
{
	struct fid *fid = &e->cq->fid;
	struct pollfd p = {.fd = e->fd, .events = POLLIN};
	int rc;

	if (e->waiting == YIELDS)
		sched_yield();
	if (e->waiting != SLEEPS)
		return;
	rc = fi_trywait(e->fabric, &fid, 1);
	if (rc == -FI_EAGAIN)
		return;
	check(rc, "fi_trywait");
	check(poll(&p, 1, SLEEP_MS) < 0 ? -errno : 0, "poll");
}

/* The next completion, if there is one. */
static bool take(struct end *e, struct fi_cq_msg_entry *entry)
{
	struct fi_cq_err_entry wrong = {0};
	ssize_t n = fi_cq_read(e->cq, entry, 1);

	if (n == -FI_EAGAIN || n == 0)
		return false;
	if (n == -FI_EAVAIL && fi_cq_readerr(e->cq, &wrong, 0) > 0)
		check(-wrong.err, "an operation");
	check(n, "fi_cq_read");
	return true;
}

/* -- requests ---------------------------------------------------------------------- */

/* The pieces of the memory: one to send from, and then RECVS to receive into. */
static void post_send(struct end *e, size_t len)
{
	ssize_t rc;

	while ((rc = fi_send(e->ep, e->mem, len, fi_mr_desc(e->mr), e->peer, &e->out)) ==
	       -FI_EAGAIN)
		(void)fi_cq_read(e->cq, NULL, 0); /* it connects, or has no room */
	check(rc, "fi_send");
	e->sending = true;
}

static void post_recv(struct end *e, struct fi_context *context)
{
	size_t at = (size_t)(context - e->in) + 1;

	check(fi_recv(e->ep, e->mem + at * MSG_MAX, MSG_MAX, fi_mr_desc(e->mr), FI_ADDR_UNSPEC,
		      context),
	      "fi_recv");
}

/* The next message, with the send before it complete too. Returns when it was there. */
static uint64_t receive(struct end *e, struct fi_cq_msg_entry *message)
{
	struct fi_cq_msg_entry entry;
	uint64_t when = 0;

	while (e->sending || !when) {
		if (!take(e, &entry)) {
			wait_a_little(e);
		} else if (entry.flags & FI_RECV) {
			when = via_now_ns();
			*message = entry;
		} else {
			e->sending = false;
		}
	}
	return when;
}

static uint64_t ask(struct end *e)
{
	struct fi_cq_msg_entry answer;
	uint64_t start = via_now_ns(), end;

	post_send(e, REQUEST_LEN);
	end = receive(e, &answer);
	check(answer.len == ANSWER_LEN ? 0 : -FI_EIO, "an answer's length");
	post_recv(e, answer.op_context);
	return end - start;
}

static void answer_all(struct end *e)
{
	struct fi_cq_msg_entry request;

	for (;;) {
		(void)receive(e, &request);
		if (request.len == END_LEN)
			return;
		post_send(e, ANSWER_LEN);
		post_recv(e, request.op_context);
	}
}

/* -- load -------------------------------------------------------------------------- */

static void *write_bulk(void *arg)
{
	struct end *e = arg;
	struct fi_cq_msg_entry entry;

	while (!atomic_load(&shared->writers_stop)) {
		struct iovec iov = {e->mem, e->len};
		struct fi_rma_iov to = {e->peer_addr, e->len, e->peer_key};
		void *desc = fi_mr_desc(e->mr);
		struct fi_msg_rma msg = {&iov, &desc, 1, e->peer, &to, 1, &e->out, 0};
		ssize_t rc = fi_writemsg(e->ep, &msg, FI_COMPLETION | FI_DELIVERY_COMPLETE);

		if (rc == -FI_EAGAIN) {
			(void)fi_cq_read(e->cq, NULL, 0);
			continue;
		}
		check(rc, "fi_writemsg");
		while (!take(e, &entry))
			wait_a_little(e);
		atomic_fetch_add(&shared->written, 1);
	}
	return NULL;
}

/* Nothing completes here, but the provider wants to be called. */
static void *be_written(void *arg)
{
	struct end *e = arg;
	struct fi_cq_msg_entry entry;

	while (!atomic_load(&shared->targets_stop)) {
		(void)take(e, &entry);
		wait_a_little(e);
	}
	return NULL;
}

static void start_load(struct end *load, void *(*run)(void *end), int fd)
{
	for (unsigned i = 0; i < options.load; i++) {
		load[i].len = BULK_LEN;
		open_domain(&load[i]);
		load[i].waiting = has_descriptors(&load[i]) ? SLEEPS : YIELDS;
		open_endpoint(&load[i]);
		meet(&load[i], fd);
	}
	for (unsigned i = 0; i < options.load; i++)
		check(-pthread_create(&load[i].thread, NULL, run, &load[i]), "pthread_create");
}

static void end_load(struct end *load, _Atomic bool *stop)
{
	atomic_store(stop, true);
	for (unsigned i = 0; i < options.load; i++)
		pthread_join(load[i].thread, NULL);
	for (unsigned i = 0; i < options.load; i++)
		close_end(&load[i]);
}

/* -- the two sides ----------------------------------------------------------------- */

static void open_requests(struct end *e, int fd)
{
	e->len = (1 + RECVS) * MSG_MAX;
	e->waiting = options.sleep ? SLEEPS : SPINS;
	open_domain(e);
	open_endpoint(e);
	for (unsigned i = 0; i < RECVS; i++)
		post_recv(e, &e->in[i]);
	meet(e, fd);
}

static int answering_side(int fd)
{
	static struct end requests, load[LOAD_MAX];

	open_requests(&requests, fd);
	start_load(load, write_bulk, fd);
	answer_all(&requests);
	end_load(load, &shared->writers_stop);
	close_end(&requests);
	return 0;
}

static int asking_side(int fd, pid_t other)
{
	static struct end requests, load[LOAD_MAX];
	static struct via_hist times;
	struct fi_cq_msg_entry entry;
	uint64_t start, bytes;
	double seconds;
	int status;

	open_requests(&requests, fd);
	start_load(load, be_written, fd);
	for (unsigned i = 0; i < WARM_UP; i++)
		(void)ask(&requests); /* connects, too */
	start = via_now_ns();
	bytes = atomic_load(&shared->written) * BULK_LEN;
	for (unsigned long i = 0; i < options.count; i++)
		via_hist_add(&times, ask(&requests));
	bytes = atomic_load(&shared->written) * BULK_LEN - bytes;
	seconds = (double)(via_now_ns() - start) / 1e9;
	post_send(&requests, END_LEN);
	while (!take(&requests, &entry))
		wait_a_little(&requests);
	check(waitpid(other, &status, 0) == other && status == 0 ? 0 : -FI_EIO, "answering side");
	end_load(load, &shared->targets_stop); /* the writers needed it */
	close_end(&requests);
	printf("{");
	print_latency(&times);
	printf(", \"load_gib_per_s\": %.3f}\n", (double)bytes / (double)(1u << 30) / seconds);
	return 0;
}

static bool take_options(int argc, char **argv)
{
	static const struct option known[] = {{"sleep", no_argument, NULL, 's'},
					      {"load", optional_argument, NULL, 'l'},
					      {"count", required_argument, NULL, 'c'},
					      {0}};
	int id;

	while ((id = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (id == 's')
			options.sleep = true;
		else if (id == 'l')
			options.load = optarg ? strtoul(optarg, NULL, 10) : 2;
		else if (id == 'c')
			options.count = strtoul(optarg, NULL, 10);
		else
			return false;
		if (options.load > LOAD_MAX || options.count < 1 || options.count > COUNT_MAX)
			return false;
	}
	options.provider = argv[optind];
	return optind + 1 == argc;
}

int main(int argc, char **argv)
{
	int fd[2];
	pid_t pid;

	if (!take_options(argc, argv)) {
		fprintf(stderr,
			"usage: bare_ofi_request [--sleep] [--load[=N]] [--count=N] PROVIDER\n");
		return 2;
	}
	/* As Viaduct sets it (fabrics/ofi/ofi_fabric.c): what a message takes is the same then. */
	setenv("FI_OFI_RXM_BUFFER_SIZE", "8448", 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	check(shared == MAP_FAILED ? -errno : 0, "mmap");
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) ? -errno : 0, "socketpair");
	pid = fork();
	check(pid < 0 ? -errno : 0, "fork");
	alarm(LIMIT_S); /* ends every wait, of either side */
	close(fd[pid != 0]);
	if (pid)
		return asking_side(fd[0], pid);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return answering_side(fd[1]);
}
