/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * resume_test.c -- sessions that are lost and resumed, and those that may not be; and waking the thread
 * that waits for main.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/transport/resume_pair.h"
#include "transport/page_channel.h"
#include "transport/session.h"

static const struct via_resume some = {.id = {1, 2, 3}, .epoch = 7};

Test(resume, the_epoch_rises_and_the_id_stays, .timeout = 60)
{
	struct via_resume source, destination, before = {0};
	struct pair p = {0};

	open_sealed(&p);
	pair_lose(&p, &source, &destination);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_geq(source.epoch, destination.epoch);
		cr_assert_gt(source.epoch, before.epoch);
		before = source;
		pair_open(&p, &source, &destination);
		cr_assert_gt(p.source->main_channel.epoch, before.epoch);
		expect_message(p.source, p.destination);
		expect_message(p.destination, p.source);
		pair_lose(&p, &source, &destination);
		cr_assert_eq(memcmp(source.id, before.id, sizeof(source.id)), 0);
		cr_assert_gt(destination.epoch, before.epoch);
	}
}

Test(resume, guest_memory_has_no_keys, .timeout = 60)
{
	struct via_session_stats stats;
	struct pair p = {0};

	pair_open(&p, &some, &some);
	open_kind(&p, VIA_PREEMPT, PREEMPT);
	for (unsigned i = 0; i < p.destination->nslices; i++)
		cr_assert_null(p.destination->slice_mr[i]);
	for (unsigned i = 0; i < MULTIFD + PREEMPT; i++) {
		bool bulk = i < MULTIFD;
		unsigned kind = bulk ? VIA_MULTIFD : VIA_PREEMPT, index = bulk ? i : i - MULTIFD;
		struct via_channel *source = session_channel(p.source, kind, index);
		struct via_channel *destination = session_channel(p.destination, kind, index);

		cr_assert_eq(via_channel_slot_len(source), bulk ? 131072 : LARGE_PAGE);
		cr_assert_eq(via_channel_slot_len(destination), via_channel_slot_len(source));
		cr_assert_eq(source->nrkeys, 1);
		cr_assert_eq(source->rkeys[0]->len, destination->staging_len);
	}
	cr_assert_eq(p.source->main_channel.nrkeys, 0);
	via_session_stats(p.destination, &stats);
	cr_assert(stats.sealed);
	via_session_stats(p.source, &stats);
	cr_assert(stats.sealed);
	pair_close(&p);
}

static void expect_refused(struct pair *p, int code, const char *says)
{
	cr_assert_eq(p->source_rc, code, "%s: %s", via_err_name(p->source_rc), p->source_err.seen);
	cr_assert_eq(p->destination_rc, code, "%s: %s", via_err_name(p->destination_rc),
		     p->destination_err.seen);
	cr_assert(strstr(p->source_err.seen, says), "\"%s\" should say \"%s\"", p->source_err.seen,
		  says);
	cr_assert(p->source_err.remedy[0]);
	cr_assert_null(p->source);
	cr_assert_null(p->destination);
	pair_close(p);
}

Test(resume, nothing_else_is_taken_meanwhile, .timeout = 60)
{
	struct via_resume other = some;
	struct pair p = {0};

	other.id[2] ^= 1;
	pair_try(&p, NULL, &some);
	expect_refused(&p, -EEXIST, "paused here");
	pair_try(&p, &other, &some);
	expect_refused(&p, -EEXIST, "paused here");
	pair_open(&p, &some, &some);
	expect_message(p.source, p.destination);
	pair_close(&p);
}

Test(resume, a_destination_that_waits_for_none_resumes_none, .timeout = 60)
{
	struct pair p = {0};

	pair_try(&p, &some, NULL);
	expect_refused(&p, -ESTALE, "does not know it");
	pair_open(&p, NULL, NULL);
	expect_message(p.source, p.destination);
	pair_close(&p);
}

/* Both streams, and one that is paused here: as that one, or as another that begins. */
Test(resume, or_a_new_one_where_that_is_taken, .timeout = 60)
{
	struct via_resume other = some, source, destination;
	struct pair p = {.streams = true, .or_new = true};

	pair_open(&p, &some, &some);
	cr_assert(via_session_is_resumed(p.source) && via_session_is_resumed(p.destination));
	pair_close(&p);

	p = (struct pair){.streams = true, .or_new = true};
	pair_open(&p, NULL, &some);
	cr_assert_not(via_session_is_resumed(p.source) || via_session_is_resumed(p.destination));
	cr_assert_eq(p.destination->epoch, 1);
	via_session_resume_point(p.source, &source);
	via_session_resume_point(p.destination, &destination);
	cr_assert_eq(memcmp(source.id, destination.id, sizeof(source.id)), 0);
	cr_assert_neq(memcmp(source.id, some.id, sizeof(source.id)), 0);
	pair_close(&p);

	p = (struct pair){.streams = true, .or_new = true};
	other.id[2] ^= 1;
	pair_try(&p, &other, &some);
	expect_refused(&p, -ESTALE, "does not know it");
}

/* Guest memory waits for its own source, whatever is asked for. */
Test(resume, no_new_one_into_guest_memory, .timeout = 60)
{
	struct pair p = {.or_new = true};

	pair_try(&p, NULL, &some);
	expect_refused(&p, -EEXIST, "paused here");
}

Test(resume, an_epoch_that_was_is_refused, .timeout = 60)
{
	for (uint64_t epoch = some.epoch - 3; epoch <= some.epoch + 3; epoch++) {
		struct via_resume point = some;
		struct pair p = {0};

		point.epoch = epoch;
		pair_try(&p, &point, &some);
		if (epoch < some.epoch) {
			expect_refused(&p, -ESTALE, "where 8 or more belongs");
			continue;
		}
		cr_assert_eq(p.source_rc, 0, "epoch %llu", (unsigned long long)epoch);
		cr_assert_eq(p.source->main_channel.epoch, epoch + 1);
		pair_close(&p);
	}
}

Test(resume, a_channel_of_an_old_epoch_is_refused, .timeout = 60)
{
	struct pair p = {.no_channels = true};
	struct via_error err = {0};

	pair_try(&p, &some, &some);
	cr_assert_eq(p.source_rc, 0);
	for (unsigned i = 0; i < 2; i++) {
		p.source->epoch = some.epoch - 1 + i;
		memset(&err, 0, sizeof(err));
		cr_assert_eq(via_session_open_channel(p.source, VIA_MAIN, 0, &err), 0);
		cr_assert_eq(via_session_wait_channel(p.source, VIA_MAIN, 0, &err), -ESTALE);
		cr_assert(strstr(err.seen, "the session began in epoch 8"), "%s", err.seen);
	}
	p.source->epoch = some.epoch + 1;
	memset(&err, 0, sizeof(err));
	cr_assert_eq(via_session_open_channels(p.source, &err), 0, "%s: %s", err.what, err.seen);
	pthread_join(p.thread, NULL);
	cr_assert_eq(p.destination_rc, 0);
	expect_message(p.source, p.destination);
	pair_close(&p);
}

/* -- via_session_wake() ----------------------------------------------------------------------------- */

struct receiver {
	struct via_session *session;
	int rc;
};

static void *receive_one(void *arg)
{
	struct receiver *r = arg;
	struct via_message m;

	r->rc = via_main_receive(r->session, via_deadline_in(PATIENCE_NS), &m, NULL);
	return NULL;
}

Test(wake, a_wait_for_main_ends, .timeout = 60)
{
	struct receiver r;
	struct via_message m;
	struct pair p = {0};
	pthread_t thread;

	pair_open(&p, NULL, NULL);
	for (unsigned i = 0; i < 50; i++) { /* before it waits, or while */
		r = (struct receiver){.session = i % 2 ? p.source : p.destination};
		cr_assert_eq(pthread_create(&thread, NULL, receive_one, &r), 0);
		via_session_wake(r.session);
		pthread_join(thread, NULL);
		cr_assert_eq(r.rc, -EINTR, "%s", via_err_name(r.rc));
		cr_assert_eq(via_main_receive(r.session, via_deadline_in(VIA_NS_PER_MS), &m, NULL),
			     -EAGAIN, "once");
	}
	expect_message(p.source, p.destination);
	pair_close(&p);
}

Test(wake, no_message_is_lost_by_it, .timeout = 60)
{
	struct pair p = {0};

	pair_open(&p, NULL, NULL);
	for (unsigned i = 0; i < 50; i++) {
		unsigned messages = 0, wakes = 0;

		cr_assert_eq(via_main_send(p.source, MESSAGE_HELLO, "hello", 5, NULL), 0);
		via_session_wake(p.destination);
		via_session_wake(p.destination); /* as one */
		while (messages + wakes < 2) {
			struct via_message m;
			int rc = via_main_receive(p.destination, via_deadline_in(PATIENCE_NS), &m,
						  NULL);

			cr_assert(rc == 0 || rc == -EINTR, "%s", via_err_name(rc));
			*(rc ? &wakes : &messages) += 1;
		}
		cr_assert_eq(messages, 1);
	}
	pair_close(&p);
}
