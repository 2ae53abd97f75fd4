/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hand_destination.c -- the destination of a small migration: it answers what comes.
 */
#include <string.h>

#include "core/wire.h"
#include "migrate/engine_messages.h"
#include "tests/hostile/hand_impl.h"

static void take_hello(struct hand *h, const uint8_t *payload, size_t len)
{
	static struct via_hello hello; /* too large for a stack, and there is one hand at a time */
	struct via_hello *m = &hello;

	if (!via_hello_decode(payload, len, m))
		memcpy(h->session_id, m->session_id, sizeof(h->session_id));
	hand_say(h, S_HELLO, LANE_MAIN);
}

static void take_open(struct hand *h, const uint8_t *payload, size_t len)
{
	struct via_channel_open m;
	enum hand_lane lane;

	if (via_channel_open_decode(payload, len, &m))
		return;
	lane = hand_lane_of(&m.id);
	if (lane == HAND_LANES)
		return;
	h->epoch = m.id.epoch;
	memcpy(h->nonce[lane], m.nonce, sizeof(m.nonce));
	memcpy(h->peer_addr[lane], m.addr, m.addr_len);
	h->peer_addr_len[lane] = m.addr_len;
	hand_open_lane(h, lane);
	hand_say(h, S_ADDR, lane);
	if (hand_connect_lane(h, lane))
		hand_say(h, S_READY, lane);
}

static void on_frame(struct hand *h, uint16_t type, const uint8_t *payload, size_t len)
{
	switch (type) {
	case VIA_CONTROL_HELLO:
		take_hello(h, payload, len);
		break;
	case VIA_CONTROL_SETUP:
		hand_say(h, S_SETUP_OK, LANE_MAIN);
		break;
	case VIA_CONTROL_CHANNEL_OPEN:
		take_open(h, payload, len);
		break;
	case VIA_CONTROL_BYE:
		hand_say(h, S_BYE, LANE_MAIN);
		break;
	}
}

/* -- messages ------------------------------------------------------------------------------ */

static void take_fence(struct hand *h, const uint8_t *payload, size_t len)
{
	struct via_fence_message m;

	if (via_fence_decode(payload, len, &m) || m.index >= HAND_MULTIFD)
		return;
	h->fenced[m.index] = m.count;
	h->epoch = m.count.epoch;
	for (unsigned i = 0; i < HAND_MULTIFD; i++)
		if (h->fenced[i].epoch != m.count.epoch)
			return;
	h->last_fence = h->epoch;
	hand_say(h, S_DRAINED, LANE_MAIN);
}

static void take_map(struct hand *h, const uint8_t *payload, size_t len)
{
	struct via_wire r = via_wire_reader(payload, len);
	size_t page = via_wire_get_u16(&r) ? HAND_PAGES : 0;
	bool last = via_wire_get_u8(&r), lacks = false;

	via_wire_get_view(&r, 5);
	page += via_wire_get_u64(&r);
	via_wire_get_u64(&r);
	while (via_wire_left(&r)) {
		uint8_t n = via_wire_get_u8(&r); /* no run of this guest takes two bytes */

		for (; n && page < HAND_PAGES + HAND_PAGES_2; n--)
			h->lacking[page++] = lacks;
		lacks = !lacks;
	}
	if (last)
		hand_say(h, S_ARMED, LANE_MAIN);
}

static bool next_lacking(struct hand *h)
{
	for (unsigned i = 0; i < HAND_PAGES + HAND_PAGES_2; i++) {
		if (!h->lacking[i])
			continue;
		h->asked_region = i >= HAND_PAGES;
		h->asked_off = (uint64_t)(i - (i >= HAND_PAGES ? HAND_PAGES : 0)) * HAND_PAGE;
		return true;
	}
	return false;
}

/* Complete when the last page has come. */
static void take_page(struct hand *h, uint16_t region, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++)
		h->lacking[(region ? HAND_PAGES : 0) + i] = false;
	if (!next_lacking(h) && h->run_epoch && !h->holds_complete)
		hand_say(h, S_COMPLETE, LANE_MAIN);
}

/* A request that must be refused: COMPLETE comes over another channel, and may win. */
static bool asks_wrongly(const struct hand *h)
{
	const struct twisted *t = &h->twisted;

	return t->which == S_REQUEST && t->twist >= T_U8 && t->twist <= T_U64;
}

static void take_pages(struct hand *h, const uint8_t *payload, size_t len)
{
	struct engine_zero head;
	struct engine_zero_range range;

	if (!h->run_epoch || engine_zero_decode(payload, len, &head))
		return;
	for (unsigned i = 0; i < head.nranges; i++)
		if (!engine_zero_get_range(payload, i, head.region ? HAND_PAGES_2 : HAND_PAGES,
					   &range))
			take_page(h, head.region, range.first, range.n);
}

static void take_answer(struct hand *h, const uint8_t *payload, size_t len)
{
	struct engine_page m;

	if (!engine_page_decode(payload, len, &m) && m.kind != ENGINE_PAGE_COMING && m.region < 2)
		take_page(h, m.region, m.off / HAND_PAGE, 1);
}

static void take_run(struct hand *h, const uint8_t *payload, size_t len)
{
	(void)via_epoch_decode(payload, len, &h->run_epoch);
	hand_say(h, S_RUNNING, LANE_MAIN);
	h->holds_complete = asks_wrongly(h);
	if (h->lane[LANE_PREEMPT].ep && next_lacking(h))
		hand_say(h, S_REQUEST, LANE_PREEMPT);
}

static void on_message(struct hand *h, enum hand_lane lane, uint8_t type, const uint8_t *payload,
		       size_t len)
{
	(void)lane;
	switch (type) {
	case VIA_MESSAGE_FENCE:
		take_fence(h, payload, len);
		break;
	case VIA_MESSAGE_SEAL:
		hand_say(h, S_SEALED, LANE_MAIN);
		h->staged = true;
		break;
	case ENGINE_ADVISE:
		hand_say(h, S_ADVISED, LANE_MAIN);
		break;
	case ENGINE_PAGE_MAP:
		take_map(h, payload, len);
		break;
	case ENGINE_RUN:
		take_run(h, payload, len);
		break;
	case ENGINE_PAGE:
		take_answer(h, payload, len);
		break;
	case ENGINE_PAGES:
	case ENGINE_ZERO:
		take_pages(h, payload, len);
		break;
	}
}

void hand_destination(struct hand *h, enum hand_script script)
{
	(void)script; /* the source decides */
	h->on_frame = on_frame;
	h->on_message = on_message;
	/* Until the source has said goodbye, or nothing at all for a while. */
	hand_hear_out(h);
}
