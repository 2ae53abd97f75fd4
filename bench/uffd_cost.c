/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uffd_cost.c -- the baseline of a fault: what userfaultfd itself takes, from the touch of an
 * absent page until the thread that touched it goes on, when the page need not be fetched.
 *
 *   uffd_cost [--spin] [PAGES]     PAGES of 4 KiB, default 16384
 *
 * One thread touches the pages of a registered region one after the other and takes the time of
 * each touch. Another one sleeps in poll() on the userfaultfd (--spin: reads it again and
 * again), and installs from a buffer with UFFDIO_COPY. The first sixteenth warms up and is not
 * counted. Prints one JSON object, times in microseconds.
 *
 * What it prints is mostly how long the scheduler takes to wake two threads: on one CPU a few
 * microseconds, on two that idle in a virtual machine many times that.
 */
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/hist.h"
#include "migrate/uffd.h"

#define PAGE_LEN      4096u
#define PAGES_MIN     1024u
#define PAGES_MAX     (1u << 20)
#define PAGES_DEFAULT 16384u
#define LIMIT_S       120u

struct cost {
	int uffd;
	bool spins;
	unsigned long pages;
	char *region;
	char content[PAGE_LEN];
};

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "uffd_cost: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The address of the next fault. */
static uint64_t next_fault(const struct cost *c)
{
	struct pollfd p = {.fd = c->uffd, .events = POLLIN};
	struct uffd_msg msg;
	ssize_t n;

	for (;;) {
		if (!c->spins)
			check(poll(&p, 1, -1) == 1, "poll");
		n = read(c->uffd, &msg, sizeof(msg));
		if (n == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT)
			return msg.arg.pagefault.address;
		check(n < 0 && errno == EAGAIN, "read a message of userfaultfd");
	}
}

static void *handle(void *arg)
{
	struct cost *c = arg;

	for (unsigned long i = 0; i < c->pages; i++) {
		struct uffdio_copy copy = {.src = (uintptr_t)c->content, .len = PAGE_LEN};

		copy.dst = next_fault(c) & ~(uint64_t)(PAGE_LEN - 1);
		check(!ioctl(c->uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	}
	return NULL;
}

static void register_region(struct cost *c)
{
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	struct via_error err = {0};

	if (uffd_open(true, &c->uffd, &err)) {
		fprintf(stderr, "uffd_cost: %s: %s\n  try: %s\n", err.what, err.seen, err.remedy);
		exit(1);
	}
	check(!uffd_enable(c->uffd, 0), "UFFDIO_API");
	c->region = mmap(NULL, c->pages * PAGE_LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(c->region != MAP_FAILED, "mmap");
	reg.range.start = (uintptr_t)c->region;
	reg.range.len = c->pages * PAGE_LEN;
	check(!ioctl(c->uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	memset(c->content, 0x5a, PAGE_LEN);
}

static void touch_all(const struct cost *c, struct via_hist *times)
{
	for (unsigned long i = 0; i < c->pages; i++) {
		volatile char *page = c->region + i * PAGE_LEN;
		uint64_t start = via_now_ns();

		(void)*page;
		if (i >= c->pages / 16)
			via_hist_add(times, via_now_ns() - start);
	}
}

static void print_us(const struct via_hist *ns)
{
	printf("{\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f, "
	       "\"count\": %llu}\n",
	       (double)via_hist_permille(ns, 500) / 1e3, (double)via_hist_permille(ns, 900) / 1e3,
	       (double)via_hist_permille(ns, 990) / 1e3, (double)via_hist_permille(ns, 999) / 1e3,
	       (double)ns->max / 1e3, (unsigned long long)ns->count);
}

int main(int argc, char **argv)
{
	static struct cost c = {.pages = PAGES_DEFAULT};
	static struct via_hist times;
	pthread_t handler;
	int arg = 1;

	if (arg < argc && !strcmp(argv[arg], "--spin")) {
		c.spins = true;
		arg++;
	}
	if (arg < argc)
		c.pages = strtoul(argv[arg++], NULL, 10);
	if (arg < argc || c.pages < PAGES_MIN || c.pages > PAGES_MAX) {
		fprintf(stderr, "usage: uffd_cost [--spin] [PAGES]     PAGES from %u to %u\n",
			PAGES_MIN, PAGES_MAX);
		return 2;
	}
	alarm(LIMIT_S); /* ends every wait */
	register_region(&c);
	errno = pthread_create(&handler, NULL, handle, &c);
	check(!errno, "pthread_create");
	touch_all(&c, &times);
	pthread_join(handler, NULL);
	print_us(&times);
	return 0;
}
