/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_bench.c -- viaduct bench: what a fabric gives, and what we take of it.
 */
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "tools/commands.h"
#include "tools/run.h"

/* clang-format off */
static const enum option_id options[] = {
	OPTION_FABRIC, OPTION_PEER, OPTION_LISTEN, OPTION_PSK, OPTION_PSK_IDENTITY,
	OPTION_TLS_CREDS, OPTION_TLS_HOSTNAME, OPTION_TLS_AUTHZ_NAME, OPTION_INSECURE,
	OPTION_ONLY, OPTION_REPEAT, OPTION_SECONDS, OPTION_NEIGHBOUR, OPTION_MEMORY,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

/* The command line of this process, without the folder that the program is in. */
static const char *command_line(char *buf, size_t cap)
{
	FILE *f = fopen("/proc/self/cmdline", "re");
	size_t n = f ? fread(buf, 1, cap - 1, f) : 0;
	const char *slash;

	if (f)
		fclose(f);
	buf[n] = '\0';
	slash = strrchr(buf, '/'); /* of the first word: it ends there */
	while (n && !buf[n - 1])
		n--;
	for (size_t i = 0; i < n; i++)
		if (!buf[i])
			buf[i] = ' ';
	buf[n] = '\0';
	return slash ? slash + 1 : buf;
}

static int check(const struct settings *s, struct via_error *err)
{
	if (s->listen && (s->peer || s->operand))
		return via_fail(err, -EINVAL,
				"bench\n--listen serves what the other host asks for\n"
				"leave the row and --peer out there");
	if (!s->listen && !s->operand)
		return via_fail(err, -EINVAL, "bench\nno row\nsee `viaduct bench list`");
	return 0;
}

static int run(const struct settings *s)
{
	struct via_error err = {0};
	char line[1024];
	struct bench_options o = {.row = s->operand,
				  .only = s->only,
				  .fabric = s->fabric,
				  .peer = s->peer,
				  .listen = s->listen,
				  .credentials = settings_credentials(s),
				  .json = s->json,
				  .repeat = (unsigned)s->repeat,
				  .run_ns = s->run_ns,
				  .memory = s->has_memory ? s->memory : 0,
				  .neighbours = (unsigned)s->neighbours,
				  .command = command_line(line, sizeof(line)),
				  .version = VIA_VERSION};
	int rc = check(s, &err);

	if (!rc)
		rc = bench_run(&o, &err);
	if (!rc)
		return EXIT_OK;
	report_error(&err);
	return rc == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
}

const struct command command_bench = {
	.name = "bench",
	.summary = "measure a fabric, and what we take of it, beside a bare loop",
	.usage = "ROW|all|list [OPTION...]\n       viaduct bench --listen HOST:PORT [OPTION...]",
	.options = options,
	.takes_operand = true,
	.run = run,
};
