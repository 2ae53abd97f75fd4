/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_sink.h -- private to migrate/: the threads that bring the destination's missing pages: a
 * fault server, which owns all preempt channels, and an installer for each multifd channel.
 *
 * The fault server reads what userfaultfd tells, as much as can be asked for at once; the rest waits
 * in the kernel. A page is asked for once, however many vCPUs wait for it.
 */
#ifndef VIA_MIGRATE_PAGE_SINK_H
#define VIA_MIGRATE_PAGE_SINK_H

#include "migrate/migrate.h"
#include "migrate/page_store.h"

struct page_sink;

/* For @store, which stays the caller's. -ENOMEM */
int page_sink_new(struct page_store *store, struct page_sink **sink, struct via_error *err);
/* Stops first. Accepts NULL. */
void page_sink_free(struct page_sink *sink);

/*
 * Start the fault server on the preempt channels of @session, which are ready. Pages that were
 * asked for and did not come (in a session that was lost) are asked for again first.
 */
int page_sink_serve_faults(struct page_sink *sink, struct via_session *session,
			   struct via_error *err);
/* Start the installers, on its multifd channels, which were opened after the seal. */
int page_sink_install_bulk(struct page_sink *sink, struct via_session *session,
			   struct via_error *err);
/*
 * Around the load of the device state, which may touch memory that is missing. begin: false when
 * nobody would answer, because the session is lost. Should that happen meanwhile, the memory is released,
 * so that the load ends; then end returns false, and what was loaded is worth nothing.
 */
bool page_sink_begin_load(struct page_sink *sink);
bool page_sink_end_load(struct page_sink *sink);

/* End all threads. Who waits for a page goes on waiting. Idempotent. */
void page_sink_stop(struct page_sink *sink);

/* Fill in what it knows of *stats. Exact when stopped. */
void page_sink_stats(const struct page_sink *sink, struct via_postcopy_stats *stats);

#endif
