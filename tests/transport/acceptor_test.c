/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * acceptor_test.c -- several peers that have not shown who they are yet: none stands in another's way.
 */
#include "transport/acceptor.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/transport/control_pair.h"

static const struct via_credentials plain;
static const uint8_t first_frame[] = {0, 0, 0, 1, 0, 1, 0, 0, '!'};

static struct via_acceptor *acceptor;
static char address[80];
static int listen_fd;

static void set_up(void)
{
	cr_assert_eq(via_control_listen("127.0.0.1:0", &listen_fd, NULL), 0);
	cr_assert_eq(via_control_listen_address(listen_fd, address, sizeof(address)), 0);
	cr_assert_eq(via_acceptor_new(listen_fd, &acceptor, NULL), 0);
}

static void tear_down(void)
{
	via_acceptor_free(acceptor);
	close(listen_fd);
}

TestSuite(acceptor, .init = set_up, .fini = tear_down, .timeout = 60);

static int take(uint64_t handshake_ns, struct via_control **c, struct via_error *err)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);

	return via_acceptor_take(acceptor, &plain, &wait, handshake_ns, c, err);
}

/* Let those that have connected be taken in: nobody is through. */
static void look(void)
{
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	struct via_control *c;
	int extra = raw_connect(address);

	/* It comes last, and is refused at once. */
	raw_write(extra, "X", 1);
	cr_assert_eq(via_acceptor_take(acceptor, &plain, &wait, PATIENCE_NS, &c, NULL), -EPROTO);
	close(extra);
}

/* ":PORT" of this end of @fd. */
static const char *port_of(int fd, char buf[16])
{
	struct sockaddr_in in;
	socklen_t len = sizeof(in);

	cr_assert_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	snprintf(buf, 16, ":%u", ntohs(in.sin_port));
	return buf;
}

Test(acceptor, one_that_fails_costs_the_others_nothing)
{
	struct via_control *c = NULL;
	int slow = raw_connect(address), silent = raw_connect(address);

	raw_write(slow, first_frame, 3);
	for (unsigned i = 0; i < 5; i++)
		look();
	raw_write(slow, first_frame + 3, sizeof(first_frame) - 3);
	cr_assert_eq(take(PATIENCE_NS, &c, NULL), 0);
	expect_text(c, 1, "!");
	via_control_close(c);
	/* And the silent one is still there. */
	raw_write(silent, first_frame, sizeof(first_frame));
	cr_assert_eq(take(PATIENCE_NS, &c, NULL), 0);
	via_control_close(c);
	close(slow);
	close(silent);
}

Test(acceptor, each_has_a_deadline_of_its_own)
{
	struct via_control *c = NULL;
	struct via_error err = {0};
	char port[16];
	int early = raw_connect(address), late = -1;

	cr_assert_eq(take(20 * VIA_NS_PER_MS, &c, &err), -ETIMEDOUT);
	cr_assert(mentions(&err, port_of(early, port)) && mentions(&err, "silent"));
	close(early);
	late = raw_connect(address);
	look();
	early = raw_connect(address);
	err.code = 0;
	cr_assert_eq(take(20 * VIA_NS_PER_MS, &c, &err), -ETIMEDOUT);
	cr_assert(mentions(&err, port_of(early, port)));
	raw_write(late, first_frame, sizeof(first_frame));
	cr_assert_eq(take(PATIENCE_NS, &c, NULL), 0);
	via_control_close(c);
	close(early);
	close(late);
}

/* @fd was put out, with that error. */
static void was_put_out(int fd, const struct via_error *err)
{
	char port[16];
	uint8_t byte;

	cr_assert(mentions(err, port_of(fd, port)), "%s: %s", err->what, port);
	cr_assert(mentions(err, "32 others"));
	cr_assert_eq(raw_read(fd, &byte, 1), 0);
}

Test(acceptor, with_too_many_a_silent_one_goes_first_and_then_the_oldest)
{
	int fd[VIA_STRANGERS_MAX], more[2];
	struct via_control *c;
	struct via_error err = {0};

	/* The place of each is that of its connection: all but the second have said something. */
	for (unsigned i = 0; i < VIA_STRANGERS_MAX; i++) {
		fd[i] = raw_connect(address);
		if (i != 1)
			raw_write(fd[i], first_frame, 2);
	}
	more[0] = raw_connect(address);
	raw_write(more[0], first_frame, 2);
	cr_assert_eq(take(PATIENCE_NS, &c, &err), -ETIMEDOUT);
	was_put_out(fd[1], &err);
	more[1] = raw_connect(address);
	raw_write(more[1], "X", 1);
	err.code = 0;
	cr_assert_eq(take(PATIENCE_NS, &c, &err), -ETIMEDOUT);
	was_put_out(fd[0], &err);
	cr_assert_eq(take(PATIENCE_NS, &c, NULL), -EPROTO);
	for (unsigned i = 0; i < VIA_STRANGERS_MAX; i++)
		close(fd[i]);
	close(more[0]);
	close(more[1]);
}

Test(acceptor, ends_on_request_and_at_its_deadline)
{
	struct via_wait wait = wait_ns(10 * VIA_NS_PER_MS);
	struct via_control *c;
	struct via_error err = {0};

	cr_assert_eq(via_acceptor_take(acceptor, &plain, &wait, PATIENCE_NS, &c, &err), -ETIMEDOUT);
	cr_assert(mentions(&err, "nobody came"));
	via_acceptor_free(NULL);
}
