/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bare.c -- which bare loops there are, and how the two ends of one meet.
 */
#include "bench/bare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct bare_ops bare_ofi, bare_ucx, bare_verbs;

const struct bare_ops *const bare_list[] = {
#ifdef BARE_OFI
	&bare_ofi,
#endif
#ifdef BARE_UCX
	&bare_ucx,
#endif
#ifdef BARE_VERBS
	&bare_verbs,
#endif
	NULL,
};

const struct bare_ops *bare_find(const char *text)
{
	size_t len = strcspn(text, ":,");

	for (unsigned i = 0; bare_list[i]; i++)
		if (strlen(bare_list[i]->fabric) == len && !memcmp(bare_list[i]->fabric, text, len))
			return bare_list[i];
	return NULL;
}

int bare_meet(struct bench_job *job, void *memory, size_t len, unsigned endpoints, bool sleeps,
	      const struct bare_ops **ops, struct bare **b, struct via_error *err)
{
	uint8_t mine[BARE_ADDRESS_MAX], theirs[BARE_ADDRESS_MAX];
	struct via_fabric_spec spec;
	struct bare_config config = {.spec = &spec,
				     .near = !job->far,
				     .memory = memory,
				     .len = len,
				     .endpoints = endpoints,
				     .sleeps = sleeps};
	size_t theirs_len;
	int rc = bench_fabric_spec(job, &spec, err);

	if (rc)
		return rc;
	*ops = bare_find(job->fabric);
	if (!*ops)
		return via_fail(err, -ENODEV,
				"bare loop for %s\nthis build has none\n"
				"install its development package and rebuild",
				job->fabric);
	*b = (*ops)->open(&config);
	rc = bench_send(job, mine, (*ops)->address(*b, mine, sizeof(mine)), err);
	if (!rc)
		rc = bench_receive(job, theirs, sizeof(theirs), &theirs_len, err);
	if (!rc)
		(*ops)->connect(*b, theirs, theirs_len);
	return rc;
}

int bare_stop(struct bench_job *job, struct via_error *err)
{
	int rc = job->far ? bench_over(job, err) : bench_stop(job, err);

	return rc || job->far ? rc : bench_wait_ready(job, err);
}

int bare_close(struct bench_job *job, const struct bare_ops *ops, struct bare *b,
	       struct via_error *err)
{
	char bye = 0;
	size_t len;
	int rc = job->far ? bench_receive(job, &bye, sizeof(bye), &len, err)
			  : bench_send(job, &bye, sizeof(bye), err);

	ops->close(b);
	return rc;
}

int bare_part(struct bench_job *job, const struct bare_ops *ops, struct bare *b,
	      struct via_error *err)
{
	int rc = bare_stop(job, err);

	return rc ? rc : bare_close(job, ops, b, err);
}

uint64_t *bare_offsets(size_t n, size_t size)
{
	uint64_t *off = calloc(n, sizeof(*off));

	if (!off)
		bench_die("measure writes", "out of memory");
	for (size_t i = 0; i < n; i++)
		off[i] = i * size;
	return off;
}

int bare_write_rounds(struct bench_job *job, void *memory, size_t len, const uint64_t *off,
		      size_t n, size_t size, struct via_error *err)
{
	uint64_t deadline, bytes = 0;
	const struct bare_ops *ops;
	struct bare *b;
	int rc = bare_meet(job, memory, len, bench_channels(job), false, &ops, &b, err);

	if (!rc)
		rc = bench_wait_ready(job, err);
	if (rc)
		return rc;
	ops->write(b, off, n, size); /* warm */
	ops->flush(b);
	rc = bench_begin(job, err);
	deadline = via_deadline_in(job->run_ns);
	do {
		ops->write(b, off, n, size);
		bytes += n * size;
	} while (!via_deadline_passed(deadline));
	ops->flush(b);
	if (!rc)
		rc = bench_end(job, err);
	if (rc)
		return rc;
	bench_set_bandwidth(job, bytes);
	return bare_part(job, ops, b, err);
}

int bare_be_written(struct bench_job *job, size_t len, unsigned endpoints, struct via_error *err)
{
	const struct bare_ops *ops;
	struct bare *b;
	int rc = bare_meet(job, bench_memory(len), len, endpoints, false, &ops, &b, err);

	if (!rc)
		rc = bench_ready(job, err);
	if (rc)
		return rc;
	while (!bench_stopped(job))
		ops->progress(b);
	return bare_part(job, ops, b, err);
}

const char *bare_writes_is(const struct bench_case *c, const char *fabric, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s, %llu endpoints in one thread, spinning", bare_find(fabric)->writes,
		 (unsigned long long)bench_param(c, "channels"));
	return buf;
}
