/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_source.h -- private to migrate/: the source's pages in postcopy, for a guest that runs
 * elsewhere: answers to requests on the preempt channels, one thread for each, and everything
 * else in bulk on the multifd channels, one thread for each.
 *
 * A page is sent by whoever takes its bit out of the bitmap of missing pages, so once in a session.
 * The gate: while a request waits for its answer, bulk begins no write.
 */
#ifndef VIA_MIGRATE_PAGE_SOURCE_H
#define VIA_MIGRATE_PAGE_SOURCE_H

#include "core/bitmap.h"
#include "migrate/guest.h"
#include "migrate/migrate.h"

struct page_source;

/*
 * @missing: one bitmap for each region, of the pages that the destination lacks; regions and
 * bitmaps stay the caller's and are not touched by it while the threads run. -ENOMEM
 */
int page_source_new(const struct via_guest_region *regions, unsigned nregions,
		    struct via_bitmap *const *missing, struct page_source **ps,
		    struct via_error *err);
/* Stops first. Accepts NULL. */
void page_source_free(struct page_source *ps);

/* Start to answer, on the preempt channels of @session, which are ready. */
int page_source_serve(struct page_source *ps, struct via_session *session, struct via_error *err);
/* Start to push, on its multifd channels, which were opened after the seal. */
int page_source_push(struct page_source *ps, struct via_session *session, struct via_error *err);
/* End all threads: when nothing is missing, or the session has failed. Idempotent. */
void page_source_stop(struct page_source *ps);

/* Bytes not sent yet. */
uint64_t page_source_remaining(const struct page_source *ps);
/* Everything has been sent: since when; 0: it has not. */
uint64_t page_source_pushed_ns(const struct page_source *ps);
/* Fill in what the source knows of *stats. */
void page_source_stats(const struct page_source *ps, struct via_postcopy_stats *stats);

#endif
