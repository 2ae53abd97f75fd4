/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_internal.h -- what the files of the control connection share: control.c
 * (frames and waiting), control_socket.c (addresses and TCP), control_tls.c, and
 * control_psk.c (the key file). Nobody else includes it.
 */
#ifndef VIA_TRANSPORT_CONTROL_INTERNAL_H
#define VIA_TRANSPORT_CONTROL_INTERNAL_H

#include <gnutls/gnutls.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "core/error.h"
#include "fabrics/fabric.h"
#include "transport/control.h"

#define CONTROL_FIRST_LEN 16u /* bytes kept to show what a stranger said */
#define CONTROL_HOST_LEN  64u /* a numeric address with its scope */
#define CONTROL_PEER_LEN  80u /* the same with a port */

struct control_outgoing;

struct via_control {
	int fd;
	int wake_fd; /* eventfd: a frame was queued */
	bool loopback;
	char local_host[CONTROL_HOST_LEN];
	char peer_host[CONTROL_HOST_LEN];
	char peer[CONTROL_PEER_LEN]; /* for messages: "10.0.0.7:4444" */

	/* TLS; NULL: plain text. */
	gnutls_session_t tls;
	uint8_t first[CONTROL_FIRST_LEN]; /* the peer's first bytes, as they came */
	size_t first_len;

	/* Any thread. */
	pthread_mutex_t lock; /* held over the queue only, never over a system call */
	struct control_outgoing *head, *tail;
	size_t queued; /* bytes, those being sent included */
	_Atomic bool broken;

	/* The driver's alone. */
	struct control_outgoing *sending; /* off the queue, sent up to sent_len */
	size_t sent_len;
	uint8_t *in; /* in[in_start, in_end) is received and not consumed */
	size_t in_cap, in_start, in_end;
	size_t frame_len;            /* bytes at in_start that the last receive handed out */
	bool frame_seen;             /* a whole frame has come: the peer speaks our protocol */
	struct via_error send_error; /* why nothing can be sent any more */
	struct via_error error;      /* why the connection is dead */
};

/* -- control.c ---------------------------------------------------------------- */

/*
 * A connection on @fd, which it owns from then on, also on failure. Non-blocking,
 * names filled in, without TLS. -ENOMEM, -EIO
 */
int control_new(int fd, struct via_control **control, struct via_error *err);

/* "47 45 54" of @len bytes into @buf; returns @buf. Shows CONTROL_FIRST_LEN at most. */
#define CONTROL_HEX_LEN (3 * CONTROL_FIRST_LEN + 1)
const char *control_hex(const uint8_t *bytes, size_t len, char buf[CONTROL_HEX_LEN]);

/* -- control_socket.c --------------------------------------------------------- */

/*
 * Sleep until @fd has one of @events, or @wake_fd (-1: none; read when readable) is.
 *  0 something is there; -EAGAIN @wait's deadline; -ECANCELED; -EIO
 */
int control_poll(int fd, short events, int wake_fd, const struct via_wait *wait);

/* Is @wait's descriptor readable now? */
bool control_canceled(const struct via_wait *wait);

/*
 * A connected, non-blocking socket to @address (HOST:PORT). Unless @anywhere, only a
 * loopback address will do. Errors as via_control_connect().
 */
int control_socket_connect(const char *address, bool anywhere, const struct via_wait *wait, int *fd,
			   struct via_error *err);

/* The next connection on @listen_fd. -ETIMEDOUT nobody came; -ECANCELED; -EIO */
int control_socket_accept(int listen_fd, const struct via_wait *wait, int *fd,
			  struct via_error *err);

/* Fill in the names of both ends from c->fd. -EIO when it is not a connected socket. */
int control_socket_names(struct via_control *c, struct via_error *err);

/* -- control_psk.c ------------------------------------------------------------ */

struct control_key {
	const char *identity;
	const uint8_t *bytes;
	size_t len;
};

/* The keys of one file, in the order of its lines. */
struct control_keys {
	const char *path;
	struct control_key *key;
	size_t n;      /* at least 1 when loaded */
	uint8_t *text; /* identities and keys point into it */
	size_t text_len;
};

/* Read @path (kept by the caller). -ENOENT, -EPERM, -EINVAL with the line, -ENOMEM, -EIO */
int control_keys_load(const char *path, struct control_keys *keys, struct via_error *err);

/* The key of @identity of @len bytes, or NULL. */
const struct control_key *control_keys_find(const struct control_keys *keys, const void *identity,
					    size_t len);

/* Overwrite the keys and free them. Accepts zeroed keys. */
void control_keys_wipe(struct control_keys *keys);

/* -- control_tls.c ------------------------------------------------------------ */

/*
 * Make @c speak TLS. The source proves that it has @own; the destination (@own is
 * NULL) takes any of @keys. The keys are not used after the return.
 *  -ETIMEDOUT, -ECANCELED, -EACCES, -EPROTO, -ECONNRESET, -ENOMEM
 */
int control_tls_start(struct via_control *c, const struct control_keys *keys,
		      const struct control_key *own, const struct via_wait *wait,
		      struct via_error *err);

/* As read(2) and write(2): bytes, 0 at the end; -EAGAIN; -ECONNRESET, -EACCES. */
ssize_t control_tls_read(struct via_control *c, void *buf, size_t len, struct via_error *err);
ssize_t control_tls_write(struct via_control *c, const void *buf, size_t len,
			  struct via_error *err);

/* Say goodbye as far as that goes without waiting, and free. Accepts a plain connection. */
void control_tls_end(struct via_control *c);

/* To a peer that speaks the other language: the alert that both kinds understand. */
void control_tls_refuse_plain(int fd);

#endif
