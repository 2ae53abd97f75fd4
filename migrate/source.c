/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * source.c -- the source's engine: rounds of precopy while the guest runs, then the
 * switch-over: stop, last round, drain, seal, device state, RUN. Or the switch to postcopy
 * (source_postcopy.c).
 *
 * Invariant: until RUN has been sent, any failure leaves the guest running here. From
 * then on it never runs here again, unless the destination says in so many words that it did
 * not start it.
 */
#include "migrate/source_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/clock.h"
#include "core/probe.h"
#include "migrate/engine_messages.h"
#include "transport/page_channel.h"

#define DOWNTIME_LIMIT_NS (300 * VIA_NS_PER_MS)
#define MAX_ROUNDS        30u
#define INTERVAL_NS       (100 * VIA_NS_PER_MS)
#define STATUS_NS         VIA_NS_PER_S

/* The destination may take so long to load its device state and start. */
#define RUN_NS (30 * VIA_NS_PER_S)

/* -- telling how far it is --------------------------------------------------- */

static uint64_t per_second(uint64_t bytes, uint64_t ns)
{
	return ns ? (uint64_t)((double)bytes * 1e9 / (double)ns) : 0;
}

static int send_status(struct source *src, struct via_error *err)
{
	const struct via_progress *p = &src->progress;
	struct engine_status status = {.round = p->round,
				       .phase = (uint8_t)p->phase,
				       .remaining = p->remaining,
				       .sent = p->sent,
				       .rate = p->rate,
				       .dirty_rate = p->dirty_rate,
				       .expected_downtime_ns = p->expected_downtime_ns};
	uint8_t buf[64];
	ssize_t n = engine_status_encode(&status, buf, sizeof(buf));

	src->status_ns = via_now_ns();
	return via_main_send(src->session, ENGINE_STATUS, buf, (size_t)n, err);
}

void source_set_phase(struct source *src, enum via_phase phase)
{
	src->progress.phase = phase;
	VIA_PROBE(phase, VIA_ROLE_SOURCE, 0, phase, src->progress.round, 0);
}

void source_step(const struct source *src, uint64_t *step_ns)
{
	*step_ns = via_now_ns() - src->start_ns;
}

void source_count_pages(struct source *src)
{
	const struct via_postcopy_stats *postcopy = &src->result->postcopy;
	struct via_progress *p = &src->progress;
	struct dirty_work_counts counts;

	dirty_work_counts(src->dirty, &counts);
	p->zero_pages = counts.zero_pages + postcopy->zero_pages;
	p->pages_sent = counts.pages + postcopy->request_pages + postcopy->bulk_pages -
			postcopy->zero_pages;
}

void source_show(struct source *src)
{
	struct via_progress *p = &src->progress;

	p->fence = src->runs_there ? VIA_FENCE_RUN
		   : src->session  ? via_session_fence_state(src->session)
				   : p->fence;
	if (src->session)
		tally_steps(src->session, src->start_ns, &p->steps);
	tally_show(&src->tally, p);
	if (src->config.progress)
		src->config.progress(src->config.progress_arg, p);
}

/* Once an interval: the caller's progress line; once a second: the destination's. */
int source_tick(struct source *src, struct via_error *err)
{
	struct via_progress *p = &src->progress;
	uint64_t now = via_now_ns();

	tally_look(&src->tally, src->session, &src->result->session);
	p->sent = src->tally.session.bytes;
	p->remaining = dirty_work_remaining(src->dirty);
	p->rate = per_second(p->sent - src->ticked_sent, now - src->ticked_ns);
	p->elapsed_ns = now - src->start_ns;
	src->ticked_ns = now;
	src->ticked_sent = p->sent;
	source_show(src);
	return now - src->status_ns >= STATUS_NS ? send_status(src, err) : 0;
}

/* Asked for while it runs, and possible. */
static bool postcopy_wanted(const struct source *src)
{
	return src->can_postcopy && via_session_postcopy_wanted(src->session);
}

/* -- precopy -------------------------------------------------------------------- */

int source_fetch_dirty(struct source *src, struct via_error *err)
{
	uint64_t start = via_now_ns();
	int rc = 0;

	for (unsigned i = 0; i < src->guest->nregions && !rc; i++)
		rc = src->guest->dirty_fetch(src->guest->arg, i, dirty_work_bitmap(src->dirty, i),
					     err);
	src->result->dirty_fetch_ns += via_now_ns() - start;
	return rc;
}

/* Send what is dirty and drain; less, when postcopy is wanted meanwhile. */
static int one_round(struct source *src, struct via_error *err)
{
	struct dirty_work_counts before, after;
	const struct via_work *work;
	uint64_t start = via_now_ns();
	bool fresh = src->result->rounds == 0;
	int rc;

	src->progress.round = ++src->result->rounds;
	dirty_work_counts(src->dirty, &before);
	work = dirty_work_begin(src->dirty, fresh);
	if (src->integrity)
		work = integrity_work_begin(src->integrity, work);
	rc = via_round_start(src->session, work, err);
	while (!rc) {
		rc = via_round_drain(src->session, via_deadline_in(src->config.interval_ns), err);
		if (rc != -EAGAIN)
			break;
		if (!src->paused && postcopy_wanted(src))
			dirty_work_cut(src->dirty);
		rc = source_tick(src, err);
	}
	if (rc)
		return rc;
	dirty_work_restore(src->dirty);
	dirty_work_counts(src->dirty, &after);
	source_count_pages(src);
	if (after.bytes > before.bytes)
		src->bandwidth = per_second(after.bytes - before.bytes, via_now_ns() - start);
	return 0;
}

/* Can the rest be sent within the downtime limit, or is it time to stop all the same? */
static bool time_to_switch(struct source *src, uint64_t round_ns)
{
	struct via_progress *p = &src->progress;

	p->remaining = dirty_work_remaining(src->dirty);
	p->dirty_rate = per_second(p->remaining, round_ns);
	p->bandwidth = src->bandwidth;
	p->expected_downtime_ns =
		src->bandwidth ? (uint64_t)((double)p->remaining * 1e9 / (double)src->bandwidth)
			       : 0;
	if (src->result->rounds >= src->config.max_rounds)
		return true;
	if (!src->bandwidth)
		return p->remaining == 0;
	return p->expected_downtime_ns <= src->config.downtime_limit_ns;
}

/* Does the guest write faster than its memory is sent? */
static bool is_stuck(const struct source *src)
{
	return src->bandwidth && src->progress.dirty_rate >= src->bandwidth;
}

static bool postcopy_due(struct source *src)
{
	const struct via_migrate_config *c = &src->config;

	src->stuck_rounds = is_stuck(src) ? src->stuck_rounds + 1 : 0;
	return postcopy_wanted(src) ||
	       (c->postcopy_after && src->result->rounds >= c->postcopy_after) ||
	       (c->postcopy_when_stuck && src->stuck_rounds >= c->postcopy_when_stuck);
}

static int precopy(struct source *src, struct via_error *err)
{
	int rc;

	source_set_phase(src, VIA_PHASE_PRECOPY);
	via_session_set_bandwidth(src->session, src->config.max_bandwidth);
	rc = src->guest->dirty_start(src->guest->arg, err);
	if (rc)
		return rc;
	src->logging = true;
	dirty_work_set_all(src->dirty);
	for (;;) {
		uint64_t start = via_now_ns();
		bool enough;

		rc = one_round(src, err);
		if (!rc)
			rc = source_fetch_dirty(src, err);
		if (rc)
			return rc;
		enough = time_to_switch(src, via_now_ns() - start);
		src->postcopy = postcopy_due(src);
		enough = enough || src->postcopy;
		rc = source_tick(src, err);
		if (rc || enough)
			return rc;
	}
}

/* -- switch-over --------------------------------------------------------------------- */

int source_send_state(struct source *src, struct via_error *err)
{
	uint8_t digest[ENGINE_DIGEST_LEN];
	void *state = NULL;
	size_t len = 0;
	int rc = src->guest->save(src->guest->arg, &state, &len, err);

	if (!rc && src->integrity) {
		integrity_digest(state, len, digest);
		rc = via_main_send(src->session, ENGINE_STATE_DIGEST, digest, sizeof(digest), err);
	}
	if (!rc)
		rc = via_main_send(src->session, ENGINE_STATE, state, len, err);
	free(state);
	if (!rc)
		source_step(src, &src->progress.steps.state_ns);
	return rc;
}

/* The destination's answer to RUN. */
static int confirm_run(struct source *src, struct via_error *err)
{
	struct via_message m;
	struct via_error theirs;
	int rc = via_main_receive(src->session, via_deadline_in(RUN_NS), &m, err);

	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT,
				"start the guest at the destination\nno answer within %.0f s\n"
				"look there whether it runs before you resume it here",
				(double)RUN_NS / 1e9);
	if (rc)
		return rc;
	if (m.type == ENGINE_RUNNING && !m.more && m.len == 0) {
		src->runs_there = true;
		source_step(src, &src->progress.steps.run_ns);
		return 0;
	}
	if (m.type != ENGINE_RUN_REFUSED || m.more || via_error_decode(m.payload, m.len, &theirs))
		return via_fail(err, -EPROTO,
				"start the guest at the destination\nan answer of type %u\n"
				"check that both sides run the same release",
				m.type);
	src->run_sent = false; /* it says that it did not */
	return via_fail(err, theirs.code, "at the peer: %s\n%s\n%s", theirs.what, theirs.seen,
			theirs.remedy);
}

int source_send_run(struct source *src, struct via_error *err)
{
	struct via_session_stats stats;
	uint8_t buf[16];
	ssize_t n;
	int rc;

	via_session_stats(src->session, &stats);
	n = via_epoch_encode(src->result->session.epochs + stats.epochs, buf, sizeof(buf));
	src->progress.committed = true;
	source_show(src);
	rc = via_main_send(src->session, ENGINE_RUN, buf, (size_t)n, err);
	src->run_sent = !rc; /* a message that does not need fragments is taken, or refused whole */
	return rc ? rc : confirm_run(src, err);
}

static int switch_over(struct source *src, struct via_error *err)
{
	uint64_t stopped = via_now_ns();
	int rc = src->guest->pause(src->guest->arg, err);

	if (rc)
		return rc;
	src->paused = true;
	source_step(src, &src->progress.steps.paused_ns);
	VIA_PROBE(guest, VIA_ROLE_SOURCE, 0, VIA_PROBE_STOPPED, 0, 0);
	source_set_phase(src, VIA_PHASE_SWITCHOVER);
	via_session_set_bandwidth(src->session, 0);
	rc = source_fetch_dirty(src, err);
	if (!rc)
		rc = one_round(src, err);
	if (!rc)
		rc = via_session_seal(src->session, err);
	if (!rc)
		rc = source_send_state(src, err);
	if (!rc)
		rc = source_send_run(src, err);
	if (!rc)
		src->result->downtime_ns = via_now_ns() - stopped;
	return rc;
}

/* -- all of it ---------------------------------------------------------------------------- */

static void fill_defaults(struct via_migrate_config *c)
{
	if (!c->downtime_limit_ns)
		c->downtime_limit_ns = DOWNTIME_LIMIT_NS;
	if (!c->max_rounds)
		c->max_rounds = MAX_ROUNDS;
	if (!c->interval_ns)
		c->interval_ns = INTERVAL_NS;
}

/*
 * Untouched pages are read too, to see that they are zero: one fault each, in the senders,
 * unless they are all mapped before, many at a time. Before Linux 5.14 they are not.
 */
static void map_untouched(const struct via_source_guest *guest)
{
	for (unsigned i = 0; i < guest->nregions; i++)
		(void)madvise(guest->region[i].addr, guest->region[i].len, MADV_POPULATE_READ);
}

static int begin(struct source *src, struct via_error *err)
{
	struct via_session_stats stats;
	int rc = tally_init(&src->tally, src->session, err);

	if (!rc)
		rc = via_session_open_channels(src->session, err);
	if (!rc)
		rc = via_session_start_senders(src->session, err);
	if (rc)
		return rc;
	map_untouched(src->guest);
	via_session_stats(src->session, &stats);
	rc = dirty_work_new(src->guest->region, src->guest->nregions, stats.multifd, &src->dirty,
			    err);
	if (!rc && via_session_integrity(src->session))
		rc = integrity_work_new(src->guest->region, src->guest->nregions, stats.multifd,
					&src->integrity, err);
	return rc ? rc : send_status(src, err);
}

void source_add_stats(struct source *src)
{
	struct via_session_stats now, *sum = &src->result->session;

	via_session_stats(src->session, &now);
	via_session_stats_add(&now, sum);
	*sum = now;
}

/* The last look at the session; who has watched sees the end of what has completed. */
static void show_done(struct source *src, int rc)
{
	struct via_progress *p = &src->progress;
	struct via_migrate_result *r = src->result;

	if (src->session && src->tally.channel)
		tally_look(&src->tally, src->session, &r->session);
	if (src->session)
		source_add_stats(src);
	r->bytes_sent = r->session.bytes;
	source_set_phase(src, VIA_PHASE_DONE);
	p->remaining = 0;
	p->requests = r->postcopy.requests;
	p->sent = r->bytes_sent;
	p->elapsed_ns = r->total_ns;
	if (src->session)
		tally_steps(src->session, src->start_ns, &p->steps);
	r->steps = p->steps;
	if (!rc)
		source_show(src);
	tally_fini(&src->tally);
}

/* The guest goes where the outcome says; the result is what has been counted. */
static void end(struct source *src, int rc)
{
	struct via_migrate_result *r = src->result;

	if (src->session)
		via_session_stop_workers(src->session); /* they work on the dirty bitmap */
	if (src->logging)
		src->guest->dirty_stop(src->guest->arg);
	r->outcome = !rc             ? VIA_COMPLETED
		     : src->lost     ? VIA_LOST
		     : src->run_sent ? VIA_PAUSED
				     : VIA_ABORTED;
	if (src->paused && r->outcome == VIA_ABORTED) {
		VIA_PROBE(guest, VIA_ROLE_SOURCE, 0, VIA_PROBE_RESUMED, 0, 0);
		src->guest->resume(src->guest->arg);
	}
	if (src->dirty)
		source_count_pages(src);
	r->total_ns = via_now_ns() - src->start_ns;
	r->zero_pages = src->progress.zero_pages;
	r->pages_sent = src->progress.pages_sent;
	show_done(src, rc);
	integrity_work_free(src->integrity);
	dirty_work_free(src->dirty);
}

/* Can the session and the guest do it? @err: why not. */
static int check_postcopy(struct source *src, struct via_error *err)
{
	const struct via_migrate_config *c = &src->config;
	struct via_session_stats stats;
	uint32_t page_size = 0;

	via_session_stats(src->session, &stats);
	for (unsigned i = 0; i < src->guest->nregions; i++)
		if (src->guest->region[i].page_size > page_size)
			page_size = src->guest->region[i].page_size;
	src->can_postcopy = stats.preempt && page_size <= VIA_STAGED_PAGE_MAX &&
			    !via_session_integrity(src->session);
	if (src->can_postcopy || !(c->postcopy_after || c->postcopy_when_stuck))
		return 0;
	if (via_session_integrity(src->session))
		return via_fail(
			err, -EINVAL,
			"migrate by postcopy\n--integrity checks what precopy sends, and no "
			"page that comes after it\nleave out one of the two");
	return via_fail(err, -EINVAL,
			"migrate by postcopy\n%u preempt channels, pages of up to %u bytes\n"
			"it needs a preempt channel and pages of at most %u bytes",
			stats.preempt, page_size, VIA_STAGED_PAGE_MAX);
}

/*
 * The destination learns why. It need not wait for a source that is not coming back: where RUN was not
 * sent, that is an abort to it, whatever the cause was.
 */
void source_tell_destination(struct source *src, const struct via_error *why)
{
	struct via_error theirs = *why;

	if (!src->run_sent)
		theirs.code = -ECANCELED;
	via_session_abort(src->session, &theirs);
}

int via_migrate_source(struct via_session **session, const struct via_source_guest *guest,
		       const struct via_migrate_config *config, struct via_migrate_result *result,
		       struct via_error *err)
{
	struct source src = {.session = *session,
			     .guest = guest,
			     .config = *config,
			     .result = result,
			     .start_ns = via_now_ns()};
	struct via_error first = {0};
	int rc;

	memset(result, 0, sizeof(*result));
	fill_defaults(&src.config);
	src.ticked_ns = src.start_ns;
	source_set_phase(&src, VIA_PHASE_SETUP);
	src.progress.role = VIA_ROLE_SOURCE;
	src.progress.fence = VIA_FENCE_OPEN;
	src.progress.postcopy = &result->postcopy;
	for (unsigned i = 0; i < guest->nregions; i++)
		src.progress.memory += guest->region[i].len;
	rc = check_postcopy(&src, &first);
	if (!rc)
		rc = begin(&src, &first);
	result->setup_ns = via_now_ns() - src.start_ns;
	if (!rc)
		rc = precopy(&src, &first);
	if (!rc)
		rc = src.postcopy ? source_postcopy(&src, &first) : switch_over(&src, &first);
	if (rc) {
		via_fail(&first, rc, "migration\n%s\nsee the messages of both sides",
			 via_err_text(rc));
		if (src.session)
			source_tell_destination(&src, &first);
	}
	end(&src, rc);
	*session = src.session;
	return rc ? via_error_pass(err, &first) : 0;
}

int via_migrate_get_report(struct via_session *session, uint64_t deadline_ns, void **report,
			   size_t *len, struct via_error *err)
{
	uint8_t *buf = NULL;
	size_t have = 0;
	struct via_message m;

	do {
		int rc = via_main_receive(session, deadline_ns, &m, err);
		uint8_t *more;

		if (rc == -EAGAIN)
			rc = via_fail(err, -ETIMEDOUT,
				      "wait for the destination's report\n"
				      "none came\nlook at its own output");
		if (!rc && m.type != ENGINE_REPORT)
			rc = via_fail(err, -EPROTO,
				      "wait for the destination's report\na message of type %u\n"
				      "check that both sides run the same release",
				      m.type);
		more = rc ? NULL : realloc(buf, have + m.len + 1);
		if (!rc && !more)
			rc = via_fail(err, -ENOMEM,
				      "wait for the destination's report\n"
				      "out of memory\nfree some memory");
		if (rc) {
			free(buf);
			return rc;
		}
		buf = more;
		memcpy(buf + have, m.payload, m.len);
		have += m.len;
	} while (m.more);
	*report = buf;
	*len = have;
	return 0;
}

const char *via_outcome_name(enum via_outcome outcome)
{
	switch (outcome) {
	case VIA_COMPLETED:
		return "completed";
	case VIA_ABORTED:
		return "aborted";
	case VIA_PAUSED:
		return "paused";
	case VIA_LOST:
		return "lost";
	}
	return "?";
}
