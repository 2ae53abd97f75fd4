/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_receive.c -- viaduct receive: wait for one migration of the demo guest and take it.
 */
#include <unistd.h>

#include "tools/commands.h"
#include "tools/confine.h"
#include "tools/run.h"

/* clang-format off */
static const enum option_id options[] = {
	OPTION_LISTEN, OPTION_PSK, OPTION_TLS_CREDS, OPTION_TLS_AUTHZ_NAME, OPTION_INSECURE,
	OPTION_FABRIC, OPTION_INTEGRITY, OPTION_DEAD_AFTER, OPTION_RECOVER_WITHIN,
	OPTION_SANDBOX, OPTION_METRICS_LISTEN, OPTION_STATS_FILE,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

static int run(const struct settings *settings)
{
	struct run_result result;
	struct via_error err = {0};
	int listen_fd;

	if (!settings->listen) {
		via_fail(&err, -EINVAL,
			 "receive\nno --listen\n"
			 "name the address to wait at: --listen HOST:PORT");
		report_error(&err);
		return EXIT_USAGE;
	}
	if (via_control_listen(settings->listen, &listen_fd, &err) ||
	    confine(settings, CONFINE_GUEST, &err)) {
		report_error(&err);
		return EXIT_FAILED;
	}
	run_destination(settings, listen_fd, &result);
	close(listen_fd);
	report_print(settings, &result, false);
	return run_succeeded(&result) ? EXIT_OK : EXIT_FAILED;
}

const struct command command_receive = {
	.name = "receive",
	.summary = "wait for a guest from `viaduct send`, run it and check every page",
	.usage = "--listen HOST:PORT [OPTION...]",
	.options = options,
	.run = run,
};
