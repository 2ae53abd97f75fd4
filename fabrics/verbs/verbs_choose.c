/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_choose.c -- which device, port and GID are used, out of what the host has.
 *
 * Users should never have to name a GID: a wrong one is the most common cause of "retry counter
 * exceeded". So the choice is an IP address, as rdma_cm wants it: the one by which the peer
 * knows this host where a device carries it, else the best there is. Refuses, with what to do,
 * whatever could not work.
 *
 * Touches no device and keeps no state.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabrics/verbs/verbs_choose.h"

/* -- addresses ---------------------------------------------------------------------- */

struct verbs_ip verbs_ip_parse(const char *text)
{
	struct verbs_ip ip = {0};
	char plain[INET6_ADDRSTRLEN];
	size_t len = strcspn(text, "%");

	if (len >= sizeof(plain))
		return ip;
	memcpy(plain, text, len);
	plain[len] = '\0';
	if (inet_pton(AF_INET, plain, ip.bytes) == 1)
		ip.family = AF_INET;
	else if (inet_pton(AF_INET6, plain, ip.bytes) == 1)
		ip.family = AF_INET6;
	if (text[len] && ip.family == AF_INET6) {
		ip.scope = if_nametoindex(text + len + 1);
		if (!ip.scope)
			ip.scope = (uint32_t)strtoul(text + len + 1, NULL, 10);
	}
	return ip;
}

bool verbs_ip_equal(const struct verbs_ip *a, const struct verbs_ip *b)
{
	return a->family && a->family == b->family &&
	       !memcmp(a->bytes, b->bytes, sizeof(a->bytes)) &&
	       (!a->scope || !b->scope || a->scope == b->scope);
}

bool verbs_ip_is_loopback(const struct verbs_ip *ip)
{
	static const uint8_t one[16] = {[15] = 1};

	return ip->family == AF_INET ? ip->bytes[0] == 127
				     : ip->family == AF_INET6 && !memcmp(ip->bytes, one, 16);
}

bool verbs_ip_is_link_local(const struct verbs_ip *ip)
{
	if (ip->family == AF_INET)
		return ip->bytes[0] == 169 && ip->bytes[1] == 254;
	return ip->family == AF_INET6 && ip->bytes[0] == 0xfe && (ip->bytes[1] & 0xc0) == 0x80;
}

const char *verbs_ip_text(const struct verbs_ip *ip, char *buf, size_t cap)
{
	if (!ip->family || !inet_ntop(ip->family, ip->bytes, buf, (socklen_t)cap))
		snprintf(buf, cap, "none");
	return buf;
}

void verbs_ip_to_sockaddr(const struct verbs_ip *ip, uint16_t port, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof(*out));
	if (ip->family == AF_INET) {
		struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};

		memcpy(&sin.sin_addr, ip->bytes, sizeof(sin.sin_addr));
		memcpy(out, &sin, sizeof(sin));
	} else {
		struct sockaddr_in6 sin = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

		memcpy(&sin.sin6_addr, ip->bytes, sizeof(sin.sin6_addr));
		sin.sin6_scope_id = ip->scope;
		memcpy(out, &sin, sizeof(sin));
	}
}

struct verbs_ip verbs_ip_of_gid(const uint8_t gid[16], uint32_t ifindex)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct verbs_ip ip = {.family = AF_INET6};

	if (!memcmp(gid, mapped, sizeof(mapped))) {
		ip.family = AF_INET;
		memcpy(ip.bytes, gid + 12, 4);
		return ip;
	}
	memcpy(ip.bytes, gid, 16);
	ip.scope = verbs_ip_is_link_local(&ip) ? ifindex : 0;
	return ip;
}

/* -- one port ----------------------------------------------------------------------- */

const char *verbs_port_name(const struct verbs_port *port, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s/%u", port->device, port->port);
	return buf;
}

static const char *type_name(enum verbs_gid_type type)
{
	return type == VERBS_GID_ROCE_V2   ? "RoCE v2"
	       : type == VERBS_GID_ROCE_V1 ? "RoCE v1"
					   : "InfiniBand";
}

/* Is @s of the version that rdma_cm uses on @port? */
static bool has_version(const struct verbs_port *port, const struct verbs_source *s)
{
	return port->link != VERBS_ROCE || s->type == port->cm_type;
}

/* 0 cannot be used; else the more the better. */
static unsigned worth(const struct verbs_port *port, const struct verbs_source *s)
{
	if (!has_version(port, s) || verbs_ip_is_link_local(&s->ip))
		return 0;
	return verbs_ip_is_loopback(&s->ip) ? 1 : 2;
}

static const struct verbs_gid *find_gid(const struct verbs_port *port, int index)
{
	for (unsigned i = 0; i < port->ngids; i++)
		if ((int)port->gid[i].index == index)
			return &port->gid[i];
	return NULL;
}

/* The source that stands for GID @index, or why it cannot be. */
static int source_of_gid(const struct verbs_port *port, int index, struct verbs_source *out,
			 struct via_error *err)
{
	const struct verbs_gid *gid = find_gid(port, index);
	char name[80];

	verbs_port_name(port, name, sizeof(name));
	if (!gid)
		return via_fail(err, -EINVAL,
				"fabric verbs: gid-index=%d\n%s has no GID there: its table has "
				"%u places, %u are in use\n"
				"`viaduct fabrics` lists them; without gid-index one is chosen",
				index, name, port->gid_table_len, port->ngids);
	for (unsigned i = 0; i < port->nsources; i++) {
		*out = port->source[i];
		if (port->link != VERBS_ROCE) {
			out->gid_index = index;
			return 0;
		}
		if (out->gid_index == index && has_version(port, out))
			return 0;
	}
	if (port->link == VERBS_ROCE)
		return via_fail(err, -EINVAL,
				"fabric verbs: gid-index=%d\nit is a GID of %s, and rdma_cm makes "
				"connections of %s on %s\n"
				"choose one of that version, or leave gid-index out",
				index, type_name(gid->type), type_name(port->cm_type), name);
	return verbs_choose_source(port, -1, NULL, out, err);
}

static int no_source(const struct verbs_port *port, struct via_error *err)
{
	bool link_local = false, other_version = false;
	char name[80];

	verbs_port_name(port, name, sizeof(name));
	for (unsigned i = 0; i < port->nsources; i++) {
		link_local = link_local || has_version(port, &port->source[i]);
		other_version = other_version || !has_version(port, &port->source[i]);
	}
	return via_fail(err, -ENODEV, "use %s\n%s\n%s", name,
			link_local      ? "its only address is link-local"
			: other_version ? "its GIDs are of another RoCE version than rdma_cm uses"
			: port->ngids   ? "no IP address belongs to it"
					: "its GID table is empty",
			other_version && !link_local
				? "set the version with cma_roce_mode"
				: "give its network interface an IP address: ip addr add "
				  "ADDRESS/LEN dev INTERFACE");
}

int verbs_choose_source(const struct verbs_port *port, int gid_index, const struct verbs_ip *local,
			struct verbs_source *out, struct via_error *err)
{
	const struct verbs_source *best = NULL;

	if (gid_index >= 0)
		return source_of_gid(port, gid_index, out, err);
	for (unsigned i = 0; i < port->nsources; i++) {
		const struct verbs_source *s = &port->source[i];

		if (local && has_version(port, s) && verbs_ip_equal(&s->ip, local)) {
			*out = *s;
			return 0;
		}
		if (worth(port, s) > (best ? worth(port, best) : 0))
			best = s;
	}
	if (!best)
		return no_source(port, err);
	*out = *best;
	return 0;
}

unsigned verbs_rank(const struct verbs_port *port, const struct verbs_source *source)
{
	unsigned rank = port->near ? 1 : 2;

	if (port->link == VERBS_ROCE)
		rank += source->type == VERBS_GID_ROCE_V2 ? 2 : 4;
	else if (port->link == VERBS_IWARP)
		rank += 6;
	return verbs_ip_is_loopback(&source->ip) ? 9 : rank;
}

/* -- among ports -------------------------------------------------------------------- */

static int unknown_device(const struct verbs_port *ports, unsigned n, const struct verbs_name *want,
			  struct via_error *err)
{
	char known[160] = "none", name[80];
	size_t len = 0;

	for (unsigned i = 0; i < n && len < sizeof(known); i++)
		len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", len ? ", " : "",
					verbs_port_name(&ports[i], name, sizeof(name)));
	snprintf(name, sizeof(name), want->port ? "%s/%u" : "%s", want->device, want->port);
	return via_fail(err, -ENODEV,
			"open fabric verbs:%s\nthis host has no such device: it has %s\n"
			"name one of them, or none to have one chosen",
			name, known);
}

static int not_usable(const struct verbs_port *port, struct via_error *err)
{
	char name[80];

	verbs_port_name(port, name, sizeof(name));
	if (port->trouble[0])
		return via_fail(err, -ENODEV, "use %s\n%s\ncheck the rights on /dev/infiniband",
				name, port->trouble);
	return via_fail(err, -ENODEV,
			"use %s\nits port is %s, not active\n"
			"check the cable and `ip link set INTERFACE up`%s",
			name, port->state,
			port->link == VERBS_INFINIBAND ? ", and that a subnet manager runs" : "");
}

/* How well a port serves: 0 not at all; one that carries @local serves best. */
static unsigned fitness(const struct verbs_port *port, const struct verbs_settings *want,
			const struct verbs_ip *local, struct verbs_source *source)
{
	if (port->trouble[0] || !port->active ||
	    verbs_choose_source(port, want->gid_index, local, source, NULL))
		return 0;
	return 20 - verbs_rank(port, source) +
	       (local && verbs_ip_equal(&source->ip, local) ? 20 : 0);
}

static bool is_named(const struct verbs_port *port, const struct verbs_name *name)
{
	return !name ||
	       (!strcmp(port->device, name->device) && (!name->port || name->port == port->port));
}

static bool is_chosen(const struct verbs_choice *chosen, unsigned n, unsigned port)
{
	while (n)
		if (chosen[--n].port == port)
			return true;
	return false;
}

/* The fittest port of that name that was not chosen yet. The number of those that have the name. */
static unsigned choose_one(const struct verbs_port *ports, unsigned n,
			   const struct verbs_settings *want, const struct verbs_name *name,
			   const struct verbs_ip *local, struct verbs_choice *chosen,
			   unsigned nchosen, unsigned *last, unsigned *best)
{
	unsigned named = 0;

	*best = 0;
	for (unsigned i = 0; i < n; i++) {
		struct verbs_source source;
		unsigned f;

		if (!is_named(&ports[i], name) || is_chosen(chosen, nchosen, i))
			continue;
		named++;
		*last = i;
		f = fitness(&ports[i], want, local, &source);
		if (f > *best) {
			*best = f;
			chosen[nchosen] = (struct verbs_choice){.port = i, .source = source};
		}
	}
	return named;
}

/* Nothing fits: say it of the one that was asked for, or of the last that was looked at. */
static int explain(const struct verbs_port *port, const struct verbs_settings *want,
		   struct via_error *err)
{
	struct verbs_source drop;
	int rc;

	if (port->trouble[0] || !port->active)
		return not_usable(port, err);
	rc = verbs_choose_source(port, want->gid_index, NULL, &drop, err);
	return rc ? rc : via_fail(err, -ENODEV, "use %s\nno address of it fits\n", port->device);
}

static int too_few(unsigned wanted, unsigned got, struct via_error *err)
{
	return via_fail(err, -ENODEV,
			"open fabric verbs: rails=%u\nthis host has %u usable port%s\n"
			"ask for so many, or see `viaduct fabrics` for what keeps the others",
			wanted, got, got == 1 ? "" : "s");
}

int verbs_choose(const struct verbs_port *ports, unsigned n, const struct verbs_settings *want,
		 const char *local_host, struct verbs_choice *out, struct via_error *err)
{
	struct verbs_ip ip = verbs_ip_parse(local_host);
	const struct verbs_ip *local = ip.family && !verbs_ip_is_loopback(&ip) ? &ip : NULL;

	for (unsigned i = 0; i < want->nrails; i++) {
		const struct verbs_name *name = want->nnames ? &want->name[i] : NULL;
		unsigned last = 0, best;

		if (!choose_one(ports, n, want, name, local, out, i, &last, &best))
			return name ? unknown_device(ports, n, name, err)
				    : too_few(want->nrails, i, err);
		if (!best)
			return i && !name ? too_few(want->nrails, i, err)
					  : explain(&ports[last], want, err);
	}
	return 0;
}
