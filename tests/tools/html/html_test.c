/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * html_test.c -- the report's parts: text that stays text, series that stay small, charts without a
 * number that is none. The page as a whole is in page.py.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tools/html.h"

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

/* -- text ------------------------------------------------------------------------------ */

static char *text;
static size_t text_len;

static FILE *begin(void)
{
	return open_memstream(&text, &text_len);
}

static void expect(FILE *out, const char *wanted)
{
	fclose(out);
	cr_expect_str_eq(text, wanted);
	free(text);
}

Test(html, text_stays_text)
{
	/* clang-format off */
	static const struct { const char *text, *html; } cases[] = {
		{"", ""},
		{"ofi:tcp, 2 channels", "ofi:tcp, 2 channels"},
		{"<script>alert(\"x\")</script>", "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;"},
		{"a & b's", "a &amp; b&#39;s"},
		{"&amp;", "&amp;amp;"},
		{"two\nlines\tand a tab", "two\nlines\tand a tab"},
		{"\033[2J\a\r\x01\x7f", "?[2J????"},
		{"gr\xc3\xbc\xc3\x9f, \xe2\x82\xac, \xf0\x9f\x90\xa7", "gr\xc3\xbc\xc3\x9f, \xe2\x82\xac, \xf0\x9f\x90\xa7"},
		{"\xff\xfe", "??"},
		{"\xc3", "?"},                    /* cut short */
		{"\xe2\x82", "??"},
		{"\xf0\x9f\x90", "???"},
		{"\xc0\xbc", "??"},               /* '<' in two bytes */
		{"\xe0\x80\xbc", "???"},
		{"\xed\xa0\x80", "???"},          /* half of a pair */
		{"\xf4\x90\x80\x80", "????"},     /* above all */
		{"\xc2\x9b" "2J", "??2J"},        /* CSI of C1 */
		{"\xc3<b>", "?&lt;b&gt;"},
	};
	/* clang-format on */

	for (size_t i = 0; i < LEN(cases); i++) {
		FILE *out = begin();

		html_text(out, cases[i].text);
		expect(out, cases[i].html);
	}
}

Test(html, data_does_not_end_its_element)
{
	FILE *out = begin();
	json_t *data = json_pack("{s:s}", "</script><!--", "&\xe2\x82\xac");

	html_data(out, data);
	expect(out, "<script type=\"application/json\" id=\"data\">"
		    "{\"\\u003c/script\\u003e\\u003c!--\":\"\\u0026\xe2\x82\xac\"}</script>\n");
	json_decref(data);
}

Test(html, leaves_have_paths)
{
	FILE *out = begin();
	json_t *data = json_pack("{s:{s:[i, {s:b}]}, s:n, s:s, s:f}", "a", "b", 1, "<", 1, "none",
				 "text", "x&y", "real", 0.25);

	html_leaves(out, data);
	expect(out, "<tr><th>a.b.0</th><td data-key=\"a.b.0\">1</td></tr>\n"
		    "<tr><th>a.b.1.&lt;</th><td data-key=\"a.b.1.&lt;\">true</td></tr>\n"
		    "<tr><th>none</th><td data-key=\"none\">null</td></tr>\n"
		    "<tr><th>text</th><td data-key=\"text\">x&amp;y</td></tr>\n"
		    "<tr><th>real</th><td data-key=\"real\">0.25</td></tr>\n");
	json_decref(data);
}

/* -- series ------------------------------------------------------------------------------- */

static void check_series(const struct series *s, uint64_t end_ns)
{
	cr_assert_leq(s->npoints, SERIES_POINTS);
	cr_assert_eq(s->point[0].at_ns, 0);
	cr_assert_eq(s->point[s->npoints - 1].at_ns, end_ns);
	for (unsigned i = 1; i < s->npoints; i++) {
		cr_assert_leq(s->point[i - 1].at_ns, s->point[i].at_ns);
		cr_assert_leq(s->point[i - 1].sent, s->point[i].sent);
	}
}

/* An hour is drawn with half as many points as there may be, or more, wherever it ends. */
Test(series, is_thinned_out_evenly)
{
	struct series *s = series_new();
	struct via_progress p = {.phase = VIA_PHASE_PRECOPY, .round = 1};

	for (unsigned i = 0; i <= 180000; i++) {
		uint64_t widest = 0;

		p.elapsed_ns = i * 20 * VIA_NS_PER_MS;
		p.sent = i;
		series_add(s, &p);
		if (i % 9973 || !i)
			continue;
		check_series(s, p.elapsed_ns);
		for (unsigned k = 1; k < s->npoints; k++)
			if (s->point[k].at_ns - s->point[k - 1].at_ns > widest)
				widest = s->point[k].at_ns - s->point[k - 1].at_ns;
		if (i > SERIES_POINTS) {
			cr_assert_geq(s->npoints, SERIES_POINTS / 4);
			cr_assert_leq(widest, 8 * p.elapsed_ns / SERIES_POINTS);
		}
	}
	series_free(s);
}

/* Rounds without end, and phases that come and go. */
Test(series, is_bounded_whatever_comes)
{
	struct series *s = series_new();
	struct via_progress p = {.round = 1};

	for (unsigned i = 0; i < 100000; i++) {
		p.phase = i % 2 ? VIA_PHASE_POSTCOPY : VIA_PHASE_PAUSED;
		p.round = i;
		p.elapsed_ns = i;
		series_add(s, &p);
	}
	check_series(s, 99999);
	cr_assert_eq(s->nspans, SERIES_SPANS);
	p.elapsed_ns = 5; /* a clock that goes back */
	series_add(s, &p);
	check_series(s, 99999);
	series_free(s);
}

Test(series, knows_phases_and_channels)
{
	struct via_channel_stats channel[2] = {{.kind = VIA_MAIN}, {.kind = VIA_MULTIFD}};
	struct series *s = series_new();
	struct via_progress p = {.phase = VIA_PHASE_PRECOPY, .elapsed_ns = 10};

	p.channel = channel;
	p.nchannels = 2;
	channel[1].bytes = 77;
	series_add(s, &p);
	p.phase = VIA_PHASE_SWITCHOVER;
	p.elapsed_ns = 30;
	p.steps.paused_ns = 20;
	series_add(s, &p);
	p.phase = VIA_PHASE_POSTCOPY;
	p.elapsed_ns = 50;
	p.steps.run_ns = 40;
	series_add(s, &p);
	p.phase = VIA_PHASE_PAUSED;
	p.elapsed_ns = 60;
	series_add(s, &p);
	p.phase = VIA_PHASE_POSTCOPY;
	p.elapsed_ns = 70;
	series_add(s, &p);
	p.phase = VIA_PHASE_DONE;
	p.channel = NULL;
	p.nchannels = 0;
	series_add(s, &p);
	cr_assert_eq(s->nspans, 6);
	cr_assert_eq(s->span[3].from_ns, 40, "it began when the guest ran there");
	cr_assert_eq(s->span[4].from_ns, 60);
	cr_assert_eq(s->span[5].from_ns, 70);
	cr_assert_eq(s->span[0].phase, VIA_PHASE_SETUP, "also if nobody tells");
	cr_assert_eq(s->span[1].phase, VIA_PHASE_PRECOPY);
	cr_assert_eq(s->span[1].from_ns, 10);
	cr_assert_eq(s->span[2].from_ns, 20, "it began when the guest was stopped");
	cr_assert_eq(s->nchannels, 2, "of the last time that there were any");
	cr_assert_eq(s->channel[1].bytes, 77);
	series_free(s);
}

/* -- charts ------------------------------------------------------------------------------------ */

static void draw(const struct series *s, uint64_t memory)
{
	FILE *out = begin();

	chart_remaining(out, s, memory);
	chart_rates(out, s);
	fclose(out);
	cr_expect_null(strstr(text, "nan"), "%.2000s", text);
	cr_expect_null(strstr(text, "inf"), "%.2000s", text);
	cr_expect_null(strstr(text, "=\"-"), "a negative number: %.2000s", text);
	free(text);
}

Test(chart, of_anything)
{
	static const uint64_t values[] = {0, 1, 4096, UINT64_C(1) << 40, UINT64_MAX};
	struct series *s = series_new();

	draw(s, 0);
	draw(s, 4096);
	for (size_t i = 0; i < LEN(values); i++)
		for (size_t k = 0; k < LEN(values); k++) {
			memset(s, 0, sizeof(*s));
			for (unsigned n = 0; n < 3; n++) {
				struct via_progress p = {.phase = VIA_PHASE_PRECOPY + n % 2,
							 .elapsed_ns = values[i] / 3 * n,
							 .remaining = values[k],
							 .sent = values[k] / 3 * n,
							 .dirty_rate = values[k]};

				series_add(s, &p);
				draw(s, values[k]);
				draw(s, 1);
			}
		}
	series_free(s);
}

Test(chart, bars)
{
	static const struct latency_bar bar[] = {{0.5, 0}, {1, UINT64_MAX}, {2e9, 1}};
	FILE *out = begin();

	chart_bars(out, bar, LEN(bar), "x");
	chart_bars(out, bar, 1, "nothing");
	fclose(out);
	cr_expect_null(strstr(text, "nan"));
	cr_expect_null(strstr(text, "nothing"));
	cr_expect_not_null(strstr(text, "18446744073709551615 up to 1 us"));
	free(text);
}

/* -- the histogram, from one side to the other ------------------------------------------------- */

Test(bars, of_a_histogram)
{
	struct latency_bar bar[LATENCY_BARS];
	struct via_hist h;
	uint64_t sum = 0;
	unsigned n;

	via_hist_init(&h);
	cr_assert_eq(report_bars(&h, bar), 0);
	via_hist_add(&h, 1023);
	via_hist_add(&h, 1024);
	via_hist_add(&h, 1535);
	via_hist_add(&h, 1536);
	n = report_bars(&h, bar);
	cr_assert_eq(n, 3);
	cr_assert_eq(bar[0].upto_us, 1.024);
	cr_assert_eq(bar[0].count, 1);
	cr_assert_eq(bar[1].upto_us, 1.536);
	cr_assert_eq(bar[1].count, 2);
	cr_assert_eq(bar[2].upto_us, 2.048);
	/* More than there is room for: no sample is left out. */
	via_hist_add(&h, 0);
	via_hist_add(&h, UINT64_MAX);
	n = report_bars(&h, bar);
	cr_assert_eq(n, LATENCY_BARS);
	for (unsigned i = 0; i < n; i++)
		sum += bar[i].count;
	cr_assert_eq(sum, 6);
}

Test(bars, pass_to_the_source)
{
	struct run_result r = {.migrate.postcopy.used = true}, taken = {0};
	struct via_error err = {0};
	size_t len;
	char *report;

	r.seen.nbars = 2;
	r.seen.bar[0] = (struct latency_bar){.upto_us = 1.5, .count = 3};
	r.seen.bar[1] = (struct latency_bar){.upto_us = 2, .count = 0};
	report = report_encode(&r, &len);
	cr_assert_eq(report_decode(report, len, &taken, &err), 0, "%s", report);
	cr_assert_eq(memcmp(&taken.seen, &r.seen, sizeof(r.seen)), 0);
	free(report);
}

#define Q "{\"p50\":1,\"p90\":2,\"p99\":3,\"p999\":4,\"max\":5}"
#define WITH_BARS(bars)                                                                            \
	"{\"verify\":{\"pages\":9,\"missing\":0,\"stale\":0,\"torn\":0},\"cpu_s\":0.5,"            \
	"\"postcopy\":{\"faults\":1,\"duplicate_pages\":0,\"latency_us\":" Q ",\"request_us\":" Q  \
	",\"install_us\":" Q ",\"latency_histogram_us\":" bars "}}"

Test(bars, malformed)
{
	static const char *const wrong[] = {
		WITH_BARS("null"),          WITH_BARS("{}"),
		WITH_BARS("[1]"),           WITH_BARS("[[1]]"),
		WITH_BARS("[[1,-1]]"),      WITH_BARS("[[0,1]]"),
		WITH_BARS("[[2,1],[2,1]]"), WITH_BARS("[[2,1],[1,1]]"),
		WITH_BARS("[[1,0.5]]"),
	};
	struct run_result r = {0};
	struct via_error err = {0};
	char *many = malloc(4096);
	size_t len = 0;

	cr_assert_eq(report_decode(WITH_BARS("[[1,2]]"), strlen(WITH_BARS("[[1,2]]")), &r, &err),
		     0);
	for (size_t i = 0; i < LEN(wrong); i++)
		cr_expect_eq(report_decode(wrong[i], strlen(wrong[i]), &r, &err), -EPROTO, "%s",
			     wrong[i]);
	for (unsigned i = 0; i <= LATENCY_BARS; i++)
		len += (size_t)snprintf(many + len, 4096 - len, "%s[%u,1]", i ? "," : "", i + 1);
	text_len = (size_t)asprintf(&text, WITH_BARS("[%s]"), many);
	cr_expect_eq(report_decode(text, text_len, &r, &err), -EPROTO, "too many");
	free(text);
	free(many);
}
