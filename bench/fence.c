/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fence.c -- how long it takes until the destination has everything, and this side knows.
 *
 * full=0: with nothing in flight. Ours: a round without work, over all channels. Bare: a small
 * message there and one back, spinning, or asleep as our ends are.
 * full=1: with queues that have just been filled, from the first post on. Both write the same.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bare.h"

#define WRITE_LEN (UINT64_C(1) << 20)
#define WRITES    16u /* on each channel, where the queues are full */
#define WARM      20u

/* clang-format off */
#define CASE(n, full, sleeps) {{{"channels", n}, {"full", full}, {"bare_sleeps", sleeps}}}

static const struct bench_case cases[] = {
	CASE(1, 0, 0), CASE(1, 0, 1), CASE(2, 0, 1), CASE(4, 0, 1), CASE(8, 0, 1), CASE(16, 0, 1),
	CASE(1, 1, 0), CASE(2, 1, 0), CASE(4, 1, 0), CASE(8, 1, 0), CASE(16, 1, 0),
};
/* clang-format on */

static size_t memory_len(const struct bench_job *job)
{
	return bench_channels(job) * WRITES * WRITE_LEN;
}

/* Each channel writes its own part, at once. */
struct filling {
	struct via_work work;
	unsigned channels;
	bool done[VIA_MULTIFD_MAX];
};

static int next_batch(void *arg, unsigned channel, struct via_batch *batch)
{
	struct filling *f = arg;

	if (f->done[channel])
		return 0;
	f->done[channel] = true;
	for (unsigned i = 0; i < WRITES; i++)
		batch->run[batch->nruns++] = (struct via_run){
			.off = (channel * WRITES + i) * WRITE_LEN, .len = WRITE_LEN};
	return 1;
}

static const struct via_work *begin(struct filling *f, bool full)
{
	for (unsigned i = 0; i < f->channels; i++)
		f->done[i] = false;
	return full ? &f->work : NULL;
}

static int fence_once(struct bench_job *job, struct via_session *session, struct filling *f,
		      struct via_error *err)
{
	bool full = bench_param(&job->the_case, "full");
	uint64_t start = via_now_ns();
	int rc = via_round_start(session, begin(f, full), err);

	if (!rc)
		rc = via_round_drain(session, VIA_NEVER, err);
	via_hist_add(&job->result->latency_ns, via_now_ns() - start);
	return rc;
}

static int fence_for_a_while(struct bench_job *job, struct via_session *session,
			     struct via_error *err)
{
	struct filling f = {.work = {.arg = &f, .next = next_batch},
			    .channels = bench_channels(job)};
	struct via_session_stats stats;
	uint64_t deadline;
	int rc = 0;

	for (unsigned i = 0; i < WARM && !rc; i++)
		rc = fence_once(job, session, &f, err);
	via_hist_init(&job->result->latency_ns);
	if (!rc)
		rc = bench_begin(job, err);
	for (deadline = via_deadline_in(job->run_ns); !rc && !via_deadline_passed(deadline);)
		rc = fence_once(job, session, &f, err);
	if (!rc)
		rc = bench_end(job, err);
	via_session_stats(session, &stats);
	/* Without the way from here to the senders. */
	bench_extra(job, "last_fence_us", (double)via_hist_permille(&stats.drain_ns, 500) / 1e3);
	return rc;
}

static int ours_near(struct bench_job *job, struct via_error *err)
{
	size_t len = memory_len(job);
	struct via_session *session;
	int rc = bench_open_senders(job, bench_memory(len), len, &session, err);

	if (rc)
		return rc;
	rc = fence_for_a_while(job, session, err);
	if (!rc)
		rc = bench_stop(job, err);
	via_session_close(session);
	return rc;
}

/* -- bare ------------------------------------------------------------------------------------ */

static const char *bare_is(const struct bench_case *c, const char *fabric, char *buf, size_t cap)
{
	const struct bare_ops *ops = bare_find(fabric);

	if (bench_param(c, "full"))
		snprintf(buf, cap, "%s, then wait for all, spinning", ops->writes);
	else
		snprintf(buf, cap, "%s: %u bytes there and back, %s", ops->sends, BARE_REQUEST_LEN,
			 bench_param(c, "bare_sleeps") ? "asleep" : "spinning");
	return buf;
}

static int meet(struct bench_job *job, const struct bare_ops **ops, struct bare **b,
		struct via_error *err)
{
	size_t len = memory_len(job);

	return bare_meet(job, bench_memory(len), len, bench_channels(job),
			 bench_param(&job->the_case, "bare_sleeps"), ops, b, err);
}

static void bare_once(struct bench_job *job, const struct bare_ops *ops, struct bare *b,
		      const uint64_t *off, size_t n)
{
	uint64_t start = via_now_ns();

	if (bench_param(&job->the_case, "full")) {
		ops->write(b, off, n, WRITE_LEN);
		ops->flush(b);
	} else {
		ops->ask(b);
	}
	via_hist_add(&job->result->latency_ns, via_now_ns() - start);
}

static int bare_near(struct bench_job *job, struct via_error *err)
{
	size_t len = memory_len(job), n = len / WRITE_LEN;
	uint64_t *off = bare_offsets(n, WRITE_LEN), deadline;
	const struct bare_ops *ops;
	struct bare *b;
	int rc = meet(job, &ops, &b, err);

	if (!rc)
		rc = bench_wait_ready(job, err);
	if (rc)
		return rc;
	for (unsigned i = 0; i < WARM; i++)
		bare_once(job, ops, b, off, n);
	via_hist_init(&job->result->latency_ns);
	rc = bench_begin(job, err);
	for (deadline = via_deadline_in(job->run_ns); !via_deadline_passed(deadline);)
		bare_once(job, ops, b, off, n);
	if (!rc)
		rc = bench_end(job, err);
	free(off);
	return rc ? rc : bare_part(job, ops, b, err);
}

static int bare_far(struct bench_job *job, struct via_error *err)
{
	const struct bare_ops *ops;
	struct bare *b;
	int rc = meet(job, &ops, &b, err);

	if (!rc)
		rc = bench_ready(job, err);
	if (rc)
		return rc;
	while (!bench_stopped(job))
		ops->answer(b, BARE_REQUEST_LEN);
	return bare_part(job, ops, b, err);
}

const struct bench_row bench_fence = {
	.name = "fence",
	.summary = "from the last write posted until all is known to be there",
	.unit = "us",
	.cases = cases,
	.ncases = sizeof(cases) / sizeof(cases[0]),
	.ours = {ours_near, bench_be_written},
	.bare = {bare_near, bare_far},
	.bare_is = bare_is,
};
