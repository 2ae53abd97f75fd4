/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_channel.c -- see page_channel.h: messages of one channel, with content of guest RAM in a
 * slot of the destination's staging.
 *
 * It must never write a slot that the destination may still read: message n has slot n modulo
 * the destination's receives, and costs a credit, of which there are as many.
 */
#include "transport/page_channel.h"

#include <string.h>

#include "transport/session.h"

#define CHANNELS_MAX (VIA_PREEMPT_MAX > VIA_MULTIFD_MAX ? VIA_PREEMPT_MAX : VIA_MULTIFD_MAX)
#define FDS_MAX      2u

struct via_channel *via_channel_take(struct via_session *s, enum via_channel_kind kind,
				     unsigned index)
{
	struct via_channel *ch = session_channel(s, kind, index);
	bool mine;

	if (!ch)
		return NULL;
	pthread_mutex_lock(&s->lock);
	/* A multifd channel without staging has a worker of the transport's. */
	mine = ch->state == CHANNEL_READY && !ch->taken && (kind != VIA_MULTIFD || ch->slot_len);
	ch->taken = ch->taken || mine;
	pthread_mutex_unlock(&s->lock);
	return mine ? ch : NULL;
}

uint64_t via_channel_probe(const struct via_channel *ch)
{
	return session_probe_channel(ch);
}

size_t via_channel_slot_len(const struct via_channel *ch)
{
	return ch->slot_len;
}

unsigned via_channel_room(const struct via_channel *ch)
{
	return ch->credits < ch->tx.nfree ? ch->credits : ch->tx.nfree;
}

int via_channel_send(struct via_channel *ch, uint8_t type, const void *head, size_t head_len,
		     const void *body, size_t body_len)
{
	uint8_t *buf;
	int rc;

	if (head_len + body_len > CHANNEL_MESSAGE_LEN - VIA_MESSAGE_HEADER_LEN)
		return -EMSGSIZE;
	rc = channel_get_buffer(ch, &buf);
	if (rc)
		return rc;
	memcpy(buf + VIA_MESSAGE_HEADER_LEN, head, head_len);
	if (body_len)
		memcpy(buf + VIA_MESSAGE_HEADER_LEN + head_len, body, body_len);
	return channel_post_buffer(ch, buf, type, head_len + body_len, 0);
}

/* -- staged: content in a slot ----------------------------------------------------- */

/* What one staged message carries, as the fabric wants it. */
struct gather {
	struct via_sge sge[2 * VIA_STAGED_RUNS]; /* a run may reach into a second slice */
	unsigned n;
	size_t len;
};

static int gather_runs(const struct via_session *s, const struct via_run *run, unsigned nruns,
		       struct gather *g)
{
	g->n = 0;
	g->len = 0;
	for (unsigned i = 0; i < nruns; i++) {
		struct via_run left = run[i];

		do {
			struct region_piece piece;
			int rc = regions_piece(s, &left, SIZE_MAX, &piece);

			if (rc)
				return rc;
			if (g->n == 2 * VIA_STAGED_RUNS)
				return -EMSGSIZE;
			g->sge[g->n++] = (struct via_sge){.mr = s->slice_mr[piece.slice],
							  .addr = piece.addr,
							  .len = piece.len};
			g->len += piece.len;
			left.off += piece.len;
			left.len -= piece.len;
		} while (left.len);
	}
	return 0;
}

/* Copy the pieces together: more of them than one write takes. */
static void copy_together(struct via_channel *ch, struct gather *g)
{
	uint8_t *to = ch->staging;

	for (unsigned i = 0; i < g->n; i++) {
		memcpy(to, g->sge[i].addr, g->sge[i].len);
		to += g->sge[i].len;
	}
	g->sge[0] = (struct via_sge){.mr = ch->staging_mr, .addr = ch->staging, .len = g->len};
	g->n = 1;
}

static int write_patiently(struct via_channel *ch, const struct via_sge *sge, unsigned n,
			   size_t len, uint64_t off)
{
	int rc;

	while ((rc = ch->ep->fab->ops->post_write(ch->ep, sge, n, ch->rkeys[0], off, ch, 0)) ==
	       -EAGAIN) {
		rc = channel_wait_for_movement(ch);
		if (rc < 0)
			return rc;
	}
	if (rc)
		return rc;
	via_ledger_post(&ch->ledger, len);
	VIA_PROBE(write, ch->session->role, session_probe_channel(ch),
		  atomic_load_explicit(&ch->ledger.total_writes, memory_order_relaxed),
		  VIA_PROBE_PLACE(VIA_PROBE_STAGING, off), len);
	return 0;
}

static int write_slot(struct via_channel *ch, struct gather *g)
{
	const struct via_fabric_caps *caps = &ch->ep->fab->caps;
	uint64_t off = ch->nsent % ch->peer_receives * ch->slot_len;
	int rc = 0;

	if (g->n > caps->sge_max || (g->n > 1 && g->len > caps->write_len_max))
		copy_together(ch, g);
	if (g->n > 1)
		return write_patiently(ch, g->sge, g->n, g->len, off);
	while (g->len && !rc) {
		struct via_sge piece = g->sge[0];

		if (piece.len > caps->write_len_max)
			piece.len = caps->write_len_max;
		rc = write_patiently(ch, &piece, 1, piece.len, off);
		off += piece.len;
		g->sge[0].addr = (uint8_t *)g->sge[0].addr + piece.len;
		g->sge[0].len -= piece.len;
		g->len -= piece.len;
	}
	return rc;
}

int via_channel_send_staged(struct via_channel *ch, uint8_t type, const void *payload, size_t len,
			    const struct via_run *run, unsigned nruns)
{
	struct gather g;
	uint8_t *buf;
	int rc = gather_runs(ch->session, run, nruns, &g);

	if (rc)
		return rc;
	if (!ch->slot_len || g.len > ch->slot_len ||
	    len > CHANNEL_MESSAGE_LEN - VIA_MESSAGE_HEADER_LEN)
		return -EMSGSIZE;
	while (ch->ledger.outstanding) {
		rc = channel_wait_for_movement(ch);
		if (rc < 0)
			return rc;
	}
	rc = channel_get_buffer(ch, &buf);
	if (rc)
		return rc;
	memcpy(buf + VIA_MESSAGE_HEADER_LEN, payload, len);
	rc = write_slot(ch, &g);
	return rc ? rc : channel_post_buffer(ch, buf, type, len, VIA_AFTER_WRITES);
}

int via_channel_settle(struct via_channel *ch)
{
	return channel_settle(ch);
}

int via_channel_pace(struct via_channel *ch, uint64_t bytes)
{
	return channel_pace(ch, bytes);
}

void via_channel_placed(struct via_channel *ch, uint64_t bytes)
{
	session_count(&ch->placed, 1);
	session_count(&ch->placed_bytes, bytes);
}

/* -- receiving and waiting ------------------------------------------------------------ */

int via_channel_progress(struct via_channel *ch)
{
	return channel_progress(ch);
}

int via_channel_wait(struct via_channel *ch, uint64_t deadline_ns, int wake_fd)
{
	return channel_wait(ch, deadline_ns, wake_fd);
}

bool via_channel_next(struct via_channel *ch, struct via_page_message *m)
{
	struct channel_rx rx;

	if (!channel_next(ch, &rx))
		return false;
	*m = (struct via_page_message){.type = rx.message.type,
				       .payload = rx.message.payload,
				       .len = rx.message.len,
				       .slot_len = ch->slot_len,
				       .own = rx.buf};
	if (ch->slot_len && ch->session->role == VIA_ROLE_DESTINATION)
		m->slot = ch->staging + rx.number % ch->receives * ch->slot_len;
	/* The engine's messages on these channels are never in fragments. */
	if (rx.message.more)
		m->type = 0;
	return true;
}

int via_channel_done(struct via_channel *ch, struct via_page_message *m)
{
	struct channel_rx rx = {.buf = m->own};

	m->own = NULL;
	return channel_give_back(ch, &rx);
}

static int progress_all(struct via_channel *const *ch, unsigned n)
{
	int sum = 0;

	for (unsigned i = 0; i < n; i++) {
		int rc = channel_progress(ch[i]);

		if (rc < 0) {
			via_channel_fail(ch[i], rc);
			return rc;
		}
		sum += rc;
	}
	return sum;
}

/* Sleep on all of them: how many are ready. -EAGAIN: one has something already. */
static int sleep_on_all(struct via_channel *const *ch, unsigned n, uint64_t deadline_ns,
			const int *fd, unsigned nfds)
{
	struct pollfd p[CHANNELS_MAX + FDS_MAX] = {{0}};

	if (n > CHANNELS_MAX || nfds > FDS_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		int rc = ch[i]->ep->fab->ops->arm(ch[i]->ep, &p[i].fd);

		if (rc)
			return rc;
		p[i].events = POLLIN;
	}
	for (unsigned i = 0; i < nfds; i++)
		p[n + i] = (struct pollfd){.fd = fd[i], .events = POLLIN};
	return channel_poll(p, n + nfds, deadline_ns);
}

int via_channels_wait(struct via_channel *const *ch, unsigned n, uint64_t deadline_ns,
		      const int *fd, unsigned nfds)
{
	int rc = progress_all(ch, n);

	if (rc)
		return rc;
	rc = sleep_on_all(ch, n, deadline_ns, fd, nfds);
	if (rc < 0 && rc != -EAGAIN) {
		via_channel_fail(ch[0], rc);
		return rc;
	}
	return progress_all(ch, n);
}

void via_channel_fail(struct via_channel *ch, int code)
{
	session_fail_channel(ch->session, ch, code);
}
