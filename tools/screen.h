/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * screen.h -- what a migration looks like on a terminal: text made of a snapshot.
 *
 * A screen is a number of lines of at most SCREEN_COLUMNS columns, printable ASCII but for
 * colours, each with its '\n'. Where it stands on the terminal is its caller's matter
 * (tools/progress.c).
 */
#ifndef VIA_TOOLS_SCREEN_H
#define VIA_TOOLS_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include "migrate/migrate.h"
#include "relay/relay.h"

#define SCREEN_COLUMNS 79u
#define SCREEN_LINES   20u   /* at most */
#define SCREEN_LEN     4096u /* bytes at most, with the NUL */

/* Above so many channels each kind has one line. */
#define SCREEN_CHANNELS 10u

/* One side of a migration. */
struct screen {
	const char *title; /* "send to HOST:PORT" */
	const char *hint;  /* what the user may do; or NULL */
	const struct via_progress *progress;
	uint64_t downtime_limit_ns;   /* 0: it is the other side's */
	const uint64_t *channel_rate; /* bytes a second of progress->channel; NULL: not known yet */
	const uint64_t *rail_rate;    /* likewise of progress->session->rail */
	bool color;
};

/* A relay. */
struct screen_relay {
	const char *title;
	const char *hint;
	const struct relay_result *now; /* NULL: it carries nothing */
	unsigned migrations;            /* that have ended */
	uint64_t forward_rate, back_rate;
	const uint64_t *rail_rate; /* of now->session.rail; NULL: not known yet */
	bool color;
};

/*
 * The lines of @s into @buf, SCREEN_LEN bytes, as a string. Depends on nothing but @s; any thread.
 * Returns the number of lines, at most SCREEN_LINES.
 */
unsigned screen_render(const struct screen *s, char *buf);
unsigned screen_render_relay(const struct screen_relay *s, char *buf);

/* All that has passed over @c, and "main", "multifd" or "preempt". */
uint64_t screen_channel_bytes(const struct via_channel_stats *c);
const char *screen_channel_kind(enum via_channel_kind kind);

#endif
