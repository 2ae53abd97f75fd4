/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_live.c -- what a relay carries, as a screen on stderr and as a series for its report. A
 * relay has no thread to spare for that: it is looked at from one of its own, if somebody wants it.
 */
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/live.h"
#include "tools/run.h"
#include "tools/screen.h"
#include "tools/series.h"

#define LOOK_MS   200
#define SERIES_MS 50 /* with a report */

/* Both ways, then the rails. */
static void take_rates(struct relay_live *live, const struct relay_result *now)
{
	uint64_t count[2 + VIA_RAILS_MAX] = {now->forward_bytes, now->back_bytes};
	unsigned n = 2;

	for (unsigned i = 0; i < now->session.nrails; i++)
		count[n++] = now->session.rail[i].bytes;
	rates_take(&live->rates, via_now_ns(), count, n);
}

static void add_point(struct relay_live *live, uint64_t bytes)
{
	struct series_point new = {.at_ns = via_now_ns() - live->begun_ns, .sent = bytes};

	series_add_point(live->series, &new);
}

static void note(struct relay_live *live)
{
	struct relay_result now;

	if (!relay_look(live->watch, &now))
		return;
	pthread_mutex_lock(&live->lock);
	if (!live->begun_ns) {
		memset(live->series, 0, sizeof(*live->series));
		live->begun_ns = via_now_ns();
	}
	add_point(live, now.forward_bytes);
	pthread_mutex_unlock(&live->lock);
}

static void draw(struct relay_live *live)
{
	const struct settings *s = live->settings;
	bool source = !strcmp(s->role, "source");
	char title[128], screen[SCREEN_LEN];
	struct relay_result now;
	struct screen_relay what = {.title = title,
				    .hint = "^C ends it",
				    .migrations = atomic_load(&live->migrations),
				    .color = live->view.color};
	unsigned rows;

	snprintf(title, sizeof(title), "relay, %s, to %s", s->role, source ? s->peer : s->qemu);
	if (relay_look(live->watch, &now)) {
		what.now = &now;
		take_rates(live, &now);
	}
	if (what.now && live->rates.known) {
		what.forward_rate = live->rates.rate[0];
		what.back_rate = live->rates.rate[1];
		what.rail_rate = live->rates.rate + 2;
	}
	rows = screen_render_relay(&what, screen);
	progress_draw(&live->view, false, screen, rows);
}

static void *live_main(void *arg)
{
	struct relay_live *live = arg;
	struct pollfd stop = {.fd = live->stop_fd, .events = POLLIN};

	do {
		if (live->series)
			note(live);
		if (!live->settings->verbose && progress_has_screen(&live->view))
			draw(live);
		else
			progress_end(&live->view); /* the window may have become too small */
	} while (poll(&stop, 1, live->series ? SERIES_MS : LOOK_MS) <= 0);
	return NULL;
}

void relay_live_init(struct relay_live *live, const struct settings *settings,
		     struct relay_watch *watch, struct series *series)
{
	*live = (struct relay_live){
		.watch = watch, .settings = settings, .series = series, .stop_fd = -1};
	pthread_mutex_init(&live->lock, NULL);
	progress_init(&live->view);
}

void relay_live_pause(struct relay_live *live, const struct relay_result *result)
{
	live->migrations++;
	pthread_mutex_lock(&live->lock);
	if (live->series && live->begun_ns)
		add_point(live, result->forward_bytes);
	else if (live->series)
		memset(live->series, 0, sizeof(*live->series)); /* it was never seen */
	live->begun_ns = 0;
	progress_pause(&live->view);
}

void relay_live_resume(struct relay_live *live)
{
	progress_resume(&live->view);
	pthread_mutex_unlock(&live->lock);
}

void relay_live_start(struct relay_live *live)
{
	/* Debug lines come from every thread, and would stand across a screen. */
	if (!live->series && (live->settings->verbose || !progress_has_screen(&live->view)))
		return;
	live->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	live->running = live->stop_fd >= 0 && !pthread_create(&live->thread, NULL, live_main, live);
}

void relay_live_stop(struct relay_live *live)
{
	if (live->running) {
		eventfd_write(live->stop_fd, 1);
		pthread_join(live->thread, NULL);
		progress_pause(&live->view);
		progress_resume(&live->view);
	}
	if (live->stop_fd >= 0)
		close(live->stop_fd);
	live->stop_fd = -1;
	live->running = false;
}

bool relay_live_guard(void *arg, bool may_wait, struct via_error *why)
{
	struct relay_live *live = arg;
	struct relay_result now;
	struct via_error not_yet = {0};

	(void)why; /* a relay is ended by cancel_fd, and says so itself */
	if (!may_wait || !relay_look(live->watch, &now) || !now.postcopy || interrupt_asked_again())
		return true;
	via_fail(&not_yet, -ECANCELED,
		 "SIGINT\nQEMU may have switched to postcopy: without this relay it pauses on both "
		 "hosts\n"
		 "let it go on. A second SIGINT within %u s ends the relay",
		 INTERRUPT_AGAIN_S);
	progress_say(&live->view, &not_yet);
	return false;
}
