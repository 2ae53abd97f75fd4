/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * run.c -- one side of a migration of the demo guest, from connect to report.
 *
 * CPU time is that of the process between the guest's being there and the end of the
 * migration, less what the guest's own vCPU threads used.
 */
#include "tools/run.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/clock.h"

/* The destination's guest runs so long before it is checked, so that late writes would show. */
#define RUN_ON_NS (200 * VIA_NS_PER_MS)

/* Each step of the handshake may take so long. */
#define HANDSHAKE_NS (10 * VIA_NS_PER_S)

/* The destination checks every page before it reports. */
#define REPORT_NS (120 * VIA_NS_PER_S)

bool run_succeeded(const struct run_result *r)
{
	return r->migrate.outcome == VIA_COMPLETED && !r->error.code && r->verified &&
	       r->verify.pages && !r->verify.missing && !r->verify.stale && !r->verify.torn;
}

static double cpu_seconds(const struct demo_guest *guest)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6 -
	       (double)demo_guest_cpu_ns(guest) / 1e9;
}

static struct via_session_config session_config(const struct settings *s)
{
	return (struct via_session_config){.fabric = s->fabric,
					   .multifd = (unsigned)s->multifd,
					   .credentials = {.psk_file = s->psk,
							   .psk_identity = s->psk_identity,
							   .insecure = s->insecure},
					   .handshake_ns = HANDSHAKE_NS,
					   .dead_after_ns = s->dead_after_ns};
}

static struct via_migrate_config migrate_config(const struct settings *s,
						struct progress_view *view)
{
	return (struct via_migrate_config){.downtime_limit_ns = s->downtime_ns,
					   .max_rounds = (unsigned)s->max_rounds,
					   .max_bandwidth = s->max_bandwidth,
					   .progress = progress_show,
					   .progress_arg = view};
}

/* -- source ------------------------------------------------------------------- */

static int get_report(struct via_session *session, struct run_result *r)
{
	size_t len;
	void *report;
	int rc = via_migrate_get_report(session, via_deadline_in(REPORT_NS), &report, &len,
					&r->error);

	if (rc)
		return rc;
	rc = report_decode(report, len, r, &r->error);
	free(report);
	return rc;
}

static void migrate_from(const struct settings *settings, struct demo_guest *guest,
			 struct via_session *session, struct run_result *r)
{
	struct progress_view view;
	struct via_migrate_config config = migrate_config(settings, &view);
	double before;
	int rc;

	progress_init(&view);
	before = cpu_seconds(guest);
	rc = via_migrate_source(session, demo_guest_source(guest), &config, &r->migrate, &r->error);
	r->cpu_source = cpu_seconds(guest) - before;
	r->tracker = demo_guest_tracker(guest);
	progress_end(&view);
	if (!rc)
		(void)get_report(session, r);
}

void run_source(const struct settings *settings, struct run_result *r)
{
	struct demo_guest_config gc = {.memory = settings->memory,
				       .vcpus = (unsigned)settings->vcpus,
				       .dirty_rate = settings->dirty_rate,
				       .seed = settings->seed};
	struct via_session_config sc = session_config(settings);
	struct via_session *session = NULL;
	struct demo_guest *guest = NULL;
	int cancel_fd, rc;

	memset(r, 0, sizeof(*r));
	r->migrate.outcome = VIA_ABORTED;
	r->memory = settings->memory;
	r->seed = settings->seed;
	rc = interrupt_start(&cancel_fd, &r->error);
	if (!rc)
		rc = demo_guest_new(&gc, &guest, &r->error);
	if (!rc)
		rc = demo_guest_start(guest, &r->error);
	if (!rc)
		rc = via_migrate_connect(settings->peer, &sc, demo_guest_source(guest), cancel_fd,
					 &session, &r->error);
	if (!rc) {
		interrupt_watch(session);
		migrate_from(settings, guest, session, r);
	}
	interrupt_watch(NULL);
	via_session_close(session);
	demo_guest_free(guest);
	interrupt_stop();
}

/* -- destination ------------------------------------------------------------------ */

/* Let the guest run on for a while, stop it and look at every page. */
static void run_and_verify(struct demo_guest *guest, int cancel_fd, struct run_result *r)
{
	struct pollfd p = {.fd = cancel_fd, .events = POLLIN};

	(void)poll(&p, 1, (int)(RUN_ON_NS / VIA_NS_PER_MS));
	demo_guest_stop(guest);
	demo_guest_verify(guest, &r->verify);
	r->verified = true;
}

static int send_report(struct via_session *session, struct run_result *r)
{
	size_t len;
	char *report = report_encode(r, &len);
	int rc = report ? via_migrate_send_report(session, report, len, &r->error)
			: via_fail(&r->error, -ENOMEM, "report\nout of memory\nfree some memory");

	free(report);
	return rc;
}

static void migrate_to(const struct settings *settings, struct demo_guest *guest,
		       struct via_session *session, int cancel_fd, struct run_result *r)
{
	struct progress_view view;
	struct via_migrate_config config = migrate_config(settings, &view);
	double before = cpu_seconds(guest);
	int rc;

	progress_init(&view);
	if (settings->quiet)
		config.progress = NULL;
	rc = via_migrate_destination(session, demo_guest_destination(guest), &config, &r->migrate,
				     &r->error);
	r->cpu_destination = cpu_seconds(guest) - before;
	progress_end(&view);
	if (rc)
		return;
	r->memory = demo_guest_get_config(guest)->memory;
	r->seed = demo_guest_get_config(guest)->seed;
	run_and_verify(guest, cancel_fd, r);
	(void)send_report(session, r);
}

static void announce(int listen_fd)
{
	char address[128];

	if (!via_control_listen_address(listen_fd, address, sizeof(address)))
		fprintf(stderr, "viaduct: listening on %s\n", address);
}

static bool is_canceled(int cancel_fd)
{
	struct pollfd p = {.fd = cancel_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/*
 * Take one source: a new guest for it, and the session. *hopeless: the next one would fail as
 * well (the key file cannot be read, say).
 */
static int accept_one(const struct settings *settings, int listen_fd, int cancel_fd,
		      struct demo_guest **guest, struct via_session **session, bool *hopeless,
		      struct via_error *err)
{
	struct via_session_config sc = session_config(settings);
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = cancel_fd};
	struct via_control *control;
	int rc = via_control_accept(listen_fd, &sc.credentials, &wait, HANDSHAKE_NS, &control, err);

	*hopeless = via_err_scope(rc) == VIA_SCOPE_CALL;
	if (rc)
		return rc;
	rc = demo_guest_new_empty(guest, err);
	if (rc) {
		via_control_close(control);
		return rc;
	}
	rc = via_migrate_accept_control(control, &sc, demo_guest_destination(*guest), &wait,
					session, err);
	if (rc) {
		demo_guest_free(*guest);
		*guest = NULL;
	}
	return rc;
}

/*
 * Wait for a source that can be served. One that cannot (garbage, wrong key, another version,
 * more memory than there is) is named on stderr, and the wait goes on.
 */
static int accept_source(const struct settings *settings, int listen_fd, int cancel_fd,
			 struct demo_guest **guest, struct via_session **session,
			 struct run_result *r)
{
	for (;;) {
		struct via_error err = {0};
		bool hopeless;
		int rc =
			accept_one(settings, listen_fd, cancel_fd, guest, session, &hopeless, &err);

		if (!rc)
			return 0;
		if (hopeless || settings->once || is_canceled(cancel_fd))
			return via_error_pass(&r->error, &err);
		report_error(&err);
		fprintf(stderr, "viaduct: still listening\n");
	}
}

void run_destination(const struct settings *settings, int listen_fd, struct run_result *r)
{
	struct via_session *session = NULL;
	struct demo_guest *guest = NULL;
	int cancel_fd, rc;

	memset(r, 0, sizeof(*r));
	r->migrate.outcome = VIA_ABORTED;
	rc = interrupt_start(&cancel_fd, &r->error);
	if (!rc && !settings->quiet)
		announce(listen_fd); /* whoever reads it may send signals from now on */
	if (!rc)
		rc = accept_source(settings, listen_fd, cancel_fd, &guest, &session, r);
	if (!rc) {
		interrupt_watch(session);
		migrate_to(settings, guest, session, cancel_fd, r);
	}
	interrupt_watch(NULL);
	via_session_close(session);
	demo_guest_free(guest);
	interrupt_stop();
}
