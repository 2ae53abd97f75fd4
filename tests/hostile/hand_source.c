/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hand_source.c -- the source of a small migration, step by step.
 */
#include <string.h>

#include "migrate/engine_messages.h"
#include "tests/hostile/hand_impl.h"

static void note_request(struct hand *h, enum hand_lane lane, uint8_t type, const uint8_t *payload,
			 size_t len)
{
	struct engine_page m;

	(void)lane;
	if (type != ENGINE_REQUEST || engine_page_decode(payload, len, &m))
		return;
	h->asked_region = m.region;
	h->asked_off = m.off;
	h->asked++;
}

static void handshake(struct hand *h)
{
	hand_say(h, S_HELLO, LANE_MAIN);
	(void)hand_want_frame(h, VIA_CONTROL_HELLO, 0);
	hand_say(h, S_SETUP, LANE_MAIN);
	(void)hand_want_frame(h, VIA_CONTROL_SETUP_OK, 0);
}

static void open_lane(struct hand *h, enum hand_lane lane)
{
	unsigned addrs = h->heard_frame[VIA_CONTROL_CHANNEL_ADDR];

	if (h->over)
		return;
	hand_open_lane(h, lane);
	hand_say(h, S_OPEN, lane);
	if (!hand_want_frame(h, VIA_CONTROL_CHANNEL_ADDR, addrs) || !hand_connect_lane(h, lane))
		return;
	hand_say(h, S_READY, lane);
	while (h->lane[lane].ep && !h->lane[lane].ready_heard && hand_hear(h))
		;
}

static void open_essential(struct hand *h)
{
	for (enum hand_lane lane = LANE_MAIN; lane <= LANE_MULTIFD_1; lane++)
		open_lane(h, lane);
}

/* Writes of which the fence tells, and zeros; drained. */
static void round_of_precopy(struct hand *h)
{
	unsigned before = h->heard_message[VIA_MESSAGE_DRAINED];

	hand_say(h, S_STATUS, LANE_MAIN);
	h->fenced[0] = (struct via_fence_count){.writes = 1, .bytes = HAND_PAGE};
	h->fenced[1] = (struct via_fence_count){.writes = 0};
	hand_write(h, LANE_MULTIFD_0, 0, HAND_PAGE);
	hand_say(h, S_ZERO, LANE_MULTIFD_1);
	hand_say(h, S_FENCE, LANE_MULTIFD_0);
	hand_say(h, S_FENCE, LANE_MULTIFD_1);
	if (!hand_want_message(h, VIA_MESSAGE_DRAINED, before))
		return;
	h->last_fence = h->epoch++;
}

static void seal(struct hand *h)
{
	hand_say(h, S_SEAL, LANE_MAIN);
	(void)hand_want_message(h, VIA_MESSAGE_SEALED, 0);
}

static void goodbye(struct hand *h)
{
	hand_say(h, S_BYE, LANE_MAIN);
	(void)hand_want_frame(h, VIA_CONTROL_BYE, 0);
	hand_hear_out(h);
}

static void run(struct hand *h)
{
	hand_say(h, S_STATE, LANE_MAIN);
	hand_say(h, S_RUN, LANE_MAIN);
	(void)hand_want_message(h, ENGINE_RUNNING, 0);
}

/* -- postcopy ----------------------------------------------------------------------------- */

static void answer_requests(struct hand *h, unsigned before)
{
	uint64_t deadline = via_deadline_in(h->patience_ns);

	while (h->asked == before && !via_deadline_passed(deadline) && hand_hear(h))
		;
	if (h->asked > before)
		hand_say(h, S_PAGE, LANE_PREEMPT);
}

static void switch_to_postcopy(struct hand *h)
{
	open_lane(h, LANE_PREEMPT);
	hand_say(h, S_ADVISE, LANE_MAIN);
	(void)hand_want_message(h, ENGINE_ADVISED, 0);
	seal(h);
	hand_say(h, S_PAGE_MAP, LANE_MAIN);
	hand_say(h, S_PAGE_MAP_2, LANE_MAIN);
	hand_say(h, S_PAGE_MAP_LAST, LANE_MAIN);
	(void)hand_want_message(h, ENGINE_ARMED, 0);
	run(h);
}

static void send_pages(struct hand *h)
{
	hand_write(h, LANE_MULTIFD_0, 0, 8 * HAND_PAGE);
	hand_say(h, S_PAGES, LANE_MULTIFD_0);
	hand_say(h, S_ZERO, LANE_MULTIFD_1);
	(void)hand_want_message(h, ENGINE_COMPLETE, 0);
	hand_say(h, S_COMPLETED, LANE_MAIN);
}

static void bulk(struct hand *h)
{
	h->staged = true;
	open_lane(h, LANE_MULTIFD_0);
	open_lane(h, LANE_MULTIFD_1);
	hand_say(h, S_BULK, LANE_MAIN);
}

/* The connection is lost with everything lacking, and comes again. */
static void come_again(struct hand *h, int fd)
{
	unsigned asked;

	hand_come_again(h, fd);
	h->resuming = true;
	h->epoch += 10;
	asked = h->asked;
	memset(h->heard_frame, 0, sizeof(h->heard_frame));
	memset(h->heard_message, 0, sizeof(h->heard_message));
	handshake(h);
	open_essential(h);
	open_lane(h, LANE_PREEMPT);
	hand_say(h, S_RESUME, LANE_MAIN);
	(void)hand_want_message(h, ENGINE_RUNNING, 0);
	(void)hand_want_message(h, ENGINE_PAGE_MAP, 2);
	answer_requests(h, asked);
	send_pages(h);
}

int hand_source(struct hand *h, enum hand_script script, int second_fd)
{
	h->on_message = note_request;
	handshake(h);
	open_essential(h);
	round_of_precopy(h);
	if (script == SCRIPT_PRECOPY) {
		seal(h);
		run(h);
	} else {
		switch_to_postcopy(h);
	}
	if (script == SCRIPT_POSTCOPY) {
		answer_requests(h, 0);
		bulk(h);
		send_pages(h);
	}
	if (script == SCRIPT_RESUME && !h->over) {
		h->staged = true;
		come_again(h, second_fd);
		second_fd = -1;
	}
	goodbye(h);
	return second_fd;
}
