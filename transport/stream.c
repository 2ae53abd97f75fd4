/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream.c -- see stream.h: bytes in order, both ways, over one channel.
 *
 * It must never wait but in via_stream_wait(), and never write a slot that the destination may
 * still read: message n has slot n modulo the destination's receives, and costs a credit, of
 * which there are as many. A receive is given back when all bytes of its message are consumed.
 *
 * Out: at most one message waits for room in the fabric's queue (`pending`); until it is out
 * there is no buffer for the next. In: at most one message is being consumed (`rx`), the others
 * stay in the channel's queue.
 */
#include "transport/stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "transport/page_channel.h"
#include "transport/session.h"

/* Polls before sleeping, as in channel.c: what is so near is not worth two wake-ups. */
#define SPIN_NS (5 * VIA_NS_PER_US)

/* Where the bytes of a STREAM stand in its message. */
#define BYTES_AT (VIA_MESSAGE_HEADER_LEN + VIA_STREAM_PREFIX_LEN)

_Static_assert(BYTES_AT + VIA_STREAM_MESSAGE_LEN == CHANNEL_MESSAGE_LEN, "stream.h says so");
_Static_assert(VIA_STREAM_MESSAGES == CHANNEL_RECEIVES, "stream.h says so");

struct span {
	const uint8_t *at;
	size_t len;
};

struct via_stream {
	struct via_channel *ch;

	/* out */
	uint8_t *msg;      /* the next message; NULL: not taken yet */
	uint8_t *out;      /* the caller's buffer: of ch->out, or in msg; NULL: not taken yet */
	bool pending;      /* msg is to be posted, behind the write of slot_len bytes */
	uint8_t type;      /* of it */
	size_t len;        /* of its payload */
	size_t slot_len;   /* bytes of out that go into its slot */
	bool written;      /* that write is posted */
	bool finishing;    /* no more bytes follow, but STREAM_END with status */
	int status;        /* of it */
	bool finished;     /* it is posted, or pending */
	uint64_t moved_ns; /* when work in flight last moved, or began */

	/* in */
	struct channel_rx rx; /* what is being consumed; buf NULL: nothing */
	struct span span[2];  /* what is left of it: in the message, then in its slot */
	bool ended;
	int end_status;
	bool told; /* of the end, the owner */
};

/* Does this side write into slots? */
static bool has_slots(const struct via_stream *st)
{
	return st->ch->out.nbufs;
}

static bool in_flight(const struct via_stream *st)
{
	const struct via_pool *tx = &st->ch->tx;

	return st->ch->ledger.outstanding || tx->nfree + (st->msg != NULL) < tx->nbufs;
}

static int fail(struct via_stream *st, int code)
{
	return session_fail_channel(st->ch->session, st->ch, code);
}

/* -- out ----------------------------------------------------------------------------- */

static int post_write(struct via_stream *st)
{
	struct via_channel *ch = st->ch;
	struct via_sge sge = {.mr = ch->staging_mr, .addr = st->out, .len = st->slot_len};
	uint64_t off = ch->nsent % ch->peer_receives * ch->slot_len;
	int rc = ch->ep->fab->ops->post_write(ch->ep, &sge, 1, ch->rkeys[0], off, st->out, 0);

	if (rc)
		return rc;
	via_ledger_post(&ch->ledger, st->slot_len);
	st->out = NULL;
	st->written = true;
	return 0;
}

static int post_pending(struct via_stream *st)
{
	unsigned flags = st->slot_len ? VIA_AFTER_WRITES : 0;
	int rc = 0;

	if (!in_flight(st))
		st->moved_ns = via_now_ns();
	if (st->slot_len && !st->written)
		rc = post_write(st);
	if (!rc)
		rc = channel_try_post(st->ch, st->msg, st->type, st->len, flags);
	if (rc)
		return rc;
	st->pending = st->written = false;
	st->msg = NULL;
	st->slot_len = 0;
	if (!has_slots(st))
		st->out = NULL; /* it was inside of the message */
	return 0;
}

/* The message behind everything else, once there is room for it. */
static int post_end(struct via_stream *st)
{
	ssize_t n;

	if (!st->ch->credits || (!st->msg && !(st->msg = via_pool_get(&st->ch->tx))))
		return 0;
	n = via_stream_end_encode(st->status, st->msg + VIA_MESSAGE_HEADER_LEN,
				  CHANNEL_MESSAGE_LEN - VIA_MESSAGE_HEADER_LEN);
	if (n < 0)
		return (int)n;
	st->type = VIA_MESSAGE_STREAM_END;
	st->len = (size_t)n;
	st->pending = true;
	st->finished = true;
	return post_pending(st);
}

/* Post what is to be posted, as far as there is room. */
static int push(struct via_stream *st)
{
	int rc = st->pending ? post_pending(st) : 0;

	if (!rc && st->finishing && !st->finished)
		rc = post_end(st);
	return rc == -EAGAIN ? 0 : rc;
}

void *via_stream_buffer(struct via_stream *st, size_t *cap)
{
	struct via_channel *ch = st->ch;
	size_t write_max = ch->ep->fab->caps.write_len_max;

	if (st->pending || st->finishing || !ch->credits)
		return NULL;
	if (!st->msg)
		st->msg = via_pool_get(&ch->tx);
	if (!st->msg)
		return NULL;
	if (!st->out)
		st->out = has_slots(st) ? via_pool_get(&ch->out) : st->msg + BYTES_AT;
	if (!st->out)
		return NULL;
	*cap = !has_slots(st)             ? VIA_STREAM_MESSAGE_LEN
	       : ch->slot_len < write_max ? ch->slot_len
					  : write_max;
	return st->out;
}

int via_stream_send(struct via_stream *st, size_t len, const void *head, size_t head_len)
{
	bool fits = len <= VIA_STREAM_MESSAGE_LEN && head_len <= VIA_STREAM_MESSAGE_LEN - len;
	uint8_t *bytes;
	size_t cap;
	int rc;

	if (!st->msg || !st->out || !via_stream_buffer(st, &cap) || (!len && !head_len))
		return -EINVAL;
	if (len > cap || head_len > VIA_STREAM_MESSAGE_LEN || (!fits && !has_slots(st)))
		return -EMSGSIZE;
	bytes = st->msg + BYTES_AT;
	st->slot_len = fits ? 0 : len;
	if (fits && bytes + head_len != st->out)
		memmove(bytes + head_len, st->out, len);
	if (head_len)
		memcpy(bytes, head, head_len);
	via_stream_prefix_encode((uint32_t)st->slot_len, st->msg + VIA_MESSAGE_HEADER_LEN);
	st->type = VIA_MESSAGE_STREAM;
	st->len = VIA_STREAM_PREFIX_LEN + head_len + (fits ? len : 0);
	st->pending = true;
	rc = push(st);
	return rc ? fail(st, rc) : 0;
}

int via_stream_finish(struct via_stream *st, int status)
{
	int rc;

	if (st->finishing)
		return 0;
	st->finishing = true;
	st->status = status;
	rc = push(st);
	return rc ? fail(st, rc) : 0;
}

/* -- in ------------------------------------------------------------------------------- */

static int take_bytes(struct via_stream *st)
{
	struct via_channel *ch = st->ch;
	size_t slot_len = ch->session->role == VIA_ROLE_DESTINATION ? ch->slot_len : 0;
	struct via_stream_message m;
	int rc = via_stream_decode(st->rx.message.payload, st->rx.message.len, &m);

	if (rc)
		return rc;
	if (m.slot_len > slot_len)
		return -EPROTO;
	st->span[0] = (struct span){m.bytes, m.len};
	st->span[1] = (struct span){NULL, m.slot_len};
	if (m.slot_len)
		st->span[1].at = ch->staging + st->rx.number % ch->receives * slot_len;
	return 0;
}

static int take_end(struct via_stream *st)
{
	int rc = via_stream_end_decode(st->rx.message.payload, st->rx.message.len, &st->end_status);

	st->ended = !rc;
	return rc ? rc : channel_give_back(st->ch, &st->rx);
}

/* The next message that came, unless one is being consumed. */
static int take(struct via_stream *st)
{
	int rc = 0;

	while (!rc && !st->rx.buf && channel_next(st->ch, &st->rx)) {
		if (st->ended || st->rx.message.more)
			return -EPROTO;
		if (st->rx.message.type == VIA_MESSAGE_STREAM)
			rc = take_bytes(st);
		else if (st->rx.message.type == VIA_MESSAGE_STREAM_END)
			rc = take_end(st);
		else
			rc = -EPROTO;
	}
	return rc;
}

const void *via_stream_data(const struct via_stream *st, size_t *len)
{
	const struct span *span = &st->span[!st->span[0].len];

	if (!span->len)
		return NULL;
	*len = span->len;
	return span->at;
}

int via_stream_consume(struct via_stream *st, size_t n)
{
	struct span *span = &st->span[!st->span[0].len];
	int rc;

	if (n > span->len)
		return -EINVAL;
	if (!n)
		return 0;
	span->at += n;
	span->len -= n;
	if (st->span[0].len || st->span[1].len)
		return 0;
	rc = channel_give_back(st->ch, &st->rx);
	if (!rc)
		rc = take(st);
	return rc ? fail(st, rc) : 0;
}

bool via_stream_ended(struct via_stream *st, int *status)
{
	if (st->ended)
		*status = st->end_status;
	st->told = st->ended;
	return st->ended;
}

/* -- both ----------------------------------------------------------------------------- */

/* Everything that can be done without sleeping: how many completions there were. */
static int move(struct via_stream *st)
{
	int n = channel_progress(st->ch);
	int rc = n < 0 ? n : push(st);

	if (!rc)
		rc = take(st);
	return rc ? rc : n;
}

/* Sleep on the endpoint and @fds: how many of these are ready. */
static int sleep_on(struct via_stream *st, uint64_t deadline_ns, struct pollfd *fds, unsigned nfds)
{
	struct via_ep *ep = st->ch->ep;
	struct pollfd p[1 + VIA_STREAM_FDS] = {{.fd = -1, .events = POLLIN}};
	int rc = deadline_ns ? ep->fab->ops->arm(ep, &p[0].fd) : -EAGAIN;

	if (rc && rc != -EAGAIN)
		return rc;
	for (unsigned i = 0; i < nfds; i++)
		p[1 + i] = fds[i];
	rc = channel_poll(p, 1 + nfds, rc ? 0 : deadline_ns);
	for (unsigned i = 0; i < nfds; i++)
		fds[i].revents = p[1 + i].revents;
	return rc > 0 && p[0].revents ? rc - 1 : rc;
}

/* Until when to sleep: work in flight has to move by stall_ns. */
static uint64_t wait_until(const struct via_stream *st, uint64_t deadline_ns)
{
	uint64_t moved = st->moved_ns, stall_ns = st->ch->session->config.stall_ns;

	if (!in_flight(st) || stall_ns >= VIA_NEVER - moved || moved + stall_ns > deadline_ns)
		return deadline_ns;
	return moved + stall_ns;
}

bool via_stream_done(const struct via_stream *st)
{
	return st->finished && !st->pending && st->told && !in_flight(st);
}

int via_stream_wait(struct via_stream *st, uint64_t deadline_ns, struct pollfd *fds, unsigned nfds)
{
	uint64_t spin_until = via_now_ns() + SPIN_NS, now;
	int n, ready = 0;
	bool news;

	if (nfds > VIA_STREAM_FDS)
		return -EINVAL;
	do {
		n = move(st);
		now = via_now_ns();
		news = st->ended && !st->told; /* it may have been taken by via_stream_consume() */
	} while (n == 0 && !news && now < spin_until);
	if (n > 0 || news || via_stream_done(st))
		deadline_ns = 0;
	if (n >= 0 && (deadline_ns || nfds))
		ready = sleep_on(st, wait_until(st, deadline_ns), fds, nfds);
	if (n == 0 && ready >= 0) {
		n = move(st);
		now = via_now_ns();
	}
	if (n > 0)
		st->moved_ns = now;
	else if (n == 0 && in_flight(st) && now - st->moved_ns >= st->ch->session->config.stall_ns)
		n = -ETIMEDOUT;
	if (n < 0 || ready < 0)
		return fail(st, n < 0 ? n : ready);
	return n + ready + news;
}

/* -- open ----------------------------------------------------------------------------- */

static int check_streams(const struct via_session *s, struct via_error *err)
{
	if (s->config.streams)
		return 0;
	return via_fail(err, -EINVAL,
			"open a stream\nthis session has regions\n"
			"set streams in the configuration of both sides");
}

/* @ch is this caller's from here on. */
static int begin(struct via_channel *ch, struct via_stream **stream, struct via_error *err)
{
	struct via_stream *st = calloc(1, sizeof(*st));

	if (!st)
		return via_fail(err, -ENOMEM, "open stream %s %u\nout of memory\nfree some memory",
				via_channel_kind_name(ch->kind), ch->index);
	st->ch = ch;
	*stream = ch->stream = st;
	return 0;
}

int via_stream_open(struct via_session *s, enum via_channel_kind kind, unsigned index,
		    struct via_stream **stream, struct via_error *err)
{
	struct via_channel *ch;
	int rc = check_streams(s, err);

	if (!rc)
		rc = via_session_open_channel(s, kind, index, err);
	if (!rc)
		rc = via_session_wait_channel(s, kind, index, err);
	if (rc)
		return rc;
	ch = via_channel_take(s, kind, index);
	if (!ch)
		return via_fail(err, -EEXIST,
				"open stream %s %u\nanother thread has it\nopen each stream once",
				via_channel_kind_name(kind), index);
	return begin(ch, stream, err);
}

/* A channel that is ready and that nobody has yet. */
static struct via_channel *take_ready(struct via_session *s)
{
	struct via_channel *ch = via_channel_take(s, VIA_MAIN, 0);

	for (unsigned i = 0; !ch && i < s->nmultifd; i++)
		ch = via_channel_take(s, VIA_MULTIFD, i);
	for (unsigned i = 0; !ch && i < s->npreempt; i++)
		ch = via_channel_take(s, VIA_PREEMPT, i);
	return ch;
}

/* Has the source said that it is through, and is nothing that it opened still to become ready? */
static bool source_is_through(struct via_session *s)
{
	bool through;

	pthread_mutex_lock(&s->lock);
	through = s->peer_said_bye && s->main_channel.state != CHANNEL_OPENING;
	for (unsigned i = 0; through && i < s->nmultifd; i++)
		through = s->multifd[i].state != CHANNEL_OPENING;
	for (unsigned i = 0; through && i < s->npreempt; i++)
		through = s->preempt[i].state != CHANNEL_OPENING;
	pthread_mutex_unlock(&s->lock);
	return through;
}

/* Sleep until a channel becomes ready, the session fails, or as @wait says. */
static int wait_for_ready(struct via_session *s, const struct via_wait *wait, struct via_error *err)
{
	struct pollfd p[] = {{.fd = s->main_wake_fd, .events = POLLIN},
			     {.fd = s->cancel_fd, .events = POLLIN},
			     {.fd = wait->cancel_fd, .events = POLLIN}};
	int rc;

	if (via_deadline_passed(wait->deadline_ns))
		return via_fail(err, -ETIMEDOUT,
				"wait for a stream\nthe source opened none before the deadline\n"
				"check the source's own messages");
	rc = channel_poll(p, 3, wait->deadline_ns);
	if (rc < 0)
		return via_fail(err, rc, "wait for a stream\n%s\nreport this", via_err_text(rc));
	if (p[2].revents)
		return via_fail(err, -ECANCELED,
				"wait for a stream\naborted by request\nstart it again");
	return 0;
}

static int source_ended(struct via_error *err)
{
	return via_fail(err, -ECONNRESET,
			"wait for a stream\nthe source has ended the session\n"
			"see why in the source's own output");
}

int via_stream_accept(struct via_session *s, const struct via_wait *wait,
		      struct via_stream **stream, struct via_error *err)
{
	struct via_channel *ch = NULL;
	eventfd_t drop;
	int rc = check_streams(s, err);

	while (!rc && !ch) {
		bool through;

		(void)eventfd_read(s->main_wake_fd, &drop); /* what comes from here on wakes */
		rc = session_check(s, err);
		through = source_is_through(s); /* asked before the last that it opened is taken */
		if (!rc && !(ch = take_ready(s)))
			rc = through ? source_ended(err) : wait_for_ready(s, wait, err);
	}
	return rc ? rc : begin(ch, stream, err);
}

enum via_channel_kind via_stream_kind(const struct via_stream *st)
{
	return st->ch->kind;
}

unsigned via_stream_index(const struct via_stream *st)
{
	return st->ch->index;
}
