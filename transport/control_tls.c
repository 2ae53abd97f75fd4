/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_tls.c -- TLS 1.3 with a pre-shared key for the control connection (GnuTLS).
 *
 * Must never fall back to anything weaker: no certificate, no older version, no
 * exchange without Diffie-Hellman; must never raise SIGPIPE, block, or tell
 * the peer which identities exist.
 *
 * Invariant: a connection whose tls is set has finished a handshake that was
 * proved with a key of the file; the key itself is gone by then.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "transport/control_internal.h"

/* Both sides: no certificate can be asked for, so that without the key there is no session. */
static const char priority[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK";

#define SAME_KEY "give both sides the same key file with --psk"

/* What GnuTLS's callbacks need while a handshake lasts. */
struct handshake {
	const struct control_keys *keys;
	const struct control_key *own;   /* NULL: the destination */
	char stranger[CONTROL_HOST_LEN]; /* the identity that was asked for and is not there */
};

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

/* -- keys ----------------------------------------------------------------------- */

/* A copy that GnuTLS overwrites and frees. 0 or -1. */
static int give(gnutls_datum_t *to, const void *bytes, size_t len)
{
	to->data = gnutls_malloc(len);
	if (!to->data)
		return -1;
	memcpy(to->data, bytes, len);
	to->size = (unsigned)len;
	return 0;
}

static int on_server_key(gnutls_session_t session, const gnutls_datum_t *identity,
			 gnutls_datum_t *key)
{
	struct handshake *h = gnutls_session_get_ptr(session);
	const struct control_key *found =
		control_keys_find(h->keys, identity->data, identity->size);
	size_t n = identity->size < sizeof(h->stranger) ? identity->size : sizeof(h->stranger) - 1;

	if (found)
		return give(key, found->bytes, found->len);
	/*
	 * 1 makes GnuTLS go on with a random key, so that the peer cannot tell an unknown
	 * identity from a wrong key. Our own user may know.
	 */
	for (size_t i = 0; i < n; i++)
		h->stranger[i] = identity->data[i] < 0x20 || identity->data[i] >= 0x7f
					 ? '?'
					 : (char)identity->data[i];
	h->stranger[n] = '\0';
	return 1;
}

static int on_client_key(gnutls_session_t session, gnutls_datum_t *identity, gnutls_datum_t *key)
{
	struct handshake *h = gnutls_session_get_ptr(session);

	if (give(identity, h->own->identity, strlen(h->own->identity)))
		return -1;
	if (!give(key, h->own->bytes, h->own->len))
		return 0;
	gnutls_free(identity->data);
	return -1;
}

/* Both kinds of credentials, of which one is used. */
struct credentials {
	gnutls_psk_client_credentials_t client;
	gnutls_psk_server_credentials_t server;
};

static int credentials_init(struct credentials *creds, gnutls_session_t session, bool client)
{
	int ret = client ? gnutls_psk_allocate_client_credentials(&creds->client)
			 : gnutls_psk_allocate_server_credentials(&creds->server);

	if (ret < 0)
		return ret;
	if (client) {
		gnutls_psk_set_client_credentials_function2(creds->client, on_client_key);
		return gnutls_credentials_set(session, GNUTLS_CRD_PSK, creds->client);
	}
	gnutls_psk_set_server_credentials_function2(creds->server, on_server_key);
	return gnutls_credentials_set(session, GNUTLS_CRD_PSK, creds->server);
}

static void credentials_fini(struct credentials *creds, gnutls_session_t session)
{
	gnutls_credentials_clear(session);
	if (creds->client)
		gnutls_psk_free_client_credentials(creds->client);
	if (creds->server)
		gnutls_psk_free_server_credentials(creds->server);
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

static int failed_by_alert(const struct via_control *c, const struct handshake *h, int alert,
			   struct via_error *err)
{
	const char *name = gnutls_alert_get_name((gnutls_alert_description_t)alert);

	if (!name)
		name = "unknown";
	/* What a plain listener answers (control_tls_refuse_plain), and no TLS server would. */
	if (alert == GNUTLS_A_UNEXPECTED_MESSAGE && h->own)
		return via_fail(err, -EPROTO,
				"TLS handshake with %s\nthe peer has no key and listens in plain "
				"text\n" SAME_KEY,
				c->peer);
	if (alert == GNUTLS_A_PROTOCOL_VERSION || alert == GNUTLS_A_HANDSHAKE_FAILURE)
		return via_fail(err, -EPROTO,
				"TLS handshake with %s\nthe peer refused it: alert \"%s\"\n"
				"both sides need TLS 1.3 with pre-shared keys",
				c->peer, name);
	return via_fail(err, -EACCES,
			"TLS handshake with %s\nthe peer refused the key of `%s`: alert \"%s\"\n"
			"compare the key files of the two hosts: same identity, same key",
			c->peer, h->own ? h->own->identity : "?", name);
}

static int failed_by_key(const struct via_control *c, const struct handshake *h,
			 struct via_error *err)
{
	if (h->stranger[0])
		return via_fail(err, -EACCES,
				"TLS handshake with %s\nthe peer's identity `%s` is not in %s\n"
				"add its line to that file, or pass --psk-identity at the peer",
				c->peer, h->stranger, h->keys->path);
	return via_fail(err, -EACCES,
			"TLS handshake with %s\nthe peer's key is not the one in %s\n"
			"compare the key files of the two hosts: same identity, same key",
			c->peer, h->keys->path);
}

/* Turn what GnuTLS says into an error, and let the peer know as far as it can. */
static int failed(struct via_control *c, const struct handshake *h, int ret, struct via_error *err)
{
	if (c->first_len && !speaks_tls(c)) {
		(void)gnutls_alert_send(c->tls, GNUTLS_AL_FATAL, GNUTLS_A_UNEXPECTED_MESSAGE);
		return failed_without_tls(c, err);
	}
	switch (ret) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return failed_by_alert(c, h, (int)gnutls_alert_get(c->tls), err);
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return via_fail(err, -ECONNRESET,
				"TLS handshake with %s\nthe peer closed the connection\n"
				"see why at the peer, and " SAME_KEY,
				c->peer);
	case GNUTLS_E_MEMORY_ERROR:
		return via_fail(err, -ENOMEM, "TLS handshake with %s\nout of memory\nfree some",
				c->peer);
	}
	(void)gnutls_alert_send_appropriate(c->tls, ret);
	switch (ret) {
	case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER: /* GnuTLS's name for a wrong PSK binder */
	case GNUTLS_E_DECRYPTION_FAILED:
	case GNUTLS_E_ERROR_IN_FINISHED_PACKET:
		return failed_by_key(c, h, err);
	}
	return via_fail(err, -EPROTO,
			"TLS handshake with %s\n%s\n"
			"both sides need TLS 1.3 with pre-shared keys",
			c->peer, gnutls_strerror(ret));
}

static int failed_in_time(struct via_control *c, const struct handshake *h, int rc,
			  struct via_error *err)
{
	if (rc == -EAGAIN && c->first_len && !speaks_tls(c))
		return failed(c, h, GNUTLS_E_UNEXPECTED_PACKET, err);
	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT,
				"TLS handshake with %s\nthe peer was silent until the deadline\n"
				"check that Viaduct listens there and that the host is not stuck",
				c->peer);
	return via_fail(err, rc, "TLS handshake with %s\n%s\nstart it again", c->peer,
			via_err_text(rc));
}

static int run(struct via_control *c, const struct handshake *h, const struct via_wait *wait,
	       struct via_error *err)
{
	int ret, rc;

	for (;;) {
		ret = gnutls_handshake(c->tls);
		if (ret == GNUTLS_E_SUCCESS)
			return 0;
		if (ret != GNUTLS_E_AGAIN && gnutls_error_is_fatal(ret))
			return failed(c, h, ret, err);
		if (ret != GNUTLS_E_AGAIN)
			continue;
		rc = control_poll(c->fd, gnutls_record_get_direction(c->tls) ? POLLOUT : POLLIN, -1,
				  wait);
		if (rc)
			return failed_in_time(c, h, rc, err);
	}
}

/* The priority string allows nothing else. Checked all the same: everything stands on it. */
static bool is_strong(gnutls_session_t session)
{
	gnutls_kx_algorithm_t kx = gnutls_kx_get(session);

	return gnutls_protocol_get_version(session) == GNUTLS_TLS1_3 &&
	       gnutls_auth_get_type(session) == GNUTLS_CRD_PSK &&
	       (kx == GNUTLS_KX_ECDHE_PSK || kx == GNUTLS_KX_DHE_PSK);
}

static int begin(struct via_control *c, struct handshake *h, struct credentials *creds)
{
	int ret = gnutls_init(&c->tls, (h->own ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NONBLOCK |
					       GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);

	if (ret < 0) {
		c->tls = NULL;
		return ret;
	}
	gnutls_session_set_ptr(c->tls, h);
	gnutls_transport_set_ptr(c->tls, c);
	gnutls_transport_set_pull_function(c->tls, pull);
	gnutls_transport_set_push_function(c->tls, push);
	ret = gnutls_priority_set_direct(c->tls, priority, NULL);
	return ret < 0 ? ret : credentials_init(creds, c->tls, h->own);
}

int control_tls_start(struct via_control *c, const struct control_keys *keys,
		      const struct control_key *own, const struct via_wait *wait,
		      struct via_error *err)
{
	struct handshake h = {.keys = keys, .own = own};
	struct credentials creds = {0};
	int rc = begin(c, &h, &creds);

	if (rc < 0)
		rc = via_fail(err, rc == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EIO,
			      "start TLS with %s\n%s\ncheck the installation of GnuTLS (3.7 or "
			      "later) and the system's crypto policy",
			      c->peer, gnutls_strerror(rc));
	else
		rc = run(c, &h, wait, err);
	if (!rc && !is_strong(c->tls))
		rc = via_fail(err, -EACCES,
			      "TLS handshake with %s\nnot TLS 1.3 with a pre-shared key\n"
			      "check the system's crypto policy",
			      c->peer);
	if (c->tls) {
		credentials_fini(&creds, c->tls);
		gnutls_session_set_ptr(c->tls, NULL);
	}
	if (rc)
		c->broken = true; /* and not worth a goodbye */
	else
		via_log("control: TLS with %s, %s", c->peer,
			gnutls_cipher_get_name(gnutls_cipher_get(c->tls)));
	return rc;
}

/* -- records -------------------------------------------------------------------- */

/* What a failed read or write means. @errnum: errno, for failures of the socket. */
static int record_failed(struct via_control *c, int ret, int errnum, struct via_error *err)
{
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
		return via_fail(err, -EACCES,
				"control connection with %s\nTLS alert of the peer: %s\n"
				"start it again; see the peer's own error",
				c->peer, gnutls_alert_get_name(gnutls_alert_get(c->tls)));
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
