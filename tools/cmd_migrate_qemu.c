/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_migrate_qemu.c -- viaduct migrate-qemu: migrate an unmodified QEMU in one command, with the
 * relay of the source inside of it.
 */
#include <string.h>

#include "core/clock.h"
#include "tools/commands.h"
#include "tools/confine.h"
#include "tools/migrate_qemu.h"

#define HANDSHAKE_NS (10 * VIA_NS_PER_S)
#define QMP_NS       (5 * VIA_NS_PER_S) /* for QEMU's greeting */

/* clang-format off */
static const enum option_id options[] = {
	OPTION_QMP, OPTION_TO, OPTION_PSK, OPTION_PSK_IDENTITY, OPTION_TLS_CREDS,
	OPTION_TLS_HOSTNAME, OPTION_INSECURE, OPTION_FABRIC,
	OPTION_QEMU_MULTIFD, OPTION_POSTCOPY, OPTION_QEMU_PREEMPT,
	OPTION_DOWNTIME_LIMIT, OPTION_MAX_BANDWIDTH, OPTION_MAX_POSTCOPY_BANDWIDTH, OPTION_TIMEOUT,
	OPTION_QEMU_RESUME, OPTION_DEAD_AFTER, OPTION_SANDBOX, OPTION_METRICS_LISTEN, OPTION_STATS_FILE,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

static int check(const struct settings *s, struct via_error *err)
{
	const char *missing = NULL;

	if (!s->qmp)
		missing = "--qmp SOCKET";
	else if (!s->to)
		missing = "--to HOST:PORT";
	else if (s->preempt_channel && !s->postcopy_after)
		missing = "--postcopy for --preempt";
	if (missing)
		return via_fail(err, -EINVAL,
				"migrate-qemu\nno %s\nsee `viaduct migrate-qemu --help`", missing);
	return relay_check_peer(s->to, err);
}

static struct relay_config relay_config(const struct settings *s, struct qemu_migration *m)
{
	return (struct relay_config){.session = {.fabric = s->fabric,
						 .credentials = settings_credentials(s),
						 .handshake_ns = HANDSHAKE_NS,
						 .dead_after_ns = s->dead_after_ns},
				     .cancel_fd = -1,
				     .note = qemu_note,
				     .arg = m};
}

static int migrate(struct qemu_migration *m, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(QMP_NS), .cancel_fd = m->cancel_fd};
	int rc = relay_qmp_open(m->settings->qmp, &wait, &m->qmp, err);

	if (!rc)
		rc = qemu_set_up(m, err);
	if (!rc)
		rc = own_relay_start(&m->relay, m->qmp, err);
	if (!rc)
		rc = qemu_begin(m, err);
	if (!rc)
		rc = qemu_watch(m, err);
	own_relay_stop(&m->relay, m->begun && !m->canceled);
	relay_qmp_close(m->qmp);
	return rc;
}

/*
 * Why it has not completed. What the relay, or the other one, has met came before what QEMU makes
 * of it; but that its connections were cut off QEMU explains better.
 */
static void find_cause(struct qemu_migration *m)
{
	const struct via_error *relay = &m->relay.error;
	bool paused = !strcmp(m->view.status, "postcopy-paused");

	if (!strcmp(m->view.status, "completed")) {
		m->error.code = 0;
		return;
	}
	if (!m->begun || m->error.code)
		return;
	if (relay->code && relay->code != -ECANCELED &&
	    !(relay->code == -ECONNRESET && m->view.why[0]))
		(void)via_error_pass(&m->error, relay);
	else
		via_fail(&m->error, -ECONNRESET, "migrate QEMU\n%s\n%s",
			 m->view.why[0] ? m->view.why : m->view.status,
			 paused ? "resume it, when the link is back"
				: "see what the destination's QEMU and relay say");
}

static int run(const struct settings *settings)
{
	struct qemu_migration m = {.settings = settings,
				   .relay = {.watch = RELAY_WATCH_INIT,
					     .peer = settings->to,
					     .listen_fd = -1,
					     .ended_fd = -1},
				   .cut_ns = VIA_NEVER,
				   .screen = PTHREAD_MUTEX_INITIALIZER};
	struct via_error err = {0};

	if (check(settings, &err)) {
		report_error(&err);
		return EXIT_USAGE;
	}
	if (confine(settings, CONFINE_GIVES_FILES, &err)) {
		report_error(&err);
		return EXIT_FAILED;
	}
	progress_init(&m.progress);
	m.relay.config = relay_config(settings, &m);
	if (!interrupt_start(&m.cancel_fd, NULL, &err) &&
	    !metrics_start(settings, &m.progress, &m.relay.watch, &m.relay.metrics, &err) &&
	    !migrate(&m, &err))
		find_cause(&m);
	else
		(void)via_error_pass(&m.error, &err);
	metrics_stop(m.relay.metrics);
	interrupt_stop();
	qemu_report(&m);
	return m.error.code ? EXIT_FAILED : EXIT_OK;
}

const struct command command_migrate_qemu = {
	.name = "migrate-qemu",
	.summary = "migrate an unmodified QEMU over a fabric, in one command",
	.usage = "--qmp SOCKET --to HOST:PORT [OPTION...]",
	.options = options,
	.run = run,
};
