/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * record.c -- one migration of a small guest, both sides in this process, and on the standard output what
 * every probe of it told (core/probe.h), for trace.py.
 *
 *   record SCENARIO FABRIC SEED
 *
 *   precopy   some rounds, then the switch-over
 *   postcopy  one round, then pages by request and in bulk
 *   recovery  as that, and the session is lost twice meanwhile, and resumed
 *   early     as that, but it is lost before the guest runs there
 *   save      the source's guest cannot be saved: it stood still, and runs on
 *   load      the destination's cannot be loaded: RUN is refused
 *   cancel    the session is aborted in the second round
 *
 * FABRIC is a spec; of sim the seed is added. The first lines give names to the types of messages,
 * the last ones say how each side has ended and whose guest runs.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/probe.h"
#include "migrate/engine_messages.h"
#include "tests/migrate/pair.h"

struct event {
	enum via_event event;
	uint64_t side, channel, a, b, c;
};

/* What came, in an order in which it can have come on each side. */
static struct {
	pthread_mutex_t lock;
	struct event *event;
	size_t n, room;
} tape = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void record(enum via_event event, uint64_t side, uint64_t channel, uint64_t a, uint64_t b,
		   uint64_t c)
{
	pthread_mutex_lock(&tape.lock);
	if (tape.n == tape.room) {
		tape.room = tape.room ? 2 * tape.room : 4096;
		tape.event = realloc(tape.event, tape.room * sizeof(*tape.event));
		if (!tape.event)
			abort();
	}
	tape.event[tape.n++] = (struct event){event, side, channel, a, b, c};
	pthread_mutex_unlock(&tape.lock);
}

static const char *const event_name[] = {
#define NAME(name, numbers) #name,
	VIA_PROBE_LIST(NAME)
#undef NAME
};

static const struct {
	unsigned type;
	const char *name;
} types[] = {
	{VIA_MESSAGE_FENCE, "FENCE"},    {VIA_MESSAGE_DRAINED, "DRAINED"},
	{VIA_MESSAGE_SEAL, "SEAL"},      {VIA_MESSAGE_SEALED, "SEALED"},
	{ENGINE_ZERO, "ZERO"},           {ENGINE_STATUS, "STATUS"},
	{ENGINE_STATE, "STATE"},         {ENGINE_RUN, "RUN"},
	{ENGINE_RUNNING, "RUNNING"},     {ENGINE_RUN_REFUSED, "RUN_REFUSED"},
	{ENGINE_REPORT, "REPORT"},       {ENGINE_ADVISE, "ADVISE"},
	{ENGINE_ADVISED, "ADVISED"},     {ENGINE_PAGE_MAP, "PAGE_MAP"},
	{ENGINE_ARMED, "ARMED"},         {ENGINE_BULK, "BULK"},
	{ENGINE_RESUME, "RESUME"},       {ENGINE_COMPLETE, "COMPLETE"},
	{ENGINE_COMPLETED, "COMPLETED"}, {ENGINE_REQUEST, "REQUEST"},
	{ENGINE_PAGE, "PAGE"},           {ENGINE_PAGES, "PAGES"},
	{ENGINE_DIGEST, "DIGEST"},       {ENGINE_STATE_DIGEST, "STATE_DIGEST"},
};

static void print_tape(const struct pair_result *r)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		printf("type %u %s\n", types[i].type, types[i].name);
	for (size_t i = 0; i < tape.n; i++) {
		const struct event *e = &tape.event[i];

		printf("%c %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
		       e->side == VIA_ROLE_SOURCE ? 'S' : 'D', event_name[e->event], e->channel,
		       e->a, e->b, e->c);
	}
	printf("end S %s %d\n", via_outcome_name(r->source.outcome), r->source_runs);
	printf("end D %s %d\n", via_outcome_name(r->destination.outcome), r->destination_runs);
}

/* -- losing the session ---------------------------------------------------------------- */

struct losses {
	unsigned left;
	enum via_phase phase;
	unsigned round, after; /* so many looks at it in that phase */
	unsigned seen;
};

static struct losses losses;
static struct via_session *source_session;

static void joined(enum via_role role, struct via_session *session, int control_fd)
{
	(void)control_fd;
	if (role == VIA_ROLE_SOURCE)
		source_session = session;
}

/* Both engines call it; the source's alone counts. */
static void look(void *arg, const struct via_progress *p)
{
	struct via_error why = {0};

	(void)arg;
	if (p->role != VIA_ROLE_SOURCE || !losses.left || p->phase != losses.phase ||
	    p->round < losses.round || losses.seen++ < losses.after)
		return;
	losses.left--;
	losses.seen = 0;
	via_fail(&why, losses.phase == VIA_PHASE_PRECOPY ? -ECANCELED : -ECONNRESET,
		 "session\nlost on purpose\nwait");
	via_session_abort(source_session, &why);
}

/* -- scenarios --------------------------------------------------------------------------- */

static void base(struct pair_config *c, uint64_t seed, bool postcopy)
{
	c->multifd = 2 + seed % 2;
	c->preempt = 1 + seed % 3;
	c->slice_len = seed % 2 ? 65536 : 0;
	c->guest = (struct small_guest_config){.seed = seed,
					       .pages = {300, 40},
					       .writes_per_round = 60,
					       .state_len = 9000,
					       .toucher_threads = postcopy ? 4 : 0,
					       .touches = 40,
					       .postcopy = postcopy};
	c->migrate = (struct via_migrate_config){
		.postcopy_after = postcopy, .downtime_limit_ns = 1, .max_rounds = 3};
	c->migrate.interval_ns = 1000000;
	c->migrate.progress = look;
	c->joined = joined;
}

static int configure(struct pair_config *c, const char *scenario, uint64_t seed)
{
	base(c, seed, false);
	if (!strcmp(scenario, "precopy"))
		return 0;
	if (!strcmp(scenario, "save"))
		c->guest.fail_at = SMALL_FAIL_SAVE;
	else if (!strcmp(scenario, "load"))
		c->destination_fails_at = SMALL_FAIL_LOAD;
	else if (!strcmp(scenario, "cancel"))
		losses = (struct losses){.left = 1, .phase = VIA_PHASE_PRECOPY, .round = 2};
	else
		base(c, seed, true);
	if (!strcmp(scenario, "recovery")) {
		c->migrate.max_postcopy_bandwidth = 4 << 20; /* so that there is time for it */
		losses = (struct losses){.left = 2, .phase = VIA_PHASE_POSTCOPY, .after = 4};
	} else if (!strcmp(scenario, "early")) {
		losses = (struct losses){.left = 1, .phase = VIA_PHASE_SWITCHOVER};
	}
	return c->migrate.postcopy_after && strcmp(scenario, "postcopy") != 0 &&
			       strcmp(scenario, "recovery") != 0 && strcmp(scenario, "early") != 0
		       ? -1
		       : 0;
}

int main(int argc, char **argv)
{
	struct pair_config config = {0};
	struct pair_result result;
	char spec[2][128];
	uint64_t seed;

	if (argc != 4)
		return 2;
	seed = strtoull(argv[3], NULL, 10);
	if (configure(&config, argv[1], seed))
		return 2;
	for (unsigned i = 0; i < 2; i++) {
		if (strncmp(argv[2], "sim", 3) != 0)
			snprintf(spec[i], sizeof(spec[i]), "%s", argv[2]);
		else
			snprintf(spec[i], sizeof(spec[i]), "%s,seed=%" PRIu64 ",delay=9,split=3",
				 argv[2], 2 * seed + i + 1);
	}
	config.fabric_source = spec[0];
	config.fabric_destination = spec[1];
	atomic_store(&via_trace, record);
	pair_migrate(&config, &result);
	atomic_store(&via_trace, NULL);
	if (result.wrong_pages)
		fprintf(stderr, "%u wrong pages\n", result.wrong_pages);
	if (result.source_error.code)
		fprintf(stderr, "source: %s: %s\n", result.source_error.what,
			result.source_error.seen);
	print_tape(&result);
	free(tape.event);
	return result.wrong_pages ? 1 : 0;
}
