/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * options_test.c -- the command line: numbers with units, the options of each subcommand,
 * and the words for what is wrong with one.
 */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tools/commands.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define GIB (KIB * MIB)
#define TIB (KIB * GIB)
#define MS  VIA_NS_PER_MS
#define S   VIA_NS_PER_S

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

typedef int parse_fn(const char *text, uint64_t *value, struct via_error *err);

struct good {
	const char *text;
	uint64_t value;
};

static void takes(parse_fn *parse, const struct good *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct via_error err = {0};
		uint64_t value = 0;

		cr_expect_eq(parse(list[i].text, &value, &err), 0, "\"%s\" was refused: %s",
			     list[i].text, err.remedy);
		cr_expect_eq(value, list[i].value, "\"%s\" is %llu", list[i].text,
			     (unsigned long long)value);
	}
}

/* Refused with the value and what to write instead; the output stays as it was. */
static void refuses(parse_fn *parse, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct via_error err = {0};
		uint64_t value = 4711;

		cr_expect_eq(parse(list[i], &value, &err), -EINVAL, "\"%s\" was taken", list[i]);
		cr_expect_eq(err.code, -EINVAL);
		cr_expect(strstr(err.seen, list[i]), "\"%s\" is not in \"%s\"", list[i], err.seen);
		cr_expect(err.what[0] && err.remedy[0]);
		cr_expect_eq(value, 4711, "\"%s\" left %llu", list[i], (unsigned long long)value);
	}
}

/* -- numbers with units ------------------------------------------------------------ */

Test(parse, sizes)
{
	static const struct good list[] = {
		{"0", 0},
		{"1", 1},
		{"4096", 4096},
		{"64K", 64 * KIB},
		{"64k", 64 * KIB},
		{"64KB", 64 * KIB},
		{"64KiB", 64 * KIB},
		{"64Ki", 64 * KIB},
		{"512M", 512 * MIB},
		{"2G", 2 * GIB},
		{"2GiB", 2 * GIB},
		{"1T", TIB},
		{"1.5K", 1536},
		{"0.25G", GIB / 4},
		{"7B", 7},
		{"16777215T", 16777215 * TIB},
		{"007", 7},
	};

	takes(parse_size, list, LEN(list));
}

Test(parse, no_sizes)
{
	static const char *const list[] = {
		"",          "K",    " 1",    "1 ",  "1 K",       "-1",
		"+1",        "abc",  "1X",    "1KK", "1Kx",       "1K/s",
		"1e3",       "0x10", "1.2.3", ".5",  "16777216T", "1P",
		"nan",       "inf",  "1i",    "1Kb", "1,5K",      "99999999999999999999999999",
		"unlimited",
	};

	refuses(parse_size, list, LEN(list));
}

Test(parse, rates)
{
	static const struct good list[] = {
		{"0", 0},
		{"0/s", 0},
		{"100M/s", 100 * MIB},
		{"100M", 100 * MIB},
		{"1.5G/s", 3 * GIB / 2},
		{"1MiB/s", MIB},
		{"5/s", 5},
		{"unlimited", UINT64_MAX},
	};

	takes(parse_rate, list, LEN(list));
}

Test(parse, no_rates)
{
	static const char *const list[] = {"",   "M/s",  "100M/",     "100M/m", "100M/ss",
					   "-1", "fast", "Unlimited", "1Mbps",  "/s"};

	refuses(parse_rate, list, LEN(list));
}

Test(parse, durations)
{
	static const struct good list[] = {
		{"300ms", 300 * MS}, {"5s", 5 * S},    {"250us", 250 * VIA_NS_PER_US},
		{"2m", 120 * S},     {"1h", 3600 * S}, {"0.5s", 500 * MS},
		{"0s", 0},
	};

	takes(parse_duration, list, LEN(list));
}

Test(parse, no_durations)
{
	static const char *const list[] = {"",   "ms", "300",  "300 ms", "-1s",
					   "1d", "5S", "1e3s", "5s5",    "6000000h"};

	refuses(parse_duration, list, LEN(list));
}

/* -- the options of a subcommand ------------------------------------------------------ */

static const struct command *const commands[] = {&command_demo, &command_send, &command_receive,
						 &command_fabrics};

enum { DEMO, SEND, RECEIVE, FABRICS };

#define ARGS_MAX 24

/* options_parse() of what stands behind "viaduct": words divided by one space each. */
static int parse_words(const char *words, struct settings *s, struct via_error *err)
{
	char *text = strdup(words), *argv[ARGS_MAX + 1] = {0}, *rest = text;
	const struct command *command = NULL;
	int argc = 0, rc;

	while (rest && argc < ARGS_MAX)
		argv[argc++] = strsep(&rest, " ");
	for (size_t i = 0; i < LEN(commands); i++)
		if (!strcmp(commands[i]->name, argv[0]))
			command = commands[i];
	cr_assert_not_null(command);
	settings_init(s);
	rc = options_parse(command, argc, argv, s, err);
	free(text);
	return rc;
}

static void parses(const char *words, struct settings *s)
{
	struct via_error err = {0};

	cr_assert_eq(parse_words(words, s, &err), 0, "%s: %s (%s)", err.what, err.seen, err.remedy);
	cr_assert_eq(err.code, 0);
}

Test(options, defaults)
{
	struct settings s;

	parses("demo", &s);
	cr_expect(!s.fabric && !s.peer && !s.listen && !s.psk && !s.psk_identity);
	cr_expect(!s.insecure && !s.json && !s.verbose && !s.quiet && !s.once && !s.has_seed);
	cr_expect(s.memory == 512 * MIB && s.vcpus == 2 && s.dirty_rate == 100 * MIB);
	cr_expect(s.multifd == 2 && s.max_rounds == 30 && s.max_bandwidth == 0);
	cr_expect(s.downtime_ns == 300 * MS && s.dead_after_ns == 5 * S);
	cr_expect(s.preempt == 2 && !s.postcopy_after && !s.postcopy_when_stuck);
	cr_expect(!s.max_postcopy_bandwidth && !s.retry && !s.resume_pid && !s.pull_link);
	cr_expect_eq(s.recover_within_ns, VIA_NEVER);
	settings_free(&s);
}

Test(options, all_of_send)
{
	struct settings s;

	parses("send --peer host:1 --psk keys --psk-identity me --insecure --fabric "
	       "ofi:shm,tx-depth=64"
	       " --memory 8K --vcpus 64 --dirty-rate unlimited --multifd 256 --downtime-limit 1s",
	       &s);
	cr_expect_str_eq(s.peer, "host:1");
	cr_expect_str_eq(s.psk, "keys");
	cr_expect_str_eq(s.psk_identity, "me");
	cr_expect_str_eq(s.fabric, "ofi:shm,tx-depth=64");
	cr_expect(s.insecure && s.memory == 8 * KIB && s.vcpus == 64 && s.dirty_rate == UINT64_MAX);
	cr_expect(s.multifd == 256 && s.downtime_ns == S);
	settings_free(&s);

	parses("send --max-bandwidth=10M/s --max-rounds=1 --dead-after=250ms --seed=0 --verbose "
	       "--json",
	       &s);
	cr_expect(s.max_bandwidth == 10 * MIB && s.max_rounds == 1 && s.dead_after_ns == 250 * MS);
	cr_expect(s.has_seed && s.seed == 0 && s.verbose && s.json);
	settings_free(&s);
}

Test(options, all_of_receive_and_fabrics)
{
	struct settings s;

	parses("receive --listen [::1]:0 --psk k --insecure --fabric auto --dead-after 1s --json",
	       &s);
	cr_expect_str_eq(s.listen, "[::1]:0");
	cr_expect_str_eq(s.psk, "k");
	cr_expect_str_eq(s.fabric, "auto");
	cr_expect(s.insecure && s.json && !s.verbose && s.dead_after_ns == S);
	settings_free(&s);

	parses("fabrics --json", &s);
	cr_expect(s.json);
	settings_free(&s);
}

Test(options, all_of_postcopy)
{
	struct settings s;

	parses("demo --postcopy --preempt 64 --max-postcopy-bandwidth 1G/s --pull-link 3", &s);
	cr_expect(s.postcopy_after == 1 && !s.postcopy_when_stuck && s.preempt == 64);
	cr_expect(s.max_postcopy_bandwidth == GIB && s.pull_link == 3);
	settings_free(&s);
	parses("send --postcopy-after 4 --postcopy-when-stuck=2 --retry --preempt 1"
	       " --max-postcopy-bandwidth unlimited",
	       &s);
	cr_expect(s.postcopy_after == 4 && s.postcopy_when_stuck == 2 && s.retry);
	cr_expect(s.preempt == 1 && s.max_postcopy_bandwidth == 0);
	settings_free(&s);
	parses("send --resume 4711", &s);
	cr_expect_eq(s.resume_pid, 4711);
	settings_free(&s);
	parses("receive --listen 0 --recover-within 1.5s", &s);
	cr_expect_eq(s.recover_within_ns, 1500 * MS);
	settings_free(&s);
}

Test(options, the_last_one_counts)
{
	struct settings s;

	parses("demo --postcopy-after 7 --postcopy", &s);
	cr_expect_eq(s.postcopy_after, 1);
	settings_free(&s);

	parses("demo --vcpus 3 --fabric ofi:tcp --vcpus 0 --fabric ofi:shm", &s);
	cr_expect_eq(s.vcpus, 0);
	cr_expect_str_eq(s.fabric, "ofi:shm");
	settings_free(&s);
}

Test(options, limits_are_inclusive)
{
	struct settings s;

	parses("demo --memory 4K --vcpus 0 --multifd 1 --max-rounds 1 --dirty-rate 0"
	       " --seed 9223372036854775807",
	       &s);
	cr_expect(s.memory == 4 * KIB && s.vcpus == 0 && s.multifd == 1 && s.dirty_rate == 0);
	cr_expect_eq(s.seed, (uint64_t)INT64_MAX);
	settings_free(&s);
	parses("demo --max-bandwidth unlimited --max-rounds 1000000", &s);
	cr_expect(s.max_bandwidth == 0 && s.max_rounds == 1000000);
	settings_free(&s);
}

Test(options, addresses_of_a_page)
{
	static const char *const list[] = {"0", ":65535", "localhost:9464", "[::1]:0"};
	struct settings s;
	char words[64];

	for (size_t i = 0; i < LEN(list); i++) {
		snprintf(words, sizeof(words), "demo --metrics-listen %s", list[i]);
		parses(words, &s);
		cr_expect_str_eq(s.metrics_listen, list[i]);
		settings_free(&s);
	}
}

/* -- what is wrong with one ------------------------------------------------------------- */

struct bad {
	const char *words, *what, *seen, *remedy; /* parts of the message */
};

/* clang-format off */
static const struct bad bad[] = {
	{"demo --bogus", "demo", "unknown option --bogus", "viaduct demo --help"},
	{"demo --bogus=1", "demo", "unknown option --bogus=1", "viaduct demo --help"},
	{"demo -x", "demo", "unknown option -x", "viaduct demo --help"},
	{"demo -xyz", "demo", "unknown option -x", "viaduct demo --help"},
	{"demo --m 1", "demo", "unknown option --m", "viaduct demo --help"},
	{"demo 4K --json -x", "demo", "unknown option -x", "viaduct demo --help"},
	{"demo --json=1", "demo", "--json takes no value", "viaduct demo --help"},
	{"demo --memory", "demo", "no value for --memory", "viaduct demo --help"},
	{"demo surplus", "demo", "unexpected argument surplus", "viaduct demo --help"},
	{"demo -- --json", "demo", "unexpected argument --json", "viaduct demo --help"},
	/* Options of another subcommand. */
	{"demo --peer a:1", "demo", "unknown option --peer", "viaduct demo --help"},
	{"receive --memory 4K", "receive", "unknown option --memory", "viaduct receive --help"},
	{"fabrics --fabric ofi", "fabrics", "unknown option --fabric", "viaduct fabrics --help"},

	{"demo --memory 0", "demo --memory", "0", "at least 4K"},
	{"demo --memory 5000", "demo --memory", "5000", "a multiple of 4K"},
	{"demo --memory abc", "demo --memory", "abc", "512M"},
	{"demo --memory -1", "demo --memory", "-1", "512M"},
	{"demo --memory ", "demo --memory", "\"\"", "512M"},
	{"demo --vcpus 65", "demo --vcpus", "65", "from 0 to 64"},
	{"demo --vcpus -1", "demo --vcpus", "-1", "from 0 to 64"},
	{"demo --vcpus +1", "demo --vcpus", "+1", "from 0 to 64"},
	{"demo --vcpus 1.5", "demo --vcpus", "1.5", "from 0 to 64"},
	{"demo --vcpus \t1", "demo --vcpus", " 1", "from 0 to 64"},
	{"demo --multifd 0", "demo --multifd", "0", "from 1 to 256"},
	{"demo --multifd 257", "demo --multifd", "257", "from 1 to 256"},
	{"demo --preempt 0", "demo --preempt", "0", "from 1 to 64"},
	{"demo --preempt 65", "demo --preempt", "65", "from 1 to 64"},
	{"demo --postcopy=1", "demo", "--postcopy takes no value", "viaduct demo --help"},
	{"demo --postcopy-after 0", "demo --postcopy-after", "0", "from 1 to 1000000"},
	{"send --postcopy-when-stuck 0", "send --postcopy-when-stuck", "0", "from 1 to 1000000"},
	{"send --max-postcopy-bandwidth fast", "send --max-postcopy-bandwidth", "fast", "unlimited"},
	{"demo --pull-link -1", "demo --pull-link", "-1", "from 0 to 1000"},
	{"send --resume 0", "send --resume", "0", "from 1 to"},
	{"send --resume 4294967297", "send --resume", "4294967297", "from 1 to"},
	{"receive --recover-within 0s", "receive --recover-within", "0s", "longer than nothing"},
	{"receive --recover-within 5", "receive --recover-within", "5", "300ms"},
	{"demo --retry", "demo", "unknown option --retry", "viaduct demo --help"},
	{"send --pull-link 1", "send", "unknown option --pull-link", "viaduct send --help"},
	{"send --recover-within 1s", "send", "unknown option --recover-within", "viaduct send --help"},
	{"receive --postcopy", "receive", "unknown option --postcopy", "viaduct receive --help"},
	{"demo --max-rounds 0", "demo --max-rounds", "0", "from 1 to 1000000"},
	{"demo --seed x", "demo --seed", "x", "whole number"},
	{"demo --seed 9223372036854775808", "demo --seed", "9223372036854775808", "9223372036854775807"},
	{"demo --seed 99999999999999999999", "demo --seed", "99999999999999999999", "whole number"},
	{"demo --dirty-rate fast", "demo --dirty-rate", "fast", "unlimited"},
	{"demo --max-bandwidth -1", "demo --max-bandwidth", "-1", "unlimited"},
	{"demo --downtime-limit 300", "demo --downtime-limit", "300", "300ms"},
	{"demo --downtime-limit 0s", "demo --downtime-limit", "0s", "longer than nothing"},
	{"send --dead-after 0ms", "send --dead-after", "0ms", "longer than nothing"},

	{"demo --metrics-listen nonsense", "demo --metrics-listen", "nonsense", "HOST:PORT"},
	{"demo --metrics-listen ", "demo --metrics-listen", "\"\"", "HOST:PORT"},
	{"demo --metrics-listen host:", "demo --metrics-listen", "host:", "HOST:PORT"},
	{"demo --metrics-listen :65536", "demo --metrics-listen", ":65536", "HOST:PORT"},
	{"demo --metrics-listen ::1:9464", "demo --metrics-listen", "::1:9464", "[IPV6]:PORT"},
	{"demo --metrics-listen [::1:9464", "demo --metrics-listen", "[::1:9464", "[IPV6]:PORT"},

	{"demo --fabric bogus", "demo --fabric", "no such fabric", "known are: auto"},
	{"receive --fabric ", "receive --fabric", "malformed", "NAME[:PROVIDER]"},
	{"send --fabric ofi:tcp,", "send --fabric", "malformed", "NAME[:PROVIDER]"},
	{"send --fabric ofi:tcp,bogus=1", "send --fabric", "unknown key bogus", "tx-depth"},
	{"send --fabric ofi:tcp,tx-depth=8,tx-depth=8", "send --fabric", "twice", "once"},
};
/* clang-format on */

Test(options, bad_ones_are_named)
{
	for (size_t i = 0; i < LEN(bad); i++) {
		const struct bad *b = &bad[i];
		struct via_error err = {0};
		struct settings s;

		cr_expect_eq(parse_words(b->words, &s, &err), -EINVAL, "taken: %s", b->words);
		cr_expect_str_eq(err.what, b->what, "%s: what \"%s\"", b->words, err.what);
		cr_expect(strstr(err.seen, b->seen), "%s: seen \"%s\"", b->words, err.seen);
		cr_expect(strstr(err.remedy, b->remedy), "%s: remedy \"%s\"", b->words, err.remedy);
		settings_free(&s);
	}
}

/* -- help ---------------------------------------------------------------------------------- */

static char *help_of(const struct command *command)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	options_help(command, out);
	fclose(out);
	return text;
}

/* Is @word (with two dashes) a word of @text? */
static bool lists(const char *text, const char *word)
{
	const char *at = text;
	size_t len = strlen(word);

	while ((at = strstr(at, word))) {
		if (at[-1] == ' ' && (at[len] == ' ' || at[len] == '\n'))
			return true;
		at += len;
	}
	return false;
}

Test(help, names_each_option_and_fits_80_columns)
{
	for (size_t i = 0; i < LEN(commands); i++) {
		char *text = help_of(commands[i]), *rest = text, *line;

		cr_expect_eq(strncmp(text, "usage: viaduct ", 15), 0);
		cr_expect(strstr(text, commands[i]->name) && strstr(text, commands[i]->summary));
		cr_expect(lists(text, "--help") && lists(text, "--json"));
		cr_expect_eq(lists(text, "--memory"), i == DEMO || i == SEND);
		cr_expect_eq(lists(text, "--peer"), i == SEND);
		cr_expect_eq(lists(text, "--listen"), i == RECEIVE);
		cr_expect_eq(lists(text, "--psk"), i == SEND || i == RECEIVE);
		cr_expect_eq(lists(text, "--fabric"), i != FABRICS);
		cr_expect_eq(lists(text, "--postcopy"), i == DEMO || i == SEND);
		cr_expect_eq(lists(text, "--max-postcopy-bandwidth"), i == DEMO || i == SEND);
		cr_expect_eq(lists(text, "--resume"), i == SEND);
		cr_expect_eq(lists(text, "--pull-link"), i == DEMO);
		cr_expect_eq(lists(text, "--recover-within"), i == RECEIVE);
		while ((line = strsep(&rest, "\n")))
			cr_expect(strlen(line) <= 80, "%zu columns: %s", strlen(line), line);
		free(text);
	}
}

Test(help, is_printed_and_ends_the_parsing, .init = cr_redirect_stdout)
{
	struct via_error err = {0};
	struct settings s;
	char *text = help_of(&command_receive);

	cr_assert_eq(parse_words("receive --json --help --bogus", &s, &err), 1);
	fflush(stdout);
	cr_assert_stdout_eq_str(text);
	settings_free(&s);
	free(text);
}
