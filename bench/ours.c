/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ours.c -- sessions for the rows: what an engine would open, with memory that is a guest's in
 * all but name.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/row.h"
#include "fabrics/spec.h"

#define PAGE_SIZE 4096u
#define REGION    "ram"

struct via_session_config bench_session_config(const struct bench_job *job, unsigned multifd,
					       unsigned preempt)
{
	return (struct via_session_config){.fabric = job->fabric,
					   .multifd = multifd,
					   .preempt = preempt,
					   .credentials = job->credentials};
}

int bench_fabric_spec(const struct bench_job *job, struct via_fabric_spec *spec,
		      struct via_error *err)
{
	int rc = via_fabric_spec_parse(job->fabric, spec, err);

	if (!rc)
		snprintf(spec->local_host, sizeof(spec->local_host), "%s",
			 via_control_local_host(job->control));
	return rc;
}

void *bench_memory(size_t len)
{
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	memset(memory, 0x5a, len);
	return memory;
}

void bench_note_fabric(struct bench_job *job, struct via_session *session)
{
	struct via_session_stats stats;

	via_session_stats(session, &stats);
	snprintf(job->result->fabric, sizeof(job->result->fabric), "%.255s", stats.fabric);
	/* Where a fabric names no device, the provider says it all. */
	snprintf(job->result->device, sizeof(job->result->device), "%s",
		 stats.nrails ? stats.rail[0].device : "");
}

int bench_connect(struct bench_job *job, const struct via_session_config *config, void *memory,
		  size_t len, struct via_session **session, struct via_error *err)
{
	struct via_region region = {.desc = {.name = REGION, .len = len, .page_size = PAGE_SIZE},
				    .addr = memory};
	int rc = via_session_connect(job->address, config, &region, 1, -1, session, err);

	if (!rc)
		bench_note_fabric(job, *session);
	return rc;
}

int bench_accept(struct bench_job *job, const struct via_session_config *config,
		 struct via_session **session, void **memory, size_t *len, struct via_error *err)
{
	struct via_wait wait = {via_deadline_in(BENCH_STEP_NS), -1};
	const struct via_region *region;
	unsigned nregions;
	int rc = via_session_accept(job->listen_fd, config, &wait, session, err);

	if (rc)
		return rc;
	region = via_session_regions(*session, &nregions);
	*len = region[0].desc.len;
	*memory = bench_memory(*len);
	if (!*memory) {
		rc = via_fail(err, -ENOMEM,
			      "serve a benchmark\nno %zu bytes of memory\n"
			      "ask for less with --memory",
			      *len);
		via_session_refuse(*session, err);
	} else {
		rc = via_session_provide(*session, memory, err);
	}
	if (!rc)
		return 0;
	via_session_close(*session);
	*session = NULL;
	return rc;
}

static void watch(struct bench_job *job, struct via_session *session)
{
	pthread_mutex_lock(&job->session_lock);
	job->session = session;
	pthread_mutex_unlock(&job->session_lock);
}

int bench_serve(struct bench_job *job, struct via_session *session, struct via_error *err)
{
	struct via_message message;
	int rc = 0;

	watch(job, session);
	while (!bench_stopped(job) && (rc == 0 || rc == -EINTR))
		rc = via_main_receive(session, VIA_NEVER, &message, err);
	watch(job, NULL);
	return bench_stopped(job) || rc == -EINTR ? 0 : rc;
}

/* -- rounds of writes ----------------------------------------------------------------------- */

static int write_round(struct via_session *session, bench_begin_fn *begin, void *arg,
		       uint64_t *bytes, struct via_error *err)
{
	uint64_t more;
	int rc = via_round_start(session, begin(arg, &more), err);

	if (!rc)
		rc = via_round_drain(session, VIA_NEVER, err);
	*bytes += more;
	return rc;
}

static int write_rounds(struct bench_job *job, struct via_session *session, bench_begin_fn *begin,
			void *arg, struct via_error *err)
{
	uint64_t deadline, bytes = 0;
	int rc = write_round(session, begin, arg, &bytes, err); /* warm */

	if (!rc)
		rc = bench_begin(job, err);
	bytes = 0;
	deadline = via_deadline_in(job->run_ns);
	while (!rc && !(bytes && via_deadline_passed(deadline)))
		rc = write_round(session, begin, arg, &bytes, err);
	if (!rc)
		rc = bench_end(job, err);
	if (!rc)
		bench_set_bandwidth(job, bytes);
	return rc;
}

int bench_open_senders(struct bench_job *job, void *memory, size_t len,
		       struct via_session **session, struct via_error *err)
{
	struct via_session_config config = bench_session_config(job, bench_channels(job), 0);
	int rc;

	if (!memory)
		return via_fail(err, -ENOMEM,
				"measure writes\nno %zu bytes of memory\n"
				"ask for less with --memory",
				len);
	rc = bench_connect(job, &config, memory, len, session, err);
	if (rc)
		return rc;
	rc = bench_wait_ready(job, err);
	if (!rc)
		rc = via_session_open_channels(*session, err);
	if (!rc)
		rc = via_session_start_senders(*session, err);
	if (rc)
		via_session_close(*session);
	return rc;
}

int bench_write_rounds(struct bench_job *job, void *memory, size_t len, bench_begin_fn *begin,
		       void *arg, struct via_error *err)
{
	struct via_session *session;
	int rc = bench_open_senders(job, memory, len, &session, err);

	if (rc)
		return rc;
	rc = write_rounds(job, session, begin, arg, err);
	if (!rc)
		rc = bench_stop(job, err);
	via_session_close(session);
	return rc;
}

int bench_be_written(struct bench_job *job, struct via_error *err)
{
	struct via_session_config config = bench_session_config(job, 0, 0);
	struct via_session *session;
	void *memory;
	size_t len;
	int rc = bench_accept(job, &config, &session, &memory, &len, err);

	if (rc)
		return rc;
	rc = bench_ready(job, err);
	if (!rc)
		rc = via_session_wait_channel(session, VIA_CHANNEL_ESSENTIAL, 0, err);
	if (!rc)
		rc = via_session_start_receivers(session, NULL, NULL, err);
	if (!rc)
		rc = bench_serve(job, session, err);
	via_session_close(session);
	munmap(memory, len);
	return rc;
}
