/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * scatter.c -- pages here and there in a large region, one of eight, as a guest that writes
 * at random leaves them to precopy.
 *
 * Ours: the same dirty bitmap in each round, through the engine's own work for its senders, which
 * takes the bits and looks for zero pages. Bare: the same pages in the same order.
 */
#include <stdlib.h>

#include "bench/bare.h"
#include "migrate/dirty_work.h"

#define MEMORY_LEN (UINT64_C(512) << 20)
#define PAGE_SIZE  UINT64_C(4096)
#define GROUP      8u /* pages, of which one is dirty, and never the last: so none are neighbours */
#define SEED       UINT64_C(0x9e3779b97f4a7c15)

/* clang-format off */
static const struct bench_case cases[] = {
	{{{"size", PAGE_SIZE}, {"channels", 1}}}, {{{"size", PAGE_SIZE}, {"channels", 2}}},
	{{{"size", PAGE_SIZE}, {"channels", 4}}},
};
/* clang-format on */

static uint64_t memory_len(const struct bench_job *job)
{
	uint64_t len = job->memory ? job->memory : MEMORY_LEN, group = GROUP * PAGE_SIZE;

	return len < group ? group : len - len % group;
}

/* The offsets of the dirty pages; *n of them. NULL: no memory. */
static uint64_t *scattered(uint64_t len, size_t *n)
{
	uint64_t state = SEED, *off;

	*n = (size_t)(len / PAGE_SIZE / GROUP);
	off = calloc(*n, sizeof(*off));
	for (size_t i = 0; off && i < *n; i++) {
		state = state * UINT64_C(6364136223846793005) + 1;
		off[i] = (i * GROUP + (state >> 33) % (GROUP - 1)) * PAGE_SIZE;
	}
	return off;
}

struct dirty {
	struct dirty_work *work;
	const uint64_t *off;
	size_t n;
};

static const struct via_work *begin(void *arg, uint64_t *bytes)
{
	struct dirty *d = arg;
	struct via_bitmap *bitmap = dirty_work_bitmap(d->work, 0);

	for (size_t i = 0; i < d->n; i++)
		via_bitmap_set(bitmap, d->off[i] / PAGE_SIZE, 1);
	*bytes = d->n * PAGE_SIZE;
	return dirty_work_begin(d->work, false);
}

static int no_memory(struct via_error *err)
{
	return via_fail(err, -ENOMEM, "measure writes\nout of memory\nask for less with --memory");
}

static int ours_near(struct bench_job *job, struct via_error *err)
{
	struct via_guest_region region = {
		.name = "ram", .len = memory_len(job), .page_size = (uint32_t)PAGE_SIZE};
	struct dirty d = {0};
	uint64_t *off = scattered(region.len, &d.n);
	int rc;

	region.addr = bench_memory(region.len);
	d.off = off;
	if (!off || !region.addr)
		return no_memory(err);
	rc = dirty_work_new(&region, 1, bench_channels(job), &d.work, err);
	if (!rc)
		rc = bench_write_rounds(job, region.addr, region.len, begin, &d, err);
	dirty_work_free(d.work);
	free(off);
	return rc;
}

/* -- bare ------------------------------------------------------------------------------------- */

static int bare_near(struct bench_job *job, struct via_error *err)
{
	uint64_t len = memory_len(job), *off;
	size_t n;
	int rc;

	off = scattered(len, &n);
	if (!off)
		return no_memory(err);
	rc = bare_write_rounds(job, bench_memory(len), len, off, n, PAGE_SIZE, err);
	free(off);
	return rc;
}

static int bare_far(struct bench_job *job, struct via_error *err)
{
	return bare_be_written(job, memory_len(job), bench_channels(job), err);
}

const struct bench_row bench_scatter = {
	.name = "scatter",
	.summary = "one-sided writes of pages here and there, as precopy posts them",
	.unit = "GiB/s",
	.higher_is_better = true,
	.cases = cases,
	.ncases = sizeof(cases) / sizeof(cases[0]),
	.ours = {ours_near, bench_be_written},
	.bare = {bare_near, bare_far},
	.bare_is = bare_writes_is,
};
