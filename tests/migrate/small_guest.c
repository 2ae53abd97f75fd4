/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * small_guest.c -- see small_guest.h. The dirty log is software: the guest marks a page
 * after it has written it, and the log is taken after that mark or before, never lost.
 */
#include "tests/migrate/small_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buffer.h"

#define PAGE  4096u
#define WORDS (PAGE / sizeof(uint64_t))

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* Every eighth version is the zero page. */
static uint64_t word_of(unsigned region, unsigned page, uint32_t version, unsigned i)
{
	if (version % 8 == 0)
		return 0;
	return ((uint64_t)version << 32 | (uint64_t)region << 24 | page) * 1000003u + i;
}

static void write_page(struct small_guest *g, unsigned r, unsigned page)
{
	volatile uint64_t *word = (uint64_t *)((uint8_t *)g->region[r].addr + (size_t)page * PAGE);
	uint32_t version = ++g->version[r][page];

	for (unsigned i = 0; i < WORDS; i++)
		word[i] = word_of(r, page, version, i);
	via_bitmap_set(&g->dirty[r], page, 1);
}

static void write_some(struct small_guest *g, unsigned n)
{
	while (n--) {
		unsigned r = (unsigned)(next_random(&g->random) % g->nregions);

		write_page(g, r, (unsigned)(next_random(&g->random) % g->config.pages[r]));
	}
}

static void *write_always(void *arg)
{
	struct small_guest *g = arg;

	while (!atomic_load(&g->stop))
		write_some(g, 1);
	return NULL;
}

static void start_thread(struct small_guest *g)
{
	atomic_store(&g->stop, false);
	g->has_thread = g->config.thread && !pthread_create(&g->thread, NULL, write_always, g);
}

static void stop_thread(struct small_guest *g)
{
	atomic_store(&g->stop, true);
	if (g->has_thread)
		pthread_join(g->thread, NULL);
	g->has_thread = false;
}

static int fail_here(const struct small_guest *g, enum small_fail where, struct via_error *err)
{
	if (g->config.at)
		g->config.at(where);
	if (g->config.fail_at != (int)where)
		return 0;
	return via_fail(err, -EIO, "small guest\nfails here by request\nnothing to do");
}

/* -- source ------------------------------------------------------------------- */

static int dirty_start(void *arg, struct via_error *err)
{
	struct small_guest *g = arg;
	int rc = fail_here(g, SMALL_FAIL_DIRTY_START, err);

	if (!rc)
		start_thread(g);
	return rc;
}

static int dirty_fetch(void *arg, unsigned index, struct via_bitmap *dirty, struct via_error *err)
{
	struct small_guest *g = arg;
	int rc = fail_here(g, SMALL_FAIL_DIRTY_FETCH, err);

	if (rc)
		return rc;
	if (index == 0 && !g->paused && !g->has_thread)
		write_some(g, g->config.writes_per_round);
	for (size_t w = 0; w < via_bitmap_nwords(dirty); w++) {
		uint64_t bits = via_bitmap_take_word(&g->dirty[index], w);

		for (unsigned i = 0; bits; i++, bits >>= 1)
			if (bits & 1)
				via_bitmap_set(dirty, w * VIA_BITMAP_WORD_BITS + i, 1);
	}
	return 0;
}

static void dirty_stop(void *arg)
{
	stop_thread(arg);
}

static int pause_guest(void *arg, struct via_error *err)
{
	struct small_guest *g = arg;
	int rc = fail_here(g, SMALL_FAIL_PAUSE, err);

	if (rc)
		return rc;
	stop_thread(g);
	write_some(g, g->config.writes_per_round);
	g->paused = true;
	g->running = false;
	return 0;
}

static void resume_guest(void *arg)
{
	struct small_guest *g = arg;

	g->paused = false;
	g->running = true;
}

static size_t versions_len(const struct small_guest *g)
{
	size_t n = 0;

	for (unsigned r = 0; r < g->nregions; r++)
		n += g->config.pages[r];
	return n * sizeof(uint32_t);
}

/* Versions in host order: both sides are one process. */
static int save(void *arg, void **state, size_t *len, struct via_error *err)
{
	struct small_guest *g = arg;
	int rc = fail_here(g, SMALL_FAIL_SAVE, err);
	uint8_t *p;

	if (rc)
		return rc;
	*len = versions_len(g) + g->config.state_len;
	*state = p = malloc(*len + 1);
	if (!p)
		return via_fail(err, -ENOMEM, "small guest\nno memory for its state\nno");
	for (unsigned r = 0; r < g->nregions; r++) {
		memcpy(p, g->version[r], g->config.pages[r] * sizeof(uint32_t));
		p += g->config.pages[r] * sizeof(uint32_t);
	}
	for (unsigned i = 0; i < g->config.state_len; i++)
		p[i] = (uint8_t)(i * 7 + g->config.seed);
	return 0;
}

/* -- destination ------------------------------------------------------------------ */

static int make_region(struct small_guest *g, unsigned r, unsigned pages)
{
	g->config.pages[r] = pages;
	g->region[r].page_size = PAGE;
	g->region[r].len = (uint64_t)pages * PAGE;
	g->region[r].addr = via_pages_alloc(g->region[r].len);
	g->version[r] = calloc(pages, sizeof(uint32_t));
	return g->region[r].addr && g->version[r] ? via_bitmap_init(&g->dirty[r], pages) : -ENOMEM;
}

static int prepare(void *arg, unsigned nregions, struct via_guest_region *region,
		   struct via_error *err)
{
	struct small_guest *g = arg;
	int rc = fail_here(g, SMALL_FAIL_PREPARE, err);

	for (unsigned r = 0; r < nregions && r < SMALL_REGIONS && !rc; r++) {
		rc = make_region(g, r, (unsigned)(region[r].len / PAGE));
		region[r].addr = g->region[r].addr;
		g->nregions = r + 1;
	}
	return rc;
}

static int load(void *arg, const void *state, size_t len, struct via_error *err)
{
	struct small_guest *g = arg;
	int rc = fail_here(g, SMALL_FAIL_LOAD, err);
	const uint8_t *p = state;

	if (!rc && len != versions_len(g) + g->config.state_len)
		rc = via_fail(err, -EPROTO, "small guest\nstate of %zu bytes\nnothing to do", len);
	for (unsigned r = 0; r < g->nregions && !rc; r++) {
		memcpy(g->version[r], p, g->config.pages[r] * sizeof(uint32_t));
		p += g->config.pages[r] * sizeof(uint32_t);
	}
	for (unsigned i = 0; i < g->config.state_len && !rc; i++)
		if (p[i] != (uint8_t)(i * 7 + g->config.seed))
			rc = via_fail(err, -EPROTO, "small guest\nstate byte %u\nnothing to do", i);
	if (!rc && g->config.load_touches && small_guest_wrong_pages(g))
		rc = via_fail(err, -EIO, "small guest\nload() saw wrong pages\nnothing to do");
	return rc;
}

static bool page_is_right(const struct small_guest *g, unsigned r, unsigned p)
{
	const uint64_t *word =
		(const uint64_t *)((const uint8_t *)g->region[r].addr + (size_t)p * PAGE);
	unsigned i = 0;

	while (i < WORDS && word[i] == word_of(r, p, g->version[r][p], i))
		i++;
	return i == WORDS;
}

/* Every eighth page is only read, by all; another is written, by one of the threads. */
static void touch(struct small_guest *g, const struct small_toucher *t, unsigned r, unsigned p)
{
	if (p % 8 && p / 8 % g->config.toucher_threads != t->index)
		return;
	if (!page_is_right(g, r, p))
		atomic_fetch_add(&g->wrong_touched, 1);
	else if (p % 8)
		write_page(g, r, p);
}

static void *touch_pages(void *arg)
{
	const struct small_toucher *t = arg;
	struct small_guest *g = t->guest;
	uint64_t random = g->config.seed + t->index;

	touch(g, t, 0, 0);
	for (unsigned i = 0; i < g->config.touches && !atomic_load(&g->abandoned); i++) {
		unsigned r = (unsigned)(next_random(&random) % g->nregions);

		touch(g, t, r, (unsigned)(next_random(&random) % g->config.pages[r]));
	}
	return NULL;
}

static int start_touchers(struct small_guest *g, struct via_error *err)
{
	for (unsigned i = 0; i < g->config.toucher_threads; i++) {
		g->toucher[i] = (struct small_toucher){.guest = g, .index = i};
		if (pthread_create(&g->toucher[i].thread, NULL, touch_pages, &g->toucher[i]))
			return via_fail(err, -ENOMEM, "small guest\nno thread for a vCPU\nno");
		g->ntouchers++;
	}
	return 0;
}

void small_guest_join(struct small_guest *g)
{
	for (unsigned i = 0; i < g->ntouchers; i++)
		pthread_join(g->toucher[i].thread, NULL);
	g->ntouchers = 0;
}

static void abandon(void *arg)
{
	struct small_guest *g = arg;

	atomic_store(&g->abandoned, true);
}

/* Looks at every page, and writes at once, where a late write of the source would do harm. */
static int run(void *arg, struct via_error *err)
{
	struct small_guest *g = arg;
	int rc = fail_here(g, SMALL_FAIL_RUN, err);

	if (rc)
		return rc;
	rc = start_touchers(g, err);
	if (rc)
		return rc;
	g->running = true;
	if (g->config.postcopy)
		return 0;
	g->wrong_at_run = small_guest_wrong_pages(g);
	write_some(g, 1 + 2 * g->config.writes_per_round);
	return 0;
}

/* -- both ------------------------------------------------------------------------ */

int small_guest_source(struct small_guest *g, const struct small_guest_config *config)
{
	int rc = 0;

	memset(g, 0, sizeof(*g));
	g->config = *config;
	g->random = config->seed;
	g->nregions = config->pages[1] ? 2 : 1;
	for (unsigned r = 0; r < g->nregions && !rc; r++) {
		snprintf(g->region[r].name, sizeof(g->region[r].name), "ram%u", r);
		rc = make_region(g, r, config->pages[r]);
		for (unsigned p = 0; p < config->pages[r] && !rc; p++)
			if (next_random(&g->random) % 4)
				write_page(g, r, p);
	}
	g->running = true;
	g->source = (struct via_source_guest){.arg = g,
					      .nregions = g->nregions,
					      .region = g->region,
					      .dirty_start = dirty_start,
					      .dirty_fetch = dirty_fetch,
					      .dirty_stop = dirty_stop,
					      .pause = pause_guest,
					      .resume = resume_guest,
					      .save = save};
	return rc;
}

int small_guest_destination(struct small_guest *g, const struct small_guest_config *config)
{
	memset(g, 0, sizeof(*g));
	g->config = *config;
	g->random = ~config->seed;
	g->destination = (struct via_destination_guest){
		.arg = g,
		.prepare = prepare,
		.load = load,
		.run = run,
		.abandon = config->fail_at == SMALL_FAIL_ABANDON ? NULL : abandon};
	return 0;
}

void small_guest_fini(struct small_guest *g)
{
	stop_thread(g);
	small_guest_join(g);
	for (unsigned r = 0; r < g->nregions; r++) {
		via_pages_free(g->region[r].addr, g->region[r].len);
		free(g->version[r]);
		via_bitmap_fini(&g->dirty[r]);
	}
}

unsigned small_guest_wrong_pages(const struct small_guest *g)
{
	unsigned wrong = 0;

	for (unsigned r = 0; r < g->nregions; r++)
		for (unsigned p = 0; p < g->config.pages[r]; p++)
			wrong += !page_is_right(g, r, p);
	return wrong;
}
