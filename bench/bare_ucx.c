/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bare_ucx.c -- the baseline straight on UCX: for each endpoint a worker with one connection,
 * writes by ucp_put_nbx(), messages by ucp_am_send_nbx().
 *
 * It uses the transports that ours uses under the same name.
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucp/api/ucp.h>

#include "bench/bare.h"
#include "core/clock.h"

#define DEPTH    64u /* puts in flight on one endpoint */
#define MSG_MAX  8192u
#define SLEEP_MS 10
#define ENDS_MAX 16u
#define NAME_MAX 800u /* bytes of a worker's address */
#define KEY_MAX  128u

#define SHARED "posix,sysv"

/* What UCX sends over tcp in one piece, which the receiver need not put together first. */
#define AM_PIECE    ((size_t)60 << 10)
#define TCP_PUT_MAX ((size_t)16 << 10)

/* Active messages. */
enum {
	AM_MESSAGE,
	AM_WRITE, /* bytes for the offset in the header */
	AM_FLUSH, /* is everything there? */
	AM_FLUSHED
};

struct bare_end {
	struct bare *b;
	ucp_worker_h worker;
	ucp_ep_h ep;
	ucp_rkey_h rkey;
	unsigned in_flight;
	uint64_t header[DEPTH]; /* of active messages, which complete in order */
	unsigned posted;
};

struct bare {
	ucp_context_h context;
	ucp_mem_h mem;
	char *memory;
	size_t len;
	struct bare_end end[ENDS_MAX];
	unsigned n; /* endpoints */
	uint64_t peer_addr;
	size_t put_max; /* longer writes are active messages */
	bool sleeps, received, flushed;
	char msg[MSG_MAX];
};

/* What the other end must know: of each endpoint its worker's name as well. */
struct card {
	uint64_t addr;
	size_t key_len;
	char key[KEY_MAX];
	struct {
		char name[NAME_MAX];
		size_t len;
	} end[ENDS_MAX];
};

static void check(ucs_status_t status, const char *what)
{
	char where[96];

	if (status == UCS_OK)
		return;
	snprintf(where, sizeof(where), "bare UCX loop: %s", what);
	bench_die(where, ucs_status_string(status));
}

static void must(bool good, const char *what)
{
	check(good ? UCS_OK : UCS_ERR_NO_MEMORY, what);
}

static void version(char *buf, size_t cap)
{
	unsigned major, minor, patch;

	ucp_get_version(&major, &minor, &patch);
	snprintf(buf, cap, "%u.%u.%u", major, minor, patch);
}

/* -- set-up ------------------------------------------------------------------------------- */

/* The interface that has the address @host; tcp listens on all otherwise. */
static void find_interface(const char *host, char *buf, size_t cap)
{
	struct ifaddrs *list = NULL;
	struct in_addr want;

	snprintf(buf, cap, "all");
	if (inet_pton(AF_INET, host, &want) != 1 || getifaddrs(&list))
		return;
	for (const struct ifaddrs *i = list; i; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET &&
		    ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr.s_addr ==
			    want.s_addr)
			snprintf(buf, cap, "%s", i->ifa_name);
	freeifaddrs(list);
}

static void configure(ucp_config_t *config, const struct via_fabric_spec *spec)
{
	bool shared = !strcmp(spec->device, "shm") || !strcmp(spec->device, "sm") ||
		      !strcmp(spec->device, "mm");
	const char *device = via_fabric_spec_get(spec, "device");
	char interface[64];

	(void)ucp_config_modify(config, "LOG_LEVEL", "fatal");
	if (shared) {
		check(ucp_config_modify(config, "TLS", SHARED), "UCX_TLS");
		check(ucp_config_modify(config, "MM_SEG_SIZE", "33k"), "UCX_MM_SEG_SIZE");
	} else if (spec->device[0]) {
		check(ucp_config_modify(config, "TLS", spec->device), "UCX_TLS");
	}
	if (!shared && !device && !strcmp(spec->device, "tcp")) {
		find_interface(spec->local_host, interface, sizeof(interface));
		device = interface;
	}
	if (device)
		check(ucp_config_modify(config, "NET_DEVICES", device), "UCX_NET_DEVICES");
}

static void open_context(struct bare *b, const struct via_fabric_spec *spec)
{
	ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
			       .features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP};
	ucp_config_t *config;

	check(ucp_config_read(NULL, NULL, &config), "ucp_config_read");
	configure(config, spec);
	check(ucp_init(&params, config, &b->context), "ucp_init");
	ucp_config_release(config);
}

static ucp_mem_h map_memory(struct bare *b, void *memory, size_t len)
{
	ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
						     UCP_MEM_MAP_PARAM_FIELD_LENGTH,
				       .address = memory,
				       .length = len};
	ucp_mem_h mem;

	check(ucp_mem_map(b->context, &params, &mem), "ucp_mem_map");
	return mem;
}

static void add_memory(struct bare *b, void *memory, size_t len)
{
	(void)map_memory(b, memory, len);
}

static void send_empty(struct bare_end *e, unsigned am)
{
	ucp_request_param_t param = {0};
	ucs_status_ptr_t request = ucp_am_send_nbx(e->ep, am, NULL, 0, NULL, 0, &param);

	if (UCS_PTR_IS_PTR(request))
		ucp_request_free(request);
	else
		check(UCS_PTR_STATUS(request), "ucp_am_send_nbx");
}

static ucs_status_t on_message(void *arg, const void *header, size_t header_len, void *data,
			       size_t len, const ucp_am_recv_param_t *param)
{
	struct bare_end *e = arg;

	(void)header;
	(void)header_len;
	(void)param;
	memcpy(e->b->msg, data, len < MSG_MAX ? len : MSG_MAX);
	e->b->received = true;
	return UCS_OK;
}

static void on_fetched(void *request, ucs_status_t status, size_t len, void *arg)
{
	(void)len;
	(void)arg;
	check(status, "ucp_am_recv_data_nbx");
	ucp_request_free(request);
}

static ucs_status_t on_write(void *arg, const void *header, size_t header_len, void *data,
			     size_t len, const ucp_am_recv_param_t *param)
{
	ucp_request_param_t fetch = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK,
				     .cb.recv_am = on_fetched};
	struct bare_end *e = arg;
	ucs_status_ptr_t request;
	uint64_t off;

	must(header_len == sizeof(off), "header");
	memcpy(&off, header, sizeof(off));
	if (!(param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV)) {
		memcpy(e->b->memory + off, data, len);
		return UCS_OK;
	}
	request = ucp_am_recv_data_nbx(e->worker, data, e->b->memory + off, len, &fetch);
	return UCS_PTR_IS_PTR(request) ? UCS_INPROGRESS : UCS_PTR_STATUS(request);
}

static ucs_status_t on_flush(void *arg, const void *header, size_t header_len, void *data,
			     size_t len, const ucp_am_recv_param_t *param)
{
	(void)header;
	(void)header_len;
	(void)data;
	(void)len;
	(void)param;
	send_empty(arg, AM_FLUSHED);
	return UCS_OK;
}

static ucs_status_t on_flushed(void *arg, const void *header, size_t header_len, void *data,
			       size_t len, const ucp_am_recv_param_t *param)
{
	struct bare_end *e = arg;

	(void)header;
	(void)header_len;
	(void)data;
	(void)len;
	(void)param;
	e->b->flushed = true;
	return UCS_OK;
}

static void handle(struct bare_end *e, unsigned am, ucp_am_recv_callback_t fn)
{
	ucp_am_handler_param_t handler = {.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
							UCP_AM_HANDLER_PARAM_FIELD_CB |
							UCP_AM_HANDLER_PARAM_FIELD_ARG,
					  .id = am,
					  .cb = fn,
					  .arg = e};

	check(ucp_worker_set_am_recv_handler(e->worker, &handler),
	      "ucp_worker_set_am_recv_handler");
}

static void open_worker(struct bare *b, struct bare_end *e)
{
	ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
				      .thread_mode = UCS_THREAD_MODE_SINGLE};

	e->b = b;
	check(ucp_worker_create(b->context, &params, &e->worker), "ucp_worker_create");
	handle(e, AM_MESSAGE, on_message);
	handle(e, AM_WRITE, on_write);
	handle(e, AM_FLUSH, on_flush);
	handle(e, AM_FLUSHED, on_flushed);
}

static struct bare *open_bare(const struct bare_config *config)
{
	struct bare *b = calloc(1, sizeof(*b));

	must(b && config->memory && config->endpoints <= ENDS_MAX, "memory");
	b->memory = config->memory;
	b->len = config->len;
	b->n = config->endpoints;
	b->sleeps = config->sleeps;
	/* Long puts over tcp are slow (UCX 1.13: a sixth of what active messages reach). */
	b->put_max = strcmp(config->spec->device, "tcp") != 0 ? SIZE_MAX : TCP_PUT_MAX;
	open_context(b, config->spec);
	b->mem = map_memory(b, b->memory, b->len);
	for (unsigned i = 0; i < b->n; i++)
		open_worker(b, &b->end[i]);
	return b;
}

static size_t address(struct bare *b, void *buf, size_t cap)
{
	struct card card = {.addr = (uintptr_t)b->memory};
	void *key;

	must(sizeof(card) <= cap, "address");
	check(ucp_rkey_pack(b->context, b->mem, &key, &card.key_len), "ucp_rkey_pack");
	must(card.key_len <= KEY_MAX, "key");
	memcpy(card.key, key, card.key_len);
	ucp_rkey_buffer_release(key);
	for (unsigned i = 0; i < b->n; i++) {
		ucp_address_t *name;

		check(ucp_worker_get_address(b->end[i].worker, &name, &card.end[i].len),
		      "ucp_worker_get_address");
		must(card.end[i].len <= NAME_MAX, "address");
		memcpy(card.end[i].name, name, card.end[i].len);
		ucp_worker_release_address(b->end[i].worker, name);
	}
	memcpy(buf, &card, sizeof(card));
	return sizeof(card);
}

static void connect_bare(struct bare *b, const void *buf, size_t len)
{
	struct card card;

	must(len == sizeof(card), "address");
	memcpy(&card, buf, sizeof(card));
	b->peer_addr = card.addr;
	for (unsigned i = 0; i < b->n; i++) {
		ucp_ep_params_t params = {
			.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS,
			.address = (const ucp_address_t *)(const void *)card.end[i].name};

		check(ucp_ep_create(b->end[i].worker, &params, &b->end[i].ep), "ucp_ep_create");
		check(ucp_ep_rkey_unpack(b->end[i].ep, card.key, &b->end[i].rkey),
		      "ucp_ep_rkey_unpack");
	}
}

/* Is nothing under way any more? A worker that goes before may not survive it (UCX 1.13). */
static bool is_flushed(ucp_worker_h worker)
{
	static const ucp_request_param_t plain;
	uint64_t deadline = via_deadline_in(VIA_NS_PER_S);
	ucs_status_ptr_t request = ucp_worker_flush_nbx(worker, &plain);
	ucs_status_t status = UCS_PTR_IS_PTR(request) ? UCS_INPROGRESS : UCS_PTR_STATUS(request);

	while (status == UCS_INPROGRESS && !via_deadline_passed(deadline)) {
		ucp_worker_progress(worker);
		status = ucp_request_check_status(request);
	}
	if (UCS_PTR_IS_PTR(request))
		ucp_request_free(request);
	return status == UCS_OK;
}

static void close_bare(struct bare *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		ucp_rkey_destroy(b->end[i].rkey);
		if (!is_flushed(b->end[i].worker))
			return; /* the process ends, and all of it with it */
		ucp_worker_destroy(b->end[i].worker);
	}
	ucp_mem_unmap(b->context, b->mem);
	ucp_cleanup(b->context);
	free(b);
}

/* -- progress ------------------------------------------------------------------------------- */

/* Sleep until the first worker has something: the only one where it matters. */
static void sleep_shortly(struct bare_end *e)
{
	struct pollfd p = {.events = POLLIN};
	ucs_status_t status;

	check(ucp_worker_get_efd(e->worker, &p.fd), "ucp_worker_get_efd");
	status = ucp_worker_arm(e->worker);
	if (status == UCS_ERR_BUSY)
		return;
	check(status, "ucp_worker_arm");
	(void)poll(&p, 1, SLEEP_MS);
}

static void progress(struct bare *b)
{
	unsigned any = 0;

	for (unsigned i = 0; i < b->n; i++)
		any += ucp_worker_progress(b->end[i].worker);
	if (!any && b->sleeps)
		sleep_shortly(&b->end[0]);
}

static void wait_for(struct bare *b, ucs_status_ptr_t request, const char *what)
{
	if (!UCS_PTR_IS_PTR(request)) {
		check(UCS_PTR_STATUS(request), what);
		return;
	}
	while (ucp_request_check_status(request) == UCS_INPROGRESS)
		progress(b);
	check(ucp_request_check_status(request), what);
	ucp_request_free(request);
}

/* -- writes ----------------------------------------------------------------------------------- */

static void on_written(void *request, ucs_status_t status, void *arg)
{
	struct bare_end *e = arg;

	check(status, "a write");
	e->in_flight--;
	ucp_request_free(request);
}

static ucs_status_ptr_t post(struct bare *b, struct bare_end *e, uint64_t off, size_t len)
{
	uint64_t *header = &e->header[e->posted++ % DEPTH];
	ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
						     UCP_OP_ATTR_FIELD_USER_DATA,
				     .cb.send = on_written,
				     .user_data = e};

	if (len <= b->put_max)
		return ucp_put_nbx(e->ep, b->memory + off, len, b->peer_addr + off, e->rkey,
				   &param);
	*header = off;
	param.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
	param.flags = UCP_AM_SEND_FLAG_EAGER;
	return ucp_am_send_nbx(e->ep, AM_WRITE, header, sizeof(*header), b->memory + off, len,
			       &param);
}

static void write_one(struct bare *b, struct bare_end *e, uint64_t off, size_t len)
{
	while (len) {
		size_t piece = len > b->put_max && len > AM_PIECE ? AM_PIECE : len;
		ucs_status_ptr_t request;

		while (e->in_flight == DEPTH)
			progress(b);
		request = post(b, e, off, piece);
		if (UCS_PTR_IS_PTR(request))
			e->in_flight++;
		else
			check(UCS_PTR_STATUS(request), "a write");
		off += piece;
		len -= piece;
	}
}

static void write_some(struct bare *b, const uint64_t *off, size_t n, size_t len)
{
	for (size_t i = 0; i < n; i++)
		write_one(b, &b->end[i % b->n], off[i], len);
	for (unsigned i = 0; i < b->n; i++)
		while (b->end[i].in_flight)
			progress(b);
}

static void flush(struct bare *b)
{
	ucp_request_param_t param = {0};

	for (unsigned i = 0; i < b->n; i++) {
		wait_for(b, ucp_ep_flush_nbx(b->end[i].ep, &param), "ucp_ep_flush_nbx");
		if (b->put_max == SIZE_MAX)
			continue;
		b->flushed = false; /* messages arrive in order */
		send_empty(&b->end[i], AM_FLUSH);
		while (!b->flushed)
			progress(b);
	}
}

/* -- messages ---------------------------------------------------------------------------- */

static void send_message(struct bare *b, size_t len)
{
	ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
				     .flags = UCP_AM_SEND_FLAG_EAGER};

	wait_for(b, ucp_am_send_nbx(b->end[0].ep, AM_MESSAGE, NULL, 0, b->msg, len, &param),
		 "ucp_am_send_nbx");
}

static void ask(struct bare *b)
{
	send_message(b, BARE_REQUEST_LEN);
	while (!b->received)
		progress(b);
	b->received = false;
}

static void answer(struct bare *b, size_t len)
{
	progress(b);
	if (!b->received)
		return;
	b->received = false;
	send_message(b, len);
}

const struct bare_ops bare_ucx = {
	.fabric = "ucx",
	.library = "ucx",
	.writes = "ucp_put_nbx (above 16 KiB over tcp ucp_am_send_nbx), 64 in flight on each "
		  "endpoint",
	.sends = "ucp_am_send_nbx, eager",
	.version = version,
	.open = open_bare,
	.address = address,
	.connect = connect_bare,
	.close = close_bare,
	.write = write_some,
	.flush = flush,
	.progress = progress,
	.add_memory = add_memory,
	.ask = ask,
	.answer = answer,
};
