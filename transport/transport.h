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
 *   via_session_open_channels       via_session_wait_channels
 *   via_session_start_senders       via_session_start_receivers
 *   via_round_start, via_round_drain, ...   via_main_receive, ...
 *   via_session_seal                (sealed inside via_main_receive)
 *   via_main_send/receive           via_main_send/receive
 *   via_session_close               via_session_close
 *
 * Threads: one thread, the migration thread, calls all of these, but for
 * via_session_abort(), via_session_start_postcopy(), via_session_stats() and
 * via_session_set_bandwidth(), which any thread may call until via_session_close(). Every wait ends by its deadline, by the loss of the
 * peer (noticed within dead_after_ns) or by via_session_abort().
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
#include "transport/messages.h"

struct via_session;

/* What a lost session is resumed by: via_session_resume_point(). Whoever has it and the key may. */
struct via_resume {
	uint8_t id[VIA_SESSION_ID_LEN];
	uint64_t epoch; /* the highest of it */
};

struct via_session_config {
	const char *fabric; /* a fabric spec, or NULL or "auto": the best both sides have */
	unsigned multifd;   /* source: multifd channels, 1 to VIA_MULTIFD_MAX; 0 counts as 2 */
	unsigned preempt;   /* source: preempt channels, 0 to VIA_PREEMPT_MAX */
	/*
	 * Both sides: the session has no regions and carries streams (transport/stream.h). The counts
	 * above are the most channels that may be opened then, one at a time.
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
	 * Destination of streams: take a new session where that one is waited for, for its source may
	 * have been started again. via_session_is_resumed() tells which it is.
	 */
	bool or_new;
	/*
	 * What is written is checked at the destination. Asked for by the source; a destination that
	 * asks for it too takes no source that does not. The engine does it (migrate/integrity.h).
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
 * Source: connect to the destination at @address, agree on protocol and fabric,
 * announce @regions (their memory stays the caller's and is only read) and wait until the
 * destination has made its own. May block up to the handshake's deadlines;
 * @cancel_fd (or -1) ends it early once readable.
 *  the errors of via_control_connect(); -EPROTONOSUPPORT, -ENODEV no common fabric (@err lists
 *  every candidate's reason), -ENOMEM, -EPERM memlock limit, or what the destination reported
 */
int via_session_connect(const char *address, const struct via_session_config *config,
			const struct via_region *regions, unsigned nregions, int cancel_fd,
			struct via_session **session, struct via_error *err);

/*
 * Destination: accept one source from @listen_fd (of via_control_listen) and learn what it
 * will send. A peer that fails the handshake ends this call with its error; the
 * descriptor stays usable: call again for the next.
 *  the errors of via_control_accept(); -EPROTONOSUPPORT, -EPROTO, -ENODEV
 */
int via_session_accept(int listen_fd, const struct via_session_config *config,
		       const struct via_wait *wait, struct via_session **session,
		       struct via_error *err);

/* As via_session_connect/accept, over a connection that exists already, which the session owns from then on. */
int via_session_connect_control(struct via_control *control,
				const struct via_session_config *config,
				const struct via_region *regions, unsigned nregions, int cancel_fd,
				struct via_session **session, struct via_error *err);
int via_session_accept_control(struct via_control *control, const struct via_session_config *config,
			       const struct via_wait *wait, struct via_session **session,
			       struct via_error *err);

/* Destination: the regions that the source announced (addr is NULL). Valid until close. */
const struct via_region *via_session_regions(const struct via_session *session, unsigned *nregions);

/*
 * Destination: register @addr[i], memory for region i, so that the source's channels may write
 * it, and let the source go on. The memory must stay mapped until the close. Of a resumed
 * session no memory is registered, and @addr may be NULL.
 *  -ENOMEM, -EPERM memlock limit, -EFAULT; the source is told
 */
int via_session_provide(struct via_session *session, void *const *addr, struct via_error *err);

/* Destination: end the session with @why, which the source is told. Then close it. */
void via_session_refuse(struct via_session *session, const struct via_error *why);

/* -- channels --------------------------------------------------------------- */

/*
 * Source: start to open one channel in the current epoch; returns at once. Any order, any
 * time. A channel that failed may be opened again after via_session_next_epoch().
 *  -EEXIST open or opening already, -ERANGE no such index, -ESTALE failed in this epoch
 */
int via_session_open_channel(struct via_session *session, enum via_channel_kind kind,
			     unsigned index, struct via_error *err);

/*
 * Wait until channel (@kind, @index) is ready; VIA_CHANNEL_ESSENTIAL waits for main and all
 * multifd channels: the gate before a migration.
 *  -ETIMEDOUT which channel is missing is in @err; or why one was refused
 */
#define VIA_CHANNEL_ESSENTIAL 0u
int via_session_wait_channel(struct via_session *session, unsigned kind, unsigned index,
			     struct via_error *err);

/* Source: open main and all multifd channels and wait for them. */
int via_session_open_channels(struct via_session *session, struct via_error *err);

/* Source: go on to the next epoch without a drain; legal while nothing was written in this one. */
int via_session_next_epoch(struct via_session *session);

/* -- main: messages ---------------------------------------------------------- */

/* A message as it came. The payload lives until the next via_main_receive(). */
struct via_message {
	uint8_t type; /* VIA_MESSAGE_USER and above */
	bool more;    /* a fragment: the rest of the message follows */
	const uint8_t *payload;
	size_t len;
};

/*
 * Send one message of any length on main: longer ones travel as fragments. Copies @payload;
 * waits for credits of the peer, at most stall_ns without any.
 */
int via_main_send(struct via_session *session, uint8_t type, const void *payload, size_t len,
		  struct via_error *err);

/*
 * Receive the next message of main. At the destination this also acknowledges
 * drains and seals while it waits.
 *  0, -EAGAIN @deadline_ns passed, -EINTR via_session_wake() was called, or the failure of the
 *  session
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
	unsigned
		message_flags; /* VIA_AFTER_WRITES: behind the runs, also of earlier batches; or 0 */
	uint8_t *message;      /* message_cap bytes to fill */
	size_t message_cap;
};

/*
 * Where the senders get their work. Every multifd channel's thread calls next()
 * until it says that there is no more; calls of different channels come at once from
 * different threads. No byte may be handed out twice in one round. The memory may change while it is
 * being written; what arrives of it then is undefined until a later round.
 *  next() returns 1 with *batch filled, 0 no more work for this channel in this round, or a
 *  failure, which ends the session
 */
struct via_work {
	void *arg;
	int (*next)(void *arg, unsigned channel, struct via_batch *batch);
};

/* Source: start the threads of the multifd channels, which wait for the first round. */
int via_session_start_senders(struct via_session *session, struct via_error *err);

/*
 * Destination: start the threads of the multifd channels. @message gets every message that
 * came with a batch, in the channel's thread, before the fence of its epoch is acknowledged;
 * a failure that it returns ends the session.
 */
typedef int via_batch_message_fn(void *arg, unsigned channel, uint8_t type, const uint8_t *payload,
				 size_t len);
int via_session_start_receivers(struct via_session *session, via_batch_message_fn *message,
				void *arg, struct via_error *err);

/*
 * End the threads that these two have started; no function of the engine is called any more. With
 * a round under way only once the session has failed.
 */
void via_session_stop_workers(struct via_session *session);

/*
 * Source: begin a round: the senders work through @work (NULL: nothing) and then send
 * their fences. @work must live until the round is drained. -EINVAL while one is under way.
 */
int via_round_start(struct via_session *session, const struct via_work *work,
		    struct via_error *err);

/*
 * Source: wait until the round is drained: every write has retired, and the destination has
 * acknowledged every channel's fence with the counts of the ledger.
 *  0, -EAGAIN @deadline_ns passed (call again), -EBADMSG the counts differ, or the session's failure
 */
int via_round_drain(struct via_session *session, uint64_t deadline_ns, struct via_error *err);

/*
 * Source: have the destination revoke every key of guest memory. Only after a drained round.
 * On return no write of this session can land any more, and none was refused on the way.
 */
int via_session_seal(struct via_session *session, struct via_error *err);

/* Ask the engine to switch to postcopy. Any thread. Idempotent. */
void via_session_start_postcopy(struct via_session *session);
/* Was that asked for? Any thread. */
bool via_session_postcopy_wanted(const struct via_session *session);

/* Have via_main_receive() return -EINTR, now or the next time. Any thread. */
void via_session_wake(struct via_session *session);

/* Have both sides agreed that what is written is checked? */
bool via_session_integrity(const struct via_session *session);

/* Does it go on with one that was lost? */
bool via_session_is_resumed(const struct via_session *session);

/* What is needed to resume this session, failed or not. Migration thread. */
void via_session_resume_point(struct via_session *session, struct via_resume *resume);

/* Limit all multifd writes together to @bytes_per_s; 0: no limit. Any thread. */
void via_session_set_bandwidth(struct via_session *session, uint64_t bytes_per_s);

/* -- end, and what is known --------------------------------------------------- */

/* Fail the session with @why (NULL: aborted by the caller): every wait of both sides ends. Any thread. */
void via_session_abort(struct via_session *session, const struct via_error *why);

/* The first cause, when the session has failed: its code, and *err; else 0. */
int via_session_failure(struct via_session *session, struct via_error *err);

/*
 * Say goodbye (unless failed), wait shortly for the peer's, stop all threads, free everything. Accepts NULL.
 */
void via_session_close(struct via_session *session);

#define VIA_RAILS_MAX 8u

/* A device that carries multifd channels, and what went over it. */
struct via_rail {
	char device[64]; /* as in struct via_ep */
	uint64_t bytes;  /* its part of via_session_stats.bytes */
};

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

/* Snapshot into *stats. The histogram is exact only when read by the migration thread. */
void via_session_stats(struct via_session *session, struct via_session_stats *stats);

/*
 * Add what @earlier counted to *stats: the same migration's session before it was lost. What
 * is no count (names, channels) stays as it is in *stats.
 */
void via_session_stats_add(struct via_session_stats *stats,
			   const struct via_session_stats *earlier);

#endif
