/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pair.c -- see pair.h.
 */
#include "tests/migrate/pair.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/clock.h"

struct side {
	const struct pair_config *config;
	struct pair_result *result;
	struct small_guest guest;
	int fd;
};

static struct via_session_config session_config(const struct pair_config *c, const char *fabric)
{
	return (struct via_session_config){.fabric = fabric,
					   .multifd = c->multifd,
					   .slice_len = c->slice_len,
					   .handshake_ns = 20 * VIA_NS_PER_S,
					   .dead_after_ns = 20 * VIA_NS_PER_S};
}

static void *destination_main(void *arg)
{
	struct side *d = arg;
	struct pair_result *r = d->result;
	struct via_error *err = &r->destination_error;
	struct via_session_config sc = session_config(d->config, d->config->fabric_destination);
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	struct via_control *control;
	struct via_session *session;

	if (via_control_wrap(d->fd, &control, err) ||
	    via_migrate_accept_control(control, &sc, &d->guest.destination, &wait, &session, err))
		return NULL;
	if (!via_migrate_destination(session, &d->guest.destination, &d->config->migrate,
				     &r->destination, err))
		(void)via_migrate_send_report(session, "done", 4, NULL);
	via_session_close(session);
	return NULL;
}

static void run_source(struct side *s)
{
	struct pair_result *r = s->result;
	struct via_error *err = &r->source_error;
	struct via_session_config sc = session_config(s->config, s->config->fabric_source);
	struct via_control *control;
	struct via_session *session;
	void *report;
	size_t len;

	r->source.outcome = VIA_ABORTED;
	if (via_control_wrap(s->fd, &control, err) ||
	    via_migrate_connect_control(control, &sc, &s->guest.source, -1, &session, err))
		return;
	if (!via_migrate_source(session, &s->guest.source, &s->config->migrate, &r->source, err) &&
	    !via_migrate_get_report(session, via_deadline_in(20 * VIA_NS_PER_S), &report, &len,
				    err))
		free(report);
	via_session_close(session);
}

void pair_migrate(const struct pair_config *config, struct pair_result *result)
{
	struct small_guest_config theirs = config->guest;
	struct side s = {.config = config, .result = result};
	struct side d = {.config = config, .result = result};
	pthread_t thread;
	int fd[2];

	memset(result, 0, sizeof(*result));
	theirs.fail_at = config->destination_fails_at;
	if (small_guest_source(&s.guest, &config->guest) ||
	    small_guest_destination(&d.guest, &theirs) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		abort();
	s.fd = fd[0];
	d.fd = fd[1];
	if (pthread_create(&thread, NULL, destination_main, &d))
		abort();
	run_source(&s);
	pthread_join(thread, NULL);
	result->source_runs = s.guest.running;
	result->destination_runs = d.guest.running;
	if (d.guest.running)
		result->wrong_pages = d.guest.wrong_at_run + small_guest_wrong_pages(&d.guest);
	small_guest_fini(&s.guest);
	small_guest_fini(&d.guest);
}
