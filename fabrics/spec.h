/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * spec.h -- the fabric as a user names it: NAME[:DEVICE][,key=value...]
 *
 *   ofi:tcp        ofi:shm        ofi:tcp,tx-depth=256        auto
 *
 * NAME is a back end, DEVICE is what that back end chooses by (a provider for ofi).
 * Keys are the back end's own; an unknown one is an error that lists the known. NAME may be
 * W+X where W is a back end that wraps another, X: then DEVICE is X's and the keys are those of
 * both (only the tests' fault+X is such).
 */
#ifndef VIA_FABRICS_SPEC_H
#define VIA_FABRICS_SPEC_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

#define VIA_SPEC_KEYS_MAX 16

struct via_fabric_spec {
	char name[16];
	char device[48]; /* empty: the back end's default */
	unsigned nkeys;
	struct {
		char name[24];
		char value[64];
	} key[VIA_SPEC_KEYS_MAX];
	/*
	 * Numeric address of this host at which the peer can reach it, set by the
	 * caller from the control connection and not by the parser. Empty: the back end
	 * decides. Fabrics that need no address ignore it.
	 */
	char local_host[64];
};

/*
 * Parse @text (untrusted: it may come from the peer). Checks the form and the
 * name; the keys and their values against the back end's list.
 *  -EINVAL  malformed, too long, a key twice, an unknown key (@err lists the known)
 *  -ENODEV  no such back end (@err lists the known)
 */
int via_fabric_spec_parse(const char *text, struct via_fabric_spec *spec, struct via_error *err);

/* @spec as text into @buf; returns @buf. 1200 bytes are always enough. */
const char *via_fabric_spec_format(const struct via_fabric_spec *spec, char *buf, size_t cap);

/* The value of @key, or NULL when the spec does not have it. */
const char *via_fabric_spec_get(const struct via_fabric_spec *spec, const char *key);

/*
 * The value of @key as a whole number in [min, max] into *@value; left alone
 * when the spec does not have the key. -EINVAL with the range in @err.
 */
int via_fabric_spec_get_number(const struct via_fabric_spec *spec, const char *key, uint64_t min,
			       uint64_t max, uint64_t *value, struct via_error *err);

#endif
