/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_pair.c -- see relay_pair.h.
 */
#include "tests/relay/relay_pair.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void *end_main(void *arg)
{
	struct relay_end *e = arg;

	e->rc = e->source ? relay_source(e->listen_fd, e->other, &e->config, &e->result, &e->err)
			  : relay_destination(e->listen_fd, e->other, &e->config, &e->result,
					      &e->err);
	return NULL;
}

static void start(struct relay_end *e, const char *listen, const char *other, int cancel_fd,
		  uint64_t patience_ns)
{
	e->other = other;
	e->config = (struct relay_config){.session = {.fabric = "sim", .dead_after_ns = 0},
					  .patience_ns = patience_ns,
					  .cancel_fd = cancel_fd};
	cr_assert_eq(relay_listen(listen, &e->listen_fd, &e->err), 0, "%s: %s", e->err.what,
		     e->err.seen);
}

void pair_start(struct relay_pair *p, uint64_t patience_ns, bool qemu_listens)
{
	struct via_error err = {0};

	memset(p, 0, sizeof(*p));
	snprintf(p->dir, sizeof(p->dir), "/tmp/viaduct-relay-XXXXXX");
	cr_assert(mkdtemp(p->dir));
	snprintf(p->near, sizeof(p->near), "unix:%s/near", p->dir);
	snprintf(p->qemu, sizeof(p->qemu), "unix:%s/qemu", p->dir);
	p->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->qemu_fd = -1;
	if (qemu_listens)
		cr_assert_eq(relay_listen(p->qemu, &p->qemu_fd, &err), 0, "%s", err.seen);
	p->source.source = true;
	start(&p->destination, "127.0.0.1:0", p->qemu, p->cancel_fd, patience_ns);
	cr_assert_eq(via_control_listen_address(p->destination.listen_fd, p->peer, sizeof(p->peer)),
		     0);
	start(&p->source, p->near, p->peer, p->cancel_fd, patience_ns);
	cr_assert_eq(pthread_create(&p->destination.thread, NULL, end_main, &p->destination), 0);
	cr_assert_eq(pthread_create(&p->source.thread, NULL, end_main, &p->source), 0);
}

void pair_join(struct relay_pair *p)
{
	pthread_join(p->source.thread, NULL);
	pthread_join(p->destination.thread, NULL);
	close(p->source.listen_fd);
	close(p->destination.listen_fd);
	close(p->cancel_fd);
	if (p->qemu_fd >= 0)
		close(p->qemu_fd);
	(void)unlink(p->near + strlen("unix:"));
	(void)unlink(p->qemu + strlen("unix:"));
	cr_assert_eq(rmdir(p->dir), 0);
}

static bool is_ready(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) > 0;
}

int source_connect(const struct relay_pair *p)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", p->near + strlen("unix:"));
	cr_assert_eq(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

int destination_accept(const struct relay_pair *p, int ms)
{
	return is_ready(p->qemu_fd, ms) ? accept4(p->qemu_fd, NULL, NULL, SOCK_CLOEXEC) : -1;
}

void put(int fd, const void *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(fd, (const char *)bytes + done, len - done, MSG_NOSIGNAL);

		cr_assert_gt(n, 0, "send after %zu of %zu bytes", done, len);
		done += (size_t)n;
	}
}

void get(int fd, void *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n;

		cr_assert(is_ready(fd, PATIENCE_S * 1000), "only %zu of %zu bytes came", done, len);
		n = recv(fd, (char *)bytes + done, len - done, 0);
		cr_assert_gt(n, 0, "the end after %zu of %zu bytes", done, len);
		done += (size_t)n;
	}
}

void expect_end(int fd)
{
	char byte;

	cr_assert(is_ready(fd, PATIENCE_S * 1000), "no end comes");
	cr_assert_leq(recv(fd, &byte, 1, 0), 0, "a byte, where the end was to come");
	close(fd);
}

bool is_quiet(int fd, int ms)
{
	return !is_ready(fd, ms);
}
