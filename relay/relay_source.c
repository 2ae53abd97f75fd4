/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_source.c -- beside the source's QEMU: accept all of its connections at once, find out
 * what each is, and give it a lane.
 *
 * It must never make one connection wait for the bytes of another: QEMU's main channel is silent
 * until all others are connected. And never go to the peer for a connection that is not known: who
 * looks whether somebody listens here is nobody's migration.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/lane.h"
#include "relay/qmp.h"

#define PENDING_MAX RELAY_MULTIFD_MAX
#define PATIENCE_NS (30 * VIA_NS_PER_S)
#define ASK_NS      (2 * VIA_NS_PER_S)  /* for QMP, which may be another client's */
#define TUNED_NS    (10 * VIA_NS_PER_S) /* the same, where it has answered before, and must again */
#define DEAF_NS     VIA_NS_PER_S        /* nobody is accepted, when there was no descriptor */

struct pending {
	int fd;
	bool next; /* main of the next migration; who is behind it belongs to it, and is not asked for */
	struct relay_candidate candidate;
};

struct source {
	const struct relay_config *config;
	const char *peer;
	int listen_fd;
	struct relay_told told; /* by its QEMU */
	struct relay_identify identify;
	struct pending pending[PENDING_MAX]; /* in the order in which they were accepted */
	unsigned npending;
	uint64_t deaf_until;           /* nobody is accepted before */
	const struct relay_lost *lost; /* to go on with */
	struct via_session_config session_config;
	struct via_session *session; /* NULL before the first connection is known */
	struct lanes lanes;
	uint64_t linger_until; /* VIA_NEVER: main is there, or was not yet */
	bool complete;         /* who comes now is the next migration's */
};

/* -- connections that are not known ------------------------------------------------- */

static void forget(struct source *s, unsigned i)
{
	s->npending--;
	memmove(&s->pending[i], &s->pending[i + 1], (s->npending - i) * sizeof(s->pending[0]));
}

static void close_pending(struct source *s)
{
	while (s->npending) {
		close(s->pending[0].fd);
		forget(s, 0);
	}
}

/* Who waits for a descriptor keeps the socket readable: look again after a while, and say so once. */
static void turn_deaf(struct source *s, int errnum)
{
	if (!s->deaf_until)
		relay_note(s->config, "accept a connection of QEMU: %s: raise ulimit -n",
			   strerror(errnum));
	s->deaf_until = via_deadline_in(DEAF_NS);
}

static void accept_all(struct source *s)
{
	while (s->npending < PENDING_MAX && via_deadline_passed(s->deaf_until)) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			s->deaf_until = 0;
			s->pending[s->npending++] = (struct pending){
				.fd = fd, .candidate = {.accepted_ns = via_now_ns()}};
		} else if (errno == EAGAIN) {
			s->deaf_until = 0;
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			turn_deaf(s, errno);
		}
	}
}

static bool wants_bytes(const struct pending *p)
{
	return p->candidate.len < RELAY_FIRST_BYTES_MAX && !p->candidate.ended;
}

static void read_first(struct pending *p)
{
	struct relay_candidate *c = &p->candidate;

	while (wants_bytes(p)) {
		ssize_t n = recv(p->fd, c->first + c->len, RELAY_FIRST_BYTES_MAX - c->len,
				 MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0)
			c->ended = true;
		else
			c->len += (size_t)n;
	}
}

/*
 * Who is left from a session that had main may be early for the next: QEMU comes back as soon as
 * one of its connections has ended. Others belonged to the old one, and QEMU closes them.
 */
static void close_ended(struct source *s)
{
	for (unsigned i = 0; i < s->npending;) {
		s->pending[i].next = false;
		read_first(&s->pending[i]);
		if (!s->pending[i].candidate.ended) {
			i++;
			continue;
		}
		close(s->pending[i].fd);
		forget(s, i);
	}
}

/* -- the session, once a connection is known -------------------------------------------- */

/* Ask QEMU how it is set; it has begun, so its settings are final. */
static int ask_qemu(struct source *s, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(s->config->tune ? TUNED_NS : ASK_NS),
				.cancel_fd = s->config->cancel_fd};
	struct relay_qmp *qmp = NULL;
	struct via_error why = {0};
	int rc = 0;

	s->told = s->config->told ? *s->config->told : (struct relay_told){0};
	if (s->config->qmp)
		rc = relay_qmp_open(s->config->qmp, &wait, &qmp, &why);
	if (!rc && qmp)
		rc = relay_qmp_ask(qmp, &wait, &s->told, &why);
	relay_qmp_close(qmp);
	if (rc && s->config->tune)
		return via_error_pass(err, &why);
	if (rc)
		relay_note(s->config, "%s: %s: channels are inferred", why.what, why.seen);
	if (s->config->tune)
		s->told.facts.binding = true;
	s->identify.expected = s->told.expected;
	return 0;
}

/*
 * To the relay at the destination: in the session of a paused postcopy if there is one, or, where
 * that relay was started again and does not know it, in a new one, which carries it just as well.
 */
static int connect_peer(struct source *s, struct via_session_config *config, struct via_error *err)
{
	struct via_error why = {0};
	int rc = via_session_connect(s->peer, config, NULL, 0, s->config->cancel_fd, &s->session,
				     &why);

	if (rc != -ESTALE || !config->resume)
		return rc ? via_error_pass(err, &why) : 0;
	config->resume = NULL;
	return via_session_connect(s->peer, config, NULL, 0, s->config->cancel_fd, &s->session,
				   err);
}

static int connect_session(struct source *s, struct via_error *err)
{
	struct via_session_config config = s->session_config;
	int rc = ask_qemu(s, err);

	if (!rc)
		rc = connect_peer(s, &config, err);
	if (rc)
		return rc;
	relay_note_session(s->config, s->lost, s->session);
	rc = lanes_init(&s->lanes, s->config, s->session, true, err);
	s->lanes.facts = s->told.facts;
	return rc;
}

/* -- each connection gets its lane --------------------------------------------------------- */

static void learn(struct source *s)
{
	struct relay_seen *seen = &s->identify.seen;

	seen->postcopy = atomic_load(&s->lanes.postcopy);
	seen->answered = atomic_load(&s->lanes.answered);
	seen->early_preempt = atomic_load(&s->lanes.early_preempt);
	seen->main_ends = atomic_load(&s->lanes.main_ends);
}

static int start_lane(struct source *s, const struct pending *p, const struct relay_identity *who,
		      struct via_error *err)
{
	int rc = s->session ? 0 : connect_session(s, err);

	if (who->note[0])
		relay_note(s->config, "%s", who->note);
	if (rc) {
		close(p->fd);
		return rc;
	}
	return lane_start_source(&s->lanes, who, p->fd, &p->candidate, err);
}

/* Each that is known now gets its lane, or is refused. */
static int identify_all(struct source *s, struct via_error *err)
{
	int rc = 0;

	learn(s);
	for (unsigned i = 0; i < s->npending && !rc;) {
		struct pending *p = &s->pending[i];
		struct relay_identity who;
		struct via_error why = {0};

		read_first(p);
		if (relay_identify(&s->identify, &p->candidate, via_now_ns(), &who, &why)) {
			relay_note(s->config, "%s: %s", why.what, why.seen);
			close(p->fd);
			forget(s, i);
		} else if (who.role == RELAY_PENDING) {
			p->next = who.next;
			if (who.next)
				break;
			i++;
		} else {
			rc = start_lane(s, p, &who, err);
			forget(s, i);
			i = 0; /* it may say what the others are */
		}
	}
	return rc;
}

/* -- one migration -------------------------------------------------------------------- */

static bool main_has_left(const struct source *s)
{
	return atomic_load(&s->lanes.had_main) && !atomic_load(&s->lanes.main_running);
}

static uint64_t next_deadline(const struct source *s)
{
	uint64_t first = s->linger_until;

	if (!via_deadline_passed(s->deaf_until) && s->deaf_until < first)
		first = s->deaf_until;
	for (unsigned i = 0; i < s->npending; i++) {
		uint64_t at = relay_identify_deadline(&s->identify, &s->pending[i].candidate);

		first = at < first ? at : first;
		if (s->pending[i].next)
			break;
	}
	return first;
}

/* Sleep until something has happened. -ECANCELED */
static int wait_for_events(struct source *s, struct via_error *err)
{
	struct pollfd p[3 + PENDING_MAX] = {{.fd = s->config->cancel_fd, .events = POLLIN},
					    {.fd = s->lanes.wake_fd, .events = POLLIN},
					    {.fd = s->listen_fd, .events = POLLIN}};
	bool later = false;
	eventfd_t drop;

	for (unsigned i = 0; i < s->npending; i++) {
		bool wanted = !later && wants_bytes(&s->pending[i]);

		p[3 + i] = (struct pollfd){.fd = wanted ? s->pending[i].fd : -1, .events = POLLIN};
		later = later || s->pending[i].next;
	}
	if (s->npending == PENDING_MAX || !via_deadline_passed(s->deaf_until) ||
	    (s->complete && !main_has_left(s)))
		p[2].fd = -1;
	if (poll(p, 3 + s->npending, via_deadline_poll_ms(next_deadline(s))) < 0)
		return errno == EINTR ? 0
				      : via_fail(err, -EIO, "wait for QEMU\n%s\nstart it again",
						 strerror(errno));
	if (p[0].revents && !s->session)
		return via_fail(err, -ECANCELED, "wait for QEMU\nended by request\nstart it again");
	if (p[0].revents)
		return via_fail(err, -ECANCELED,
				"carry a migration\nended by request\n"
				"see what query-migrate says on both hosts");
	if (p[1].revents)
		(void)eventfd_read(s->lanes.wake_fd, &drop);
	return 0;
}

/* Is the migration through? Lanes end with their connections. */
static bool is_over(struct source *s)
{
	if (!s->lanes.nlanes || atomic_load(&s->lanes.running))
		return false;
	return !s->npending || atomic_load(&s->lanes.had_main);
}

/* QEMU may give it up while main is silent: then nobody at the other side will ever see the rest. */
static int check_given_up(const struct source *s, struct via_error *err)
{
	if (!s->lanes.nlanes || atomic_load(&s->lanes.had_main) ||
	    atomic_load(&s->lanes.unclosed) || s->npending)
		return 0;
	return via_fail(
		err, -ECONNRESET,
		"carry a migration\nQEMU has closed all connections, and main has said nothing\n"
		"see why QEMU gave the migration up");
}

static bool somebody_knocks(const struct source *s)
{
	struct pollfd p = {.fd = s->listen_fd, .events = POLLIN};

	return s->npending || poll(&p, 1, 0) > 0;
}

/*
 * Main has ended and another has not: QEMU does not leave it so for long. But a postcopy that has
 * paused keeps its multifd channels: they end when it is resumed, by a connection for the next session.
 */
static void limit_linger(struct source *s)
{
	if (!main_has_left(s))
		s->linger_until = VIA_NEVER;
	else if (s->linger_until == VIA_NEVER)
		s->linger_until = via_deadline_in(RELAY_LINGER_NS);
	else if (via_deadline_passed(s->linger_until) || somebody_knocks(s))
		via_session_abort(s->session, NULL);
}

static bool may_come_preempt(const struct source *s)
{
	return s->identify.seen.postcopy &&
	       (!s->identify.expected.known || s->identify.expected.preempt);
}

/* Once main ends: those who were there by then, and nobody after them. */
static void accept_own(struct source *s)
{
	bool ends = atomic_load(&s->lanes.main_ends);

	if (!s->complete)
		accept_all(s);
	s->complete = ends;
}

static int carry(struct source *s, struct via_error *err)
{
	int rc = 0;

	while (!rc && !is_over(s)) {
		accept_own(s);
		rc = identify_all(s, err);
		if (!rc)
			rc = check_given_up(s, err);
		if (!rc && may_come_preempt(s))
			rc = lane_prepare_preempt(&s->lanes, err);
		limit_linger(s);
		if (!rc && s->session && !is_over(s))
			rc = via_session_failure(s->session, err);
		if (!rc && !is_over(s))
			rc = wait_for_events(s, err);
	}
	return rc ? rc : lanes_failure(&s->lanes, err);
}

static void end_session(struct source *s, int rc, const struct via_error *why,
			struct relay_lost *lost, struct relay_result *result)
{
	if (!s->session)
		return;
	if (rc)
		via_session_abort(s->session, why->code ? why : NULL);
	lanes_join(&s->lanes);
	lanes_result(&s->lanes, rc, result);
	relay_keep_session(lost, s->session);
	via_session_close(s->session);
	s->session = NULL;
}

static void begin(struct source *s, const struct relay_lost *lost)
{
	s->lost = lost;
	s->linger_until = VIA_NEVER;
	s->complete = false;
	memset(&s->lanes, 0, sizeof(s->lanes));
	s->lanes.wake_fd = s->lanes.main_up_fd = -1;
	relay_session_config(s->config, lost, &s->session_config);
	relay_identify_init(&s->identify, s->session_config.multifd,
			    s->config->patience_ns ? s->config->patience_ns : PATIENCE_NS);
	close_ended(s);
}

static int serve(void *arg, struct relay_lost *lost, struct relay_result *result, bool *hopeless,
		 struct via_error *err)
{
	struct source *s = arg;
	int rc;

	(void)hopeless; /* what fails when QEMU has come may be the peer's */
	begin(s, lost);
	rc = carry(s, err);
	if (!atomic_load(&s->lanes.had_main)) {
		accept_all(s); /* all that QEMU has opened for it */
		close_pending(s);
	}
	end_session(s, rc, err, lost, result);
	return rc;
}

int relay_source(int listen_fd, const char *peer, const struct relay_config *config,
		 struct relay_result *result, struct via_error *err)
{
	struct source s = {.config = config, .peer = peer, .listen_fd = listen_fd};
	int rc = relay_run(config, serve, &s, result, err);

	close_pending(&s);
	return rc;
}
