/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * setup.c -- what comes before the first byte, in processes that have not used the fabric yet.
 *
 * channels=N: ours from no connection at all to N multifd channels and main that are ready: control
 * connection, handshake, fabric, channels. Bare: the library opened, addresses swapped over a
 * connection that is there, and a first write on each of N endpoints that has arrived.
 * mib=N: ours registers so much memory in slices, for the peer to write, as a destination does;
 * bare registers the same pieces. huge=1: memory of huge pages.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/bare.h"
#include "fabrics/fabric.h"

#define SMALL_LEN ((size_t)1 << 20)

/* clang-format off */
#define CHANNELS(n)          {{{"channels", n}}}
/* @s divides @m. */
#define REGISTER(m, s, huge) {{{"mib", m}, {"slice_mib", s}, {"huge", huge}}}

static const struct bench_case cases[] = {
	CHANNELS(1), CHANNELS(4), CHANNELS(16),
	REGISTER(1024, 64, 0), REGISTER(1024, 1024, 0), REGISTER(4096, 1024, 0),
	REGISTER(1024, 1024, 1),
};
/* clang-format on */

static bool registers(const struct bench_job *job)
{
	return bench_has_param(&job->the_case, "mib");
}

static void set_ms(struct bench_job *job, uint64_t since_ns)
{
	job->result->value = (double)(via_now_ns() - since_ns) / 1e6;
}

/* -- memory ---------------------------------------------------------------------------------- */

static int get_memory(struct bench_job *job, uint8_t **memory, size_t *len, struct via_error *err)
{
	bool huge = bench_param(&job->the_case, "huge");

	*len = bench_param(&job->the_case, "mib") << 20;
	if (!huge) {
		*memory = bench_memory(*len);
		return *memory ? 0
			       : via_fail(err, -EOPNOTSUPP,
					  "measure registration\nno %zu bytes of memory\nfree some",
					  *len);
	}
	*memory = mmap(NULL, *len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (*memory == MAP_FAILED)
		return via_fail(err, -EOPNOTSUPP,
				"measure registration\nno %zu bytes of huge pages\n"
				"reserve them: sysctl vm.nr_hugepages=%zu",
				*len, *len >> 21);
	memset(*memory, 0x5a, *len);
	return 0;
}

static int register_ours(struct bench_job *job, struct via_fabric *fab, uint8_t *memory, size_t len,
			 struct via_error *err)
{
	size_t slice = bench_param(&job->the_case, "slice_mib") << 20;
	uint64_t start = via_now_ns();
	struct via_mr *mr;
	int rc = 0;

	for (size_t off = 0; off < len && !rc; off += slice)
		rc = fab->ops->mr_reg(fab, memory + off, slice, VIA_MR_REMOTE_WRITE, &mr, err);
	set_ms(job, start);
	return rc;
}

static int measure_ours(struct bench_job *job, struct via_error *err)
{
	struct via_fabric_spec spec;
	struct via_fabric *fab;
	uint8_t *memory;
	size_t len;
	int rc = strcmp(job->fabric, "auto") != 0
			 ? bench_fabric_spec(job, &spec, err)
			 : via_fail(err, -EOPNOTSUPP,
				    "measure registration\nauto is no fabric\n"
				    "name one with --fabric");

	if (!rc)
		rc = get_memory(job, &memory, &len, err);
	if (!rc)
		rc = via_fabric_open(&spec, &fab, err);
	snprintf(job->result->fabric, sizeof(job->result->fabric), "%s", job->fabric);
	return rc ? rc : register_ours(job, fab, memory, len, err);
}

static int measure_bare(struct bench_job *job, struct via_error *err)
{
	size_t slice = bench_param(&job->the_case, "slice_mib") << 20, len;
	const struct bare_ops *ops = bare_find(job->fabric);
	struct via_fabric_spec spec;
	struct bare_config config = {.spec = &spec,
				     .near = true,
				     .memory = bench_memory(SMALL_LEN),
				     .len = SMALL_LEN,
				     .endpoints = 1};
	uint64_t start;
	uint8_t *memory;
	struct bare *b;
	int rc = bench_fabric_spec(job, &spec, err);

	if (!rc)
		rc = get_memory(job, &memory, &len, err);
	if (rc)
		return rc;
	b = ops->open(&config);
	start = via_now_ns();
	for (size_t off = 0; off < len; off += slice)
		ops->add_memory(b, memory + off, slice);
	set_ms(job, start);
	return 0; /* it ends with everything registered, as ours does */
}

/* -- connections --------------------------------------------------------------------------- */

static int connect_ours(struct bench_job *job, struct via_error *err)
{
	struct via_session_config config = bench_session_config(job, bench_channels(job), 0);
	void *memory = bench_memory(SMALL_LEN);
	struct via_session *session = NULL;
	uint64_t start = via_now_ns();
	int rc = bench_connect(job, &config, memory, SMALL_LEN, &session, err);

	bench_extra(job, "session_ms", (double)(via_now_ns() - start) / 1e6);
	if (!rc)
		rc = via_session_open_channels(session, err);
	set_ms(job, start);
	if (!rc)
		rc = bench_wait_ready(job, err);
	if (!rc)
		rc = bench_stop(job, err);
	via_session_close(session);
	return rc;
}

static int connect_bare(struct bench_job *job, struct via_error *err)
{
	void *memory = bench_memory(SMALL_LEN);
	uint64_t start = via_now_ns();
	const struct bare_ops *ops;
	struct bare *b;
	int rc = bare_meet(job, memory, SMALL_LEN, bench_channels(job), false, &ops, &b, err);

	if (rc)
		return rc;
	ops->flush(b);
	set_ms(job, start);
	rc = bench_wait_ready(job, err);
	return rc ? rc : bare_part(job, ops, b, err);
}

/* -- the ends --------------------------------------------------------------------------------- */

static int stop_idle_far(struct bench_job *job, int rc, struct via_error *err)
{
	if (!rc)
		rc = bench_wait_ready(job, err);
	return rc ? rc : bench_stop(job, err);
}

static int ours_near(struct bench_job *job, struct via_error *err)
{
	return registers(job) ? stop_idle_far(job, measure_ours(job, err), err)
			      : connect_ours(job, err);
}

static int bare_near(struct bench_job *job, struct via_error *err)
{
	return registers(job) ? stop_idle_far(job, measure_bare(job, err), err)
			      : connect_bare(job, err);
}

/* It has nothing to do where the near end registers memory. */
static int be_idle(struct bench_job *job, struct via_error *err)
{
	int rc = bench_ready(job, err);

	if (!rc)
		bench_wait_stopped(job);
	return rc;
}

static int ours_far(struct bench_job *job, struct via_error *err)
{
	return registers(job) ? be_idle(job, err) : bench_be_written(job, err);
}

static int bare_far(struct bench_job *job, struct via_error *err)
{
	return registers(job) ? be_idle(job, err)
			      : bare_be_written(job, SMALL_LEN, bench_channels(job), err);
}

static const char *bare_is(const struct bench_case *c, const char *fabric, char *buf, size_t cap)
{
	if (bench_has_param(c, "mib"))
		snprintf(buf, cap, "%s registers the same pieces", bare_find(fabric)->library);
	else
		snprintf(buf, cap, "%s opened, addresses swapped, and a first write on each",
			 bare_find(fabric)->library);
	return buf;
}

const struct bench_row bench_setup = {
	.name = "setup",
	.summary = "what comes before the first byte: connect, open channels, register; cold",
	.unit = "ms",
	.cases = cases,
	.ncases = sizeof(cases) / sizeof(cases[0]),
	.ours = {ours_near, ours_far},
	.bare = {bare_near, bare_far},
	.bare_is = bare_is,
};
