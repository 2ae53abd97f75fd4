/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * source_impl.h -- between source.c (precopy, switch-over, outcome) and source_postcopy.c.
 */
#ifndef VIA_MIGRATE_SOURCE_IMPL_H
#define VIA_MIGRATE_SOURCE_IMPL_H

#include "migrate/dirty_work.h"
#include "migrate/integrity.h"
#include "migrate/migrate.h"
#include "migrate/page_source.h"
#include "migrate/tally.h"

struct source {
	struct via_session *session; /* NULL: lost, and none came in its place */
	const struct via_source_guest *guest;
	struct via_migrate_config config;
	struct via_migrate_result *result;
	struct integrity_work *integrity; /* NULL: no digests */
	struct dirty_work *dirty;         /* in postcopy: the pages that the destination lacks */
	struct via_progress progress;
	struct tally tally;
	uint64_t start_ns;
	uint64_t bandwidth; /* bytes a second, as measured by the last round that sent any */
	uint64_t ticked_ns, ticked_sent;
	uint64_t status_ns;
	unsigned stuck_rounds; /* in a row */
	bool logging, paused, run_sent;
	bool runs_there; /* the destination has said so */

	/* postcopy */
	bool can_postcopy, postcopy;
	bool lost; /* so is the guest */
	struct page_source *pages;
};

/* Add what the session has counted to the result: at the end of it, and of each one lost. */
void source_add_stats(struct source *src);
/*
 * End the session with @why, which the destination learns: as an abort where RUN was not sent.
 */
void source_tell_destination(struct source *src, const struct via_error *why);
void source_set_phase(struct source *src, enum via_phase phase);
/* A step is done, now. */
void source_step(const struct source *src, uint64_t *step_ns);
/* Pages sent, of drained rounds and of postcopy, for progress and result. */
void source_count_pages(struct source *src);
/* Call the caller's progress function. */
void source_show(struct source *src);
/* Once an interval: the caller's progress line; once a second: the destination's. */
int source_tick(struct source *src, struct via_error *err);
/* Add what the guest wrote to the dirty bitmap. */
int source_fetch_dirty(struct source *src, struct via_error *err);
int source_send_state(struct source *src, struct via_error *err);
/* RUN, and the answer to it. */
int source_send_run(struct source *src, struct via_error *err);

/* From the end of precopy to the end of the migration. */
int source_postcopy(struct source *src, struct via_error *err);

#endif
