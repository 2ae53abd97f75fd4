/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hand.c -- see hand.h: bytes out, bytes in, endpoints.
 *
 * Must never wait for longer than its patience, and never fail the program for what the peer does.
 */
#include "tests/hostile/hand.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buffer.h"
#include "core/wire.h"
#include "migrate/engine_messages.h"
#include "tests/hostile/hand_impl.h"
#include "transport/control.h"

#define RECEIVES    34u
#define MESSAGE_LEN 8192u
#define CONNECT_NS  (300 * VIA_NS_PER_MS)
#define DRIBBLE_NS  (HAND_SLOWER * 50 * VIA_NS_PER_MS)

const char *const hand_names[SPOKEN] = {
	[S_HELLO] = "HELLO",
	[S_SETUP] = "SETUP",
	[S_SETUP_OK] = "SETUP_OK",
	[S_OPEN] = "OPEN",
	[S_ADDR] = "ADDR",
	[S_READY] = "READY",
	[S_REFUSED] = "REFUSED",
	[S_PING] = "PING",
	[S_PONG] = "PONG",
	[S_ERROR] = "ERROR",
	[S_BYE] = "BYE",
	[S_STATUS] = "STATUS",
	[S_CREDIT] = "CREDIT",
	[S_FENCE] = "FENCE",
	[S_DRAINED] = "DRAINED",
	[S_SEAL] = "SEAL",
	[S_SEALED] = "SEALED",
	[S_ZERO] = "ZERO",
	[S_STATE] = "STATE",
	[S_RUN] = "RUN",
	[S_RUNNING] = "RUNNING",
	[S_RUN_REFUSED] = "RUN_REFUSED",
	[S_ADVISE] = "ADVISE",
	[S_ADVISED] = "ADVISED",
	[S_PAGE_MAP] = "PAGE_MAP",
	[S_PAGE_MAP_2] = "PAGE_MAP 2",
	[S_PAGE_MAP_LAST] = "PAGE_MAP last",
	[S_ARMED] = "ARMED",
	[S_BULK] = "BULK",
	[S_RESUME] = "RESUME",
	[S_COMPLETE] = "COMPLETE",
	[S_COMPLETED] = "COMPLETED",
	[S_REQUEST] = "REQUEST",
	[S_PAGE] = "PAGE",
	[S_PAGES] = "PAGES",
};

void hand_over(struct hand *h)
{
	h->over = true;
}

/* -- bytes of the control connection --------------------------------------------------- */

/* False: the peer does not take them, or is gone. */
static bool put_bytes(struct hand *h, const uint8_t *bytes, size_t len)
{
	uint64_t deadline = via_deadline_in(h->patience_ns);

	while (len) {
		struct pollfd p = {.fd = h->fd, .events = POLLOUT};
		ssize_t n = send(h->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return false;
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		} else if (poll(&p, 1, via_deadline_poll_ms(deadline)) <= 0) {
			return false;
		}
	}
	return true;
}

/* A byte at a time, and no time limit of a message is ever kept. */
static bool dribble(struct hand *h, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		struct pollfd p = {.fd = h->fd, .events = POLLRDHUP};

		if (!put_bytes(h, bytes + i, 1))
			return false;
		if (poll(&p, 1, (int)(DRIBBLE_NS / VIA_NS_PER_MS)) > 0)
			return false;
	}
	return true;
}

/* -- messages of a channel --------------------------------------------------------------- */

static const struct via_fabric_ops *ops_of(const struct hand *h)
{
	return h->fab->ops;
}

static void post_receive(struct hand *h, struct hand_end *e, uint8_t *buf)
{
	struct via_sge sge = {.mr = e->mr, .addr = buf, .len = MESSAGE_LEN};

	(void)ops_of(h)->post_recv(e->ep, &sge, buf);
}

/* False: the channel is dead, or takes nothing. */
static bool put_message(struct hand *h, struct hand_end *e, const uint8_t *bytes, size_t len)
{
	uint64_t deadline = via_deadline_in(h->patience_ns);
	struct via_sge sge = {.mr = e->mr, .len = len};
	int rc = -EAGAIN;

	while (len <= MESSAGE_LEN && e->connected && rc == -EAGAIN &&
	       !via_deadline_passed(deadline)) {
		sge.addr = e->buf + (size_t)(RECEIVES + e->nsent % RECEIVES) * MESSAGE_LEN;
		if (e->sent < RECEIVES) {
			memcpy(sge.addr, bytes, len);
			rc = ops_of(h)->post_send(e->ep, &sge, 1, sge.addr, VIA_AFTER_WRITES);
		}
		if (rc == -EAGAIN)
			(void)hand_move(h);
	}
	if (rc)
		return false;
	e->sent++;
	e->nsent++;
	return true;
}

/* -- saying it, as twisted as it is to be --------------------------------------------------- */

struct utterance {
	bool frame;
	struct hand_end *end;
	uint8_t bytes[HAND_SAY_MAX]; /* header of 8 bytes, and the payload */
	size_t len;                  /* of both */
};

static void put_header(struct utterance *u, uint16_t type, unsigned credits, size_t payload_len)
{
	struct via_wire w = via_wire_writer(u->bytes, 8);

	if (u->frame) {
		via_wire_put_u32(&w, (uint32_t)payload_len);
		via_wire_put_u16(&w, type);
		via_wire_put_u16(&w, 0);
	} else {
		via_wire_put_u8(&w, (uint8_t)type);
		via_wire_put_u8(&w, 0);
		via_wire_put_u16(&w, (uint16_t)credits);
		via_wire_put_u32(&w, (uint32_t)payload_len);
	}
	u->len = 8 + payload_len;
}

static void put_len(struct utterance *u, size_t payload_len)
{
	struct via_wire w = via_wire_writer(u->bytes + (u->frame ? 0 : 4), 4);

	via_wire_put_u32(&w, (uint32_t)payload_len);
	u->len = 8 + payload_len;
}

static void store(struct utterance *u, size_t at, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes && at + i < u->len; i++)
		u->bytes[at + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static bool transmit(struct hand *h, const struct utterance *u)
{
	return u->frame ? put_bytes(h, u->bytes, u->len) : put_message(h, u->end, u->bytes, u->len);
}

/* Changes the bytes alone? */
static bool change(struct utterance *u, const struct twisted *t)
{
	switch (t->twist) {
	case T_U8:
		store(u, 8 + t->at, 1, t->value);
		return true;
	case T_U16:
		store(u, 8 + t->at, 2, t->value);
		return true;
	case T_U32:
		store(u, 8 + t->at, 4, t->value);
		return true;
	case T_U64:
		store(u, 8 + t->at, 8, t->value);
		return true;
	case T_XOR:
		if (8 + t->at < u->len)
			u->bytes[8 + t->at] ^= (uint8_t)t->value;
		return true;
	case T_HEADER_U8:
		store(u, t->at, 1, t->value);
		return true;
	case T_HEADER_U16:
		store(u, t->at, 2, t->value);
		return true;
	case T_HEADER_U32:
		store(u, t->at, 4, t->value);
		return true;
	case T_SHORTER:
		put_len(u, t->at < u->len - 8 ? t->at : u->len - 8); /* it is never longer */
		return true;
	case T_LONGER:
		memset(u->bytes + u->len, 0, t->at);
		put_len(u, u->len - 8 + t->at);
		return true;
	default:
		return false;
	}
}

static void cut(struct hand *h, struct utterance *u, size_t at)
{
	u->len = at < u->len ? at : u->len;
	(void)transmit(h, u);
	if (u->frame)
		shutdown(h->fd, SHUT_WR);
	else
		h->hears_pings = false;
	hand_hear_out(h);
	hand_over(h);
}

static void say_otherwise(struct hand *h, struct utterance *u, const struct twisted t)
{
	switch (t.twist) {
	case T_CUT:
		cut(h, u, t.at);
		break;
	case T_TWICE:
	case T_FLOOD:
		for (uint64_t i = 0; i < (t.twist == T_TWICE ? 2 : t.value); i++) {
			if (!transmit(h, u))
				break;
			if (!u->frame) /* its credits are returned once */
				store(u, 2, 2, 0);
		}
		break;
	case T_SILENT:
		h->hears_pings = false;
		hand_hear_out(h);
		hand_over(h);
		break;
	case T_DRIBBLE:
		if (!dribble(h, u->bytes, u->len))
			hand_hear_out(h);
		break;
	case T_BEFORE:
	case T_INSTEAD:
		hand_say(h, (enum spoken)t.value, (enum hand_lane)t.at);
		if (t.twist == T_BEFORE)
			(void)transmit(h, u);
		break;
	case T_DIE:
		shutdown(h->fd, SHUT_RDWR);
		hand_over(h);
		break;
	default: /* T_SKIP */
		break;
	}
}

static unsigned turn_of(struct hand *h, enum spoken which, enum hand_lane lane)
{
	unsigned turn = h->said[which]++, again = h->said_of[which][lane]++;

	return which == S_OPEN || which == S_ADDR || which == S_READY ? lane + HAND_LANES * again
								      : turn;
}

static bool is_twisted(struct hand *h, enum spoken which, unsigned turn, struct twisted *twisted)
{
	*twisted = h->twisted;
	if (h->choose)
		return h->choose(h, which, twisted);
	if (!twisted->twist || twisted->which != which || twisted->turn != turn)
		return false;
	h->applied = true;
	h->twisted.twist = T_NONE; /* once */
	return true;
}

void hand_say(struct hand *h, enum spoken which, enum hand_lane lane)
{
	struct utterance *u = calloc(1, sizeof(*u));
	struct twisted twisted;
	unsigned turn;
	uint16_t type;
	size_t len;

	if (!u)
		abort();
	if (!h->over) {
		turn = turn_of(h, which, lane);
		u->frame = which < S_STATUS;
		u->end = &h->lane[lane];
		len = hand_build(h, which, lane, u->bytes + 8, HAND_BUILD_MAX, &type);
		put_header(u, type, u->end->owed, len);
		if (turn < HAND_TURNS)
			h->said_len[which][turn] = (unsigned)u->len;
		if (!u->frame)
			u->end->owed = 0;
		if (!is_twisted(h, which, turn, &twisted) || change(u, &twisted))
			(void)transmit(h, u);
		else
			say_otherwise(h, u, twisted);
	}
	free(u);
}

/* -- hearing ----------------------------------------------------------------------------------- */

static void take_keys(struct hand *h, struct hand_end *e, const struct via_channel_ready *m)
{
	struct via_rkey **rkey[] = {&e->rkey, &e->rkey_2};
	uint64_t region[] = {(uint64_t)HAND_PAGES * HAND_PAGE, (uint64_t)HAND_PAGES_2 * HAND_PAGE};
	struct via_packed_key key;
	size_t pos = 0;

	for (unsigned i = 0; i < 2 && !via_channel_ready_next_key(m, &pos, &key); i++) {
		/* A single key is to staging. */
		uint64_t len = m->nkeys == 1 ? (uint64_t)m->credits * HAND_SLOT_LEN : region[i];

		(void)ops_of(h)->rkey_unpack(e->ep, key.bytes, key.len, len, rkey[i], NULL);
	}
}

static void on_ready(struct hand *h, const uint8_t *payload, size_t len)
{
	struct via_channel_ready m;
	enum hand_lane lane;

	if (via_channel_ready_decode(payload, len, &m))
		return;
	lane = hand_lane_of(&m.id);
	if (lane == HAND_LANES || !h->lane[lane].connected)
		return;
	h->lane[lane].ready_heard = true;
	if (h->role == VIA_ROLE_SOURCE)
		take_keys(h, &h->lane[lane], &m);
}

static void on_address(struct hand *h, const uint8_t *payload, size_t len)
{
	struct via_channel_addr m;
	enum hand_lane lane;

	if (via_channel_addr_decode(payload, len, &m))
		return;
	lane = hand_lane_of(&m.id);
	if (lane == HAND_LANES)
		return;
	memcpy(h->peer_addr[lane], m.addr, m.addr_len);
	h->peer_addr_len[lane] = m.addr_len;
}

static void on_frame(struct hand *h, uint16_t type, const uint8_t *payload, size_t len)
{
	if (type < 16)
		h->heard_frame[type]++;
	if (type != VIA_CONTROL_PING && type != VIA_CONTROL_PONG)
		h->news++;
	switch (type) {
	case VIA_CONTROL_ERROR:
		if (via_error_decode(payload, len, &h->why))
			h->why.code = -EPROTO;
		hand_over(h);
		return;
	case VIA_CONTROL_PING:
		if (!via_ping_decode(payload, len, &h->ping) && h->hears_pings)
			hand_say(h, S_PONG, LANE_MAIN);
		return;
	case VIA_CONTROL_CHANNEL_ADDR:
		on_address(h, payload, len);
		break;
	case VIA_CONTROL_CHANNEL_READY:
		on_ready(h, payload, len);
		break;
	}
	if (h->on_frame)
		h->on_frame(h, type, payload, len);
}

/*
 * Whole frames of what has been received. An answer may hear more, so that each is taken out
 * first.
 */
static void take_frames(struct hand *h)
{
	while (!h->over && h->in_len >= 8) {
		struct via_wire r = via_wire_reader(h->in, 8);
		uint32_t len = via_wire_get_u32(&r);
		uint16_t type = via_wire_get_u16(&r);
		uint8_t *payload;

		if (len > sizeof(h->in) - 8) {
			hand_over(h);
			return;
		}
		if (h->in_len < 8 + len)
			return;
		payload = malloc(len + 1);
		if (!payload)
			abort();
		memcpy(payload, h->in + 8, len);
		h->in_len -= 8 + len;
		memmove(h->in, h->in + 8 + len, h->in_len);
		on_frame(h, type, payload, len);
		free(payload);
	}
}

static bool read_socket(struct hand *h)
{
	ssize_t n = recv(h->fd, h->in + h->in_len, sizeof(h->in) - h->in_len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		hand_over(h);
		return true;
	}
	h->in_len += (size_t)n;
	take_frames(h);
	return true;
}

static void on_message(struct hand *h, enum hand_lane lane, uint8_t *buf, size_t len)
{
	struct hand_end *e = &h->lane[lane];
	struct via_message_header header;

	if (via_message_header_decode(buf, len, &header)) {
		hand_over(h); /* the side under test says nothing malformed */
		return;
	}
	h->heard_message[header.type]++;
	if (header.type != VIA_MESSAGE_CREDIT)
		e->owed++;
	if (header.type != VIA_MESSAGE_CREDIT && header.type != ENGINE_STATUS)
		h->news++;
	if (h->on_message)
		h->on_message(h, lane, header.type, buf + 8, header.len);
}

static bool poll_lane(struct hand *h, enum hand_lane lane)
{
	struct hand_end *e = &h->lane[lane];
	struct via_comp comp[32];
	int n = ops_of(h)->poll(e->ep, comp, 32);

	for (int i = 0; i < n && e->connected; i++) {
		if (comp[i].kind == VIA_COMP_SEND && e->sent)
			e->sent--;
		if (comp[i].kind != VIA_COMP_RECV || comp[i].status)
			continue;
		on_message(h, lane, comp[i].ctx, comp[i].len);
		if (e->connected)
			post_receive(h, e, comp[i].ctx);
	}
	if (n < 0) /* why comes on the control connection */
		hand_close_lane(h, lane);
	return n != 0;
}

bool hand_move(struct hand *h)
{
	bool moved = read_socket(h);

	for (unsigned i = 0; i < HAND_LANES; i++)
		if (h->lane[i].connected && !h->over)
			moved = poll_lane(h, i) || moved;
	return moved;
}

/* Sleep until something is there. */
static void wait_for_more(struct hand *h, uint64_t deadline_ns)
{
	struct pollfd p[1 + HAND_LANES] = {{.fd = h->fd, .events = POLLIN}};
	nfds_t n = 1;

	for (unsigned i = 0; i < HAND_LANES; i++) {
		if (!h->lane[i].connected)
			continue;
		if (ops_of(h)->arm(h->lane[i].ep, &p[n].fd))
			return;
		p[n++].events = POLLIN;
	}
	(void)poll(p, n, via_deadline_poll_ms(deadline_ns));
}

bool hand_hear(struct hand *h)
{
	uint64_t deadline = via_deadline_in(h->patience_ns);

	while (!h->over) {
		if (hand_move(h))
			return !h->over;
		if (via_deadline_passed(deadline))
			return false;
		wait_for_more(h, deadline);
	}
	return false;
}

static bool want(struct hand *h, const unsigned *heard, unsigned before)
{
	uint64_t deadline = via_deadline_in(h->patience_ns);

	while (*heard <= before && !via_deadline_passed(deadline))
		if (!hand_hear(h))
			break;
	return *heard > before;
}

bool hand_want_frame(struct hand *h, uint16_t type, unsigned before)
{
	return want(h, &h->heard_frame[type], before);
}

bool hand_want_message(struct hand *h, uint8_t type, unsigned before)
{
	return want(h, &h->heard_message[type], before);
}

void hand_hear_out(struct hand *h)
{
	unsigned news = h->news;
	uint64_t deadline = via_deadline_in(h->patience_ns);

	while (hand_hear(h) && !via_deadline_passed(deadline))
		if (news != h->news) {
			news = h->news;
			deadline = via_deadline_in(h->patience_ns);
		}
}

/* -- endpoints ---------------------------------------------------------------------- */

struct via_channel_id hand_id(const struct hand *h, enum hand_lane lane)
{
	static const uint8_t kind[] = {VIA_MAIN, VIA_MULTIFD, VIA_MULTIFD, VIA_PREEMPT};

	return (struct via_channel_id){
		.kind = kind[lane], .index = lane == LANE_MULTIFD_1, .epoch = h->lane[lane].epoch};
}

enum hand_lane hand_lane_of(const struct via_channel_id *id)
{
	if (id->kind == VIA_MAIN)
		return LANE_MAIN;
	if (id->kind == VIA_MULTIFD && id->index < HAND_MULTIFD)
		return LANE_MULTIFD_0 + id->index;
	return id->kind == VIA_PREEMPT && id->index == 0 ? LANE_PREEMPT : HAND_LANES;
}

void hand_open_lane(struct hand *h, enum hand_lane lane)
{
	struct hand_end *e = &h->lane[lane];
	enum via_ep_side side = h->role == VIA_ROLE_SOURCE ? VIA_EP_ACTIVE : VIA_EP_PASSIVE;
	size_t len = (size_t)2 * RECEIVES * MESSAGE_LEN;

	hand_close_lane(h, lane);
	e->epoch = h->epoch;
	e->buf = via_pages_alloc(len);
	e->memory_len = (size_t)HAND_CREDITS * HAND_SLOT_LEN;
	e->memory = via_pages_alloc(e->memory_len);
	if (!e->buf || !e->memory || ops_of(h)->ep_open(h->fab, side, &e->ep, NULL) ||
	    ops_of(h)->mr_reg(h->fab, e->buf, len, VIA_MR_LOCAL, &e->mr, NULL) ||
	    ops_of(h)->mr_reg(h->fab, e->memory, e->memory_len,
			      h->role == VIA_ROLE_SOURCE ? VIA_MR_LOCAL : VIA_MR_REMOTE_WRITE,
			      &e->memory_mr, NULL))
		abort();
}

void hand_close_lane(struct hand *h, enum hand_lane lane)
{
	struct hand_end *e = &h->lane[lane];

	if (e->ep) {
		ops_of(h)->rkey_free(e->rkey);
		ops_of(h)->rkey_free(e->rkey_2);
		ops_of(h)->ep_close(e->ep);
		ops_of(h)->mr_dereg(e->mr);
		ops_of(h)->mr_dereg(e->memory_mr);
	}
	via_pages_free(e->buf, (size_t)2 * RECEIVES * MESSAGE_LEN);
	via_pages_free(e->memory, e->memory_len);
	*e = (struct hand_end){.epoch = e->epoch};
}

bool hand_connect_lane(struct hand *h, enum hand_lane lane)
{
	struct hand_end *e = &h->lane[lane];
	struct via_wait wait = {.deadline_ns = via_deadline_in(CONNECT_NS), .cancel_fd = -1};

	if (ops_of(h)->ep_connect(e->ep, h->peer_addr[lane], h->peer_addr_len[lane], h->nonce[lane],
				  &wait, NULL)) {
		hand_close_lane(h, lane);
		return false;
	}
	for (unsigned i = 0; i < RECEIVES; i++)
		post_receive(h, e, e->buf + (size_t)i * MESSAGE_LEN);
	e->connected = true;
	return true;
}

void hand_write(struct hand *h, enum hand_lane lane, uint64_t off, size_t len)
{
	struct hand_end *e = &h->lane[lane];
	struct via_rkey *rkey = e->rkey_2 ? e->rkey_2 : e->rkey;
	struct via_sge sge = {.mr = h->memory_mr, .addr = h->memory, .len = len};

	/* Not counted as a failure here: a revoked key is the point of some cases. */
	if (e->connected && rkey && off + len <= rkey->len)
		(void)ops_of(h)->post_write(e->ep, &sge, 1, rkey, off, NULL, 0);
}

/* -- life ---------------------------------------------------------------------- */

static void open_fabric(struct hand *h)
{
	unsigned access = h->role == VIA_ROLE_SOURCE ? VIA_MR_LOCAL : VIA_MR_REMOTE_WRITE;
	size_t first = HAND_PAGES * HAND_PAGE;
	struct via_fabric_spec spec;

	if (via_fabric_spec_parse(HAND_FABRIC, &spec, NULL) ||
	    via_fabric_open(&spec, &h->fab, NULL) ||
	    ops_of(h)->mr_reg(h->fab, h->memory, first, access, &h->memory_mr, NULL) ||
	    ops_of(h)->mr_reg(h->fab, h->memory + first, HAND_MEMORY - first, access,
			      &h->memory_2_mr, NULL))
		abort();
}

void hand_init(struct hand *h, enum via_role role, int fd, const struct twisted *twisted)
{
	memset(h, 0, sizeof(*h));
	h->role = role;
	h->fd = fd;
	h->twisted = *twisted;
	h->hears_pings = true;
	h->patience_ns = HAND_SLOWER * 400 * VIA_NS_PER_MS;
	h->epoch = 1;
	for (unsigned i = 0; i < HAND_LANES; i++)
		memset(h->nonce[i], (int)(0x40 + i), VIA_NONCE_LEN);
	if (role == VIA_ROLE_SOURCE)
		memset(h->session_id, 0x77, sizeof(h->session_id));
	h->memory = via_pages_alloc(HAND_MEMORY);
	if (!h->memory)
		abort();
	open_fabric(h);
}

static void close_all(struct hand *h)
{
	for (unsigned i = 0; i < HAND_LANES; i++)
		hand_close_lane(h, i);
	close(h->fd);
	h->fd = -1;
}

void hand_come_again(struct hand *h, int fd)
{
	close_all(h);
	h->fd = fd;
	h->in_len = 0;
	h->over = false;
}

void hand_fini(struct hand *h)
{
	close_all(h);
	ops_of(h)->mr_dereg(h->memory_2_mr);
	ops_of(h)->mr_dereg(h->memory_mr);
	ops_of(h)->close(h->fab);
	via_pages_free(h->memory, HAND_MEMORY);
}
