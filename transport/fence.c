/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fence.c -- drain and seal: how both sides come to know that no write can land any more.
 *
 * A FENCE follows the last write of each multifd channel and is received only when those
 * writes are placed (VIA_AFTER_WRITES). When all have come the destination answers
 * DRAINED with what the fences said, and the source compares it with its ledgers. SEAL makes
 * the destination revoke its keys before it answers SEALED. docs/fence.md has the argument.
 *
 * Invariant: DRAINED {e} is sent only after every channel's FENCE {e}; SEALED only after every
 * key is revoked; the source leaves via_session_seal() only when every channel still lives.
 */
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>

#include "transport/session.h"

/* -- source ------------------------------------------------------------------ */

int fence_post(struct via_channel *ch)
{
	struct via_fence_message m = {.index = ch->index};
	unsigned flags =
		via_session_test_switches & SESSION_TEST_FENCE_EARLY ? 0 : VIA_AFTER_WRITES;
	uint8_t buf[64];
	ssize_t n;
	int rc = via_ledger_fence(&ch->ledger, &m.count);

	if (rc)
		return rc;
	n = via_fence_encode(&m, buf, sizeof(buf));
	if (n < 0)
		return (int)n;
	VIA_PROBE(fence, VIA_ROLE_SOURCE, session_probe_channel(ch), m.count.epoch, m.count.writes,
		  m.count.bytes);
	return channel_send(ch, VIA_MESSAGE_FENCE, buf, (size_t)n, flags);
}

static int on_drained(struct via_session *s, const uint8_t *payload, size_t len)
{
	int rc = via_drained_decode(payload, len, &s->drained);

	if (rc)
		return rc;
	if (!s->round.under_way || atomic_load(&s->drained_came) || s->drained.n != s->nmultifd ||
	    s->drained.epoch != s->epoch)
		return -EPROTO;
	atomic_store(&s->drained_came, true); /* pairs with count_done() in multifd_send.c */
	return 0;
}

static int on_sealed(struct via_session *s, const uint8_t *payload, size_t len)
{
	uint64_t epoch;
	int rc = via_epoch_decode(payload, len, &epoch);

	if (rc)
		return rc;
	if (atomic_load(&s->sealed_came) || !s->sealed_epoch || epoch != s->sealed_epoch)
		return -EPROTO;
	atomic_store(&s->sealed_came, true);
	return 0;
}

static int fail_counts(struct via_session *s, unsigned i, int code)
{
	const struct via_fence_count *ours = &s->multifd[i].ledger.fenced;
	const struct via_fence_count *theirs = &s->drained.count[i];
	struct via_error err = {0};

	via_fail(&err, code,
		 "drain epoch %llu on channel multifd %u\n"
		 "%llu writes of %llu bytes were posted, the destination reports %llu of %llu\n"
		 "this is a fault of the fabric or of this program: report it",
		 (unsigned long long)s->epoch, i, (unsigned long long)ours->writes,
		 (unsigned long long)ours->bytes, (unsigned long long)theirs->writes,
		 (unsigned long long)theirs->bytes);
	return session_fail(s, &err, true);
}

/* All senders are done and DRAINED is here: compare, and open the next epoch. */
static int close_round(struct via_session *s)
{
	uint64_t last_fence = atomic_load(&s->round.last_fence_ns);

	for (unsigned i = 0; i < s->nmultifd; i++) {
		int rc = via_ledger_drained(&s->multifd[i].ledger, &s->drained.count[i]);

		if (rc)
			return fail_counts(s, i, rc == -EAGAIN ? -EBADMSG : rc);
	}
	via_hist_add(&s->drain_ns, via_now_ns() - last_fence);
	atomic_store(&s->drained_epoch, s->epoch);
	atomic_fetch_add(&s->epochs_drained, 1);
	s->drained_at_ns = via_now_ns();
	VIA_PROBE(drained, s->role, 0, s->epoch, 0, 0);
	s->epoch++;
	s->round.under_way = false;
	return 0;
}

static int start_senders_on(struct via_session *s, const struct via_work *work, bool check_only)
{
	if (s->round.under_way)
		return -EINVAL;
	s->round.work = work;
	s->round.check_only = check_only;
	s->round.under_way = true;
	atomic_store(&s->drained_came, false);
	atomic_store(&s->round.last_fence_ns, 0);
	atomic_store(&s->round.pending, s->nmultifd);
	atomic_fetch_add(&s->round.number, 1); /* pairs with the load in multifd_send.c */
	for (unsigned i = 0; i < s->nmultifd; i++)
		eventfd_write(s->multifd[i].wake_fd, 1);
	return 0;
}

/* Wait on main until *@done, or all senders are done where @done is NULL. -EAGAIN at the deadline. */
static int wait_on_main(struct via_session *s, const _Atomic bool *done, uint64_t deadline_ns,
			struct via_error *err)
{
	int rc;

	while ((done && !atomic_load(done)) || atomic_load(&s->round.pending)) {
		rc = session_check(s, err);
		if (rc)
			return rc;
		rc = channel_wait(&s->main_channel, deadline_ns, s->main_wake_fd);
		if (rc < 0) {
			session_fail_channel(s, &s->main_channel, rc);
			return session_check(s, err);
		}
		if (rc == 0 && via_deadline_passed(deadline_ns))
			return -EAGAIN;
	}
	return session_check(s, err);
}

int via_round_start(struct via_session *s, const struct via_work *work, struct via_error *err)
{
	int rc = session_check(s, err);

	if (rc)
		return rc;
	rc = start_senders_on(s, work, false);
	if (rc)
		return via_fail(err, rc, "start a round\none is under way\ndrain it first");
	return 0;
}

int via_round_drain(struct via_session *s, uint64_t deadline_ns, struct via_error *err)
{
	int rc = wait_on_main(s, &s->drained_came, deadline_ns, err);

	if (rc)
		return rc;
	close_round(s);
	return session_check(s, err);
}

int via_session_next_epoch(struct via_session *s)
{
	if (s->round.under_way)
		return -EINVAL;
	s->epoch++;
	for (unsigned i = 0; i < s->nmultifd; i++) {
		struct via_channel *ch = &s->multifd[i];

		if (ch->ledger.open.writes)
			return -EINVAL;
		ch->ledger.open.epoch = s->epoch;
	}
	return 0;
}

/* SEALED is here: is every channel still alive, that is, was no write of ours refused? */
static int check_senders(struct via_session *s, struct via_error *err)
{
	int rc = start_senders_on(s, NULL, true);

	if (!rc)
		rc = wait_on_main(s, NULL, via_deadline_in(s->config.stall_ns), err);
	s->round.under_way = false;
	return rc;
}

int via_session_seal(struct via_session *s, struct via_error *err)
{
	uint8_t buf[16];
	ssize_t n;
	int rc = session_check(s, err);

	if (rc)
		return rc;
	if (s->round.under_way || !atomic_load(&s->drained_epoch))
		return via_fail(err, -EINVAL,
				"seal guest memory\nthe last round is not drained\n"
				"drain it first");
	s->sealed_epoch = atomic_load(&s->drained_epoch);
	n = via_epoch_encode(s->sealed_epoch, buf, sizeof(buf));
	rc = channel_send(&s->main_channel, VIA_MESSAGE_SEAL, buf, (size_t)n, 0);
	if (rc) {
		session_fail_channel(s, &s->main_channel, rc);
		return session_check(s, err);
	}
	rc = wait_on_main(s, &s->sealed_came, via_deadline_in(s->config.stall_ns), err);
	if (!rc)
		rc = check_senders(s, err);
	if (rc == -EAGAIN) {
		session_fail_channel(s, &s->main_channel, -ETIMEDOUT);
		return session_check(s, err);
	}
	if (rc)
		return rc;
	atomic_store(&s->sealed, true);
	s->sealed_at_ns = via_now_ns();
	VIA_PROBE(sealed, s->role, 0, s->sealed_epoch, 0, 0);
	return 0;
}

/* -- destination --------------------------------------------------------------- */

int fence_on_multifd(struct via_channel *ch, const uint8_t *payload, size_t len)
{
	struct via_session *s = ch->session;
	struct via_fence_message m;
	int rc = via_fence_decode(payload, len, &m);

	if (rc)
		return rc;
	if (m.index != ch->index || m.count.epoch < ch->epoch ||
	    ch->fenced.epoch > atomic_load(&s->drained_epoch) ||
	    m.count.epoch <= atomic_load(&s->drained_epoch) || atomic_load(&s->sealed))
		return -EPROTO;
	ch->fenced = m.count;
	session_count(&ch->placed, m.count.writes);
	session_count(&ch->placed_bytes, m.count.bytes);
	VIA_PROBE(fence, s->role, session_probe_channel(ch), m.count.epoch, m.count.writes,
		  m.count.bytes);
	if (atomic_fetch_sub(&s->fences_missing, 1) ==
	    1) /* pairs with the load in send_drained() */
		eventfd_write(s->main_wake_fd, 1);
	return 0;
}

static int send_drained(struct via_session *s)
{
	struct via_drained_message *m = &s->drained;
	uint8_t buf[CHANNEL_MESSAGE_LEN];
	ssize_t n;

	if (atomic_load(&s->fences_missing))
		return 0;
	m->epoch = s->multifd[0].fenced.epoch;
	m->n = s->nmultifd;
	for (unsigned i = 0; i < s->nmultifd; i++) {
		if (s->multifd[i].fenced.epoch != m->epoch)
			return -EPROTO;
		m->count[i] = s->multifd[i].fenced;
	}
	n = via_drained_encode(m, buf, sizeof(buf));
	if (n < 0)
		return (int)n;
	atomic_store(&s->drained_epoch, m->epoch);
	atomic_fetch_add(&s->epochs_drained, 1);
	s->drained_at_ns = via_now_ns();
	VIA_PROBE(drained, s->role, 0, m->epoch, 0, 0);
	atomic_store(&s->fences_missing, s->nmultifd);
	return channel_send(&s->main_channel, VIA_MESSAGE_DRAINED, buf, (size_t)n, 0);
}

static int send_sealed(struct via_session *s)
{
	uint64_t deadline = via_deadline_in(s->config.stall_ns);
	uint8_t buf[16];
	ssize_t n;

	if (!s->seal_asked)
		return 0;
	s->seal_asked = false;
	atomic_store(&s->sealed, true);
	while (atomic_load(&s->in_batch)) { /* a message that should have come before the fence */
		if (via_deadline_passed(deadline))
			return -ETIMEDOUT;
		sched_yield();
	}
	if (!(via_session_test_switches & SESSION_TEST_NO_SEAL))
		regions_revoke(s);
	s->sealed_at_ns = via_now_ns();
	VIA_PROBE(sealed, s->role, 0, s->sealed_epoch, 0, 0);
	n = via_epoch_encode(s->sealed_epoch, buf, sizeof(buf));
	return channel_send(&s->main_channel, VIA_MESSAGE_SEALED, buf, (size_t)n, 0);
}

int fence_answer(struct via_session *s)
{
	int rc = send_drained(s);

	return rc ? rc : send_sealed(s);
}

static int on_seal(struct via_session *s, const uint8_t *payload, size_t len)
{
	uint64_t epoch;
	int rc = via_epoch_decode(payload, len, &epoch);

	if (rc)
		return rc;
	if (s->seal_asked || atomic_load(&s->sealed) || epoch == 0 ||
	    epoch != atomic_load(&s->drained_epoch))
		return -EPROTO;
	s->sealed_epoch = epoch;
	s->seal_asked = true;
	return 0;
}

/* -- both ------------------------------------------------------------------------ */

int fence_on_main(struct via_session *s, uint8_t type, const uint8_t *payload, size_t len)
{
	bool source = s->role == VIA_ROLE_SOURCE;

	if (source && type == VIA_MESSAGE_DRAINED)
		return on_drained(s, payload, len);
	if (source && type == VIA_MESSAGE_SEALED)
		return on_sealed(s, payload, len);
	if (!source && type == VIA_MESSAGE_SEAL)
		return on_seal(s, payload, len);
	return -EPROTO;
}
