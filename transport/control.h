/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control.h -- the control connection: TCP, inside TLS 1.3 with a pre-shared key or certificates,
 * or in plain text on loopback or by explicit consent.
 *
 * Everything that opens memory to the peer (endpoint addresses, nonces, keys) travels here and
 * nowhere else. via_session_connect() and via_session_accept() make a connection of their own; who
 * makes it here, to look at it or to bring a socket along, gives it to a session with
 * via_session_connect_control() or via_session_accept_control().
 *
 * Threads: any, one at a time for each connection. What waits ends by its deadline and by its
 * descriptor.
 */
#ifndef VIA_TRANSPORT_CONTROL_H
#define VIA_TRANSPORT_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/error.h"

#ifdef __cplusplus
extern "C" {
#endif

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

/*
 * Listen for a source.
 *
 * @address is "HOST:PORT", "[IPV6]:PORT", ":PORT" or "PORT". Port 0 lets the host choose; an empty
 * host means every address; a name is looked up, which may block. *@listen_fd is close-on-exec and
 * non-blocking, and the caller's to close.
 *
 *  -EINVAL         the address is malformed
 *  -EADDRINUSE     somebody listens there already
 *  -EADDRNOTAVAIL  it is not an address of this host
 *  -EHOSTUNREACH   the name is not found
 *  -EPERM          a port below 1024 without the right to it
 *  -ENOMEM, -EIO   what the system says, in @err
 */
int via_control_listen(const char *address, int *listen_fd, struct via_error *err);

/*
 * The address that a listening descriptor really has: where port 0 has become a number.
 *
 * Writes "HOST:PORT" or "[IPV6]:PORT" into @buf of @cap bytes; 64 are always enough. Does not
 * block.
 *
 *  -EIO  @listen_fd is no such descriptor
 */
int via_control_listen_address(int listen_fd, char *buf, size_t cap);

/*
 * Accept one connection and finish its TLS handshake.
 *
 * There is one where @creds names a key or certificates. A peer that does not finish within
 * @handshake_ns, sends garbage or has a wrong key ends this call with its error; @listen_fd stays
 * usable. *@control is the caller's, until it is closed or given to a session.
 *
 *  -ETIMEDOUT  @wait's deadline, nobody came; or the peer was silent
 *  -ECANCELED  @wait's descriptor became readable
 *  -EACCES     wrong key, unknown identity, a certificate of one side that the other does not
 *              take, or plain text from a peer that is not on loopback, without creds.insecure
 *  -EPROTO     the peer speaks TLS to a plain listener, plain text to a TLS
 *              one, or neither
 *  -ENOENT     a key or certificate file is missing
 *  -EPERM      such a file cannot be read, or the system forbids the connection
 *  -EINVAL     such a file is malformed or no good (expired, say), or both kinds are named
 *  -ECONNRESET  the peer has gone
 *  -ENOMEM, -EIO  what the system says, in @err
 */
int via_control_accept(int listen_fd, const struct via_credentials *creds,
		       const struct via_wait *wait, uint64_t handshake_ns,
		       struct via_control **control, struct via_error *err);

/*
 * Connect to a destination and finish the TLS handshake.
 *
 * @address is "HOST:PORT" or "[IPV6]:PORT". With certificates the peer's judgement of ours comes
 * later: as -EACCES of the session's handshake. *@control is the caller's, until it is closed or
 * given to a session.
 *
 *  -ECONNREFUSED  nobody listens there
 *  -EHOSTUNREACH  no route, or the name is not found
 *  -ETIMEDOUT     @wait's deadline: the host or the peer is silent
 *  -ECANCELED     @wait's descriptor became readable
 *  -EACCES        wrong key, unknown identity, or plain text to a host that is not on loopback,
 *                 without creds.insecure
 *  -EPROTO        the peer speaks TLS where plain text was meant, the other way round, or neither
 *  -EINVAL        @address is malformed; a key or certificate file is malformed or no good
 *  -ENOENT        a key or certificate file is missing
 *  -EPERM         such a file cannot be read, or this host's firewall forbids the connection
 *  -ECONNRESET    the peer has gone
 *  -ENOMEM, -EIO  what the system says, in @err
 */
int via_control_connect(const char *address, const struct via_credentials *creds,
			const struct via_wait *wait, struct via_control **control,
			struct via_error *err);

/*
 * Make a connection of a connected stream socket, without TLS.
 *
 * For processes of one host (AF_UNIX), for a TCP socket that somebody else has made secure, and for
 * tests. The connection owns @fd from then on, also on failure. Does not block.
 *
 *  -ECONNRESET    @fd is not connected any more
 *  -ENOMEM, -EIO  no memory or no more descriptors; @fd is no socket
 */
int via_control_wrap(int fd, struct via_control **control, struct via_error *err);

/* Close a connection that no session owns, at once. Accepts NULL. */
void via_control_close(struct via_control *control);

/*
 * The numeric address of this end, or of the peer, without its port.
 *
 * Returns "" for AF_UNIX. Lives as long as the connection.
 */
const char *via_control_local_host(const struct via_control *control);
const char *via_control_peer_host(const struct via_control *control);

/*
 * How a connection is protected, for people to read.
 *
 * Returns "TLS 1.3, pre-shared key", "TLS 1.3, X.509" or "plain text". Static.
 */
const char *via_control_security(const struct via_control *control);

#ifdef __cplusplus
}
#endif

#endif
