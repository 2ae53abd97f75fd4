/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_spec.c -- the settings in a spec: verbs[:DEVICE[:PORT][+DEVICE...]][,key=value...]
 *
 * Looks at no device: what fits the devices of this host is for verbs_choose.c to say.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabrics/verbs/verbs.h"

/* With the time-out below, what a lost path takes: 7 * 268 ms. On soft-RoCE 7 means for ever. */
#define RETRY_COUNT 6u
#define TIMEOUT     16u

/* The peer has a receive for every message; a few tries forgive one that is being posted. */
#define RNR_RETRY_COUNT 6u

#define DEPTH 128u

const struct via_fabric_key verbs_keys[] = {
	{"device", "name of the device, as in `viaduct fabrics`; a+b for two rails", 0, 0},
	{"port", "number of the device's port", 1, 255},
	{"gid-index", "GID to use, of the port's table", 0, 4095},
	{"traffic-class", "traffic class (DSCP and ECN) of the packets", 0, 255},
	{"service-level", "service level of the packets", 0, 15},
	{"pkey-index", "partition key, by its place in the port's table", 0, 65535},
	{"mtu", "payload of a packet at most: 256, 512, 1024, 2048 or 4096", 256, 4096},
	{"retry-count", "how often a packet is sent again; 7 may mean for ever", 0, 7},
	{"rnr-retry-count", "how often, when the peer has no receive posted", 0, 7},
	{"timeout", "acknowledgements are waited for 4.096 us * 2^timeout; 0: for ever", 0, 31},
	{"ack-timeout", "another word for timeout", 0, 31},
	{"tx-depth", "writes and sends that one endpoint holds", 1, VERBS_DEPTH_MAX},
	{"rx-depth", "receives that one endpoint holds", 1, VERBS_DEPTH_MAX},
	{"windows", "keys of one endpoint through memory windows: auto, yes or no", 0, 0},
	{"pin", "pin guest memory: yes, or no for on-demand paging", 0, 0},
	{"rails", "number of devices to spread the endpoints over", 1, VERBS_RAILS_MAX},
	{NULL, NULL, 0, 0},
};

static int bad_value(const char *key, const char *value, const char *known, struct via_error *err)
{
	return via_fail(err, -EINVAL, "fabric verbs: %s\n\"%s\"\nwrite %s", key, value, known);
}

/* "mlx5_0", "mlx5_0:1" or "mlx5_0/1" of @len bytes. */
static bool take_name(const char *text, size_t len, struct verbs_name *name)
{
	size_t device = strcspn(text, ":/");
	unsigned long port;
	char *end;

	*name = (struct verbs_name){0};
	if (device >= len)
		device = len;
	if (!device || device >= sizeof(name->device))
		return false;
	memcpy(name->device, text, device);
	if (device == len)
		return true;
	port = strtoul(text + device + 1, &end, 10);
	name->port = (unsigned)port;
	return end == text + len && end > text + device + 1 && port > 0 && port < 256;
}

static int take_names(const char *text, struct verbs_settings *s, struct via_error *err)
{
	for (const char *at = text;; at++) {
		size_t len = strcspn(at, "+");

		if (s->nnames == VERBS_RAILS_MAX || !take_name(at, len, &s->name[s->nnames]))
			return bad_value(
				"device", text,
				"up to four names as in `viaduct fabrics`, with or without "
				"a port: mlx5_0, mlx5_0:1, mlx5_0+mlx5_1",
				err);
		s->nnames++;
		at += len;
		if (!*at)
			return 0;
	}
}

static int take_devices(const struct via_fabric_spec *spec, struct verbs_settings *s,
			struct via_error *err)
{
	const char *key = via_fabric_spec_get(spec, "device");
	const char *text = spec->device[0] ? spec->device : key;
	uint64_t port = 0, rails = 1;
	int rc;

	if (spec->device[0] && key && strcmp(spec->device, key) != 0)
		return bad_value("device", key, "the device once: verbs:DEVICE or device=DEVICE",
				 err);
	rc = text ? take_names(text, s, err) : 0;
	if (!rc)
		rc = via_fabric_spec_get_number(spec, "port", 1, 255, &port, err);
	if (!rc)
		rc = via_fabric_spec_get_number(spec, "rails", 1, VERBS_RAILS_MAX, &rails, err);
	if (rc)
		return rc;
	for (unsigned i = 0; i < s->nnames; i++)
		if (!s->name[i].port)
			s->name[i].port = (unsigned)port;
	if (!s->nnames && port)
		return bad_value("port", via_fabric_spec_get(spec, "port"),
				 "the device as well: device=NAME,port=N", err);
	s->nrails = (unsigned)rails < s->nnames ? s->nnames : (unsigned)rails;
	if (s->nnames && s->nrails > s->nnames)
		return bad_value("rails", via_fabric_spec_get(spec, "rails"),
				 "as many names: device=a+b, or no name at all", err);
	return 0;
}

static int take_mtu(const struct via_fabric_spec *spec, struct verbs_settings *s,
		    struct via_error *err)
{
	const char *text = via_fabric_spec_get(spec, "mtu");
	unsigned long mtu = text ? strtoul(text, NULL, 10) : 0;

	if (text && mtu != 256 && mtu != 512 && mtu != 1024 && mtu != 2048 && mtu != 4096)
		return bad_value("mtu", text, "256, 512, 1024, 2048 or 4096", err);
	s->mtu = (unsigned)mtu;
	return 0;
}

static int take_words(const struct via_fabric_spec *spec, struct verbs_settings *s,
		      struct via_error *err)
{
	const char *windows = via_fabric_spec_get(spec, "windows");
	const char *pin = via_fabric_spec_get(spec, "pin");

	if (windows && !strcmp(windows, "yes"))
		s->windows = VERBS_WINDOWS_YES;
	else if (windows && !strcmp(windows, "no"))
		s->windows = VERBS_WINDOWS_NO;
	else if (windows && strcmp(windows, "auto") != 0)
		return bad_value("windows", windows, "auto, yes or no", err);
	s->pin = !pin || !strcmp(pin, "yes");
	if (!s->pin && strcmp(pin, "no") != 0)
		return bad_value("pin", pin, "yes or no", err);
	return 0;
}

/* The number of @key; @otherwise when it is not there. Its range is in the list of keys. */
static int64_t number(const struct via_fabric_spec *spec, const char *key, int64_t otherwise)
{
	const char *text = via_fabric_spec_get(spec, key);

	return text ? strtoll(text, NULL, 10) : otherwise;
}

static int check_ranges(const struct via_fabric_spec *spec, struct via_error *err)
{
	uint64_t drop;
	int rc = 0;

	for (const struct via_fabric_key *k = verbs_keys; k->name && !rc; k++)
		if (k->max)
			rc = via_fabric_spec_get_number(spec, k->name, k->min, k->max, &drop, err);
	return rc;
}

int verbs_settings(const struct via_fabric_spec *spec, struct verbs_settings *out,
		   struct via_error *err)
{
	struct verbs_settings s = {.nnames = 0};
	int rc = check_ranges(spec, err);

	if (!rc)
		rc = take_devices(spec, &s, err);
	if (!rc)
		rc = take_mtu(spec, &s, err);
	if (!rc)
		rc = take_words(spec, &s, err);
	if (rc)
		return rc;
	s.gid_index = (int)number(spec, "gid-index", -1);
	s.traffic_class = (int)number(spec, "traffic-class", -1);
	s.service_level = (int)number(spec, "service-level", -1);
	s.pkey_index = (int)number(spec, "pkey-index", -1);
	s.retry_count = (unsigned)number(spec, "retry-count", RETRY_COUNT);
	s.rnr_retry_count = (unsigned)number(spec, "rnr-retry-count", RNR_RETRY_COUNT);
	s.timeout = (unsigned)number(spec, "timeout", number(spec, "ack-timeout", TIMEOUT));
	s.tx_depth = (unsigned)number(spec, "tx-depth", DEPTH);
	s.rx_depth = (unsigned)number(spec, "rx-depth", DEPTH);
	*out = s;
	return 0;
}
