/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * choose.c -- which fabric the two sides use, and why not the others.
 *
 * Each side offers what it can use, best first; the source takes its first that the destination
 * offers too and that reaches it. A side that was told a fabric by name offers that one only.
 * Nothing here knows a fabric's name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/session.h"

struct collect {
	struct via_hello *hello;
	const char *only; /* the one that was asked for; NULL: all that have a rank */
};

static int by_rank(const void *a, const void *b)
{
	const struct via_offer *x = a, *y = b;
	bool x_usable = !x->reason[0], y_usable = !y->reason[0];

	if (x_usable != y_usable)
		return x_usable ? -1 : 1;
	return (x->rank > y->rank) - (x->rank < y->rank);
}

static int found(void *arg, const struct via_fabric_info *info)
{
	struct collect *c = arg;
	struct via_offer *o = &c->hello->offer[c->hello->noffers];

	if (c->only ? strcmp(c->only, info->spec) != 0 : info->rank == 0)
		return 0;
	for (unsigned i = 0; i < c->hello->noffers; i++)
		if (!strcmp(c->hello->offer[i].spec, info->spec))
			return 0; /* another device of the same kind */
	if (c->hello->noffers == VIA_OFFERS_MAX)
		return 0;
	memset(o, 0, sizeof(*o));
	snprintf(o->spec, sizeof(o->spec), "%s", info->spec);
	snprintf(o->reach, sizeof(o->reach), "%s", info->reach);
	if (!info->usable)
		snprintf(o->reason, sizeof(o->reason), "%s",
			 info->reason[0] ? info->reason : "not usable");
	o->rank = (uint16_t)info->rank;
	c->hello->noffers++;
	return 0;
}

/* The part of a spec that both sides must have in common: no keys. */
static void base_spec(const struct via_fabric_spec *spec, char *buf, size_t cap)
{
	snprintf(buf, cap, spec->device[0] ? "%s:%s" : "%s", spec->name, spec->device);
}

static int offer_named(const char *config, struct via_hello *hello, struct via_error *err)
{
	struct via_fabric_spec spec;
	char base[sizeof(hello->offer[0].spec)];
	struct collect c = {.hello = hello, .only = base};
	int rc = via_fabric_spec_parse(config, &spec, err);

	if (rc)
		return rc;
	base_spec(&spec, base, sizeof(base));
	rc = via_fabric_find(spec.name)->probe(found, &c, NULL);
	if (rc || hello->noffers)
		return rc;
	/* Not among those it lists: opening it will show whether it works. */
	snprintf(hello->offer[0].spec, sizeof(hello->offer[0].spec), "%s", base);
	hello->noffers = 1;
	return 0;
}

int choose_offers(const char *config, struct via_hello *hello, struct via_error *err)
{
	struct collect c = {.hello = hello};
	const struct via_fabric_ops *const *ops;

	hello->noffers = 0;
	memset(hello->offer, 0, sizeof(hello->offer));
	if (strcmp(config, "auto") != 0)
		return offer_named(config, hello, err);
	for (ops = via_fabric_list(); *ops; ops++)
		(void)(*ops)->probe(found, &c, NULL);
	if (!hello->noffers)
		return via_fail(err, -ENODEV,
				"choose a fabric\nthis build found none\n"
				"see `viaduct fabrics` for the reasons");
	qsort(hello->offer, hello->noffers, sizeof(hello->offer[0]), by_rank);
	return 0;
}

/* Why @ours cannot be used with @theirs; NULL when it can. */
static const char *reject(const struct via_offer *ours, const struct via_hello *theirs, char *buf,
			  size_t cap)
{
	const struct via_offer *match = NULL;

	if (ours->reason[0])
		return ours->reason;
	for (unsigned i = 0; i < theirs->noffers && !match; i++)
		if (!strcmp(theirs->offer[i].spec, ours->spec))
			match = &theirs->offer[i];
	if (!match)
		return "the peer does not offer it";
	if (match->reason[0]) {
		snprintf(buf, cap, "at the peer: %s", match->reason);
		return buf;
	}
	if (strcmp(match->reach, ours->reach) != 0)
		return "the peer is on another host, or in another namespace";
	return NULL;
}

static void append_line(char *buf, size_t cap, const char *spec, const char *verdict)
{
	size_t len = strlen(buf);

	snprintf(buf + len, cap - len, "%s%s: %s", len ? "; " : "", spec, verdict);
}

int choose_fabric(const struct via_hello *ours, const struct via_hello *theirs, char *choice,
		  size_t choice_cap, struct via_error *err)
{
	char why[256], list[128] = "";

	choice[0] = '\0';
	for (unsigned i = 0; i < ours->noffers; i++) {
		const char *no = reject(&ours->offer[i], theirs, why, sizeof(why));

		append_line(choice, choice_cap, ours->offer[i].spec, no ? no : "chosen");
		if (!no)
			return (int)i;
	}
	for (unsigned i = 0; i < theirs->noffers; i++)
		append_line(list, sizeof(list), theirs->offer[i].spec,
			    theirs->offer[i].reason[0] ? "no" : "yes");
	return via_fail(err, -ENODEV,
			"agree on a fabric\nhere %.120s; the peer offers %.80s\n"
			"give both sides the same --fabric; `viaduct fabrics` shows what each has",
			choice, list[0] ? list : "none");
}
