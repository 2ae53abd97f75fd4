/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * live.h -- a migration, or a relay, as it runs: what is shown on stderr meanwhile.
 */
#ifndef VIA_TOOLS_LIVE_H
#define VIA_TOOLS_LIVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "migrate/migrate.h"
#include "relay/relay.h"
#include "tools/options.h"

/* -- progress.c: stderr -------------------------------------------------------------- */

/* Any thread may call these; what they print does not mix. */
struct progress_view {
	pthread_mutex_t lock;
	bool terminal, color, line_open;
	unsigned rows; /* of the screen above the cursor */
	uint64_t shown_ns;
};
void progress_init(struct progress_view *view);
/* Is stderr a terminal with room for a screen (tools/screen.h)? Windows change their size. */
bool progress_has_screen(const struct progress_view *view);
/* @screen, so many @rows, in place of the last. Not more often than is good, unless @changed. */
void progress_draw(struct progress_view *view, bool changed, const char *screen, unsigned rows);
/* @line behind @name; likewise. */
void progress_print(struct progress_view *view, const char *name, bool changed, const char *line);
/* The line of a migration; likewise. */
void progress_show(struct progress_view *view, const struct via_progress *progress, bool changed);
/* A message, as report_error() or as a line: above the screen, or below the live line. */
void progress_say(struct progress_view *view, const struct via_error *what);
void progress_note(struct progress_view *view, const char *line);
/* Keep the screen away, so that other text can be written, until progress_resume(). */
void progress_pause(struct progress_view *view);
void progress_resume(struct progress_view *view);
/* Leave what is there, and the terminal as it was, so that other text can follow. */
void progress_end(struct progress_view *view);
/* Static. */
const char *progress_phase_name(enum via_phase phase);

/* -- live.c: a migration --------------------------------------------------------------- */

#define RATES_MAX (1u + VIA_MULTIFD_MAX + VIA_PREEMPT_MAX + VIA_RAILS_MAX)

/* How fast some counters grow. Zero it. */
struct rates {
	uint64_t at_ns; /* of the counters; 0: none yet */
	unsigned n;
	bool known; /* the rates */
	uint64_t count[RATES_MAX], rate[RATES_MAX];
};
/* These are the counters now; the rates are new twice a second. */
void rates_take(struct rates *rates, uint64_t now_ns, const uint64_t *count, unsigned n);

struct live {
	const struct settings *settings;
	struct progress_view view;
	struct rates rates;
	enum via_phase phase; /* that was shown, and the round */
	unsigned round;
};
void live_init(struct live *live, const struct settings *settings);
/* In the migration thread. */
void live_show(struct live *live, const struct via_progress *progress);

/* -- relay_live.c: a relay ---------------------------------------------------------------- */

struct relay_live {
	struct relay_watch *watch; /* of the relay */
	pthread_mutex_t lock;      /* of the series */
	struct series *series;     /* of the migration at hand or of the last; or NULL */
	uint64_t begun_ns;         /* 0: there is none at hand */
	struct progress_view view;
	struct rates rates;
	const struct settings *settings;
	_Atomic unsigned migrations; /* that have ended */
	pthread_t thread;
	int stop_fd;
	bool running;
};
void relay_live_init(struct relay_live *live, const struct settings *settings,
		     struct relay_watch *watch, struct series *series);
/* A thread that looks, where stderr has room for a screen, or for a series; else nothing. */
void relay_live_start(struct relay_live *live);
/* A migration has ended: the last point of its series, which stays as it is until the resume. */
void relay_live_pause(struct relay_live *live, const struct relay_result *result);
void relay_live_resume(struct relay_live *live);
/* Take the screen away, if there is one. */
void relay_live_stop(struct relay_live *live);
/* SIGINT during what could be a postcopy: the first one only says what it would do. */
bool relay_live_guard(void *arg, bool may_wait, struct via_error *why);

#endif
