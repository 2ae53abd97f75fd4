/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_relay.c -- viaduct relay: stand beside an unmodified QEMU and carry its migration.
 */
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "relay/relay.h"
#include "tools/commands.h"
#include "tools/run.h"

#define HANDSHAKE_NS (10 * VIA_NS_PER_S)

/* clang-format off */
static const enum option_id options[] = {
	OPTION_ROLE, OPTION_LISTEN, OPTION_PEER, OPTION_QEMU, OPTION_QMP, OPTION_TUNE, OPTION_PSK,
	OPTION_PSK_IDENTITY, OPTION_TLS_CREDS, OPTION_TLS_HOSTNAME, OPTION_TLS_AUTHZ_NAME,
	OPTION_INSECURE, OPTION_FABRIC, OPTION_DEAD_AFTER, OPTION_KEEP, OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

static const char *outcome_name(enum relay_outcome outcome)
{
	static const char *const names[] = {[RELAY_COMPLETED] = "completed",
					    [RELAY_ENDED] = "ended",
					    [RELAY_BROKEN] = "broken"};

	return names[outcome];
}

static void note(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "viaduct: %s\n", line);
}

static json_t *error_object(const struct via_error *e)
{
	if (!e->code)
		return json_null();
	return json_pack("{s:s, s:s, s:s, s:s}", "code", via_err_name(e->code), "what", e->what,
			 "seen", e->seen, "remedy", e->remedy);
}

static void print_json(const struct relay_result *r, const struct via_error *why)
{
	json_t *root = json_pack(
		"{s:s, s:b, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "result",
		outcome_name(r->outcome), "postcopy", (int)r->postcopy, "migration",
		(json_int_t)r->migrations, "fabric", r->session.fabric, "control",
		r->session.security, "connections", (json_int_t)r->connections, "forward_bytes",
		(json_int_t)r->forward_bytes, "back_bytes", (json_int_t)r->back_bytes, "packets",
		(json_int_t)r->packets, "error", error_object(why));

	json_dumpf(root, stdout, JSON_INDENT(2));
	fputc('\n', stdout);
	json_decref(root);
}

static void print_summary(const struct relay_result *r)
{
	char forward[32], back[32];

	printf("relay %s: %u connections over %s, control %s; %s to the destination, %s back\n",
	       outcome_name(r->outcome), r->connections,
	       r->session.fabric[0] ? r->session.fabric : "(no fabric yet)",
	       r->session.security[0] ? r->session.security : "not connected",
	       format_bytes(r->forward_bytes, forward, sizeof(forward)),
	       format_bytes(r->back_bytes, back, sizeof(back)));
}

static void ended(void *arg, const struct relay_result *result, const struct via_error *why)
{
	const struct settings *s = arg;

	if (why->code)
		report_error(why);
	if (s->json)
		print_json(result, why);
	else
		print_summary(result);
	fflush(stdout);
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

static int serve(const struct settings *s, int listen_fd, struct via_error *err)
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
	struct settings settings = *s;
	struct relay_result result;
	int rc = interrupt_start(&config.cancel_fd, NULL, err);

	config.arg = &settings;
	if (!rc && source && s->tune)
		rc = relay_tune(&config, err); /* whoever reads the announcement may migrate */
	if (rc) {
		report_error(err);
		interrupt_stop();
		return rc;
	}
	announce(s, listen_fd);
	rc = source ? relay_source(listen_fd, s->peer, &config, &result, err)
		    : relay_destination(listen_fd, s->qemu, &config, &result, err);
	interrupt_stop();
	return rc;
}

static int run(const struct settings *settings)
{
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
	rc = serve(settings, listen_fd, &err);
	close(listen_fd);
	if (!strncmp(settings->listen, "unix:", 5))
		(void)unlink(settings->listen + 5);
	return rc ? EXIT_FAILED : EXIT_OK;
}

const struct command command_relay = {
	.name = "relay",
	.summary = "stand beside an unmodified QEMU and carry its migration over a fabric",
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
