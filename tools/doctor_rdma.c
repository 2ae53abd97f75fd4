/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * doctor_rdma.c -- checks of the fabrics: which there are, and of RDMA devices what makes a
 * connection hang or fail with "retry counter exceeded".
 *
 * The kernel's files are looked at, not the libraries: where those show nothing, the files still say why.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/doctor_check.h"

#define DEVICES "/sys/class/infiniband"

/* Headers that the kernel takes off an interface's MTU (iboe_get_mtu() of Linux). */
#define ROCE_HEADERS 96u
#define ROCE_MTU_MAX 4096u

#define GIDS_MAX 256u

struct port {
	const char *device;
	const char *number;
	char dir[256];
	char name[160]; /* "mlx5_0/1" */
	bool roce;
};

typedef void port_fn(const struct doctor_facts *f, const struct port *port,
		     struct doctor_report *r);

/* Call @fn for each port of each device, or say that there is none. */
static void each_port(const struct doctor_facts *f, struct doctor_report *r, bool roce_only,
		      port_fn *fn)
{
	struct doctor_names devices, numbers;
	unsigned before = r->n;

	doctor_list(f, &devices, DEVICES);
	for (unsigned i = 0; i < devices.n; i++) {
		doctor_list(f, &numbers, DEVICES "/%s/ports", devices.name[i]);
		for (unsigned k = 0; k < numbers.n; k++) {
			struct port p = {.device = devices.name[i], .number = numbers.name[k]};
			char link[32];

			snprintf(p.dir, sizeof(p.dir), DEVICES "/%s/ports/%s", p.device, p.number);
			snprintf(p.name, sizeof(p.name), "%s/%s", p.device, p.number);
			p.roce = doctor_read(f, link, sizeof(link), "%s/link_layer", p.dir) &&
				 !strcmp(link, "Ethernet");
			if (p.roce || !roce_only)
				fn(f, &p, r);
		}
	}
	if (r->n == before)
		doctor_say(r, DOCTOR_SKIPPED, "%s", devices.n ? "no RoCE" : "no RDMA device");
}

/* The network interface of @port; "" when it has none. */
static const char *interface_of(const struct doctor_facts *f, const struct port *port, char *buf,
				size_t cap)
{
	struct doctor_names net;

	if (doctor_read(f, buf, cap, "%s/gid_attrs/ndevs/0", port->dir))
		return buf;
	doctor_list(f, &net, DEVICES "/%s/device/net", port->device);
	snprintf(buf, cap, "%s", net.n ? net.name[0] : "");
	return buf;
}

/* -- ports ------------------------------------------------------------------------------- */

static bool is_active(const struct doctor_facts *f, const char *dir, char *state, size_t cap)
{
	snprintf(state, cap, "unknown");
	return doctor_read(f, state, cap, "%s/state", dir) && strstr(state, "ACTIVE");
}

static bool any_active(const struct doctor_facts *f)
{
	struct doctor_names devices, numbers;
	char dir[256], state[64];
	bool found = false;

	doctor_list(f, &devices, DEVICES);
	for (unsigned i = 0; i < devices.n && !found; i++) {
		doctor_list(f, &numbers, DEVICES "/%s/ports", devices.name[i]);
		for (unsigned k = 0; k < numbers.n && !found; k++) {
			snprintf(dir, sizeof(dir), DEVICES "/%s/ports/%s", devices.name[i],
				 numbers.name[k]);
			found = is_active(f, dir, state, sizeof(state));
		}
	}
	return found;
}

static void check_state(const struct doctor_facts *f, const struct port *port,
			struct doctor_report *r)
{
	enum doctor_verdict verdict = any_active(f) ? DOCTOR_WARNING : DOCTOR_FAULT;
	char state[64], phys[64] = "unknown", net[64];

	if (is_active(f, port->dir, state, sizeof(state))) {
		doctor_say(r, DOCTOR_OK, "%s is active", port->name);
		return;
	}
	(void)doctor_read(f, phys, sizeof(phys), "%s/phys_state", port->dir);
	interface_of(f, port, net, sizeof(net));
	if (port->roce && net[0])
		doctor_say(r, verdict,
			   "%s carries nothing\nstate %s, physical state %s\n"
			   "ip link set dev %s up; then look at cable and switch",
			   port->name, state, phys, net);
	else if (strstr(state, "INIT"))
		doctor_say(r, verdict,
			   "%s carries nothing\nstate %s: no subnet manager has seen it\n"
			   "systemctl start opensm, on one host of the fabric",
			   port->name, state);
	else
		doctor_say(r, verdict,
			   "%s carries nothing\nstate %s, physical state %s\n"
			   "look at cable and switch; ibstat shows what the port sees",
			   port->name, state, phys);
}

void doctor_ports(const struct doctor_facts *f, struct doctor_report *r)
{
	each_port(f, r, false, check_state);
}

/* -- GIDs --------------------------------------------------------------------------------- */

struct gids {
	unsigned v1, v2;      /* in use */
	unsigned routable[3]; /* of version 1 and 2, not link-local */
	unsigned cm;          /* the version that rdma_cm uses */
	bool cm_set;          /* somebody has chosen it */
	char first[64];       /* of that version, to be shown */
};

/* Link-local: fe80::/10, or 169.254.0.0/16 as a mapped address. */
static bool gid_is_link_local(const char *gid)
{
	return !strncmp(gid, "fe8", 3) || !strncmp(gid, "fe9", 3) || !strncmp(gid, "fea", 3) ||
	       !strncmp(gid, "feb", 3) || strstr(gid, ":ffff:a9fe:");
}

static void read_cm_mode(const struct doctor_facts *f, const struct port *port, struct gids *g)
{
	char mode[64];

	g->cm = g->v2 ? 2 : 1;
	if (!doctor_read(f, mode, sizeof(mode),
			 "/sys/kernel/config/rdma_cm/%s/ports/%s/default_roce_mode", port->device,
			 port->number))
		return;
	g->cm = strstr(mode, "RoCE v2") ? 2 : 1;
	g->cm_set = true;
}

/* The version of GID @i; 0: there is none. */
static unsigned read_gid(const struct doctor_facts *f, const struct port *port, unsigned i,
			 char *gid, size_t cap)
{
	char type[64];

	if (!doctor_read(f, gid, cap, "%s/gids/%u", port->dir, i) || !gid[strspn(gid, "0:")] ||
	    !doctor_read(f, type, sizeof(type), "%s/gid_attrs/types/%u", port->dir, i))
		return 0;
	return strstr(type, "v2") ? 2 : 1;
}

static void read_gids(const struct doctor_facts *f, const struct port *port, struct gids *g)
{
	char gid[64];

	*g = (struct gids){0};
	for (unsigned i = 0; i < GIDS_MAX; i++) {
		unsigned version = read_gid(f, port, i, gid, sizeof(gid));

		g->v1 += version == 1;
		g->v2 += version == 2;
		if (version && !gid_is_link_local(gid))
			g->routable[version]++;
	}
	read_cm_mode(f, port, g);
	for (unsigned i = 0; i < GIDS_MAX && !g->first[0]; i++)
		if (read_gid(f, port, i, gid, sizeof(gid)) == g->cm)
			memcpy(g->first, gid, sizeof(g->first));
}

static void check_gid(const struct doctor_facts *f, const struct port *port,
		      struct doctor_report *r)
{
	char net[64];
	struct gids g;

	read_gids(f, port, &g);
	interface_of(f, port, net, sizeof(net));
	if (!net[0])
		snprintf(net, sizeof(net), "INTERFACE");
	if (!g.v1 && !g.v2)
		doctor_say(r, DOCTOR_FAULT,
			   "%s has no address\nits GID table is empty\n"
			   "ip link set dev %s up; ip addr add ADDRESS/LEN dev %s",
			   port->name, net, net);
	else if (!g.routable[g.cm] && g.first[0])
		doctor_say(r, DOCTOR_FAULT,
			   "%s cannot be reached: its only address is link-local\nGID %s\n"
			   "ip addr add ADDRESS/LEN dev %s",
			   port->name, g.first, net);
	else
		doctor_say(r, DOCTOR_OK, "%s: %u of %u GIDs can be routed", port->name,
			   g.routable[1] + g.routable[2], g.v1 + g.v2);
}

void doctor_gids(const struct doctor_facts *f, struct doctor_report *r)
{
	each_port(f, r, true, check_gid);
}

static void check_version(const struct doctor_facts *f, const struct port *port,
			  struct doctor_report *r)
{
	struct gids g;

	read_gids(f, port, &g);
	if (!g.v1 && !g.v2)
		doctor_say(r, DOCTOR_SKIPPED, "%s has no GID", port->name);
	else if (!(g.cm == 2 ? g.v2 : g.v1))
		doctor_say(r, DOCTOR_FAULT,
			   "rdma_cm makes no connection on %s\n"
			   "it uses RoCE v%u, and the GIDs are %u of v1, %u of v2\n"
			   "cma_roce_mode -d %s -p %s -m %u",
			   port->name, g.cm, g.v1, g.v2, port->device, port->number,
			   g.cm == 2 ? 1 : 2);
	else if (g.cm == 1)
		doctor_say(r, DOCTOR_WARNING,
			   "%s speaks RoCE v1, which no router forwards\n"
			   "%s; the GIDs are %u of v1, %u of v2\n"
			   "cma_roce_mode -d %s -p %s -m 2, on both hosts",
			   port->name,
			   g.cm_set ? "default_roce_mode is RoCE v1" : "it has no other", g.v1,
			   g.v2, port->device, port->number);
	else
		doctor_say(r, DOCTOR_OK, "%s: RoCE v2", port->name);
}

void doctor_roce_version(const struct doctor_facts *f, struct doctor_report *r)
{
	each_port(f, r, true, check_version);
}

/* -- packets and partitions --------------------------------------------------------------------- */

static void check_mtu(const struct doctor_facts *f, const struct port *port,
		      struct doctor_report *r)
{
	char net[64], text[32];
	unsigned long mtu;
	unsigned active = ROCE_MTU_MAX;

	if (!interface_of(f, port, net, sizeof(net))[0] ||
	    !doctor_read(f, text, sizeof(text), "/sys/class/net/%s/mtu", net)) {
		doctor_say(r, DOCTOR_SKIPPED, "%s has no network interface", port->name);
		return;
	}
	mtu = strtoul(text, NULL, 10);
	while (active > 256 && active + ROCE_HEADERS > mtu)
		active /= 2;
	if (active < ROCE_MTU_MAX)
		doctor_say(r, DOCTOR_WARNING,
			   "%s sends small packets\n"
			   "they carry %u bytes of %u, for the MTU of %s is %lu\n"
			   "ip link set dev %s mtu 9000, at both hosts and at the switch",
			   port->name, active, ROCE_MTU_MAX, net, mtu, net);
	else
		doctor_say(r, DOCTOR_OK, "%s: %u, for the MTU of %s is %lu", port->name, active,
			   net, mtu);
}

void doctor_mtu(const struct doctor_facts *f, struct doctor_report *r)
{
	each_port(f, r, true, check_mtu);
}

static void check_pkeys(const struct doctor_facts *f, const struct port *port,
			struct doctor_report *r)
{
	unsigned full = 0, limited = 0;
	unsigned long key, first = 0;
	char text[32];

	for (unsigned i = 0; doctor_read(f, text, sizeof(text), "%s/pkeys/%u", port->dir, i); i++) {
		key = strtoul(text, NULL, 16);
		if (i == 0)
			first = key;
		full += key & 0x7fff && key & 0x8000;
		limited += key & 0x7fff && !(key & 0x8000);
	}
	if (!full && !limited)
		doctor_say(r, DOCTOR_FAULT,
			   "%s is in no partition\nits table of partition keys is empty\n"
			   "have the subnet manager add it: partitions.conf of opensm",
			   port->name);
	else if (!(first & 0x7fff))
		doctor_say(r, DOCTOR_FAULT,
			   "%s has no partition key where connections look for it\n"
			   "index 0 is 0x%04lx, %u keys stand behind it\n"
			   "name another in the fabric's spec: pkey-index=N",
			   port->name, first, full + limited);
	else if (!full)
		doctor_say(r, DOCTOR_WARNING,
			   "%s is a limited member, and two of those cannot talk to each other\n"
			   "the key is 0x%04lx\n"
			   "have the subnet manager make one of the hosts a full member: "
			   "partitions.conf of opensm",
			   port->name, first);
	else
		doctor_say(r, DOCTOR_OK, "%s: 0x%04lx", port->name, first);
}

void doctor_pkeys(const struct doctor_facts *f, struct doctor_report *r)
{
	each_port(f, r, false, check_pkeys);
}

/* -- devices ---------------------------------------------------------------------------------- */

/* How many of this process's CPUs there are, and how many of those are in @list. */
static void count_cpus(const char *allowed, const char *list, unsigned *all, unsigned *in)
{
	*all = *in = 0;
	for (unsigned cpu = 0; cpu < 4096; cpu++) {
		bool mine = doctor_cpu_is_in(cpu, allowed);

		*all += mine;
		*in += mine && doctor_cpu_is_in(cpu, list);
	}
}

static void check_node(const struct doctor_facts *f, const char *device, const char *allowed,
		       struct doctor_report *r)
{
	char text[32], list[1024];
	unsigned all, in;
	long node;

	if (!doctor_read(f, text, sizeof(text), DEVICES "/%s/device/numa_node", device) ||
	    (node = strtol(text, NULL, 10)) < 0 ||
	    !doctor_read(f, list, sizeof(list), "/sys/devices/system/node/node%ld/cpulist", node)) {
		doctor_say(r, DOCTOR_OK, "%s belongs to no node", device);
		return;
	}
	count_cpus(allowed, list, &all, &in);
	if (!in)
		doctor_say(r, DOCTOR_WARNING,
			   "%s is far from all CPUs of this process\n"
			   "it is at node %ld (CPUs %.60s), the process on CPUs %.60s\n"
			   "numactl --cpunodebind=%ld --preferred=%ld viaduct ...",
			   device, node, list, allowed, node, node);
	else
		doctor_say(r, DOCTOR_OK, "%s is at node %ld, as %u of the %u CPUs", device, node,
			   in, all);
}

void doctor_numa(const struct doctor_facts *f, struct doctor_report *r)
{
	struct doctor_names devices;
	char allowed[1024];

	doctor_list(f, &devices, DEVICES);
	if (!devices.n)
		doctor_say(r, DOCTOR_SKIPPED, "no RDMA device");
	else if (!doctor_read_field(f, "/proc/self/status", "Cpus_allowed_list:", allowed,
				    sizeof(allowed)))
		doctor_say(r, DOCTOR_SKIPPED, "no /proc/self/status");
	else
		for (unsigned i = 0; i < devices.n; i++)
			check_node(f, devices.name[i], allowed, r);
}

static bool check_node_file(const struct doctor_facts *f, struct doctor_report *r, const char *path,
			    const char *module)
{
	int errnum = doctor_access(f, path);

	if (errnum == ENOENT)
		doctor_say(r, DOCTOR_FAULT,
			   "no program can use the RDMA devices\nthere is no %s\n"
			   "modprobe %s; in a container, give it /dev/infiniband",
			   path, module);
	else if (errnum)
		doctor_say(r, DOCTOR_FAULT,
			   "this user cannot use the RDMA devices\n%s: %s\n"
			   "usermod -aG GROUP USER, with the group of `ls -l %s`",
			   path, strerror(errnum), path);
	return !errnum;
}

void doctor_drivers(const struct doctor_facts *f, struct doctor_report *r)
{
	struct doctor_names devices;
	bool ok;

	doctor_list(f, &devices, DEVICES);
	if (!devices.n) {
		doctor_say(
			r, DOCTOR_WARNING,
			"this host has no RDMA device: TCP and shared memory only\n" DEVICES
			" is empty or not there\n"
			"load the NIC's driver (modprobe mlx5_ib, irdma, bnxt_re); to try without "
			"one: modprobe rdma_rxe; rdma link add rxe0 type rxe netdev INTERFACE");
		return;
	}
	ok = check_node_file(f, r, "/dev/infiniband/uverbs0", "ib_uverbs");
	ok = check_node_file(f, r, "/dev/infiniband/rdma_cm", "rdma_ucm") && ok;
	if (ok)
		doctor_say(r, DOCTOR_OK, "%s%s", devices.name[0],
			   devices.n > 1 ? ", and others" : "");
}

/* -- the fabrics -------------------------------------------------------------------------------- */

/* What to install where a library has nothing to offer: Debian's names. */
static const struct {
	const char *library, *package;
} packages[] = {
	{"libfabric", "libfabric1"},
	{"UCX", "libucx0"},
	{"rdma-core", "ibverbs-providers"},
};

static const char *package_of(const struct via_fabric_info *info)
{
	for (size_t i = 0; i < sizeof(packages) / sizeof(packages[0]); i++)
		if (!strncmp(info->library, packages[i].library, strlen(packages[i].library)))
			return packages[i].package;
	return "the library that the reason names";
}

/* Is @info what @asked (a spec) names? */
static bool is_asked(const struct via_fabric_info *info, const char *asked)
{
	struct via_fabric_spec want, have;
	char want_kind[64], have_kind[64];

	if (via_fabric_spec_parse(asked, &want, NULL) ||
	    via_fabric_spec_parse(info->spec, &have, NULL))
		return false;
	via_fabric_kind(&want, want_kind, sizeof(want_kind));
	via_fabric_kind(&have, have_kind, sizeof(have_kind));
	return !strcmp(want_kind, have_kind);
}

static void list_usable(const struct doctor_facts *f, char *buf, size_t cap)
{
	buf[0] = '\0';
	for (unsigned i = 0; i < f->ninfos; i++) {
		size_t len = strlen(buf);

		if (f->info[i].usable)
			snprintf(buf + len, cap - len, "%s%s", len ? ", " : "", f->info[i].spec);
	}
}

static void check_asked(const struct doctor_facts *f, struct doctor_report *r)
{
	const struct via_fabric_info *found = NULL;

	for (unsigned i = 0; i < f->ninfos; i++)
		if (is_asked(&f->info[i], f->fabric) && !(found && found->usable))
			found = &f->info[i];
	if (!found)
		doctor_say(r, DOCTOR_WARNING,
			   "--fabric %s is none of those that are known here\nnobody lists it\n"
			   "see `viaduct fabrics`",
			   f->fabric);
	else if (!found->usable)
		doctor_say(r, DOCTOR_FAULT,
			   "--fabric %s cannot be used\n%s\n"
			   "give it what it needs; the package is %s (apt-get install %s)",
			   f->fabric, found->reason, package_of(found), package_of(found));
	else
		doctor_say(r, DOCTOR_OK, "%s, by %s", found->spec, found->library);
}

void doctor_fabrics(const struct doctor_facts *f, struct doctor_report *r)
{
	char usable[160];

	list_usable(f, usable, sizeof(usable));
	for (unsigned i = 0; i < f->ninfos; i++)
		if (!f->info[i].usable && !f->info[i].library[0])
			doctor_say(r, DOCTOR_WARNING,
				   "this program has no %s\n%s\n"
				   "take a package of viaduct that has it, or build it yourself",
				   f->info[i].spec, f->info[i].reason);
	if (!usable[0])
		doctor_say(r, DOCTOR_FAULT,
			   "there is no fabric\nnone of %u candidates can be used\n"
			   "apt-get install libfabric1 libucx0; `viaduct fabrics` has the reasons",
			   f->ninfos);
	else if (f->fabric && strcmp(f->fabric, "auto") != 0)
		check_asked(f, r);
	else
		doctor_say(r, DOCTOR_OK, "%s", usable);
}

/* The value of @name among the facts of @info; NULL: it has none. */
static const char *fact_of(const struct via_fabric_info *info, const char *name)
{
	const char *at = strstr(info->facts, name);

	if (!at || (at != info->facts && at[-1] != '\n'))
		return NULL;
	return at + strlen(name);
}

void doctor_odp(const struct doctor_facts *f, struct doctor_report *r)
{
	unsigned before = r->n;
	struct via_fabric_spec spec;
	const char *pin = NULL;

	if (f->fabric && !via_fabric_spec_parse(f->fabric, &spec, NULL))
		pin = via_fabric_spec_get(&spec, "pin");
	if (!pin || strcmp(pin, "no") != 0) {
		doctor_say(r, DOCTOR_SKIPPED, "--fabric has no pin=no");
		return;
	}
	for (unsigned i = 0; i < f->ninfos; i++) {
		const struct via_fabric_info *info = &f->info[i];
		const char *odp = fact_of(info, "on-demand paging: ");

		if (!info->usable || !is_asked(info, f->fabric) || !odp)
			continue;
		if (!strncmp(odp, "no", 2))
			doctor_say(r, DOCTOR_FAULT,
				   "pin=no needs a device with on-demand paging\n%s has none\n"
				   "leave pin=no out of --fabric, and raise the limit of locked "
				   "memory: ulimit -l unlimited",
				   info->device);
		else
			doctor_say(r, DOCTOR_OK, "%s has on-demand paging", info->device);
	}
	if (r->n == before)
		doctor_say(r, DOCTOR_SKIPPED, "no device of %s", f->fabric);
}
