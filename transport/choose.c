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
	const char *kind; /* the one that was asked for; NULL: all that have a rank */
	const char *spec; /* and its device; NULL: any */
};

static int by_rank(const void *a, const void *b)
{
	const struct via_offer *x = a, *y = b;
	bool x_usable = !x->reason[0], y_usable = !y->reason[0];

	if (x_usable != y_usable)
		return x_usable ? -1 : 1;
	return (x->rank > y->rank) - (x->rank < y->rank);
}

static void kind_of(const char *text, char *kind, size_t cap)
{
	struct via_fabric_spec spec;

	kind[0] = '\0';
	if (!via_fabric_spec_parse(text, &spec, NULL))
		via_fabric_kind(&spec, kind, cap);
}

/* One offer for each kind: its best device. */
static void add_offer(struct via_hello *hello, const struct via_offer *o)
{
	unsigned i = 0;

	while (i < hello->noffers && strcmp(hello->offer[i].kind, o->kind) != 0)
		i++;
	if (i == VIA_OFFERS_MAX || (i < hello->noffers && by_rank(o, &hello->offer[i]) >= 0))
		return;
	hello->offer[i] = *o;
	if (i == hello->noffers)
		hello->noffers++;
}

static int found(void *arg, const struct via_fabric_info *info)
{
	struct collect *c = arg;
	struct via_offer o = {.rank = (uint16_t)info->rank};

	kind_of(info->spec, o.kind, sizeof(o.kind));
	if (c->kind ? strcmp(c->kind, o.kind) != 0 : info->rank == 0)
		return 0;
	if (c->spec && strcmp(c->spec, info->spec) != 0)
		return 0;
	snprintf(o.spec, sizeof(o.spec), "%s", info->spec);
	snprintf(o.reach, sizeof(o.reach), "%s", info->reach);
	if (!info->usable)
		snprintf(o.reason, sizeof(o.reason), "%s",
			 info->reason[0] ? info->reason : "not usable");
	add_offer(c->hello, &o);
	return 0;
}

static int offer_named(const char *config, struct via_hello *hello, struct via_error *err)
{
	struct via_fabric_spec spec;
	char kind[sizeof(hello->offer[0].kind)], base[sizeof(hello->offer[0].spec)];
	struct collect c = {.hello = hello, .kind = kind, .spec = base};
	int rc = via_fabric_spec_parse(config, &spec, err);

	if (rc)
		return rc;
	via_fabric_kind(&spec, kind, sizeof(kind));
	snprintf(base, sizeof(base), "%s:%s", spec.name, spec.device);
	if (!spec.device[0])
		c.spec = NULL;
	rc = via_fabric_find(spec.name)->probe(found, &c, NULL);
	if (rc || hello->noffers)
		return rc;
	/* Not among those it lists: opening it will show whether it works. */
	snprintf(hello->offer[0].kind, sizeof(hello->offer[0].kind), "%s", kind);
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
		if (!strcmp(theirs->offer[i].kind, ours->kind))
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

static void append_line(char *buf, size_t cap, const char *kind, const char *verdict)
{
	size_t len = strlen(buf);

	snprintf(buf + len, cap - len, "%s%s: %s", len ? "; " : "", kind, verdict);
}

/* @text into @buf, as far as it fits; what is cut shows. */
static const char *shorten(const char *text, char *buf, size_t cap)
{
	if ((size_t)snprintf(buf, cap, "%s", text) >= cap)
		snprintf(buf + cap - 4, 4, "...");
	return buf;
}

int choose_fabric(const struct via_hello *ours, const struct via_hello *theirs, char *choice,
		  size_t choice_cap, struct via_error *err)
{
	char why[256], list[128] = "", ours_cut[124], list_cut[76];

	choice[0] = '\0';
	for (unsigned i = 0; i < ours->noffers; i++) {
		const char *no = reject(&ours->offer[i], theirs, why, sizeof(why));

		append_line(choice, choice_cap, ours->offer[i].kind, no ? no : "chosen");
		if (!no)
			return (int)i;
	}
	for (unsigned i = 0; i < theirs->noffers; i++)
		append_line(list, sizeof(list), theirs->offer[i].kind,
			    theirs->offer[i].reason[0] ? "no" : "yes");
	return via_fail(err, -ENODEV,
			"agree on a fabric\nhere %s; the peer offers %s\n"
			"give both sides the same --fabric; `viaduct fabrics` shows what each has",
			shorten(choice, ours_cut, sizeof(ours_cut)),
			shorten(list[0] ? list : "none", list_cut, sizeof(list_cut)));
}
