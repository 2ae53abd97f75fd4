/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qmp_test.c -- the QMP client against a QEMU that is polite, late, confused or gone.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "relay/qmp.h"
#include "tests/relay/fake_qmp.h"

#define PATIENCE_NS (20 * VIA_NS_PER_S)
#define SOON_NS     (20 * VIA_NS_PER_MS)

static struct via_wait wait_ns(uint64_t ns)
{
	return (struct via_wait){.deadline_ns = via_deadline_in(ns), .cancel_fd = -1};
}

static struct relay_qmp *open_qmp(struct fake_qmp *f)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0};
	struct relay_qmp *q = NULL;

	cr_assert_eq(relay_qmp_open(f->path, &wait, &q, &err), 0, "%s", err.seen);
	return q;
}

static int execute(struct relay_qmp *q, const char *command, json_t **result, struct via_error *err)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);

	return relay_qmp_execute(q, command, NULL, false, &wait, result, err);
}

static void expect_event(struct relay_qmp *q, const char *name)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	json_t *event = NULL;

	cr_assert_eq(relay_qmp_event(q, &wait, &event, NULL), 0);
	cr_assert_str_eq(json_string_value(json_object_get(event, "event")), name);
	json_decref(event);
}

/* -- answers ------------------------------------------------------------------------- */

Test(qmp, answers_and_arguments)
{
	static const struct act script[] = {
		BEGIN_OOB,
		{HEAR, "query-status"},
		{SAY, "{\"return\": {\"status\": \"running\"}, \"id\": @ID}\r\n"},
		{HEAR, "migrate-set-parameters"},
		{SAY, DONE},
		{END, NULL},
	};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	json_t *result = NULL;
	struct fake_qmp f;
	struct relay_qmp *q;

	fake_qmp_start(&f, script);
	q = open_qmp(&f);
	cr_assert_eq(execute(q, "query-status", &result, NULL), 0);
	cr_assert_str_eq(json_string_value(json_object_get(result, "status")), "running");
	json_decref(result);
	cr_assert_eq(relay_qmp_execute(q, "migrate-set-parameters",
				       json_pack("{s:i}", "downtime-limit", 20), false, &wait, NULL,
				       NULL),
		     0);
	relay_qmp_close(q);
	fake_qmp_join(&f);
	cr_assert(strstr(f.heard, "\"arguments\":{\"downtime-limit\":20}"), "%s", f.heard);
}

/* Out of band is asked for where QEMU has it, and enabled first. */
Test(qmp, out_of_band)
{
	static const struct act with[] = {
		{SAY, GREETING_OOB}, {HEAR, "qmp_capabilities"},
		{SAY, DONE},         {HEAR, "oob migrate-pause"},
		{SAY, DONE},         {END, NULL},
	};
	static const struct act without[] = {
		{SAY, GREETING}, {HEAR, "qmp_capabilities"},
		{SAY, DONE},     {HEAR, "migrate-pause"},
		{SAY, DONE},     {END, NULL},
	};
	struct via_wait wait = wait_ns(PATIENCE_NS);

	for (unsigned i = 0; i < 2; i++) {
		struct fake_qmp f;
		struct relay_qmp *q;

		fake_qmp_start(&f, i ? with : without);
		q = open_qmp(&f);
		cr_assert_eq(!!strstr(f.heard, "\"enable\":[\"oob\"]"), i, "%s", f.heard);
		cr_assert_eq(relay_qmp_execute(q, "migrate-pause", NULL, true, &wait, NULL, NULL),
			     0);
		relay_qmp_close(q);
		fake_qmp_join(&f);
	}
}

Test(qmp, in_pieces_and_on_many_lines)
{
	static const struct act script[] = {
		{DRIP, "{\n    \"QMP\": {\n        \"version\": {},\r\n\r\n        "
		       "\"capabilities\": [\n \"oob\"\n]\n    }\n}\n"},
		{HEAR, "qmp_capabilities"},
		{DRIP, "\r\n{\"return\":\n{}, \"id\":\n@ID\n}\n"},
		{HEAR, "a"},
		/* two messages and a half in one piece, the rest in the next */
		{SAY, "{\"event\": \"X\"}\r\n{\"return\": 1, \"id\": @ID}\r\n{\"event\": \"\xc3"},
		{HEAR, "b"},
		{DRIP, "\xa9\"}\n{\"return\": 2, \"id\": @ID}\n"},
		{END, NULL},
	};
	json_t *result = NULL;
	struct fake_qmp f;
	struct relay_qmp *q;

	fake_qmp_start(&f, script);
	q = open_qmp(&f);
	cr_assert_eq(execute(q, "a", &result, NULL), 0);
	cr_assert_eq(json_integer_value(result), 1);
	json_decref(result);
	cr_assert_eq(execute(q, "b", &result, NULL), 0);
	cr_assert_eq(json_integer_value(result), 2);
	json_decref(result);
	expect_event(q, "X");
	expect_event(q, "\xc3\xa9");
	relay_qmp_close(q);
	fake_qmp_join(&f);
}

Test(qmp, refusals_are_in_qemus_words)
{
	static const struct act script[] = {
		BEGIN_OOB,
		{HEAR, "migrate-recover"},
		{SAY, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Migrate recover can "
		      "only be run when postcopy is paused.\"}, \"id\": @ID}\r\n"},
		{HEAR, "x-new"},
		{SAY, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command x-new "
		      "has not been found\"}, \"id\": @ID}\r\n"},
		{HEAR, "no-id"}, /* what QEMU could not even parse is answered without an id */
		{SAY,
		 "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n"},
		{HEAR, "odd"},
		{SAY, "{\"error\": 5, \"id\": @ID}\n"},
		{HEAR, "works"},
		{SAY, DONE},
		{END, NULL},
	};
	struct via_error err[4] = {{0}};
	struct fake_qmp f;
	struct relay_qmp *q;

	fake_qmp_start(&f, script);
	q = open_qmp(&f);
	cr_assert_eq(execute(q, "migrate-recover", NULL, &err[0]), -EINVAL);
	cr_assert(strstr(err[0].what, "migrate-recover"));
	cr_assert(strstr(err[0].what, f.path));
	cr_assert(strstr(err[0].seen, "when postcopy is paused."));
	cr_assert_eq(execute(q, "x-new", NULL, &err[1]), -EOPNOTSUPP);
	cr_assert(strstr(err[1].seen, "has not been found"));
	cr_assert_eq(execute(q, "no-id", NULL, &err[2]), -EINVAL);
	cr_assert_str_eq(err[2].seen, "JSON parse error");
	cr_assert_eq(execute(q, "odd", NULL, &err[3]), -EINVAL);
	cr_assert_eq(execute(q, "works", NULL, NULL), 0);
	relay_qmp_close(q);
	fake_qmp_join(&f);
}

/* -- events -------------------------------------------------------------------------- */

Test(qmp, events_between_answers_are_kept_in_order)
{
	static const struct act script[] = {
		{SAY, GREETING_OOB},
		{HEAR, "qmp_capabilities"},
		{SAY, "{\"event\": \"A\"}\r\n" DONE "{\"event\": \"B\"}\r\n"},
		{HEAR, "stop"},
		{SAY, "{\"event\": \"C\"}\r\n{\"event\": \"D\"}\r\n" DONE},
		{GO, NULL},
		{SAY, "{\"event\": \"E\"}\r\n"},
		{END, NULL},
	};
	struct via_wait wait = wait_ns(SOON_NS);
	json_t *event = NULL;
	struct fake_qmp f;
	struct relay_qmp *q;

	fake_qmp_start(&f, script);
	q = open_qmp(&f);
	cr_assert_eq(execute(q, "stop", NULL, NULL), 0);
	expect_event(q, "A");
	expect_event(q, "B");
	expect_event(q, "C");
	expect_event(q, "D");
	cr_assert_eq(relay_qmp_event(q, &wait, &event, NULL), -ETIMEDOUT);
	cr_assert_null(event, "written on success only");
	fake_qmp_go(&f);
	expect_event(q, "E");
	relay_qmp_close(q);
	fake_qmp_join(&f);
}

Test(qmp, of_too_many_events_the_oldest_go)
{
	static char events[4000];
	static const struct act script[] = {
		BEGIN_OOB, {HEAR, "a"}, {SAY, events}, {HEAR, "b"}, {SAY, DONE}, {END, NULL},
	};
	size_t len = 0;
	char name[8];
	struct fake_qmp f;
	struct relay_qmp *q;

	for (unsigned i = 0; i < RELAY_QMP_EVENTS_MAX + 6; i++)
		len += (size_t)snprintf(events + len, sizeof(events) - len,
					"{\"event\": \"E%u\"}\r\n", i);
	snprintf(events + len, sizeof(events) - len, DONE);
	fake_qmp_start(&f, script);
	q = open_qmp(&f);
	cr_assert_eq(execute(q, "a", NULL, NULL), 0);
	for (unsigned i = 6; i < RELAY_QMP_EVENTS_MAX; i++) {
		snprintf(name, sizeof(name), "E%u", i);
		expect_event(q, name);
	}
	cr_assert_eq(execute(q, "b", NULL, NULL), 0);
	relay_qmp_close(q); /* with six that nobody wanted */
	fake_qmp_join(&f);
}

/* -- silence --------------------------------------------------------------------------- */

Test(qmp, a_late_answer_is_not_the_next_ones)
{
	static const struct act script[] = {
		BEGIN_OOB,
		{HEAR, "slow"},
		{GO, NULL},
		{SAY, "{\"return\": \"slow\", \"id\": @ID}\r\n{\"event\": \"X\"}\r\n"},
		{HEAR, "fast"},
		{SAY, "{\"return\": \"fast\", \"id\": @ID}\r\n"},
		{END, NULL},
	};
	struct via_wait wait = wait_ns(SOON_NS);
	struct via_error err = {0};
	json_t *result = NULL;
	struct fake_qmp f;
	struct relay_qmp *q;

	fake_qmp_start(&f, script);
	q = open_qmp(&f);
	cr_assert_eq(relay_qmp_execute(q, "slow", NULL, false, &wait, &result, &err), -ETIMEDOUT);
	cr_assert_null(result);
	cr_assert(strstr(err.what, f.path));
	fake_qmp_go(&f);
	cr_assert_eq(execute(q, "fast", &result, NULL), 0);
	cr_assert_str_eq(json_string_value(result), "fast");
	json_decref(result);
	expect_event(q, "X");
	relay_qmp_close(q);
	fake_qmp_join(&f);
}

Test(qmp, canceled)
{
	static const struct act script[] = {
		BEGIN_OOB,   {HEAR, "oob slow"}, {GO, NULL},  {SAY, DONE},
		{HEAR, "b"}, {SAY, DONE},        {END, NULL},
	};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct fake_qmp f;
	struct relay_qmp *q;

	fake_qmp_start(&f, script);
	q = open_qmp(&f);
	wait.cancel_fd = eventfd(1, EFD_CLOEXEC);
	cr_assert_eq(relay_qmp_execute(q, "slow", json_object(), true, &wait, NULL, NULL),
		     -ECANCELED);
	close(wait.cancel_fd);
	fake_qmp_go(&f);
	cr_assert_eq(execute(q, "b", NULL, NULL), 0);
	relay_qmp_close(q);
	fake_qmp_join(&f);
}

/* -- a bad end --------------------------------------------------------------------------- */

struct bad {
	struct act script[8];
	int code;
	const char *seen;
};

static const struct bad bad_greetings[] = {
	{{{HANG_UP, NULL}}, -ECONNRESET, "closed"},
	{{{SAY, "{\"QMP\": {\"vers"}, {HANG_UP, NULL}}, -ECONNRESET, "closed"},
	{{{SAY, "SSH-2.0-OpenSSH_9.2\r\n"}, {END, NULL}}, -EPROTO, "'[' or '{' expected"},
	{{{SAY, "[]\n"}, {END, NULL}}, -EPROTO, "greeting"},
	{{{SAY, "{\"event\": \"STOP\"}\n"}, {END, NULL}}, -EPROTO, "greeting"},
	{{{SAY, "{\"QMP\": 7}\n"}, {END, NULL}}, -EPROTO, "greeting"},
	{{{SAY, "{\"QMP\": {}, \"QMP\": {}}\n"}, {END, NULL}}, -EPROTO, "duplicate"},
	{{{SAY, GREETING}, {HEAR, "qmp_capabilities"}, {HANG_UP, NULL}}, -ECONNRESET, "closed"},
	{{{SAY, GREETING}, {HEAR, "qmp_capabilities"}, {SAY, "{}\n"}, {END, NULL}},
	 -EPROTO,
	 "neither"},
};

Test(qmp, bad_greetings)
{
	for (size_t i = 0; i < sizeof(bad_greetings) / sizeof(bad_greetings[0]); i++) {
		const struct bad *b = &bad_greetings[i];
		struct via_wait wait = wait_ns(PATIENCE_NS);
		struct via_error err = {0};
		struct relay_qmp *q;
		struct fake_qmp f;

		fake_qmp_start(&f, b->script);
		cr_assert_eq(relay_qmp_open(f.path, &wait, &q, &err), b->code, "case %zu: %s", i,
			     err.seen);
		cr_assert(strstr(err.seen, b->seen), "case %zu: %s", i, err.seen);
		cr_assert(strstr(err.what, f.path));
		cr_assert(err.remedy[0]);
		fake_qmp_join(&f);
	}
}

static const struct bad bad_answers[] = {
	{{BEGIN_OOB, {HEAR, "a"}, {HANG_UP, NULL}}, -ECONNRESET, "closed"},
	{{BEGIN_OOB, {HEAR, "a"}, {SAY, "what?\n"}, {END, NULL}}, -EPROTO, "expected"},
	{{BEGIN_OOB, {HEAR, "a"}, {SAY, "{\"ret\": 1}\n"}, {END, NULL}}, -EPROTO, "neither"},
};

/* The first error stays, whatever is tried afterwards. */
Test(qmp, bad_answers)
{
	for (size_t i = 0; i < sizeof(bad_answers) / sizeof(bad_answers[0]); i++) {
		const struct bad *b = &bad_answers[i];
		struct via_wait wait = wait_ns(PATIENCE_NS);
		struct via_error err = {0}, again = {0};
		struct fake_qmp f;
		struct relay_qmp *q;
		json_t *event;

		fake_qmp_start(&f, b->script);
		q = open_qmp(&f);
		cr_assert_eq(execute(q, "a", NULL, &err), b->code, "case %zu", i);
		cr_assert(strstr(err.seen, b->seen), "case %zu: %s", i, err.seen);
		cr_assert_eq(relay_qmp_execute(q, "b", json_object(), false, &wait, NULL, &again),
			     b->code);
		cr_assert_str_eq(again.seen, err.seen);
		cr_assert_eq(relay_qmp_event(q, &wait, &event, NULL), b->code);
		relay_qmp_close(q);
		fake_qmp_join(&f);
	}
}

Test(qmp, a_message_that_does_not_end)
{
	static char part[4001];
	static struct act script[RELAY_QMP_MESSAGE_MAX / 4000 + 3] = {{SAY, "{\"QMP\": \""}};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0};
	struct relay_qmp *q;
	struct fake_qmp f;

	memset(part, 'x', 4000);
	for (size_t i = 1; i < sizeof(script) / sizeof(script[0]); i++)
		script[i] = (struct act){SAY, part};
	script[sizeof(script) / sizeof(script[0]) - 1] = (struct act){HANG_UP, NULL};
	fake_qmp_start(&f, script);
	cr_assert_eq(relay_qmp_open(f.path, &wait, &q, &err), -EPROTO, "%s", err.seen);
	cr_assert_str_eq(err.seen, "a message that does not end");
	pthread_join(f.thread, NULL);
	f.wrong[0] = '\0'; /* it may find the client gone */
	fake_qmp_clean(&f);
}

/* -- nobody there ------------------------------------------------------------------------ */

Test(qmp, a_qemu_that_says_nothing)
{
	static const struct act script[] = {{END, NULL}};
	struct via_wait wait = wait_ns(SOON_NS);
	struct via_error err = {0};
	struct relay_qmp *q;
	struct fake_qmp f;

	fake_qmp_start(&f, script);
	cr_assert_eq(relay_qmp_open(f.path, &wait, &q, &err), -ETIMEDOUT);
	cr_assert(strstr(err.remedy, "another client"));
	fake_qmp_join(&f);
}

Test(qmp, nobody_listens)
{
	static const struct act script[] = {{END, NULL}};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0}, gone = {0}, long_path = {0};
	char path[200];
	struct relay_qmp *q;
	struct fake_qmp f;

	fake_qmp_start(&f, script);
	relay_qmp_close(NULL);
	snprintf(path, sizeof(path), "%s-not", f.path);
	cr_assert_eq(relay_qmp_open(path, &wait, &q, &err), -ENOENT);
	cr_assert(strstr(err.what, path));
	cr_assert(strstr(err.remedy, "-qmp unix:"));

	memset(path, 'p', 108);
	path[108] = '\0';
	cr_assert_eq(relay_qmp_open(path, &wait, &q, &long_path), -EINVAL);
	cr_assert(strstr(long_path.seen, "107"));

	/* The socket is there, and its listener is not. */
	snprintf(path, sizeof(path), "%s", f.path);
	wait = wait_ns(SOON_NS);
	cr_assert_eq(relay_qmp_open(path, &wait, &q, NULL), -ETIMEDOUT);
	pthread_join(f.thread, NULL);
	close(f.listen_fd);
	f.listen_fd = -1;
	cr_assert_eq(relay_qmp_open(path, &wait, &q, &gone), -ECONNREFUSED);
	fake_qmp_clean(&f);
}

/* -- what a source is set to ----------------------------------------------------------------- */

#define CAPABILITIES(MULTIFD, PREEMPT)                                                             \
	"{\"return\": [{\"capability\": \"xbzrle\", \"state\": true}, {\"capability\": "           \
	"\"multifd\", \"state\": " MULTIFD                                                         \
	"}, {\"capability\": \"postcopy-preempt\", \"state\": " PREEMPT "}], \"id\": @ID}\r\n"
#define PARAMETERS(CHANNELS, TLS)                                                                  \
	"{\"return\": {\"multifd-channels\": " CHANNELS ", \"tls-creds\": \"" TLS                  \
	"\", \"multifd-compression\": \"zstd\"}, \"id\": @ID}\r\n"
#define MACHINE(TYPE) "{\"return\": \"" TYPE "-machine\", \"id\": @ID}\r\n"

struct asked {
	const char *capabilities, *parameters, *machine;
	struct relay_expected expected;
	uint16_t on; /* of the facts */
};

#define XBZRLE  (1 << RELAY_CAP_XBZRLE)
#define MULTIFD (1 << RELAY_CAP_MULTIFD)
#define PREEMPT (1 << RELAY_CAP_POSTCOPY_PREEMPT)

static const struct asked asked[] = {
	{CAPABILITIES("false", "false"),
	 PARAMETERS("2", ""),
	 MACHINE("pc-q35-10.0"),
	 {true},
	 XBZRLE},
	{CAPABILITIES("true", "true"),
	 PARAMETERS("8", ""),
	 MACHINE("pc-q35-10.0"),
	 {.known = true, .preempt = true, .multifd = 8},
	 XBZRLE | MULTIFD | PREEMPT},
	{CAPABILITIES("true", "false"),
	 PARAMETERS("255", "tls0"),
	 MACHINE("pc-q35-7.2"),
	 {.known = true, .tls = true, .multifd = 255},
	 XBZRLE | MULTIFD},
	{CAPABILITIES("false", "true"),
	 PARAMETERS("2", ""),
	 MACHINE("pc-i440fx-6.1"),
	 {.known = true, .preempt = true, .early_preempt = true},
	 XBZRLE | PREEMPT},
	/* A QEMU without these capabilities, or without a type of machine */
	{"{\"return\": [], \"id\": @ID}\r\n",
	 "{\"return\": {}, \"id\": @ID}\r\n",
	 "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Property not found\"}, \"id\": "
	 "@ID}\r\n",
	 {.known = true},
	 0},
};

static void check_told(const struct relay_told *is, const struct asked *a)
{
	const struct relay_expected *e = &a->expected;

	cr_assert(is->expected.known);
	cr_assert_eq(is->expected.tls, e->tls);
	cr_assert_eq(is->expected.preempt, e->preempt);
	cr_assert_eq(is->expected.early_preempt, e->early_preempt);
	cr_assert_eq(is->expected.multifd, e->multifd);
	cr_assert(is->facts.known);
	cr_assert_not(is->facts.binding);
	cr_assert_eq(is->facts.on, a->on);
	cr_assert_eq(is->facts.multifd_channels, e->multifd);
	cr_assert_str_eq(is->facts.multifd_compression, e->multifd ? "zstd" : "");
}

Test(qmp, what_a_source_is_set_to)
{
	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
		const struct act script[] = {
			BEGIN_OOB,
			{HEAR, "query-migrate-capabilities"},
			{SAY, asked[i].capabilities},
			{HEAR, "query-migrate-parameters"},
			{SAY, asked[i].parameters},
			{HEAR, "qom-get"},
			{SAY, asked[i].machine},
			{END, NULL},
		};
		struct via_wait wait = wait_ns(PATIENCE_NS);
		struct relay_told is = {0};
		struct fake_qmp f;
		struct relay_qmp *q;

		fake_qmp_start(&f, script);
		q = open_qmp(&f);
		cr_assert_eq(relay_qmp_ask(q, &wait, &is, NULL), 0, "case %zu", i);
		check_told(&is, &asked[i]);
		relay_qmp_close(q);
		fake_qmp_join(&f);
	}
}

Test(qmp, a_source_that_cannot_be_asked)
{
	static const struct act refuses[] = {
		BEGIN_OOB,
		{HEAR, "query-migrate-capabilities"},
		{SAY, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}, \"id\": "
		      "@ID}\n"},
		{END, NULL},
	};
	static const struct act no_channels[] = {
		BEGIN_OOB,
		{HEAR, "query-migrate-capabilities"},
		{SAY, CAPABILITIES("true", "false")},
		{HEAR, "query-migrate-parameters"},
		{SAY, "{\"return\": {}, \"id\": @ID}\n"},
		{HEAR, "qom-get"},
		{SAY, MACHINE("pc-q35-10.0")},
		{END, NULL},
	};
	static const int codes[] = {-EOPNOTSUPP, -EPROTO};

	for (unsigned i = 0; i < 2; i++) {
		struct via_wait wait = wait_ns(PATIENCE_NS);
		struct relay_told is = {0};
		struct fake_qmp f;
		struct relay_qmp *q;

		fake_qmp_start(&f, i ? no_channels : refuses);
		q = open_qmp(&f);
		cr_assert_eq(relay_qmp_ask(q, &wait, &is, NULL), codes[i]);
		cr_assert_not(is.facts.known);
		relay_qmp_close(q);
		fake_qmp_join(&f);
	}
}
