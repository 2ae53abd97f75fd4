/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_x509.c -- certificates for the control connection, in the layout of QEMU's
 * tls-creds-x509, and the judgement of the peer's.
 *
 * Must never let a peer in for less than all of: signed by an authority of ca-cert.pem, in its
 * time, not revoked, made for its side of TLS, and of the name that was asked for. Must never
 * leave a copy of the own key behind.
 *
 * Invariant: what is asked of the peer's certificate was asked of the own one before, so that
 * who is misconfigured reads it on its own host.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gnutls/x509.h>

#include "core/log.h"
#include "transport/control_internal.h"

#define PEM_MAX   (256u << 10)
#define CRL_MAX   (16u << 20)
#define CHAIN_MAX 16u
#define PATH_LEN  512u
#define HOST_LEN  256u
#define DN_LEN    128u /* as much as a message has room for */
#define TIME_LEN  32u

static const char layout[] = "put it there, as for QEMU's tls-creds-x509";
static const char make_another[] = "make another with certtool";

struct control_x509 {
	const char *dir;
	const char *allowed; /* destination: pattern of names; NULL: all */
	bool client;
	char host[HOST_LEN]; /* source: the server's certificate must be for it */
	char path[PATH_LEN]; /* of the file at hand */
	gnutls_x509_trust_list_t trusted;
	gnutls_certificate_credentials_t creds;
	/* why the peer was refused: seen and remedy */
	struct via_error refused;
	gnutls_alert_description_t alert;
};

/* -- names and times -------------------------------------------------------------- */

/* The subject in QEMU's form, fit for a terminal. */
static void subject_of(gnutls_x509_crt_t cert, char dn[DN_LEN])
{
	gnutls_datum_t text = {0};
	size_t n = 0;

	if (!gnutls_x509_crt_get_dn2(cert, &text))
		for (; n < text.size && n < DN_LEN - 1; n++)
			dn[n] = text.data[n] < 0x20 || text.data[n] == 0x7f ? '?'
									    : (char)text.data[n];
	dn[n] = '\0';
	gnutls_free(text.data);
}

static const char *show_time(time_t when, char buf[TIME_LEN])
{
	struct tm tm;

	if (!gmtime_r(&when, &tm) || !strftime(buf, TIME_LEN, "%Y-%m-%d %H:%M UTC", &tm))
		snprintf(buf, TIME_LEN, "?");
	return buf;
}

/* `*` any bytes, `?` one, every other byte itself; from the first to the last. */
static bool matches(const char *pattern, const char *text)
{
	const char *star = NULL, *resume = NULL;

	while (*text) {
		if (*pattern == '*') {
			star = ++pattern;
			resume = text;
		} else if (*pattern == '?' || *pattern == *text) {
			pattern++;
			text++;
		} else if (star) { /* let the last star stand for one byte more */
			pattern = star;
			text = ++resume;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

static bool is_allowed(const struct control_x509 *x, gnutls_x509_crt_t cert)
{
	gnutls_datum_t dn = {0};
	bool allowed;

	if (!x->allowed)
		return true;
	/* No name, or one with a NUL in it, is nobody's. */
	allowed = !gnutls_x509_crt_get_dn2(cert, &dn) && dn.size == strlen((char *)dn.data) &&
		  matches(x->allowed, (char *)dn.data);
	gnutls_free(dn.data);
	return allowed;
}

/* -- the judgement ------------------------------------------------------------------ */

struct fault {
	unsigned status; /* of GnuTLS */
	gnutls_alert_description_t alert;
	const char *seen, *remedy;
};

/* The first that applies is told: where several do, it is the cause of the others. */
static const struct fault faults[] = {
	{GNUTLS_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED, "is revoked by ca-crl.pem",
	 "make another for that host, once it is known why"},
	{GNUTLS_CERT_SIGNER_NOT_FOUND, GNUTLS_A_UNKNOWN_CA,
	 "is signed by no authority of ca-cert.pem",
	 "give both hosts the authorities that have signed their certificates"},
	{GNUTLS_CERT_SIGNER_NOT_CA, GNUTLS_A_UNKNOWN_CA,
	 "is signed by a certificate that is no authority's",
	 "sign it by one that has the basic constraint CA:TRUE"},
	{GNUTLS_CERT_SIGNATURE_FAILURE, GNUTLS_A_BAD_CERTIFICATE, "has a wrong signature",
	 make_another},
	{GNUTLS_CERT_INSECURE_ALGORITHM, GNUTLS_A_BAD_CERTIFICATE,
	 "uses a key or a hash that is too weak", make_another},
	{GNUTLS_CERT_NOT_ACTIVATED, GNUTLS_A_CERTIFICATE_EXPIRED, "is not valid yet",
	 "compare the clocks of the two hosts"},
	{GNUTLS_CERT_EXPIRED, GNUTLS_A_CERTIFICATE_EXPIRED, "has expired", make_another},
	{GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE, GNUTLS_A_BAD_CERTIFICATE,
	 "is not within its authority's name constraints", make_another},
	{GNUTLS_CERT_UNKNOWN_CRIT_EXTENSIONS, GNUTLS_A_UNSUPPORTED_CERTIFICATE,
	 "has a critical extension that is not known here", make_another},
	{GNUTLS_CERT_INVALID, GNUTLS_A_BAD_CERTIFICATE, "is not valid", make_another},
};

static const struct fault no_purpose = {0, GNUTLS_A_UNSUPPORTED_CERTIFICATE,
					"is not for this side of TLS (its extended key usage)",
					"a source needs `tls_www_client`, a destination "
					"`tls_www_server`"};
static const struct fault no_signing = {0, GNUTLS_A_UNSUPPORTED_CERTIFICATE,
					"is not for signing (its key usage)",
					"make one with the key usage digitalSignature"};

/* What is wrong with @cert for a TLS server, or client; NULL: nothing but perhaps its name. */
static const struct fault *find_fault(const struct control_x509 *x, gnutls_x509_crt_t *cert,
				      unsigned n, bool server)
{
	static const char *const purposes[] = {GNUTLS_KP_TLS_WWW_CLIENT, GNUTLS_KP_TLS_WWW_SERVER};
	gnutls_typed_vdata_st want = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (unsigned char *)(uintptr_t)purposes[server],
	};
	unsigned status = 0, usage, critical;

	if (gnutls_x509_trust_list_verify_crt2(x->trusted, cert, n, &want, 1, 0, &status, NULL) < 0)
		status = GNUTLS_CERT_INVALID;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]) - 1; i++)
		if (status & faults[i].status)
			return &faults[i];
	if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
		return &no_purpose;
	/* No such extension permits every usage. */
	if (gnutls_x509_crt_get_key_usage(cert[0], &usage, &critical) >= 0 &&
	    !(usage & GNUTLS_KEY_DIGITAL_SIGNATURE))
		return &no_signing;
	return status ? &faults[sizeof(faults) / sizeof(faults[0]) - 1] : NULL;
}

/* " (since 2026-11-01 12:00 UTC)", where it is a matter of time. */
static const char *show_since(gnutls_x509_crt_t cert, const struct fault *fault, char buf[64])
{
	time_t now = time(NULL), from = gnutls_x509_crt_get_activation_time(cert);
	time_t to = gnutls_x509_crt_get_expiration_time(cert);
	char when[TIME_LEN];

	buf[0] = '\0';
	if (fault->status == GNUTLS_CERT_EXPIRED)
		snprintf(buf, 64, to < now ? " (on %s)" : " (an authority above it has)",
			 show_time(to, when));
	if (fault->status == GNUTLS_CERT_NOT_ACTIVATED)
		snprintf(buf, 64, from > now ? " (before %s)" : " (nor an authority above it)",
			 show_time(from, when));
	return buf;
}

static int refuse(struct control_x509 *x, gnutls_alert_description_t alert,
		  const struct via_error *why)
{
	x->alert = alert;
	x->refused = *why;
	return GNUTLS_E_CERTIFICATE_ERROR;
}

/* Its name: of the host that the source wants, or among those that the destination lets in. */
static int judge_name(struct control_x509 *x, gnutls_x509_crt_t cert, const char *dn)
{
	struct via_error why = {0};

	if (x->client && !gnutls_x509_crt_check_hostname2(cert, x->host, 0)) {
		via_fail(&why, -EACCES,
			 "certificate\nthe peer's (%s) is not for `%s`\n"
			 "connect by a name that is in it, or pass --tls-hostname",
			 dn, x->host);
		return refuse(x, GNUTLS_A_CERTIFICATE_UNKNOWN, &why);
	}
	if (!x->client && !is_allowed(x, cert)) {
		via_fail(&why, -EACCES,
			 "certificate\nthe peer's name `%s` does not match `%s`\n"
			 "let it in with --tls-authz-name, if it is to come in",
			 dn, x->allowed);
		return refuse(x, GNUTLS_A_ACCESS_DENIED, &why);
	}
	return 0;
}

static int judge(struct control_x509 *x, gnutls_x509_crt_t *cert, unsigned n)
{
	const struct fault *fault = find_fault(x, cert, n, x->client);
	struct via_error why = {0};
	char dn[DN_LEN], since[64];

	subject_of(cert[0], dn);
	via_log("control: the peer's certificate is of %s", dn);
	if (!fault)
		return judge_name(x, cert[0], dn);
	via_fail(&why, -EACCES, "certificate\nthe peer's (%s) %s%s\n%s", dn, fault->seen,
		 show_since(cert[0], fault, since), fault->remedy);
	return refuse(x, fault->alert, &why);
}

/* In the middle of the handshake: 0 lets it go on. */
static int on_certificate(gnutls_session_t session)
{
	struct control_proof *proof = gnutls_session_get_ptr(session);
	gnutls_x509_crt_t cert[CHAIN_MAX];
	unsigned n = 0, made = 0;
	const gnutls_datum_t *raw = gnutls_certificate_get_peers(session, &n);
	int rc = raw && n && n <= CHAIN_MAX ? 0 : GNUTLS_E_NO_CERTIFICATE_FOUND;

	while (!rc && made < n) {
		rc = gnutls_x509_crt_init(&cert[made]);
		if (rc)
			break;
		rc = gnutls_x509_crt_import(cert[made], &raw[made], GNUTLS_X509_FMT_DER);
		made++;
	}
	if (!rc)
		rc = judge(proof->x509, cert, n);
	while (made)
		gnutls_x509_crt_deinit(cert[--made]);
	return rc;
}

int control_x509_refused(const struct control_x509 *x, const char *peer,
			 gnutls_alert_description_t *alert, struct via_error *err)
{
	if (!x->refused.code)
		return 0;
	*alert = x->alert;
	return via_fail(err, x->refused.code, "TLS handshake with %s\n%s\n%s", peer,
			x->refused.seen, x->refused.remedy);
}

/* What a peer means that refuses ours. */
static const struct fault answers[] = {
	{0, GNUTLS_A_CERTIFICATE_EXPIRED, "by its clock it has expired, or is not valid yet",
	 "make another with certtool, and compare the clocks of the two hosts"},
	{0, GNUTLS_A_CERTIFICATE_REVOKED, "it is revoked",
	 "make another for this host, once it is known why"},
	{0, GNUTLS_A_UNKNOWN_CA, "it is signed by no authority that the peer has",
	 "give both hosts the authorities that have signed their certificates"},
	{0, GNUTLS_A_UNSUPPORTED_CERTIFICATE, "it is not for this purpose (its key usage)",
	 "a source needs `tls_www_client`, a destination `tls_www_server`, both digitalSignature"},
	{0, GNUTLS_A_CERTIFICATE_UNKNOWN, "it is not for the name that the peer wanted",
	 "connect by a name that is in it, or pass --tls-hostname at the source"},
	{0, GNUTLS_A_ACCESS_DENIED, "its name is not one of those who may connect",
	 "see --tls-authz-name at the destination"},
	{0, GNUTLS_A_CERTIFICATE_REQUIRED, "none was shown",
	 "give both sides --psk, or both --tls-creds"},
	{0, GNUTLS_A_BAD_CERTIFICATE, "it is not good", "see the peer's own error"},
};

int control_x509_alert(bool client, const char *peer, gnutls_alert_description_t alert,
		       struct via_error *err)
{
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		if (answers[i].alert == alert)
			return via_fail(err, -EACCES,
					"TLS handshake with %s\nthe peer refused %s: %s\n%s", peer,
					client ? "client-cert.pem" : "server-cert.pem",
					answers[i].seen, answers[i].remedy);
	return 0;
}

/* -- the files ---------------------------------------------------------------------- */

static int malformed(const struct control_x509 *x, const char *kind, const char *why,
		     struct via_error *err)
{
	return via_fail(err, -EINVAL, "read the %s %s\n%s\n%s", kind, x->path, why, make_another);
}

/* x->path names the file from here on. */
static int read_file(struct control_x509 *x, const char *name, const char *kind, size_t max,
		     bool secret, struct control_file *file, struct via_error *err)
{
	if ((size_t)snprintf(x->path, sizeof(x->path), "%s/%s", x->dir, name) >= sizeof(x->path))
		return via_fail(err, -EINVAL,
				"read the %s of --tls-creds\nthe path is too long\n"
				"move the folder up",
				kind);
	*file = (struct control_file){
		.path = x->path, .kind = kind, .remedy = layout, .max = max, .secret = secret};
	return control_file_read(file, err);
}

static gnutls_datum_t datum_of(const struct control_file *file)
{
	return (gnutls_datum_t){.data = file->text, .size = (unsigned)file->len};
}

static int load_authorities(struct control_x509 *x, struct via_error *err)
{
	struct control_file file;
	gnutls_datum_t text;
	int n, rc = read_file(x, "ca-cert.pem", "authorities", PEM_MAX, false, &file, err);

	if (rc)
		return rc;
	text = datum_of(&file);
	n = gnutls_x509_trust_list_add_trust_mem(x->trusted, &text, NULL, GNUTLS_X509_FMT_PEM, 0,
						 0);
	control_file_wipe(&file);
	if (n > 0)
		return 0;
	return malformed(x, "authorities", n < 0 ? gnutls_strerror(n) : "it holds no certificate",
			 err);
}

/* A list that is out of date may lack what was revoked since. */
static int check_list(const struct control_x509 *x, gnutls_x509_crl_t list, struct via_error *err)
{
	time_t until = gnutls_x509_crl_get_next_update(list);
	char when[TIME_LEN];

	if (until == (time_t)-1 || until >= time(NULL))
		return 0;
	return via_fail(err, -EINVAL,
			"read the revocations %s\nit was to be replaced by %s\n"
			"fetch the authority's newest list",
			x->path, show_time(until, when));
}

/* Trust what @list says; it is x->trusted's afterwards. */
static int take_list(struct control_x509 *x, gnutls_x509_crl_t list, struct via_error *err)
{
	int rc = check_list(x, list, err);

	if (rc) {
		gnutls_x509_crl_deinit(list);
		return rc;
	}
	if (gnutls_x509_trust_list_add_crls(x->trusted, &list, 1,
					    GNUTLS_TL_VERIFY_CRL | GNUTLS_TL_FAIL_ON_INVALID_CRL,
					    0) == 1)
		return 0;
	gnutls_x509_crl_deinit(list);
	return via_fail(err, -EINVAL,
			"read the revocations %s\nno authority of ca-cert.pem has signed it\n"
			"put the list and the certificate of one authority there",
			x->path);
}

/* It may be missing. */
static int load_revocations(struct control_x509 *x, struct via_error *err)
{
	struct via_error why = {0};
	gnutls_x509_crl_t *list = NULL;
	struct control_file file;
	gnutls_datum_t text;
	unsigned n = 0;
	int ret, rc = read_file(x, "ca-crl.pem", "revocations", CRL_MAX, false, &file, &why);

	if (rc)
		return rc == -ENOENT ? 0 : via_error_pass(err, &why);
	text = datum_of(&file);
	ret = gnutls_x509_crl_list_import2(&list, &n, &text, GNUTLS_X509_FMT_PEM, 0);
	control_file_wipe(&file);
	if (ret < 0)
		return malformed(x, "revocations", gnutls_strerror(ret), err);
	for (unsigned i = 0; i < n; i++) {
		if (!rc)
			rc = take_list(x, list[i], err);
		else
			gnutls_x509_crl_deinit(list[i]);
	}
	gnutls_free(list);
	return rc;
}

/* The own certificate first, then those that lead to the authority. */
static int load_chain(struct control_x509 *x, gnutls_x509_crt_t cert[CHAIN_MAX], unsigned *n,
		      struct via_error *err)
{
	const char *name = x->client ? "client-cert.pem" : "server-cert.pem";
	struct control_file file;
	gnutls_datum_t text;
	int got, rc = read_file(x, name, "certificate", PEM_MAX, false, &file, err);

	if (rc)
		return rc;
	text = datum_of(&file);
	*n = CHAIN_MAX;
	got = gnutls_x509_crt_list_import(cert, n, &text, GNUTLS_X509_FMT_PEM,
					  GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
	control_file_wipe(&file);
	if (got > 0)
		return 0;
	*n = 0;
	return malformed(x, "certificate", got < 0 ? gnutls_strerror(got) : "it holds none", err);
}

/*
 * GnuTLS's own reading of PEM frees what it has decoded with the key in it (3.7.9): decoded here
 * it is overwritten.
 */
static int import_key(gnutls_x509_privkey_t key, const gnutls_datum_t *pem)
{
	static const char *const headers[] = {"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"};
	gnutls_datum_t der;
	int rc;

	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		if (gnutls_pem_base64_decode2(headers[i], pem, &der))
			continue;
		rc = gnutls_x509_privkey_import(key, &der, GNUTLS_X509_FMT_DER);
		gnutls_memset(der.data, 0, der.size);
		gnutls_free(der.data);
		return rc;
	}
	return GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR;
}

static int load_key(struct control_x509 *x, gnutls_x509_privkey_t key, struct via_error *err)
{
	const char *name = x->client ? "client-key.pem" : "server-key.pem";
	struct control_file file;
	gnutls_datum_t text;
	int got, rc = read_file(x, name, "key", PEM_MAX, true, &file, err);

	if (rc)
		return rc;
	text = datum_of(&file);
	got = import_key(key, &text);
	if (got < 0 && strstr((char *)file.text, "ENCRYPTED"))
		rc = via_fail(err, -EINVAL,
			      "read the key %s\nit is encrypted\n"
			      "store it in the clear, readable by this user alone",
			      x->path);
	else if (got < 0)
		rc = malformed(x, "key", gnutls_strerror(got), err);
	control_file_wipe(&file);
	return rc;
}

/* GnuTLS looks as well, but not at keys of every kind. */
static bool is_key_of(gnutls_x509_privkey_t key, gnutls_x509_crt_t cert)
{
	uint8_t a[64], b[64];
	size_t a_len = sizeof(a), b_len = sizeof(b);

	return !gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, a, &a_len) &&
	       !gnutls_x509_crt_get_key_id(cert, GNUTLS_KEYID_USE_SHA256, b, &b_len) &&
	       a_len == b_len && !memcmp(a, b, a_len);
}

/* Is it good for what it will be shown for? */
static int check_own(struct control_x509 *x, gnutls_x509_crt_t *cert, unsigned n,
		     struct via_error *err)
{
	const struct fault *fault = find_fault(x, cert, n, !x->client);
	char dn[DN_LEN], since[64];

	if (!fault)
		return 0;
	subject_of(cert[0], dn);
	return via_fail(err, -EINVAL, "use the certificate %s/%s-cert.pem\nit (%s) %s%s\n%s",
			x->dir, x->client ? "client" : "server", dn, fault->seen,
			show_since(cert[0], fault, since), fault->remedy);
}

static int load_own(struct control_x509 *x, struct via_error *err)
{
	gnutls_x509_crt_t cert[CHAIN_MAX];
	gnutls_x509_privkey_t key = NULL;
	unsigned n = 0;
	int ret, rc = load_chain(x, cert, &n, err);

	if (!rc)
		rc = check_own(x, cert, n, err);
	if (!rc && gnutls_x509_privkey_init(&key) < 0)
		rc = via_fail(err, -ENOMEM, "read the key\nout of memory\nfree some");
	if (!rc)
		rc = load_key(x, key, err);
	if (!rc && !is_key_of(key, cert[0]))
		rc = via_fail(err, -EINVAL,
			      "read the key %s\nit is not that of %s-cert.pem\n"
			      "put the two there that were made together",
			      x->path, x->client ? "client" : "server");
	ret = rc ? 0 : gnutls_certificate_set_x509_key(x->creds, cert, (int)n, key);
	if (ret < 0)
		rc = malformed(x, "key", gnutls_strerror(ret), err);
	if (key)
		gnutls_x509_privkey_deinit(key);
	while (n)
		gnutls_x509_crt_deinit(cert[--n]);
	return rc;
}

/* The name that the server's certificate must have. */
static int take_host(struct control_x509 *x, const struct via_credentials *creds,
		     const char *address, struct via_error *err)
{
	if (!creds->tls_hostname)
		return control_socket_host(address, x->host, sizeof(x->host), err);
	if ((size_t)snprintf(x->host, sizeof(x->host), "%s", creds->tls_hostname) < sizeof(x->host))
		return 0;
	return via_fail(err, -EINVAL,
			"take the name of --tls-hostname\nit is too long\nwrite a host's name");
}

int control_x509_load(const struct via_credentials *creds, const char *address,
		      struct control_x509 **x509, struct via_error *err)
{
	struct control_x509 *x = calloc(1, sizeof(*x));
	int rc;

	if (!x || gnutls_x509_trust_list_init(&x->trusted, 0) < 0 ||
	    gnutls_certificate_allocate_credentials(&x->creds) < 0) {
		control_x509_free(x);
		return via_fail(err, -ENOMEM, "read the certificates\nout of memory\nfree some");
	}
	x->dir = creds->tls_creds;
	x->allowed = creds->tls_authz_name;
	x->client = address;
	rc = address ? take_host(x, creds, address, err) : 0;
	if (!rc)
		rc = load_authorities(x, err);
	if (!rc)
		rc = load_revocations(x, err);
	if (!rc)
		rc = load_own(x, err);
	if (rc) {
		control_x509_free(x);
		return rc;
	}
	*x509 = x;
	return 0;
}

void control_x509_free(struct control_x509 *x)
{
	if (!x)
		return;
	if (x->creds)
		gnutls_certificate_free_credentials(x->creds);
	if (x->trusted)
		gnutls_x509_trust_list_deinit(x->trusted, 1);
	free(x);
}

int control_x509_use(struct control_x509 *x, gnutls_session_t session)
{
	if (!x->client)
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
	gnutls_certificate_set_verify_function(x->creds, on_certificate);
	return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, x->creds);
}
