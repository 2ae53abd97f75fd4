/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_pair.c -- two ends of a control connection in one process, and peers
 * that are not Viaduct.
 *
 * Plain C with abort(): programs without Criterion use it too.
 */
#include "tests/transport/control_pair.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "transport/messages.h"

#define REQUIRE(condition)                                                                         \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void show(const struct via_error *err)
{
	char line[1024];

	if (err->code)
		fprintf(stderr, "%s: %s\n", via_err_name(err->code),
			via_error_format(err, line, sizeof(line)));
}

struct via_wait wait_ns(uint64_t ns)
{
	return (struct via_wait){.deadline_ns = via_deadline_in(ns), .cancel_fd = -1};
}

/* -- both ends --------------------------------------------------------------------- */

static void *accept_main(void *arg)
{
	struct acceptor *a = arg;

	a->rc = via_control_accept(a->listen_fd, &a->creds, &a->wait, a->handshake_ns, &a->control,
				   &a->err);
	return NULL;
}

void acceptor_start(struct acceptor *a, const char *address, const struct via_credentials *creds)
{
	memset(a, 0, sizeof(*a));
	if (creds)
		a->creds = *creds;
	a->wait = wait_ns(PATIENCE_NS);
	a->handshake_ns = PATIENCE_NS;
	REQUIRE(!via_control_listen(address, &a->listen_fd, &a->err));
	REQUIRE(!via_control_listen_address(a->listen_fd, a->address, sizeof(a->address)));
	REQUIRE(!pthread_create(&a->thread, NULL, accept_main, a));
}

int acceptor_join(struct acceptor *a)
{
	pthread_join(a->thread, NULL);
	close(a->listen_fd);
	return a->rc;
}

void pair_open(struct pair *p, const char *address, const struct via_credentials *source,
	       const struct via_credentials *destination)
{
	static const struct via_credentials none;
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0};
	struct acceptor a;

	acceptor_start(&a, address, destination);
	REQUIRE(!via_control_connect(a.address, source ? source : &none, &wait, &p->source, &err));
	/* The source speaks first: a plain listener waits for that. */
	post_text(p->source, VIA_CONTROL_HELLO, "hello");
	flush_all(p->source);
	acceptor_join(&a);
	show(&a.err);
	REQUIRE(!a.rc);
	p->destination = a.control;
	expect_text(p->destination, VIA_CONTROL_HELLO, "hello");
}

void pair_wrap(struct pair *p)
{
	struct via_error err = {0};
	int fd[2];

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	REQUIRE(!via_control_wrap(fd[0], &p->source, &err));
	REQUIRE(!via_control_wrap(fd[1], &p->destination, &err));
}

void pair_close(struct pair *p)
{
	via_control_close(p->source);
	via_control_close(p->destination);
}

void post_text(struct via_control *c, uint16_t type, const char *text)
{
	REQUIRE(!via_control_post(c, type, text, strlen(text)));
}

void flush_all(struct via_control *c)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_error err = {0};
	int rc = via_control_flush(c, &wait, &err);

	show(&err);
	REQUIRE(!rc);
}

void expect_text(struct via_control *c, uint16_t type, const char *text)
{
	struct via_wait wait = wait_ns(PATIENCE_NS);
	struct via_control_frame frame;
	struct via_error err = {0};
	int rc = via_control_receive(c, &wait, &frame, &err);

	show(&err);
	REQUIRE(!rc);
	REQUIRE(frame.type == type);
	REQUIRE(frame.len == strlen(text));
	REQUIRE(!memcmp(frame.payload, text, frame.len));
}

/* -- peers that are not Viaduct ---------------------------------------------------- */

int raw_connect(const char *address)
{
	struct timeval patience = {.tv_sec = PATIENCE_NS / VIA_NS_PER_S};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_port = htons((uint16_t)strtol(strrchr(address, ':') + 1, NULL, 10));
	REQUIRE(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)));
	REQUIRE(!connect(fd, (struct sockaddr *)&in, sizeof(in)));
	return fd;
}

void raw_write(int fd, const void *bytes, size_t len)
{
	REQUIRE(send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
}

size_t raw_read(int fd, void *bytes, size_t len)
{
	size_t sum = 0;
	ssize_t n;

	do {
		n = recv(fd, (uint8_t *)bytes + sum, len - sum, 0);
		sum += n > 0 ? (size_t)n : 0;
	} while (n > 0 && sum < len);
	return sum;
}

/* -- keys -------------------------------------------------------------------------- */

static char directory[] = "/tmp/viaduct-test-XXXXXX";
static unsigned key_files;

static void key_path(unsigned i, char *path, size_t cap)
{
	snprintf(path, cap, "%s/keys-%u.psk", directory, i);
}

static void remove_key_files(void)
{
	char path[64];

	for (unsigned i = 0; i < key_files; i++) {
		key_path(i, path, sizeof(path));
		unlink(path);
	}
	rmdir(directory);
}

const char *key_file(const char *text)
{
	static char paths[8][64];
	char *path = paths[key_files];
	FILE *f;

	REQUIRE(key_files < 8);
	if (!key_files) {
		REQUIRE(mkdtemp(directory));
		REQUIRE(!atexit(remove_key_files));
	}
	key_path(key_files++, path, sizeof(paths[0]));
	f = fopen(path, "w");
	REQUIRE(f && fputs(text, f) >= 0 && !fclose(f));
	return path;
}

bool mentions(const struct via_error *err, const char *text)
{
	bool found =
		strstr(err->what, text) || strstr(err->seen, text) || strstr(err->remedy, text);

	if (!found)
		show(err);
	return found;
}
