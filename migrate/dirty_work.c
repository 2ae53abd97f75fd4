/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_work.c -- see dirty_work.h. next() runs in the senders' threads, several at
 * once: it allocates nothing and takes no lock; each channel has a cursor of its own.
 */
#include "migrate/dirty_work.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/engine_messages.h"
#include "migrate/page_zero.h"

#define WINDOW_LEN     (UINT64_C(1) << 20)
#define WINDOW_WORDS   (WINDOW_LEN / 4096 / VIA_BITMAP_WORD_BITS)
#define BATCH_LEN      WINDOW_LEN /* bytes after which a batch is handed over */
#define CACHE_LINE     64
#define PREFETCH_PAGES 8

/* What a channel took and has not handed out yet. */
struct cursor {
	alignas(CACHE_LINE) uint64_t words[WINDOW_WORDS];
	size_t nbits; /* bits in words; 0: nothing */
	size_t pos;   /* bits before it are done */
	unsigned region;
	uint64_t first_page; /* of bit 0 */
	struct dirty_work_counts counts;
};

struct region_work {
	struct via_guest_region region;
	struct via_bitmap dirty;
	uint64_t npages;
	size_t window_words;   /* words of the bitmap in one window */
	uint64_t first_window; /* among those of all regions */
};

struct dirty_work {
	struct via_work work;
	unsigned nregions;
	struct region_work *region;
	uint64_t nwindows;
	bool fresh;
	_Atomic bool cut;
	struct cursor *cursor; /* one for each channel */
	unsigned nchannels;
	alignas(CACHE_LINE) _Atomic uint64_t next_window;
};

/* Take the next window with a dirty page into @c. False when none is left. */
static bool take_window(struct dirty_work *dw, struct cursor *c)
{
	uint64_t w;

	while ((w = atomic_fetch_add(&dw->next_window, 1)) < dw->nwindows) {
		unsigned r = c->region < dw->nregions && w >= dw->region[c->region].first_window
				     ? c->region
				     : 0;
		struct region_work *rw;
		size_t first_word, nwords;
		uint64_t any = 0;

		while (r + 1 < dw->nregions && dw->region[r + 1].first_window <= w)
			r++;
		rw = &dw->region[r];
		first_word = (size_t)(w - rw->first_window) * rw->window_words;
		nwords = via_bitmap_nwords(&rw->dirty) - first_word;
		if (nwords > rw->window_words)
			nwords = rw->window_words;
		for (size_t i = 0; i < nwords; i++)
			any |= c->words[i] = via_bitmap_take_word(&rw->dirty, first_word + i);
		if (!any)
			continue;
		c->region = r;
		c->first_page = (uint64_t)first_word * VIA_BITMAP_WORD_BITS;
		c->nbits = nwords * VIA_BITMAP_WORD_BITS;
		c->pos = 0;
		return true;
	}
	return false;
}

/* How many of the @n pages from @addr on are alike: all zero, or all with content (*zero says). */
static size_t alike(const uint8_t *addr, size_t page_size, size_t n, bool *zero)
{
	size_t i;

	*zero = page_is_zero(addr, page_size);
	for (i = 1; i < n; i++) {
		const uint8_t *page = addr + i * page_size;

		if (i + PREFETCH_PAGES < n)
			__builtin_prefetch(page + PREFETCH_PAGES * page_size);
		if (page_is_zero(page, page_size) != *zero)
			break;
	}
	return i;
}

struct filling {
	struct via_batch *batch;
	struct engine_zero zero;
	uint64_t bytes;
};

static bool has_room(const struct filling *f)
{
	size_t message = ENGINE_ZERO_HEADER_LEN + (f->zero.nranges + 1) * ENGINE_ZERO_RANGE_LEN;

	return f->batch->nruns < VIA_BATCH_RUNS && f->bytes < BATCH_LEN &&
	       message <= f->batch->message_cap;
}

static void add_run(struct filling *f, struct cursor *c, const struct region_work *rw,
		    uint64_t page, size_t n)
{
	uint64_t page_size = rw->region.page_size;

	f->batch->run[f->batch->nruns++] = (struct via_run){
		.region = (uint16_t)c->region, .off = page * page_size, .len = n * page_size};
	f->bytes += n * page_size;
	c->counts.pages += n;
	c->counts.bytes += n * page_size;
}

static void add_zero(struct filling *f, struct cursor *c, uint64_t page, size_t n)
{
	struct engine_zero_range range = {.first = page, .n = (uint32_t)n};

	f->zero.region = (uint16_t)c->region;
	engine_zero_put_range(f->batch->message, f->zero.nranges++, &range);
	c->counts.zero_pages += n;
}

/* Move what the batch has room for from the cursor into it. */
static void fill_from(struct dirty_work *dw, struct cursor *c, struct filling *f)
{
	const struct region_work *rw = &dw->region[c->region];
	size_t first, n;

	while (has_room(f) && (n = via_bits_next_run(c->words, c->nbits, c->pos, &first)) != 0) {
		uint64_t page = c->first_page + first;
		const uint8_t *addr =
			(const uint8_t *)rw->region.addr + page * rw->region.page_size;
		bool zero;

		n = alike(addr, rw->region.page_size, n, &zero);
		if (zero)
			add_zero(f, c, page, n);
		else
			add_run(f, c, rw, page, n);
		c->pos = first + n;
	}
	if (!via_bits_next_run(c->words, c->nbits, c->pos, &first))
		c->nbits = 0;
}

static int next(void *arg, unsigned channel, struct via_batch *batch)
{
	struct dirty_work *dw = arg;
	struct cursor *c = &dw->cursor[channel];
	struct filling f = {.batch = batch, .zero = {.fresh = dw->fresh}};

	while (has_room(&f) && !atomic_load_explicit(&dw->cut, memory_order_relaxed)) {
		unsigned region = c->region;

		if (!c->nbits && !take_window(dw, c))
			break;
		/* One message speaks of one region. */
		if (f.zero.nranges && c->region != region)
			break;
		fill_from(dw, c, &f);
	}
	if (f.zero.nranges) {
		engine_zero_put_header(batch->message, &f.zero);
		batch->message_type = ENGINE_ZERO;
		batch->message_len =
			ENGINE_ZERO_HEADER_LEN + (size_t)f.zero.nranges * ENGINE_ZERO_RANGE_LEN;
	}
	return batch->nruns || batch->message_len ? 1 : 0;
}

static int init_region(struct dirty_work *dw, struct region_work *rw,
		       const struct via_guest_region *region)
{
	size_t words = WINDOW_LEN / region->page_size / VIA_BITMAP_WORD_BITS;

	rw->region = *region;
	rw->npages = region->len / region->page_size;
	rw->window_words = words ? words : 1;
	rw->first_window = dw->nwindows;
	if (via_bitmap_init(&rw->dirty, (size_t)rw->npages))
		return -ENOMEM;
	dw->nwindows += (via_bitmap_nwords(&rw->dirty) + rw->window_words - 1) / rw->window_words;
	return 0;
}

int dirty_work_new(const struct via_guest_region *regions, unsigned nregions, unsigned nchannels,
		   struct dirty_work **work, struct via_error *err)
{
	struct dirty_work *dw = aligned_alloc(CACHE_LINE, sizeof(*dw));
	size_t cursors_len = nchannels * sizeof(struct cursor);

	if (!dw)
		goto no_memory;
	memset(dw, 0, sizeof(*dw));
	dw->work = (struct via_work){.arg = dw, .next = next};
	dw->region = calloc(nregions, sizeof(*dw->region));
	dw->cursor = aligned_alloc(CACHE_LINE, cursors_len);
	dw->nchannels = nchannels;
	if (!dw->region || !dw->cursor)
		goto no_memory;
	memset(dw->cursor, 0, cursors_len);
	for (unsigned i = 0; i < nregions; i++) {
		dw->nregions = i + 1;
		if (init_region(dw, &dw->region[i], &regions[i]))
			goto no_memory;
	}
	*work = dw;
	return 0;
no_memory:
	dirty_work_free(dw);
	return via_fail(err, -ENOMEM,
			"make the dirty bitmap\nout of memory\n"
			"it needs one bit for each page of the guest");
}

void dirty_work_free(struct dirty_work *dw)
{
	if (!dw)
		return;
	for (unsigned i = 0; i < dw->nregions; i++)
		via_bitmap_fini(&dw->region[i].dirty);
	free(dw->region);
	free(dw->cursor);
	free(dw);
}

struct via_bitmap *dirty_work_bitmap(struct dirty_work *dw, unsigned index)
{
	return &dw->region[index].dirty;
}

void dirty_work_set_all(struct dirty_work *dw)
{
	for (unsigned i = 0; i < dw->nregions; i++)
		via_bitmap_set(&dw->region[i].dirty, 0, (size_t)dw->region[i].npages);
}

uint64_t dirty_work_remaining(const struct dirty_work *dw)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < dw->nregions; i++)
		bytes += via_bitmap_count(&dw->region[i].dirty) * dw->region[i].region.page_size;
	return bytes;
}

const struct via_work *dirty_work_begin(struct dirty_work *dw, bool fresh)
{
	dw->fresh = fresh;
	atomic_store(&dw->cut, false);
	atomic_store(&dw->next_window, 0);
	return &dw->work;
}

void dirty_work_cut(struct dirty_work *dw)
{
	atomic_store(&dw->cut, true);
}

void dirty_work_restore(struct dirty_work *dw)
{
	for (unsigned i = 0; i < dw->nchannels; i++) {
		struct cursor *c = &dw->cursor[i];
		size_t first, n;

		for (; c->nbits && (n = via_bits_next_run(c->words, c->nbits, c->pos, &first)) != 0;
		     c->pos = first + n)
			via_bitmap_set(&dw->region[c->region].dirty, c->first_page + first, n);
		c->nbits = 0;
	}
}

void dirty_work_counts(const struct dirty_work *dw, struct dirty_work_counts *counts)
{
	memset(counts, 0, sizeof(*counts));
	for (unsigned i = 0; i < dw->nchannels; i++) {
		counts->pages += dw->cursor[i].counts.pages;
		counts->zero_pages += dw->cursor[i].counts.zero_pages;
		counts->bytes += dw->cursor[i].counts.bytes;
	}
}
