/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_device.c -- the RDMA devices of this host, their ports and addresses.
 *
 * Only looks, at set-up time. What cannot be looked at is kept with the reason, so that
 * `viaduct fabrics` can show it.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabrics/verbs/verbs.h"

#define CM_DEVICE        "/dev/infiniband/rdma_cm"
#define SOFT_ROCE_VENDOR 0xffffffu

/* -- small files -------------------------------------------------------------------- */

/* The first line of the file that @fmt names, without its newline; false when there is none. */
static bool __attribute__((format(printf, 3, 4)))
read_line(char *buf, size_t cap, const char *fmt, ...)
{
	char path[256];
	va_list ap;
	FILE *f;
	bool ok;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	f = fopen(path, "re");
	ok = f && fgets(buf, (int)cap, f);
	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

/* -- why there is none -------------------------------------------------------------- */

static bool kernel_has_device(char *name, size_t cap)
{
	DIR *dir = opendir("/sys/class/infiniband");
	struct dirent *e;
	bool found = false;

	while (dir && !found && (e = readdir(dir)))
		if (e->d_name[0] != '.') {
			snprintf(name, cap, "%s", e->d_name);
			found = true;
		}
	if (dir)
		closedir(dir);
	return found;
}

static int no_device(struct via_error *err)
{
	char name[sizeof(((struct dirent *)0)->d_name)];

	if (!kernel_has_device(name, sizeof(name)))
		return via_fail(err, -ENODEV,
				"look for RDMA devices\n"
				"this host has none: /sys/class/infiniband is empty\n"
				"load the NIC's driver; to try without one: modprobe rdma_rxe; "
				"rdma link add rxe0 type rxe netdev INTERFACE");
	if (access("/dev/infiniband/uverbs0", F_OK))
		return via_fail(err, -ENODEV,
				"look for RDMA devices\n"
				"the kernel has %s, but there is no /dev/infiniband/uverbs0\n"
				"modprobe ib_uverbs; in a container, give it /dev/infiniband",
				name);
	return via_fail(err, -ENODEV,
			"look for RDMA devices\nthe kernel has %s, but libibverbs cannot drive it\n"
			"install its user-space driver (package ibverbs-providers)",
			name);
}

static int check_cm(struct via_error *err)
{
	if (!access(CM_DEVICE, R_OK | W_OK))
		return 0;
	if (errno == ENOENT)
		return via_fail(err, -ENODEV,
				"connect RDMA devices\nthere is no " CM_DEVICE "\n"
				"modprobe rdma_ucm; in a container, give it /dev/infiniband");
	return via_fail(err, -EPERM,
			"connect RDMA devices\n" CM_DEVICE ": %s\n"
			"run as a user who may read and write it",
			strerror(errno));
}

/* -- a port's addresses ------------------------------------------------------------- */

static enum verbs_gid_type gid_type(uint32_t type)
{
	return type == IBV_GID_TYPE_ROCE_V2   ? VERBS_GID_ROCE_V2
	       : type == IBV_GID_TYPE_ROCE_V1 ? VERBS_GID_ROCE_V1
					      : VERBS_GID_IB;
}

/* The valid GIDs of @port out of all of the device's. */
static int take_gids(struct verbs_port *port, const struct ibv_gid_entry *entry, ssize_t n)
{
	port->gid = calloc(n > 0 ? (size_t)n : 1, sizeof(*port->gid));
	if (!port->gid)
		return -ENOMEM;
	for (ssize_t i = 0; i < n; i++) {
		struct verbs_gid *g = &port->gid[port->ngids];

		if (entry[i].port_num != port->port)
			continue;
		g->index = entry[i].gid_index;
		g->type = gid_type(entry[i].gid_type);
		g->ifindex = entry[i].ndev_ifindex;
		memcpy(g->raw, entry[i].gid.raw, sizeof(g->raw));
		port->ngids++;
	}
	return 0;
}

/* What rdma_cm uses on RoCE: what cma_roce_mode set, else v2 where the port has it. */
static enum verbs_gid_type cm_type(const struct verbs_port *port)
{
	char mode[32];

	if (read_line(mode, sizeof(mode),
		      "/sys/kernel/config/rdma_cm/%s/ports/%u/default_roce_mode", port->device,
		      port->port))
		return !strcmp(mode, "RoCE v2") ? VERBS_GID_ROCE_V2 : VERBS_GID_ROCE_V1;
	for (unsigned i = 0; i < port->ngids; i++)
		if (port->gid[i].type == VERBS_GID_ROCE_V2)
			return VERBS_GID_ROCE_V2;
	return VERBS_GID_ROCE_V1;
}

/* Does network interface @name belong to @port? (IPoIB, iWARP) */
static bool belongs(const struct verbs_port *port, const char *name)
{
	unsigned index = if_nametoindex(name);
	char path[256], number[16];

	for (unsigned i = 0; i < port->ngids; i++)
		if (port->gid[i].ifindex && port->gid[i].ifindex == index)
			return true;
	snprintf(path, sizeof(path), "/sys/class/net/%s/device/infiniband/%s", name, port->device);
	return !access(path, F_OK) &&
	       read_line(number, sizeof(number), "/sys/class/net/%s/dev_port", name) &&
	       strtoul(number, NULL, 10) + 1 == port->port;
}

static struct verbs_ip ip_of(const struct sockaddr *sa)
{
	struct verbs_ip ip = {0};
	struct sockaddr_in6 in6;
	struct sockaddr_in in;

	if (sa && sa->sa_family == AF_INET) {
		memcpy(&in, sa, sizeof(in));
		ip.family = AF_INET;
		memcpy(ip.bytes, &in.sin_addr, 4);
	} else if (sa && sa->sa_family == AF_INET6) {
		memcpy(&in6, sa, sizeof(in6));
		ip.family = AF_INET6;
		memcpy(ip.bytes, &in6.sin6_addr, 16);
		ip.scope = in6.sin6_scope_id;
	}
	return ip;
}

static int add_source(struct verbs_port *port, struct verbs_source source)
{
	struct verbs_source *more =
		realloc(port->source, (port->nsources + 1) * sizeof(*port->source));

	if (!more)
		return -ENOMEM;
	port->source = more;
	port->source[port->nsources++] = source;
	return 0;
}

/* RoCE: each GID is an address. Else the addresses of the interfaces that ride on the port. */
static int take_sources(struct verbs_port *port)
{
	struct ifaddrs *all = NULL;
	int rc = 0;

	for (unsigned i = 0; port->link == VERBS_ROCE && i < port->ngids && !rc; i++)
		rc = add_source(port,
				(struct verbs_source){.ip = verbs_ip_of_gid(port->gid[i].raw,
									    port->gid[i].ifindex),
						      .gid_index = (int)port->gid[i].index,
						      .type = port->gid[i].type});
	if (rc || port->link == VERBS_ROCE || getifaddrs(&all))
		return rc;
	for (const struct ifaddrs *a = all; a && !rc; a = a->ifa_next) {
		struct verbs_source s = {.ip = ip_of(a->ifa_addr), .gid_index = -1};

		if (s.ip.family && belongs(port, a->ifa_name))
			rc = add_source(port, s);
	}
	freeifaddrs(all);
	return rc;
}

/* -- a port ------------------------------------------------------------------------- */

static double lane_gbit(unsigned speed)
{
	switch (speed) {
	case 1:
		return 2.5;
	case 2:
		return 5;
	case 4:
	case 8:
		return 10;
	case 16:
		return 14;
	case 32:
		return 25;
	case 64:
		return 50;
	case 128:
		return 100;
	}
	return 0;
}

static unsigned lanes(unsigned width)
{
	switch (width) {
	case 2:
		return 4;
	case 4:
		return 8;
	case 8:
		return 12;
	case 16:
		return 2;
	}
	return 1;
}

static const char *state_text(enum ibv_port_state state)
{
	switch (state) {
	case IBV_PORT_ACTIVE:
		return "active";
	case IBV_PORT_INIT:
		return "initialising";
	case IBV_PORT_ARMED:
		return "armed";
	case IBV_PORT_DOWN:
		return "down";
	default:
		return "not active";
	}
}

static void take_node(struct verbs_port *port)
{
	char text[16];
	unsigned node = 0;

	port->numa_node = -1;
	if (read_line(text, sizeof(text), "/sys/class/infiniband/%s/device/numa_node",
		      port->device))
		port->numa_node = (int)strtol(text, NULL, 10);
	port->near = port->numa_node < 0 || getcpu(NULL, &node) || port->numa_node == (int)node;
}

static int take_port(struct ibv_context *ctx, struct verbs_port *port,
		     const struct ibv_gid_entry *entry, ssize_t n)
{
	struct ibv_port_attr attr;
	int rc = ibv_query_port(ctx, (uint8_t)port->port, &attr);

	take_node(port);
	if (rc) {
		snprintf(port->trouble, sizeof(port->trouble), "ibv_query_port: %s", strerror(rc));
		return 0;
	}
	port->link = ctx->device->transport_type == IBV_TRANSPORT_IWARP ? VERBS_IWARP
		     : attr.link_layer == IBV_LINK_LAYER_ETHERNET       ? VERBS_ROCE
									: VERBS_INFINIBAND;
	port->active = attr.state == IBV_PORT_ACTIVE;
	snprintf(port->state, sizeof(port->state), "%s", state_text(attr.state));
	port->mtu = 128u << attr.active_mtu;
	port->gbit = lane_gbit(attr.active_speed) * lanes(attr.active_width);
	port->gid_table_len = (unsigned)attr.gid_tbl_len;
	rc = take_gids(port, entry, n);
	port->cm_type = cm_type(port);
	return rc ? rc : take_sources(port);
}

/* -- all of them -------------------------------------------------------------------- */

static struct verbs_port *add_port(struct verbs_host *host, const char *device, unsigned number)
{
	struct verbs_port *more = realloc(host->port, (host->nports + 1) * sizeof(*host->port)),
			  *port;

	if (!more)
		return NULL;
	host->port = more;
	port = &more[host->nports++];
	*port = (struct verbs_port){.port = number, .numa_node = -1};
	snprintf(port->device, sizeof(port->device), "%s", device);
	return port;
}

static int take_ports(struct verbs_host *host, struct ibv_context *ctx, const char *name,
		      unsigned nports)
{
	size_t max = (size_t)nports * 1024;
	struct ibv_gid_entry *entry = calloc(max, sizeof(*entry));
	ssize_t n = entry ? ibv_query_gid_table(ctx, entry, max, 0) : -ENOMEM;
	int rc = entry ? 0 : -ENOMEM;

	for (unsigned p = 1; p <= nports && !rc; p++) {
		struct verbs_port *port = add_port(host, name, p);

		rc = port ? take_port(ctx, port, entry, n) : -ENOMEM;
	}
	free(entry);
	return rc;
}

static int take_device(struct verbs_host *host, struct ibv_device *device)
{
	const char *name = ibv_get_device_name(device);
	struct ibv_context *ctx = ibv_open_device(device);
	struct ibv_device_attr attr;
	struct verbs_port *port;
	int rc;

	if (ctx && !ibv_query_device(ctx, &attr)) {
		rc = take_ports(host, ctx, name, attr.phys_port_cnt);
		ibv_close_device(ctx);
		return rc;
	}
	rc = errno;
	port = add_port(host, name, 1);
	if (port)
		snprintf(port->trouble, sizeof(port->trouble), "it cannot be %s: %s",
			 ctx ? "queried" : "opened", strerror(rc));
	if (ctx)
		ibv_close_device(ctx);
	return port ? 0 : -ENOMEM;
}

int verbs_host_open(struct verbs_host *host, struct via_error *err)
{
	struct ibv_device **list;
	int n = 0, rc = 0;

	*host = (struct verbs_host){0};
	list = ibv_get_device_list(&n);
	if (!list || !n)
		rc = no_device(err);
	else
		rc = check_cm(err);
	for (int i = 0; i < n && !rc; i++) {
		rc = take_device(host, list[i]);
		if (rc)
			via_fail(err, rc, "look for RDMA devices\nout of memory\nfree some memory");
	}
	if (list)
		ibv_free_device_list(list);
	if (rc)
		verbs_host_close(host);
	return rc;
}

void verbs_host_close(struct verbs_host *host)
{
	for (unsigned i = 0; i < host->nports; i++) {
		free(host->port[i].gid);
		free(host->port[i].source);
	}
	free(host->port);
	*host = (struct verbs_host){0};
}

/* -- one of them -------------------------------------------------------------------- */

struct ibv_context *verbs_device_open(const char *name)
{
	int n = 0;
	struct ibv_device **list = ibv_get_device_list(&n);
	struct ibv_context *ctx = NULL;

	errno = ENODEV;
	for (int i = 0; i < n; i++)
		if (!strcmp(ibv_get_device_name(list[i]), name)) {
			ctx = ibv_open_device(list[i]);
			break;
		}
	if (list) {
		int saved = errno;

		ibv_free_device_list(list);
		errno = saved;
	}
	return ctx;
}

bool verbs_has_odp(struct ibv_context *ctx, const struct ibv_device_attr *basic)
{
	const uint32_t needed = IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV | IBV_ODP_SUPPORT_WRITE;
	struct ibv_device_attr_ex attr = {0};

	/*
	 * Soft-RoCE says that it can, and places what begins within a page at the page's start
	 * (seen with Linux 7.3.4).
	 */
	if (basic->vendor_id == SOFT_ROCE_VENDOR)
		return false;
	return !ibv_query_device_ex(ctx, NULL, &attr) &&
	       attr.odp_caps.general_caps & IBV_ODP_SUPPORT &&
	       (attr.odp_caps.per_transport_caps.rc_odp_caps & needed) == needed;
}

bool verbs_has_windows(const struct ibv_device_attr *attr)
{
	return attr->device_cap_flags &
	       (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B);
}

void verbs_library(char *buf, size_t cap)
{
	void *symbol = dlsym(RTLD_DEFAULT, "ibv_get_device_list");
	char *path = NULL, *version;
	Dl_info where;

	if (symbol && dladdr(symbol, &where) && where.dli_fname)
		path = realpath(where.dli_fname, NULL);
	version = path ? strstr(path, ".so.") : NULL;
	/* libibverbs.so.1.14.44.0 is of rdma-core 44.0 */
	snprintf(buf, cap, "rdma-core, libibverbs %s", version ? version + 4 : "?");
	free(path);
}
