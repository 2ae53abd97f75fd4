/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_relay.c -- viaduct relay: stand beside an unmodified QEMU and carry its migration.
 */
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "relay/relay.h"
#include "tools/commands.h"
#include "tools/confine.h"
#include "tools/html.h"
#include "tools/metrics.h"
#include "tools/run.h"

#define HANDSHAKE_NS (10 * VIA_NS_PER_S)

/* clang-format off */
static const enum option_id options[] = {
	OPTION_ROLE, OPTION_LISTEN, OPTION_PEER, OPTION_QEMU, OPTION_QMP, OPTION_TUNE, OPTION_PSK,
	OPTION_PSK_IDENTITY, OPTION_TLS_CREDS, OPTION_TLS_HOSTNAME, OPTION_TLS_AUTHZ_NAME,
	OPTION_INSECURE, OPTION_FABRIC, OPTION_DEAD_AFTER, OPTION_KEEP, OPTION_SANDBOX,
	OPTION_METRICS_LISTEN, OPTION_STATS_FILE, OPTION_REPORT,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

/* What ended() is told. */
struct relay_run {
	const struct settings *settings;
	struct relay_live live;
	struct html_report *report;
	struct metrics *metrics; /* or NULL */
};

static const char *outcome_name(enum relay_outcome outcome)
{
	static const char *const names[] = {[RELAY_COMPLETED] = "completed",
					    [RELAY_ENDED] = "ended",
					    [RELAY_BROKEN] = "broken"};

	return names[outcome];
}

static void note(void *arg, const char *line)
{
	struct relay_run *run = arg;

	progress_note(&run->live.view, line);
}

static json_t *result_object(const struct relay_result *r, const struct via_error *why)
{
	return json_pack("{s:s, s:b, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "result",
			 outcome_name(r->outcome), "postcopy", (int)r->postcopy, "migration",
			 (json_int_t)r->migrations, "fabric", r->session.fabric, "control",
			 r->session.security, "connections", (json_int_t)r->connections,
			 "forward_bytes", (json_int_t)r->forward_bytes, "back_bytes",
			 (json_int_t)r->back_bytes, "packets", (json_int_t)r->packets, "error",
			 report_error_json(why));
}

static void print_json(const json_t *result)
{
	json_dumpf(result, stdout, JSON_INDENT(2));
	fputc('\n', stdout);
}

static void print_summary(const struct relay_result *r)
{
	char forward[32], back[32];

	printf("relay %s: %u connection%s over %s, control %s; %s to the destination, %s back\n",
	       outcome_name(r->outcome), r->connections, r->connections == 1 ? "" : "s",
	       r->session.fabric[0] ? r->session.fabric : "(no fabric yet)",
	       r->session.security[0] ? r->session.security : "not connected",
	       format_bytes(r->forward_bytes, forward, sizeof(forward)),
	       format_bytes(r->back_bytes, back, sizeof(back)));
}

static void ended(void *arg, const struct relay_result *result, const struct via_error *why)
{
	struct relay_run *run = arg;
	const struct settings *s = run->settings;
	json_t *json = result_object(result, why);

	metrics_relay_ended(run->metrics, result);
	relay_live_pause(&run->live, result);
	html_relay(run->report, s, result, why, json);
	if (why->code)
		report_error(why);
	if (s->json)
		print_json(json);
	else
		print_summary(result);
	fflush(stdout);
	relay_live_resume(&run->live);
	json_decref(json);
}

static int check(const struct settings *s, struct via_error *err)
{
	const char *missing = NULL;

	if (!s->role)
		missing = "--role source|destination";
	else if (!s->listen)
		missing = "--listen ADDRESS";
	else if (!strcmp(s->role, "source") && !s->peer)
		missing = "--peer HOST:PORT";
	else if (!strcmp(s->role, "destination") && !s->qemu)
		missing = "--qemu ADDRESS";
	else if (s->tune && !s->qmp)
		missing = "--qmp SOCKET for --tune";
	if (missing)
		return via_fail(err, -EINVAL, "relay\nno %s\nsee `viaduct relay --help`", missing);
	if (s->peer && relay_check_peer(s->peer, err))
		return -EINVAL;
	return s->qemu ? relay_check_address(s->qemu, err) : 0;
}

static void announce(const struct settings *s, int listen_fd)
{
	char address[128];

	if (!strncmp(s->listen, "unix:", 5))
		fprintf(stderr, "viaduct: listening on %s\n", s->listen);
	else if (!via_control_listen_address(listen_fd, address, sizeof(address)))
		fprintf(stderr, "viaduct: listening on %s\n", address);
}

static int serve(const struct settings *s, int listen_fd, struct html_report *report,
		 struct via_error *err)
{
	struct relay_config config = {
		.session = {.fabric = s->fabric,
			    .credentials = settings_credentials(s),
			    .handshake_ns = HANDSHAKE_NS,
			    .dead_after_ns = s->dead_after_ns},
		.keep = s->keep,
		.qmp = s->qmp,
		.tune = s->tune,
		.note = note,
		.ended = ended,
	};
	bool source = !strcmp(s->role, "source");
	struct relay_watch watch = RELAY_WATCH_INIT;
	struct relay_run run = {.settings = s, .report = report};
	struct relay_result result;
	int rc = interrupt_start(&config.cancel_fd, NULL, err);

	config.arg = &run;
	config.watch = &watch;
	relay_live_init(&run.live, s, &watch, report->series);
	if (!rc)
		rc = metrics_start(s, &run.live.view, &watch, &run.metrics, err);
	if (!rc && source && s->tune)
		rc = relay_tune(&config, err); /* whoever reads the announcement may migrate */
	if (rc) {
		report_error(err);
		metrics_stop(run.metrics);
		interrupt_stop();
		return rc;
	}
	announce(s, listen_fd);
	interrupt_guard(relay_live_guard, &run.live);
	relay_live_start(&run.live);
	rc = source ? relay_source(listen_fd, s->peer, &config, &result, err)
		    : relay_destination(listen_fd, s->qemu, &config, &result, err);
	interrupt_guard(NULL, NULL);
	relay_live_stop(&run.live);
	metrics_stop(run.metrics);
	interrupt_stop();
	return rc;
}

static int run(const struct settings *settings)
{
	struct html_report report = {0};
	struct via_error err = {0};
	int listen_fd, rc = check(settings, &err);

	if (rc) {
		report_error(&err);
		return EXIT_USAGE;
	}
	if (relay_listen(settings->listen, &listen_fd, &err)) {
		report_error(&err);
		return EXIT_FAILED;
	}
	rc = html_report_begin(&report, settings->report, &err);
	if (!rc)
		rc = confine(settings, 0, &err);
	if (rc)
		report_error(&err);
	else
		rc = serve(settings, listen_fd, &report, &err);
	html_report_end(&report);
	close(listen_fd);
	if (!strncmp(settings->listen, "unix:", 5))
		(void)unlink(settings->listen + 5);
	return rc ? EXIT_FAILED : EXIT_OK;
}

const struct command command_relay = {
	.name = "relay",
	.summary = "stand beside an unmodified QEMU and carry its migration",
	.usage = "--role source --listen ADDRESS --peer HOST:PORT [OPTION...]\n"
		 "       viaduct relay --role destination --listen HOST:PORT --qemu ADDRESS\n"
		 "                     [OPTION...]",
	.options = options,
	.more = "--tune at the source, before it listens: return-path on; postcopy-preempt on,\n"
		"where postcopy-ram is; multifd on, where QEMU takes it beside what else is on;\n"
		"no limit of bandwidth, where it is QEMU's default.\n"
		"--tune at the destination, whose QEMU has -incoming defer: what must be alike as\n"
		"at the source, then migrate-incoming; migrate-recover when postcopy has paused.",
	.run = run,
};
