/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_guests.c -- demo guests for tests, and a migration of one with memcpy in place of a fabric.
 */
#include "tests/demo/demo_guests.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"

struct demo_guest *new_guest(uint64_t pages, unsigned vcpus, uint64_t rate)
{
	struct demo_guest_config config = {
		.memory = pages * PAGE, .vcpus = vcpus, .dirty_rate = rate, .seed = 42};
	struct demo_guest *g = NULL;
	struct via_error err = {0};

	cr_assert_eq(demo_guest_new(&config, &g, &err), 0, "%s: %s", err.what, err.seen);
	return g;
}

struct demo_guest *new_destination(struct demo_guest *source)
{
	struct via_guest_region region = demo_guest_source(source)->region[0];
	struct demo_guest *g = NULL;
	const struct via_destination_guest *d;
	struct via_error err = {0};

	cr_assert_eq(demo_guest_new_empty(&g, NULL), 0);
	d = demo_guest_destination(g);
	region.addr = NULL;
	cr_assert_eq(d->prepare(d->arg, 1, &region, &err), 0, "%s: %s", err.what, err.seen);
	cr_assert_not_null(region.addr);
	return g;
}

char *page_at(struct demo_guest *g, uint64_t page)
{
	return (char *)demo_guest_source(g)->region[0].addr + page * PAGE;
}

void copy_all(struct demo_guest *from, struct demo_guest *to)
{
	memcpy(page_at(to, 0), page_at(from, 0), demo_guest_source(from)->region[0].len);
}

void move_state(struct demo_guest *from, struct demo_guest *to)
{
	const struct via_source_guest *s = demo_guest_source(from);
	const struct via_destination_guest *d = demo_guest_destination(to);
	struct via_error err = {0};
	void *state;
	size_t len;

	cr_assert_eq(s->save(s->arg, &state, &len, &err), 0, "%s: %s", err.what, err.seen);
	cr_assert_eq(d->load(d->arg, state, len, &err), 0, "%s: %s", err.what, err.seen);
	free(state);
}

void check_verify(struct demo_guest *g, uint64_t missing, uint64_t stale, uint64_t torn)
{
	struct demo_verify v;

	demo_guest_verify(g, &v);
	cr_assert_eq(v.pages, demo_guest_source(g)->region[0].len / PAGE);
	cr_assert(v.missing == missing && v.stale == stale && v.torn == torn,
		  "missing %llu, stale %llu, torn %llu; expected %llu, %llu, %llu",
		  (unsigned long long)v.missing, (unsigned long long)v.stale,
		  (unsigned long long)v.torn, (unsigned long long)missing,
		  (unsigned long long)stale, (unsigned long long)torn);
}

void let_run(struct demo_guest *g, uint64_t bytes)
{
	const struct timespec moment = {.tv_nsec = 200000};
	uint64_t enough = demo_guest_bytes_written(g) + bytes;
	uint64_t deadline = via_deadline_in(60 * VIA_NS_PER_S);

	while (demo_guest_bytes_written(g) < enough) {
		cr_assert_not(via_deadline_passed(deadline), "the vCPUs do not write");
		clock_nanosleep(CLOCK_MONOTONIC, 0, &moment, NULL);
	}
}
