/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim_migrations.c -- thousands of seeded migrations of a small guest over the adversarial
 * fabric, and the proof that fence and seal are what makes them right.
 *
 *   sim_migrations [N]   N migrations of each honest kind (default 10000)
 *
 * A plain program, so that it also runs under ThreadSanitizer.
 *
 *   honest         the fabric keeps its contract: every page of every migration is right
 *   early fence    the fence does not wait for the writes before it: stale pages are found
 *   lying fabric   the fabric breaks the promise that the fence stands on, in the only
 *                  round: with the seal no migration that completes has a stale page,
 *                  without it some have
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tests/migrate/pair.h"
#include "transport/session.h"

#define LYING_RUNS  400u
#define LYING_TRIES 10u

#define DELAY          24u /* polls that an event may take */
#define STRAGGLE_SHORT ",straggle=3000"
#define STRAGGLE       ",straggle=20000" /* writes that outlive whatever does not wait for them */

/* Guest memory is raced for by design where a guest writes while it is read, or a fence is broken. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN true
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN false
#endif

struct tally {
	unsigned runs, completed, failed, wrong;
};

static uint64_t mix(uint64_t seed)
{
	seed = (seed ^ (seed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	return seed ^ (seed >> 27);
}

/* A migration whose every choice comes from @seed. */
static struct pair_config config_for(uint64_t seed, const char *extra, char spec[2][160])
{
	uint64_t r = mix(seed);

	for (unsigned i = 0; i < 2; i++)
		snprintf(spec[i], 160, "sim:pair,seed=%llu,delay=%llu,split=%llu%s",
			 (unsigned long long)(seed * 2 + i + 1),
			 (unsigned long long)(1 + r % DELAY), (unsigned long long)(1 + r / 32 % 6),
			 *extra     ? extra
			 : seed % 4 ? ""
				    : STRAGGLE_SHORT);
	return (struct pair_config){
		.fabric_source = spec[0],
		.fabric_destination = spec[1],
		.multifd = 1 + (unsigned)(r / 256 % 3),
		.slice_len = r / 1024 % 2 ? 16384 : 0,
		.guest = {.seed = seed,
			  .pages = {1 + (unsigned)(r / 2048 % 70), (unsigned)(r / 262144 % 2) * 5},
			  .writes_per_round = (unsigned)(r / 524288 % 30),
			  .state_len = (unsigned)(r / 16777216 % 3) * 9000},
		.migrate = {.max_rounds = 1 + (unsigned)(r / 67108864 % 6), .downtime_limit_ns = 1},
	};
}

static void run_one(const struct pair_config *config, struct tally *t, bool tell)
{
	struct pair_result result;

	pair_migrate(config, &result);
	t->runs++;
	if (result.wrong_pages)
		t->wrong++;
	if (result.source.outcome == VIA_COMPLETED) {
		t->completed++;
	} else {
		t->failed++;
		if (tell)
			printf("# seed %llu: source: %s: %s; destination: %s: %s\n",
			       (unsigned long long)config->guest.seed, result.source_error.what,
			       result.source_error.seen, result.destination_error.what,
			       result.destination_error.seen);
	}
	if (tell && result.wrong_pages)
		printf("# seed %llu: %u wrong pages\n", (unsigned long long)config->guest.seed,
		       result.wrong_pages);
}

static struct tally run_many(const char *name, unsigned n, const char *extra, bool thread,
			     bool one_round, bool tell)
{
	uint64_t start = via_now_ns();
	struct tally t = {0};
	char spec[2][160];

	for (unsigned i = 0; i < n; i++) {
		struct pair_config config = config_for(i, extra, spec);

		config.guest.thread = thread;
		if (one_round) {
			config.guest.writes_per_round = 0;
			config.migrate.max_rounds = 1;
		}
		run_one(&config, &t, tell);
	}
	printf("# %-28s %u migrations: %u completed, %u failed, %u with wrong pages; %.1f s\n",
	       name, t.runs, t.completed, t.failed, t.wrong, (double)(via_now_ns() - start) / 1e9);
	fflush(stdout);
	return t;
}

/* What is broken shows in some runs only, and how many depends on the machine's load. */
static struct tally run_until_wrong(const char *name, const char *extra, bool one_round)
{
	struct tally t = {0};

	for (unsigned i = 0; i < LYING_TRIES && !t.wrong; i++)
		t = run_many(name, LYING_RUNS, extra, false, one_round, false);
	return t;
}

static bool check(bool ok, const char *what)
{
	if (!ok)
		printf("# FAILED: %s\n", what);
	return ok;
}

static bool check_honest(unsigned n)
{
	struct tally quiet = run_many("honest", n, "", false, false, true);
	struct tally busy = {0};

	if (!UNDER_TSAN)
		busy = run_many("honest, guest always writing", n / 10, "", true, false, true);
	return check(quiet.failed + quiet.wrong + busy.failed + busy.wrong == 0,
		     "every migration over an honest fabric must be right");
}

static bool check_early_fence(void)
{
	struct tally t;

	via_session_test_switches = SESSION_TEST_FENCE_EARLY;
	t = run_until_wrong("fence without its wait", STRAGGLE, false);
	via_session_test_switches = 0;
	return check(t.wrong > 0, "without the fence's wait stale pages must be found");
}

static bool check_seal(void)
{
	const char *lie = STRAGGLE ",break=after-writes";
	struct tally with = run_many("lying fabric, sealed", LYING_RUNS, lie, false, true, false);
	struct tally without;
	bool ok;

	via_session_test_switches = SESSION_TEST_NO_SEAL;
	without = run_until_wrong("lying fabric, not sealed", lie, true);
	via_session_test_switches = 0;
	ok = check(with.wrong == 0, "behind the seal no stale page may be found");
	return check(without.wrong > 0, "without the seal stale pages must be found") && ok;
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 10000;
	bool ok = check_honest(n);

	if (!UNDER_TSAN) {
		ok = check_early_fence() && ok;
		ok = check_seal() && ok;
	}
	return ok ? 0 : 1;
}
