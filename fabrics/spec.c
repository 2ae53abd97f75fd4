/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * spec.c -- the fabric as a user names it, taken apart and put together again.
 *
 * The text may come from the peer: everything is bounded and checked, and nothing
 * but letters, digits and a few marks gets through.
 */
#include "fabrics/spec.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabrics/fabric.h"

static int malformed(const char *text, struct via_error *err)
{
	return via_fail(err, -EINVAL,
			"fabric \"%.80s\"\nit is malformed or too long\n"
			"write NAME[:PROVIDER][,key=value...], for example ofi:tcp",
			text);
}

/* Letters, digits and what occurs in names of devices, providers and values. */
static bool is_plain(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("-_.+;/:@", c));
}

/* Copy the token of @len bytes into @dst; false when empty, too long or of other characters. */
static bool take(const char *from, size_t len, char *dst, size_t cap)
{
	if (len == 0 || len >= cap)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!is_plain(from[i]))
			return false;
	memcpy(dst, from, len);
	dst[len] = '\0';
	return true;
}

/* The back ends whose keys @name may carry: its own; for "W+X", also those of X, which W wraps. */
struct owners {
	const struct via_fabric_ops *ops[2];
};

static struct owners owners_of(const char *name)
{
	const char *plus = strchr(name, '+');

	return (struct owners){{via_fabric_find(name), plus ? via_fabric_find(plus + 1) : NULL}};
}

/* "a, b, c" of the keys of @owners. */
static const char *known_keys(const struct owners *owners, char *buf, size_t cap)
{
	size_t len = 0;

	buf[0] = '\0';
	for (unsigned i = 0; i < 2 && owners->ops[i]; i++)
		for (const struct via_fabric_key *k = owners->ops[i]->keys;
		     k && k->name && len < cap; k++)
			len += (size_t)snprintf(buf + len, cap - len, "%s%s", len ? ", " : "",
						k->name);
	return buf[0] ? buf : "none";
}

static const struct via_fabric_key *find_key(const struct owners *owners, const char *name)
{
	for (unsigned i = 0; i < 2 && owners->ops[i]; i++)
		for (const struct via_fabric_key *k = owners->ops[i]->keys; k && k->name; k++)
			if (!strcmp(k->name, name))
				return k;
	return NULL;
}

static int parse_key(const struct owners *owners, const char *text, const char *item, size_t len,
		     struct via_fabric_spec *spec, struct via_error *err)
{
	const char *eq = memchr(item, '=', len);
	const struct via_fabric_key *key;
	uint64_t number;
	char known[256];
	unsigned i = spec->nkeys;

	if (!eq || i == VIA_SPEC_KEYS_MAX ||
	    !take(item, (size_t)(eq - item), spec->key[i].name, sizeof(spec->key[i].name)) ||
	    !take(eq + 1, len - (size_t)(eq + 1 - item), spec->key[i].value,
		  sizeof(spec->key[i].value)))
		return malformed(text, err);
	key = find_key(owners, spec->key[i].name);
	if (!key)
		return via_fail(err, -EINVAL,
				"fabric \"%.80s\"\nunknown key %s\nthe keys of %s are: %s", text,
				spec->key[i].name, spec->name,
				known_keys(owners, known, sizeof(known)));
	if (via_fabric_spec_get(spec, spec->key[i].name))
		return via_fail(err, -EINVAL,
				"fabric \"%.80s\"\nthe key %s stands there twice\n"
				"give each key once",
				text, spec->key[i].name);
	spec->nkeys++;
	return key->max ? via_fabric_spec_get_number(spec, key->name, key->min, key->max, &number,
						     err)
			: 0;
}

static int unknown_name(const char *name, struct via_error *err)
{
	const struct via_fabric_ops *const *ops;
	char known[128] = "auto";
	size_t len = strlen(known);

	for (ops = via_fabric_list(); *ops && len < sizeof(known); ops++)
		len += (size_t)snprintf(known + len, sizeof(known) - len, ", %s", (*ops)->name);
	return via_fail(err, -ENODEV,
			"fabric \"%.80s\"\nno such fabric in this build: %.80s\n"
			"known are: %s; see `viaduct fabrics`",
			name, name, known);
}

int via_fabric_spec_parse(const char *text, struct via_fabric_spec *spec, struct via_error *err)
{
	struct via_fabric_spec s = {.nkeys = 0};
	struct owners owners;
	size_t head = strcspn(text, ","), name = strcspn(text, ":,");
	int rc = 0;

	if (!take(text, name, s.name, sizeof(s.name)) ||
	    (name < head && !take(text + name + 1, head - name - 1, s.device, sizeof(s.device))))
		return malformed(text, err);
	owners = owners_of(s.name);
	if (!owners.ops[0])
		return unknown_name(s.name, err);
	for (const char *item = text + head; *item == ',' && !rc; item += strcspn(item, ",")) {
		item++;
		rc = parse_key(&owners, text, item, strcspn(item, ","), &s, err);
	}
	if (!rc)
		*spec = s;
	return rc;
}

const char *via_fabric_spec_format(const struct via_fabric_spec *spec, char *buf, size_t cap)
{
	size_t len = (size_t)snprintf(buf, cap, "%s%s%s", spec->name, spec->device[0] ? ":" : "",
				      spec->device);

	for (unsigned i = 0; i < spec->nkeys && len < cap; i++)
		len += (size_t)snprintf(buf + len, cap - len, ",%s=%s", spec->key[i].name,
					spec->key[i].value);
	return buf;
}

const char *via_fabric_spec_get(const struct via_fabric_spec *spec, const char *key)
{
	for (unsigned i = 0; i < spec->nkeys; i++)
		if (!strcmp(spec->key[i].name, key))
			return spec->key[i].value;
	return NULL;
}

int via_fabric_spec_get_number(const struct via_fabric_spec *spec, const char *key, uint64_t min,
			       uint64_t max, uint64_t *value, struct via_error *err)
{
	const char *text = via_fabric_spec_get(spec, key);
	unsigned long long n;
	char *end;

	if (!text)
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || !isdigit((unsigned char)text[0]) || n < min || n > max)
		return via_fail(err, -EINVAL,
				"fabric %s: %s\n\"%s\"\nwrite a whole number from %llu to %llu",
				spec->name, key, text, (unsigned long long)min,
				(unsigned long long)max);
	*value = n;
	return 0;
}
