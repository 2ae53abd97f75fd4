/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_queue.c -- operations on their way from free to free.
 *
 * Invariant: an operation is in one free list or one queue, or its last part is with UCX; busy from
 * its post until its one report.
 */
#include "fabrics/ucx/ucx.h"

struct ucx_op *ucx_op_take(struct ucx_op **list, enum via_comp_kind kind, void *ctx)
{
	struct ucx_op *op = *list;

	if (op) {
		*list = op->next;
		op->kind = kind;
		op->ctx = ctx;
		op->busy = true;
		op->status = op->native = 0;
		op->parts = 0;
	}
	return op;
}

void ucx_op_free(struct ucx_ep *ep, struct ucx_op *op)
{
	struct ucx_op **list = op->kind == VIA_COMP_RECV ? &ep->free_rx : &ep->free_tx;

	op->busy = false;
	op->next = *list;
	*list = op;
}

void ucx_op_finish(struct ucx_ep *ep, struct ucx_op *op, int status, int native)
{
	op->status = status;
	op->native = native;
	if (op->ctx || status)
		ucx_queue_push(&ep->done, op);
	else
		ucx_op_free(ep, op);
}

void ucx_queue_init(struct ucx_queue *queue)
{
	queue->head = NULL;
	queue->tail = &queue->head;
}

void ucx_queue_push(struct ucx_queue *queue, struct ucx_op *op)
{
	op->next = NULL;
	*queue->tail = op;
	queue->tail = &op->next;
}

struct ucx_op *ucx_queue_pop(struct ucx_queue *queue)
{
	struct ucx_op *op = queue->head;

	if (op) {
		queue->head = op->next;
		if (!queue->head)
			queue->tail = &queue->head;
	}
	return op;
}
