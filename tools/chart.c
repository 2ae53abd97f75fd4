/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chart.c -- charts as SVG, drawn here: they print, and need no script.
 *
 * Invariant: all numbers in the drawing are finite and inside the frame, whatever the series says.
 */
#include <math.h>
#include <string.h>

#include "tools/html.h"
#include "tools/run.h"

#define WIDTH  940.0
#define HEIGHT 250.0
#define LEFT   92.0
#define RIGHT  12.0
#define TOP    20.0
#define BOTTOM 26.0

#define INNER_WIDTH  (WIDTH - LEFT - RIGHT)
#define INNER_HEIGHT (HEIGHT - TOP - BOTTOM)

#define RATE_POINTS 150.0 /* a rate over less time than this part of it all is noise */
#define LABEL_WIDTH 64.0  /* a phase that is narrower has no name in the chart */

struct axes {
	FILE *out;
	double seconds; /* of the whole */
	double top;     /* the highest value there is room for */
};

static double inside(double at, double low, double high)
{
	return at >= low ? (at <= high ? at : high) : low; /* also what is no number */
}

static double x_of(const struct axes *a, uint64_t ns)
{
	return LEFT + inside((double)ns / 1e9 / a->seconds, 0, 1) * INNER_WIDTH;
}

static double y_of(const struct axes *a, double value)
{
	return TOP + (1 - inside(value / a->top, 0, 1)) * INNER_HEIGHT;
}

/* The step of about @n ticks up to @top: 1, 2 or 5 of a power of ten. */
static double nice_step(double top, double n)
{
	double step = top / n, power = pow(10, floor(log10(step)));
	double times = step / power;

	return power * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
}

/* The same of bytes: of KiB, MiB and so on. */
static double nice_bytes(double top, double n)
{
	double unit = 1;

	while (top / unit >= 1024)
		unit *= 1024;
	return unit * nice_step(top / unit, n);
}

static uint64_t end_of(const struct series *s)
{
	return s->npoints ? s->point[s->npoints - 1].at_ns : 0;
}

/* -- the frame ---------------------------------------------------------------------- */

static const char *span_class(enum via_phase phase)
{
	switch (phase) {
	case VIA_PHASE_SETUP:
		return "setup";
	case VIA_PHASE_PRECOPY:
		return "precopy";
	case VIA_PHASE_SWITCHOVER:
		return "switch";
	case VIA_PHASE_POSTCOPY:
		return "postcopy";
	case VIA_PHASE_PAUSED:
		return "paused";
	case VIA_PHASE_DONE:
		break;
	}
	return "setup";
}

static void put_spans(const struct axes *a, const struct series *s)
{
	for (unsigned i = 0; i < s->nspans; i++) {
		uint64_t from = s->span[i].from_ns;
		uint64_t to = i + 1 < s->nspans ? s->span[i + 1].from_ns : end_of(s);
		double x = x_of(a, from), width = x_of(a, to) - x;
		const char *name = progress_phase_name(s->span[i].phase);

		width = width > 1 ? width : 1;
		fprintf(a->out,
			"<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\">"
			"<title>%s, %.3f s to %.3f s</title></rect>\n",
			span_class(s->span[i].phase), x, TOP, width, INNER_HEIGHT, name,
			(double)from / 1e9, (double)to / 1e9);
		if (width >= LABEL_WIDTH)
			fprintf(a->out, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", x + 4, TOP - 6,
				name);
	}
}

static void put_seconds(const struct axes *a)
{
	double step = nice_step(a->seconds, 8);

	for (unsigned i = 0; i * step <= a->seconds * 1.0001; i++) {
		double x = LEFT + i * step / a->seconds * INNER_WIDTH;

		fprintf(a->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%.4g s</text>\n", x,
			HEIGHT - 8, i ? x > WIDTH - 40 ? "end" : "middle" : "start", i * step);
	}
}

static void put_bytes_axis(const struct axes *a, const char *unit)
{
	double step = nice_bytes(a->top, 4);
	char text[32];

	for (unsigned i = 0; i * step <= a->top * 1.0001; i++) {
		double y = y_of(a, i * step);

		fprintf(a->out,
			"<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
			"<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s%s</text>\n",
			LEFT, y, WIDTH - RIGHT, y, LEFT - 6, y + 4,
			format_bytes((uint64_t)(i * step), text, sizeof(text)), unit);
	}
}

static void begin(const struct axes *a, const struct series *s, const char *label, const char *unit)
{
	fprintf(a->out, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">\n", WIDTH,
		HEIGHT, label);
	put_spans(a, s);
	put_bytes_axis(a, unit);
	put_seconds(a);
}

static bool make_axes(struct axes *a, FILE *out, const struct series *s, double top)
{
	*a = (struct axes){.out = out, .seconds = (double)end_of(s) / 1e9, .top = top};
	if (s->npoints > 1 && a->seconds > 0 && top > 0)
		return true;
	fputs("<p class=\"dim\">It was over before there was anything to draw.</p>\n", out);
	return false;
}

/* -- what remains ----------------------------------------------------------------------- */

void chart_remaining(FILE *out, const struct series *s, uint64_t memory)
{
	struct axes a;

	if (!make_axes(&a, out, s, (double)memory))
		return;
	begin(&a, s, "bytes that remain, over time", "");
	fprintf(out, "<path class=\"area\" d=\"M%.1f %.1f", x_of(&a, s->point[0].at_ns),
		y_of(&a, 0));
	for (unsigned i = 0; i < s->npoints; i++)
		fprintf(out, "L%.1f %.1f", x_of(&a, s->point[i].at_ns),
			y_of(&a, (double)s->point[i].remaining));
	fprintf(out, "L%.1f %.1fZ\"/>\n<polyline class=\"one\" points=\"", x_of(&a, end_of(s)),
		y_of(&a, 0));
	for (unsigned i = 0; i < s->npoints; i++)
		fprintf(out, "%.1f,%.1f ", x_of(&a, s->point[i].at_ns),
			y_of(&a, (double)s->point[i].remaining));
	fputs("\"/>\n</svg>\n", out);
}

/* -- rates ---------------------------------------------------------------------------------- */

/* The next point behind @from from which a rate can be told; the last one in any case. */
static unsigned next_far(const struct series *s, unsigned from)
{
	double least = (double)end_of(s) / RATE_POINTS;
	unsigned to = from + 1;

	while (to + 1 < s->npoints && (double)(s->point[to].at_ns - s->point[from].at_ns) < least)
		to++;
	return to;
}

static double rate_between(const struct series_point *from, const struct series_point *to)
{
	if (to->at_ns <= from->at_ns || to->sent < from->sent)
		return 0;
	return (double)(to->sent - from->sent) * 1e9 / (double)(to->at_ns - from->at_ns);
}

static double highest_rate(const struct series *s)
{
	double top = 0;

	for (unsigned i = 0; i + 1 < s->npoints; i = next_far(s, i))
		top = fmax(top, rate_between(&s->point[i], &s->point[next_far(s, i)]));
	for (unsigned i = 0; i < s->npoints; i++)
		top = fmax(top, (double)s->point[i].dirty_rate);
	return top;
}

/* As steps, from the end of the first round, when it gets known, until the guest moves. */
static void put_dirty(const struct axes *a, const struct series *s)
{
	const struct series_point *before = NULL;
	uint64_t end = end_of(s);

	for (unsigned i = s->nspans; i-- > 0;)
		if (s->span[i].phase == VIA_PHASE_POSTCOPY)
			end = s->span[i].from_ns;
	fputs("<polyline class=\"two\" points=\"", a->out);
	for (const struct series_point *p = s->point; p < s->point + s->npoints; p++) {
		if (p->at_ns > end || (!before && p->round < 2 && !p->dirty_rate))
			continue;
		if (before && before->dirty_rate != p->dirty_rate)
			fprintf(a->out, "%.1f,%.1f ", x_of(a, p->at_ns),
				y_of(a, (double)before->dirty_rate));
		fprintf(a->out, "%.1f,%.1f ", x_of(a, p->at_ns), y_of(a, (double)p->dirty_rate));
		before = p;
	}
	fputs("\"/>\n", a->out);
}

void chart_rates(FILE *out, const struct series *s)
{
	struct axes a;

	if (!make_axes(&a, out, s, highest_rate(s)))
		return;
	begin(&a, s, "rates over time", "/s");
	fputs("<polyline class=\"one\" points=\"", out);
	for (unsigned i = 0, to; i + 1 < s->npoints; i = to) {
		double y;

		to = next_far(s, i);
		y = y_of(&a, rate_between(&s->point[i], &s->point[to]));
		fprintf(out, "%.1f,%.1f %.1f,%.1f ", x_of(&a, s->point[i].at_ns), y,
			x_of(&a, s->point[to].at_ns), y);
	}
	fputs("\"/>\n", out);
	put_dirty(&a, s);
	fputs("</svg>\n", out);
}

/* -- a distribution --------------------------------------------------------------------- */

static void put_time(FILE *out, double us)
{
	if (us < 1000)
		fprintf(out, "%.3g us", us);
	else if (us < 1e6)
		fprintf(out, "%.3g ms", us / 1e3);
	else
		fprintf(out, "%.3g s", us / 1e6);
}

void chart_bars(FILE *out, const struct latency_bar *bar, unsigned n, const char *label)
{
	unsigned every = n / 9 + 1;
	double width, most = 0;

	for (unsigned i = 0; i < n; i++)
		most = fmax(most, (double)bar[i].count);
	if (!(most > 0))
		return;
	width = fmin(INNER_WIDTH / n, 60);
	fprintf(out, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">\n", WIDTH,
		HEIGHT, label);
	for (unsigned i = 0; i < n; i++) {
		double x = LEFT + i * width, height = (double)bar[i].count / most * INNER_HEIGHT;

		if (bar[i].count && height < 1)
			height = 1;
		fprintf(out,
			"<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\">"
			"<title>%llu up to ",
			x, TOP + INNER_HEIGHT - height, fmax(width - 2, 1), height,
			(unsigned long long)bar[i].count);
		put_time(out, bar[i].upto_us);
		fputs("</title></rect>\n", out);
		if (i % every)
			continue;
		x = fmin(x + width, WIDTH - 30);
		fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", x, HEIGHT - 8);
		put_time(out, bar[i].upto_us);
		fputs("</text>\n", out);
	}
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>\n</svg>\n",
		LEFT - 6, TOP + 4, most);
}
