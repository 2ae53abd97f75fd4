/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_accept.c -- connections that have come in, up to the point where each has shown who it is.
 *
 * Must never wait for one of them alone, nor hold a key for one that has said nothing yet.
 *
 * Invariant: each has a deadline from the moment it is taken, and there are never more than
 * VIA_STRANGERS_MAX: what strangers cost is bounded in time and in memory.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/log.h"
#include "transport/acceptor.h"
#include "transport/control_internal.h"

struct stranger {
	struct via_control *c;      /* NULL: a free place */
	struct control_proof proof; /* of a TLS handshake that has begun */
	bool has_spoken;
	uint64_t deadline_ns;
};

struct via_acceptor {
	int listen_fd;
	bool one; /* at a time; the next ones wait in the system's queue */
	struct stranger stranger[VIA_STRANGERS_MAX];
};

/* What is waited for: the request to end, who is new, and each stranger in its place. */
enum { CANCEL, NEW, FIRST, FDS = FIRST + VIA_STRANGERS_MAX };

/* -- one of them ------------------------------------------------------------------------- */

/* Its place is free again. The connection is the caller's, or closed. */
static void let_go(struct stranger *s, bool keep)
{
	control_proof_wipe(&s->proof);
	if (!keep)
		via_control_close(s->c);
	*s = (struct stranger){0};
}

/* Without a reason of its own. */
static void turn_away(struct stranger *s)
{
	(void)control_tls_give_up(s->c, &s->proof, -ECANCELED, NULL);
	let_go(s, false);
}

/* A proof is asked for in TLS; plain text proves nothing, but does make sense. */
static int go_on(struct stranger *s, const struct via_credentials *creds, struct via_error *err)
{
	int rc = 0;

	if (!control_has_proof(creds))
		return control_read_header(s->c, err);
	if (!s->has_spoken) {
		/* Only now: what the files hold need not be in memory while somebody is silent. */
		rc = control_proof_load(creds, NULL, &s->proof, err);
		if (!rc)
			rc = control_tls_begin(s->c, &s->proof, err);
	}
	return rc ? rc : control_tls_step(s->c, &s->proof, err);
}

/* It has taken too long. */
static int give_up(struct stranger *s, const struct via_credentials *creds, struct via_error *err)
{
	if (control_has_proof(creds))
		return control_tls_give_up(s->c, &s->proof, -EAGAIN, err);
	return via_fail(err, -ETIMEDOUT,
			"control connection with %s\nthe peer was silent until the deadline\n"
			"check that it is a `viaduct send`",
			s->c->peer);
}

/* It has said something, or it is too late: 0 and *control, -EAGAIN not yet, else why not. */
static int hear(struct stranger *s, bool is_late, const struct via_credentials *creds,
		struct via_control **control, struct via_error *err)
{
	struct via_control *c = s->c;
	int rc = is_late ? give_up(s, creds, err) : go_on(s, creds, err);

	s->has_spoken = true;
	if (rc == -EAGAIN)
		return rc;
	let_go(s, !rc);
	if (rc)
		return rc;
	via_log("control: %s has connected, %s", c->peer, via_control_security(c));
	*control = c;
	return 0;
}

/* -- all of them ------------------------------------------------------------------------- */

/* A free place, or the one that can best be spared. */
static struct stranger *find_place(struct via_acceptor *a)
{
	struct stranger *found = &a->stranger[0];

	for (unsigned i = 0; i < VIA_STRANGERS_MAX; i++) {
		struct stranger *s = &a->stranger[i];

		if (!s->c)
			return s;
		if (s->has_spoken != found->has_spoken ? found->has_spoken
						       : s->deadline_ns < found->deadline_ns)
			found = s;
	}
	return found;
}

/* The newcomer @c gets a place. 0, or the error of the one that had it. */
static int settle(struct via_acceptor *a, struct via_control *c, uint64_t deadline_ns,
		  struct via_error *err)
{
	struct stranger *s = find_place(a);
	int rc = 0;

	if (s->c) {
		rc = via_fail(err, -ETIMEDOUT,
			      "control connection with %s\n%u others have come before it has shown "
			      "who it is\nsee who connects to this port, and filter it",
			      s->c->peer, VIA_STRANGERS_MAX);
		turn_away(s);
	}
	*s = (struct stranger){.c = c, .deadline_ns = deadline_ns};
	return rc;
}

/* Whoever has knocked. 0, or an error of somebody. */
static int admit(struct via_acceptor *a, const struct via_credentials *creds,
		 const struct via_wait *wait, uint64_t handshake_ns, struct via_error *err)
{
	uint64_t deadline_ns = via_deadline_in(handshake_ns);
	struct via_control *c = NULL;
	int fd, rc = control_socket_accept(a->listen_fd, &fd, err);

	if (rc)
		return rc == -EAGAIN ? 0 : rc;
	rc = control_new(fd, &c, err);
	if (rc)
		return rc;
	if (control_has_proof(creds) || creds->insecure || c->loopback)
		return settle(a, c,
			      deadline_ns < wait->deadline_ns ? deadline_ns : wait->deadline_ns,
			      err);
	rc = via_fail(err, -EACCES,
		      "control connection with %s\nplain text is for loopback only\n"
		      "give both sides --psk or --tls-creds (or --insecure)",
		      c->peer);
	via_control_close(c);
	return rc;
}

/* What to wait for. Returns the earliest deadline of a stranger. */
static uint64_t fill_in(const struct via_acceptor *a, const struct via_wait *wait,
			struct pollfd p[FDS])
{
	uint64_t earliest_ns = VIA_NEVER;

	for (unsigned i = 0; i < VIA_STRANGERS_MAX; i++) {
		const struct stranger *s = &a->stranger[i];

		/* poll(2) leaves out what is negative. */
		p[FIRST + i] = (struct pollfd){.fd = -1};
		if (!s->c)
			continue;
		p[FIRST + i] = (struct pollfd){.fd = s->c->fd, .events = control_tls_events(s->c)};
		if (s->deadline_ns < earliest_ns)
			earliest_ns = s->deadline_ns;
	}
	p[CANCEL] = (struct pollfd){.fd = wait->cancel_fd, .events = POLLIN};
	p[NEW] = (struct pollfd){.fd = a->listen_fd, .events = POLLIN};
	if (a->one && a->stranger[0].c)
		p[NEW].fd = -1;
	return earliest_ns;
}

/* Sleep until something is to be done. -ECANCELED, -ETIMEDOUT nobody came; -ENOMEM */
static int wait_for_any(const struct via_acceptor *a, const struct via_wait *wait,
			struct pollfd p[FDS], struct via_error *err)
{
	uint64_t earliest_ns = fill_in(a, wait, p);
	bool is_first = wait->deadline_ns < earliest_ns;
	int n = poll(p, FDS, via_deadline_poll_ms(is_first ? wait->deadline_ns : earliest_ns));

	if (n < 0 && errno != EINTR)
		return via_fail(err, -ENOMEM, "wait for a connection\npoll: %s\nraise ulimit -n",
				strerror(errno));
	if (n < 0)
		memset(p, 0, FDS * sizeof(*p)); /* it says nothing then */
	if (p[CANCEL].revents)
		return via_fail(err, -ECANCELED, "wait for a connection\n%s\nstart it again",
				via_err_text(-ECANCELED));
	if (n == 0 && is_first && via_deadline_passed(wait->deadline_ns))
		return via_fail(err, -ETIMEDOUT,
				"wait for a connection\nnobody came until the deadline\n"
				"check that the source has this address and can reach it");
	return 0;
}

/* Each that has something to say. Errors as via_acceptor_take(); -EAGAIN: nobody is through. */
static int hear_all(struct via_acceptor *a, const struct pollfd p[FDS],
		    const struct via_credentials *creds, struct via_control **control,
		    struct via_error *err)
{
	int rc = -EAGAIN;

	for (unsigned i = 0; rc == -EAGAIN && i < VIA_STRANGERS_MAX; i++) {
		struct stranger *s = &a->stranger[i];
		bool is_late = s->c && via_deadline_passed(s->deadline_ns);

		if (s->c && (p[FIRST + i].revents || is_late))
			rc = hear(s, is_late, creds, control, err);
	}
	return rc;
}

/*
 * Before the wait: a file that cannot be read is better known now. What it holds is not kept
 * meanwhile: the wait may be long, no key need be in memory, and a newer ca-crl.pem counts.
 */
static int check_files(const struct via_credentials *creds, struct via_error *err)
{
	struct control_proof proof;
	int rc = control_proof_load(creds, NULL, &proof, err);

	if (!rc)
		control_proof_wipe(&proof);
	return rc;
}

int via_acceptor_take(struct via_acceptor *a, const struct via_credentials *creds,
		      const struct via_wait *wait, uint64_t handshake_ns,
		      struct via_control **control, struct via_error *err)
{
	struct pollfd p[FDS];
	int rc = check_files(creds, err);

	while (!rc) {
		rc = wait_for_any(a, wait, p, err);
		if (rc)
			break;
		rc = hear_all(a, p, creds, control, err);
		if (rc != -EAGAIN)
			break;
		rc = p[NEW].revents ? admit(a, creds, wait, handshake_ns, err) : 0;
	}
	return rc;
}

/* -- for whom ------------------------------------------------------------------------------ */

int via_acceptor_new(int listen_fd, struct via_acceptor **acceptor, struct via_error *err)
{
	struct via_acceptor *a = calloc(1, sizeof(*a));

	if (!a)
		return via_fail(err, -ENOMEM, "wait for a connection\nout of memory\nfree some");
	a->listen_fd = listen_fd;
	*acceptor = a;
	return 0;
}

static void let_all_go(struct via_acceptor *a)
{
	for (unsigned i = 0; i < VIA_STRANGERS_MAX; i++)
		if (a->stranger[i].c)
			turn_away(&a->stranger[i]);
}

void via_acceptor_free(struct via_acceptor *a)
{
	if (a)
		let_all_go(a);
	free(a);
}

int via_control_accept(int listen_fd, const struct via_credentials *creds,
		       const struct via_wait *wait, uint64_t handshake_ns,
		       struct via_control **control, struct via_error *err)
{
	struct via_acceptor a = {.listen_fd = listen_fd, .one = true};
	int rc = via_acceptor_take(&a, creds, wait, handshake_ns, control, err);

	let_all_go(&a);
	return rc;
}
