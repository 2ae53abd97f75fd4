/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_pair.c -- see relay_pair.h.
 */
#include "tests/relay/relay_pair.h"

#include <criterion/criterion.h>
#include <errno.h>
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

static void note(void *arg, const char *line)
{
	struct relay_end *e = arg;
	size_t len;

	pthread_mutex_lock(&e->lock);
	len = strlen(e->notes);
	snprintf(e->notes + len, sizeof(e->notes) - len, "%s\n", line);
	pthread_mutex_unlock(&e->lock);
}

static void ended(void *arg, const struct relay_result *result, const struct via_error *why)
{
	char line[1024];

	(void)snprintf(line, sizeof(line), "migration %u ended: %s: %s", result->migrations,
		       why->what, why->seen);
	note(arg, line);
}

static void prepare(struct relay_end *e, const char *listen, const char *other,
		    uint64_t patience_ns)
{
	e->other = other;
	e->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&e->lock, NULL);
	e->config = (struct relay_config){.session = {.fabric = "sim", .dead_after_ns = 0},
					  .patience_ns = patience_ns,
					  .cancel_fd = e->cancel_fd,
					  .note = note,
					  .ended = ended,
					  .arg = e};
	cr_assert_eq(relay_listen(listen, &e->listen_fd, &e->err), 0, "%s: %s", e->err.what,
		     e->err.seen);
}

static void start(struct relay_end *e)
{
	cr_assert_eq(pthread_create(&e->thread, NULL, end_main, e), 0);
}

void pair_start(struct relay_pair *p, uint64_t patience_ns, bool qemu_listens)
{
	struct via_error err = {0};

	memset(p, 0, sizeof(*p));
	snprintf(p->dir, sizeof(p->dir), "/tmp/viaduct-relay-XXXXXX");
	cr_assert(mkdtemp(p->dir));
	snprintf(p->near, sizeof(p->near), "unix:%s/near", p->dir);
	snprintf(p->qemu, sizeof(p->qemu), "unix:%s/qemu", p->dir);
	p->qemu_fd = -1;
	if (qemu_listens)
		cr_assert_eq(relay_listen(p->qemu, &p->qemu_fd, &err), 0, "%s", err.seen);
	p->source.source = true;
	prepare(&p->destination, "127.0.0.1:0", p->qemu, patience_ns);
	cr_assert_eq(via_control_listen_address(p->destination.listen_fd, p->peer, sizeof(p->peer)),
		     0);
	prepare(&p->source, p->near, p->peer, patience_ns);
	start(&p->destination);
	start(&p->source);
}

void pair_cancel(struct relay_pair *p)
{
	(void)eventfd_write(p->source.cancel_fd, 1);
	(void)eventfd_write(p->destination.cancel_fd, 1);
}

void pair_restart(struct relay_end *e)
{
	eventfd_t drop;

	(void)eventfd_write(e->cancel_fd, 1);
	pthread_join(e->thread, NULL);
	cr_assert_eq(e->rc, -ECANCELED, "%s", via_err_name(e->rc));
	(void)eventfd_read(e->cancel_fd, &drop);
	memset(&e->err, 0, sizeof(e->err));
	start(e);
}

bool end_has_said(struct relay_end *e, const char *text)
{
	bool has;

	pthread_mutex_lock(&e->lock);
	has = strstr(e->notes, text) != NULL;
	pthread_mutex_unlock(&e->lock);
	return has;
}

void pair_join(struct relay_pair *p)
{
	pthread_join(p->source.thread, NULL);
	pthread_join(p->destination.thread, NULL);
	for (unsigned i = 0; i < 2; i++) {
		struct relay_end *e = i ? &p->source : &p->destination;

		close(e->listen_fd);
		close(e->cancel_fd);
		pthread_mutex_destroy(&e->lock);
	}
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
