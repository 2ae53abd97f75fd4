/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * postcopy_faults.c -- postcopy migrations that lose a channel, or the control connection, at each step
 * of the two engines, up to three times in a row.
 *
 *   postcopy_faults [N [GROUP]]   every N-th case (default 1: all), of one group alone
 *
 *   once    each thing at each end at each step: the migration completes and every page came once and
 *           is right, or, before RUN was sent, it is aborted and the source's guest runs on
 *   again   the same from RUN on, and then once or twice more in the sessions that resume the first
 *   resume  lost when bulk begins, and then once or twice more at each step of a session that resumes
 *   calls   the N-th set-up call of the fabric fails in sessions that resume one: tried again
 *   switch  it fails in the first session: as once
 *   memory  userfaultfd refuses, at the destination
 *
 * A plain program, so that it also runs under ThreadSanitizer.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "fabrics/fault/fault.h"
#include "migrate/engine_messages.h"
#include "tests/migrate/cutter.h"
#include "tests/migrate/pair.h"

#if defined(__SANITIZE_THREAD__)
#define SLOWER 10u
#else
#define SLOWER 1u
#endif

/* No case waits for a deadline: the shortest, of a goodbye that is not answered, is 2 s. */
#define SLOW_NS       (SLOWER * 1800 * VIA_NS_PER_MS)
#define MISSED_MAX    10u /* of some hundreds of cases in a group */
#define HANGS_S       (60u)
#define CALLS_RESUMED 60u  /* set-up calls of a session that resumes one, and some more */
#define CALLS_FIRST   120u /* and of the first */

#define MAIN    (1u << VIA_MAIN)
#define MULTIFD (1u << VIA_MULTIFD)
#define PREEMPT (1u << VIA_PREEMPT)
#define CONTROL (1u << CUT_CONTROL)
#define ALL     (CONTROL | MAIN | MULTIFD | PREEMPT)

#define SOURCE      VIA_ROLE_SOURCE
#define DESTINATION VIA_ROLE_DESTINATION

struct moment {
	const char *name;
	struct cut_moment at;
	unsigned there; /* what exists for certain */
	bool before_run;
};

/* In the first session. */
static const struct moment first[] = {
	{"dirty_start",
	 {SOURCE, CUT_GUEST, SMALL_FAIL_DIRTY_START},
	 CONTROL | MAIN | MULTIFD,
	 true},
	{"writes", {SOURCE, CUT_ROUND, 0}, CONTROL | MAIN | MULTIFD, true},
	{"dirty_fetch",
	 {SOURCE, CUT_GUEST, SMALL_FAIL_DIRTY_FETCH},
	 CONTROL | MAIN | MULTIFD,
	 true},
	{"ADVISE", {SOURCE, CUT_SENDING, ENGINE_ADVISE}, ALL, true},
	{"ADVISED", {DESTINATION, CUT_SENDING, ENGINE_ADVISED}, ALL, true},
	{"ADVISED sent", {DESTINATION, CUT_SENT, ENGINE_ADVISED}, ALL, true},
	{"pause", {SOURCE, CUT_GUEST, SMALL_FAIL_PAUSE}, ALL, true},
	{"PAGE_MAP", {SOURCE, CUT_SENDING, ENGINE_PAGE_MAP}, ALL, true},
	{"half of PAGE_MAP sent", {SOURCE, CUT_SENT, ENGINE_PAGE_MAP}, ALL, true},
	{"save", {SOURCE, CUT_GUEST, SMALL_FAIL_SAVE}, ALL, true},
	{"STATE sent", {SOURCE, CUT_SENT, ENGINE_STATE}, ALL, true},
	{"ARMED", {DESTINATION, CUT_SENDING, ENGINE_ARMED}, ALL, true},
	{"ARMED sent", {DESTINATION, CUT_SENT, ENGINE_ARMED}, ALL, true},
	{"load", {DESTINATION, CUT_GUEST, SMALL_FAIL_LOAD}, ALL, true},
	{"RUN", {SOURCE, CUT_SENDING, ENGINE_RUN}, ALL, true},
	{"RUN sent", {SOURCE, CUT_SENT, ENGINE_RUN}, ALL, false},
	{"run", {DESTINATION, CUT_GUEST, SMALL_FAIL_RUN}, ALL, false},
	{"RUNNING", {DESTINATION, CUT_SENDING, ENGINE_RUNNING}, ALL, false},
	{"RUNNING sent", {DESTINATION, CUT_SENT, ENGINE_RUNNING}, ALL & ~MULTIFD, false},
	{"REQUEST", {DESTINATION, CUT_SENDING, ENGINE_REQUEST}, ALL & ~MULTIFD, false},
	{"REQUEST sent", {DESTINATION, CUT_SENT, ENGINE_REQUEST}, ALL & ~MULTIFD, false},
	{"PAGE", {SOURCE, CUT_SENDING, ENGINE_PAGE}, ALL & ~MULTIFD, false},
	{"PAGE sent", {SOURCE, CUT_SENT, ENGINE_PAGE}, ALL & ~MULTIFD, false},
	{"one page came", {DESTINATION, CUT_INSTALL, CUT_INSTALLED_ONE}, ALL & ~MULTIFD, false},
	{"BULK", {SOURCE, CUT_SENDING, ENGINE_BULK}, ALL, false},
	{"BULK sent", {SOURCE, CUT_SENT, ENGINE_BULK}, ALL, false},
	{"PAGES", {SOURCE, CUT_SENDING, ENGINE_PAGES}, ALL, false},
	{"PAGES sent", {SOURCE, CUT_SENT, ENGINE_PAGES}, ALL, false},
	{"half came", {DESTINATION, CUT_INSTALL, CUT_INSTALLED_HALF}, ALL, false},
	{"the last comes", {DESTINATION, CUT_INSTALL, CUT_INSTALLING_LAST}, ALL, false},
	{"all came", {DESTINATION, CUT_INSTALL, CUT_INSTALLED_ALL}, ALL, false},
	{"COMPLETE", {DESTINATION, CUT_SENDING, ENGINE_COMPLETE}, ALL, false},
	{"COMPLETE sent", {DESTINATION, CUT_SENT, ENGINE_COMPLETE}, ALL, false},
	{"COMPLETED", {SOURCE, CUT_SENDING, ENGINE_COMPLETED}, ALL, false},
	{"COMPLETED sent", {SOURCE, CUT_SENT, ENGINE_COMPLETED}, 0, false},
};

/* In one that resumes another; what comes is less and less, so that not each step is always reached. */
static const struct moment later[] = {
	{"source joined", {SOURCE, CUT_JOINED, 0}, CONTROL, false},
	{"destination joined", {DESTINATION, CUT_JOINED, 0}, CONTROL, false},
	{"RESUME", {SOURCE, CUT_SENDING, ENGINE_RESUME}, ALL, false},
	{"RESUME sent", {SOURCE, CUT_SENT, ENGINE_RESUME}, ALL, false},
	{"RUNNING", {DESTINATION, CUT_SENDING, ENGINE_RUNNING}, ALL, false},
	{"PAGE_MAP", {DESTINATION, CUT_SENDING, ENGINE_PAGE_MAP}, ALL, false},
	{"half of PAGE_MAP sent", {DESTINATION, CUT_SENT, ENGINE_PAGE_MAP}, ALL, false},
	{"REQUEST", {DESTINATION, CUT_SENDING, ENGINE_REQUEST}, 0, false},
	{"PAGE sent", {SOURCE, CUT_SENT, ENGINE_PAGE}, 0, false},
	{"PAGES", {SOURCE, CUT_SENDING, ENGINE_PAGES}, ALL, false},
	{"one page came", {DESTINATION, CUT_INSTALL, CUT_INSTALLED_ONE}, ALL, false},
	{"half came", {DESTINATION, CUT_INSTALL, CUT_INSTALLED_HALF}, ALL, false},
	{"the last comes", {DESTINATION, CUT_INSTALL, CUT_INSTALLING_LAST}, ALL, false},
	{"all came", {DESTINATION, CUT_INSTALL, CUT_INSTALLED_ALL}, ALL, false},
	{"COMPLETE", {DESTINATION, CUT_SENDING, ENGINE_COMPLETE}, ALL, false},
	{"COMPLETE sent", {DESTINATION, CUT_SENT, ENGINE_COMPLETE}, ALL, false},
	{"COMPLETED", {SOURCE, CUT_SENDING, ENGINE_COMPLETED}, ALL, false},
};

/* Of a destination that was not started before the session was lost. */
static const struct moment later_run[] = {
	{"STATE again", {SOURCE, CUT_SENDING, ENGINE_STATE}, 0, false},
	{"RUN again", {SOURCE, CUT_SENDING, ENGINE_RUN}, 0, false},
	{"run at last", {DESTINATION, CUT_GUEST, SMALL_FAIL_RUN}, 0, false},
};

static const struct {
	const char *name;
	unsigned kind, index;
} targets[] = {
	{"control", CUT_CONTROL, 0},   {"main", VIA_MAIN, 0},         {"multifd/0", VIA_MULTIFD, 0},
	{"multifd/1", VIA_MULTIFD, 1}, {"preempt/0", VIA_PREEMPT, 0}, {"preempt/1", VIA_PREEMPT, 1},
};

#define COUNT(array) ((unsigned)(sizeof(array) / sizeof((array)[0])))
#define NFIRST       COUNT(first)
#define NTARGETS     COUNT(targets)

/* -- one case ------------------------------------------------------------------------- */

struct fault_case {
	const struct moment *moment[3];
	struct cut cut[3];
	unsigned n;
	unsigned sure;         /* cuts that are made in any case */
	bool hold;             /* as cutter_begin() has it */
	unsigned failing_call; /* 0: none */
	bool in_first;         /* session; else in one that resumes it */
	enum cut_failure failure;
	bool no_abandon;
	bool may_abort;         /* and, else: must complete */
	const char *must_abort; /* with this in the source's message; NULL: need not */
};

struct tally {
	const char *name;
	uint64_t start_ns, slowest_ns;
	unsigned runs, completed, aborted, failed, cuts, missed, lingered;
	uint64_t recoveries, tries;
	unsigned unreached; /* cases whose moments should have been reached */
};

static unsigned stride = 1, turn;
static char label[512]; /* of the case under way */

static void describe(const struct fault_case *f, const char *group)
{
	int n = snprintf(label, sizeof(label), "%s:", group);

	for (unsigned i = 0; i < f->n; i++)
		n += snprintf(label + n, sizeof(label) - (size_t)n, "%s %s %s at the %s",
			      i ? ";" : "", f->moment[i]->name,
			      f->cut[i].kind == CUT_CONTROL ? "control"
							    : via_channel_kind_name(f->cut[i].kind),
			      f->cut[i].side == SOURCE ? "source" : "destination");
	if (f->failing_call)
		n += snprintf(label + n, sizeof(label) - (size_t)n, ", call %u", f->failing_call);
	if (f->failure || f->no_abandon)
		snprintf(label + n, sizeof(label) - (size_t)n, " failure %u", f->failure);
}

static void on_alarm(int signal)
{
	static const char text[] = "# HANGS: ";

	(void)signal;
	(void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
	(void)!write(STDOUT_FILENO, label, strlen(label));
	(void)!write(STDOUT_FILENO, "\n", 1);
	abort();
}

static void migrate(const struct fault_case *f, unsigned seed, struct pair_result *result)
{
	char spec[2][160], resumed[160];
	struct pair_config c = {
		.fabric_source = spec[0],
		.fabric_destination = spec[1],
		.fabric_resumed = f->failing_call ? resumed : NULL,
		.multifd = 2,
		.preempt = 2,
		.destination_fails_at = f->no_abandon ? SMALL_FAIL_ABANDON : SMALL_FAIL_NOWHERE,
		.guest = {.seed = seed,
			  .pages = {500, 30},
			  .writes_per_round = 200,
			  .state_len = 9000,
			  .toucher_threads = 2,
			  .touches = 40,
			  .postcopy = true,
			  .at = cutter_at_guest},
		.migrate = {.postcopy_after = 1, .downtime_limit_ns = 1},
		.joined = cutter_joined,
	};

	for (unsigned i = 0; i < 2; i++)
		snprintf(spec[i], sizeof(spec[i]),
			 "fault+sim:pair,seed=%u,delay=%u,split=%u,fault-call=%u", 2 * seed + i + 1,
			 1 + seed % 8, 1 + seed % 3, f->in_first ? f->failing_call : 0);
	snprintf(resumed, sizeof(resumed), "fault+sim:pair,seed=%u,fault-call=%u", seed + 1,
		 f->in_first ? 0 : f->failing_call);
	cutter_begin(f->cut, f->n, f->hold, f->failure);
	pair_migrate(&c, result);
}

/* What is wrong with the outcome; NULL: nothing. */
static const char *judge(const struct fault_case *f, const struct pair_result *r,
			 const struct cutter_result *cuts)
{
	const struct via_postcopy_stats *p = &r->destination.postcopy;

	if (r->source.outcome == VIA_ABORTED && r->destination.outcome == VIA_ABORTED) {
		if (!r->source_runs || r->destination_runs)
			return "aborted, and the guest is in the wrong place";
		if (f->must_abort && !strstr(r->source_error.seen, f->must_abort))
			return "aborted for another reason";
		return f->may_abort ? NULL : "aborted after RUN";
	}
	if (r->source.outcome != VIA_COMPLETED || r->destination.outcome != VIA_COMPLETED)
		return "neither completed nor aborted";
	if (f->must_abort)
		return "completed, and should not have";
	if (r->source_runs || !r->destination_runs)
		return "completed, and the guest is in the wrong place";
	if (r->wrong_pages)
		return "wrong pages";
	if (p->duplicate_pages || p->request_pages + p->bulk_pages != cuts->first_lacking)
		return "pages came twice, or others than were lacking";
	return NULL;
}

static void tell(const struct fault_case *f, const struct pair_result *r,
		 const struct cutter_result *cuts, const char *wrong)
{
	printf("# %s\n#   %s; %u of %u cuts at %u moments, resumed %u times; %u wrong pages; %llu "
	       "requested, %llu bulk, %llu "
	       "twice, "
	       "of %llu\n#   source %s: %s: %s\n#   destination %s: %s: %s\n",
	       label, wrong, cuts->cut, f->n, cuts->reached, r->destination.postcopy.recoveries,
	       r->wrong_pages, (unsigned long long)r->destination.postcopy.request_pages,
	       (unsigned long long)r->destination.postcopy.bulk_pages,
	       (unsigned long long)r->destination.postcopy.duplicate_pages,
	       (unsigned long long)cuts->first_lacking, via_outcome_name(r->source.outcome),
	       r->source_error.what, r->source_error.seen, via_outcome_name(r->destination.outcome),
	       r->destination_error.what, r->destination_error.seen);
	fflush(stdout);
}

static void run_case(struct tally *t, const struct fault_case *f)
{
	struct pair_result result;
	struct cutter_result cuts;
	const char *wrong;
	uint64_t start = via_now_ns(), ns;

	if (turn++ % stride)
		return;
	describe(f, t->name);
	alarm(HANGS_S);
	via_fault_reset();
	migrate(f, turn, &result);
	cuts = cutter_end();
	alarm(0);
	ns = via_now_ns() - start;
	wrong = judge(f, &result, &cuts);
	/* A guest may touch nothing that is missing before bulk has brought it. */
	if (!wrong && cuts.cut < f->sure && ++t->unreached > MISSED_MAX)
		wrong = "too many moments were not reached";
	if (!wrong && ns > SLOW_NS)
		wrong = "slow";
	t->runs++;
	t->completed += result.source.outcome == VIA_COMPLETED;
	t->aborted += result.source.outcome == VIA_ABORTED;
	t->failed += wrong != NULL;
	t->cuts += cuts.cut;
	t->missed += f->n - cuts.cut;
	t->lingered += result.lingered;
	t->recoveries += result.destination.postcopy.recoveries;
	t->tries += result.tries;
	t->slowest_ns = ns > t->slowest_ns ? ns : t->slowest_ns;
	if (wrong)
		tell(f, &result, &cuts, wrong);
}

static struct tally begin(const char *name)
{
	return (struct tally){.name = name, .start_ns = via_now_ns()};
}

static bool end(const struct tally *t)
{
	printf("# %-7s %u migrations: %u completed, %u aborted, %u failed; %u cuts, %u moments not "
	       "reached; resumed %llu times in %llu tries; %u waited for a source that did not "
	       "come; "
	       "slowest %.2f s; %.1f s\n",
	       t->name, t->runs, t->completed, t->aborted, t->failed, t->cuts, t->missed,
	       (unsigned long long)t->recoveries, (unsigned long long)t->tries, t->lingered,
	       (double)t->slowest_ns / 1e9, (double)(via_now_ns() - t->start_ns) / 1e9);
	fflush(stdout);
	return !t->failed;
}

/* -- the cases ----------------------------------------------------------------------------- */

static void add_cut(struct fault_case *f, const struct moment *m, unsigned target,
		    enum via_role side)
{
	/* The second one too, while what is missing waits for it. */
	if (f->sure == f->n && f->n <= f->hold && m->there & (1u << targets[target].kind))
		f->sure++;
	f->moment[f->n] = m;
	f->cut[f->n++] = (struct cut){.moment = &m->at,
				      .kind = targets[target].kind,
				      .index = targets[target].index,
				      .side = side};
	/* Until the destination obeys RUN, a loss of the session that resumes ends it, too. */
	f->may_abort =
		f->moment[0]->before_run || (f->n > 1 && !strcmp(f->moment[0]->name, "RUN sent"));
}

static bool run_once(void)
{
	struct tally t = begin("once");

	for (unsigned m = 0; m < NFIRST; m++)
		for (unsigned i = 0; i < 2 * NTARGETS; i++) {
			struct fault_case f = {0};

			add_cut(&f, &first[m], i / 2, SOURCE + i % 2);
			run_case(&t, &f);
		}
	return end(&t);
}

/* The moments of later sessions take turns. */
static bool run_again(void)
{
	struct tally t = begin("again");
	unsigned next = 0;

	for (unsigned m = 0; m < NFIRST; m++)
		for (unsigned i = 0; i < 4 * NTARGETS && !first[m].before_run; i++) {
			struct fault_case f = {0};

			add_cut(&f, &first[m], i / 4, SOURCE + i % 2);
			for (unsigned n = 0; n <= i / 2 % 2; n++)
				add_cut(&f, &later[next++ % COUNT(later)], i / 4, SOURCE + i % 2);
			run_case(&t, &f);
		}
	return end(&t);
}

static const struct moment *moment_named(const char *name)
{
	for (unsigned m = 0; m < NFIRST; m++)
		if (!strcmp(first[m].name, name))
			return &first[m];
	abort();
}

/* Lost at @start, by main, and then one to three times at each of @moments. */
static void resume_from(struct tally *t, const char *start, const struct moment *moments,
			unsigned nmoments)
{
	for (unsigned m = 0; m < nmoments; m++)
		for (unsigned i = 0; i < 4 * NTARGETS; i++) {
			struct fault_case f = {.hold = true};

			/* No channel is opened yet. */
			if (moments[m].at.where == CUT_JOINED && targets[i / 4].kind != CUT_CONTROL)
				break;
			add_cut(&f, moment_named(start), 1, SOURCE);
			for (unsigned n = 0; n <= i / 2 % 2; n++)
				add_cut(&f, &moments[m], i / 4, SOURCE + i % 2);
			run_case(t, &f);
		}
}

static bool run_resume(void)
{
	struct tally t = begin("resume");

	resume_from(&t, "PAGES", later, COUNT(later));
	resume_from(&t, "RUN sent", later_run, COUNT(later_run));
	return end(&t);
}

static bool run_calls(void)
{
	struct tally t = begin("calls");
	bool failed;

	for (unsigned call = 1; call <= CALLS_RESUMED; call++) {
		struct fault_case f = {.failing_call = call};

		add_cut(&f, moment_named("half came"), 1, SOURCE + call % 2);
		run_case(&t, &f);
	}
	failed = t.tries > t.runs || stride > 1;
	if (!failed)
		printf("# FAILED: no set-up call did\n");
	return end(&t) && failed;
}

static bool run_switch(void)
{
	struct tally t = begin("switch");

	for (unsigned call = 1; call <= CALLS_FIRST; call++) {
		struct fault_case f = {.failing_call = call, .in_first = true, .may_abort = true};

		run_case(&t, &f);
	}
	return end(&t);
}

static bool run_memory(void)
{
	struct tally t = begin("memory");
	static const struct fault_case cases[] = {
		{.no_abandon = true, .may_abort = true, .must_abort = "cannot be abandoned"},
		{.failure = CUT_FAIL_UFFD, .may_abort = true, .must_abort = "fails by request"},
		{.failure = CUT_FAIL_ARM, .may_abort = true, .must_abort = "fails by request"},
		{.failure = CUT_FAIL_INSTALL},
	};

	turn = 0;
	for (unsigned i = 0; i < COUNT(cases); i++, turn = 0)
		run_case(&t, &cases[i]);
	return end(&t);
}

static const struct {
	const char *name;
	bool (*run)(void);
} groups[] = {
	{"once", run_once},   {"again", run_again},   {"resume", run_resume},
	{"calls", run_calls}, {"switch", run_switch}, {"memory", run_memory},
};

int main(int argc, char **argv)
{
	bool ok = true;

	if (argc > 1)
		stride = (unsigned)strtoul(argv[1], NULL, 10);
	if (!stride)
		stride = 1;
	signal(SIGALRM, on_alarm);
	for (unsigned i = 0; i < COUNT(groups); i++)
		if (argc < 3 || !strcmp(argv[2], groups[i].name))
			ok = groups[i].run() && ok;
	return ok ? 0 : 1;
}
