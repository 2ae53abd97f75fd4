/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keeper.c -- the control connection once the session stands: one thread that hands
 * on what arrives, keeps the connection alive, and is the detector of a lost peer.
 *
 * It never waits for anything but the control connection, so that a peer's silence is noticed
 * within dead_after_ns whatever else goes on.
 */
#include <sys/eventfd.h>

#include "transport/session.h"

/* A ping goes out this many times within dead_after_ns. */
#define PINGS 5

/* How long a goodbye waits for the peer's. */
#define BYE_NS (2 * VIA_NS_PER_S)

static int on_error(const uint8_t *payload, size_t len, struct via_error *err)
{
	struct via_error theirs;

	if (via_error_decode(payload, len, &theirs))
		return via_fail(err, -EPROTO,
				"control connection\na malformed ERROR\n"
				"check that both sides run the same release");
	return via_fail(err, theirs.code, "at the peer: %s\n%s\n%s", theirs.what, theirs.seen,
			theirs.remedy);
}

static int on_ping(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err)
{
	uint8_t buf[16];
	uint64_t stamp;
	ssize_t n;

	if (via_ping_decode(payload, len, &stamp))
		return via_fail(err, -EPROTO,
				"control connection\na malformed PING\n"
				"check that both sides run the same release");
	n = via_ping_encode(stamp, buf, sizeof(buf));
	return n < 0 ? (int)n : via_control_post(s->control, VIA_CONTROL_PONG, buf, (size_t)n);
}

static int on_pong(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err)
{
	uint64_t stamp;

	if (via_ping_decode(payload, len, &stamp))
		return via_fail(err, -EPROTO,
				"control connection\na malformed PONG\n"
				"check that both sides run the same release");
	pthread_mutex_lock(&s->lock);
	if (s->ponged < stamp)
		s->ponged = stamp;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void on_bye(struct via_session *s)
{
	pthread_mutex_lock(&s->lock);
	s->peer_said_bye = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->config.streams)
		eventfd_write(s->main_wake_fd, 1); /* no more will be opened */
}

static int dispatch(struct via_session *s, const struct via_control_frame *f, struct via_error *err)
{
	switch (f->type) {
	case VIA_CONTROL_CHANNEL_OPEN:
		return open_on_open(s, f->payload, f->len, err);
	case VIA_CONTROL_CHANNEL_ADDR:
		return open_on_addr(s, f->payload, f->len, err);
	case VIA_CONTROL_CHANNEL_READY:
		return open_on_ready(s, f->payload, f->len, err);
	case VIA_CONTROL_CHANNEL_REFUSED:
		return open_on_refused(s, f->payload, f->len, err);
	case VIA_CONTROL_PING:
		return on_ping(s, f->payload, f->len, err);
	case VIA_CONTROL_PONG:
		return on_pong(s, f->payload, f->len, err);
	case VIA_CONTROL_ERROR:
		return on_error(f->payload, f->len, err);
	case VIA_CONTROL_BYE:
		if (f->len)
			return via_fail(err, -EPROTO,
					"control connection\na malformed BYE\n"
					"check that both sides run the same release");
		on_bye(s);
		return 0;
	}
	return via_fail(err, -EPROTO,
			"control connection\na message of type %u does not belong here\n"
			"check that both sides run the same release",
			f->type);
}

int keeper_ping(struct via_session *s, uint64_t stamp)
{
	uint8_t buf[16];
	ssize_t n = via_ping_encode(stamp, buf, sizeof(buf));

	return n < 0 ? (int)n : via_control_post(s->control, VIA_CONTROL_PING, buf, (size_t)n);
}

/*
 * Nothing came for a while: ping, or give the peer up. As many waits have to have passed as fit into
 * the time: a process that was stopped, or a host that was, has heard nothing because it slept.
 */
static int on_silence(struct via_session *s, struct via_error *err)
{
	if (++s->silent < PINGS || via_now_ns() - s->heard_ns < s->config.dead_after_ns)
		return keeper_ping(s, via_now_ns());
	return via_fail(err, -ETIMEDOUT,
			"control connection\nnothing heard from the peer for %.3g s\n"
			"check that the peer's process runs and the network is up",
			(double)s->config.dead_after_ns / 1e9);
}

static bool said_bye(struct via_session *s)
{
	bool yes;

	pthread_mutex_lock(&s->lock);
	yes = s->peer_said_bye;
	pthread_mutex_unlock(&s->lock);
	return yes;
}

/*
 * The peer is done and this side is not: what it sent before may still be under way on the
 * channels, so it gets some time to arrive; after that nothing will.
 */
static int outlive_peer(struct via_session *s, int rc, struct via_error *err)
{
	if (rc == -EAGAIN && via_now_ns() - s->heard_ns < BYE_NS)
		return 0;
	return via_fail(err, -ECONNRESET,
			"session\nthe peer has ended it\n"
			"see why in the peer's own output");
}

/* One wait and what came of it. */
static int keep(struct via_session *s, struct via_error *err, bool *peer_knows)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(s->config.dead_after_ns / PINGS),
				.cancel_fd = s->keeper_fd};
	struct via_control_frame frame;
	struct via_error lost = {0};
	int rc = via_control_receive(s->control, &wait, &frame, &lost);

	if (rc == -ECANCELED)
		return 0;
	if (rc == 0) {
		s->heard_ns = via_now_ns();
		s->silent = 0;
		*peer_knows = frame.type == VIA_CONTROL_ERROR;
		return dispatch(s, &frame, err);
	}
	if (said_bye(s))
		return outlive_peer(s, rc, err);
	if (rc == -EAGAIN)
		return on_silence(s, err);
	*err = lost;
	return rc;
}

static void *keeper_main(void *arg)
{
	struct via_session *s = arg;
	struct via_error err = {0};
	struct via_wait last_words = {.cancel_fd = -1};
	bool peer_knows = false;
	int rc = 0;

	s->heard_ns = via_now_ns();
	while (rc == 0 && !atomic_load(&s->closing))
		rc = keep(s, &err, &peer_knows);
	if (rc < 0) {
		via_fail(&err, rc, "control connection\n%s\ncheck the peer and the network",
			 via_err_text(rc));
		session_fail(s, &err, !peer_knows);
		last_words.deadline_ns = via_deadline_in(VIA_NS_PER_S);
		(void)via_control_flush(s->control, &last_words, NULL);
	}
	pthread_mutex_lock(&s->lock);
	s->control_ended = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int keeper_start(struct via_session *s, struct via_error *err)
{
	int rc = pthread_create(&s->control_thread, NULL, keeper_main, s);

	s->has_control_thread = !rc;
	if (rc)
		return via_fail(err, via_err_from_errno(rc),
				"start a session\nno more threads\nraise ulimit -u");
	pthread_setname_np(s->control_thread, "control");
	return 0;
}

void keeper_stop(struct via_session *s)
{
	uint64_t deadline = via_deadline_in(BYE_NS);
	struct timespec ts = {.tv_sec = (time_t)(deadline / VIA_NS_PER_S),
			      .tv_nsec = (long)(deadline % VIA_NS_PER_S)};
	struct via_wait wait = {.deadline_ns = deadline, .cancel_fd = -1};
	int rc = 0;

	if (!s->has_control_thread)
		return;
	if (!atomic_load(&s->failure_code))
		(void)via_control_post(s->control, VIA_CONTROL_BYE, NULL, 0);
	pthread_mutex_lock(&s->lock);
	while (!s->failed && !s->peer_said_bye && !s->control_ended && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	pthread_mutex_unlock(&s->lock);
	atomic_store(&s->closing, true);
	eventfd_write(s->keeper_fd, 1);
	pthread_join(s->control_thread, NULL);
	s->has_control_thread = false;
	(void)via_control_flush(s->control, &wait, NULL);
}
