/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tally.h -- private to migrate/: what both engines show of a migration while it goes on, summed
 * over its sessions. Migration thread.
 */
#ifndef VIA_MIGRATE_TALLY_H
#define VIA_MIGRATE_TALLY_H

#include "migrate/migrate.h"

struct tally {
	struct via_session_stats session;
	struct via_channel_stats *channel; /* NULL: there is no tally */
	struct via_channel_stats *lost;    /* what sessions before it have counted */
	unsigned nchannels;
	bool ready;
};

/* Room for the channels of @session. -ENOMEM */
int tally_init(struct tally *t, const struct via_session *session, struct via_error *err);
/* Accepts a zeroed one, and one that failed. */
void tally_fini(struct tally *t);

/* Look at @session, and add what was counted in those @lost. */
void tally_look(struct tally *t, struct via_session *session, const struct via_session_stats *lost);
/* The session that was last looked at ends: its channels' counts are kept. */
void tally_keep(struct tally *t);

/* Have *p show it, with what follows from *p itself: its expected_total_ns. */
void tally_show(const struct tally *t, struct via_progress *p);

/* When drained and sealed, by @session; what is known of earlier ones stays. */
void tally_steps(const struct via_session *session, uint64_t start_ns, struct via_steps *steps);

#endif
