/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pair.c -- see pair.h.
 */
#include "tests/migrate/pair.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"

/* After so many tries to resume in vain the fabric is taken to be gone for good. */
#define RESUME_TRIES 50u

/* A destination waits for its source to resume. */
#define RESUME_NS (60 * VIA_NS_PER_S)

/* Where the source leaves the other end of a new control connection. */
struct mailbox {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int fd; /* -1: none */
	bool source_gone, destination_gone;
};

struct side {
	const struct pair_config *config;
	struct pair_result *result;
	struct small_guest guest;
	struct mailbox *mailbox;
	int fd;
};

static struct via_session_config session_config(const struct pair_config *c, const char *fabric,
						const struct via_resume *resume)
{
	if (resume && c->fabric_resumed)
		fabric = c->fabric_resumed;
	return (struct via_session_config){.fabric = fabric,
					   .multifd = c->multifd,
					   .preempt = c->preempt,
					   .slice_len = c->slice_len,
					   .stall_ns = c->stall_ns,
					   .handshake_ns = c->handshake_ns ? c->handshake_ns
									   : 20 * VIA_NS_PER_S,
					   .dead_after_ns = 20 * VIA_NS_PER_S,
					   .resume = resume};
}

static void tell_joined(const struct side *s, enum via_role role, struct via_session *session,
			int fd)
{
	if (s->config->joined)
		s->config->joined(role, session, fd);
}

/* -- recovery: the source comes with a new socket pair ---------------------------- */

static void put_gone(struct mailbox *box, bool *gone)
{
	pthread_mutex_lock(&box->lock);
	*gone = true;
	pthread_cond_broadcast(&box->changed);
	pthread_mutex_unlock(&box->lock);
}

/* False: there is nobody to take it. */
static bool put_fd(struct mailbox *box, int fd)
{
	bool taken = true;

	pthread_mutex_lock(&box->lock);
	if (box->fd >= 0)
		close(box->fd);
	box->fd = fd;
	if (box->destination_gone) {
		close(fd);
		box->fd = -1;
		taken = false;
	}
	pthread_cond_broadcast(&box->changed);
	pthread_mutex_unlock(&box->lock);
	return taken;
}

/* -1: the source is gone, or it took too long. */
static int get_fd(struct mailbox *box, uint64_t deadline_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(deadline_ns / VIA_NS_PER_S),
			      .tv_nsec = (long)(deadline_ns % VIA_NS_PER_S)};
	int fd, rc = 0;

	pthread_mutex_lock(&box->lock);
	while (box->fd < 0 && !box->source_gone && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&box->changed, &box->lock, &ts);
	fd = box->fd;
	box->fd = -1;
	pthread_mutex_unlock(&box->lock);
	return fd;
}

static int recover_source(void *arg, const struct via_resume *lost, const struct via_error *why,
			  uint64_t deadline_ns, struct via_session **session, struct via_error *err)
{
	struct side *s = arg;
	struct via_session_config sc = session_config(s->config, s->config->fabric_source, lost);

	(void)why;
	(void)deadline_ns;
	for (unsigned i = 0; i < RESUME_TRIES; i++) {
		struct via_error failed = {0};
		struct via_control *control;
		int fd[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
			abort();
		if (!put_fd(s->mailbox, fd[1])) {
			close(fd[0]);
			return via_fail(err, -ECONNREFUSED, "resume\nthe destination is gone\nno");
		}
		s->result->tries++;
		if (!via_control_wrap(fd[0], &control, &failed) &&
		    !via_migrate_connect_control(control, &sc, &s->guest.source, -1, session,
						 &failed)) {
			tell_joined(s, VIA_ROLE_SOURCE, *session, fd[0]);
			return 0;
		}
	}
	return via_fail(err, -ETIMEDOUT, "resume\ntoo many tries\nno");
}

static int recover_destination(void *arg, const struct via_resume *lost,
			       const struct via_error *why, uint64_t deadline_ns,
			       struct via_session **session, struct via_error *err)
{
	struct side *d = arg;
	struct via_session_config sc =
		session_config(d->config, d->config->fabric_destination, lost);
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	uint64_t end = via_deadline_in(RESUME_NS);
	int fd;

	(void)why;
	if (deadline_ns < end)
		end = deadline_ns;
	while ((fd = get_fd(d->mailbox, end)) >= 0) {
		struct via_error failed = {0};
		struct via_control *control;

		if (!via_control_wrap(fd, &control, &failed) &&
		    !via_migrate_accept_control(control, &sc, &d->guest.destination, &wait, session,
						&failed)) {
			tell_joined(d, VIA_ROLE_DESTINATION, *session, fd);
			return 0;
		}
	}
	d->result->lingered = deadline_ns != VIA_NEVER;
	return via_fail(err, -ETIMEDOUT, "wait for the source\nit did not come\nno");
}

/* -- the two sides ------------------------------------------------------------------ */

static void *destination_main(void *arg)
{
	struct side *d = arg;
	struct pair_result *r = d->result;
	struct via_error *err = &r->destination_error;
	struct via_session_config sc =
		session_config(d->config, d->config->fabric_destination, NULL);
	struct via_migrate_config mc = d->config->migrate;
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	struct via_control *control;
	struct via_session *session = NULL;

	mc.recover = recover_destination;
	mc.recover_arg = d;
	r->destination.outcome = VIA_ABORTED;
	if (!via_control_wrap(d->fd, &control, err) &&
	    !via_migrate_accept_control(control, &sc, &d->guest.destination, &wait, &session,
					err)) {
		tell_joined(d, VIA_ROLE_DESTINATION, session, d->fd);
		if (!via_migrate_destination(&session, &d->guest.destination, &mc, &r->destination,
					     err) &&
		    session)
			(void)via_migrate_send_report(session, "done", 4, NULL);
	}
	put_gone(d->mailbox, &d->mailbox->destination_gone);
	via_session_close(session);
	return NULL;
}

static void run_source(struct side *s)
{
	struct pair_result *r = s->result;
	struct via_error *err = &r->source_error;
	struct via_session_config sc = session_config(s->config, s->config->fabric_source, NULL);
	struct via_migrate_config mc = s->config->migrate;
	struct via_control *control;
	struct via_session *session = NULL;
	void *report;
	size_t len;

	mc.recover = recover_source;
	mc.recover_arg = s;
	r->source.outcome = VIA_ABORTED;
	if (!via_control_wrap(s->fd, &control, err) &&
	    !via_migrate_connect_control(control, &sc, &s->guest.source, -1, &session, err)) {
		tell_joined(s, VIA_ROLE_SOURCE, session, s->fd);
		if (!via_migrate_source(&session, &s->guest.source, &mc, &r->source, err) &&
		    !via_migrate_get_report(session, via_deadline_in(20 * VIA_NS_PER_S), &report,
					    &len, NULL))
			free(report);
	}
	put_gone(s->mailbox, &s->mailbox->source_gone);
	via_session_close(session);
}

static void mailbox_init(struct mailbox *box)
{
	pthread_condattr_t attr;

	memset(box, 0, sizeof(*box));
	box->fd = -1;
	pthread_mutex_init(&box->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&box->changed, &attr);
	pthread_condattr_destroy(&attr);
}

static void mailbox_fini(struct mailbox *box)
{
	if (box->fd >= 0)
		close(box->fd);
	pthread_cond_destroy(&box->changed);
	pthread_mutex_destroy(&box->lock);
}

void pair_migrate(const struct pair_config *config, struct pair_result *result)
{
	struct small_guest_config theirs = config->guest;
	struct mailbox box;
	struct side s = {.config = config, .result = result, .mailbox = &box};
	struct side d = {.config = config, .result = result, .mailbox = &box};
	pthread_t thread;
	int fd[2];

	memset(result, 0, sizeof(*result));
	mailbox_init(&box);
	theirs.fail_at = config->destination_fails_at;
	if (small_guest_source(&s.guest, &config->guest) ||
	    small_guest_destination(&d.guest, &theirs) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		abort();
	s.fd = fd[0];
	d.fd = fd[1];
	if (pthread_create(&thread, NULL, destination_main, &d))
		abort();
	if (config->begins)
		config->begins();
	run_source(&s);
	pthread_join(thread, NULL);
	small_guest_join(&d.guest);
	result->source_runs = s.guest.running;
	result->destination_runs = d.guest.running;
	if (d.guest.running)
		result->wrong_pages = d.guest.wrong_at_run + atomic_load(&d.guest.wrong_touched) +
				      small_guest_wrong_pages(&d.guest);
	small_guest_fini(&s.guest);
	small_guest_fini(&d.guest);
	mailbox_fini(&box);
}
