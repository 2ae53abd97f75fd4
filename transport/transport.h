/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * transport.h -- sessions, channels, rounds of one-sided writes, and the fence.
 *
 * A session joins two processes: the source connects, the destination accepts.
 * One control connection authenticates it and settles everything; main and
 * multifd channels carry it (docs/design.md). The order of calls:
 *
 *   source                          destination
 *   via_session_connect             via_session_accept
 *                                   via_session_provide (or via_session_refuse)
 *   via_session_open_channels       via_session_wait_channel
 *   via_session_start_senders       via_session_start_receivers
 *   via_round_start, via_round_drain, ...   via_main_receive, ...
 *   via_session_seal                (sealed inside via_main_receive)
 *   via_main_send/receive           via_main_send/receive
 *   via_session_close               via_session_close
 *
 * Threads: one thread, the migration thread, calls all of these, but for those that say "any
 * thread", which any may call until via_session_close(). Every wait ends by its deadline, by the
 * loss of the peer (noticed within dead_after_ns) or by via_session_abort().
 *
 * A session of streams is made and closed in the same way; what lies between is in stream.h.
 *
 * A failed session stays failed: every later call returns the code of the first cause,
 * with its text. Only via_session_close() remains.
 */
#ifndef VIA_TRANSPORT_TRANSPORT_H
#define VIA_TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/hist.h"
#include "transport/control.h"
#include "transport/names.h"

#ifdef __cplusplus
extern "C" {
#endif

struct via_session;

/* What a lost session is resumed by: via_session_resume_point(). Whoever has it and the key may. */
struct via_resume {
	uint8_t id[VIA_SESSION_ID_LEN];
	uint64_t epoch; /* the highest of it */
};

/*
 * What a session is to be. Zeroed, every field has its default; the strings and structs that it
 * points to are the caller's and are needed until the call that takes it returns.
 */
struct via_session_config {
	const char *fabric; /* a fabric spec, or NULL or "auto": the best both sides have */
	unsigned multifd;   /* source: multifd channels, 1 to VIA_MULTIFD_MAX; 0 counts as 2 */
	unsigned preempt;   /* source: preempt channels, 0 to VIA_PREEMPT_MAX */
	/*
	 * Both sides: the session has no regions and carries streams (transport/stream.h). The
	 * counts above are the most channels that may be opened then, one at a time.
	 */
	bool streams;
	struct via_credentials credentials;
	uint64_t handshake_ns;  /* for each step of the handshake; 0: 10 s */
	uint64_t dead_after_ns; /* a peer silent for so long is lost; 0: 5 s */
	uint64_t stall_ns;      /* work in flight that does not move for so long is lost; 0: 30 s */
	uint64_t slice_len;     /* bytes of a registered slice, at least a page; 0: 1 GiB */
	/*
	 * Resume this session, with the same regions; NULL: a new one. Guest memory of a resumed
	 * session is sealed from the start. A peer that does not know it refuses with -ESTALE.
	 */
	const struct via_resume *resume;
	/*
	 * Destination of streams: take a new session where that one is waited for, for its source
	 * may have been started again. via_session_is_resumed() tells which it is.
	 */
	bool or_new;
	/*
	 * What is written is checked at the destination. Asked for by the source; a destination
	 * that asks for it too takes no source that does not. The engine does it.
	 */
	bool integrity;
};

/* One piece of guest RAM as the transport sees it. */
struct via_region {
	struct via_region_desc desc;
	void *addr;
};

/* -- set-up ----------------------------------------------------------------- */

/*
 * Source: begin a session with a destination.
 *
 * Connects to @address, agrees on protocol and fabric, announces the @nregions @regions (their
 * memory stays the caller's, is only read, and must stay mapped until the close) and waits until
 * the destination has made its own. May block for as long as the handshake's deadlines say;
 * @cancel_fd (or -1) ends it early once it is readable. *@session is the caller's to close.
 *
 *  -EPROTONOSUPPORT  the two sides have no version of the protocol in common
 *  -ENODEV           no fabric in common (@err lists every candidate's reason), or no such fabric
 *  -EINVAL           a bad fabric spec, region, slice length or number of channels
 *  -EPERM            the limit of locked memory is too low to register the regions
 *  -ENOMEM, -EFAULT  the regions cannot be registered
 *  -EOPNOTSUPP       config.integrity, which the destination cannot do
 *  -ESTALE           config.resume, which the destination does not know
 *  -EEXIST           the destination waits for the source of another session
 *  -ETIMEDOUT        a step of the handshake took longer than config.handshake_ns
 *  -ECANCELED        @cancel_fd
 *  else              the errors of via_control_connect(), or what the destination reported
 */
int via_session_connect(const char *address, const struct via_session_config *config,
			const struct via_region *regions, unsigned nregions, int cancel_fd,
			struct via_session **session, struct via_error *err);

/*
 * Destination: accept one source and learn what it will send.
 *
 * @listen_fd is of via_control_listen(). A peer that fails the handshake ends this call with its
 * error; the descriptor stays usable: call again for the next. Blocks until a source comes, as
 * @wait says, and then for as long as the handshake's deadlines say. *@session is the caller's to
 * close.
 *
 *  -EPROTONOSUPPORT  the two sides have no version of the protocol in common
 *  -EPROTO           the peer does not follow it; or it carries streams and this side regions
 *  -ENODEV           the fabric that the source has chosen cannot be opened here
 *  -EOPNOTSUPP       config.integrity, which the source does not ask for
 *  -ESTALE, -EEXIST  the source resumes a session that is not the one of config.resume, or begins
 *                    one where that one is waited for
 *  -ETIMEDOUT, -ECANCELED  @wait; or the source was silent
 *  -ENOMEM           no memory for what the source announces
 *  else              the errors of via_control_accept(), or what the source reported
 */
int via_session_accept(int listen_fd, const struct via_session_config *config,
		       const struct via_wait *wait, struct via_session **session,
		       struct via_error *err);

/*
 * Source: begin a session over a control connection that exists already.
 *
 * The session owns @control from then on; a failure closes it. For the rest, and the errors, see
 * via_session_connect().
 *
 *  else  the errors of via_session_connect()
 */
int via_session_connect_control(struct via_control *control,
				const struct via_session_config *config,
				const struct via_region *regions, unsigned nregions, int cancel_fd,
				struct via_session **session, struct via_error *err);

/*
 * Destination: learn over a control connection that exists already what a source will send.
 *
 * The session owns @control from then on; a failure closes it. Of @wait the descriptor alone is
 * heeded: the handshake's deadlines are those of @config. For the rest, and the errors, see
 * via_session_accept().
 *
 *  else  the errors of via_session_accept()
 */
int via_session_accept_control(struct via_control *control, const struct via_session_config *config,
			       const struct via_wait *wait, struct via_session **session,
			       struct via_error *err);

/*
 * Destination: the regions that the source announced.
 *
 * Returns *@nregions of them, whose addr is NULL before via_session_provide(). They live until the
 * close.
 */
const struct via_region *via_session_regions(const struct via_session *session, unsigned *nregions);

/*
 * Destination: give the session memory for the regions, and let the source go on.
 *
 * addr[i] is the memory of region i, which is registered so that the source's channels may write
 * it. It stays the caller's and must stay mapped until the close. Of a resumed session, and of one
 * of streams, none is registered, and @addr may be NULL. Registering may take milliseconds for each
 * GiB. The source is told of a failure.
 *
 *  -EPERM            the limit of locked memory is too low
 *  -ENOMEM, -EFAULT  the memory cannot be registered
 *  -ECONNRESET       the source has gone
 */
int via_session_provide(struct via_session *session, void *const *addr, struct via_error *err);

/*
 * Destination: end the session with @why, which the source is told. Then close it.
 *
 * Waits a second at most, for that to be sent.
 */
void via_session_refuse(struct via_session *session, const struct via_error *why);

/* -- channels --------------------------------------------------------------- */

/*
 * Source: start to open one channel in the current epoch.
 *
 * Does not block: via_session_wait_channel() tells how it went. Any order, any time. A channel that
 * failed may be opened again after via_session_next_epoch(). Any thread, different channels at
 * once.
 *
 *  -EEXIST  open, or opening, already
 *  -ERANGE  no such index
 *  -ESTALE  it was open, or failed, in this epoch
 *  -ENOMEM, -EIO, -EAGAIN  no thread to open it
 *  else     the failure of the session
 */
int via_session_open_channel(struct via_session *session, enum via_channel_kind kind,
			     unsigned index, struct via_error *err);

/* Kind of channel for via_session_wait_channel(): main, and all multifd channels. */
#define VIA_CHANNEL_ESSENTIAL 0u

/*
 * Wait until a channel is ready.
 *
 * It is the one of @kind and @index; VIA_CHANNEL_ESSENTIAL (@index is 0) waits for main and all
 * multifd channels: the gate before a migration. Ends by the handshake's deadline.
 *
 *  -ETIMEDOUT  it did not come; which is missing is in @err
 *  -ERANGE     no such channel
 *  else        why one was refused by either side, or the failure of the session
 */
int via_session_wait_channel(struct via_session *session, unsigned kind, unsigned index,
			     struct via_error *err);

/*
 * Source: open main and all multifd channels, and wait for them.
 *
 *  else  the errors of via_session_open_channel() and via_session_wait_channel()
 */
int via_session_open_channels(struct via_session *session, struct via_error *err);

/*
 * Source: go on to the next epoch without a drain. Does not block.
 *
 *  -EINVAL  a round is under way, or something was written in this epoch
 */
int via_session_next_epoch(struct via_session *session);

/* -- main: messages ---------------------------------------------------------- */

/* A message of main as it came. The payload lives until the next via_main_receive(). */
struct via_message {
	uint8_t type; /* VIA_MESSAGE_USER and above */
	bool more;    /* a fragment: the rest of the message follows */
	const uint8_t *payload;
	size_t len;
};

/*
 * Send one message on main.
 *
 * @type is VIA_MESSAGE_USER or above. @payload, which is copied, has any length; long ones travel
 * as fragments. Waits for credits of the peer, at most stall_ns without any.
 *
 *  -EINVAL  @type is one of the transport's
 *  else     the failure of the session
 */
int via_main_send(struct via_session *session, uint8_t type, const void *payload, size_t len,
		  struct via_error *err);

/*
 * Receive the next message of main.
 *
 * At the destination this is also where drains and seals are acknowledged: be here while the source
 * works. Blocks until @deadline_ns.
 *
 *  -EAGAIN  the deadline has passed: call again
 *  -EINTR   via_session_wake() was called
 *  else     the failure of the session
 */
int via_main_receive(struct via_session *session, uint64_t deadline_ns, struct via_message *message,
		     struct via_error *err);

/* -- rounds of writes, and the fence (docs/fence.md) ---------------------------- */

#define VIA_BATCH_RUNS 64u

/* Bytes [off, off + len) of a region, to be written to the same place at the destination. */
struct via_run {
	uint16_t region;
	uint64_t off;
	uint64_t len;
};

/* Work for one channel: some runs to write, and a message to send, each may be absent. */
struct via_batch {
	unsigned nruns;
	struct via_run run[VIA_BATCH_RUNS];
	uint8_t message_type; /* VIA_MESSAGE_USER and above */
	size_t message_len;   /* 0: no message */
	bool after_writes;    /* the message arrives behind the runs, also of earlier batches */
	uint8_t *message;     /* message_cap bytes to fill */
	size_t message_cap;
};

/*
 * Where the senders get their work. Every multifd channel's thread calls next() until it says that
 * there is no more; calls of different channels come at once from different threads. No byte may be
 * handed out twice in one round. The memory may change while it is being written; what arrives of
 * it then is undefined until a later round. next() returns 1 with *batch filled, 0 when there is no
 * more work for this channel in this round, or a negated code, which ends the session.
 */
struct via_work {
	void *arg;
	int (*next)(void *arg, unsigned channel, struct via_batch *batch);
};

/*
 * Source: start the threads of the multifd channels, which wait for the first round.
 *
 * The essential channels are ready. Does not block.
 *
 *  -ENOMEM, -EIO, -EAGAIN  no memory, descriptor or thread for one
 *  else  the failure of the session
 */
int via_session_start_senders(struct via_session *session, struct via_error *err);

/*
 * Destination: gets every message that came with a batch.
 *
 * In the thread of the multifd @channel, before the fence of its epoch is acknowledged. @payload
 * lives for the call. Returns 0, or a negated code, which ends the session.
 */
typedef int via_batch_message_fn(void *arg, unsigned channel, uint8_t type, const uint8_t *payload,
				 size_t len);

/*
 * Destination: start the threads of the multifd channels.
 *
 * They hand messages that came with a batch to @message, with @arg; NULL: a session whose source
 * sends one ends. The essential channels are ready. Does not block.
 *
 *  -EIO, -EAGAIN  no descriptor or thread for one
 *  else  the failure of the session
 */
int via_session_start_receivers(struct via_session *session, via_batch_message_fn *message,
				void *arg, struct via_error *err);

/*
 * End the threads of the multifd channels, of either side.
 *
 * On return no function of the engine is called any more. With a round under way only once the
 * session has failed. Waits for what they are in.
 */
void via_session_stop_workers(struct via_session *session);

/*
 * Source: begin a round of writes.
 *
 * The senders work through @work (NULL: nothing) and then send their fences. @work must live until
 * the round is drained. Does not block.
 *
 *  -EINVAL  one is under way
 *  else     the failure of the session
 */
int via_round_start(struct via_session *session, const struct via_work *work,
		    struct via_error *err);

/*
 * Source: wait until the round is drained.
 *
 * Then every write has retired here and is placed at the destination, which has acknowledged every
 * channel's fence with the counts of the ledger. Blocks until @deadline_ns.
 *
 *  -EAGAIN   the deadline has passed: call again
 *  -EBADMSG  the two sides count differently, which fails the session
 *  else      the failure of the session
 */
int via_round_drain(struct via_session *session, uint64_t deadline_ns, struct via_error *err);

/*
 * Source: have the destination revoke every key of guest memory.
 *
 * Only after a drained round. On return no write of this session can land any more, and none was
 * refused on the way. Blocks until the destination has answered, at most stall_ns.
 *
 *  -EINVAL     the last round is not drained
 *  -EREMOTEIO  a write was under way and was refused: the fence did not cover it. The session has
 *              failed
 *  else        the failure of the session
 */
int via_session_seal(struct via_session *session, struct via_error *err);

/*
 * Ask the engine to switch to postcopy. Any thread. Does not block.
 *
 * Asking again changes nothing; nor does asking where postcopy is not possible.
 */
void via_session_start_postcopy(struct via_session *session);

/* Was a switch to postcopy asked for? Any thread. Returns whether it was. */
bool via_session_postcopy_wanted(const struct via_session *session);

/* Have via_main_receive() return -EINTR, now or the next time. Any thread. Does not block. */
void via_session_wake(struct via_session *session);

/* Have both sides agreed that what is written is checked? Any thread. Returns whether they have. */
bool via_session_integrity(const struct via_session *session);

/* Does the session go on with one that was lost? Any thread. Returns whether it does. */
bool via_session_is_resumed(const struct via_session *session);

/* Tell what is needed to resume this session, failed or not. Does not block. */
void via_session_resume_point(struct via_session *session, struct via_resume *resume);

/*
 * Limit all multifd writes together. Any thread. Does not block.
 *
 * To @bytes_per_s, from now on; 0: no limit.
 */
void via_session_set_bandwidth(struct via_session *session, uint64_t bytes_per_s);

/* -- end, and what is known --------------------------------------------------- */

/*
 * Fail the session, so that every wait of both sides ends. Any thread. Does not block.
 *
 * @why, which is copied, is what both sides then report; NULL: -ECANCELED, aborted by the caller.
 * Of a session that has failed already the first cause stays.
 */
void via_session_abort(struct via_session *session, const struct via_error *why);

/*
 * The first cause of a session's failure. Any thread. Does not block.
 *
 * Returns 0 while it has not failed; else the code, with the text in *@err (which may be NULL).
 */
int via_session_failure(struct via_session *session, struct via_error *err);

/*
 * End a session and free everything.
 *
 * Says goodbye (unless failed), waits shortly for the peer's, and stops all threads. The memory of
 * the regions is the caller's again, and no write lands in it any more. Accepts NULL.
 */
void via_session_close(struct via_session *session);

#define VIA_RAILS_MAX 8u

/* A device that carries multifd channels, and what went over it. */
struct via_rail {
	char device[64]; /* as in struct via_ep */
	uint64_t bytes;  /* its part of via_session_stats.bytes */
};

/* What is known of a session, and what it has counted. */
struct via_session_stats {
	uint64_t writes; /* posted on the multifd channels */
	uint64_t bytes;  /* of those */
	uint64_t epochs; /* drained */
	bool sealed;
	struct via_hist drain_ns; /* last fence out to acknowledged; source only */
	unsigned multifd;         /* channels */
	unsigned preempt;
	struct via_rail rail[VIA_RAILS_MAX];
	unsigned nrails;   /* 0: the fabric has no devices of its own */
	char fabric[512];  /* the spec in use */
	char choice[1024]; /* why: one line for each candidate */
	char security[64]; /* of the control connection */
	char peer[64];     /* its program and version */
};

/*
 * What stands between a write of precopy and a guest that runs (docs/fence.md). At the source each
 * round goes from open through fencing to drained. The destination is not told when a round
 * begins, and calls open what was drained before.
 */
enum via_fence_state {
	VIA_FENCE_OPEN = 1, /* writes land in guest memory, or may */
	VIA_FENCE_FENCING,  /* a channel's fence is out, and not all are answered */
	VIA_FENCE_DRAINED,  /* source: no write is under way, and none may be posted yet */
	VIA_FENCE_SEALED,   /* every write key of guest memory is revoked */
	VIA_FENCE_RUN,      /* the engine's: and the guest runs at the destination */
};

/*
 * The name of a fence's state. Any thread.
 *
 * Returns "open", "fencing", "drained", "sealed" or "run"; "?" for any other @state. Static.
 */
const char *via_fence_state_name(enum via_fence_state state);

/* Where the fence of a session stands. Does not block. Returns its state, never VIA_FENCE_RUN. */
enum via_fence_state via_session_fence_state(const struct via_session *session);

/*
 * When the fence of a session got there. Does not block.
 *
 * *@drained_ns is via_now_ns() of when the last epoch was drained, *@sealed_ns that of when guest
 * memory was sealed; 0: not yet.
 */
void via_session_fence_times(const struct via_session *session, uint64_t *drained_ns,
			     uint64_t *sealed_ns);

/*
 * What has passed over a channel, in all epochs in which it was open. Writes are one-sided: the
 * source counts those it has posted, the destination what fences and messages about pages have
 * told.
 */
struct via_channel_stats {
	enum via_channel_kind kind;
	unsigned index;
	bool ready;
	char device[64]; /* that carries it, where the fabric has devices; else empty */
	uint64_t writes;
	uint64_t bytes; /* of the writes */
	uint64_t sent;  /* messages, but those that carry credits alone */
	uint64_t sent_bytes;
	uint64_t received;
	uint64_t received_bytes;
};

/*
 * How many channels a session has. Any thread. Does not block.
 *
 * Returns their number, main, multifd and preempt together.
 */
unsigned via_session_nchannels(const struct via_session *session);

/*
 * What has passed over each channel of a session. Any thread. Does not block.
 *
 * Writes at most @cap of them into @stats: main first, then multifd, then preempt, by index. Each
 * number is exact, but no two are of the same moment.
 *
 * Returns how many were written.
 */
unsigned via_session_channels(struct via_session *session, struct via_channel_stats *stats,
			      unsigned cap);

/*
 * What is known of a session, and what it has counted. Any thread. Does not block.
 *
 * Fills *@stats. The histogram is exact only when the migration thread asks.
 */
void via_session_stats(struct via_session *session, struct via_session_stats *stats);

/*
 * Add what an earlier session of the same migration counted, before it was lost. Any thread.
 *
 * What is no count (names, channels) stays as it is in *@stats. Does not block.
 */
void via_session_stats_add(struct via_session_stats *stats,
			   const struct via_session_stats *earlier);

#ifdef __cplusplus
}
#endif

#endif
