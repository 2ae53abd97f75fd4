/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_guest_test.c -- the demo guest, as the judge of a migration.
 *
 * A migration by hand, with memcpy in place of a fabric, must be found right. Then every kind
 * of damage, put in on purpose, must be found in its own class and counted to the page: a judge
 * that misses one is worth nothing.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/wire.h"
#include "demo/demo_page.h"
#include "tests/demo/demo_guests.h"

static void dirty_start(struct demo_guest *g)
{
	const struct via_source_guest *s = demo_guest_source(g);
	struct via_error err = {0};
	char text[640];
	int ret = s->dirty_start(s->arg, &err);

	if (ret == -EPERM || ret == -EOPNOTSUPP)
		cr_skip_test("%s", via_error_format(&err, text, sizeof(text)));
	cr_assert_eq(ret, 0, "%s: %s", err.what, err.seen);
}

/* One round of a migration by hand. Returns the pages copied. */
static size_t copy_round(struct demo_guest *from, struct demo_guest *to)
{
	const struct via_source_guest *s = demo_guest_source(from);
	struct via_error err = {0};
	struct via_bitmap dirty;
	size_t first, n, at = 0, copied = 0;

	cr_assert_eq(via_bitmap_init(&dirty, s->region[0].len / PAGE), 0);
	cr_assert_eq(s->dirty_fetch(s->arg, 0, &dirty, &err), 0, "%s: %s", err.what, err.seen);
	for (; (n = via_bitmap_next_run(&dirty, at, &first)); at = first + n) {
		memcpy(page_at(to, first), page_at(from, first), n * PAGE);
		copied += n;
	}
	via_bitmap_fini(&dirty);
	return copied;
}

static void check_config(const struct demo_guest_config *got, const struct demo_guest_config *want)
{
	cr_assert_eq(got->memory, want->memory);
	cr_assert_eq(got->vcpus, want->vcpus);
	cr_assert_eq(got->dirty_rate, want->dirty_rate);
	cr_assert_eq(got->seed, want->seed);
}

struct migration {
	uint64_t pages;
	unsigned vcpus;
	uint64_t rate;
};

static struct migration migrations[] = {
	{1, 1, SPEED},    {1, 0, 0},           {7, 8, SPEED},   {2000, 1, SPEED},
	{5000, 8, SPEED}, {4097, 3, 40 << 20}, {64, 64, SPEED}, {3000, 2, 0},
};

ParameterizedTestParameters(demo_guest, migration_by_hand)
{
	return cr_make_param_array(struct migration, migrations,
				   sizeof(migrations) / sizeof(migrations[0]));
}

ParameterizedTest(struct migration *m, demo_guest, migration_by_hand)
{
	struct demo_guest *from = new_guest(m->pages, m->vcpus, m->rate);
	struct demo_guest *to = new_destination(from);
	const struct via_source_guest *s = demo_guest_source(from);
	const struct via_destination_guest *d = demo_guest_destination(to);
	struct via_error err = {0};
	bool writes = m->vcpus && m->rate;

	cr_assert_str_eq(demo_guest_tracker(from), "none");
	cr_assert_eq(demo_guest_start(from, &err), 0, "%s: %s", err.what, err.seen);
	dirty_start(from);
	cr_assert_str_neq(demo_guest_tracker(from), "none");
	copy_all(from, to);
	for (unsigned round = 0; round < 10; round++) {
		if (writes)
			let_run(from, 50 * PAGE);
		cr_assert_eq(copy_round(from, to) != 0, writes);
	}
	cr_assert_eq(s->pause(s->arg, &err), 0, "%s: %s", err.what, err.seen);
	copy_round(from, to);
	move_state(from, to);
	s->dirty_stop(s->arg);
	demo_guest_stop(from);
	cr_assert_eq(demo_guest_cpu_ns(from) != 0, m->vcpus != 0);

	check_verify(from, 0, 0, 0);
	check_verify(to, 0, 0, 0);
	check_config(demo_guest_get_config(to), demo_guest_get_config(from));
	cr_assert_eq(d->run(d->arg, &err), 0, "%s: %s", err.what, err.seen);
	if (writes)
		let_run(to, 4 * m->pages * PAGE);
	demo_guest_stop(to);
	check_verify(to, 0, 0, 0);
	cr_assert_eq(demo_guest_vcpu_errors(from), 0);
	cr_assert_eq(demo_guest_vcpu_errors(to), 0);
	demo_guest_free(from);
	demo_guest_free(to);
}

/* Without the dirty log the same migration must be found wrong, or the tests above say nothing. */
Test(demo_guest, unlogged_copy_is_found)
{
	struct demo_guest *from = new_guest(2000, 2, SPEED), *to = new_destination(from);
	struct demo_verify v;

	copy_all(from, to);
	cr_assert_eq(demo_guest_start(from, NULL), 0);
	let_run(from, 2000 * PAGE);
	demo_guest_stop(from);
	move_state(from, to);
	demo_guest_verify(to, &v);
	cr_assert_geq(v.stale, 200, "%llu", (unsigned long long)v.stale);
	cr_assert_eq(v.torn, 0);
	demo_guest_free(from);
	demo_guest_free(to);
}

#define PAGES 400u

/* A copy of a stopped guest that has run: with versions from 1 on, also zero ones. */
static struct demo_guest *stopped_copy(struct demo_guest **from)
{
	struct demo_guest *to;

	*from = new_guest(PAGES, 2, SPEED);
	cr_assert_eq(demo_guest_start(*from, NULL), 0);
	let_run(*from, 20 * PAGES * PAGE);
	demo_guest_stop(*from);
	to = new_destination(*from);
	copy_all(*from, to);
	move_state(*from, to);
	check_verify(to, 0, 0, 0);
	return to;
}

/* The version that @page shows, 0 for a zero page. */
static uint32_t shown_version(struct demo_guest *g, uint64_t page)
{
	uint64_t version;

	memcpy(&version, page_at(g, page) + 24, sizeof(version));
	return (uint32_t)version;
}

/* A page that is not zero and was rewritten, at or after @page. */
static uint64_t written_page(struct demo_guest *g, uint64_t page)
{
	while (shown_version(g, page) < 2)
		cr_assert_lt(++page, PAGES);
	return page;
}

enum damage {
	LOST,
	OLD,
	NEWER,
	HALF_OLD,
	LAST_WORD,
	ONE_BIT,
	ZEROED,
	SWAPPED,
	OTHERS_SEED,
	NDAMAGES
};

static int damages[] = {LOST,    OLD,    NEWER,   HALF_OLD,   LAST_WORD,
			ONE_BIT, ZEROED, SWAPPED, OTHERS_SEED};

/* Damage @page and add to what is expected of the check. */
static void damage_page(struct demo_guest *g, uint64_t page, enum damage damage,
			struct demo_verify *expected)
{
	uint64_t seed = demo_guest_get_config(g)->seed;
	uint32_t version = shown_version(g, page);
	/* 63 and 65 lie around a zero page: take another old one there. */
	uint32_t old = version % 64 == 1 ? version - 2 : version - 1;
	uint32_t newer = version % 64 == 63 ? version + 2 : version + 1;
	char *at = page_at(g, page), whole[DEMO_PAGE_SIZE];

	memcpy(whole, at, PAGE);
	switch (damage) {
	case LOST: /* as after a fill elsewhere: never arrived */
	case ZEROED:
		memset(at, 0, PAGE);
		expected->missing++;
		return;
	case OLD:
		demo_page_write(at, seed, page, old);
		expected->stale++;
		return;
	case NEWER:
		demo_page_write(at, seed, page, newer);
		expected->stale++;
		return;
	case HALF_OLD:
		demo_page_write(at, seed, page, old);
		memcpy(at, whole, PAGE / 2);
		break;
	case LAST_WORD:
		demo_page_write(at, seed, page, old);
		memcpy(at, whole, PAGE - 8);
		break;
	case ONE_BIT:
		at[8 * (page % 512)] ^= 4;
		break;
	case SWAPPED:
		demo_page_write(at, seed, page + 1, version);
		expected->missing++;
		return;
	case OTHERS_SEED:
		demo_page_write(at, seed + 1, page, version);
		expected->missing++;
		return;
	case NDAMAGES:
		break;
	}
	expected->torn++;
}

ParameterizedTestParameters(demo_guest, damage_is_counted_in_its_class)
{
	return cr_make_param_array(int, damages, NDAMAGES);
}

ParameterizedTest(int *damage, demo_guest, damage_is_counted_in_its_class)
{
	struct demo_verify expected = {0};
	struct demo_guest *from, *to = stopped_copy(&from);
	uint64_t page = 0;

	for (unsigned i = 0; i < 3; i++) {
		page = written_page(to, page);
		damage_page(to, page++, (enum damage) * damage, &expected);
		check_verify(to, expected.missing, expected.stale, expected.torn);
	}
	check_verify(from, 0, 0, 0);
	demo_guest_free(from);
	demo_guest_free(to);
}

/* Every word is compared: a bit changed anywhere in a page makes it torn. */
Test(demo_guest, damage_anywhere_in_a_page)
{
	struct demo_guest *g = new_guest(4, 0, 0);
	uint64_t *word = (uint64_t *)(void *)page_at(g, 1);

	for (unsigned i = 0; i < PAGE / 8; i++) {
		word[i] ^= UINT64_C(1) << i % 64;
		check_verify(g, 0, 0, 1);
		word[i] ^= UINT64_C(1) << i % 64;
	}
	check_verify(g, 0, 0, 0);
	demo_guest_free(g);
}

/* What belongs where the zero page of version 0 or 64 is expected. */
Test(demo_guest, zero_versions)
{
	char page[DEMO_PAGE_SIZE] __attribute__((aligned(8)));

	memset(page, 0, sizeof(page));
	cr_assert_eq(demo_page_check(page, 1, 5, 0), DEMO_PAGE_RIGHT);
	cr_assert_eq(demo_page_check(page, 1, 5, 64), DEMO_PAGE_RIGHT);
	cr_assert_eq(demo_page_check(page, 1, 5, 65), DEMO_PAGE_MISSING);
	demo_page_write(page, 1, 5, 63);
	cr_assert_eq(demo_page_check(page, 1, 5, 63), DEMO_PAGE_RIGHT);
	cr_assert_eq(demo_page_check(page, 1, 5, 64), DEMO_PAGE_STALE);
	cr_assert_eq(demo_page_check(page, 1, 6, 64), DEMO_PAGE_MISSING);
	cr_assert_eq(demo_page_check(page, 2, 5, 64), DEMO_PAGE_MISSING);
	page[0] ^= 1;
	cr_assert_eq(demo_page_check(page, 1, 5, 64), DEMO_PAGE_TORN);
	demo_page_write(page, 1, 5, 64);
	page[4095] = 1;
	cr_assert_eq(demo_page_check(page, 1, 5, 64), DEMO_PAGE_TORN);
	demo_page_write(page, 1, 5, 128);
	cr_assert_eq(demo_page_check(page, 1, 5, 64), DEMO_PAGE_RIGHT);
}

/* The vCPUs find the damage first and mend it: it must count all the same, and once. */
Test(demo_guest, damage_found_by_vcpus)
{
	struct demo_verify expected = {0};
	struct demo_guest *from, *to = stopped_copy(&from);
	const struct via_destination_guest *d = demo_guest_destination(to);
	uint64_t damaged[9], page = 0;

	for (unsigned i = 0; i < 9; i++) {
		damaged[i] = page = written_page(to, page);
		damage_page(to, page++,
			    i % 3 == 0   ? ZEROED
			    : i % 3 == 1 ? OLD
					 : HALF_OLD,
			    &expected);
	}
	cr_assert_eq(d->run(d->arg, NULL), 0);
	let_run(to, 100 * PAGES * PAGE);
	demo_guest_stop(to);
	cr_assert_eq(demo_guest_vcpu_errors(to), 9);
	check_verify(to, 3, 3, 3);
	/* Wrong again, in another way: still the same pages. */
	for (unsigned i = 0; i < 9; i++)
		page_at(to, damaged[i])[100] ^= 1;
	check_verify(to, 3, 3, 3);
	demo_guest_free(from);
	demo_guest_free(to);
}

static int bad_state_kinds[] = {0, 1, 2, 3, 4, 5, 6};

ParameterizedTestParameters(demo_guest, bad_device_state)
{
	return cr_make_param_array(int, bad_state_kinds, 7);
}

/* Cut to each length, or with one bit of any byte changed: refused, and nothing is loaded. */
ParameterizedTest(int *bit, demo_guest, bad_device_state)
{
	struct demo_guest *from = new_guest(16, 2, SPEED), *to = new_destination(from);
	const struct via_source_guest *s = demo_guest_source(from);
	const struct via_destination_guest *d = demo_guest_destination(to);
	struct via_error err = {0};
	uint8_t *state;
	void *saved, *cut;
	size_t len;

	cr_assert_eq(s->save(s->arg, &saved, &len, NULL), 0);
	state = saved;
	for (size_t i = 0; i < len; i++) {
		cut = malloc(i ? i : 1); /* so that a read past the end is seen */
		memcpy(cut, state, i);
		cr_assert_eq(d->load(d->arg, cut, i, NULL), -EPROTO, "%zu bytes", i);
		free(cut);
		state[i] ^= (uint8_t)(1u << *bit);
		cr_assert_eq(d->load(d->arg, state, len, NULL), -EPROTO, "byte %zu", i);
		state[i] ^= (uint8_t)(1u << *bit);
	}
	cut = calloc(1, len + 8);
	memcpy(cut, state, len);
	cr_assert_eq(d->load(d->arg, cut, len + 8, NULL), -EPROTO);
	free(cut);
	cr_assert_eq(d->run(d->arg, NULL), -EINVAL, "it runs without device state");
	cr_assert_eq(d->load(d->arg, state, len, &err), 0, "%s: %s", err.what, err.seen);
	free(saved);
	demo_guest_free(from);
	demo_guest_free(to);
}

Test(demo_guest, device_state_of_another_size)
{
	struct demo_guest *from = new_guest(16, 2, SPEED), *other = new_guest(17, 2, SPEED);
	struct demo_guest *to = new_destination(other), *empty;
	const struct via_source_guest *s = demo_guest_source(from);
	const struct via_destination_guest *d = demo_guest_destination(to);
	struct via_error err = {0};
	void *state;
	size_t len;

	cr_assert_eq(demo_guest_new_empty(&empty, NULL), 0);
	cr_assert_eq(s->save(s->arg, &state, &len, NULL), 0);
	cr_assert_eq(d->load(d->arg, state, len, &err), -EPROTO);
	cr_assert(strstr(err.seen, "65536") && strstr(err.seen, "69632"), "%s", err.seen);
	d = demo_guest_destination(empty);
	cr_assert_eq(d->load(d->arg, state, len, NULL), -EPROTO, "no RAM yet");
	free(state);
	demo_guest_free(from);
	demo_guest_free(other);
	demo_guest_free(to);
	demo_guest_free(empty);
}

/* The state's bytes are a format: both ends need not be of one build. */
Test(demo_guest, device_state_is_pinned)
{
	static const uint8_t expected[] = {
		0x56, 0x69, 0x61, 0x64, 0x75, 0x63, 0x74, 0x0a, 0, 0, 0, 1, 0, 0, 0,    2,
		0,    0,    0,    0,    0,    0,    0x20, 0,    0, 0, 0, 0, 0, 0, 0x03, 0xe8,
		0,    0,    0,    0,    0,    0,    0,    42,   0, 0, 0, 1, 0, 0, 0,    1,
	};
	struct demo_guest *g = new_guest(2, 2, 1000);
	const struct via_source_guest *s = demo_guest_source(g);
	struct via_wire r;
	void *state;
	size_t len;

	cr_assert_eq(s->save(s->arg, &state, &len, NULL), 0);
	cr_assert_eq(len, sizeof(expected) + 8);
	cr_assert_eq(memcmp(state, expected, sizeof(expected)), 0);
	r = via_wire_reader((uint8_t *)state + sizeof(expected), 8);
	cr_assert_eq(via_wire_get_u64(&r), UINT64_C(0x8ef9336a55d4c255));
	free(state);
	demo_guest_free(g);
}

Test(demo_guest, pause_and_resume)
{
	struct demo_guest *g = new_guest(2000, 4, SPEED);
	const struct via_source_guest *s = demo_guest_source(g);
	void *state;
	size_t len;

	cr_assert_eq(s->pause(s->arg, NULL), 0, "nothing runs yet");
	s->resume(s->arg);
	cr_assert_eq(demo_guest_bytes_written(g), 0);
	cr_assert_eq(demo_guest_start(g, NULL), 0);
	cr_assert_eq(demo_guest_start(g, NULL), -EINVAL);
	cr_assert_eq(s->save(s->arg, &state, &len, NULL), -EINVAL, "it runs");
	for (unsigned i = 0; i < 50; i++) {
		uint64_t written;

		let_run(g, 10 * PAGE);
		cr_assert_eq(s->pause(s->arg, NULL), 0);
		written = demo_guest_bytes_written(g);
		check_verify(g, 0, 0, 0); /* nothing half-written */
		cr_assert_eq(demo_guest_bytes_written(g), written);
		cr_assert_eq(s->pause(s->arg, NULL), 0, "again");
		s->resume(s->arg);
	}
	let_run(g, 10 * PAGE);
	cr_assert_eq(s->pause(s->arg, NULL), 0);
	demo_guest_stop(g); /* paused ones too */
	demo_guest_stop(g);
	cr_assert_eq(demo_guest_start(g, NULL), 0);
	let_run(g, 10 * PAGE);
	demo_guest_free(g); /* running */
}

/* A vCPU that has nothing to do for hours is stopped as fast as a busy one. */
Test(demo_guest, pause_wakes_sleepers)
{
	struct demo_guest *g = new_guest(100, 8, 1);
	const struct via_source_guest *s = demo_guest_source(g);
	uint64_t start;

	cr_assert_eq(demo_guest_start(g, NULL), 0);
	start = via_now_ns();
	for (unsigned i = 0; i < 20; i++) {
		cr_assert_eq(s->pause(s->arg, NULL), 0);
		s->resume(s->arg);
	}
	demo_guest_stop(g);
	cr_assert_lt(via_now_ns() - start, 10 * VIA_NS_PER_S);
	demo_guest_free(g);
}

/* Never above the rate; how far below depends on the host. */
Test(demo_guest, rate_is_kept)
{
	const uint64_t rate = 20 << 20;
	struct demo_guest *g = new_guest(2000, 3, rate);
	uint64_t start = via_now_ns(), written;
	double seconds;

	cr_assert_eq(demo_guest_start(g, NULL), 0);
	let_run(g, rate / 2);
	written = demo_guest_bytes_written(g);
	seconds = (double)(via_now_ns() - start) / 1e9;
	demo_guest_stop(g);
	cr_assert_leq((double)written, (double)rate * seconds + 3 * PAGE, "%.3f s", seconds);
	cr_assert_geq((double)written, (double)rate * seconds / 10, "%.3f s", seconds);
	demo_guest_free(g);
}

Test(demo_guest, three_quarters_are_written)
{
	struct demo_guest *g = new_guest(100, 0, 0);

	for (uint64_t p = 0; p < 100; p++)
		cr_assert_eq(shown_version(g, p), p < 75, "page %llu", (unsigned long long)p);
	check_verify(g, 0, 0, 0);
	demo_guest_free(g);
}

Test(demo_guest, bad_configurations)
{
	static const struct demo_guest_config bad[] = {
		{.memory = 0, .vcpus = 1},          {.memory = 4095, .vcpus = 1},
		{.memory = 4096 + 512, .vcpus = 1}, {.memory = UINT64_MAX - 4095, .vcpus = 1},
		{.memory = 4096, .vcpus = 65},
	};
	struct demo_guest *g = NULL;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(demo_guest_new(&bad[i], &g, NULL), -EINVAL, "%u", i);
	cr_assert_null(g);
	demo_guest_free(NULL);
}

/* More than any host has: an error with both numbers, not a killed process. */
Test(demo_guest, too_large)
{
	struct demo_guest_config config = {.memory = UINT64_C(1) << 46, .vcpus = 1};
	struct demo_guest *g = NULL;
	struct via_error err = {0};

	cr_assert_eq(demo_guest_new(&config, &g, &err), -ENOMEM);
	cr_assert(strstr(err.what, "67108864 MiB"), "%s", err.what);
	cr_assert(strstr(err.seen, "available are"), "%s", err.seen);
	cr_assert_null(g);
}

Test(demo_guest, prepare_is_strict)
{
	struct via_guest_region good = {.name = "ram", .len = 8 * PAGE, .page_size = PAGE}, r;
	struct demo_guest *g;
	const struct via_destination_guest *d;

	cr_assert_eq(demo_guest_new_empty(&g, NULL), 0);
	d = demo_guest_destination(g);
	cr_assert_eq(demo_guest_start(g, NULL), -EINVAL, "no RAM");
	cr_assert_eq(d->prepare(d->arg, 0, NULL, NULL), -EINVAL);
	cr_assert_eq(d->prepare(d->arg, 2, &good, NULL), -EINVAL);
	for (unsigned i = 0; i < 4; i++) {
		r = good;
		if (i == 0)
			r.name[1] = 'o';
		r.len = i == 1 ? 0 : i == 2 ? good.len + 1 : good.len;
		r.page_size = i == 3 ? 65536 : (uint32_t)PAGE;
		cr_assert_eq(d->prepare(d->arg, 1, &r, NULL), -EINVAL, "%u", i);
	}
	cr_assert_eq(d->prepare(d->arg, 1, &good, NULL), 0);
	for (uint64_t i = 0; i < good.len; i++)
		cr_assert_eq(((char *)good.addr)[i], 0);
	cr_assert_eq(d->prepare(d->arg, 1, &good, NULL), -EINVAL, "twice");
	demo_guest_free(g);
}

Test(demo_guest, dirty_log_by_the_table)
{
	struct demo_guest *g = new_guest(16, 0, 0);
	const struct via_source_guest *s = demo_guest_source(g);
	struct via_bitmap dirty;

	cr_assert_eq(via_bitmap_init(&dirty, 16), 0);
	s->dirty_stop(s->arg);
	cr_assert_eq(s->dirty_fetch(s->arg, 0, &dirty, NULL), -EINVAL);
	dirty_start(g);
	cr_assert_eq(s->dirty_start(s->arg, NULL), -EINVAL);
	page_at(g, 15)[0] = 1; /* never touched before */
	page_at(g, 2)[9] = 1;
	cr_assert_eq(s->dirty_fetch(s->arg, 0, &dirty, NULL), 0);
	cr_assert_eq(via_bitmap_count(&dirty), 2);
	cr_assert(via_bitmap_test(&dirty, 15) && via_bitmap_test(&dirty, 2));
	s->dirty_stop(s->arg);
	dirty_start(g);
	demo_guest_free(g); /* while logging */
	via_bitmap_fini(&dirty);
}
