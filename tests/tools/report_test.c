/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report_test.c -- what is told at the end: the destination's report as bytes, whatever
 * a peer makes of them, and the words for where the guest is.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <criterion/redirect.h>
#include <stdlib.h>
#include <string.h>

#include "tools/run.h"

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

static const struct postcopy_seen seen = {
	.faults = 1234,
	.duplicate_pages = 5,
	.latency = {.p50 = 61.5, .p90 = 88, .p99 = 120.25, .p999 = 1000.125, .max = 2345.678},
	.request = {.p50 = 40, .p90 = 40, .p99 = 40, .p999 = 40, .max = 40},
	.install = {.p50 = 0, .p90 = 0.1, .p99 = 1.0 / 3, .p999 = 3, .max = 1e9},
};

static const struct demo_verify verify = {.pages = 100, .missing = 1, .stale = 2, .torn = 97};

/* @r's report, as the source takes it. */
static void pass(const struct run_result *r, struct run_result *taken)
{
	struct via_error err = {0};
	size_t len;
	char *report = report_encode(r, &len);

	cr_assert_not_null(report);
	memset(taken, 0, sizeof(*taken));
	cr_assert_eq(report_decode(report, len, taken, &err), 0, "%.*s", (int)len, report);
	cr_assert(taken->verified);
	cr_assert_eq(taken->cpu_destination, r->cpu_destination);
	cr_assert_eq(memcmp(&taken->verify, &r->verify, sizeof(r->verify)), 0);
	free(report);
}

Test(report, without_postcopy)
{
	static const struct postcopy_seen nothing;
	struct run_result r = {.verify = verify, .cpu_destination = 0.1}, taken;

	r.seen = seen; /* does not count */
	pass(&r, &taken);
	cr_assert_eq(memcmp(&taken.seen, &nothing, sizeof(nothing)), 0);
}

/* Each number comes through as it was, fractions too. */
Test(report, with_postcopy)
{
	struct run_result r = {.verify = verify, .seen = seen, .cpu_destination = 12}, taken;

	r.migrate.postcopy.used = true;
	pass(&r, &taken);
	cr_assert_eq(memcmp(&taken.seen, &seen, sizeof(seen)), 0);
	memset(&r.seen, 0, sizeof(r.seen));
	memset(&r.verify, 0, sizeof(r.verify));
	r.cpu_destination = 0;
	pass(&r, &taken);
	cr_assert_eq(memcmp(&taken.seen, &r.seen, sizeof(seen)), 0);
}

Test(report, quantiles_of_a_histogram)
{
	struct quantiles q;
	struct via_hist h;

	via_hist_init(&h);
	report_quantiles(&h, &q);
	cr_assert(q.p50 == 0 && q.p90 == 0 && q.p99 == 0 && q.p999 == 0 && q.max == 0);
	for (unsigned i = 1; i <= 10000; i++)
		via_hist_add(&h, 1000 * i);
	report_quantiles(&h, &q);
	cr_assert_float_eq(q.p50, 5000, 5000 * 0.032);
	cr_assert_float_eq(q.p90, 9000, 9000 * 0.032);
	cr_assert_float_eq(q.p99, 9900, 9900 * 0.032);
	cr_assert_float_eq(q.p999, 9990, 9990 * 0.032);
	cr_assert(q.p999 <= q.max && q.max == 10000);
}

/* -- reports that are none ---------------------------------------------------------- */

/* Refused, and nothing of it is kept. */
static void refused(const char *report, size_t len)
{
	struct run_result r = {.verify = {.pages = 4711}, .cpu_destination = 8}, before = r;
	struct via_error err = {0};
	char *exact = malloc(len ? len : 1); /* so that a read past the end is seen */

	memcpy(exact, report, len);
	cr_expect_eq(report_decode(exact, len, &r, &err), -EPROTO, "taken: %.*s", (int)len, report);
	cr_expect_eq(err.code, -EPROTO);
	cr_expect(err.what[0] && err.remedy[0]);
	cr_expect_eq(memcmp(&r, &before, sizeof(r)), 0, "left something: %.*s", (int)len, report);
	free(exact);
}

Test(report, cut_short_or_with_more)
{
	struct run_result r = {.verify = verify, .seen = seen};
	char longer[2048];
	size_t len;
	char *report;

	r.migrate.postcopy.used = true;
	report = report_encode(&r, &len);
	for (size_t i = 0; i < len; i++)
		refused(report, i);
	for (unsigned i = 0; i < 3; i++) {
		int n = snprintf(longer, sizeof(longer), "%s%c", report, "}x"[i % 2]);

		longer[n - 1] = i == 2 ? '\0' : longer[n - 1];
		refused(longer, (size_t)n);
	}
	free(report);
}

#define VERIFY           "\"verify\":{\"pages\":9,\"missing\":0,\"stale\":0,\"torn\":0}"
#define CPU              "\"cpu_s\":0.5"
#define Q                "{\"p50\":1,\"p90\":2,\"p99\":3,\"p999\":4,\"max\":5}"
#define COUNTS           "\"faults\":1,\"duplicate_pages\":0"
#define LATENCY          "\"latency_us\":" Q
#define REQUEST          "\"request_us\":" Q
#define INSTALL          "\"install_us\":" Q
#define POSTCOPY(inside) "{" VERIFY "," CPU ",\"postcopy\":" inside "}"

static const char good[] = POSTCOPY("{" COUNTS "," LATENCY "," REQUEST "," INSTALL "}");

/* clang-format off */
static const char *const malformed[] = {
	"", " ", "null", "[]", "{}", "1", "\"verify\"", "{", "\xff\xfe", "{\"verify\":\"\xff\"}",
	"{" VERIFY "," CPU "}",
	"{" VERIFY ",\"postcopy\":null}",
	"{" CPU ",\"postcopy\":null}",
	"{" VERIFY "," VERIFY "," CPU ",\"postcopy\":null}",
	"{" VERIFY ",\"cpu_s\":-1,\"postcopy\":null}",
	"{" VERIFY ",\"cpu_s\":\"1\",\"postcopy\":null}",
	"{" VERIFY ",\"cpu_s\":1e999,\"postcopy\":null}",
	"{" VERIFY ",\"cpu_s\":NaN,\"postcopy\":null}",
	"{\"verify\":null," CPU ",\"postcopy\":null}",
	"{\"verify\":{\"pages\":9,\"missing\":0,\"stale\":0}," CPU ",\"postcopy\":null}",
	"{\"verify\":{\"pages\":9,\"missing\":0.5,\"stale\":0,\"torn\":0}," CPU ",\"postcopy\":null}",
	"{\"verify\":{\"pages\":-9,\"missing\":0,\"stale\":0,\"torn\":0}," CPU ",\"postcopy\":null}",
	"{\"verify\":{\"pages\":9,\"missing\":-1,\"stale\":0,\"torn\":0}," CPU ",\"postcopy\":null}",
	"{\"verify\":{\"pages\":9,\"missing\":4,\"stale\":4,\"torn\":2}," CPU ",\"postcopy\":null}",
	"{\"verify\":{\"pages\":9223372036854775808,\"missing\":0,\"stale\":0,\"torn\":0}," CPU ",\"postcopy\":null}",
	"{\"verify\":{\"pages\":9,\"missing\":9223372036854775807,\"stale\":9223372036854775807,\"torn\":2}," CPU
		",\"postcopy\":null}",
	POSTCOPY("true"),
	POSTCOPY("[]"),
	POSTCOPY("{}"),
	POSTCOPY("{" COUNTS "," LATENCY "," REQUEST "}"),
	POSTCOPY("{" COUNTS "," LATENCY "," REQUEST "," LATENCY "}"),
	POSTCOPY("{\"faults\":1," LATENCY "," REQUEST "," INSTALL "}"),
	POSTCOPY("{\"faults\":-1,\"duplicate_pages\":0," LATENCY "," REQUEST "," INSTALL "}"),
	POSTCOPY("{\"faults\":1,\"duplicate_pages\":-1," LATENCY "," REQUEST "," INSTALL "}"),
	POSTCOPY("{\"faults\":1.5,\"duplicate_pages\":0," LATENCY "," REQUEST "," INSTALL "}"),
	POSTCOPY("{" COUNTS ",\"latency_us\":null," REQUEST "," INSTALL "}"),
	POSTCOPY("{" COUNTS ",\"latency_us\":{\"p50\":1,\"p90\":2,\"p99\":3,\"p999\":4}," REQUEST "," INSTALL "}"),
	POSTCOPY("{" COUNTS "," LATENCY ",\"request_us\":{\"p50\":-1,\"p90\":2,\"p99\":3,\"p999\":4,\"max\":5}," INSTALL "}"),
	POSTCOPY("{" COUNTS "," LATENCY ",\"request_us\":{\"p50\":3,\"p90\":2,\"p99\":3,\"p999\":4,\"max\":5}," INSTALL "}"),
	POSTCOPY("{" COUNTS "," LATENCY ",\"request_us\":{\"p50\":1,\"p90\":4,\"p99\":3,\"p999\":4,\"max\":5}," INSTALL "}"),
	POSTCOPY("{" COUNTS "," LATENCY "," REQUEST ",\"install_us\":{\"p50\":1,\"p90\":2,\"p99\":5,\"p999\":4,\"max\":5}}"),
	POSTCOPY("{" COUNTS "," LATENCY "," REQUEST ",\"install_us\":{\"p50\":1,\"p90\":2,\"p99\":3,\"p999\":6,\"max\":5}}"),
	POSTCOPY("{" COUNTS "," LATENCY "," REQUEST ",\"install_us\":{\"p50\":1,\"p90\":2,\"p99\":3,\"p999\":4,\"max\":\"5\"}}"),
};
/* clang-format on */

Test(report, malformed)
{
	struct run_result r = {0};

	cr_assert_eq(report_decode(good, sizeof(good) - 1, &r, NULL), 0, "the model of them");
	cr_assert(r.seen.faults == 1 && r.seen.install.max == 5);
	for (size_t i = 0; i < LEN(malformed); i++)
		refused(malformed[i], strlen(malformed[i]));
}

/* Deeper than any parser should follow. */
Test(report, nested_without_end)
{
	size_t len = 1 << 20;
	char *deep = malloc(len);

	memset(deep, '[', len);
	refused(deep, len);
	free(deep);
}

/* -- words ------------------------------------------------------------------------------ */

static const struct {
	enum via_outcome outcome;
	bool postcopy, source;
	const char *says[2]; /* on stdout */
} endings[] = {
	{VIA_ABORTED, false, true, {"migration aborted: ", "the guest runs on at the source"}},
	{VIA_ABORTED, false, false, {"no guest has come", "none is lost"}},
	{VIA_PAUSED, false, true, {"migration paused: ", "paused here and may run"}},
	{VIA_PAUSED, true, true, {"migration paused: ", "which lacks pages"}},
	{VIA_PAUSED, true, false, {"migration paused: ", "the guest here lacks pages"}},
	{VIA_LOST, true, true, {"migration lost: ", "start it again from its disk"}},
	{VIA_COMPLETED, true, true, {"1234 faults; a vCPU waited p50 62 us", "7 recoveries"}},
	{VIA_COMPLETED, true, false, {"migration completed: ", "1234 faults"}},
};

static int ending_numbers[] = {0, 1, 2, 3, 4, 5, 6, 7};

ParameterizedTestParameters(report, says_where_the_guest_is)
{
	return cr_make_param_array(int, ending_numbers, LEN(endings));
}

ParameterizedTest(int *i, report, says_where_the_guest_is, .init = cr_redirect_stdout)
{
	struct settings settings = {.downtime_ns = 1};
	struct run_result r = {.seen = seen};
	char text[4096] = {0};
	FILE *out;

	r.migrate.outcome = endings[*i].outcome;
	r.migrate.postcopy.used = endings[*i].postcopy;
	r.migrate.postcopy.recoveries = 7;
	report_print(&settings, &r, endings[*i].source);
	out = cr_get_redirected_stdout();
	cr_assert_gt(fread(text, 1, sizeof(text) - 1, out), 0);
	for (unsigned k = 0; k < 2; k++)
		cr_expect(strstr(text, endings[*i].says[k]), "not said: %s\n%s",
			  endings[*i].says[k], text);
}

Test(report, one_is_no_plural, .init = cr_redirect_stdout)
{
	static const char *const said[] = {
		"1 multifd channel,", "1 round: 1 page, and 1 zero page;",
		"1 epoch drained",    "1 fault;",
		"1 recovery\n",       "1 page came without",
		"1 page: 0 missing"};
	struct settings settings = {.downtime_ns = 1};
	struct run_result r = {.memory = 4096, .verify.pages = 1, .verified = true};
	char text[4096] = {0};
	FILE *out;

	r.migrate = (struct via_migrate_result){
		.outcome = VIA_COMPLETED, .rounds = 1, .pages_sent = 1, .zero_pages = 1};
	r.migrate.session.multifd = 1;
	r.migrate.session.epochs = 1;
	r.migrate.postcopy.used = true;
	r.migrate.postcopy.bulk_pages = 1;
	r.migrate.postcopy.recoveries = 1;
	r.seen.faults = 1;
	report_print(&settings, &r, true);
	out = cr_get_redirected_stdout();
	cr_assert_gt(fread(text, 1, sizeof(text) - 1, out), 0);
	for (size_t i = 0; i < LEN(said); i++)
		cr_expect(strstr(text, said[i]), "not said: %s\n%s", said[i], text);
}
