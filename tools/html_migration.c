/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * html_migration.c -- the page about one migration: what came of it, how it went over time, and
 * all that it was set to.
 *
 * It must never say a number that --json of the same run does not: both are made of report_json().
 */
#include <string.h>

#include "core/clock.h"
#include "tools/html.h"
#include "tools/run.h"
#include "tools/screen.h"

struct page {
	FILE *out;
	const struct settings *settings;
	const struct run_result *r;
	const struct series *series;
};

/* -- at the top ------------------------------------------------------------------- */

static void put_tiles(const struct page *p)
{
	const struct via_migrate_result *m = &p->r->migrate;
	const struct demo_verify *v = &p->r->verify;
	char text[64], name[64];

	fputs("<div class=\"tiles\">\n", p->out);
	snprintf(text, sizeof(text), "%.3f s", (double)m->total_ns / 1e9);
	html_tile(p->out, text, "in all");
	snprintf(text, sizeof(text), "%.1f ms", (double)m->downtime_ns / 1e6);
	snprintf(name, sizeof(name), "the guest stood still; limit %.0f ms",
		 (double)p->settings->downtime_ns / 1e6);
	html_tile(p->out, text, name);
	format_bytes(m->bytes_sent, text, sizeof(text));
	snprintf(name, sizeof(name), "sent in %u round%s", m->rounds, m->rounds == 1 ? "" : "s");
	html_tile(p->out, text, name);
	format_bytes(m->total_ns ? (uint64_t)((double)m->bytes_sent * 1e9 / (double)m->total_ns)
				 : 0,
		     text, sizeof(text));
	snprintf(name, sizeof(name), "a second, on average");
	html_tile(p->out, text, name);
	if (p->r->verified) {
		snprintf(text, sizeof(text), "%llu",
			 (unsigned long long)(v->missing + v->stale + v->torn));
		snprintf(name, sizeof(name), "of %llu pages wrong", (unsigned long long)v->pages);
		html_tile(p->out, text, name);
	}
	fputs("</div>\n", p->out);
}

static void put_error(const struct page *p)
{
	const struct via_error *e = &p->r->error;
	const char *where = report_whereabouts(&p->r->migrate, true);

	if (e->code) {
		fputs("<div class=\"box\"><p><b>", p->out);
		html_text(p->out, e->what);
		fputs("</b>: ", p->out);
		html_text(p->out, e->seen[0] ? e->seen : via_err_text(e->code));
		fputs("</p><p>Try: ", p->out);
		html_text(p->out, e->remedy);
		fputs("</p></div>\n", p->out);
	}
	if (where) {
		fputs("<p>", p->out);
		html_text(p->out, where);
		fputs("</p>\n", p->out);
	}
}

static void put_top(const struct page *p)
{
	const struct via_session_stats *s = &p->r->migrate.session;
	char memory[32];

	fprintf(p->out, "<h1 class=\"%s\">Migration %s</h1>\n<p class=\"dim\">",
		run_succeeded(p->r) ? "ok" : "bad", via_outcome_name(p->r->migrate.outcome));
	html_text(p->out, format_bytes(p->r->memory, memory, sizeof(memory)));
	fputs(" of guest RAM over ", p->out);
	html_text(p->out, s->fabric[0] ? s->fabric : "(no fabric yet)");
	fprintf(p->out, ", by %s</p>\n", p->r->migrate.postcopy.used ? "postcopy" : "precopy");
	put_error(p);
	put_tiles(p);
}

/* -- over time ------------------------------------------------------------------------ */

static void put_time(const struct page *p)
{
	fputs("<section><h2>Over time</h2>\n<figure>\n", p->out);
	chart_remaining(p->out, p->series, p->r->memory);
	fputs("<figcaption>What remains to be sent in the round; in postcopy, what the "
	      "destination lacks."
	      "<i class=\"key setup\"></i>set-up<i class=\"key precopy\"></i>precopy"
	      "<i class=\"key switch\"></i>switch-over: the guest stands still"
	      "<i class=\"key postcopy\"></i>postcopy<i class=\"key paused\"></i>paused"
	      "</figcaption></figure>\n<figure>\n",
	      p->out);
	chart_rates(p->out, p->series);
	fputs("<figcaption><i class=\"line\"></i>sent<i class=\"line b\"></i>written by the guest, "
	      "as seen at the end of each round</figcaption></figure>\n</section>\n",
	      p->out);
}

static void put_steps(const struct page *p)
{
	const struct via_steps *s = &p->r->migrate.steps;
	struct step {
		const char *name;
		uint64_t at_ns;
	} step[] = {{"the guest was stopped", s->paused_ns},
		    {"the last round was drained", s->drained_ns},
		    {"memory was sealed", s->sealed_ns},
		    {"missing pages were discarded, faults are answered", s->armed_ns},
		    {"the device state was sent", s->state_ns},
		    {"the guest runs at the destination", s->run_ns}};
	const unsigned n = sizeof(step) / sizeof(step[0]);

	if (!s->paused_ns)
		return;
	for (unsigned i = 1; i < n; i++) /* with postcopy in another order */
		for (unsigned k = i; k && step[k].at_ns < step[k - 1].at_ns; k--) {
			struct step later = step[k - 1];

			step[k - 1] = step[k];
			step[k] = later;
		}
	html_table(p->out, "The switch");
	for (unsigned i = 0; i < n; i++)
		if (step[i].at_ns)
			html_row(p->out, step[i].name, "at %.4f s, %+.2f ms",
				 (double)step[i].at_ns / 1e9,
				 ((double)step[i].at_ns - (double)s->paused_ns) / 1e6);
	html_table_end(p->out);
}

/* -- latency ------------------------------------------------------------------------------ */

static void quantile_row(FILE *out, const char *name, const struct quantiles *q)
{
	fputs("<tr><td>", out);
	html_text(out, name);
	fprintf(out,
		"</td><td>%.1f</td><td>%.1f</td><td>%.1f</td><td>%.1f</td><td>%.1f</td></tr>\n",
		q->p50, q->p90, q->p99, q->p999, q->max);
}

static void put_latency(const struct page *p)
{
	const struct postcopy_seen *seen = &p->r->seen;
	struct quantiles drain;

	fputs("<section><h2>Latency</h2>\n", p->out);
	if (seen->nbars) {
		fputs("<figure>\n", p->out);
		chart_bars(p->out, seen->bar, seen->nbars, "vCPUs that waited, by how long");
		fputs("<figcaption>How often a vCPU waited so long for a page: up to the time "
		      "below "
		      "the bar's right edge.</figcaption></figure>\n",
		      p->out);
	}
	report_quantiles(&p->r->migrate.session.drain_ns, &drain);
	fputs("<table class=\"num\"><tr><th>microseconds</th><th>p50</th><th>p90</th><th>p99</th>"
	      "<th>p99.9</th><th>max</th></tr>\n",
	      p->out);
	if (p->r->migrate.postcopy.used) {
		quantile_row(p->out, "a vCPU waited for a page", &seen->latency);
		quantile_row(p->out, "from a request to its page", &seen->request);
		quantile_row(p->out, "a page that was asked for was put in place", &seen->install);
	}
	quantile_row(p->out, "from the last fence to its acknowledgement", &drain);
	fputs("</table></section>\n", p->out);
}

/* -- channels ------------------------------------------------------------------------------- */

static void put_share(FILE *out, uint64_t bytes, uint64_t most)
{
	fprintf(out, "<td><span class=\"share\" style=\"width:%.1f%%\"></span></td></tr>\n",
		most ? (double)bytes * 100 / (double)most : 0);
}

static void put_channel(FILE *out, const struct via_channel_stats *c, uint64_t most)
{
	char writes[32], sent[32], received[32];

	fprintf(out, "<tr><td>%s", screen_channel_kind(c->kind));
	if (c->kind != VIA_MAIN)
		fprintf(out, " %u", c->index);
	fputs("</td><td>", out);
	html_text(out, c->device);
	fprintf(out, "</td><td>%s</td><td>%s</td><td>%s</td>",
		format_bytes(c->bytes, writes, sizeof(writes)),
		format_bytes(c->sent_bytes, sent, sizeof(sent)),
		format_bytes(c->received_bytes, received, sizeof(received)));
	put_share(out, screen_channel_bytes(c), most);
}

static void put_channels(const struct page *p)
{
	const struct series *s = p->series;
	uint64_t most = 0;

	if (!s->nchannels)
		return;
	for (unsigned i = 0; i < s->nchannels; i++)
		if (screen_channel_bytes(&s->channel[i]) > most)
			most = screen_channel_bytes(&s->channel[i]);
	fputs("<section><h2>Channels</h2>\n<table class=\"num\"><tr><th>channel</th><th>device</th>"
	      "<th>written</th><th>messages out</th><th>in</th><th "
	      "style=\"width:30%\"></th></tr>\n",
	      p->out);
	for (unsigned i = 0; i < s->nchannels; i++)
		put_channel(p->out, &s->channel[i], most);
	fputs("</table></section>\n", p->out);
}

/* -- what it was set to ------------------------------------------------------------------------ */

static void put_negotiation(const struct page *p)
{
	const struct via_session_stats *s = &p->r->migrate.session;

	html_table(p->out, "What the two sides agreed on");
	html_session(p->out, s);
	html_row(p->out, "channels", "main, %u multifd, %u preempt", s->multifd, s->preempt);
	html_row(p->out, "dirty tracker here", "%s", p->r->tracker ? p->r->tracker : "none");
	html_table_end(p->out);
}

static void number_row(FILE *out, const char *name, uint64_t value)
{
	html_row(out, name, "%llu", (unsigned long long)value);
}

static void rate_row(FILE *out, const char *name, uint64_t value, uint64_t unlimited)
{
	char bytes[32];

	if (value == unlimited)
		html_row(out, name, "unlimited");
	else
		html_row(out, name, "%s/s", format_bytes(value, bytes, sizeof(bytes)));
}

static void put_settings(const struct page *p)
{
	const struct settings *s = p->settings;
	FILE *out = p->out;
	char bytes[32];

	html_table(out, "Settings");
	html_row_text(out, "--fabric", s->fabric ? s->fabric : "auto");
	html_row_text(out, "--peer", s->peer);
	html_row_text(out, "--psk", s->psk);
	html_row_text(out, "--psk-identity", s->psk_identity);
	html_row_text(out, "--tls-creds", s->tls_creds);
	html_row_text(out, "--tls-hostname", s->tls_hostname);
	html_row_switch(out, "--insecure", s->insecure);
	html_row_switch(out, "--integrity", s->integrity);
	html_row(out, "--memory", "%s", format_bytes(s->memory, bytes, sizeof(bytes)));
	number_row(out, "--vcpus", s->vcpus);
	rate_row(out, "--dirty-rate", s->dirty_rate, UINT64_MAX);
	number_row(out, "--multifd", s->multifd);
	number_row(out, "--preempt", s->preempt);
	html_row(out, "--downtime-limit", "%.6g ms", (double)s->downtime_ns / 1e6);
	rate_row(out, "--max-bandwidth", s->max_bandwidth, 0);
	number_row(out, "--max-rounds", s->max_rounds);
	number_row(out, "--postcopy-after", s->postcopy_after);
	number_row(out, "--postcopy-when-stuck", s->postcopy_when_stuck);
	rate_row(out, "--max-postcopy-bandwidth", s->max_postcopy_bandwidth, 0);
	html_row(out, "--dead-after", "%.6g ms", (double)s->dead_after_ns / 1e6);
	html_row_switch(out, "--retry", s->retry);
	number_row(out, "--pull-link", s->pull_link);
	number_row(out, "--seed", p->r->seed);
	html_table_end(out);
}

/* -- all of it -------------------------------------------------------------------------- */

static void put_page(FILE *out, void *arg)
{
	struct page *p = arg;
	json_t *result = report_json(p->r), *data;
	char title[96];

	p->out = out;
	snprintf(title, sizeof(title), "viaduct: migration %s",
		 via_outcome_name(p->r->migrate.outcome));
	html_begin(p->out, title);
	put_top(p);
	put_time(p);
	put_steps(p);
	put_latency(p);
	put_channels(p);
	html_rails(p->out, &p->r->migrate.session);
	put_negotiation(p);
	put_settings(p);
	html_table(p->out, "All numbers, as --json has them");
	html_leaves(p->out, result);
	html_table_end(p->out);
	html_foot(p->out, "at the source");
	data = json_pack("{s:O, s:[s, s, s, s, s], s:o, s:o}", "result", result, "columns", "ms",
			 "round", "remaining_bytes", "sent_bytes", "dirty_bytes_per_s", "points",
			 html_points(p->series), "latency_histogram_us",
			 report_bars_json(&p->r->seen));
	html_data(p->out, data);
	html_end(p->out);
	json_decref(data);
	json_decref(result);
}

void html_migration(struct html_report *report, const struct settings *settings,
		    const struct run_result *r)
{
	struct page page = {.settings = settings, .r = r, .series = report->series};

	if (!report->out)
		return;
	/* It is told when the first round is under way. */
	if (report->series->nspans > 1 && r->migrate.setup_ns < report->series->span[1].from_ns)
		report->series->span[1].from_ns = r->migrate.setup_ns;
	html_report_write(report, put_page, &page);
}
