/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * live.c -- a migration as it runs: a screen where stderr has room for one, lines elsewhere.
 *
 * What a screen shows beside the snapshot is only how fast the snapshot's counters grow.
 */
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/live.h"
#include "tools/screen.h"

#define RATE_NS (500 * VIA_NS_PER_MS) /* steady enough to be read */

void rates_take(struct rates *r, uint64_t now_ns, const uint64_t *count, unsigned n)
{
	uint64_t ns = now_ns - r->at_ns;

	n = n < RATES_MAX ? n : RATES_MAX;
	if (r->at_ns && r->n == n && ns < RATE_NS)
		return;
	r->known = r->at_ns && r->n == n;
	for (unsigned i = 0; i < n; i++) {
		bool grown = r->known && count[i] >= r->count[i];

		r->rate[i] =
			grown ? (uint64_t)((double)(count[i] - r->count[i]) * 1e9 / (double)ns) : 0;
		r->count[i] = count[i];
	}
	r->n = n;
	r->at_ns = now_ns;
}

void live_init(struct live *live, const struct settings *settings)
{
	*live = (struct live){.settings = settings};
	progress_init(&live->view);
	/* Debug lines come from every thread, and would stand across a screen. */
	live->view.terminal = live->view.terminal && !settings->verbose;
}

/* Channels first, then rails. */
static void take_rates(struct live *live, const struct via_progress *p)
{
	uint64_t count[RATES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < p->nchannels && n < RATES_MAX - VIA_RAILS_MAX; i++)
		count[n++] = screen_channel_bytes(&p->channel[i]);
	for (unsigned i = 0; p->session && i < p->session->nrails; i++)
		count[n++] = p->session->rail[i].bytes;
	rates_take(&live->rates, via_now_ns(), count, n);
}

static const char *hint_of(const struct live *live, const struct via_progress *p, char *hint,
			   size_t cap)
{
	bool source = p->role != VIA_ROLE_DESTINATION;

	if (p->phase == VIA_PHASE_DONE)
		return NULL;
	if (p->committed)
		return "^C twice ends it all the same: the guest has moved, and may be lost then";
	if (!source || p->phase == VIA_PHASE_SWITCHOVER || live->settings->integrity)
		return "^C aborts it: the guest runs on at the source";
	snprintf(hint, cap, "^C aborts it: the guest runs on here. `kill -USR1 %d`: postcopy, now",
		 (int)getpid());
	return hint;
}

static void draw(struct live *live, const struct via_progress *p, bool changed)
{
	const struct settings *s = live->settings;
	bool source = p->role != VIA_ROLE_DESTINATION;
	char title[128], hint[96], screen[SCREEN_LEN];
	struct screen what = {.title = title,
			      .hint = hint_of(live, p, hint, sizeof(hint)),
			      .progress = p,
			      .downtime_limit_ns = source ? s->downtime_ns : 0,
			      .color = live->view.color};
	unsigned rows;

	take_rates(live, p);
	if (live->rates.known) {
		what.channel_rate = live->rates.rate;
		what.rail_rate = live->rates.rate + p->nchannels;
	}
	if (source)
		snprintf(title, sizeof(title), "source, to %s", s->peer);
	else
		snprintf(title, sizeof(title), "destination, at %s", s->listen);
	rows = screen_render(&what, screen);
	progress_draw(&live->view, changed, screen, rows);
}

void live_show(struct live *live, const struct via_progress *p)
{
	bool changed = live->phase != p->phase || live->round != p->round;

	live->phase = p->phase;
	live->round = p->round;
	if (progress_has_screen(&live->view))
		draw(live, p, changed);
	else
		progress_show(&live->view, p, changed);
}
