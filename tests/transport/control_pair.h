/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_pair.h -- two ends of a control connection in one process, and peers
 * that are not Viaduct. Everything here fails the test when it cannot be done.
 */
#ifndef VIA_TESTS_TRANSPORT_CONTROL_PAIR_H
#define VIA_TESTS_TRANSPORT_CONTROL_PAIR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/error.h"
#include "transport/frames.h"

/* Longer than anything takes that works. */
#define PATIENCE_NS (20 * VIA_NS_PER_S)

/* Wait until then, uncancelled. */
struct via_wait wait_ns(uint64_t ns);

/* A listener and one accept() on it, in a thread. */
struct acceptor {
	int listen_fd;
	char address[80];
	struct via_credentials creds;
	struct via_wait wait;
	uint64_t handshake_ns;
	/* Set once joined. */
	struct via_control *control;
	struct via_error err;
	int rc;
	pthread_t thread;
};

/* Listen on @address ("127.0.0.1:0") and accept once. @creds NULL: plain text. */
void acceptor_start(struct acceptor *a, const char *address, const struct via_credentials *creds);

/* The result of the accept, which is also a->rc; the listener is closed. */
int acceptor_join(struct acceptor *a);

/* Both ends of a connection, the first frame (of the source) received. */
struct pair {
	struct via_control *source, *destination;
};
void pair_open(struct pair *p, const char *address, const struct via_credentials *source,
	       const struct via_credentials *destination);
void pair_wrap(struct pair *p); /* over a socket pair */
void pair_close(struct pair *p);

/* Post one frame with @text, or receive one with it within PATIENCE_NS. */
void post_text(struct via_control *c, uint16_t type, const char *text);
void expect_text(struct via_control *c, uint16_t type, const char *text);
void flush_all(struct via_control *c);

/* A TCP connection to @address (of an acceptor) that speaks whatever the test writes. */
int raw_connect(const char *address);
void raw_write(int fd, const void *bytes, size_t len);
/* Read until @len bytes or the end; returns how many. */
size_t raw_read(int fd, void *bytes, size_t len);

/* A key file with @text in a new directory; both are removed at the end of the process. */
const char *key_file(const char *text);

/* Does any of the three parts hold @text? */
bool mentions(const struct via_error *err, const char *text);

#endif
