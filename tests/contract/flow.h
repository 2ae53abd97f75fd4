/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flow.h -- rounds of writes, each closed by a message that must not overtake them.
 *
 * Both sides derive a round's writes from its number, so that the receiver of the message knows
 * every byte that must be there by then. One endpoint, one part of both sides' memory:
 *
 *    0  the message, 8 bytes: the round
 *   64  the acknowledgement, 8 bytes: the round
 *  128  FLOW_WRITES slots; one write of the round goes somewhere into each
 */
#ifndef TESTS_CONTRACT_FLOW_H
#define TESTS_CONTRACT_FLOW_H

#include "tests/contract/contract.h"

struct flow {
	struct pair *pair;
	unsigned i;      /* of the end */
	size_t off, len; /* the part of mem */
	unsigned rounds;
};

/* Lend the first receives to both ends, before either sends. */
bool flow_start(struct contract *t, struct flow *flow);

/* Post the writes of @round and the message after them. Adds their number to *@writes. */
bool flow_post(struct contract *t, const struct flow *flow, unsigned round, unsigned *writes);

/* The message of @round was received last: is everything there? */
bool flow_arrived(struct contract *t, const struct flow *flow, unsigned round);

/* Lend the receive for the next message again. */
bool flow_recv(struct contract *t, const struct flow *flow);

/* The two ends as threads (worker_start()), with acknowledgements; @flow is a struct flow. */
void flow_write(struct contract *t, void *flow);
void flow_check(struct contract *t, void *flow);

/* Both threads for each of @n flows, until all have run. Parts the pair. */
bool flow_run(struct contract *t, struct flow *flows, unsigned n);

#endif
