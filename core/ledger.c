/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ledger.c -- the fence ledger of one channel.
 *
 * Must never call an epoch drained while one of its writes may be outstanding
 * or while the two sides disagree about what was written.
 *
 * Invariant: at most one fence is out; open.epoch is greater than every epoch fenced
 * or drained; outstanding is posted minus retired.
 *
 * Writes retire in any order and without saying of which epoch they were. That
 * every write of the fenced epoch has retired is therefore known from a moment
 * at which nothing at all was outstanding, and fence_retired remembers it.
 */
#include "core/ledger.h"

#include <assert.h>
#include <errno.h>

void via_ledger_init(struct via_ledger *l, uint64_t epoch)
{
	atomic_init(&l->total_writes, 0);
	atomic_init(&l->total_bytes, 0);
	via_ledger_reopen(l, epoch);
}

/* The owner alone writes the totals, so a load and a store are enough. */
static void add_total(_Atomic uint64_t *total, uint64_t n)
{
	atomic_store_explicit(total, atomic_load_explicit(total, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* The totals are left alone: somebody may be reading them. */
void via_ledger_reopen(struct via_ledger *l, uint64_t epoch)
{
	assert(epoch >= 1);
	l->open = (struct via_fence_count){.epoch = epoch};
	l->fenced = (struct via_fence_count){0};
	l->outstanding = 0;
	l->fence_retired = false;
	atomic_init(&l->drained_epoch, 0);
}

void via_ledger_post(struct via_ledger *l, uint64_t bytes)
{
	l->open.writes++;
	l->open.bytes += bytes;
	l->outstanding++;
	add_total(&l->total_writes, 1);
	add_total(&l->total_bytes, bytes);
}

int via_ledger_retire(struct via_ledger *l, uint64_t writes)
{
	if (writes > l->outstanding)
		return -EBADMSG;
	l->outstanding -= writes;
	if (!l->outstanding)
		l->fence_retired = true;
	return 0;
}

int via_ledger_fence(struct via_ledger *l, struct via_fence_count *out)
{
	if (l->fenced.epoch)
		return -EINVAL;
	l->fenced = l->open;
	l->fence_retired = !l->outstanding;
	l->open = (struct via_fence_count){.epoch = l->fenced.epoch + 1};
	*out = l->fenced;
	return 0;
}

int via_ledger_drained(struct via_ledger *l, const struct via_fence_count *ack)
{
	if (!l->fenced.epoch)
		return -EINVAL;
	if (ack->epoch != l->fenced.epoch || ack->writes != l->fenced.writes ||
	    ack->bytes != l->fenced.bytes)
		return -EBADMSG;
	if (!l->fence_retired)
		return -EAGAIN;
	/* Release: who reads the epoch drained sees what its owner did before. */
	atomic_store_explicit(&l->drained_epoch, l->fenced.epoch, memory_order_release);
	l->fenced = (struct via_fence_count){0};
	return 0;
}
