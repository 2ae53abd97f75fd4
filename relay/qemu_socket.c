/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_socket.c -- see qemu_socket.h. Never connects to try whether somebody is there: QEMU takes
 * each connection for a channel.
 */
#include "relay/qemu_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "relay/relay.h"
#include "transport/control.h"

/* All channels may knock at once, before the first is accepted. */
#define BACKLOG 512

/* What stands behind @prefix; NULL when @address does not begin with it. */
static const char *behind(const char *address, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(address, prefix, len) ? NULL : address + len;
}

static const char *unix_path(const char *address)
{
	return behind(address, "unix:");
}

/* As in QEMU's migration URI, or without the prefix. */
static const char *tcp_part(const char *address)
{
	const char *part = behind(address, "tcp:");

	return part ? part : address;
}

static int unix_address(const char *path, struct sockaddr_un *sun, struct via_error *err)
{
	*sun = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof(sun->sun_path))
		return via_fail(err, -EINVAL,
				"read the address unix:%.60s\n%zu characters of path\n"
				"give it 1 to %zu: a shorter folder helps",
				path, strlen(path), sizeof(sun->sun_path) - 1);
	memcpy(sun->sun_path, path, strlen(path));
	return 0;
}

static int fail_errno(const char *what, const char *address, int errnum, const char *remedy,
		      struct via_error *err)
{
	int code = errnum == EAGAIN || errnum == EINPROGRESS ? -ETIMEDOUT
		   : errnum == ENETUNREACH                   ? -EHOSTUNREACH
		   : errnum == EACCES                        ? -EPERM
							     : via_err_from_errno(errnum);

	return via_fail(err, code, "%s %s\n%s\n%s", what, address,
			code == -ETIMEDOUT ? "no answer until the deadline" : strerror(errnum),
			remedy);
}

/* -- listen ------------------------------------------------------------------ */

static int listen_unix(const char *address, const char *path, int *result, struct via_error *err)
{
	struct sockaddr_un sun;
	int fd, rc = unix_address(path, &sun, err);

	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail_errno("listen on", address, errno, "raise ulimit -n", err);
	rc = bind(fd, (struct sockaddr *)&sun, sizeof(sun));
	if (!rc)
		rc = listen(fd, BACKLOG);
	if (!rc) {
		*result = fd;
		return 0;
	}
	rc = fail_errno(
		"listen on", address, errno,
		errno == EADDRINUSE
			? "remove the socket when nobody serves it any more, or take another path"
			: "take another path; its folder must exist and be writable",
		err);
	close(fd);
	return rc;
}

int relay_listen(const char *address, int *fd, struct via_error *err)
{
	const char *path = unix_path(address);
	int rc = path ? listen_unix(address, path, fd, err)
		      : via_control_listen(tcp_part(address), fd, err);

	if (!rc && !path)
		(void)listen(*fd, BACKLOG); /* more than a control connection needs */
	return rc;
}

/* -- dial ---------------------------------------------------------------------- */

static int dial(const char *address, const struct sockaddr *sa, socklen_t len, int *result,
		struct via_error *err)
{
	struct timeval limit = {.tv_sec = RELAY_DIAL_S};
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int yes = 1, rc;

	if (fd < 0)
		return fail_errno("connect to QEMU at", address, errno, "raise ulimit -n", err);
	/* Blocking, because a full backlog of a unix socket has no event to wait for. */
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	rc = connect(fd, sa, len) || fcntl(fd, F_SETFL, O_NONBLOCK)
		     ? fail_errno("connect to QEMU at", address, errno,
				  "start it with -incoming at this address", err)
		     : 0;
	if (rc) {
		close(fd);
		return rc;
	}
	if (sa->sa_family != AF_UNIX)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	*result = fd;
	return 0;
}

/* "HOST:PORT" or "[HOST]:PORT" into @host; returns the port, or NULL. */
static const char *split(const char *address, char host[256])
{
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;

	if (len >= 2 && address[0] == '[' && colon[-1] == ']') {
		address++;
		len -= 2;
	}
	if (!len || len > 255 || !colon[1])
		return NULL;
	memcpy(host, address, len);
	host[len] = '\0';
	return colon + 1;
}

static int malformed(const char *address, struct via_error *err)
{
	return via_fail(err, -EINVAL,
			"read the address `%s`\nneither a path nor a host and a port\n"
			"write unix:PATH, HOST:PORT or [IPV6]:PORT",
			address);
}

int relay_check_address(const char *address, struct via_error *err)
{
	const char *path = unix_path(address);
	struct sockaddr_un sun;
	char host[256];

	if (path)
		return unix_address(path, &sun, err);
	return split(tcp_part(address), host) ? 0 : malformed(address, err);
}

int relay_check_peer(const char *address, struct via_error *err)
{
	char host[256];
	const char *port = split(address, host);
	/* split() takes both brackets off, or none. */
	bool sound = port && (address[0] == '[' ? host[0] != '[' : !strchr(host, ':'));

	if (sound && strspn(port, "0123456789") == strlen(port) && strlen(port) <= 5 &&
	    strtol(port, NULL, 10) > 0 && strtol(port, NULL, 10) <= UINT16_MAX)
		return 0;
	return via_fail(err, -EINVAL,
			"read the address `%s`\nnot a host and the number of a port\n"
			"write HOST:PORT or [IPV6]:PORT",
			address);
}

static int dial_tcp(const char *address, int *fd, struct via_error *err)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	struct via_error last = {0};
	char host[256];
	const char *port = split(address, host);
	int rc = port ? 0 : malformed(address, err);

	if (rc)
		return rc;
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc)
		return via_fail(err, -EHOSTUNREACH,
				"look up the host of %s\n%s\n"
				"check the name, or give a numeric address",
				address, gai_strerror(rc));
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		last = (struct via_error){0};
		if (!dial(address, ai->ai_addr, ai->ai_addrlen, fd, &last))
			break;
	}
	freeaddrinfo(list);
	return last.code ? via_error_pass(err, &last) : 0;
}

int qemu_dial(const char *address, int *fd, struct via_error *err)
{
	const char *path = unix_path(address);
	struct sockaddr_un sun;
	int rc;

	if (!path)
		return dial_tcp(tcp_part(address), fd, err);
	rc = unix_address(path, &sun, err);
	return rc ? rc : dial(address, (struct sockaddr *)&sun, sizeof(sun), fd, err);
}
