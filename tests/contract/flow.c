/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flow.c -- rounds of writes, each closed by a message that must not overtake them.
 *
 * Must never post a write to bytes that another write of the same round goes to, nor touch the
 * source before the completions of the round before.
 *
 * Invariant: the plan of a round is a function of flow and round alone.
 */
#include <string.h>

#include "tests/contract/flow.h"

#define FLOW_HEAD    128u
#define FLOW_WRITES  5u
#define FLOW_MESSAGE 8u

struct plan {
	size_t src, dst, len; /* in mem */
	uint64_t seed;
};

static unsigned make_plan(const struct flow *flow, unsigned round, struct plan plan[FLOW_WRITES])
{
	/* Between two processes one side is elsewhere; its limits are the same. */
	const struct via_fabric *fab = flow->pair->a.fab ? flow->pair->a.fab : flow->pair->b.fab;
	size_t slot = (flow->len - FLOW_HEAD) / FLOW_WRITES;
	size_t room = min_size(slot - 64, fab->caps.write_len_max);
	uint64_t random = (uint64_t)round << 8 | flow->i;
	unsigned n = 1 + (unsigned)pick(&random, FLOW_WRITES);

	for (unsigned i = 0; i < n; i++) {
		size_t base = flow->off + FLOW_HEAD + i * slot;
		size_t classes[] = {1 + pick(&random, 64), min_size(4096, room),
				    1 + pick(&random, room), room};

		plan[i].src = base + pick(&random, 64);
		plan[i].dst = base + pick(&random, 64);
		plan[i].len = classes[pick(&random, 4)];
		plan[i].seed = random;
	}
	return n;
}

bool flow_recv(struct contract *t, const struct flow *flow)
{
	return end_recv(t, &flow->pair->b.end[flow->i], flow->off, FLOW_MESSAGE, ctx_of(0));
}

bool flow_start(struct contract *t, struct flow *flow)
{
	struct end *a = &flow->pair->a.end[flow->i];

	return flow_recv(t, flow) && end_recv(t, a, flow->off + 64, FLOW_MESSAGE, ctx_of(0));
}

bool flow_post(struct contract *t, const struct flow *flow, unsigned round, unsigned *writes)
{
	struct end *a = &flow->pair->a.end[flow->i];
	struct plan plan[FLOW_WRITES];
	unsigned n = make_plan(flow, round, plan);
	uint64_t number = round;
	/* Every other round is one chain, which the message ends. */
	bool (*write)(struct contract *, struct end *, size_t, size_t, size_t, void *) =
		round % 2 ? end_write_more : end_write;

	for (unsigned i = 0; i < n; i++) {
		pattern_fill(a->side->mem + plan[i].src, plan[i].len, plan[i].seed);
		if (!write(t, a, plan[i].src, plan[i].dst, plan[i].len, ctx_of(i)))
			return false;
	}
	memcpy(a->side->mem + flow->off, &number, sizeof(number));
	*writes += n;
	return end_send(t, a, flow->off, FLOW_MESSAGE, ctx_of(n), VIA_AFTER_WRITES);
}

bool flow_arrived(struct contract *t, const struct flow *flow, unsigned round)
{
	const uint8_t *mem = flow->pair->b.mem;
	struct plan plan[FLOW_WRITES];
	unsigned n = make_plan(flow, round, plan);
	uint64_t number;

	memcpy(&number, mem + flow->off, sizeof(number));
	if (number != round)
		return contract_fail(t, "message of round %llu came in round %u",
				     (unsigned long long)number, round);
	for (unsigned i = 0; i < n; i++) {
		size_t bad = pattern_bad(mem + plan[i].dst, plan[i].len, plan[i].seed);

		if (bad < plan[i].len)
			return contract_fail(t,
					     "round %u: the message came before the writes: write "
					     "%u of %u, %zu bytes, is not there from byte %zu on",
					     round, i + 1, n, plan[i].len, bad);
	}
	return true;
}

/* -- as threads ------------------------------------------------------------ */

void flow_write(struct contract *t, void *arg)
{
	struct flow *flow = arg;
	struct end *a = &flow->pair->a.end[flow->i];
	unsigned writes = a->count[VIA_COMP_WRITE], acks = a->count[VIA_COMP_RECV];
	unsigned sends = a->count[VIA_COMP_SEND];

	for (unsigned round = 0; round < flow->rounds; round++) {
		if (!flow_post(t, flow, round, &writes) ||
		    !end_sleep_until(t, a, VIA_COMP_WRITE, writes) ||
		    !end_sleep_until(t, a, VIA_COMP_SEND, ++sends) ||
		    !end_sleep_until(t, a, VIA_COMP_RECV, ++acks) ||
		    !end_recv(t, a, flow->off + 64, FLOW_MESSAGE, ctx_of(0)))
			return;
	}
}

void flow_check(struct contract *t, void *arg)
{
	struct flow *flow = arg;
	struct end *b = &flow->pair->b.end[flow->i];
	unsigned sends = b->count[VIA_COMP_SEND], messages = b->count[VIA_COMP_RECV];

	for (unsigned round = 0; round < flow->rounds; round++) {
		if (!end_sleep_until(t, b, VIA_COMP_RECV, ++messages) ||
		    !flow_arrived(t, flow, round) || !flow_recv(t, flow) ||
		    !end_send(t, b, flow->off + 64, FLOW_MESSAGE, ctx_of(round), 0) ||
		    !end_sleep_until(t, b, VIA_COMP_SEND, ++sends))
			return;
	}
}

bool flow_run(struct contract *t, struct flow *flows, unsigned n)
{
	struct worker writers[EPS_MAX], checkers[EPS_MAX];

	for (unsigned i = 0; i < n; i++)
		if (!flow_start(t, &flows[i]))
			return false;
	pair_part(flows[0].pair);
	for (unsigned i = 0; i < n; i++) {
		worker_start(&checkers[i], t, flow_check, &flows[i]);
		worker_start(&writers[i], t, flow_write, &flows[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		worker_join(&writers[i], t);
		worker_join(&checkers[i], t);
	}
	return t->verdict == PASS;
}
