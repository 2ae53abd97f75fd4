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
#include "tools/metrics.h"
#include "tools/trial.h"
#include "transport/acceptor.h"

/* The destination's guest runs so long before it is checked, so that late writes would show. */
#define RUN_ON_NS (200 * VIA_NS_PER_MS)

/* Each step of the handshake may take so long. */
#define HANDSHAKE_NS (10 * VIA_NS_PER_S)

/* With --report: a migration of half a second has some points to be drawn. */
#define SERIES_LOOK_NS (20 * VIA_NS_PER_MS)

/* With --pull-link: how often to look, and a bandwidth at which there is something to see. */
#define PULL_LOOK_NS   VIA_NS_PER_MS
#define PULL_BANDWIDTH (UINT64_C(64) << 20)

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
					   .preempt = (unsigned)s->preempt,
					   .credentials = settings_credentials(s),
					   .integrity = s->integrity,
					   .handshake_ns = HANDSHAKE_NS,
					   .dead_after_ns = s->dead_after_ns};
}

static struct via_migrate_config migrate_config(const struct settings *s, struct link *link,
						via_recover_fn *recover)
{
	struct via_migrate_config config = {
		.downtime_limit_ns = s->downtime_ns,
		.max_rounds = (unsigned)s->max_rounds,
		.max_bandwidth = s->max_bandwidth,
		.postcopy_after = (unsigned)s->postcopy_after,
		.postcopy_when_stuck = (unsigned)s->postcopy_when_stuck,
		.max_postcopy_bandwidth = s->max_postcopy_bandwidth,
		.recover = recover,
		.recover_arg = link,
		.progress = link_progress,
		.progress_arg = link,
	};

	if (link->series)
		config.interval_ns = SERIES_LOOK_NS;
	/* Postcopy must not be over before the link has been pulled often enough. */
	if (s->pull_link) {
		config.interval_ns = PULL_LOOK_NS;
		if (!config.max_postcopy_bandwidth)
			config.max_postcopy_bandwidth = PULL_BANDWIDTH;
	}
	return config;
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

static void migrate_from(struct link *link, struct via_session **session, struct run_result *r)
{
	struct via_migrate_config config =
		migrate_config(link->settings, link, link_recover_source);
	double before = cpu_seconds(link->guest);
	int rc;

	link_use(link, *session);
	rc = via_migrate_source(session, demo_guest_source(link->guest), &config, &r->migrate,
				&r->error);
	r->cpu_source = cpu_seconds(link->guest) - before;
	r->tracker = demo_guest_tracker(link->guest);
	link_end(link);
	if (!rc)
		(void)get_report(*session, r);
}

void run_source(const struct settings *settings, struct series *series, struct run_result *r)
{
	struct demo_guest_config gc = {.memory = settings->memory,
				       .vcpus = (unsigned)settings->vcpus,
				       .dirty_rate = settings->dirty_rate,
				       .seed = settings->seed};
	struct via_session_config sc = session_config(settings);
	struct via_session *session = NULL;
	struct link link;
	int rc;

	link_init(&link, settings, &sc);
	link.series = series;
	memset(r, 0, sizeof(*r));
	r->migrate.outcome = VIA_ABORTED;
	r->memory = settings->memory;
	r->seed = settings->seed;
	rc = interrupt_start(&link.cancel_fd, &link.resume_fd, &r->error);
	if (!rc)
		rc = metrics_start(settings, &link.live.view, NULL, &link.metrics, &r->error);
	if (!rc)
		rc = demo_guest_new(&gc, &link.guest, &r->error);
	if (!rc)
		rc = demo_guest_start(link.guest, &r->error);
	if (!rc)
		rc = via_migrate_connect(settings->peer, &sc, demo_guest_source(link.guest),
					 link.cancel_fd, &session, &r->error);
	if (!rc)
		migrate_from(&link, &session, r);
	link_use(&link, NULL);
	via_session_close(session);
	demo_guest_free(link.guest);
	metrics_result(link.metrics, &r->migrate);
	metrics_stop(link.metrics);
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

/* What the destination saw of postcopy. The vCPUs have ended. */
static void note_postcopy(const struct demo_guest *guest, struct run_result *r)
{
	const struct via_postcopy_stats *p = &r->migrate.postcopy;
	struct via_hist fault_ns;

	if (!p->used)
		return;
	demo_guest_fault_hist(guest, &fault_ns);
	r->seen.faults = p->faults;
	r->seen.duplicate_pages = p->duplicate_pages;
	report_quantiles(&fault_ns, &r->seen.latency);
	r->seen.nbars = report_bars(&fault_ns, r->seen.bar);
	report_quantiles(&p->request_ns, &r->seen.request);
	report_quantiles(&p->install_ns, &r->seen.install);
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

static void migrate_to(struct link *link, struct via_session **session, struct run_result *r)
{
	struct via_migrate_config config =
		migrate_config(link->settings, link, link_recover_destination);
	double before = cpu_seconds(link->guest);
	int rc;

	link_use(link, *session);
	rc = via_migrate_destination(session, demo_guest_destination(link->guest), &config,
				     &r->migrate, &r->error);
	r->cpu_destination = cpu_seconds(link->guest) - before;
	link_end(link);
	if (rc)
		demo_guest_stop(link->guest);
	else
		run_and_verify(link->guest, link->cancel_fd, r);
	r->memory = demo_guest_get_config(link->guest)->memory;
	r->seed = demo_guest_get_config(link->guest)->seed;
	note_postcopy(link->guest, r);
	if (!rc && *session)
		(void)send_report(*session, r);
	else if (!rc)
		fprintf(stderr, "viaduct: the source was lost when the guest was complete here\n");
}

static void announce(int listen_fd)
{
	char address[128];

	if (!via_control_listen_address(listen_fd, address, sizeof(address)))
		fprintf(stderr, "viaduct: listening on %s\n", address);
}

/* Be measured for somebody's plan. 1: done, and no guest has come. */
static int be_measured(struct link *link, struct trial_guest *trial, struct via_session **session,
		       struct via_error *err)
{
	int rc;

	link_use(link, *session);
	rc = trial_serve(trial, *session, err);
	*session = NULL;
	link_use(link, NULL);
	return rc ? rc : 1;
}

/*
 * Take one source: a new guest for it, and the session. *ours: a failure of this side (the key
 * file cannot be read, say), whoever comes. 1: it was a trial, and there is neither.
 */
static int accept_one(struct link *link, struct via_session **session, bool *ours,
		      struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = link->cancel_fd};
	struct via_control *control;
	struct trial_guest trial;
	int rc = via_acceptor_take(link->acceptor, &link->config->credentials, &wait, HANDSHAKE_NS,
				   &control, err);

	*ours = link_is_ours(rc);
	if (rc)
		return rc;
	rc = demo_guest_new_empty(&link->guest, err);
	if (rc) {
		via_control_close(control);
		return rc;
	}
	trial_guest_init(&trial, demo_guest_destination(link->guest));
	rc = via_migrate_accept_control(control, link->config, &trial.either, &wait, session, err);
	if (!rc && trial.memory)
		rc = be_measured(link, &trial, session, err);
	if (rc) {
		trial_guest_fini(&trial);
		demo_guest_free(link->guest);
		link->guest = NULL;
	}
	return rc;
}

/*
 * Wait for a source that can be served. One that cannot (garbage, wrong key, another version,
 * more memory than there is) is named on stderr, and the wait goes on; as after a trial.
 */
static int accept_source(struct link *link, struct via_session **session, struct run_result *r)
{
	for (;;) {
		struct via_error err = {0};
		bool ours;
		int rc = accept_one(link, session, &ours, &err);

		if (!rc)
			return 0;
		if (interrupt_is_canceled())
			return via_fail(&r->error, -ECANCELED,
					"wait for a source\nended by request\n"
					"start it again when one is to come");
		if (rc < 0 &&
		    (link->settings->once || (ours && via_err_scope(rc) == VIA_SCOPE_CALL)))
			return via_error_pass(&r->error, &err);
		if (link->settings->quiet)
			continue;
		if (rc < 0)
			report_error(&err);
		else
			fprintf(stderr, "viaduct: measured for `viaduct plan`\n");
		fprintf(stderr, "viaduct: still listening\n");
		if (ours)
			link_pause(link);
	}
}

void run_destination(const struct settings *settings, int listen_fd, struct run_result *r)
{
	struct via_session_config sc = session_config(settings);
	struct via_session *session = NULL;
	struct link link;
	int rc;

	link_init(&link, settings, &sc);
	link.listen_fd = listen_fd;
	memset(r, 0, sizeof(*r));
	r->migrate.outcome = VIA_ABORTED;
	rc = interrupt_start(&link.cancel_fd, NULL, &r->error);
	if (!rc)
		rc = metrics_start(settings, &link.live.view, NULL, &link.metrics, &r->error);
	if (!rc && !settings->quiet)
		announce(listen_fd); /* whoever reads it may send signals from now on */
	if (!rc)
		rc = via_acceptor_new(listen_fd, &link.acceptor, &r->error);
	if (!rc)
		rc = accept_source(&link, &session, r);
	via_acceptor_free(link.acceptor);
	link.acceptor = NULL;
	if (!rc)
		migrate_to(&link, &session, r);
	link_use(&link, NULL);
	via_session_close(session);
	demo_guest_free(link.guest);
	metrics_result(link.metrics, &r->migrate);
	metrics_stop(link.metrics);
	interrupt_stop();
}
