/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * migrate.c -- whole migrations of the demo guest by the engine: idle and writing, small and
 * large, precopy and postcopy.
 *
 * Both guests' memory has been touched before, and after the timed part the destination checks
 * every page: a figure of a migration that lost one is never printed. What the guest's vCPUs use
 * is no cost of the migration and is taken out.
 *
 * GiB/s counts what was written to the destination, in the time from the first round on, the last
 * one and the switch-over included; setting up channels is a figure of its own. Bare: as many
 * bytes, from memory of the same size, in writes of 1 MiB.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/bare.h"
#include "demo/demo_guest.h"
#include "migrate/migrate.h"

#define MIB(n)        ((uint64_t)(n) << 20)
#define BARE_SIZE     MIB(1)
#define VCPUS         2u
#define SEED          1u
#define SAMPLE_NS     (10 * VIA_NS_PER_MS)
#define REPORT_NS     (60 * VIA_NS_PER_S)
#define REPORT_FIELDS 2u /* CPU time of the engine in ns, its memory in bytes */

/* clang-format off */
#define CASE(mem, rate, n, post) \
	{{{"mib", mem}, {"dirty_mib_s", rate}, {"channels", n}, {"postcopy", post}}}

static const struct bench_case cases[] = {
	CASE(64, 0, 2, 0), CASE(256, 0, 2, 0), CASE(1024, 0, 2, 0), CASE(2048, 0, 2, 0),
	CASE(4096, 0, 2, 0), CASE(8192, 0, 2, 0),
	CASE(2048, 0, 1, 0), CASE(2048, 0, 4, 0), CASE(2048, 0, 16, 0), CASE(256, 0, 16, 0),
	CASE(1024, 50, 2, 0), CASE(1024, 200, 2, 0), CASE(1024, 800, 2, 0),
	CASE(1024, 50, 2, 1), CASE(1024, 200, 2, 1), CASE(1024, 800, 2, 1),
};
/* clang-format on */

/* -- what one end costs -------------------------------------------------------------------- */

struct cost {
	uint64_t cpu_ns; /* without the guest's */
	uint64_t memory; /* bytes resident */
};

/* A line of /proc/self/status, in bytes; 0: not there. */
static uint64_t status_bytes(const char *name)
{
	unsigned long long kib = 0;
	size_t len = strlen(name);
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && sscanf(line + len, ": %llu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return (uint64_t)kib << 10;
}

/* From now on VmHWM is the highest since now. */
static void forget_peak(void)
{
	FILE *f = fopen("/proc/self/clear_refs", "we");

	if (!f)
		return;
	fputs("5", f);
	fclose(f);
}

static uint64_t memory_len(const struct bench_job *job)
{
	return MIB(bench_param(&job->the_case, "mib"));
}

static uint64_t engine_cpu_ns(const struct demo_guest *guest)
{
	return bench_cpu_ns() - demo_guest_cpu_ns(guest);
}

/* -- near ------------------------------------------------------------------------------------ */

static void sample(void *arg, const struct via_progress *p)
{
	struct bench_result *r = arg;

	if (r->nsamples == BENCH_SAMPLES_MAX)
		return;
	r->sample[r->nsamples++] = (struct bench_sample){
		.value = {(double)p->elapsed_ns / 1e6, (double)p->phase, (double)p->round,
			  (double)p->remaining / BENCH_GIB, (double)p->rate / BENCH_GIB,
			  (double)p->dirty_rate / BENCH_GIB}};
}

static struct via_migrate_config migrate_config(const struct bench_job *job)
{
	return (struct via_migrate_config){
		.postcopy_after = (unsigned)bench_param(&job->the_case, "postcopy"),
		.interval_ns = SAMPLE_NS,
		.progress = job->far ? NULL : sample,
		.progress_arg = job->result,
	};
}

static void note(struct bench_job *job, const struct via_migrate_result *m)
{
	struct bench_result *r = job->result;
	uint64_t rounds_ns = m->total_ns - m->setup_ns;

	r->bytes = m->bytes_sent;
	r->value = (double)m->bytes_sent / BENCH_GIB / ((double)rounds_ns / 1e9);
	bench_extra(job, "total_ms", (double)m->total_ns / 1e6);
	bench_extra(job, "setup_ms", (double)m->setup_ns / 1e6);
	bench_extra(job, "downtime_ms", (double)m->downtime_ns / 1e6);
	bench_extra(job, "rounds", m->rounds);
	bench_extra(job, "bytes_sent", (double)m->bytes_sent);
	bench_extra(job, "zero_pages", (double)m->zero_pages);
	bench_extra(job, "dirty_fetch_percent",
		    100 * (double)m->dirty_fetch_ns / (double)rounds_ns);
	if (m->postcopy.used)
		bench_extra(job, "requests", (double)m->postcopy.requests);
}

/* The far end's verdict on the guest, and what the migration has cost there. */
static int take_report(struct bench_job *job, struct via_session *session, struct via_error *err)
{
	uint64_t field[REPORT_FIELDS];
	size_t len;
	void *report;
	int rc = via_migrate_get_report(session, via_deadline_in(REPORT_NS), &report, &len, err);

	if (rc)
		return rc;
	if (len != sizeof(field))
		rc = via_fail(err, -EPROTO,
			      "hear of the far end\na report of %zu bytes\n"
			      "have the same version there",
			      len);
	else
		memcpy(field, report, sizeof(field));
	free(report);
	if (rc)
		return rc;
	job->result->far_cpu_ns = field[0];
	bench_extra(job, "far_memory_mib", (double)field[1] / (double)MIB(1));
	return 0;
}

static int migrate_from(struct bench_job *job, struct via_session **session,
			struct demo_guest *guest, uint64_t memory, struct via_error *err)
{
	struct via_migrate_config config = migrate_config(job);
	struct via_migrate_result m;
	uint64_t cpu_ns;
	int rc = bench_begin(job, err);

	cpu_ns = engine_cpu_ns(guest);
	if (!rc)
		rc = via_migrate_source(session, demo_guest_source(guest), &config, &m, err);
	cpu_ns = engine_cpu_ns(guest) - cpu_ns;
	if (!rc)
		rc = bench_end(job, err);
	if (rc)
		return rc;
	job->result->near_cpu_ns = cpu_ns;
	note(job, &m);
	bench_extra(job, "near_memory_mib",
		    ((double)status_bytes("VmHWM") - (double)memory) / (double)MIB(1));
	return take_report(job, *session, err);
}

static int make_guest(const struct bench_job *job, struct demo_guest **guest, struct via_error *err)
{
	uint64_t rate = MIB(bench_param(&job->the_case, "dirty_mib_s"));
	struct demo_guest_config config = {.memory = memory_len(job),
					   .vcpus = rate ? VCPUS : 0,
					   .dirty_rate = rate,
					   .seed = SEED};
	const struct via_guest_region *ram;
	int rc = demo_guest_new(&config, guest, err);

	if (rc)
		return rc;
	ram = demo_guest_source(*guest)->region;
	(void)madvise(ram->addr, ram->len, MADV_POPULATE_WRITE);
	return demo_guest_start(*guest, err);
}

static int ours_near(struct bench_job *job, struct via_error *err)
{
	bool postcopy = bench_param(&job->the_case, "postcopy");
	struct via_session_config config =
		bench_session_config(job, bench_channels(job), postcopy ? VCPUS : 0);
	struct via_session *session = NULL;
	struct demo_guest *guest;
	uint64_t memory, begun;
	int rc = make_guest(job, &guest, err);

	if (rc)
		return rc;
	forget_peak();
	memory = status_bytes("VmRSS");
	begun = via_now_ns();
	rc = via_migrate_connect(job->address, &config, demo_guest_source(guest), -1, &session,
				 err);
	bench_extra(job, "connect_ms", (double)(via_now_ns() - begun) / 1e6);
	if (!rc)
		rc = bench_wait_ready(job, err);
	if (!rc) {
		bench_note_fabric(job, session);
		rc = migrate_from(job, &session, guest, memory, err);
	}
	if (!rc)
		rc = bench_stop(job, err);
	via_session_close(session);
	demo_guest_free(guest);
	return rc;
}

/* -- far --------------------------------------------------------------------------------- */

static int verify(struct demo_guest *guest, struct via_error *err)
{
	struct demo_verify v;

	demo_guest_verify(guest, &v);
	if (!v.missing && !v.stale && !v.torn)
		return 0;
	return via_fail(err, -EBADMSG,
			"migrate a guest\nof %llu pages %llu are missing, %llu stale, %llu torn\n"
			"report this: it is an error of viaduct",
			(unsigned long long)v.pages, (unsigned long long)v.missing,
			(unsigned long long)v.stale, (unsigned long long)v.torn);
}

static int migrate_to(struct bench_job *job, struct via_session **session, struct demo_guest *guest,
		      uint64_t memory, struct via_error *err)
{
	uint64_t report[REPORT_FIELDS], cpu_ns = engine_cpu_ns(guest);
	struct via_migrate_config config = migrate_config(job);
	struct via_migrate_result m;
	int rc = via_migrate_destination(session, demo_guest_destination(guest), &config, &m, err);

	report[0] = engine_cpu_ns(guest) - cpu_ns;
	report[1] = status_bytes("VmHWM") - memory - demo_guest_get_config(guest)->memory;
	demo_guest_stop(guest);
	if (!rc)
		rc = verify(guest, err);
	if (rc)
		return rc;
	if (m.postcopy.used)
		demo_guest_fault_hist(guest, &job->result->latency_ns);
	return via_migrate_send_report(*session, report, sizeof(report), err);
}

static int ours_far(struct bench_job *job, struct via_error *err)
{
	struct via_session_config config = bench_session_config(job, 0, 0);
	struct via_wait wait = {via_deadline_in(BENCH_STEP_NS), -1};
	struct via_session *session = NULL;
	struct demo_guest *guest;
	uint64_t memory = status_bytes("VmRSS");
	int rc = demo_guest_new_empty(&guest, err);

	if (rc)
		return rc;
	rc = via_migrate_accept(job->listen_fd, &config, demo_guest_destination(guest), &wait,
				&session, err);
	if (!rc)
		rc = bench_ready(job, err);
	if (!rc)
		rc = migrate_to(job, &session, guest, memory, err);
	if (!rc)
		rc = bench_serve(job, session, err);
	via_session_close(session);
	demo_guest_free(guest);
	return rc;
}

/* -- bare ------------------------------------------------------------------------------------- */

static const char *bare_is(const struct bench_case *c, const char *fabric, char *buf, size_t cap)
{
	(void)c;
	snprintf(buf, cap, "%s, 1 MiB each, one endpoint, spinning", bare_find(fabric)->writes);
	return buf;
}

/* Three quarters of the memory: what an idle guest has written. */
static int bare_near(struct bench_job *job, struct via_error *err)
{
	size_t len = memory_len(job), n = len / BARE_SIZE * 3 / 4;
	uint64_t *off = bare_offsets(n, BARE_SIZE);
	const struct bare_ops *ops;
	struct bare *b;
	int rc = bare_meet(job, bench_memory(len), len, 1, false, &ops, &b, err);

	if (!rc)
		rc = bench_wait_ready(job, err);
	if (!rc)
		rc = bench_begin(job, err);
	if (rc)
		return rc;
	ops->write(b, off, n, BARE_SIZE);
	ops->flush(b);
	rc = bench_end(job, err);
	bench_set_bandwidth(job, n * BARE_SIZE);
	free(off);
	return rc ? rc : bare_part(job, ops, b, err);
}

static int bare_far(struct bench_job *job, struct via_error *err)
{
	return bare_be_written(job, memory_len(job), 1, err);
}

const struct bench_row bench_migrate = {
	.name = "migrate",
	.summary = "whole migrations of a guest; dirty: bytes a second that it writes",
	.unit = "GiB/s",
	.higher_is_better = true,
	.cases = cases,
	.ncases = sizeof(cases) / sizeof(cases[0]),
	.ours = {ours_near, ours_far},
	.bare = {bare_near, bare_far},
	.bare_is = bare_is,
	.columns = {"ms", "phase", "round", "remaining_gib", "rate_gib_s", "dirty_gib_s"},
};
