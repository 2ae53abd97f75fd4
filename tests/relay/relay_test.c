/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_test.c -- both relays between two QEMUs that this test plays: what is connected when, in
 * which order, what arrives, and how each end is told.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/relay/relay_pair.h"

#define QUIET_MS 150
#define LONG_MS  (PATIENCE_S * 1000)

static struct relay_pair p;

/* A header of main, of version 3, without a configuration. */
static const uint8_t header[] = {'Q', 'E', 'V', 'M', 0, 0, 0, 3};
/* OPEN_RETURN_PATH and PING 1; PONG 1 and SHUT 0 on the way back. */
static const uint8_t open_return_path[] = {8, 0, 1, 0, 0, 8, 0, 2, 0, 4, 0, 0, 0, 1};
static const uint8_t pong[] = {0, 2, 0, 4, 0, 0, 0, 1};
static const uint8_t shut_well[] = {0, 1, 0, 4, 0, 0, 0, 0};
/* POSTCOPY_ADVISE with its 16 bytes. */
static const uint8_t advise[22] = {8, 0, 3, 0, 16, [11] = 0x10, 0, [19] = 0x10, 0};

static void multifd_init(uint8_t init[64], uint8_t id)
{
	memset(init, 0, 64);
	memcpy(init, "\x11\x22\x33\x44\0\0\0\1", 8);
	init[24] = id;
}

/* Content that follows from @seed alone. */
static uint8_t *content(size_t len, unsigned seed)
{
	uint8_t *bytes = malloc(len);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)((seed += 0x9e3779b9u) >> 24 ^ i);
	return bytes;
}

static void get_same(int fd, const uint8_t *wanted, size_t len)
{
	uint8_t *seen = malloc(len);

	get(fd, seen, len);
	cr_assert(!memcmp(seen, wanted, len), "other bytes than were sent");
	free(seen);
}

/* Main of both, connected, with the header through. */
static void connect_main(int *source, int *destination)
{
	*source = source_connect(&p);
	put(*source, header, sizeof(header));
	*destination = destination_accept(&p, LONG_MS);
	cr_assert_geq(*destination, 0, "main is not connected\n%s--\n%s", p.source.notes,
		      p.destination.notes);
	get_same(*destination, header, sizeof(header));
}

/* The destination has everything, and says so on its return path. */
static void shut(int source, int destination)
{
	put(destination, shut_well, sizeof(shut_well));
	get_same(source, shut_well, sizeof(shut_well));
}

static void answer(int source, int destination)
{
	put(source, open_return_path, sizeof(open_return_path));
	get_same(destination, open_return_path, sizeof(open_return_path));
	put(destination, pong, sizeof(pong));
	get_same(source, pong, sizeof(pong));
}

Test(relay, carries_both_ways_and_the_end_behind_it, .timeout = 60)
{
	const size_t len = 300001, back_len = 70001, rounds = 12;
	uint8_t *forward = content(len, 1), *back = content(back_len, 2);
	int source, destination;

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	for (unsigned i = 0; i < rounds; i++) {
		put(source, forward, len);
		get_same(destination, forward, len);
		put(destination, back, back_len);
		get_same(source, back, back_len);
	}
	put(source, forward, 100);
	close(source);
	get_same(destination, forward, 100);
	expect_end(destination);
	pair_join(&p);
	cr_assert_eq(p.source.rc, 0, "%s: %s", p.source.err.what, p.source.err.seen);
	cr_assert_eq(p.destination.rc, 0);
	cr_assert_eq(p.source.result.outcome, RELAY_ENDED);
	cr_assert_eq(p.source.result.forward_bytes, sizeof(header) + rounds * len + 100);
	cr_assert_eq(p.destination.result.back_bytes, rounds * back_len);
	free(forward);
	free(back);
}

Test(relay, success_is_said_on_the_return_path, .timeout = 60)
{
	int source, destination;

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	answer(source, destination);
	put(destination, shut_well, sizeof(shut_well));
	close(destination);
	get_same(source, shut_well, sizeof(shut_well));
	expect_end(source);
	pair_join(&p);
	cr_assert_eq(p.source.result.outcome, RELAY_COMPLETED);
	cr_assert_eq(p.destination.result.outcome, RELAY_COMPLETED);
}

Test(relay, main_is_connected_first_whatever_comes_first, .timeout = 60)
{
	uint8_t init[64], seen[64];
	int multifd[3], main_fd, there[3];
	unsigned found = 0;

	pair_start(&p, 0, true);
	main_fd = source_connect(&p);
	for (unsigned i = 0; i < 3; i++) {
		multifd[i] = source_connect(&p);
		multifd_init(init, (uint8_t)(2 - i));
		put(multifd[i], init, sizeof(init));
	}
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0, "connected before main has spoken");
	put(main_fd, header, sizeof(header));
	close(main_fd);
	main_fd = destination_accept(&p, LONG_MS);
	get_same(main_fd, header, sizeof(header));
	for (unsigned i = 0; i < 3; i++) {
		there[i] = destination_accept(&p, LONG_MS);
		cr_assert_geq(there[i], 0);
		get(there[i], seen, sizeof(seen));
		found |= 1u << seen[24];
		close(multifd[i]);
	}
	cr_assert_eq(found, 7);
	for (unsigned i = 0; i < 3; i++)
		expect_end(there[i]);
	expect_end(main_fd);
	pair_join(&p);
	cr_assert_eq(p.destination.result.connections, 4);
}

Test(relay, preempt_is_connected_when_it_says_nothing, .timeout = 60)
{
	int source, destination, silent, preempt;
	uint8_t page[4200];

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	put(source, advise, sizeof(advise));
	get_same(destination, advise, sizeof(advise));
	silent = source_connect(&p);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0, "connected before main was answered");
	answer(source, destination);
	preempt = destination_accept(&p, LONG_MS);
	cr_assert_geq(preempt, 0, "the preempt channel is not connected");
	memset(page, 7, sizeof(page));
	put(silent, page, sizeof(page));
	get_same(preempt, page, sizeof(page));
	shut(source, destination);
	close(silent);
	close(source);
	expect_end(preempt);
	expect_end(destination);
	pair_join(&p);
	cr_assert_eq(p.source.result.outcome, RELAY_COMPLETED);
	cr_assert(p.source.result.postcopy);
}

/* A paused postcopy is resumed, and a page is on its way before the relay has looked. */
Test(relay, preempt_keeps_what_it_said_before_it_was_known, .timeout = 60)
{
	static const uint8_t recv_bitmap[] = {8, 0, 10, 0, 4, 3, 'r', 'a', 'm'};
	uint8_t *page = content(4200, 5);
	int source, early, destination, preempt;

	pair_start(&p, 0, true);
	source = source_connect(&p);
	put(source, recv_bitmap, sizeof(recv_bitmap));
	early = source_connect(&p);
	put(early, page, 50);
	destination = destination_accept(&p, LONG_MS);
	get_same(destination, recv_bitmap, sizeof(recv_bitmap));
	preempt = destination_accept(&p, LONG_MS);
	cr_assert_geq(preempt, 0, "the preempt channel is not connected");
	put(early, page + 50, 4150);
	get_same(preempt, page, 4200);
	shut(source, destination);
	close(early);
	close(source);
	expect_end(preempt);
	expect_end(destination);
	pair_join(&p);
	cr_assert_eq(p.source.result.outcome, RELAY_COMPLETED);
	free(page);
}

Test(relay, multifd_packets_arrive_as_they_were, .timeout = 60)
{
	const size_t pages = 128, payload = pages * 4096, packet = 1344 + payload;
	uint8_t init[64], *bytes = content(packet, 3);
	int source, destination, multifd, there;

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	multifd = source_connect(&p);
	multifd_init(init, 0);
	put(multifd, init, sizeof(init));
	there = destination_accept(&p, LONG_MS);
	get_same(there, init, sizeof(init));
	memset(bytes, 0, 1344);
	memcpy(bytes, "\x11\x22\x33\x44\0\0\0\1\0\0\0\0\0\0\0\x80\0\0\0\x80\0\x08\0\0", 24);
	for (unsigned i = 0; i < 20; i++) {
		put(multifd, bytes, packet);
		get_same(there, bytes, packet);
	}
	close(multifd);
	expect_end(there);
	close(source);
	expect_end(destination);
	pair_join(&p);
	cr_assert_eq(p.source.result.packets, 20);
	free(bytes);
}

Test(relay, who_does_not_read_stops_who_writes, .timeout = 60)
{
	const size_t most = 16u << 20;
	uint8_t *bytes = content(1u << 20, 4);
	int source, destination;
	size_t sent = 0;

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	for (;;) {
		ssize_t n = send(source, bytes, 1u << 20, MSG_DONTWAIT | MSG_NOSIGNAL);
		struct pollfd w = {.fd = source, .events = POLLOUT};

		if (n < 0 && poll(&w, 1, 4 * QUIET_MS) == 0)
			break;
		sent += n > 0 ? (size_t)n : 0;
		cr_assert_lt(sent, most, "the relays take in whatever comes");
	}
	close(source);
	for (size_t i = 0; i < sent; i += 4096)
		get(destination, bytes, sent - i < 4096 ? sent - i : 4096);
	expect_end(destination);
	pair_join(&p);
	free(bytes);
}

Test(relay, lost_peer_closes_what_qemu_must_see_closed, .timeout = 60)
{
	int source, destination;

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	pair_cancel(&p);
	expect_end(source);
	expect_end(destination);
	pair_join(&p);
	cr_assert_lt(p.source.rc, 0);
	cr_assert_lt(p.destination.rc, 0);
	cr_assert_eq(p.source.result.outcome, RELAY_BROKEN);
}

Test(relay, missing_destination_is_named_on_both_sides, .timeout = 60)
{
	int source;

	pair_start(&p, 0, false);
	source = source_connect(&p);
	put(source, header, sizeof(header));
	expect_end(source);
	pair_join(&p);
	cr_assert(strstr(p.destination.err.what, "connect to QEMU"), "%s", p.destination.err.what);
	cr_assert(strstr(p.source.err.what, "connect to QEMU") ||
			  strstr(p.source.err.seen, "connect to QEMU"),
		  "%s: %s", p.source.err.what, p.source.err.seen);
}

Test(relay, silence_without_end_is_refused_alone, .timeout = 60)
{
	int source, destination, silent;

	pair_start(&p, UINT64_C(200000000), true);
	connect_main(&source, &destination);
	silent = source_connect(&p);
	expect_end(silent);
	cr_assert(is_quiet(source, 0));
	put(source, header, sizeof(header)); /* any bytes */
	get_same(destination, header, sizeof(header));
	close(source);
	expect_end(destination);
	pair_join(&p);
	cr_assert_eq(p.source.rc, 0);
}

/* Of main that is TLS nobody here knows how it ended, or that it lacks something. */
Test(relay, what_it_cannot_read_it_does_not_judge, .timeout = 60)
{
	static const uint8_t hello[] = {0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3};
	int source, destination;

	pair_start(&p, 0, true);
	source = source_connect(&p);
	put(source, hello, sizeof(hello));
	destination = destination_accept(&p, LONG_MS);
	get_same(destination, hello, sizeof(hello));
	close(source);
	expect_end(destination);
	pair_join(&p);
	for (unsigned i = 0; i < 2; i++) {
		struct relay_end *e = i ? &p.source : &p.destination;

		cr_assert_eq(e->result.outcome, RELAY_ENDED);
		cr_assert_not(end_has_said(e, "return path"), "%s", e->notes);
		cr_assert(end_has_said(e, "only query-migrate"), "%s", e->notes);
	}
}

static void limit_descriptors(rlim_t to)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = to;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* It is said, and the connection comes to its right as soon as there is a descriptor for it. */
Test(relay, a_connection_waits_for_a_descriptor, .timeout = 60)
{
	int source, destination, multifd, there;
	uint8_t init[64];

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	there = dup(source); /* the lowest that is free: one more, for the test, and none is left */
	close(there);
	limit_descriptors((rlim_t)there + 1);
	multifd = source_connect(&p);
	multifd_init(init, 0);
	put(multifd, init, sizeof(init));
	while (!end_has_said(&p.source, "raise ulimit -n"))
		cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	limit_descriptors((rlim_t)there + 100);
	there = destination_accept(&p, LONG_MS);
	cr_assert_geq(there, 0);
	get_same(there, init, sizeof(init));
	close(multifd);
	close(source);
	expect_end(there);
	expect_end(destination);
	pair_join(&p);
	cr_assert_eq(p.source.rc, 0, "%s: %s", p.source.err.what, p.source.err.seen);
}

/* With keep as well: nobody can ever be served, and saying so again and again helps nobody. */
Test(relay, a_key_that_is_not_there_ends_it_before_anybody_came, .timeout = 60)
{
	struct relay_config config = {
		.session = {.fabric = "sim", .credentials = {.psk_file = "/nonexistent/keys.psk"}},
		.keep = true,
		.cancel_fd = -1};
	struct relay_result result;
	struct via_error err = {0};
	int fd;

	cr_assert_eq(relay_listen("127.0.0.1:0", &fd, &err), 0);
	cr_assert_eq(relay_destination(fd, "unix:/nonexistent/qemu", &config, &result, &err),
		     -ENOENT, "%s: %s", err.what, err.seen);
	cr_assert_eq(result.migrations, 1);
	close(fd);
}

/* Later it may be mended: it is said, again after a while, and the relay stays. */
Test(relay, a_key_that_is_gone_may_come_back, .timeout = 60)
{
	int source, destination;

	pair_start(&p, 0, true);
	connect_main(&source, &destination);
	/* Looked at after the end of a session only. */
	p.destination.config.keep = true;
	p.destination.config.session.credentials.psk_file = "/nonexistent/keys.psk";
	close(source);
	expect_end(destination);
	while (!end_has_said(&p.destination, "/nonexistent/keys.psk"))
		cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	cr_assert_lt(destination_accept(&p, QUIET_MS), 0);
	pair_cancel(&p);
	pair_join(&p);
	cr_assert_lt(strlen(p.destination.notes), sizeof(p.destination.notes) - 1,
		     "it goes on saying");
	cr_assert_leq(p.destination.result.migrations, 2);
}

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

Test(relay, that_keeps_serving_keeps_nothing_else, .timeout = 60)
{
	int source, destination, multifd, there, silent, preempt;
	unsigned first = 0;
	uint8_t init[64];

	multifd_init(init, 0);
	pair_start(&p, 0, true);
	/* Looked at after the end of a session only. */
	p.source.config.keep = p.destination.config.keep = true;
	for (unsigned i = 0; i < 20; i++) {
		connect_main(&source, &destination);
		put(source, advise, sizeof(advise));
		get_same(destination, advise, sizeof(advise));
		multifd = source_connect(&p);
		put(multifd, init, sizeof(init));
		there = destination_accept(&p, LONG_MS);
		get_same(there, init, sizeof(init));
		answer(source, destination);
		silent = source_connect(&p);
		preempt = destination_accept(&p, LONG_MS);
		/* What the one before had is gone: each relay has one session at a time. */
		if (i == 1)
			first = open_descriptors();
		else if (i > 1)
			cr_assert_eq(open_descriptors(), first, "in migration %u", i);
		shut(source, destination);
		close(silent);
		close(multifd);
		close(source);
		expect_end(preempt);
		expect_end(there);
		expect_end(destination);
	}
	pair_cancel(&p);
	pair_join(&p);
	cr_assert_eq(p.source.rc, 0, "%s: %s", p.source.err.what, p.source.err.seen);
}

Test(relay, that_keeps_serving_ends_well_when_there_is_nothing_to_carry, .timeout = 60)
{
	pair_start(&p, 0, false);
	/* Looked at after the end of a session only: there is none before the request. */
	p.source.config.keep = true;
	p.destination.config.keep = true;
	pair_cancel(&p);
	pair_join(&p);
	cr_assert_eq(p.source.rc, 0, "%s: %s", p.source.err.what, p.source.err.seen);
	cr_assert_eq(p.destination.rc, 0, "%s: %s", p.destination.err.what, p.destination.err.seen);
}
