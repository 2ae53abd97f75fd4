/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * target.c -- see target.h.
 */
#include "tests/hostile/target.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/hostile/hand.h"

#define MEMORY_MAX (1u << 20) /* bytes that this destination has for a guest */

static struct via_session_config session_config(const struct target *t,
						const struct via_resume *resume)
{
	return (struct via_session_config){.fabric = HAND_FABRIC,
					   .multifd = HAND_MULTIFD,
					   .preempt = t->postcopy ? HAND_PREEMPT : 0,
					   .handshake_ns = t->deadline_ns,
					   .dead_after_ns = t->deadline_ns,
					   .stall_ns = t->deadline_ns,
					   .resume = resume};
}

/* small_guest.c makes what it is asked for; a VMM looks first. */
static int prepare(void *arg, unsigned nregions, struct via_guest_region *region,
		   struct via_error *err)
{
	struct target *t = arg;
	uint64_t room = MEMORY_MAX;

	for (unsigned i = 0; i < nregions; i++) {
		if (nregions > SMALL_REGIONS || region[i].len > room ||
		    region[i].page_size != HAND_PAGE)
			return via_fail(err, -EINVAL,
					"prepare the guest\nregion %u of %u has %llu bytes\n"
					"this guest has less memory than that",
					i, nregions, (unsigned long long)region[i].len);
		room -= region[i].len;
	}
	return t->guest.destination.prepare(&t->guest, nregions, region, err);
}

static int load(void *arg, const void *state, size_t len, struct via_error *err)
{
	struct target *t = arg;

	return t->guest.destination.load(&t->guest, state, len, err);
}

static int run(void *arg, struct via_error *err)
{
	struct target *t = arg;

	return t->guest.destination.run(&t->guest, err);
}

static void abandon(void *arg)
{
	struct target *t = arg;

	t->guest.destination.abandon(&t->guest);
}

static int recover(void *arg, const struct via_resume *lost, const struct via_error *why,
		   uint64_t deadline_ns, struct via_session **session, struct via_error *err)
{
	struct target *t = arg;
	struct via_session_config config = session_config(t, lost);
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	struct via_control *control;
	int fd = t->second_fd, rc;

	(void)why;
	(void)deadline_ns;
	t->second_fd = -1;
	if (fd < 0)
		return via_fail(err, -ETIMEDOUT, "resume\nthe source did not come\nno");
	rc = via_control_wrap(fd, &control, err);
	return rc ? rc
		  : via_migrate_accept_control(control, &config, &t->small, &wait, session, err);
}

static void be_destination(struct target *t)
{
	struct via_session_config config = session_config(t, NULL);
	struct via_migrate_config mc = {.max_state_len = TARGET_STATE_MAX};
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	struct via_control *control;
	struct via_session *session = NULL;

	t->small = (struct via_destination_guest){
		.arg = t, .prepare = prepare, .load = load, .run = run, .abandon = abandon};
	if (t->second_fd >= 0) {
		mc.recover = recover;
		mc.recover_arg = t;
	}
	t->rc = via_control_wrap(t->fd, &control, &t->err);
	if (!t->rc)
		t->rc = via_migrate_accept_control(control, &config, &t->small, &wait, &session,
						   &t->err);
	if (!t->rc)
		t->rc = via_migrate_destination(&session, &t->small, &mc, &t->result, &t->err);
	via_session_close(session);
}

static void be_source(struct target *t)
{
	struct via_session_config config = session_config(t, NULL);
	struct via_migrate_config mc = {
		.postcopy_after = t->postcopy, .max_rounds = 2, .downtime_limit_ns = 1};
	struct via_control *control;
	struct via_session *session = NULL;

	t->rc = via_control_wrap(t->fd, &control, &t->err);
	if (!t->rc)
		t->rc = via_migrate_connect_control(control, &config, &t->guest.source, -1,
						    &session, &t->err);
	if (!t->rc)
		t->rc = via_migrate_source(&session, &t->guest.source, &mc, &t->result, &t->err);
	via_session_close(session);
}

static void *target_main(void *arg)
{
	struct target *t = arg;
	uint64_t start = via_now_ns();

	t->result.outcome = VIA_ABORTED;
	if (t->role == VIA_ROLE_SOURCE)
		be_source(t);
	else
		be_destination(t);
	if (t->second_fd >= 0)
		close(t->second_fd);
	t->took_ns = via_now_ns() - start;
	return NULL;
}

void target_start(struct target *t)
{
	const struct small_guest_config source = {.seed = 1,
						  .pages = {HAND_PAGES, HAND_PAGES_2},
						  .writes_per_round = 8,
						  .state_len = HAND_STATE_LEN};
	const struct small_guest_config destination = {
		.seed = 1, .state_len = HAND_STATE_LEN, .toucher_threads = 1, .postcopy = true};

	if (t->role == VIA_ROLE_SOURCE ? small_guest_source(&t->guest, &source)
				       : small_guest_destination(&t->guest, &destination))
		abort();
	if (pthread_create(&t->thread, NULL, target_main, t))
		abort();
}

void target_join(struct target *t)
{
	pthread_join(t->thread, NULL);
	small_guest_join(&t->guest);
	t->guest_runs = t->guest.running;
	small_guest_fini(&t->guest);
}
