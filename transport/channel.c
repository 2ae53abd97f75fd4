/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * channel.c -- the message lane of a channel: framing, credits, and how its owner waits.
 *
 * One owner thread. A message is sent only when the peer has a receive for it (credits), so
 * nothing here relies on what a fabric does without one. Received messages wait in a
 * queue until their owner takes them, and their receive is posted again when he
 * gives them back; the queue cannot overflow, because the receives bound it. Messages that
 * steer the transport on main are handled on arrival, so that they cannot
 * wait behind the engine's.
 *
 * After the lane has started nothing here allocates, takes a lock or formats text.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/secret.h"
#include "transport/page_channel.h"
#include "transport/session.h"
#include "transport/stream.h"

/* Polls before sleeping: a reply that is a few microseconds away is not worth two wake-ups. */
#define SPIN_NS (5 * VIA_NS_PER_US)

#define POLL_BATCH 32

/* A page up to this length travels within a message, and needs no staging on a preempt channel. */
#define STAGED_PAGE_MIN 4096u

/*
 * Bulk of postcopy travels in pieces of this length, or of one page: a page request may have to
 * wait for one of each channel.
 */
#define STAGED_BULK_LEN ((size_t)128 << 10)

/* One channel's staging, unless that would be fewer slots than CHANNEL_RECEIVES_MIN. */
#define STAGING_LEN ((size_t)8 << 20)

static const struct via_fabric_ops *ops_of(const struct via_channel *ch)
{
	return ch->ep->fab->ops;
}

/* The longest page of guest RAM. */
static size_t page_len_max(const struct via_session *s)
{
	size_t max = 0;

	for (unsigned i = 0; i < s->nregions; i++)
		if (s->region[i].region.desc.page_size > max)
			max = s->region[i].region.desc.page_size;
	return max;
}

/* Bytes of a slot of its staging, if it is opened now; 0: it has none. */
static size_t slot_len_now(const struct via_channel *ch)
{
	static const size_t of_streams[] = {[VIA_MAIN] = VIA_STREAM_MAIN_SLOT,
					    [VIA_MULTIFD] = VIA_STREAM_MULTIFD_SLOT,
					    [VIA_PREEMPT] = 0};
	size_t page = page_len_max(ch->session);

	if (ch->session->config.streams)
		return of_streams[ch->kind];
	if (ch->kind == VIA_MULTIFD && atomic_load(&ch->session->sealed))
		return page < STAGED_BULK_LEN ? STAGED_BULK_LEN : page;
	return ch->kind == VIA_PREEMPT && page > STAGED_PAGE_MIN ? page : 0;
}

/* Slots of its staging at the destination. */
static unsigned slots_now(const struct via_channel *ch)
{
	size_t slots = STAGING_LEN / ch->slot_len;

	if (ch->session->config.streams)
		return VIA_STREAM_SLOTS;
	return slots < CHANNEL_RECEIVES_MIN ? CHANNEL_RECEIVES_MIN
	       : slots < ch->receives       ? (unsigned)slots
					    : ch->receives;
}

/* Source of a stream: several slots are written at once, each from a buffer of its own. */
static int init_out(struct via_channel *ch, struct via_error *err)
{
	struct via_fabric *fab = ch->session->fab;

	if (via_pool_init(&ch->out, CHANNEL_OUT_BUFFERS, ch->slot_len))
		return via_fail(err, -ENOMEM,
				"open channel %s %u\nno memory for its buffers of %zu bytes\n"
				"open fewer channels",
				via_channel_kind_name(ch->kind), ch->index,
				CHANNEL_OUT_BUFFERS * ch->slot_len);
	return fab->ops->mr_reg(fab, ch->out.block, ch->out.block_len, VIA_MR_LOCAL,
				&ch->staging_mr, err);
}

static int init_staging(struct via_channel *ch, struct via_error *err)
{
	struct via_session *s = ch->session;
	bool source = s->role == VIA_ROLE_SOURCE;
	if (source && s->config.streams)
		return init_out(ch, err);
	if (ch->slot_len > VIA_STAGED_PAGE_MAX)
		return via_fail(err, -EOPNOTSUPP,
				"open channel %s %u\nguest RAM has pages of %zu bytes\n"
				"pages of up to %u bytes can be moved by postcopy",
				via_channel_kind_name(ch->kind), ch->index, ch->slot_len,
				VIA_STAGED_PAGE_MAX);
	if (!source)
		ch->receives = slots_now(ch);
	ch->staging_len = (source ? 1 : ch->receives) * ch->slot_len;
	ch->staging = via_pages_alloc(ch->staging_len);
	if (!ch->staging)
		return via_fail(err, -ENOMEM,
				"open channel %s %u\nno memory for its staging of %zu bytes\n"
				"ask for fewer channels",
				via_channel_kind_name(ch->kind), ch->index, ch->staging_len);
	return s->fab->ops->mr_reg(s->fab, ch->staging, ch->staging_len,
				   source ? VIA_MR_LOCAL : VIA_MR_REMOTE_WRITE, &ch->staging_mr,
				   err);
}

int channel_lane_init(struct via_channel *ch, struct via_error *err)
{
	struct via_fabric *fab = ch->ep->fab;
	unsigned nrecv = CHANNEL_RECEIVES + CHANNEL_RECEIVES_CREDIT;
	int rc = 0;

	ch->receives = CHANNEL_RECEIVES;
	ch->nsent = ch->nreceived = 0;
	ch->slot_len = slot_len_now(ch);
	if (ch->slot_len)
		rc = init_staging(ch, err);
	if (rc)
		return rc;

	if (fab->caps.rx_depth < nrecv || fab->caps.msg_len_max < CHANNEL_MESSAGE_LEN)
		return via_fail(err, -EINVAL,
				"open channel\nthe fabric holds %u receives of %zu bytes\n"
				"it must hold %u of %u: raise rx-depth in the fabric spec",
				fab->caps.rx_depth, fab->caps.msg_len_max, nrecv,
				CHANNEL_MESSAGE_LEN);
	ch->message_len = CHANNEL_MESSAGE_LEN;
	if (via_pool_init(&ch->tx, CHANNEL_SENDS, ch->message_len) ||
	    via_pool_init(&ch->rx, nrecv, ch->message_len))
		return via_fail(err, -ENOMEM,
				"open channel\nno memory for its buffers\nask for fewer channels");
	rc = fab->ops->mr_reg(fab, ch->tx.block, ch->tx.block_len, VIA_MR_LOCAL, &ch->tx_mr, err);
	if (rc)
		return rc;
	return fab->ops->mr_reg(fab, ch->rx.block, ch->rx.block_len, VIA_MR_LOCAL, &ch->rx_mr, err);
}

static int post_receive(struct via_channel *ch, void *buf)
{
	struct via_sge sge = {.mr = ch->rx_mr, .addr = buf, .len = ch->message_len};

	return ops_of(ch)->post_recv(ch->ep, &sge, buf);
}

int channel_lane_start(struct via_channel *ch)
{
	void *buf;
	int rc = 0;

	while (!rc && (buf = via_pool_get(&ch->rx)))
		rc = post_receive(ch, buf);
	return rc;
}

void channel_release_all(struct via_channel *ch)
{
	struct via_session *s = ch->session;
	struct via_ep *ep;

	pthread_mutex_lock(&s->lock);
	ep = ch->ep;
	ch->ep = NULL;
	if (ch->peer_ready) /* the keeper may be putting one there */
		via_secret_wipe(ch->peer_ready, ch->peer_ready_len);
	free(ch->peer_ready);
	ch->peer_ready = NULL;
	pthread_mutex_unlock(&s->lock);
	if (ep) {
		const struct via_fabric_ops *ops = ep->fab->ops;

		pthread_mutex_lock(&s->setup_lock);
		for (unsigned i = 0; i < ch->nrkeys; i++)
			ops->rkey_free(ch->rkeys[i]);
		ops->ep_close(ep);
		if (ch->tx_mr)
			ops->mr_dereg(ch->tx_mr);
		if (ch->rx_mr)
			ops->mr_dereg(ch->rx_mr);
		if (ch->staging_mr)
			ops->mr_dereg(ch->staging_mr);
		pthread_mutex_unlock(&s->setup_lock);
	}
	ch->tx_mr = ch->rx_mr = ch->staging_mr = NULL;
	via_pages_free(ch->staging, ch->staging_len);
	ch->staging = NULL;
	ch->slot_len = ch->staging_len = 0;
	via_pool_fini(&ch->out);
	free(ch->stream);
	ch->stream = NULL;
	ch->nrkeys = 0;
	free(ch->rkeys);
	ch->rkeys = NULL;
	via_pool_fini(&ch->tx);
	via_pool_fini(&ch->rx);
	free(ch->batch_message);
	ch->batch_message = NULL;
	ch->credits = ch->owed = 0;
	ch->queue_head = ch->queue_len = ch->held = 0;
	ch->in_fragments = false;
	memset(&ch->current, 0, sizeof(ch->current));
}

/* Send @len bytes that stand behind the header in @buf. The buffer is the fabric's from here on. */
static int post_message(struct via_channel *ch, uint8_t *buf, struct via_message_header *h,
			unsigned flags)
{
	struct via_sge sge = {.mr = ch->tx_mr, .addr = buf, .len = VIA_MESSAGE_HEADER_LEN + h->len};
	int rc;

	h->credits = (uint16_t)ch->owed;
	via_message_header_encode(h, buf);
	rc = ops_of(ch)->post_send(ch->ep, &sge, 1, buf, flags);
	if (!rc)
		ch->owed = 0;
	return rc;
}

/* Announce receives that were posted again, unless messages of our own do so soon enough. */
static int announce_credits(struct via_channel *ch)
{
	struct via_message_header h = {.type = VIA_MESSAGE_CREDIT};
	uint8_t *buf;
	int rc;

	if (ch->owed < ch->receives / 2 || !(buf = via_pool_get(&ch->tx)))
		return 0;
	rc = post_message(ch, buf, &h, 0);
	if (rc)
		via_pool_put(&ch->tx, buf);
	return rc == -EAGAIN ? 0 : rc;
}

static int check_fragment(struct via_channel *ch, const struct via_message_header *h)
{
	if (ch->in_fragments && h->type != ch->fragment_type)
		return -EPROTO;
	ch->in_fragments = h->flags & VIA_MESSAGE_MORE;
	ch->fragment_type = h->type;
	return 0;
}

static int received(struct via_channel *ch, uint8_t *buf, size_t len)
{
	struct via_message_header h;
	struct channel_rx *rx;
	int rc = via_message_header_decode(buf, len, &h);

	if (rc)
		return rc;
	if (ch->credits + h.credits > ch->peer_receives)
		return -EPROTO;
	ch->credits += h.credits;
	if (h.type == VIA_MESSAGE_CREDIT)
		return h.len || h.flags ? -EPROTO : post_receive(ch, buf);
	if (ch->held == ch->receives)
		return -EPROTO; /* more messages than credits */
	/* Of guest memory's, those of multifd channels go one way. */
	if (ch->kind == VIA_MULTIFD && ch->session->role == VIA_ROLE_SOURCE &&
	    !ch->session->config.streams)
		return -EPROTO;
	ch->nreceived++;
	session_count(&ch->received, 1);
	session_count(&ch->received_bytes, h.len);
	VIA_PROBE(receive, ch->session->role, session_probe_channel(ch), h.type, ch->nreceived,
		  ch->epoch);
	rc = check_fragment(ch, &h);
	if (rc)
		return rc;
	if (ch->kind == VIA_MAIN && h.type < VIA_MESSAGE_USER && !ch->session->config.streams) {
		rc = h.flags ? -EPROTO
			     : fence_on_main(ch->session, h.type, buf + VIA_MESSAGE_HEADER_LEN,
					     h.len);
		if (rc)
			return rc;
		ch->owed++;
		return post_receive(ch, buf);
	}
	rx = &ch->queue[(ch->queue_head + ch->queue_len++) % CHANNEL_RECEIVES];
	ch->held++;
	rx->buf = buf;
	rx->number = ch->nreceived - 1;
	rx->message = (struct via_message){.type = h.type,
					   .more = h.flags & VIA_MESSAGE_MORE,
					   .payload = buf + VIA_MESSAGE_HEADER_LEN,
					   .len = h.len};
	return 0;
}

static int retired(struct via_channel *ch)
{
	int rc = via_ledger_retire(&ch->ledger, 1);

	VIA_PROBE(written, ch->session->role, session_probe_channel(ch),
		  atomic_load_explicit(&ch->ledger.total_writes, memory_order_relaxed) -
			  ch->ledger.outstanding,
		  ch->ledger.outstanding, 0);
	return rc;
}

static int completed(struct via_channel *ch, const struct via_comp *comp)
{
	if (comp->status)
		return comp->status;
	switch (comp->kind) {
	case VIA_COMP_WRITE:
		if (comp->ctx != ch) /* a stream's: the buffer that it came from */
			via_pool_put(&ch->out, comp->ctx);
		return retired(ch);
	case VIA_COMP_SEND:
		via_pool_put(&ch->tx, comp->ctx);
		return 0;
	case VIA_COMP_RECV:
		return received(ch, comp->ctx, comp->len);
	}
	return -EIO;
}

int channel_progress(struct via_channel *ch)
{
	struct via_comp comp[POLL_BATCH];
	int n = ops_of(ch)->poll(ch->ep, comp, POLL_BATCH);
	int rc;

	for (int i = 0; i < n; i++) {
		rc = completed(ch, &comp[i]);
		if (rc)
			return rc;
	}
	rc = n < 0 ? n : announce_credits(ch);
	return rc < 0 ? rc : n;
}

int channel_poll(struct pollfd *p, unsigned n, uint64_t deadline_ns)
{
	uint64_t now = via_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
	struct timespec ts = {.tv_sec = (time_t)(left / VIA_NS_PER_S),
			      .tv_nsec = (long)(left % VIA_NS_PER_S)};
	int rc = ppoll(p, n, deadline_ns == VIA_NEVER ? NULL : &ts, NULL);

	if (rc >= 0)
		return rc;
	for (unsigned i = 0; i < n; i++)
		p[i].revents = 0;
	return errno == EINTR ? 0 : -EIO;
}

/* Sleep on the endpoint and @extra_fd. Returns when either may have something. */
static int channel_sleep(struct via_channel *ch, uint64_t deadline_ns, int extra_fd)
{
	struct pollfd p[2] = {{.events = POLLIN}, {.fd = extra_fd, .events = POLLIN}};
	eventfd_t drop;
	int rc = ops_of(ch)->arm(ch->ep, &p[0].fd);

	if (rc)
		return rc == -EAGAIN ? 0 : rc;
	rc = channel_poll(p, extra_fd >= 0 ? 2 : 1, deadline_ns);
	if (rc < 0)
		return rc;
	if (extra_fd >= 0 && p[1].revents)
		(void)eventfd_read(extra_fd, &drop);
	return 0;
}

int channel_wait(struct via_channel *ch, uint64_t deadline_ns, int extra_fd)
{
	uint64_t spin_until = via_now_ns() + SPIN_NS;
	int n;

	do {
		n = channel_progress(ch);
		if (n)
			return n;
	} while (via_now_ns() < spin_until);
	n = channel_sleep(ch, deadline_ns, extra_fd);
	return n ? n : channel_progress(ch);
}

int channel_wait_for_movement(struct via_channel *ch)
{
	uint64_t deadline = via_deadline_in(ch->session->config.stall_ns);
	int n;

	do {
		n = channel_wait(ch, deadline, -1);
	} while (n == 0 && !via_deadline_passed(deadline));
	return n ? n : -ETIMEDOUT;
}

int channel_get_buffer(struct via_channel *ch, uint8_t **buf)
{
	int n;

	while (!ch->credits || !(*buf = via_pool_get(&ch->tx))) {
		n = channel_wait_for_movement(ch);
		if (n < 0)
			return n;
	}
	return 0;
}

/* A message that costs a credit, which is there. */
static int post_counted(struct via_channel *ch, uint8_t *buf, struct via_message_header *h,
			unsigned flags)
{
	int rc = post_message(ch, buf, h, flags);

	if (rc)
		return rc;
	ch->credits--;
	ch->nsent++;
	session_count(&ch->sent, 1);
	session_count(&ch->sent_bytes, h->len);
	return 0;
}

/* As that, and waits for room. */
static int post_patiently(struct via_channel *ch, uint8_t *buf, struct via_message_header *h,
			  unsigned flags)
{
	int rc;

	VIA_PROBE(send, ch->session->role, session_probe_channel(ch), h->type, ch->nsent + 1,
		  ch->epoch);
	while ((rc = post_counted(ch, buf, h, flags)) == -EAGAIN) {
		rc = channel_wait_for_movement(ch);
		if (rc < 0)
			return rc;
	}
	return rc;
}

int channel_try_post(struct via_channel *ch, uint8_t *buf, uint8_t type, size_t len, unsigned flags)
{
	struct via_message_header h = {.type = type, .len = (uint32_t)len};

	return post_counted(ch, buf, &h, flags);
}

int channel_post_buffer(struct via_channel *ch, uint8_t *buf, uint8_t type, size_t len,
			unsigned flags)
{
	struct via_message_header h = {.type = type, .len = (uint32_t)len};

	return post_patiently(ch, buf, &h, flags);
}

int channel_send(struct via_channel *ch, uint8_t type, const void *payload, size_t len,
		 unsigned flags)
{
	size_t room =
		ch->message_len < ch->peer_message_len ? ch->message_len : ch->peer_message_len;
	size_t max = room - VIA_MESSAGE_HEADER_LEN, done = 0;

	do {
		struct via_message_header h = {.type = type};
		uint8_t *buf;
		int rc = channel_get_buffer(ch, &buf);

		if (rc)
			return rc;
		h.len = (uint32_t)(len - done < max ? len - done : max);
		h.flags = done + h.len < len ? VIA_MESSAGE_MORE : 0;
		if (h.len)
			memcpy(buf + VIA_MESSAGE_HEADER_LEN, (const uint8_t *)payload + done,
			       h.len);
		rc = post_patiently(ch, buf, &h, flags);
		if (rc)
			return rc;
		done += h.len;
	} while (done < len);
	return 0;
}

bool channel_next(struct via_channel *ch, struct channel_rx *rx)
{
	if (!ch->queue_len)
		return false;
	*rx = ch->queue[ch->queue_head];
	ch->queue_head = (ch->queue_head + 1) % CHANNEL_RECEIVES;
	ch->queue_len--;
	return true;
}

int channel_give_back(struct via_channel *ch, struct channel_rx *rx)
{
	int rc = post_receive(ch, rx->buf);

	rx->buf = NULL;
	if (rc)
		return rc;
	ch->held--;
	ch->owed++;
	return announce_credits(ch);
}

int channel_settle(struct via_channel *ch)
{
	while (ch->ledger.outstanding || ch->tx.nfree < ch->tx.nbufs) {
		int n = channel_wait_for_movement(ch);

		if (n < 0)
			return n;
	}
	return 0;
}
