/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control.h -- the control connection: framed messages over TCP, inside TLS 1.3
 * with a pre-shared key or certificates, or in plain text on loopback or by explicit consent.
 *
 * Everything that opens memory to the peer (endpoint addresses, nonces, keys)
 * travels here and nowhere else. A frame is a fixed header and a payload
 * (docs/wire.md); what the payload means is messages.h.
 *
 * Threads: one thread at a time drives a connection (receive, flush, close).
 * via_control_post() alone may be called from any thread; it wakes the driver.
 */
#ifndef VIA_TRANSPORT_CONTROL_H
#define VIA_TRANSPORT_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "fabrics/fabric.h" /* struct via_wait */

#define VIA_CONTROL_PAYLOAD_MAX (4u << 20) /* bytes; a longer frame is refused unread */
#define VIA_CONTROL_HEADER_LEN  8u

/* How the two sides prove who they are. The strings belong to the caller. */
struct via_credentials {
	const char *psk_file;     /* QEMU's keys.psk format: lines "identity:hexkey"; NULL: none */
	const char *psk_identity; /* source: the line to use (NULL: the first) */
	/*
	 * Instead of psk_file: a folder in the layout of QEMU's tls-creds-x509, with ca-cert.pem,
	 * ca-crl.pem (may be missing) and at the destination server-cert.pem and server-key.pem,
	 * at the source client-cert.pem and client-key.pem. It is read for each connection.
	 */
	const char *tls_creds;
	/* Source: what the server's certificate must be for; NULL: the host that was named. */
	const char *tls_hostname;
	/*
	 * Destination: the client's distinguished name must match this as a whole: `*` stands for
	 * any bytes, `?` for one, every other byte for itself. The name is in GnuTLS's and QEMU's
	 * form, "C=GB,O=Example,CN=host". NULL: any client whose certificate is valid.
	 */
	const char *tls_authz_name;
	bool insecure; /* plain text to and from any address, not only loopback */
};

struct via_control;

/* One received frame. The payload belongs to the connection until the next receive. */
struct via_control_frame {
	uint16_t type; /* enum via_control_type of messages.h; not checked here */
	const uint8_t *payload;
	size_t len;
};

/*
 * Listen on @address: "HOST:PORT", "[IPV6]:PORT", ":PORT" or "PORT"; port 0 lets
 * the host choose; a host name is looked up, which may block. The descriptor is close-on-exec and
 * non-blocking; the caller closes it. An empty host means every address.
 *  -EINVAL malformed, -EADDRINUSE, -EADDRNOTAVAIL, -EHOSTUNREACH name not found, -EPERM, -EIO
 */
int via_control_listen(const char *address, int *listen_fd, struct via_error *err);

/* The address that @listen_fd really has, as "HOST:PORT" or "[IPV6]:PORT". 0 or -EIO. */
int via_control_listen_address(int listen_fd, char *buf, size_t cap);

/*
 * Accept one connection and finish its TLS handshake (with psk_file or tls_creds). A
 * peer that does not finish within @handshake_ns, sends garbage or has a wrong
 * key ends this call with its error; the listening descriptor stays usable.
 *  -ETIMEDOUT  @wait's deadline, nobody came; or the peer was silent
 *  -ECANCELED  @wait's descriptor became readable
 *  -EACCES     wrong key, unknown identity, a certificate of one side that the other does not
 *              take, or plain text from a peer that is not on loopback without @creds.insecure
 *  -EPROTO     the peer speaks TLS to a plain listener, plain text to a TLS
 *              one, or neither
 *  -ENOENT/-EPERM/-EINVAL  a key or certificate file is missing, unreadable, malformed or no
 *              good (expired, say), or both kinds are named
 */
int via_control_accept(int listen_fd, const struct via_credentials *creds,
		       const struct via_wait *wait, uint64_t handshake_ns,
		       struct via_control **control, struct via_error *err);

/*
 * Connect to @address and finish the TLS handshake. With certificates the peer's judgement of ours
 * comes later: as -EACCES from the first via_control_receive().
 *  -ECONNREFUSED, -EHOSTUNREACH, -ETIMEDOUT, -ECANCELED, -EACCES, -EPROTO, -EINVAL, -ENOENT
 */
int via_control_connect(const char *address, const struct via_credentials *creds,
			const struct via_wait *wait, struct via_control **control,
			struct via_error *err);

/*
 * Wrap a connected stream socket (AF_UNIX or TCP) without TLS: for tests and for one
 * host's own processes. The connection owns @fd from then on, also on failure.
 */
int via_control_wrap(int fd, struct via_control **control, struct via_error *err);

/*
 * Queue one frame, to be sent by the driver. Any thread; copies @payload; never blocks.
 *  -EMSGSIZE above VIA_CONTROL_PAYLOAD_MAX, -ENOMEM (more than 64 MiB queued: the
 *  peer does not read), -ECONNRESET the connection has failed
 */
int via_control_post(struct via_control *control, uint16_t type, const void *payload, size_t len);

/*
 * Send what is queued and wait for one whole frame.
 *  0            *frame is set
 *  -EAGAIN      @wait's deadline passed without one (the connection is fine; what
 *               was received of the next frame is kept)
 *  -ECANCELED   @wait's descriptor is readable
 *  -ECONNRESET  closed or lost (@err says by whom, when known)
 *  -EPROTO      header malformed or payload too long
 *  -EACCES      a TLS alert or a record that fails authentication
 * After any but the first three the connection is dead.
 */
int via_control_receive(struct via_control *control, const struct via_wait *wait,
			struct via_control_frame *frame, struct via_error *err);

/* Send all that is queued, no longer than @wait allows. Errors as above. */
int via_control_flush(struct via_control *control, const struct via_wait *wait,
		      struct via_error *err);

/* Close at once; what is still queued is dropped. Accepts NULL. */
void via_control_close(struct via_control *control);

/* Numeric address of this end and of the peer, without port; "" for AF_UNIX. Static while open. */
const char *via_control_local_host(const struct via_control *control);
const char *via_control_peer_host(const struct via_control *control);

/* "TLS 1.3, pre-shared key", "TLS 1.3, X.509" or "plain text": for the report. Static. */
const char *via_control_security(const struct via_control *control);

#endif
