/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fake_qmp.c -- a scripted QMP server on a unix socket.
 */
#include "tests/relay/fake_qmp.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static void wrong(struct fake_qmp *f, const char *what, const char *seen)
{
	if (!f->wrong[0])
		snprintf(f->wrong, sizeof(f->wrong), "%s: %.500s", what, seen);
}

static bool is_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, PATIENCE_MS) > 0;
}

static void say(struct fake_qmp *f, const char *text, bool drip)
{
	char buf[4096];
	size_t len = 0;

	while (*text && len < sizeof(buf) - 32) {
		if (!strncmp(text, "@ID", 3)) {
			len += (size_t)snprintf(buf + len, 32, "%lld", f->id);
			text += 3;
		} else {
			buf[len++] = *text++;
		}
	}
	for (size_t at = 0, n; at < len; at += n) {
		n = drip ? 1 : len - at;
		if (send(f->fd, buf + at, n, MSG_NOSIGNAL) != (ssize_t)n) {
			wrong(f, "the client has gone before", text);
			return;
		}
	}
}

static void hear(struct fake_qmp *f, const char *expected)
{
	json_t *command, *id;
	const char *name;
	char is[128];
	size_t len = 0;

	do {
		if (len == sizeof(f->heard) - 1 || !is_readable(f->fd) ||
		    recv(f->fd, f->heard + len, 1, 0) != 1) {
			wrong(f, "no command", expected);
			return;
		}
	} while (f->heard[len++] != '\n');
	f->heard[len - 1] = '\0';
	command = json_loads(f->heard, 0, NULL);
	id = json_object_get(command, "id");
	name = json_string_value(json_object_get(command, "execute"));
	snprintf(is, sizeof(is), "%s", name ? name : "");
	if (!name)
		snprintf(is, sizeof(is), "oob %s",
			 json_string_value(json_object_get(command, "exec-oob")));
	if (strcmp(is, expected) != 0)
		wrong(f, expected, f->heard);
	if (!json_is_integer(id))
		wrong(f, "no id", f->heard);
	f->id = json_integer_value(id);
	json_decref(command);
}

static void *play(void *arg)
{
	struct fake_qmp *f = arg;
	char byte;

	f->fd = is_readable(f->listen_fd) ? accept(f->listen_fd, NULL, NULL) : -1;
	for (const struct act *a = f->script; f->fd >= 0; a++) {
		if (a->kind == SAY || a->kind == DRIP) {
			say(f, a->text, a->kind == DRIP);
		} else if (a->kind == HEAR) {
			hear(f, a->text);
		} else if (a->kind == HAS) {
			if (!strstr(f->heard, a->text))
				wrong(f, a->text, f->heard);
		} else if (a->kind == GO) {
			if (!is_readable(f->go[0]) || read(f->go[0], &byte, 1) != 1)
				wrong(f, "the test", "never said go");
		} else {
			if (a->kind == END && is_readable(f->fd) && recv(f->fd, &byte, 1, 0) > 0)
				wrong(f, "more than expected", &byte);
			break;
		}
	}
	if (f->fd >= 0)
		close(f->fd);
	else
		wrong(f, "nobody", "connected");
	return NULL;
}

void fake_qmp_start(struct fake_qmp *f, const struct act *script)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	memset(f, 0, sizeof(*f));
	f->script = script;
	snprintf(f->dir, sizeof(f->dir), "/tmp/viaduct-qmp-XXXXXX");
	cr_assert(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/qmp", f->dir);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", f->path);
	f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(f->listen_fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	cr_assert_eq(listen(f->listen_fd, 1), 0);
	cr_assert_eq(pipe(f->go), 0);
	cr_assert_eq(pthread_create(&f->thread, NULL, play, f), 0);
}

void fake_qmp_go(struct fake_qmp *f)
{
	cr_assert_eq(write(f->go[1], "", 1), 1);
}

void fake_qmp_clean(struct fake_qmp *f)
{
	if (f->listen_fd >= 0)
		close(f->listen_fd);
	close(f->go[0]);
	close(f->go[1]);
	unlink(f->path);
	rmdir(f->dir);
}

void fake_qmp_join(struct fake_qmp *f)
{
	pthread_join(f->thread, NULL);
	fake_qmp_clean(f);
	cr_assert_str_empty(f->wrong, "%s", f->wrong);
}
