/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * source_postcopy.c -- the source after precopy, when the guest moves before all of its memory
 * has: the switch, the pages that follow, and what to do when the session is lost meanwhile.
 *
 * Order of the switch: the preempt channels are opened while the guest still runs; then it is
 * stopped, its last dirty pages are known, memory is sealed (every round was drained), the
 * destination learns which pages it lacks and discards them, gets the device state, and runs.
 *
 * Invariant: a page that the destination lacks does not change here any more: the guest is stopped,
 * and once RUN was sent it stays so.
 */
#include "migrate/source_impl.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/probe.h"
#include "migrate/engine_messages.h"
#include "migrate/page_map.h"

/* The destination opens its userfaultfd, or sends a map of its pages. */
#define ANSWER_NS (30 * VIA_NS_PER_S)

/* All pages were sent: the last ones are being installed. */
#define INSTALL_NS (30 * VIA_NS_PER_S)

static int fail_message(const struct via_message *m, const char *wanted, struct via_error *err)
{
	return via_fail(err, -EPROTO,
			"postcopy\na message of type %u where %s belongs\n"
			"check that both sides run the same release",
			m->type, wanted);
}

/* The next message on main, which must come soon. */
static int receive_answer(struct source *src, const char *name, struct via_message *m,
			  struct via_error *err)
{
	int rc = via_main_receive(src->session, via_deadline_in(ANSWER_NS), m, err);

	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT,
				"postcopy\nno %s from the destination within %.0f s\n"
				"check whether its program is stopped",
				name, (double)ANSWER_NS / 1e9);
	return rc ? rc : m->more ? fail_message(m, name, err) : 0;
}

/* It must be of @type, and empty. */
static int expect(struct source *src, uint8_t type, const char *name, struct via_error *err)
{
	struct via_message m;
	int rc = receive_answer(src, name, &m, err);

	return rc || (m.type == type && !m.len) ? rc : fail_message(&m, name, err);
}

static int open_channels(struct source *src, enum via_channel_kind kind, unsigned n,
			 struct via_error *err)
{
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++)
		rc = via_session_open_channel(src->session, kind, i, err);
	for (unsigned i = 0; i < n && !rc; i++)
		rc = via_session_wait_channel(src->session, kind, i, err);
	return rc;
}

static int make_page_source(struct source *src, struct via_error *err)
{
	struct via_bitmap *missing[VIA_REGIONS_MAX];

	for (unsigned i = 0; i < src->guest->nregions; i++)
		missing[i] = dirty_work_bitmap(src->dirty, i);
	return page_source_new(src->guest->region, src->guest->nregions, missing, &src->pages, err);
}

/* The guest still runs: all that takes time and can fail. */
static int prepare(struct source *src, struct via_error *err)
{
	struct via_session_stats stats;
	int rc = make_page_source(src, err);

	via_session_stats(src->session, &stats);
	if (!rc)
		rc = open_channels(src, VIA_PREEMPT, stats.preempt, err);
	if (!rc)
		rc = via_main_send(src->session, ENGINE_ADVISE, NULL, 0, err);
	return rc ? rc : expect(src, ENGINE_ADVISED, "ADVISED", err);
}

static int send_map(struct source *src, struct via_error *err)
{
	struct via_bitmap lacking[VIA_REGIONS_MAX];

	for (unsigned i = 0; i < src->guest->nregions; i++)
		lacking[i] = *dirty_work_bitmap(src->dirty, i);
	return page_map_send(src->session, lacking, src->guest->nregions, err);
}

/* The multifd channels again, in a new epoch, with keys to staging; the guest runs there already. */
static int start_bulk(struct source *src, struct via_error *err)
{
	struct via_session_stats stats;
	int rc;

	via_session_stats(src->session, &stats);
	via_session_set_bandwidth(src->session, src->config.max_postcopy_bandwidth);
	rc = open_channels(src, VIA_MULTIFD, stats.multifd, err);
	if (!rc)
		rc = via_main_send(src->session, ENGINE_BULK, NULL, 0, err);
	return rc ? rc : page_source_push(src->pages, src->session, err);
}

static int switch_to_postcopy(struct source *src, struct via_error *err)
{
	uint64_t stopped;
	int rc = prepare(src, err);

	if (rc)
		return rc;
	stopped = via_now_ns();
	rc = src->guest->pause(src->guest->arg, err);
	if (rc)
		return rc;
	src->paused = true;
	source_step(src, &src->progress.steps.paused_ns);
	VIA_PROBE(guest, VIA_ROLE_SOURCE, 0, VIA_PROBE_STOPPED, 0, 0);
	source_set_phase(src, VIA_PHASE_SWITCHOVER);
	via_session_set_bandwidth(src->session, 0);
	rc = source_fetch_dirty(src, err);
	if (!rc)
		rc = via_session_seal(src->session, err);
	if (!rc)
		rc = send_map(src, err);
	/* From here on faults are answered: loading the device state may touch memory. */
	if (!rc)
		rc = page_source_serve(src->pages, src->session, err);
	if (!rc)
		rc = source_send_state(src, err);
	/* Then it waits for us if the session is lost from here on. */
	if (!rc)
		rc = expect(src, ENGINE_ARMED, "ARMED", err);
	if (!rc)
		source_step(src, &src->progress.steps.armed_ns);
	if (!rc)
		rc = source_send_run(src, err);
	if (!rc)
		src->result->downtime_ns = via_now_ns() - stopped;
	return rc;
}

/* Everything was sent, and the destination goes on lacking something? */
static int check_stall(const struct source *src, struct via_error *err)
{
	uint64_t pushed = page_source_pushed_ns(src->pages);

	if (!pushed || via_now_ns() - pushed < INSTALL_NS)
		return 0;
	return via_fail(
		err, -ETIMEDOUT,
		"postcopy\nall pages were sent, and the destination lacks some after %.0f s\n"
		"see its own messages",
		(double)INSTALL_NS / 1e9);
}

/* Until the destination lacks nothing. */
static int serve(struct source *src, struct via_error *err)
{
	struct via_postcopy_stats *stats = &src->result->postcopy;
	struct via_message m;
	int rc;

	source_set_phase(src, VIA_PHASE_POSTCOPY);
	rc = source_tick(src, err); /* at least once: it may be over sooner than an interval */
	if (rc)
		return rc;
	for (;;) {
		rc = via_main_receive(src->session, via_deadline_in(src->config.interval_ns), &m,
				      err);
		if (rc == 0)
			break;
		if (rc != -EAGAIN)
			return rc;
		page_source_stats(src->pages, stats);
		src->progress.requests = stats->requests;
		source_count_pages(src);
		rc = source_tick(src, err);
		if (!rc)
			rc = check_stall(src, err);
		if (rc)
			return rc;
	}
	if (m.type != ENGINE_COMPLETE || m.more || m.len)
		return fail_message(&m, "COMPLETE", err);
	via_session_set_bandwidth(src->session, 0); /* nobody has to wait for his turn any more */
	/* It is complete, whether or not it learns that we know. */
	(void)via_main_send(src->session, ENGINE_COMPLETED, NULL, 0, NULL);
	return 0;
}

/* -- recovery ------------------------------------------------------------------------- */

/*
 * The destination says whether it runs, and what it lacks: no more, and no less, is sent from here on.
 */
static int receive_map(struct source *src, struct via_error *err)
{
	struct via_bitmap lacking[VIA_REGIONS_MAX];
	struct page_map_place place = {0};
	struct via_message m;
	bool may_tell = true;
	int rc = 0;

	for (unsigned i = 0; i < src->guest->nregions; i++) {
		lacking[i] = *dirty_work_bitmap(src->dirty, i);
		via_bitmap_clear(&lacking[i], 0, lacking[i].nbits);
	}
	while (!rc && !place.complete) {
		rc = receive_answer(src, "PAGE_MAP", &m, err);
		if (!rc && m.type == ENGINE_RUNNING && !m.len && may_tell) {
			src->runs_there = true;
			may_tell = false;
			continue;
		}
		may_tell = false; /* at first, or not at all */
		if (!rc && m.type != ENGINE_PAGE_MAP)
			rc = fail_message(&m, "PAGE_MAP", err);
		if (!rc && page_map_decode(lacking, src->guest->nregions, &place, m.payload, m.len))
			rc = via_fail(err, -EPROTO,
				      "resume the migration\na malformed map of pages\n"
				      "check that both sides run the same release");
	}
	return rc;
}

/* In a new session: all channels, what is missing, and on. */
static int go_on(struct source *src, struct via_error *err)
{
	struct via_session_stats stats;
	int rc = via_session_open_channels(src->session, err);

	via_session_stats(src->session, &stats);
	via_session_set_bandwidth(src->session, src->config.max_postcopy_bandwidth);
	if (!rc)
		rc = open_channels(src, VIA_PREEMPT, stats.preempt, err);
	if (!rc)
		rc = via_main_send(src->session, ENGINE_RESUME, NULL, 0, err);
	if (!rc)
		rc = receive_map(src, err);
	if (rc)
		return rc;
	/* A RUN that it has not obeyed was lost with its session, and does not count. */
	src->run_sent = src->runs_there;
	src->result->postcopy.recoveries++;
	rc = page_source_serve(src->pages, src->session, err);
	if (!rc && !src->runs_there)
		rc = source_send_state(src, err);
	if (!rc && !src->runs_there)
		rc = source_send_run(src, err);
	if (!rc)
		rc = page_source_push(src->pages, src->session, err);
	return rc ? rc : serve(src, err);
}

/* The session is over; what it has sent counts. */
static void leave_session(struct source *src, const struct via_error *why,
			  struct via_resume *resume)
{
	via_session_abort(src->session, why); /* the destination learns it, if it can */
	page_source_stop(src->pages);
	via_session_resume_point(src->session, resume);
	tally_look(&src->tally, src->session, &src->result->session);
	tally_keep(&src->tally);
	source_add_stats(src);
	src->ticked_sent = src->result->session.bytes;
	via_session_close(src->session);
	src->session = NULL;
}

/* Another session in place of the one that was lost, and on. *gave_up: there is none. */
static int resume(struct source *src, struct via_resume *lost, struct via_error *why, bool *gave_up)
{
	struct via_error err = {0};
	bool ran_there = src->runs_there;
	int rc;

	via_log("postcopy is paused: %s: %s", why->what, why->seen);
	source_set_phase(src, VIA_PHASE_PAUSED);
	source_show(src);
	if (src->session)
		leave_session(src, why, lost);
	rc = src->config.recover(src->config.recover_arg, lost, why, VIA_NEVER, &src->session,
				 &err);
	*gave_up = rc != 0;
	if (rc)
		/* With everything sent it may be complete there, and done with waiting for us. */
		src->lost = ran_there && page_source_remaining(src->pages) &&
			    (rc == -ECONNREFUSED || rc == -ESTALE);
	else
		rc = go_on(src, &err);
	if (rc)
		via_fail(&err, rc, "resume the migration\n%s\nsee the messages of both sides",
			 via_err_text(rc));
	*why = err;
	return rc;
}

static bool can_resume(const struct source *src, int code)
{
	return src->run_sent && src->config.recover && code != -ECANCELED && code != -EPROTO &&
	       code != -EBADMSG;
}

int source_postcopy(struct source *src, struct via_error *err)
{
	struct via_postcopy_stats *stats = &src->result->postcopy;
	struct via_resume lost;
	struct via_error why = {0};
	bool gave_up = false;
	int rc;

	stats->used = true;
	rc = switch_to_postcopy(src, &why);
	if (!rc)
		rc = start_bulk(src, &why);
	if (!rc)
		rc = serve(src, &why);
	while (rc && !gave_up && can_resume(src, rc)) {
		via_fail(&why, rc, "postcopy\n%s\nsee the messages of both sides",
			 via_err_text(rc));
		rc = resume(src, &lost, &why, &gave_up);
	}
	if (src->pages) {
		page_source_stats(src->pages, stats);
		/* Threads end with their channels, which a session that failed has aborted. */
		if (rc && src->session)
			source_tell_destination(src, &why);
		page_source_free(src->pages);
		src->pages = NULL;
	}
	return rc ? via_error_pass(err, &why) : 0;
}
