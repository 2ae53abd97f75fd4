/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_tls_test.c -- keys and key files, TLS between two right peers, and every way
 * for the two sides not to fit together.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "tests/transport/control_checks.h"
#include "transport/messages.h"

#define KEY_B "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static const struct via_credentials plain;

/* -- a connection ---------------------------------------------------------------------- */

Test(tls, frames_go_both_ways)
{
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\ntwo:" KEY_B "\n")};

	check_pair(&creds, "TLS 1.3, pre-shared key");
	creds.psk_identity = "two";
	check_pair(&creds, "TLS 1.3, pre-shared key");
}

static const size_t big = VIA_CONTROL_PAYLOAD_MAX;

static void *exchange_main(void *arg)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	char *bytes = malloc(big);

	for (size_t i = 0; i < big; i++)
		bytes[i] = (char)(i * 131);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(via_control_post(arg, 9, bytes, big), 0);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(via_control_receive(arg, &wait, &frame, NULL), 0);
		cr_assert_eq(frame.len, big);
		cr_assert(!memcmp(frame.payload, bytes, big));
	}
	flush_all(arg);
	free(bytes);
	return NULL;
}

Test(tls, big_frames_both_ways_at_once)
{
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	pthread_t thread;
	struct pair p;

	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	cr_assert_eq(pthread_create(&thread, NULL, exchange_main, p.source), 0);
	exchange_main(p.destination);
	pthread_join(thread, NULL);
	pair_close(&p);
}

/* Several small frames share a record or a read: none is left behind in GnuTLS. */
Test(tls, frames_that_came_together_are_all_seen)
{
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_wait past = {.deadline_ns = 1, .cancel_fd = -1};
	struct via_control_frame frame;
	struct pair p;
	int rc;

	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	for (unsigned i = 0; i < 100; i++)
		post_text(p.source, 5, "one of a hundred");
	flush_all(p.source);
	for (unsigned i = 0; i < 100; i++)
		expect_text(p.destination, 5, "one of a hundred");
	rc = via_control_receive(p.destination, &past, &frame, NULL);
	cr_assert_eq(rc, -EAGAIN);
	pair_close(&p);
}

Test(tls, a_peer_that_closes_is_lost)
{
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	struct via_error err = {0};
	struct pair p;

	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	post_text(p.destination, 4, "bye");
	flush_all(p.destination);
	via_control_close(p.destination);
	p.destination = NULL;
	expect_text(p.source, 4, "bye");
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, &err), -ECONNRESET);
	cr_assert(mentions(&err, "closed by the peer"));
	cr_assert_not(strstr(err.seen, "without a word"), "it said goodbye");
	pair_close(&p);
}

Test(tls, last_words_are_read)
{
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	static char bytes[VIA_CONTROL_PAYLOAD_MAX];
	struct via_control_frame frame;
	struct pair p;

	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	post_text(p.destination, VIA_CONTROL_ERROR, "because");
	flush_all(p.destination);
	via_control_close(p.destination);
	p.destination = NULL;
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(via_control_post(p.source, 1, bytes, sizeof(bytes)), 0);
	cr_assert_eq(via_control_flush(p.source, &wait, NULL), -ECONNRESET);
	expect_text(p.source, VIA_CONTROL_ERROR, "because");
	cr_assert_eq(via_control_receive(p.source, &wait, &frame, NULL), -ECONNRESET);
	pair_close(&p);
}

/* -- somebody on the way ------------------------------------------------------------------ */

/* Carries bytes between a source and an acceptor, and spoils one record of the source. */
struct middle {
	int listen_fd;
	char address[80];
	const char *to;
	int spoil_after; /* records of the source that pass unharmed */
};

/* One TLS record from @from to @to. False at the end. */
static bool carry(int from, int to, bool spoil)
{
	uint8_t record[5 + (1 << 14) + 256];
	size_t len;

	if (raw_read(from, record, 5) != 5)
		return false;
	len = (size_t)record[3] << 8 | record[4];
	if (raw_read(from, record + 5, len) != len)
		return false;
	if (spoil)
		record[5 + len / 2] ^= 1;
	raw_write(to, record, 5 + len);
	return true;
}

struct one_way {
	int from, to;
};

static void *carry_back(void *arg)
{
	struct one_way *way = arg;

	while (carry(way->from, way->to, false))
		;
	return NULL;
}

static void *middle_main(void *arg)
{
	struct middle *m = arg;
	int near = accept(m->listen_fd, NULL, NULL), far = raw_connect(m->to);
	struct one_way back = {far, near};
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, carry_back, &back), 0);
	for (int i = 0; carry(near, far, i == m->spoil_after); i++)
		;
	shutdown(far, SHUT_WR);
	pthread_join(thread, NULL);
	close(near);
	close(far);
	return NULL;
}

/* The source's records: ClientHello, change_cipher_spec, Finished, then the first frame. */
Test(tls, a_spoiled_record_is_an_authentication_failure)
{
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct middle m = {.spoil_after = 3};
	struct via_control_frame frame;
	struct via_control *source;
	struct via_error err = {0};
	struct acceptor a;
	pthread_t thread;

	acceptor_start(&a, "127.0.0.1:0", &creds);
	m.to = a.address;
	m.listen_fd = raw_listener(m.address);
	cr_assert_eq(pthread_create(&thread, NULL, middle_main, &m), 0);

	cr_assert_eq(via_control_connect(m.address, &creds, &wait, &source, NULL), 0);
	post_text(source, 1, "spoil this");
	flush_all(source);
	cr_assert_eq(acceptor_join(&a), 0);
	cr_assert_eq(via_control_receive(a.control, &wait, &frame, &err), -EACCES);
	cr_assert_eq(via_control_post(a.control, 1, NULL, 0), -ECONNRESET);
	via_control_close(a.control);
	via_control_close(source);
	pthread_join(thread, NULL);
	close(m.listen_fd);
}

/* -- keys that do not fit ------------------------------------------------------------------ */

Test(tls, a_wrong_key_is_told_on_both_sides)
{
	struct via_credentials a = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_credentials b = {.psk_file = key_file("one:" KEY_B "\n")};

	check_misfit(&a, &b, -EACCES, "refused the key of `one`", -EACCES, b.psk_file);
}

/* The peer must not learn which identities exist: it sees the same as with a wrong key. */
Test(tls, an_unknown_identity_is_told_to_the_destination_only)
{
	struct via_credentials a = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_credentials b = {.psk_file = key_file("two:" KEY_A "\n")};

	check_misfit(&a, &b, -EACCES, "refused the key of `one`", -EACCES,
		     "identity `one` is not in");
}

Test(tls, tls_to_a_plain_listener)
{
	struct via_credentials a = {.psk_file = key_file("one:" KEY_A "\n")};

	check_misfit(&a, &plain, -EPROTO, "the peer has no key", -EPROTO, "the peer speaks TLS");
}

Test(tls, plain_text_to_a_tls_listener)
{
	struct via_credentials b = {.psk_file = key_file("one:" KEY_A "\n")};

	check_misfit(&plain, &b, -EPROTO, "the peer speaks TLS", -EPROTO,
		     "the peer speaks plain text");
}

/* -- peers that are not Viaduct ------------------------------------------------------------- */

Test(tls, strangers_leave_a_tls_listener_usable)
{
	static const struct first_words bad[] = {
		{"GET / HTTP/1.1\r\n\r\n", 18, -EPROTO, "47 45 54"},
		{"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00", 10, -EPROTO, "80 2e"},
		{"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9, -EPROTO, "TLS"},
		{"\x16\x03\x01\x00\x04\x02\x00\x00\x00", 9, -EPROTO, "TLS"},
		{"\0\0", 2, -EPROTO, "plain text"},
		{"\x16\x03", 2, -ETIMEDOUT, "silent"},
		{"", 0, -ETIMEDOUT, "silent"},
	};
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	char address[80];
	int fd = listener(address);

	check_strangers(fd, address, &creds, bad, sizeof(bad) / sizeof(bad[0]));
	close(fd);
}

struct speaker {
	int listen_fd;
	const char *bytes;
	size_t len;
};

static void *speak_main(void *arg)
{
	struct speaker *s = arg;
	char drop[4096];
	int fd = accept(s->listen_fd, NULL, NULL);

	raw_write(fd, s->bytes, s->len);
	shutdown(fd, SHUT_WR);
	(void)raw_read(fd, drop, sizeof(drop));
	close(fd);
	return NULL;
}

Test(tls, connecting_to_a_stranger)
{
	static const struct first_words strangers[] = {
		{"SSH-2.0-OpenSSH\r\n", 17, -EPROTO, "53 53 48"},
		{"\0\0\0\1", 4, -EPROTO, "the peer speaks plain text"},
		{"\x15\x03\x03\x00\x02\x02\x28", 7, -EPROTO, "Handshake failed"},
		{"\x15\x03\x03\x00\x02\x02\x0a", 7, -EPROTO, "listens in plain"},
		{"\x15\x03\x03\x00\x02\x02\x33", 7, -EACCES, "refused the key"},
		{"", 0, -ECONNRESET, "closed"},
	};
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control *c;
	char address[80];
	int fd = raw_listener(address);

	for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
		struct speaker s = {fd, strangers[i].bytes, strangers[i].len};
		struct via_error err = {0};
		pthread_t thread;

		cr_assert_eq(pthread_create(&thread, NULL, speak_main, &s), 0);
		cr_assert_eq(via_control_connect(address, &creds, &wait, &c, &err),
			     strangers[i].code, "case %zu: %s", i, via_err_name(err.code));
		cr_assert(mentions(&err, strangers[i].text));
		cr_assert(mentions(&err, address));
		pthread_join(thread, NULL);
	}
	close(fd);
}

Test(tls, a_silent_listener_ends_at_the_deadline_or_on_request)
{
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};
	struct via_wait wait = wait_ns(20 * VIA_NS_PER_MS);
	struct via_error err = {0};
	struct via_control *c;
	char address[80];
	int fd = listener(address);

	/* The kernel completes the connection; nobody ever answers. */
	cr_assert_eq(via_control_connect(address, &creds, &wait, &c, &err), -ETIMEDOUT);
	cr_assert(mentions(&err, address));
	wait = wait_ns(PATIENCE_NS);
	wait.cancel_fd = eventfd(1, 0);
	cr_assert_eq(via_control_connect(address, &creds, &wait, &c, NULL), -ECANCELED);
	close(wait.cancel_fd);
	close(fd);
}

/* A GnuTLS client that tries to get in with less than the protocol asks for. */
struct weak_client {
	const char *address;
	const char *priority;
	bool with_key;
	int result;
};

static void *weak_main(void *arg)
{
	struct weak_client *w = arg;
	const gnutls_datum_t key = {(unsigned char *)(uintptr_t)KEY_A, 64};
	gnutls_psk_client_credentials_t psk;
	gnutls_certificate_credentials_t cert;
	gnutls_session_t session;
	int fd = raw_connect(w->address);

	gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
	gnutls_psk_allocate_client_credentials(&psk);
	gnutls_certificate_allocate_credentials(&cert);
	gnutls_psk_set_client_credentials(psk, "one", &key, GNUTLS_PSK_KEY_HEX);
	cr_assert_eq(gnutls_priority_set_direct(session, w->priority, NULL), 0);
	if (w->with_key)
		gnutls_credentials_set(session, GNUTLS_CRD_PSK, psk);
	gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, cert);
	gnutls_transport_set_int(session, fd);
	do {
		w->result = gnutls_handshake(session);
	} while (w->result < 0 && !gnutls_error_is_fatal(w->result));
	gnutls_deinit(session);
	gnutls_psk_free_client_credentials(psk);
	gnutls_certificate_free_credentials(cert);
	close(fd);
	return NULL;
}

Test(tls, there_is_no_way_down)
{
	static const struct {
		const char *priority;
		bool with_key;
		bool works;
	} clients[] = {
		{"NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK:+PSK", true, true},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.3", false, false},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+PSK", true, false}, /* no Diffie-Hellman */
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK", true, false},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+PSK", true, false},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2", false, false},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ANON-ECDH", false, false},
	};
	struct via_credentials creds = {.psk_file = key_file("one:" KEY_A "\n")};

	for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
		struct weak_client w = {.priority = clients[i].priority,
					.with_key = clients[i].with_key};
		struct acceptor a;
		pthread_t thread;
		int rc;

		acceptor_start(&a, "127.0.0.1:0", &creds);
		w.address = a.address;
		cr_assert_eq(pthread_create(&thread, NULL, weak_main, &w), 0);
		pthread_join(thread, NULL);
		rc = acceptor_join(&a);
		if (clients[i].works)
			cr_assert_eq(rc, 0, "%s", clients[i].priority);
		else
			cr_assert(rc == -EPROTO || rc == -EACCES, "%s: %s", clients[i].priority,
				  via_err_name(rc));
		cr_assert_eq(w.result == 0, clients[i].works, "%s", clients[i].priority);
		via_control_close(a.control);
	}
}

/* -- key files ---------------------------------------------------------------------------- */

/* What connecting with this file says. No connection comes to be: nobody listens there. */
static int with_file(const char *path, const char *identity, struct via_error *err)
{
	struct via_credentials creds = {.psk_file = path, .psk_identity = identity};
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control *c;

	return via_control_connect("127.0.0.1:1", &creds, &wait, &c, err);
}

Test(tls, good_key_files)
{
	static const char *const good[] = {
		"one:" KEY_A,
		"# comment: with a colon\n\n  \none:" KEY_A "\n",
		"one:" KEY_A "\r\n",
		"one:" KEY_A " \ntwo:00\n",
		"a name with spaces:AbCdEf\n",
		"one:" KEY_A "\none:" KEY_B "\n",
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert_eq(with_file(key_file(good[i]), NULL, NULL), -ECONNREFUSED, "file %zu",
			     i);
}

Test(tls, bad_key_files_are_refused_by_line_and_without_showing_it)
{
	static const struct {
		const char *text, *where;
	} bad[] = {
		{"", "no key"},
		{"# only this\n", "no key"},
		{"one:" KEY_A "\nsecret0badcafe\n", "line 2"},
		{"\n\n:5ec7e70badcafe\n", "line 3"},
		{"one:5ec7e70badcafe0\n", "line 1"},
		{"one:\n", "line 1"},
		{"one:secret\n", "line 1"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *path = key_file(bad[i].text);
		struct via_error err = {0};

		cr_assert_eq(with_file(path, NULL, &err), -EINVAL, "file %zu", i);
		cr_assert(mentions(&err, bad[i].where));
		cr_assert(mentions(&err, path));
		cr_assert_not(strstr(err.seen, "badcafe"), "it shows the key");
		cr_assert_not(strstr(err.seen, "secret"), "it shows the key");
	}
}

/* Lengths at their bounds and beyond; a NUL; a file too large. */
Test(tls, key_files_are_bounded)
{
	static char text[(64 << 10) + 64];
	struct via_error err = {0};
	const char *path;
	FILE *f;

	memset(text, 'i', 128);
	snprintf(text + 128, 8, ":00\n");
	cr_assert_eq(with_file(key_file(text), NULL, NULL), -ECONNREFUSED);
	memset(text, 'i', 129);
	snprintf(text + 129, 8, ":00\n");
	cr_assert_eq(with_file(key_file(text), NULL, NULL), -EINVAL);
	memset(text, 'a', 2 + 1024);
	text[1] = ':';
	text[2 + 1024] = '\0';
	cr_assert_eq(with_file(key_file(text), NULL, NULL), -ECONNREFUSED);
	snprintf(text + 2 + 1024, 8, "aa");
	cr_assert_eq(with_file(key_file(text), NULL, NULL), -EINVAL);
	memset(text, '\n', sizeof(text) - 1);
	memcpy(text, "a:aa", 4);
	cr_assert_eq(with_file(key_file(text), NULL, &err), -EINVAL);
	cr_assert(mentions(&err, "64 KiB"));

	path = key_file("");
	f = fopen(path, "w");
	fwrite("a\0:aa\n", 6, 1, f);
	fclose(f);
	cr_assert_eq(with_file(path, NULL, NULL), -EINVAL);
}

Test(tls, key_files_that_cannot_be_read)
{
	const char *path = key_file("one:" KEY_A "\n");
	struct via_error err = {0};

	cr_assert_eq(with_file("/nonexistent/keys.psk", NULL, &err), -ENOENT);
	cr_assert(mentions(&err, "/nonexistent/keys.psk"));
	cr_assert(mentions(&err, "psktool"));
	cr_assert_eq(with_file("/tmp", NULL, NULL), -EINVAL, "a directory");
	cr_assert_eq(with_file("/dev/null", NULL, NULL), -EINVAL, "a device");
	err = (struct via_error){0};
	cr_assert_eq(with_file(path, "two", &err), -EINVAL);
	cr_assert(mentions(&err, "`two`"));
	if (geteuid() != 0) {
		cr_assert_eq(chmod(path, 0), 0);
		cr_assert_eq(with_file(path, NULL, NULL), -EPERM);
	}
}

/* The listening side says so before it waits for anybody. */
Test(tls, a_bad_key_file_ends_accept_at_once)
{
	struct via_credentials creds = {.psk_file = "/nonexistent/keys.psk"};
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	struct via_control *c;
	int fd;

	cr_assert_eq(via_control_listen("127.0.0.1:0", &fd, NULL), 0);
	cr_assert_eq(via_control_accept(fd, &creds, &wait, PATIENCE_NS, &c, NULL), -ENOENT);
	close(fd);
}

static char logged[512];

static void keep_line(void *arg, const char *line)
{
	(void)arg;
	if (strstr(line, "readable by everybody"))
		snprintf(logged, sizeof(logged), "%s", line);
}

Test(tls, a_key_file_for_everybody_is_logged)
{
	const char *path = key_file("one:" KEY_A "\n");

	via_log_set(keep_line, NULL);
	cr_assert_eq(chmod(path, 0600), 0);
	cr_assert_eq(with_file(path, NULL, NULL), -ECONNREFUSED);
	cr_assert_str_eq(logged, "");
	cr_assert_eq(chmod(path, 0644), 0);
	cr_assert_eq(with_file(path, NULL, NULL), -ECONNREFUSED);
	cr_assert(strstr(logged, path));
	via_log_set(NULL, NULL);
}

Test(tls, takes_what_psktool_makes)
{
	const char *path = key_file("");
	struct via_credentials creds = {.psk_file = path, .psk_identity = "viaduct"};
	struct pair p;
	char command[256];
	int status;

	snprintf(command, sizeof(command), "psktool -u viaduct -p %s >/dev/null 2>&1", path);
	status = system(command);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		cr_skip_test("psktool is not here: apt-get install gnutls-bin");
	cr_assert_eq(status, 0);
	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	pair_close(&p);
}
