/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_probe.c -- which providers this host has, which of them can be used, and why the others not.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabrics/ofi/ofi.h"
#include "fabrics/reach.h"

/* The providers that users ask for, the better ones first. */
static const struct {
	const char *name;
	unsigned rank;     /* as in struct via_fabric_info */
	bool local;        /* reaches this host's processes only */
	const char *needs; /* where it is missing */
} known[] = {
	{"verbs", 10, false, "an RDMA device (InfiniBand, RoCE, iWARP) and its verbs driver"},
	{"cxi", 11, false, "a Slingshot NIC"},
	{"opx", 12, false, "an Omni-Path NIC"},
	{"psm3", 13, false, "an Omni-Path or RoCE NIC and the PSM3 provider"},
	{"efa", 14, false, "an Elastic Fabric Adapter"},
	{"shm", 50, true, "POSIX shared memory (/dev/shm)"},
	{"tcp", 90, false, "a network interface; loopback is one"},
};

#define NKNOWN (sizeof(known) / sizeof(known[0]))

static void library_version(char *buf, size_t cap)
{
	uint32_t v = fi_version();

	snprintf(buf, cap, "libfabric %u.%u", FI_MAJOR(v), FI_MINOR(v));
}

/* What else there is to know: where it listens, and what the environment tells it. */
static void put_facts(const struct fi_info *info, char *buf, size_t cap)
{
	static const char *const switches[] = {
		"FI_PROVIDER",
		"FI_VERBS_DEVICE_NAME",
		"FI_VERBS_IFACE",
		"FI_VERBS_GID_IDX",
		"FI_TCP_IFACE",
		"FI_UNIVERSE_SIZE",
		"FI_OFI_RXM_USE_SRX",
		"FI_OFI_RXM_BUFFER_SIZE",
		"FI_OFI_RXM_EAGER_LIMIT",
		"FI_OFI_RXM_MSG_RX_SIZE",
	};
	bool layered = strstr(info->fabric_attr->prov_name, "ofi_rxm") != NULL;
	char addr[INET6_ADDRSTRLEN] = "";
	size_t len;

	if (info->src_addr && info->addr_format == FI_SOCKADDR_IN)
		inet_ntop(AF_INET, &((struct sockaddr_in *)info->src_addr)->sin_addr, addr,
			  sizeof(addr));
	if (info->src_addr && info->addr_format == FI_SOCKADDR_IN6)
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)info->src_addr)->sin6_addr, addr,
			  sizeof(addr));
	if (*addr)
		snprintf(buf, cap, "address: %s\n", addr);
	for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
		len = strlen(buf);
		if (getenv(switches[i]) && (layered || !strstr(switches[i], "RXM")))
			snprintf(buf + len, cap - len, "%s: %s\n", switches[i],
				 getenv(switches[i]));
	}
}

static void describe(size_t k, struct via_fabric_info *out)
{
	struct fi_info *info = ofi_select(known[k].name, NULL, 0);

	memset(out, 0, sizeof(*out));
	snprintf(out->spec, sizeof(out->spec), "ofi:%s", known[k].name);
	library_version(out->library, sizeof(out->library));
	out->rank = known[k].rank;
	if (!info) {
		/* A provider without its device does not show, as if it were not built in. */
		snprintf(out->reason, sizeof(out->reason),
			 "%s shows no such provider here: it needs %s, and a libfabric built with "
			 "it",
			 out->library, known[k].needs);
		return;
	}
	out->usable = true;
	snprintf(out->device, sizeof(out->device), "%s (%s)", info->domain_attr->name,
		 info->fabric_attr->prov_name);
	ofi_fill_caps(info, info->tx_attr->size, info->rx_attr->size, &out->caps);
	put_facts(info, out->facts, sizeof(out->facts));
	if (known[k].local)
		via_reach_local(out->reach, sizeof(out->reach));
	fi_freeinfo(info);
}

int ofi_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
	      struct via_error *err)
{
	int rc = 0;

	(void)err;
	for (size_t k = 0; k < NKNOWN && !rc; k++) {
		struct via_fabric_info info;

		describe(k, &info);
		rc = found(arg, &info);
	}
	return rc;
}
