/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * session.h -- private to transport/ (and to its tests): what a session is made of.
 *
 * Who may touch what:
 *   lock          guards the failure, the channels' set-up state and every via_channel.ep
 *                 pointer as other threads see it; never held across a wait or a fabric call that
 *                 may block
 *   setup_lock    serialises the fabric's set-up operations (contract of fabric.h)
 *   a channel's message lane, ledger and keys belong to its owner thread: the connector while
 *                 it connects, then the migration thread (main), the channel's worker, or the
 *                 owner of its stream
 * Every thread that waits also waits for cancel_fd or for its endpoint's descriptor, and both
 * wake when the session fails.
 */
#ifndef VIA_TRANSPORT_SESSION_H
#define VIA_TRANSPORT_SESSION_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/buffer.h"
#include "core/clock.h"
#include "core/ledger.h"
#include "core/probe.h"
#include "fabrics/fabric.h"
#include "transport/frames.h"
#include "transport/messages.h"
#include "transport/transport.h"

#define CHANNEL_RECEIVES        32u /* receives posted for messages that cost a credit */
#define CHANNEL_RECEIVES_MIN    4u  /* of a channel whose slots are large */
#define CHANNEL_RECEIVES_CREDIT 2u  /* and for those that do not (docs/wire.md, credits) */
#define CHANNEL_SENDS           32u
#define CHANNEL_MESSAGE_LEN     8192u /* bytes of one receive */
#define CHANNEL_OUT_BUFFERS     8u    /* of a stream at the source: slots that are being written */

enum channel_state {
	CHANNEL_CLOSED = 0, /* never opened in this epoch */
	CHANNEL_OPENING,    /* its connector runs */
	CHANNEL_READY,
	CHANNEL_FAILED, /* error says why; may be opened in a higher epoch */
	/* Once guest memory is sealed a READY multifd channel may be, too: to carry pages */
};

/* A received message that waits for its owner. */
struct channel_rx {
	uint8_t *buf;
	uint64_t number; /* among those that cost a credit */
	struct via_message message;
};

struct via_channel {
	struct via_session *session;
	uint8_t kind;
	uint16_t index;

	/* set-up, under session->lock */
	enum channel_state state;
	uint64_t epoch; /* of the last open; 0: none */
	struct via_error error;
	uint8_t nonce[VIA_NONCE_LEN];
	uint8_t peer_addr[VIA_ADDRESS_MAX];
	size_t peer_addr_len; /* 0: not known yet */
	uint8_t *peer_ready;  /* payload of the peer's CHANNEL_READY; NULL: not yet */
	size_t peer_ready_len;
	bool refused; /* by the peer: error is its */
	pthread_t connector;
	bool has_connector; /* to be joined */
	struct via_ep *ep;
	char device[64]; /* that carries it; under session->lock */

	/* message lane */
	struct via_pool tx, rx;
	struct via_mr *tx_mr, *rx_mr;
	size_t message_len; /* bytes of a send or receive buffer */
	size_t peer_message_len;
	unsigned credits; /* messages that the peer's receives can still take */
	unsigned owed;    /* receives posted again and not announced yet */
	struct channel_rx queue[CHANNEL_RECEIVES];
	unsigned queue_head, queue_len;
	unsigned held;     /* received messages that were not given back, queued or not */
	bool in_fragments; /* of fragment_type: the next must be of it too */
	uint8_t fragment_type;
	struct channel_rx current; /* what via_main_receive handed out last */
	unsigned receives;         /* posted here for messages that cost a credit */
	unsigned peer_receives;    /* by the peer: no more credits can come */
	uint64_t nsent, nreceived; /* messages that cost a credit, since it was opened */

	/* for via_session_channels(); its owner alone writes them */
	_Atomic uint64_t sent, sent_bytes, received, received_bytes;
	_Atomic uint64_t placed, placed_bytes; /* destination */

	/* staging (page_channel.h, stream.h): message n has slot n modulo the destination's receives */
	size_t slot_len; /* 0: none */
	size_t staging_len;
	uint8_t *staging;          /* destination: all slots; source: one, to gather runs */
	struct via_pool out;       /* source of streams instead: what slots are written from */
	struct via_mr *staging_mr; /* of either */
	bool taken;                /* by the engine; under session->lock */
	struct via_stream *stream; /* its owner's */

	/* writes: source, multifd */
	struct via_rkey **rkeys; /* one for each slice */
	unsigned nrkeys;
	struct via_ledger ledger; /* the sender's during a round, else the migration thread's */

	/* worker: multifd */
	pthread_t worker;
	bool has_worker; /* who ends it holds session->worker_lock */
	_Atomic bool worker_stop;
	int wake_fd;                   /* eventfd: a round began, or stop */
	struct via_fence_count fenced; /* destination: the last fence; migration thread's once
	                                * fences_missing is 0 */
	uint8_t *batch_message;        /* source: room for via_batch.message */
};

struct session_region {
	struct via_region region;
	unsigned first_slice;
	unsigned nslices;
};

/* One round: written by the migration thread before the senders are woken. */
struct session_round {
	const struct via_work *work;
	bool check_only;          /* no fence: only look whether the endpoint lives */
	bool under_way;           /* migration thread's */
	_Atomic uint64_t number;  /* senders start when it rises */
	_Atomic unsigned pending; /* senders not done; the last wakes main */
	_Atomic uint64_t last_fence_ns;
};

/* Test switches: what a wrong implementation would leave out (tests/ alone set them). */
enum session_test_switch {
	SESSION_TEST_FENCE_EARLY = 1 << 0, /* the fence does not wait for the writes before it */
	SESSION_TEST_NO_SEAL = 1 << 1,     /* SEALED is answered without revoking a key */
	SESSION_TEST_KEEP_KEYS = 1 << 2,   /* the source goes on writing after the seal */
};
extern unsigned via_session_test_switches;

struct via_session {
	enum via_role role;
	struct via_session_config config; /* defaults filled in; strings are copies */
	char *fabric_spec;
	uint8_t id[VIA_SESSION_ID_LEN];
	char peer[64];
	char choice[1024];
	struct via_fabric_spec spec;
	struct via_fabric *fab;

	struct session_region *region;
	struct via_region *region_view; /* for via_session_regions() */
	unsigned nregions;
	uint64_t slice_len;
	struct via_mr **slice_mr;
	unsigned nslices;

	struct via_control *control;
	pthread_t control_thread;
	bool has_control_thread;
	int keeper_fd;     /* eventfd: the keeper is to look at closing */
	uint64_t heard_ns; /* keeper's: when a frame came */
	unsigned silent;   /* keeper's: waits since then that ended without one */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* a channel, the failure or the goodbye changed */
	pthread_mutex_t setup_lock;
	pthread_mutex_t worker_lock; /* of the one who ends a channel's worker */
	bool failed;
	struct via_error failure;
	_Atomic int failure_code;
	bool peer_said_bye;
	bool control_ended;   /* its thread is gone */
	uint64_t ponged;      /* the highest number of a PONG */
	_Atomic bool closing; /* control thread returns */
	int cancel_fd;        /* eventfd, readable for ever once failed */
	int late_cancel_fd;   /* timerfd, readable for ever a while after that */

	struct via_channel main_channel;
	struct via_channel *multifd; /* nmultifd of them */
	struct via_channel *preempt;
	unsigned nmultifd, npreempt;
	uint64_t epoch; /* the current one; migration thread's. Destination: the first */
	bool resumed;
	bool integrity; /* both sides show the feature */

	/* rounds and fence */
	struct session_round round;
	int main_wake_fd; /* eventfd: senders done, fences all in, or of streams: a channel is ready */
	_Atomic bool drained_came; /* source: DRAINED of this round; the migration thread sets it */
	struct via_drained_message drained;
	_Atomic bool sealed_came; /* source */
	uint64_t sealed_epoch;
	bool seal_asked;                /* destination */
	_Atomic uint64_t drained_epoch; /* last one acknowledged */
	_Atomic uint64_t epochs_drained;
	_Atomic unsigned fences_missing; /* destination */
	_Atomic bool sealed;
	_Atomic unsigned in_batch; /* destination: receivers that are inside batch_message */
	struct via_hist drain_ns;
	uint64_t drained_at_ns, sealed_at_ns; /* migration thread's */
	via_batch_message_fn *batch_message;  /* destination */
	void *batch_arg;
	_Atomic bool postcopy_wanted;
	_Atomic bool wake_wanted;   /* via_session_wake() */
	_Atomic uint64_t bandwidth; /* bytes a second; 0: no limit */
	_Atomic uint64_t pace_ns;   /* when the next byte may go */
};

/* Add to a count that one thread alone writes, and others may read. */
static inline void session_count(_Atomic uint64_t *count, uint64_t n)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* As probes name it. */
static inline uint64_t session_probe_channel(const struct via_channel *ch)
{
	return VIA_PROBE_CHANNEL(ch->kind, ch->index);
}

/* -- session.c -- */

/* Record the first cause, tell the peer unless it told us, and wake everybody. Any thread. Returns the code of the first cause. */
int session_fail(struct via_session *s, const struct via_error *why, bool tell_peer);
/*
 * As session_fail() for a data-path code seen on @ch: puts it into words. Of a lost connection the
 * peer may know more: waits shortly for what it says.
 */
int session_fail_channel(struct via_session *s, const struct via_channel *ch, int code);
/* 0, or the first cause's code and text. */
int session_check(struct via_session *s, struct via_error *err);
/* The channel that @id names, or NULL when there is no such kind or index. */
struct via_channel *session_channel(struct via_session *s, unsigned kind, unsigned index);
/* Call @fn for main, multifd and preempt channels, in this order. */
void session_each_channel(struct via_session *s, void (*fn)(struct via_channel *ch));
struct via_session *session_new(enum via_role role, const struct via_session_config *config,
				struct via_error *err);
/* Make the channel tables, once the counts are known. -ENOMEM */
int session_make_channels(struct via_session *s, unsigned nmultifd, unsigned npreempt,
			  struct via_error *err);

/* -- choose.c -- */

/* What this side can use, by its configuration. */
int choose_offers(const char *config, struct via_hello *hello, struct via_error *err);
/*
 * The first of @ours that the peer has too, within reach: index into @ours, its reason and those
 * of the rejected into @choice. -ENODEV when there is none.
 */
int choose_fabric(const struct via_hello *ours, const struct via_hello *theirs, char *choice,
		  size_t choice_cap, struct via_error *err);

/* -- region.c -- */

/* Take over the descriptions and divide them into slices. -EINVAL, -ENOMEM */
int regions_init(struct via_session *s, const struct via_region *regions, unsigned n,
		 uint64_t slice_len, struct via_error *err);
/* Register every slice with @access. */
int regions_register(struct via_session *s, unsigned access, struct via_error *err);
/* Deregister every slice. Idempotent. */
void regions_revoke(struct via_session *s);
void regions_fini(struct via_session *s);
/* Bytes of slice @slice. */
uint64_t regions_slice_len(const struct via_session *s, unsigned slice);
/*
 * Cut the front of @run that lies in one slice and is at most @max bytes: its slice, the
 * offset there, its local address and length. -ERANGE when the run is not inside its region.
 */
struct region_piece {
	unsigned slice;
	uint64_t slice_off;
	uint8_t *addr;
	size_t len;
};
int regions_piece(const struct via_session *s, const struct via_run *run, size_t max,
		  struct region_piece *piece);

/* -- channel.c: the message lane -- */

/* Buffers for the lane, registered. The endpoint is open and not connected. */
int channel_lane_init(struct via_channel *ch, struct via_error *err);
/* Post all receives. Once connected. */
int channel_lane_start(struct via_channel *ch);
/* Everything of the channel that is not a thread: endpoint, keys, buffers. Idempotent. */
void channel_release_all(struct via_channel *ch);
/*
 * Move the endpoint's work forward: retire writes, take sends back, queue received messages.
 * Returns how many completions there were, or the failure of the channel.
 */
int channel_progress(struct via_channel *ch);
/*
 * Progress; when there is nothing, spin shortly, then sleep until there is, @extra_fd (or
 * -1) is readable, or @deadline_ns. Returns as channel_progress(). A readable eventfd @extra_fd is emptied.
 */
int channel_wait(struct via_channel *ch, uint64_t deadline_ns, int extra_fd);
/* Wait until something completes: how many did. -ETIMEDOUT when nothing has for stall_ns. */
int channel_wait_for_movement(struct via_channel *ch);
/* Send one message; waits for room. @flags: VIA_AFTER_WRITES or 0. */
int channel_send(struct via_channel *ch, uint8_t type, const void *payload, size_t len,
		 unsigned flags);
/* The oldest received message into *rx, or false. Give it back with channel_give_back(). */
bool channel_next(struct via_channel *ch, struct channel_rx *rx);
int channel_give_back(struct via_channel *ch, struct channel_rx *rx);
/* Wait until no send or write of the channel is in flight. */
int channel_settle(struct via_channel *ch);
/* Room for one message: a free send buffer, and a credit for it. Waits. */
int channel_get_buffer(struct via_channel *ch, uint8_t **buf);
/* Send @buf with @len bytes of payload behind the header's place. Waits for room. */
int channel_post_buffer(struct via_channel *ch, uint8_t *buf, uint8_t type, size_t len,
			unsigned flags);
/* As that, for the credit that the caller has seen, and does not wait: -EAGAIN. */
int channel_try_post(struct via_channel *ch, uint8_t *buf, uint8_t type, size_t len,
		     unsigned flags);
/* poll(2) until @deadline_ns: how many are ready; 0 also for an interruption. -EIO */
int channel_poll(struct pollfd *p, unsigned n, uint64_t deadline_ns);
/* Reserve @bytes of the bandwidth that all channels share, and wait for their turn. */
int channel_pace(struct via_channel *ch, uint64_t bytes);

/* -- fence.c -- */

/* A transport message that came on main. */
int fence_on_main(struct via_session *s, uint8_t type, const uint8_t *payload, size_t len);
/* Destination: a FENCE that came on @ch. */
int fence_on_multifd(struct via_channel *ch, const uint8_t *payload, size_t len);
/* Destination: send DRAINED and SEALED when they are due. */
int fence_answer(struct via_session *s);
/* Source: close the epoch of @ch and send its fence. */
int fence_post(struct via_channel *ch);

/* -- open.c: channels come into being -- */

/* Destination: a CHANNEL_OPEN came. A bad one is refused; only a malformed one fails the session. */
int open_on_open(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err);
int open_on_addr(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err);
int open_on_ready(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err);
int open_on_refused(struct via_session *s, const uint8_t *payload, size_t len,
		    struct via_error *err);
/* Join the channel's connector, if any. */
void open_join(struct via_channel *ch);

/* -- keeper.c: the control connection in steady state -- */

int keeper_start(struct via_session *s, struct via_error *err);
/* Any thread: have the peer answer with PONG @stamp, which s->ponged then shows. */
int keeper_ping(struct via_session *s, uint64_t stamp);
/* Say goodbye when the session is well, and end the thread. */
void keeper_stop(struct via_session *s);

/* -- worker ends (multifd_send.c, multifd_receive.c) -- */

/* Stop and join the channel's worker, if any. */
void worker_stop(struct via_channel *ch);
/* Start @main_fn as the worker of @ch. */
int worker_start(struct via_channel *ch, void *(*main_fn)(void *), struct via_error *err);

#endif
