/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_end.c -- how an endpoint ends: aborted in whatever it does, closed in any order.
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/contract/contract.h"

#define KIB       ((size_t)1 << 10)
#define BUSY_POST 4096u

/* -- with work outstanding ------------------------------------------------- */

struct outstanding {
	struct pair pair;
	unsigned writes, silent, recvs;
	bool send;
	unsigned canceled, silent_canceled; /* writes that were told so */
};

/* As many writes as fit (every fourth without ctx), a message, and receives. */
static bool leave_work(struct contract *t, struct outstanding *o)
{
	struct end *a = &o->pair.a.end[0];
	unsigned depth = (unsigned)min_size(o->pair.a.fab->caps.tx_depth, 32);

	if (!end_recv(t, &o->pair.b.end[0], 0, 64, ctx_of(0)))
		return false;
	o->send = !end_try_send(a, 0, 8, ctx_of(1000), 0);
	for (unsigned tries = 0; tries < 4 * depth && o->writes + o->send < depth; tries++) {
		bool silent = o->writes % 4 == 3;
		int ret = end_try_write(a, 0, 0, 64 * KIB, silent ? NULL : ctx_of(o->writes));

		if (ret && ret != -EAGAIN)
			return contract_fail(t, "post_write: %s", via_err_name(ret));
		o->writes += !ret;
		o->silent += !ret && silent;
	}
	while (o->recvs < min_size(o->pair.a.fab->caps.rx_depth, 8) &&
	       end_recv(t, a, 0, 64, ctx_of(2000 + o->recvs)))
		o->recvs++;
	return t->verdict == PASS;
}

static bool told_once(struct contract *t, struct outstanding *o)
{
	const struct end *a = &o->pair.a.end[0];
	unsigned told[3000] = {0};

	o->canceled = 0;
	o->silent_canceled = 0;
	for (unsigned i = 0; i < a->nlog; i++) {
		const struct via_comp *comp = &a->log[i];

		if (comp->status != -ECANCELED && (comp->status || !comp->ctx))
			return contract_fail(t, "ctx %p completes with %s", comp->ctx,
					     via_err_name(comp->status));
		o->canceled += comp->ctx && comp->status && comp->kind == VIA_COMP_WRITE;
		if (!comp->ctx)
			o->silent_canceled++;
		else if (ctx_index(comp->ctx) >= 3000 || told[ctx_index(comp->ctx)]++)
			return contract_fail(t, "ctx %p is told twice", comp->ctx);
	}
	for (unsigned i = 0; i < o->writes; i++)
		if (i % 4 != 3 && !told[i])
			return contract_fail(t, "write %u was never told", i);
	for (unsigned i = 0; i < o->recvs; i++)
		if (!told[2000 + i])
			return contract_fail(t, "receive %u was never told", i);
	if (o->silent_canceled > o->silent || told[1000] != o->send)
		return contract_fail(t, "%u of %u writes without ctx told, %u of %u sends",
				     o->silent_canceled, o->silent, told[1000], o->send);
	return true;
}

/* Poll the aborted end, and no other, until it is through. */
static bool drain(struct contract *t, struct end *end)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);

	while (end_poll(end) >= 0)
		if (via_deadline_passed(deadline_ns))
			return contract_fail(t, "an aborted endpoint is never through");
	if (end->status != -ECANCELED)
		return contract_fail(t, "an aborted endpoint ends with %s",
				     via_err_name(end->status));
	return true;
}

static bool takes_nothing(struct contract *t, struct end *a)
{
	struct pollfd pfd = {.fd = -1, .events = POLLIN};
	struct via_sge sge = {a->side->mr, a->side->mem, 64};
	int write = end_try_write(a, 0, 0, 64, ctx_of(0)), send = end_try_send(a, 0, 8, NULL, 0);
	int recv = a->side->ops->post_recv(a->ep, &sge, ctx_of(0));

	if (write != -ECANCELED || send != -ECANCELED || recv != -ECANCELED)
		return contract_fail(t, "after an abort: post_write %s, post_send %s, post_recv %s",
				     via_err_name(write), via_err_name(send), via_err_name(recv));
	if (!a->side->ops->arm(a->ep, &pfd.fd) &&
	    poll(&pfd, 1, (int)(t->patience_ns / 1000000)) < 1)
		return contract_fail(t, "an aborted endpoint lets its owner sleep");
	return true;
}

/* Abort after @polls; *@canceled and *@silent grow by the writes with and without ctx told so. */
static void abort_once(struct contract *t, unsigned polls, unsigned *canceled, unsigned *silent)
{
	struct outstanding o = {0};
	struct end *a = &o.pair.a.end[0];

	if (pair_open(t, &o.pair, 1, 64 * KIB) && leave_work(t, &o)) {
		for (unsigned i = 0; i < polls; i++)
			end_step(a);
		o.pair.a.ops->ep_abort(a->ep);
		o.pair.a.ops->ep_abort(a->ep);
		if (drain(t, a) && told_once(t, &o) && takes_nothing(t, a)) {
			o.pair.a.ops->ep_abort(a->ep);
			pair_settle(&o.pair);
			told_once(t, &o);
		}
		*canceled += o.canceled;
		*silent += o.silent_canceled;
	}
	pair_close(&o.pair);
}

void case_abort_outstanding(struct contract *t)
{
	unsigned canceled = 0, silent = 0;

	for (unsigned round = 0; t->verdict == PASS && round < 4; round++)
		abort_once(t, round, &canceled, &silent);
	/* Each fourth write had no ctx; that just those were always done in time is no chance. */
	if (canceled > 24 && !silent)
		contract_fail(t, "%u writes were canceled, but none without ctx", canceled);
}

/* -- from another thread --------------------------------------------------- */

struct sleeper {
	struct end *end;
	atomic_bool armed;
};

/* The owner's loop: poll, arm, sleep, until the endpoint is dead. */
static void sleep_until_dead(struct contract *t, void *arg)
{
	struct sleeper *s = arg;
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	struct pollfd pfd = {.fd = -1, .events = POLLIN};

	while (end_poll(s->end) >= 0) {
		if (via_deadline_passed(deadline_ns)) {
			contract_fail(t, "nobody woke the sleeper, or it is not dead");
			break;
		}
		if (s->end->side->ops->arm(s->end->ep, &pfd.fd))
			continue;
		atomic_store(&s->armed, true);
		poll(&pfd, 1, via_deadline_poll_ms(deadline_ns));
	}
	atomic_store(&s->armed, true);
}

void case_abort_wakes(struct contract *t)
{
	for (unsigned round = 0; t->verdict == PASS && round < 4; round++) {
		struct sleeper s = {0};
		struct worker w;
		struct pair pair;

		if (pair_open(t, &pair, 1, 64 * KIB) &&
		    end_recv(t, &pair.a.end[0], 0, 64, ctx_of(0))) {
			s.end = &pair.a.end[0];
			worker_start(&w, t, sleep_until_dead, &s);
			/* In one round the abort may come before the sleep. */
			while (round && !atomic_load(&s.armed))
				end_poll(&pair.b.end[0]);
			pair.a.ops->ep_abort(s.end->ep);
			worker_join(&w, t);
		}
		pair_close(&pair);
	}
}

struct busy {
	struct end *end;
	atomic_uint taken;
	atomic_bool aborted; /* ep_abort() has returned */
};

static void write_until_dead(struct contract *t, void *arg)
{
	struct busy *busy = arg;
	struct end *end = busy->end;
	unsigned char told[BUSY_POST] = {0};
	unsigned taken = 0;

	while (taken < BUSY_POST) {
		bool aborted = atomic_load(&busy->aborted);
		int ret = end_try_write(end, 0, 0, 256, ctx_of(taken));

		if (!ret && aborted)
			contract_fail(t, "a write was taken after ep_abort had returned");
		if (ret && ret != -EAGAIN && ret != -ECANCELED)
			contract_fail(t, "post_write: %s", via_err_name(ret));
		if (t->verdict != PASS || ret == -ECANCELED)
			break;
		taken += !ret;
		atomic_store(&busy->taken, taken);
		if (ret || taken % 16 == 0)
			end_poll(end);
	}
	atomic_store(&busy->taken, BUSY_POST);
	while (taken == BUSY_POST && !atomic_load(&busy->aborted))
		end_poll(end);
	if (!drain(t, end))
		return;
	for (unsigned i = 0; i < end->nlog; i++)
		told[ctx_index(end->log[i].ctx) % BUSY_POST]++;
	for (unsigned i = 0; i < taken; i++)
		if (told[i] != 1)
			contract_fail(t, "write %u of %u is told %u times", i, taken, told[i]);
	if (end->nlog != taken)
		contract_fail(t, "%u completions for %u writes", end->nlog, taken);
}

void case_abort_while_busy(struct contract *t)
{
	for (unsigned round = 0; t->verdict == PASS && round < 4; round++) {
		struct busy busy = {0};
		struct worker w;
		struct pair pair;

		if (pair_open(t, &pair, 1, 64 * KIB)) {
			busy.end = &pair.a.end[0];
			worker_start(&w, t, write_until_dead, &busy);
			while (atomic_load(&busy.taken) < 100 * round)
				end_poll(&pair.b.end[0]);
			pair.a.ops->ep_abort(busy.end->ep);
			atomic_store(&busy.aborted, true);
			worker_join(&w, t);
		}
		pair_close(&pair);
	}
}

/* -- closing --------------------------------------------------------------- */

enum { CLOSE_EP_A, CLOSE_EP_B, CLOSE_MR_A, CLOSE_MR_B, CLOSES };

static void close_one(struct pair *pair, unsigned what)
{
	struct side *side = what == CLOSE_EP_A || what == CLOSE_MR_A ? &pair->a : &pair->b;

	if (what == CLOSE_MR_A || what == CLOSE_MR_B) {
		side->ops->mr_dereg(side->mr);
		side->mr = NULL;
	} else {
		side->ops->rkey_free(side->end[0].rkey);
		side->ops->ep_close(side->end[0].ep);
		side->end[0].rkey = NULL;
		side->end[0].ep = NULL;
	}
}

/* The @n-th order of CLOSES things. */
static void close_in_order(struct pair *pair, unsigned n)
{
	unsigned left[CLOSES] = {CLOSE_EP_A, CLOSE_EP_B, CLOSE_MR_A, CLOSE_MR_B};

	for (unsigned count = CLOSES; count; count--) {
		unsigned at = n % count;

		n /= count;
		close_one(pair, left[at]);
		memmove(&left[at], &left[at + 1], (count - at - 1) * sizeof(left[0]));
		for (unsigned i = 0; i < 20; i++) {
			end_poll(&pair->a.end[0]);
			end_poll(&pair->b.end[0]);
		}
	}
}

void case_close_orders(struct contract *t)
{
	for (unsigned n = 0; t->verdict == PASS && n < 24; n++) {
		struct outstanding o = {0};

		if (pair_open(t, &o.pair, 1, 64 * KIB) && leave_work(t, &o))
			close_in_order(&o.pair, n);
		pair_close(&o.pair);
	}
}
