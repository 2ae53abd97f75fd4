/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * job.h -- private to bench/: one job from the outside.
 */
#ifndef VIA_BENCH_JOB_H
#define VIA_BENCH_JOB_H

#include "bench/row.h"

/* Near: connect to job->address, have the far end take the job and do it. Fills in *job->result. */
int job_near(struct bench_job *job, struct via_error *err);

/* Far: accept one job from job->listen_fd and do it; job->fabric may be set, and stays then. */
int job_far(struct bench_job *job, struct via_error *err);

/* After which a job counts as hung. */
uint64_t job_limit_ns(const struct bench_job *job);

#endif
