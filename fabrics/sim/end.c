/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * end.c -- one end's queues: operations on their way, posted receives, completions.
 *
 * Must never report an operation twice or drop one (but as break=exactly-once says), and never
 * touch the sender's bytes after their completion (but as break=completion says).
 *
 * Invariant: tx_used counts the operations posted and neither reported nor silently done, rx_used
 * the same for receives; so cq, with room for twice both, never overflows.
 */
#include <assert.h>
#include <string.h>

#include "fabrics/sim/link.h"

#if defined(__SANITIZE_THREAD__)
#define SIM_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIM_TSAN
#endif
#endif

/*
 * Fetch bytes as a device does: the guest may be writing them at this very moment. That is no
 * race of threads (the page is dirty and will be sent again), so ThreadSanitizer must not look.
 */
#ifdef SIM_TSAN
__attribute__((no_sanitize("thread"), noinline)) static void fetch(uint8_t *dst, const void *src,
								   size_t len)
{
	const volatile uint8_t *from = src;

	for (size_t i = 0; i < len; i++)
		dst[i] = from[i];
}
#else
static void fetch(uint8_t *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}
#endif

int sim_caller_error(void)
{
	assert(!"error of the caller, see fabric.h");
	return -EINVAL;
}

/* splitmix64 */
uint64_t sim_random(struct sim_link *link)
{
	uint64_t z = link->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t sim_below(struct sim_link *link, uint64_t n)
{
	return sim_random(link) % n;
}

/* -- on the way ------------------------------------------------------------ */

void sim_op_read_piece(struct sim_op *op, struct sim_piece *piece)
{
	uint8_t *dst = op->data + piece->off;
	size_t skip = piece->off, left = piece->len;

	for (unsigned i = 0; i < op->nsge && left; i++) {
		size_t len = op->sge[i].len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		len = len - skip < left ? len - skip : left;
		fetch(dst, (const uint8_t *)op->sge[i].addr + skip, len);
		dst += len;
		left -= len;
		skip = 0;
	}
	piece->read = true;
}

void sim_op_read(struct sim_op *op)
{
	for (unsigned i = 0; i < op->npieces; i++)
		if (!op->piece[i].read)
			sim_op_read_piece(op, &op->piece[i]);
}

/* Cut a write at random places; a message stays whole. Some of it is read at once. */
static void choose_pieces(struct sim_end *end, struct sim_op *op)
{
	size_t off = 0;

	op->npieces = op->kind == VIA_COMP_WRITE ? 1 + sim_below(end->link, end->opt.split) : 1;
	for (unsigned i = 0; i < op->npieces; i++) {
		unsigned others = op->npieces - 1 - i;
		size_t left = op->len - off;
		size_t len = others ? sim_below(end->link, 2 * left / (others + 1) + 1) : left;

		if (len > left)
			len = left;
		op->piece[i] = (struct sim_piece){.off = off, .len = len};
		off += len;
		if (sim_below(end->link, 2))
			sim_op_read_piece(op, &op->piece[i]);
	}
}

void sim_end_append(struct sim_end *end, struct sim_op *op)
{
	choose_pieces(end, op);
	op->held = true;
	op->next = NULL;
	*end->ops_tail = op;
	end->ops_tail = &op->next;
}

/* When the next event happens: often at once or as late as allowed, else between. */
static uint64_t choose_due(struct sim_end *end, uint64_t *last)
{
	struct sim_link *link = end->link;
	uint64_t wait = 0;

	switch (sim_below(link, 4)) {
	case 0:
		break;
	case 1:
		wait = end->opt.delay;
		break;
	default:
		wait = sim_below(link, end->opt.delay + 1);
	}
	if (end->opt.reorder || link->step + wait > *last)
		*last = link->step + wait;
	return *last;
}

/* How much later still a piece of a write lands: nothing for most, very long for some. */
static uint64_t choose_straggling(struct sim_end *end, const struct sim_op *op)
{
	if (op->kind != VIA_COMP_WRITE || !end->opt.straggle || sim_below(end->link, 8))
		return 0;
	return sim_below(end->link, end->opt.straggle + 1);
}

void sim_end_ring(struct sim_end *end)
{
	for (struct sim_op *op = end->ops; op; op = op->next) {
		if (!op->held)
			continue;
		op->held = false;
		for (unsigned i = 0; i < op->npieces; i++)
			op->piece[i].due =
				choose_due(end, &end->last_land_due) + choose_straggling(end, op);
		op->complete_due = choose_due(end, &end->last_complete_due);
	}
}

/* -- completions ----------------------------------------------------------- */

static void release_slot(struct sim_end *end, enum via_comp_kind kind)
{
	if (kind == VIA_COMP_RECV)
		end->rx_used--;
	else
		end->tx_used--;
}

static void push(struct sim_end *end, struct via_comp comp)
{
	unsigned copies = 1;

	if (end->opt.breaks & SIM_BREAK_ONCE && !sim_below(end->link, 8))
		copies = sim_below(end->link, 2) ? 2 : 0;
	if (!copies)
		release_slot(end, comp.kind);
	for (unsigned i = 0; i < copies; i++) {
		unsigned at = (end->cq_head + end->cq_count++) % end->cq_cap;

		assert(end->cq_count <= end->cq_cap);
		end->cq[at] = (struct sim_entry){.comp = comp, .extra = i > 0};
	}
}

void sim_op_complete(struct sim_end *end, struct sim_op *op, int status, int native)
{
	op->completed = true;
	if (!status && !(end->opt.breaks & SIM_BREAK_COMPLETION))
		sim_op_read(op);
	if (!status && !op->ctx) {
		end->tx_used--;
		return;
	}
	push(end, (struct via_comp){
			  .ctx = op->ctx, .status = status, .kind = op->kind, .native = native});
}

void sim_recv_complete(struct sim_end *end, size_t len, int status, int native)
{
	const struct sim_recv *recv = &end->rx[end->rx_head];

	end->rx_head = (end->rx_head + 1) % end->opt.rx_depth;
	end->rx_count--;
	if (!status && !recv->ctx) {
		end->rx_used--;
		return;
	}
	push(end, (struct via_comp){.ctx = recv->ctx,
				    .len = len,
				    .status = status,
				    .kind = VIA_COMP_RECV,
				    .native = native});
}

unsigned sim_end_take(struct sim_end *end, struct via_comp *comp, unsigned max)
{
	unsigned n = 0;

	/* Not everything that is there need be told at once. */
	if (max > 1 && sim_below(end->link, 2))
		max = 1 + sim_below(end->link, max);
	for (; n < max && end->cq_count; n++) {
		const struct sim_entry *entry = &end->cq[end->cq_head];

		comp[n] = entry->comp;
		if (!entry->extra)
			release_slot(end, entry->comp.kind);
		end->cq_head = (end->cq_head + 1) % end->cq_cap;
		end->cq_count--;
	}
	return n;
}

void sim_end_kill(struct sim_end *end, int reason, int status)
{
	struct sim_link *link = end->link;

	if (end->reason)
		return;
	end->reason = reason;
	for (struct sim_op *op = end->ops; op; op = op->next) {
		if (op->completed)
			continue;
		/* What is on its way may still arrive: the wire does not know of the death. */
		if (op->held || sim_below(link, 2))
			op->lost = true;
		else
			sim_op_read(op);
		sim_op_complete(end, op, status, VIA_SIM_NATIVE_FLUSHED);
	}
	while (end->rx_count)
		sim_recv_complete(end, 0, status, VIA_SIM_NATIVE_FLUSHED);
	if (!link->silent && !end->peer->reason)
		end->peer->reset_due = link->step + 1 + sim_below(link, end->opt.delay + 1);
}
