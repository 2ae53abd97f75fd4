/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_sink.c -- see page_sink.h. Pages go from the receive buffer, or the slot of the staging, into
 * guest memory by UFFDIO_COPY, and by nothing else.
 *
 * It must never read a fault that it cannot ask for at once, and never take an answer that was
 * not asked for. The threads take no lock and allocate nothing.
 */
#include "migrate/page_sink.h"

#include <poll.h>
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
#include "migrate/uffd.h"
#include "migrate/urgent.h"
#include "transport/page_channel.h"

#define FAULTS_MAX 64u /* read at once */

/* Requests of one channel that may be open; as many as the source has receives, at most. */
#define OPEN_MAX 64u

/* An answer takes some tens of microseconds: do not sleep meanwhile, but leave the CPU to others. */
#define SPIN_NS (500 * VIA_NS_PER_US)

struct open_request {
	unsigned region;
	uint64_t page;
	uint64_t sent_ns;
};

/* A preempt channel, and its open requests, oldest first: they are answered in that order. */
struct asker {
	struct via_channel *ch;
	struct open_request open[OPEN_MAX];
	unsigned head, n;
};

struct fault_server {
	struct page_sink *sink;
	pthread_t thread;
	bool running;
	struct asker asker[VIA_PREEMPT_MAX];
	struct via_channel *ch[VIA_PREEMPT_MAX]; /* of the askers */
	unsigned nchannels;
	/* pages asked for in a lost session: looked for up to here */
	unsigned again_region;
	uint64_t again_page;
	uint64_t spin_until;
	struct via_hist request_ns, install_ns;
};

struct installer {
	struct page_sink *sink;
	struct via_channel *ch;
	pthread_t thread;
};

struct page_sink {
	struct page_store *store;
	struct via_session *session;
	struct fault_server server;
	struct installer *installer;
	unsigned ninstallers;
	int stop_fd; /* eventfd, readable for ever once stopped */
	_Atomic bool stop;
	_Atomic bool loading, unserved, released; /* page_sink_begin_load() */
	_Atomic uint64_t faults, requests, request_pages, bulk_pages;
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void fail_install(struct page_sink *sink, unsigned region, uint64_t first, int code)
{
	const struct page_store_region *r = &sink->store->region[region];
	struct via_error err = {0};

	via_fail(&err, code,
		 "install a page of region %s\noffset %llu: %s\n"
		 "free memory on this host; leave the pool of huge pages to the guest",
		 r->name, (unsigned long long)(first * r->page_size), via_err_text(code));
	via_session_abort(sink->session, &err);
}

/* Install, and wake the migration thread when that was the last page. */
static int install(struct page_sink *sink, unsigned region, uint64_t first, uint64_t n,
		   const uint8_t *src)
{
	int rc = page_store_install(sink->store, region, first, n, src);

	if (rc)
		fail_install(sink, region, first, rc);
	if (!rc && !atomic_load(&sink->store->missing))
		via_session_wake(sink->session);
	return rc;
}

/* -- the fault server: requests ------------------------------------------------------ */

static unsigned room_of(const struct asker *a)
{
	unsigned room = via_channel_room(a->ch);

	return room < OPEN_MAX - a->n ? room : OPEN_MAX - a->n;
}

static unsigned room_of_all(const struct fault_server *fs)
{
	unsigned room = 0;

	for (unsigned i = 0; i < fs->nchannels; i++)
		room += room_of(&fs->asker[i]);
	return room;
}

/* The channel of that vCPU, or the next one that has room. There is room. */
static struct asker *choose_asker(struct fault_server *fs, uint32_t thread)
{
	unsigned i = thread % fs->nchannels;

	while (!room_of(&fs->asker[i]))
		i = (i + 1) % fs->nchannels;
	return &fs->asker[i];
}

static int ask(struct fault_server *fs, unsigned region, uint64_t page, uint32_t thread)
{
	uint32_t len = fs->sink->store->region[region].page_size;
	struct engine_page m = {.region = (uint16_t)region,
				.kind = ENGINE_PAGE_ASKED,
				.len = len,
				.off = page * len};
	struct asker *a = choose_asker(fs, thread);
	uint8_t buf[ENGINE_PAGE_LEN];
	uint64_t now = via_now_ns();

	engine_page_encode(&m, buf);
	a->open[(a->head + a->n++) % OPEN_MAX] =
		(struct open_request){.region = region, .page = page, .sent_ns = now};
	fs->spin_until = now + SPIN_NS;
	count(&fs->sink->requests, 1);
	VIA_PROBE(request, VIA_ROLE_DESTINATION, via_channel_probe(a->ch),
		  VIA_PROBE_PLACE(region, m.off), len, 0);
	return via_channel_send(a->ch, ENGINE_REQUEST, buf, sizeof(buf), NULL, 0);
}

/* Ask again for what was asked for in a session that was lost, as far as there is @room. */
static int ask_again(struct fault_server *fs, unsigned room)
{
	struct page_store *store = fs->sink->store;
	int rc = 0;

	while (!rc && room && fs->again_region < store->nregions) {
		struct page_store_region *r = &store->region[fs->again_region];
		size_t page;

		if (!via_bitmap_next_run(&r->asked, fs->again_page, &page)) {
			fs->again_region++;
			fs->again_page = 0;
			continue;
		}
		fs->again_page = page + 1;
		if (!via_bitmap_test(&r->lacking, page))
			continue;
		rc = ask(fs, fs->again_region, page, (uint32_t)page);
		room--;
	}
	return rc;
}

/* @ask_now: else it is only noted, and asked for when the session is resumed. */
static int on_fault(struct fault_server *fs, const struct uffd_msg *m, bool ask_now)
{
	struct page_store *store = fs->sink->store;
	uint64_t page;
	int region;

	if (m->event != UFFD_EVENT_PAGEFAULT)
		return 0;
	region = page_store_find(store, m->arg.pagefault.address, &page);
	if (region < 0)
		return -EFAULT;
	count(&fs->sink->faults, 1);
	VIA_PROBE(fault, VIA_ROLE_DESTINATION, 0,
		  VIA_PROBE_PLACE(region, page * store->region[region].page_size),
		  store->region[region].page_size, m->arg.pagefault.feat.ptid);
	if (!via_bitmap_test(&store->region[region].lacking, page))
		return page_store_let_go(store, (unsigned)region, page);
	if (via_bitmap_test_and_set(&store->region[region].asked, page) || !ask_now)
		return 0;
	return ask(fs, (unsigned)region, page, m->arg.pagefault.feat.ptid);
}

/* Read no more faults than can be asked for. How many there were. */
static int take_faults(struct fault_server *fs, unsigned room)
{
	struct uffd_msg m[FAULTS_MAX];
	unsigned max = room < FAULTS_MAX ? room : FAULTS_MAX;
	ssize_t n = read(fs->sink->store->uffd, m, max * sizeof(m[0]));
	int rc = 0;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : via_err_from_errno(errno);
	n /= (ssize_t)sizeof(m[0]);
	/* What was read here nobody else will be told: go on when one fails. */
	for (ssize_t i = 0; i < n; i++) {
		int one = on_fault(fs, &m[i], !rc);

		rc = rc ? rc : one;
	}
	return rc ? rc : (int)n;
}

/* -- the fault server: answers --------------------------------------------------------- */

static int install_answer(struct fault_server *fs, const struct asker *a,
			  const struct open_request *asked, const struct engine_page *page,
			  const struct via_page_message *m)
{
	const uint8_t *src = NULL;
	uint64_t start = via_now_ns();
	int rc;

	if (page->kind == ENGINE_PAGE_COMING)
		return 0;
	if (page->kind == ENGINE_PAGE_HERE)
		src = m->payload + ENGINE_PAGE_LEN;
	else if (page->kind == ENGINE_PAGE_IN_SLOT)
		src = m->slot;
	else if (page->kind != ENGINE_PAGE_ZERO)
		return -EPROTO;
	if (page->kind == ENGINE_PAGE_IN_SLOT && (!src || page->len > m->slot_len))
		return -EPROTO;
	if (page->kind == ENGINE_PAGE_IN_SLOT)
		via_channel_placed(a->ch, page->len);
	rc = install(fs->sink, asked->region, asked->page, 1, src);
	via_hist_add(&fs->install_ns, via_now_ns() - start);
	if (!rc)
		count(&fs->sink->request_pages, 1);
	return rc;
}

static int on_answer(struct fault_server *fs, struct asker *a, const struct via_page_message *m)
{
	const struct open_request *asked = &a->open[a->head];
	struct engine_page page;
	uint32_t len;

	if (m->type != ENGINE_PAGE || !a->n || engine_page_decode(m->payload, m->len, &page))
		return -EPROTO;
	len = fs->sink->store->region[asked->region].page_size;
	if (page.region != asked->region || page.len != len || page.off != asked->page * len)
		return -EPROTO;
	via_hist_add(&fs->request_ns, via_now_ns() - asked->sent_ns);
	VIA_PROBE(answer, VIA_ROLE_DESTINATION, via_channel_probe(a->ch),
		  VIA_PROBE_PLACE(page.region, page.off), len, page.kind);
	a->head = (a->head + 1) % OPEN_MAX;
	a->n--;
	return install_answer(fs, a, asked, &page, m);
}

static int take_answers(struct fault_server *fs)
{
	struct via_page_message m;
	int rc = 0;

	for (unsigned i = 0; i < fs->nchannels && !rc; i++) {
		struct asker *a = &fs->asker[i];

		while (!rc && via_channel_next(a->ch, &m)) {
			rc = on_answer(fs, a, &m);
			if (!rc)
				rc = via_channel_done(a->ch, &m);
			if (rc)
				via_channel_fail(a->ch, rc);
		}
	}
	return rc;
}

static bool waits_for_answers(const struct fault_server *fs)
{
	for (unsigned i = 0; i < fs->nchannels; i++)
		if (fs->asker[i].n)
			return true;
	return false;
}

/* Move the channels; when there is nothing to do, and nothing is near, sleep. */
static int progress_or_sleep(struct fault_server *fs, bool idle)
{
	const struct page_sink *sink = fs->sink;
	/* Faults that cannot be asked for now wake nobody. */
	int fd[2] = {sink->stop_fd, sink->store->uffd};
	int rc = 0, moved = 0;

	if (idle && !(waits_for_answers(fs) && via_now_ns() < fs->spin_until))
		return via_channels_wait(fs->ch, fs->nchannels, VIA_NEVER, fd,
					 room_of_all(fs) ? 2 : 1);
	for (unsigned i = 0; i < fs->nchannels && rc >= 0; i++) {
		/* A look costs some fabrics a system call: not where nothing can come. */
		if (idle && !fs->asker[i].n)
			continue;
		rc = via_channel_progress(fs->ch[i]);
		if (rc < 0)
			via_channel_fail(fs->ch[i], rc);
		moved += rc;
	}
	if (!moved && idle)
		sched_yield();
	return rc;
}

static void *fault_server_main(void *arg)
{
	struct fault_server *fs = arg;
	struct page_sink *sink = fs->sink;
	int rc = 0, found = 0;

	urgent_thread();

	while (rc >= 0 && !atomic_load(&sink->stop)) {
		unsigned room = room_of_all(fs);

		rc = ask_again(fs, room);
		room = room_of_all(fs);
		if (!rc && room)
			rc = take_faults(fs, room);
		found = rc;
		if (rc >= 0)
			rc = progress_or_sleep(fs, found == 0);
		if (rc >= 0)
			rc = take_answers(fs);
	}
	if (rc < 0)
		via_channel_fail(fs->ch[0], rc);
	/* Pairs with page_sink_begin_load(): one of the two sees the other. */
	atomic_store(&sink->unserved, true);
	if (atomic_load(&sink->loading)) {
		atomic_store(&sink->released, true);
		page_store_release(sink->store);
	}
	return NULL;
}

bool page_sink_begin_load(struct page_sink *sink)
{
	atomic_store(&sink->loading, true);
	if (!atomic_load(&sink->unserved))
		return true;
	atomic_store(&sink->loading, false);
	return false;
}

bool page_sink_end_load(struct page_sink *sink)
{
	atomic_store(&sink->loading, false);
	return !atomic_load(&sink->released);
}

/* -- installers -------------------------------------------------------------------------- */

static int install_ranges(struct page_sink *sink, struct via_channel *ch,
			  const struct via_page_message *m)
{
	const struct page_store_region *r;
	const uint8_t *src = NULL;
	struct engine_zero head;
	uint64_t end = 0;
	size_t left = 0;

	if (engine_zero_decode(m->payload, m->len, &head) || head.fresh ||
	    head.region >= sink->store->nregions)
		return -EPROTO;
	r = &sink->store->region[head.region];
	if (m->type == ENGINE_PAGES) {
		src = m->slot;
		left = m->slot_len;
		if (!src)
			return -EPROTO;
	}
	for (unsigned i = 0; i < head.nranges; i++) {
		struct engine_zero_range range;
		int rc = engine_zero_get_range(m->payload, i, r->npages, &range);
		size_t len = (size_t)range.n * r->page_size;

		if (rc || range.first < end || (src && len > left))
			return -EPROTO;
		end = range.first + range.n;
		rc = install(sink, head.region, range.first, range.n, src);
		if (rc)
			return rc;
		count(&sink->bulk_pages, range.n);
		src = src ? src + len : NULL;
		left -= src ? len : 0;
	}
	if (src)
		via_channel_placed(ch, m->slot_len - left);
	return 0;
}

static void *installer_main(void *arg)
{
	struct installer *in = arg;
	struct page_sink *sink = in->sink;
	struct via_page_message m;
	int rc = 0;

	while (rc >= 0 && !atomic_load(&sink->stop)) {
		rc = via_channels_wait(&in->ch, 1, VIA_NEVER, &sink->stop_fd, 1);
		while (rc >= 0 && via_channel_next(in->ch, &m)) {
			rc = m.type == ENGINE_PAGES || m.type == ENGINE_ZERO
				     ? install_ranges(sink, in->ch, &m)
				     : -EPROTO;
			if (rc >= 0)
				rc = via_channel_done(in->ch, &m);
		}
	}
	if (rc < 0)
		via_channel_fail(in->ch, rc);
	return NULL;
}

/* -- the life of the threads ------------------------------------------------------------------ */

static int fail_thread(int code, struct via_error *err)
{
	return via_fail(err, via_err_from_errno(code),
			"receive pages\nno more threads\nraise ulimit -u");
}

static int fail_channel(const char *kind, unsigned index, struct via_error *err)
{
	return via_fail(err, -EPROTO,
			"receive pages\nchannel %s %u is not ready for them\n"
			"check that both sides run the same release",
			kind, index);
}

static int fail_twice(struct via_error *err)
{
	return via_fail(err, -EPROTO,
			"receive pages\nthe source has announced them already\n"
			"check that both sides run the same release");
}

static int begin(struct page_sink *sink, struct via_session *session, struct via_error *err)
{
	if (sink->stop_fd >= 0)
		return 0;
	sink->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sink->stop_fd < 0)
		return via_fail(err, via_err_from_errno(errno),
				"receive pages\nno more open files\nraise ulimit -n");
	sink->session = session;
	atomic_store(&sink->stop, false);
	return 0;
}

int page_sink_serve_faults(struct page_sink *sink, struct via_session *session,
			   struct via_error *err)
{
	struct fault_server *fs = &sink->server;
	struct via_session_stats stats;
	int rc = fs->running ? fail_twice(err) : begin(sink, session, err);

	if (rc)
		return rc;
	via_session_stats(session, &stats);
	atomic_store(&sink->unserved, false);
	atomic_store(&sink->released, false);
	fs->sink = sink;
	fs->nchannels = 0;
	fs->again_region = 0;
	fs->again_page = 0;
	for (unsigned i = 0; i < stats.preempt; i++) {
		fs->ch[i] = via_channel_take(session, VIA_PREEMPT, i);
		if (!fs->ch[i])
			return fail_channel("preempt", i, err);
		fs->asker[i] = (struct asker){.ch = fs->ch[i]};
		fs->nchannels++;
	}
	if (!fs->nchannels)
		return fail_channel("preempt", 0, err);
	rc = pthread_create(&fs->thread, NULL, fault_server_main, fs);
	fs->running = !rc;
	if (rc)
		return fail_thread(rc, err);
	pthread_setname_np(fs->thread, "faults");
	return 0;
}

int page_sink_install_bulk(struct page_sink *sink, struct via_session *session,
			   struct via_error *err)
{
	struct via_session_stats stats;
	int rc = sink->installer ? fail_twice(err) : begin(sink, session, err);

	if (rc)
		return rc;
	via_session_stats(session, &stats);
	sink->installer = calloc(stats.multifd, sizeof(*sink->installer));
	if (!sink->installer)
		return via_fail(err, -ENOMEM, "receive pages\nout of memory\nfree some memory");
	for (unsigned i = 0; i < stats.multifd; i++) {
		struct installer *in = &sink->installer[i];
		char name[32];

		*in = (struct installer){.sink = sink,
					 .ch = via_channel_take(session, VIA_MULTIFD, i)};
		if (!in->ch)
			return fail_channel("multifd", i, err);
		rc = pthread_create(&in->thread, NULL, installer_main, in);
		if (rc)
			return fail_thread(rc, err);
		sink->ninstallers++;
		snprintf(name, sizeof(name), "bulk/%u", i);
		pthread_setname_np(in->thread, name);
	}
	return 0;
}

void page_sink_stop(struct page_sink *sink)
{
	if (sink->stop_fd < 0)
		return;
	atomic_store(&sink->stop, true);
	eventfd_write(sink->stop_fd, 1);
	if (sink->server.running)
		pthread_join(sink->server.thread, NULL);
	sink->server.running = false;
	for (unsigned i = 0; i < sink->ninstallers; i++)
		pthread_join(sink->installer[i].thread, NULL);
	sink->ninstallers = 0;
	free(sink->installer);
	sink->installer = NULL;
	close(sink->stop_fd);
	sink->stop_fd = -1;
}

int page_sink_new(struct page_store *store, struct page_sink **out, struct via_error *err)
{
	struct page_sink *sink = calloc(1, sizeof(*sink));

	if (!sink)
		return via_fail(err, -ENOMEM, "receive pages\nout of memory\nfree some memory");
	sink->store = store;
	sink->stop_fd = -1;
	*out = sink;
	return 0;
}

void page_sink_free(struct page_sink *sink)
{
	if (!sink)
		return;
	page_sink_stop(sink);
	free(sink);
}

void page_sink_stats(const struct page_sink *sink, struct via_postcopy_stats *stats)
{
	stats->faults = atomic_load(&sink->faults);
	stats->requests = atomic_load(&sink->requests);
	stats->request_pages = atomic_load(&sink->request_pages);
	stats->bulk_pages = atomic_load(&sink->bulk_pages);
	stats->duplicate_pages = atomic_load(&sink->store->duplicates);
	via_hist_copy(&stats->request_ns, &sink->server.request_ns);
	via_hist_copy(&stats->install_ns, &sink->server.install_ns);
}
