/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * contract_sim.c -- the simulated fabric is as hostile as the contract allows, and repeatable.
 *
 * A tame adversary would pass the contract as well: these tests see to it that each liberty is
 * really taken, and that a caller who breaks the contract's own rules is punished.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "fabrics/sim/sim.h"
#include "tests/contract/contract.h"

#define KIB      ((size_t)1 << 10)
#define PATIENCE (5 * VIA_NS_PER_S)
#define SEEDS    40u

static struct contract new_contract(const char *spec)
{
	return (struct contract){.spec = spec, .patience_ns = PATIENCE};
}

static void must_open(struct contract *t, struct pair *pair)
{
	cr_assert(pair_open(t, pair, 1, 128 * KIB), "%s", t->text);
}

/* -- liberties ------------------------------------------------------------- */

/* What one write of 64 KiB did, looked at after each poll. */
struct sight {
	bool done_first, landed_first, torn, read_late;
};

static struct sight look_at_a_write(unsigned seed)
{
	struct sight sight = {0};
	struct contract t;
	struct pair pair;
	struct end *a = &pair.a.end[0];
	char spec[64];

	snprintf(spec, sizeof(spec), "sim,seed=%u", seed);
	t = new_contract(spec);
	must_open(&t, &pair);
	memset(pair.a.mem, 1, 64 * KIB);
	cr_assert_eq(end_try_write(a, 0, 0, 64 * KIB, ctx_of(0)), 0);
	/* A mistake that a NIC forgives or does not: the bytes change before the completion. */
	memset(pair.a.mem, 2, 64 * KIB);
	for (unsigned i = 0; i < 50; i++) {
		size_t landed = 0;

		end_poll(a);
		for (size_t at = 0; at < 64 * KIB; at++)
			landed += pair.b.mem[at] != 0;
		sight.torn |= landed && landed < 64 * KIB;
		sight.done_first |= a->nlog && landed < 64 * KIB;
		sight.landed_first |= !a->nlog && landed == 64 * KIB;
		sight.read_late |= memchr(pair.b.mem, 2, 64 * KIB) != NULL;
	}
	cr_assert_eq(a->nlog, 1);
	pair_close(&pair);
	return sight;
}

Test(sim, takes_every_liberty_with_a_write)
{
	struct sight all = {0};

	for (unsigned seed = 0; seed < SEEDS; seed++) {
		struct sight one = look_at_a_write(seed);

		all.torn |= one.torn;
		all.done_first |= one.done_first;
		all.landed_first |= one.landed_first;
		all.read_late |= one.read_late;
	}
	cr_expect(all.torn, "no write ever lands in pieces");
	cr_expect(all.done_first, "no write ever completes before it has landed");
	cr_expect(all.landed_first, "no write ever lands before it completes");
	cr_expect(all.read_late, "no local bytes are ever read late");
}

/* What is on the wire does not know that its sender is gone. */
static bool lands_after_abort(unsigned seed, bool dereg)
{
	struct contract t;
	struct pair pair;
	bool landed;
	char spec[64];

	snprintf(spec, sizeof(spec), "sim,seed=%u", seed);
	t = new_contract(spec);
	must_open(&t, &pair);
	memset(pair.a.mem, 1, 64 * KIB);
	cr_assert_eq(end_try_write(&pair.a.end[0], 0, 0, 64 * KIB, ctx_of(0)), 0);
	pair.a.ops->ep_abort(pair.a.end[0].ep);
	while (end_poll(&pair.a.end[0]) > 0)
		;
	memset(pair.a.mem, 2, 64 * KIB);
	memset(pair.b.mem, 0, 64 * KIB);
	if (dereg) {
		pair.b.ops->mr_dereg(pair.b.mr);
		pair.b.mr = NULL;
		memset(pair.b.mem, 0, 64 * KIB);
	}
	for (unsigned i = 0; i < 50; i++)
		end_poll(&pair.b.end[0]);
	landed = memchr(pair.b.mem, 1, 64 * KIB);
	cr_assert_null(memchr(pair.b.mem, 2, 64 * KIB), "read after the completion");
	pair_close(&pair);
	return landed;
}

Test(sim, what_was_sent_outlives_its_sender_but_not_the_dereg)
{
	unsigned landed = 0;

	for (unsigned seed = 0; seed < SEEDS; seed++) {
		landed += lands_after_abort(seed, false);
		cr_assert_not(lands_after_abort(seed, true));
	}
	cr_expect_gt(landed, 0);
}

Test(sim, more_waits_for_the_next_post)
{
	struct contract t = new_contract("sim");
	struct pair pair;
	struct end *a = &pair.a.end[0];
	struct via_sge sge;
	int fd;

	must_open(&t, &pair);
	sge = (struct via_sge){pair.a.mr, pair.a.mem, 64};
	cr_assert_eq(pair.a.ops->post_write(a->ep, &sge, 1, a->rkey, 0, ctx_of(0), VIA_MORE), 0);
	pair_settle(&pair);
	cr_expect_eq(a->nlog, 0, "a held write went out");
	cr_expect_eq(pair.a.ops->arm(a->ep, &fd), 0, "nothing can happen, yet nobody may sleep");
	cr_assert(end_write(&t, a, 0, 0, 64, ctx_of(1)));
	cr_expect(end_until(&t, a, VIA_COMP_WRITE, 2), "%s", t.text);
	pair_close(&pair);
}

/* -- the caller's mistakes ------------------------------------------------- */

Test(sim, message_without_a_receive_ends_the_connection)
{
	struct contract t = new_contract("sim");
	struct pair pair;
	struct end *a = &pair.a.end[0], *b = &pair.b.end[0];

	must_open(&t, &pair);
	cr_assert_eq(end_try_send(a, 0, 8, ctx_of(0), 0), 0);
	pair_settle(&pair);
	cr_assert_eq(a->nlog, 1);
	cr_expect_eq(a->log[0].status, -EIO);
	cr_expect_eq(a->log[0].native, VIA_SIM_NATIVE_NO_RECEIVE);
	cr_expect_eq(a->status, -EIO);
	cr_expect_eq(b->status, -ECONNRESET);
	cr_expect_eq(end_try_send(a, 0, 8, ctx_of(0), 0), -ECONNRESET);
	pair_close(&pair);
}

Test(sim, receive_that_is_too_small_ends_the_connection)
{
	struct contract t = new_contract("sim");
	struct pair pair;
	struct end *a = &pair.a.end[0], *b = &pair.b.end[0];

	must_open(&t, &pair);
	memset(pair.b.mem, 7, 128);
	cr_assert(end_recv(&t, b, 0, 63, ctx_of(0)));
	cr_assert_eq(end_try_send(a, 0, 64, ctx_of(0), 0), 0);
	pair_settle(&pair);
	cr_assert_eq(b->nlog, 1);
	cr_expect_eq(b->log[0].status, -EMSGSIZE);
	cr_expect_eq(b->log[0].native, VIA_SIM_NATIVE_TRUNCATED);
	cr_expect_eq(b->status, -EIO);
	cr_expect_eq(a->status, -ECONNRESET);
	for (unsigned i = 0; i < 128; i++)
		cr_assert_eq(pair.b.mem[i], 7, "a part of the message arrived");
	pair_close(&pair);
}

Test(sim, silent_tells_nothing_of_a_lost_peer)
{
	struct contract t = new_contract("sim,silent=yes");
	struct pair pair;
	struct end *a = &pair.a.end[0];

	must_open(&t, &pair);
	pair.b.ops->ep_abort(pair.b.end[0].ep);
	pair.b.ops->mr_dereg(pair.b.mr);
	pair.b.mr = NULL;
	cr_assert_eq(end_try_write(a, 0, 0, 64, ctx_of(0)), 0);
	pair_settle(&pair);
	cr_expect_eq(a->nlog, 0);
	cr_expect_eq(a->status, 0);
	pair.a.ops->ep_abort(a->ep);
	pair_settle(&pair);
	cr_assert_eq(a->nlog, 1);
	cr_expect_eq(a->log[0].status, -ECANCELED);
	pair_close(&pair);
}

/* -- repeatable ------------------------------------------------------------ */

/* A number for everything that happened in one run. */
static uint64_t run_of(const char *spec)
{
	struct contract t = new_contract(spec);
	uint64_t sum = 0, random = 1;
	struct pair pair;
	struct end *a = &pair.a.end[0];

	must_open(&t, &pair);
	for (unsigned i = 0; i < 60; i++) {
		size_t len = 1 + pick(&random, 4 * KIB);

		cr_assert(end_write(&t, a, 0, 0, len, ctx_of(i)), "%s", t.text);
		end_poll(a);
		sum = sum * 31 + a->nlog;
		sum = sum * 31 + (a->nlog ? ctx_index(a->log[a->nlog - 1].ctx) : 0);
	}
	pair_close(&pair);
	return sum;
}

Test(sim, a_seed_repeats_its_run)
{
	cr_expect_eq(run_of("sim,seed=7"), run_of("sim,seed=7"));
	cr_expect_neq(run_of("sim,seed=7"), run_of("sim,seed=8"));
}

/* -- the spec -------------------------------------------------------------- */

static int open_spec(const char *text, struct via_error *err)
{
	struct via_fabric_spec spec;
	struct via_fabric *fab;
	int ret = via_fabric_spec_parse(text, &spec, err);

	if (!ret)
		ret = via_fabric_open(&spec, &fab, err);
	if (!ret)
		fab->ops->close(fab);
	return ret;
}

Test(sim, spec_is_checked)
{
	static const char *const bad[] = {
		"sim,break=everything", "sim,break=dereg+", "sim,break=after-writes+orde",
		"sim,reorder=maybe",    "sim,silent=1",     "sim,split=0",
		"sim,split=17",         "sim,tx-depth=0",   "sim,colour=red",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct via_error err = {0};

		cr_expect_eq(open_spec(bad[i], &err), -EINVAL, "%s", bad[i]);
		cr_expect_eq(err.code, -EINVAL);
		cr_expect(err.remedy[0], "%s: no remedy", bad[i]);
	}
	cr_expect_eq(open_spec("sim:net,break=after-writes+dereg+order,seed=0,delay=0", NULL), 0);
}

/* -- networks -------------------------------------------------------------- */

Test(sim, networks_do_not_reach_each_other)
{
	struct contract t = new_contract("sim:one"), u = new_contract("sim:two");
	struct via_wait wait = {via_deadline_in(PATIENCE), -1};
	struct via_error err = {0};
	const uint8_t nonce[16] = {0};
	struct side a, b;
	uint8_t addr[128];
	ssize_t len;

	cr_assert(side_open(&t, &a, VIA_EP_ACTIVE, 1, 4 * KIB));
	cr_assert(side_open(&u, &b, VIA_EP_PASSIVE, 1, 4 * KIB));
	len = b.ops->ep_address(b.end[0].ep, addr, sizeof(addr));
	cr_assert_gt(len, 0);
	cr_expect_eq(a.ops->ep_connect(a.end[0].ep, addr, (size_t)len, nonce, &wait, &err),
		     -EHOSTUNREACH);
	side_close(&a);
	side_close(&b);
}
