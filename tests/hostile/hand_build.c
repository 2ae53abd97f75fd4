/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hand_build.c -- every message as an honest peer would say it, whether or not this is its turn.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wire.h"
#include "migrate/engine_messages.h"
#include "migrate/migrate.h"
#include "tests/hostile/hand_impl.h"

struct kind {
	uint16_t type;
	ssize_t (*build)(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap);
};

static const struct via_error reason = {
	/* No failure's code: whoever keeps it would be told to try again, for ever. */
	.code = -EAGAIN,
	.what = "by hand",
	.seen = "this was twisted",
	.remedy = "nothing"};

/* -- frames ---------------------------------------------------------------------------- */

static ssize_t hello(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_hello m = {.version_min = VIA_PROTOCOL_VERSION,
			      .version_max = VIA_PROTOCOL_VERSION,
			      .role = (uint8_t)h->role,
			      .program = "by hand",
			      .noffers = 1};

	(void)lane;
	snprintf(m.offer[0].kind, sizeof(m.offer[0].kind), "%s", HAND_KIND);
	memcpy(m.session_id, h->session_id, sizeof(m.session_id));
	return via_hello_encode(&m, buf, cap);
}

static ssize_t setup(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_setup m = {
		.version = VIA_PROTOCOL_VERSION,
		.fabric = HAND_KIND,
		.multifd = HAND_MULTIFD,
		.preempt = HAND_PREEMPT,
		.slice_len = UINT64_C(1) << 30,
		.epoch = h->resuming ? h->epoch : 1,
		.nregions = 2,
		.region = {
			{.name = "ram0", .len = HAND_PAGES * HAND_PAGE, .page_size = HAND_PAGE},
			{.name = "ram1", .len = HAND_PAGES_2 * HAND_PAGE, .page_size = HAND_PAGE}}};

	(void)lane;
	return via_setup_encode(&m, buf, cap);
}

static ssize_t channel_open(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	uint8_t addr[VIA_ADDRESS_MAX];
	struct via_channel_open m = {.id = hand_id(h, lane), .addr = addr};
	struct via_ep *ep = h->lane[lane].ep;

	if (!m.id.epoch)
		m.id.epoch = h->epoch;
	memcpy(m.session_id, h->session_id, sizeof(m.session_id));
	memcpy(m.nonce, h->nonce[lane], sizeof(m.nonce));
	if (ep)
		m.addr_len = (uint16_t)ep->fab->ops->ep_address(ep, addr, sizeof(addr));
	return via_channel_open_encode(&m, buf, cap);
}

static ssize_t channel_addr(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	uint8_t addr[VIA_ADDRESS_MAX];
	struct via_channel_addr m = {.id = hand_id(h, lane), .addr = addr};
	struct via_ep *ep = h->lane[lane].ep;

	if (!m.id.epoch)
		m.id.epoch = h->epoch;
	if (ep)
		m.addr_len = (uint16_t)ep->fab->ops->ep_address(ep, addr, sizeof(addr));
	return via_channel_addr_encode(&m, buf, cap);
}

static void add_key(struct hand *h, const struct via_mr *mr, struct via_ep *ep,
		    struct via_channel_ready *m, uint8_t *keys, size_t cap)
{
	uint8_t bytes[VIA_RKEY_MAX];
	struct via_packed_key key = {.bytes = bytes};

	key.len = (uint16_t)h->fab->ops->rkey_pack(mr, ep, bytes, sizeof(bytes));
	if (!via_packed_key_append(&key, keys, cap, &m->keys_len))
		m->nkeys++;
}

static ssize_t channel_ready(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	uint8_t keys[2048];
	struct via_channel_ready m = {.id = hand_id(h, lane),
				      .credits = h->role == VIA_ROLE_SOURCE ? 32 : HAND_CREDITS,
				      .msg_len = 8192,
				      .keys = keys};
	struct hand_end *e = &h->lane[lane];

	if (!m.id.epoch)
		m.id.epoch = h->epoch;
	if (h->role == VIA_ROLE_DESTINATION && e->connected &&
	    (lane == LANE_MULTIFD_0 || lane == LANE_MULTIFD_1)) {
		add_key(h, h->staged ? e->memory_mr : h->memory_mr, e->ep, &m, keys, sizeof(keys));
		if (!h->staged)
			add_key(h, h->memory_2_mr, e->ep, &m, keys, sizeof(keys));
	}
	return via_channel_ready_encode(&m, buf, cap);
}

static ssize_t channel_refused(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_channel_refused m = {.id = hand_id(h, lane), .error = reason};

	if (!m.id.epoch)
		m.id.epoch = h->epoch;
	return via_channel_refused_encode(&m, buf, cap);
}

static ssize_t ping(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	(void)lane;
	return via_ping_encode(h->ping, buf, cap);
}

static ssize_t error(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	(void)h;
	(void)lane;
	return via_error_encode(&reason, buf, cap);
}

/* -- messages of channels ----------------------------------------------------------------- */

static ssize_t empty(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	(void)h;
	(void)lane;
	(void)buf;
	(void)cap;
	return 0;
}

static ssize_t status(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct engine_status m = {.round = 1, .phase = VIA_PHASE_PRECOPY};

	(void)h;
	(void)lane;
	return engine_status_encode(&m, buf, cap);
}

static ssize_t fence(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_fence_message m = {.index = lane == LANE_MULTIFD_1};

	m.count = h->fenced[m.index];
	m.count.epoch = h->epoch;
	return via_fence_encode(&m, buf, cap);
}

static ssize_t drained(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_drained_message m = {.epoch = h->epoch, .n = HAND_MULTIFD};

	(void)lane;
	for (unsigned i = 0; i < HAND_MULTIFD; i++)
		m.count[i] = h->fenced[i];
	return via_drained_encode(&m, buf, cap);
}

static ssize_t epoch(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	(void)lane;
	return via_epoch_encode(h->last_fence ? h->last_fence : 1, buf, cap);
}

static size_t put_range(uint8_t *buf, uint64_t first, uint32_t n)
{
	struct engine_zero head = {.region = 0, .nranges = 1};
	struct engine_zero_range range = {.first = first, .n = n};

	engine_zero_put_header(buf, &head);
	engine_zero_put_range(buf, 0, &range);
	return ENGINE_ZERO_HEADER_LEN + ENGINE_ZERO_RANGE_LEN;
}

/* In precopy all of region 0; in postcopy what PAGE and PAGES leave. */
static ssize_t zero(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	(void)lane;
	(void)cap;
	return (ssize_t)(h->staged ? put_range(buf, 9, HAND_PAGES - 9)
				   : put_range(buf, 0, HAND_PAGES));
}

static ssize_t pages(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	(void)h;
	(void)lane;
	(void)cap;
	return (ssize_t)put_range(buf, 1, 8);
}

/* small_guest.h: versions of 0, all pages zero; then bytes of its own. */
static ssize_t state(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	size_t versions = (HAND_PAGES + HAND_PAGES_2) * sizeof(uint32_t);

	(void)h;
	(void)lane;
	(void)cap;
	memset(buf, 0, versions);
	for (unsigned i = 0; i < HAND_STATE_LEN; i++)
		buf[versions + i] = (uint8_t)(i * 7 + 1);
	return (ssize_t)(versions + HAND_STATE_LEN);
}

static void put_map_header(struct via_wire *w, uint16_t region, bool last, uint64_t n)
{
	via_wire_put_u16(w, region);
	via_wire_put_u8(w, last);
	via_wire_put_u8(w, 0);
	via_wire_put_u32(w, 0);
	via_wire_put_u64(w, 0);
	via_wire_put_u64(w, n);
}

/* Region 0 is lacking, region 1 is not. */
static ssize_t page_map(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	(void)h;
	(void)lane;
	put_map_header(&w, 0, false, HAND_PAGES);
	via_wire_put_u8(&w, 0);
	via_wire_put_u8(&w, HAND_PAGES);
	return (ssize_t)w.pos;
}

static ssize_t page_map_2(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	(void)h;
	(void)lane;
	put_map_header(&w, 1, false, HAND_PAGES_2);
	via_wire_put_u8(&w, HAND_PAGES_2);
	return (ssize_t)w.pos;
}

static ssize_t page_map_last(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	(void)h;
	(void)lane;
	put_map_header(&w, 0, true, 0);
	return (ssize_t)w.pos;
}

static ssize_t request(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct engine_page m = {.kind = ENGINE_PAGE_ASKED, .len = HAND_PAGE};

	(void)lane;
	(void)cap;
	m.region = h->asked_region;
	m.off = h->asked_off;
	engine_page_encode(&m, buf);
	return ENGINE_PAGE_LEN;
}

static ssize_t page(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t cap)
{
	struct engine_page m = {.region = h->asked_region,
				.kind = ENGINE_PAGE_HERE,
				.len = HAND_PAGE,
				.off = h->asked_off};

	(void)lane;
	(void)cap;
	engine_page_encode(&m, buf);
	memset(buf + ENGINE_PAGE_LEN, 0, HAND_PAGE);
	return ENGINE_PAGE_LEN + HAND_PAGE;
}

static const struct kind kinds[SPOKEN] = {
	[S_HELLO] = {VIA_CONTROL_HELLO, hello},
	[S_SETUP] = {VIA_CONTROL_SETUP, setup},
	[S_SETUP_OK] = {VIA_CONTROL_SETUP_OK, empty},
	[S_OPEN] = {VIA_CONTROL_CHANNEL_OPEN, channel_open},
	[S_ADDR] = {VIA_CONTROL_CHANNEL_ADDR, channel_addr},
	[S_READY] = {VIA_CONTROL_CHANNEL_READY, channel_ready},
	[S_REFUSED] = {VIA_CONTROL_CHANNEL_REFUSED, channel_refused},
	[S_PING] = {VIA_CONTROL_PING, ping},
	[S_PONG] = {VIA_CONTROL_PONG, ping},
	[S_ERROR] = {VIA_CONTROL_ERROR, error},
	[S_BYE] = {VIA_CONTROL_BYE, empty},
	[S_STATUS] = {ENGINE_STATUS, status},
	[S_CREDIT] = {VIA_MESSAGE_CREDIT, empty},
	[S_FENCE] = {VIA_MESSAGE_FENCE, fence},
	[S_DRAINED] = {VIA_MESSAGE_DRAINED, drained},
	[S_SEAL] = {VIA_MESSAGE_SEAL, epoch},
	[S_SEALED] = {VIA_MESSAGE_SEALED, epoch},
	[S_ZERO] = {ENGINE_ZERO, zero},
	[S_STATE] = {ENGINE_STATE, state},
	[S_RUN] = {ENGINE_RUN, epoch},
	[S_RUNNING] = {ENGINE_RUNNING, empty},
	[S_RUN_REFUSED] = {ENGINE_RUN_REFUSED, error},
	[S_ADVISE] = {ENGINE_ADVISE, empty},
	[S_ADVISED] = {ENGINE_ADVISED, empty},
	[S_PAGE_MAP] = {ENGINE_PAGE_MAP, page_map},
	[S_PAGE_MAP_2] = {ENGINE_PAGE_MAP, page_map_2},
	[S_PAGE_MAP_LAST] = {ENGINE_PAGE_MAP, page_map_last},
	[S_ARMED] = {ENGINE_ARMED, empty},
	[S_BULK] = {ENGINE_BULK, empty},
	[S_RESUME] = {ENGINE_RESUME, empty},
	[S_COMPLETE] = {ENGINE_COMPLETE, empty},
	[S_COMPLETED] = {ENGINE_COMPLETED, empty},
	[S_REQUEST] = {ENGINE_REQUEST, request},
	[S_PAGE] = {ENGINE_PAGE, page},
	[S_PAGES] = {ENGINE_PAGES, pages},
};

size_t hand_build(struct hand *h, enum spoken which, enum hand_lane lane, uint8_t *buf, size_t cap,
		  uint16_t *type)
{
	ssize_t n = kinds[which].build(h, lane, buf, cap);

	if (n < 0)
		abort();
	*type = kinds[which].type;
	return (size_t)n;
}
