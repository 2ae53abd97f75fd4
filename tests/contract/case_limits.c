/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_limits.c -- every limit that a back end states, at one below, at and one above it.
 */
#include <stdlib.h>
#include <string.h>

#include "core/buffer.h"
#include "tests/contract/contract.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* A back end whose limit is beyond this cannot be tried at it. */
#define LIMIT_TRIED_MAX (256 * MIB)

static bool expect(struct contract *t, const char *what, int ret, int want)
{
	if (ret == want)
		return true;
	return contract_fail(t, "%s: %s, expected %s", what, via_err_name(ret), via_err_name(want));
}

/* -- the numbers themselves ------------------------------------------------ */

static bool caps_are_sane(struct contract *t, const struct via_fabric_caps *caps)
{
	if (caps->write_len_max < 64 * KIB)
		return contract_fail(t, "write_len_max is %zu", caps->write_len_max);
	if (caps->msg_len_max < 8 * KIB)
		return contract_fail(t, "msg_len_max is %zu", caps->msg_len_max);
	if (!caps->sge_max || !caps->tx_depth || !caps->rx_depth)
		return contract_fail(t, "sge_max %u, tx_depth %u, rx_depth %u", caps->sge_max,
				     caps->tx_depth, caps->rx_depth);
	return true;
}

/* ep_address() and rkey_pack(): -ENOBUFS in too little room, nothing written beyond @cap. */
static bool packs_within(struct contract *t, struct pair *pair, bool key, size_t max)
{
	const struct via_fabric_ops *ops = pair->b.ops;
	struct via_ep *ep = pair->b.end[0].ep;
	uint8_t *buf = calloc(1, max + 1);
	ssize_t len =
		key ? ops->rkey_pack(pair->b.mr, ep, buf, max) : ops->ep_address(ep, buf, max);

	if (len <= 0 || (size_t)len > max)
		contract_fail(t, "%s into %zu bytes returns %zd", key ? "rkey_pack" : "ep_address",
			      max, len);
	for (size_t cap = 0; t->verdict == PASS && cap < (size_t)len; cap++) {
		ssize_t ret;

		buf[cap] = 0xa5;
		ret = key ? ops->rkey_pack(pair->b.mr, ep, buf, cap)
			  : ops->ep_address(ep, buf, cap);
		if (ret != -ENOBUFS)
			contract_fail(t, "%s of %zd bytes into %zu returns %zd",
				      key ? "rkey_pack" : "ep_address", len, cap, ret);
		else if (buf[cap] != 0xa5)
			contract_fail(t, "%s writes beyond %zu bytes",
				      key ? "rkey_pack" : "ep_address", cap);
	}
	free(buf);
	return t->verdict == PASS;
}

/* The descriptor is one for the endpoint's life. */
static bool one_descriptor(struct contract *t, struct end *end)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	int first = -1, fd = -1;

	for (unsigned armed = 0; armed < 20;) {
		int ret = end->side->ops->arm(end->ep, &fd);

		if (ret && ret != -EAGAIN)
			return contract_fail(t, "arm: %s", via_err_name(ret));
		if (!ret && armed++ && fd != first)
			return contract_fail(t, "arm gave descriptor %d, then %d", first, fd);
		if (!ret)
			first = fd;
		end_step(end);
		if (via_deadline_passed(deadline_ns))
			return contract_fail(t, "an idle endpoint never lets its owner sleep");
	}
	return true;
}

void case_limits(struct contract *t)
{
	struct pair pair;

	if (pair_open(t, &pair, 1, 64 * KIB) && caps_are_sane(t, &pair.a.fab->caps) &&
	    packs_within(t, &pair, false, pair.b.fab->caps.addr_len_max) &&
	    packs_within(t, &pair, true, pair.b.fab->caps.rkey_len_max))
		one_descriptor(t, &pair.a.end[0]);
	pair_close(&pair);
}

/* -- writes ---------------------------------------------------------------- */

/* After a refused post the endpoint works as before. */
static bool still_works(struct contract *t, struct pair *pair)
{
	struct end *a = &pair->a.end[0];

	return end_write(t, a, 0, 0, 64, ctx_of(0)) &&
	       end_until(t, a, VIA_COMP_WRITE, a->count[VIA_COMP_WRITE] + 1);
}

void case_write_bounds(struct contract *t)
{
	struct pair pair;
	struct end *a = &pair.a.end[0], *b = &pair.b.end[0];
	size_t max, region, bad;

	if (!pair_open(t, &pair, 1, 64 * KIB))
		goto out;
	max = pair.a.fab->caps.write_len_max;
	pair_close(&pair);
	if (max > LIMIT_TRIED_MAX)
		goto out;
	region = max + 8 * KIB;
	if (!pair_open(t, &pair, 1, region))
		goto out;
	for (size_t len = max - 1; len <= max; len++) {
		pattern_fill(pair.a.mem, len, len);
		if (!end_write(t, a, 0, 0, len, NULL) ||
		    !end_recv(t, b, region - 64, 64, ctx_of(0)) ||
		    !end_send(t, a, region - 64, 1, NULL, VIA_AFTER_WRITES) ||
		    !end_until(t, b, VIA_COMP_RECV, b->count[VIA_COMP_RECV] + 1))
			goto out;
		bad = pattern_bad(pair.b.mem, len, len);
		if (bad < len)
			contract_fail(t, "byte %zu of a write of %zu is wrong", bad, len);
	}
	expect(t, "a write one above write_len_max", end_try_write(a, 0, 0, max + 1, ctx_of(0)),
	       -EMSGSIZE);
	still_works(t, &pair);
out:
	pair_close(&pair);
}

void case_region_bounds(struct contract *t)
{
	const size_t region = 64 * KIB;
	static const struct {
		uint64_t off;
		size_t len;
		int want;
	} tries[] = {
		{64 * KIB - 1, 1, 0},
		{64 * KIB - 100, 99, 0},
		{64 * KIB - 100, 100, 0},
		{64 * KIB - 100, 101, -ERANGE},
		{64 * KIB, 1, -ERANGE},
		{64 * KIB + 1, 1, -ERANGE},
		{UINT64_MAX, 1, -ERANGE},
		{UINT64_MAX - 99, 100, -ERANGE},
		{UINT64_MAX - 98, 100, -ERANGE},
		{(uint64_t)1 << 32, 1, -ERANGE},
	};
	struct pair pair;
	struct end *a = &pair.a.end[0];

	if (!pair_open(t, &pair, 1, region))
		goto out;
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		unsigned writes = a->count[VIA_COMP_WRITE] + 1;
		int ret = end_try_write(a, 0, tries[i].off, tries[i].len, ctx_of(0));

		if (ret != tries[i].want) {
			contract_fail(t, "%zu bytes to %llu of %zu: %s, expected %s", tries[i].len,
				      (unsigned long long)tries[i].off, region, via_err_name(ret),
				      via_err_name(tries[i].want));
			goto out;
		}
		if (!ret && !end_until(t, a, VIA_COMP_WRITE, writes))
			goto out;
	}
	still_works(t, &pair);
out:
	pair_close(&pair);
}

/* -- messages -------------------------------------------------------------- */

void case_message_bounds(struct contract *t)
{
	struct pair pair;
	struct end *a = &pair.a.end[0], *b = &pair.b.end[0];
	size_t max, bad;

	if (!pair_open(t, &pair, 1, 64 * KIB))
		goto out;
	max = pair.a.fab->caps.msg_len_max;
	pair_close(&pair);
	if (max > LIMIT_TRIED_MAX)
		goto out;
	if (!pair_open(t, &pair, 1, max + 1))
		goto out;
	for (size_t len = max - 1; len <= max; len++) {
		pattern_fill(pair.a.mem, len, len);
		if (!end_recv(t, b, 0, max, ctx_of(0)) || !end_send(t, a, 0, len, NULL, 0) ||
		    !end_until(t, b, VIA_COMP_RECV, b->count[VIA_COMP_RECV] + 1))
			goto out;
		bad = pattern_bad(pair.b.mem, len, len);
		if (bad < len || b->log[b->nlog - 1].len != len)
			contract_fail(t, "a message of %zu came as %zu, byte %zu is wrong", len,
				      b->log[b->nlog - 1].len, bad);
	}
	if (!end_recv(t, b, 0, max, ctx_of(0)))
		goto out;
	expect(t, "a message one above msg_len_max", end_try_send(a, 0, max + 1, ctx_of(0), 0),
	       -EMSGSIZE);
	still_works(t, &pair);
out:
	pair_close(&pair);
}

/* -- queues ---------------------------------------------------------------- */

/*
 * Post without polling until the queue is full: tx_depth is a limit, a provider may run short
 * before it. What was refused is taken once there is room again, and what was taken completes.
 */
static bool fill_tx(struct contract *t, struct pair *pair)
{
	struct end *a = &pair->a.end[0];
	unsigned depth = pair->a.fab->caps.tx_depth, taken = 0, done = a->count[VIA_COMP_WRITE];
	int ret = 0;

	while (taken < 4 * depth + 16) {
		ret = end_try_write(a, 0, 0, 4 * KIB, ctx_of(taken));
		if (ret)
			break;
		taken++;
	}
	if (ret && ret != -EAGAIN)
		return contract_fail(t, "post_write: %s", via_err_name(ret));
	if (!taken)
		return contract_fail(t, "the queue is full with nothing in it");
	return end_write(t, a, 0, 0, 4 * KIB, ctx_of(taken)) &&
	       end_until(t, a, VIA_COMP_WRITE, done + taken + 1);
}

void case_queue_full(struct contract *t)
{
	struct pair pair;
	struct end *b = &pair.b.end[0];

	if (!pair_open(t, &pair, 1, 64 * KIB))
		goto out;
	for (unsigned round = 0; round < 3; round++)
		if (!fill_tx(t, &pair))
			goto out;
	for (unsigned i = 0; i < pair.b.fab->caps.rx_depth; i++) {
		struct via_sge sge = {pair.b.mr, pair.b.mem, 64};
		int ret = pair.b.ops->post_recv(b->ep, &sge, ctx_of(i));

		if (ret) {
			contract_fail(t, "rx_depth is %u, but receive %u: %s",
				      pair.b.fab->caps.rx_depth, i + 1, via_err_name(ret));
			goto out;
		}
	}
	still_works(t, &pair);
out:
	pair_close(&pair);
}
