/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fabric.c -- the list of back ends. The only place that names them all.
 */
#include "fabrics/fabric.h"

#include <stdio.h>
#include <string.h>

#ifdef VIA_HAVE_FAULT
#include "fabrics/fault/fault.h"
#endif
#ifdef VIA_HAVE_OFI
#include "fabrics/ofi/ofi.h"
#endif
#ifdef VIA_HAVE_SIM
#include "fabrics/sim/sim.h"
#endif
#ifdef VIA_HAVE_UCX
#include "fabrics/ucx/ucx.h"
#endif
#ifdef VIA_HAVE_VERBS
#include "fabrics/verbs/verbs.h"
#endif

static const struct via_fabric_ops *const list[] = {
#ifdef VIA_HAVE_VERBS
	&via_verbs_ops,
#endif
#ifdef VIA_HAVE_OFI
	&via_ofi_ops,
#endif
#ifdef VIA_HAVE_UCX
	&via_ucx_ops,
#endif
#ifdef VIA_HAVE_SIM
	&via_sim_ops,
#endif
	NULL,
};

static const struct via_fabric_absent absent[] = {
#ifndef VIA_HAVE_OFI
	{"ofi", "this build has no libfabric: install libfabric-dev and build again"},
#endif
#ifndef VIA_HAVE_UCX
	{"ucx", "this build has no UCX: install libucx-dev and build again"},
#endif
#ifndef VIA_HAVE_VERBS
	{"verbs", "this build has no libibverbs: install libibverbs-dev and librdmacm-dev and "
		  "build again"},
#endif
	{NULL, NULL},
};

const struct via_fabric_ops *const *via_fabric_list(void)
{
	return list;
}

const struct via_fabric_absent *via_fabric_absent_list(void)
{
	return absent;
}

static const struct via_fabric_ops *find_listed(const char *name)
{
	for (const struct via_fabric_ops *const *ops = list; *ops; ops++)
		if (!strcmp((*ops)->name, name))
			return *ops;
	return NULL;
}

const struct via_fabric_ops *via_fabric_find(const char *name)
{
#ifdef VIA_HAVE_FAULT
	/* Not listed: it is nothing by itself, and only who asks for it shall get it. */
	size_t prefix = strlen(VIA_FAULT_PREFIX);

	if (!strncmp(name, VIA_FAULT_PREFIX, prefix))
		return find_listed(name + prefix) ? &via_fault_ops : NULL;
#endif
	return find_listed(name);
}

void via_fabric_kind(const struct via_fabric_spec *spec, char *buf, size_t cap)
{
	const char *wrapper = strrchr(spec->name, '+');
	const struct via_fabric_ops *ops = find_listed(wrapper ? wrapper + 1 : spec->name);
	const char *provider = ops ? ops->provider : NULL;

	if (provider && spec->device[0])
		provider = spec->device;
	snprintf(buf, cap, provider && *provider ? "%s:%s" : "%s", spec->name, provider);
}

int via_fabric_open(const struct via_fabric_spec *spec, struct via_fabric **fab,
		    struct via_error *err)
{
	const struct via_fabric_ops *ops = via_fabric_find(spec->name);

	if (!ops)
		return via_fail(err, -ENODEV,
				"open fabric %s\nno such fabric in this build\n"
				"see `viaduct fabrics`",
				spec->name);
	return ops->open(spec, fab, err);
}
