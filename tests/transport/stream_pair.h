/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream_pair.h -- both sides of a session of streams, and relays between streams and sockets.
 * What cannot be done aborts the program: it also serves one without Criterion.
 *
 * One thread may play both ends of a stream where it sleeps on neither.
 */
#ifndef VIA_TESTS_STREAM_PAIR_H
#define VIA_TESTS_STREAM_PAIR_H

#include <pthread.h>
#include <stdint.h>

#include "core/clock.h"
#include "transport/stream.h"

#define STREAM_PATIENCE_NS (20 * VIA_NS_PER_S)

#define PAIR_MULTIFD 8u
#define PAIR_PREEMPT 2u

struct stream_pair {
	/* set before; zero the rest */
	const char *fabric;
	uint64_t stall_ns;
	const struct via_resume *resumes, *waits_for; /* NULL: a new session */
	bool source_has_region, destination_expects_region;
	/* what became of it */
	struct via_session *source, *destination;
	struct via_error source_err, destination_err;
	/* its own */
	int fd, cut_fd;
	pthread_t thread;
};

/* Connect. False when either side fails: see its error. */
bool stream_pair_try(struct stream_pair *p);
/* As that, and well. */
void stream_pair_open(struct stream_pair *p);
/* Close what there is of it. */
void stream_pair_close(struct stream_pair *p);

/* Both ends of a stream. */
struct stream_ends {
	struct via_stream *source, *destination;
};

/* Open a channel, and accept it. */
struct stream_ends stream_pair_stream(struct stream_pair *p, enum via_channel_kind kind,
				      unsigned index);

/* Carries bytes between a stream and a socket, both ways and until both have ended, in a thread. */
struct stream_relay {
	struct via_stream *st;
	int fd;
	int rc; /* 0: both directions ended well */
	uint64_t sent, received;
	pthread_t thread;
};
void stream_relay_start(struct stream_relay *r, struct via_stream *st, int fd);
void stream_relay_join(struct stream_relay *r);

#endif
