/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * regression_test.c -- what went wrong in other programs of this kind, one case each, called by
 * what their users saw. docs/reliability.md says where it was seen, and where the rest is tested.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/hostile/hand.h"
#include "tests/hostile/target.h"
#include "tests/migrate/pair.h"
#include "tests/transport/resume_pair.h"

/* -- the order in which channels come ---------------------------------------------------- */

/* Opens what is to come first, then main and multifd, and sends a message on main. */
static void opens_first(enum via_channel_kind kind, unsigned n)
{
	struct pair p = {.no_channels = true};
	struct via_error err = {0};

	pair_try(&p, NULL, NULL);
	cr_assert_eq(p.source_rc, 0, "%s: %s", p.source_err.what, p.source_err.seen);
	for (unsigned i = 0; i < n; i++) {
		cr_assert_eq(via_session_open_channel(p.source, kind, i, &err), 0);
		cr_assert_eq(via_session_wait_channel(p.source, kind, i, &err), 0, "%s: %s",
			     err.what, err.seen);
	}
	cr_assert_eq(via_session_open_channel(p.source, VIA_MAIN, 0, &err), 0);
	for (unsigned i = kind == VIA_MULTIFD ? n : 0; i < MULTIFD; i++)
		cr_assert_eq(via_session_open_channel(p.source, VIA_MULTIFD, i, &err), 0);
	cr_assert_eq(via_session_wait_channel(p.source, VIA_CHANNEL_ESSENTIAL, 0, &err), 0,
		     "%s: %s", err.what, err.seen);
	pthread_join(p.thread, NULL);
	cr_assert_eq(p.destination_rc, 0, "%s: %s", p.destination_err.what, p.destination_err.seen);
	expect_message(p.source, p.destination);
	expect_message(p.destination, p.source);
	pair_close(&p);
}

Test(regression, preempt_connects_before_main_and_nothing_moves)
{
	opens_first(VIA_PREEMPT, PREEMPT);
}

Test(regression, multifd_arrives_before_main)
{
	opens_first(VIA_MULTIFD, MULTIFD);
}

static void *wait_for_preempt(void *arg)
{
	struct pair *p = arg;

	p->destination_rc =
		via_session_wait_channel(p->destination, VIA_PREEMPT, 0, &p->destination_err);
	return NULL;
}

Test(regression, waiting_for_preempt_deadlocks_the_thread_that_would_accept_it)
{
	struct pair p = {0};
	struct via_error err = {0};
	pthread_t waiter;

	pair_open(&p, NULL, NULL);
	cr_assert_eq(pthread_create(&waiter, NULL, wait_for_preempt, &p), 0);
	cr_assert_eq(via_session_open_channel(p.source, VIA_PREEMPT, 0, &err), 0);
	cr_assert_eq(via_session_wait_channel(p.source, VIA_PREEMPT, 0, &err), 0, "%s: %s",
		     err.what, err.seen);
	pthread_join(waiter, NULL);
	cr_assert_eq(p.destination_rc, 0, "%s: %s", p.destination_err.what, p.destination_err.seen);
	pair_close(&p);
}

/* -- a peer made by hand ------------------------------------------------------------------- */

static void meet(struct hand *h, struct target *t, enum via_role hand, bool postcopy,
		 const struct twisted *twisted)
{
	int fd[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	*t = (struct target){.role = hand == VIA_ROLE_SOURCE ? VIA_ROLE_DESTINATION
							     : VIA_ROLE_SOURCE,
			     .fd = fd[1],
			     .second_fd = -1,
			     .postcopy = postcopy,
			     .deadline_ns = 2 * VIA_NS_PER_S};
	hand_init(h, hand, fd[0], twisted);
	target_start(t);
}

static const struct twisted honest = {.twist = T_NONE};

Test(regression, handshake_of_one_channel_blocks_the_others)
{
	static const enum hand_lane lanes[] = {LANE_MULTIFD_1, LANE_MAIN};
	static struct hand h;
	struct target t;
	uint64_t start;

	meet(&h, &t, VIA_ROLE_SOURCE, false, &honest);
	hand_say(&h, S_HELLO, LANE_MAIN);
	cr_assert(hand_want_frame(&h, VIA_CONTROL_HELLO, 0));
	hand_say(&h, S_SETUP, LANE_MAIN);
	cr_assert(hand_want_frame(&h, VIA_CONTROL_SETUP_OK, 0));
	hand_open_lane(&h, LANE_MULTIFD_0);
	hand_say(&h, S_OPEN, LANE_MULTIFD_0); /* and no more of it */
	cr_assert(hand_want_frame(&h, VIA_CONTROL_CHANNEL_ADDR, 0));
	start = via_now_ns();
	for (unsigned i = 0; i < 2; i++) {
		hand_open_lane(&h, lanes[i]);
		hand_say(&h, S_OPEN, lanes[i]);
		cr_assert(hand_want_frame(&h, VIA_CONTROL_CHANNEL_ADDR, 1 + i));
		cr_assert(hand_connect_lane(&h, lanes[i]));
		hand_say(&h, S_READY, lanes[i]);
		cr_assert(hand_want_frame(&h, VIA_CONTROL_CHANNEL_READY, i));
	}
	cr_assert_lt(via_now_ns() - start, t.deadline_ns, "they waited for the silent one");
	hand_fini(&h);
	target_join(&t);
	cr_assert_neq(t.rc, 0);
}

/* What comes of the whole of a script with one message twisted. */
static void run(struct target *t, enum via_role hand, bool postcopy, const struct twisted *twisted)
{
	static struct hand h;

	meet(&h, t, hand, postcopy, twisted);
	if (hand == VIA_ROLE_SOURCE)
		(void)hand_source(&h, postcopy ? SCRIPT_POSTCOPY : SCRIPT_PRECOPY, -1);
	else
		hand_destination(&h, postcopy ? SCRIPT_POSTCOPY : SCRIPT_PRECOPY);
	hand_fini(&h);
	target_join(t);
}

Test(regression, channel_id_equal_to_the_channel_count_is_accepted)
{
	const struct twisted index = {S_OPEN, LANE_MULTIFD_1, T_U16, 2, HAND_MULTIFD};
	struct target t;

	run(&t, VIA_ROLE_SOURCE, false, &index);
	cr_assert_neq(t.rc, 0);
	cr_assert(!t.guest_runs);
	/* It waits for the right one for as long as the peer does. */
	cr_assert(strstr(t.err.seen, "multifd 1 was not opened") ||
			  strstr(t.err.seen, "the peer has ended it"),
		  "%s", t.err.seen);
}

Test(regression, receiver_not_ready)
{
	const struct twisted flood = {S_STATUS, 0, T_FLOOD, 0, 100};
	struct target t;

	run(&t, VIA_ROLE_SOURCE, false, &flood);
	/* A receiver that keeps up gives the credits back in time, and has lost nothing. */
	cr_assert_eq(t.guest_runs, t.rc == 0);
	cr_assert(t.rc == 0 || (t.err.seen[0] && t.err.remedy[0]), "%s", t.err.what);
}

Test(regression, address_overwritten_and_another_host_is_written_to)
{
	/* The address that the destination announces, in each of its bytes; and the nonce. */
	for (unsigned at = 14; at < 30; at++) {
		const struct twisted other = {S_ADDR, LANE_MULTIFD_0, T_XOR, at, 0x55};
		struct target t;

		run(&t, VIA_ROLE_DESTINATION, false, &other);
		cr_assert_neq(t.rc, 0, "byte %u", at);
		cr_assert_eq(t.result.outcome, VIA_ABORTED);
		cr_assert(t.guest_runs);
	}
}

Test(regression, failed_postcopy_is_reported_as_success)
{
	const struct twisted source_dies = {S_BULK, 0, T_DIE, 0, 0};
	const struct twisted destination_dies = {S_REQUEST, 0, T_DIE, 0, 0};
	struct target t;

	run(&t, VIA_ROLE_SOURCE, true, &source_dies);
	cr_assert_neq(t.rc, 0);
	cr_assert_eq(t.result.outcome, VIA_PAUSED);
	run(&t, VIA_ROLE_DESTINATION, true, &destination_dies);
	cr_assert_neq(t.rc, 0);
	cr_assert_eq(t.result.outcome, VIA_PAUSED);
	cr_assert(!t.guest_runs, "it may run at the destination");
}

/* -- faults ----------------------------------------------------------------------------------- */

static void postcopy(struct small_guest_config guest, struct pair_result *r)
{
	struct pair_config c = {.fabric_source = "sim:regression,delay=5",
				.fabric_destination = "sim:regression,seed=2,delay=5",
				.multifd = 2,
				.preempt = 1,
				.guest = guest,
				.migrate = {.postcopy_after = 1, .downtime_limit_ns = 1}};

	pair_migrate(&c, r);
	cr_assert_eq(r->source.outcome, VIA_COMPLETED, "%s: %s", r->source_error.what,
		     r->source_error.seen);
	cr_assert_eq(r->destination.outcome, VIA_COMPLETED, "%s: %s", r->destination_error.what,
		     r->destination_error.seen);
	cr_assert_eq(r->wrong_pages, 0);
}

Test(regression, fault_while_device_state_is_loading)
{
	struct pair_result r;

	postcopy((struct small_guest_config){.seed = 3,
					     .pages = {60, 20},
					     .writes_per_round = 50,
					     .postcopy = true,
					     .load_touches = true},
		 &r);
	cr_assert_gt(r.destination.postcopy.request_pages, 0, "load() met no missing page");
}

/* A quarter of the pages is never written anywhere, and each is touched. */
Test(regression, zero_page_never_written_is_a_fault_that_nobody_answers)
{
	struct pair_result r;

	postcopy((struct small_guest_config){.seed = 4,
					     .pages = {60, 20},
					     .writes_per_round = 50,
					     .postcopy = true,
					     .toucher_threads = 2,
					     .touches = 4000},
		 &r);
	cr_assert_gt(r.source.zero_pages, 0);
}
