/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_source.c -- see page_source.h. Answers go before bulk: a server counts itself into the
 * gate before it looks for the page, and pushers look at the gate before each write; what one has
 * posted already is all that can be ahead of an answer.
 *
 * The threads take no lock and allocate nothing. Guest memory does not change: the guest stands
 * still here for good.
 */
#include "migrate/page_source.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/probe.h"
#include "migrate/engine_messages.h"
#include "migrate/page_zero.h"
#include "migrate/urgent.h"
#include "transport/page_channel.h"

/*
 * A request often follows the answer to the last, and to be woken takes longer than to answer it (tens
 * of microseconds on a CPU that idles): look for the next one for so long before sleeping, leaving
 * the CPU to whoever wants it. The guest that used it is gone from here.
 */
#define SPIN_NS (500 * VIA_NS_PER_US)

struct source_region {
	const struct via_guest_region *guest;
	struct via_bitmap *missing;
	uint64_t first_word; /* among those of all regions */
};

struct page_worker {
	struct page_source *ps;
	struct via_channel *ch;
	pthread_t thread;
	int wake_fd;
	_Atomic bool gated; /* a pusher sleeps until the gate is open */
	uint64_t word;      /* where a pusher looks next */
};

struct page_source {
	struct source_region *region;
	unsigned nregions;
	uint64_t nwords;
	struct page_worker *worker; /* nservers, then pushers */
	unsigned nservers;
	_Atomic unsigned nworkers; /* that run */
	_Atomic bool stop;
	_Atomic unsigned gate; /* requests that wait for their answer */
	_Atomic uint64_t hint; /* 1 + the word of the last page asked for; 0: taken up */
	_Atomic unsigned pushing;
	_Atomic uint64_t pushed_ns;
	_Atomic uint64_t requests, request_pages, bulk_pages, zero_pages;
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* -- answers ------------------------------------------------------------------------ */

static void open_gate(struct page_source *ps)
{
	if (atomic_fetch_sub(&ps->gate, 1) != 1)
		return;
	for (unsigned i = ps->nservers; i < atomic_load(&ps->nworkers); i++)
		if (atomic_exchange(&ps->worker[i].gated, false))
			eventfd_write(ps->worker[i].wake_fd, 1);
}

/* Is it a page of this guest? */
static int check_request(const struct page_source *ps, const struct engine_page *page)
{
	const struct via_guest_region *g;

	if (page->kind != ENGINE_PAGE_ASKED || page->region >= ps->nregions)
		return -EPROTO;
	g = ps->region[page->region].guest;
	return page->len != g->page_size || page->off % g->page_size || page->off >= g->len
		       ? -EPROTO
		       : 0;
}

static void probe_answer(const struct via_channel *ch, const struct engine_page *page)
{
	VIA_PROBE(answer, VIA_ROLE_SOURCE, via_channel_probe(ch),
		  VIA_PROBE_PLACE(page->region, page->off), page->len, page->kind);
}

/* Answer with the content at @addr. */
static int send_page(struct page_source *ps, struct via_channel *ch, struct engine_page *page,
		     const uint8_t *addr)
{
	size_t slot_len = via_channel_slot_len(ch);
	uint8_t head[ENGINE_PAGE_LEN];
	struct via_run run = {.region = page->region, .off = page->off, .len = page->len};
	bool zero = page_is_zero(addr, page->len);

	count(&ps->zero_pages, zero);
	page->kind = zero ? ENGINE_PAGE_ZERO : slot_len ? ENGINE_PAGE_IN_SLOT : ENGINE_PAGE_HERE;
	probe_answer(ch, page);
	engine_page_encode(page, head);
	if (page->kind == ENGINE_PAGE_IN_SLOT)
		return via_channel_send_staged(ch, ENGINE_PAGE, head, sizeof(head), &run, 1);
	return via_channel_send(ch, ENGINE_PAGE, head, sizeof(head), addr, zero ? 0 : page->len);
}

static int answer(struct page_source *ps, struct via_channel *ch, struct engine_page *page)
{
	const struct source_region *r = &ps->region[page->region];
	uint64_t number = page->off / page->len;
	uint64_t bit = UINT64_C(1) << number % VIA_BITMAP_WORD_BITS;
	uint8_t head[ENGINE_PAGE_LEN];

	count(&ps->requests, 1);
	VIA_PROBE(request, VIA_ROLE_SOURCE, via_channel_probe(ch),
		  VIA_PROBE_PLACE(page->region, page->off), page->len, 0);
	atomic_store_explicit(&ps->hint, r->first_word + number / VIA_BITMAP_WORD_BITS + 1,
			      memory_order_relaxed);
	if (via_bitmap_take_bits(r->missing, number / VIA_BITMAP_WORD_BITS, bit)) {
		count(&ps->request_pages, 1);
		return send_page(ps, ch, page, (const uint8_t *)r->guest->addr + page->off);
	}
	page->kind = ENGINE_PAGE_COMING;
	probe_answer(ch, page);
	engine_page_encode(page, head);
	return via_channel_send(ch, ENGINE_PAGE, head, sizeof(head), NULL, 0);
}

static int on_request(struct page_source *ps, struct via_channel *ch, struct via_page_message *m)
{
	struct engine_page page;
	int rc;

	if (m->type != ENGINE_REQUEST || engine_page_decode(m->payload, m->len, &page) ||
	    check_request(ps, &page))
		return -EPROTO;
	rc = via_channel_done(ch, m); /* first: its credit goes back with the answer */
	if (rc)
		return rc;
	atomic_fetch_add(&ps->gate, 1);
	rc = answer(ps, ch, &page);
	open_gate(ps);
	return rc;
}

/* Move the channel; sleep only when no request has come for a while. */
static int wait_for_request(struct page_worker *w, uint64_t spin_until)
{
	int rc;

	if (via_now_ns() >= spin_until)
		return via_channel_wait(w->ch, VIA_NEVER, w->wake_fd);
	rc = via_channel_progress(w->ch);
	if (rc == 0)
		sched_yield();
	return rc;
}

static void *server_main(void *arg)
{
	struct page_worker *w = arg;
	struct page_source *ps = w->ps;
	struct via_page_message m;
	uint64_t spin_until = 0;
	int rc = 0;

	urgent_thread();

	while (rc >= 0 && !atomic_load(&ps->stop)) {
		rc = wait_for_request(w, spin_until);
		while (rc >= 0 && via_channel_next(w->ch, &m)) {
			rc = on_request(ps, w->ch, &m);
			spin_until = via_now_ns() + SPIN_NS;
		}
	}
	if (rc < 0)
		via_channel_fail(w->ch, rc);
	return NULL;
}

/* -- bulk ------------------------------------------------------------------------------ */

/* Pages taken by one pusher: of one region, ascending. */
struct batch {
	unsigned region;
	unsigned npages, max;
	uint64_t page[VIA_STAGED_RUNS];
};

static unsigned region_of_word(const struct page_source *ps, uint64_t word)
{
	unsigned r = 0;

	while (r + 1 < ps->nregions && ps->region[r + 1].first_word <= word)
		r++;
	return r;
}

/* Take what the batch has room for out of one word. */
static void take_from_word(const struct source_region *r, uint64_t word, struct batch *b)
{
	size_t w = (size_t)(word - r->first_word);
	uint64_t have = atomic_load_explicit(&r->missing->words[w], memory_order_relaxed);
	uint64_t mask = 0, taken;

	for (unsigned room = b->max - b->npages; have && room; room--) {
		mask |= have & -have;
		have &= have - 1;
	}
	for (taken = mask ? via_bitmap_take_bits(r->missing, w, mask) : 0; taken;
	     taken &= taken - 1)
		b->page[b->npages++] = w * VIA_BITMAP_WORD_BITS + (unsigned)__builtin_ctzll(taken);
}

/*
 * Fill a batch with missing pages: near the last page asked for, else where this pusher was.
 * False: nothing is missing any more.
 */
static bool take_batch(struct page_worker *w, size_t slot_len, struct batch *b)
{
	struct page_source *ps = w->ps;
	uint64_t hint = atomic_exchange_explicit(&ps->hint, 0, memory_order_relaxed);

	if (hint)
		w->word = hint - 1;
	b->npages = 0;
	for (uint64_t seen = 0; seen < ps->nwords; seen++) {
		unsigned region = region_of_word(ps, w->word);
		const struct source_region *r = &ps->region[region];

		if (b->npages && region != b->region)
			break;
		b->region = region;
		b->max = (unsigned)(slot_len / r->guest->page_size);
		if (b->max > VIA_STAGED_RUNS)
			b->max = VIA_STAGED_RUNS;
		take_from_word(r, w->word, b);
		if (b->npages == b->max)
			break;
		w->word = w->word + 1 < ps->nwords ? w->word + 1 : 0;
		/* A batch ascends. */
		if (b->npages && w->word == r->first_word)
			break;
	}
	return b->npages;
}

/* The pages of a batch that are zero, or those that are not, as ranges of a message. */
struct ranges {
	uint8_t message[ENGINE_ZERO_HEADER_LEN + VIA_STAGED_RUNS * ENGINE_ZERO_RANGE_LEN];
	struct engine_zero head;
	struct engine_zero_range last;
	struct via_run run[VIA_STAGED_RUNS];
};

static void add_page(struct ranges *r, uint64_t page, uint32_t page_size)
{
	unsigned n = r->head.nranges;

	if (n && r->last.first + r->last.n == page) {
		r->last.n++;
		r->run[n - 1].len += page_size;
	} else {
		r->last = (struct engine_zero_range){.first = page, .n = 1};
		r->run[n] = (struct via_run){
			.region = r->head.region, .off = page * page_size, .len = page_size};
		r->head.nranges = ++n;
	}
	engine_zero_put_range(r->message, n - 1, &r->last);
}

static size_t finish_ranges(struct ranges *r)
{
	engine_zero_put_header(r->message, &r->head);
	return ENGINE_ZERO_HEADER_LEN + (size_t)r->head.nranges * ENGINE_ZERO_RANGE_LEN;
}

static int send_batch(struct page_worker *w, const struct batch *b)
{
	const struct via_guest_region *g = w->ps->region[b->region].guest;
	struct ranges zero = {.head = {.region = (uint16_t)b->region}};
	struct ranges full = {.head = {.region = (uint16_t)b->region}};
	size_t len;
	int rc = 0;

	for (unsigned i = 0; i < b->npages; i++) {
		const uint8_t *addr = (const uint8_t *)g->addr + b->page[i] * g->page_size;

		bool is_zero = page_is_zero(addr, g->page_size);

		count(&w->ps->zero_pages, is_zero);
		VIA_PROBE(push, VIA_ROLE_SOURCE, via_channel_probe(w->ch),
			  VIA_PROBE_PLACE(b->region, b->page[i] * g->page_size), g->page_size,
			  is_zero);
		add_page(is_zero ? &zero : &full, b->page[i], g->page_size);
	}
	if (full.head.nranges) {
		len = finish_ranges(&full);
		rc = via_channel_send_staged(w->ch, ENGINE_PAGES, full.message, len, full.run,
					     full.head.nranges);
	}
	if (!rc && zero.head.nranges) {
		len = finish_ranges(&zero);
		rc = via_channel_send(w->ch, ENGINE_ZERO, zero.message, len, NULL, 0);
	}
	if (!rc)
		count(&w->ps->bulk_pages, b->npages);
	return rc;
}

/* Wait while a request is open. */
static int pass_gate(struct page_worker *w)
{
	struct page_source *ps = w->ps;
	int rc = 0;

	while (rc >= 0 && atomic_load(&ps->gate) && !atomic_load(&ps->stop)) {
		atomic_store(&w->gated, true);
		/* Opened meanwhile? Then nobody will write to wake_fd. */
		if (!atomic_load(&ps->gate))
			break;
		rc = via_channel_wait(w->ch, VIA_NEVER, w->wake_fd);
	}
	atomic_store(&w->gated, false);
	return rc < 0 ? rc : 0;
}

static int push(struct page_worker *w)
{
	struct page_source *ps = w->ps;
	size_t slot_len = via_channel_slot_len(w->ch);
	struct batch b = {.npages = 0};
	uint64_t sent = 0;
	int rc = 0;

	while (!rc && !atomic_load(&ps->stop)) {
		rc = via_channel_settle(w->ch);
		if (!rc && sent)
			rc = via_channel_pace(w->ch, sent);
		if (!rc)
			rc = pass_gate(w);
		if (rc || !take_batch(w, slot_len, &b))
			break;
		rc = send_batch(w, &b);
		sent = (uint64_t)b.npages * ps->region[b.region].guest->page_size;
	}
	return rc ? rc : via_channel_settle(w->ch);
}

static void *pusher_main(void *arg)
{
	struct page_worker *w = arg;
	struct page_source *ps = w->ps;
	int rc = push(w);

	if (rc >= 0 && atomic_fetch_sub(&ps->pushing, 1) == 1)
		atomic_store(&ps->pushed_ns, via_now_ns());
	/* The channel is kept moving, so that the destination's credits are taken. */
	while (rc >= 0 && !atomic_load(&ps->stop))
		rc = via_channel_wait(w->ch, VIA_NEVER, w->wake_fd);
	if (rc < 0)
		via_channel_fail(w->ch, rc);
	return NULL;
}

/* -- the life of the threads --------------------------------------------------------------- */

static int start_worker(struct page_source *ps, struct via_session *session,
			enum via_channel_kind kind, unsigned index, struct via_error *err)
{
	struct page_worker *w = &ps->worker[atomic_load(&ps->nworkers)];
	char name[32];
	int rc;

	*w = (struct page_worker){.ps = ps, .ch = via_channel_take(session, kind, index)};
	if (!w->ch)
		return via_fail(err, -EINVAL,
				"serve pages\nchannel %s %u is not ready\nopen it first",
				via_channel_kind_name(kind), index);
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake_fd < 0)
		return via_fail(err, via_err_from_errno(errno),
				"serve pages\nno more open files\nraise ulimit -n");
	w->word = ps->nwords * index / (index + 1); /* pushers begin apart */
	/* Counted first: who opens the gate has to know whom to wake. */
	atomic_fetch_add(&ps->nworkers, 1);
	rc = pthread_create(&w->thread, NULL, kind == VIA_PREEMPT ? server_main : pusher_main, w);
	if (rc) {
		atomic_fetch_sub(&ps->nworkers, 1);
		close(w->wake_fd);
		return via_fail(err, via_err_from_errno(rc),
				"serve pages\nno more threads\nraise ulimit -u");
	}
	snprintf(name, sizeof(name), "%s/%u", kind == VIA_PREEMPT ? "preempt" : "bulk", index);
	pthread_setname_np(w->thread, name);
	return 0;
}

int page_source_serve(struct page_source *ps, struct via_session *session, struct via_error *err)
{
	struct via_session_stats stats;
	int rc = 0;

	via_session_stats(session, &stats);
	ps->worker = calloc(stats.preempt + stats.multifd, sizeof(*ps->worker));
	if (!ps->worker)
		return via_fail(err, -ENOMEM, "serve pages\nout of memory\nfree some memory");
	ps->nservers = stats.preempt;
	atomic_store(&ps->stop, false);
	atomic_store(&ps->gate, 0);
	atomic_store(&ps->pushed_ns, 0);
	for (unsigned i = 0; i < stats.preempt && !rc; i++)
		rc = start_worker(ps, session, VIA_PREEMPT, i, err);
	return rc;
}

int page_source_push(struct page_source *ps, struct via_session *session, struct via_error *err)
{
	struct via_session_stats stats;
	int rc = 0;

	via_session_stats(session, &stats);
	atomic_store(&ps->pushing, stats.multifd);
	for (unsigned i = 0; i < stats.multifd && !rc; i++)
		rc = start_worker(ps, session, VIA_MULTIFD, i, err);
	return rc;
}

void page_source_stop(struct page_source *ps)
{
	atomic_store(&ps->stop, true);
	for (unsigned i = 0; i < atomic_load(&ps->nworkers); i++)
		eventfd_write(ps->worker[i].wake_fd, 1);
	for (unsigned i = 0; i < atomic_load(&ps->nworkers); i++) {
		pthread_join(ps->worker[i].thread, NULL);
		close(ps->worker[i].wake_fd);
	}
	free(ps->worker);
	ps->worker = NULL;
	ps->nservers = 0;
	atomic_store(&ps->nworkers, 0);
}

int page_source_new(const struct via_guest_region *regions, unsigned nregions,
		    struct via_bitmap *const *missing, struct page_source **out,
		    struct via_error *err)
{
	struct page_source *ps = calloc(1, sizeof(*ps));

	if (ps)
		ps->region = calloc(nregions, sizeof(*ps->region));
	if (!ps || !ps->region) {
		free(ps);
		return via_fail(err, -ENOMEM, "serve pages\nout of memory\nfree some memory");
	}
	ps->nregions = nregions;
	for (unsigned i = 0; i < nregions; i++) {
		ps->region[i] = (struct source_region){
			.guest = &regions[i], .missing = missing[i], .first_word = ps->nwords};
		ps->nwords += via_bitmap_nwords(missing[i]);
	}
	*out = ps;
	return 0;
}

void page_source_free(struct page_source *ps)
{
	if (!ps)
		return;
	page_source_stop(ps);
	free(ps->region);
	free(ps);
}

uint64_t page_source_remaining(const struct page_source *ps)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < ps->nregions; i++)
		bytes += via_bitmap_count(ps->region[i].missing) * ps->region[i].guest->page_size;
	return bytes;
}

uint64_t page_source_pushed_ns(const struct page_source *ps)
{
	return atomic_load(&ps->pushed_ns);
}

void page_source_stats(const struct page_source *ps, struct via_postcopy_stats *stats)
{
	stats->requests = atomic_load(&ps->requests);
	stats->request_pages = atomic_load(&ps->request_pages);
	stats->bulk_pages = atomic_load(&ps->bulk_pages);
	stats->zero_pages = atomic_load(&ps->zero_pages);
}
