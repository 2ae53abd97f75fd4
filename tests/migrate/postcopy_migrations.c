/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * postcopy_migrations.c -- seeded postcopy migrations of a small guest over the adversarial
 * fabric: 0 to 16 threads (in some, 100) touch its pages from its start on.
 *
 *   postcopy_migrations [N]   N migrations over an honest fabric, and N that lose links
 *                             (default 1000)
 *
 * A plain program, so that it also runs under ThreadSanitizer.
 *
 *   honest  every migration completes, and every page is right whenever it is touched
 *   failing a function of either guest fails, in precopy and in postcopy: the guest runs on at the
 *           source, and nobody waits for anything
 *   losses  links are cut one to three times, at random: each migration completes and every page is
 *           right, or it was aborted and the source's guest runs on
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "fabrics/fault/fault.h"
#include "tests/migrate/pair.h"

#define CROWD 100u /* threads, in one of 64 migrations */

struct tally {
	unsigned runs, completed, aborted, failed, wrong, recovered;
	uint64_t recoveries, faults, bulk, duplicates;
};

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static unsigned below(uint64_t *state, unsigned n)
{
	return (unsigned)(next(state) % n);
}

/* A migration whose every choice comes from @seed. */
static struct pair_config config_for(uint64_t seed, bool losses, char spec[2][160])
{
	uint64_t r = seed;
	struct pair_config c = {.multifd = 1 + below(&r, 3),
				.preempt = 1 + below(&r, 3),
				.slice_len = below(&r, 2) ? 16384 : 0};
	unsigned delay = 1 + below(&r, 24), split = 1 + below(&r, 6);
	unsigned after = 20 + below(&r, 400), times = 1 + below(&r, 3);

	for (unsigned i = 0; i < 2; i++) {
		int n = snprintf(spec[i], 160, "%ssim:pair,seed=%llu,delay=%u,split=%u",
				 losses ? "fault+" : "", (unsigned long long)(seed * 2 + i + 1),
				 delay, split);

		if (losses && i == 0)
			snprintf(spec[i] + n, 160 - (size_t)n,
				 ",fault-after=%u,fault-seed=%llu,fault-times=%u", after,
				 (unsigned long long)seed, times);
	}
	c.fabric_source = spec[0];
	c.fabric_destination = spec[1];
	c.guest = (struct small_guest_config){
		.seed = seed,
		.pages = {1 + below(&r, below(&r, 4) ? 100 : 1000), below(&r, 2) * 5},
		.writes_per_round = below(&r, 200),
		.state_len = below(&r, 3) * 9000,
		.toucher_threads = seed % 64 ? below(&r, 17) : CROWD,
		.touches = below(&r, 200),
		.postcopy = true};
	c.migrate = (struct via_migrate_config){
		.postcopy_after = 1 + below(&r, 2), .downtime_limit_ns = 1, .max_rounds = 30};
	return c;
}

static void tell_failure(const struct pair_config *c, const struct pair_result *r)
{
	printf("# seed %llu: %u wrong pages; source %s: %s: %s; destination %s: %s: %s\n",
	       (unsigned long long)c->guest.seed, r->wrong_pages,
	       via_outcome_name(r->source.outcome), r->source_error.what, r->source_error.seen,
	       via_outcome_name(r->destination.outcome), r->destination_error.what,
	       r->destination_error.seen);
}

static void add_up(struct tally *t, const struct pair_config *c, const struct pair_result *r)
{
	const struct via_postcopy_stats *p = &r->destination.postcopy;
	bool completed = r->source.outcome == VIA_COMPLETED &&
			 r->destination.outcome == VIA_COMPLETED && r->destination_runs &&
			 !r->source_runs;
	bool aborted = r->source.outcome == VIA_ABORTED && r->source_runs && !r->destination_runs;

	t->runs++;
	t->completed += completed;
	t->aborted += aborted;
	t->failed += !completed && !aborted;
	t->wrong += r->wrong_pages != 0;
	t->recovered += p->recoveries != 0;
	t->recoveries += p->recoveries;
	t->faults += p->faults;
	t->bulk += p->bulk_pages;
	t->duplicates += p->duplicate_pages;
	if ((!completed && !aborted) || r->wrong_pages)
		tell_failure(c, r);
}

static struct tally run_many(const char *name, unsigned first, unsigned n, bool losses)
{
	uint64_t start = via_now_ns();
	struct tally t = {0};
	char spec[2][160];

	for (unsigned i = first; i < first + n; i++) {
		struct pair_config config = config_for(i, losses, spec);
		struct pair_result result;

		via_fault_reset();
		pair_migrate(&config, &result);
		add_up(&t, &config, &result);
	}
	printf("# %-8s %u migrations: %u completed, %u aborted, %u failed, %u with wrong pages; "
	       "%u recovered, %llu times; %llu faults, %llu pages in bulk, %llu twice; %.1f s\n",
	       name, t.runs, t.completed, t.aborted, t.failed, t.wrong, t.recovered,
	       (unsigned long long)t.recoveries, (unsigned long long)t.faults,
	       (unsigned long long)t.bulk, (unsigned long long)t.duplicates,
	       (double)(via_now_ns() - start) / 1e9);
	fflush(stdout);
	return t;
}

/* Longer than any of them takes, shorter than a destination waits for a source in vain. */
#define FAILING_NS (10 * VIA_NS_PER_S)

static struct tally run_failing(unsigned n)
{
	static const enum small_fail where[] = {SMALL_FAIL_DIRTY_FETCH, SMALL_FAIL_PAUSE,
						SMALL_FAIL_SAVE, SMALL_FAIL_LOAD, SMALL_FAIL_RUN};
	const unsigned nwhere = sizeof(where) / sizeof(where[0]);
	uint64_t start = via_now_ns();
	struct tally t = {0};
	char spec[2][160];

	for (unsigned i = 0; i < n * nwhere * 2; i++) {
		struct pair_config config = config_for(i, false, spec);
		bool destination = where[i % nwhere] >= SMALL_FAIL_LOAD;
		uint64_t began = via_now_ns();
		struct pair_result result;

		if (i / nwhere % 2) /* precopy */
			config.migrate.postcopy_after = 0;
		if (destination)
			config.destination_fails_at = (int)where[i % nwhere];
		else
			config.guest.fail_at = (int)where[i % nwhere];
		pair_migrate(&config, &result);
		add_up(&t, &config, &result);
		t.failed += via_now_ns() - began > FAILING_NS;
	}
	printf("# %-8s %u migrations: %u completed, %u aborted, %u failed; %.1f s\n", "failing",
	       t.runs, t.completed, t.aborted, t.failed, (double)(via_now_ns() - start) / 1e9);
	fflush(stdout);
	return t;
}

static bool check(bool ok, const char *what)
{
	if (!ok)
		printf("# FAILED: %s\n", what);
	return ok;
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000;
	unsigned first = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	struct tally honest = run_many("honest", first, n, false);
	struct tally failing = run_failing(n < 200 ? 2 : n / 100);
	struct tally losses = run_many("losses", first, n, true);
	bool ok = check(honest.completed == honest.runs && !honest.wrong && !honest.duplicates,
			"every migration over an honest fabric completes, each page comes once");

	ok = check(failing.aborted == failing.runs, "a guest's failure leaves it at the source") &&
	     ok;
	ok = check(!losses.failed && !losses.wrong,
		   "with links lost each completes or leaves the guest at the source") &&
	     ok;
	ok = check(n < 100 || losses.recovered, "some sessions are lost in postcopy and resumed") &&
	     ok;
	return ok ? 0 : 1;
}
