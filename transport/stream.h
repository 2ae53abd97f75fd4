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

#ifdef __cplusplus
extern "C" {
#endif

struct via_stream;

#define VIA_STREAM_MESSAGES     32u                 /* not consumed, in each direction */
#define VIA_STREAM_MESSAGE_LEN  8180u               /* bytes that travel within a message */
#define VIA_STREAM_SLOTS        8u                  /* from the source, main and multifd */
#define VIA_STREAM_MAIN_SLOT    ((size_t)128 << 10) /* bytes of a slot */
#define VIA_STREAM_MULTIFD_SLOT ((size_t)256 << 10)

/* -- open --------------------------------------------------------------------- */

/*
 * Source: open a stream.
 *
 * It is channel @index of @kind. Waits for the destination to do its part, within the handshake's
 * deadlines. Any thread, different channels at once. *@stream lives until the session is closed.
 *
 *  -EEXIST     open, or opening, already
 *  -ERANGE     no such index
 *  -ETIMEDOUT  the destination did not do its part
 *  -EINVAL     this session has regions
 *  -ENOMEM     no memory for it
 *  else        why either side refused it, or the failure of the session
 */
int via_stream_open(struct via_session *session, enum via_channel_kind kind, unsigned index,
		    struct via_stream **stream, struct via_error *err);

/*
 * Destination: wait for the next stream that the source opens.
 *
 * Of several main comes first, then multifd and preempt channels by their index. One thread at a
 * time. *@stream lives until the session is closed.
 *
 *  -ETIMEDOUT   @wait's deadline
 *  -ECANCELED   @wait's descriptor became readable
 *  -ECONNRESET  where the session has not failed: the source closes it, and opens no more
 *  -EINVAL      this session has regions
 *  -ENOMEM      no memory for it
 *  else         the failure of the session
 */
int via_stream_accept(struct via_session *session, const struct via_wait *wait,
		      struct via_stream **stream, struct via_error *err);

/* What kind of channel carries a stream. Returns its kind. */
enum via_channel_kind via_stream_kind(const struct via_stream *stream);

/* Which channel of its kind carries a stream. Returns its index. */
unsigned via_stream_index(const struct via_stream *stream);

/* -- bytes out ------------------------------------------------------------------ */

/*
 * Get memory for the next bytes, to be filled in place.
 *
 * It is registered with the fabric. *@cap is its length: that of a slot, or VIA_STREAM_MESSAGE_LEN
 * where the channel has none. The same until it is sent.
 *
 * Returns it; NULL when the peer has no room or everything is under way (wait), and once the stream
 * is finished.
 */
void *via_stream_buffer(struct via_stream *stream, size_t *cap);

/*
 * Send bytes of the buffer that via_stream_buffer() gave last.
 *
 * The first @len of it, which is the caller's no longer, and in front of them @head_len bytes of
 * @head (copied; may be absent): bytes of the same stream that shall not be in the slot. At least
 * one byte in all.
 *
 *  -EMSGSIZE  @len is beyond the buffer, @head_len beyond VIA_STREAM_MESSAGE_LEN, or both together
 *             beyond that where there are no slots
 *  -EINVAL    there is no buffer, or no byte
 *  else       the failure of the session
 */
int via_stream_send(struct via_stream *stream, size_t len, const void *head, size_t head_len);

/*
 * Say that no more bytes follow.
 *
 * @status is 0 for an end that is well, or a negated code of core/error.h. The peer learns it
 * behind all that was sent. The first call counts.
 *
 *  else  the failure of the session
 */
int via_stream_finish(struct via_stream *stream, int status);

/* -- bytes in -------------------------------------------------------------------- */

/*
 * The oldest bytes received and not consumed, in place.
 *
 * *@len is how many are in one piece. They stay as they are until they are consumed.
 *
 * Returns them; NULL: there are none.
 */
const void *via_stream_data(const struct via_stream *stream, size_t *len);

/*
 * Give the first bytes of via_stream_data() back.
 *
 *  -EINVAL  @n is more than there are
 *  else     the failure of the session
 */
int via_stream_consume(struct via_stream *stream, size_t n);

/*
 * Has the peer finished, and has everything before that been consumed?
 *
 * Returns whether so; then *@status is what it said: 0, or a negated code.
 */
bool via_stream_ended(struct via_stream *stream, int *status);

/* -- both ------------------------------------------------------------------------- */

/* The most descriptors that can be waited for beside the stream. */
#define VIA_STREAM_FDS 3u

/*
 * Move the stream forward; when there is nothing to move, sleep until there is.
 *
 * Or until one of the @nfds descriptors @fds (at most VIA_STREAM_FDS) is ready, or @deadline_ns. As
 * with poll(2), revents of each says what for, and an entry with a negative descriptor is passed
 * over. Look at data and buffer before: what is there already wakes nobody. And come back soon:
 * some providers move bytes only here.
 *
 * Returns how many completions and ready descriptors there were, and counts an end that
 * via_stream_ended() has not told yet as one; 0: none, because the deadline has passed, the stream
 * is done, or the wake-up was needless.
 *
 *  -EINVAL     more descriptors than VIA_STREAM_FDS
 *  -ETIMEDOUT  work in flight has not moved for stall_ns, which fails the session (a peer that does
 *              not consume is no such case)
 *  else        the failure of the session
 */
int via_stream_wait(struct via_stream *stream, uint64_t deadline_ns, struct pollfd *fds,
		    unsigned nfds);

/*
 * Are both directions through?
 *
 * Finished here, with nothing under way on this side, and ended by the peer, as via_stream_ended()
 * has told. When all streams are, closing loses nothing.
 *
 * Returns whether they are.
 */
bool via_stream_done(const struct via_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
