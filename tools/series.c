/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * series.c -- see series.h.
 *
 * It must never grow: a migration may take days. Invariant: points are in order of time, the first
 * and the last that were told are among them, and so is the first of each round until they are
 * thinned out.
 */
#include "tools/series.h"

#include <stdlib.h>
#include <string.h>

struct series *series_new(void)
{
	return calloc(1, sizeof(struct series));
}

void series_free(struct series *series)
{
	free(series);
}

/* Every other one goes; the first and the last stay. */
static void thin_out(struct series *s)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < s->npoints; i += 2)
		s->point[kept++] = s->point[i];
	s->point[kept - 1] = s->point[s->npoints - 1];
	s->npoints = kept;
	s->spacing_ns = 2 * (s->point[kept - 1].at_ns - s->point[0].at_ns) / SERIES_POINTS;
}

void series_add_point(struct series *s, const struct series_point *new)
{
	const struct series_point *last = s->npoints ? &s->point[s->npoints - 1] : NULL;
	const struct series_point *before = s->npoints > 1 ? last - 1 : NULL;

	if (last && new->at_ns < last->at_ns)
		return; /* time does not go back, whatever a caller says */
	/* The last one is provisional while it is near the one before it. */
	if (before && last->at_ns - before->at_ns < s->spacing_ns && last->round == before->round)
		s->npoints--;
	else if (s->npoints == SERIES_POINTS)
		thin_out(s);
	s->point[s->npoints++] = *new;
}

static void add_span(struct series *s, const struct via_progress *p)
{
	uint64_t from = p->elapsed_ns;

	if (!s->nspans)
		s->span[s->nspans++] = (struct series_span){.phase = VIA_PHASE_SETUP};
	if (s->nspans && s->span[s->nspans - 1].phase == p->phase)
		return;
	if (s->nspans == SERIES_SPANS || p->phase == VIA_PHASE_DONE)
		return;
	/* Told later than it began. */
	if (p->phase == VIA_PHASE_SWITCHOVER && p->steps.paused_ns)
		from = p->steps.paused_ns;
	if (p->phase == VIA_PHASE_POSTCOPY && s->nspans && p->steps.run_ns &&
	    s->span[s->nspans - 1].phase == VIA_PHASE_SWITCHOVER)
		from = p->steps.run_ns;
	if (s->nspans && from < s->span[s->nspans - 1].from_ns)
		from = s->span[s->nspans - 1].from_ns;
	s->span[s->nspans++] = (struct series_span){.phase = p->phase, .from_ns = from};
}

void series_add(struct series *s, const struct via_progress *p)
{
	const unsigned room = sizeof(s->channel) / sizeof(s->channel[0]);
	struct series_point new = {.at_ns = p->elapsed_ns,
				   .remaining = p->remaining,
				   .sent = p->sent,
				   .dirty_rate = p->dirty_rate,
				   .round = p->round};

	add_span(s, p);
	series_add_point(s, &new);
	s->end_ns = p->elapsed_ns;
	s->steps = p->steps;
	if (!p->nchannels)
		return;
	s->nchannels = p->nchannels < room ? p->nchannels : room;
	memcpy(s->channel, p->channel, s->nchannels * sizeof(s->channel[0]));
}
