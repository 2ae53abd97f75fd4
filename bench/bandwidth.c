/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bandwidth.c -- one-sided writes of memory, one after the other from its beginning to its end, in
 * pieces of one size.
 *
 * Ours: rounds of a session, as precopy makes them, each with its fence at the end; the senders cut
 * a piece above 1 MiB in parts. Bare: the same pieces of the same memory, and one wait at the end
 * until all has arrived.
 */
#include <stdlib.h>

#include "bench/bare.h"

#define MEMORY_LEN (UINT64_C(256) << 20)
#define BATCH_LEN  (UINT64_C(1) << 20)

/* clang-format off */
#define KIB(n)     ((uint64_t)(n) << 10)
#define CASE(s, c) {{{"size", s}, {"channels", c}}}

static const struct bench_case cases[] = {
	CASE(KIB(4), 1), CASE(KIB(8), 1), CASE(KIB(16), 1), CASE(KIB(32), 1), CASE(KIB(64), 1),
	CASE(KIB(128), 1), CASE(KIB(256), 1), CASE(KIB(512), 1), CASE(KIB(1024), 1),
	CASE(KIB(2048), 1), CASE(KIB(4096), 1), CASE(KIB(8192), 1),
	CASE(KIB(1024), 2), CASE(KIB(1024), 4), CASE(KIB(1024), 8), CASE(KIB(1024), 16),
};
/* clang-format on */

/* A multiple of the size. */
static uint64_t memory_len(const struct bench_job *job)
{
	uint64_t size = bench_param(&job->the_case, "size");
	uint64_t len = job->memory ? job->memory : MEMORY_LEN;

	return len < size ? size : len - len % size;
}

/* -- ours ------------------------------------------------------------------------------- */

struct sequence {
	struct via_work work;
	_Atomic uint64_t next;
	uint64_t len, size;
};

static int next_batch(void *arg, unsigned channel, struct via_batch *batch)
{
	struct sequence *s = arg;
	uint64_t n = s->size < BATCH_LEN ? BATCH_LEN / s->size : 1, off;

	(void)channel;
	if (n > VIA_BATCH_RUNS)
		n = VIA_BATCH_RUNS;
	off = atomic_fetch_add(&s->next, n * s->size);
	while (off < s->len && batch->nruns < n) {
		batch->run[batch->nruns++] = (struct via_run){.off = off, .len = s->size};
		off += s->size;
	}
	return batch->nruns ? 1 : 0;
}

static const struct via_work *begin(void *arg, uint64_t *bytes)
{
	struct sequence *s = arg;

	atomic_store(&s->next, 0);
	*bytes = s->len;
	return &s->work;
}

static int ours_near(struct bench_job *job, struct via_error *err)
{
	struct sequence s = {.work = {.arg = &s, .next = next_batch},
			     .len = memory_len(job),
			     .size = bench_param(&job->the_case, "size")};

	return bench_write_rounds(job, bench_memory(s.len), s.len, begin, &s, err);
}

/* -- bare ------------------------------------------------------------------------------------- */

static int bare_near(struct bench_job *job, struct via_error *err)
{
	size_t size = bench_param(&job->the_case, "size"), len = memory_len(job), n = len / size;
	uint64_t *off = bare_offsets(n, size);
	int rc = bare_write_rounds(job, bench_memory(len), len, off, n, size, err);

	free(off);
	return rc;
}

static int bare_far(struct bench_job *job, struct via_error *err)
{
	return bare_be_written(job, memory_len(job), bench_channels(job), err);
}

const struct bench_row bench_bandwidth = {
	.name = "bandwidth",
	.summary = "one-sided writes, by size and number of channels",
	.unit = "GiB/s",
	.higher_is_better = true,
	.cases = cases,
	.ncases = sizeof(cases) / sizeof(cases[0]),
	.ours = {ours_near, bench_be_written},
	.bare = {bare_near, bare_far},
	.bare_is = bare_writes_is,
};
