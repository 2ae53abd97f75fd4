/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_send.c -- viaduct send: run the demo guest here and migrate it to `viaduct receive`.
 */
#include "tools/commands.h"
#include "tools/run.h"

/* clang-format off */
static const enum option_id options[] = {
	OPTION_PEER, OPTION_PSK, OPTION_PSK_IDENTITY, OPTION_INSECURE, OPTION_FABRIC, OPTION_MEMORY,
	OPTION_VCPUS, OPTION_DIRTY_RATE, OPTION_MULTIFD, OPTION_DOWNTIME_LIMIT,
	OPTION_MAX_BANDWIDTH, OPTION_MAX_ROUNDS, OPTION_DEAD_AFTER, OPTION_SEED, OPTION_VERBOSE,
	OPTION_JSON, 0};
/* clang-format on */

static int run(const struct settings *settings)
{
	struct run_result result;
	struct via_error err = {0};

	if (!settings->peer) {
		via_fail(&err, -EINVAL,
			 "send\nno --peer\n"
			 "name the host where `viaduct receive` listens: --peer HOST:PORT");
		report_error(&err);
		return EXIT_USAGE;
	}
	run_source(settings, &result);
	report_print(settings, &result, true);
	return run_succeeded(&result) ? EXIT_OK : EXIT_FAILED;
}

const struct command command_send = {
	.name = "send",
	.summary = "run the demo guest here and migrate it to a host that receives",
	.usage = "--peer HOST:PORT [OPTION...]",
	.options = options,
	.run = run,
};
