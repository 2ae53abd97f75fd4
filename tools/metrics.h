/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics.h -- what a migration has done so far, for other programs: a page for Prometheus
 * (--metrics-listen) and a file of JSON lines (--stats-file). docs/metrics.md has both.
 *
 * The migration thread leaves a copy of its numbers, and waits for nobody: whoever reads has a thread
 * of his own, which copies in turn and formats what he has copied.
 */
#ifndef VIA_TOOLS_METRICS_H
#define VIA_TOOLS_METRICS_H

#include "migrate/migrate.h"
#include "relay/relay.h"
#include "tools/options.h"

struct metrics;
struct progress_view; /* tools/live.h */

/*
 * Listen and open what @s asks for, and start the threads that serve it; *m is NULL when it asks for
 * nothing. The other functions accept that. A file that cannot be written is told in @view, once:
 * that is no reason to end a migration. A relay's numbers are those that @watch shows; NULL: this is none.
 * @s, @view and @watch live until metrics_stop().
 *  -EOPNOTSUPP this build has no page; the errors of via_control_listen(); -EPERM, -ENOENT, ...
 *  the file cannot be opened; -ENOMEM
 */
int metrics_start(const struct settings *s, struct progress_view *view, struct relay_watch *watch,
		  struct metrics **m, struct via_error *err);

/* How far it is. Blocks only while a reader copies. */
void metrics_progress(struct metrics *m, const struct via_progress *p);
/* How it has ended. */
void metrics_result(struct metrics *m, const struct via_migrate_result *r);

/* A relay's migration has ended. Any thread. */
void metrics_relay_ended(struct metrics *m, const struct relay_result *r);

/* Write the last line and end the threads. */
void metrics_stop(struct metrics *m);

#endif
