/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ledger.c -- the fence: what must agree and what must have retired before an
 * epoch counts as drained.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "core/ledger.h"

/* A ledger at @epoch with @writes of 100 bytes each posted. */
static struct via_ledger posted(uint64_t epoch, uint64_t writes)
{
	struct via_ledger l;

	via_ledger_init(&l, epoch);
	for (uint64_t i = 0; i < writes; i++)
		via_ledger_post(&l, 100);
	return l;
}

Test(ledger, fence_says_what_was_posted)
{
	struct via_ledger l = posted(7, 3);
	struct via_fence_count fence;

	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	cr_assert_eq(fence.epoch, 7);
	cr_assert_eq(fence.writes, 3);
	cr_assert_eq(fence.bytes, 300);
	cr_assert_eq(l.open.epoch, 8);
	cr_assert_eq(l.open.writes, 0);
}

Test(ledger, drained_when_acknowledged_and_retired)
{
	struct via_ledger l = posted(1, 3);
	struct via_fence_count fence;

	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), -EAGAIN);
	cr_assert_eq(via_ledger_retire(&l, 2), 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), -EAGAIN);
	cr_assert_eq(l.drained_epoch, 0);
	cr_assert_eq(via_ledger_retire(&l, 1), 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), 0);
	cr_assert_eq(l.drained_epoch, 1);
	cr_assert_eq(via_ledger_drained(&l, &fence), -EINVAL, "acknowledged twice");
}

Test(ledger, empty_epoch_drains_at_once)
{
	struct via_ledger l = posted(1, 0);
	struct via_fence_count fence;

	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	cr_assert_eq(fence.writes, 0);
	cr_assert_eq(fence.bytes, 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), 0);
}

Test(ledger, any_difference_is_refused)
{
	static const int delta[] = {-1, 1};

	for (int field = 0; field < 3; field++) {
		for (int d = 0; d < 2; d++) {
			struct via_ledger l = posted(5, 3);
			struct via_fence_count fence, ack;

			cr_assert_eq(via_ledger_retire(&l, 3), 0);
			cr_assert_eq(via_ledger_fence(&l, &fence), 0);
			ack = fence;
			*(field == 0   ? &ack.epoch
			  : field == 1 ? &ack.writes
				       : &ack.bytes) += (uint64_t)delta[d];
			cr_assert_eq(via_ledger_drained(&l, &ack), -EBADMSG);
			cr_assert_eq(l.drained_epoch, 0);
			cr_assert_eq(via_ledger_drained(&l, &fence), 0,
				     "the right one still counts");
		}
	}
}

/* A wrong acknowledgement ends the session; it must not be hidden by -EAGAIN. */
Test(ledger, difference_is_reported_before_retirement)
{
	struct via_ledger l = posted(1, 1);
	struct via_fence_count fence;

	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	fence.writes++;
	cr_assert_eq(via_ledger_drained(&l, &fence), -EBADMSG);
}

Test(ledger, no_fence_is_out)
{
	struct via_ledger l = posted(1, 1);
	struct via_fence_count ack = {0};

	cr_assert_eq(via_ledger_drained(&l, &ack), -EINVAL);
	ack = l.open;
	cr_assert_eq(via_ledger_drained(&l, &ack), -EINVAL);
}

Test(ledger, one_fence_at_a_time)
{
	struct via_ledger l = posted(1, 1);
	struct via_fence_count fence, second = {.epoch = 99};

	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	cr_assert_eq(via_ledger_fence(&l, &second), -EINVAL);
	cr_assert_eq(second.epoch, 99, "an output was written on failure");
	cr_assert_eq(via_ledger_retire(&l, 1), 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), 0);
	cr_assert_eq(via_ledger_fence(&l, &second), 0);
	cr_assert_eq(second.epoch, 2);
}

Test(ledger, retire_more_than_posted)
{
	struct via_ledger l = posted(1, 2);

	cr_assert_eq(via_ledger_retire(&l, 3), -EBADMSG);
	cr_assert_eq(l.outstanding, 2, "a refused retirement changed something");
	cr_assert_eq(via_ledger_retire(&l, 0), 0);
	cr_assert_eq(via_ledger_retire(&l, 2), 0);
	cr_assert_eq(via_ledger_retire(&l, 1), -EBADMSG);
}

/*
 * Two writes of epoch 1, one of epoch 2, two retirements: they may be the
 * two of epoch 1, but also one of each. Nobody can say, so it is not drained.
 */
Test(ledger, later_writes_may_retire_first)
{
	struct via_ledger l = posted(1, 2);
	struct via_fence_count fence;

	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	via_ledger_post(&l, 100);
	cr_assert_eq(via_ledger_retire(&l, 2), 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), -EAGAIN);
	cr_assert_eq(via_ledger_retire(&l, 1), 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), 0);
}

/* Once everything had retired, writes of the next epoch do not hold the last one up. */
Test(ledger, next_epoch_may_be_under_way)
{
	struct via_ledger l = posted(1, 2);
	struct via_fence_count fence, next;

	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	cr_assert_eq(via_ledger_retire(&l, 2), 0);
	via_ledger_post(&l, 11);
	cr_assert_eq(via_ledger_drained(&l, &fence), 0);
	cr_assert_eq(via_ledger_fence(&l, &next), 0);
	cr_assert_eq(next.epoch, 2);
	cr_assert_eq(next.writes, 1);
	cr_assert_eq(next.bytes, 11);
	cr_assert_eq(via_ledger_drained(&l, &next), -EAGAIN, "what retired before does not count");
	cr_assert_eq(via_ledger_retire(&l, 1), 0);
	cr_assert_eq(via_ledger_drained(&l, &next), 0);
}

Test(ledger, totals_go_on_over_epochs)
{
	struct via_ledger l = posted(1, 2);
	struct via_fence_count fence;

	for (uint64_t epoch = 1; epoch <= 10; epoch++) {
		cr_assert_eq(via_ledger_retire(&l, l.outstanding), 0);
		cr_assert_eq(via_ledger_fence(&l, &fence), 0);
		cr_assert_eq(fence.epoch, epoch);
		cr_assert_eq(via_ledger_drained(&l, &fence), 0);
		cr_assert_eq(l.drained_epoch, epoch);
		via_ledger_post(&l, 50);
	}
	cr_assert_eq(l.total_writes, 12);
	cr_assert_eq(l.total_bytes, 2 * 100 + 10 * 50);
	via_ledger_init(&l, 3);
	cr_assert_eq(l.total_writes, 0);
	cr_assert_eq(l.open.epoch, 3);
}

/* Whatever was under way when the channel was lost: only what it has written in all is kept. */
Test(ledger, reopen_keeps_the_totals_alone)
{
	struct via_ledger l = posted(1, 3);
	struct via_fence_count fence;

	cr_assert_eq(via_ledger_retire(&l, 1), 0);
	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	via_ledger_post(&l, 7);
	via_ledger_reopen(&l, 9);
	cr_assert_eq(l.total_writes, 4);
	cr_assert_eq(l.total_bytes, 307);
	cr_assert_eq(l.outstanding, 0);
	cr_assert_eq(l.drained_epoch, 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), -EINVAL, "that fence is gone");
	cr_assert_eq(via_ledger_retire(&l, 1), -EBADMSG);

	via_ledger_post(&l, 11);
	cr_assert_eq(via_ledger_fence(&l, &fence), 0);
	cr_assert_eq(fence.epoch, 9);
	cr_assert_eq(fence.writes, 1);
	cr_assert_eq(fence.bytes, 11);
	cr_assert_eq(via_ledger_retire(&l, 1), 0);
	cr_assert_eq(via_ledger_drained(&l, &fence), 0);
	cr_assert_eq(l.total_writes, 5);
	cr_assert_eq(l.total_bytes, 318);
}
