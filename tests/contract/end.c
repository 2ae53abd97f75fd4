/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * end.c -- the suite's own ground: posting, polling and logging on one endpoint.
 *
 * Must never wait without end, and never forget a completion: all of them are in the log.
 *
 * Invariant: log[0 .. nlog) is what poll() reported, in its order; count[] sums it up.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "tests/contract/contract.h"

#define POLL_MAX    16u
#define QUIET_POLLS 400u

/* -- polling --------------------------------------------------------------- */

static void log_comp(struct end *end, const struct via_comp *comp)
{
	if (end->nlog == end->log_cap) {
		end->log_cap = end->log_cap ? 2 * end->log_cap : 64;
		end->log = realloc(end->log, end->log_cap * sizeof(*end->log));
		if (!end->log)
			abort();
	}
	end->log[end->nlog++] = *comp;
	if (comp->kind >= VIA_COMP_WRITE && comp->kind <= VIA_COMP_RECV)
		end->count[comp->kind]++;
}

int end_poll(struct end *end)
{
	struct via_comp comp[POLL_MAX];
	int n;

	if (!end->ep)
		return 0;
	n = end->side->ops->poll(end->ep, comp, POLL_MAX);
	for (int i = 0; i < n; i++)
		log_comp(end, &comp[i]);
	if (n < 0)
		end->status = n;
	return n;
}

static unsigned pair_poll(struct pair *pair)
{
	unsigned n = 0;

	for (unsigned i = 0; i < EPS_MAX; i++) {
		int a = end_poll(&pair->a.end[i]), b = end_poll(&pair->b.end[i]);

		n += (a > 0) + (b > 0);
	}
	return n;
}

void end_step(struct end *end)
{
	if (end->drive)
		pair_poll(end->drive);
	else
		end_poll(end);
}

void pair_settle(struct pair *pair)
{
	for (unsigned quiet = 0; quiet < QUIET_POLLS; quiet++)
		if (pair_poll(pair))
			quiet = 0;
}

const struct via_comp *end_next(struct end *end)
{
	return end->seen < end->nlog ? &end->log[end->seen++] : NULL;
}

static bool too_few(struct contract *t, const struct end *end, enum via_comp_kind kind, unsigned n,
		    const char *why)
{
	static const char *const names[] = {"", "WRITE", "SEND", "RECV"};

	return contract_fail(t, "%s: %u of %u completions of kind %s came, poll says %s", why,
			     end->count[kind], n, names[kind], via_err_name(end->status));
}

bool end_until(struct contract *t, struct end *end, enum via_comp_kind kind, unsigned n)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);

	while (end->count[kind] < n) {
		end_step(end);
		if (end->status && end->count[kind] < n)
			return too_few(t, end, kind, n, "endpoint died");
		if (via_deadline_passed(deadline_ns) && end->count[kind] < n)
			return too_few(t, end, kind, n, "deadline passed");
	}
	return true;
}

bool end_sleep_until(struct contract *t, struct end *end, enum via_comp_kind kind, unsigned n)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	struct pollfd pfd = {.fd = -1, .events = POLLIN};
	int ret;

	while (end->count[kind] < n) {
		ret = end_poll(end);
		if (ret < 0 && end->count[kind] < n)
			return too_few(t, end, kind, n, "endpoint died");
		if (ret > 0)
			continue;
		ret = end->side->ops->arm(end->ep, &pfd.fd);
		if (ret && ret != -EAGAIN)
			return contract_fail(t, "arm: %s", via_err_name(ret));
		if (!ret)
			poll(&pfd, 1, via_deadline_poll_ms(deadline_ns));
		if (via_deadline_passed(deadline_ns) && end->count[kind] < n)
			return too_few(t, end, kind, n, ret ? "deadline passed" : "nobody woke it");
	}
	return true;
}

/* -- posting --------------------------------------------------------------- */

static int try_write(struct end *end, size_t src, size_t dst, size_t len, void *ctx, unsigned flags)
{
	const struct side *side = end->side;
	struct via_sge sge = {side->mr, side->mem + src, len};

	return side->ops->post_write(end->ep, &sge, 1, end->rkey, dst, ctx, flags);
}

int end_try_write(struct end *end, size_t src, size_t dst, size_t len, void *ctx)
{
	return try_write(end, src, dst, len, ctx, 0);
}

int end_try_send(struct end *end, size_t src, size_t len, void *ctx, unsigned flags)
{
	const struct side *side = end->side;
	struct via_sge sge = {side->mr, side->mem + src, len};

	return side->ops->post_send(end->ep, &sge, 1, ctx, flags);
}

/* After a refused post: poll and go on when the queue was full; else the case is over. */
static bool try_again(struct contract *t, struct end *end, const char *call, int ret,
		      uint64_t deadline_ns)
{
	if (ret != -EAGAIN)
		return contract_fail(t, "%s: %s", call, via_err_name(ret));
	if (via_deadline_passed(deadline_ns))
		return contract_fail(t, "%s: the queue stays full, poll says %s", call,
				     via_err_name(end->status));
	end_step(end);
	return true;
}

static bool write_flags(struct contract *t, struct end *end, size_t src, size_t dst, size_t len,
			void *ctx, unsigned flags)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	int ret;

	while ((ret = try_write(end, src, dst, len, ctx, flags)))
		if (!try_again(t, end, "post_write", ret, deadline_ns))
			return false;
	return true;
}

bool end_write(struct contract *t, struct end *end, size_t src, size_t dst, size_t len, void *ctx)
{
	return write_flags(t, end, src, dst, len, ctx, 0);
}

bool end_write_more(struct contract *t, struct end *end, size_t src, size_t dst, size_t len,
		    void *ctx)
{
	return write_flags(t, end, src, dst, len, ctx, VIA_MORE);
}

bool end_send(struct contract *t, struct end *end, size_t src, size_t len, void *ctx,
	      unsigned flags)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	int ret;

	while ((ret = end_try_send(end, src, len, ctx, flags)))
		if (!try_again(t, end, "post_send", ret, deadline_ns))
			return false;
	return true;
}

bool end_recv(struct contract *t, struct end *end, size_t dst, size_t len, void *ctx)
{
	const struct side *side = end->side;
	struct via_sge sge = {side->mr, side->mem + dst, len};
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	int ret;

	while ((ret = side->ops->post_recv(end->ep, &sge, ctx)))
		if (!try_again(t, end, "post_recv", ret, deadline_ns))
			return false;
	return true;
}

/* -- bytes and numbers ----------------------------------------------------- */

uint64_t pick(uint64_t *state, uint64_t n)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 32)) * UINT64_C(0xd6e8feb86659fd93);
	z = (z ^ (z >> 32)) * UINT64_C(0xd6e8feb86659fd93);
	return (z ^ (z >> 32)) % n;
}

/* Eight bytes of the pattern; the position is in each, so that shifted data is seen. */
static uint64_t pattern_word(uint64_t seed, size_t i)
{
	return (seed * UINT64_C(0x9e3779b97f4a7c15) + i) * UINT64_C(0xd6e8feb86659fd93) ^ seed;
}

void pattern_fill(uint8_t *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t word = pattern_word(seed, i);

		memcpy(buf + i, &word, min_size(sizeof(word), len - i));
	}
}

size_t pattern_bad(const uint8_t *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t word = pattern_word(seed, i);
		const uint8_t *want = (const uint8_t *)&word;
		size_t n = min_size(sizeof(word), len - i), k = 0;

		if (!memcmp(buf + i, want, n))
			continue;
		while (buf[i + k] == want[k])
			k++;
		return i + k;
	}
	return len;
}
