/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_channel_test.c -- channels that carry pages behind the seal: content in slots, credits, and
 * what they refuse.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/transport/resume_pair.h"
#include "transport/page_channel.h"
#include "transport/session.h"

#define SLOT_LEN 131072u /* of a multifd channel (docs/wire.md) */

/* A session that both sides resume. */
static const struct via_resume some = {.id = {1, 2, 3}, .epoch = 7};

Test(page_channel, only_behind_the_seal_is_a_channel_opened_again, .timeout = 60)
{
	struct via_error err = {0};
	struct pair p = {0};

	pair_open(&p, NULL, NULL);
	cr_assert_eq(via_channel_slot_len(&p.source->multifd[0]), 0);
	cr_assert_eq(p.source->multifd[0].nrkeys, p.source->nslices);
	drain_a_round(&p, false);
	cr_assert_eq(via_session_open_channel(p.source, VIA_MULTIFD, 0, &err), -EEXIST);
	pair_close(&p);

	open_sealed(&p);
	cr_assert_eq(p.source->multifd[0].nrkeys, 1);
	cr_assert_eq(via_channel_slot_len(&p.source->multifd[0]), SLOT_LEN);
	cr_assert_eq(via_session_open_channel(p.source, VIA_MULTIFD, 0, NULL), -EEXIST);
	cr_assert_eq(via_session_next_epoch(p.source), 0);
	cr_assert_eq(via_session_open_channel(p.source, VIA_MULTIFD, 0, NULL), -EEXIST,
		     "it carries pages already");
	cr_assert_eq(via_session_open_channel(p.source, VIA_MAIN, 0, NULL), -EEXIST);
	expect_message(p.source, p.destination);
	pair_close(&p);
}

Test(page_channel, each_is_taken_once, .timeout = 60)
{
	struct pair p = {0};

	pair_open(&p, &some, &some);
	cr_assert_null(via_channel_take(p.source, VIA_MULTIFD, MULTIFD));
	cr_assert_null(via_channel_take(p.source, VIA_PREEMPT, 0), "it is not open");
	open_kind(&p, VIA_PREEMPT, PREEMPT);
	for (unsigned i = 0; i < 2; i++) {
		struct via_session *s = i ? p.source : p.destination;

		cr_assert_not_null(via_channel_take(s, VIA_PREEMPT, 0));
		cr_assert_null(via_channel_take(s, VIA_PREEMPT, 0));
		cr_assert_not_null(via_channel_take(s, VIA_MULTIFD, 1));
		cr_assert_null(via_channel_take(s, VIA_MULTIFD, 1));
	}
	pair_close(&p);
}

/* Both ends of a channel, owned by the test. */
struct ends {
	struct via_channel *source, *destination;
};

static struct ends take(struct pair *p, enum via_channel_kind kind, unsigned index)
{
	struct ends e = {via_channel_take(p->source, kind, index),
			 via_channel_take(p->destination, kind, index)};

	cr_assert_not_null(e.source);
	cr_assert_not_null(e.destination);
	return e;
}

/* The next message of @ch. */
static struct via_page_message next(struct via_channel *ch)
{
	uint64_t deadline = via_deadline_in(PATIENCE_NS);
	struct via_page_message m;

	while (!via_channel_next(ch, &m)) {
		int rc = via_channel_wait(ch, deadline, -1);

		cr_assert_geq(rc, 0, "%s", via_err_name(rc));
		cr_assert_not(via_deadline_passed(deadline), "no message came");
	}
	return m;
}

static uint64_t random_state = 1;

static uint64_t below(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

/* @n runs of at most @max bytes together, anywhere; what they hold into @content. Its length. */
static size_t make_runs(const struct pair *p, struct via_run *run, unsigned n, size_t max,
			uint8_t *content)
{
	size_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		uint64_t len = 1 + below(max / n);

		run[i] = (struct via_run){.region = (uint16_t)below(2),
					  .off = below(REGION_LEN - len + 1),
					  .len = len};
		memcpy(content + sum, p->memory[run[i].region] + run[i].off, len);
		sum += len;
	}
	return sum;
}

static void send_and_compare(struct pair *p, struct ends *e, unsigned nruns)
{
	static uint8_t content[SLOT_LEN];
	struct via_run run[VIA_STAGED_RUNS];
	size_t slot_len = via_channel_slot_len(e->source);
	size_t len = make_runs(p, run, nruns, slot_len, content);
	struct via_page_message m;

	cr_assert_eq(via_channel_send_staged(e->source, MESSAGE_PAGES, &nruns, sizeof(nruns), run,
					     nruns),
		     0);
	m = next(e->destination);
	cr_assert_eq(m.type, MESSAGE_PAGES);
	cr_assert(m.len == sizeof(nruns) && !memcmp(m.payload, &nruns, sizeof(nruns)));
	cr_assert_eq(m.slot_len, slot_len);
	cr_assert_eq(memcmp(m.slot, content, len), 0, "%zu bytes of %u runs", len, nruns);
	cr_assert_eq(via_channel_done(e->destination, &m), 0);
}

static const char *const fabrics[] = {
	"sim:resume,seed=1",
	"sim:resume,seed=2,straggle=30",
	"sim:resume,seed=3,delay=20,split=1",
	"sim:resume,seed=4,delay=0",
};

static unsigned fabric_index[] = {0, 1, 2, 3};

ParameterizedTestParameters(page_channel, content_arrives_in_the_slot)
{
	return cr_make_param_array(unsigned, fabric_index, 4);
}

/* Runs begin and end anywhere, and go over the borders of slices. */
ParameterizedTest(unsigned *i, page_channel, content_arrives_in_the_slot, .timeout = 60)
{
	struct pair p = {.fabric = fabrics[*i]};
	struct ends e;

	open_sealed(&p);
	e = take(&p, VIA_MULTIFD, 1);
	for (unsigned n = 0; n <= VIA_STAGED_RUNS; n++)
		send_and_compare(&p, &e, n);
	for (unsigned n = 0; n < 100; n++)
		send_and_compare(&p, &e, 1 + (unsigned)below(8));
	cr_assert_eq(via_channel_settle(e.source), 0);
	pair_close(&p);

	random_state = *i + 1;
	pair_open(&p, &some, &some);
	open_kind(&p, VIA_PREEMPT, PREEMPT);
	for (unsigned k = 0; k < PREEMPT; k++) {
		e = take(&p, VIA_PREEMPT, k);
		for (unsigned n = 1; n <= VIA_STAGED_RUNS; n++)
			send_and_compare(&p, &e, n);
	}
	pair_close(&p);
}

Test(page_channel, a_slot_may_be_full_and_no_more, .timeout = 60)
{
	struct via_run run[2] = {{.region = 1, .off = 1, .len = SLOT_LEN}};
	static uint8_t payload[CHANNEL_MESSAGE_LEN];
	size_t most = CHANNEL_MESSAGE_LEN - VIA_MESSAGE_HEADER_LEN;
	struct via_page_message m;
	struct pair p = {0};
	struct ends e;

	open_sealed(&p);
	e = take(&p, VIA_MULTIFD, 0);
	cr_assert_eq(most, 8184);
	run[0].len++;
	cr_assert_eq(via_channel_send_staged(e.source, MESSAGE_PAGES, NULL, 0, run, 1), -EMSGSIZE);
	run[0].len--;
	run[1] = (struct via_run){.region = 0, .off = 0, .len = 1};
	cr_assert_eq(via_channel_send_staged(e.source, MESSAGE_PAGES, NULL, 0, run, 2), -EMSGSIZE);
	cr_assert_eq(via_channel_send_staged(e.source, MESSAGE_PAGES, payload, most + 1, run, 1),
		     -EMSGSIZE);
	cr_assert_eq(via_channel_send(e.source, MESSAGE_PAGES, payload, most, "x", 1), -EMSGSIZE);
	cr_assert_eq(via_channel_send(e.source, MESSAGE_PAGES, payload, most + 1, NULL, 0),
		     -EMSGSIZE);
	cr_assert_eq(via_channel_room(e.source), CHANNEL_RECEIVES, "nothing of it was sent");

	cr_assert_eq(via_channel_send_staged(e.source, MESSAGE_PAGES, payload, most, run, 1), 0);
	m = next(e.destination);
	cr_assert_eq(m.len, most);
	cr_assert_eq(memcmp(m.slot, p.memory[1] + 1, SLOT_LEN), 0);
	cr_assert_eq(via_channel_done(e.destination, &m), 0);
	cr_assert_eq(via_channel_send(e.source, MESSAGE_PAGES, payload, most - 1, "x", 1), 0);
	m = next(e.destination);
	cr_assert_eq(m.len, most);
	cr_assert_eq(m.payload[most - 1], 'x');
	pair_close(&p);
}

/* Before the seal a multifd channel has a worker of the transport's, and keys to guest memory. */
Test(page_channel, a_channel_without_slots_cannot_be_taken, .timeout = 60)
{
	struct pair p = {0};

	pair_open(&p, NULL, NULL);
	cr_assert_null(via_channel_take(p.source, VIA_MULTIFD, 0));
	cr_assert_null(via_channel_take(p.destination, VIA_MULTIFD, 0));
	pair_close(&p);
}

Test(page_channel, a_run_outside_its_region_is_refused, .timeout = 60)
{
	static const struct via_run bad[] = {
		{.region = 2, .off = 0, .len = 1},
		{.region = UINT16_MAX, .off = 0, .len = 1},
		{.region = 0, .off = REGION_LEN, .len = 1},
		{.region = 0, .off = REGION_LEN - 1, .len = 2},
		{.region = 1, .off = 0, .len = REGION_LEN + 1},
		{.region = 0, .off = UINT64_MAX, .len = 2},
		{.region = 0, .off = 1, .len = UINT64_MAX},
	};
	struct via_run run[2] = {{.region = 0, .off = REGION_LEN - 1, .len = 1}};
	struct pair p = {0};
	struct ends e;

	open_sealed(&p);
	e = take(&p, VIA_MULTIFD, 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		run[1] = bad[i];
		cr_assert_eq(via_channel_send_staged(e.source, MESSAGE_PAGES, NULL, 0, run, 2),
			     -ERANGE, "case %u", i);
	}
	cr_assert_eq(via_channel_room(e.source), CHANNEL_RECEIVES, "nothing of it was sent");
	send_and_compare(&p, &e, 3);
	pair_close(&p);
}

/* -- credits --------------------------------------------------------------------------------------- */

struct sender {
	struct via_channel *ch;
	unsigned n;
	_Atomic unsigned sent;
	int rc;
	pthread_t thread;
};

/* Message i has page i of region 0, modulo their number. */
static int send_page(struct via_channel *ch, unsigned i)
{
	struct via_run run = {.region = 0, .off = i * PAGE % REGION_LEN, .len = PAGE};

	return via_channel_send_staged(ch, MESSAGE_PAGES, &i, sizeof(i), &run, 1);
}

static void *send_pages(void *arg)
{
	struct sender *s = arg;

	for (unsigned i = 0; i < s->n && !s->rc; i++) {
		s->rc = send_page(s->ch, i);
		if (!s->rc)
			atomic_fetch_add(&s->sent, 1);
	}
	if (!s->rc)
		s->rc = via_channel_settle(s->ch);
	return NULL;
}

static void check_page(const struct pair *p, const struct via_page_message *m, unsigned i)
{
	cr_assert(m->len == sizeof(i) && !memcmp(m->payload, &i, sizeof(i)),
		  "message %u is not that", i);
	cr_assert_eq(memcmp(m->slot, p->memory[0] + i * PAGE % REGION_LEN, PAGE), 0,
		     "message %u has not its page", i);
}

/* Until they are given back slots stay as they are, and the sender waits. */
Test(page_channel, a_sender_without_credits_waits_for_the_receiver, .timeout = 60)
{
	struct via_page_message m[CHANNEL_RECEIVES], more;
	uint64_t a_while;
	struct pair p = {0};
	struct sender s = {.n = 100};
	struct ends e;

	open_sealed(&p);
	e = take(&p, VIA_MULTIFD, 0);
	s.ch = e.source;
	cr_assert_eq(pthread_create(&s.thread, NULL, send_pages, &s), 0);
	for (unsigned i = 0; i < CHANNEL_RECEIVES; i++)
		m[i] = next(e.destination);
	a_while = via_deadline_in(50 * VIA_NS_PER_MS);
	while (!via_deadline_passed(a_while))
		cr_assert_geq(via_channel_wait(e.destination, a_while, -1), 0);
	cr_assert_not(via_channel_next(e.destination, &more), "more than there are receives");
	cr_assert_leq(atomic_load(&s.sent), CHANNEL_RECEIVES);
	for (unsigned i = 0; i < CHANNEL_RECEIVES; i++)
		check_page(&p, &m[i], i);
	for (unsigned i = 0; i < CHANNEL_RECEIVES; i++)
		cr_assert_eq(via_channel_done(e.destination, &m[i]), 0);
	for (unsigned i = CHANNEL_RECEIVES; i < s.n; i++) {
		more = next(e.destination);
		check_page(&p, &more, i);
		cr_assert_eq(via_channel_done(e.destination, &more), 0);
	}
	pthread_join(s.thread, NULL);
	cr_assert_eq(s.rc, 0, "%s", via_err_name(s.rc));
	pair_close(&p);
}

Test(page_channel, a_receiver_that_gives_nothing_back_is_given_up, .timeout = 60)
{
	struct pair p = {.stall_ns = 200 * VIA_NS_PER_MS};
	struct via_error err = {0};
	struct ends e;

	open_sealed(&p);
	e = take(&p, VIA_MULTIFD, 0);
	for (unsigned i = 0; i < CHANNEL_RECEIVES; i++) {
		cr_assert_eq(via_channel_room(e.source), CHANNEL_RECEIVES - i);
		cr_assert_eq(send_page(e.source, i), 0);
		cr_assert_eq(via_channel_settle(e.source), 0);
	}
	cr_assert_eq(via_channel_room(e.source), 0);
	cr_assert_eq(send_page(e.source, CHANNEL_RECEIVES), -ETIMEDOUT);
	via_channel_fail(e.source, -ETIMEDOUT);
	cr_assert_eq(via_session_failure(p.source, &err), -ETIMEDOUT);
	cr_assert(strstr(err.what, "multifd 0"), "%s", err.what);
	pair_close(&p);
}

/* -- requests and answers, and how owners wait ------------------------------------------------------ */

Test(page_channel, messages_go_both_ways, .timeout = 60)
{
	struct via_page_message m;
	struct pair p = {0};
	struct ends e;

	pair_open(&p, &some, &some);
	open_kind(&p, VIA_PREEMPT, PREEMPT);
	e = take(&p, VIA_PREEMPT, 1);
	for (unsigned i = 0; i < 100; i++) {
		cr_assert_eq(via_channel_send(e.destination, MESSAGE_HELLO, &i, sizeof(i), "?", 1),
			     0);
		m = next(e.source);
		cr_assert_eq(m.type, MESSAGE_HELLO);
		cr_assert(m.len == sizeof(i) + 1 && !memcmp(m.payload, &i, sizeof(i)));
		cr_assert_null(m.slot, "the source has none");
		cr_assert_eq(via_channel_done(e.source, &m), 0);
		cr_assert_eq(send_page(e.source, i), 0);
		m = next(e.destination);
		check_page(&p, &m, i);
		cr_assert_eq(via_channel_done(e.destination, &m), 0);
	}
	pair_close(&p);
}

Test(page_channel, the_owner_of_many_waits_for_any, .timeout = 60)
{
	struct via_channel *ch[PREEMPT];
	struct via_page_message m;
	struct pair p = {0};
	struct ends e[PREEMPT];
	int fd[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};

	pair_open(&p, &some, &some);
	open_kind(&p, VIA_PREEMPT, PREEMPT);
	for (unsigned i = 0; i < PREEMPT; i++) {
		e[i] = take(&p, VIA_PREEMPT, i);
		ch[i] = e[i].source;
	}
	for (unsigned i = 0; i < PREEMPT; i++) {
		uint64_t deadline = via_deadline_in(PATIENCE_NS);

		cr_assert_eq(
			via_channel_send(e[i].destination, MESSAGE_HELLO, &i, sizeof(i), NULL, 0),
			0);
		while (!via_channel_next(ch[i], &m))
			cr_assert(via_channels_wait(ch, PREEMPT, deadline, fd, 2) >= 0 &&
				  !via_deadline_passed(deadline));
		cr_assert_eq(via_channel_done(ch[i], &m), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		uint64_t start = via_now_ns();
		eventfd_t value;

		eventfd_write(fd[i], 1);
		while (via_channels_wait(ch, PREEMPT, via_deadline_in(PATIENCE_NS), fd, 2) > 0)
			;
		cr_assert_lt(via_now_ns() - start, PATIENCE_NS);
		cr_assert_eq(eventfd_read(fd[i], &value), 0, "it was left as it was");
		close(fd[i]);
	}
	pair_close(&p);
}
