/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_test.c -- addresses, frames, waiting, and peers that stop, trickle or die.
 * What TLS adds is in control_tls_test.c.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <ifaddrs.h>
#include <malloc.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/transport/control_pair.h"
#include "transport/messages.h"

#define MIB (1u << 20)

static const struct via_credentials plain;

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

/* -- addresses ------------------------------------------------------------------------ */

Test(control, connects_over_ipv4)
{
	struct pair p;

	pair_open(&p, "127.0.0.1:0", NULL, NULL);
	cr_assert_str_eq(via_control_local_host(p.source), "127.0.0.1");
	cr_assert_str_eq(via_control_peer_host(p.source), "127.0.0.1");
	cr_assert_str_eq(via_control_peer_host(p.destination), "127.0.0.1");
	cr_assert_str_eq(via_control_security(p.source), "plain text");
	pair_close(&p);
}

static bool has_ipv6(void)
{
	int fd;
	bool has = via_control_listen("[::1]:0", &fd, NULL) == 0;

	if (has)
		close(fd);
	return has;
}

Test(control, connects_over_ipv6)
{
	struct pair p;

	if (!has_ipv6())
		cr_skip_test("no IPv6 loopback: sysctl net.ipv6.conf.lo.disable_ipv6=0");
	pair_open(&p, "[::1]:0", NULL, NULL);
	cr_assert_str_eq(via_control_local_host(p.source), "::1");
	cr_assert_str_eq(via_control_peer_host(p.destination), "::1");
	pair_close(&p);
}

/* Names are looked up, and every address of a name is tried. */
Test(control, connects_by_name)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control *source;
	struct acceptor a;
	char address[80];

	acceptor_start(&a, "127.0.0.1:0", NULL);
	snprintf(address, sizeof(address), "localhost%s", strrchr(a.address, ':'));
	cr_assert_eq(via_control_connect(address, &plain, &wait, &source, NULL), 0);
	post_text(source, 1, "x");
	flush_all(source);
	cr_assert_eq(acceptor_join(&a), 0);
	via_control_close(source);
	via_control_close(a.control);
}

/* An IPv4 peer of a socket for every address is shown as what it is. */
Test(control, listens_on_every_address)
{
	static const char *const any[] = {":0", "0"};

	for (unsigned i = 0; i < 2; i++) {
		struct via_wait wait = wait_ns(PATIENCE_NS);
		struct via_control *source;
		struct acceptor a;
		char address[80];

		acceptor_start(&a, any[i], NULL);
		snprintf(address, sizeof(address), "127.0.0.1%s", strrchr(a.address, ':'));
		cr_assert_eq(via_control_connect(address, &plain, &wait, &source, NULL), 0);
		post_text(source, 1, "x");
		flush_all(source);
		cr_assert_eq(acceptor_join(&a), 0, "127.0.0.1 counts as loopback");
		cr_assert_str_eq(via_control_local_host(a.control), "127.0.0.1");
		via_control_close(source);
		via_control_close(a.control);
	}
}

Test(control, malformed_addresses_are_refused)
{
	static const char *const bad[] = {
		"",
		"host",
		"::1:4444",
		"[::1]",
		"[::1]4444",
		"[::1:4444",
		"host:",
		"host:65536",
		"host:-1",
		"host:4 4",
		"host:+4",
		"host:0x10",
		"65536",
		"a:b:1",
		"host:http",
		"[]",
		"host:00001234567890",
	};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control *c;
	char longest[300];
	int fd;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct via_error err = {0};

		cr_assert_eq(via_control_listen(bad[i], &fd, &err), -EINVAL, "%s", bad[i]);
		cr_assert(mentions(&err, "HOST:PORT"));
		cr_assert_eq(via_control_connect(bad[i], &plain, &wait, &c, NULL), -EINVAL, "%s",
			     bad[i]);
	}
	memset(longest, 'x', sizeof(longest));
	memcpy(longest + sizeof(longest) - 3, ":1", 3);
	cr_assert_eq(via_control_connect(longest, &plain, &wait, &c, NULL), -EINVAL);
	cr_assert_eq(via_control_connect(":4444", &plain, &wait, &c, NULL), -EINVAL);
	cr_assert_eq(via_control_connect("4444", &plain, &wait, &c, NULL), -EINVAL);
	cr_assert_eq(via_control_connect("127.0.0.1:0", &plain, &wait, &c, NULL), -EINVAL);
}

Test(control, a_port_in_use_is_named)
{
	struct via_error err = {0};
	char address[80];
	int fd, other;

	cr_assert_eq(via_control_listen("127.0.0.1:0", &fd, &err), 0);
	cr_assert_eq(via_control_listen_address(fd, address, sizeof(address)), 0);
	cr_assert_eq(via_control_listen(address, &other, &err), -EADDRINUSE);
	cr_assert(mentions(&err, address));
	cr_assert_eq(via_control_listen_address(fd, address, 5), -EIO, "no room");
	close(fd);
	cr_assert_eq(via_control_listen_address(fd, address, sizeof(address)), -EIO);
	cr_assert_eq(via_control_listen("192.0.2.77:0", &fd, NULL), -EADDRNOTAVAIL);
}

Test(control, nobody_there)
{
	const struct via_credentials anywhere = {.insecure = true};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(in);
	struct via_error err = {0};
	struct via_control *c;
	char address[80];
	/* A port that is taken and that nobody listens on. */
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	cr_assert_eq(bind(fd, (struct sockaddr *)&in, len), 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(in.sin_port));
	cr_assert_eq(via_control_connect(address, &plain, &wait, &c, &err), -ECONNREFUSED);
	cr_assert(mentions(&err, address));
	cr_assert(mentions(&err, "viaduct receive"));
	close(fd);

	/* TCP goes to no broadcast address, whatever the routes are. */
	err = (struct via_error){0};
	cr_assert_eq(via_control_connect("255.255.255.255:9", &anywhere, &wait, &c, &err),
		     -EHOSTUNREACH);
	cr_assert(mentions(&err, "255.255.255.255:9"));
}

Test(control, unknown_names_are_named)
{
	const struct via_credentials anywhere = {.insecure = true};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0};
	struct via_control *c;

	/* No resolver is asked for what cannot be a name. */
	cr_assert_eq(via_control_connect("no..name:9", &anywhere, &wait, &c, &err), -EHOSTUNREACH);
	cr_assert(mentions(&err, "no..name:9"));
}

/* -- plain text is for loopback --------------------------------------------------------- */

Test(control, plain_text_goes_nowhere_else)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0};
	struct via_control *c;

	cr_assert_eq(via_control_connect("192.0.2.77:9", &plain, &wait, &c, &err), -EACCES);
	cr_assert(mentions(&err, "--psk"));
	cr_assert(mentions(&err, "192.0.2.77:9"));
}

/* A numeric IPv4 address of this host that is not loopback, or false. */
static bool find_own_address(char *buf, socklen_t cap)
{
	struct ifaddrs *list;
	bool found = false;

	cr_assert_eq(getifaddrs(&list), 0);
	for (struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
		found = i->ifa_addr && i->ifa_addr->sa_family == AF_INET &&
			!(i->ifa_flags & IFF_LOOPBACK) && (i->ifa_flags & IFF_UP) &&
			!getnameinfo(i->ifa_addr, sizeof(struct sockaddr_in), buf, cap, NULL, 0,
				     NI_NUMERICHOST);
	}
	freeifaddrs(list);
	return found;
}

Test(control, plain_text_comes_from_nowhere_else_unless_told_so)
{
	const struct via_credentials anywhere = {.insecure = true};

	for (unsigned told = 0; told < 2; told++) {
		struct via_wait wait = wait_ns(PATIENCE_NS);
		char own[64], address[80];
		struct via_control *source;
		struct acceptor a;

		if (!find_own_address(own, sizeof(own)))
			cr_skip_test("this host has no address but loopback");
		acceptor_start(&a, "0.0.0.0:0", told ? &anywhere : NULL);
		snprintf(address, sizeof(address), "%s%s", own, strrchr(a.address, ':'));
		cr_assert_eq(via_control_connect(address, &anywhere, &wait, &source, NULL), 0);
		cr_assert_str_eq(via_control_peer_host(source), own);
		cr_assert_eq(via_control_post(source, 1, "x", 1), 0);
		(void)via_control_flush(source, &wait, NULL); /* may be refused already */
		cr_assert_eq(acceptor_join(&a), told ? 0 : -EACCES);
		if (!told)
			cr_assert(mentions(&a.err, "--psk"));
		via_control_close(source);
		via_control_close(a.control);
	}
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

/* -- accepting ------------------------------------------------------------------------- */

Test(control, accept_ends_at_its_deadline_or_on_request)
{
	struct via_wait wait = wait_ns(5 * VIA_NS_PER_MS);
	struct via_error err = {0};
	struct via_control *c;
	int fd;

	cr_assert_eq(via_control_listen("127.0.0.1:0", &fd, NULL), 0);
	cr_assert_eq(via_control_accept(fd, &plain, &wait, PATIENCE_NS, &c, &err), -ETIMEDOUT);
	wait = wait_ns(PATIENCE_NS);
	wait.cancel_fd = eventfd(1, 0);
	cr_assert_eq(via_control_accept(fd, &plain, &wait, PATIENCE_NS, &c, NULL), -ECANCELED);
	close(wait.cancel_fd);
	close(fd);
	wait.cancel_fd = -1;
	cr_assert_eq(via_control_accept(fd, &plain, &wait, PATIENCE_NS, &c, NULL), -EIO);
}

/* A bad peer ends its own accept; the next one is served by the same listener. */
Test(control, bad_peers_leave_the_listener_usable)
{
	struct bad {
		const char *bytes;
		size_t len;
		int code;
		const char *text;
	};
	static const struct bad bad[] = {
		{"SSH-2.0-OpenSSH\r\n", 17, -EPROTO, "53 53 48"},
		{"\x16\x03\x01\x02\x00\x01", 6, -EPROTO, "the peer speaks TLS"},
		{"\x16", 1, -EPROTO, "the peer speaks TLS"},
		{"\0\0\0\0\0\1\7\7", 8, -EPROTO, "00 00 00 00 00 01 07 07"},
		{"\0\0\0", 3, -ETIMEDOUT, "silent"},
		{"", 0, -ETIMEDOUT, "silent"},
	};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	char address[80];
	struct via_control *c;
	int fd;

	cr_assert_eq(via_control_listen("127.0.0.1:0", &fd, NULL), 0);
	cr_assert_eq(via_control_listen_address(fd, address, sizeof(address)), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct via_error err = {0};
		int raw = raw_connect(address);

		raw_write(raw, bad[i].bytes, bad[i].len);
		cr_assert_eq(via_control_accept(fd, &plain, &wait, 30 * VIA_NS_PER_MS, &c, &err),
			     bad[i].code, "case %zu", i);
		cr_assert(mentions(&err, bad[i].text));
		cr_assert(mentions(&err, "127.0.0.1:"));
		close(raw);
	}
	close(raw_connect(address));
	cr_assert_eq(via_control_accept(fd, &plain, &wait, PATIENCE_NS, &c, NULL), -ECONNRESET);
	{
		static const uint8_t good[] = {0, 0, 0, 1, 0, 1, 0, 0, '!'};
		int raw = raw_connect(address);

		raw_write(raw, good, sizeof(good));
		cr_assert_eq(via_control_accept(fd, &plain, &wait, PATIENCE_NS, &c, NULL), 0);
		expect_text(c, 1, "!");
		via_control_close(c);
		close(raw);
	}
	close(fd);
}

/* A TLS client is told, in its own language, that there is no TLS here. */
Test(control, a_plain_listener_answers_tls_with_an_alert)
{
	static const uint8_t alert[] = {0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a};
	struct acceptor a;
	uint8_t answer[16];
	int raw;

	acceptor_start(&a, "127.0.0.1:0", NULL);
	raw = raw_connect(a.address);
	raw_write(raw, "\x16\x03\x01\x00\x05hello", 10);
	cr_assert_eq(raw_read(raw, answer, sizeof(answer)), sizeof(alert));
	cr_assert_arr_eq(answer, alert, sizeof(alert));
	cr_assert_eq(acceptor_join(&a), -EPROTO);
	close(raw);
}

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
