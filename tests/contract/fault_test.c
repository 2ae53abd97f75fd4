/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault_test.c -- the fault injector does what its spec says: links are lost, set-up calls fail,
 * completions come late, and the contract holds all the while.
 *
 * That it keeps the contract while it injects nothing is asked by the suite, as of any fabric.
 * A plain program, for ThreadSanitizer too.
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabrics/fault/fault.h"
#include "tests/contract/contract.h"

#define KIB       ((size_t)1 << 10)
#define PATIENCE  (60 * VIA_NS_PER_S)
#define WRITES    24u
#define RECVS     8u
#define SEND_CTX  500u
#define RECV_CTX  600u
#define CTX_MAX   1000u
#define BUSY_POST 4096u

static bool expect(struct contract *t, const char *what, int got, int want)
{
	if (got == want)
		return true;
	return contract_fail(t, "%s: %s, expected %s", what, via_err_name(got), via_err_name(want));
}

static bool expect_cuts(struct contract *t, unsigned want)
{
	if (via_fault_cuts() == want)
		return true;
	return contract_fail(t, "%u links were cut, expected %u", via_fault_cuts(), want);
}

/* Poll until it is dead; the reason must be a lost connection. */
static bool drain(struct contract *t, struct end *end)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);

	while (end_poll(end) >= 0)
		if (via_deadline_passed(deadline_ns))
			return contract_fail(t, "an endpoint without its link lives on");
	return expect(t, "poll", end->status, -ECONNRESET);
}

/* Each ctx below @n that @posted names was told once, and no other. */
static bool told_once(struct contract *t, const struct end *end, const bool *posted, unsigned n,
		      unsigned *lost)
{
	bool *told = calloc(n, sizeof(*told));

	for (unsigned i = 0; i < end->nlog && t->verdict == PASS; i++) {
		const struct via_comp *comp = &end->log[i];
		unsigned at = ctx_index(comp->ctx);

		if (at >= n || !posted[at] || told[at])
			contract_fail(t, "operation %u is told twice, or was not posted", at);
		else if (comp->status && comp->status != -ECONNRESET)
			contract_fail(t, "operation %u completes with %s", at,
				      via_err_name(comp->status));
		else
			told[at] = true;
		*lost += comp->status != 0;
	}
	for (unsigned i = 0; i < n && t->verdict == PASS; i++)
		if (posted[i] && !told[i])
			contract_fail(t, "operation %u was never told", i);
	free(told);
	return t->verdict == PASS;
}

static bool posts_return(struct contract *t, struct end *end, int want)
{
	struct via_sge sge = {end->side->mr, end->side->mem, 64};

	return expect(t, "post_write", end_try_write(end, 0, 0, 64, ctx_of(0)), want) &&
	       expect(t, "post_send", end_try_send(end, 0, 8, ctx_of(0), 0), want) &&
	       expect(t, "post_recv", end->side->ops->post_recv(end->ep, &sge, ctx_of(0)), want);
}

/* -- cut by hand ----------------------------------------------------------- */

static bool leave_work(struct contract *t, struct pair *pair, bool posted[CTX_MAX])
{
	struct end *a = &pair->a.end[0];

	if (!end_recv(t, &pair->b.end[0], 0, 64, ctx_of(0)))
		return false;
	posted[SEND_CTX] = !end_try_send(a, 0, 8, ctx_of(SEND_CTX), 0);
	for (unsigned i = 0; i < WRITES; i++)
		posted[i] = !end_try_write(a, 0, 0, 64 * KIB, ctx_of(i));
	for (unsigned i = 0; i < RECVS; i++) {
		if (!end_recv(t, a, 0, 64, ctx_of(RECV_CTX + i)))
			return false;
		posted[RECV_CTX + i] = true;
	}
	return true;
}

static void cut_once(struct contract *t, const char *spec, unsigned polls, unsigned *lost)
{
	struct contract u = {.spec = spec, .patience_ns = t->patience_ns};
	bool posted[CTX_MAX] = {false};
	struct pair pair;
	struct end *a = &pair.a.end[0], *b = &pair.b.end[0];

	via_fault_reset();
	if (!pair_open(&u, &pair, 1, 64 * KIB) || !leave_work(&u, &pair, posted))
		goto out;
	for (unsigned i = 0; i < polls; i++)
		end_step(a);
	via_fault_cut(a->ep);
	via_fault_cut(a->ep);
	if (!expect_cuts(&u, 1) || !drain(&u, a) || !told_once(&u, a, posted, CTX_MAX, lost) ||
	    !posts_return(&u, a, -ECONNRESET) || !drain(&u, b))
		goto out;
	a->side->ops->ep_abort(a->ep);
	posts_return(&u, a, -ECANCELED);
out:
	pair_close(&pair);
	if (u.verdict != PASS)
		contract_fail(t, "%s: %s", spec, u.text);
}

static void a_cut_is_a_lost_connection(struct contract *t)
{
	unsigned lost = 0;
	char spec[80];

	for (unsigned seed = 1; seed <= 8; seed++) {
		snprintf(spec, sizeof(spec), "fault+sim,seed=%u%s", seed,
			 seed % 2 ? "" : ",fault-delay=200");
		cut_once(t, spec, 2 * seed, &lost);
	}
	if (!lost)
		contract_fail(t, "nothing was ever outstanding");
}

static void an_abort_is_no_lost_connection(struct contract *t)
{
	struct pair pair;
	struct end *a = &pair.a.end[0];

	via_fault_reset();
	if (pair_open(t, &pair, 1, 64 * KIB) && end_recv(t, a, 0, 64, ctx_of(0))) {
		a->side->ops->ep_abort(a->ep);
		via_fault_cut(a->ep);
		while (end_poll(a) >= 0)
			;
		if (expect(t, "poll", a->status, -ECANCELED) &&
		    expect(t, "the receive", a->log[0].status, -ECANCELED))
			posts_return(t, a, -ECANCELED);
	}
	pair_close(&pair);
}

/* An endpoint whose link is lost cannot be connected, nor could the other one. */
static void a_cut_ends_connecting(struct contract *t)
{
	const uint8_t nonce[16] = {0};
	struct via_wait wait = {via_deadline_in(t->patience_ns), -1};
	struct side a = {0}, b = {0};
	struct via_error err = {0};
	uint8_t addr[256];
	ssize_t len;
	int ret;

	via_fault_reset();
	if (side_open(t, &a, VIA_EP_ACTIVE, 1, 4 * KIB) &&
	    side_open(t, &b, VIA_EP_PASSIVE, 1, 4 * KIB)) {
		len = b.ops->ep_address(b.end[0].ep, addr, sizeof(addr));
		via_fault_cut(a.end[0].ep);
		ret = a.ops->ep_connect(a.end[0].ep, addr, (size_t)len, nonce, &wait, &err);
		if (expect(t, "ep_connect", ret, -ECONNREFUSED))
			contract_explained(t, "ep_connect", ret, &err);
		end_poll(&a.end[0]);
		expect(t, "poll", a.end[0].status, -ECONNRESET);
	}
	side_close(&a);
	side_close(&b);
}

/* -- cut by another thread ------------------------------------------------- */

struct busy {
	struct end *end;
	bool sleeps;
	atomic_uint taken;
};

/* Write until that is refused; some sleep whenever they may. Then count. */
static void write_until_lost(struct contract *t, void *arg)
{
	struct busy *busy = arg;
	struct end *end = busy->end;
	bool *posted = calloc(BUSY_POST, sizeof(*posted));
	struct pollfd pfd = {.fd = -1, .events = POLLIN};
	unsigned taken = 0, lost = 0;
	int ret = 0;

	while (!ret || ret == -EAGAIN) {
		int n = 0;

		ret = taken < BUSY_POST ? end_try_write(end, 0, 0, 256, ctx_of(taken)) : -EAGAIN;
		if (!ret)
			posted[taken++] = true;
		atomic_store(&busy->taken, taken);
		if (ret == -EAGAIN)
			n = end_poll(end);
		if (n < 0)
			break;
		if (ret == -EAGAIN && !n && busy->sleeps &&
		    !end->side->ops->arm(end->ep, &pfd.fd) &&
		    poll(&pfd, 1, (int)(t->patience_ns / VIA_NS_PER_MS)) < 1) {
			contract_fail(t, "nobody woke the sleeper");
			break;
		}
	}
	atomic_store(&busy->taken, BUSY_POST);
	if (!ret || ret == -EAGAIN || expect(t, "post_write", ret, -ECONNRESET))
		if (drain(t, end))
			told_once(t, end, posted, BUSY_POST, &lost);
	free(posted);
}

static void any_thread_may_cut(struct contract *t)
{
	for (unsigned round = 0; t->verdict == PASS && round < 8; round++) {
		struct busy busy = {.sleeps = round % 2};
		struct contract u = {.patience_ns = t->patience_ns};
		struct worker w;
		struct pair pair;

		u.spec = round & 2 ? "fault+sim,fault-delay=100" : "fault+sim";
		via_fault_reset();
		if (pair_open(&u, &pair, 1, 64 * KIB)) {
			busy.end = &pair.a.end[0];
			worker_start(&w, &u, write_until_lost, &busy);
			while (atomic_load(&busy.taken) < 150 * round)
				end_poll(&pair.b.end[0]);
			via_fault_cut(busy.end->ep);
			worker_join(&w, &u);
			expect_cuts(&u, 1);
		}
		pair_close(&pair);
		if (u.verdict != PASS)
			contract_fail(t, "%s: %s", u.spec, u.text);
	}
}

/* -- cut after so many completions ------------------------------------------ */

#define AFTER 20u

/* Completions that @end reports until its link is cut; 2 * AFTER when it is not. */
static unsigned live(struct contract *t, struct end *end)
{
	unsigned done = 0;

	for (; done < 2 * AFTER; done++) {
		int ret = end_try_write(end, 0, 0, 64, ctx_of(done));

		if (ret) {
			expect(t, "post_write", ret, -ECONNRESET);
			break;
		}
		if (!end_until(t, end, VIA_COMP_WRITE, done + 1))
			break;
	}
	return done;
}

/* How long each of EPS_MAX endpoints lived under @spec. */
static bool lives(struct contract *t, const char *spec, unsigned life[EPS_MAX])
{
	struct contract u = {.spec = spec, .patience_ns = t->patience_ns};
	struct pair pair;

	via_fault_reset();
	if (pair_open(&u, &pair, EPS_MAX, 4 * KIB))
		for (unsigned i = 0; i < EPS_MAX; i++)
			life[i] = live(&u, &pair.a.end[i]);
	pair_close(&pair);
	return u.verdict == PASS || contract_fail(t, "%s: %s", spec, u.text);
}

static void cuts_come_within_their_number(struct contract *t)
{
	static const struct {
		const char *keys;
		unsigned cuts;
	} tries[] = {{"", 1}, {",fault-times=0", 0}, {",fault-times=3", 3}, {",fault-times=9", 4}};
	bool seen[AFTER + 1] = {false};
	unsigned life[EPS_MAX], values = 0;
	char spec[80];

	for (unsigned i = 0; i < 40; i++) {
		unsigned try = i % 4, died = 0;

		snprintf(spec, sizeof(spec), "fault+sim,fault-after=%u,fault-seed=%u%s", AFTER, i,
			 tries[try].keys);
		if (!lives(t, spec, life) || !expect_cuts(t, tries[try].cuts))
			return;
		for (unsigned k = 0; k < EPS_MAX; k++) {
			if (life[k] > AFTER && life[k] != 2 * AFTER)
				contract_fail(t, "%s: cut after %u", spec, life[k]);
			if (life[k] > AFTER)
				continue;
			died++;
			values += !seen[life[k]];
			seen[life[k]] = true;
		}
		if (died != tries[try].cuts)
			contract_fail(t, "%s: %u died", spec, died);
	}
	if (values < AFTER / 2 || seen[0])
		contract_fail(t, "only %u numbers of 1 to %u were chosen", values, AFTER);
}

static void a_seed_repeats_its_cuts(struct contract *t)
{
	const char *spec = "fault+sim,fault-after=20,fault-times=9,fault-seed=7";
	const char *other = "fault+sim,fault-after=20,fault-times=9,fault-seed=8";
	unsigned one[EPS_MAX], two[EPS_MAX], three[EPS_MAX];

	if (!lives(t, spec, one) || !lives(t, spec, two) || !lives(t, other, three))
		return;
	if (memcmp(one, two, sizeof(one)) != 0)
		contract_fail(t, "the same seed, other cuts");
	if (!memcmp(one, three, sizeof(one)))
		contract_fail(t, "another seed, the same cuts");
}

/* -- set-up calls ---------------------------------------------------------- */

/* Two each of mr_reg, ep_open, ep_connect, rkey_pack, rkey_unpack. */
#define PAIR_CALLS 10u

static void fail_call(struct contract *t, unsigned n)
{
	/* When one side's ep_connect fails, the other's waits for it in vain. */
	bool connects = n == 5 || n == 6, packs = n == 7 || n == 9;
	uint64_t patience_ns = connects ? 300 * VIA_NS_PER_MS : t->patience_ns;
	char spec[80];
	struct contract u = {.spec = spec, .patience_ns = patience_ns};
	struct contract again = {.spec = spec, .patience_ns = t->patience_ns};
	struct pair pair;

	snprintf(spec, sizeof(spec), "fault+sim,fault-call=%u", n);
	via_fault_reset();
	if (pair_open(&u, &pair, 1, 4 * KIB))
		contract_fail(t, "%s: none fails", spec);
	else if (!connects && !strstr(u.text, packs ? "ENOMEM" : "injected"))
		contract_fail(t, "%s is not explained: %s", spec, u.text);
	pair_close(&pair);
	if (!pair_open(&again, &pair, 1, 4 * KIB))
		contract_fail(t, "%s, for the second time: %s", spec, again.text);
	pair_close(&pair);
}

static void each_call_fails_once(struct contract *t)
{
	struct contract u = {.spec = "fault+sim,fault-call=11", .patience_ns = t->patience_ns};
	struct pair pair;

	for (unsigned n = 1; t->verdict == PASS && n <= PAIR_CALLS; n++)
		fail_call(t, n);
	via_fault_reset();
	if (!pair_open(&u, &pair, 1, 4 * KIB))
		contract_fail(t, "%s: %s", u.spec, u.text);
	pair_close(&pair);
}

static void is_injected(struct contract *t, const char *call, int ret, int want,
			const struct via_error *err)
{
	if (expect(t, call, ret, want) && contract_explained(t, call, ret, err) &&
	    (!strstr(err->what, call) || !strstr(err->seen, "injected") ||
	     !strstr(err->remedy, "fault-call")))
		contract_fail(t, "%s says: %s; %s; %s", call, err->what, err->seen, err->remedy);
}

static void a_failed_call_is_explained(struct contract *t)
{
	const uint8_t nonce[16] = {0};
	struct via_wait wait = {via_deadline_in(t->patience_ns), -1};
	struct via_error err[2] = {{0}, {0}};
	struct side a = {0}, b = {0};
	uint8_t mem[64];
	struct via_mr *mr;

	via_fault_reset();
	t->spec = "fault+sim,fault-call=2";
	if (side_open(t, &a, VIA_EP_ACTIVE, 0, 4 * KIB)) {
		is_injected(t, "mr_reg",
			    a.ops->mr_reg(a.fab, mem, sizeof(mem), VIA_MR_LOCAL, &mr, &err[0]),
			    -ENOMEM, &err[0]);
		if (expect(t, "mr_reg",
			   a.ops->mr_reg(a.fab, mem, sizeof(mem), VIA_MR_LOCAL, &mr, NULL), 0))
			a.ops->mr_dereg(mr);
	}
	via_fault_reset();
	t->spec = "fault+sim,fault-call=3";
	if (side_open(t, &b, VIA_EP_ACTIVE, 1, 4 * KIB))
		is_injected(t, "ep_connect",
			    b.ops->ep_connect(b.end[0].ep, mem, 0, nonce, &wait, &err[1]),
			    -ECONNREFUSED, &err[1]);
	side_close(&a);
	side_close(&b);
}

/* -- delays ---------------------------------------------------------------- */

/* Late, told in order of time, never beyond the depth; and one may sleep meanwhile. */
static void completions_come_late(struct contract *t)
{
	const uint64_t delay_ns = 30 * VIA_NS_PER_MS;
	struct pair pair;
	struct end *a = &pair.a.end[0];
	uint64_t posted_ns;
	unsigned taken = 0;

	t->spec = "fault+sim,fault-delay=30000,delay=0,tx-depth=4";
	if (!pair_open(t, &pair, 1, 4 * KIB))
		goto out;
	posted_ns = via_now_ns();
	while (!via_deadline_passed(posted_ns + delay_ns / 2)) {
		taken += !end_try_write(a, 0, 0, 64, ctx_of(taken));
		end_poll(a);
	}
	if (via_now_ns() < posted_ns + delay_ns && a->nlog)
		contract_fail(t, "a completion came early");
	if (taken > 4)
		contract_fail(t, "%u operations outstanding, the depth is 4", taken);
	if (end_sleep_until(t, a, VIA_COMP_WRITE, taken) && via_now_ns() < posted_ns + delay_ns)
		contract_fail(t, "all completions came early");
	if (end_write(t, a, 0, 0, 64, ctx_of(taken)))
		end_sleep_until(t, a, VIA_COMP_WRITE, taken + 1);
out:
	pair_close(&pair);
}

/* -- the spec -------------------------------------------------------------- */

static void the_spec_is_checked(struct contract *t)
{
	static const struct {
		const char *text;
		int want;
	} tries[] = {
		{"fault+sim", 0},
		{"fault+sim:net,seed=3,fault-after=500,split=2,fault-seed=0", 0},
		{"fault", -ENODEV},
		{"fault+", -ENODEV},
		{"fault+auto", -ENODEV},
		{"fault+nothing", -ENODEV},
		{"fault+fault+sim", -ENODEV},
		{"sim+sim", -ENODEV},
		{"sim,fault-after=1", -EINVAL},
		{"fault+sim,fault-after=x", -EINVAL},
		{"fault+sim,fault-delay=1000001", -EINVAL},
		{"fault+sim,fault-colour=1", -EINVAL},
		{"fault+sim,colour=red", -EINVAL},
	};
	struct via_fabric_spec spec;
	struct via_error err = {0};

	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
		expect(t, tries[i].text, via_fabric_spec_parse(tries[i].text, &spec, NULL),
		       tries[i].want);
	via_fabric_spec_parse("fault+sim,colour=red", &spec, &err);
	if (!strstr(err.remedy, "fault-after") || !strstr(err.remedy, "straggle"))
		contract_fail(t, "not the keys of both: %s", err.remedy);
	for (const struct via_fabric_ops *const *ops = via_fabric_list(); *ops; ops++)
		if (*ops == &via_fault_ops)
			contract_fail(t, "it is in the list");
}

/* -- all ------------------------------------------------------------------- */

static const struct {
	const char *name;
	contract_case *run;
} cases[] = {
#define ROW(name)                                                                                  \
	{                                                                                          \
#name, name                                                                        \
	}
	ROW(a_cut_is_a_lost_connection),    ROW(an_abort_is_no_lost_connection),
	ROW(a_cut_ends_connecting),         ROW(any_thread_may_cut),
	ROW(cuts_come_within_their_number), ROW(a_seed_repeats_its_cuts),
	ROW(each_call_fails_once),          ROW(a_failed_call_is_explained),
	ROW(completions_come_late),         ROW(the_spec_is_checked),
#undef ROW
};

int main(void)
{
	bool failed = false;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct contract t = {.spec = "fault+sim", .patience_ns = PATIENCE};

		cases[i].run(&t);
		printf("%s  %s%s%s\n", t.verdict == PASS ? "pass" : "FAIL", cases[i].name,
		       t.verdict == PASS ? "" : ": ", t.text);
		fflush(stdout);
		failed |= t.verdict != PASS;
	}
	return failed;
}
