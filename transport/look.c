/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * look.c -- a look at a session while it works: its channels, and how far the fence is.
 *
 * It must never make a thread of the data path wait: counts are read as their one writer leaves
 * them, and s->lock is held for what nobody waits for.
 */
#include <string.h>

#include "transport/session.h"

const char *via_fence_state_name(enum via_fence_state state)
{
	switch (state) {
	case VIA_FENCE_OPEN:
		return "open";
	case VIA_FENCE_FENCING:
		return "fencing";
	case VIA_FENCE_DRAINED:
		return "drained";
	case VIA_FENCE_SEALED:
		return "sealed";
	case VIA_FENCE_RUN:
		return "run";
	}
	return "?";
}

static enum via_fence_state source_fence(const struct via_session *s)
{
	if (s->round.under_way)
		return atomic_load(&s->round.last_fence_ns) ? VIA_FENCE_FENCING : VIA_FENCE_OPEN;
	return atomic_load(&s->drained_epoch) ? VIA_FENCE_DRAINED : VIA_FENCE_OPEN;
}

enum via_fence_state via_session_fence_state(const struct via_session *s)
{
	if (atomic_load(&s->sealed))
		return VIA_FENCE_SEALED;
	if (s->role == VIA_ROLE_SOURCE)
		return source_fence(s);
	return atomic_load(&s->fences_missing) < s->nmultifd ? VIA_FENCE_FENCING : VIA_FENCE_OPEN;
}

void via_session_fence_times(const struct via_session *s, uint64_t *drained_ns, uint64_t *sealed_ns)
{
	*drained_ns = s->drained_at_ns;
	*sealed_ns = s->sealed_at_ns;
}

unsigned via_session_nchannels(const struct via_session *s)
{
	return 1 + s->nmultifd + s->npreempt;
}

/* Under s->lock. */
static void look_at(const struct via_channel *ch, struct via_channel_stats *stats)
{
	*stats = (struct via_channel_stats){
		.kind = ch->kind,
		.index = ch->index,
		.ready = ch->state == CHANNEL_READY,
		.writes = atomic_load_explicit(&ch->ledger.total_writes, memory_order_relaxed) +
			  atomic_load_explicit(&ch->placed, memory_order_relaxed),
		.bytes = atomic_load_explicit(&ch->ledger.total_bytes, memory_order_relaxed) +
			 atomic_load_explicit(&ch->placed_bytes, memory_order_relaxed),
		.sent = atomic_load_explicit(&ch->sent, memory_order_relaxed),
		.sent_bytes = atomic_load_explicit(&ch->sent_bytes, memory_order_relaxed),
		.received = atomic_load_explicit(&ch->received, memory_order_relaxed),
		.received_bytes = atomic_load_explicit(&ch->received_bytes, memory_order_relaxed)};
	memcpy(stats->device, ch->device, sizeof(stats->device));
}

unsigned via_session_channels(struct via_session *s, struct via_channel_stats *stats, unsigned cap)
{
	unsigned n = 0;

	pthread_mutex_lock(&s->lock); /* a channel may be opened just now */
	if (n < cap)
		look_at(&s->main_channel, &stats[n++]);
	for (unsigned i = 0; i < s->nmultifd && n < cap; i++)
		look_at(&s->multifd[i], &stats[n++]);
	for (unsigned i = 0; i < s->npreempt && n < cap; i++)
		look_at(&s->preempt[i], &stats[n++]);
	pthread_mutex_unlock(&s->lock);
	return n;
}
