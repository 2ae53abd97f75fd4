/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clock.c -- deadlines: never, sums at the end of the range, and poll's timeout.
 */
#include <criterion/criterion.h>
#include <limits.h>
#include <poll.h>

#include "core/clock.h"

Test(clock, never_goes_back)
{
	uint64_t last = via_now_ns();

	cr_assert_gt(last, 0);
	for (int i = 0; i < 1000; i++) {
		uint64_t now = via_now_ns();

		cr_assert_geq(now, last);
		last = now;
	}
}

Test(clock, deadline_lies_where_it_was_asked_for)
{
	uint64_t before = via_now_ns(), deadline = via_deadline_in(5 * VIA_NS_PER_S);

	cr_assert_geq(deadline, before + 5 * VIA_NS_PER_S);
	cr_assert_leq(deadline, via_now_ns() + 5 * VIA_NS_PER_S);
}

Test(clock, never_stays_never)
{
	cr_assert_eq(via_deadline_in(VIA_NEVER), VIA_NEVER);
	cr_assert_not(via_deadline_passed(VIA_NEVER));
	cr_assert_eq(via_deadline_poll_ms(VIA_NEVER), -1);
}

Test(clock, sums_do_not_wrap)
{
	uint64_t room = VIA_NEVER - via_now_ns();

	cr_assert_eq(via_deadline_in(VIA_NEVER - 1), VIA_NEVER);
	cr_assert_eq(via_deadline_in(room), VIA_NEVER);
	cr_assert_not(via_deadline_passed(via_deadline_in(room / 2)));
}

Test(clock, passed_at_once_and_not_before)
{
	cr_assert(via_deadline_passed(0));
	cr_assert(via_deadline_passed(1));
	cr_assert(via_deadline_passed(via_deadline_in(0)));
	cr_assert_not(via_deadline_passed(via_deadline_in(3600 * VIA_NS_PER_S)));
}

Test(clock, poll_timeout_of_the_past_is_zero)
{
	cr_assert_eq(via_deadline_poll_ms(0), 0);
	cr_assert_eq(via_deadline_poll_ms(via_deadline_in(0)), 0);
}

Test(clock, poll_timeout_is_at_most_int_max)
{
	const uint64_t max_ns = (uint64_t)INT_MAX * VIA_NS_PER_MS;

	cr_assert_eq(via_deadline_poll_ms(VIA_NEVER - 1), INT_MAX);
	cr_assert_eq(via_deadline_poll_ms(via_deadline_in(max_ns + 3600 * VIA_NS_PER_S)), INT_MAX);
	cr_assert_lt(via_deadline_poll_ms(via_deadline_in(max_ns - 3600 * VIA_NS_PER_S)), INT_MAX);
}

/* The point of rounding up: who has slept that long need not sleep again. */
Test(clock, poll_timeout_reaches_the_deadline)
{
	static const uint64_t waits[] = {1, VIA_NS_PER_MS - 1, VIA_NS_PER_MS, VIA_NS_PER_MS + 1,
					 5 * VIA_NS_PER_MS / 2};

	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		uint64_t deadline = via_deadline_in(waits[i]);
		int ms = via_deadline_poll_ms(deadline);

		cr_assert_leq(ms, (int)(waits[i] / VIA_NS_PER_MS) + 1);
		cr_assert_eq(poll(NULL, 0, ms), 0);
		cr_assert(via_deadline_passed(deadline), "%d ms were too few", ms);
	}
}
