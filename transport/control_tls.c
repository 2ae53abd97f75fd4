/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_tls.c -- TLS 1.3 for the control connection (GnuTLS), proved with a pre-shared key or
 * with certificates of both sides.
 *
 * Must never fall back to anything weaker: no older version, no exchange without
 * Diffie-Hellman, no peer without proof, no other kind of proof than the one at hand; must never
 * raise SIGPIPE, block, or tell the peer which identities exist.
 *
 * Invariant: a connection whose tls is set has finished a handshake in which each side
 * proved who it is; the key itself is gone by then.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "transport/control_internal.h"

/* The other kind of proof cannot be asked for, so that without this one there is no session. */
static const char with_key[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK";
static const char with_certificates[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3";

#define SAME_KEY   "give both sides the same key file with --psk"
#define SAME_PROOF "give both sides --psk, or both --tls-creds"

/* -- transport ---------------------------------------------------------------- */

static ssize_t pull(gnutls_transport_ptr_t arg, void *buf, size_t len)
{
	struct via_control *c = arg;
	ssize_t n = recv(c->fd, buf, len, 0);

	/* Kept to tell a wrong key from a peer that does not speak TLS at all. */
	for (ssize_t i = 0; i < n && c->first_len < sizeof(c->first); i++)
		c->first[c->first_len++] = ((const uint8_t *)buf)[i];
	return n;
}

static ssize_t push(gnutls_transport_ptr_t arg, const void *buf, size_t len)
{
	struct via_control *c = arg;

	return send(c->fd, buf, len, MSG_NOSIGNAL);
}

/* -- handshake ------------------------------------------------------------------ */

/* Could @c's peer be speaking TLS, from its first bytes? */
static bool speaks_tls(const struct via_control *c)
{
	if (c->first_len >= 1 && c->first[0] != 0x15 && c->first[0] != 0x16)
		return false;
	return c->first_len < 2 || c->first[1] == 0x03;
}

static int failed_without_tls(const struct via_control *c, struct via_error *err)
{
	char hex[CONTROL_HEX_LEN];

	if (c->first[0] == 0)
		return via_fail(err, -EPROTO,
				"TLS handshake with %s\n"
				"the peer speaks plain text and this side has a key\n" SAME_KEY,
				c->peer);
	return via_fail(err, -EPROTO,
			"TLS handshake with %s\nit begins with %s, which is neither TLS nor "
			"Viaduct\ncheck that the address and the port are Viaduct's",
			c->peer, control_hex(c->first, c->first_len, hex));
}

/* What the peer says is wrong, with the proof that this side has shown. */
static int failed_by_alert(const struct via_control *c, const struct control_proof *proof,
			   gnutls_alert_description_t alert, struct via_error *err)
{
	const char *name = gnutls_alert_get_name(alert);
	int rc;

	if (!name)
		name = "unknown";
	/* What a plain listener answers (control_tls_refuse_plain), and no TLS server would. */
	if (alert == GNUTLS_A_UNEXPECTED_MESSAGE && proof->client)
		return via_fail(err, -EPROTO,
				"TLS handshake with %s\nthe peer has no key and listens in plain "
				"text\n%s",
				c->peer, proof->x509 ? SAME_PROOF : SAME_KEY);
	if (alert == GNUTLS_A_PROTOCOL_VERSION || alert == GNUTLS_A_HANDSHAKE_FAILURE ||
	    alert == GNUTLS_A_MISSING_EXTENSION)
		return via_fail(err, -EPROTO,
				"TLS handshake with %s\nthe peer refused it: alert \"%s\"\n"
				"both sides need TLS 1.3; " SAME_PROOF,
				c->peer, name);
	rc = proof->x509 ? control_x509_alert(proof->client, c->peer, alert, err) : 0;
	if (rc)
		return rc;
	if (proof->x509)
		return via_fail(err, -EACCES,
				"TLS handshake with %s\nthe peer refused it: alert \"%s\"\n"
				"see the peer's own error",
				c->peer, name);
	return via_fail(err, -EACCES,
			"TLS handshake with %s\nthe peer refused the key of `%s`: alert \"%s\"\n"
			"compare the key files of the two hosts: same identity, same key",
			c->peer, proof->own ? proof->own->identity : "?", name);
}

static int failed_by_key(const struct via_control *c, const struct control_proof *proof,
			 struct via_error *err)
{
	if (proof->stranger[0])
		return via_fail(err, -EACCES,
				"TLS handshake with %s\nthe peer's identity `%s` is not in %s\n"
				"add its line to that file, or pass --psk-identity at the peer",
				c->peer, proof->stranger, proof->keys.file.path);
	return via_fail(err, -EACCES,
			"TLS handshake with %s\nthe peer's key is not the one in %s\n"
			"compare the key files of the two hosts: same identity, same key",
			c->peer, proof->keys.file.path);
}

/* The peer's certificate is not to our liking: it is told, and then our user. 0: it was not that. */
static int failed_by_certificate(struct via_control *c, const struct control_proof *proof, int ret,
				 struct via_error *err)
{
	gnutls_alert_description_t alert = GNUTLS_A_BAD_CERTIFICATE;
	int rc = control_x509_refused(proof->x509, c->peer, &alert, err);

	if (!rc && (ret == GNUTLS_E_CERTIFICATE_REQUIRED || ret == GNUTLS_E_NO_CERTIFICATE_FOUND)) {
		alert = GNUTLS_A_CERTIFICATE_REQUIRED;
		rc = via_fail(
			err, -EACCES,
			"TLS handshake with %s\nthe peer has shown no certificate\n" SAME_PROOF,
			c->peer);
	}
	if (!rc && ret == GNUTLS_E_KEY_USAGE_VIOLATION) {
		alert = GNUTLS_A_UNSUPPORTED_CERTIFICATE;
		rc = via_fail(
			err, -EACCES,
			"TLS handshake with %s\nthe peer's certificate is not for signing (its "
			"key usage)\ngive the peer one with the key usage digitalSignature",
			c->peer);
	}
	if (rc)
		(void)gnutls_alert_send(c->tls, GNUTLS_AL_FATAL, alert);
	return rc;
}

/* Turn what GnuTLS says into an error, and let the peer know as far as it can. */
static int failed(struct via_control *c, const struct control_proof *proof, int ret,
		  struct via_error *err)
{
	int rc;

	if (c->first_len && !speaks_tls(c)) {
		(void)gnutls_alert_send(c->tls, GNUTLS_AL_FATAL, GNUTLS_A_UNEXPECTED_MESSAGE);
		return failed_without_tls(c, err);
	}
	switch (ret) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return failed_by_alert(c, proof, gnutls_alert_get(c->tls), err);
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return via_fail(err, -ECONNRESET,
				"TLS handshake with %s\nthe peer closed the connection\n"
				"see why at the peer, and %s",
				c->peer, proof->x509 ? SAME_PROOF : SAME_KEY);
	case GNUTLS_E_MEMORY_ERROR:
		return via_fail(err, -ENOMEM, "TLS handshake with %s\nout of memory\nfree some",
				c->peer);
	}
	rc = proof->x509 ? failed_by_certificate(c, proof, ret, err) : 0;
	if (rc)
		return rc;
	(void)gnutls_alert_send_appropriate(c->tls, ret);
	switch (proof->x509 ? 0 : ret) {
	case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER: /* GnuTLS's name for a wrong PSK binder */
	case GNUTLS_E_DECRYPTION_FAILED:
	case GNUTLS_E_ERROR_IN_FINISHED_PACKET:
		return failed_by_key(c, proof, err);
	}
	return via_fail(err, -EPROTO,
			"TLS handshake with %s\n%s\n"
			"both sides need TLS 1.3; " SAME_PROOF,
			c->peer, gnutls_strerror(ret));
}

static int failed_in_time(struct via_control *c, const struct control_proof *proof, int rc,
			  struct via_error *err)
{
	if (rc == -EAGAIN && c->first_len && !speaks_tls(c))
		return failed(c, proof, GNUTLS_E_UNEXPECTED_PACKET, err);
	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT,
				"TLS handshake with %s\nthe peer was silent until the deadline\n"
				"check that Viaduct listens there and that the host is not stuck",
				c->peer);
	return via_fail(err, rc, "TLS handshake with %s\n%s\nstart it again", c->peer,
			via_err_text(rc));
}

/* The priority string allows nothing else. Checked all the same: everything stands on it. */
static bool is_strong(gnutls_session_t session, const struct control_proof *proof)
{
	gnutls_kx_algorithm_t kx = gnutls_kx_get(session);
	unsigned n = 0;

	if (gnutls_protocol_get_version(session) != GNUTLS_TLS1_3)
		return false;
	if (!proof->x509)
		return gnutls_auth_get_type(session) == GNUTLS_CRD_PSK &&
		       (kx == GNUTLS_KX_ECDHE_PSK || kx == GNUTLS_KX_DHE_PSK);
	return gnutls_auth_get_type(session) == GNUTLS_CRD_CERTIFICATE &&
	       gnutls_certificate_get_peers(session, &n) && n;
}

static int set_up(struct via_control *c, struct control_proof *proof)
{
	int ret = gnutls_init(&c->tls, (proof->client ? GNUTLS_CLIENT : GNUTLS_SERVER) |
					       GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL |
					       GNUTLS_NO_TICKETS);

	if (ret < 0) {
		c->tls = NULL;
		return ret;
	}
	c->certificates = proof->x509;
	c->client = proof->client;
	gnutls_session_set_ptr(c->tls, proof);
	gnutls_transport_set_ptr(c->tls, c);
	gnutls_transport_set_pull_function(c->tls, pull);
	gnutls_transport_set_push_function(c->tls, push);
	ret = gnutls_priority_set_direct(c->tls, proof->x509 ? with_certificates : with_key, NULL);
	if (ret < 0)
		return ret;
	return proof->x509 ? control_x509_use(proof->x509, c->tls) : control_psk_use(proof, c->tls);
}

/* The handshake is over, as @rc says; the proof is used no more. */
static int end(struct via_control *c, struct control_proof *proof, int rc, struct via_error *err)
{
	if (!rc && !is_strong(c->tls, proof))
		rc = via_fail(err, -EACCES,
			      "TLS handshake with %s\nnot TLS 1.3 with a proof of both sides\n"
			      "check the system's crypto policy",
			      c->peer);
	if (c->tls) {
		gnutls_credentials_clear(c->tls);
		gnutls_session_set_ptr(c->tls, NULL);
	}
	control_psk_unuse(proof);
	if (rc)
		c->broken = true; /* and not worth a goodbye */
	else
		via_log("control: TLS with %s, %s", c->peer,
			gnutls_cipher_get_name(gnutls_cipher_get(c->tls)));
	return rc;
}

int control_tls_begin(struct via_control *c, struct control_proof *proof, struct via_error *err)
{
	int ret = set_up(c, proof);

	if (ret >= 0)
		return 0;
	via_fail(err, ret == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EIO,
		 "start TLS with %s\n%s\ncheck the installation of GnuTLS (3.7 or later) and the "
		 "system's crypto policy",
		 c->peer, gnutls_strerror(ret));
	return end(c, proof, ret == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EIO, NULL);
}

int control_tls_step(struct via_control *c, struct control_proof *proof, struct via_error *err)
{
	int ret;

	do {
		ret = gnutls_handshake(c->tls);
		if (ret == GNUTLS_E_AGAIN)
			return -EAGAIN;
	} while (ret && !gnutls_error_is_fatal(ret));
	return end(c, proof, ret ? failed(c, proof, ret, err) : 0, err);
}

short control_tls_events(const struct via_control *c)
{
	return c->tls && gnutls_record_get_direction(c->tls) ? POLLOUT : POLLIN;
}

int control_tls_give_up(struct via_control *c, struct control_proof *proof, int rc,
			struct via_error *err)
{
	return end(c, proof, failed_in_time(c, proof, rc, err), NULL);
}

int control_tls_start(struct via_control *c, struct control_proof *proof,
		      const struct via_wait *wait, struct via_error *err)
{
	int rc = control_tls_begin(c, proof, err);

	if (rc)
		return rc;
	while ((rc = control_tls_step(c, proof, err)) == -EAGAIN) {
		rc = control_poll(c->fd, control_tls_events(c), -1, wait);
		if (rc)
			return control_tls_give_up(c, proof, rc, err);
	}
	return rc;
}

/* -- records -------------------------------------------------------------------- */

/* What a failed read or write means. @errnum: errno, for failures of the socket. */
static int record_failed(struct via_control *c, int ret, int errnum, struct via_error *err)
{
	gnutls_alert_description_t alert = gnutls_alert_get(c->tls);
	int rc = 0;

	switch (ret) {
	case GNUTLS_E_PREMATURE_TERMINATION:
		return via_fail(err, -ECONNRESET,
				"control connection with %s\nclosed by the peer without a word\n"
				"see why at the peer: it has died or was stopped",
				c->peer);
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
	case GNUTLS_E_INVALID_SESSION:
		return via_fail(err, -ECONNRESET,
				"control connection with %s\n%s\ncheck the peer and the network",
				c->peer, errnum ? strerror(errnum) : gnutls_strerror(ret));
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		/* A client's part of the handshake is over before the server has judged it. */
		if (c->certificates)
			rc = control_x509_alert(c->client, c->peer, alert, err);
		if (rc)
			return rc;
		return via_fail(err, -EACCES,
				"control connection with %s\nTLS alert of the peer: %s\n"
				"start it again; see the peer's own error",
				c->peer, gnutls_alert_get_name(alert));
	default:
		return via_fail(err, -EACCES,
				"control connection with %s\n%s\n"
				"something on the way changes the bytes: check the network",
				c->peer, gnutls_strerror(ret));
	}
}

/* -EAGAIN; 1: call again; else the error. */
static int after(struct via_control *c, ssize_t ret, int errnum, struct via_error *err)
{
	if (ret == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (!gnutls_error_is_fatal((int)ret))
		return 1; /* interrupted, or a warning */
	return record_failed(c, (int)ret, errnum, err);
}

ssize_t control_tls_read(struct via_control *c, void *buf, size_t len, struct via_error *err)
{
	ssize_t n;
	int rc;

	do {
		errno = 0;
		n = gnutls_record_recv(c->tls, buf, len);
		if (n >= 0)
			return n;
		rc = after(c, n, errno, err);
	} while (rc > 0);
	return rc;
}

ssize_t control_tls_write(struct via_control *c, const void *buf, size_t len, struct via_error *err)
{
	ssize_t n;
	int rc;

	/* After GNUTLS_E_AGAIN the same bytes must come again: the queue sees to that. */
	do {
		errno = 0;
		n = gnutls_record_send(c->tls, buf, len);
		if (n >= 0)
			return n;
		rc = after(c, n, errno, err);
	} while (rc > 0);
	return rc;
}

void control_tls_end(struct via_control *c)
{
	if (!c->tls)
		return;
	if (!c->broken)
		(void)gnutls_bye(c->tls, GNUTLS_SHUT_WR);
	gnutls_deinit(c->tls);
	c->tls = NULL;
}

void control_tls_refuse_plain(int fd)
{
	/* A TLS record in the clear: alert, version 1.2 on the wire, fatal unexpected_message. */
	static const uint8_t alert[] = {0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a};
	uint8_t drop[4096];

	(void)send(fd, alert, sizeof(alert), MSG_NOSIGNAL);
	/* Bytes left unread would make close() reset the connection, perhaps past the alert. */
	(void)recv(fd, drop, sizeof(drop), MSG_DONTWAIT);
}
