/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_receive_test.c -- a destination that looks at main again and again, each time for no time at
 * all: what it owes its source it does all the same.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

#include "tests/transport/resume_pair.h"

static void *look_until_end(void *arg)
{
	struct via_session *s = arg;
	struct via_message m = {0};
	int rc;

	do
		rc = via_main_receive(s, via_now_ns(), &m, NULL);
	while (rc == -EAGAIN || (!rc && m.type != MESSAGE_END));
	return NULL;
}

/* A fence that comes as the wait ends is answered: nothing else would wake the destination. */
Test(main_receive, whoever_has_no_time_answers_fences_and_seals, .timeout = 60)
{
	struct via_error err = {0};
	struct pair p = {0};
	pthread_t thread;

	pair_open(&p, NULL, NULL);
	cr_assert_eq(via_session_start_receivers(p.destination, NULL, NULL, &err), 0);
	cr_assert_eq(via_session_start_senders(p.source, &err), 0);
	cr_assert_eq(pthread_create(&thread, NULL, look_until_end, p.destination), 0);
	for (unsigned i = 0; i < 20; i++) {
		cr_assert_eq(via_round_start(p.source, NULL, &err), 0);
		cr_assert_eq(via_round_drain(p.source, via_deadline_in(2 * VIA_NS_PER_S), &err), 0,
			     "round %u: %s: %s", i, err.what, err.seen);
	}
	cr_assert_eq(via_session_seal(p.source, &err), 0, "%s: %s", err.what, err.seen);
	cr_assert_eq(via_main_send(p.source, MESSAGE_END, NULL, 0, &err), 0);
	pthread_join(thread, NULL);
	pair_close(&p);
}
