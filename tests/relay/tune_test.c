/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tune_test.c -- what a relay sets in its QEMU, what it says of it, and what it leaves alone.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "relay/tune.h"
#include "tests/relay/fake_qmp.h"

#define ON(NAME) (1 << RELAY_CAP_##NAME)

#define ANSWER(VALUE) "{\"return\": " VALUE ", \"id\": @ID}\r\n"
#define REFUSAL(WORDS)                                                                             \
	"{\"error\": {\"class\": \"GenericError\", \"desc\": \"" WORDS "\"}, \"id\": @ID}\r\n"
#define CAPABILITY(NAME, STATE) "{\"capability\": \"" NAME "\", \"state\": " STATE "}"
/* Those that a QEMU has which knows all that is asked for. */
/* clang-format off */
#define CAPABILITIES(MULTIFD, POSTCOPY, RETURN_PATH, XBZRLE)                                       \
	ANSWER("[" CAPABILITY("xbzrle", XBZRLE) ", "                                               \
	       CAPABILITY("multifd", MULTIFD) ", "                                                 \
	       CAPABILITY("postcopy-ram", POSTCOPY) ", "                                           \
	       CAPABILITY("postcopy-preempt", "false") ", "                                        \
	       CAPABILITY("return-path", RETURN_PATH) "]")
/* clang-format on */
#define PARAMETERS(BANDWIDTH)                                                                      \
	ANSWER("{\"max-bandwidth\": " BANDWIDTH                                                    \
	       ", \"multifd-channels\": 2, \"multifd-compression\": \"none\"}")
#define VERSION(MAJOR, MINOR)                                                                      \
	ANSWER("{\"qemu\": {\"major\": " MAJOR ", \"minor\": " MINOR ", \"micro\": 0}}")

#define STATUS(VALUE) ANSWER("{\"status\": \"" VALUE "\"}")
#define NONE          ANSWER("{}")

/* clang-format off */
#define SETTINGS(CAPS, PARAMS)                                                                     \
	{HEAR, "query-migrate-capabilities"}, {SAY, CAPS},                                         \
	{HEAR, "query-migrate-parameters"}, {SAY, PARAMS}
#define SOURCE(CAPS, PARAMS, MACHINE, QEMU)                                                        \
	BEGIN_OOB, {HEAR, "query-migrate"}, {SAY, NONE}, SETTINGS(CAPS, PARAMS),                   \
	{HEAR, "qom-get"}, {SAY, ANSWER("\"" MACHINE "-machine\"")},                               \
	{HEAR, "query-version"}, {SAY, QEMU}
#define SETS(NAME)                                                                                 \
	{HEAR, "migrate-set-capabilities"},                                                        \
	{HAS, "[{\"capability\":\"" NAME "\",\"state\":true}]"}, {SAY, DONE}
/* clang-format on */

static char notes[1024];

static void note(void *arg, const char *line)
{
	size_t len = strlen(notes);

	(void)arg;
	snprintf(notes + len, sizeof(notes) - len, "%s\n", line);
}

static struct relay_config config_of(const struct fake_qmp *f, bool tune)
{
	notes[0] = '\0';
	return (struct relay_config){.qmp = f->path, .tune = tune, .cancel_fd = -1, .note = note};
}

/* -- a source ---------------------------------------------------------------------------- */

static void expect_source(const struct act *script, const char *said)
{
	struct via_error err = {0};
	struct relay_config config;
	struct fake_qmp f;

	fake_qmp_start(&f, script);
	config = config_of(&f, true);
	cr_assert_eq(relay_tune(&config, &err), 0, "%s: %s", err.what, err.seen);
	fake_qmp_join(&f);
	cr_assert_str_eq(notes, said);
}

#define RETURN_PATH "QEMU: return-path: off -> on\n"
#define NO_LIMIT    "QEMU: max-bandwidth: 134217728 -> 0\n"

/* clang-format off */
static const struct act sets_no_limit[] = {
	SOURCE(CAPABILITIES("false", "false", "false", "false"), PARAMETERS("134217728"), "pc-q35-10.0",
	       VERSION("10", "0")),
	SETS("return-path"), SETS("multifd"),
	{HEAR, "migrate-set-parameters"}, {HAS, "\"arguments\":{\"max-bandwidth\":0}"}, {SAY, DONE},
	{END, NULL},
};
static const struct act postcopy_of_10_0[] = {
	SOURCE(CAPABILITIES("false", "true", "true", "false"), PARAMETERS("5"), "pc-q35-10.0",
	       VERSION("10", "0")),
	SETS("postcopy-preempt"), {END, NULL},
};
static const struct act postcopy_of_10_1[] = {
	SOURCE(CAPABILITIES("false", "true", "true", "false"), PARAMETERS("5"), "pc-q35-10.1",
	       VERSION("10", "1")),
	SETS("postcopy-preempt"), SETS("multifd"), {END, NULL},
};
static const struct act postcopy_of_an_old_machine[] = {
	SOURCE(CAPABILITIES("false", "true", "true", "false"), PARAMETERS("5"), "pc-q35-7.2",
	       VERSION("11", "1")),
	{END, NULL},
};
static const struct act beside_xbzrle[] = {
	SOURCE(CAPABILITIES("false", "false", "true", "true"), PARAMETERS("0"), "pc-q35-11.1",
	       VERSION("11", "1")),
	{END, NULL},
};
static const struct act refuses[] = {
	SOURCE(CAPABILITIES("false", "false", "true", "false"), PARAMETERS("0"), "pc-q35-11.1",
	       VERSION("11", "1")),
	{HEAR, "migrate-set-capabilities"}, {SAY, REFUSAL("Not today")}, {END, NULL},
};
static const struct act under_way[] = {
	BEGIN_OOB, {HEAR, "query-migrate"}, {SAY, STATUS("postcopy-paused")}, {END, NULL},
};
/* clang-format on */

Test(tune, a_source)
{
	expect_source(sets_no_limit, RETURN_PATH "QEMU: multifd: off -> on\n" NO_LIMIT);
	expect_source(postcopy_of_10_0, "QEMU: postcopy-preempt: off -> on\n");
	expect_source(postcopy_of_10_1,
		      "QEMU: postcopy-preempt: off -> on\nQEMU: multifd: off -> on\n");
	expect_source(postcopy_of_an_old_machine, "");
	expect_source(beside_xbzrle, "");
}

Test(tune, a_source_that_refuses_keeps_what_it_has)
{
	expect_source(refuses, "QEMU: multifd stays off: Not today\n");
}

Test(tune, a_source_that_migrates_already_is_left_alone)
{
	expect_source(under_way, "QEMU: nothing is set: its migration is postcopy-paused\n");
}

Test(tune, a_source_that_is_not_there)
{
	struct relay_config config = {.qmp = "/nonexistent/qmp", .tune = true, .cancel_fd = -1};
	struct via_error err = {0};

	cr_assert_eq(relay_tune(&config, &err), -ENOENT);
	cr_assert(strstr(err.what, "/nonexistent/qmp"));
}

/* -- a destination --------------------------------------------------------------------------- */

static const struct relay_facts multifd_3 = {.known = true,
					     .binding = true,
					     .on = ON(MULTIFD) | ON(RETURN_PATH),
					     .multifd_channels = 3,
					     .multifd_compression = "zstd"};
static const struct relay_facts unknown = {.known = false};

static int destination(const struct act *script, bool tune, const char *address,
		       const struct relay_facts *facts, struct via_error *err)
{
	struct relay_config config;
	struct fake_qmp f;
	int rc;

	fake_qmp_start(&f, script);
	config = config_of(&f, tune);
	rc = tune_destination(&config, address, facts, err);
	fake_qmp_join(&f);
	return rc;
}

#define FRESH SETTINGS(CAPABILITIES("false", "true", "true", "false"), PARAMETERS("0"))
#define SET_ALIKE                                                                                  \
	SETTINGS(ANSWER("[" CAPABILITY("multifd", "true") ", " CAPABILITY("return-path",           \
									  "true") "]"),            \
		 ANSWER("{\"multifd-channels\": 3, \"multifd-compression\": \"zstd\"}"))

/* What differs, all at once, then the rest. */
Test(tune, a_destination_is_made_like_the_source)
{
	static const struct act script[] = {
		BEGIN_OOB,
		FRESH,
		{HEAR, "query-migrate"},
		{SAY, NONE},
		{HEAR, "migrate-set-capabilities"},
		{HAS, "[{\"capability\":\"multifd\",\"state\":true},"
		      "{\"capability\":\"postcopy-ram\",\"state\":false}]"},
		{SAY, DONE},
		{HEAR, "migrate-set-parameters"},
		{HAS, "{\"multifd-channels\":3,\"multifd-compression\":\"zstd\"}"},
		{SAY, DONE},
		{HEAR, "migrate-incoming"},
		{HAS, "{\"uri\":\"tcp:localhost:7\"}"},
		{SAY, DONE},
		{END, NULL},
	};
	struct via_error err = {0};

	cr_assert_eq(destination(script, true, "localhost:7", &multifd_3, &err), 0, "%s", err.seen);
	cr_assert_str_eq(notes, "QEMU: multifd: off -> on\n"
				"QEMU: postcopy-ram: on -> off\n"
				"QEMU: multifd-channels: 2 -> 3\n"
				"QEMU: multifd-compression: none -> zstd\n"
				"QEMU: migrate-incoming tcp:localhost:7\n");
}

/* It would take both, and lose the guest. */
Test(tune, a_destination_too_old_for_multifd_with_postcopy)
{
	static const struct act script[] = {
		BEGIN_OOB,
		FRESH,
		{HEAR, "query-migrate"},
		{SAY, NONE},
		{HEAR, "query-version"},
		{SAY, VERSION("8", "0")},
		{END, NULL},
	};
	struct relay_facts both = multifd_3;

	both.on |= ON(POSTCOPY_RAM);
	for (int tune = 0; tune < 2; tune++) {
		struct via_error err = {0};

		cr_assert_eq(destination(script, tune, "unix:/q", &both, &err), -EINVAL);
		cr_assert(strstr(err.seen, "loses the guest"), "%s", err.seen);
		cr_assert_str_empty(notes);
	}
}

static const struct relay_facts postcopy = {.known = true, .on = ON(POSTCOPY_RAM)};

/* Where that has become cheap. It is not needed, and so may be refused. */
Test(tune, a_destination_counts_what_postcopy_waits_for)
{
	static const char *const versions[] = {VERSION("10", "0"), VERSION("10", "1")};

	for (unsigned i = 0; i < 2; i++) {
		const struct act script[] = {
			BEGIN_OOB,
			SETTINGS(ANSWER("[" CAPABILITY("postcopy-ram", "true") ", " CAPABILITY(
					 "postcopy-blocktime", "false") "]"),
				 PARAMETERS("0")),
			{HEAR, "query-migrate"},
			{SAY, STATUS("setup")},
			{HEAR, "query-version"},
			{SAY, versions[i]},
			{i ? HEAR : END, "migrate-set-capabilities"},
			{SAY, REFUSAL("No")},
			{END, NULL},
		};

		cr_assert_eq(destination(script, true, "unix:/q", &postcopy, NULL), 0);
		cr_assert_str_eq(notes, i ? "QEMU: postcopy-blocktime stays off: No\n" : "");
	}
}

/* The relay has seen the end before QEMU says it. */
Test(tune, a_destination_tells_what_postcopy_has_waited_for)
{
	static const struct act script[] = {
		BEGIN_OOB,
		{HEAR, "query-migrate"},
		{SAY, STATUS("postcopy-active")},
		{HEAR, "query-migrate"},
		{SAY, STATUS("completed")},
		{HEAR, "query-migrate"},
		{SAY, ANSWER("{\"status\": \"completed\", \"postcopy-latency\": 277899}")},
		{END, NULL},
	};
	struct relay_config config;
	struct fake_qmp f;

	fake_qmp_start(&f, script);
	config = config_of(&f, true);
	tune_note_faults(&config);
	fake_qmp_join(&f);
	cr_assert_str_eq(notes, "QEMU: a page that was missing was there after 278 us, the mean\n");
	config.qmp = "/nonexistent/qmp";
	tune_note_faults(&config);
	config.qmp = NULL;
	tune_note_faults(&config);
}

Test(tune, a_destination_that_waits_already_is_not_told_to)
{
	static const struct act script[] = {
		BEGIN_OOB, SET_ALIKE, {HEAR, "query-migrate"}, {SAY, STATUS("setup")}, {END, NULL},
	};

	for (int tune = 0; tune < 2; tune++) {
		cr_assert_eq(destination(script, tune, "unix:/q", &multifd_3, NULL), 0);
		cr_assert_str_empty(notes);
	}
}

Test(tune, a_destination_that_refuses_is_not_connected_to)
{
	static const struct act script[] = {
		BEGIN_OOB,
		FRESH,
		{HEAR, "query-migrate"},
		{SAY, NONE},
		{HEAR, "migrate-set-capabilities"},
		{SAY, REFUSAL("Too late, sorry")},
		{END, NULL},
	};
	struct via_error err = {0};

	cr_assert_eq(destination(script, true, "unix:/q", &multifd_3, &err), -EINVAL);
	cr_assert_str_eq(err.seen, "Too late, sorry");
	cr_assert_str_empty(notes);
}

Test(tune, without_leave_to_set_it_differences_are_refused)
{
	static const struct act script[] = {
		BEGIN_OOB, FRESH, {HEAR, "query-migrate"}, {SAY, NONE}, {END, NULL},
	};
	struct via_error err = {0};

	cr_assert_eq(destination(script, false, "unix:/q", &multifd_3, &err), -EINVAL);
	cr_assert_str_eq(err.seen, "multifd off, not on; postcopy-ram on, not off; "
				   "multifd-channels 2, not 3; multifd-compression none, not zstd");
	cr_assert(strstr(err.remedy, "--tune"));
}

Test(tune, of_a_source_nothing_is_known)
{
	static const struct act script[] = {
		BEGIN_OOB,
		FRESH,
		{HEAR, "query-migrate"},
		{SAY, NONE},
		{HEAR, "migrate-incoming"},
		{HAS, "{\"uri\":\"unix:/q\"}"},
		{SAY, DONE},
		{END, NULL},
	};

	cr_assert_eq(destination(script, true, "unix:/q", &unknown, NULL), 0);
	cr_assert(strstr(notes, "nothing is set: the source's relay has no --qmp"), "%s", notes);
}

Test(tune, a_paused_destination_is_told_to_recover_out_of_band)
{
	static const struct act tuned[] = {
		BEGIN_OOB,
		FRESH,
		{HEAR, "query-migrate"},
		{SAY, STATUS("postcopy-paused")},
		{HEAR, "oob migrate-recover"},
		{HAS, "{\"uri\":\"unix:/q\"}"},
		{SAY, DONE},
		{END, NULL},
	};
	static const struct act left_alone[] = {
		BEGIN_OOB,   FRESH, {HEAR, "query-migrate"}, {SAY, STATUS("postcopy-paused")},
		{END, NULL},
	};

	cr_assert_eq(destination(tuned, true, "unix:/q", &multifd_3, NULL), 0);
	cr_assert_str_eq(notes, "QEMU: migrate-recover unix:/q\n");
	cr_assert_eq(destination(left_alone, false, "unix:/q", &multifd_3, NULL), 0);
}

/* The source comes again before this QEMU has seen its connections end; it says so, or is asked. */
Test(tune, a_destination_that_is_about_to_pause)
{
	static const struct act script[] = {
		BEGIN_OOB,
		FRESH,
		{HEAR, "query-migrate"},
		{SAY, STATUS("postcopy-active")},
		{SAY,
		 "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"postcopy-paused\"}}\r\n"},
		{HEAR, "query-migrate"},
		{SAY, STATUS("postcopy-active")},
		{HEAR, "query-migrate"},
		{SAY, STATUS("postcopy-paused")},
		{HEAR, "oob migrate-recover"},
		{SAY, DONE},
		{END, NULL},
	};

	cr_assert_eq(destination(script, true, "unix:/q", &multifd_3, NULL), 0);
}

/* -- nobody to ask ------------------------------------------------------------------- */

Test(tune, without_qmp_binding_facts_are_refused)
{
	struct relay_config config = {.cancel_fd = -1};
	struct relay_facts free_facts = multifd_3;
	struct via_error err = {0};

	free_facts.binding = false;
	cr_assert_eq(tune_destination(&config, "unix:/q", &multifd_3, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.remedy, "--qmp SOCKET --tune"));
	cr_assert_eq(tune_destination(&config, "unix:/q", &free_facts, NULL), 0);
	cr_assert_eq(tune_destination(&config, "unix:/q", &unknown, NULL), 0);
}

Test(tune, a_qemu_that_does_not_answer_matters_when_it_must_be_set)
{
	struct relay_config config = {.qmp = "/nonexistent/qmp", .cancel_fd = -1, .note = note};
	struct relay_facts free_facts = multifd_3;

	notes[0] = '\0';
	free_facts.binding = false;
	cr_assert_eq(tune_destination(&config, "unix:/q", &free_facts, NULL), 0);
	cr_assert(strstr(notes, "nothing is compared"), "%s", notes);
	cr_assert_eq(tune_destination(&config, "unix:/q", &multifd_3, NULL), -ENOENT);
	config.tune = true;
	cr_assert_eq(tune_destination(&config, "unix:/q", &unknown, NULL), -ENOENT);
}
