/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay.h -- a relay beside a stock QEMU: its connections travel as the streams of one session.
 *
 *   QEMU --- sockets ---> source relay === session ===> destination relay --- sockets ---> QEMU
 *
 * The source relay takes every connection at once and finds out what it is (relay/identify.h);
 * the destination relay connects to its QEMU for each, main first, and never before there is
 * something that QEMU must see: a connection that says nothing stops a QEMU that waits.
 * Bytes keep their order, nothing is changed, and an end is handed on behind all bytes before it.
 *
 * Whatever is lost, both QEMUs see their connections close: in precopy the migration fails and the
 * guest runs on at the source; in postcopy both pause. So after a session in which postcopy could
 * have begun a relay waits for the next, with which QEMU resumes; other than that it is through.
 */
#ifndef VIA_RELAY_RELAY_H
#define VIA_RELAY_RELAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "transport/transport.h"

struct lanes;
struct relay_told; /* relay/qmp.h */

/* How a migration ended, as far as the bytes of main tell. */
enum relay_outcome {
	RELAY_COMPLETED = 1, /* the destination has said so on the return path */
	RELAY_ENDED,         /* all bytes were delivered; without a return path nobody says more */
	RELAY_BROKEN,        /* cut off: QEMU has failed or paused the migration */
};

struct relay_result {
	enum relay_outcome outcome;
	bool postcopy;          /* it could have been switched to postcopy */
	unsigned migrations;    /* sessions that carried one, this included */
	unsigned connections;   /* of this one: streams */
	uint64_t forward_bytes; /* to the destination */
	uint64_t back_bytes;
	uint64_t packets; /* of multifd that were understood */
	struct via_session_stats session;
};

/* A relay as it runs, for relay_look(). */
struct relay_watch {
	pthread_mutex_t lock;
	struct lanes *lanes; /* NULL: it carries nothing at the moment */
};

#define RELAY_WATCH_INIT                                                                           \
	{                                                                                          \
		.lock = PTHREAD_MUTEX_INITIALIZER                                                  \
	}

struct relay_config {
	/* fabric, credentials and deadlines; what concerns channels the relay sets itself */
	struct via_session_config session;
	bool keep; /* serve one migration after the other */
	/*
	 * Unix socket of QEMU's QMP, or NULL. A source asks which channels it opens instead of
	 * inferring it, and tells the destination how its QEMU is set. A destination compares.
	 * A QEMU that does not answer is a note and no failure.
	 */
	const char *qmp;
	/*
	 * Set QEMU through qmp. A source: relay_tune(), and its QEMU's settings bind the
	 * destination. A destination: like the source's, and to wait at its address.
	 */
	bool tune;
	/* Source: what qmp would tell, by a caller that talks to QEMU itself; or NULL. */
	const struct relay_told *told;
	struct relay_watch *watch; /* or NULL: see relay_look() */
	int cancel_fd;             /* or -1: ends the relay when readable */
	uint64_t patience_ns;      /* a connection may be silent for so long; 0: 30 s */
	/* What a user should read: one line, from any thread of the relay. May be NULL. */
	void (*note)(void *arg, const char *line);
	/* A migration has ended. May be NULL. */
	void (*ended)(void *arg, const struct relay_result *result, const struct via_error *why);
	void *arg;
};

/*
 * Listen for QEMU, or for the source relay, on @address: "unix:PATH", or as
 * via_control_listen(), with or without "tcp:". *@fd is the caller's.
 *  -EINVAL malformed or a path too long, -EADDRINUSE, -EADDRNOTAVAIL, -EPERM, -EIO
 */
int relay_listen(const char *address, int *fd, struct via_error *err);

/* Can the other relay listen at @address? "HOST:PORT", "[IPV6]:PORT". Asks nobody. 0, -EINVAL */
int relay_check_peer(const char *address, struct via_error *err);

/* Can QEMU wait at @address? "unix:PATH", "HOST:PORT", "tcp:HOST:PORT". Connects to nobody. 0, -EINVAL */
int relay_check_address(const char *address, struct via_error *err);

/*
 * Source, with config->qmp: set what is good for a relay (docs/qemu.md), and note each thing that
 * is set. Before QEMU may migrate: later it takes no settings. What it refuses is a note.
 *  the errors of relay_qmp_open() and relay_qmp_execute()
 */
int relay_tune(const struct relay_config *config, struct via_error *err);

/*
 * Serve the source's QEMU, which comes to @listen_fd, through the relay at @peer. Blocks until
 * the migration is over (see above), or as long as config says. *@result is the last one's.
 *  0 the last migration completed or ended well, or with keep none was there when it was canceled;
 *  -ECANCELED; -ECONNRESET it was broken by its QEMUs; or the first cause of the session's failure
 */
int relay_source(int listen_fd, const char *peer, const struct relay_config *config,
		 struct relay_result *result, struct via_error *err);

/* The same at the destination: the relay of the source comes to @listen_fd, @qemu waits for us. */
int relay_destination(int listen_fd, const char *qemu, const struct relay_config *config,
		      struct relay_result *result, struct via_error *err);

/*
 * What the relay with @watch has carried so far of the migration at hand, whose outcome is not
 * known yet. False: there is none. Any thread.
 */
bool relay_look(struct relay_watch *watch, struct relay_result *now);

#endif
