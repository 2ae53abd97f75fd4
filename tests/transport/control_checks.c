/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_checks.c -- see control_checks.h. Nothing here knows which proof a connection has.
 */
#include "tests/transport/control_checks.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "transport/messages.h"

int listener(char address[80])
{
	int fd;

	cr_assert_eq(via_control_listen("127.0.0.1:0", &fd, NULL), 0);
	cr_assert_eq(via_control_listen_address(fd, address, 80), 0);
	return fd;
}

int raw_listener(char address[80])
{
	int fd = listener(address);

	cr_assert_eq(fcntl(fd, F_SETFL, 0), 0);
	return fd;
}

void check_pair(const struct via_credentials *creds, const char *security)
{
	struct pair p;

	pair_open(&p, "127.0.0.1:0", creds, creds);
	cr_assert_str_eq(via_control_security(p.source), security);
	cr_assert_str_eq(via_control_security(p.destination), security);
	cr_assert_str_eq(via_control_peer_host(p.source), "127.0.0.1");
	post_text(p.source, 3, "there");
	flush_all(p.source);
	expect_text(p.destination, 3, "there");
	post_text(p.destination, 4, "and back");
	flush_all(p.destination);
	expect_text(p.source, 4, "and back");
	pair_close(&p);
}

void check_misfit(const struct via_credentials *source, const struct via_credentials *destination,
		  int source_rc, const char *source_text, int destination_rc,
		  const char *destination_text)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	struct via_control *c = NULL;
	struct via_error err = {0};
	struct acceptor a;
	int rc;

	acceptor_start(&a, "127.0.0.1:0", destination);
	rc = via_control_connect(a.address, source, &wait, &c, &err);
	if (!rc) {
		/* A plain source learns it from the first answer. */
		post_text(c, VIA_CONTROL_HELLO, "hello");
		rc = via_control_receive(c, &wait, &frame, &err);
	}
	cr_assert_eq(rc, source_rc, "source: %s", via_err_name(rc));
	cr_assert(mentions(&err, source_text));
	cr_assert(mentions(&err, a.address));
	rc = acceptor_join(&a);
	cr_assert(destination_rc ? rc == destination_rc : rc == -EPROTO || rc == -ECONNRESET,
		  "destination: %s: %s: %s (source: %s)", via_err_name(rc), a.err.what, a.err.seen,
		  err.seen);
	cr_assert(mentions(&a.err, destination_text));
	cr_assert(mentions(&a.err, "127.0.0.1:"));
	via_control_close(c);
}

void check_strangers(int fd, const char *address, const struct via_credentials *creds,
		     const struct first_words *words, size_t n)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control *c;

	for (size_t i = 0; i < n; i++) {
		struct via_error err = {0};
		int raw = raw_connect(address);

		raw_write(raw, words[i].bytes, words[i].len);
		cr_assert_eq(via_control_accept(fd, creds, &wait, 30 * VIA_NS_PER_MS, &c, &err),
			     words[i].code, "case %zu: %s", i, via_err_name(err.code));
		cr_assert(mentions(&err, words[i].text));
		cr_assert(mentions(&err, "127.0.0.1:"));
		close(raw);
	}
	close(raw_connect(address));
	cr_assert_eq(via_control_accept(fd, creds, &wait, PATIENCE_NS, &c, NULL), -ECONNRESET);
}
