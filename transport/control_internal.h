/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_internal.h -- what the files of the control connection share: control.c
 * (frames and waiting), control_accept.c (who comes in), control_socket.c (addresses and TCP), control_tls.c (records and
 * handshake), control_psk.c and control_x509.c (the two kinds of proof), and control_file.c.
 * Nobody else includes it.
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
#include "transport/frames.h"

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
	bool certificates;                /* the proof was by them, not by a key */
	bool client;                      /* of TLS */
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

/*
 * Read what has come of the first header; the source speaks first. 0 it is there and makes sense;
 * -EAGAIN not yet whole; else as via_control_receive().
 */
int control_read_header(struct via_control *c, struct via_error *err);

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

/* A connection that has come to @listen_fd. -EAGAIN it is gone again; -ENOMEM, -EIO */
int control_socket_accept(int listen_fd, int *fd, struct via_error *err);

/* Fill in the names of both ends from c->fd. -EIO when it is not a connected socket. */
int control_socket_names(struct via_control *c, struct via_error *err);

/*
 * The host that @address names, without the scope of an IPv6 address; "localhost" where it names
 * none. -EINVAL
 */
int control_socket_host(const char *address, char *host, size_t cap, struct via_error *err);

/* -- control_file.c ----------------------------------------------------------- */

struct control_file {
	const char *path, *kind, *remedy; /* the last two for messages */
	size_t max;                       /* bytes; a longer file is refused */
	bool secret;                      /* nobody else should be able to read it */
	uint8_t *text;                    /* len bytes and a NUL, in memory that is not dumped */
	size_t len;
};

/* Fill in text and len. -ENOENT, -EPERM, -EINVAL not a regular file or too long, -ENOMEM, -EIO */
int control_file_read(struct control_file *file, struct via_error *err);

/* Overwrite and free the text. */
void control_file_wipe(struct control_file *file);

/* -- proofs: what a side shows of itself, and by what it judges the other --------- */

struct control_key {
	const char *identity;
	const uint8_t *bytes;
	size_t len;
};

/* The keys of one file, in the order of its lines. */
struct control_keys {
	struct control_file file; /* identities and keys point into its text */
	struct control_key *key;
	size_t n; /* at least 1 when loaded */
};

struct control_x509;

/* Of one kind: keys.n is not 0, or x509 is set; for plain text neither. */
struct control_proof {
	bool client; /* the source */

	struct control_keys keys;
	const struct control_key *own;   /* source: the one that it shows */
	char stranger[CONTROL_HOST_LEN]; /* destination: an identity that is not in the file */
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;

	struct control_x509 *x509;
};

/* Is one asked for? Else it is plain text. */
bool control_has_proof(const struct via_credentials *creds);

/*
 * What the files hold now; nothing where none is asked for. @address: the source; NULL: the destination.
 * -ENOENT, -EPERM, -EINVAL, -ENOMEM, -EIO: see control_keys_load() and control_x509_load()
 */
int control_proof_load(const struct via_credentials *creds, const char *address,
		       struct control_proof *proof, struct via_error *err);

/* Overwrite and free. Accepts a zeroed proof. */
void control_proof_wipe(struct control_proof *proof);

/* -- control_psk.c ------------------------------------------------------------ */

/* Read @path (kept by the caller). -ENOENT, -EPERM, -EINVAL with the line, -ENOMEM, -EIO */
int control_keys_load(const char *path, struct control_keys *keys, struct via_error *err);

/* The key of @identity of @len bytes, or NULL. */
const struct control_key *control_keys_find(const struct control_keys *keys, const void *identity,
					    size_t len);

/* Overwrite the keys and free them. Accepts zeroed keys. */
void control_keys_wipe(struct control_keys *keys);

/* Have @session show and ask for keys. 0 or GnuTLS's error. Undone when @session has let go. */
int control_psk_use(struct control_proof *proof, gnutls_session_t session);
void control_psk_unuse(struct control_proof *proof);

/* -- control_x509.c ----------------------------------------------------------- */

/*
 * Read and check what this side has in creds->tls_creds. @address: the source's, the server's
 * certificate must be for its host; NULL: the destination.
 *  -ENOENT, -EPERM, -EINVAL a file is missing, unreadable, malformed, or does not fit the others,
 *  or the own certificate is expired, not valid yet, revoked, for another purpose or by somebody
 *  else; -ENOMEM
 */
int control_x509_load(const struct via_credentials *creds, const char *address,
		      struct control_x509 **x509, struct via_error *err);

/* Overwrite the key and free. Accepts NULL. */
void control_x509_free(struct control_x509 *x509);

/* Have @session show and ask for certificates, and judge what comes. 0 or GnuTLS's error. */
int control_x509_use(struct control_x509 *x509, gnutls_session_t session);

/*
 * Why the peer's certificate was refused: its code, and *alert for the peer. 0 when it was not.
 * @peer: for the message.
 */
int control_x509_refused(const struct control_x509 *x509, const char *peer,
			 gnutls_alert_description_t *alert, struct via_error *err);

/*
 * The peer's @alert means that it refuses the certificate of this side, which is the @client or
 * not: -EACCES in words. 0 when it means something else.
 */
int control_x509_alert(bool client, const char *peer, gnutls_alert_description_t alert,
		       struct via_error *err);

/* -- control_tls.c ------------------------------------------------------------ */

/*
 * Make @c speak TLS, with @proof, which is not used after the return.
 *  -ETIMEDOUT, -ECANCELED, -EACCES, -EPROTO, -ECONNRESET, -ENOMEM
 */
int control_tls_start(struct via_control *c, struct control_proof *proof,
		      const struct via_wait *wait, struct via_error *err);

/*
 * The same without waiting: once control_tls_begin(), then control_tls_step() whenever the socket
 * has one of control_tls_events(), until it returns something else than -EAGAIN. @proof stays where it is
 * until then, or until control_tls_give_up(), which says why: @rc is -EAGAIN for too late, or
 * -ECANCELED.
 */
int control_tls_begin(struct via_control *c, struct control_proof *proof, struct via_error *err);
int control_tls_step(struct via_control *c, struct control_proof *proof, struct via_error *err);
short control_tls_events(const struct via_control *c);
int control_tls_give_up(struct via_control *c, struct control_proof *proof, int rc,
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
