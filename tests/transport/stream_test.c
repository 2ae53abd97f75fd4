/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream_test.c -- streams of bytes: in order and complete, both ways, bounded, with their ends;
 * and how their owners wait.
 *
 * All timeouts are the same: with different ones Criterion 2.4.1 leaks, which LeakSanitizer sees.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/transport/stream_end.h"
#include "tests/transport/stream_pair.h"

static unsigned fabric_index[] = {0, 1, 2, 3, 4, 5};

ParameterizedTestParameters(stream, bytes_arrive_in_order_both_ways)
{
	return cr_make_param_array(unsigned, fabric_index, STREAM_FABRICS);
}

ParameterizedTest(unsigned *i, stream, bytes_arrive_in_order_both_ways, .timeout = 120)
{
	struct stream_pair p = {.fabric = stream_fabric(*i)};

	stream_pair_open(&p);
	stream_seed(*i + 1);
	for (unsigned c = 0; c < STREAM_CHANNELS; c++) {
		struct stream_ends e =
			stream_pair_stream(&p, stream_channels[c].kind, stream_channels[c].index);
		struct stream_end source = {.st = e.source,
					    .total = stream_channels[c].slot_len * 100 + 300000};
		struct stream_end destination = {.st = e.destination, .total = 300000};

		stream_play(&source, &destination, SIZE_MAX);
		cr_assert_eq(source.status, 0);
		cr_assert_eq(destination.status, 0);
		cr_assert_null(via_stream_buffer(e.source, &(size_t){0}));
	}
	stream_pair_close(&p);
}

/* No byte at all is a stream as well; and so are single ones. */
Test(stream, short_streams, .timeout = 120)
{
	struct stream_pair p = {0};

	stream_pair_open(&p);
	for (unsigned i = 0; i < PAIR_MULTIFD; i++) {
		struct stream_ends e = stream_pair_stream(&p, VIA_MULTIFD, i);
		struct stream_end source = {.st = e.source, .total = i % 3};
		struct stream_end destination = {.st = e.destination, .total = i / 3};

		stream_play(&source, &destination, 1);
	}
	stream_pair_close(&p);
}

/* -- ends ---------------------------------------------------------------------------------- */

Test(stream, an_end_says_why_behind_all_bytes, .timeout = 120)
{
	static const int codes[] = {0,
#define X(code, scope, text) -(code),
				    VIA_ERROR_LIST(X)
#undef X
	};
	struct stream_pair p = {0};
	unsigned next = 0;

	while (next < sizeof(codes) / sizeof(codes[0])) {
		stream_pair_open(&p);
		for (unsigned i = 0; i < PAIR_MULTIFD && next < sizeof(codes) / sizeof(codes[0]);
		     i++) {
			struct stream_ends e = stream_pair_stream(&p, VIA_MULTIFD, i);
			struct stream_end source = {
				.st = e.source, .total = 50000, .finishes_with = codes[next]};
			struct stream_end destination = {.st = e.destination, .total = 5000};

			stream_play(&source, &destination, 9000);
			cr_assert_eq(destination.status, codes[next], "%s came for %s",
				     via_err_name(destination.status), via_err_name(codes[next]));
			cr_assert_eq(source.status, 0);
			cr_assert_eq(via_session_failure(p.source, NULL), 0, "one stream's end");
			next++;
		}
		stream_pair_close(&p);
	}
}

Test(stream, one_direction_ends_and_the_other_goes_on, .timeout = 120)
{
	struct stream_pair p = {0};
	struct stream_ends e;
	struct stream_end source, destination;
	uint64_t deadline = via_deadline_in(STREAM_PATIENCE_NS);

	stream_pair_open(&p);
	e = stream_pair_stream(&p, VIA_MAIN, 0);
	source = (struct stream_end){.st = e.source};
	destination = (struct stream_end){.st = e.destination, .total = 200000};
	expect_ok(via_stream_finish(e.source, -ECONNRESET));
	expect_ok(via_stream_finish(e.source, -EIO)); /* the first counts */
	cr_assert_null(via_stream_buffer(e.source, &(size_t){0}));
	cr_assert_eq(via_stream_send(e.source, 1, NULL, 0), -EINVAL);
	while (!via_stream_ended(e.destination, &destination.status)) {
		stream_poll(&source);
		stream_poll(&destination);
		cr_assert_not(via_deadline_passed(deadline));
	}
	cr_assert_eq(destination.status, -ECONNRESET);
	cr_assert_not(via_stream_done(e.source));
	cr_assert_not(via_stream_done(e.destination));
	stream_play(&source, &destination, SIZE_MAX);
	stream_pair_close(&p);
}

/* -- bounds -------------------------------------------------------------------------------- */

/* What a sender has at least when everything is consumed: less than half is not announced. */
#define LEAST_ROOM(bound) ((bound) / 2 + 1)

/* Messages from the source that can be there and not consumed. */
static unsigned bound_of(const struct stream_channel *c)
{
	return c->slot_len ? VIA_STREAM_SLOTS : VIA_STREAM_MESSAGES;
}

/*
 * Send messages of @len bytes until there is no room, however long one waits: @least of them, and
 * never more than @bound. How many.
 */
static unsigned send_until_full(struct stream_end *from, struct stream_end *to, size_t len,
				unsigned least, unsigned bound)
{
	uint64_t deadline = via_deadline_in(STREAM_PATIENCE_NS), quiet = VIA_NEVER;
	uint64_t consumed = to->received;
	unsigned sent = 0;
	size_t cap;
	uint8_t *buf;

	while (!via_deadline_passed(quiet)) {
		while ((buf = via_stream_buffer(from->st, &cap))) {
			cr_assert_geq(cap, len);
			stream_fill(buf, from->sent, len);
			expect_ok(via_stream_send(from->st, len, NULL, 0));
			from->sent += len;
			sent++;
			cr_assert_leq(from->sent - consumed, bound * len);
		}
		if (sent >= least && quiet == VIA_NEVER)
			quiet = via_deadline_in(20 * VIA_NS_PER_MS);
		stream_poll(from);
		stream_poll(to);
		cr_assert_not(via_deadline_passed(deadline), "%u of %u messages", sent, least);
	}
	return sent;
}

/* Consume one message of @len bytes. */
static void take_message(struct stream_end *e, size_t len)
{
	uint64_t before = e->received;

	while (e->received - before < len)
		cr_assert(stream_take_some(e, len - (e->received - before)));
}

ParameterizedTestParameters(stream, a_sender_stops_at_the_bound)
{
	return cr_make_param_array(unsigned, fabric_index, STREAM_FABRICS);
}

/* What the receiver has not consumed stays as it is; the other direction moves meanwhile. */
ParameterizedTest(unsigned *i, stream, a_sender_stops_at_the_bound, .timeout = 120)
{
	struct stream_pair p = {.fabric = stream_fabric(*i), .stall_ns = VIA_NS_PER_S};

	stream_pair_open(&p);
	for (unsigned c = 0; c < STREAM_CHANNELS; c++) {
		struct stream_ends e =
			stream_pair_stream(&p, stream_channels[c].kind, stream_channels[c].index);
		struct stream_end from = {.st = e.source}, to = {.st = e.destination};
		struct stream_end back_from = to, back_to = from;
		size_t len = stream_channels[c].slot_len ? stream_channels[c].slot_len
							 : VIA_STREAM_MESSAGE_LEN;
		unsigned bound = bound_of(&stream_channels[c]);

		cr_assert_eq(send_until_full(&from, &to, len, bound, bound), bound);
		for (unsigned k = 0; k < 200; k++) { /* many times what can be under way */
			uint64_t deadline = via_deadline_in(STREAM_PATIENCE_NS);

			back_from.total += 300;
			cr_assert(stream_send_some(&back_from, 300),
				  "held back by the other direction");
			back_from.total = back_from.sent;
			while (back_to.received < back_from.sent) {
				stream_poll(&from);
				stream_poll(&to);
				while (stream_take_some(&back_to, SIZE_MAX))
					;
				cr_assert_not(via_deadline_passed(deadline));
			}
		}
		cr_assert_null(via_stream_buffer(e.source, &(size_t){0}));
		for (unsigned k = 0; k < bound; k++)
			take_message(&to, len);
		(void)send_until_full(&from, &to, 1, LEAST_ROOM(bound), bound);
		while (to.received < from.sent)
			take_message(&to, 1);
		cr_assert_null(via_stream_data(e.destination, &len));
		(void)send_until_full(&back_from, &back_to, 2, LEAST_ROOM(VIA_STREAM_MESSAGES),
				      VIA_STREAM_MESSAGES);
		while (back_to.received < back_from.sent)
			take_message(&back_to, 2);
	}
	stream_pair_close(&p);
}

Test(stream, room_comes_back_as_bytes_are_consumed, .timeout = 120)
{
	struct stream_pair p = {0};
	struct stream_ends e;
	struct stream_end from, to;

	stream_pair_open(&p);
	e = stream_pair_stream(&p, VIA_MULTIFD, 0);
	from = (struct stream_end){.st = e.source};
	to = (struct stream_end){.st = e.destination};
	(void)send_until_full(&from, &to, 100000, VIA_STREAM_SLOTS, VIA_STREAM_SLOTS);
	for (unsigned k = 0; k < 10; k++) {
		for (unsigned i = 0; i < VIA_STREAM_SLOTS / 2; i++)
			take_message(&to, 100000);
		cr_assert_geq(send_until_full(&from, &to, 100000, 1, VIA_STREAM_SLOTS), 1);
	}
	stream_pair_close(&p);
}

Test(stream, what_cannot_be_sent_is_refused, .timeout = 120)
{
	static const uint8_t head[VIA_STREAM_MESSAGE_LEN + 1];
	struct stream_pair p = {0};

	stream_pair_open(&p);
	for (unsigned c = 0; c < STREAM_CHANNELS; c++) {
		struct via_stream *st =
			stream_pair_stream(&p, stream_channels[c].kind, stream_channels[c].index)
				.source;
		size_t cap;

		cr_assert_eq(via_stream_send(st, 1, NULL, 0), -EINVAL, "no buffer");
		cr_assert_not_null(via_stream_buffer(st, &cap));
		cr_assert_eq(cap, stream_channels[c].slot_len ? stream_channels[c].slot_len
							      : VIA_STREAM_MESSAGE_LEN);
		cr_assert_eq(via_stream_send(st, 0, NULL, 0), -EINVAL, "no byte");
		cr_assert_eq(via_stream_send(st, cap + 1, NULL, 0), -EMSGSIZE);
		cr_assert_eq(via_stream_send(st, SIZE_MAX, head, 1), -EMSGSIZE);
		cr_assert_eq(via_stream_send(st, 0, head, sizeof(head)), -EMSGSIZE);
		cr_assert_eq(via_stream_send(st, 1, head, sizeof(head) - 1),
			     stream_channels[c].slot_len ? 0 : -EMSGSIZE);
	}
	cr_assert_eq(via_session_failure(p.source, NULL), 0);
	stream_pair_close(&p);
}

/* -- waiting ------------------------------------------------------------------------------- */

ParameterizedTestParameters(stream, sockets_are_joined)
{
	return cr_make_param_array(unsigned, fabric_index, STREAM_FABRICS);
}

/* Two relays, each sleeping on a socket and on its end of the stream. */
ParameterizedTest(unsigned *i, stream, sockets_are_joined, .timeout = 120)
{
	struct stream_pair p = {.fabric = stream_fabric(*i)};
	static uint8_t buf[65536], back[512];
	struct stream_relay relay[2];
	struct stream_ends e;
	int a[2], b[2];

	stream_pair_open(&p);
	e = stream_pair_stream(&p, VIA_MAIN, 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
	stream_relay_start(&relay[0], e.source, a[1]);
	stream_relay_start(&relay[1], e.destination, b[1]);
	for (uint64_t at = 0; at < 40 * sizeof(buf); at += sizeof(buf)) {
		stream_fill(buf, at, sizeof(buf));
		cr_assert_eq(send(a[0], buf, sizeof(buf), 0), (ssize_t)sizeof(buf));
		memset(buf, 0, sizeof(buf));
		cr_assert_eq(recv(b[0], buf, sizeof(buf), MSG_WAITALL), (ssize_t)sizeof(buf));
		for (size_t k = 0; k < sizeof(buf); k++)
			cr_assert_eq(buf[k], stream_byte_at(at + k));
		stream_fill(back, at, sizeof(back)); /* an answer */
		cr_assert_eq(send(b[0], back, sizeof(back), 0), (ssize_t)sizeof(back));
		memset(back, 0, sizeof(back));
		cr_assert_eq(recv(a[0], back, sizeof(back), MSG_WAITALL), (ssize_t)sizeof(back));
		for (size_t k = 0; k < sizeof(back); k++)
			cr_assert_eq(back[k], stream_byte_at(at + k));
	}
	cr_assert_eq(shutdown(a[0], SHUT_WR), 0);
	cr_assert_eq(recv(b[0], buf, 1, 0), 0, "the end comes");
	cr_assert_eq(shutdown(b[0], SHUT_WR), 0);
	cr_assert_eq(recv(a[0], buf, 1, 0), 0, "both ways");
	for (unsigned k = 0; k < 2; k++) {
		stream_relay_join(&relay[k]);
		cr_assert_eq(relay[k].rc, 0, "%s", via_err_name(relay[k].rc));
		close(a[k]);
		close(b[k]);
	}
	stream_pair_close(&p);
}

Test(stream, a_wait_looks_at_descriptors_as_poll_does, .timeout = 120)
{
	struct pollfd fds[VIA_STREAM_FDS + 1] = {{0}};
	struct stream_pair p = {0};
	struct stream_end from, to;
	struct stream_ends e;
	uint64_t start;
	int pair[2];

	stream_pair_open(&p);
	e = stream_pair_stream(&p, VIA_MAIN, 0);
	from = (struct stream_end){.st = e.source, .total = 100000};
	to = (struct stream_end){.st = e.destination};
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(via_stream_wait(e.source, 0, fds, VIA_STREAM_FDS + 1), -EINVAL);

	fds[0] = (struct pollfd){.fd = pair[0], .events = POLLIN | POLLOUT};
	fds[1] = (struct pollfd){.fd = pair[1], .events = POLLIN, .revents = POLLIN};
	fds[2] = (struct pollfd){.fd = -1, .events = POLLIN, .revents = POLLIN};
	cr_assert_eq(via_stream_wait(e.source, VIA_NEVER, fds, 3), 1);
	cr_assert_eq(fds[0].revents, POLLOUT);
	cr_assert_eq(fds[1].revents, 0);
	cr_assert_eq(fds[2].revents, 0);
	cr_assert_eq(send(pair[0], "x", 1, 0), 1);
	fds[0].events = POLLIN;
	cr_assert_eq(via_stream_wait(e.source, VIA_NEVER, fds, 3), 1);
	cr_assert_eq(fds[0].revents, 0);
	cr_assert_eq(fds[1].revents, POLLIN);

	/* A stream that always moves hides none of them. */
	for (unsigned i = 0; i < 100; i++) {
		from.total += 1000;
		(void)stream_send_some(&from, 1000);
		stream_poll(&to);
		while (stream_take_some(&to, SIZE_MAX))
			;
		fds[1].revents = 0;
		cr_assert_geq(via_stream_wait(e.source, VIA_NEVER, fds, 3), 1);
		cr_assert_eq(fds[1].revents, POLLIN);
	}
	while (via_stream_wait(e.source, 0, NULL, 0) || via_stream_wait(e.destination, 0, NULL, 0))
		;
	start = via_now_ns();
	while (via_now_ns() < start + 20 * VIA_NS_PER_MS)
		cr_assert_eq(via_stream_wait(e.source, start + 20 * VIA_NS_PER_MS, fds, 1), 0);
	close(pair[0]);
	close(pair[1]);
	stream_pair_close(&p);
}

/* The peer is there, but its owner does not poll: with work in flight that is given up. */
Test(stream, work_that_does_not_move_is_given_up, .timeout = 120)
{
	struct stream_pair p = {.fabric = "fault+sim:stream,fault-delay=1000000",
				.stall_ns = 100 * VIA_NS_PER_MS};
	struct via_error err = {0};
	struct stream_ends e;
	struct stream_end from;
	uint64_t start;
	int rc;

	stream_pair_open(&p);
	e = stream_pair_stream(&p, VIA_MULTIFD, 3);
	from = (struct stream_end){.st = e.source, .total = 100000};
	start = via_now_ns();
	while (via_now_ns() < start + 2 * p.stall_ns)
		cr_assert_eq(via_stream_wait(e.source, start + 2 * p.stall_ns, NULL, 0), 0,
			     "idle is not stalled");
	start = via_now_ns();
	cr_assert(stream_send_some(&from, SIZE_MAX));
	while ((rc = via_stream_wait(e.source, VIA_NEVER, NULL, 0)) >= 0)
		;
	cr_assert_eq(rc, -ETIMEDOUT);
	cr_assert_geq(via_now_ns() - start, p.stall_ns);
	cr_assert_eq(via_session_failure(p.source, &err), -ETIMEDOUT);
	cr_assert(strstr(err.what, "multifd 3"), "%s", err.what);
	stream_pair_close(&p);
}
