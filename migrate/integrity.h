/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * integrity.h -- private to migrate/: is what stands at the destination what the source has read?
 *
 * The source takes an XXH3-128 digest of each page that it is about to write, and sends the
 * digests behind the writes (VIA_AFTER_WRITES). The destination takes them again, of its own
 * memory, as they come: so all of it overlaps with the transfer but for the last round, which
 * is as short as the downtime allows.
 *
 * A page that the guest writes meanwhile may differ, and comes again in a later round, because it
 * is dirty. So a page that differs is no failure yet: the destination keeps a bit for it until
 * it has come again and fits. Once memory is sealed there must be no such bit.
 */
#ifndef VIA_MIGRATE_INTEGRITY_H
#define VIA_MIGRATE_INTEGRITY_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "migrate/engine_messages.h"
#include "migrate/guest.h"
#include "transport/transport.h"

/* XXH3-128 of @len bytes, in its canonical form. */
void integrity_digest(const void *bytes, size_t len, uint8_t digest[ENGINE_DIGEST_LEN]);

/* -- source ----------------------------------------------------------------- */

struct integrity_work;

/* For @nchannels channels; @regions stay the caller's. -ENOMEM */
int integrity_work_new(const struct via_guest_region *regions, unsigned nregions,
		       unsigned nchannels, struct integrity_work **work, struct via_error *err);
void integrity_work_free(struct integrity_work *work);

/* What @inner hands out in this round, with digests behind it. Until the next call. */
const struct via_work *integrity_work_begin(struct integrity_work *work,
					    const struct via_work *inner);

/* -- destination ---------------------------------------------------------------- */

struct integrity_check;

/* Of @regions, which stay the caller's. -ENOMEM */
int integrity_check_new(const struct via_region *regions, unsigned nregions,
			struct integrity_check **check, struct via_error *err);
void integrity_check_free(struct integrity_check *check);

/* A DIGEST message: compare. Any channel's thread. -EPROTO malformed; a difference is no failure. */
int integrity_check_pages(struct integrity_check *check, const uint8_t *payload, size_t len);

/* Pages [first, first + n) of region @index were announced as zero. Any channel's thread. */
void integrity_check_zero(struct integrity_check *check, unsigned index, uint64_t first,
			  uint64_t n);

/*
 * Memory is sealed: does every page fit? -EBADMSG with the first run of pages that do not, and how
 * many there are in all.
 */
int integrity_check_result(const struct integrity_check *check, struct via_error *err);

#endif
