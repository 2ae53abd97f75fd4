/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench.c -- see bench.h: takes the cases one by one, and each repeat of a case in both ways.
 *
 * It must never load a fabric's library itself: each end of each measurement is a process of its
 * own, which ends with this one.
 */
#include "bench/bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bare.h"
#include "bench/job.h"
#include "bench/report.h"

#define ADDRESS_MAX 128

/* From asking a process to end until it is killed. */
#define END_NS (2 * VIA_NS_PER_S)

struct run {
	const struct bench_options *o;
	char address[ADDRESS_MAX]; /* of the far end */
	pid_t server;              /* the process that serves it; 0: another host's */
	struct bench_report *report;
	struct bench_result *ours, *bare; /* one for each repeat; seen by the near ends too */
};

/* -- processes ----------------------------------------------------------------------------- */

/*
 * fork(2); the child ends with its parent: by a signal that libfabric takes in order to remove
 * its names of shared memory.
 */
static pid_t fork_child(struct via_error *err)
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return via_fail(err, via_err_from_errno(errno),
				"start a process\n%s\nraise ulimit -u", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static bool has_ended(int fd, uint64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int n;

	do {
		n = poll(&p, 1, via_deadline_poll_ms(deadline_ns));
	} while (n < 0 && errno == EINTR);
	return n == 1;
}

/* Wait for @pid, and end it at @deadline_ns. *status is as of waitpid(2). False: it was ended. */
static bool reap(pid_t pid, uint64_t deadline_ns, int *status)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	bool in_time = fd >= 0 && has_ended(fd, deadline_ns);

	if (!in_time)
		kill(pid, SIGTERM);
	if (!in_time && (fd < 0 || !has_ended(fd, via_deadline_in(END_NS))))
		kill(pid, SIGKILL);
	if (fd >= 0)
		close(fd);
	waitpid(pid, status, 0);
	return in_time;
}

static void be_busy(void)
{
	volatile unsigned long n = 0;

	for (;;)
		n++;
}

static int start_neighbours(unsigned n, struct via_error *err)
{
	for (unsigned i = 0; i < n; i++) {
		pid_t pid = fork_child(err);

		if (pid < 0)
			return pid;
		if (pid == 0)
			be_busy();
	}
	return 0;
}

/* One far end. Never returns. */
static void be_far(const struct bench_options *o, int listen_fd)
{
	static struct bench_result result;
	struct bench_job job = {
		.listen_fd = listen_fd, .credentials = o->credentials, .result = &result};
	struct via_error err = {0};

	if (o->listen && o->fabric)
		snprintf(job.fabric, sizeof(job.fabric), "%s", o->fabric);
	_exit(job_far(&job, &err) ? 1 : 0);
}

/* Serve far ends, one after the other, for ever. */
static int serve(const struct bench_options *o, int listen_fd, struct via_error *err)
{
	for (;;) {
		struct pollfd p = {.fd = listen_fd, .events = POLLIN};
		int status;
		pid_t pid;

		if (poll(&p, 1, -1) < 1)
			continue;
		pid = fork_child(err);
		if (pid < 0)
			return pid;
		if (pid == 0)
			be_far(o, listen_fd);
		/* It has limits of its own, which know the job. */
		(void)reap(pid, VIA_NEVER, &status);
	}
}

static int listen_here(struct run *run, struct via_error *err)
{
	int fd, rc = via_control_listen("127.0.0.1:0", &fd, err);

	if (rc)
		return rc;
	rc = via_control_listen_address(fd, run->address, sizeof(run->address));
	if (!rc)
		run->server = fork_child(err);
	if (run->server == 0 && !rc)
		_exit(serve(run->o, fd, NULL) ? 1 : 0);
	close(fd);
	return run->server < 0 ? (int)run->server : rc;
}

/* -- measurements --------------------------------------------------------------------------- */

static int near_ended(const struct bench_job *job, bool in_time, int status, struct via_error *err)
{
	const struct bench_result *r = job->result;
	char what[160];

	snprintf(what, sizeof(what), "%s, %s", job->row->name, job->bare ? "bare" : "ours");
	if (!in_time)
		return via_fail(err, -ETIMEDOUT,
				"%s\nnot done after %llu s\n"
				"try another fabric, or fewer channels",
				what, (unsigned long long)(job_limit_ns(job) / VIA_NS_PER_S));
	if (r->error.code)
		return via_fail(err, r->error.code, "%s: %.120s\n%s\n%s", what, r->error.what,
				r->error.seen[0] ? r->error.seen : via_err_text(r->error.code),
				r->error.remedy);
	if (WIFSIGNALED(status))
		return via_fail(err, -EIO,
				"%s\nits process died of signal %d (%s)\n"
				"try another fabric",
				what, WTERMSIG(status), strsignal(WTERMSIG(status)));
	return WEXITSTATUS(status) ? via_fail(err, -EIO,
					      "%s\nits process ended with %d\n"
					      "try another fabric",
					      what, WEXITSTATUS(status))
				   : 0;
}

/* One measurement: @result is filled in, in a process of its own. */
static int measure(const struct run *run, const struct bench_row *row, const struct bench_case *c,
		   const char *fabric, bool bare, struct bench_result *result,
		   struct via_error *err)
{
	struct bench_job job = {.row = row,
				.bare = bare,
				.the_case = *c,
				.run_ns = run->o->run_ns,
				.memory = run->o->memory,
				.credentials = run->o->credentials,
				.address = run->address,
				.result = result};
	bool in_time;
	int status;
	pid_t pid;

	snprintf(job.fabric, sizeof(job.fabric), "%s", fabric);
	memset(result, 0, sizeof(*result));
	pid = fork_child(err);
	if (pid < 0)
		return pid;
	if (pid == 0)
		_exit(job_near(&job, &result->error) ? 1 : 0);
	in_time = reap(pid, via_deadline_in(job_limit_ns(&job)), &status);
	return near_ended(&job, in_time, status, err);
}

/* All repeats of a case, in both ways by turns. */
static int measure_case(struct run *run, const struct bench_row *row, const struct bench_case *c,
			struct bench_cell *cell, struct via_error *err)
{
	const char *asked = run->o->fabric ? run->o->fabric : "auto";
	bool with_bare = false;
	int rc = 0;

	for (unsigned i = 0; i < run->o->repeat && !rc; i++) {
		rc = measure(run, row, c, asked, false, &run->ours[i], err);
		if (!rc && i == 0) /* now it is known what auto is */
			with_bare = bare_find(run->ours[0].fabric);
		if (!rc && with_bare)
			rc = measure(run, row, c, run->ours[0].fabric, true, &run->bare[i], err);
	}
	cell->bare = with_bare ? run->bare : NULL;
	return rc;
}

static int run_case(struct run *run, const struct bench_row *row, const struct bench_case *c,
		    struct via_error *err)
{
	struct bench_cell cell = {.row = row,
				  .the_case = c,
				  .peer = run->o->peer ? run->o->peer : "this host",
				  .n = run->o->repeat,
				  .ours = run->ours};
	struct via_error why = {0};
	char text[256];
	int rc = measure_case(run, row, c, &cell, &why);

	if (rc == -EOPNOTSUPP) {
		report_skipped(run->report, row, c, &why);
		return 0;
	}
	if (rc)
		return via_error_pass(err, &why);
	cell.bare_is = cell.bare ? row->bare_is(c, run->ours[0].fabric, text, sizeof(text))
				 : "none: this build is without the fabric's library";
	report_cell(run->report, &cell);
	return 0;
}

/* -- what was asked for ------------------------------------------------------------------------ */

/* Does @c have what @only ("size=4096,channels=1") asks for? What it lacks is no match. */
static bool is_wanted(const struct bench_case *c, const char *only)
{
	while (only && *only) {
		size_t name = strcspn(only, "=");
		const struct bench_param *p = c->param;
		char *end;
		unsigned long long value;

		while (p->name && (strlen(p->name) != name || memcmp(p->name, only, name)))
			p++;
		if (!p->name || !only[name])
			return false;
		value = strtoull(only + name + 1, &end, 10);
		if (value != p->value || (*end && *end != ','))
			return false;
		only = *end ? end + 1 : end;
	}
	return true;
}

static bool row_is_wanted(const struct bench_row *row, const char *name)
{
	return !strcmp(name, row->name) || !strcmp(name, "all");
}

static int check_wanted(const struct bench_options *o, struct via_error *err)
{
	unsigned nrows = 0, ncases = 0;

	for (unsigned i = 0; bench_rows[i]; i++) {
		if (!row_is_wanted(bench_rows[i], o->row))
			continue;
		nrows++;
		for (unsigned k = 0; k < bench_rows[i]->ncases; k++)
			ncases += is_wanted(&bench_rows[i]->cases[k], o->only);
	}
	if (!nrows)
		return via_fail(err, -EINVAL, "bench %s\nno such row\nsee `viaduct bench list`",
				o->row);
	if (!ncases)
		return via_fail(err, -EINVAL,
				"bench %s\nno case with %s\n"
				"see `viaduct bench list`, and write NAME=NUMBER[,NAME=NUMBER...]",
				o->row, o->only);
	return 0;
}

static void list_rows(void)
{
	for (unsigned i = 0; bench_rows[i]; i++) {
		const struct bench_row *row = bench_rows[i];
		char text[128];

		printf("%s (%s)\n  %s\n", row->name, row->unit, row->summary);
		for (unsigned k = 0; k < row->ncases; k++)
			printf("    %s\n", bench_case_text(&row->cases[k], text, sizeof(text)));
	}
}

static int run_rows(struct run *run, struct via_error *err)
{
	int rc = 0;

	for (unsigned i = 0; bench_rows[i] && !rc; i++) {
		const struct bench_row *row = bench_rows[i];

		if (!row_is_wanted(row, run->o->row))
			continue;
		for (unsigned k = 0; k < row->ncases && !rc; k++)
			if (is_wanted(&row->cases[k], run->o->only))
				rc = run_case(run, row, &row->cases[k], err);
	}
	return rc;
}

static int serve_here(const struct bench_options *o, struct via_error *err)
{
	char address[ADDRESS_MAX];
	int fd, rc = via_control_listen(o->listen, &fd, err);

	if (rc)
		return rc;
	if (!via_control_listen_address(fd, address, sizeof(address)))
		fprintf(stderr, "viaduct: listening on %s\n", address);
	rc = start_neighbours(o->neighbours, err);
	if (!rc)
		rc = serve(o, fd, err);
	close(fd);
	return rc;
}

static int run_all(struct run *run, struct via_error *err)
{
	size_t len = run->o->repeat * sizeof(struct bench_result);
	int status, rc;

	run->ours = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	run->report = report_new(run->o);
	if (run->ours == MAP_FAILED || !run->report)
		return via_fail(err, -ENOMEM, "start a benchmark\nout of memory\nfree some");
	run->bare = run->ours + run->o->repeat;
	rc = run->o->peer ? 0 : listen_here(run, err);
	if (!rc)
		rc = start_neighbours(run->o->neighbours, err);
	if (!rc)
		rc = run_rows(run, err);
	report_end(run->report);
	if (run->server > 0)
		(void)reap(run->server, 0, &status);
	munmap(run->ours, 2 * len);
	return rc;
}

int bench_run(const struct bench_options *o, struct via_error *err)
{
	struct run run = {.o = o};
	int rc;

	/* Of this process, which has nothing to clean up, they mean what they say. */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	if (o->listen)
		return serve_here(o, err);
	if (!strcmp(o->row, "list")) {
		list_rows();
		return 0;
	}
	rc = check_wanted(o, err);
	if (rc)
		return rc;
	if (o->peer)
		snprintf(run.address, sizeof(run.address), "%s", o->peer);
	return run_all(&run, err);
}
