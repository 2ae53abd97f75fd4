/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_probe.c -- each port of each RDMA device as a candidate, and what there is to know of it.
 */
#include <inttypes.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "fabrics/verbs/verbs.h"

/* Append a line to the facts; what does not fit is left out whole. */
static void __attribute__((format(printf, 2, 3)))
add_fact(struct via_fabric_info *info, const char *fmt, ...)
{
	size_t len = strlen(info->facts), cap = sizeof(info->facts);
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(info->facts + len, cap - len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n + 1 >= cap - len) {
		info->facts[len] = '\0';
		return;
	}
	info->facts[len + (size_t)n] = '\n';
	info->facts[len + (size_t)n + 1] = '\0';
}

static const char *link_name(enum verbs_link link)
{
	return link == VERBS_INFINIBAND ? "InfiniBand" : link == VERBS_ROCE ? "RoCE" : "iWARP";
}

static const char *type_name(enum verbs_gid_type type)
{
	return type == VERBS_GID_ROCE_V2 ? "RoCE v2" : type == VERBS_GID_ROCE_V1 ? "RoCE v1" : "IB";
}

static void add_memlock(struct via_fabric_info *info)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_MEMLOCK, &r))
		return;
	if (r.rlim_cur == RLIM_INFINITY)
		add_fact(info, "memlock: unlimited");
	else
		add_fact(info, "memlock: %" PRIu64 " KiB", (uint64_t)r.rlim_cur >> 10);
}

/* Why a GID is the one that is used, or not. */
static const char *verdict(const struct verbs_port *port, const struct verbs_gid *gid,
			   const struct verbs_source *used)
{
	struct verbs_ip ip = verbs_ip_of_gid(gid->raw, gid->ifindex);

	if (used && used->gid_index == (int)gid->index)
		return verbs_ip_is_loopback(&ip) ? ", used: there is no other"
						 : ", used: the first that can be routed";
	if (port->link != VERBS_ROCE)
		return "";
	if (gid->type != port->cm_type)
		return ", not used: not the version of rdma_cm";
	return verbs_ip_is_link_local(&ip) ? ", not used: link-local" : "";
}

static void add_gids(struct via_fabric_info *info, const struct verbs_port *port,
		     const struct verbs_source *used)
{
	for (unsigned i = 0; i < port->ngids; i++) {
		const struct verbs_gid *gid = &port->gid[i];
		struct verbs_ip raw = {.family = AF_INET6};
		char text[64], netdev[IF_NAMESIZE] = "";

		memcpy(raw.bytes, gid->raw, sizeof(raw.bytes));
		if (!gid->ifindex || !if_indextoname(gid->ifindex, netdev))
			netdev[0] = '\0';
		add_fact(info, "gid %u: %s %s%s%s%s", gid->index, type_name(gid->type),
			 verbs_ip_text(&raw, text, sizeof(text)), netdev[0] ? " " : "", netdev,
			 verdict(port, gid, used));
	}
}

static void add_facts(struct via_fabric_info *info, const struct verbs_port *port,
		      const struct verbs_source *used, struct ibv_context *ctx,
		      const struct ibv_device_attr *attr)
{
	char ip[64];

	add_fact(info, "port: %s, %s, %.0f Gbit/s, MTU %u", port->state, link_name(port->link),
		 port->gbit, port->mtu);
	if (used)
		add_fact(info, "address: %s", verbs_ip_text(&used->ip, ip, sizeof(ip)));
	if (port->numa_node >= 0)
		add_fact(info, "numa node: %d%s", port->numa_node, port->near ? " (near)" : "");
	add_memlock(info);
	if (ctx) {
		add_fact(info, "on-demand paging: %s", verbs_has_odp(ctx, attr) ? "yes" : "no");
		add_fact(info, "memory windows: %s",
			 verbs_has_windows(attr) ? "type 2: each key serves one endpoint"
						 : "none: keys are the registration's");
	}
	add_gids(info, port, used);
}

/* "use mlx5_0/1\nits port is down\ncheck ..." as one line. */
static void set_reason(struct via_fabric_info *info, const struct via_error *err)
{
	char line[sizeof(err->seen) + sizeof(err->remedy) + 4];

	snprintf(line, sizeof(line), "%s (%s)", err->seen, err->remedy);
	line[sizeof(info->reason) - 1] = '\0';
	memcpy(info->reason, line, sizeof(info->reason));
}

static void describe(const struct verbs_port *port, const struct verbs_settings *defaults,
		     struct via_fabric_info *info)
{
	struct ibv_context *ctx = port->trouble[0] ? NULL : verbs_device_open(port->device);
	struct verbs_settings want = *defaults;
	struct verbs_choice choice;
	struct ibv_device_attr attr;
	struct via_error err = {0};

	memset(info, 0, sizeof(*info));
	snprintf(info->spec, sizeof(info->spec), port->port == 1 ? "verbs:%.40s" : "verbs:%.40s:%u",
		 port->device, port->port);
	snprintf(info->device, sizeof(info->device), "%.50s/%u", port->device, port->port);
	verbs_library(info->library, sizeof(info->library));
	if (ctx && ibv_query_device(ctx, &attr)) {
		ibv_close_device(ctx);
		ctx = NULL;
	}
	snprintf(want.name[0].device, sizeof(want.name[0].device), "%.47s", port->device);
	want.name[0].port = port->port;
	want.nnames = 1;
	info->usable = !verbs_choose(port, 1, &want, "", &choice, &err) && ctx;
	if (info->usable) {
		info->rank = verbs_rank(port, &choice.source);
		verbs_fill_caps(&attr, defaults, &info->caps);
	} else {
		set_reason(info, &err);
	}
	add_facts(info, port, info->usable ? &choice.source : NULL, ctx, &attr);
	if (ctx)
		ibv_close_device(ctx);
}

static void describe_none(const struct via_error *why, struct via_fabric_info *info)
{
	memset(info, 0, sizeof(*info));
	snprintf(info->spec, sizeof(info->spec), "verbs");
	verbs_library(info->library, sizeof(info->library));
	set_reason(info, why);
	info->rank = 1;
	add_memlock(info);
}

int verbs_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
		struct via_error *err)
{
	static const struct via_fabric_spec none = {.name = "verbs"};
	struct verbs_settings defaults;
	struct via_fabric_info info;
	struct via_error why = {0};
	struct verbs_host host;
	int rc = verbs_settings(&none, &defaults, err);

	if (rc)
		return rc;
	if (verbs_host_open(&host, &why)) {
		describe_none(&why, &info);
		return found(arg, &info);
	}
	for (unsigned i = 0; i < host.nports && !rc; i++) {
		describe(&host.port[i], &defaults, &info);
		rc = found(arg, &info);
	}
	verbs_host_close(&host);
	return rc;
}
