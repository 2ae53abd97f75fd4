/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_vcpus.c -- the vCPUs of the demo guest: threads that check a page, write its next
 * version over it, and keep to a rate.
 *
 * A vCPU must never write after pause() or stop() returned, and never leave a
 * page half-written then. It sleeps on a condition, so that either reaches it at once.
 *
 * At the destination of postcopy a page may be missing: whoever looks at it sleeps in the
 * kernel until it is there, for ever if it never comes. So the first look at each page is a load of
 * its own, behind which the vCPU asks again whether it may go on.
 *
 * Invariant: vCPU k alone touches the pages p with p % vcpus == k, and version[p]. To
 * whoever has seen it parked or joined it, all it wrote is visible (the lock; the join).
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "core/clock.h"
#include "demo/demo_guest_impl.h"

#define PAUSE_LIMIT_NS (10 * VIA_NS_PER_S)
#define TICK_NS        VIA_NS_PER_MS         /* the shortest sleep: many pages for each wake-up */
#define BURST_NS       (100 * VIA_NS_PER_MS) /* what was missed longer ago is not made up for */

/* How much may be written now, and how fast that grows. */
struct bucket {
	double rate;   /* bytes in a nanosecond; 0: never any */
	double credit; /* bytes */
	uint64_t at;   /* when credit was that */
};

/* True when a page may be written. */
static bool bucket_take(struct bucket *b)
{
	if (b->credit < DEMO_PAGE_SIZE) {
		uint64_t now = via_now_ns();
		double most = b->rate * BURST_NS;

		b->credit += (double)(now - b->at) * b->rate;
		b->at = now;
		if (b->credit > most && b->credit > DEMO_PAGE_SIZE)
			b->credit = most > DEMO_PAGE_SIZE ? most : DEMO_PAGE_SIZE;
	}
	if (b->credit < DEMO_PAGE_SIZE)
		return false;
	b->credit -= DEMO_PAGE_SIZE;
	return true;
}

/* When to look again. */
static uint64_t bucket_next(const struct bucket *b)
{
	uint64_t wait;

	if (b->rate <= 0)
		return VIA_NEVER;
	wait = (uint64_t)((DEMO_PAGE_SIZE - b->credit) / b->rate);
	return b->at + (wait < TICK_NS ? TICK_NS : wait);
}

/* pthread_cond_timedwait() until an absolute time of our clock. */
static int wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline)
{
	struct timespec at = {
		.tv_sec = (time_t)(deadline / VIA_NS_PER_S),
		.tv_nsec = (long)(deadline % VIA_NS_PER_S),
	};

	if (deadline == VIA_NEVER)
		return pthread_cond_wait(cond, lock);
	return pthread_cond_timedwait(cond, lock, &at);
}

/* Sleep until @deadline or an order. */
static void sleep_until(struct demo_guest *g, uint64_t deadline)
{
	pthread_mutex_lock(&g->lock);
	if (g->order == DEMO_RUN)
		wait_until(&g->ordered, &g->lock, deadline);
	pthread_mutex_unlock(&g->lock);
}

/* Wait for the end of a pause. False: end the thread. */
static bool park(struct demo_guest *g)
{
	bool run;

	pthread_mutex_lock(&g->lock);
	g->nparked++;
	pthread_cond_signal(&g->parked);
	while (g->order == DEMO_PAUSE)
		pthread_cond_wait(&g->ordered, &g->lock);
	g->nparked--;
	run = g->order == DEMO_RUN;
	pthread_mutex_unlock(&g->lock);
	return run;
}

static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* One of @v's own @nown pages: three of four times out of the first eighth of them. */
static uint64_t pick_page(struct demo_vcpu *v, uint64_t nown)
{
	uint64_t r = next_random(&v->random);
	uint64_t among = r % 4 ? (nown + 7) / 8 : nown;

	return v->index + (r >> 2) % among * v->guest->config.vcpus;
}

/*
 * The first look at a page. Did it fault and sleep for it? Then userfaultfd held it back. (Such a
 * fault need not count as a major one: where it was taken under the lock of the VMA alone, as
 * since Linux 6.4, the kernel begins it anew once the page is there.)
 */
static void touch(struct demo_vcpu *v, uint64_t page, const void *addr)
{
	struct rusage before, after;
	uint64_t start, end;

	via_bitmap_set(&v->guest->touched, page, 1);
	getrusage(RUSAGE_THREAD, &before);
	start = via_now_ns();
	(void)*(const volatile char *)addr;
	end = via_now_ns();
	getrusage(RUSAGE_THREAD, &after);
	if (after.ru_minflt + after.ru_majflt != before.ru_minflt + before.ru_majflt &&
	    after.ru_nvcsw != before.ru_nvcsw)
		via_hist_add(&v->fault_ns, end - start);
}

static void rewrite(struct demo_vcpu *v, uint64_t page)
{
	struct demo_guest *g = v->guest;
	void *addr = (char *)g->region.addr + page * DEMO_PAGE_SIZE;
	enum demo_page_state state;

	if (g->touched.nbits && !via_bitmap_test(&g->touched, page)) {
		touch(v, page, addr);
		/* What is here now need not be the guest's page: see abandon(). */
		if (atomic_load(&g->order) == DEMO_STOP)
			return;
	}
	state = demo_page_check(addr, g->config.seed, page, g->version[page]);
	if (state != DEMO_PAGE_RIGHT && !via_bitmap_test(&g->wrong, page)) {
		via_bitmap_set(&g->wrong, page, 1);
		atomic_fetch_add(&g->found[state], 1);
	}
	demo_page_write(addr, g->config.seed, page, ++g->version[page]);
	atomic_fetch_add_explicit(&v->bytes, DEMO_PAGE_SIZE, memory_order_relaxed);
}

static uint64_t cpu_ns(clockid_t clock)
{
	struct timespec t = {0};

	(void)clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * VIA_NS_PER_S + (uint64_t)t.tv_nsec;
}

static void *run_vcpu(void *arg)
{
	struct demo_vcpu *v = arg;
	struct demo_guest *g = v->guest;
	unsigned n = g->config.vcpus;
	/* Some may own none: a guest can have more vCPUs than pages. */
	uint64_t nown = v->index < g->npages ? (g->npages - v->index + n - 1) / n : 0;
	uint64_t writers = g->npages < n ? g->npages : n;
	bool unlimited = nown && g->config.dirty_rate == UINT64_MAX;
	struct bucket b = {.at = via_now_ns()};

	if (nown)
		b.rate = (double)g->config.dirty_rate / (double)writers / VIA_NS_PER_S;
	for (;;) {
		if (atomic_load(&g->order) != DEMO_RUN) {
			if (!park(g))
				break;
			b.credit = 0;
			b.at = via_now_ns();
		}
		if (unlimited || bucket_take(&b))
			rewrite(v, pick_page(v, nown));
		else
			sleep_until(g, bucket_next(&b));
	}
	v->cpu_ns += cpu_ns(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

static void give_order(struct demo_guest *g, enum demo_order order)
{
	pthread_mutex_lock(&g->lock);
	g->order = order;
	pthread_cond_broadcast(&g->ordered);
	pthread_mutex_unlock(&g->lock);
}

int demo_vcpus_start(struct demo_guest *g, struct via_error *err)
{
	sigset_t all, before;
	int ret = 0;

	if (g->nrunning)
		return via_fail(err, -EINVAL, "the demo guest runs already");
	give_order(g, DEMO_RUN);
	/* Signals are for the threads that know what to do about them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; i < g->config.vcpus && !ret; i++) {
		struct demo_vcpu *v = &g->vcpu[i];

		v->guest = g;
		v->index = i;
		v->random = g->config.seed ^ (uint64_t)i << 32;
		ret = pthread_create(&v->thread, NULL, run_vcpu, v);
		g->nrunning += !ret;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!ret)
		return 0;
	via_fail(err, -ENOMEM,
		 "no thread for vCPU %u of the demo guest\npthread_create: %s\n"
		 "raise the limit of threads (ulimit -u) or use fewer vCPUs",
		 g->nrunning, strerror(ret));
	demo_vcpus_stop(g);
	return -ENOMEM;
}

void demo_vcpus_stop(struct demo_guest *g)
{
	give_order(g, DEMO_STOP);
	while (g->nrunning)
		pthread_join(g->vcpu[--g->nrunning].thread, NULL);
}

int demo_vcpus_pause(struct demo_guest *g, struct via_error *err)
{
	uint64_t deadline = via_deadline_in(PAUSE_LIMIT_NS);
	unsigned parked;
	int ret = 0;

	if (!g->nrunning)
		return 0;
	give_order(g, DEMO_PAUSE);
	pthread_mutex_lock(&g->lock);
	while (g->nparked < g->nrunning && ret != ETIMEDOUT)
		ret = wait_until(&g->parked, &g->lock, deadline);
	parked = g->nparked;
	pthread_mutex_unlock(&g->lock);
	if (parked == g->nrunning)
		return 0;
	demo_vcpus_resume(g);
	return via_fail(err, -ETIMEDOUT,
			"the demo guest does not pause\n%u of %u vCPUs stopped within 10 s\n"
			"see what the others wait for: a page that does not come?",
			parked, g->nrunning);
}

void demo_vcpus_resume(struct demo_guest *g)
{
	if (g->nrunning)
		give_order(g, DEMO_RUN);
}

void demo_vcpus_abandon(struct demo_guest *g)
{
	give_order(g, DEMO_STOP);
}

void demo_guest_fault_hist(const struct demo_guest *g, struct via_hist *out)
{
	via_hist_init(out);
	for (unsigned i = 0; i < DEMO_VCPUS_MAX; i++)
		via_hist_merge(out, &g->vcpu[i].fault_ns);
}

uint64_t demo_guest_cpu_ns(const struct demo_guest *g)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < DEMO_VCPUS_MAX; i++) {
		clockid_t clock;

		sum += g->vcpu[i].cpu_ns;
		if (i < g->nrunning && !pthread_getcpuclockid(g->vcpu[i].thread, &clock))
			sum += cpu_ns(clock);
	}
	return sum;
}
