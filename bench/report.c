/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report.c -- what is printed: a table for each row, or one JSON object.
 *
 * A ratio is taken within a repeat, ours to bare, so that what disturbs both does not show in
 * it; its median and spread are those of the ratios. Percentiles are of all repeats together, and
 * no sample is left out.
 */
#include "bench/report.h"

#include <stdlib.h>
#include <time.h>

#define SCHEMA "viaduct-bench-1"

struct bench_report {
	bool json;
	json_t *root;
	json_t *rows;
	json_t *skipped;
	const struct bench_row *row; /* whose table is open */
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct spread {
	double median, min, max;
};

/* 0 each for no values. Sorts them. */
static struct spread spread(double *value, unsigned n)
{
	if (!n)
		return (struct spread){0};
	qsort(value, n, sizeof(*value), by_value);
	return (struct spread){.median = (value[(n - 1) / 2] + value[n / 2]) / 2,
			       .min = value[0],
			       .max = value[n - 1]};
}

const char *bench_case_text(const struct bench_case *c, char *buf, size_t cap)
{
	size_t len = 0;

	buf[0] = '\0';
	for (const struct bench_param *p = c->param; p->name && len < cap; p++)
		len += (size_t)snprintf(buf + len, cap - len, "%s%s=%llu", len ? " " : "", p->name,
					(unsigned long long)p->value);
	return buf;
}

/* -- figures of a cell -------------------------------------------------------------------- */

static struct spread values(const struct bench_result *r, unsigned n)
{
	double value[BENCH_REPEAT_MAX];

	for (unsigned i = 0; i < n; i++)
		value[i] = r[i].value;
	return spread(value, n);
}

static struct spread ratios(const struct bench_cell *c)
{
	double value[BENCH_REPEAT_MAX];

	for (unsigned i = 0; i < c->n; i++)
		value[i] = c->bare[i].value != 0 ? c->ours[i].value / c->bare[i].value : 0;
	return spread(value, c->n);
}

/* CPU seconds of these ends for each GiB; negative: nothing was moved. */
static double cpu_per_gib(const struct bench_result *r, unsigned n, bool near, bool far)
{
	double value[BENCH_REPEAT_MAX];

	for (unsigned i = 0; i < n; i++) {
		uint64_t ns = (near ? r[i].near_cpu_ns : 0) + (far ? r[i].far_cpu_ns : 0);

		if (!r[i].bytes)
			return -1;
		value[i] = (double)ns / 1e9 / ((double)r[i].bytes / BENCH_GIB);
	}
	return spread(value, n).median;
}

static bool merged_latency(const struct bench_result *r, unsigned n, struct via_hist *h)
{
	via_hist_init(h);
	for (unsigned i = 0; i < n; i++)
		via_hist_merge(h, &r[i].latency_ns);
	return h->count;
}

/* -- JSON --------------------------------------------------------------------------------- */

static json_t *spread_object(struct spread s)
{
	return json_pack("{s:f, s:f, s:f}", "median", s.median, "min", s.min, "max", s.max);
}

static json_t *values_object(const struct bench_result *r, unsigned n)
{
	json_t *object, *list;

	if (!r)
		return json_null();
	object = spread_object(values(r, n));
	list = json_array();
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, json_real(r[i].value));
	json_object_set_new(object, "values", list);
	return object;
}

static json_t *percentiles_object(const struct bench_result *r, unsigned n)
{
	struct via_hist h;

	if (!r || !merged_latency(r, n, &h))
		return json_null();
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:I}", "p50",
			 (double)via_hist_permille(&h, 500) / 1e3, "p90",
			 (double)via_hist_permille(&h, 900) / 1e3, "p99",
			 (double)via_hist_permille(&h, 990) / 1e3, "p999",
			 (double)via_hist_permille(&h, 999) / 1e3, "max", (double)h.max / 1e3,
			 "count", (json_int_t)h.count);
}

static json_t *case_object(const struct bench_case *c)
{
	json_t *object = json_object();

	for (const struct bench_param *p = c->param; p->name; p++)
		json_object_set_new(object, p->name, json_integer((json_int_t)p->value));
	return object;
}

/* Figures beside the value: medians over the repeats. */
static void add_extras(json_t *object, const struct bench_result *r, unsigned n, const char *prefix)
{
	for (unsigned i = 0; r && i < r[0].nextras; i++) {
		double value[BENCH_REPEAT_MAX];
		char name[64];
		unsigned k = 0;

		for (unsigned j = 0; j < n; j++)
			if (i < r[j].nextras)
				value[k++] = r[j].extra[i].value;
		snprintf(name, sizeof(name), "%s%s", prefix, r[0].extra[i].name);
		json_object_set_new(object, name, json_real(spread(value, k).median));
	}
}

static void add_cpu(json_t *object, const struct bench_result *r, unsigned n, const char *prefix)
{
	static const struct {
		const char *name;
		bool near, far;
	} side[] = {{"cpu_s_per_gib", true, true},
		    {"cpu_s_per_gib_near", true, false},
		    {"cpu_s_per_gib_far", false, true}};

	for (size_t i = 0; r && r[0].bytes && i < sizeof(side) / sizeof(side[0]); i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s%s", prefix, side[i].name);
		json_object_set_new(object, name,
				    json_real(cpu_per_gib(r, n, side[i].near, side[i].far)));
	}
}

/* Of the repeat whose value is the median's nearest. */
static json_t *series_array(const struct bench_cell *c)
{
	double median = values(c->ours, c->n).median;
	const struct bench_result *r = &c->ours[0];
	json_t *list = json_array();

	for (unsigned i = 1; i < c->n; i++) {
		double d = c->ours[i].value - median, best = r->value - median;

		if (d * d < best * best)
			r = &c->ours[i];
	}
	for (unsigned i = 0; i < r->nsamples; i++) {
		json_t *point = json_object();

		for (unsigned k = 0; k < BENCH_COLUMNS && c->row->columns[k]; k++)
			json_object_set_new(point, c->row->columns[k],
					    json_real(r->sample[i].value[k]));
		json_array_append_new(list, point);
	}
	return list;
}

static json_t *cell_object(const struct bench_cell *c)
{
	json_t *object = json_pack(
		"{s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:o, s:o, s:s}", "row", c->row->name, "fabric",
		c->ours[0].fabric, "device", c->ours[0].device, "peer", c->peer, "case",
		case_object(c->the_case), "unit", c->row->unit, "better",
		c->row->higher_is_better ? "higher" : "lower", "ours", values_object(c->ours, c->n),
		"bare", values_object(c->bare, c->n), "bare_is", c->bare_is);
	json_t *extra = json_object(), *ours = percentiles_object(c->ours, c->n);

	json_object_set_new(object, "ratio", c->bare ? spread_object(ratios(c)) : json_null());
	if (!json_is_null(ours))
		json_object_set_new(object, "percentiles",
				    json_pack("{s:O, s:o}", "ours", ours, "bare",
					      percentiles_object(c->bare, c->n)));
	json_decref(ours);
	add_cpu(extra, c->ours, c->n, "");
	add_cpu(extra, c->bare, c->n, "bare_");
	add_extras(extra, c->ours, c->n, "");
	add_extras(extra, c->bare, c->n, "bare_");
	json_object_set_new(object, "extra", extra);
	if (c->row->columns[0])
		json_object_set_new(object, "series", series_array(c));
	return object;
}

/* -- text ----------------------------------------------------------------------------------- */

/* Four digits that say something; five at most. */
static const char *number(double v, char *buf, size_t cap)
{
	if (v >= 99999.5)
		snprintf(buf, cap, "%.0fk", v / 1e3);
	else
		snprintf(buf, cap,
			 v >= 1000 || v <= -1000 ? "%.0f"
			 : v >= 100              ? "%.1f"
			 : v >= 10               ? "%.2f"
						 : "%.3f",
			 v);
	return buf;
}

static const char *spread_text(struct spread s, char *buf, size_t cap)
{
	char median[16], min[16], max[16];

	snprintf(buf, cap, "%s (%s..%s)", number(s.median, median, sizeof(median)),
		 number(s.min, min, sizeof(min)), number(s.max, max, sizeof(max)));
	return buf;
}

static void print_head(const struct bench_cell *c)
{
	printf("%s: %s, %s%s%s, %s; median (lowest..highest) of %u\n", c->row->name, c->row->unit,
	       c->ours[0].fabric, c->ours[0].device[0] ? " on " : "", c->ours[0].device, c->peer,
	       c->n);
	printf("  %-32s %-21s %-21s %s\n", "case", "ours", "bare", "ours/bare");
}

static void print_percentiles(const char *what, const struct bench_result *r, unsigned n)
{
	struct via_hist h;

	if (!r || !merged_latency(r, n, &h))
		return;
	printf("    %s: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f us, %llu samples\n",
	       what, (double)via_hist_permille(&h, 500) / 1e3,
	       (double)via_hist_permille(&h, 900) / 1e3, (double)via_hist_permille(&h, 990) / 1e3,
	       (double)via_hist_permille(&h, 999) / 1e3, (double)h.max / 1e3,
	       (unsigned long long)h.count);
}

static void print_cpu(const struct bench_cell *c)
{
	if (!c->ours[0].bytes)
		return;
	printf("    CPU s/GiB: ours %.3f + %.3f", cpu_per_gib(c->ours, c->n, true, false),
	       cpu_per_gib(c->ours, c->n, false, true));
	if (c->bare)
		printf(", bare %.3f + %.3f", cpu_per_gib(c->bare, c->n, true, false),
		       cpu_per_gib(c->bare, c->n, false, true));
	printf(" (near + far)\n");
}

static void print_cell(struct bench_report *report, const struct bench_cell *c)
{
	char text[128], ours[64], bare[64] = "none", ratio[64] = "";
	bool again = report->row == c->row;

	if (!again)
		print_head(c);
	report->row = c->row;
	spread_text(values(c->ours, c->n), ours, sizeof(ours));
	if (c->bare) {
		spread_text(values(c->bare, c->n), bare, sizeof(bare));
		spread_text(ratios(c), ratio, sizeof(ratio));
	}
	printf("  %-32s %-21s %-21s %s\n", bench_case_text(c->the_case, text, sizeof(text)), ours,
	       bare, ratio);
	print_percentiles("ours", c->ours, c->n);
	print_percentiles("bare", c->bare, c->n);
	print_cpu(c);
	if (!again || !c->bare)
		printf("    bare: %s\n", c->bare_is);
	fflush(stdout);
}

/* -- the report -------------------------------------------------------------------------------- */

static json_t *head(const struct bench_options *o)
{
	char date[32];
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "schema", SCHEMA, "command",
			 o->command, "version", o->version, "commit", host_commit(), "date", date,
			 "host", host_object(o->neighbours), "libraries", host_libraries());
}

struct bench_report *report_new(const struct bench_options *o)
{
	struct bench_report *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->json = o->json;
	r->root = head(o);
	r->rows = json_array();
	r->skipped = json_array();
	return r;
}

void report_cell(struct bench_report *r, const struct bench_cell *cell)
{
	json_array_append_new(r->rows, cell_object(cell));
	if (!r->json)
		print_cell(r, cell);
}

void report_skipped(struct bench_report *r, const struct bench_row *row, const struct bench_case *c,
		    const struct via_error *why)
{
	char text[128], reason[512];

	via_error_format(why, reason, sizeof(reason));
	bench_case_text(c, text, sizeof(text));
	json_array_append_new(r->skipped, json_pack("{s:s, s:o, s:s}", "row", row->name, "case",
						    case_object(c), "reason", reason));
	if (!r->json)
		printf("  %-33s left out: %s\n", text, reason);
}

void report_end(struct bench_report *r)
{
	json_object_set_new(r->root, "rows", r->rows);
	json_object_set_new(r->root, "skipped", r->skipped);
	if (r->json) {
		json_dumpf(r->root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(7));
		printf("\n");
	} else {
		json_t *host = json_object_get(r->root, "host");

		printf("\nLinux %s, %s, %lld CPUs, load %.1f before; %s\n",
		       json_string_value(json_object_get(host, "kernel")),
		       json_string_value(json_object_get(host, "cpu")),
		       (long long)json_integer_value(json_object_get(host, "cpus")),
		       json_real_value(json_object_get(host, "load")), host_commit());
	}
	json_decref(r->root);
	free(r);
}
