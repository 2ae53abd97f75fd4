/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * session_pair.h -- a destination in a thread, for tests that play the source.
 */
#ifndef VIA_TESTS_SESSION_PAIR_H
#define VIA_TESTS_SESSION_PAIR_H

#include <pthread.h>
#include <stdint.h>

#include "transport/transport.h"

#define PAIR_MEMORY_LEN 65536u

struct destination {
	/* set before the start */
	const char *fabric;
	uint64_t handshake_ns;
	uint64_t dead_after_ns;
	/* what came of it, once joined */
	struct via_error accept_error;  /* of accept and provide */
	struct via_error channel_error; /* of the wait for the essential channels */
	struct via_error end_error; /* of the session after that; code 0: the source said goodbye */
	unsigned messages;          /* user messages on main */
	uint8_t *memory;
	/* its own */
	int fd;
	pthread_t thread;
};

/* Start it; returns the source's end of the control connection, a socket. */
int destination_start(struct destination *d);
/* Wait for its end. */
void destination_join(struct destination *d);

/* The message that ends it well. */
#define PAIR_MESSAGE_END (VIA_MESSAGE_USER + 1)

#endif
