/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report.c -- what is printed at the end, for people and for programs, and the bytes in
 * which the destination tells the source what its check found.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tools/run.h"

void report_error(const struct via_error *err)
{
	fprintf(stderr, "viaduct: %s: %s\n", err->what,
		err->seen[0] ? err->seen : via_err_text(err->code));
	if (err->remedy[0])
		fprintf(stderr, "  try: %s\n", err->remedy);
}

/* The end of a word that there are @n of. */
static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static double gib_per_s(const struct run_result *r)
{
	double gib = (double)r->migrate.bytes_sent / (double)(UINT64_C(1) << 30);

	return r->migrate.total_ns ? gib / seconds(r->migrate.total_ns) : 0;
}

/* -- between destination and source --------------------------------------------- */

static json_t *verify_object(const struct run_result *r)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "pages", (json_int_t)r->verify.pages, "missing",
			 (json_int_t)r->verify.missing, "stale", (json_int_t)r->verify.stale,
			 "torn", (json_int_t)r->verify.torn);
}

void report_quantiles(const struct via_hist *h, struct quantiles *q)
{
	*q = (struct quantiles){.p50 = (double)via_hist_permille(h, 500) / 1e3,
				.p90 = (double)via_hist_permille(h, 900) / 1e3,
				.p99 = (double)via_hist_permille(h, 990) / 1e3,
				.p999 = (double)via_hist_permille(h, 999) / 1e3,
				.max = (double)h->max / 1e3};
}

/* Half of a power of two of the histogram's buckets. */
#define PER_BAR (1u << (VIA_HIST_SUB_BITS - 1))

/* The highest value of bar @i of all that there are. */
static double bar_end(unsigned i)
{
	unsigned half = i % 2, power = i / 2; /* 0 has all values below 2^SUB_BITS */
	double low = power ? (double)(UINT64_C(1) << (power - 1 + VIA_HIST_SUB_BITS)) : 0;
	double width = power ? low : (double)(1u << VIA_HIST_SUB_BITS);

	return (low + (half ? width : width / 2)) / 1e3;
}

unsigned report_bars(const struct via_hist *h, struct latency_bar bar[LATENCY_BARS])
{
	unsigned n = 0;

	for (unsigned i = 0; i < VIA_HIST_BUCKETS / PER_BAR; i++) {
		uint64_t count = 0;

		for (unsigned k = 0; k < PER_BAR; k++)
			count += h->bucket[i * PER_BAR + k];
		if (!n && !count)
			continue;
		if (n == LATENCY_BARS)
			bar[n - 1] = (struct latency_bar){.upto_us = bar_end(i),
							  .count = bar[n - 1].count + count};
		else
			bar[n++] = (struct latency_bar){.upto_us = bar_end(i), .count = count};
	}
	while (n && !bar[n - 1].count)
		n--;
	return n;
}

json_t *report_bars_json(const struct postcopy_seen *seen)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < seen->nbars; i++)
		json_array_append_new(list, json_pack("[f, I]", seen->bar[i].upto_us,
						      (json_int_t)seen->bar[i].count));
	return list;
}

static json_t *quantiles_object(const struct quantiles *q)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f}", "p50", q->p50, "p90", q->p90, "p99", q->p99,
			 "p999", q->p999, "max", q->max);
}

/* What the destination alone knows. */
static json_t *seen_object(const struct postcopy_seen *seen)
{
	return json_pack("{s:I, s:I, s:o, s:o, s:o}", "faults", (json_int_t)seen->faults,
			 "duplicate_pages", (json_int_t)seen->duplicate_pages, "latency_us",
			 quantiles_object(&seen->latency), "request_us",
			 quantiles_object(&seen->request), "install_us",
			 quantiles_object(&seen->install));
}

char *report_encode(const struct run_result *r, size_t *len)
{
	json_t *seen = r->migrate.postcopy.used ? seen_object(&r->seen) : json_null();
	json_t *root = json_pack("{s:o, s:f, s:o}", "verify", verify_object(r), "cpu_s",
				 r->cpu_destination, "postcopy", seen);
	char *text;

	if (r->migrate.postcopy.used)
		json_object_set_new(seen, "latency_histogram_us", report_bars_json(&r->seen));
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	*len = text ? strlen(text) : 0;
	return text;
}

static bool decode_verify(json_t *from, struct demo_verify *v)
{
	json_int_t pages, missing, stale, torn;

	if (json_unpack(from, "{s:I, s:I, s:I, s:I}", "pages", &pages, "missing", &missing, "stale",
			&stale, "torn", &torn))
		return false;
	/* No page is counted twice; in this order no sum can overflow. */
	if (missing < 0 || stale < 0 || torn < 0 || pages < missing || pages - missing < stale ||
	    pages - missing - stale < torn)
		return false;
	*v = (struct demo_verify){.pages = (uint64_t)pages,
				  .missing = (uint64_t)missing,
				  .stale = (uint64_t)stale,
				  .torn = (uint64_t)torn};
	return true;
}

static bool decode_quantiles(json_t *from, struct quantiles *q)
{
	return !json_unpack(from, "{s:F, s:F, s:F, s:F, s:F}", "p50", &q->p50, "p90", &q->p90,
			    "p99", &q->p99, "p999", &q->p999, "max", &q->max) &&
	       0 <= q->p50 && q->p50 <= q->p90 && q->p90 <= q->p99 && q->p99 <= q->p999 &&
	       q->p999 <= q->max;
}

/* None is no fault: the histogram came later than the rest. */
static bool decode_bars(json_t *from, struct postcopy_seen *seen)
{
	double before = 0;
	json_t *one;
	size_t i;

	if (!from)
		return true;
	if (!json_is_array(from) || json_array_size(from) > LATENCY_BARS)
		return false;
	json_array_foreach(from, i, one)
	{
		struct latency_bar *bar = &seen->bar[i];
		json_int_t count;

		if (json_unpack(one, "[F, I]", &bar->upto_us, &count) || count < 0 ||
		    !(bar->upto_us > before))
			return false;
		bar->count = (uint64_t)count;
		before = bar->upto_us;
	}
	seen->nbars = (unsigned)json_array_size(from);
	return true;
}

static bool decode_seen(json_t *from, struct postcopy_seen *seen)
{
	json_int_t faults, duplicate;
	json_t *latency, *request, *install, *bars = NULL;

	if (json_unpack(from, "{s:I, s:I, s:o, s:o, s:o, s?o}", "faults", &faults,
			"duplicate_pages", &duplicate, "latency_us", &latency, "request_us",
			&request, "install_us", &install, "latency_histogram_us", &bars))
		return false;
	seen->faults = (uint64_t)faults;
	seen->duplicate_pages = (uint64_t)duplicate;
	return faults >= 0 && duplicate >= 0 && decode_quantiles(latency, &seen->latency) &&
	       decode_quantiles(request, &seen->request) &&
	       decode_quantiles(install, &seen->install) && decode_bars(bars, seen);
}

/* All of it, or false. */
static bool decode(json_t *root, struct demo_verify *verify, double *cpu_s,
		   struct postcopy_seen *seen)
{
	json_t *verify_part, *seen_part;

	return !json_unpack(root, "{s:o, s:F, s:o}", "verify", &verify_part, "cpu_s", cpu_s,
			    "postcopy", &seen_part) &&
	       *cpu_s >= 0 && decode_verify(verify_part, verify) &&
	       (json_is_null(seen_part) || decode_seen(seen_part, seen));
}

int report_decode(const void *report, size_t len, struct run_result *r, struct via_error *err)
{
	json_t *root = json_loadb(report, len, JSON_REJECT_DUPLICATES, NULL);
	struct postcopy_seen seen = {0};
	struct demo_verify verify;
	double cpu_s;
	bool good = root && decode(root, &verify, &cpu_s, &seen);

	json_decref(root);
	if (!good)
		return via_fail(err, -EPROTO,
				"read the destination's report\nit is malformed\n"
				"check that both sides run the same release");
	r->verify = verify;
	r->cpu_destination = cpu_s;
	r->seen = seen;
	r->verified = true;
	return 0;
}

/* -- JSON ---------------------------------------------------------------------------- */

json_t *report_text(const char *text)
{
	json_t *string = json_string(text);
	char ascii[512];
	size_t n = 0;

	if (string)
		return string;
	for (; text[n] && n < sizeof(ascii) - 1; n++)
		ascii[n] = (signed char)text[n] < 0 ? '?' : text[n];
	ascii[n] = '\0';
	return json_string(ascii);
}

json_t *report_error_json(const struct via_error *err)
{
	if (!err->code)
		return json_null();
	return json_pack("{s:s, s:o, s:o, s:o}", "code", via_err_name(err->code), "what",
			 report_text(err->what), "seen", report_text(err->seen), "remedy",
			 report_text(err->remedy));
}

static double drain_us(const struct run_result *r, unsigned permille)
{
	return (double)via_hist_permille(&r->migrate.session.drain_ns, permille) / 1e3;
}

static json_t *fence_object(const struct run_result *r)
{
	const struct via_session_stats *s = &r->migrate.session;

	return json_pack("{s:I, s:b, s:{s:f, s:f, s:f}}", "epochs", (json_int_t)s->epochs, "sealed",
			 (int)s->sealed, "drain_us", "p50", drain_us(r, 500), "p99",
			 drain_us(r, 990), "max", (double)s->drain_ns.max / 1e3);
}

/* What this side counted, and what the destination saw. */
static json_t *postcopy_object(const struct run_result *r)
{
	const struct via_postcopy_stats *p = &r->migrate.postcopy;
	json_t *root;

	if (!p->used)
		return json_null();
	root = json_pack("{s:I, s:I, s:I, s:I}", "requests", (json_int_t)p->requests,
			 "request_pages", (json_int_t)p->request_pages, "bulk_pages",
			 (json_int_t)p->bulk_pages, "recoveries", (json_int_t)p->recoveries);
	json_object_update_new(root, seen_object(&r->seen));
	return root;
}

static json_t *rails_array(const struct via_session_stats *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < s->nrails; i++)
		json_array_append_new(list, json_pack("{s:s, s:I}", "device", s->rail[i].device,
						      "bytes", (json_int_t)s->rail[i].bytes));
	return list;
}

static json_t *result_object(const struct run_result *r)
{
	const struct via_migrate_result *m = &r->migrate;
	const struct via_session_stats *s = &m->session;

	return json_pack(
		"{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:o,"
		" s:{s:f, s:f}}",
		"result", via_outcome_name(m->outcome), "mode",
		m->postcopy.used ? "postcopy" : "precopy", "fabric", s->fabric, "control",
		s->security, "memory_bytes", (json_int_t)r->memory, "multifd_channels",
		(json_int_t)s->multifd, "preempt_channels", (json_int_t)s->preempt, "rounds",
		(json_int_t)m->rounds, "total_ms", seconds(m->total_ns) * 1e3, "setup_ms",
		seconds(m->setup_ns) * 1e3, "downtime_ms", seconds(m->downtime_ns) * 1e3,
		"bytes_sent", (json_int_t)m->bytes_sent, "pages_sent", (json_int_t)m->pages_sent,
		"zero_pages", (json_int_t)m->zero_pages, "gib_per_s", gib_per_s(r), "fence",
		fence_object(r), "cpu_s", "source", r->cpu_source, "destination",
		r->cpu_destination);
}

json_t *report_json(const struct run_result *r)
{
	json_t *root = result_object(r);

	json_object_set_new(root, "rails", rails_array(&r->migrate.session));
	json_object_set_new(root, "postcopy", postcopy_object(r));
	json_object_set_new(root, "verify", r->verified ? verify_object(r) : json_null());
	json_object_set_new(root, "seed", json_integer((json_int_t)r->seed));
	if (r->error.code)
		json_object_set_new(root, "error", report_error_json(&r->error));
	return root;
}

static void print_json(const struct run_result *r)
{
	json_t *root = report_json(r);

	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	fputc('\n', stdout);
	json_decref(root);
}

/* -- summary ---------------------------------------------------------------------------- */

static void print_rails(const struct via_session_stats *s)
{
	char bytes[32];

	if (!s->nrails)
		return;
	printf("  rails      ");
	for (unsigned i = 0; i < s->nrails; i++)
		printf("%s%s %s", i ? ", " : "", s->rail[i].device,
		       format_bytes(s->rail[i].bytes, bytes, sizeof(bytes)));
	printf("\n");
}

static void print_source_lines(const struct settings *settings, const struct run_result *r)
{
	const struct via_migrate_result *m = &r->migrate;
	char sent[32];

	printf("  time       %.3f s in all (set-up %.3f s), the guest stood still for %.1f ms "
	       "(limit %.0f ms)\n",
	       seconds(m->total_ns), seconds(m->setup_ns), seconds(m->downtime_ns) * 1e3,
	       seconds(settings->downtime_ns) * 1e3);
	printf("  sent       %s in %u round%s: %llu page%s, and %llu zero page%s; %.2f GiB/s\n",
	       format_bytes(m->bytes_sent, sent, sizeof(sent)), m->rounds, plural(m->rounds),
	       (unsigned long long)m->pages_sent, plural(m->pages_sent),
	       (unsigned long long)m->zero_pages, plural(m->zero_pages), gib_per_s(r));
	print_rails(&m->session);
	printf("  fence      %llu epoch%s drained, %s; drain p50 %.0f us, p99 %.0f us, max %.0f "
	       "us\n",
	       (unsigned long long)m->session.epochs, plural(m->session.epochs),
	       m->session.sealed ? "sealed" : "not sealed", drain_us(r, 500), drain_us(r, 990),
	       (double)m->session.drain_ns.max / 1e3);
	printf("  CPU        source %.2f s, destination %.2f s\n", r->cpu_source,
	       r->cpu_destination);
}

static void print_postcopy_lines(const struct run_result *r)
{
	const struct via_postcopy_stats *p = &r->migrate.postcopy;
	const struct quantiles *wait = &r->seen.latency, *request = &r->seen.request;

	printf("  postcopy   %llu fault%s; a vCPU waited p50 %.0f us, p99 %.0f us, max %.0f us; "
	       "%u recover%s\n",
	       (unsigned long long)r->seen.faults, plural(r->seen.faults), wait->p50, wait->p99,
	       wait->max, p->recoveries, p->recoveries == 1 ? "y" : "ies");
	printf("  requests   %llu, answered p50 %.0f us, p99 %.0f us, max %.0f us; %llu page%s "
	       "came "
	       "without\n",
	       (unsigned long long)p->requests, request->p50, request->p99, request->max,
	       (unsigned long long)p->bulk_pages, plural(p->bulk_pages));
}

const char *report_whereabouts(const struct via_migrate_result *m, bool source)
{
	if (m->outcome == VIA_ABORTED && source)
		return "the guest runs on at the source";
	if (m->outcome == VIA_LOST)
		return "the guest is lost: it ran at the destination, whose process is gone, and "
		       "its memory was\n  never complete anywhere else; start it again from its "
		       "disk";
	if (m->outcome != VIA_PAUSED)
		return NULL;
	if (!source)
		return "the guest here lacks pages and was stopped: start it again from its disk";
	if (m->postcopy.used)
		return "the guest is paused here and may run at the destination, which lacks pages "
		       "that\n  are here alone: look there first";
	return "the guest is paused here and may run at the destination: look there first";
}

static void print_summary(const struct settings *settings, const struct run_result *r, bool source)
{
	const struct via_session_stats *s = &r->migrate.session;
	const char *where = report_whereabouts(&r->migrate, source);
	char memory[32];

	if (!source && !r->memory && r->migrate.outcome == VIA_ABORTED) {
		printf("no guest has come, and none is lost\n");
		return;
	}
	printf("migration %s: %s of guest RAM over %s, %u multifd channel%s, control %s\n",
	       via_outcome_name(r->migrate.outcome),
	       format_bytes(r->memory, memory, sizeof(memory)),
	       s->fabric[0] ? s->fabric : "(no fabric yet)", s->multifd, plural(s->multifd),
	       s->security[0] ? s->security : "not connected");
	if (source && r->migrate.outcome == VIA_COMPLETED)
		print_source_lines(settings, r);
	if (r->migrate.postcopy.used)
		print_postcopy_lines(r);
	if (settings->verbose && s->choice[0])
		printf("  fabric     %s\n", s->choice);
	if (r->verified)
		printf("  verify     %llu page%s: %llu missing, %llu stale, %llu torn\n",
		       (unsigned long long)r->verify.pages, plural(r->verify.pages),
		       (unsigned long long)r->verify.missing, (unsigned long long)r->verify.stale,
		       (unsigned long long)r->verify.torn);
	if (where)
		printf("  %s\n", where);
}

void report_print(const struct settings *settings, const struct run_result *r, bool source)
{
	if (r->error.code)
		report_error(&r->error);
	if (settings->json)
		print_json(r);
	else
		print_summary(settings, r, source);
	fflush(stdout);
}
