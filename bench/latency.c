/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * latency.c -- a page that a vCPU waits for: a small request up, and 4 KiB down.
 *
 * Ours: the engine's own page server at the near end, and at the far end requests one after the
 * other, as the fault server sends them. Under load the near end's pushers send everything else in
 * bulk meanwhile, held back by the gate as in any migration. Only answers with content count. Bare:
 * the same bytes as two messages, asked from the near end; under load beside two more endpoints
 * that write without end.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "bench/bare.h"
#include "migrate/engine_messages.h"
#include "migrate/page_source.h"
#include "migrate/urgent.h"
#include "transport/page_channel.h"

#define PAGE_SIZE  4096u
#define IDLE_LEN   (UINT64_C(256) << 20)
#define LOAD_LEN   (UINT64_C(2) << 30)
#define LOAD_ENDS  2u /* channels that carry the load */
#define LOAD_WRITE ((size_t)128 << 10)
#define LOAD_PART  ((size_t)16 << 20)
#define WARM       500u
#define SPIN_NS    (500 * VIA_NS_PER_US) /* as the fault server */
#define ALL_GONE   1000u /* so many answers without content: everything was pushed */

enum { MESSAGE_GO = VIA_MESSAGE_USER, MESSAGE_DONE };

/* clang-format off */
static const struct bench_case cases[] = {
	{{{"load", 0}, {"bare_sleeps", 0}}}, {{{"load", 0}, {"bare_sleeps", 1}}},
	{{{"load", 1}, {"bare_sleeps", 1}}},
};
/* clang-format on */

/* A session that is resumed is sealed from the start: its multifd channels carry pages. */
static const struct via_resume resume = {.id = "viaduct bench", .epoch = 1};

static bool has_load(const struct bench_job *job)
{
	return bench_param(&job->the_case, "load");
}

/* A power of two. */
static uint64_t memory_len(const struct bench_job *job)
{
	uint64_t most = job->memory ? job->memory : has_load(job) ? LOAD_LEN : IDLE_LEN;
	uint64_t len = 1 << 20;

	while (len <= most / 2)
		len *= 2;
	return len;
}

/* The other end's next message, which is @type. */
static int receive(struct via_session *session, unsigned type, struct via_error *err)
{
	struct via_message m;
	int rc = via_main_receive(session, via_deadline_in(BENCH_STEP_NS), &m, err);

	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT,
				"measure requests\nnothing of the other end\n"
				"look at it");
	if (rc)
		return rc;
	return m.type == type ? 0
			      : via_fail(err, -EPROTO,
					 "measure requests\na message of type %u, not %u\n"
					 "have the same version on both hosts",
					 m.type, type);
}

/* -- ours, near: the page server ------------------------------------------------------------- */

static void sleep_ns(uint64_t ns)
{
	struct timespec t = {.tv_sec = (time_t)(ns / VIA_NS_PER_S),
			     .tv_nsec = (long)(ns % VIA_NS_PER_S)};

	(void)nanosleep(&t, NULL);
}

static int open_all(struct via_session *session, struct via_error *err)
{
	int rc = via_session_open_channels(session, err);

	if (!rc)
		rc = via_session_open_channel(session, VIA_PREEMPT, 0, err);
	return rc ? rc : via_session_wait_channel(session, VIA_PREEMPT, 0, err);
}

static int serve_pages(struct bench_job *job, struct via_session *session, struct page_source *ps,
		       struct via_error *err)
{
	uint64_t left;
	int rc = page_source_serve(ps, session, err);

	if (!rc && has_load(job))
		rc = page_source_push(ps, session, err);
	if (!rc)
		rc = via_main_send(session, MESSAGE_GO, NULL, 0, err);
	left = page_source_remaining(ps);
	if (!rc)
		rc = bench_begin(job, err);
	if (!rc)
		sleep_ns(job->run_ns);
	left -= page_source_remaining(ps);
	if (!rc)
		rc = bench_end(job, err);
	if (!rc && has_load(job))
		bench_extra(job, "load_gib_per_s",
			    (double)left / BENCH_GIB / ((double)job->result->ns / 1e9));
	if (!rc)
		rc = bench_stop(job, err);
	return rc ? rc : receive(session, MESSAGE_DONE, err);
}

static int ours_near(struct bench_job *job, struct via_error *err)
{
	struct via_session_config config = bench_session_config(job, LOAD_ENDS, 1);
	struct via_guest_region region = {.name = "ram", .page_size = PAGE_SIZE};
	struct via_bitmap missing = {0}, *bitmaps[] = {&missing};
	struct via_session *session = NULL;
	struct page_source *ps = NULL;
	int rc;

	region.len = memory_len(job);
	region.addr = bench_memory(region.len);
	if (!region.addr || via_bitmap_init(&missing, region.len / PAGE_SIZE))
		return via_fail(err, -ENOMEM,
				"measure requests\nout of memory\nask for less with --memory");
	via_bitmap_set(&missing, 0, region.len / PAGE_SIZE);
	config.resume = &resume;
	rc = bench_connect(job, &config, region.addr, region.len, &session, err);
	if (!rc)
		rc = bench_wait_ready(job, err);
	if (!rc)
		rc = open_all(session, err);
	if (!rc)
		rc = page_source_new(&region, 1, bitmaps, &ps, err);
	if (!rc)
		rc = serve_pages(job, session, ps, err);
	if (rc)
		via_session_abort(session, err);
	page_source_free(ps);
	via_session_close(session);
	via_bitmap_fini(&missing);
	return rc;
}

/* -- ours, far: requests ----------------------------------------------------------------------- */

struct asker {
	struct bench_job *job;
	struct via_channel *ch;
	uint64_t npages, number; /* of the last page */
	bool has_content;        /* the last answer */
};

/* Takes what bulk brings, and copies it, as an installer does. */
static void *take_bulk(void *arg)
{
	struct asker *a = arg;
	struct via_page_message m;
	uint8_t *to = bench_memory(via_channel_slot_len(a->ch));
	int rc = to ? 0 : -ENOMEM;

	while (rc >= 0 && !bench_stopped(a->job)) {
		rc = via_channels_wait(&a->ch, 1, VIA_NEVER, &a->job->stop_fd, 1);
		while (rc >= 0 && via_channel_next(a->ch, &m)) {
			if (m.slot)
				memcpy(to, m.slot, m.slot_len);
			rc = via_channel_done(a->ch, &m);
		}
	}
	return NULL;
}

/* As the fault server waits. */
static int wait_for_answer(struct asker *a, uint64_t sent_ns, struct via_page_message *m)
{
	int rc = 0;

	while (rc >= 0 && !via_channel_next(a->ch, m)) {
		if (via_now_ns() - sent_ns > SPIN_NS) {
			rc = via_channels_wait(&a->ch, 1, VIA_NEVER, NULL, 0);
			continue;
		}
		rc = via_channel_progress(a->ch);
		if (rc == 0)
			sched_yield();
	}
	return rc < 0 ? rc : 0;
}

static int ask(struct asker *a, uint64_t *ns)
{
	struct engine_page page = {.kind = ENGINE_PAGE_ASKED, .len = PAGE_SIZE};
	struct via_page_message m;
	uint8_t buf[ENGINE_PAGE_LEN];
	uint64_t start = via_now_ns();
	int rc;

	/* Each page once: they are a power of two, and so is the period. */
	a->number = (a->number * 5 + 3) % a->npages;
	page.off = a->number * PAGE_SIZE;
	engine_page_encode(&page, buf);
	rc = via_channel_send(a->ch, ENGINE_REQUEST, buf, sizeof(buf), NULL, 0);
	if (!rc)
		rc = wait_for_answer(a, start, &m);
	if (rc)
		return rc;
	*ns = via_now_ns() - start;
	if (m.type != ENGINE_PAGE || engine_page_decode(m.payload, m.len, &page))
		return -EPROTO;
	a->has_content = page.kind == ENGINE_PAGE_HERE;
	return via_channel_done(a->ch, &m);
}

static int ask_for_a_while(struct asker *a)
{
	struct via_hist *h = &a->job->result->latency_ns;
	uint64_t warm_until = via_deadline_in(a->job->run_ns / 4), ns;
	unsigned gone = 0;
	int rc = 0;

	for (unsigned i = 0; i < WARM && !rc && !via_deadline_passed(warm_until); i++)
		rc = ask(a, &ns);
	while (!rc && gone < ALL_GONE && !bench_stopped(a->job)) {
		rc = ask(a, &ns);
		gone = a->has_content ? 0 : gone + 1;
		if (!rc && a->has_content)
			via_hist_add(h, ns);
	}
	return rc;
}

/* Ask, and take what comes beside, until stopped. */
static int ask_beside_bulk(struct bench_job *job, struct via_session *session,
			   struct via_error *err)
{
	struct asker bulk[LOAD_ENDS];
	pthread_t thread[LOAD_ENDS];
	unsigned n = has_load(job) ? LOAD_ENDS : 0;
	const struct via_region *region;
	struct asker a = {.job = job};
	unsigned nregions;
	int rc;

	region = via_session_regions(session, &nregions);
	a.npages = region[0].desc.len / PAGE_SIZE;
	a.ch = via_channel_take(session, VIA_PREEMPT, 0);
	for (unsigned i = 0; i < n; i++) {
		bulk[i] = a;
		bulk[i].ch = via_channel_take(session, VIA_MULTIFD, i);
		rc = pthread_create(&thread[i], NULL, take_bulk, &bulk[i]);
		if (rc)
			bench_die("take bulk", strerror(rc));
	}
	rc = receive(session, MESSAGE_GO, err);
	if (!rc)
		rc = ask_for_a_while(&a);
	if (rc)
		via_channel_fail(a.ch, rc);
	bench_wait_stopped(job); /* everything was sent; the time is not over */
	for (unsigned i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
	return rc ? rc : via_main_send(session, MESSAGE_DONE, NULL, 0, err);
}

static int ours_far(struct bench_job *job, struct via_error *err)
{
	struct via_session_config config = bench_session_config(job, 0, 0);
	struct via_session *session;
	void *memory;
	size_t len;
	int rc;

	config.resume = &resume;
	rc = bench_accept(job, &config, &session, &memory, &len, err);
	if (rc)
		return rc;
	urgent_thread();
	rc = bench_ready(job, err);
	if (!rc)
		rc = via_session_wait_channel(session, VIA_CHANNEL_ESSENTIAL, 0, err);
	if (!rc)
		rc = via_session_wait_channel(session, VIA_PREEMPT, 0, err);
	if (!rc)
		rc = ask_beside_bulk(job, session, err);
	if (rc && !err->code)
		(void)via_session_failure(session, err);
	via_session_close(session);
	munmap(memory, len);
	return rc;
}

/* -- bare -------------------------------------------------------------------------------------- */

struct load {
	struct bench_job *job;
	const struct bare_ops *ops;
	struct bare *b;
	pthread_t thread;
	_Atomic bool over;
};

static void *write_load(void *arg)
{
	struct load *l = arg;
	uint64_t *off = bare_offsets(LOAD_PART / LOAD_WRITE, LOAD_WRITE);

	while (!bench_stopped(l->job))
		l->ops->write(l->b, off, LOAD_PART / LOAD_WRITE, LOAD_WRITE);
	free(off);
	return NULL;
}

static void *be_written(void *arg)
{
	struct load *l = arg;

	while (!atomic_load(&l->over))
		l->ops->progress(l->b);
	return NULL;
}

/* Both ends: the requests' end, and the load's where there is one. */
static int meet(struct bench_job *job, const struct bare_ops **ops, struct bare **b,
		struct load *load, struct via_error *err)
{
	int rc = bare_meet(job, bench_memory(PAGE_SIZE), PAGE_SIZE, 1,
			   bench_param(&job->the_case, "bare_sleeps"), ops, b, err);

	load->job = job;
	if (!rc && has_load(job))
		rc = bare_meet(job, bench_memory(LOAD_PART), LOAD_PART, LOAD_ENDS, true, &load->ops,
			       &load->b, err);
	return rc;
}

static void start_load(struct load *l, void *(*run)(void *load))
{
	int rc = l->ops ? pthread_create(&l->thread, NULL, run, l) : 0;

	if (rc)
		bench_die("start a load", strerror(rc));
}

static void end_load(struct load *l)
{
	atomic_store(&l->over, true);
	if (l->ops)
		pthread_join(l->thread, NULL);
}

static int close_both(struct bench_job *job, struct load *load, const struct bare_ops *ops,
		      struct bare *b, struct via_error *err)
{
	int rc = load->ops ? bare_close(job, load->ops, load->b, err) : 0;

	return rc ? rc : bare_close(job, ops, b, err);
}

static void bare_ask(const struct bare_ops *ops, struct bare *b, struct via_hist *h)
{
	uint64_t start = via_now_ns();

	ops->ask(b);
	via_hist_add(h, via_now_ns() - start);
}

static int bare_near(struct bench_job *job, struct via_error *err)
{
	struct via_hist *h = &job->result->latency_ns;
	const struct bare_ops *ops;
	struct load load = {0};
	uint64_t deadline;
	struct bare *b;
	int rc = meet(job, &ops, &b, &load, err);

	if (!rc)
		rc = bench_wait_ready(job, err);
	if (rc)
		return rc;
	start_load(&load, be_written);
	for (unsigned i = 0; i < WARM; i++)
		bare_ask(ops, b, h);
	via_hist_init(h);
	rc = bench_begin(job, err);
	for (deadline = via_deadline_in(job->run_ns); !via_deadline_passed(deadline);)
		bare_ask(ops, b, h);
	if (!rc)
		rc = bench_end(job, err);
	if (!rc)
		rc = bare_stop(job, err);
	end_load(&load); /* which the writers needed until they had stopped */
	return rc ? rc : close_both(job, &load, ops, b, err);
}

static int bare_far(struct bench_job *job, struct via_error *err)
{
	const struct bare_ops *ops;
	struct load load = {0};
	struct bare *b;
	int rc = meet(job, &ops, &b, &load, err);

	if (!rc)
		rc = bench_ready(job, err);
	if (rc)
		return rc;
	start_load(&load, write_load);
	while (!bench_stopped(job))
		ops->answer(b, BARE_ANSWER_LEN);
	end_load(&load);
	rc = bare_stop(job, err);
	return rc ? rc : close_both(job, &load, ops, b, err);
}

static const char *bare_is(const struct bench_case *c, const char *fabric, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s: %u bytes there, %u back, %s", bare_find(fabric)->sends,
		 BARE_REQUEST_LEN, BARE_ANSWER_LEN,
		 bench_param(c, "bare_sleeps") ? "asleep" : "spinning");
	return buf;
}

const struct bench_row bench_latency = {
	.name = "latency",
	.summary = "a page request and its answer, idle and beside bulk",
	.unit = "us",
	.cases = cases,
	.ncases = sizeof(cases) / sizeof(cases[0]),
	.ours = {ours_near, ours_far},
	.bare = {bare_near, bare_far},
	.bare_is = bare_is,
};
