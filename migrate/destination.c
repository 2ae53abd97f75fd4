/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * destination.c -- the destination's engine: memory for the source to write, device state, RUN; in
 * postcopy also the pages that come after it, and recovery.
 *
 * Invariant: the guest starts only on RUN, and RUN counts only when guest memory is
 * sealed and the device state is loaded. Whatever else happens, it does not start.
 */
#include "migrate/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/probe.h"
#include "migrate/engine_messages.h"
#include "migrate/integrity.h"
#include "migrate/page_map.h"
#include "migrate/page_sink.h"
#include "migrate/tally.h"

#define MAX_STATE_LEN ((size_t)1 << 30)
#define INTERVAL_NS   (100 * VIA_NS_PER_MS)

/* A source that was refused ends the session. */
#define REFUSED_NS (5 * VIA_NS_PER_S)

/* The source's migration thread speaks once a second; its guest's pause() and save() may take a while. */
#define SILENCE_NS (30 * VIA_NS_PER_S)

/*
 * The session was lost and this side needs nothing of the source: it is complete, or does not run yet.
 * The source may need to know that, and can come for so long.
 */
#define LINGER_NS (20 * VIA_NS_PER_S)

struct destination {
	struct via_session *session;
	const struct via_destination_guest *guest;
	struct via_migrate_config config;
	struct via_migrate_result *result;
	struct via_region *region; /* a copy: sessions come and go */
	unsigned nregions;
	struct via_progress progress;
	struct tally tally;
	uint64_t start_ns;
	uint64_t ticked_ns, ticked_lacking;
	uint64_t heard_ns; /* a message on main */
	uint8_t *state;
	size_t state_len, state_cap;
	bool loaded;
	struct integrity_check *integrity; /* NULL: no digests */
	uint8_t state_digest[ENGINE_DIGEST_LEN];
	bool state_digest_came;

	/* postcopy */
	struct page_store *store; /* NULL: it was not announced */
	struct page_sink *sink;
	struct page_map_place map;
	bool armed;        /* ARMED was sent: from here on a lost session is resumed */
	bool guest_failed; /* it was not loaded, or not started: never resumed */
	bool running;
	bool complete_sent;
	bool resumed, resume_told; /* this session; and it was told what is lacking */
};

/* -- zero pages: in the receivers' threads --------------------------------------- */

static int zero_pages(struct destination *d, const uint8_t *payload, size_t len)
{
	const struct via_region *r;
	struct engine_zero zero;
	struct engine_zero_range range;
	uint64_t end = 0;
	int rc;

	rc = engine_zero_decode(payload, len, &zero);
	if (rc || zero.region >= d->nregions)
		return -EPROTO;
	r = &d->region[zero.region];
	for (unsigned i = 0; i < zero.nranges; i++) {
		uint64_t page_size = r->desc.page_size;

		rc = engine_zero_get_range(payload, i, r->desc.len / page_size, &range);
		if (rc || range.first < end) /* ascending: a message is one pass at most */
			return -EPROTO;
		end = range.first + range.n;
		if (!zero.fresh)
			memset((uint8_t *)r->addr + range.first * page_size, 0,
			       range.n * page_size);
		if (d->integrity)
			integrity_check_zero(d->integrity, zero.region, range.first, range.n);
	}
	return 0;
}

static int batch_message(void *arg, unsigned channel, uint8_t type, const uint8_t *payload,
			 size_t len)
{
	struct destination *d = arg;

	(void)channel;
	if (type == ENGINE_ZERO)
		return zero_pages(d, payload, len);
	if (type == ENGINE_DIGEST && d->integrity)
		return integrity_check_pages(d->integrity, payload, len);
	return -EPROTO;
}

/* -- telling how far it is ------------------------------------------------------------ */

static void step(const struct destination *d, uint64_t *step_ns)
{
	*step_ns = via_now_ns() - d->start_ns;
}

/* What this side knows by itself. */
static void look(struct destination *d)
{
	struct via_progress *p = &d->progress;

	p->elapsed_ns = via_now_ns() - d->start_ns;
	if (d->session) {
		tally_look(&d->tally, d->session, &d->result->session);
		tally_steps(d->session, d->start_ns, &p->steps);
		p->fence = via_session_fence_state(d->session);
	}
	if (d->running)
		p->fence = VIA_FENCE_RUN;
	if (d->sink)
		page_sink_stats(d->sink, &d->result->postcopy);
	p->requests = d->result->postcopy.requests;
}

static void show(struct destination *d)
{
	tally_show(&d->tally, &d->progress);
	if (d->config.progress)
		d->config.progress(d->config.progress_arg, &d->progress);
}

static uint64_t lacking_bytes(const struct destination *d)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < d->nregions; i++)
		bytes += via_bitmap_count(&d->store->region[i].lacking) *
			 d->store->region[i].page_size;
	return bytes;
}

/* In postcopy the rate is that at which pages come. */
static void look_at_pages(struct destination *d)
{
	struct via_progress *p = &d->progress;
	uint64_t now = via_now_ns();

	p->remaining = lacking_bytes(d);
	if (now - d->ticked_ns < d->config.interval_ns / 2)
		return; /* too short to measure in */
	p->rate = 0;
	if (d->ticked_lacking > p->remaining)
		p->rate = (uint64_t)((double)(d->ticked_lacking - p->remaining) * 1e9 /
				     (double)(now - d->ticked_ns));
	d->ticked_ns = now;
	d->ticked_lacking = p->remaining;
}

/* Once an interval, and when the source has said how far it is. */
static void tick(struct destination *d)
{
	if (!d->config.progress)
		return;
	if (d->armed) {
		d->progress.phase = d->running ? VIA_PHASE_POSTCOPY : VIA_PHASE_SWITCHOVER;
		look_at_pages(d);
	}
	look(d);
	show(d);
}

/* -- main: in the migration thread --------------------------------------------------- */

static int on_status(struct destination *d, const struct via_message *m, struct via_error *err)
{
	struct via_progress *p = &d->progress;
	struct engine_status s;

	if (m->more || engine_status_decode(m->payload, m->len, &s) || s.phase < VIA_PHASE_SETUP ||
	    s.phase > VIA_PHASE_POSTCOPY)
		return via_fail(err, -EPROTO,
				"receive the guest\na malformed STATUS\n"
				"check that both sides run the same release");
	d->result->rounds = s.round;
	p->round = s.round;
	p->sent = s.sent;
	p->dirty_rate = s.dirty_rate;
	p->expected_downtime_ns = s.expected_downtime_ns;
	if (!d->armed) { /* from then on this side knows better */
		p->phase = s.phase;
		p->remaining = s.remaining;
		p->rate = s.rate;
	}
	tick(d);
	return 0;
}

static int make_state_room(struct destination *d, size_t more, struct via_error *err)
{
	size_t need = d->state_len + more, cap = d->state_cap ? d->state_cap : 64 * 1024;
	uint8_t *state;

	if (need > d->config.max_state_len)
		return via_fail(err, -EMSGSIZE,
				"receive the device state\nmore than %zu bytes\n"
				"raise the limit if the guest really has so much",
				d->config.max_state_len);
	while (cap < need)
		cap *= 2;
	if (cap == d->state_cap)
		return 0;
	state = realloc(d->state, cap);
	if (!state)
		return via_fail(err, -ENOMEM,
				"receive the device state\nno memory for %zu bytes\n"
				"free some memory",
				cap);
	d->state = state;
	d->state_cap = cap;
	return 0;
}

/*
 * The guest could not be loaded or started: say so, so that the source may run it again, and let the
 * source end the session. Were it ended here, that could overtake the message.
 */
static int refuse_run(struct destination *d, int code, struct via_error *err)
{
	uint64_t deadline = via_deadline_in(REFUSED_NS);
	struct via_message m;
	uint8_t buf[1024];
	ssize_t n;

	d->guest_failed = true;
	via_fail(err, code, "start the guest\n%s\nsee the guest's own messages",
		 via_err_text(code));
	n = via_error_encode(err, buf, sizeof(buf));
	if (n > 0 && !via_main_send(d->session, ENGINE_RUN_REFUSED, buf, (size_t)n, NULL))
		while (!via_main_receive(d->session, deadline, &m, NULL))
			;
	return code;
}

static int on_state_digest(struct destination *d, const struct via_message *m,
			   struct via_error *err)
{
	if (!d->integrity || d->state_digest_came || m->more || m->len != sizeof(d->state_digest))
		return via_fail(err, -EPROTO,
				"receive the device state\na digest of it out of its turn\n"
				"check that both sides run the same release");
	memcpy(d->state_digest, m->payload, sizeof(d->state_digest));
	d->state_digest_came = true;
	return 0;
}

/* All that the guest will start from is here: is it what was sent? */
static int check_integrity(const struct destination *d, struct via_error *err)
{
	uint8_t digest[ENGINE_DIGEST_LEN];

	if (!d->integrity)
		return 0;
	integrity_digest(d->state, d->state_len, digest);
	if (!d->state_digest_came || memcmp(digest, d->state_digest, sizeof(digest)) != 0)
		return via_fail(err, -EBADMSG,
				"check what has arrived\nthe device state of %zu bytes %s\n"
				"use another fabric or device: this one changes what it carries",
				d->state_len,
				d->state_digest_came ? "differs from what was sent"
						     : "came without a digest");
	return integrity_check_result(d->integrity, err);
}

static int on_state(struct destination *d, const struct via_message *m, struct via_error *err)
{
	int rc = d->loaded ? via_fail(err, -EPROTO,
				      "receive the device state\nit came twice\n"
				      "check that both sides run the same release")
			   : make_state_room(d, m->len, err);

	if (rc)
		return rc;
	memcpy(d->state + d->state_len, m->payload, m->len);
	d->state_len += m->len;
	if (m->more)
		return 0;
	rc = check_integrity(d, err);
	if (rc)
		return refuse_run(d, rc, err);
	if (d->sink && !page_sink_begin_load(d->sink))
		return -ECONNRESET; /* nobody would answer its faults */
	rc = d->guest->load(d->guest->arg, d->state, d->state_len, err);
	/* What it has read, or stumbled over, need not be the guest's memory: it is loaded again. */
	if (d->sink && !page_sink_end_load(d->sink))
		return -ECONNRESET;
	d->loaded = !rc;
	if (!rc)
		step(d, &d->progress.steps.state_ns);
	return rc ? refuse_run(d, rc, err) : 0;
}

static int check_run(struct destination *d, const struct via_message *m, struct via_error *err)
{
	struct via_session_stats stats;
	uint64_t epoch;

	via_session_stats(d->session, &stats);
	if (m->more || via_epoch_decode(m->payload, m->len, &epoch))
		return via_fail(err, -EPROTO,
				"start the guest\na malformed RUN\n"
				"check that both sides run the same release");
	if (!stats.sealed || epoch != d->result->session.epochs + stats.epochs || !d->loaded ||
	    d->running || (d->store && !d->armed))
		return via_fail(err, -EPROTO,
				"start the guest\nRUN came with memory %s and device state %s\n"
				"this is a fault of the source's program: report it",
				stats.sealed ? "sealed" : "not sealed",
				d->loaded ? "loaded" : "not loaded");
	return 0;
}

/* Positive: the guest runs, and has all of its memory. */
static int on_run(struct destination *d, const struct via_message *m, struct via_error *err)
{
	int rc = check_run(d, m, err);

	if (rc)
		return rc;
	d->progress.committed = true;
	show(d);
	if (via_session_failure(d->session, NULL) == -ECANCELED)
		return via_session_failure(d->session, err); /* by request; a mere loss is none */
	rc = d->guest->run(d->guest->arg, err);
	if (rc)
		return refuse_run(d, rc, err);
	VIA_PROBE(guest, VIA_ROLE_DESTINATION, 0, VIA_PROBE_RUNS, 0, 0);
	/* It runs, whether or not the source comes to know. */
	d->running = true;
	step(d, &d->progress.steps.run_ns);
	(void)via_main_send(d->session, ENGINE_RUNNING, NULL, 0, NULL);
	return d->store ? 0 : 1;
}

/* -- postcopy ------------------------------------------------------------------------- */

static int fail_order(const char *what, struct via_error *err)
{
	return via_fail(err, -EPROTO,
			"receive by postcopy\n%s out of its turn\n"
			"check that both sides run the same release",
			what);
}

static int wait_channels(struct destination *d, enum via_channel_kind kind, struct via_error *err)
{
	struct via_session_stats stats;
	unsigned n;
	int rc = 0;

	via_session_stats(d->session, &stats);
	n = kind == VIA_PREEMPT ? stats.preempt : stats.multifd;
	for (unsigned i = 0; i < n && !rc; i++)
		rc = via_session_wait_channel(d->session, kind, i, err);
	return rc;
}

static int on_advise(struct destination *d, struct via_error *err)
{
	int rc;

	if (d->store)
		return fail_order("ADVISE", err);
	if (!d->guest->abandon)
		return via_fail(err, -EOPNOTSUPP,
				"receive by postcopy\nthis guest cannot be abandoned\n"
				"its VMM must supply via_destination_guest.abandon");
	rc = wait_channels(d, VIA_PREEMPT, err);
	if (!rc)
		rc = page_store_new(d->region, d->nregions, &d->store, err);
	if (!rc)
		rc = page_sink_new(d->store, &d->sink, err);
	d->result->postcopy.used = !rc;
	return rc ? rc : via_main_send(d->session, ENGINE_ADVISED, NULL, 0, err);
}

/* Complete, it is what this side lacks: discard it, and be ready for faults. */
static int on_page_map(struct destination *d, const struct via_message *m, struct via_error *err)
{
	struct via_bitmap lacking[VIA_REGIONS_MAX];
	struct via_session_stats stats;
	int rc;

	via_session_stats(d->session, &stats);
	if (!d->store || d->loaded || !stats.sealed)
		return fail_order("PAGE_MAP", err);
	for (unsigned i = 0; i < d->nregions; i++)
		lacking[i] = d->store->region[i].lacking;
	if (m->more || page_map_decode(lacking, d->nregions, &d->map, m->payload, m->len))
		return via_fail(err, -EPROTO,
				"receive by postcopy\na malformed map of pages\n"
				"check that both sides run the same release");
	if (!d->map.complete)
		return 0;
	rc = page_store_arm(d->store, err);
	if (!rc)
		rc = page_sink_serve_faults(d->sink, d->session, err);
	d->armed = !rc;
	if (!rc)
		step(d, &d->progress.steps.armed_ns);
	return rc ? rc : via_main_send(d->session, ENGINE_ARMED, NULL, 0, err);
}

static int on_bulk(struct destination *d, struct via_error *err)
{
	int rc = d->running && d->store && !d->resumed ? wait_channels(d, VIA_MULTIFD, err)
						       : fail_order("BULK", err);

	return rc ? rc : page_sink_install_bulk(d->sink, d->session, err);
}

/* A resumed session has all its channels: tell what is lacking, and go on. */
static int on_resume(struct destination *d, struct via_error *err)
{
	struct via_bitmap lacking[VIA_REGIONS_MAX];
	int rc = d->resumed && !d->resume_told ? wait_channels(d, VIA_PREEMPT, err)
					       : fail_order("RESUME", err);

	d->resume_told = true;
	if (!rc && d->running)
		rc = via_main_send(d->session, ENGINE_RUNNING, NULL, 0, err);
	if (rc)
		return rc;
	if (!d->running) { /* state and RUN come again; and memory may have been released */
		d->loaded = false;
		d->state_len = 0;
		rc = page_store_arm(d->store, err);
		if (rc)
			return rc;
	}
	for (unsigned i = 0; i < d->nregions; i++)
		lacking[i] = d->store->region[i].lacking;
	rc = page_map_send(d->session, lacking, d->nregions, err);
	if (!rc)
		rc = page_sink_serve_faults(d->sink, d->session, err);
	return rc ? rc : page_sink_install_bulk(d->sink, d->session, err);
}

/* Say so once nothing is lacking. */
static int check_complete(struct destination *d, struct via_error *err)
{
	if (!d->running || !d->store || d->complete_sent || atomic_load(&d->store->missing))
		return 0;
	d->complete_sent = true;
	return via_main_send(d->session, ENGINE_COMPLETE, NULL, 0, err);
}

/* -- all messages of main ----------------------------------------------------------------- */

/* Of these the type says it all. */
static bool has_no_payload(uint8_t type)
{
	return type == ENGINE_ADVISE || type == ENGINE_BULK || type == ENGINE_RESUME ||
	       type == ENGINE_COMPLETED;
}

/* Positive: done. */
static int on_message(struct destination *d, const struct via_message *m, struct via_error *err)
{
	if (has_no_payload(m->type) && (m->more || m->len))
		return via_fail(err, -EPROTO,
				"receive by postcopy\na message of type %u with a payload\n"
				"check that both sides run the same release",
				m->type);
	if (d->resumed && !d->resume_told && m->type != ENGINE_RESUME && m->type != ENGINE_STATUS)
		return fail_order("a message before RESUME", err);
	switch (m->type) {
	case ENGINE_STATUS:
		return on_status(d, m, err);
	case ENGINE_STATE_DIGEST:
		return on_state_digest(d, m, err);
	case ENGINE_STATE:
		return on_state(d, m, err);
	case ENGINE_RUN:
		return on_run(d, m, err);
	case ENGINE_ADVISE:
		return on_advise(d, err);
	case ENGINE_PAGE_MAP:
		return on_page_map(d, m, err);
	case ENGINE_BULK:
		return on_bulk(d, err);
	case ENGINE_RESUME:
		return on_resume(d, err);
	case ENGINE_COMPLETED:
		return d->complete_sent ? 1 : fail_order("COMPLETED", err);
	}
	return via_fail(err, -EPROTO,
			"receive the guest\na message of type %u\n"
			"check that both sides run the same release",
			m->type);
}

static int check_silence(const struct destination *d, struct via_error *err)
{
	if (via_now_ns() - d->heard_ns < SILENCE_NS)
		return 0;
	return via_fail(err, -ETIMEDOUT,
			"receive the guest\nthe source's migration was silent for %.0f s\n"
			"check whether its program is stopped",
			(double)SILENCE_NS / 1e9);
}

/* Deal with what comes on main, until it is done (0) or the session is lost. */
static int follow(struct destination *d, struct via_error *err)
{
	struct via_message m;
	int rc = 0;

	d->heard_ns = via_now_ns();
	while (!rc) {
		rc = via_main_receive(d->session, via_deadline_in(d->config.interval_ns), &m, err);
		if (rc == -EAGAIN) {
			tick(d);
			rc = check_silence(d, err);
			continue;
		}
		d->heard_ns = via_now_ns();
		if (!rc)
			rc = on_message(d, &m, err);
		if (!rc || rc == -EINTR)
			rc = check_complete(d, err);
	}
	return rc < 0 ? rc : 0;
}

static int receive(struct destination *d, struct via_error *err)
{
	int rc = via_session_wait_channel(d->session, VIA_CHANNEL_ESSENTIAL, 0, err);

	if (!rc)
		rc = via_session_start_receivers(d->session, batch_message, d, err);
	return rc ? rc : follow(d, err);
}

/* -- recovery ------------------------------------------------------------------------------ */

/* What this session has counted, with those before it. */
static void add_stats(struct destination *d)
{
	tally_look(&d->tally, d->session, &d->result->session);
	tally_steps(d->session, d->start_ns, &d->progress.steps);
	tally_keep(&d->tally);
	d->result->session = d->tally.session;
}

static void leave_session(struct destination *d, const struct via_error *why,
			  struct via_resume *resume)
{
	via_session_abort(d->session, why); /* the source learns it, if it can */
	page_sink_stop(d->sink);
	via_session_resume_point(d->session, resume);
	add_stats(d);
	via_session_close(d->session);
	d->session = NULL;
	d->complete_sent = false;
	d->resume_told = false;
	if (d->running && !atomic_load(&d->store->missing))
		page_store_release(d->store); /* complete: nobody has to wait for anything */
}

static int go_on(struct destination *d, struct via_error *err)
{
	unsigned n;
	const struct via_region *regions = via_session_regions(d->session, &n);
	int rc;

	if (!page_store_matches(d->store, regions, n))
		return via_fail(err, -EPROTO,
				"resume the migration\nits regions are not those it began with\n"
				"check that both sides run the same release");
	d->resumed = true;
	d->result->postcopy.recoveries++;
	rc = via_session_wait_channel(d->session, VIA_CHANNEL_ESSENTIAL, 0, err);
	return rc ? rc : follow(d, err);
}

static void show_paused(struct destination *d)
{
	d->progress.phase = VIA_PHASE_PAUSED;
	look_at_pages(d);
	d->progress.rate = 0;
	look(d);
	show(d);
}

/* Another session in place of the one that was lost, and on. *gave_up: there is none. */
static int resume(struct destination *d, struct via_resume *lost, struct via_error *why,
		  bool *gave_up)
{
	struct via_error err = {0};
	bool needs_source = d->running && atomic_load(&d->store->missing);
	uint64_t deadline_ns = needs_source ? VIA_NEVER : via_deadline_in(LINGER_NS);
	int rc;

	via_log("postcopy is paused: %s: %s", why->what, why->seen);
	show_paused(d);
	if (d->session)
		leave_session(d, why, lost);
	rc = d->config.recover(d->config.recover_arg, lost, why, deadline_ns, &d->session, &err);
	*gave_up = rc != 0;
	if (!rc)
		rc = go_on(d, &err);
	if (rc)
		via_fail(&err, rc, "resume the migration\n%s\nsee the messages of both sides",
			 via_err_text(rc));
	*why = err;
	return rc;
}

static bool can_resume(const struct destination *d, int code)
{
	return d->armed && !d->guest_failed && d->config.recover && code != -ECANCELED &&
	       code != -EPROTO && code != -EBADMSG;
}

/* As receive(), and again when the session is lost in postcopy. */
static int receive_all(struct destination *d, struct via_error *err)
{
	struct via_error why = {0};
	struct via_resume lost;
	bool gave_up = false;
	int rc = receive(d, &why);

	while (rc && !gave_up && can_resume(d, rc)) {
		via_fail(&why, rc, "postcopy\n%s\nsee the messages of both sides",
			 via_err_text(rc));
		rc = resume(d, &lost, &why, &gave_up);
	}
	if (rc && d->running && d->store && !atomic_load(&d->store->missing))
		return 0; /* complete, and the source will not hear it from us */
	return rc ? via_error_pass(err, &why) : 0;
}

/* -- all of it ------------------------------------------------------------------------------- */

static int begin(struct destination *d, struct via_error *err)
{
	const struct via_region *regions = via_session_regions(d->session, &d->nregions);
	int rc;

	d->region = malloc(d->nregions * sizeof(*d->region));
	if (!d->region)
		return via_fail(err, -ENOMEM, "receive the guest\nout of memory\nfree some memory");
	memcpy(d->region, regions, d->nregions * sizeof(*d->region));
	for (unsigned i = 0; i < d->nregions; i++)
		d->progress.memory += d->region[i].desc.len;
	rc = tally_init(&d->tally, d->session, err);
	if (rc || !via_session_integrity(d->session))
		return rc;
	return integrity_check_new(d->region, d->nregions, &d->integrity, err);
}

/* No thread of ours touches guest memory any more; a guest without its memory does not go on. */
static void end_postcopy(struct destination *d, int rc)
{
	if (d->sink) {
		if (rc && d->session)
			via_session_abort(d->session, NULL);
		page_sink_stop(d->sink);
		page_sink_stats(d->sink, &d->result->postcopy);
	}
	if (rc && d->running && d->store) {
		VIA_PROBE(guest, VIA_ROLE_DESTINATION, 0, VIA_PROBE_ABANDONED, 0, 0);
		d->guest->abandon(d->guest->arg);
	}
	page_sink_free(d->sink);
	page_store_free(d->store);
}

/* The last look at it; who has watched sees the end of what has completed. */
static void end(struct destination *d, int rc)
{
	struct via_progress *p = &d->progress;

	p->phase = VIA_PHASE_DONE;
	p->remaining = 0;
	p->elapsed_ns = d->result->total_ns;
	if (d->running)
		p->fence = VIA_FENCE_RUN;
	p->requests = d->result->postcopy.requests;
	if (d->session && d->tally.channel)
		add_stats(d);
	d->result->steps = p->steps;
	if (!rc)
		show(d);
	tally_fini(&d->tally);
}

int via_migrate_destination(struct via_session **session, const struct via_destination_guest *guest,
			    const struct via_migrate_config *config,
			    struct via_migrate_result *result, struct via_error *err)
{
	struct destination d = {.session = *session,
				.guest = guest,
				.config = *config,
				.result = result,
				.start_ns = via_now_ns()};
	struct via_error first = {0};
	int rc;

	memset(result, 0, sizeof(*result));
	if (!d.config.max_state_len)
		d.config.max_state_len = MAX_STATE_LEN;
	if (!d.config.interval_ns)
		d.config.interval_ns = INTERVAL_NS;
	d.progress.phase = VIA_PHASE_SETUP;
	d.progress.role = VIA_ROLE_DESTINATION;
	d.progress.fence = VIA_FENCE_OPEN;
	d.progress.postcopy = &result->postcopy;
	rc = begin(&d, &first);
	if (!rc)
		rc = receive_all(&d, &first);
	if (rc) {
		via_fail(&first, rc, "migration\n%s\nsee the messages of both sides",
			 via_err_text(rc));
		if (d.session)
			via_session_abort(d.session, &first);
	}
	if (d.session)
		via_session_stop_workers(d.session); /* batch_message() is called no more */
	end_postcopy(&d, rc);
	integrity_check_free(d.integrity);
	free(d.state);
	free(d.region);
	result->outcome = !rc ? VIA_COMPLETED : d.running ? VIA_PAUSED : VIA_ABORTED;
	result->total_ns = via_now_ns() - d.start_ns;
	end(&d, rc);
	*session = d.session;
	return rc ? via_error_pass(err, &first) : 0;
}

int via_migrate_send_report(struct via_session *session, const void *report, size_t len,
			    struct via_error *err)
{
	if (!session)
		return via_fail(err, -ECONNRESET,
				"report to the source\nthe session is lost\n"
				"the guest is complete here all the same");
	return via_main_send(session, ENGINE_REPORT, report, len, err);
}
