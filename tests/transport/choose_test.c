/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * choose_test.c -- which fabric two sides agree on, and what is said when there is none.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabrics/fabric.h"
#include "transport/session.h"

static struct via_hello ours, theirs;
static char choice[1024];
static struct via_error err;

static void reset(void)
{
	memset(&ours, 0, sizeof(ours));
	memset(&theirs, 0, sizeof(theirs));
	memset(&err, 0, sizeof(err));
}

TestSuite(choose, .init = reset);

static void set_reason(struct via_offer *o, const char *reason)
{
	snprintf(o->reason, sizeof(o->reason), "%s", reason);
}

static void set_reach(struct via_offer *o, const char *reach)
{
	snprintf(o->reach, sizeof(o->reach), "%s", reach);
}

static struct via_offer *offer(struct via_hello *hello, const char *kind)
{
	struct via_offer *o = &hello->offer[hello->noffers++];

	snprintf(o->kind, sizeof(o->kind), "%s", kind);
	return o;
}

static int choose(void)
{
	return choose_fabric(&ours, &theirs, choice, sizeof(choice), &err);
}

static void expect_kind(const char *text, const char *wanted)
{
	struct via_fabric_spec spec;
	char kind[64];

	cr_assert_eq(via_fabric_spec_parse(text, &spec, NULL), 0, "%s", text);
	via_fabric_kind(&spec, kind, sizeof(kind));
	cr_assert_str_eq(kind, wanted, "of %s", text);
}

Test(choose, kind_is_what_both_sides_need)
{
	expect_kind("sim", "sim");
	expect_kind("sim:net,seed=3", "sim:net");
	expect_kind("fault+sim:net", "fault+sim:net");
	if (via_fabric_find("ofi")) {
		expect_kind("ofi", "ofi:tcp");
		expect_kind("ofi:shm,tx-depth=8", "ofi:shm");
		expect_kind("fault+ofi", "fault+ofi:tcp");
	}
}

Test(choose, first_of_the_source_that_both_have)
{
	offer(&ours, "a");
	offer(&ours, "b");
	offer(&ours, "c");
	offer(&theirs, "c");
	offer(&theirs, "b");
	cr_assert_eq(choose(), 1);
	cr_assert_str_eq(choice, "a: the peer does not offer it; b: chosen");
}

Test(choose, who_cannot_use_it_says_why)
{
	set_reason(offer(&ours, "a"), "no device");
	offer(&ours, "b");
	offer(&theirs, "a");
	set_reason(offer(&theirs, "b"), "port 1 is down");
	cr_assert_eq(choose(), -ENODEV);
	cr_assert(strstr(err.seen, "here a: no device; b: at the peer: port 1 is down"), "%s",
		  err.seen);
	cr_assert(strstr(err.seen, "the peer offers a: yes; b: no"), "%s", err.seen);
	cr_assert(err.remedy[0]);
}

Test(choose, reach_is_one_host)
{
	set_reach(offer(&ours, "a"), "host 1");
	offer(&ours, "b");
	set_reach(offer(&theirs, "a"), "host 2");
	offer(&theirs, "b");
	cr_assert_eq(choose(), 1);
	set_reach(&theirs.offer[0], "host 1");
	cr_assert_eq(choose(), 0);
}

Test(choose, mismatch_lists_both_sides)
{
	offer(&ours, "verbs");
	offer(&theirs, "ofi:tcp");
	cr_assert_eq(choose(), -ENODEV);
	cr_assert(strstr(err.seen, "verbs") && strstr(err.seen, "ofi:tcp"), "%s", err.seen);
}

Test(choose, long_reason_is_cut_where_it_shows)
{
	set_reason(offer(&ours, "a"),
		   "this reason goes on and on, for it explains what nobody here has "
		   "asked, and how to load a driver, and which, and where, and why not another");
	offer(&theirs, "b");
	cr_assert_eq(choose(), -ENODEV);
	cr_assert(strstr(err.seen, "...; the peer offers b: yes"), "%s", err.seen);
}

Test(choose, named_fabric_is_the_only_offer)
{
	cr_assert_eq(choose_offers("sim,seed=7", &ours, &err), 0);
	cr_assert_eq(ours.noffers, 1);
	cr_assert_str_eq(ours.offer[0].kind, "sim");
	cr_assert_eq(choose_offers("sim:another", &ours, &err), 0);
	cr_assert_eq(ours.noffers, 1);
	cr_assert_str_eq(ours.offer[0].kind, "sim:another");
}
