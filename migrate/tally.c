/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tally.c -- see tally.h. It must never be a reason for a migration to fail once it is under way:
 * all room is made at its beginning.
 */
#include "migrate/tally.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

void tally_fini(struct tally *t)
{
	free(t->channel);
	free(t->lost);
	t->channel = t->lost = NULL;
}

int tally_init(struct tally *t, const struct via_session *session, struct via_error *err)
{
	t->nchannels = via_session_nchannels(session);
	t->channel = calloc(t->nchannels, sizeof(*t->channel));
	t->lost = calloc(t->nchannels, sizeof(*t->lost));
	if (t->channel && t->lost)
		return 0;
	tally_fini(t);
	return via_fail(err, -ENOMEM, "count what is sent\nout of memory\nfree some memory");
}

/* A session that is resumed has the channels that it had. */
void tally_look(struct tally *t, struct via_session *session, const struct via_session_stats *lost)
{
	unsigned n = via_session_channels(session, t->channel, t->nchannels);

	via_session_stats(session, &t->session);
	via_session_stats_add(&t->session, lost);
	for (unsigned i = 0; i < n; i++) {
		struct via_channel_stats *sum = &t->channel[i];
		const struct via_channel_stats *more = &t->lost[i];

		sum->writes += more->writes;
		sum->bytes += more->bytes;
		sum->sent += more->sent;
		sum->sent_bytes += more->sent_bytes;
		sum->received += more->received;
		sum->received_bytes += more->received_bytes;
	}
	t->ready = true;
}

void tally_keep(struct tally *t)
{
	memcpy(t->lost, t->channel, t->nchannels * sizeof(*t->lost));
	for (unsigned i = 0; i < t->nchannels; i++)
		t->channel[i].ready = false;
}

/*
 * What is written while the rest is sent has to be sent too: the rest gets less by the difference of
 * the two rates.
 */
static uint64_t expected_total(const struct via_progress *p)
{
	bool precopy = p->phase == VIA_PHASE_PRECOPY;
	uint64_t speed = precopy && p->bandwidth ? p->bandwidth : p->rate;
	uint64_t less = precopy ? p->dirty_rate : 0;

	if (p->phase == VIA_PHASE_DONE)
		return p->elapsed_ns;
	if (!speed || p->phase == VIA_PHASE_SETUP || p->phase == VIA_PHASE_PAUSED)
		return 0;
	if (less >= speed)
		return VIA_NEVER;
	return p->elapsed_ns + (uint64_t)((double)p->remaining * 1e9 / (double)(speed - less));
}

void tally_show(const struct tally *t, struct via_progress *p)
{
	p->expected_total_ns = expected_total(p);
	if (!t->ready)
		return;
	p->session = &t->session;
	p->channel = t->channel;
	p->nchannels = t->nchannels;
}

void tally_steps(const struct via_session *session, uint64_t start_ns, struct via_steps *steps)
{
	uint64_t drained, sealed;

	via_session_fence_times(session, &drained, &sealed);
	if (drained)
		steps->drained_ns = drained - start_ns;
	if (sealed)
		steps->sealed_ns = sealed - start_ns;
}
