/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * handshake_test.c -- channels opened in every order, and channels that must be refused.
 *
 * The orders are opened by a real source. The refusals are provoked by a source made by hand,
 * which speaks the control connection's messages itself and connects endpoints, or does not, as
 * each case wants. After each refusal the same session takes a good channel, and the
 * process a whole new session.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buffer.h"
#include "core/clock.h"
#include "fabrics/fabric.h"
#include "tests/transport/session_pair.h"
#include "transport/session.h"

#define FABRIC "sim:handshake,delay=3"

/* -- every order ------------------------------------------------------------------ */

static int write_all(void *arg, unsigned channel, struct via_batch *batch)
{
	_Atomic bool *done = arg;

	(void)channel;
	if (atomic_exchange(done, true))
		return 0;
	batch->nruns = 1;
	batch->run[0] = (struct via_run){.region = 0, .off = 0, .len = PAIR_MEMORY_LEN};
	return 1;
}

/* Open n channels, main (0) and multifd (1 ...), in @order, and carry the memory over. */
static void run_order(const unsigned *order, unsigned n, bool one_by_one)
{
	struct destination d = {.fabric = FABRIC};
	struct via_session_config config = {.fabric = FABRIC, .multifd = n - 1};
	uint8_t *memory = via_pages_alloc(PAIR_MEMORY_LEN);
	struct via_region region = {
		.desc = {.name = "ram", .len = PAIR_MEMORY_LEN, .page_size = 4096}, .addr = memory};
	_Atomic bool done = false;
	struct via_work work = {.arg = &done, .next = write_all};
	struct via_error err = {0};
	struct via_control *control;
	struct via_session *s;

	memset(memory, 0x5a, PAIR_MEMORY_LEN);
	cr_assert_eq(via_control_wrap(destination_start(&d), &control, &err), 0);
	cr_assert_eq(via_session_connect_control(control, &config, &region, 1, -1, &s, &err), 0,
		     "%s: %s", err.what, err.seen);
	for (unsigned i = 0; i < n; i++) {
		unsigned kind = order[i] ? VIA_MULTIFD : VIA_MAIN,
			 index = order[i] ? order[i] - 1 : 0;

		cr_assert_eq(via_session_open_channel(s, kind, index, &err), 0, "%s: %s", err.what,
			     err.seen);
		if (one_by_one)
			cr_assert_eq(via_session_wait_channel(s, kind, index, &err), 0);
	}
	cr_assert_eq(via_session_wait_channel(s, VIA_CHANNEL_ESSENTIAL, 0, &err), 0, "%s: %s",
		     err.what, err.seen);
	cr_assert_eq(via_session_start_senders(s, &err), 0);
	cr_assert_eq(via_round_start(s, &work, &err), 0);
	cr_assert_eq(via_round_drain(s, via_deadline_in(20 * VIA_NS_PER_S), &err), 0, "%s: %s",
		     err.what, err.seen);
	cr_assert_eq(memcmp(memory, d.memory, PAIR_MEMORY_LEN), 0, "the memory must have arrived");
	cr_assert_eq(via_main_send(s, PAIR_MESSAGE_END, NULL, 0, &err), 0);
	via_session_close(s);
	destination_join(&d);
	cr_assert_eq(d.end_error.code, 0, "%s: %s", d.end_error.what, d.end_error.seen);
	via_pages_free(memory, PAIR_MEMORY_LEN);
}

/* Heap's algorithm. Returns how many orders there were. */
static unsigned permute(unsigned *order, unsigned k, unsigned n)
{
	unsigned count = 0;

	if (k == 1) {
		run_order(order, n, (order[0] + order[n - 1]) % 2);
		return 1;
	}
	for (unsigned i = 0; i < k; i++) {
		unsigned other = k % 2 ? 0 : i, swap;

		count += permute(order, k - 1, n);
		swap = order[other];
		order[other] = order[k - 1];
		order[k - 1] = swap;
	}
	return count;
}

Test(handshake, every_order_of_up_to_six_channels_works)
{
	static const unsigned factorial[] = {1, 1, 2, 6, 24, 120, 720};

	for (unsigned n = 2; n <= 6; n++) {
		unsigned order[6] = {0, 1, 2, 3, 4, 5};

		cr_assert_eq(permute(order, n, n), factorial[n]);
	}
}

Test(handshake, random_orders_of_many_channels_work)
{
	unsigned order[24], seed = 1;

	for (unsigned round = 0; round < 20; round++) {
		unsigned n = 7 + (unsigned)rand_r(&seed) % 18;

		for (unsigned i = 0; i < n; i++)
			order[i] = i;
		for (unsigned i = n - 1; i > 0; i--) {
			unsigned j = (unsigned)rand_r(&seed) % (i + 1), swap = order[i];

			order[i] = order[j];
			order[j] = swap;
		}
		run_order(order, n, round % 2);
	}
}

/* -- a source made by hand --------------------------------------------------------- */

struct hand {
	struct destination d;
	struct via_control *control;
	struct via_fabric *fab;
	uint8_t session_id[VIA_SESSION_ID_LEN];
	uint64_t epoch;
};

static const uint8_t nonce[VIA_NONCE_LEN] = {1, 2, 3, 4, 5, 6, 7, 8};

static void hand_post(struct hand *h, uint16_t type, const void *buf, ssize_t n)
{
	cr_assert_geq(n, 0);
	cr_assert_eq(via_control_post(h->control, type, buf, (size_t)n), 0);
}

/* The next frame that is neither PING nor PONG. */
static uint16_t hand_receive(struct hand *h, struct via_control_frame *frame)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(10 * VIA_NS_PER_S), .cancel_fd = -1};
	struct via_error err = {0};

	do {
		int rc = via_control_receive(h->control, &wait, frame, &err);

		cr_assert_eq(rc, 0, "%s %s: %s", via_err_name(rc), err.what, err.seen);
	} while (frame->type == VIA_CONTROL_PING || frame->type == VIA_CONTROL_PONG);
	return frame->type;
}

static void hand_start(struct hand *h, unsigned multifd, uint64_t handshake_ns)
{
	static struct via_hello hello;
	static struct via_setup setup;
	static uint8_t buf[65536];
	struct via_fabric_spec spec;
	struct via_control_frame frame;
	struct via_error err = {0};

	memset(h, 0, sizeof(*h));
	h->d.fabric = FABRIC;
	h->d.handshake_ns = handshake_ns;
	h->epoch = 5;
	memset(h->session_id, 7, sizeof(h->session_id));
	cr_assert_eq(via_control_wrap(destination_start(&h->d), &h->control, &err), 0);
	cr_assert_eq(via_fabric_spec_parse(FABRIC, &spec, &err), 0);
	cr_assert_eq(via_fabric_open(&spec, &h->fab, &err), 0);
	hello = (struct via_hello){.version_min = VIA_PROTOCOL_VERSION,
				   .version_max = VIA_PROTOCOL_VERSION,
				   .role = VIA_ROLE_SOURCE,
				   .program = "by hand",
				   .noffers = 1,
				   .offer = {{.kind = "sim:handshake"}}};
	memcpy(hello.session_id, h->session_id, sizeof(hello.session_id));
	hand_post(h, VIA_CONTROL_HELLO, buf, via_hello_encode(&hello, buf, sizeof(buf)));
	cr_assert_eq(hand_receive(h, &frame), VIA_CONTROL_HELLO);
	setup = (struct via_setup){
		.version = VIA_PROTOCOL_VERSION,
		.fabric = "sim:handshake",
		.multifd = (uint16_t)multifd,
		.slice_len = 1u << 30,
		.epoch = 1,
		.nregions = 1,
		.region = {{.name = "ram", .len = PAIR_MEMORY_LEN, .page_size = 4096}}};
	hand_post(h, VIA_CONTROL_SETUP, buf, via_setup_encode(&setup, buf, sizeof(buf)));
	cr_assert_eq(hand_receive(h, &frame), VIA_CONTROL_SETUP_OK);
}

static struct via_ep *hand_endpoint(struct hand *h)
{
	struct via_error err = {0};
	struct via_ep *ep;

	cr_assert_eq(h->fab->ops->ep_open(h->fab, VIA_EP_ACTIVE, &ep, &err), 0);
	return ep;
}

static void hand_open(struct hand *h, uint8_t kind, uint16_t index, uint64_t epoch,
		      struct via_ep *ep)
{
	uint8_t addr[VIA_ADDRESS_MAX], buf[2048];
	struct via_channel_open m = {.id = {.kind = kind, .index = index, .epoch = epoch},
				     .addr = addr};

	m.addr_len = (uint16_t)h->fab->ops->ep_address(ep, addr, sizeof(addr));
	memcpy(m.session_id, h->session_id, sizeof(m.session_id));
	memcpy(m.nonce, nonce, sizeof(m.nonce));
	hand_post(h, VIA_CONTROL_CHANNEL_OPEN, buf, via_channel_open_encode(&m, buf, sizeof(buf)));
}

/* Wait for ADDR and connect with @with. Returns what ep_connect() said. */
static int hand_connect(struct hand *h, struct via_ep *ep, const uint8_t *with)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(5 * VIA_NS_PER_S), .cancel_fd = -1};
	struct via_control_frame frame;
	struct via_channel_addr m;
	struct via_error err = {0};

	cr_assert_eq(hand_receive(h, &frame), VIA_CONTROL_CHANNEL_ADDR);
	cr_assert_eq(via_channel_addr_decode(frame.payload, frame.len, &m), 0);
	return h->fab->ops->ep_connect(ep, m.addr, m.addr_len, with, &wait, &err);
}

/* Open one channel as it should be. The endpoint is closed with the fabric's end of life. */
static struct via_ep *hand_open_well(struct hand *h, uint8_t kind, uint16_t index, uint64_t epoch)
{
	struct via_channel_ready m = {.id = {.kind = kind, .index = index, .epoch = epoch},
				      .credits = 8,
				      .msg_len = CHANNEL_MESSAGE_LEN};
	struct via_ep *ep = hand_endpoint(h);
	struct via_control_frame frame;
	uint8_t buf[2048];

	hand_open(h, kind, index, epoch, ep);
	cr_assert_eq(hand_connect(h, ep, nonce), 0);
	hand_post(h, VIA_CONTROL_CHANNEL_READY, buf,
		  via_channel_ready_encode(&m, buf, sizeof(buf)));
	cr_assert_eq(hand_receive(h, &frame), VIA_CONTROL_CHANNEL_READY);
	return ep;
}

static void expect_refused(struct hand *h, uint8_t kind, uint16_t index, int code, const char *says)
{
	struct via_channel_refused m;
	struct via_control_frame frame;

	cr_assert_eq(hand_receive(h, &frame), VIA_CONTROL_CHANNEL_REFUSED);
	cr_assert_eq(via_channel_refused_decode(frame.payload, frame.len, &m), 0);
	cr_assert_eq(m.id.kind, kind);
	cr_assert_eq(m.id.index, index);
	cr_assert_eq(m.error.code, code, "%s: %s: %s", via_err_name(m.error.code), m.error.what,
		     m.error.seen);
	cr_assert(strstr(m.error.seen, says) || strstr(m.error.what, says),
		  "\"%s: %s\" should say \"%s\"", m.error.what, m.error.seen, says);
	cr_assert(m.error.remedy[0], "a refusal says what to do");
}

/* The session is as good as ever: open @kind @index; and so is the process: a new session. */
static void still_usable(struct hand *h, uint8_t kind, uint16_t index, uint64_t epoch)
{
	static const unsigned order[] = {1, 0, 2};
	struct via_ep *ep = hand_open_well(h, kind, index, epoch);

	h->fab->ops->ep_close(ep);
	run_order(order, 3, false);
}

/* The destination waits for channels that will not come: end it. */
static void hand_finish(struct hand *h)
{
	via_control_close(h->control);
	destination_join(&h->d);
	h->fab->ops->close(h->fab);
}

Test(handshake, duplicate_channel_is_refused)
{
	struct via_ep *ep, *again;
	struct hand h;

	hand_start(&h, 2, 5 * VIA_NS_PER_S);
	ep = hand_open_well(&h, VIA_MULTIFD, 1, h.epoch);
	again = hand_endpoint(&h);
	hand_open(&h, VIA_MULTIFD, 1, h.epoch, again);
	expect_refused(&h, VIA_MULTIFD, 1, -EEXIST, "open already");
	hand_open(&h, VIA_MULTIFD, 1, h.epoch + 1, again);
	expect_refused(&h, VIA_MULTIFD, 1, -EEXIST, "open since epoch 5");
	still_usable(&h, VIA_MAIN, 0, h.epoch);
	h.fab->ops->ep_close(again);
	h.fab->ops->ep_close(ep);
	hand_finish(&h);
}

Test(handshake, channel_of_an_old_epoch_is_refused)
{
	struct via_ep *ep, *old;
	struct hand h;

	hand_start(&h, 2, 5 * VIA_NS_PER_S);
	ep = hand_open_well(&h, VIA_MULTIFD, 0, h.epoch);
	old = hand_endpoint(&h);
	hand_open(&h, VIA_MULTIFD, 0, h.epoch - 1, old);
	expect_refused(&h, VIA_MULTIFD, 0, -ESTALE, "it was open in epoch 5");
	still_usable(&h, VIA_MULTIFD, 1, h.epoch);
	h.fab->ops->ep_close(old);
	h.fab->ops->ep_close(ep);
	hand_finish(&h);
}

Test(handshake, wrong_nonce_is_refused)
{
	uint8_t wrong[VIA_NONCE_LEN] = {9};
	struct via_ep *ep;
	struct hand h;

	hand_start(&h, 1, 5 * VIA_NS_PER_S);
	ep = hand_endpoint(&h);
	hand_open(&h, VIA_MAIN, 0, h.epoch, ep);
	cr_assert_neq(hand_connect(&h, ep, wrong), 0);
	expect_refused(&h, VIA_MAIN, 0, -EACCES, "nonce");
	h.fab->ops->ep_close(ep);
	/* This epoch is used up for main, the next is not. */
	ep = hand_endpoint(&h);
	hand_open(&h, VIA_MAIN, 0, h.epoch, ep);
	expect_refused(&h, VIA_MAIN, 0, -ESTALE, "epoch 5");
	h.fab->ops->ep_close(ep);
	still_usable(&h, VIA_MAIN, 0, h.epoch + 1);
	hand_finish(&h);
}

Test(handshake, channel_of_another_session_is_refused)
{
	struct via_ep *ep;
	struct hand h;

	hand_start(&h, 1, 5 * VIA_NS_PER_S);
	ep = hand_endpoint(&h);
	h.session_id[3] ^= 1;
	hand_open(&h, VIA_MAIN, 0, h.epoch, ep);
	expect_refused(&h, VIA_MAIN, 0, -EACCES, "another session");
	h.session_id[3] ^= 1;
	h.fab->ops->ep_close(ep);
	still_usable(&h, VIA_MAIN, 0, h.epoch);
	hand_finish(&h);
}

Test(handshake, channel_that_was_not_announced_is_refused)
{
	struct via_ep *ep;
	struct hand h;

	hand_start(&h, 2, 5 * VIA_NS_PER_S);
	ep = hand_endpoint(&h);
	hand_open(&h, VIA_MULTIFD, 2, h.epoch, ep);
	expect_refused(&h, VIA_MULTIFD, 2, -ERANGE, "2 multifd");
	hand_open(&h, VIA_PREEMPT, 0, h.epoch, ep);
	expect_refused(&h, VIA_PREEMPT, 0, -ERANGE, "0 preempt");
	h.fab->ops->ep_close(ep);
	still_usable(&h, VIA_MULTIFD, 1, h.epoch);
	hand_finish(&h);
}

Test(handshake, malformed_address_is_refused)
{
	uint8_t addr[] = "not an address", buf[2048];
	struct via_channel_open m = {
		.id = {.kind = VIA_MAIN, .epoch = 1}, .addr = addr, .addr_len = sizeof(addr)};
	struct via_control_frame frame;
	struct hand h;

	hand_start(&h, 1, 5 * VIA_NS_PER_S);
	memcpy(m.session_id, h.session_id, sizeof(m.session_id));
	hand_post(&h, VIA_CONTROL_CHANNEL_OPEN, buf, via_channel_open_encode(&m, buf, sizeof(buf)));
	cr_assert_eq(hand_receive(&h, &frame), VIA_CONTROL_CHANNEL_ADDR);
	expect_refused(&h, VIA_MAIN, 0, -EPROTO, "address");
	still_usable(&h, VIA_MAIN, 0, 2);
	hand_finish(&h);
}

Test(handshake, silent_channel_is_refused_at_its_deadline)
{
	uint64_t start = via_now_ns(), ns = 300 * VIA_NS_PER_MS;
	struct via_control_frame frame;
	struct via_ep *ep;
	struct hand h;

	hand_start(&h, 1, ns);
	ep = hand_endpoint(&h);
	hand_open(&h, VIA_MULTIFD, 0, h.epoch, ep);
	cr_assert_eq(hand_receive(&h, &frame), VIA_CONTROL_CHANNEL_ADDR);
	expect_refused(&h, VIA_MULTIFD, 0, -ETIMEDOUT, "deadline");
	cr_assert_lt(via_now_ns() - start, ns + 2 * VIA_NS_PER_S);
	still_usable(&h, VIA_MULTIFD, 0, h.epoch + 1);
	h.fab->ops->ep_close(ep);
	hand_finish(&h);
}

/* It connects, and never says READY. */
Test(handshake, half_open_channel_is_refused_at_its_deadline)
{
	struct via_control_frame frame;
	struct via_ep *ep;
	struct hand h;

	hand_start(&h, 1, 300 * VIA_NS_PER_MS);
	ep = hand_endpoint(&h);
	hand_open(&h, VIA_MULTIFD, 0, h.epoch, ep);
	cr_assert_eq(hand_connect(&h, ep, nonce), 0);
	cr_assert_eq(hand_receive(&h, &frame), VIA_CONTROL_CHANNEL_READY);
	expect_refused(&h, VIA_MULTIFD, 0, -ETIMEDOUT, "CHANNEL_READY");
	still_usable(&h, VIA_MULTIFD, 0, h.epoch + 1);
	h.fab->ops->ep_close(ep);
	hand_finish(&h);
}

Test(handshake, missing_channel_is_named_at_the_deadline)
{
	struct via_control_frame frame;
	struct via_error said;
	struct via_ep *ep[2];
	struct hand h;

	hand_start(&h, 2, 300 * VIA_NS_PER_MS);
	ep[0] = hand_open_well(&h, VIA_MULTIFD, 0, h.epoch);
	ep[1] = hand_open_well(&h, VIA_MAIN, 0, h.epoch);
	cr_assert_eq(hand_receive(&h, &frame), VIA_CONTROL_ERROR);
	cr_assert_eq(via_error_decode(frame.payload, frame.len, &said), 0);
	cr_assert_eq(said.code, -ETIMEDOUT);
	cr_assert(strstr(said.seen, "multifd 1"), "\"%s\" should name the channel", said.seen);
	h.fab->ops->ep_close(ep[0]);
	h.fab->ops->ep_close(ep[1]);
	hand_finish(&h);
	cr_assert_eq(h.d.channel_error.code, -ETIMEDOUT);
}

/* -- the source's side ---------------------------------------------------------------- */

Test(handshake, source_may_open_each_channel_once_an_epoch)
{
	struct destination d = {.fabric = FABRIC};
	struct via_session_config config = {.fabric = FABRIC, .multifd = 1};
	static uint8_t memory[PAIR_MEMORY_LEN] __attribute__((aligned(4096)));
	struct via_region region = {
		.desc = {.name = "ram", .len = PAIR_MEMORY_LEN, .page_size = 4096}, .addr = memory};
	struct via_error err = {0};
	struct via_control *control;
	struct via_session *s;

	cr_assert_eq(via_control_wrap(destination_start(&d), &control, &err), 0);
	cr_assert_eq(via_session_connect_control(control, &config, &region, 1, -1, &s, &err), 0);
	cr_assert_eq(via_session_open_channels(s, &err), 0);
	cr_assert_eq(via_session_open_channel(s, VIA_MAIN, 0, NULL), -EEXIST);
	cr_assert_eq(via_session_open_channel(s, VIA_MULTIFD, 1, NULL), -ERANGE);
	cr_assert_eq(via_session_open_channel(s, VIA_PREEMPT, 0, NULL), -ERANGE);
	cr_assert_eq(via_main_send(s, PAIR_MESSAGE_END, NULL, 0, &err), 0);
	via_session_close(s);
	destination_join(&d);
}
