/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream.h -- streams of bytes over the channels of a session: what a relay carries.
 *
 * A session whose config says `streams` has no regions. Its channels are opened one by one, at
 * any time, and each carries bytes in order in both directions, each direction with an end of
 * its own. What the bytes mean, nobody here knows.
 *
 *   source                             destination
 *   via_session_connect                via_session_accept, via_session_provide
 *   via_stream_open                    via_stream_accept
 *         then both, for each stream, until via_stream_done:
 *         via_stream_buffer, via_stream_send, via_stream_finish     bytes out
 *         via_stream_data, via_stream_consume, via_stream_ended     bytes in
 *         via_stream_wait
 *   via_session_close                  via_session_close
 *
 * From the source bytes travel as one-sided writes into staging at the destination, or, where
 * they are few, within the message that announces them; from the destination, and on preempt
 * channels, always within messages. Nothing is held back in order to join it with more, and
 * nothing waits behind the other direction.
 *
 * Bounds: what the receiver has not consumed occupies at most VIA_STREAM_MESSAGES messages, or,
 * where they have slots, VIA_STREAM_SLOTS of both. A sender beyond that gets no buffer, so that its
 * own source of bytes stops. Slots are large, because each costs the wake-ups of a message, and
 * few, because those that were used last are still in the processor's cache.
 *
 * Threads: one owner for each stream, which calls everything here but via_stream_open() and
 * via_stream_accept(). Different streams may be opened and owned by different threads. No call of
 * the owner blocks but via_stream_wait(), and none takes a lock, allocates or formats text
 * unless the session fails.
 *
 * Errors: a failure ends the session, and with it all of its streams: each wait returns the code
 * of the first cause, whose text via_session_failure() has. What happened to one stream alone,
 * its end tells. A stream lives until the session is closed, which its owner does not outlive.
 * For another connection of the same kind and index, resume the session.
 */
#ifndef VIA_TRANSPORT_STREAM_H
#define VIA_TRANSPORT_STREAM_H

#include <poll.h>

#include "transport/transport.h"

struct via_stream;

#define VIA_STREAM_MESSAGES     32u                 /* not consumed, in each direction */
#define VIA_STREAM_MESSAGE_LEN  8180u               /* bytes that travel within a message */
#define VIA_STREAM_SLOTS        8u                  /* from the source, main and multifd */
#define VIA_STREAM_MAIN_SLOT    ((size_t)128 << 10) /* bytes of a slot */
#define VIA_STREAM_MULTIFD_SLOT ((size_t)256 << 10)

/* -- open --------------------------------------------------------------------- */

/*
 * Source: open channel (@kind, @index) and wait for the destination to do its part, within the
 * handshake's deadlines. Any thread, different channels at once.
 *  -EEXIST open or opening already, -ERANGE no such index, -ETIMEDOUT, why the peer refused it,
 *  or the failure of the session
 */
int via_stream_open(struct via_session *session, enum via_channel_kind kind, unsigned index,
		    struct via_stream **stream, struct via_error *err);

/*
 * Destination: wait for the next channel that the source opens. Of several main comes first,
 * then multifd and preempt channels by their index. One thread.
 *  -ETIMEDOUT, -ECANCELED by @wait, or the failure of the session; -ECONNRESET without such a failure:
 *  the source closes the session, and opens no more
 */
int via_stream_accept(struct via_session *session, const struct via_wait *wait,
		      struct via_stream **stream, struct via_error *err);

enum via_channel_kind via_stream_kind(const struct via_stream *stream);
unsigned via_stream_index(const struct via_stream *stream);

/* -- bytes out ------------------------------------------------------------------ */

/*
 * Registered memory for the next bytes, to be filled in place, and its length: that of a slot, or
 * VIA_STREAM_MESSAGE_LEN where the channel has none. The same until it is sent. NULL when the
 * peer has no room or everything is under way (wait), and once the stream is finished.
 */
void *via_stream_buffer(struct via_stream *stream, size_t *cap);

/*
 * Send @len bytes of the buffer that via_stream_buffer() gave last, which is the caller's no
 * longer, and in front of them @head (copied; may be absent): bytes of the same stream that
 * shall not be in the slot. At least one byte in all.
 *  -EMSGSIZE @len beyond the buffer, @head_len beyond VIA_STREAM_MESSAGE_LEN, or both together
 *  beyond that where there are no slots; -EINVAL without a buffer; the failure of the session
 */
int via_stream_send(struct via_stream *stream, size_t len, const void *head, size_t head_len);

/*
 * No more bytes follow: 0 for an end that is well, or a negated code of core/error.h. The peer
 * learns it behind all that was sent. The first call counts.
 */
int via_stream_finish(struct via_stream *stream, int status);

/* -- bytes in -------------------------------------------------------------------- */

/*
 * The oldest bytes received and not consumed, in place, and how many are in one piece. NULL:
 * none. They stay as they are until they are consumed.
 */
const void *via_stream_data(const struct via_stream *stream, size_t *len);

/* Give the first @n of them back. -EINVAL more than there are, or the failure of the session. */
int via_stream_consume(struct via_stream *stream, size_t n);

/* Has the peer finished, and everything before that been consumed? What it said: *status. */
bool via_stream_ended(struct via_stream *stream, int *status);

/* -- both ------------------------------------------------------------------------- */

/* The most descriptors that can be waited for beside the stream. */
#define VIA_STREAM_FDS 3u

/*
 * Move the stream forward; when there is nothing to move, sleep until there is, one of the
 * @nfds descriptors @fds is ready, or @deadline_ns. As with poll(2), revents of each says what for,
 * and an entry with a negative descriptor is passed over. Look at data and buffer before: what is
 * there already wakes nobody. And come back soon: some providers move bytes only here.
 *
 * Returns how many completions and ready descriptors there were, and counts an end that
 * via_stream_ended() has not told yet as one; 0: none, because the deadline
 * has passed, the stream is done, or the wake-up was needless. Or the failure of the session, which
 * also fails, with -ETIMEDOUT, when work in flight has not moved for stall_ns (a peer that
 * does not consume is no such case).
 */
int via_stream_wait(struct via_stream *stream, uint64_t deadline_ns, struct pollfd *fds,
		    unsigned nfds);

/*
 * Are both directions through? Finished here, with nothing under way on this side, and ended
 * by the peer, as via_stream_ended() has told. When all streams are, closing loses nothing.
 */
bool via_stream_done(const struct via_stream *stream);

#endif
