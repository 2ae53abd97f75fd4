/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * every_site.c -- each thing that a migration asks the system or the fabric for fails once.
 *
 *   every_site [STRIDE [GROUP]]   every STRIDE-th call (default 1: all), of one group alone
 *
 * The n-th call fails, for n = 1, 2, ... until a migration has fewer calls than that: memory,
 * threads and descriptors (failing.h), then set-up calls of the fabric (fault-call), then the
 * link after n completions (fault-after); each over precopy, postcopy, and a postcopy that is
 * lost and resumed.
 *
 * Whatever fails, a migration ends in one of three ways, and in time: completed, and every page is
 * right; aborted, and the guest runs on at the source; or paused, each side keeping what it has.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "fabrics/fault/fault.h"
#include "tests/faults/failing.h"
#include "tests/migrate/pair.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 5u
#else
#define SLOWER 1u
#endif

#define HANGS_S (SLOWER * 30u)
#define SLOW_NS (SLOWER * 8 * VIA_NS_PER_S)
#define DEADLINE_NS                                                                                \
	(SLOWER * VIA_NS_PER_S) /* of work that does not move, and of a handshake's step */
#define CALLS_MAX 20000u        /* a migration that always has more has gone wrong */

enum what { FAIL_SYSTEM, FAIL_FABRIC, FAIL_LINK };

struct scenario {
	const char *name;
	bool postcopy;
	bool lost; /* and it is lost once, in postcopy */
};

static const struct scenario scenarios[] = {
	{"precopy", false, false},
	{"postcopy", true, false},
	{"recovery", true, true},
};

struct tally {
	const char *name;
	unsigned runs, completed, aborted, paused, failed, recoveries;
	unsigned late; /* ended by a deadline: nobody could tell the peer */
	uint64_t start_ns, slowest_ns;
};

static char label[128];
static unsigned failing_call; /* of the system; 0: none */

static void on_signal(int number)
{
	(void)!write(STDOUT_FILENO,
		     number == SIGALRM ? "# HANGS: " : "# DIES: ", number == SIGALRM ? 9 : 8);
	(void)!write(STDOUT_FILENO, label, strlen(label));
	(void)!write(STDOUT_FILENO, "\n", 1);
	signal(SIGABRT, SIG_DFL);
	abort();
}

static void begins(void)
{
	failing_begin(failing_call);
}

/* -- losing the session once, when the guest runs there ------------------------------------ */

static int source_fd;
static bool lose;

static void joined(enum via_role role, struct via_session *session, int control_fd)
{
	(void)session;
	if (role == VIA_ROLE_SOURCE)
		source_fd = control_fd;
}

static void at_guest(unsigned where)
{
	if (where != SMALL_FAIL_RUN || !lose)
		return;
	lose = false;
	shutdown(source_fd, SHUT_RDWR);
}

/* -- one migration ----------------------------------------------------------------------------- */

static void migrate(const struct scenario *sc, enum what what, unsigned n,
		    struct pair_result *result)
{
	char spec[2][160];
	struct pair_config c = {
		.fabric_source = spec[0],
		.fabric_destination = spec[1],
		.multifd = 2,
		.preempt = sc->postcopy ? 1 : 0,
		.stall_ns = DEADLINE_NS,
		.handshake_ns = DEADLINE_NS,
		.guest = {.seed = n + 1,
			  .pages = {40, 10},
			  .writes_per_round = 20,
			  .state_len = 9000,
			  .toucher_threads = sc->postcopy ? 1 : 0,
			  .touches = 10,
			  .postcopy = sc->postcopy,
			  .at = at_guest},
		.migrate = {.postcopy_after = sc->postcopy,
			    .max_rounds = 2,
			    .downtime_limit_ns = 1},
		.joined = joined,
		.begins = begins,
	};

	for (unsigned i = 0; i < 2; i++)
		snprintf(spec[i], sizeof(spec[i]),
			 "fault+sim:sites,seed=%u,delay=2,fault-call=%u,fault-after=%u,"
			 "fault-seed=%u",
			 2 * n + i + 1, what == FAIL_FABRIC ? n : 0, what == FAIL_LINK ? n : 0, n);
	lose = sc->lost;
	failing_call = what == FAIL_SYSTEM ? n : 0;
	via_fault_reset();
	pair_migrate(&c, result);
}

/* What is wrong with the outcome; NULL: nothing. */
static const char *judge(const struct pair_result *r)
{
	enum via_outcome source = r->source.outcome, destination = r->destination.outcome;

	if (r->source_runs && r->destination_runs)
		return "the guest runs at both ends";
	if (r->destination_runs && r->wrong_pages && destination == VIA_COMPLETED)
		return "wrong pages";
	if (source == VIA_ABORTED && (!r->source_runs || destination == VIA_COMPLETED))
		return "aborted, and the guest does not run on at the source";
	if (source == VIA_COMPLETED && (r->source_runs || !r->destination_runs))
		return "completed, and the guest is in the wrong place";
	if (source == VIA_PAUSED && r->source_runs)
		return "paused, and the guest runs on";
	if (source == VIA_LOST)
		return "lost";
	if (source != VIA_COMPLETED &&
	    !(r->source_error.what[0] && r->source_error.seen[0] && r->source_error.remedy[0]))
		return "a message without one of its three parts";
	return NULL;
}

static void tell(const struct pair_result *r, const char *wrong, uint64_t ns)
{
	printf("not ok: %s: %s; %.2f s; resumed %u times; %u wrong pages\n"
	       "#   source %s, %s: %s: %s: %s\n#   destination %s, %s: %s: %s: %s\n",
	       label, wrong, (double)ns / 1e9, r->destination.postcopy.recoveries, r->wrong_pages,
	       via_outcome_name(r->source.outcome), r->source_runs ? "runs" : "does not run",
	       r->source_error.what, r->source_error.seen, r->source_error.remedy,
	       via_outcome_name(r->destination.outcome),
	       r->destination_runs ? "runs" : "does not run", r->destination_error.what,
	       r->destination_error.seen, r->destination_error.remedy);
	fflush(stdout);
}

/* False: nothing failed any more. */
static bool run_one(struct tally *t, const struct scenario *sc, enum what what, unsigned n)
{
	struct pair_result r;
	uint64_t start = via_now_ns(), ns;
	const char *wrong;
	unsigned calls;

	snprintf(label, sizeof(label), "%s, call %u", t->name, n);
	alarm(HANGS_S);
	migrate(sc, what, n, &r);
	calls = failing_end();
	alarm(0);
	ns = via_now_ns() - start;
	wrong = judge(&r);
	if (!wrong && ns > SLOW_NS)
		wrong = "slow";
	t->runs++;
	t->completed += r.source.outcome == VIA_COMPLETED;
	t->aborted += r.source.outcome == VIA_ABORTED;
	t->paused += r.source.outcome == VIA_PAUSED;
	t->recoveries += r.destination.postcopy.recoveries;
	t->slowest_ns = ns > t->slowest_ns ? ns : t->slowest_ns;
	t->late += ns > DEADLINE_NS;
	if (wrong) {
		t->failed++;
		tell(&r, wrong, ns);
	}
	if (what == FAIL_SYSTEM)
		return calls >= n;
	return what == FAIL_FABRIC ? via_fault_calls() >= n : via_fault_cuts() > 0;
}

static bool run_group(const char *name, const struct scenario *sc, enum what what, unsigned stride)
{
	struct tally t = {.name = name, .start_ns = via_now_ns()};
	unsigned n;

	for (n = 1; run_one(&t, sc, what, n) && n < CALLS_MAX;)
		/* The first ones each: set-up is where a call of its own stands for each thing. */
		n += n < 4 * stride ? 1 + stride / 4 : stride;
	if (n >= CALLS_MAX) {
		printf("not ok: %s: it never ends\n", name);
		t.failed++;
	}
	printf("# %-15s %u of up to %u calls failed: %u completed, %u aborted, %u paused, %u "
	       "wrong; "
	       "resumed %u times; %u by a deadline, slowest %.2f s; %.1f s\n",
	       name, t.runs, n, t.completed, t.aborted, t.paused, t.failed, t.recoveries, t.late,
	       (double)t.slowest_ns / 1e9, (double)(via_now_ns() - t.start_ns) / 1e9);
	fflush(stdout);
	return !t.failed;
}

/* Each group in a process of its own: most of the time they wait for deadlines. */
static pid_t start_group(const struct scenario *sc, enum what what, unsigned stride,
			 const char *only)
{
	static const char *const of[] = {"system", "fabric", "link"};
	char name[64];
	pid_t pid;

	snprintf(name, sizeof(name), "%s %s", sc->name, of[what]);
	if (!strstr(name, only))
		return -1;
	pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0)
		exit(run_group(name, sc, what, stride) ? 0 : 1); /* leaks are looked for */
	return pid;
}

int main(int argc, char **argv)
{
	unsigned stride = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
	bool good = stride > 0;
	int status;

	signal(SIGALRM, on_signal);
	signal(SIGABRT, on_signal);
	setvbuf(stdout, NULL, _IOLBF, 0);
	failing_init();
	for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]) && stride; i++)
		for (enum what what = FAIL_SYSTEM; what <= FAIL_LINK; what++)
			(void)start_group(&scenarios[i], what, stride, argc > 2 ? argv[2] : "");
	while (wait(&status) > 0) {
		if (WIFSIGNALED(status))
			printf("not ok: a group died of signal %d\n", WTERMSIG(status));
		good = good && !status;
	}
	printf("# %u places in the code ask the system for something; %u of them have failed\n",
	       failing_sites(), failing_sites_failed());
	return good ? 0 : 1;
}
