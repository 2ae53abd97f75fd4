/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_order.c -- what comes after what: messages among themselves, and after writes.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/contract/flow.h"

#define MESSAGES     1500u
#define WINDOW_MAX   16u
#define AFTER_ROUNDS 60u
#define MIB          ((size_t)1 << 20)

/* -- messages -------------------------------------------------------------- */

/* A stream of messages a -> b through @window slots of @slot_len bytes on either side. */
struct stream {
	struct pair pair;
	unsigned window;
	size_t slot_len;
	unsigned sent, received;
	bool busy[WINDOW_MAX]; /* the slot's SEND has not completed */
};

static size_t message_len(const struct stream *s, unsigned i)
{
	uint64_t random = i;

	switch (pick(&random, 4)) {
	case 0:
		return 1 + pick(&random, 16);
	case 1:
		return s->slot_len;
	default:
		return 1 + pick(&random, s->slot_len);
	}
}

static bool send_more(struct contract *t, struct stream *s)
{
	struct end *a = &s->pair.a.end[0];
	const struct via_comp *comp;

	while ((comp = end_next(a)))
		s->busy[ctx_index(comp->ctx) % WINDOW_MAX] = false;
	while (s->sent < MESSAGES && s->sent - s->received < s->window) {
		unsigned slot = s->sent % s->window;
		size_t off = slot * s->slot_len, len = message_len(s, s->sent);
		int ret;

		if (s->busy[slot])
			break;
		pattern_fill(a->side->mem + off, len, s->sent);
		ret = end_try_send(a, off, len, ctx_of(slot), 0);
		if (ret == -EAGAIN)
			break;
		if (ret)
			return contract_fail(t, "post_send: %s", via_err_name(ret));
		s->busy[slot] = true;
		s->sent++;
	}
	return true;
}

static bool receive_more(struct contract *t, struct stream *s)
{
	struct end *b = &s->pair.b.end[0];
	const struct via_comp *comp;

	while ((comp = end_next(b))) {
		unsigned i = s->received++, slot = i % s->window;
		size_t off = slot * s->slot_len, len = message_len(s, i);

		if (comp->kind != VIA_COMP_RECV || comp->status)
			return contract_fail(t, "message %u: kind %d, %s", i, (int)comp->kind,
					     via_err_name(comp->status));
		if (ctx_index(comp->ctx) != slot)
			return contract_fail(t, "message %u took receive %u, the oldest is %u", i,
					     ctx_index(comp->ctx), slot);
		if (comp->len != len || pattern_bad(b->side->mem + off, len, i) < len)
			return contract_fail(t,
					     "message %u of %zu bytes came as another one, %zu "
					     "bytes",
					     i, len, comp->len);
		if (!end_recv(t, b, off, s->slot_len, ctx_of(slot)))
			return false;
	}
	return true;
}

void case_message_order(struct contract *t)
{
	struct stream s = {.slot_len = 8192};
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	unsigned i = 0;

	if (!pair_open(t, &s.pair, 1, WINDOW_MAX * s.slot_len))
		goto out;
	s.window = (unsigned)min_size(s.pair.b.fab->caps.rx_depth, WINDOW_MAX);
	while (i < s.window && end_recv(t, &s.pair.b.end[0], i * s.slot_len, s.slot_len, ctx_of(i)))
		i++;
	while (t->verdict == PASS && s.received < MESSAGES) {
		end_step(&s.pair.a.end[0]);
		if (!receive_more(t, &s) || !send_more(t, &s))
			break;
		if (via_deadline_passed(deadline_ns))
			contract_fail(t, "%u of %u messages came", s.received, MESSAGES);
	}
out:
	pair_close(&s.pair);
}

/* -- after writes ---------------------------------------------------------- */

void case_after_writes(struct contract *t)
{
	struct pair pair;
	struct flow flow = {.pair = &pair, .len = 6 * MIB, .rounds = AFTER_ROUNDS};
	unsigned writes = 0;

	if (!pair_open(t, &pair, 1, flow.len) || !flow_start(t, &flow))
		goto out;
	for (unsigned i = 0; i < flow.rounds; i++) {
		struct end *a = &pair.a.end[0], *b = &pair.b.end[0];

		if (!flow_post(t, &flow, i, &writes) || !end_until(t, b, VIA_COMP_RECV, i + 1) ||
		    !flow_arrived(t, &flow, i) || !flow_recv(t, &flow) ||
		    !end_until(t, a, VIA_COMP_WRITE, writes) ||
		    !end_until(t, a, VIA_COMP_SEND, i + 1))
			break;
	}
out:
	pair_close(&pair);
}

/* The write behind the message belongs to none of the writes before it, though they are one chain. */
void case_after_writes_between(struct contract *t)
{
	struct pair pair;
	const size_t slot = MIB, writes = 4, last = (1 + writes) * slot;
	struct end *a = &pair.a.end[0], *b = &pair.b.end[0];

	if (!pair_open(t, &pair, 1, last + slot))
		goto out;
	for (unsigned round = 0; round < AFTER_ROUNDS; round++) {
		unsigned done = (round + 1) * (unsigned)(writes + 1);
		size_t len = min_size(slot, pair.a.fab->caps.write_len_max);

		if (!end_recv(t, b, 0, 8, ctx_of(0)))
			break;
		for (unsigned i = 1; i <= writes && t->verdict == PASS; i++) {
			pattern_fill(a->side->mem + i * slot, len, round * writes + i);
			end_write_more(t, a, i * slot, i * slot, len, ctx_of(i));
		}
		if (t->verdict != PASS || !end_send(t, a, 0, 8, ctx_of(0), VIA_AFTER_WRITES) ||
		    !end_write(t, a, last, last, 64, ctx_of(9)) ||
		    !end_until(t, b, VIA_COMP_RECV, round + 1))
			break;
		for (unsigned i = 1; i <= writes; i++)
			if (pattern_bad(b->side->mem + i * slot, len, round * writes + i) < len)
				contract_fail(t, "round %u: the message came before write %u",
					      round, i);
		if (t->verdict != PASS || !end_until(t, a, VIA_COMP_WRITE, done) ||
		    !end_until(t, a, VIA_COMP_SEND, round + 1))
			break;
	}
out:
	pair_close(&pair);
}

void case_after_writes_threads(struct contract *t)
{
	struct pair pair;
	struct flow flow = {.pair = &pair, .len = 6 * MIB, .rounds = AFTER_ROUNDS};

	if (pair_open(t, &pair, 1, flow.len))
		flow_run(t, &flow, 1);
	pair_close(&pair);
}

void case_endpoints_at_once(struct contract *t)
{
	struct pair pair;
	struct flow flows[EPS_MAX];

	if (pair_open(t, &pair, EPS_MAX, EPS_MAX * MIB)) {
		for (unsigned i = 0; i < EPS_MAX; i++)
			flows[i] = (struct flow){
				.pair = &pair, .i = i, .off = i * MIB, .len = MIB, .rounds = 40};
		flow_run(t, flows, EPS_MAX);
	}
	pair_close(&pair);
}
