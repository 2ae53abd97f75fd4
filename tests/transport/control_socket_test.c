/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_socket_test.c -- addresses, who may connect in plain text, and listeners whose
 * peers are not Viaduct.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/transport/control_checks.h"

static const struct via_credentials plain;

/* -- addresses ------------------------------------------------------------------------ */

Test(control_socket, connects_over_ipv4)
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

Test(control_socket, connects_over_ipv6)
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
Test(control_socket, connects_by_name)
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
Test(control_socket, listens_on_every_address)
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

Test(control_socket, malformed_addresses_are_refused)
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

Test(control_socket, a_port_in_use_is_named)
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

Test(control_socket, nobody_there)
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

Test(control_socket, unknown_names_are_named)
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

Test(control_socket, plain_text_goes_nowhere_else)
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

Test(control_socket, plain_text_comes_from_nowhere_else_unless_told_so)
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

/* -- accepting ------------------------------------------------------------------------- */

Test(control_socket, accept_ends_at_its_deadline_or_on_request)
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
Test(control_socket, bad_peers_leave_the_listener_usable)
{
	static const struct first_words bad[] = {
		{"SSH-2.0-OpenSSH\r\n", 17, -EPROTO, "53 53 48"},
		{"\x16\x03\x01\x02\x00\x01", 6, -EPROTO, "the peer speaks TLS"},
		{"\x16", 1, -EPROTO, "the peer speaks TLS"},
		{"\0\0\0\0\0\1\7\7", 8, -EPROTO, "00 00 00 00 00 01 07 07"},
		{"\0\0\0", 3, -ETIMEDOUT, "silent"},
		{"", 0, -ETIMEDOUT, "silent"},
	};
	static const uint8_t good[] = {0, 0, 0, 1, 0, 1, 0, 0, '!'};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control *c;
	char address[80];
	int raw, fd = listener(address);

	check_strangers(fd, address, &plain, bad, sizeof(bad) / sizeof(bad[0]));
	raw = raw_connect(address);
	raw_write(raw, good, sizeof(good));
	cr_assert_eq(via_control_accept(fd, &plain, &wait, PATIENCE_NS, &c, NULL), 0);
	expect_text(c, 1, "!");
	via_control_close(c);
	close(raw);
	close(fd);
}

/* A TLS client is told, in its own language, that there is no TLS here. */
Test(control_socket, a_plain_listener_answers_tls_with_an_alert)
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
