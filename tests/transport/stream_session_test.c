/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream_session_test.c -- streams and their session: how they are opened, end with it, and go on in
 * a resumed one; and what a peer may not send.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fabrics/fault/fault.h"
#include "tests/transport/stream_end.h"
#include "tests/transport/stream_pair.h"
#include "transport/session.h"

/* A relay of which nobody moves the socket: it sleeps until its session ends. */
struct sleeper {
	struct via_stream *st;
	int rc;
	pthread_t thread;
};

static void *sleep_in_wait(void *arg)
{
	struct sleeper *s = arg;

	while ((s->rc = via_stream_wait(s->st, VIA_NEVER, NULL, 0)) >= 0)
		;
	return NULL;
}

static void sleep_on_both(struct sleeper *s, const struct stream_ends *e)
{
	s[0].st = e->source;
	s[1].st = e->destination;
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&s[i].thread, NULL, sleep_in_wait, &s[i]), 0);
}

static void expect_end(struct sleeper *s, int code)
{
	size_t cap;

	for (unsigned i = 0; i < 2; i++) {
		pthread_join(s[i].thread, NULL);
		cr_assert_eq(s[i].rc, code, "side %u: %s", i, via_err_name(s[i].rc));
		cr_assert_eq(via_stream_wait(s[i].st, VIA_NEVER, NULL, 0), code, "and stays so");
		if (via_stream_buffer(s[i].st, &cap))
			cr_assert_eq(via_stream_send(s[i].st, 1, NULL, 0), code);
	}
}

static unsigned fabric_index[] = {0, 1, 2, 3, 4, 5};

ParameterizedTestParameters(stream_session, an_abort_ends_every_wait)
{
	return cr_make_param_array(unsigned, fabric_index, STREAM_FABRICS);
}

ParameterizedTest(unsigned *i, stream_session, an_abort_ends_every_wait, .timeout = 120)
{
	for (unsigned side = 0; side < 2; side++) {
		struct stream_pair p = {.fabric = stream_fabric(*i)};
		struct sleeper s[2][2];
		struct stream_ends e;
		struct stream_end from;

		stream_pair_open(&p);
		e = stream_pair_stream(&p, VIA_MULTIFD, 1);
		from = (struct stream_end){.st = e.source, .total = UINT64_MAX};
		while (stream_send_some(&from, SIZE_MAX)) /* with work under way */
			;
		sleep_on_both(s[0], &e);
		e = stream_pair_stream(&p, VIA_PREEMPT, 0);
		sleep_on_both(s[1], &e);
		via_session_abort(side ? p.destination : p.source, NULL);
		for (unsigned k = 0; k < 2; k++)
			expect_end(s[k], -ECANCELED);
		stream_pair_close(&p);
	}
}

Test(stream_session, a_lost_session_ends_and_is_resumed, .timeout = 120)
{
	struct via_resume source, destination;
	struct stream_pair p = {0};
	struct sleeper s[2];
	struct stream_ends e;

	stream_pair_open(&p);
	for (unsigned i = 0; i < 3; i++) {
		struct stream_end from, to;

		e = stream_pair_stream(&p, VIA_MAIN, 0);
		from = (struct stream_end){.st = e.source, .total = 500000};
		to = (struct stream_end){.st = e.destination, .total = 50000};
		stream_play(&from, &to, SIZE_MAX);
		e = stream_pair_stream(&p, VIA_PREEMPT, i % PAIR_PREEMPT);
		sleep_on_both(s, &e);
		cr_assert_eq(shutdown(p.cut_fd, SHUT_RDWR), 0);
		expect_end(s, -ECONNRESET);
		via_session_resume_point(p.source, &source);
		via_session_resume_point(p.destination, &destination);
		cr_assert_eq(memcmp(source.id, destination.id, sizeof(source.id)), 0);
		cr_assert_geq(source.epoch, i + 1);
		stream_pair_close(&p);
		p = (struct stream_pair){.resumes = &source, .waits_for = &destination};
		stream_pair_open(&p);
	}
	stream_pair_close(&p);
}

Test(stream_session, a_stranger_resumes_nothing, .timeout = 120)
{
	static const struct via_resume known = {.id = {1, 2, 3}, .epoch = 4};
	struct via_resume other = known;
	struct stream_pair p = {.waits_for = &known};

	cr_assert_not(stream_pair_try(&p), "a new one");
	cr_assert_eq(p.source_err.code, -EEXIST);
	stream_pair_close(&p);
	other.id[0] ^= 1;
	p = (struct stream_pair){.resumes = &other, .waits_for = &known};
	cr_assert_not(stream_pair_try(&p));
	cr_assert_eq(p.source_err.code, -EEXIST);
	stream_pair_close(&p);
}

/* A peer that closes while streams have not ended is told apart from one that is done. */
Test(stream_session, a_peer_that_leaves_ends_the_streams, .timeout = 120)
{
	struct stream_pair p = {0};
	struct sleeper s;
	struct stream_ends e;

	stream_pair_open(&p);
	e = stream_pair_stream(&p, VIA_MAIN, 0);
	s = (struct sleeper){.st = e.destination};
	cr_assert_eq(pthread_create(&s.thread, NULL, sleep_in_wait, &s), 0);
	via_session_close(p.source);
	p.source = NULL;
	pthread_join(s.thread, NULL);
	cr_assert_eq(s.rc, -ECONNRESET, "%s", via_err_name(s.rc));
	stream_pair_close(&p);
}

/* -- opening ------------------------------------------------------------------------------- */

Test(stream_session, channels_are_opened_at_any_time, .timeout = 120)
{
	struct via_wait soon = {.deadline_ns = 1, .cancel_fd = -1};
	struct via_wait canceled = {.deadline_ns = VIA_NEVER, .cancel_fd = eventfd(1, EFD_CLOEXEC)};
	struct stream_pair p = {0};
	struct via_stream *st;
	struct via_error err = {0};
	struct stream_ends e;
	struct stream_end from, to;

	stream_pair_open(&p);
	cr_assert_eq(via_stream_accept(p.destination, &soon, &st, &err), -ETIMEDOUT);
	cr_assert_eq(via_stream_accept(p.destination, &canceled, &st, NULL), -ECANCELED);
	cr_assert_eq(via_stream_open(p.source, VIA_MULTIFD, PAIR_MULTIFD, &st, NULL), -ERANGE);
	cr_assert_eq(via_stream_open(p.source, VIA_PREEMPT, PAIR_PREEMPT, &st, NULL), -ERANGE);
	e = stream_pair_stream(&p, VIA_MULTIFD, 5);
	from = (struct stream_end){.st = e.source, .total = 300000};
	to = (struct stream_end){.st = e.destination};
	(void)stream_send_some(&from, SIZE_MAX);
	cr_assert_eq(via_stream_open(p.source, VIA_MULTIFD, 5, &st, &err), -EEXIST);
	(void)stream_pair_stream(&p, VIA_MULTIFD, 0);
	(void)stream_pair_stream(&p, VIA_PREEMPT, 1);
	(void)stream_pair_stream(&p, VIA_MAIN, 0);
	stream_play(&from, &to, SIZE_MAX);
	cr_assert_eq(via_stream_accept(p.destination, &soon, &st, NULL), -ETIMEDOUT);
	close(canceled.cancel_fd);
	stream_pair_close(&p);
}

/* Main first, as far as it is there. */
Test(stream_session, channels_are_accepted_in_their_order, .timeout = 120)
{
	static const struct {
		enum via_channel_kind kind;
		unsigned index;
	} open[] = {{VIA_PREEMPT, 1}, {VIA_MULTIFD, 4}, {VIA_MULTIFD, 2}, {VIA_MAIN, 0}};
	struct via_wait wait = {.deadline_ns = via_deadline_in(STREAM_PATIENCE_NS),
				.cancel_fd = -1};
	struct via_stream *st;
	struct stream_pair p = {0};

	stream_pair_open(&p);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(via_stream_open(p.source, open[i].kind, open[i].index, &st, NULL), 0);
		cr_assert_eq(
			via_session_wait_channel(p.destination, open[i].kind, open[i].index, NULL),
			0);
	}
	for (unsigned i = 4; i-- > 0;) {
		cr_assert_eq(via_stream_accept(p.destination, &wait, &st, NULL), 0);
		cr_assert_eq(via_stream_kind(st), open[i].kind);
		cr_assert_eq(via_stream_index(st), open[i].index);
	}
	stream_pair_close(&p);
}

/*
 * Whichever set-up call fails of those before both are ready: two endpoints, connected, with three
 * registrations each, and a key.
 */
Test(stream_session, a_channel_that_cannot_be_opened_spares_the_others, .timeout = 120)
{
	for (unsigned n = 1; n <= 11; n++) {
		char fabric[64];
		struct stream_pair p = {.fabric = fabric};
		struct via_error err = {0};
		struct stream_end from, to;
		struct via_stream *st;
		struct stream_ends e;

		via_fault_reset();
		snprintf(fabric, sizeof(fabric), "fault+sim:stream,fault-call=%u", n);
		stream_pair_open(&p);
		cr_assert_lt(via_stream_open(p.source, VIA_MULTIFD, 0, &st, &err), 0, "call %u", n);
		cr_assert(err.code && err.what[0]);
		e = stream_pair_stream(&p, VIA_MAIN, 0);
		from = (struct stream_end){.st = e.source, .total = 100000};
		to = (struct stream_end){.st = e.destination, .total = 1000};
		stream_play(&from, &to, SIZE_MAX);
		stream_pair_close(&p);
	}
	via_fault_reset();
}

/* Who waits for a channel learns that there will be none. */
Test(stream_session, a_lost_session_ends_the_wait_for_a_channel, .timeout = 120)
{
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	struct stream_pair p = {0};
	struct via_error err = {0};
	struct via_stream *st;

	stream_pair_open(&p);
	via_session_abort(p.source, NULL);
	cr_assert_eq(via_stream_accept(p.destination, &wait, &st, &err), -ECANCELED);
	cr_assert(err.what[0]);
	cr_assert_eq(via_stream_open(p.source, VIA_MAIN, 0, &st, NULL), -ECANCELED);
	stream_pair_close(&p);
}

Test(stream_session, both_sides_have_streams_or_none, .timeout = 120)
{
	struct stream_pair p = {.source_has_region = true};
	struct via_stream *st;

	cr_assert_not(stream_pair_try(&p));
	cr_assert_eq(p.source_err.code, -EPROTO);
	cr_assert(strstr(p.source_err.seen, "the source sends guest RAM"), "%s", p.source_err.seen);
	stream_pair_close(&p);
	p = (struct stream_pair){.destination_expects_region = true};
	cr_assert_not(stream_pair_try(&p));
	cr_assert_eq(p.source_err.code, -EPROTO);
	cr_assert(strstr(p.destination_err.seen, "the source sends streams"), "%s",
		  p.destination_err.seen);
	stream_pair_close(&p);
	p = (struct stream_pair){.source_has_region = true, .destination_expects_region = true};
	stream_pair_open(&p);
	cr_assert_eq(via_stream_open(p.source, VIA_MAIN, 0, &st, NULL), -EINVAL);
	cr_assert_eq(via_stream_accept(p.destination, &(struct via_wait){VIA_NEVER, -1}, &st, NULL),
		     -EINVAL);
	stream_pair_close(&p);
}

/* -- what a peer may not send -------------------------------------------------------------- */

#define SLOT_LEN(n) (uint8_t)((n) >> 24), (uint8_t)((n) >> 16), (uint8_t)((n) >> 8), (uint8_t)(n)

static const struct bad_message {
	const char *what;
	unsigned channel; /* of stream_channels[] */
	bool to_source;
	uint8_t flags;
	struct {
		uint8_t type, len, payload[12];
	} message[2]; /* the last one is wrong */
} bad[] = {
	{"no prefix", 0, false, 0, {{VIA_MESSAGE_STREAM, 0, {0}}}},
	{"half a prefix", 0, false, 0, {{VIA_MESSAGE_STREAM, 3, {0}}}},
	{"no byte", 0, false, 0, {{VIA_MESSAGE_STREAM, 4, {0}}}},
	{"more than a slot of main",
	 0,
	 false,
	 0,
	 {{VIA_MESSAGE_STREAM, 4, {SLOT_LEN(VIA_STREAM_MAIN_SLOT + 1)}}}},
	{"more than a slot of multifd",
	 1,
	 false,
	 0,
	 {{VIA_MESSAGE_STREAM, 6, {SLOT_LEN(VIA_STREAM_MULTIFD_SLOT + 1), 1, 2}}}},
	{"all the slots there can be",
	 1,
	 false,
	 0,
	 {{VIA_MESSAGE_STREAM, 4, {SLOT_LEN(UINT32_MAX)}}}},
	{"a slot where there is none", 2, false, 0, {{VIA_MESSAGE_STREAM, 5, {SLOT_LEN(1u), 1}}}},
	{"a slot at the source", 1, true, 0, {{VIA_MESSAGE_STREAM, 5, {SLOT_LEN(1u), 1}}}},
	{"a fragment", 0, false, VIA_MESSAGE_MORE, {{VIA_MESSAGE_STREAM, 5, {SLOT_LEN(0u), 1}}}},
	{"a fragment of an end",
	 0,
	 true,
	 VIA_MESSAGE_MORE,
	 {{VIA_MESSAGE_STREAM_END, 5, {0, 3, 'E', 'I', 'O'}}}},
	{"bytes behind the end",
	 1,
	 false,
	 0,
	 {{VIA_MESSAGE_STREAM_END, 2, {0}}, {VIA_MESSAGE_STREAM, 5, {SLOT_LEN(0u), 1}}}},
	{"two ends",
	 2,
	 true,
	 0,
	 {{VIA_MESSAGE_STREAM_END, 2, {0}}, {VIA_MESSAGE_STREAM_END, 2, {0}}}},
	{"an end without a name", 0, false, 0, {{VIA_MESSAGE_STREAM_END, 0, {0}}}},
	{"an end with half a name", 0, false, 0, {{VIA_MESSAGE_STREAM_END, 3, {0, 3, 'E'}}}},
	{"an end with more than a name",
	 0,
	 false,
	 0,
	 {{VIA_MESSAGE_STREAM_END, 6, {0, 3, 'E', 'I', 'O', 0}}}},
	{"a fence", 1, false, 0, {{VIA_MESSAGE_FENCE, 12, {1}}}},
	{"a seal", 0, false, 0, {{VIA_MESSAGE_SEAL, 8, {0, 0, 0, 0, 0, 0, 0, 1}}}},
	{"drained", 0, true, 0, {{VIA_MESSAGE_DRAINED, 10, {0, 0, 0, 0, 0, 0, 0, 1}}}},
	{"a message of an engine", 0, false, 0, {{VIA_MESSAGE_USER, 1, {0}}}},
};

#define NBAD (sizeof(bad) / sizeof(bad[0]))

/* Past via_stream_send(). */
static void send_raw(struct via_channel *ch, uint8_t type, uint8_t flags, const uint8_t *payload,
		     size_t len)
{
	struct via_message_header h = {.type = type, .flags = flags, .len = (uint32_t)len};
	uint8_t *buf = via_pool_get(&ch->tx);
	struct via_sge sge = {ch->tx_mr, buf, VIA_MESSAGE_HEADER_LEN + len};
	int rc;

	via_message_header_encode(&h, buf);
	memcpy(buf + VIA_MESSAGE_HEADER_LEN, payload, len);
	while ((rc = ch->ep->fab->ops->post_send(ch->ep, &sge, 1, buf, 0)) == -EAGAIN)
		expect_ok(channel_progress(ch));
	expect_ok(rc);
}

static void expect_refused(const struct bad_message *b)
{
	uint64_t deadline = via_deadline_in(STREAM_PATIENCE_NS);
	enum via_channel_kind kind = stream_channels[b->channel].kind;
	unsigned index = stream_channels[b->channel].index;
	struct stream_pair p = {0};
	struct via_channel *from;
	struct via_stream *to;
	struct stream_ends e;
	int rc;

	stream_pair_open(&p);
	e = stream_pair_stream(&p, kind, index);
	from = session_channel(b->to_source ? p.destination : p.source, kind, index);
	to = b->to_source ? e.source : e.destination;
	for (unsigned k = 0; k < 2 && b->message[k].type; k++)
		send_raw(from, b->message[k].type, b->flags, b->message[k].payload,
			 b->message[k].len);
	while ((rc = via_stream_wait(to, 0, NULL, 0)) >= 0) {
		(void)channel_progress(from);
		cr_assert_not(via_deadline_passed(deadline), "%s: it is taken", b->what);
	}
	cr_assert_eq(rc, -EPROTO, "%s: %s", b->what, via_err_name(rc));
	cr_assert_eq(via_session_failure(b->to_source ? p.source : p.destination, NULL), -EPROTO);
	stream_pair_close(&p);
}

Test(stream_session, what_is_malformed_ends_the_session, .timeout = 120)
{
	for (unsigned i = 0; i < NBAD; i++)
		expect_refused(&bad[i]);
}

static uint64_t below(uint64_t n)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005u + 1442695040888963407u;
	return (state >> 33) % n;
}

/* A random message: most are well-formed. What is said to be in a slot is whatever is there. */
static void send_random(struct via_channel *from)
{
	static const uint8_t types[] = {VIA_MESSAGE_STREAM, VIA_MESSAGE_STREAM,
					VIA_MESSAGE_STREAM, VIA_MESSAGE_STREAM_END,
					VIA_MESSAGE_FENCE,  VIA_MESSAGE_USER};
	uint8_t payload[64], type = types[below(below(8) ? 3 : sizeof(types))];
	size_t len = 4 + below(sizeof(payload) - 3);

	for (size_t i = 0; i < len; i++)
		payload[i] = (uint8_t)below(256);
	via_stream_prefix_encode((uint32_t)below(below(16) ? VIA_STREAM_MAIN_SLOT + 1 : UINT32_MAX),
				 payload);
	if (type == VIA_MESSAGE_STREAM_END && below(2))
		memcpy(payload, "\0\3EIO", len = 5);
	send_raw(from, type, below(64) ? 0 : VIA_MESSAGE_MORE, payload, below(32) ? len : below(4));
}

Test(stream_session, random_messages_are_read_or_refused, .timeout = 120)
{
	for (unsigned round = 0; round < 400; round++) {
		struct stream_pair p = {.fabric = "sim:stream,delay=1"};
		struct stream_ends e;
		struct via_channel *from;
		volatile uint8_t sum = 0;
		int rc = 0;

		stream_pair_open(&p);
		e = stream_pair_stream(&p, VIA_MAIN, 0);
		from = session_channel(p.source, VIA_MAIN, 0);
		for (unsigned i = 0; i < VIA_STREAM_SLOTS && rc >= 0; i++) {
			const uint8_t *data;
			size_t len;

			send_random(from);
			(void)channel_progress(from);
			rc = via_stream_wait(e.destination, 0, NULL, 0);
			while (rc >= 0 && below(4) &&
			       (data = via_stream_data(e.destination, &len))) {
				for (size_t k = 0; k < len; k++)
					sum = (uint8_t)(sum + data[k]);
				rc = via_stream_consume(e.destination, 1 + below(len));
			}
		}
		cr_assert(rc >= 0 || rc == -EPROTO, "%s", via_err_name(rc));
		stream_pair_close(&p);
	}
}

/* Messages without a credit for them are no way around the bound. */
Test(stream_session, more_messages_than_credits_end_the_session, .timeout = 120)
{
	static const uint8_t byte[] = {0, 0, 0, 0, 1};
	struct stream_pair p = {0};
	struct via_channel *from;
	struct stream_ends e;
	int rc;

	stream_pair_open(&p);
	e = stream_pair_stream(&p, VIA_PREEMPT, 0);
	from = session_channel(p.source, VIA_PREEMPT, 0);
	for (unsigned i = 0; i <= VIA_STREAM_MESSAGES; i++) {
		while (!from->tx.nfree)
			expect_ok(channel_progress(from));
		send_raw(from, VIA_MESSAGE_STREAM, 0, byte, sizeof(byte));
	}
	while ((rc = via_stream_wait(e.destination, 0, NULL, 0)) >= 0)
		(void)channel_progress(from);
	cr_assert_eq(rc, -EPROTO, "%s", via_err_name(rc));
	stream_pair_close(&p);
}
