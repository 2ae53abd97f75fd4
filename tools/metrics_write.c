/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_write.c -- one sample in two forms: the page that Prometheus reads (OpenMetrics 1.0), and
 * a line of JSON. Both walk the one table, so that neither has what the other lacks.
 */
#include "tools/metrics_write.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "core/clock.h"
#include "tools/run.h"

/* Upper bounds of the buckets that are shown, in ns: from a page over a NIC to a link that hangs. */
static const uint64_t bucket_ns[] = {5000,      10000,      25000,      50000,      100000,
				     250000,    500000,     1000000,    2500000,    5000000,
				     10000000,  25000000,   50000000,   100000000,  250000000,
				     500000000, 1000000000, 2500000000, 5000000000, 10000000000};

#define NBUCKETS (sizeof(bucket_ns) / sizeof(bucket_ns[0]))

/* -- the page ------------------------------------------------------------------------- */

struct page {
	FILE *out;
	const struct metric *metric;
};

/* A peer names itself, and one byte that is no UTF-8 would spoil the page. */
static void write_label(FILE *out, const struct metric_label *l)
{
	fprintf(out, "%s=\"", l->name);
	for (const char *c = l->value; *c; c++) {
		if (*c == '\n')
			fputs("\\n", out);
		else if (*c == '"' || *c == '\\')
			fprintf(out, "\\%c", *c);
		else
			fputc((signed char)*c < 0 ? '?' : *c, out);
	}
	fputc('"', out);
}

static void write_number(FILE *out, double value)
{
	if (isinf(value))
		fputs("+Inf", out);
	else
		fprintf(out, "%.15g", value);
}

static void put_sample(void *arg, const struct metric_label *labels, unsigned n, double value)
{
	static const char *const suffix[] = {[METRIC_COUNTER] = "_total",
					     [METRIC_GAUGE] = "",
					     [METRIC_INFO] = "_info",
					     [METRIC_STATESET] = ""};
	const struct page *page = arg;

	fprintf(page->out, "%s%s", page->metric->name, suffix[page->metric->type]);
	for (unsigned i = 0; i < n; i++) {
		fputc(i ? ',' : '{', page->out);
		write_label(page->out, &labels[i]);
	}
	fputs(n ? "} " : " ", page->out);
	write_number(page->out, value);
	fputc('\n', page->out);
}

static void write_hist(FILE *out, const char *name, const struct via_hist *h)
{
	for (unsigned i = 0; i < NBUCKETS; i++)
		fprintf(out, "%s_bucket{le=\"%.15g\"} %llu\n", name, (double)bucket_ns[i] / 1e9,
			(unsigned long long)via_hist_count_to(h, bucket_ns[i]));
	fprintf(out, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)h->count);
	fprintf(out, "%s_count %llu\n", name, (unsigned long long)h->count);
	fprintf(out, "%s_sum %.15g\n", name, (double)h->sum / 1e9);
}

void metrics_write_page(const struct metrics_sample *s, FILE *out)
{
	for (unsigned i = 0; i < metrics_table_len; i++) {
		const struct metric *m = &metrics_table[i];
		struct page page = {.out = out, .metric = m};

		if (!metric_applies(m, s))
			continue;
		fprintf(out, "# TYPE %s %s\n", m->name, metric_type_name(m->type));
		if (m->unit[0])
			fprintf(out, "# UNIT %s %s\n", m->name, m->unit);
		fprintf(out, "# HELP %s %s\n", m->name, m->help);
		if (m->type == METRIC_HISTOGRAM)
			write_hist(out, m->name, metric_hist(m, s));
		else
			metric_values(m, s, put_sample, &page);
	}
	fputs("# EOF\n", out);
}

/* -- a line --------------------------------------------------------------------------- */

struct line {
	json_t *object;
	const struct metric *metric;
};

/* JSON has no infinity. */
static json_t *number(double value)
{
	if (isinf(value))
		return json_null();
	return value == floor(value) && value < 9e15 ? json_integer((json_int_t)value)
						     : json_real(value);
}

static json_t *labeled(const struct metric_label *labels, unsigned n, double value)
{
	json_t *one = json_object();

	for (unsigned i = 0; i < n; i++)
		json_object_set_new(one, labels[i].name, report_text(labels[i].value));
	json_object_set_new(one, "value", number(value));
	return one;
}

/* Of a stateset the state that it is in; else an array where there are labels. */
static void put_member(void *arg, const struct metric_label *labels, unsigned n, double value)
{
	const struct line *line = arg;
	const char *name = line->metric->name;
	json_t *all = json_object_get(line->object, name);

	if (line->metric->type == METRIC_STATESET) {
		if (value > 0)
			json_object_set_new(line->object, name, json_string(labels[0].value));
		return;
	}
	if (!n) {
		json_object_set_new(line->object, name, number(value));
		return;
	}
	if (!all) {
		all = json_array();
		json_object_set_new(line->object, name, all);
	}
	json_array_append_new(all, labeled(labels, n, value));
}

static json_t *hist_object(const struct via_hist *h)
{
	static const struct {
		const char *name;
		unsigned permille;
	} quantile[] = {{"p50", 500}, {"p90", 900}, {"p99", 990}, {"p999", 999}};
	json_t *object = json_object();

	json_object_set_new(object, "count", json_integer((json_int_t)h->count));
	json_object_set_new(object, "sum", json_real((double)h->sum / 1e9));
	for (unsigned i = 0; i < sizeof(quantile) / sizeof(quantile[0]); i++)
		json_object_set_new(
			object, quantile[i].name,
			json_real((double)via_hist_permille(h, quantile[i].permille) / 1e9));
	json_object_set_new(object, "max", json_real((double)h->max / 1e9));
	return object;
}

int metrics_write_line(const struct metrics_sample *s, double time_s, FILE *out)
{
	struct line line = {.object = json_object()};
	int rc;

	json_object_set_new(line.object, "time", json_real(time_s));
	for (unsigned i = 0; i < metrics_table_len; i++) {
		const struct metric *m = &metrics_table[i];

		line.metric = m;
		if (!metric_applies(m, s))
			continue;
		if (m->type == METRIC_HISTOGRAM)
			json_object_set_new(line.object, m->name, hist_object(metric_hist(m, s)));
		else
			metric_values(m, s, put_member, &line);
	}
	rc = json_dumpf(line.object, out, JSON_COMPACT | JSON_REAL_PRECISION(15));
	json_decref(line.object);
	return rc || fputc('\n', out) == EOF || fflush(out) ? -EIO : 0;
}
