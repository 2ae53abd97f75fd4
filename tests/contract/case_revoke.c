/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_revoke.c -- once mr_dereg() has returned, nothing lands there any more.
 *
 * What sealing stands on. The memory stays mapped throughout, so that a late write shows as a
 * changed byte.
 */
#include <string.h>

#include "core/buffer.h"
#include "tests/contract/flow.h"

#define KIB          ((size_t)1 << 10)
#define MIB          ((size_t)1 << 20)
#define REGION       (2 * MIB)
#define EARLY_MAX    16u
#define LATE         4u
#define MESSAGE_CTX  999u
#define DEREG_ROUNDS 6u
#define DEREG_POLLS  300u /* after the dereg, at least so many of each side */
#define DEREG_NS     (60 * VIA_NS_PER_MS)
#define SENTINEL     UINT64_C(0x5ea1)

struct revoking {
	struct pair pair;
	uint8_t *region; /* of b, apart from its mem */
	struct via_mr *mr;
	struct via_rkey *rkey;
	unsigned early, late; /* writes taken before and after the dereg */
	bool message;         /* the message after them was taken */
};

static bool may_refuse_with(int status)
{
	return status == -EREMOTEIO || status == -EIO || status == -ECONNRESET;
}

static int post_to_region(struct revoking *r, unsigned i)
{
	struct end *a = &r->pair.a.end[0];
	struct via_sge sge = {r->pair.a.mr, r->pair.a.mem, 64 * KIB};

	return r->pair.a.ops->post_write(a->ep, &sge, 1, r->rkey, i * 64 * KIB, ctx_of(i), 0);
}

static bool open_region(struct contract *t, struct revoking *r)
{
	struct side *b = &r->pair.b;

	r->region = via_pages_alloc(REGION);
	if (!r->region || !pair_open(t, &r->pair, 1, 128 * KIB))
		return false;
	if (b->ops->mr_reg(b->fab, r->region, REGION, VIA_MR_REMOTE_WRITE, &r->mr, NULL))
		return contract_fail(t, "mr_reg of a second region failed");
	memset(r->pair.a.mem, 0xbb, 64 * KIB);
	return end_key(t, r->mr, &b->end[0], &r->pair.a.end[0], &r->rkey);
}

static void close_region(struct revoking *r)
{
	if (r->rkey)
		r->pair.a.ops->rkey_free(r->rkey);
	if (r->mr)
		r->pair.b.ops->mr_dereg(r->mr);
	pair_close(&r->pair);
	if (r->region)
		via_pages_free(r->region, REGION);
}

/* Writes on their way, the dereg, more writes, and a message that must wait for all of them. */
static bool revoke_under_writes(struct contract *t, struct revoking *r, unsigned polls)
{
	struct end *a = &r->pair.a.end[0];
	size_t depth = r->pair.a.fab->caps.tx_depth;
	int ret = 0;

	while (!ret && r->early < min_size(EARLY_MAX, depth))
		if (!(ret = post_to_region(r, r->early)))
			r->early++;
	if (ret && ret != -EAGAIN)
		return contract_fail(t, "post_write: %s", via_err_name(ret));
	if (!end_recv(t, &r->pair.b.end[0], 64 * KIB, 64, ctx_of(MESSAGE_CTX)))
		return false;
	for (unsigned i = 0; i < polls; i++)
		end_step(a);
	r->pair.b.ops->mr_dereg(r->mr);
	r->mr = NULL;
	pattern_fill(r->region, REGION, SENTINEL);
	/* Poll between them: the queue may be full, and may stay so. */
	for (unsigned i = 0; i < LATE; i++) {
		if (!post_to_region(r, r->early + r->late))
			r->late++;
		end_step(a);
	}
	r->message = r->late && !end_try_send(a, 0, 8, ctx_of(MESSAGE_CTX), VIA_AFTER_WRITES);
	return true;
}

static bool unchanged(struct contract *t, const struct revoking *r, const char *when)
{
	size_t bad = pattern_bad(r->region, REGION, SENTINEL);

	if (bad == REGION)
		return true;
	return contract_fail(t, "%s: a write landed after mr_dereg, at byte %zu", when, bad);
}

/* What the sender was told until now. */
static bool told_right(struct contract *t, const struct revoking *r)
{
	const struct end *a = &r->pair.a.end[0], *b = &r->pair.b.end[0];
	unsigned late_done = 0;

	for (unsigned i = 0; i < a->nlog; i++) {
		const struct via_comp *comp = &a->log[i];

		if (comp->status && !may_refuse_with(comp->status))
			return contract_fail(t,
					     "a refused write completes with %s, though nobody "
					     "aborted",
					     via_err_name(comp->status));
		late_done += !comp->status && comp->kind == VIA_COMP_WRITE && comp->ctx &&
			     ctx_index(comp->ctx) >= r->early;
	}
	if (a->status && !may_refuse_with(a->status))
		return contract_fail(t, "the sender dies of %s", via_err_name(a->status));
	if (late_done && !a->status)
		return contract_fail(t,
				     "%u writes after mr_dereg are reported as done, and the "
				     "endpoint lives",
				     late_done);
	for (unsigned i = 0; r->late && i < b->nlog; i++)
		if (!b->log[i].status)
			return contract_fail(t, "a message came that was to follow writes which "
						"cannot land");
	return true;
}

/* After ep_abort() nothing stays outstanding, and nothing is told twice. */
static bool abort_ends_all(struct contract *t, struct revoking *r)
{
	struct end *a = &r->pair.a.end[0];
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	unsigned told[EARLY_MAX + LATE + 1] = {0}, posted = r->early + r->late;

	r->pair.a.ops->ep_abort(a->ep);
	while (!a->status || end_poll(a) > 0) {
		end_step(a);
		if (via_deadline_passed(deadline_ns))
			return contract_fail(t, "an aborted endpoint stays alive");
	}
	for (unsigned i = 0; i < a->nlog; i++) {
		unsigned n = ctx_index(a->log[i].ctx);

		if (!a->log[i].ctx || n == MESSAGE_CTX)
			continue;
		if (n >= posted || told[n]++)
			return contract_fail(t, "write %u is told twice, or was not posted", n);
	}
	for (unsigned i = 0; i < posted; i++)
		if (!told[i])
			return contract_fail(t, "write %u of %u was never told", i, posted);
	return true;
}

static bool revoke_once(struct contract *t, unsigned round)
{
	struct revoking r = {0};
	uint64_t until_ns;

	if (!open_region(t, &r) || !revoke_under_writes(t, &r, round * 3))
		goto out;
	until_ns = via_deadline_in(DEREG_NS);
	for (unsigned i = 0; i < DEREG_POLLS || !via_deadline_passed(until_ns); i++) {
		end_step(&r.pair.a.end[0]);
		if (r.pair.a.end[0].status && i > DEREG_POLLS)
			break;
	}
	if (!unchanged(t, &r, "before the abort") || !told_right(t, &r) || !abort_ends_all(t, &r))
		goto out;
	pair_settle(&r.pair);
	unchanged(t, &r, "after the abort");
out:
	close_region(&r);
	return t->verdict == PASS;
}

void case_dereg_refuses(struct contract *t)
{
	for (unsigned i = 0; i < DEREG_ROUNDS; i++)
		if (!revoke_once(t, i))
			break;
}

/* -- with nothing on its way ------------------------------------------------ */

/* Fill @rkey's region of b from a's mem, or b's mem when it is NULL; returns when it has landed. */
static bool write_and_fence(struct contract *t, struct pair *pair, struct via_rkey *rkey,
			    uint8_t fill)
{
	struct end *a = &pair->a.end[0], *b = &pair->b.end[0];
	unsigned messages = b->count[VIA_COMP_RECV], writes = a->count[VIA_COMP_WRITE];
	struct via_rkey *own = a->rkey;
	bool posted;

	memset(pair->a.mem, fill, 64 * KIB);
	a->rkey = rkey ? rkey : own;
	posted = end_write(t, a, 0, 0, 64 * KIB, ctx_of(0));
	a->rkey = own;
	return posted && end_recv(t, b, 64 * KIB, 64, ctx_of(0)) &&
	       end_send(t, a, 64 * KIB, 8, NULL, VIA_AFTER_WRITES) &&
	       end_until(t, b, VIA_COMP_RECV, messages + 1) &&
	       end_until(t, a, VIA_COMP_WRITE, writes + 1);
}

/* A new key to b's memory: the old one may have been revoked with another region's. */
static bool renew_key(struct contract *t, struct pair *pair)
{
	struct end *a = &pair->a.end[0], *b = &pair->b.end[0];

	pair->a.ops->rkey_free(a->rkey);
	a->rkey = NULL;
	return end_key(t, pair->b.mr, b, a, &a->rkey);
}

/*
 * A region is given up after its last write has landed, as at every seal: the endpoint goes on, to
 * other regions and with messages.
 */
static bool seal_once(struct contract *t, struct pair *pair, uint8_t *region, uint8_t fill)
{
	struct end *a = &pair->a.end[0], *b = &pair->b.end[0];
	struct via_rkey *rkey = NULL;
	struct via_mr *mr;
	int ret =
		pair->b.ops->mr_reg(pair->b.fab, region, 64 * KIB, VIA_MR_REMOTE_WRITE, &mr, NULL);
	bool ok;

	if (ret)
		return contract_fail(t, "mr_reg: %s", via_err_name(ret));
	ok = end_key(t, mr, b, a, &rkey) && write_and_fence(t, pair, rkey, fill);
	pair->b.ops->mr_dereg(mr);
	ok = ok && renew_key(t, pair) && write_and_fence(t, pair, NULL, fill + 1);
	if (ok && (region[0] != fill || region[64 * KIB - 1] != fill))
		ok = contract_fail(t, "the region given up holds %#x, not %#x", region[0], fill);
	if (ok && (pair->b.mem[0] != fill + 1 || pair->b.mem[64 * KIB - 1] != fill + 1))
		ok = contract_fail(t, "the region that stays holds %#x, not %#x", pair->b.mem[0],
				   fill + 1);
	if (rkey)
		pair->a.ops->rkey_free(rkey);
	return ok;
}

void case_dereg_spares(struct contract *t)
{
	uint8_t *region = via_pages_alloc(64 * KIB);
	struct pair pair;

	if (pair_open(t, &pair, 1, 128 * KIB))
		for (unsigned i = 0; i < 20; i++)
			if (!seal_once(t, &pair, region, (uint8_t)(2 * i + 1)))
				break;
	pair_close(&pair);
	via_pages_free(region, 64 * KIB);
}

/* -- while others work ----------------------------------------------------- */

/* Register, hand out a key and deregister, on an endpoint that does nothing else. */
static void churn(struct contract *t, struct pair *pair, uint8_t *region)
{
	for (unsigned i = 0; t->verdict == PASS && i < 100; i++) {
		struct via_rkey *rkey = NULL;
		struct via_mr *mr;
		int ret = pair->b.ops->mr_reg(pair->b.fab, region, MIB, VIA_MR_REMOTE_WRITE, &mr,
					      NULL);

		if (ret) {
			contract_fail(t, "mr_reg: %s", via_err_name(ret));
			return;
		}
		end_key(t, mr, &pair->b.end[1], &pair->a.end[1], &rkey);
		pair->b.ops->mr_dereg(mr);
		if (rkey)
			pair->a.ops->rkey_free(rkey);
	}
}

void case_dereg_while_busy(struct contract *t)
{
	struct pair pair;
	struct flow flow = {.pair = &pair, .len = MIB, .rounds = 60};
	struct worker writer, checker;
	uint8_t *region = via_pages_alloc(MIB);

	if (!pair_open(t, &pair, 2, MIB) || !flow_start(t, &flow))
		goto out;
	pair_part(&pair);
	worker_start(&checker, t, flow_check, &flow);
	worker_start(&writer, t, flow_write, &flow);
	churn(t, &pair, region);
	worker_join(&writer, t);
	worker_join(&checker, t);
out:
	pair_close(&pair);
	via_pages_free(region, MIB);
}
