/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * html_relay.c -- the page about what a relay has carried: how fast, over what, and how it was set.
 *
 * It must never speak of the guest: a relay sees a stream, and neither its memory nor its downtime.
 */
#include <string.h>

#include "tools/html.h"
#include "tools/run.h"

struct page {
	const struct settings *settings;
	const struct relay_result *r;
	const struct via_error *why;
	const struct series *series;
	json_t *json;
};

static void put_top(FILE *out, const struct page *p)
{
	const char *outcome = json_string_value(json_object_get(p->json, "result"));

	fprintf(out, "<h1 class=\"%s\">Relay, %s: %s</h1>\n",
		p->r->outcome == RELAY_BROKEN ? "bad" : "ok", p->settings->role, outcome);
	if (!p->why->code)
		return;
	fputs("<div class=\"box\"><p><b>", out);
	html_text(out, p->why->what);
	fputs("</b>: ", out);
	html_text(out, p->why->seen[0] ? p->why->seen : via_err_text(p->why->code));
	fputs("</p><p>Try: ", out);
	html_text(out, p->why->remedy);
	fputs("</p></div>\n", out);
}

static void put_tiles(FILE *out, const struct page *p)
{
	const struct series *s = p->series;
	uint64_t ns = s->npoints ? s->point[s->npoints - 1].at_ns : 0;
	char text[64];

	fputs("<div class=\"tiles\">\n", out);
	snprintf(text, sizeof(text), "%.3f s", (double)ns / 1e9);
	html_tile(out, text, "from the first connection to the end");
	html_tile(out, format_bytes(p->r->forward_bytes, text, sizeof(text)), "to the destination");
	html_tile(out, format_bytes(p->r->back_bytes, text, sizeof(text)), "back to the source");
	format_bytes(ns ? (uint64_t)((double)p->r->forward_bytes * 1e9 / (double)ns) : 0, text,
		     sizeof(text));
	html_tile(out, text, "a second, on average");
	snprintf(text, sizeof(text), "%u", p->r->connections);
	html_tile(out, text, p->r->connections == 1 ? "connection" : "connections");
	fputs("</div>\n", out);
}

static void put_settings(FILE *out, const struct settings *s)
{
	html_table(out, "Settings");
	html_row_text(out, "--role", s->role);
	html_row_text(out, "--listen", s->listen);
	html_row_text(out, "--peer", s->peer);
	html_row_text(out, "--qemu", s->qemu);
	html_row_text(out, "--qmp", s->qmp);
	html_row_switch(out, "--tune", s->tune);
	html_row_switch(out, "--keep", s->keep);
	html_row_text(out, "--fabric", s->fabric ? s->fabric : "auto");
	html_row_text(out, "--psk", s->psk);
	html_row_text(out, "--psk-identity", s->psk_identity);
	html_row_text(out, "--tls-creds", s->tls_creds);
	html_row_text(out, "--tls-hostname", s->tls_hostname);
	html_row_text(out, "--tls-authz-name", s->tls_authz_name);
	html_row_switch(out, "--insecure", s->insecure);
	html_row(out, "--dead-after", "%.6g ms", (double)s->dead_after_ns / 1e6);
	html_table_end(out);
}

static void put_page(FILE *out, void *arg)
{
	const struct page *p = arg;
	json_t *data;

	html_begin(out, "viaduct: relay");
	put_top(out, p);
	put_tiles(out, p);
	fputs("<section><h2>Over time</h2>\n<figure>\n", out);
	chart_rates(out, p->series);
	fputs("<figcaption>What was carried to the destination.</figcaption></figure></section>\n",
	      out);
	html_rails(out, &p->r->session);
	html_table(out, "What the two relays agreed on");
	html_session(out, &p->r->session);
	html_table_end(out);
	put_settings(out, p->settings);
	html_table(out, "All numbers, as --json has them");
	html_leaves(out, p->json);
	html_table_end(out);
	html_foot(out,
		  strcmp(p->settings->role, "source") ? "at the destination" : "at the source");
	data = json_pack("{s:O, s:[s, s, s, s, s], s:o}", "result", p->json, "columns", "ms",
			 "round", "remaining_bytes", "sent_bytes", "dirty_bytes_per_s", "points",
			 html_points(p->series));
	html_data(out, data);
	html_end(out);
	json_decref(data);
}

void html_relay(struct html_report *report, const struct settings *settings,
		const struct relay_result *r, const struct via_error *why, json_t *json)
{
	struct page page = {
		.settings = settings, .r = r, .why = why, .series = report->series, .json = json};

	if (report->out)
		html_report_write(report, put_page, &page);
}
