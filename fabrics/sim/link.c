/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * link.c -- a connection: what lands, what arrives and what completes at which step.
 *
 * The adversary. It must never do what fabric.h forbids, unless break= says so: copy to a
 * revoked key, deliver a message before what it has to follow, or stop while something can still
 * happen (sim_link_busy() is what the descriptors stand on).
 *
 * Invariant: an operation is in its end's list until it is completed and has landed; a lost one
 * stays and holds back what must not arrive without it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "fabrics/sim/link.h"

bool sim_op_landed(const struct sim_op *op)
{
	for (unsigned i = 0; i < op->npieces; i++)
		if (!op->piece[i].landed)
			return false;
	return true;
}

struct sim_key *sim_end_key(const struct sim_end *end, uint64_t number)
{
	struct sim_key *key = end->keys;

	while (key && key->number != number)
		key = key->next;
	return key;
}

/* Where @op goes at the peer, or NULL when its key does not open that range. */
static uint8_t *destination(const struct sim_end *end, const struct sim_op *op)
{
	const struct sim_key *key = sim_end_key(end->peer, op->key);

	if (!key || !(key->access & VIA_MR_REMOTE_WRITE))
		return NULL;
	if (op->off > key->len || op->len > key->len - op->off)
		return NULL;
	return key->addr + op->off;
}

static void land(struct sim_op *op, struct sim_piece *piece, uint8_t *to)
{
	if (!piece->read)
		sim_op_read_piece(op, piece);
	if (piece->len)
		memcpy(to + piece->off, op->data + piece->off, piece->len);
	piece->landed = true;
}

void sim_op_land_some(struct sim_end *end, struct sim_op *op)
{
	uint8_t *to = destination(end, op);

	if (!to || op->held || op->lost)
		return;
	for (unsigned i = 0; i < op->npieces; i++)
		if (!op->piece[i].landed && sim_below(end->link, 2))
			land(op, &op->piece[i], to);
}

void sim_op_refuse(struct sim_end *end, struct sim_op *op)
{
	op->lost = true;
	if (end->link->silent || end->reason)
		return;
	if (!op->completed)
		sim_op_complete(end, op, -EREMOTEIO, VIA_SIM_NATIVE_REFUSED);
	sim_end_kill(end, -EREMOTEIO, -ECONNRESET);
}

/* -- one step -------------------------------------------------------------- */

static void step_writes(struct sim_end *end)
{
	for (struct sim_op *op = end->ops; op; op = op->next) {
		for (unsigned i = 0; i < op->npieces; i++) {
			struct sim_piece *piece = &op->piece[i];
			uint8_t *to;

			if (op->kind != VIA_COMP_WRITE || op->lost || op->held)
				break;
			if (piece->landed || piece->due > end->link->step)
				continue;
			to = destination(end, op);
			if (to)
				land(op, piece, to);
			else if (end->peer->ep)
				sim_op_refuse(end, op);
			else
				op->lost = true;
		}
	}
}

static void deliver(struct sim_end *end, struct sim_op *op)
{
	struct sim_end *to = end->peer;
	const struct sim_recv *recv = &to->rx[to->rx_head];

	if (recv->revoked) {
		sim_end_kill(to, -EFAULT, -ECONNRESET);
	} else if (op->len > recv->sge.len) {
		sim_recv_complete(to, 0, -EMSGSIZE, VIA_SIM_NATIVE_TRUNCATED);
		sim_end_kill(to, -EIO, -ECONNRESET);
	} else {
		land(op, &op->piece[0], recv->sge.addr);
		sim_recv_complete(to, op->len, 0, VIA_SIM_NATIVE_NONE);
	}
}

static void step_messages(struct sim_end *end)
{
	unsigned breaks = end->opt.breaks;
	bool writes_landed = true;

	for (struct sim_op *op = end->ops; op; op = op->next) {
		if (op->kind == VIA_COMP_WRITE)
			writes_landed = writes_landed && sim_op_landed(op);
		if (op->kind != VIA_COMP_SEND || op->piece[0].landed)
			continue;
		if (end->peer->reason)
			op->lost = true;
		if (op->held || op->lost || op->piece[0].due > end->link->step ||
		    (op->after_writes && !writes_landed && !(breaks & SIM_BREAK_AFTER_WRITES))) {
			if (breaks & SIM_BREAK_ORDER)
				continue;
			return;
		}
		deliver(end, op);
	}
}

static void step_completions(struct sim_end *end)
{
	struct sim_link *link = end->link;

	for (struct sim_op *op = end->ops; op && !end->reason; op = op->next) {
		if (op->completed || op->held || op->complete_due > link->step)
			continue;
		/* Who is never told of a refusal must not be told of a success before it. */
		if (link->silent && op->kind == VIA_COMP_WRITE && !sim_op_landed(op))
			continue;
		sim_op_complete(end, op, 0, VIA_SIM_NATIVE_NONE);
	}
}

/* Forget what is through. Nothing can follow what was lost on the way to a dead end. */
static void reap(struct sim_end *end)
{
	struct sim_op **at = &end->ops;

	while (*at) {
		struct sim_op *op = *at;

		if (op->completed && (sim_op_landed(op) || (op->lost && end->peer->reason))) {
			*at = op->next;
			free(op);
		} else {
			at = &op->next;
		}
	}
	end->ops_tail = at;
}

void sim_link_step(struct sim_link *link)
{
	unsigned first = sim_below(link, 2);

	link->step++;
	for (unsigned i = 0; i < 2; i++) {
		struct sim_end *end = &link->end[first ^ i];

		step_writes(end);
		step_messages(end);
		step_completions(end);
		if (end->reset_due && end->reset_due <= link->step)
			sim_end_kill(end, -ECONNRESET, -ECONNRESET);
	}
	reap(&link->end[0]);
	reap(&link->end[1]);
}

/* -- what is there to do --------------------------------------------------- */

static bool end_busy(const struct sim_end *end)
{
	bool writes_stuck = false, messages_stuck = false;

	if (end->reset_due && !end->reason)
		return true;
	for (const struct sim_op *op = end->ops; op; op = op->next) {
		bool stuck = op->held || op->lost;

		if (op->kind == VIA_COMP_WRITE) {
			if (!stuck && !(op->completed && sim_op_landed(op)))
				return true;
			writes_stuck = writes_stuck || stuck;
			continue;
		}
		if (!op->completed && !op->held)
			return true;
		if (op->piece[0].landed)
			continue;
		messages_stuck = messages_stuck || stuck || (op->after_writes && writes_stuck);
		if (!messages_stuck)
			return true;
	}
	return false;
}

bool sim_link_busy(const struct sim_link *link)
{
	return end_busy(&link->end[0]) || end_busy(&link->end[1]);
}

void sim_link_lock(struct sim_link *link)
{
	pthread_mutex_lock(&link->lock);
}

void sim_link_unlock(struct sim_link *link)
{
	for (unsigned i = 0; i < 2; i++) {
		struct sim_end *end = &link->end[i];

		if (!end->ep || !end->armed)
			continue;
		if (end->cq_count || end->reason || sim_link_busy(link)) {
			end->armed = false;
			eventfd_write(end->ep->event_fd, 1);
		}
	}
	pthread_mutex_unlock(&link->lock);
}

/* -- open and close -------------------------------------------------------- */

static int end_init(struct sim_link *link, struct sim_ep *ep, unsigned which)
{
	const struct sim_fabric *fab = (const struct sim_fabric *)ep->base.fab;
	struct sim_end *end = &link->end[which];

	end->link = link;
	end->peer = &link->end[!which];
	end->ep = ep;
	end->opt = fab->opt;
	end->ops_tail = &end->ops;
	end->cq_cap = 2 * (fab->opt.tx_depth + fab->opt.rx_depth);
	end->cq = calloc(end->cq_cap, sizeof(*end->cq));
	end->rx = calloc(fab->opt.rx_depth, sizeof(*end->rx));
	return end->cq && end->rx ? 0 : -ENOMEM;
}

static void link_free(struct sim_link *link)
{
	for (unsigned i = 0; i < 2; i++) {
		struct sim_end *end = &link->end[i];

		while (end->ops) {
			struct sim_op *op = end->ops;

			end->ops = op->next;
			free(op);
		}
		free(end->cq);
		free(end->rx);
	}
	pthread_mutex_destroy(&link->lock);
	free(link);
}

int sim_link_open(struct sim_ep *a, struct sim_ep *b)
{
	struct sim_ep *passive = a->side == VIA_EP_PASSIVE ? a : b;
	struct sim_ep *active = a->side == VIA_EP_PASSIVE ? b : a;
	struct sim_link *link = calloc(1, sizeof(*link));

	if (!link)
		return -ENOMEM;
	pthread_mutex_init(&link->lock, NULL);
	if (end_init(link, active, 0) || end_init(link, passive, 1)) {
		link_free(link);
		return -ENOMEM;
	}
	/* From what a run repeats, so that each connection's choices are the seed's alone. */
	link->random = link->end[0].opt.seed + (link->end[1].opt.seed << 16);
	link->random += (uint64_t)active->base.id << 40 ^ (uint64_t)passive->base.id << 52;
	link->id = active->number;
	link->silent = link->end[0].opt.silent || link->end[1].opt.silent;
	link->open_ends = 2;
	active->end = &link->end[0];
	passive->end = &link->end[1];
	return 0;
}

void sim_link_close(struct sim_end *end)
{
	struct sim_link *link = end->link;

	sim_link_lock(link);
	sim_end_kill(end, -ECANCELED, -ECANCELED);
	for (struct sim_op *op = end->ops; op; op = op->next)
		if (!op->lost)
			sim_op_read(op);
	for (struct sim_op *op = end->peer->ops; op; op = op->next) {
		if (op->kind == VIA_COMP_WRITE)
			sim_op_land_some(end->peer, op);
		op->lost = op->lost || !sim_op_landed(op);
	}
	while (end->keys) {
		struct sim_key *key = end->keys;

		end->keys = key->next;
		free(key);
	}
	end->ep = NULL;
	if (--link->open_ends) {
		sim_link_unlock(link);
	} else {
		pthread_mutex_unlock(&link->lock);
		link_free(link);
	}
}
