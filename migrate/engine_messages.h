/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * engine_messages.h -- private to migrate/: what the two engines say to each other
 * (docs/wire.md, engine messages).
 */
#ifndef VIA_MIGRATE_ENGINE_MESSAGES_H
#define VIA_MIGRATE_ENGINE_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "transport/messages.h"

enum engine_message_type {
	ENGINE_ZERO = VIA_MESSAGE_USER, /* multifd, source: pages that are all zero */
	ENGINE_STATUS,                  /* main, source: how far it is; at least one a second */
	ENGINE_STATE,                   /* main, source: device state, of any length */
	ENGINE_RUN,         /* main, source: the guest may run; the epoch that was sealed */
	ENGINE_RUNNING,     /* main, destination: it runs */
	ENGINE_RUN_REFUSED, /* main, destination: it does not and will not; an error as in ERROR */
	ENGINE_REPORT,      /* main, destination: the caller's own bytes, of any length */

	/* postcopy */
	ENGINE_ADVISE,    /* main, source: it comes; preempt channels are open. Answered by ... */
	ENGINE_ADVISED,   /* main, destination */
	ENGINE_PAGE_MAP,  /* main, each: pages that the destination lacks (page_map.h) */
	ENGINE_ARMED,     /* main, destination: those are discarded, and faults are served */
	ENGINE_BULK,      /* main, source: the multifd channels carry pages from here on */
	ENGINE_RESUME,    /* main, source: all channels of a resumed session are open */
	ENGINE_COMPLETE,  /* main, destination: it lacks nothing. Answered by ... */
	ENGINE_COMPLETED, /* main, source */
	ENGINE_REQUEST,   /* preempt, destination: a page that a vCPU waits for */
	ENGINE_PAGE,      /* preempt, source: the answer, one to each request and in their order */
	ENGINE_PAGES,     /* multifd, source: pages of one region, as ZERO; content in the slot */

	/* in a session with digests */
	ENGINE_DIGEST,       /* multifd, source: of the pages that were written before it */
	ENGINE_STATE_DIGEST, /* main, source: of the STATE that follows */
};

#define ENGINE_ZERO_HEADER_LEN 8u
#define ENGINE_ZERO_RANGE_LEN  12u

/*
 * Zero pages of one region: a header and ranges. Built in place, in the message of a batch.
 * fresh: these pages were never sent in this session, so memory that began as zero
 * still is, and the destination need not touch it.
 */
struct engine_zero {
	uint16_t region;
	bool fresh;
	unsigned nranges;
};
struct engine_zero_range {
	uint64_t first; /* page */
	uint32_t n;     /* pages, at least 1 */
};

void engine_zero_put_header(uint8_t *buf, const struct engine_zero *zero);
void engine_zero_put_range(uint8_t *buf, unsigned i, const struct engine_zero_range *range);
/* The header, checked against @len. -EPROTO */
int engine_zero_decode(const uint8_t *buf, size_t len, struct engine_zero *zero);
/* Range @i, below zero->nranges, checked against a region of @npages. -EPROTO */
int engine_zero_get_range(const uint8_t *buf, unsigned i, uint64_t npages,
			  struct engine_zero_range *range);

/* REQUEST and PAGE; content that travels within the message follows. */
#define ENGINE_PAGE_LEN 16u
enum engine_page_kind {
	ENGINE_PAGE_ASKED = 0, /* REQUEST */
	ENGINE_PAGE_HERE,      /* PAGE: its content follows */
	ENGINE_PAGE_IN_SLOT,   /* PAGE: its content is in the slot */
	ENGINE_PAGE_ZERO,      /* PAGE: it is all zero */
	ENGINE_PAGE_COMING,    /* PAGE: it was sent already, on a multifd channel */
};
struct engine_page {
	uint16_t region;
	uint8_t kind; /* enum engine_page_kind */
	uint32_t len; /* bytes: the region's page size */
	uint64_t off; /* bytes, a multiple of that */
};
void engine_page_encode(const struct engine_page *page, uint8_t buf[ENGINE_PAGE_LEN]);
/* The first ENGINE_PAGE_LEN bytes. -EPROTO; region and place are the caller's to check. */
int engine_page_decode(const uint8_t *buf, size_t len, struct engine_page *page);

/*
 * DIGEST: runs of pages, each with the digests of its pages. Built in place, in the message of a
 * batch; both put functions return where the next byte goes.
 */
#define ENGINE_DIGEST_LEN        16u /* XXH3-128, canonical */
#define ENGINE_DIGEST_HEADER_LEN 8u
#define ENGINE_DIGEST_RUN_LEN    16u /* and a digest for each page */
struct engine_digest {
	unsigned nruns; /* that are left */
	const uint8_t *rest;
	size_t rest_len;
};
struct engine_digest_run {
	uint16_t region;
	uint64_t first; /* page */
	uint32_t n;     /* pages, at least 1 */
	const uint8_t *digests;
};
uint8_t *engine_digest_put_header(uint8_t *buf, unsigned nruns);
uint8_t *engine_digest_put_run(uint8_t *buf, uint16_t region, uint64_t first, uint32_t n);
/* -EPROTO. Region and pages are the caller's to check. */
int engine_digest_decode(const uint8_t *buf, size_t len, struct engine_digest *digest);
/* The next of nruns. -EPROTO, also when something follows the last. */
int engine_digest_next_run(struct engine_digest *digest, struct engine_digest_run *run);

struct engine_status {
	uint32_t round;
	uint8_t phase;                                                    /* enum via_phase */
	uint64_t remaining, sent, rate, dirty_rate, expected_downtime_ns; /* as in via_progress */
};
ssize_t engine_status_encode(const struct engine_status *status, void *buf, size_t cap);
int engine_status_decode(const void *buf, size_t len, struct engine_status *status);

#endif
