/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_guest.c -- the demo guest's RAM, the tables that the engine sees, and the check of
 * every page.
 *
 * It must never take memory that the host does not have: a process killed for it
 * says nothing, an error does.
 *
 * Invariant: while no vCPU runs, page p is right when it holds version[p].
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "demo/demo_guest_impl.h"

#define MIB          (UINT64_C(1) << 20)
#define WORKERS_MAX  8u
#define WORKER_PAGES 4096u /* not worth a thread for fewer */

int demo_guest_check_config(const struct demo_guest_config *config, struct via_error *err)
{
	if (!config->memory || config->memory % DEMO_PAGE_SIZE || config->memory > SIZE_MAX / 2)
		return via_fail(err, -EINVAL,
				"memory of the demo guest\n%llu bytes\n"
				"choose a multiple of %u, at least one page",
				(unsigned long long)config->memory, DEMO_PAGE_SIZE);
	if (config->vcpus > DEMO_VCPUS_MAX)
		return via_fail(err, -EINVAL, "vCPUs of the demo guest\n%u\nchoose 0 to %u",
				config->vcpus, DEMO_VCPUS_MAX);
	return 0;
}

/* Bytes of /proc/meminfo's MemAvailable; UINT64_MAX when it cannot be read. */
static uint64_t memory_available(void)
{
	unsigned long long kib = 0;
	bool known = false;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && !known && fgets(line, sizeof(line), f))
		known = sscanf(line, "MemAvailable: %llu kB", &kib) == 1;
	if (f)
		fclose(f);
	return known ? kib * 1024 : UINT64_MAX;
}

/* RAM of @len bytes and what belongs to it. */
static int make_ram(struct demo_guest *g, uint64_t len, struct via_error *err)
{
	uint64_t npages = len / DEMO_PAGE_SIZE, available = memory_available();
	uint64_t need = len + npages * sizeof(*g->version) + npages / 8;
	void *addr = MAP_FAILED;

	if (need <= available)
		addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		goto no_memory;
	(void)madvise(addr, len, MADV_HUGEPAGE); /* as VMMs do; without it just slower */
	(void)madvise(addr, len, MADV_DONTDUMP); /* as VMMs do: what a guest holds is its own */
	g->version = calloc(npages, sizeof(*g->version));
	if (!g->version || via_bitmap_init(&g->wrong, npages))
		goto unmap;
	g->region = (struct via_guest_region){
		.name = "ram", .addr = addr, .len = len, .page_size = DEMO_PAGE_SIZE};
	g->npages = npages;
	g->source.nregions = 1;
	return 0;
unmap:
	free(g->version);
	g->version = NULL;
	munmap(addr, len);
no_memory:
	return via_fail(err, -ENOMEM,
			"no memory for a demo guest of %llu MiB\n"
			"it needs %llu MiB, available are %llu MiB\n"
			"choose less memory, or free some on this host (both guests of a migration "
			"on one host need theirs)",
			(unsigned long long)(len / MIB),
			(unsigned long long)((need + MIB - 1) / MIB),
			(unsigned long long)(available / MIB));
}

/* Pages [first, end) and what is to be done with them by one thread. */
struct span {
	struct demo_guest *guest;
	void (*work)(struct span *span);
	uint64_t first, end;
	uint64_t found[DEMO_PAGE_STATES];
	pthread_t thread;
	bool threaded;
};

static void *run_span(void *arg)
{
	struct span *span = arg;

	span->work(span);
	return NULL;
}

/* Do @work on the pages [0, @npages), divided among threads; sum up what they found. */
static void over_pages(struct demo_guest *g, uint64_t npages, void (*work)(struct span *),
		       uint64_t found[DEMO_PAGE_STATES])
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t n = npages / WORKER_PAGES + 1;
	struct span span[WORKERS_MAX];

	if (cpus > 0 && n > (uint64_t)cpus)
		n = (uint64_t)cpus;
	if (n > WORKERS_MAX)
		n = WORKERS_MAX;
	for (uint64_t i = 0; i < n; i++) {
		span[i] = (struct span){.guest = g,
					.work = work,
					.first = npages * i / n,
					.end = npages * (i + 1) / n};
		span[i].threaded =
			i + 1 < n && !pthread_create(&span[i].thread, NULL, run_span, &span[i]);
		/* The last, and any that gets no thread, is done here. */
		if (!span[i].threaded)
			work(&span[i]);
	}
	for (uint64_t i = 0; i < n; i++) {
		if (span[i].threaded)
			pthread_join(span[i].thread, NULL);
		for (unsigned k = 0; k < DEMO_PAGE_STATES; k++)
			found[k] += span[i].found[k];
	}
}

static void *page_addr(const struct demo_guest *g, uint64_t page)
{
	return (char *)g->region.addr + page * DEMO_PAGE_SIZE;
}

static void fill(struct span *s)
{
	for (uint64_t p = s->first; p < s->end; p++)
		demo_page_write(page_addr(s->guest, p), s->guest->config.seed, p,
				++s->guest->version[p]);
}

/* What a vCPU found wrong and mended is in the sums already. */
static void check(struct span *s)
{
	const struct demo_guest *g = s->guest;

	for (uint64_t p = s->first; p < s->end; p++) {
		enum demo_page_state state =
			demo_page_check(page_addr(g, p), g->config.seed, p, g->version[p]);

		if (state != DEMO_PAGE_RIGHT && !via_bitmap_test(&g->wrong, p))
			s->found[state]++;
	}
}

void demo_guest_verify(struct demo_guest *g, struct demo_verify *result)
{
	uint64_t found[DEMO_PAGE_STATES];

	for (unsigned i = 0; i < DEMO_PAGE_STATES; i++)
		found[i] = g->found[i];
	if (g->npages)
		over_pages(g, g->npages, check, found);
	*result = (struct demo_verify){
		.pages = g->npages,
		.missing = found[DEMO_PAGE_MISSING],
		.stale = found[DEMO_PAGE_STALE],
		.torn = found[DEMO_PAGE_TORN],
	};
}

static int dirty_start(void *arg, struct via_error *err)
{
	struct demo_guest *g = arg;
	struct via_dirty_tracker *tracker;
	int ret;

	if (g->tracker)
		return via_fail(err, -EINVAL, "the demo guest's dirty log runs already");
	ret = via_dirty_tracker_open(&g->region, g->source.nregions, VIA_DIRTY_BEST, &tracker, err);
	if (ret)
		return ret;
	ret = via_dirty_tracker_start(tracker, err);
	if (ret) {
		via_dirty_tracker_close(tracker);
		return ret;
	}
	g->tracker = tracker;
	g->tracker_way = via_dirty_tracker_way(tracker);
	return 0;
}

static int dirty_fetch(void *arg, unsigned index, struct via_bitmap *dirty, struct via_error *err)
{
	struct demo_guest *g = arg;

	if (!g->tracker)
		return via_fail(err, -EINVAL, "the demo guest's dirty log does not run");
	return via_dirty_tracker_fetch(g->tracker, index, dirty, err);
}

static void dirty_stop(void *arg)
{
	struct demo_guest *g = arg;

	via_dirty_tracker_close(g->tracker);
	g->tracker = NULL;
}

static int pause_guest(void *arg, struct via_error *err)
{
	return demo_vcpus_pause(arg, err);
}

static void resume_guest(void *arg)
{
	demo_vcpus_resume(arg);
}

static int save(void *arg, void **state, size_t *len, struct via_error *err)
{
	return demo_state_save(arg, state, len, err);
}

static int prepare(void *arg, unsigned nregions, struct via_guest_region *region,
		   struct via_error *err)
{
	struct demo_guest *g = arg;
	int ret;

	if (g->region.addr)
		return via_fail(err, -EINVAL, "the demo guest has RAM already");
	if (nregions != 1 || strcmp(region->name, "ram") != 0 ||
	    region->page_size != DEMO_PAGE_SIZE || !region->len || region->len % DEMO_PAGE_SIZE)
		return via_fail(err, -EINVAL,
				"a demo guest has one region, \"ram\", with pages of %u bytes\n"
				"%u regions, the first \"%s\" of %llu bytes with pages of %u\n"
				"migrate a demo guest of the same release to it",
				DEMO_PAGE_SIZE, nregions, nregions ? region->name : "",
				nregions ? (unsigned long long)region->len : 0,
				nregions ? region->page_size : 0);
	ret = make_ram(g, region->len, err);
	if (ret)
		return ret;
	if (via_bitmap_init(&g->touched, g->npages))
		return via_fail(err, -ENOMEM,
				"no memory for the bitmap of a demo guest\n%llu pages\n"
				"free some memory on this host",
				(unsigned long long)g->npages);
	/* Faults would be taken by the channels, page by page. Before Linux 5.14 they are. */
	(void)madvise(g->region.addr, g->region.len, MADV_POPULATE_WRITE);
	region->addr = g->region.addr;
	return 0;
}

static int load(void *arg, const void *state, size_t len, struct via_error *err)
{
	return demo_state_load(arg, state, len, err);
}

static int run(void *arg, struct via_error *err)
{
	struct demo_guest *g = arg;

	if (!g->loaded)
		return via_fail(err, -EINVAL, "the demo guest has no device state to run from");
	return demo_vcpus_start(g, err);
}

static void abandon(void *arg)
{
	demo_vcpus_abandon(arg);
}

int demo_guest_new_empty(struct demo_guest **guest, struct via_error *err)
{
	struct demo_guest *g = calloc(1, sizeof(*g));
	pthread_condattr_t attr;

	if (!g)
		return via_fail(err, -ENOMEM, "no memory for a demo guest");
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->ordered, &attr);
	pthread_cond_init(&g->parked, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&g->lock, NULL);
	g->tracker_way = "none";
	g->source = (struct via_source_guest){
		.arg = g,
		.region = &g->region,
		.dirty_start = dirty_start,
		.dirty_fetch = dirty_fetch,
		.dirty_stop = dirty_stop,
		.pause = pause_guest,
		.resume = resume_guest,
		.save = save,
	};
	g->destination = (struct via_destination_guest){
		.arg = g, .prepare = prepare, .load = load, .run = run, .abandon = abandon};
	*guest = g;
	return 0;
}

int demo_guest_new(const struct demo_guest_config *config, struct demo_guest **guest,
		   struct via_error *err)
{
	uint64_t none[DEMO_PAGE_STATES] = {0};
	struct demo_guest *g;
	int ret = demo_guest_check_config(config, err);

	if (!ret)
		ret = demo_guest_new_empty(&g, err);
	if (ret)
		return ret;
	ret = make_ram(g, config->memory, err);
	if (ret) {
		demo_guest_free(g);
		return ret;
	}
	g->config = *config;
	over_pages(g, g->npages - g->npages / 4, fill, none);
	*guest = g;
	return 0;
}

void demo_guest_free(struct demo_guest *g)
{
	if (!g)
		return;
	demo_vcpus_stop(g);
	dirty_stop(g);
	if (g->region.addr)
		munmap(g->region.addr, g->region.len);
	via_bitmap_fini(&g->wrong);
	via_bitmap_fini(&g->touched);
	free(g->version);
	pthread_cond_destroy(&g->ordered);
	pthread_cond_destroy(&g->parked);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

int demo_guest_start(struct demo_guest *g, struct via_error *err)
{
	if (!g->npages)
		return via_fail(err, -EINVAL, "the demo guest has no RAM yet");
	return demo_vcpus_start(g, err);
}

void demo_guest_stop(struct demo_guest *g)
{
	demo_vcpus_stop(g);
}

const struct via_source_guest *demo_guest_source(struct demo_guest *g)
{
	return &g->source;
}

const struct via_destination_guest *demo_guest_destination(struct demo_guest *g)
{
	return &g->destination;
}

uint64_t demo_guest_bytes_written(const struct demo_guest *g)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < DEMO_VCPUS_MAX; i++)
		sum += atomic_load_explicit(&g->vcpu[i].bytes, memory_order_relaxed);
	return sum;
}

uint64_t demo_guest_vcpu_errors(const struct demo_guest *g)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < DEMO_PAGE_STATES; i++)
		sum += g->found[i];
	return sum;
}

const char *demo_guest_tracker(const struct demo_guest *g)
{
	return g->tracker_way;
}

const struct demo_guest_config *demo_guest_get_config(const struct demo_guest *g)
{
	return &g->config;
}
