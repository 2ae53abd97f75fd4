/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_worker.c -- an endpoint's ucp worker: opened, named, connected to one other, closed.
 *
 * Must never hand UCX bytes that did not come as they were sent: it parses an address with no
 * length and no check, so a checksum ends whatever holds one. That is no protection against a
 * peer that means ill; who that may be is settled on the control connection.
 */
#include "fabrics/ucx/ucx.h"

#include <string.h>
#include <sys/epoll.h>

/* What UCX may take to close a connection; it needs no answer of the peer for that. */
#define CLOSE_NS (50 * VIA_NS_PER_MS)

#define FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

static int fail_worker(const struct ucx_ep *ep, const char *call, ucs_status_t status,
		       struct via_error *err)
{
	return via_fail(err, ucx_code(status),
			"open an endpoint of ucx:%s\n%s: %s\n"
			"UCX_LOG_LEVEL=warn shows UCX's own words",
			((const struct ucx_fabric *)ep->base.fab)->name, call,
			ucs_status_string(status));
}

/* Each network device adds to the name, and there may be many. */
static int check_name(const struct ucx_ep *ep, struct via_error *err)
{
	uint8_t name[UCX_NAME_MAX + 2];
	struct via_wire w = via_wire_writer(name, sizeof(name));
	int rc = ucx_worker_put_name(ep, &w);

	if (rc != -ENOBUFS)
		return rc;
	return via_fail(err, rc,
			"open an endpoint of ucx:%s\nits address takes more than %u bytes\n"
			"choose one network device: device=NAME, or UCX_NET_DEVICES",
			((const struct ucx_fabric *)ep->base.fab)->name, UCX_NAME_MAX);
}

int ucx_worker_open(struct ucx_ep *ep, struct via_error *err)
{
	ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE |
						    UCP_WORKER_PARAM_FIELD_FLAGS,
				      .thread_mode = UCS_THREAD_MODE_SERIALIZED,
				      .flags = UCP_WORKER_FLAG_IGNORE_REQUEST_LEAK};
	struct epoll_event event = {.events = EPOLLIN};
	const char *call = "ucp_worker_create";
	ucs_status_t status;
	int fd, rc;

	status = ucp_worker_create(((struct ucx_fabric *)ep->base.fab)->context, &params,
				   &ep->worker);
	if (status != UCS_OK) {
		ep->worker = NULL;
		return fail_worker(ep, call, status, err);
	}
	call = "ucp_worker_set_am_recv_handler";
	status = ucx_am_listen(ep);
	if (status == UCS_OK) {
		call = "ucp_worker_get_efd";
		status = ucp_worker_get_efd(ep->worker, &fd);
	}
	if (status == UCS_OK && epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, fd, &event))
		status = UCS_ERR_IO_ERROR;
	rc = status == UCS_OK ? check_name(ep, err) : fail_worker(ep, call, status, err);
	if (rc)
		ucx_worker_close(ep);
	return rc;
}

/* What the connection carries is dropped. */
static void disconnect(struct ucx_ep *ep)
{
	ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
				     .flags = UCP_EP_CLOSE_FLAG_FORCE};
	ucs_status_ptr_t request = ep->peer ? ucp_ep_close_nbx(ep->peer, &param) : NULL;
	uint64_t deadline_ns = via_deadline_in(CLOSE_NS);

	ep->peer = NULL;
	if (!UCS_PTR_IS_PTR(request))
		return;
	while (ucp_request_check_status(request) == UCS_INPROGRESS &&
	       !via_deadline_passed(deadline_ns))
		(void)ucp_worker_progress(ep->worker);
	ucp_request_free(request);
}

void ucx_worker_close(struct ucx_ep *ep)
{
	if (!ep->worker)
		return;
	disconnect(ep);
	ucp_worker_destroy(ep->worker);
	ep->worker = NULL;
}

static void on_failed(void *arg, ucp_ep_h peer, ucs_status_t status)
{
	(void)peer;
	ucx_ep_break(arg, "connection", ucx_code(status), status);
}

static int connect_to(struct ucx_ep *ep, const uint8_t *name)
{
	ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
						UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
						UCP_EP_PARAM_FIELD_ERR_HANDLER,
				  .address = (const ucp_address_t *)(const void *)name,
				  .err_mode = UCP_ERR_HANDLING_MODE_PEER,
				  .err_handler.cb = on_failed,
				  .err_handler.arg = ep};
	ucs_status_t status = ucp_ep_create(ep->worker, &params, &ep->peer);

	if (status == UCS_OK)
		return 0;
	ep->peer = NULL;
	ucx_ep_break(ep, "connect", ucx_code(status), status);
	return ucx_code(status);
}

/* -- names -------------------------------------------------------------------------- */

int ucx_worker_put_name(const struct ucx_ep *ep, struct via_wire *w)
{
	ucp_address_t *address;
	size_t len;
	ucs_status_t status = ep->worker ? ucp_worker_get_address(ep->worker, &address, &len)
					 : UCS_ERR_NOT_CONNECTED;

	if (status != UCS_OK)
		return ucx_code(status);
	via_wire_put_u16(w, (uint16_t)len);
	via_wire_put_bytes(w, address, len);
	ucp_worker_release_address(ep->worker, address);
	return len > UCX_NAME_MAX ? -ENOBUFS : 0;
}

static bool is_own(const struct ucx_ep *ep, const uint8_t *name, size_t len)
{
	uint8_t own[UCX_NAME_MAX + 2];
	struct via_wire w = via_wire_writer(own, sizeof(own));

	return ucx_worker_put_name(ep, &w) || (w.pos == len + 2 && !memcmp(own + 2, name, len));
}

int ucx_worker_connect(struct ucx_ep *ep, struct via_wire *w)
{
	size_t len = via_wire_get_u16(w);
	const uint8_t *name = via_wire_get_view(w, len);

	if (!name || len == 0 || len > UCX_NAME_MAX || via_wire_finish(w) || is_own(ep, name, len))
		return -EPROTO;
	return connect_to(ep, name);
}

static uint64_t checksum(const uint8_t *bytes, size_t len)
{
	uint64_t sum = FNV_BASIS;

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ bytes[i]) * FNV_PRIME;
	return sum;
}

void ucx_put_checksum(struct via_wire *w)
{
	via_wire_put_u64(w, via_wire_status(w) ? 0 : checksum(w->buf, w->pos));
}

bool ucx_checksum_is_right(const void *buf, size_t len)
{
	struct via_wire w = via_wire_reader(buf, len);

	if (len < UCX_CHECKSUM_LEN)
		return false;
	(void)via_wire_get_view(&w, len - UCX_CHECKSUM_LEN);
	return via_wire_get_u64(&w) == checksum(buf, len - UCX_CHECKSUM_LEN);
}
