/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_sleep.c -- poll, arm, sleep: no wake-up is lost, and an idle endpoint costs nothing.
 */
#include <poll.h>
#include <sys/resource.h>

#include "tests/contract/contract.h"

#define PINGS       5000u
#define IDLE_NS     (200 * VIA_NS_PER_MS)
#define IDLE_CPU_NS (60 * VIA_NS_PER_MS)

/* -- ping-pong ------------------------------------------------------------- */

struct player {
	struct end *end;
	bool serves;
};

/* One message each way; both sleep until it comes, and until their own is through. */
static void play(struct contract *t, void *arg)
{
	const struct player *p = arg;
	struct end *end = p->end;

	for (unsigned i = 1; i <= PINGS; i++) {
		if (p->serves && !end_send(t, end, 64, 8, ctx_of(i), 0))
			return;
		if (!end_sleep_until(t, end, VIA_COMP_RECV, i) ||
		    !end_recv(t, end, 0, 64, ctx_of(i)))
			return;
		if (!p->serves && !end_send(t, end, 64, 8, ctx_of(i), 0))
			return;
		if (!end_sleep_until(t, end, VIA_COMP_SEND, i))
			return;
	}
}

void case_ping_pong(struct contract *t)
{
	struct pair pair;
	struct player a = {&pair.a.end[0], true}, b = {&pair.b.end[0], false};
	struct worker w;

	if (pair_open(t, &pair, 1, 4096) && end_recv(t, a.end, 0, 64, ctx_of(0)) &&
	    end_recv(t, b.end, 0, 64, ctx_of(0))) {
		pair_part(&pair);
		worker_start(&w, t, play, &b);
		play(t, &a);
		worker_join(&w, t);
	}
	pair_close(&pair);
}

/* -- idleness -------------------------------------------------------------- */

static uint64_t cpu_ns(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return ((uint64_t)use.ru_utime.tv_sec + (uint64_t)use.ru_stime.tv_sec) * VIA_NS_PER_S +
	       ((uint64_t)use.ru_utime.tv_usec + (uint64_t)use.ru_stime.tv_usec) * VIA_NS_PER_US;
}

/* Both ends' owner, for IDLE_NS. Returns how often it polled. */
static unsigned idle(struct contract *t, struct pair *pair)
{
	struct end *ends[2] = {&pair->a.end[0], &pair->b.end[0]};
	uint64_t until_ns = via_deadline_in(IDLE_NS);
	unsigned polls = 0;

	while (t->verdict == PASS && !via_deadline_passed(until_ns)) {
		struct pollfd pfd[2] = {{.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
		bool sleep = true;

		for (unsigned i = 0; i < 2; i++) {
			if (end_poll(ends[i]) < 0)
				contract_fail(t, "an idle endpoint died: %s",
					      via_err_name(ends[i]->status));
			if (pair->a.ops->arm(ends[i]->ep, &pfd[i].fd))
				sleep = false;
			polls++;
		}
		if (sleep)
			poll(pfd, 2, via_deadline_poll_ms(until_ns));
	}
	return polls;
}

/* Poll until both ends' owner may sleep: the next event has to wake it. */
static bool arm_both(struct contract *t, struct pair *pair)
{
	uint64_t deadline_ns = via_deadline_in(t->patience_ns);
	int fd;

	while (pair->a.ops->arm(pair->a.end[0].ep, &fd) ||
	       pair->b.ops->arm(pair->b.end[0].ep, &fd)) {
		end_step(&pair->a.end[0]);
		if (via_deadline_passed(deadline_ns))
			return contract_fail(t, "nothing happens, yet nobody may sleep");
	}
	return true;
}

void case_idle_sleeps(struct contract *t)
{
	struct pair pair;
	uint64_t before;
	unsigned polls;

	/* Let the descriptors wake both once: that must not stay so. */
	if (!pair_open(t, &pair, 1, 4096) || !end_recv(t, &pair.b.end[0], 0, 64, ctx_of(0)) ||
	    !arm_both(t, &pair) || !end_send(t, &pair.a.end[0], 64, 8, ctx_of(0), 0) ||
	    !end_until(t, &pair.b.end[0], VIA_COMP_RECV, 1) ||
	    !end_until(t, &pair.a.end[0], VIA_COMP_SEND, 1) ||
	    !end_recv(t, &pair.b.end[0], 0, 64, ctx_of(0)))
		goto out;
	pair_settle(&pair);
	before = cpu_ns();
	polls = idle(t, &pair);
	if (cpu_ns() - before > IDLE_CPU_NS)
		contract_fail(t, "idle for %llu ms cost %llu ms of CPU, %u polls",
			      (unsigned long long)(IDLE_NS / VIA_NS_PER_MS),
			      (unsigned long long)((cpu_ns() - before) / VIA_NS_PER_MS), polls);
out:
	pair_close(&pair);
}
