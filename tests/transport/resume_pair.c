/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * resume_pair.c -- see resume_pair.h.
 */
#include "tests/transport/resume_pair.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buffer.h"

static struct via_session_config config_of(const struct pair *p, const struct via_resume *resume)
{
	return (struct via_session_config){.fabric = p->fabric ? p->fabric : "sim:resume,delay=3",
					   .multifd = MULTIFD,
					   .preempt = PREEMPT,
					   .slice_len = SLICE_LEN,
					   .stall_ns = p->stall_ns,
					   .streams = p->streams,
					   .or_new = p->or_new,
					   .resume = resume};
}

/* Nothing is here where the session resumes: its guest's memory is no business of the transport's. */
static void *accept_one(void *arg)
{
	struct pair *p = arg;
	struct via_session_config config = config_of(p, p->waits_for);
	struct via_wait wait = {.deadline_ns = via_deadline_in(PATIENCE_NS), .cancel_fd = -1};
	void *addr[2] = {p->theirs[0], p->theirs[1]};
	struct via_error *err = &p->destination_err;
	struct via_control *control;
	int rc = via_control_wrap(p->fd, &control, err);

	if (!rc)
		rc = via_session_accept_control(control, &config, &wait, &p->destination, err);
	if (!rc)
		rc = via_session_provide(p->destination, p->waits_for ? NULL : addr, err);
	if (!rc)
		rc = via_session_wait_channel(p->destination, VIA_CHANNEL_ESSENTIAL, 0, err);
	p->destination_rc = rc;
	return NULL;
}

static int connect_one(struct pair *p, int fd, const struct via_resume *resume)
{
	struct via_session_config config = config_of(p, resume);
	struct via_region region[2] = {
		{.desc = {.name = "ram", .len = REGION_LEN, .page_size = PAGE},
		 .addr = p->memory[0]},
		{.desc = {.name = "large", .len = REGION_LEN, .page_size = LARGE_PAGE},
		 .addr = p->memory[1]},
	};
	struct via_control *control;
	int rc = via_control_wrap(fd, &control, &p->source_err);

	return rc ? rc
		  : via_session_connect_control(control, &config, region, p->streams ? 0 : 2, -1,
						&p->source, &p->source_err);
}

void pair_try(struct pair *p, const struct via_resume *resume, const struct via_resume *waits_for)
{
	int fd[2];

	for (unsigned i = 0; i < 2; i++) {
		p->memory[i] = via_pages_alloc(REGION_LEN);
		p->theirs[i] = via_pages_alloc(REGION_LEN);
		for (uint32_t at = 0; at < REGION_LEN; at += 4)
			*(uint32_t *)(void *)(p->memory[i] + at) = (at + i + 1) * 2654435761u;
	}
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	p->fd = fd[1];
	p->cut_fd = dup(fd[0]);
	p->waits_for = waits_for;
	cr_assert_eq(pthread_create(&p->thread, NULL, accept_one, p), 0);
	p->source_rc = connect_one(p, fd[0], resume);
	if (p->no_channels)
		return;
	if (!p->source_rc)
		p->source_rc = via_session_open_channels(p->source, &p->source_err);
	pthread_join(p->thread, NULL);
}

void pair_open(struct pair *p, const struct via_resume *resume, const struct via_resume *waits_for)
{
	pair_try(p, resume, waits_for);
	cr_assert_eq(p->source_rc, 0, "%s: %s", p->source_err.what, p->source_err.seen);
	cr_assert_eq(p->destination_rc, 0, "%s: %s", p->destination_err.what,
		     p->destination_err.seen);
}

static void *close_source(void *arg)
{
	via_session_close(arg);
	return NULL;
}

void pair_close(struct pair *p)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, close_source, p->source), 0);
	via_session_close(p->destination);
	pthread_join(thread, NULL);
	close(p->cut_fd);
	for (unsigned i = 0; i < 2; i++) {
		via_pages_free(p->memory[i], REGION_LEN);
		via_pages_free(p->theirs[i], REGION_LEN);
	}
	memset(p, 0, sizeof(*p));
}

static void expect_lost(struct via_session *s)
{
	struct via_message m;
	struct via_error err = {0};
	int rc = via_main_receive(s, via_deadline_in(PATIENCE_NS), &m, &err);

	cr_assert_eq(rc, -ECONNRESET, "%s: %s: %s", via_err_name(rc), err.what, err.seen);
}

void pair_lose(struct pair *p, struct via_resume *source, struct via_resume *destination)
{
	cr_assert_eq(shutdown(p->cut_fd, SHUT_RDWR), 0);
	expect_lost(p->source);
	expect_lost(p->destination);
	via_session_resume_point(p->source, source);
	via_session_resume_point(p->destination, destination);
	cr_assert_eq(memcmp(source->id, destination->id, sizeof(source->id)), 0);
	pair_close(p);
}

void open_kind(struct pair *p, enum via_channel_kind kind, unsigned n)
{
	struct via_error err = {0};

	for (unsigned i = 0; i < n; i++)
		cr_assert_eq(via_session_open_channel(p->source, kind, i, &err), 0, "%s: %s",
			     err.what, err.seen);
	for (unsigned i = 0; i < n; i++) {
		cr_assert_eq(via_session_wait_channel(p->source, kind, i, &err), 0, "%s: %s",
			     err.what, err.seen);
		cr_assert_eq(via_session_wait_channel(p->destination, kind, i, &err), 0, "%s: %s",
			     err.what, err.seen);
	}
}

/* -- precopy: a round, and the seal ---------------------------------------------------------- */

static void *serve_until_end(void *arg)
{
	struct via_session *s = arg;
	struct via_message m = {0};

	while (m.type != MESSAGE_END)
		if (via_main_receive(s, via_deadline_in(PATIENCE_NS), &m, NULL))
			break;
	return NULL;
}

void drain_a_round(struct pair *p, bool seal)
{
	struct via_error err = {0};
	pthread_t thread;

	cr_assert_eq(via_session_start_receivers(p->destination, NULL, NULL, &err), 0);
	cr_assert_eq(via_session_start_senders(p->source, &err), 0);
	cr_assert_eq(pthread_create(&thread, NULL, serve_until_end, p->destination), 0);
	cr_assert_eq(via_round_start(p->source, NULL, &err), 0);
	cr_assert_eq(via_round_drain(p->source, via_deadline_in(PATIENCE_NS), &err), 0, "%s: %s",
		     err.what, err.seen);
	if (seal)
		cr_assert_eq(via_session_seal(p->source, &err), 0, "%s: %s", err.what, err.seen);
	cr_assert_eq(via_main_send(p->source, MESSAGE_END, NULL, 0, &err), 0);
	pthread_join(thread, NULL);
}

void open_sealed(struct pair *p)
{
	pair_open(p, NULL, NULL);
	drain_a_round(p, true);
	open_kind(p, VIA_MULTIFD, MULTIFD);
}

/* -- main, from each side ----------------------------------------------------------------------- */

void expect_message(struct via_session *from, struct via_session *to)
{
	struct via_message m;
	struct via_error err = {0};

	cr_assert_eq(via_main_send(from, MESSAGE_HELLO, "hello", 5, &err), 0, "%s: %s", err.what,
		     err.seen);
	cr_assert_eq(via_main_receive(to, via_deadline_in(PATIENCE_NS), &m, &err), 0, "%s: %s",
		     err.what, err.seen);
	cr_assert_eq(m.type, MESSAGE_HELLO);
	cr_assert(m.len == 5 && !memcmp(m.payload, "hello", 5));
}
