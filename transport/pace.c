/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pace.c -- the bandwidth limit: all channels that write draw from one clock of when the next
 * byte may go.
 *
 * It must never hold back a channel that does not write: messages are not paced.
 */
#include "transport/session.h"

/* A pause shorter than this is not worth a sleep; the debt is carried to the next write. */
#define PACE_SLACK_NS (200 * VIA_NS_PER_US)

/* Who waits for his turn looks so often whether there still is a limit. */
#define PACE_LOOK_NS (50 * VIA_NS_PER_MS)

int channel_pace(struct via_channel *ch, uint64_t bytes)
{
	struct via_session *s = ch->session;
	uint64_t limit = atomic_load_explicit(&s->bandwidth, memory_order_relaxed);
	uint64_t now, turn, cost;
	int n = 0;

	if (!limit)
		return 0;
	now = via_now_ns();
	cost = (uint64_t)((double)bytes * 1e9 / (double)limit);
	turn = atomic_load(&s->pace_ns);
	/* An idle link saves no more than the slack for later. */
	while (!atomic_compare_exchange_weak(&s->pace_ns, &turn,
					     (turn + PACE_SLACK_NS < now ? now : turn) + cost))
		;
	/* The limit may be lifted meanwhile. */
	while (n >= 0 && (now = via_now_ns()) + PACE_SLACK_NS < turn &&
	       atomic_load_explicit(&s->bandwidth, memory_order_relaxed))
		n = channel_wait(ch, turn - now < PACE_LOOK_NS ? turn : now + PACE_LOOK_NS, -1);
	return n < 0 ? n : 0;
}
