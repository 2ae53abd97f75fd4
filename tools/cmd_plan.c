/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_plan.c -- viaduct plan: which fabric a migration would take and why, and how long it would
 * take, from a measurement over that fabric against the peer.
 *
 * It must leave the peer waiting for its source. Without --peer a second process of this host
 * stands in for it.
 */
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/candidates.h"
#include "tools/commands.h"
#include "tools/plan_model.h"
#include "tools/run.h"
#include "tools/trial.h"

#define MEASURE_NS   (2 * VIA_NS_PER_S)
#define MEASURE_LEN  (UINT64_C(64) << 20) /* of memory, where the guest has so much */
#define SLICE_LEN    (UINT64_C(1) << 30)
#define HANDSHAKE_NS (10 * VIA_NS_PER_S)
#define EXIT_NS      (5 * VIA_NS_PER_S)

/* clang-format off */
static const enum option_id options[] = {
	OPTION_PEER, OPTION_PSK, OPTION_PSK_IDENTITY, OPTION_TLS_CREDS, OPTION_TLS_HOSTNAME,
	OPTION_INSECURE, OPTION_FABRIC, OPTION_MEMORY, OPTION_DIRTY_RATE, OPTION_MULTIFD,
	OPTION_PREEMPT, OPTION_DOWNTIME_LIMIT, OPTION_MAX_BANDWIDTH, OPTION_MAX_ROUNDS,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

struct plan {
	struct via_inquiry inquiry;
	bool asked; /* the peer has said what it has */
	struct trial_result trial;
	struct plan_model model;
	struct plan_outcome precopy, postcopy;
	uint64_t slices;
	const char *advice;
};

/* -- the figures ---------------------------------------------------------------------------- */

static const char *advise(const struct plan *p)
{
	if (p->precopy.converges)
		return "precopy will do";
	if (plan_is_hopeless(&p->model))
		return "precopy will not converge, the guest writes faster than it is sent: use "
		       "--postcopy, more --multifd channels or another fabric";
	if (p->model.max_bandwidth && p->model.max_bandwidth < p->model.bandwidth)
		return "precopy misses the downtime limit: raise --max-bandwidth, "
		       "--downtime-limit or --max-rounds, or use --postcopy";
	return "precopy misses the downtime limit: raise --downtime-limit or --max-rounds, or use "
	       "--postcopy";
}

static int calculate(const struct settings *s, struct plan *p, struct via_error *err)
{
	const struct trial_result *t = &p->trial;

	if (!t->bytes || !t->ns)
		return via_fail(err, -ETIMEDOUT,
				"measure the fabric\nnot a byte was written in 2 s\n"
				"look at the link between the hosts");
	p->model = (struct plan_model){
		.memory = s->memory,
		.dirty_rate = s->dirty_rate,
		.bandwidth = (uint64_t)((double)t->bytes * 1e9 / (double)t->ns),
		.max_bandwidth = s->max_bandwidth,
		.downtime_limit_ns = s->downtime_ns,
		.max_rounds = (unsigned)s->max_rounds,
		.setup_ns = t->setup_ns,
		.fence_ns = t->fence_ns,
		.seal_ns = t->seal_ns,
	};
	if (!p->model.bandwidth)
		p->model.bandwidth = 1;
	plan_precopy(&p->model, &p->precopy);
	plan_postcopy(&p->model, &p->postcopy);
	p->slices = s->memory / SLICE_LEN + (s->memory % SLICE_LEN != 0);
	p->advice = advise(p);
	return 0;
}

static int make_plan(const struct settings *s, const char *address, struct plan *p,
		     struct via_error *err)
{
	struct via_session_config config = {.fabric = s->fabric,
					    .multifd = (unsigned)s->multifd,
					    .preempt = (unsigned)s->preempt,
					    .slice_len = SLICE_LEN,
					    .credentials = settings_credentials(s),
					    .handshake_ns = HANDSHAKE_NS};
	uint64_t len = s->memory < MEASURE_LEN ? s->memory : MEASURE_LEN;
	int rc = via_inquire(address, &config, -1, &p->inquiry, err);

	p->asked = p->inquiry.theirs.program[0];
	/* Nothing that is written is checked; but a peer that insists takes no other source. */
	config.integrity = p->inquiry.theirs.features & VIA_FEATURE_INTEGRITY;
	if (!rc)
		rc = trial_measure(address, &config, len, MEASURE_NS, &p->trial, err);
	return rc ? rc : calculate(s, p, err);
}

/* -- what is printed ------------------------------------------------------------------------- */

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static void print_outcome(const char *name, const struct plan_outcome *o, const char *more)
{
	char bytes[32];

	printf("%-10s %.1f s in all, the guest stands still for %.1f ms; %u round%s, %s sent%s\n",
	       name, (double)o->total_ns / 1e9, ms(o->downtime_ns), o->rounds,
	       o->rounds == 1 ? "" : "s", format_bytes(o->bytes, bytes, sizeof(bytes)), more);
}

static void print_figures(const struct settings *s, const struct plan *p)
{
	const struct trial_result *t = &p->trial;
	char memory[32], rate[32], dirty[32];

	format_bytes(s->memory, memory, sizeof(memory));
	format_bytes(p->model.bandwidth, rate, sizeof(rate));
	format_bytes(s->dirty_rate, dirty, sizeof(dirty));
	printf("fabric     %s; control %s\n", t->stats.fabric, t->stats.security);
	printf("channels   main, %u multifd, %u preempt\n", t->stats.multifd, t->stats.preempt);
	printf("memory     %s in %llu slice%s of up to 1.0 GiB, registered on both hosts: a device "
	       "pins them\n",
	       memory, (unsigned long long)p->slices, p->slices == 1 ? "" : "s");
	printf("measured   %s/s over %.1f s; fence %.0f us, seal %.1f ms, channels ready after "
	       "%.0f ms\n",
	       rate, (double)t->ns / 1e9, (double)t->fence_ns / 1e3, ms(t->seal_ns),
	       ms(t->setup_ns));
	printf("guest      %s, which writes %s%s\n", memory,
	       s->dirty_rate == UINT64_MAX ? "as fast as it can" : dirty,
	       s->dirty_rate == UINT64_MAX ? "" : "/s");
	print_outcome("precopy", &p->precopy, p->precopy.converges ? "" : " (limit missed)");
	print_outcome("postcopy", &p->postcopy, "");
	printf("advice     %s\n", p->advice);
}

static json_t *outcome_object(const struct plan_outcome *o)
{
	return json_pack("{s:b, s:I, s:I, s:f, s:f}", "within_limit", (int)o->converges, "rounds",
			 (json_int_t)o->rounds, "bytes_sent", (json_int_t)o->bytes, "total_ms",
			 ms(o->total_ns), "downtime_ms", ms(o->downtime_ns));
}

static void put_figures(json_t *root, const struct plan *p)
{
	const struct trial_result *t = &p->trial;

	json_object_set_new(root, "fabric", json_string(t->stats.fabric));
	json_object_set_new(root, "control", json_string(t->stats.security));
	json_object_set_new(root, "channels",
			    json_pack("{s:I, s:I}", "multifd", (json_int_t)t->stats.multifd,
				      "preempt", (json_int_t)t->stats.preempt));
	json_object_set_new(root, "memory",
			    json_pack("{s:I, s:I, s:I}", "bytes", (json_int_t)p->model.memory,
				      "slices", (json_int_t)p->slices, "registered_bytes",
				      (json_int_t)p->model.memory));
	json_object_set_new(root, "measured",
			    json_pack("{s:I, s:f, s:f, s:f, s:f}", "bytes_per_s",
				      (json_int_t)p->model.bandwidth, "seconds",
				      (double)t->ns / 1e9, "fence_us", (double)t->fence_ns / 1e3,
				      "seal_ms", ms(t->seal_ns), "setup_ms", ms(t->setup_ns)));
	json_object_set_new(root, "precopy", outcome_object(&p->precopy));
	json_object_set_new(root, "postcopy", outcome_object(&p->postcopy));
	json_object_set_new(root, "advice", json_string(p->advice));
}

static void print_json(const struct plan *p, const struct via_error *err)
{
	json_t *root =
		json_pack("{s:s, s:o, s:o}", "result", err->code ? "failed" : "planned", "peer",
			  p->asked ? report_text(p->inquiry.theirs.program) : json_null(),
			  "candidates", p->asked ? candidates_array(&p->inquiry) : json_array());

	if (err->code)
		json_object_set_new(root, "error", report_error_json(err));
	else
		put_figures(root, p);
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	fputc('\n', stdout);
	json_decref(root);
}

static void print_plan(const struct settings *s, const struct plan *p, const struct via_error *err)
{
	if (s->json) {
		print_json(p, err);
		return;
	}
	if (p->asked) {
		printf("candidates here and at %s (%s), best first:\n",
		       s->peer ? s->peer : "a second process", p->inquiry.theirs.program);
		candidates_print(&p->inquiry);
	}
	fflush(stdout); /* before the error */
	if (err->code)
		report_error(err);
	else
		print_figures(s, p);
}

/* -- the second process ------------------------------------------------------------------------ */

static pid_t start_destination(const struct settings *s, int listen_fd, struct via_error *err)
{
	struct settings theirs = *s;
	struct run_result result;
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		return via_fail(err, via_err_from_errno(errno),
				"start a second process\n%s\nraise ulimit -u", strerror(errno));
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_FAILED);
	theirs.quiet = true;
	run_destination(&theirs, listen_fd, &result);
	_exit(EXIT_OK);
}

static void end_destination(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	kill(pid, SIGTERM);
	if (fd < 0 || poll(&p, 1, (int)(EXIT_NS / VIA_NS_PER_MS)) != 1)
		kill(pid, SIGKILL);
	if (fd >= 0)
		close(fd);
	waitpid(pid, NULL, 0);
}

static int plan_here(const struct settings *s, struct plan *p, struct via_error *err)
{
	char address[64];
	int listen_fd, rc = via_control_listen("127.0.0.1:0", &listen_fd, err);
	pid_t pid;

	if (rc)
		return rc;
	rc = via_control_listen_address(listen_fd, address, sizeof(address));
	pid = rc ? rc : start_destination(s, listen_fd, err);
	close(listen_fd);
	if (pid < 0)
		return pid;
	rc = make_plan(s, address, p, err);
	end_destination(pid);
	return rc;
}

static int run(const struct settings *s)
{
	static struct plan plan; /* too large for a stack */
	struct via_error err = {0};
	int rc = s->peer ? make_plan(s, s->peer, &plan, &err) : plan_here(s, &plan, &err);

	print_plan(s, &plan, &err);
	return rc ? EXIT_FAILED : EXIT_OK;
}

const struct command command_plan = {
	.name = "plan",
	.summary = "say what a migration would use, and how long it would take",
	.usage = "[--peer HOST:PORT] [OPTION...]",
	.options = options,
	.more = "It asks the `viaduct receive` at --peer, and writes to it for two seconds; that\n"
		"goes on waiting for its guest. Without --peer: two processes of this host.",
	.run = run,
};
