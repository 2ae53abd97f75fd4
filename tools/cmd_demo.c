/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_demo.c -- viaduct demo: a running guest moves from this process to a second one on
 * the same host.
 *
 * The second process is forked before anything else is started, so that it shares no thread, no
 * fabric and no memory with the first; they meet over the control connection on loopback.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/commands.h"
#include "tools/confine.h"
#include "tools/html.h"
#include "tools/run.h"

/* The destination has reported when the source is done; it only has to free its memory. */
#define EXIT_NS (10 * VIA_NS_PER_S)

/* clang-format off */
static const enum option_id options[] = {
	OPTION_FABRIC, OPTION_MEMORY, OPTION_VCPUS, OPTION_DIRTY_RATE, OPTION_MULTIFD,
	OPTION_PREEMPT, OPTION_DOWNTIME_LIMIT, OPTION_MAX_BANDWIDTH, OPTION_MAX_ROUNDS,
	OPTION_POSTCOPY, OPTION_POSTCOPY_AFTER, OPTION_POSTCOPY_WHEN_STUCK,
	OPTION_MAX_POSTCOPY_BANDWIDTH, OPTION_PULL_LINK, OPTION_INTEGRITY, OPTION_DEAD_AFTER,
	OPTION_SEED, OPTION_SANDBOX, OPTION_REPORT, OPTION_METRICS_LISTEN, OPTION_STATS_FILE,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

/* The second process, which tells @why_fd its first cause. Never returns. */
static void be_destination(const struct settings *settings, int listen_fd, int why_fd, pid_t parent)
{
	struct settings mine = *settings;
	struct run_result result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILED);
	signal(SIGINT, SIG_IGN); /* the source takes it and tells us */
	mine.quiet = true;
	mine.once = true;
	mine.pull_link = 0; /* the source does */
	mine.metrics_listen = NULL;
	mine.stats_file = NULL;
	run_destination(&mine, listen_fd, &result);
	if (result.error.code)
		(void)!write(why_fd, &result.error, sizeof(result.error));
	_exit(run_succeeded(&result) ? EXIT_OK : EXIT_FAILED);
}

/* Its number, or -1. *why_fd has its first cause once it has ended, if there is one. */
static pid_t start_destination(const struct settings *settings, int listen_fd, int *why_fd)
{
	pid_t parent = getpid(), pid;
	int why[2];

	if (pipe2(why, O_CLOEXEC))
		return -1;
	pid = fork();
	if (pid == 0) {
		close(why[0]);
		be_destination(settings, listen_fd, why[1], parent);
	}
	close(why[1]);
	if (pid < 0)
		close(why[0]);
	*why_fd = why[0];
	return pid;
}

/* Wait for the second process, and end it if it does not. */
static bool reap(pid_t pid)
{
	int status, fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0 || poll(&p, 1, (int)(EXIT_NS / VIA_NS_PER_MS)) != 1)
		kill(pid, SIGKILL);
	if (fd >= 0)
		close(fd);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == EXIT_OK;
}

/* Is it what the other side has seen, and told this one? */
static bool is_of_peer(const struct via_error *err)
{
	static const char prefix[] = "at the peer: ";

	return !strncmp(err->what, prefix, sizeof(prefix) - 1);
}

/* What the second process saw stands beside @ours, unless the two are one cause. */
static void add_cause(struct via_error *ours, int why_fd)
{
	struct via_error theirs, named = {0};

	if (read(why_fd, &theirs, sizeof(theirs)) != sizeof(theirs) || is_of_peer(&theirs) ||
	    is_of_peer(ours))
		return;
	via_fail(&named, theirs.code, "at the destination: %s\n%s\n%s", theirs.what, theirs.seen,
		 theirs.remedy);
	if (ours->code)
		report_error(&named);
	else
		*ours = named;
}

static int run_both(const struct settings *settings, int listen_fd, const char *address,
		    struct html_report *report)
{
	struct settings mine = *settings;
	struct run_result result;
	int why_fd;
	pid_t pid = start_destination(settings, listen_fd, &why_fd);
	bool other_ok, waits;

	close(listen_fd);
	if (pid < 0) {
		struct via_error err = {0};

		via_fail(&err, via_err_from_errno(errno),
			 "start the second process\n%s\nraise ulimit -u and ulimit -n",
			 strerror(errno));
		report_error(&err);
		return EXIT_FAILED;
	}
	mine.peer = strdup(address);
	run_source(&mine, report->series, &result);
	waits = result.migrate.outcome == VIA_PAUSED;
	if (waits)
		kill(pid, SIGTERM); /* it waits for us to come back */
	other_ok = reap(pid);
	if (!waits && !other_ok) /* else it tells of that signal */
		add_cause(&result.error, why_fd);
	close(why_fd);
	if (run_succeeded(&result) && !other_ok)
		via_fail(&result.error, -EIO,
			 "destination's process\nit ended with a failure\n"
			 "run again with --verbose");
	report_print(settings, &result, true);
	html_migration(report, &mine, &result);
	html_report_end(report);
	free(mine.peer);
	return run_succeeded(&result) ? EXIT_OK : EXIT_FAILED;
}

static int run(const struct settings *settings)
{
	struct settings mine = *settings;
	struct html_report report = {0};
	struct via_error err = {0};
	char address[64], fabric[] = "ofi:tcp";
	int listen_fd;

	mine.retry = true;
	if (!mine.fabric)
		mine.fabric = fabric;
	if (via_control_listen("127.0.0.1:0", &listen_fd, &err) ||
	    via_control_listen_address(listen_fd, address, sizeof(address)) ||
	    html_report_begin(&report, mine.report, &err) || confine(&mine, CONFINE_GUEST, &err)) {
		report_error(&err);
		return EXIT_FAILED;
	}
	return run_both(&mine, listen_fd, address, &report);
}

const struct command command_demo = {
	.name = "demo",
	.summary = "migrate a running guest between two processes on this host",
	.usage = "[OPTION...]",
	.options = options,
	.run = run,
};
