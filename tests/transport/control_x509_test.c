/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_x509_test.c -- certificates: two right peers, every fault of the own certificate, every
 * fault of the peer's and what the peer hears of it, names, and who may connect.
 *
 * Peers with faults of their own are GnuTLS alone, because Viaduct refuses its own first.
 */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/transport/control_checks.h"

#define FOLDER "VIA_TEST_CERTIFICATES" /* in the environment, for the tests' processes */

/* -- certificates: made once, for all tests --------------------------------------------- */

/* No assertions in here: the runner would wait for a test to tell it of them. */
ReportHook(PRE_ALL)(struct criterion_test_set *tests)
{
	char folder[] = "/tmp/viaduct-test-XXXXXX", command[512];

	(void)tests;
	if (!mkdtemp(folder))
		return;
	setenv(FOLDER, folder, 1);
	snprintf(command, sizeof(command), "%s %s", CERTIFICATES, folder);
	if (!system(command))
		setenv(FOLDER "_MADE", "1", 1);
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
	char command[512];

	(void)stats;
	snprintf(command, sizeof(command), "rm -rf %s", getenv(FOLDER));
	if (system(command))
		fprintf(stderr, "left behind: %s\n", getenv(FOLDER));
}

/* The folder that is called @name, in one of some places for such names. */
static const char *in(const char *name)
{
	static char path[32][256];
	static unsigned next;
	char *p = path[next++ % 32];

	if (!getenv(FOLDER "_MADE"))
		cr_skip_test("certtool is not here: apt-get install gnutls-bin");
	snprintf(p, sizeof(path[0]), "%s/%s", getenv(FOLDER), name);
	return p;
}

static struct via_credentials of(const char *name)
{
	return (struct via_credentials){.tls_creds = in(name)};
}

/* -- right peers -------------------------------------------------------------------------- */

Test(x509, frames_go_both_ways)
{
	static const char *const good[] = {"good", "crl", "any-purpose", "kinds"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct via_credentials creds = of(good[i]);

		check_pair(&creds, "TLS 1.3, X.509");
	}
}

/* -- the own files -------------------------------------------------------------------------- */

static const struct {
	const char *folder;
	int code;
	const char *text, *file; /* @file: NULL: the certificate */
} own_faults[] = {
	{"expired", -EINVAL, "has expired (on 2020-02-01 00:00 UTC)", NULL},
	{"early", -EINVAL, "is not valid yet (before 2120-01-01 00:00 UTC)", NULL},
	{"own-revoked", -EINVAL, "is revoked", NULL},
	{"purpose", -EINVAL, "extended key usage", NULL},
	{"signing", -EINVAL, "(its key usage)", NULL},
	{"foreign", -EINVAL, "signed by no authority", NULL},
	{"self-made", -EINVAL, "is no authority's", NULL},
	{"other-key", -EINVAL, "it is not that of", "key.pem"},
	{"garbage-key", -EINVAL, "", "key.pem"},
	{"encrypted-key", -EINVAL, "it is encrypted", "key.pem"},
	{"garbage-cert", -EINVAL, "", "cert.pem"},
	{"garbage-ca", -EINVAL, "", "ca-cert.pem"},
	{"garbage-crl", -EINVAL, "", "ca-crl.pem"},
	{"old-crl", -EINVAL, "it was to be replaced by 2020-02-01", "ca-crl.pem"},
	{"foreign-crl", -EINVAL, "has signed it", "ca-crl.pem"},
	{"no-key", -ENOENT, "No such file", "key.pem"},
	{"no-cert", -ENOENT, "No such file", "cert.pem"},
	{"no-ca", -ENOENT, "No such file", "ca-cert.pem"},
	{"nonexistent", -ENOENT, "No such file", "ca-cert.pem"},
};

#define NFAULTS (sizeof(own_faults) / sizeof(own_faults[0]))

/* Nobody is connected to, and nobody is waited for. */
Test(x509, own_faults_are_told_before_anything_else)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control *c;
	int fd;

	cr_assert_eq(via_control_listen("127.0.0.1:0", &fd, NULL), 0);
	for (size_t i = 0; i < NFAULTS; i++) {
		struct via_credentials creds = of(own_faults[i].folder);
		const char *file = own_faults[i].file;

		for (unsigned client = 0; client < 2; client++) {
			struct via_error err = {0};
			int rc =
				client ? via_control_connect("127.0.0.1:1", &creds, &wait, &c, &err)
				       : via_control_accept(fd, &creds, &wait, PATIENCE_NS, &c,
							    &err);

			cr_assert_eq(rc, own_faults[i].code, "%s: %s", own_faults[i].folder,
				     via_err_name(rc));
			cr_assert(mentions(&err, own_faults[i].text), "%s", own_faults[i].folder);
			cr_assert(mentions(&err, file     ? file
						 : client ? "/client-cert.pem"
							  : "/server-cert.pem"));
			cr_assert(mentions(&err, creds.tls_creds));
			cr_assert(err.remedy[0]);
		}
	}
	close(fd);
}

Test(x509, files_that_cannot_be_read)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_credentials creds = of("folder-key");
	struct via_error err = {0};
	struct via_control *c;
	char path[300];

	cr_assert_eq(via_control_connect("127.0.0.1:1", &creds, &wait, &c, &err), -EINVAL);
	cr_assert(mentions(&err, "not a regular file"));
	if (geteuid() == 0)
		return;
	snprintf(path, sizeof(path), "%s/server-key.pem", creds.tls_creds);
	cr_assert_eq(chmod(path, 0), 0);
	cr_assert_eq(via_control_accept(-1, &creds, &wait, PATIENCE_NS, &c, NULL), -EPERM);
}

Test(x509, one_kind_of_proof_at_a_time)
{
	struct via_credentials creds = of("good");
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0};
	struct via_control *c;

	creds.psk_file = key_file("one:" KEY_A "\n");
	cr_assert_eq(via_control_connect("127.0.0.1:1", &creds, &wait, &c, &err), -EINVAL);
	cr_assert(mentions(&err, "--psk or --tls-creds"));
}

/* -- peers that show something else ------------------------------------------------------------ */

/* GnuTLS, with the certificate of a folder (NULL: none), which trusts everybody. */
struct stranger {
	const char *folder;
	const char *priority;
	bool client;
	const char *address; /* of whom the client connects to */
	int listen_fd;
	int result; /* of the handshake, or of the first read behind it */
	gnutls_alert_description_t alert;
};

static void show_certificate(struct stranger *s, gnutls_certificate_credentials_t creds)
{
	const char *side = s->client ? "client" : "server";
	char cert[300], key[300];

	if (!s->folder)
		return;
	snprintf(cert, sizeof(cert), "%s/%s-cert.pem", s->folder, side);
	snprintf(key, sizeof(key), "%s/%s-key.pem", s->folder, side);
	cr_assert_geq(gnutls_certificate_set_x509_key_file(creds, cert, key, GNUTLS_X509_FMT_PEM),
		      0);
}

static void *stranger_main(void *arg)
{
	struct stranger *s = arg;
	gnutls_certificate_credentials_t creds;
	gnutls_session_t session;
	char drop[64];
	int fd = s->client ? raw_connect(s->address) : accept(s->listen_fd, NULL, NULL);

	gnutls_init(&session, (s->client ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NO_SIGNAL);
	gnutls_certificate_allocate_credentials(&creds);
	show_certificate(s, creds);
	cr_assert_eq(gnutls_priority_set_direct(session, s->priority, NULL), 0);
	gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, creds);
	gnutls_transport_set_int(session, fd);
	if (!s->client)
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
	do {
		s->result = gnutls_handshake(session);
	} while (s->result < 0 && !gnutls_error_is_fatal(s->result));
	if (!s->result)
		s->result = (int)gnutls_record_recv(session, drop, sizeof(drop));
	s->alert = gnutls_alert_get(session);
	gnutls_deinit(session);
	gnutls_certificate_free_credentials(creds);
	close(fd);
	return NULL;
}

static const char tls13[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3";

static const struct peer_fault {
	const char *folder;
	gnutls_alert_description_t alert;
	const char *text;
} peer_faults[] = {
	{"expired", GNUTLS_A_CERTIFICATE_EXPIRED, "has expired (on 2020-02-01"},
	{"early", GNUTLS_A_CERTIFICATE_EXPIRED, "is not valid yet (before 2120-01-01"},
	{"revoked", GNUTLS_A_CERTIFICATE_REVOKED, "is revoked by ca-crl.pem"},
	{"purpose", GNUTLS_A_UNSUPPORTED_CERTIFICATE, "extended key usage"},
	{"foreign", GNUTLS_A_UNKNOWN_CA, "signed by no authority"},
	{"self-made", GNUTLS_A_UNKNOWN_CA, "is no authority's"},
};

#define NPEERS (sizeof(peer_faults) / sizeof(peer_faults[0]))

/* Both @err of ours and the alert that @s has received. */
static void check_told(const struct peer_fault *fault, const struct via_error *err,
		       const struct stranger *s)
{
	cr_assert(mentions(err, fault->text), "%s", fault->folder);
	cr_assert_eq(s->result, GNUTLS_E_FATAL_ALERT_RECEIVED, "%s: %s", fault->folder,
		     gnutls_strerror(s->result));
	cr_assert_eq(s->alert, fault->alert, "%s: %s", fault->folder,
		     gnutls_alert_get_name(s->alert));
}

Test(x509, a_source_with_a_bad_certificate_is_refused)
{
	struct via_credentials creds = of("crl");

	for (size_t i = 0; i < NPEERS; i++) {
		struct stranger s = {
			.folder = in(peer_faults[i].folder), .priority = tls13, .client = true};
		struct acceptor a;
		pthread_t thread;

		acceptor_start(&a, "127.0.0.1:0", &creds);
		s.address = a.address;
		cr_assert_eq(pthread_create(&thread, NULL, stranger_main, &s), 0);
		cr_assert_eq(acceptor_join(&a), -EACCES, "%s", peer_faults[i].folder);
		pthread_join(thread, NULL);
		check_told(&peer_faults[i], &a.err, &s);
		cr_assert(mentions(&a.err, "127.0.0.1:"));
	}
}

Test(x509, a_destination_with_a_bad_certificate_is_refused)
{
	struct via_credentials creds = of("crl");
	struct via_wait wait = wait_ns(PATIENCE_NS);

	for (size_t i = 0; i < NPEERS; i++) {
		char address[80];
		struct stranger s = {.folder = in(peer_faults[i].folder),
				     .priority = tls13,
				     .listen_fd = raw_listener(address)};
		struct via_error err = {0};
		struct via_control *c;
		pthread_t thread;

		cr_assert_eq(pthread_create(&thread, NULL, stranger_main, &s), 0);
		cr_assert_eq(via_control_connect(address, &creds, &wait, &c, &err), -EACCES, "%s",
			     peer_faults[i].folder);
		pthread_join(thread, NULL);
		check_told(&peer_faults[i], &err, &s);
		cr_assert(mentions(&err, address));
		close(s.listen_fd);
	}
}

Test(x509, there_is_no_way_down)
{
	static const struct {
		const char *priority;
		bool certificate, works;
	} clients[] = {
		{"NORMAL", true, true},
		{"NORMAL", false, false},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2", true, false},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2", false, false},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2:+ANON-ECDH:+ANON-DH", false, false},
	};
	struct via_credentials creds = of("good");

	for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
		struct stranger s = {.folder = clients[i].certificate ? in("good") : NULL,
				     .priority = clients[i].priority,
				     .client = true};
		struct acceptor a;
		pthread_t thread;
		int rc;

		acceptor_start(&a, "127.0.0.1:0", &creds);
		s.address = a.address;
		cr_assert_eq(pthread_create(&thread, NULL, stranger_main, &s), 0);
		rc = acceptor_join(&a);
		via_control_close(a.control);
		pthread_join(thread, NULL);
		if (clients[i].works)
			cr_assert_eq(rc, 0);
		else
			cr_assert(rc == -EACCES || rc == -EPROTO, "%zu: %s", i, via_err_name(rc));
	}
}

/* -- both sides' words -------------------------------------------------------------------------- */

Test(x509, keys_certificates_and_plain_text_do_not_mix)
{
	struct via_credentials key = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_credentials certificate = of("good");
	const struct via_credentials plain = {0};

	check_misfit(&key, &certificate, -EPROTO, "both --tls-creds", 0, "both --tls-creds");
	check_misfit(&certificate, &key, -EPROTO, "both --tls-creds", 0, "--psk");
	check_misfit(&plain, &certificate, -EPROTO, "the peer speaks TLS", -EPROTO,
		     "the peer speaks plain text");
	check_misfit(&certificate, &plain, -EPROTO, "listens in plain", -EPROTO,
		     "the peer speaks TLS");
}

/* Two parties, each with authorities of its own. */
Test(x509, a_foreign_authority_is_told_on_both_sides)
{
	struct via_credentials ours = of("crl"), theirs = of("strangers");

	check_misfit(&ours, &theirs, -EACCES, "signed by no authority", -EACCES,
		     "the peer refused server-cert.pem");
}

/* -- names ------------------------------------------------------------------------------------- */

Test(x509, the_server_is_the_host_that_was_named)
{
	struct via_credentials creds = of("good");
	struct pair p;

	/* By its address, which is in the certificate. */
	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	pair_close(&p);
	creds.tls_hostname = "destination.example";
	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	pair_close(&p);
	creds.tls_hostname = "Destination.Example";
	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	pair_close(&p);
	creds.tls_hostname = "other.example";
	check_misfit(&creds, &creds, -EACCES, "is not for `other.example`", -EACCES,
		     "not for the name that the peer wanted");
	creds.tls_hostname = "127.0.0.2";
	check_misfit(&creds, &creds, -EACCES, "--tls-hostname", -EACCES, "--tls-hostname");
}

Test(x509, who_may_connect)
{
	static const struct {
		const char *pattern;
		bool fits;
	} patterns[] = {
		{"C=GB,O=Example,CN=source.example", true},
		{"C=GB,O=Example,CN=source.exampl", false},
		{"C=GB,O=Example,CN=source.example ", false},
		{"c=GB,O=Example,CN=source.example", false},
		{"C=GB,O=Example,CN=*.example", true},
		{"C=GB,O=Other,CN=*", false},
		{"*", true},
		{"**", true},
		{"*O=Example*", true},
		{"*O=Example", false},
		{"*,CN=?ource.example", true},
		{"*,CN=?source.example", false},
		{"C=??,O=*,CN=s*e*", true},
		{"C=???,O=*,CN=s*e*", false},
		{"*,CN=[s]ource.example", false},
		{"source.example", false},
		{"", false},
	};
	struct via_credentials source = of("good"), creds = of("good");
	struct pair p;

	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		creds.tls_authz_name = patterns[i].pattern;
		if (!patterns[i].fits) {
			check_misfit(&source, &creds, -EACCES, "not one of those who may connect",
				     -EACCES, "`C=GB,O=Example,CN=source.example` does not match");
			continue;
		}
		pair_open(&p, "127.0.0.1:0", &source, &creds);
		pair_close(&p);
	}
}

/* A list that is put there while somebody is waited for counts for whoever comes. */
Test(x509, revocations_are_read_for_each_connection)
{
	struct via_credentials creds = of("renewed");
	struct stranger s = {.folder = in("revoked"), .priority = tls13, .client = true};
	char command[900];
	struct acceptor a;
	struct pair p;
	pthread_t thread;

	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	pair_close(&p);
	acceptor_start(&a, "127.0.0.1:0", &creds);
	snprintf(command, sizeof(command), "cp %s/ca-crl.pem %s/", in("crl"), creds.tls_creds);
	cr_assert_eq(system(command), 0);
	s.address = a.address;
	cr_assert_eq(pthread_create(&thread, NULL, stranger_main, &s), 0);
	cr_assert_eq(acceptor_join(&a), -EACCES);
	cr_assert(mentions(&a.err, "is revoked by ca-crl.pem"));
	pthread_join(thread, NULL);
}
