/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_probe.c -- which transports UCX has on this host, which of them can be used, and why the
 * others not.
 */
#include <stdio.h>
#include <string.h>

#include "fabrics/reach.h"
#include "fabrics/ucx/ucx.h"

/* What users ask for, the better ones first. */
static const struct {
	const char *name, *shown; /* as in the spec, and as UCX lists it: any of these words */
	unsigned rank;            /* as in struct via_fabric_info */
	bool local, rdma;         /* local: reaches this host's processes only */
	const char *needs;        /* where it is missing */
} known[] = {
	{"rc", "rc_verbs/ rc_mlx5/", 20, false, true,
	 "an RDMA device (InfiniBand, RoCE) and UCX's libuct_ib"},
	{"shm", "posix/ sysv/", 45, true, false, "POSIX or System V shared memory"},
	{"tcp", "tcp/", 95, false, false, "a network interface; loopback is one"},
	{"", "tcp/ posix/ sysv/ rc_verbs/ rc_mlx5/", 0, false, false, "any transport at all"},
};

#define NKNOWN (sizeof(known) / sizeof(known[0]))

/* Is @kind ("tcp/") one of the words of @list? */
static bool is_among(const char *list, const char *kind)
{
	const char *at = strstr(list, kind);

	while (at && at != list && at[-1] != ' ')
		at = strstr(at + 1, kind);
	return at;
}

/* Copy of @resources the words that begin as one in @shown does, "tcp/lo tcp/eth0". */
static void pick_devices(const char *resources, const char *shown, char *buf, size_t cap)
{
	const char *word = resources;

	buf[0] = '\0';
	while (*word) {
		size_t len = strcspn(word, " "), prefix = strcspn(word, "/") + 1;
		size_t used = strlen(buf);
		char kind[32];

		snprintf(kind, sizeof(kind), "%.*s", (int)prefix, word);
		if (is_among(shown, kind) && used + len + 2 < cap)
			snprintf(buf + used, cap - used, "%s%.*s", used ? " " : "", (int)len, word);
		word += len + (word[len] == ' ');
	}
}

static void describe(size_t k, const char *resources, struct via_fabric_info *out)
{
	char devices[sizeof(out->device)];

	memset(out, 0, sizeof(*out));
	snprintf(out->spec, sizeof(out->spec), "ucx%s%s", known[k].name[0] ? ":" : "",
		 known[k].name);
	snprintf(out->library, sizeof(out->library), "UCX %s", ucp_get_version_string());
	out->rank = known[k].rank;
	pick_devices(resources, known[k].shown, devices, sizeof(devices));
	if (!devices[0]) {
		snprintf(out->reason, sizeof(out->reason), "%s shows none here: it needs %s",
			 out->library, known[k].needs);
		return;
	}
	if (known[k].rdma && ucx_refuses_rdma()) {
		snprintf(out->reason, sizeof(out->reason), "%s", ucx_refuses_rdma());
		return;
	}
	out->usable = true;
	memcpy(out->device, devices, sizeof(devices));
	ucx_fill_caps(UCX_DEPTH, UCX_DEPTH, &out->caps);
	if (known[k].local)
		via_reach_local(out->reach, sizeof(out->reach));
	snprintf(out->facts, sizeof(out->facts),
		 "transports: %s\n"
		 "writes: copied by the receiver, which checks their keys\n%s",
		 resources,
		 strstr(devices, "tcp/")
			 ? "trust: UCX's tcp lets whoever reaches its port write to "
			   "this process: for networks of trusted hosts\n"
			 : "");
}

int ucx_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
	      struct via_error *err)
{
	char resources[1024] = "";
	ucp_context_h context;
	int rc = 0;

	(void)err;
	if (!ucx_context_open(NULL, NULL, &context, NULL)) {
		ucx_resources(context, resources, sizeof(resources));
		ucp_cleanup(context);
	}
	for (size_t k = 0; k < NKNOWN && !rc; k++) {
		struct via_fabric_info info;

		describe(k, resources, &info);
		rc = found(arg, &info);
	}
	return rc;
}
