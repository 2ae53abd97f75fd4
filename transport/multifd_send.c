/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * multifd_send.c -- the senders: one thread for each multifd channel of the source, which
 * pulls work, posts it as chains of one-sided writes and ends each round with its fence.
 *
 * Work is pulled, not pushed: a slow channel takes less of it, and nobody queues, locks
 * or allocates. A sender touches its own channel only, and hands its ledger over to the
 * migration thread by counting itself done.
 */
#include <stdlib.h>
#include <sys/eventfd.h>

#include "transport/session.h"

/* One write carries at most this: larger ones gain nothing and hold the queue up. */
#define WRITE_LEN_MAX (1u << 20)

/* @region and @off: its place, for who watches. */
static int post_piece(struct via_channel *ch, const struct region_piece *p, unsigned region,
		      uint64_t off, unsigned flags)
{
	struct via_session *s = ch->session;
	struct via_sge sge = {.mr = s->slice_mr[p->slice], .addr = p->addr, .len = p->len};
	int rc;

	while ((rc = ch->ep->fab->ops->post_write(ch->ep, &sge, 1, ch->rkeys[p->slice],
						  p->slice_off, ch, flags)) == -EAGAIN) {
		rc = channel_wait_for_movement(ch);
		if (rc < 0)
			return rc;
	}
	if (rc)
		return rc;
	via_ledger_post(&ch->ledger, p->len);
	VIA_PROBE(write, s->role, session_probe_channel(ch),
		  atomic_load_explicit(&ch->ledger.total_writes, memory_order_relaxed),
		  VIA_PROBE_PLACE(region, off), p->len);
	return 0;
}

static int post_run(struct via_channel *ch, struct via_run run, bool last)
{
	size_t max = ch->ep->fab->caps.write_len_max;

	if (max > WRITE_LEN_MAX)
		max = WRITE_LEN_MAX;
	while (run.len) {
		struct region_piece piece;
		int rc = regions_piece(ch->session, &run, max, &piece);

		if (!rc)
			rc = channel_pace(ch, piece.len);
		if (!rc)
			rc = post_piece(ch, &piece, run.region, run.off,
					last && piece.len == run.len ? 0 : VIA_MORE);
		if (rc)
			return rc;
		run.off += piece.len;
		run.len -= piece.len;
	}
	return 0;
}

static int send_batch(struct via_channel *ch, const struct via_batch *batch)
{
	int rc;

	for (unsigned i = 0; i < batch->nruns; i++) {
		rc = post_run(ch, batch->run[i], i + 1 == batch->nruns);
		if (rc)
			return rc;
	}
	if (batch->message_len) {
		rc = channel_send(ch, batch->message_type, batch->message, batch->message_len,
				  batch->after_writes ? VIA_AFTER_WRITES : 0);
		if (rc)
			return rc;
	}
	rc = channel_progress(ch);
	return rc < 0 ? rc : 0;
}

static void note_fence_time(struct via_session *s)
{
	uint64_t now = via_now_ns(), last = atomic_load(&s->round.last_fence_ns);

	while (last < now && !atomic_compare_exchange_weak(&s->round.last_fence_ns, &last, now))
		;
}

static int work_through(struct via_channel *ch, const struct via_work *work)
{
	struct via_batch batch = {.message = ch->batch_message,
				  .message_cap = CHANNEL_MESSAGE_LEN - VIA_MESSAGE_HEADER_LEN};
	int rc;

	for (;;) {
		batch.nruns = 0;
		batch.message_len = 0;
		batch.after_writes = false;
		rc = work->next(work->arg, ch->index, &batch);
		if (rc <= 0)
			return rc;
		rc = send_batch(ch, &batch);
		if (rc)
			return rc;
	}
}

static int send_round(struct via_channel *ch)
{
	struct via_session *s = ch->session;
	int rc = 0;

	if (s->round.check_only) {
		rc = channel_progress(ch);
		return rc < 0 ? rc : 0;
	}
	if (s->round.work)
		rc = work_through(ch, s->round.work);
	if (rc)
		return rc;
	note_fence_time(s);
	rc = fence_post(ch);
	return rc ? rc : channel_settle(ch);
}

/*
 * The last one wakes the migration thread, unless that goes on sleeping until DRAINED comes: then it
 * looks for itself. Of the two stores one is first, and the other side sees it.
 */
static void count_done(struct via_session *s)
{
	bool check_only = s->round.check_only; /* behind the last one the next round may begin */

	if (atomic_fetch_sub(&s->round.pending, 1) == 1 &&
	    (check_only || atomic_load(&s->drained_came)))
		eventfd_write(s->main_wake_fd, 1);
}

static void *sender_main(void *arg)
{
	struct via_channel *ch = arg;
	struct via_session *s = ch->session;
	uint64_t seen = 0;
	int rc = 0;

	while (rc >= 0 && !atomic_load(&ch->worker_stop)) {
		uint64_t number = atomic_load(&s->round.number);

		if (number == seen) {
			rc = channel_wait(ch, VIA_NEVER, ch->wake_fd);
			continue;
		}
		seen = number;
		rc = send_round(ch);
		if (rc >= 0)
			count_done(s);
	}
	if (rc < 0)
		session_fail_channel(s, ch, rc);
	return NULL;
}

int via_session_start_senders(struct via_session *s, struct via_error *err)
{
	int rc = session_check(s, err);

	for (unsigned i = 0; i < s->nmultifd && !rc; i++) {
		struct via_channel *ch = &s->multifd[i];

		ch->batch_message = malloc(CHANNEL_MESSAGE_LEN);
		if (!ch->batch_message)
			return via_fail(err, -ENOMEM,
					"start the senders\nout of memory\nuse fewer channels");
		rc = worker_start(ch, sender_main, err);
	}
	return rc;
}
