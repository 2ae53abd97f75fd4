/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * doctor_peer.c -- checks of the way to the other host, and of what it said about itself.
 *
 * A connection that is refused and one that nobody answers have different causes, and only the latter
 * is a firewall's for certain: they must never be told as one.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tools/doctor_check.h"

static int peer_code(const struct doctor_facts *f)
{
	return f->peer_error.code;
}

/* Of a TCP connection that has not come about. */
static bool is_port_trouble(const struct doctor_facts *f)
{
	int code = peer_code(f);

	return !f->inquiry->connected && (code == -ECONNREFUSED || code == -ETIMEDOUT ||
					  code == -EHOSTUNREACH || code == -EPERM);
}

static bool is_version_trouble(const struct doctor_facts *f)
{
	return peer_code(f) == -EPROTONOSUPPORT;
}

/* Has it said what it is? */
static bool has_answered(const struct doctor_facts *f)
{
	return f->inquiry->connected && f->inquiry->theirs.program[0];
}

/* -- the way there ------------------------------------------------------------------------ */

/* The host of "[HOST]:PORT" or "HOST:PORT". */
static void host_of(const char *address, char *host, size_t cap)
{
	const char *end = strrchr(address, ':');
	size_t len = end ? (size_t)(end - address) : strlen(address);

	if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
		address++;
		len -= 2;
	}
	snprintf(host, cap, "%.*s", (int)len, address);
}

static bool is_link_local_v6(const char *host)
{
	return !strncasecmp(host, "fe", 2) && strchr("89abAB", host[2]) && host[2] &&
	       isxdigit((unsigned char)host[3]) && strchr(host, ':');
}

void doctor_peer_address(const struct doctor_facts *f, struct doctor_report *r)
{
	char host[256];

	host_of(f->peer, host, sizeof(host));
	if (is_link_local_v6(host) && !strchr(host, '%'))
		doctor_say(r, DOCTOR_FAULT,
			   "%.120s does not say which link it is on\n"
			   "%.120s is a link-local IPv6 address without its interface\n"
			   "write [%.80s%%INTERFACE]:PORT; `ip -6 neigh` shows behind which it is",
			   f->peer, host, host);
	else if (peer_code(f) == -EINVAL)
		doctor_pass(r, DOCTOR_FAULT, &f->peer_error);
	else
		doctor_say(r, DOCTOR_OK, "%.200s", f->peer);
}

void doctor_peer_port(const struct doctor_facts *f, struct doctor_report *r)
{
	const char *port = strrchr(f->peer, ':');
	char host[256];

	host_of(f->peer, host, sizeof(host));
	port = port ? port + 1 : "PORT";
	if (!is_port_trouble(f)) {
		if (f->inquiry->connected)
			doctor_say(r, DOCTOR_OK, "connected, %s", f->inquiry->security);
		else
			doctor_say(r, DOCTOR_SKIPPED, "not known: %s", f->peer_error.what);
		return;
	}
	switch (peer_code(f)) {
	case -ECONNREFUSED:
		doctor_say(
			r, DOCTOR_FAULT,
			"%.120s refuses the connection\n"
			"the host answers: nobody listens at port %.8s, or its firewall rejects\n"
			"start it there: viaduct receive --listen :%.8s; then look at `nft list "
			"ruleset`",
			f->peer, port, port);
		break;
	case -ETIMEDOUT:
		doctor_say(
			r, DOCTOR_FAULT,
			"%.120s does not answer\n%s\n"
			"a firewall drops it, or the host is down. There: nft add rule inet filter "
			"input tcp dport %.8s accept; or firewall-cmd --add-port=%.8s/tcp",
			f->peer, f->peer_error.seen, port, port);
		break;
	case -EHOSTUNREACH:
		doctor_say(r, DOCTOR_FAULT,
			   "%.120s cannot be reached\n%s\n"
			   "look at the name and the route: ip route get %.100s",
			   f->peer, f->peer_error.seen, host);
		break;
	default:
		doctor_pass(r, DOCTOR_FAULT, &f->peer_error);
	}
}

void doctor_peer_mtu(const struct doctor_facts *f, struct doctor_report *r)
{
	const struct via_inquiry *q = f->inquiry;

	if (!q->mtu_here || !q->mtu_there)
		doctor_say(r, DOCTOR_SKIPPED, "TCP does not know");
	else if (q->mtu_there < q->mtu_here)
		doctor_say(
			r, doctor_has_rdma(f) ? DOCTOR_FAULT : DOCTOR_WARNING,
			"large packets to %.100s are lost, where they are no TCP's\n"
			"packets of %u bytes leave here, the way there takes %u\n"
			"ip link set dev INTERFACE mtu %u, on both hosts and all that is between",
			f->peer, q->mtu_here, q->mtu_there, q->mtu_here);
	else
		doctor_say(r, DOCTOR_OK, "%u bytes both ways", q->mtu_here);
}

/* -- what it says ----------------------------------------------------------------------------- */

void doctor_peer_handshake(const struct doctor_facts *f, struct doctor_report *r)
{
	int code = peer_code(f);
	bool passed = !code || code == -ENODEV || is_version_trouble(f); /* these come behind it */

	if (passed && f->inquiry->connected)
		doctor_say(r, DOCTOR_OK, "%s", f->inquiry->security);
	else if (passed || is_port_trouble(f) || code == -EINVAL)
		doctor_say(r, DOCTOR_SKIPPED, "not connected");
	else
		doctor_pass(r, DOCTOR_FAULT, &f->peer_error);
}

void doctor_peer_version(const struct doctor_facts *f, struct doctor_report *r)
{
	const struct via_inquiry *q = f->inquiry;

	if (is_version_trouble(f))
		doctor_pass(r, DOCTOR_FAULT, &f->peer_error);
	else if (!has_answered(f))
		doctor_say(r, DOCTOR_SKIPPED, "the peer has not said");
	else if (strcmp(q->ours.program, q->theirs.program) != 0)
		doctor_say(r, DOCTOR_WARNING,
			   "the hosts run different releases\nhere %s, there %s\n"
			   "install the same on both; one version of the protocol apart will do "
			   "meanwhile",
			   q->ours.program, q->theirs.program);
	else
		doctor_say(r, DOCTOR_OK, "%s, protocol %u", q->theirs.program,
			   VIA_PROTOCOL_VERSION);
}

void doctor_peer_fabric(const struct doctor_facts *f, struct doctor_report *r)
{
	const struct via_inquiry *q = f->inquiry;

	if (!has_answered(f))
		doctor_say(r, DOCTOR_SKIPPED, "the peer has not said");
	else if (q->chosen < 0)
		doctor_say(
			r, DOCTOR_FAULT,
			"the two hosts have no fabric in common\n%.220s\n"
			"give both the same --fabric; `viaduct plan --peer %.100s` has the table",
			f->peer_error.seen, f->peer);
	else
		doctor_say(r, DOCTOR_OK, "%s", q->ours.offer[q->chosen].kind);
}
