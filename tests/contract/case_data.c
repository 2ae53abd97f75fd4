/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_data.c -- operations complete exactly once, and their bytes arrive where they belong.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buffer.h"
#include "tests/contract/contract.h"

#define KIB         ((size_t)1 << 10)
#define MIB         ((size_t)1 << 20)
#define ONCE_OPS    400u
#define REUSES      120u
#define MANY_WRITES 2000u
#define PAGE        ((size_t)4 << 10)

/* One message after all writes of @a; returns when it has arrived. Message bytes at @off. */
static bool fence(struct contract *t, struct pair *pair, unsigned i, size_t off)
{
	struct end *a = &pair->a.end[i], *b = &pair->b.end[i];
	unsigned messages = b->count[VIA_COMP_RECV];

	return end_recv(t, b, off, 64, ctx_of(0)) &&
	       end_send(t, a, off, 8, NULL, VIA_AFTER_WRITES) &&
	       end_until(t, b, VIA_COMP_RECV, messages + 1);
}

/* -- exactly once ---------------------------------------------------------- */

/* What operation number i of the case was; its ctx is ctx_of(i) unless silent. */
struct posted {
	enum via_comp_kind kind;
	bool silent;
	size_t len; /* of the message a receive took */
	unsigned reported;
};

struct once {
	struct pair pair;
	struct posted op[2 * ONCE_OPS];
	unsigned nops;
	unsigned expected[VIA_COMP_RECV + 1];
};

static void *note(struct once *o, enum via_comp_kind kind, size_t len, bool silent)
{
	o->op[o->nops] = (struct posted){.kind = kind, .silent = silent, .len = len};
	o->expected[kind] += !silent;
	return silent ? NULL : ctx_of(o->nops++);
}

static bool post_one(struct contract *t, struct once *o, uint64_t *random)
{
	struct end *a = &o->pair.a.end[0], *b = &o->pair.b.end[0];
	size_t len = 1 + pick(random, 4 * KIB);
	bool silent = !pick(random, 4);

	if (pick(random, 2))
		return end_write(t, a, 0, 64 * KIB, len, note(o, VIA_COMP_WRITE, 0, silent));
	/* The receive is lent right before its message, so that both have one number. */
	if (b->side->fab->caps.rx_depth <= o->expected[VIA_COMP_RECV] - b->count[VIA_COMP_RECV] &&
	    !end_until(t, b, VIA_COMP_RECV, o->expected[VIA_COMP_RECV]))
		return false;
	return end_recv(t, b, 0, 4 * KIB, note(o, VIA_COMP_RECV, len, false)) &&
	       end_send(t, a, 0, len, note(o, VIA_COMP_SEND, 0, silent), 0);
}

static bool look_at_reports(struct contract *t, struct once *o, const struct end *end)
{
	for (unsigned i = 0; i < end->nlog; i++) {
		const struct via_comp *comp = &end->log[i];
		struct posted *op;

		if (!comp->ctx || ctx_index(comp->ctx) >= o->nops)
			return contract_fail(t, "a completion with ctx %p, %s: nobody posted that",
					     comp->ctx, via_err_name(comp->status));
		op = &o->op[ctx_index(comp->ctx)];
		if (op->reported++)
			return contract_fail(t, "operation %u completed twice",
					     ctx_index(comp->ctx));
		if (comp->status || comp->kind != op->kind || comp->len != op->len)
			return contract_fail(t,
					     "operation %u: kind %d, %s, %zu bytes; expected "
					     "kind %d, %zu bytes",
					     ctx_index(comp->ctx), (int)comp->kind,
					     via_err_name(comp->status), comp->len, (int)op->kind,
					     op->len);
	}
	return true;
}

void case_completes_once(struct contract *t)
{
	struct once *o = calloc(1, sizeof(*o));
	struct end *a = &o->pair.a.end[0], *b = &o->pair.b.end[0];
	uint64_t random = 1;

	if (!pair_open(t, &o->pair, 1, 128 * KIB))
		goto out;
	for (unsigned i = 0; i < ONCE_OPS; i++)
		if (!post_one(t, o, &random))
			goto out;
	if (!end_until(t, a, VIA_COMP_WRITE, o->expected[VIA_COMP_WRITE]) ||
	    !end_until(t, a, VIA_COMP_SEND, o->expected[VIA_COMP_SEND]) ||
	    !end_until(t, b, VIA_COMP_RECV, o->expected[VIA_COMP_RECV]))
		goto out;
	pair_settle(&o->pair);
	if (!look_at_reports(t, o, a) || !look_at_reports(t, o, b))
		goto out;
	for (unsigned i = 0; i < o->nops; i++)
		if (!o->op[i].reported)
			contract_fail(t, "operation %u was never reported", i);
out:
	pair_close(&o->pair);
	free(o);
}

/* -- the local bytes may change again -------------------------------------- */

/* The write goes to the start of mem, the message after it to MESSAGE_OFF. */
#define MESSAGE_OFF (64 * KIB)

static bool reuse_once(struct contract *t, struct pair *pair, unsigned round)
{
	struct end *a = &pair->a.end[0], *b = &pair->b.end[0];
	uint64_t random = round;
	size_t len = 1 + pick(&random, 64 * KIB), msg_len = 1 + pick(&random, 8 * KIB), bad;

	pattern_fill(pair->a.mem, len, round);
	if (!end_write(t, a, 0, 0, len, ctx_of(0)) || !end_until(t, a, VIA_COMP_WRITE, round + 1))
		return false;
	memset(pair->a.mem, 0xee, len);
	pattern_fill(pair->a.mem + MESSAGE_OFF, msg_len, ~random);
	if (!end_recv(t, b, MESSAGE_OFF, 8 * KIB, ctx_of(0)) ||
	    !end_send(t, a, MESSAGE_OFF, msg_len, ctx_of(0), VIA_AFTER_WRITES) ||
	    !end_until(t, a, VIA_COMP_SEND, round + 1))
		return false;
	memset(pair->a.mem + MESSAGE_OFF, 0xee, msg_len);
	if (!end_until(t, b, VIA_COMP_RECV, round + 1))
		return false;
	bad = pattern_bad(pair->b.mem + MESSAGE_OFF, msg_len, ~random);
	if (bad < msg_len)
		return contract_fail(t,
				     "byte %zu of a message of %zu was read after its "
				     "completion",
				     bad, msg_len);
	bad = pattern_bad(pair->b.mem, len, round);
	if (bad < len)
		return contract_fail(t, "byte %zu of a write of %zu was read after its completion",
				     bad, len);
	return true;
}

void case_bytes_free_again(struct contract *t)
{
	struct pair pair;

	if (pair_open(t, &pair, 1, 128 * KIB))
		for (unsigned i = 0; i < REUSES && reuse_once(t, &pair, i); i++)
			;
	pair_close(&pair);
}

/* -- sizes, offsets, pieces ------------------------------------------------ */

/* A write of any length, as several where the fabric's limit asks for it. */
static bool write_all(struct contract *t, struct end *end, size_t src, size_t dst, size_t len)
{
	size_t max = end->side->fab->caps.write_len_max;

	for (size_t done = 0; done < len; done += min_size(max, len - done))
		if (!end_write(t, end, src + done, dst + done, min_size(max, len - done), NULL))
			return false;
	return true;
}

static bool size_arrives(struct contract *t, struct pair *pair, size_t src, size_t dst, size_t len)
{
	size_t at = 4 * MIB - PAGE; /* the message's place */
	uint8_t *to = pair->b.mem;
	size_t bad;

	memset(to, 0x11, 2 * MIB);
	pattern_fill(pair->a.mem + src, len, len ^ src);
	if (!write_all(t, &pair->a.end[0], src, dst, len) || !fence(t, pair, 0, at))
		return false;
	bad = pattern_bad(to + dst, len, len ^ src);
	if (bad < len)
		return contract_fail(t, "%zu bytes from %zu to %zu: byte %zu is wrong", len, src,
				     dst, bad);
	for (size_t i = 0; i < 2 * MIB; i++)
		if ((i < dst || i >= dst + len) && to[i] != 0x11)
			return contract_fail(t, "%zu bytes to %zu: byte %zu changed too", len, dst,
					     i);
	return true;
}

void case_sizes(struct contract *t)
{
	static const struct {
		size_t src, dst, len;
	} sizes[] = {
		{0, 0, 1},        {3, 5, 1},        {7, 0, 13},
		{0, 4095, 2},     {0, 0, PAGE},     {PAGE, 5 * PAGE, PAGE},
		{1, 3, PAGE},     {0, 0, PAGE - 1}, {0, 17, PAGE + 1},
		{0, 0, 64 * KIB}, {0, 0, MIB},      {PAGE, PAGE, MIB},
		{1, 3, MIB},      {5, 2, MIB - 7},
	};
	struct pair pair;

	if (pair_open(t, &pair, 1, 4 * MIB))
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			if (!size_arrives(t, &pair, sizes[i].src, sizes[i].dst, sizes[i].len))
				break;
	pair_close(&pair);
}

/* The bytes @sge names, as one row in @to. Returns their number. */
static size_t join(const struct via_sge *sge, unsigned n, uint8_t *to)
{
	size_t len = 0;

	for (unsigned i = 0; i < n; i++) {
		memcpy(to + len, sge[i].addr, sge[i].len);
		len += sge[i].len;
	}
	return len;
}

/* @n pieces, by turns from @other and from mem, as a write and as a message. */
static bool pieces_arrive(struct contract *t, struct pair *pair, const struct via_mr *other,
			  unsigned n)
{
	const struct via_fabric_ops *ops = pair->a.ops;
	struct end *a = &pair->a.end[0], *b = &pair->b.end[0];
	unsigned messages = b->count[VIA_COMP_RECV];
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	struct via_sge sge[64];
	uint8_t want[64 * 127];
	size_t len;
	int ret;

	for (unsigned i = 0; i < n; i++) {
		const struct via_mr *mr = i % 2 ? pair->a.mr : other;

		sge[i] = (struct via_sge){mr, (uint8_t *)mr->addr + 131 * (size_t)(n - i),
					  1 + i * 37 % 127};
		pattern_fill(sge[i].addr, sge[i].len, n * 100 + i);
	}
	len = join(sge, n, want);
	ret = ops->post_write(a->ep, sge, n, a->rkey, 64 * KIB + n, NULL, 0);
	if (ret)
		return contract_fail(t, "post_write of %u pieces: %s", n, via_err_name(ret));
	if (!end_recv(t, b, 0, 8 * KIB, ctx_of(0)))
		return false;
	while ((ret = ops->post_send(a->ep, sge, n, NULL, VIA_AFTER_WRITES)) == -EAGAIN &&
	       !via_deadline_passed(deadline_ns))
		end_step(a);
	if (ret)
		return contract_fail(t, "post_send of %u pieces: %s", n, via_err_name(ret));
	if (!end_until(t, b, VIA_COMP_RECV, messages + 1))
		return false;
	if (memcmp(pair->b.mem + 64 * KIB + n, want, len) != 0)
		return contract_fail(t, "a write of %u pieces came wrong", n);
	if (memcmp(pair->b.mem, want, len) != 0)
		return contract_fail(t, "a message of %u pieces came wrong", n);
	pair_settle(pair);
	return true;
}

void case_pieces(struct contract *t)
{
	uint8_t *block = via_pages_alloc(64 * KIB);
	struct via_mr *other = NULL;
	struct pair pair;
	unsigned max;

	if (!pair_open(t, &pair, 1, 128 * KIB))
		goto out;
	if (pair.a.ops->mr_reg(pair.a.fab, block, 64 * KIB, VIA_MR_LOCAL, &other, NULL)) {
		contract_fail(t, "mr_reg of a second region failed");
		goto out;
	}
	max = (unsigned)min_size(pair.a.fab->caps.sge_max, 64);
	for (unsigned n = 1; n <= max; n++)
		if (!pieces_arrive(t, &pair, other, n))
			break;
out:
	/* Its endpoint goes first: operations may still name it. */
	if (other) {
		pair.a.ops->rkey_free(pair.a.end[0].rkey);
		pair.a.ops->ep_close(pair.a.end[0].ep);
		pair.a.end[0].rkey = NULL;
		pair.a.end[0].ep = NULL;
		pair.a.ops->mr_dereg(other);
	}
	pair_close(&pair);
	via_pages_free(block, 64 * KIB);
}

/* -- chains and crowds ----------------------------------------------------- */

/* A chain of @n writes, of which the last alone rings. A refused post rings as well. */
static bool post_chain(struct contract *t, struct pair *pair, unsigned n)
{
	struct end *a = &pair->a.end[0];
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);

	for (unsigned i = 0; i < n;) {
		struct via_sge sge = {pair->a.mr, pair->a.mem + 64 * (size_t)i, 64};
		int ret = pair->a.ops->post_write(a->ep, &sge, 1, a->rkey, 64 * (size_t)i,
						  ctx_of(i), i + 1 < n ? VIA_MORE : 0);

		if ((ret && ret != -EAGAIN) || via_deadline_passed(deadline_ns))
			return contract_fail(t, "write %u of a chain of %u: %s", i, n,
					     via_err_name(ret));
		if (ret)
			end_step(a);
		else
			i++;
	}
	return true;
}

void case_more(struct contract *t)
{
	struct pair pair;
	unsigned done = 0;

	if (pair_open(t, &pair, 1, 64 * KIB))
		for (unsigned n = 1; n <= 40; n++)
			if (!post_chain(t, &pair, n) ||
			    !end_until(t, &pair.a.end[0], VIA_COMP_WRITE, done += n))
				break;
	pair_close(&pair);
}

/* Post what fits on end @i, of the pages that fall to it; *@next is its next page. */
static bool post_pages(struct contract *t, struct pair *pair, unsigned i, unsigned *next)
{
	int ret = 0;

	while (*next < MANY_WRITES && !ret) {
		ret = end_try_write(&pair->a.end[i], *next * PAGE, *next * PAGE, PAGE, NULL);
		if (ret && ret != -EAGAIN)
			return contract_fail(t, "post_write of page %u: %s", *next,
					     via_err_name(ret));
		if (!ret)
			*next += EPS_MAX;
	}
	return true;
}

void case_many_in_flight(struct contract *t)
{
	const size_t message = MANY_WRITES * PAGE;
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	unsigned next[EPS_MAX], left = EPS_MAX;
	struct pair pair;
	size_t bad;

	if (!pair_open(t, &pair, EPS_MAX, message + EPS_MAX * PAGE))
		goto out;
	pattern_fill(pair.a.mem, message, 7);
	for (unsigned i = 0; i < EPS_MAX; i++)
		next[i] = i;
	while (left) {
		left = 0;
		for (unsigned i = 0; i < EPS_MAX; i++) {
			if (!post_pages(t, &pair, i, &next[i]))
				goto out;
			left += next[i] < MANY_WRITES;
		}
		end_step(&pair.a.end[0]);
		if (left && via_deadline_passed(deadline_ns)) {
			contract_fail(t, "the queues stay full");
			goto out;
		}
	}
	for (unsigned i = 0; i < EPS_MAX; i++)
		if (!fence(t, &pair, i, message + i * PAGE))
			goto out;
	bad = pattern_bad(pair.b.mem, message, 7);
	if (bad < message)
		contract_fail(t, "page %zu is not there", bad / PAGE);
out:
	pair_close(&pair);
}
