/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_socket.c -- addresses, name lookup, TCP sockets and waiting for the
 * control connection.
 *
 * Must never wait past a deadline, a name lookup included, and never leave a
 * blocking or inheritable descriptor behind.
 *
 * Invariant: each address shown to the user is numeric and in the form in
 * which it can be typed: "10.0.0.7:4444", "[fe80::1%eth0]:4444".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/control_internal.h"

#define HOST_MAX 256u /* a host name with its NUL */
#define PORT_MAX 6u   /* "65535" with its NUL */
#define BACKLOG  64   /* who connects while others are dealt with */

#define TIMESTAMP_LEN 12u    /* of TCP, in each segment where both sides have it */
#define ADVMSS_MAX    16384u /* half of the smallest window that Linux begins with, and less */

/* -- waiting ------------------------------------------------------------------- */

bool control_canceled(const struct via_wait *wait)
{
	struct pollfd p = {.fd = wait->cancel_fd, .events = POLLIN};

	return wait->cancel_fd >= 0 && poll(&p, 1, 0) > 0;
}

int control_poll(int fd, short events, int wake_fd, const struct via_wait *wait)
{
	/* poll(2) leaves out what is negative. */
	struct pollfd p[3] = {{.fd = fd, .events = events},
			      {.fd = wake_fd, .events = POLLIN},
			      {.fd = wait->cancel_fd, .events = POLLIN}};
	eventfd_t drop;

	for (;;) {
		int n = poll(p, 3, via_deadline_poll_ms(wait->deadline_ns));

		if (n < 0 && errno != EINTR)
			return -EIO;
		if (n > 0 && p[2].revents)
			return -ECANCELED;
		if (n > 0 && p[1].revents)
			(void)eventfd_read(wake_fd, &drop);
		if (n > 0)
			return 0;
		if (via_deadline_passed(wait->deadline_ns))
			return -EAGAIN;
	}
}

/* -- addresses as text --------------------------------------------------------- */

struct address {
	char host[HOST_MAX]; /* empty: every address of this host */
	char port[PORT_MAX];
};

static int malformed(const char *address, const char *why, struct via_error *err)
{
	return via_fail(err, -EINVAL, "read the address `%s`\n%s\nwrite HOST:PORT or [IPV6]:PORT",
			address, why);
}

/* "[IPV6]:PORT", "HOST:PORT", ":PORT" or "PORT" into its two parts. */
static int parse_address(const char *text, struct address *a, struct via_error *err)
{
	const char *host = text, *port = strrchr(text, ':');
	size_t host_len = port ? (size_t)(port - text) : 0;

	port = port ? port + 1 : text;
	if (text[0] == '[') {
		if (host_len < 2 || text[host_len - 1] != ']')
			return malformed(text, "nothing of the form `]:PORT` behind the bracket",
					 err);
		host++;
		host_len -= 2;
	} else if (memchr(host, ':', host_len)) {
		return malformed(text, "an IPv6 address stands in brackets", err);
	}
	if (!*port || strlen(port) >= PORT_MAX || strspn(port, "0123456789") != strlen(port) ||
	    strtol(port, NULL, 10) > UINT16_MAX)
		return malformed(text, "the port is not a number from 0 to 65535", err);
	if (host_len >= HOST_MAX)
		return malformed(text, "the host name is too long", err);
	memcpy(a->host, host, host_len);
	a->host[host_len] = '\0';
	snprintf(a->port, sizeof(a->port), "%s", port);
	return 0;
}

int control_socket_host(const char *address, char *host, size_t cap, struct via_error *err)
{
	struct address a;
	int rc = parse_address(address, &a, err);

	if (rc)
		return rc;
	a.host[strcspn(a.host, "%")] = '\0';
	snprintf(host, cap, "%s", a.host[0] ? a.host : "localhost");
	return 0;
}

/* An IPv4 address that came over an IPv6 socket, as the IPv4 address that it is. */
static void unmap(struct sockaddr_storage *ss)
{
	struct sockaddr_in6 in6;
	struct sockaddr_in in = {.sin_family = AF_INET};

	if (ss->ss_family != AF_INET6)
		return;
	memcpy(&in6, ss, sizeof(in6));
	if (!IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
		return;
	in.sin_port = in6.sin6_port;
	memcpy(&in.sin_addr, &in6.sin6_addr.s6_addr[12], sizeof(in.sin_addr));
	memset(ss, 0, sizeof(*ss));
	memcpy(ss, &in, sizeof(in));
}

/* Numeric host into @host and "HOST:PORT" into @both; both empty for AF_UNIX. */
static int name(const struct sockaddr_storage *from, char host[CONTROL_HOST_LEN],
		char both[CONTROL_PEER_LEN])
{
	struct sockaddr_storage ss = *from;
	char port[PORT_MAX];

	host[0] = both[0] = '\0';
	if (ss.ss_family == AF_UNIX)
		return 0;
	unmap(&ss);
	if (getnameinfo((struct sockaddr *)&ss, sizeof(ss), host, CONTROL_HOST_LEN, port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
		host[0] = '\0';
		return -EIO;
	}
	snprintf(both, CONTROL_PEER_LEN, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	return 0;
}

static bool is_loopback(const struct sockaddr_storage *from)
{
	struct sockaddr_storage ss = *from;
	struct sockaddr_in6 in6;
	struct sockaddr_in in;

	unmap(&ss);
	switch (ss.ss_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		memcpy(&in, &ss, sizeof(in));
		return ntohl(in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	case AF_INET6:
		memcpy(&in6, &ss, sizeof(in6));
		return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
	default:
		return false;
	}
}

int control_socket_names(struct via_control *c, struct via_error *err)
{
	struct sockaddr_storage local = {0}, peer = {0};
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer);
	char unused[CONTROL_PEER_LEN];

	if (getsockname(c->fd, (struct sockaddr *)&local, &local_len) ||
	    getpeername(c->fd, (struct sockaddr *)&peer, &peer_len) ||
	    name(&local, c->local_host, unused) || name(&peer, c->peer_host, c->peer))
		return via_fail(err, errno == ENOTCONN ? -ECONNRESET : -EIO,
				"control connection\n%s\nsee why at the peer", strerror(errno));
	c->loopback = is_loopback(&peer);
	if (!c->peer[0])
		snprintf(c->peer, sizeof(c->peer), "a local socket");
	return 0;
}

/*
 * The peer names the largest segment that it takes; what is missing to a packet are the headers. Half a window
 * is a limit as well: of packets as large as that nothing is known.
 */
void via_control_mtu(const struct via_control *c, unsigned *here, unsigned *there)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	bool v6 = strchr(c->peer_host, ':');
	unsigned headers = (unsigned)sizeof(struct tcphdr) + (v6 ? 40 : 20);

	*here = *there = 0;
	if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) || !info.tcpi_snd_mss ||
	    info.tcpi_advmss > ADVMSS_MAX)
		return;
	*here = info.tcpi_advmss + headers;
	*there = info.tcpi_snd_mss + headers;
	if (info.tcpi_options & TCPI_OPT_TIMESTAMPS) {
		*here += TIMESTAMP_LEN;
		*there += TIMESTAMP_LEN;
	}
}

/* -- name lookup --------------------------------------------------------------- */

/*
 * A lookup that can be abandoned: getaddrinfo() knows no deadline. Whoever of the
 * caller and the thread is done last frees it.
 */
struct lookup {
	struct address address;
	int done_fd;
	_Atomic bool one_is_done;
	int ret; /* set, like result, before done_fd is */
	struct addrinfo *result;
};

static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

static void lookup_leave(struct lookup *l)
{
	if (!atomic_exchange(&l->one_is_done, true))
		return;
	if (l->result)
		freeaddrinfo(l->result);
	close(l->done_fd);
	free(l);
}

static void *lookup_main(void *arg)
{
	struct lookup *l = arg;

	l->ret = getaddrinfo(l->address.host, l->address.port, &hints, &l->result);
	(void)eventfd_write(l->done_fd, 1);
	lookup_leave(l);
	return NULL;
}

static int lookup_start(struct lookup *l)
{
	pthread_t thread;
	sigset_t all, before;
	int errnum;

	/* The host program's signals are not this thread's to take. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	errnum = pthread_create(&thread, NULL, lookup_main, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!errnum)
		pthread_detach(thread);
	return -errnum;
}

/* 0 and *ret (getaddrinfo's) and *result; -EAGAIN, -ECANCELED, -ENOMEM, -EIO. */
static int lookup(const struct address *a, const struct via_wait *wait, int *ret,
		  struct addrinfo **result)
{
	struct lookup *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return -ENOMEM;
	l->address = *a;
	l->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->done_fd < 0 || lookup_start(l)) {
		l->one_is_done = true;
		rc = -ENOMEM;
		goto out;
	}
	rc = control_poll(l->done_fd, POLLIN, -1, wait);
	if (rc)
		goto out;
	*ret = l->ret;
	*result = l->result;
	l->result = NULL;
out:
	lookup_leave(l);
	return rc;
}

static int lookup_failed(const char *address, int ret, struct via_error *err)
{
	return via_fail(err, ret == EAI_MEMORY ? -ENOMEM : -EHOSTUNREACH,
			"look up the host of %s\n%s\ncheck the name, or give a numeric address",
			address, ret == EAI_SYSTEM ? strerror(errno) : gai_strerror(ret));
}

/* The addresses of @a, numeric ones without a lookup. */
static int resolve(const char *address, const struct address *a, const struct via_wait *wait,
		   struct addrinfo **result, struct via_error *err)
{
	struct addrinfo numeric = hints;
	int ret, rc;

	numeric.ai_flags = AI_NUMERICHOST;
	ret = getaddrinfo(a->host, a->port, &numeric, result);
	if (ret != EAI_NONAME)
		return ret ? lookup_failed(address, ret, err) : 0;
	rc = lookup(a, wait, &ret, result);
	if (rc)
		return via_fail(err, rc == -EAGAIN ? -ETIMEDOUT : rc,
				"look up the host of %s\n%s\n"
				"check the name server, or give a numeric address",
				address,
				rc == -EAGAIN ? "no answer until the deadline" : via_err_text(rc));
	return ret ? lookup_failed(address, ret, err) : 0;
}

/* -- connect ------------------------------------------------------------------- */

static int connect_failed(const char *address, int errnum, struct via_error *err)
{
	int code = via_err_from_errno(errnum);
	const char *remedy = "check the address, the route and the firewall";

	switch (errnum) {
	case ECONNREFUSED:
		remedy = "start `viaduct receive --listen ...` there, or check the address and the "
			 "firewall";
		break;
	case ENETUNREACH:
		code = -EHOSTUNREACH;
		break;
	case EACCES: /* the host's own firewall, not a wrong key */
		code = -EPERM;
		break;
	}
	return via_fail(err, code, "connect to %s\n%s\n%s", address, strerror(errnum), remedy);
}

/* Wait for a connect() under way. 0 or its errno; negative: -EAGAIN, -ECANCELED, -EIO. */
static int connect_result(int fd, const struct via_wait *wait)
{
	int errnum = 0, rc = control_poll(fd, POLLOUT, -1, wait);
	socklen_t len = sizeof(errnum);

	if (rc)
		return rc;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) ? errno : errnum;
}

static int connect_one(const char *address, const struct addrinfo *ai, const struct via_wait *wait,
		       int *result, struct via_error *err)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return connect_failed(address, errno, err);
	rc = connect(fd, ai->ai_addr, ai->ai_addrlen) ? errno : 0;
	if (rc == EINPROGRESS)
		rc = connect_result(fd, wait);
	if (!rc) {
		*result = fd;
		return 0;
	}
	close(fd);
	if (rc > 0)
		return connect_failed(address, rc, err);
	if (rc == -EAGAIN)
		return connect_failed(address, ETIMEDOUT, err);
	return via_fail(err, rc, "connect to %s\n%s\nstart it again", address, via_err_text(rc));
}

/* @wait, shared fairly with the @others addresses that are still to be tried. */
static struct via_wait share(const struct via_wait *wait, unsigned others)
{
	struct via_wait part = *wait;
	uint64_t now = via_now_ns();

	if (wait->deadline_ns != VIA_NEVER && wait->deadline_ns > now)
		part.deadline_ns = now + (wait->deadline_ns - now) / (others + 1);
	return part;
}

static int connect_any(const char *address, bool anywhere, const struct addrinfo *list,
		       const struct via_wait *wait, int *fd, struct via_error *err)
{
	struct via_error last = {0};
	unsigned others = 0;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next)
		others++;
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		struct via_wait part = share(wait, --others);
		struct sockaddr_storage ss = {0};
		char host[CONTROL_HOST_LEN], both[CONTROL_PEER_LEN];

		last = (struct via_error){0};
		memcpy(&ss, ai->ai_addr, ai->ai_addrlen);
		(void)name(&ss, host, both);
		if (!anywhere && !is_loopback(&ss))
			via_fail(&last, -EACCES,
				 "connect to %s\nplain text may go to loopback only\n"
				 "give both sides --psk or --tls-creds (or --insecure)",
				 both);
		else if (!connect_one(both, ai, &part, fd, &last))
			return 0;
		if (last.code == -ECANCELED)
			break;
	}
	if (strcmp(last.what + strlen("connect to "), address) != 0)
		return via_fail(err, last.code, "%s (%s)\n%s\n%s", last.what, address, last.seen,
				last.remedy);
	return via_error_pass(err, &last);
}

int control_socket_connect(const char *address, bool anywhere, const struct via_wait *wait, int *fd,
			   struct via_error *err)
{
	struct addrinfo *list = NULL;
	struct address a;
	int rc = parse_address(address, &a, err);

	if (!rc && (!a.host[0] || strtol(a.port, NULL, 10) == 0))
		rc = malformed(address,
			       a.host[0] ? "port 0 is for listening only" : "the host is missing",
			       err);
	if (!rc)
		rc = resolve(address, &a, wait, &list, err);
	if (rc)
		return rc;
	rc = connect_any(address, anywhere, list, wait, fd, err);
	freeaddrinfo(list);
	return rc;
}

/* -- listen and accept --------------------------------------------------------- */

/* A listening socket on @ai. 0 or a positive errno. */
static int listen_on(const struct addrinfo *ai, int *listen_fd)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int yes = 1, no = 0, errnum;

	if (fd < 0)
		return errno;
	/* Connections of an earlier run that linger in TIME_WAIT are not in the way. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
	    (ai->ai_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no))) ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, BACKLOG)) {
		errnum = errno;
		close(fd);
		return errnum;
	}
	*listen_fd = fd;
	return 0;
}

static int listen_failed(const char *address, int errnum, struct via_error *err)
{
	int code = errnum == EACCES ? -EPERM : via_err_from_errno(errnum);
	const char *remedy = "check the address";

	if (code == -EADDRINUSE)
		remedy = "stop the program that listens there, or take another port";
	else if (code == -EADDRNOTAVAIL)
		remedy = "use an address of this host, or none for all of them";
	else if (code == -EPERM)
		remedy = "take a port of 1024 or above";
	return via_fail(err, code, "listen on %s\n%s\n%s", address, strerror(errnum), remedy);
}

int via_control_listen(const char *address, int *listen_fd, struct via_error *err)
{
	struct addrinfo *list = NULL;
	struct address a;
	int ret, errnum = 0, rc = parse_address(address, &a, err);

	if (rc)
		return rc;
	/* Every address: IPv6's "any" takes IPv4 as well, where there is IPv6. */
	ret = getaddrinfo(a.host[0] ? a.host : "::", a.port, &hints, &list);
	if (ret)
		return lookup_failed(address, ret, err);
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		errnum = listen_on(ai, listen_fd);
		if (!errnum || errnum == EADDRINUSE)
			break; /* half of a name's addresses would be a surprise */
	}
	freeaddrinfo(list);
	if (!a.host[0] && (errnum == EAFNOSUPPORT || errnum == EADDRNOTAVAIL)) {
		if (getaddrinfo("0.0.0.0", a.port, &hints, &list) == 0) {
			errnum = listen_on(list, listen_fd);
			freeaddrinfo(list);
		}
	}
	return errnum ? listen_failed(address, errnum, err) : 0;
}

int via_control_listen_address(int listen_fd, char *buf, size_t cap)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	char host[CONTROL_HOST_LEN], both[CONTROL_PEER_LEN];

	if (getsockname(listen_fd, (struct sockaddr *)&ss, &len) || name(&ss, host, both) ||
	    strlen(both) >= cap)
		return -EIO;
	snprintf(buf, cap, "%s", both);
	return 0;
}

int control_socket_accept(int listen_fd, int *fd, struct via_error *err)
{
	*fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (*fd >= 0)
		return 0;
	/* Whoever knocked may be gone already: no reason to end the wait. */
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return -EAGAIN;
	return via_fail(err, errno == EMFILE || errno == ENFILE ? -ENOMEM : -EIO,
			"accept a connection\n%s\ncheck the limit of open files "
			"(ulimit -n) and the listening socket",
			strerror(errno));
}
