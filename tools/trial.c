/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trial.c -- see trial.h. What it measures is what an engine's rounds would do: writes of up to
 * 1 MiB over all channels, fences, and the seal.
 *
 * A round hands no byte out twice, so the time is kept between pieces: when it is over, what has
 * been handed out is drained and no more follows.
 */
#include "tools/trial.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/clock.h"

#define PAGE_SIZE   4096u
#define PIECE_LEN   ((uint64_t)1 << 20)
#define NFENCES     15u
#define ROUND_NS    (30 * VIA_NS_PER_S) /* that a round may take beyond its time */
#define PATIENCE_NS (60 * VIA_NS_PER_S) /* of a destination */

static void *get_memory(size_t len)
{
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* -- source ---------------------------------------------------------------------------- */

struct pieces {
	struct via_work work;
	uint64_t len, deadline_ns;
	_Atomic uint64_t next, handed;
};

static int next_batch(void *arg, unsigned channel, struct via_batch *batch)
{
	struct pieces *p = arg;
	uint64_t off = atomic_fetch_add(&p->next, PIECE_LEN);

	(void)channel;
	if (off >= p->len || via_deadline_passed(p->deadline_ns))
		return 0;
	batch->run[0] = (struct via_run){
		.off = off, .len = p->len - off < PIECE_LEN ? p->len - off : PIECE_LEN};
	batch->nruns = 1;
	atomic_fetch_add(&p->handed, batch->run[0].len);
	return 1;
}

static int run_round(struct via_session *s, const struct via_work *work, struct via_error *err)
{
	int rc = via_round_start(s, work, err);

	if (!rc)
		rc = via_round_drain(s, via_deadline_in(ROUND_NS), err);
	return rc == -EAGAIN
		       ? via_fail(
				 err, -ETIMEDOUT,
				 "measure the fabric\nwhat was written has not arrived after 30 s\n"
				 "look at the link between the hosts")
		       : rc;
}

static int write_for(struct via_session *s, size_t len, uint64_t run_ns, struct trial_result *r,
		     struct via_error *err)
{
	struct pieces p = {.work = {.arg = &p, .next = next_batch}, .len = len};
	uint64_t start = via_now_ns();
	int rc = 0;

	p.deadline_ns = via_deadline_in(run_ns);
	while (!rc && !via_deadline_passed(p.deadline_ns)) {
		atomic_store(&p.next, 0);
		rc = run_round(s, &p.work, err);
	}
	r->bytes = atomic_load(&p.handed);
	r->ns = via_now_ns() - start;
	return rc;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int measure_fences(struct via_session *s, struct trial_result *r, struct via_error *err)
{
	uint64_t ns[NFENCES];

	for (unsigned i = 0; i < NFENCES; i++) {
		uint64_t start = via_now_ns();
		int rc = run_round(s, NULL, err);

		if (rc)
			return rc;
		ns[i] = via_now_ns() - start;
	}
	qsort(ns, NFENCES, sizeof(ns[0]), by_value);
	r->fence_ns = ns[NFENCES / 2];
	return 0;
}

static int measure(struct via_session *s, size_t len, uint64_t run_ns, struct trial_result *r,
		   struct via_error *err)
{
	uint64_t start = via_now_ns();
	int rc = via_session_open_channels(s, err);

	if (!rc)
		rc = via_session_start_senders(s, err);
	r->setup_ns = via_now_ns() - start;
	if (!rc) /* the first writes find everything cold */
		rc = write_for(s, len, run_ns / 10, r, err);
	if (!rc)
		rc = write_for(s, len, run_ns, r, err);
	if (!rc)
		rc = measure_fences(s, r, err);
	start = via_now_ns();
	if (!rc)
		rc = via_session_seal(s, err);
	r->seal_ns = via_now_ns() - start;
	via_session_stats(s, &r->stats);
	return rc;
}

int trial_measure(const char *address, const struct via_session_config *config, size_t len,
		  uint64_t run_ns, struct trial_result *result, struct via_error *err)
{
	struct via_region region = {
		.desc = {.name = TRIAL_REGION, .len = len, .page_size = PAGE_SIZE},
		.addr = get_memory(len)};
	struct via_session *session = NULL;
	int rc;

	if (!region.addr)
		return via_fail(err, -ENOMEM,
				"measure the fabric\nno %zu bytes of memory\nfree some", len);
	memset(region.addr, 0x5a, len); /* what is not zero is written */
	rc = via_session_connect(address, config, &region, 1, -1, &session, err);
	if (!rc)
		rc = measure(session, len, run_ns, result, err);
	via_session_close(session);
	munmap(region.addr, len);
	return rc;
}

/* -- destination -------------------------------------------------------------------------- */

static int prepare(void *arg, unsigned nregions, struct via_guest_region *region,
		   struct via_error *err)
{
	struct trial_guest *t = arg;

	if (nregions != 1 || strcmp(region->name, TRIAL_REGION) != 0)
		return t->guest->prepare(t->guest->arg, nregions, region, err);
	t->len = region->len;
	t->memory = get_memory(t->len);
	if (!t->memory)
		return via_fail(err, -ENOMEM,
				"be measured\nno %zu bytes of memory\nfree some on this host",
				t->len);
	region->addr = t->memory;
	return 0;
}

void trial_guest_init(struct trial_guest *t, const struct via_destination_guest *guest)
{
	*t = (struct trial_guest){.either = {.arg = t, .prepare = prepare}, .guest = guest};
}

void trial_guest_fini(struct trial_guest *t)
{
	if (t->memory)
		munmap(t->memory, t->len);
	t->memory = NULL;
}

static bool is_sealed(struct via_session *s)
{
	struct via_session_stats stats;

	via_session_stats(s, &stats);
	return stats.sealed;
}

int trial_serve(struct trial_guest *t, struct via_session *s, struct via_error *err)
{
	uint64_t deadline = via_deadline_in(PATIENCE_NS);
	struct via_error first = {0};
	struct via_message message;
	bool sealed;
	int rc = via_session_wait_channel(s, VIA_CHANNEL_ESSENTIAL, 0, &first);

	if (!rc)
		rc = via_session_start_receivers(s, NULL, NULL, &first);
	while (!rc || rc == -EINTR)
		rc = via_main_receive(s, deadline, &message, &first);
	sealed = is_sealed(s);
	via_session_close(s);
	trial_guest_fini(t);
	if (sealed) /* nothing is left to be measured: however it ends then, it is over */
		return 0;
	via_fail(&first, rc, "be measured\n%s\nsee the source's messages", via_err_text(rc));
	return via_error_pass(err, &first);
}
