/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_fabric_spec.c -- the fabric as a user, or a peer, names it: what is accepted can
 * be written and read again, and means the same.
 *
 * Two back ends that only have names and keys stand in for the real ones, so that the
 * target depends on no library.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fabrics/fabric.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct via_fabric_key keys[] = {
	{"tx-depth", "operations"},
	{"device", "name"},
	{"a", "the shortest"},
	{NULL, NULL},
};
static const struct via_fabric_key no_keys[] = {{NULL, NULL}};
static const struct via_fabric_ops ofi = {.name = "ofi", .keys = keys};
static const struct via_fabric_ops bare = {.name = "bare", .keys = no_keys};
static const struct via_fabric_ops *const list[] = {&ofi, &bare, NULL};

const struct via_fabric_ops *const *via_fabric_list(void)
{
	return list;
}

const struct via_fabric_ops *via_fabric_find(const char *name)
{
	for (unsigned i = 0; list[i]; i++)
		if (!strcmp(list[i]->name, name))
			return list[i];
	return NULL;
}

#define REQUIRE(condition)                                                                         \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

static void check_error(int rc, const struct via_error *err)
{
	REQUIRE(rc == -EINVAL || rc == -ENODEV);
	REQUIRE(err->code == rc);
	REQUIRE(err->what[0]); /* the others may be short of a text with newlines in it */
}

static void check_number(const struct via_fabric_spec *spec)
{
	uint64_t value = 7;
	int rc = via_fabric_spec_get_number(spec, "tx-depth", 1, 4096, &value, NULL);

	if (rc || !via_fabric_spec_get(spec, "tx-depth"))
		REQUIRE(value == 7);
	else
		REQUIRE(value >= 1 && value <= 4096);
}

static void check_same(const struct via_fabric_spec *a, const struct via_fabric_spec *b)
{
	REQUIRE(!strcmp(a->name, b->name));
	REQUIRE(!strcmp(a->device, b->device));
	REQUIRE(a->nkeys == b->nkeys);
	for (unsigned i = 0; i < a->nkeys; i++) {
		REQUIRE(!strcmp(a->key[i].name, b->key[i].name));
		REQUIRE(!strcmp(a->key[i].value, b->key[i].value));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct via_fabric_spec spec, again;
	struct via_error err = {0};
	char *text = malloc(size + 1), buf[1200];
	int rc;

	REQUIRE(text);
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	rc = via_fabric_spec_parse(text, &spec, &err);
	if (rc) {
		check_error(rc, &err);
		goto out;
	}
	check_number(&spec);
	REQUIRE(via_fabric_spec_format(&spec, buf, sizeof(buf)) == buf);
	REQUIRE(via_fabric_spec_parse(buf, &again, NULL) == 0);
	check_same(&spec, &again);
out:
	free(text);
	return 0;
}
