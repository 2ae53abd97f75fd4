/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rules_test.c -- what stock QEMUs need of whoever stands between them.
 *
 * A connection that says nothing stops a QEMU that waits, one that closes at once ends it; a
 * preempt channel that is not there stops the guest; a SYNC packet that does not come stops
 * the switch; a postcopy that has paused is resumed as soon as somebody wants it.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/relay/qemu_stream.h"
#include "tests/relay/relay_pair.h"

#define QUIET_MS 150
#define LONG_MS  (PATIENCE_S * 1000)

static struct relay_pair p;

/* Main's beginning, of a machine with postcopy; the return path's answer and last word. */
static const char begin[] = "QEVM\0\0\0\3\7\0\0\0\x0bpc-q35-10.0";
static const char begin_old[] = "QEVM\0\0\0\3\7\0\0\0\x0apc-q35-7.2";
static const char commands[] = "\x08\0\1\0\0\x08\0\2\0\4\0\0\0\1"
			       "\x08\0\3\0\x10\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x10\0";
static const char pong[] = "\0\2\0\4\0\0\0\1";
static const char shut_well[] = "\0\1\0\4\0\0\0\0";
static const char recv_bitmap[] = "\x08\0\x0a\0\7\6pc.ram";
static const char bitmap[] = "\0\5\0\7\6pc.ram\0\0\0\0\0\0\0\x08"
			     "abcdefgh\x01\x23\x45\x67\x89\xab\xcd\xef";
#define LEN(text) (sizeof(text) - 1)

/* One connection, at both QEMUs. */
struct connection {
	int source, destination;
};

static void close_both(const struct connection *c)
{
	close(c->source);
	close(c->destination);
}

static void expect_same(int fd, const void *wanted, size_t len)
{
	static uint8_t seen[1 << 20];

	cr_assert(len <= sizeof(seen));
	get(fd, seen, len);
	cr_assert_eq(memcmp(seen, wanted, len), 0);
}

/* Say it at the source, and see it at the destination. */
static void say(const struct connection *c, const void *bytes, size_t len)
{
	put(c->source, bytes, len);
	expect_same(c->destination, bytes, len);
}

static void answer(const struct connection *c, const void *bytes, size_t len)
{
	put(c->destination, bytes, len);
	expect_same(c->source, bytes, len);
}

static int accepted(void)
{
	int fd = destination_accept(&p, LONG_MS);

	cr_assert(fd >= 0, "nobody has connected\n%s--\n%s", p.source.notes, p.destination.notes);
	return fd;
}

static struct connection open_main(void)
{
	struct connection c = {.source = source_connect(&p)};

	put(c.source, begin, LEN(begin));
	c.destination = accepted();
	expect_same(c.destination, begin, LEN(begin));
	say(&c, commands, LEN(commands));
	return c;
}

static struct connection open_multifd(uint8_t id)
{
	struct stream *s = stream_new(QEMU_10_0, 4096);
	struct connection c = {.source = source_connect(&p)};

	put_init(s, id);
	put(c.source, s->bytes, s->len);
	c.destination = accepted();
	expect_same(c.destination, s->bytes, s->len);
	return c;
}

static struct connection open_preempt(void)
{
	struct connection c = {.source = source_connect(&p)};

	c.destination = accepted();
	return c;
}

/* Of this process, so far. */
static long cpu_ms(void)
{
	struct timespec t;

	cr_assert_eq(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void end(void)
{
	pair_cancel(&p);
	pair_join(&p);
}

Test(rules, nobody_is_seen_who_said_nothing, .timeout = 60)
{
	int fd;

	pair_start(&p, 0, true);
	fd = source_connect(&p);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	put(fd, "QEV", 3);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	close(fd);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0, "it has gone");
	end();
}

/*
 * Who looks whether somebody listens here is nobody's migration: the peer hears nothing of it, and
 * may come and go.
 */
Test(rules, who_said_nothing_is_nobody_to_the_peer, .timeout = 60)
{
	struct connection main;

	pair_start(&p, 0, true);
	close(source_connect(&p));
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	pair_restart(&p.destination);
	main = open_main();
	answer(&main, pong, LEN(pong));
	answer(&main, shut_well, LEN(shut_well));
	close_both(&main);
	pair_join(&p);
	cr_assert_eq(p.source.result.outcome, RELAY_COMPLETED);
	cr_assert_eq(p.source.result.migrations, 1);
}

/* Machines up to 7.2 open preempt before anything else, and answer nothing without it. */
Test(rules, preempt_of_an_old_machine, .timeout = 60)
{
	struct connection main, preempt;

	pair_start(&p, 0, true);
	main.source = source_connect(&p);
	preempt.source = source_connect(&p);
	put(main.source, begin_old, LEN(begin_old));
	main.destination = accepted();
	expect_same(main.destination, begin_old, LEN(begin_old));
	say(&main, commands, LEN(commands));
	preempt.destination = destination_accept(&p, 5000);
	cr_assert(preempt.destination >= 0, "the guest waits for ever");
	close_both(&preempt);
	close_both(&main);
	end();
}

/* The source's side of SYNC is a barrier: each has to arrive though nothing follows it. */
Test(rules, sync_is_not_held_back, .timeout = 60)
{
	struct connection main, multifd;

	pair_start(&p, 0, true);
	main = open_main();
	for (unsigned f = 0; f < FLAVOURS; f++) {
		multifd = open_multifd((uint8_t)f);
		for (unsigned i = 0; i < 3; i++) {
			struct stream *s = stream_new(f, 4096);

			put_sync(s);
			say(&multifd, s->bytes, s->len);
		}
		close_both(&multifd);
	}
	close_both(&main);
	end();
}

static void *write_packets(void *arg)
{
	const struct connection *c = arg;
	const struct stream *s = stream_at_hand();

	put(c->source, s->bytes, s->len);
	return NULL;
}

/* All kinds of packet, and then what nobody understands. */
Test(rules, whatever_comes_arrives_as_it_was, .timeout = 60)
{
	struct connection main, multifd;
	uint64_t random = 3;
	struct stream *s;
	pthread_t thread;

	pair_start(&p, 0, true);
	main = open_main();
	multifd = open_multifd(0);
	s = stream_new(QEMU_10_0, 4096);
	put_sync(s);
	put_pages(s, 0, 100, 0, 0);
	put_pages(s, 0, 3, 100, 0);
	put_device(s, 5000);
	put_pages(s, ZSTD, 77, 1, 12345);
	put_sync(s);
	for (unsigned i = 0; i < 200000; i++)
		put_be(s, next_random(&random), 1);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(pthread_create(&thread, NULL, write_packets, &multifd), 0);
		expect_same(multifd.destination, s->bytes, s->len);
		pthread_join(thread, NULL);
		answer(&main, pong, LEN(pong));
	}
	close_both(&multifd);
	close_both(&main);
	end();
	cr_assert(end_has_said(&p.source, "multifd 0, byte "), "it has said\n%s", p.source.notes);
	cr_assert_not(end_has_said(&p.destination, "multifd"), "%s", p.destination.notes);
}

/* What there was of a packet comes before the end, wherever it was cut. */
Test(rules, an_end_within_a_packet, .timeout = 60)
{
	static const size_t lens[] = {5, 700, 1344, 1344 + 100};
	struct connection main, multifd;

	pair_start(&p, 0, true);
	main = open_main();
	for (unsigned i = 0; i < 4; i++) {
		struct stream *s;

		multifd = open_multifd((uint8_t)i);
		s = stream_new(QEMU_8_2, 4096);
		put_pages(s, 0, 2, 0, 0);
		put(multifd.source, s->bytes, lens[i]);
		close(multifd.source);
		expect_same(multifd.destination, s->bytes, lens[i]);
		expect_end(multifd.destination);
	}
	close_both(&main);
	end();
}

/* Once the destination has answered it has all connections, and all of them end with main. */
Test(rules, the_end_of_main_is_the_end, .timeout = 60)
{
	struct connection main, multifd;

	pair_start(&p, 0, true);
	main = open_main();
	multifd = open_multifd(0);
	answer(&main, pong, LEN(pong));
	close(main.source);
	expect_end(main.destination);
	expect_end(multifd.destination);
	expect_end(multifd.source);
	end();
}

/* As when it is cancelled while it sets up. The destination has seen nothing, and takes the next. */
Test(rules, what_is_given_up_before_main_has_spoken_is_over, .timeout = 60)
{
	struct connection main, multifd;
	struct stream *s;

	pair_start(&p, 0, true);
	/* Looked at after the end of a session only. */
	p.source.config.keep = p.destination.config.keep = true;
	main.source = source_connect(&p);
	multifd.source = source_connect(&p);
	s = stream_new(QEMU_10_0, 4096);
	put_init(s, 0);
	put(multifd.source, s->bytes, s->len);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	close(main.source);
	close(multifd.source);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	main = open_main();
	multifd = open_multifd(0);
	answer(&main, pong, LEN(pong));
	answer(&main, shut_well, LEN(shut_well));
	close_both(&main);
	close_both(&multifd);
	end();
	cr_assert(end_has_said(&p.source, "main has said nothing"), "%s", p.source.notes);
}

/* A QEMU that lacks a channel reads none: it sees that all is over when it has them all. */
Test(rules, who_has_spoken_is_seen_though_gone, .timeout = 60)
{
	struct connection main, multifd[3];
	struct stream *s;

	pair_start(&p, 0, true);
	main.source = source_connect(&p);
	for (unsigned i = 0; i < 3; i++) {
		multifd[i].source = source_connect(&p);
		s = stream_new(QEMU_10_0, 4096);
		put_init(s, (uint8_t)i);
		put(multifd[i].source, s->bytes, s->len);
	}
	put(main.source, begin, LEN(begin));
	put(main.source, commands, LEN(commands));
	close(main.source);
	for (unsigned i = 0; i < 3; i++)
		close(multifd[i].source);
	main.destination = accepted();
	for (unsigned i = 0; i < 3; i++)
		multifd[i].destination = accepted();
	for (unsigned i = 0; i < 3; i++) {
		uint8_t init[64];

		get(multifd[i].destination, init, sizeof(init));
		expect_end(multifd[i].destination);
	}
	expect_same(main.destination, begin, LEN(begin));
	expect_same(main.destination, commands, LEN(commands));
	expect_end(main.destination);
	end();
}

/*
 * A postcopy is paused: main and preempt close, multifd channels do not. Then @meanwhile, and QEMU
 * resumes it. The preempt channel is there before main, or after it.
 */
static void pause_and_resume(void (*meanwhile)(void), bool early)
{
	struct connection main, preempt, multifd;

	pair_start(&p, 0, true);
	main = open_main();
	multifd = open_multifd(0);
	answer(&main, pong, LEN(pong));
	preempt = open_preempt();
	close_both(&main);
	close_both(&preempt);
	if (meanwhile)
		meanwhile();

	if (early)
		preempt.source = source_connect(&p);
	main.source = source_connect(&p);
	put(main.source, recv_bitmap, LEN(recv_bitmap));
	main.destination = accepted();
	expect_same(main.destination, recv_bitmap, LEN(recv_bitmap));
	if (early)
		preempt.destination = accepted(); /* 7.2 says nothing before */
	answer(&main, bitmap, LEN(bitmap));
	if (!early)
		preempt = open_preempt();
	answer(&main, shut_well, LEN(shut_well));
	close_both(&main);
	close_both(&preempt);
	close_both(&multifd);
	pair_join(&p);
	cr_assert_eq(p.source.result.outcome, RELAY_COMPLETED);
	cr_assert_eq(p.destination.result.outcome, RELAY_COMPLETED);
}

#define RESUMED "the session that was lost is resumed"
#define ANEW    "a new session: the peer has been started again"

/* At once, through the same relays: in the same session. */
Test(rules, a_paused_postcopy_is_resumed, .timeout = 60)
{
	for (unsigned early = 0; early < 2; early++) {
		pause_and_resume(NULL, early);
		cr_assert_eq(p.source.result.migrations, 2);
		cr_assert_eq(p.destination.result.migrations, 2);
		cr_assert(end_has_said(&p.source, RESUMED), "%s", p.source.notes);
		cr_assert(end_has_said(&p.destination, RESUMED), "%s", p.destination.notes);
	}
}

/* A link that is lost shows in one of QEMU's connections first, and QEMU may be back before the others. */
Test(rules, a_resume_that_is_early_is_kept, .timeout = 60)
{
	struct connection main, preempt, again, page;
	long took;

	pair_start(&p, 0, true);
	main = open_main();
	answer(&main, pong, LEN(pong));
	preempt = open_preempt();
	close(preempt.source);
	expect_end(preempt.destination);
	again.source = source_connect(&p);
	put(again.source, recv_bitmap, LEN(recv_bitmap));
	cr_assert(is_quiet(again.source, QUIET_MS), "refused while main is there");
	page.source = source_connect(&p);
	put(page.source, bitmap, LEN(bitmap));
	took = -cpu_ms();
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0, "of the session that is lost");
	took += cpu_ms();
	cr_assert_lt(took, QUIET_MS / 5, "the relays do not sleep: %ld ms", took);
	pair_restart(&p.destination);
	expect_end(main.source);
	expect_end(main.destination);
	again.destination = accepted();
	expect_same(again.destination, recv_bitmap, LEN(recv_bitmap));
	page.destination = accepted();
	expect_same(page.destination, bitmap, LEN(bitmap));
	close_both(&page);
	answer(&again, bitmap, LEN(bitmap));
	answer(&again, shut_well, LEN(shut_well));
	close_both(&again);
	pair_join(&p);
	cr_assert_eq(p.source.result.outcome, RELAY_COMPLETED);
}

/* Main has ended at the source and not yet at the destination: what comes now is all the next one's. */
Test(rules, a_migration_right_behind_another_is_kept, .timeout = 60)
{
	static const uint8_t more[500000]; /* than a socket holds, and less than a stream */
	struct connection main, again, multifd;
	struct stream *s;

	pair_start(&p, 0, true);
	main = open_main();
	put(main.source, more, sizeof(more));
	close(main.source);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	again.source = source_connect(&p);
	multifd.source = source_connect(&p);
	s = stream_new(QEMU_10_0, 4096);
	put_init(s, 0);
	put(multifd.source, s->bytes, s->len);
	put(again.source, begin, LEN(begin));
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0, "taken for a part of the other one");
	cr_assert(is_quiet(again.source, 0), "refused\n%s", p.source.notes);
	expect_same(main.destination, more, sizeof(more));
	expect_end(main.destination);
	again.destination = accepted();
	expect_same(again.destination, begin, LEN(begin));
	multifd.destination = accepted();
	expect_same(multifd.destination, s->bytes, s->len);
	close_both(&again);
	close_both(&multifd);
	end();
}

static void restart_source(void)
{
	pair_restart(&p.source);
}

static void restart_destination(void)
{
	pair_restart(&p.destination);
}

/* A relay that was started again does not know the session, and the other takes a new one. */
Test(rules, a_paused_postcopy_outlives_its_source_relay, .timeout = 60)
{
	pause_and_resume(restart_source, false);
	cr_assert_eq(p.source.result.migrations, 1);
	cr_assert_eq(p.destination.result.migrations, 2);
	cr_assert(end_has_said(&p.destination, ANEW), "%s", p.destination.notes);
	cr_assert_not(end_has_said(&p.source, ANEW), "%s", p.source.notes);
}

Test(rules, a_paused_postcopy_outlives_its_destination_relay, .timeout = 60)
{
	pause_and_resume(restart_destination, false);
	cr_assert_eq(p.source.result.migrations, 2);
	cr_assert_eq(p.destination.result.migrations, 1);
	cr_assert(end_has_said(&p.source, ANEW), "%s", p.source.notes);
	cr_assert_not(end_has_said(&p.destination, ANEW), "%s", p.destination.notes);
}
