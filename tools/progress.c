/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * progress.c -- how far a migration is, on stderr: one line that is written over and over on
 * a terminal, a plain line now and then elsewhere.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/run.h"

#define PLAIN_NS VIA_NS_PER_S
#define WIDTH    79

const char *format_bytes(uint64_t bytes, char *buf, size_t cap)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	unsigned i = 0;

	while (value >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		value /= 1024;
		i++;
	}
	snprintf(buf, cap, i ? "%.1f %s" : "%.0f %s", value, unit[i]);
	return buf;
}

void progress_init(struct progress_view *view)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	*view = (struct progress_view){0};
	view->terminal = isatty(STDERR_FILENO) && !(term && !strcmp(term, "dumb"));
	view->color = view->terminal && !(no_color && *no_color);
}

static const char *phase_name(enum via_phase phase)
{
	switch (phase) {
	case VIA_PHASE_SETUP:
		return "set-up";
	case VIA_PHASE_PRECOPY:
		return "precopy";
	case VIA_PHASE_SWITCHOVER:
		return "switch-over";
	case VIA_PHASE_POSTCOPY:
		return "postcopy";
	case VIA_PHASE_PAUSED:
		return "paused";
	case VIA_PHASE_DONE:
		return "done";
	}
	return "?";
}

/* What follows the phase's name. */
static void format_line(const struct via_progress *p, char *line, size_t cap)
{
	char left[32], rate[32], dirty[32], down[32] = "?";

	format_bytes(p->remaining, left, sizeof(left));
	format_bytes(p->rate, rate, sizeof(rate));
	if (p->phase == VIA_PHASE_POSTCOPY || p->phase == VIA_PHASE_PAUSED) {
		snprintf(line, cap, ": %s lacking, %s/s, %llu requests", left, rate,
			 (unsigned long long)p->requests);
		return;
	}
	if (p->expected_downtime_ns)
		snprintf(down, sizeof(down), "%.0f ms", (double)p->expected_downtime_ns / 1e6);
	snprintf(line, cap, " round %u: %s left, %s/s, dirty %s/s, downtime %s", p->round, left,
		 rate, format_bytes(p->dirty_rate, dirty, sizeof(dirty)), down);
}

void progress_print(struct progress_view *view, const char *name, bool changed, const char *line)
{
	int width = WIDTH - (int)strlen(name);
	uint64_t now = via_now_ns();

	if (!view->terminal && !changed && now - view->shown_ns < PLAIN_NS)
		return;
	view->shown_ns = now;
	if (!view->terminal) {
		fprintf(stderr, "%s%s\n", name, line);
		return;
	}
	fprintf(stderr, "\r%s%s%s%-*.*s", view->color ? "\033[1m" : "", name,
		view->color ? "\033[0m" : "", width, width, line);
	fflush(stderr);
	view->line_open = true;
}

void progress_show(void *arg, const struct via_progress *p)
{
	struct progress_view *view = arg;
	bool changed = view->phase != p->phase || view->round != p->round;
	char line[160];

	view->phase = p->phase;
	view->round = p->round;
	format_line(p, line, sizeof(line));
	progress_print(view, phase_name(p->phase), changed, line);
}

void progress_end(struct progress_view *view)
{
	if (view->line_open)
		fputc('\n', stderr);
	view->line_open = false;
}
