/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ledger.h -- the fence ledger of one channel: what was posted, what retired, by epoch.
 *
 * An epoch is the span of a session between two drains, numbered from 1. The
 * source counts every write into the current epoch when it posts it and again
 * when it retires (its local completion came). The fence message carries the
 * epoch's writes and bytes; the destination's acknowledgement must repeat
 * them, and every posted write must have retired, before the epoch counts as
 * drained. One thread owns a ledger; the totals may be read by any thread.
 */
#ifndef VIA_CORE_LEDGER_H
#define VIA_CORE_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What one channel wrote in one epoch. */
struct via_fence_count {
	uint64_t epoch;
	uint64_t writes;
	uint64_t bytes;
};

struct via_ledger {
	struct via_fence_count open;   /* the current epoch, still growing */
	struct via_fence_count fenced; /* the epoch whose fence is out; epoch 0: none */
	uint64_t outstanding;          /* writes posted and not retired, all epochs */
	bool fence_retired;            /* nothing was outstanding at some time since the fence */
	_Atomic uint64_t total_writes; /* posted since init */
	_Atomic uint64_t total_bytes;
	_Atomic uint64_t drained_epoch; /* last epoch acknowledged; 0: none */
};

/* Start at @epoch (at least 1), with everything else 0. */
void via_ledger_init(struct via_ledger *l, uint64_t epoch);

/* As init, but the totals go on: the channel was opened again. */
void via_ledger_reopen(struct via_ledger *l, uint64_t epoch);

/* A write of @bytes was taken by the fabric. */
void via_ledger_post(struct via_ledger *l, uint64_t bytes);

/* @writes posted writes have completed locally. -EBADMSG when fewer are outstanding. */
int via_ledger_retire(struct via_ledger *l, uint64_t writes);

/*
 * Close the current epoch: its counts go to *@out (what the fence message says) and
 * the next epoch opens. -EINVAL when an earlier fence is not acknowledged yet.
 */
int via_ledger_fence(struct via_ledger *l, struct via_fence_count *out);

/*
 * The destination acknowledged the fence with @ack.
 *  -EINVAL   no fence is out
 *  -EBADMSG  epoch, writes or bytes differ from the fence's
 *  -EAGAIN   right, but writes of that epoch may not have retired yet: retire, call
 *            again. Writes retire in any order, so it is known only from a moment at
 *            which nothing was outstanding: post no more until then
 */
int via_ledger_drained(struct via_ledger *l, const struct via_fence_count *ack);

#endif
