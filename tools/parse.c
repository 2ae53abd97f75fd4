/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * parse.c -- numbers with units. K, M, G and T are powers of 1024, with or without "iB" or "B".
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tools/options.h"

/* Digits, perhaps with a fraction; *end is what follows. False when there are none. */
static bool parse_number(const char *text, double *value, const char **end)
{
	char *rest;

	if (!isdigit((unsigned char)text[0]))
		return false;
	*value = strtod(text, &rest);
	*end = rest;
	/* strtod() also takes "1e9", "0x10" and the like, which nobody means here. */
	return strspn(text, "0123456789.") == (size_t)(rest - text);
}

static bool parse_bytes(const char *text, const char *suffix, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	const char *end, *unit;
	double value;

	if (!parse_number(text, &value, &end))
		return false;
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		for (const char *u = units; u <= unit; u++)
			value *= 1024;
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B')
		end++;
	if (strcmp(end, "") != 0 && strcmp(end, suffix) != 0)
		return false;
	if (value >= 0x1p64)
		return false;
	*bytes = (uint64_t)value;
	return true;
}

int parse_size(const char *text, uint64_t *bytes, struct via_error *err)
{
	if (parse_bytes(text, "", bytes))
		return 0;
	return via_fail(err, -EINVAL, "a size in bytes\n\"%s\"\nwrite 4096, 64K, 512M or 2G", text);
}

int parse_rate(const char *text, uint64_t *bytes_per_s, struct via_error *err)
{
	if (!strcmp(text, "unlimited")) {
		*bytes_per_s = UINT64_MAX;
		return 0;
	}
	if (parse_bytes(text, "/s", bytes_per_s))
		return 0;
	return via_fail(err, -EINVAL,
			"a rate in bytes a second\n\"%s\"\nwrite 100M/s, 1.5G/s, 0 or unlimited",
			text);
}

int parse_duration(const char *text, uint64_t *ns, struct via_error *err)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
	const char *end;
	double value;

	if (parse_number(text, &value, &end))
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			if (!strcmp(end, units[i].name) && value * units[i].ns < 0x1p64) {
				*ns = (uint64_t)(value * units[i].ns);
				return 0;
			}
	return via_fail(err, -EINVAL, "a duration\n\"%s\"\nwrite 300ms, 5s, 250us or 2m", text);
}
