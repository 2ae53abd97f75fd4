/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream_pair.c -- see stream_pair.h.
 */
#include "tests/transport/stream_pair.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Guest RAM of a session that is none of streams. */
static _Alignas(4096) uint8_t memory[65536], theirs[65536];

static void must(bool done, const char *what, const struct via_error *err)
{
	if (done)
		return;
	fprintf(stderr, "%s: %s: %s\n", what, err->what, err->seen);
	abort();
}

static struct via_session_config config_of(const struct stream_pair *p,
					   const struct via_resume *resume, bool region)
{
	return (struct via_session_config){.fabric = p->fabric ? p->fabric : "sim:stream,delay=3",
					   .multifd = PAIR_MULTIFD,
					   .preempt = PAIR_PREEMPT,
					   .streams = !region,
					   .stall_ns = p->stall_ns,
					   .resume = resume};
}

static void *accept_one(void *arg)
{
	struct stream_pair *p = arg;
	struct via_session_config config =
		config_of(p, p->waits_for, p->destination_expects_region);
	struct via_wait wait = {.deadline_ns = via_deadline_in(STREAM_PATIENCE_NS),
				.cancel_fd = -1};
	struct via_error *err = &p->destination_err;
	void *addr[1] = {theirs};
	struct via_control *control;

	if (!via_control_wrap(p->fd, &control, err) &&
	    !via_session_accept_control(control, &config, &wait, &p->destination, err))
		(void)via_session_provide(p->destination, addr, err);
	return NULL;
}

bool stream_pair_try(struct stream_pair *p)
{
	struct via_session_config config = config_of(p, p->resumes, p->source_has_region);
	struct via_region region = {.desc = {"ram", sizeof(memory), 4096}, .addr = memory};
	struct via_control *control;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		abort();
	p->fd = fd[1];
	p->cut_fd = dup(fd[0]);
	if (pthread_create(&p->thread, NULL, accept_one, p))
		abort();
	if (!via_control_wrap(fd[0], &control, &p->source_err))
		(void)via_session_connect_control(control, &config, &region,
						  p->source_has_region ? 1 : 0, -1, &p->source,
						  &p->source_err);
	pthread_join(p->thread, NULL);
	return !p->source_err.code && !p->destination_err.code;
}

void stream_pair_open(struct stream_pair *p)
{
	bool done = stream_pair_try(p);

	must(done, "connect", p->destination_err.code ? &p->destination_err : &p->source_err);
}

static void *close_source(void *arg)
{
	via_session_close(arg);
	return NULL;
}

void stream_pair_close(struct stream_pair *p)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, close_source, p->source))
		abort();
	via_session_close(p->destination);
	pthread_join(thread, NULL);
	close(p->cut_fd);
	p->source = p->destination = NULL;
}

struct stream_ends stream_pair_stream(struct stream_pair *p, enum via_channel_kind kind,
				      unsigned index)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(STREAM_PATIENCE_NS),
				.cancel_fd = -1};
	struct via_error err = {0};
	struct stream_ends e = {0};

	must(!via_stream_open(p->source, kind, index, &e.source, &err), "open", &err);
	must(!via_stream_accept(p->destination, &wait, &e.destination, &err), "accept", &err);
	if (via_stream_kind(e.destination) != kind || via_stream_index(e.destination) != index)
		abort();
	return e;
}

/* -- a relay -------------------------------------------------------------------------------- */

/* Bytes of the socket into the stream, as long as there are some and room. */
static int bytes_out(struct stream_relay *r, bool *room)
{
	size_t cap;
	void *buf;
	int rc = 0;

	*room = false;
	while (!rc && (buf = via_stream_buffer(r->st, &cap))) {
		ssize_t n = recv(r->fd, buf, cap, MSG_DONTWAIT);

		*room = n < 0 && errno == EAGAIN;
		if (*room)
			break;
		r->sent += n > 0 ? (uint64_t)n : 0;
		rc = n > 0 ? via_stream_send(r->st, (size_t)n, NULL, 0)
			   : via_stream_finish(r->st, n ? via_err_from_errno(errno) : 0);
	}
	return rc;
}

/* Bytes of the stream into the socket, and its end. */
static int bytes_in(struct stream_relay *r, bool *waits, int *status)
{
	const void *data;
	size_t len;
	int rc = 0;

	*waits = false;
	while (!rc && (data = via_stream_data(r->st, &len))) {
		ssize_t n = send(r->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		*waits = n < 0 && errno == EAGAIN;
		if (*waits)
			break;
		if (n < 0)
			return -errno;
		r->received += (uint64_t)n;
		rc = via_stream_consume(r->st, (size_t)n);
	}
	if (via_stream_ended(r->st, status))
		shutdown(r->fd, SHUT_WR);
	return rc;
}

static void *relay_main(void *arg)
{
	struct stream_relay *r = arg;
	bool room, waits = false;
	int rc = 0, status = 0;

	while (rc >= 0 && !via_stream_done(r->st)) {
		struct pollfd fd = {.fd = r->fd};

		rc = bytes_out(r, &room);
		if (rc >= 0)
			rc = bytes_in(r, &waits, &status);
		fd.events = (short)((room ? POLLIN : 0) | (waits ? POLLOUT : 0));
		if (!fd.events)
			fd.fd = -1;
		if (rc >= 0)
			rc = via_stream_wait(r->st, VIA_NEVER, &fd, 1);
	}
	if (rc < 0)
		shutdown(r->fd, SHUT_RDWR);
	r->rc = rc < 0 ? rc : status;
	return NULL;
}

void stream_relay_start(struct stream_relay *r, struct via_stream *st, int fd)
{
	*r = (struct stream_relay){.st = st, .fd = fd};
	if (pthread_create(&r->thread, NULL, relay_main, r))
		abort();
}

void stream_relay_join(struct stream_relay *r)
{
	pthread_join(r->thread, NULL);
}
