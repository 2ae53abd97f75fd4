/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * candidates.c -- see candidates.h. What one side does not offer is shown as such, so that no
 * fabric that either side has is missing from the table.
 */
#include "tools/candidates.h"

#include <stdio.h>
#include <string.h>

#include "tools/run.h"

struct candidate {
	const char *kind;
	const char *here, *there; /* "yes", or why not */
	const char *verdict;
};

static const struct via_offer *find(const struct via_hello *hello, const char *kind)
{
	for (unsigned i = 0; i < hello->noffers; i++)
		if (!strcmp(hello->offer[i].kind, kind))
			return &hello->offer[i];
	return NULL;
}

static const char *say(const struct via_offer *offer)
{
	if (!offer)
		return "not offered";
	return offer->reason[0] ? offer->reason : "yes";
}

static const char *judge(const struct via_inquiry *q, const struct via_offer *here,
			 const struct via_offer *there)
{
	if (!here || !there || here->reason[0] || there->reason[0])
		return "no";
	if (strcmp(here->reach, there->reach) != 0)
		return "no: the peer is on another host, or in another namespace";
	return q->chosen >= 0 && here == &q->ours.offer[q->chosen]
		       ? "chosen"
		       : "would do: a better one is chosen";
}

/* Candidate @i: ours in their order, then those that the peer alone has. False: there are no more. */
static bool get(const struct via_inquiry *q, unsigned i, struct candidate *c)
{
	const struct via_offer *here = NULL, *there = NULL;

	if (i < q->ours.noffers) {
		here = &q->ours.offer[i];
		there = find(&q->theirs, here->kind);
	} else {
		unsigned left = i - q->ours.noffers;

		for (unsigned k = 0; k < q->theirs.noffers && !there; k++)
			if (!find(&q->ours, q->theirs.offer[k].kind) && !left--)
				there = &q->theirs.offer[k];
		if (!there)
			return false;
	}
	*c = (struct candidate){.kind = here ? here->kind : there->kind,
				.here = say(here),
				.there = say(there),
				.verdict = judge(q, here, there)};
	return true;
}

void candidates_print(const struct via_inquiry *q)
{
	struct candidate c;

	for (unsigned i = 0; get(q, i, &c); i++) {
		printf("  %-10s %s\n", c.kind, c.verdict);
		if (!strcmp(c.here, c.there)) {
			if (strcmp(c.here, "yes") != 0)
				printf("  %-10s   on both: %s\n", "", c.here);
			continue;
		}
		if (strcmp(c.here, "yes") != 0)
			printf("  %-10s   here:  %s\n", "", c.here);
		if (strcmp(c.there, "yes") != 0)
			printf("  %-10s   there: %s\n", "", c.there);
	}
}

json_t *candidates_array(const struct via_inquiry *q)
{
	json_t *array = json_array();
	struct candidate c;

	for (unsigned i = 0; get(q, i, &c); i++)
		json_array_append_new(array, json_pack("{s:o, s:o, s:o, s:s}", "fabric",
						       report_text(c.kind), "here",
						       report_text(c.here), "there",
						       report_text(c.there), "verdict", c.verdict));
	return array;
}
