/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * destination.c -- the destination's engine: memory for the source to write, device state, RUN.
 *
 * Invariant: the guest starts only on RUN, and RUN counts only when guest memory is
 * sealed and the device state is loaded. Whatever else happens, it does not start.
 */
#include "migrate/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "migrate/engine_messages.h"

#define MAX_STATE_LEN ((size_t)1 << 30)

/* The source's migration thread speaks once a second; its guest's pause() and save() may take a while. */
#define SILENCE_NS (30 * VIA_NS_PER_S)

struct destination {
	struct via_session *session;
	const struct via_destination_guest *guest;
	struct via_migrate_config config;
	struct via_migrate_result *result;
	const struct via_region *region;
	unsigned nregions;
	uint64_t start_ns;
	uint64_t memory;
	uint8_t *state;
	size_t state_len, state_cap;
	bool loaded;
};

/* -- zero pages: in the receivers' threads --------------------------------------- */

static int zero_pages(void *arg, unsigned channel, uint8_t type, const uint8_t *payload, size_t len)
{
	struct destination *d = arg;
	const struct via_region *r;
	struct engine_zero zero;
	struct engine_zero_range range;
	int rc;

	(void)channel;
	if (type != ENGINE_ZERO)
		return -EPROTO;
	rc = engine_zero_decode(payload, len, &zero);
	if (rc || zero.region >= d->nregions)
		return -EPROTO;
	r = &d->region[zero.region];
	for (unsigned i = 0; i < zero.nranges; i++) {
		uint64_t page_size = r->desc.page_size;

		rc = engine_zero_get_range(payload, i, r->desc.len / page_size, &range);
		if (rc)
			return rc;
		if (!zero.fresh)
			memset((uint8_t *)r->addr + range.first * page_size, 0,
			       range.n * page_size);
	}
	return 0;
}

/* -- main: in the migration thread --------------------------------------------------- */

static int on_status(struct destination *d, const struct via_message *m, struct via_error *err)
{
	struct engine_status s;

	if (m->more || engine_status_decode(m->payload, m->len, &s))
		return via_fail(err, -EPROTO,
				"receive the guest\na malformed STATUS\n"
				"check that both sides run the same release");
	d->result->rounds = s.round;
	if (d->config.progress) {
		struct via_progress p = {.phase = s.phase,
					 .round = s.round,
					 .memory = d->memory,
					 .remaining = s.remaining,
					 .sent = s.sent,
					 .rate = s.rate,
					 .dirty_rate = s.dirty_rate,
					 .expected_downtime_ns = s.expected_downtime_ns,
					 .elapsed_ns = via_now_ns() - d->start_ns};

		d->config.progress(d->config.progress_arg, &p);
	}
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
	rc = d->guest->load(d->guest->arg, d->state, d->state_len, err);
	d->loaded = !rc;
	return rc;
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
	if (!stats.sealed || epoch != stats.epochs || !d->loaded)
		return via_fail(err, -EPROTO,
				"start the guest\nRUN came with memory %s and device state %s\n"
				"this is a fault of the source's program: report it",
				stats.sealed ? "sealed" : "not sealed",
				d->loaded ? "loaded" : "not loaded");
	return 0;
}

/* The guest could not be started: say so, so that the source may run it again. */
static int refuse_run(struct destination *d, int code, struct via_error *err)
{
	uint8_t buf[1024];
	ssize_t n;

	via_fail(err, code, "start the guest\n%s\nsee the guest's own messages",
		 via_err_text(code));
	n = via_error_encode(err, buf, sizeof(buf));
	if (n > 0)
		(void)via_main_send(d->session, ENGINE_RUN_REFUSED, buf, (size_t)n, NULL);
	return code;
}

/* Positive: the guest runs. */
static int on_run(struct destination *d, const struct via_message *m, struct via_error *err)
{
	int rc = check_run(d, m, err);

	if (rc)
		return rc;
	rc = d->guest->run(d->guest->arg, err);
	if (rc)
		return refuse_run(d, rc, err);
	/* It runs, whether or not the source comes to know. */
	(void)via_main_send(d->session, ENGINE_RUNNING, NULL, 0, NULL);
	return 1;
}

static int on_message(struct destination *d, const struct via_message *m, struct via_error *err)
{
	switch (m->type) {
	case ENGINE_STATUS:
		return on_status(d, m, err);
	case ENGINE_STATE:
		return on_state(d, m, err);
	case ENGINE_RUN:
		return on_run(d, m, err);
	}
	return via_fail(err, -EPROTO,
			"receive the guest\na message of type %u\n"
			"check that both sides run the same release",
			m->type);
}

static int receive(struct destination *d, struct via_error *err)
{
	int rc = via_session_wait_channel(d->session, VIA_CHANNEL_ESSENTIAL, 0, err);
	struct via_message m;

	if (!rc)
		rc = via_session_start_receivers(d->session, zero_pages, d, err);
	while (!rc) {
		rc = via_main_receive(d->session, via_deadline_in(SILENCE_NS), &m, err);
		if (rc == -EAGAIN)
			return via_fail(
				err, -ETIMEDOUT,
				"receive the guest\nthe source's migration was silent for %.0f s\n"
				"check whether its program is stopped",
				(double)SILENCE_NS / 1e9);
		if (!rc)
			rc = on_message(d, &m, err);
	}
	return rc < 0 ? rc : 0;
}

int via_migrate_destination(struct via_session *session, const struct via_destination_guest *guest,
			    const struct via_migrate_config *config,
			    struct via_migrate_result *result, struct via_error *err)
{
	struct destination d = {.session = session,
				.guest = guest,
				.config = *config,
				.result = result,
				.start_ns = via_now_ns()};
	struct via_error first = {0};
	int rc;

	memset(result, 0, sizeof(*result));
	if (!d.config.max_state_len)
		d.config.max_state_len = MAX_STATE_LEN;
	d.region = via_session_regions(session, &d.nregions);
	for (unsigned i = 0; i < d.nregions; i++)
		d.memory += d.region[i].desc.len;
	rc = receive(&d, &first);
	if (rc) {
		via_fail(&first, rc, "migration\n%s\nsee the messages of both sides",
			 via_err_text(rc));
		via_session_abort(session, &first);
	}
	free(d.state);
	result->outcome = rc ? VIA_ABORTED : VIA_COMPLETED;
	result->total_ns = via_now_ns() - d.start_ns;
	via_session_stats(session, &result->session);
	return rc ? via_error_pass(err, &first) : 0;
}

int via_migrate_send_report(struct via_session *session, const void *report, size_t len,
			    struct via_error *err)
{
	return via_main_send(session, ENGINE_REPORT, report, len, err);
}
