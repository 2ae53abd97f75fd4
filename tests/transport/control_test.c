/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_test.c -- frames, waiting, and peers that stop, trickle or die. Addresses and
 * strangers are in control_socket_test.c, what TLS adds is in control_tls_test.c.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/transport/control_pair.h"
#include "transport/messages.h"

#define MIB (1u << 20)

/* A frame of @len payload bytes that follow from @seed. */
static void post_pattern(struct via_control *c, uint16_t type, size_t len)
{
	uint8_t *bytes = malloc(len ? len : 1);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 131 + type);
	cr_assert_eq(via_control_post(c, type, bytes, len), 0);
	free(bytes);
}

static void check_pattern(const struct via_control_frame *frame, uint16_t type, size_t len)
{
	cr_assert_eq(frame->type, type);
	cr_assert_eq(frame->len, len);
	for (size_t i = 0; i < len; i++)
		if (frame->payload[i] != (uint8_t)(i * 131 + type))
			cr_assert_fail("byte %zu of frame %u", i, type);
}

static void receive_pattern(struct via_control *c, uint16_t type, size_t len)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;

	cr_assert_eq(via_control_receive(c, &wait, &frame, NULL), 0);
	check_pattern(&frame, type, len);
}

/* -- frames ---------------------------------------------------------------------------- */

Test(control, frames_of_every_size_arrive)
{
	static const size_t sizes[] = {0, 1, 7, 8, 9, 16383, 16384, 16385, 65528, 65536, MIB + 1};
	struct pair p;

	pair_open(&p, "127.0.0.1:0", NULL, NULL);
	for (uint16_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		post_pattern(p.source, i, sizes[i]);
		post_pattern(p.source, (uint16_t)(i + 100), 3);
	}
	/* The socket may not hold all that: nobody sends but in receive or flush. */
	for (uint16_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct via_wait now = wait_ns(0);
		struct via_control_frame frame;

		cr_assert_eq(via_control_receive(p.source, &now, &frame, NULL), -EAGAIN);
		receive_pattern(p.destination, i, sizes[i]);
		receive_pattern(p.destination, (uint16_t)(i + 100), 3);
	}
	pair_close(&p);
}

Test(control, the_largest_payload_is_the_limit)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	static uint8_t bytes[VIA_CONTROL_PAYLOAD_MAX + 1];
	struct pair p;

	pair_wrap(&p);
	cr_assert_eq(via_control_post(p.source, 1, bytes, sizeof(bytes)), -EMSGSIZE);
	cr_assert_eq(via_control_post(p.source, 1, bytes, sizeof(bytes) - 1), 0);
	cr_assert_str_eq(via_control_peer_host(p.source), "");
	cr_assert_str_eq(via_control_local_host(p.source), "");
	wait.deadline_ns = 0;
	cr_assert_eq(via_control_flush(p.source, &wait, NULL), -EAGAIN, "nobody reads");
	pair_close(&p);
}

Test(control, a_peer_that_does_not_read_costs_no_more_than_the_limit)
{
	static uint8_t bytes[VIA_CONTROL_PAYLOAD_MAX];
	unsigned taken = 0;
	struct pair p;

	pair_wrap(&p);
	while (via_control_post(p.source, 1, bytes, sizeof(bytes)) == 0)
		taken++;
	cr_assert_eq(taken, 15, "64 MiB with their headers");
	cr_assert_eq(via_control_post(p.source, 1, bytes, sizeof(bytes)), -ENOMEM);
	cr_assert_eq(via_control_post(p.source, 1, bytes, 1), 0, "a small one fits");
	pair_close(&p);
}

struct exchange {
	struct via_control *control;
	unsigned frames;
};

/* Post everything first, then receive as much: both sides do it at once. */
static void *exchange_main(void *arg)
{
	struct exchange *x = arg;

	for (uint16_t i = 0; i < x->frames; i++)
		post_pattern(x->control, i, VIA_CONTROL_PAYLOAD_MAX);
	for (uint16_t i = 0; i < x->frames; i++)
		receive_pattern(x->control, i, VIA_CONTROL_PAYLOAD_MAX);
	flush_all(x->control);
	return NULL;
}

Test(control, big_frames_both_ways_at_once)
{
	struct pair p;
	struct exchange source, destination;
	pthread_t thread;

	pair_open(&p, "127.0.0.1:0", NULL, NULL);
	source = (struct exchange){p.source, 6};
	destination = (struct exchange){p.destination, 6};
	/* Three times: together they are more than may be queued at once. */
	for (unsigned round = 0; round < 3; round++) {
		cr_assert_eq(pthread_create(&thread, NULL, exchange_main, &source), 0);
		exchange_main(&destination);
		pthread_join(thread, NULL);
	}
	pair_close(&p);
}

/* -- bytes that come as they please ----------------------------------------------------- */

/* A raw peer on one end of a socket pair. */
static struct via_control *wrap_raw(int *raw)
{
	struct via_control *c;
	int fd[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	cr_assert_eq(via_control_wrap(fd[0], &c, NULL), 0);
	*raw = fd[1];
	return c;
}

struct trickle {
	int fd;
	size_t len;
};

static void *trickle_main(void *arg)
{
	static const uint8_t header[] = {0, 2, 0, 0, 0, 7, 0, 0};
	struct trickle *t = arg;

	for (size_t i = 0; i < t->len; i++) {
		size_t payload = i - sizeof(header);
		uint8_t byte = i < sizeof(header) ? header[i] : (uint8_t)(payload * 131 + 7);

		raw_write(t->fd, &byte, 1);
	}
	return NULL;
}

/* Single bytes keep nobody beyond the deadline, and none of them is lost by it. */
Test(control, trickled_bytes_do_not_stretch_the_deadline)
{
	struct trickle t = {.len = 8 + 0x20000};
	struct via_control *c = wrap_raw(&t.fd);
	struct via_control_frame frame;
	unsigned passed = 0;
	pthread_t thread;
	int rc;

	cr_assert_eq(pthread_create(&thread, NULL, trickle_main, &t), 0);
	do {
		struct via_wait wait = wait_ns(VIA_NS_PER_MS / 10);

		rc = via_control_receive(c, &wait, &frame, NULL);
		passed += rc == -EAGAIN;
		cr_assert_leq(via_now_ns(), wait.deadline_ns + VIA_NS_PER_S, "overslept");
	} while (rc == -EAGAIN);
	cr_assert_eq(rc, 0);
	cr_assert_gt(passed, 0);
	check_pattern(&frame, 7, 0x20000);
	pthread_join(thread, NULL);
	via_control_close(c);
	close(t.fd);
}

Test(control, every_cut_of_a_frame_is_put_together)
{
	static const uint8_t two[] = {0,   0, 0, 3, 0, 9, 0, 0, 'a', 'b',
				      'c', 0, 0, 0, 1, 0, 8, 0, 0,   'd'};

	for (size_t cut = 0; cut <= sizeof(two); cut++) {
		struct via_wait now = wait_ns(0);
		struct via_control_frame frame;
		int raw, rc;
		struct via_control *c = wrap_raw(&raw);

		raw_write(raw, two, cut);
		rc = via_control_receive(c, &now, &frame, NULL);
		cr_assert_eq(rc, cut < 11 ? -EAGAIN : 0, "cut at %zu", cut);
		if (cut == 0)
			cr_assert_eq(via_control_receive(c, &now, &frame, NULL), -EAGAIN);
		raw_write(raw, two + cut, sizeof(two) - cut);
		if (rc)
			expect_text(c, 9, "abc");
		expect_text(c, 8, "d");
		via_control_close(c);
		close(raw);
	}
}

Test(control, an_announced_length_costs_nothing)
{
	/* The header of a frame of 4 MiB, and 100 KiB of it. */
	static const uint8_t header[100 << 10] = {0, 0x40, 0, 0, 0, 1, 0, 0};
	struct via_wait now = wait_ns(0);
	struct via_control_frame frame;
	size_t before;
	int raw;
	struct via_control *c = wrap_raw(&raw);

	before = mallinfo2().uordblks + mallinfo2().hblkhd;
	raw_write(raw, header, sizeof(header));
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(via_control_receive(c, &now, &frame, NULL), -EAGAIN);
	cr_assert_lt(mallinfo2().uordblks + mallinfo2().hblkhd, before + MIB);
	via_control_close(c);
	close(raw);
}

Test(control, malformed_headers_end_the_connection)
{
	static const uint8_t bad[][8] = {
		{0, 0x40, 0, 1, 0, 1, 0, 0}, /* one byte too long */
		{0, 0, 0, 0, 0, 1, 0, 1},    /* reserved */
		{1, 0, 0, 0, 0, 1, 0, 0},
		{'G', 'E', 'T', ' ', '/', ' ', 'H', 'T'},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (unsigned good_first = 0; good_first < 2; good_first++) {
			static const uint8_t good[] = {0, 0, 0, 0, 0, 5, 0, 0};
			struct via_wait wait = wait_ns(PATIENCE_NS);
			struct via_control_frame frame;
			struct via_error err = {0};
			int raw;
			struct via_control *c = wrap_raw(&raw);

			if (good_first) {
				raw_write(raw, good, sizeof(good));
				expect_text(c, 5, "");
			}
			raw_write(raw, bad[i], sizeof(bad[i]));
			cr_assert_eq(via_control_receive(c, &wait, &frame, &err), -EPROTO);
			if (i == 3)
				cr_assert(mentions(&err, "47 45 54 20"));
			cr_assert_eq(via_control_receive(c, &wait, &frame, NULL), -EPROTO,
				     "and stays dead");
			cr_assert_eq(via_control_post(c, 1, NULL, 0), -ECONNRESET);
			cr_assert_eq(via_control_flush(c, &wait, NULL), -EPROTO);
			via_control_close(c);
			close(raw);
		}
	}
}

/* One byte is enough to know: nobody waits for the other seven. */
Test(control, garbage_is_seen_at_its_first_byte)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	int raw;
	struct via_control *c = wrap_raw(&raw);

	raw_write(raw, "S", 1);
	cr_assert_eq(via_control_receive(c, &wait, &frame, NULL), -EPROTO);
	via_control_close(c);
	close(raw);
}

/* -- ends ------------------------------------------------------------------------------ */

Test(control, half_a_frame_and_then_nothing)
{
	static const uint8_t half[] = {0, 0, 0, 3, 0, 9, 0, 0, 'a'};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	struct via_error err = {0};
	int raw;
	struct via_control *c = wrap_raw(&raw);

	raw_write(raw, half, sizeof(half));
	close(raw);
	cr_assert_eq(via_control_receive(c, &wait, &frame, &err), -ECONNRESET);
	cr_assert(mentions(&err, "in the middle"));
	via_control_close(c);
}

Test(control, a_peer_that_closes_is_lost)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	struct via_error err = {0};
	struct pair p;

	pair_open(&p, "127.0.0.1:0", NULL, NULL);
	post_text(p.destination, 4, "bye");
	flush_all(p.destination);
	via_control_close(p.destination);
	p.destination = NULL;
	expect_text(p.source, 4, "bye");
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, &err), -ECONNRESET);
	cr_assert(mentions(&err, "127.0.0.1:"));
	cr_assert(mentions(&err, "closed by the peer"));
	cr_assert_eq(via_control_post(p.source, 1, NULL, 0), -ECONNRESET);
	pair_close(&p);
}

/* Sending fails, no signal comes, and what the peer said before it left is still read. */
Test(control, last_words_are_read)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	struct via_error err = {0};
	struct pair p;
	int rc;

	pair_open(&p, "127.0.0.1:0", NULL, NULL);
	post_text(p.destination, VIA_CONTROL_ERROR, "because");
	flush_all(p.destination);
	via_control_close(p.destination);
	p.destination = NULL;
	for (uint16_t i = 0; i < 4; i++)
		post_pattern(p.source, i, VIA_CONTROL_PAYLOAD_MAX);
	rc = via_control_flush(p.source, &wait, &err);
	cr_assert_eq(rc, -ECONNRESET);
	expect_text(p.source, VIA_CONTROL_ERROR, "because");
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, NULL), -ECONNRESET);
	pair_close(&p);
}

/* The same with words that take several reads. */
Test(control, long_last_words_are_read)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	struct pair p;

	pair_wrap(&p);
	post_pattern(p.destination, 7, 150000);
	flush_all(p.destination);
	via_control_close(p.destination);
	p.destination = NULL;
	post_pattern(p.source, 1, 1);
	receive_pattern(p.source, 7, 150000);
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, NULL), -ECONNRESET);
	pair_close(&p);
}

/* -- waiting --------------------------------------------------------------------------- */

Test(control, a_silent_peer_ends_at_the_deadline)
{
	struct via_control_frame frame;
	struct via_error err = {0};
	struct via_wait wait;
	struct pair p;

	pair_wrap(&p);
	wait = wait_ns(20 * VIA_NS_PER_MS);
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, &err), -EAGAIN);
	cr_assert(via_deadline_passed(wait.deadline_ns));
	cr_assert_eq(err.code, 0, "nothing has failed");
	post_text(p.destination, 3, "late");
	flush_all(p.destination);
	expect_text(p.source, 3, "late");
	pair_close(&p);
}

Test(control, frames_that_are_there_come_after_the_deadline_too)
{
	struct via_wait past = {.deadline_ns = 1, .cancel_fd = -1};
	struct via_control_frame frame;
	struct pair p;

	pair_wrap(&p);
	for (uint16_t i = 0; i < 3; i++)
		post_pattern(p.destination, i, 10);
	flush_all(p.destination);
	for (uint16_t i = 0; i < 3; i++) {
		cr_assert_eq(via_control_receive(p.source, &past, &frame, NULL), 0);
		check_pattern(&frame, i, 10);
	}
	cr_assert_eq(via_control_receive(p.source, &past, &frame, NULL), -EAGAIN);
	pair_close(&p);
}

static void *set_event(void *arg)
{
	cr_assert_eq(eventfd_write(*(int *)arg, 1), 0);
	return NULL;
}

Test(control, receiving_can_be_canceled)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	pthread_t thread;
	struct pair p;

	pair_wrap(&p);
	wait.cancel_fd = eventfd(0, 0);
	cr_assert_eq(pthread_create(&thread, NULL, set_event, &wait.cancel_fd), 0);
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, NULL), -ECANCELED);
	pthread_join(thread, NULL);
	/* Also with frames at hand: a peer that never stops talking does not hold us. */
	post_text(p.destination, 3, "x");
	flush_all(p.destination);
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, NULL), -ECANCELED);
	expect_text(p.source, 3, "x");
	close(wait.cancel_fd);
	pair_close(&p);
}

Test(control, flushing_can_be_canceled_and_times_out)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct pair p;

	pair_wrap(&p);
	post_pattern(p.source, 1, VIA_CONTROL_PAYLOAD_MAX);
	wait.cancel_fd = eventfd(1, 0);
	cr_assert_eq(via_control_flush(p.source, &wait, NULL), -ECANCELED);
	close(wait.cancel_fd);
	wait = wait_ns(5 * VIA_NS_PER_MS);
	cr_assert_eq(via_control_flush(p.source, &wait, NULL), -EAGAIN);
	pair_close(&p);
}

/* The driver sleeps with nothing to send; a post from elsewhere gets it going. */
static void *post_one(void *arg)
{
	post_text(arg, 6, "wake up");
	return NULL;
}

static void *receive_until_reply(void *arg)
{
	expect_text(arg, 7, "reply");
	return NULL;
}

Test(control, posting_wakes_the_driver)
{
	pthread_t driver, poster;
	struct pair p;

	pair_wrap(&p);
	cr_assert_eq(pthread_create(&driver, NULL, receive_until_reply, p.source), 0);
	cr_assert_eq(pthread_create(&poster, NULL, post_one, p.source), 0);
	expect_text(p.destination, 6, "wake up");
	post_text(p.destination, 7, "reply");
	flush_all(p.destination);
	pthread_join(driver, NULL);
	pthread_join(poster, NULL);
	pair_close(&p);
}

/* -- wrapping -------------------------------------------------------------------------- */

Test(control, wrapping_what_is_no_connection_fails_and_closes_it)
{
	struct via_control *c;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	cr_assert_eq(via_control_wrap(fd, &c, NULL), -ECONNRESET);
	cr_assert_eq(close(fd), -1, "it was closed");
	fd = eventfd(0, 0);
	cr_assert_eq(via_control_wrap(fd, &c, NULL), -EIO);
	via_control_close(NULL);
}
