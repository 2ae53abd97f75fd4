/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_pair.h -- both relays in one process over the simulated fabric, and the sockets of two
 * QEMUs that are the test itself.
 */
#ifndef TESTS_RELAY_RELAY_PAIR_H
#define TESTS_RELAY_RELAY_PAIR_H

#include <pthread.h>

#include "relay/relay.h"

#define PATIENCE_S 20 /* for what is expected to happen */

struct relay_end {
	pthread_t thread;
	bool source;
	int listen_fd;
	const char *other; /* peer, or where QEMU waits */
	struct relay_config config;
	struct relay_result result;
	struct via_error err;
	int rc;
	int cancel_fd;
	pthread_mutex_t lock; /* of notes, which come from any thread of the relay */
	char notes[4096];     /* what a user would have read, a line each */
};

struct relay_pair {
	char dir[64];
	char near[96], qemu[96], peer[64];
	int qemu_fd; /* the destination's QEMU listens here; -1: it does not */
	struct relay_end source, destination;
};

/* Start both relays. @qemu_listens: is there a destination QEMU? */
void pair_start(struct relay_pair *p, uint64_t patience_ns, bool qemu_listens);
/* Request both to end. */
void pair_cancel(struct relay_pair *p);
/* End one of them, and start it again: another process, at the same address. */
void pair_restart(struct relay_end *e);
/* Has it said @text? */
bool end_has_said(struct relay_end *e, const char *text);
/* Wait until both have ended by themselves, and clean up. */
void pair_join(struct relay_pair *p);

/* As the source's QEMU: a new connection to the relay. */
int source_connect(const struct relay_pair *p);
/* As the destination's QEMU: the next connection of the relay; -1: none within @ms. */
int destination_accept(const struct relay_pair *p, int ms);

void put(int fd, const void *bytes, size_t len);
/* Exactly @len bytes. */
void get(int fd, void *bytes, size_t len);
/* Nothing but the end comes, in time. */
void expect_end(int fd);
/* Can nothing be read, not even the end, for @ms? */
bool is_quiet(int fd, int ms);

#endif
