/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_destination.c -- beside the destination's QEMU: take the source relay's session, and give
 * each channel that it opens a lane.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "relay/lane.h"
#include "relay/tune.h"
#include "transport/acceptor.h"

#define HANDSHAKE_NS (10 * VIA_NS_PER_S)
#define OURS_NS      VIA_NS_PER_S /* what is wrong here may be mended: look again so often */

struct destination {
	const struct relay_config *config;
	const char *qemu;
	int listen_fd;
	struct via_session *session;
	struct lanes lanes;
	int event_fd; /* epoll: the request to end, and the lanes' news */
	bool served;  /* somebody, once */
};

static int ended_by_request(struct via_error *err)
{
	return via_fail(err, -ECANCELED,
			"carry a migration\nended by request\n"
			"see what query-migrate says on both hosts");
}

/* Now, or before @ns have passed. */
static bool is_canceled_within(const struct destination *d, uint64_t ns)
{
	struct pollfd p = {.fd = d->config->cancel_fd, .events = POLLIN};

	return poll(&p, 1, (int)(ns / VIA_NS_PER_MS)) > 0;
}

static bool is_canceled(const struct destination *d)
{
	return is_canceled_within(d, 0);
}

/*
 * Wait for a source relay. One that cannot be served is named, and the wait goes on: only what is
 * wrong before anybody has come, such as the key, ends it. Later that may be mended.
 */
static int accept_one(struct destination *d, struct via_acceptor *acceptor,
		      const struct via_session_config *config, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = d->config->cancel_fd};

	for (;;) {
		struct via_error why = {0};
		struct via_control *control;
		int rc = via_acceptor_take(acceptor, &config->credentials, &wait,
					   config->handshake_ns, &control, &why);
		bool wrong = via_err_scope(rc) == VIA_SCOPE_CALL, ours = wrong || rc == -EIO;

		if (!rc)
			rc = via_session_accept_control(control, config, &wait, &d->session, &why);
		if (!rc || (wrong && !d->served) || is_canceled(d))
			return rc ? via_error_pass(err, &why) : 0;
		relay_note(d->config, "%s: %s", why.what, why.seen);
		if (ours)
			(void)is_canceled_within(d, OURS_NS);
	}
}

static int accept_session(struct destination *d, const struct relay_lost *lost,
			  struct via_error *err)
{
	struct via_acceptor *acceptor = NULL;
	struct via_session_config config;
	int rc;

	relay_session_config(d->config, lost, &config);
	if (!config.handshake_ns)
		config.handshake_ns = HANDSHAKE_NS;
	rc = via_acceptor_new(d->listen_fd, &acceptor, err);
	if (!rc)
		rc = accept_one(d, acceptor, &config, err);
	via_acceptor_free(acceptor);
	return rc;
}

static int watch(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return fd < 0 ? 0 : epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static int open_events(struct destination *d, struct via_error *err)
{
	d->event_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->event_fd < 0 || watch(d->event_fd, d->config->cancel_fd) ||
	    watch(d->event_fd, d->lanes.wake_fd))
		return via_fail(err, via_err_from_errno(errno),
				"carry a migration\n%s\nraise ulimit -n", strerror(errno));
	return 0;
}

static bool is_over(const struct destination *d)
{
	return atomic_load(&d->lanes.had_main) && !atomic_load(&d->lanes.running);
}

/* Main has ended and another has not: QEMU does not leave it so for long. */
static uint64_t linger_deadline(const struct destination *d, uint64_t before)
{
	if (!atomic_load(&d->lanes.had_main) || atomic_load(&d->lanes.main_running))
		return VIA_NEVER;
	return before == VIA_NEVER ? via_deadline_in(RELAY_LINGER_NS) : before;
}

/* The source opens no more channels: its part is done, and ours follows soon. */
static int finish_lanes(struct destination *d, const struct via_error *why, struct via_error *err)
{
	uint64_t deadline = via_deadline_in(RELAY_LINGER_NS);
	struct pollfd p = {.fd = d->event_fd, .events = POLLIN};
	eventfd_t drop;

	while (atomic_load(&d->lanes.running)) {
		(void)poll(&p, 1, via_deadline_poll_ms(deadline));
		(void)eventfd_read(d->lanes.wake_fd, &drop);
		if (is_canceled(d))
			return ended_by_request(err);
		if (via_deadline_passed(deadline))
			return via_error_pass(err, why);
	}
	return atomic_load(&d->lanes.had_main) ? 0 : via_error_pass(err, why);
}

/* Until the source says that it is through: main may end before the last channel is here. */
static int serve_session(struct destination *d, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = d->event_fd};
	bool through = false;
	int rc = 0;

	while (!rc && !through) {
		struct via_error why = {0};
		struct via_stream *stream;
		bool failed;
		eventfd_t drop;

		wait.deadline_ns = linger_deadline(d, wait.deadline_ns);
		rc = via_stream_accept(d->session, &wait, &stream, &why);
		failed = rc && via_session_failure(d->session, NULL);
		if (failed) { /* meanwhile, perhaps: its cause is the one to be told */
			why.code = 0;
			rc = via_session_failure(d->session, &why);
		}
		if (!rc) {
			rc = lane_start_destination(&d->lanes, stream, err);
		} else if (rc == -ECANCELED && !failed) {
			(void)eventfd_read(d->lanes.wake_fd, &drop);
			rc = is_canceled(d) ? ended_by_request(err) : 0;
		} else {
			through = true;
			if (rc == -ECONNRESET && !failed)
				rc = finish_lanes(d, &why, err);
			else
				rc = is_over(d) ? 0 : via_error_pass(err, &why);
		}
	}
	return rc ? rc : lanes_failure(&d->lanes, err);
}

static void end_session(struct destination *d, int rc, const struct via_error *why,
			struct relay_lost *lost, struct relay_result *result)
{
	if (rc)
		via_session_abort(d->session, why->code ? why : NULL);
	lanes_join(&d->lanes);
	lanes_result(&d->lanes, rc, result);
	relay_keep_session(lost, d->session);
	via_session_close(d->session);
	d->session = NULL;
	if (d->event_fd >= 0)
		close(d->event_fd);
	d->event_fd = -1;
}

static int serve(void *arg, struct relay_lost *lost, struct relay_result *result, bool *hopeless,
		 struct via_error *err)
{
	struct destination *d = arg;
	int rc = accept_session(d, lost, err);

	*hopeless = rc && !d->served;
	if (rc)
		return rc;
	d->served = true;
	relay_note_session(d->config, lost, d->session);
	rc = lanes_init(&d->lanes, d->config, d->session, false, err);
	d->lanes.qemu = d->qemu;
	if (!rc)
		rc = open_events(d, err);
	if (!rc)
		rc = via_session_provide(d->session, NULL, err);
	if (!rc)
		rc = serve_session(d, err);
	end_session(d, rc, err, lost, result);
	if (result->outcome == RELAY_COMPLETED && result->postcopy)
		tune_note_faults(d->config);
	return rc;
}

int relay_destination(int listen_fd, const char *qemu, const struct relay_config *config,
		      struct relay_result *result, struct via_error *err)
{
	struct destination d = {
		.config = config, .qemu = qemu, .listen_fd = listen_fd, .event_fd = -1};

	return relay_run(config, serve, &d, result, err);
}
