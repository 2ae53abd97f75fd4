/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lane.h -- one connection of QEMU and the stream that carries it, with a thread of their own.
 *
 * The thread moves bytes both ways, from the socket straight into the stream's registered memory and
 * back, and looks at them as they pass (main_stream.h, multifd_stream.h). It holds no
 * byte back but the beginning of a multifd header, takes no more than the stream has room for, and
 * hands an end on behind all that came before it.
 */
#ifndef VIA_RELAY_LANE_H
#define VIA_RELAY_LANE_H

#include <pthread.h>
#include <stdatomic.h>

#include "relay/facts.h"
#include "relay/identify.h"
#include "relay/main_stream.h"
#include "relay/multifd_stream.h"
#include "relay/run.h"
#include "transport/stream.h"

/* Bytes of a multifd header that can be kept: with pages of 4 KiB it has 1344. */
#define LANE_HEAD_MAX 2048u

struct lane;

/* What the lanes of one session share. */
struct lanes {
	const struct relay_config *config;
	struct via_session *session;
	bool source;
	const char *qemu;         /* destination: where it waits */
	struct relay_facts facts; /* source: of its QEMU, before main's lane is started */
	int wake_fd;              /* eventfd: a lane has ended, or main has learnt something */
	int main_up_fd;           /* destination, eventfd: readable once QEMU has taken main */

	/* what main's lane has seen, for the thread that identifies connections, and for the end */
	_Atomic bool return_path, postcopy, answered, early_preempt;
	_Atomic bool unread; /* main's beginning: the above may be so, and nobody here knows */
	_Atomic bool shut, shut_well;
	_Atomic bool had_main, main_running;
	_Atomic bool main_ends;    /* one of the QEMUs has closed it */
	_Atomic unsigned unclosed; /* source: by its QEMU; without preempt */
	_Atomic uint64_t forward_bytes, back_bytes, packets;
	_Atomic unsigned running;
	_Atomic bool failed; /* a lane has, and the session with it */

	struct lane *list;    /* all that were started; the main thread's */
	struct lane *preempt; /* source: prepared, or in use */
	_Atomic unsigned nlanes;
};

/* Nothing but what the fields of @l say is kept; relay_look() finds them. 0 or -ENOMEM. */
int lanes_init(struct lanes *l, const struct relay_config *config, struct via_session *session,
	       bool source, struct via_error *err);

/*
 * Source: open the preempt channel ahead of its connection, once it is likely to come: a vCPU
 * would wait for it. Nothing happens when it is open already.
 */
int lane_prepare_preempt(struct lanes *l, struct via_error *err);

/*
 * Source: carry the connection @fd, which is known to be @who and has sent @first already, over
 * a channel of its kind. @fd is the lane's from here on, also on failure.
 */
int lane_start_source(struct lanes *l, const struct relay_identity *who, int fd,
		      const struct relay_candidate *first, struct via_error *err);

/* Destination: connect @stream to QEMU as soon as it may be, and carry it. */
int lane_start_destination(struct lanes *l, struct via_stream *stream, struct via_error *err);

/* Wait for all threads (a channel that was prepared in vain is closed), which end with their connections or the session, and free all. */
void lanes_join(struct lanes *l);

/* 0, or why lanes have failed: the session's first cause. */
int lanes_failure(const struct lanes *l, struct via_error *err);

/*
 * How it ended, by @rc, what serving returned, and by what has passed. Before the session's close;
 * relay_look() finds them no more.
 */
void lanes_result(struct lanes *l, int rc, struct relay_result *result);

/* What has passed so far. Any thread. */
void lanes_count(const struct lanes *l, struct relay_result *result);

/* watch.c: can relay_look() find them? */
void lanes_show(struct lanes *l, bool there);

#endif
