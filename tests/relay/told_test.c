/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * told_test.c -- what one relay tells the other of its QEMU, in a session of both; and what is seen
 * of a relay while it runs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "relay/qemu_socket.h"
#include "relay/qmp.h"
#include "relay/relay.h"
#include "tests/relay/fake_qmp.h"

#define LOCAL      "127.0.0.1:0"
#define PATIENCE_S 20

static const uint8_t header[] = {'Q', 'E', 'V', 'M', 0, 0, 0, 3};

struct end {
	pthread_t thread;
	bool source;
	int listen_fd;
	char other[64];
	struct relay_config config;
	struct relay_result result;
	struct via_error err;
	int rc;
};

static struct end source = {.source = true}, destination;
static struct relay_watch watch = RELAY_WATCH_INIT;

static void *run(void *arg)
{
	struct end *e = arg;

	e->rc = (e->source ? relay_source : relay_destination)(e->listen_fd, e->other, &e->config,
							       &e->result, &e->err);
	return NULL;
}

static void address_of(int fd, char address[64])
{
	cr_assert_eq(via_control_listen_address(fd, address, 64), 0);
}

/* Both relays; the address where QEMU finds the source's, and where it waits at the destination. */
static void start(const struct relay_told *told, const char *qmp, char near[64], int *qemu_fd)
{
	cr_assert_eq(relay_listen(LOCAL, qemu_fd, NULL), 0);
	cr_assert_eq(relay_listen(LOCAL, &source.listen_fd, NULL), 0);
	cr_assert_eq(relay_listen(LOCAL, &destination.listen_fd, NULL), 0);
	address_of(*qemu_fd, destination.other);
	address_of(destination.listen_fd, source.other);
	address_of(source.listen_fd, near);
	source.config = (struct relay_config){.session = {.fabric = "sim"},
					      .told = told,
					      .watch = &watch,
					      .cancel_fd = eventfd(0, EFD_CLOEXEC)};
	destination.config = (struct relay_config){
		.session = {.fabric = "sim"}, .qmp = qmp, .cancel_fd = eventfd(0, EFD_CLOEXEC)};
	pthread_create(&source.thread, NULL, run, &source);
	pthread_create(&destination.thread, NULL, run, &destination);
}

static void join(int qemu_fd)
{
	struct end *both[] = {&source, &destination};

	for (unsigned i = 0; i < 2; i++) {
		pthread_join(both[i]->thread, NULL);
		close(both[i]->listen_fd);
		close(both[i]->config.cancel_fd);
	}
	close(qemu_fd);
}

static int say_header(const char *near)
{
	int fd;

	cr_assert_eq(qemu_dial(near, &fd, NULL), 0);
	cr_assert_eq(send(fd, header, sizeof(header), MSG_NOSIGNAL), (ssize_t)sizeof(header));
	return fd;
}

static bool is_readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) > 0;
}

static const struct relay_told binding = {.facts = {.known = true, .binding = true}};
static const struct relay_told multifd = {.facts = {.known = true,
						    .on = 1 << RELAY_CAP_MULTIFD,
						    .multifd_channels = 2,
						    .multifd_compression = "none"}};

/* Refused before QEMU is connected to: it would be ended by that. */
static void expect_refused(const struct relay_told *told, const char *qmp, int code,
			   const char *seen)
{
	char near[64];
	int qemu_fd, fd;

	start(told, qmp, near, &qemu_fd);
	fd = say_header(near);
	cr_assert(is_readable(fd, PATIENCE_S * 1000), "the source's QEMU is not told");
	join(qemu_fd);
	close(fd);
	cr_assert_eq(source.rc, code, "%s: %s", source.err.what, source.err.seen);
	cr_assert_eq(destination.rc, code);
	cr_assert_str_eq(destination.err.seen, seen);
	cr_assert_str_eq(source.err.seen, seen);
	cr_assert_eq(strncmp(source.err.what, "at the peer: ", 13), 0, "%s", source.err.what);
}

Test(told, binding_facts_need_a_destination_that_heeds_them, .timeout = 60)
{
	expect_refused(&binding, NULL, -EOPNOTSUPP, "the relay beside it has no --qmp");
}

Test(told, facts_arrive_as_they_are, .timeout = 60)
{
	static const struct act script[] = {
		BEGIN_OOB,
		{HEAR, "query-migrate-capabilities"},
		{SAY, "{\"return\": [], \"id\": @ID}\r\n"},
		{HEAR, "query-migrate-parameters"},
		{SAY, "{\"return\": {\"multifd-channels\": 2, \"multifd-compression\": \"zlib\"}, "
		      "\"id\": @ID}\r\n"},
		{HEAR, "query-migrate"},
		{SAY, "{\"return\": {}, \"id\": @ID}\r\n"},
		{END, NULL},
	};
	struct fake_qmp f;

	fake_qmp_start(&f, script);
	expect_refused(&multifd, f.path, -EINVAL,
		       "multifd off, not on; multifd-compression zlib, not none");
	fake_qmp_join(&f);
}

/* Without a caller that knows, nothing is known, and nothing refused; QEMU sees its bytes alone. */
Test(told, a_relay_is_seen_while_it_runs, .timeout = 60)
{
	struct relay_result now;
	uint8_t seen[sizeof(header)];
	char near[64];
	int qemu_fd, near_fd, far_fd;

	cr_assert_not(relay_look(&watch, &now));
	start(NULL, NULL, near, &qemu_fd);
	near_fd = say_header(near);
	cr_assert(is_readable(qemu_fd, PATIENCE_S * 1000));
	far_fd = accept(qemu_fd, NULL, NULL);
	cr_assert_eq(recv(far_fd, seen, sizeof(seen), MSG_WAITALL), (ssize_t)sizeof(seen));
	cr_assert_arr_eq(seen, header, sizeof(header));
	cr_assert(relay_look(&watch, &now));
	cr_assert_eq(now.connections, 1);
	cr_assert_eq(now.forward_bytes, sizeof(header));
	cr_assert_str_eq(now.session.fabric, "sim");
	close(near_fd);
	close(far_fd);
	join(qemu_fd);
	cr_assert_eq(source.rc, 0, "%s: %s", source.err.what, source.err.seen);
	cr_assert_not(relay_look(&watch, &now));
	cr_assert_eq(now.connections, 0);
}
