/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_process.c -- two processes: what holds in one must hold between two, and a peer may die.
 *
 * The child is forked before either opens the fabric. It is side b; a socket pair stands in for
 * the control connection. Each message on it is a length and that many bytes.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/contract/flow.h"

#define MIB       ((size_t)1 << 20)
#define ROUNDS    30u
#define MEM_LEN   (2 * MIB)
#define BYTES_MAX 1024u

static const uint8_t nonce[16] = "contract's nonce";

struct process {
	pid_t child; /* 0: this is the child */
	int fd;
	struct pair pair; /* only this process's side is there */
	struct side *own;
	unsigned times;
};

/* -- the control connection ------------------------------------------------ */

static bool tell(struct contract *t, const struct process *p, const void *bytes, size_t len)
{
	uint32_t head = (uint32_t)len;

	if (send(p->fd, &head, sizeof(head), MSG_NOSIGNAL) != (ssize_t)sizeof(head) ||
	    (len && send(p->fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len))
		return contract_fail(t, "the other process is gone");
	return true;
}

static bool hear(struct contract *t, const struct process *p, void *bytes, size_t cap, size_t *len)
{
	uint32_t head;

	if (recv(p->fd, &head, sizeof(head), MSG_WAITALL) != (ssize_t)sizeof(head) || head > cap ||
	    (head && recv(p->fd, bytes, head, MSG_WAITALL) != (ssize_t)head))
		return contract_fail(t, "the other process says no more");
	*len = head;
	return true;
}

/* Both say and hear one empty message: neither goes on before the other. */
static bool meet(struct contract *t, const struct process *p)
{
	size_t len;

	return tell(t, p, NULL, 0) && hear(t, p, NULL, 0, &len);
}

/* -- two sides ------------------------------------------------------------- */

static bool swap_and_connect(struct contract *t, struct process *p)
{
	const struct via_fabric_ops *ops = p->own->ops;
	struct end *end = &p->own->end[0];
	struct via_wait wait = {via_deadline_in(t->patience_ns), -1};
	struct via_error err = {0};
	uint8_t mine[BYTES_MAX], theirs[BYTES_MAX];
	ssize_t mine_len = ops->ep_address(end->ep, mine, sizeof(mine));
	size_t len;
	int ret;

	if (!tell(t, p, mine, (size_t)mine_len) || !hear(t, p, theirs, sizeof(theirs), &len))
		return false;
	ret = ops->ep_connect(end->ep, theirs, len, nonce, &wait, &err);
	if (ret)
		return contract_fail(t, "ep_connect: %s: %s %s", via_err_name(ret), err.what,
				     err.seen);
	mine_len = ops->rkey_pack(p->own->mr, end->ep, mine, sizeof(mine));
	if (!tell(t, p, mine, (size_t)mine_len) || !hear(t, p, theirs, sizeof(theirs), &len))
		return false;
	ret = ops->rkey_unpack(end->ep, theirs, len, MEM_LEN, &end->rkey, &err);
	return !ret || contract_fail(t, "rkey_unpack: %s", via_err_name(ret));
}

typedef void process_half(struct contract *t, struct process *p);

/* Run one half, again and again: a side of its own, connected, then @run. */
static void run_half(struct contract *t, struct process *p, process_half *run)
{
	p->own = p->child ? &p->pair.a : &p->pair.b;
	for (unsigned i = 0; t->verdict == PASS && i < p->times; i++) {
		if (side_open(t, p->own, p->child ? VIA_EP_ACTIVE : VIA_EP_PASSIVE, 1, MEM_LEN) &&
		    swap_and_connect(t, p))
			run(t, p);
		side_close(p->own);
	}
}

/* The child's verdict goes back over the socket, after all else. */
static void child_main(struct contract *t, struct process *p, process_half *run)
{
	run_half(t, p, run);
	if (t->verdict == FAIL)
		tell(t, p, t->text, strlen(t->text) + 1);
	_exit(t->verdict == FAIL);
}

static void two_halves(struct contract *t, process_half *parent, process_half *child,
		       unsigned times)
{
	struct process p = {.times = times};
	int fds[2], status;
	struct timeval limit = {.tv_sec = (time_t)(t->patience_ns / VIA_NS_PER_S) + 1};

	if (strncmp(t->spec, "sim", 3) == 0 || strncmp(t->spec, "fault+sim", 9) == 0) {
		contract_skip(t, "sim lives in one process: run this case on ofi:tcp or ofi:shm");
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
		contract_fail(t, "socketpair: %s", strerror(errno));
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	p.child = fork();
	p.fd = fds[p.child == 0];
	close(fds[p.child != 0]);
	if (!p.child)
		child_main(t, &p, child);
	run_half(t, &p, parent);
	shutdown(p.fd, SHUT_WR);
	if (waitpid(p.child, &status, 0) == p.child && WIFEXITED(status) && WEXITSTATUS(status)) {
		struct contract here = *t, ignored = {0};
		char there[400] = "";
		size_t len;

		while (hear(&ignored, &p, there, sizeof(there) - 1, &len))
			;
		t->verdict = PASS;
		contract_fail(t, "in the other process: %s (here: %.200s)", there, here.text);
	} else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
		contract_fail(t, "the other process died: %s", strsignal(WTERMSIG(status)));
	}
	close(p.fd);
}

/* -- data ------------------------------------------------------------------ */

static void write_half(struct contract *t, struct process *p)
{
	struct flow flow = {.pair = &p->pair, .len = MEM_LEN, .rounds = ROUNDS};

	if (end_recv(t, &p->own->end[0], 64, 8, ctx_of(0)) && meet(t, p))
		flow_write(t, &flow);
	meet(t, p);
}

static void check_half(struct contract *t, struct process *p)
{
	struct flow flow = {.pair = &p->pair, .len = MEM_LEN, .rounds = ROUNDS};

	if (flow_recv(t, &flow) && meet(t, p))
		flow_check(t, &flow);
	meet(t, p);
}

void case_two_processes(struct contract *t)
{
	two_halves(t, write_half, check_half, 1);
}

/* -- revoking -------------------------------------------------------------- */

/* Keep up to @n writes under way until the endpoint refuses. */
static void write_on(struct end *end, uint64_t for_ns)
{
	uint64_t until_ns = via_deadline_in(for_ns);

	for (unsigned i = 0; !end->status && !via_deadline_passed(until_ns); i++) {
		end_try_write(end, 0, (i % 16) * (64 << 10), 64 << 10, ctx_of(0));
		end_poll(end);
	}
}

static void writer_half(struct contract *t, struct process *p)
{
	struct end *end = &p->own->end[0];
	size_t len;

	memset(p->own->mem, 0xbb, MEM_LEN);
	write_on(end, 10 * VIA_NS_PER_MS);
	if (!tell(t, p, NULL, 0))
		return;
	write_on(end, 80 * VIA_NS_PER_MS);
	p->own->ops->ep_abort(end->ep);
	write_on(end, t->patience_ns);
	if (!end->status)
		contract_fail(t, "the aborted writer lives on");
	if (tell(t, p, NULL, 0))
		hear(t, p, NULL, 0, &len);
}

/* Has the other process said something? Polls meanwhile: writes need that to move. */
static bool poll_until_told(struct contract *t, const struct process *p)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	uint32_t head;

	while (recv(p->fd, &head, sizeof(head), MSG_DONTWAIT) != (ssize_t)sizeof(head)) {
		end_poll(&p->own->end[0]);
		if (via_deadline_passed(deadline_ns))
			return contract_fail(t, "the other process says nothing");
	}
	return true;
}

static void revoker_half(struct contract *t, struct process *p)
{
	size_t bad;

	if (!poll_until_told(t, p))
		return;
	p->own->ops->mr_dereg(p->own->mr);
	p->own->mr = NULL;
	pattern_fill(p->own->mem, MEM_LEN, 5);
	if (!poll_until_told(t, p))
		return;
	bad = pattern_bad(p->own->mem, MEM_LEN, 5);
	if (bad < MEM_LEN)
		contract_fail(t, "a write of the other process landed after mr_dereg, at byte %zu",
			      bad);
	tell(t, p, NULL, 0);
}

void case_two_processes_dereg(struct contract *t)
{
	/* The dereg comes at another moment of a write each time. */
	two_halves(t, writer_half, revoker_half, 4);
}

/* -- death ----------------------------------------------------------------- */

static void survivor_half(struct contract *t, struct process *p)
{
	struct end *end = &p->own->end[0];
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	size_t len;

	/* Nothing to receive; to have it outstanding is enough. */
	if (!end_recv(t, end, 0, 64, ctx_of(1)) || !hear(t, p, NULL, 0, &len))
		return;
	write_on(end, 10 * VIA_NS_PER_MS);
	kill(p->child, SIGKILL);
	write_on(end, 300 * VIA_NS_PER_MS);
	p->own->ops->ep_abort(end->ep);
	while (end_poll(end) >= 0)
		if (via_deadline_passed(deadline_ns)) {
			contract_fail(t, "the aborted endpoint of a dead peer is never through");
			return;
		}
	if (end->count[VIA_COMP_RECV] != 1)
		contract_fail(t, "the receive completed %u times", end->count[VIA_COMP_RECV]);
}

static void victim_half(struct contract *t, struct process *p)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);

	if (!tell(t, p, NULL, 0))
		return;
	while (!via_deadline_passed(deadline_ns))
		end_poll(&p->own->end[0]);
}

void case_peer_killed(struct contract *t)
{
	two_halves(t, survivor_half, victim_half, 1);
}
