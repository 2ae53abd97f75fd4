/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * side.c -- the suite's own ground: sides and pairs, connected and released.
 *
 * Must never hide an error of the back end: what a set-up call returns fails the case, in the
 * back end's own words.
 *
 * Invariant: side_close() releases whatever side_open() got, in the order that fabric.h allows.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buffer.h"
#include "tests/contract/contract.h"

static const uint8_t nonce[16] = "contract's nonce";

static void decide(struct contract *t, enum verdict verdict, const char *fmt, va_list ap)
{
	if (t->verdict != PASS)
		return;
	t->verdict = verdict;
	vsnprintf(t->text, sizeof(t->text), fmt, ap);
}

bool contract_fail(struct contract *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	decide(t, FAIL, fmt, ap);
	va_end(ap);
	return false;
}

bool contract_skip(struct contract *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	decide(t, SKIP, fmt, ap);
	va_end(ap);
	return false;
}

bool contract_explained(struct contract *t, const char *call, int ret, const struct via_error *err)
{
	char line[640];

	if (err->code == ret && err->what[0])
		return true;
	via_error_format(err, line, sizeof(line));
	return contract_fail(t, "%s returned %s, but says %s: \"%s\"", call, via_err_name(ret),
			     via_err_name(err->code), line);
}

enum verdict contract_run(contract_case *run, const char *spec, uint64_t patience_ns, char *text,
			  size_t cap)
{
	struct contract t = {.spec = spec, .patience_ns = patience_ns};

	run(&t);
	snprintf(text, cap, "%s: %s", spec, t.text);
	return t.verdict;
}

/* -- one side -------------------------------------------------------------- */

static bool setup_failed(struct contract *t, const char *call, int ret, const struct via_error *err)
{
	char line[640];

	via_error_format(err, line, sizeof(line));
	return contract_fail(t, "%s: %s: %s", call, via_err_name(ret), line);
}

/* The back end is not in this build, or finds nothing here: say how it would. */
static bool open_fabric(struct contract *t, struct side *side)
{
	struct via_fabric_spec spec;
	struct via_error err = {0};
	char line[640];
	int ret = via_fabric_spec_parse(t->spec, &spec, &err);

	if (ret == -ENODEV) {
		const struct via_fabric_absent *absent = via_fabric_absent_list();
		size_t len = strcspn(t->spec, ":,");

		while (absent->name &&
		       (strlen(absent->name) != len || strncmp(absent->name, t->spec, len) != 0))
			absent++;
		return contract_skip(t, "%s", absent->name ? absent->reason : "no such back end");
	}
	if (ret)
		return setup_failed(t, "via_fabric_spec_parse", ret, &err);
	snprintf(spec.local_host, sizeof(spec.local_host), "127.0.0.1");
	ret = via_fabric_open(&spec, &side->fab, &err);
	via_error_format(&err, line, sizeof(line));
	if (ret == -ENODEV)
		return contract_skip(t, "%s", line);
	if (ret)
		return setup_failed(t, "open", ret, &err);
	side->ops = side->fab->ops;
	return true;
}

bool side_open(struct contract *t, struct side *side, enum via_ep_side kind, unsigned neps,
	       size_t mem_len)
{
	struct via_error err = {0};
	int ret;

	memset(side, 0, sizeof(*side));
	if (!open_fabric(t, side))
		return false;
	side->mem_len = mem_len;
	side->mem = via_pages_alloc(mem_len);
	if (!side->mem)
		return contract_fail(t, "no memory for %zu bytes", mem_len);
	ret = side->ops->mr_reg(side->fab, side->mem, mem_len, VIA_MR_REMOTE_WRITE, &side->mr,
				&err);
	if (ret)
		return setup_failed(t, "mr_reg", ret, &err);
	for (; side->neps < neps; side->neps++) {
		struct end *end = &side->end[side->neps];

		end->side = side;
		ret = side->ops->ep_open(side->fab, kind, &end->ep, &err);
		if (ret)
			return setup_failed(t, "ep_open", ret, &err);
	}
	return true;
}

void side_close(struct side *side)
{
	for (unsigned i = 0; i < side->neps; i++) {
		struct end *end = &side->end[i];

		if (end->rkey)
			side->ops->rkey_free(end->rkey);
		if (end->ep)
			side->ops->ep_close(end->ep);
		free(end->log);
	}
	if (side->mr)
		side->ops->mr_dereg(side->mr);
	if (side->fab)
		side->ops->close(side->fab);
	if (side->mem)
		via_pages_free(side->mem, side->mem_len);
	memset(side, 0, sizeof(*side));
}

/* -- a pair ---------------------------------------------------------------- */

struct connecting {
	struct end *end, *peer;
};

static void connect_end(struct contract *t, void *arg)
{
	const struct connecting *c = arg;
	const struct via_fabric_ops *ops = c->end->side->ops;
	struct via_wait wait = {via_deadline_in(t->patience_ns), -1};
	size_t cap = c->peer->side->fab->caps.addr_len_max;
	uint8_t *addr = malloc(cap);
	struct via_error err = {0};
	ssize_t len = ops->ep_address(c->peer->ep, addr, cap);
	int ret;

	if (len <= 0) {
		contract_fail(t, "ep_address: %s", via_err_name((int)len));
	} else {
		ret = ops->ep_connect(c->end->ep, addr, (size_t)len, nonce, &wait, &err);
		if (ret)
			setup_failed(t, "ep_connect", ret, &err);
	}
	free(addr);
}

bool end_key(struct contract *t, const struct via_mr *mr, struct end *to, struct end *from,
	     struct via_rkey **rkey)
{
	const struct via_fabric_ops *ops = to->side->ops;
	size_t cap = to->side->fab->caps.rkey_len_max;
	uint8_t *key = malloc(cap);
	struct via_error err = {0};
	ssize_t len = ops->rkey_pack(mr, to->ep, key, cap);
	int ret = 0;

	if (len <= 0)
		contract_fail(t, "rkey_pack: %s", via_err_name((int)len));
	else
		ret = ops->rkey_unpack(from->ep, key, (size_t)len, mr->len, rkey, &err);
	if (ret)
		setup_failed(t, "rkey_unpack", ret, &err);
	free(key);
	return len > 0 && !ret;
}

static bool connect_pair(struct contract *t, struct pair *pair, unsigned i)
{
	struct end *a = &pair->a.end[i], *b = &pair->b.end[i];
	struct connecting there = {a, b}, back = {b, a};
	struct worker w;

	worker_start(&w, t, connect_end, &back);
	connect_end(t, &there);
	if (!worker_join(&w, t))
		return false;
	a->drive = pair;
	b->drive = pair;
	return end_key(t, pair->b.mr, b, a, &a->rkey) && end_key(t, pair->a.mr, a, b, &b->rkey);
}

bool pair_open(struct contract *t, struct pair *pair, unsigned neps, size_t mem_len)
{
	memset(pair, 0, sizeof(*pair));
	if (!side_open(t, &pair->a, VIA_EP_ACTIVE, neps, mem_len) ||
	    !side_open(t, &pair->b, VIA_EP_PASSIVE, neps, mem_len))
		return false;
	for (unsigned i = 0; i < neps; i++)
		if (!connect_pair(t, pair, i))
			return false;
	return true;
}

void pair_close(struct pair *pair)
{
	side_close(&pair->a);
	side_close(&pair->b);
}

void pair_part(struct pair *pair)
{
	for (unsigned i = 0; i < pair->a.neps; i++) {
		pair->a.end[i].drive = NULL;
		pair->b.end[i].drive = NULL;
	}
}

/* -- threads --------------------------------------------------------------- */

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	w->run(&w->t, w->arg);
	return NULL;
}

void worker_start(struct worker *w, const struct contract *t,
		  void (*run)(struct contract *t, void *arg), void *arg)
{
	int ret;

	*w = (struct worker){.run = run, .arg = arg};
	w->t = (struct contract){.spec = t->spec, .patience_ns = t->patience_ns};
	ret = pthread_create(&w->thread, NULL, worker_main, w);
	if (ret) {
		fprintf(stderr, "contract: no thread: %s\n", strerror(ret));
		abort();
	}
}

bool worker_join(struct worker *w, struct contract *t)
{
	pthread_join(w->thread, NULL);
	if (w->t.verdict == FAIL)
		contract_fail(t, "%s", w->t.text);
	return t->verdict == PASS;
}
