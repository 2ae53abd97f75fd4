/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * handshake.c -- from a control connection to a session: HELLO, the choice of the fabric,
 * SETUP, and the registration of guest RAM (docs/wire.md, sequence).
 *
 * Runs in the caller's thread; the keeper takes the control connection over at the
 * end. Nothing here opens memory to the peer: keys follow with the channels.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/inquire.h"
#include "transport/session.h"

#define PROGRAM "viaduct 0.1.0"

/* Making and registering guest RAM may take the destination this much longer. */
#define PROVIDE_NS (60 * VIA_NS_PER_S)

static int fail_decode(struct via_error *err, const char *what, int code)
{
	return via_fail(err, code,
			"handshake\nthe peer's %s is malformed\n"
			"check that both sides run the same release",
			what);
}

/* Wait for a frame of @type. An ERROR of the peer becomes ours. */
static int expect(struct via_session *s, uint16_t type, const char *name, uint64_t ns,
		  int cancel_fd, struct via_control_frame *frame, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(ns), .cancel_fd = cancel_fd};
	int rc = via_control_receive(s->control, &wait, frame, err);

	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT,
				"handshake\nno %s from the peer within %.0f s\n"
				"check that viaduct runs there",
				name, (double)ns / 1e9);
	if (rc == -ECANCELED)
		return via_fail(err, rc, "handshake\naborted by request\nstart it again");
	if (rc)
		return rc;
	if (frame->type == VIA_CONTROL_ERROR) {
		struct via_error theirs;

		if (via_error_decode(frame->payload, frame->len, &theirs))
			return fail_decode(err, "ERROR", -EPROTO);
		return via_fail(err, theirs.code, "at the peer: %s\n%s\n%s", theirs.what,
				theirs.seen, theirs.remedy);
	}
	if (frame->type != type)
		return via_fail(err, -EPROTO,
				"handshake\na message of type %u where %s belongs\n"
				"check that both sides run the same release",
				frame->type, name);
	return 0;
}

/* Tell the peer why this ends here, and give it the time to read it. */
static void say_error(struct via_session *s, const struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(VIA_NS_PER_S), .cancel_fd = -1};
	uint8_t buf[1024];
	ssize_t n = via_error_encode(err, buf, sizeof(buf));

	if (n > 0 && !via_control_post(s->control, VIA_CONTROL_ERROR, buf, (size_t)n))
		(void)via_control_flush(s->control, &wait, NULL);
}

/* The source shows what it wants, the destination what it can do. */
static uint64_t own_features(const struct via_session *s)
{
	bool digests = s->role == VIA_ROLE_SOURCE ? s->config.integrity : !s->config.streams;

	return digests ? VIA_FEATURE_INTEGRITY : 0;
}

static int agree_on_features(struct via_session *s, uint64_t theirs, struct via_error *err)
{
	s->integrity = own_features(s) & theirs & VIA_FEATURE_INTEGRITY;
	if (s->integrity || !s->config.integrity)
		return 0;
	return via_fail(err, -EOPNOTSUPP,
			"agree to check what arrives\nthe %s\n"
			"pass --integrity at the source, to `viaduct send`; or leave it out here",
			s->role == VIA_ROLE_SOURCE ? "destination cannot do that"
						   : "source does not ask for that");
}

static int post_hello(struct via_session *s, struct via_hello *hello, struct via_error *err)
{
	size_t cap = 64 * 1024;
	uint8_t *buf = malloc(cap);
	ssize_t n = -ENOMEM;

	hello->version_min = VIA_PROTOCOL_VERSION_MIN;
	hello->version_max = VIA_PROTOCOL_VERSION;
	hello->role = (uint8_t)s->role;
	hello->features = own_features(s);
	memcpy(hello->session_id, s->id, sizeof(s->id));
	snprintf(hello->program, sizeof(hello->program), "%s", PROGRAM);
	if (buf)
		n = via_hello_encode(hello, buf, cap);
	if (n > 0)
		n = via_control_post(s->control, VIA_CONTROL_HELLO, buf, (size_t)n);
	free(buf);
	return n < 0 ? via_fail(err, (int)n, "handshake\nHELLO cannot be sent\nfree some memory")
		     : 0;
}

static int receive_hello(struct via_session *s, struct via_hello *hello, int cancel_fd,
			 struct via_error *err)
{
	struct via_control_frame frame;
	int rc = expect(s, VIA_CONTROL_HELLO, "HELLO", s->config.handshake_ns, cancel_fd, &frame,
			err);

	if (rc)
		return rc;
	rc = via_hello_decode(frame.payload, frame.len, hello);
	if (rc == -EPROTONOSUPPORT)
		return via_fail(err, rc,
				"agree on a protocol version\n"
				"the peer speaks %u to %u, this side %u to %u\n"
				"install the same release of viaduct on both hosts",
				hello->version_min, hello->version_max, VIA_PROTOCOL_VERSION_MIN,
				VIA_PROTOCOL_VERSION);
	if (rc)
		return fail_decode(err, "HELLO", rc);
	if (hello->role == s->role)
		return via_fail(err, -EPROTO,
				"handshake\nboth sides are the %s\nrun `viaduct send` on one host "
				"and `viaduct receive` on the other",
				s->role == VIA_ROLE_SOURCE ? "source" : "destination");
	snprintf(s->peer, sizeof(s->peer), "%s", hello->program);
	return agree_on_features(s, hello->features, err);
}

static int open_fabric(struct via_session *s, const char *spec, struct via_error *err)
{
	int rc = via_fabric_spec_parse(spec, &s->spec, err);

	if (rc)
		return rc;
	snprintf(s->spec.local_host, sizeof(s->spec.local_host), "%s",
		 via_control_local_host(s->control));
	return via_fabric_open(&s->spec, &s->fab, err);
}

/* The spec to open: the configured one with its keys, where it is the one agreed upon. */
static const char *own_spec(const struct via_session *s, const struct via_offer *agreed)
{
	return strcmp(s->fabric_spec, "auto") != 0 ? s->fabric_spec : agreed->spec;
}

/* -- source ----------------------------------------------------------------------- */

static int post_setup(struct via_session *s, const char *fabric, struct via_error *err)
{
	struct via_setup *m = calloc(1, sizeof(*m));
	size_t cap = 64 * 1024;
	uint8_t *buf = malloc(cap);
	ssize_t n = -ENOMEM;

	if (m && buf) {
		m->version = VIA_PROTOCOL_VERSION;
		snprintf(m->fabric, sizeof(m->fabric), "%s", fabric);
		m->multifd = (uint16_t)s->nmultifd;
		m->preempt = (uint16_t)s->npreempt;
		m->slice_len = s->slice_len;
		m->epoch = s->epoch;
		m->nregions = s->nregions;
		for (unsigned i = 0; i < s->nregions; i++)
			m->region[i] = s->region_view[i].desc;
		n = via_setup_encode(m, buf, cap);
	}
	if (n > 0)
		n = via_control_post(s->control, VIA_CONTROL_SETUP, buf, (size_t)n);
	free(buf);
	free(m);
	return n < 0 ? via_fail(err, (int)n,
				"announce guest RAM\n%u regions\n"
				"check their names (unique, not empty), lengths and page sizes",
				s->nregions)
		     : 0;
}

static int agree(struct via_session *s, struct via_hello *ours, struct via_hello *theirs,
		 int cancel_fd, struct via_error *err)
{
	int rc = choose_offers(s->fabric_spec, ours, err);

	if (!rc)
		rc = post_hello(s, ours, err);
	if (!rc)
		rc = receive_hello(s, theirs, cancel_fd, err);
	if (!rc)
		rc = choose_fabric(ours, theirs, s->choice, sizeof(s->choice), err);
	return rc;
}

static int source_handshake(struct via_session *s, int cancel_fd, struct via_error *err)
{
	struct via_hello *hello = calloc(2, sizeof(*hello));
	struct via_control_frame frame;
	const struct via_offer *agreed;
	int rc;

	if (!hello)
		return via_fail(err, -ENOMEM, "handshake\nout of memory\nfree some memory");
	rc = agree(s, &hello[0], &hello[1], cancel_fd, err);
	if (rc < 0)
		goto out;
	agreed = &hello[0].offer[rc];
	rc = open_fabric(s, own_spec(s, agreed), err);
	if (!rc)
		rc = regions_register(s, VIA_MR_LOCAL, err);
	if (!rc)
		rc = post_setup(s, agreed->kind, err);
	if (!rc)
		rc = expect(s, VIA_CONTROL_SETUP_OK, "SETUP_OK",
			    s->config.handshake_ns + PROVIDE_NS, cancel_fd, &frame, err);
	if (!rc && frame.len)
		rc = fail_decode(err, "SETUP_OK", -EPROTO);
	if (!rc)
		rc = keeper_start(s, err);
out:
	free(hello);
	return rc < 0 ? rc : 0;
}

int via_session_connect_control(struct via_control *control,
				const struct via_session_config *config,
				const struct via_region *regions, unsigned nregions, int cancel_fd,
				struct via_session **session, struct via_error *err)
{
	struct via_error first = {0};
	struct via_session *s = session_new(VIA_ROLE_SOURCE, config, &first);
	int rc;

	if (!s) {
		via_control_close(control);
		rc = first.code;
		goto report;
	}
	s->control = control;
	rc = session_make_channels(s, s->config.multifd, s->config.preempt, &first);
	if (!rc)
		rc = regions_init(s, regions, nregions, s->config.slice_len, &first);
	if (!rc)
		rc = source_handshake(s, cancel_fd, &first);
	if (!rc) {
		VIA_PROBE(session, s->role, 0, VIA_PROBE_SET_UP, s->epoch, 0);
		*session = s;
		return 0;
	}
	say_error(s, &first);
	via_session_close(s);
report:
	return via_error_pass(err, &first);
}

int via_session_connect(const char *address, const struct via_session_config *config,
			const struct via_region *regions, unsigned nregions, int cancel_fd,
			struct via_session **session, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns =
					via_deadline_in(config->handshake_ns ? config->handshake_ns
									     : 10 * VIA_NS_PER_S),
				.cancel_fd = cancel_fd};
	struct via_control *control;
	int rc = via_control_connect(address, &config->credentials, &wait, &control, err);

	return rc ? rc
		  : via_session_connect_control(control, config, regions, nregions, cancel_fd,
						session, err);
}

/* -- a question, and no session --------------------------------------------------------- */

/* HELLO both ways. All features are shown, and none is asked for. */
static int swap_hellos(struct via_session *s, struct via_inquiry *q, int cancel_fd,
		       struct via_error *err)
{
	int rc = choose_offers(s->fabric_spec, &q->ours, err);

	s->config.integrity = true;
	if (!rc)
		rc = post_hello(s, &q->ours, err);
	s->config.integrity = false;
	if (!rc)
		rc = receive_hello(s, &q->theirs, cancel_fd, err);
	return rc;
}

static int inquire(struct via_session *s, struct via_inquiry *q, int cancel_fd,
		   struct via_error *err)
{
	struct via_error goodbye = {0};
	int rc = swap_hellos(s, q, cancel_fd, err);

	if (rc)
		return rc;
	rc = choose_fabric(&q->ours, &q->theirs, q->choice, sizeof(q->choice), err);
	q->chosen = rc < 0 ? -1 : rc;
	via_fail(&goodbye, -ECANCELED,
		 "it only asked what is here\nanswered, and no guest follows\n"
		 "nothing: this is no failure");
	say_error(s, &goodbye);
	return rc < 0 ? rc : 0;
}

int via_inquire(const char *address, const struct via_session_config *config, int cancel_fd,
		struct via_inquiry *q, struct via_error *err)
{
	struct via_wait wait = {.cancel_fd = cancel_fd};
	struct via_error first = {0};
	struct via_session *s;
	int rc;

	memset(q, 0, sizeof(*q));
	q->chosen = -1;
	s = session_new(VIA_ROLE_SOURCE, config, &first);
	if (!s)
		return via_error_pass(err, &first);
	wait.deadline_ns = via_deadline_in(s->config.handshake_ns);
	rc = via_control_connect(address, &config->credentials, &wait, &s->control, &first);
	if (!rc) {
		q->connected = true;
		via_control_mtu(s->control, &q->mtu_here, &q->mtu_there);
		snprintf(q->security, sizeof(q->security), "%s", via_control_security(s->control));
		rc = inquire(s, q, cancel_fd, &first);
	}
	via_session_close(s);
	return rc ? via_error_pass(err, &first) : 0;
}

/* -- destination -------------------------------------------------------------------- */

/* Which of what this side offered is @agreed? Its index. */
static int find_agreed(const struct via_hello *ours, const char *agreed, struct via_error *err)
{
	for (unsigned i = 0; i < ours->noffers; i++)
		if (!strcmp(ours->offer[i].kind, agreed) && !ours->offer[i].reason[0])
			return (int)i;
	return via_fail(err, -EPROTO,
			"handshake\nthe peer chose fabric %s, which this side did not offer\n"
			"check that both sides run the same release",
			agreed);
}

/*
 * Does the source want what this side waits for: a new session, or that one again? The id was
 * compared when HELLO came.
 */
static int check_resume(struct via_session *s, const struct via_setup *m, struct via_error *err)
{
	if (m->epoch > 1 && !s->resumed)
		return via_fail(
			err, -ESTALE,
			"resume the migration\n"
			"this destination does not know it: it is another process\n"
			"look for the one that received it; if it is gone, so is the guest");
	if (s->resumed && m->epoch < s->epoch)
		return via_fail(err, -ESTALE,
				"resume the migration\n"
				"epoch %llu, where %llu or more belongs\n"
				"a second source? only the one that lost the session can resume it",
				(unsigned long long)m->epoch, (unsigned long long)s->epoch);
	s->epoch = m->epoch;
	return 0;
}

/* The session that comes is not the one that this side would resume. */
static void begin_anew(struct via_session *s)
{
	s->resumed = false;
	s->epoch = 1;
	atomic_store(&s->sealed, false);
}

/* While a paused migration waits here, nothing else is taken, unless the config says so. */
static int take_session_id(struct via_session *s, const uint8_t *id, struct via_error *err)
{
	bool other = s->resumed && memcmp(id, s->id, sizeof(s->id)) != 0;

	if (other && s->config.or_new && s->config.streams)
		begin_anew(s);
	else if (other)
		return via_fail(err, -EEXIST,
				"start a migration\n"
				"another one is paused here and waits for its source\n"
				"resume that one, or end this destination");
	memcpy(s->id, id, sizeof(s->id));
	return 0;
}

/* Streams and regions are two kinds of session, and both sides expect one of them. */
static int check_streams(const struct via_session *s, const struct via_setup *m,
			 struct via_error *err)
{
	if ((m->nregions == 0) == s->config.streams)
		return 0;
	return via_fail(err, -EPROTO,
			"handshake\nthe source sends %s, the destination expects %s\n"
			"run `viaduct relay` on both hosts, or on none",
			m->nregions ? "guest RAM" : "streams",
			s->config.streams ? "streams" : "guest RAM");
}

static int take_setup(struct via_session *s, const struct via_setup *m,
		      const struct via_hello *ours, struct via_error *err)
{
	struct via_region *regions;
	int agreed = find_agreed(ours, m->fabric, err);
	int rc = agreed < 0 ? agreed : check_resume(s, m, err);

	if (!rc)
		rc = check_streams(s, m, err);
	if (!rc && m->slice_len > SIZE_MAX / 2)
		rc = fail_decode(err, "SETUP", -EPROTO);
	if (!rc)
		rc = session_make_channels(s, m->multifd, m->preempt, err);
	if (rc)
		return rc;
	regions = calloc(m->nregions ? m->nregions : 1, sizeof(*regions));
	if (!regions)
		return via_fail(err, -ENOMEM, "handshake\nout of memory\nfree some memory");
	for (unsigned i = 0; i < m->nregions; i++)
		regions[i].desc = m->region[i];
	rc = regions_init(s, regions, m->nregions, m->slice_len, err);
	free(regions);
	return rc ? rc : open_fabric(s, own_spec(s, &ours->offer[agreed]), err);
}

static int destination_handshake(struct via_session *s, int cancel_fd, struct via_error *err)
{
	struct via_hello *hello = calloc(2, sizeof(*hello));
	struct via_setup *setup = calloc(1, sizeof(*setup));
	struct via_control_frame frame;
	int rc = -ENOMEM;

	if (!hello || !setup) {
		via_fail(err, rc, "handshake\nout of memory\nfree some memory");
		goto out;
	}
	rc = receive_hello(s, &hello[1], cancel_fd, err);
	if (!rc)
		rc = take_session_id(s, hello[1].session_id, err);
	if (rc)
		goto out;
	rc = choose_offers(s->fabric_spec, &hello[0], err);
	if (!rc)
		rc = post_hello(s, &hello[0], err);
	if (!rc)
		rc = expect(s, VIA_CONTROL_SETUP, "SETUP", s->config.handshake_ns, cancel_fd,
			    &frame, err);
	if (rc)
		goto out;
	rc = via_setup_decode(frame.payload, frame.len, setup);
	rc = rc ? fail_decode(err, "SETUP", rc) : take_setup(s, setup, &hello[0], err);
out:
	free(hello);
	free(setup);
	return rc;
}

int via_session_accept_control(struct via_control *control, const struct via_session_config *config,
			       const struct via_wait *wait, struct via_session **session,
			       struct via_error *err)
{
	struct via_error first = {0};
	struct via_session *s = session_new(VIA_ROLE_DESTINATION, config, &first);
	int rc;

	if (!s) {
		via_control_close(control);
		rc = first.code;
		goto report;
	}
	s->control = control;
	rc = destination_handshake(s, wait->cancel_fd, &first);
	if (!rc) {
		*session = s;
		return 0;
	}
	say_error(s, &first);
	via_session_close(s);
report:
	return via_error_pass(err, &first);
}

int via_session_accept(int listen_fd, const struct via_session_config *config,
		       const struct via_wait *wait, struct via_session **session,
		       struct via_error *err)
{
	uint64_t ns = config->handshake_ns ? config->handshake_ns : 10 * VIA_NS_PER_S;
	struct via_control *control;
	int rc = via_control_accept(listen_fd, &config->credentials, wait, ns, &control, err);

	return rc ? rc : via_session_accept_control(control, config, wait, session, err);
}

int via_session_provide(struct via_session *s, void *const *addr, struct via_error *err)
{
	struct via_error first = {0};
	int rc = 0;

	for (unsigned i = 0; i < s->nregions && addr; i++)
		s->region[i].region.addr = s->region_view[i].addr = addr[i];
	if (!s->resumed)
		rc = regions_register(s, VIA_MR_REMOTE_WRITE, &first);
	if (!rc)
		VIA_PROBE(session, s->role, 0, VIA_PROBE_SET_UP, s->epoch, 0);
	if (!rc)
		rc = via_control_post(s->control, VIA_CONTROL_SETUP_OK, NULL, 0);
	if (!rc)
		rc = keeper_start(s, &first);
	if (!rc)
		return 0;
	via_fail(&first, rc, "handshake\nSETUP_OK cannot be sent: %s\nfree some memory",
		 via_err_text(rc));
	via_session_refuse(s, &first);
	return via_error_pass(err, &first);
}

void via_session_refuse(struct via_session *s, const struct via_error *why)
{
	session_fail(s, why, false);
	say_error(s, why);
}
