/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_send.c -- viaduct send: run the demo guest here and migrate it to `viaduct receive`; and
 * viaduct send --resume: tell one that is paused to resume.
 */
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/confine.h"
#include "tools/html.h"
#include "tools/run.h"

/* clang-format off */
static const enum option_id options[] = {
	OPTION_PEER, OPTION_PSK, OPTION_PSK_IDENTITY, OPTION_TLS_CREDS,
	OPTION_TLS_HOSTNAME, OPTION_INSECURE, OPTION_FABRIC, OPTION_MEMORY,
	OPTION_VCPUS, OPTION_DIRTY_RATE, OPTION_MULTIFD, OPTION_PREEMPT, OPTION_DOWNTIME_LIMIT,
	OPTION_MAX_BANDWIDTH, OPTION_MAX_ROUNDS, OPTION_POSTCOPY, OPTION_POSTCOPY_AFTER,
	OPTION_POSTCOPY_WHEN_STUCK, OPTION_MAX_POSTCOPY_BANDWIDTH, OPTION_RETRY, OPTION_RESUME,
	OPTION_INTEGRITY, OPTION_DEAD_AFTER, OPTION_SEED, OPTION_SANDBOX, OPTION_REPORT,
	OPTION_METRICS_LISTEN, OPTION_STATS_FILE,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

/* The first @cap - 1 bytes of /proc/@pid/@name, with NULs as they are; "" when there is none. */
static size_t read_proc(unsigned pid, const char *name, char *buf, size_t cap)
{
	char path[64];
	size_t len = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/%s", pid, name);
	f = fopen(path, "re");
	if (f) {
		len = fread(buf, 1, cap - 1, f);
		fclose(f);
	}
	buf[len] = '\0';
	return len;
}

/* Is it `viaduct send`? Any other process would be ended by the signal, or misled. */
static bool is_send(unsigned pid, char *comm, size_t cap)
{
	char cmdline[4096];
	size_t len = read_proc(pid, "cmdline", cmdline, sizeof(cmdline));
	size_t first = strlen(cmdline) + 1; /* of the second word */

	read_proc(pid, "comm", comm, cap);
	comm[strcspn(comm, "\n")] = '\0';
	return !strcmp(comm, "viaduct") && first < len && !strcmp(cmdline + first, "send");
}

/* Tell the process to resume. By a descriptor: a number may come to mean another process. */
static int resume(unsigned pid, struct via_error *err)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), rc = 0;
	char comm[64];

	if (fd < 0)
		return via_fail(err, -ENOENT,
				"resume a migration\nprocess %u: %s\n"
				"give the number that the paused `viaduct send` has printed",
				pid, strerror(errno));
	if (!is_send(pid, comm, sizeof(comm)))
		rc = via_fail(err, -EINVAL,
			      "resume a migration\nprocess %u is not `viaduct send`: `%s`\n"
			      "give the number that the paused `viaduct send` has printed",
			      pid, comm);
	else if (syscall(SYS_pidfd_send_signal, fd, SIGUSR2, NULL, 0))
		rc = via_fail(err, via_err_from_errno(errno),
			      "resume a migration\nprocess %u: %s\n"
			      "be the user who has started it, or root",
			      pid, strerror(errno));
	close(fd);
	return rc;
}

static int run(const struct settings *settings)
{
	struct html_report report = {0};
	struct run_result result;
	struct via_error err = {0};

	if (settings->resume_pid) {
		if (!resume((unsigned)settings->resume_pid, &err))
			return EXIT_OK;
		report_error(&err);
		return EXIT_FAILED;
	}
	if (!settings->peer) {
		via_fail(&err, -EINVAL,
			 "send\nno --peer\n"
			 "name the host where `viaduct receive` listens: --peer HOST:PORT");
		report_error(&err);
		return EXIT_USAGE;
	}
	if (html_report_begin(&report, settings->report, &err) ||
	    confine(settings, CONFINE_GUEST, &err)) {
		report_error(&err);
		return EXIT_FAILED;
	}
	run_source(settings, report.series, &result);
	report_print(settings, &result, true);
	html_migration(&report, settings, &result);
	html_report_end(&report);
	return run_succeeded(&result) ? EXIT_OK : EXIT_FAILED;
}

const struct command command_send = {
	.name = "send",
	.summary = "run the demo guest here and migrate it to a host that receives",
	.usage = "--peer HOST:PORT [OPTION...] | --resume PID",
	.options = options,
	.run = run,
};
