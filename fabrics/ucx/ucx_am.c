/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_am.c -- active messages: what goes out, in which order, and what is done with what comes.
 *
 * All of an endpoint's are numbered, and one that comes out of its order ends the endpoint: the
 * promise that a message follows the writes before it stands on that order. A write is through when
 * the peer says that it was placed, which every header does in passing and UCX_AM_PLACED when
 * nothing else is going there.
 *
 * Must never copy to where no key leads. The first piece that is refused is answered, and nothing
 * that comes after it is taken any more: a message that follows such a write is not received.
 */
#include "fabrics/ucx/ucx.h"

#include <string.h>

#include "core/secret.h"

/* -- what goes out ------------------------------------------------------------------ */

static void part_done(struct ucx_part *part)
{
	struct ucx_ep *ep = part->ep;
	struct ucx_op *op = part->op;

	part->busy = false;
	if (part == &ep->answer)
		return;
	part->next = ep->free_parts;
	ep->free_parts = part;
	op->parts--;
	if (op->kind == VIA_COMP_SEND)
		ucx_op_finish(ep, op, 0, 0);
}

static void on_part_done(void *request, ucs_status_t status, void *arg)
{
	struct ucx_part *part = arg;

	ucp_request_free(request);
	if (part->ep->reason)
		return; /* dropped with the worker: flush_out() reports */
	if (status == UCS_OK)
		part_done(part);
	else
		ucx_ep_break(part->ep, "send", ucx_code(status), status);
}

/* The header that all have. Puts what follows into @w. */
static void begin_header(struct ucx_ep *ep, struct ucx_part *part, struct via_wire *w)
{
	*w = via_wire_writer(part->header, sizeof(part->header));
	via_wire_put_bytes(w, ep->nonce, UCX_NONCE_LEN);
	via_wire_put_u32(w, ep->sent++);
	via_wire_put_u64(w, ep->placed);
	ep->told = ep->placed;
}

/*
 * @n pieces, or none, behind the header in @w. Eagerly at any length: the receiver has to see what
 * it is before it is placed.
 */
static ucs_status_t send_part(struct ucx_ep *ep, enum ucx_am am, struct ucx_part *part,
			      const struct via_wire *w, const ucp_dt_iov_t *iov, unsigned n)
{
	ucp_request_param_t param = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
				UCP_OP_ATTR_FIELD_DATATYPE | UCP_OP_ATTR_FIELD_FLAGS,
		.flags = UCP_AM_SEND_FLAG_EAGER,
		.datatype = n > 1 ? ucp_dt_make_iov() : ucp_dt_make_contig(1),
		.cb.send = on_part_done,
		.user_data = part};
	const void *buffer = n > 1 ? iov : n ? iov->buffer : NULL;
	size_t count = n > 1 ? n : n ? iov->length : 0;
	ucs_status_ptr_t request;

	/*
	 * A short one overtakes UCX's own exchange of a new connection, and a longer one later
	 * waits for that. The hello has it done, so that no message needs our progress once it is
	 * posted.
	 */
	if (part->op && !part->op->n)
		param.op_attr_mask |= UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
	part->busy = true;
	request = ucp_am_send_nbx(ep->peer, am, part->header, w->pos, buffer, count, &param);
	if (UCS_PTR_IS_ERR(request))
		return UCS_PTR_STATUS(request);
	if (!request)
		part_done(part);
	return UCS_OK;
}

static struct ucx_part *take_part(struct ucx_ep *ep, struct ucx_op *op)
{
	struct ucx_part *part = ep->free_parts;

	ep->free_parts = part->next;
	part->op = op;
	op->parts++;
	return part;
}

static ucs_status_t push_message(struct ucx_ep *ep, struct ucx_op *op)
{
	struct ucx_part *part = take_part(ep, op);
	struct via_wire w;

	(void)ucx_queue_pop(&ep->outgoing);
	begin_header(ep, part, &w);
	return send_part(ep, UCX_AM_MESSAGE, part, &w, op->iov, op->n);
}

/* The next piece of a write; the last one moves it on. */
static ucs_status_t push_piece(struct ucx_ep *ep, struct ucx_op *op)
{
	size_t max = ((const struct ucx_fabric *)ep->base.fab)->piece_len;
	const ucp_dt_iov_t *from = &op->iov[op->i];
	ucp_dt_iov_t piece = {.buffer = (uint8_t *)from->buffer + op->done,
			      .length = from->length - op->done};
	struct ucx_part *part = take_part(ep, op);
	struct via_wire w;
	bool last;

	if (piece.length > max)
		piece.length = max;
	begin_header(ep, part, &w);
	via_wire_put_u32(&w, op->index);
	via_wire_put_u64(&w, op->secret);
	via_wire_put_u64(&w, op->off);
	op->off += piece.length;
	op->done += piece.length;
	if (op->done == from->length) {
		op->i++;
		op->done = 0;
	}
	last = op->i == op->n;
	via_wire_put_u8(&w, last);
	if (last)
		ucx_queue_push(&ep->issued, ucx_queue_pop(&ep->outgoing));
	return send_part(ep, UCX_AM_WRITE, part, &w, &piece, 1);
}

/* Does the peer have to be told something, and can it be? */
static bool owes_answer(const struct ucx_ep *ep)
{
	return ep->peer && !ep->answer.busy &&
	       (ep->placed != ep->told || (ep->refused && !ep->refusal_sent));
}

static ucs_status_t push_answer(struct ucx_ep *ep)
{
	enum ucx_am am = ep->refused ? UCX_AM_REFUSED : UCX_AM_PLACED;
	struct via_wire w;

	ep->refusal_sent = ep->refused;
	begin_header(ep, &ep->answer, &w);
	return send_part(ep, am, &ep->answer, &w, NULL, 0);
}

bool ucx_am_can_push(const struct ucx_ep *ep)
{
	return (ep->outgoing.head && ep->free_parts) || owes_answer(ep);
}

void ucx_am_push(struct ucx_ep *ep)
{
	ucs_status_t status = UCS_OK;

	/* Not without end: what UCX takes at once it takes no longer than a reader keeps up. */
	for (unsigned i = 0; i < UCX_PARTS && status == UCS_OK && ep->free_parts; i++) {
		struct ucx_op *op = ep->outgoing.head;

		if (!op)
			break;
		status = op->kind == VIA_COMP_SEND ? push_message(ep, op) : push_piece(ep, op);
	}
	if (status == UCS_OK && owes_answer(ep))
		status = push_answer(ep);
	if (status != UCS_OK)
		ucx_ep_break(ep, "send", ucx_code(status), status);
}

/* -- what comes --------------------------------------------------------------------- */

/* What our peer says that it has placed. */
static void take_placed(struct ucx_ep *ep, uint64_t placed)
{
	if (placed < ep->acknowledged || placed > ep->posted)
		ucx_ep_break(ep, "an acknowledgement of what was not written", -EPROTO,
			     UCS_ERR_INVALID_PARAM);
	else
		ep->acknowledged = placed;
}

void ucx_am_retire(struct ucx_ep *ep)
{
	struct ucx_op *op;

	while ((op = ep->issued.head) && op->number <= ep->acknowledged && !op->parts)
		ucx_op_finish(ep, ucx_queue_pop(&ep->issued), 0, 0);
}

/* A message into the oldest receive. */
static void deliver(struct ucx_ep *ep, const void *data, size_t len)
{
	struct ucx_op *op = ucx_queue_pop(&ep->receives);

	if (!op) {
		ucx_ep_break(ep, "a message without a receive", -EPROTO, UCS_ERR_NO_RESOURCE);
	} else if (len > op->len) {
		ucx_ep_break(ep, "a message longer than its receive", -EPROTO,
			     UCS_ERR_MESSAGE_TRUNCATED);
		ucx_op_finish(ep, op, -EMSGSIZE, UCS_ERR_MESSAGE_TRUNCATED);
	} else {
		if (len)
			memcpy(op->iov[0].buffer, data, len);
		op->len = len;
		ucx_op_finish(ep, op, 0, 0);
	}
}

static void place(struct ucx_ep *ep, struct via_wire *w, const void *data, size_t len)
{
	uint32_t index = via_wire_get_u32(w);
	uint64_t secret = via_wire_get_u64(w), off = via_wire_get_u64(w);
	bool last = via_wire_get_u8(w);
	uint8_t *dst = via_wire_finish(w) ? NULL : ucx_key_look_up(ep, index, secret, off, len);

	if (!dst) {
		ep->refused = true;
		return;
	}
	if (len)
		memcpy(dst, data, len);
	ep->placed += last;
}

/* Is it of the peer, and the next one? Then @w stands behind what all headers have. */
static bool is_next(struct ucx_ep *ep, struct via_wire *w, const ucp_am_recv_param_t *param)
{
	const uint8_t *nonce = via_wire_get_view(w, UCX_NONCE_LEN);
	uint32_t number = via_wire_get_u32(w);
	uint64_t placed = via_wire_get_u64(w);

	if (ep->reason || ep->broken)
		return false;
	if (!nonce || !via_secret_equal(nonce, ep->nonce, UCX_NONCE_LEN)) {
		ep->stranger = true; /* while connecting it is the wrong peer, later nobody */
		return false;
	}
	if (via_wire_status(w) || number != ep->received ||
	    param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) {
		ucx_ep_break(ep, "an active message out of order", -EPROTO, UCS_ERR_INVALID_PARAM);
		return false;
	}
	ep->received++;
	take_placed(ep, placed);
	return !ep->broken;
}

static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data,
			       size_t len, const ucp_am_recv_param_t *param)
{
	struct ucx_ep *ep = arg;
	struct via_wire w = via_wire_reader(header, header_len);

	if (is_next(ep, &w, param) && !ep->refused && ep->received > 1)
		deliver(ep, data, len);
	return UCS_OK;
}

static ucs_status_t on_write(void *arg, const void *header, size_t header_len, void *data,
			     size_t len, const ucp_am_recv_param_t *param)
{
	struct ucx_ep *ep = arg;
	struct via_wire w = via_wire_reader(header, header_len);

	if (is_next(ep, &w, param) && !ep->refused)
		place(ep, &w, data, len);
	return UCS_OK;
}

static ucs_status_t on_placed(void *arg, const void *header, size_t header_len, void *data,
			      size_t len, const ucp_am_recv_param_t *param)
{
	struct via_wire w = via_wire_reader(header, header_len);

	(void)data;
	(void)len;
	(void)is_next(arg, &w, param);
	return UCS_OK;
}

static ucs_status_t on_refused(void *arg, const void *header, size_t header_len, void *data,
			       size_t len, const ucp_am_recv_param_t *param)
{
	struct via_wire w = via_wire_reader(header, header_len);

	(void)data;
	(void)len;
	if (is_next(arg, &w, param))
		ucx_ep_break(arg, "write: refused by the peer, which has no memory with that key",
			     -EREMOTEIO, UCS_ERR_REJECTED);
	return UCS_OK;
}

ucs_status_t ucx_am_listen(struct ucx_ep *ep)
{
	static const ucp_am_recv_callback_t handler[UCX_AMS] = {
		[UCX_AM_MESSAGE] = on_message,
		[UCX_AM_WRITE] = on_write,
		[UCX_AM_PLACED] = on_placed,
		[UCX_AM_REFUSED] = on_refused,
	};
	ucs_status_t status = UCS_OK;

	for (unsigned am = 0; am < UCX_AMS && status == UCS_OK; am++) {
		ucp_am_handler_param_t param = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
							      UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
							      UCP_AM_HANDLER_PARAM_FIELD_CB |
							      UCP_AM_HANDLER_PARAM_FIELD_ARG,
						.id = am,
						.flags = UCP_AM_FLAG_WHOLE_MSG,
						.cb = handler[am],
						.arg = ep};

		status = ucp_worker_set_am_recv_handler(ep->worker, &param);
	}
	return status;
}
