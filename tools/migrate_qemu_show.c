/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * migrate_qemu_show.c -- how far QEMU's migration is, and how it went, by QEMU's own word and by
 * the relay's.
 *
 * Must never show a number of QEMU's as the relay's: QEMU counts what it has given away, the relay
 * what it has carried.
 */
#include <jansson.h>
#include <stdarg.h>
#include <string.h>

#include "core/clock.h"
#include "tools/migrate_qemu.h"
#include "tools/run.h"

#define RATE_NS (100 * VIA_NS_PER_MS) /* a rate of less than that is noise */

static bool is(const struct qemu_migration *m, const char *status)
{
	return !strcmp(m->view.status, status);
}

static bool has_moved(const struct qemu_migration *m)
{
	return !strncmp(m->view.status, "postcopy-", 9);
}

/* -- while it runs ------------------------------------------------------------------------ */

void qemu_say(struct qemu_migration *m, const char *fmt, ...)
{
	va_list args;

	pthread_mutex_lock(&m->screen);
	progress_end(&m->progress);
	fprintf(stderr, "viaduct: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	pthread_mutex_unlock(&m->screen);
}

void qemu_note(void *arg, const char *line)
{
	qemu_say(arg, "%s", line);
}

/* What the relay says itself, and how fast that grows. */
static void look_at_relay(struct qemu_migration *m)
{
	uint64_t now = via_now_ns();
	struct relay_result carried;

	if (!relay_look(&m->relay.watch, &carried))
		return;
	m->carried = carried;
	if (now - m->bytes_ns < RATE_NS)
		return;
	if (m->bytes_ns && m->carried.forward_bytes >= m->bytes)
		m->rate = (uint64_t)((double)(m->carried.forward_bytes - m->bytes) * 1e9 /
				     (double)(now - m->bytes_ns));
	m->bytes = m->carried.forward_bytes;
	m->bytes_ns = now;
}

/* Once their number has stood still from one look to the next. */
static void show_connections(struct qemu_migration *m)
{
	const struct relay_result *c = &m->carried;
	bool settled = c->connections == m->connections && c->session.fabric[0];

	m->connections = c->connections;
	if (!settled || c->connections == m->connections_shown)
		return;
	m->connections_shown = c->connections;
	qemu_say(m, "relay: %u connection%s over %s, control %s", c->connections,
		 c->connections == 1 ? "" : "s", c->session.fabric, c->session.security);
}

void qemu_show(struct qemu_migration *m)
{
	const struct qemu_view *v = &m->view;
	bool changed = strcmp(m->shown, v->status) != 0;
	char left[32], dirty[32], sent[32], rate[32], line[192];

	look_at_relay(m);
	show_connections(m);
	format_bytes(v->remaining, left, sizeof(left));
	format_bytes(m->carried.forward_bytes, sent, sizeof(sent));
	format_bytes(m->rate, rate, sizeof(rate));
	if (has_moved(m))
		snprintf(line, sizeof(line), ": %s lacking, %llu requests; relay %s, %s/s", left,
			 (unsigned long long)v->requests, sent, rate);
	else
		snprintf(line, sizeof(line), " round %llu: %s left, dirty %s/s; relay %s, %s/s",
			 (unsigned long long)v->round, left,
			 format_bytes(v->dirty_rate, dirty, sizeof(dirty)), sent, rate);
	snprintf(m->shown, sizeof(m->shown), "%s", v->status);
	pthread_mutex_lock(&m->screen);
	progress_print(&m->progress, v->status, changed, line);
	pthread_mutex_unlock(&m->screen);
}

/* -- the end -------------------------------------------------------------------------------- */

static const char *outcome(const struct qemu_migration *m)
{
	if (!m->begun)
		return "not begun";
	if (is(m, "completed"))
		return "completed";
	if (is(m, "postcopy-paused"))
		return "paused";
	return is(m, "cancelled") || m->canceled ? "canceled" : "failed";
}

static void print_json(const struct qemu_migration *m)
{
	const struct qemu_view *v = &m->view;
	const struct relay_result *c = &m->relay.result;
	json_t *root = json_pack(
		"{s:s, s:s, s:o, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "result", outcome(m),
		"status", v->status, "qemu_error", report_text(v->why), "postcopy",
		m->postcopy || m->settings->resume_paused, "total_ms", (json_int_t)v->total_ms,
		"setup_ms", (json_int_t)v->setup_ms, "downtime_ms", (json_int_t)v->downtime_ms,
		"rounds", (json_int_t)v->round, "qemu_bytes", (json_int_t)v->transferred,
		"remaining_bytes", (json_int_t)v->remaining, "requests", (json_int_t)v->requests);
	json_t *relay =
		json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "fabric", c->session.fabric, "control",
			  c->session.security, "connections", (json_int_t)c->connections,
			  "forward_bytes", (json_int_t)c->forward_bytes, "back_bytes",
			  (json_int_t)c->back_bytes, "packets", (json_int_t)c->packets);

	json_object_update_new(root, relay);
	json_object_set_new(root, "error", report_error_json(&m->error));
	json_dumpf(root, stdout, JSON_INDENT(2));
	fputc('\n', stdout);
	json_decref(root);
}

static double seconds(uint64_t ms)
{
	return (double)ms / 1e3;
}

static void print_counts(const struct qemu_migration *m)
{
	const struct qemu_view *v = &m->view;
	const struct relay_result *c = &m->relay.result;
	char sent[32], forward[32], back[32];

	printf("  time       %.3f s in all (set-up %.3f s); the guest stood still for %llu ms, as "
	       "QEMU counts\n",
	       seconds(v->total_ms), seconds(v->setup_ms), (unsigned long long)v->downtime_ms);
	printf("  QEMU       sent %s in %llu round%s",
	       format_bytes(v->transferred, sent, sizeof(sent)), (unsigned long long)v->round,
	       v->round == 1 ? "" : "s");
	if (v->requests)
		printf("; %llu pages were asked for", (unsigned long long)v->requests);
	printf("\n  relay      carried %s to the destination, %s back, in %u connection%s\n",
	       format_bytes(c->forward_bytes, forward, sizeof(forward)),
	       format_bytes(c->back_bytes, back, sizeof(back)), c->connections,
	       c->connections == 1 ? "" : "s");
}

/* Where the guest is, and what there is to do. */
static void print_whereabouts(const struct qemu_migration *m)
{
	const struct settings *s = m->settings;
	char lacking[32];

	if (is(m, "completed")) {
		printf("  the guest runs at the destination; QEMU here has done its part\n");
	} else if (is(m, "unknown")) {
		printf("  QEMU here does not answer: see on both hosts where the guest runs\n");
	} else if (has_moved(m)) {
		printf("  the guest runs at the destination, and waits for the %s that are here "
		       "alone: leave both\n  QEMUs as they are. When the link is back, with the "
		       "destination's relay there:\n"
		       "    viaduct migrate-qemu --qmp %s --to %s --resume\n",
		       format_bytes(m->view.remaining, lacking, sizeof(lacking)), s->qmp, s->to);
	} else if (m->postcopy) {
		printf("  QEMU has taken the guest back after the switch: see that it does not run "
		       "at "
		       "the\n  destination as well (query-status on both)\n");
	} else if (m->begun) {
		printf("  the guest runs on here\n");
	}
}

static void print_summary(const struct qemu_migration *m)
{
	const struct via_session_stats *session = &m->relay.result.session;

	printf("migration %s: over %s, control %s\n", outcome(m),
	       session->fabric[0] ? session->fabric : "(no fabric yet)",
	       session->security[0] ? session->security : "not connected");
	if (m->relay.result.connections)
		print_counts(m);
	if (m->view.why[0])
		printf("  QEMU says  %s\n", m->view.why);
	print_whereabouts(m);
}

void qemu_report(struct qemu_migration *m)
{
	progress_end(&m->progress);
	if (m->error.code)
		report_error(&m->error);
	if (m->settings->json)
		print_json(m);
	else
		print_summary(m);
	fflush(stdout);
}
