/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_probe.c -- which providers this host has, which of them can be used, and why the others not.
 */
#include <stdio.h>
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
