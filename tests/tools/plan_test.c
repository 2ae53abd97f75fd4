/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model of viaduct plan: figures that can be worked out by hand.
 */
#include <criterion/criterion.h>

#include "core/clock.h"
#include "tools/plan_model.h"

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)

/* 8 GiB at 1 GiB/s, and nothing else that takes time. */
static struct plan_model model(uint64_t dirty_rate)
{
	return (struct plan_model){.memory = 8 * GIB,
				   .dirty_rate = dirty_rate,
				   .bandwidth = GIB,
				   .downtime_limit_ns = 300 * VIA_NS_PER_MS,
				   .max_rounds = 30};
}

#define near(a, b) cr_assert_float_eq((double)(a), (double)(b), 1e-6 * (double)(b) + 2)

TestSuite(plan, .timeout = 10);

Test(plan, idle_guest)
{
	struct plan_model m = model(0);
	struct plan_outcome o;

	plan_precopy(&m, &o);
	cr_assert(o.converges);
	cr_assert_eq(o.rounds, 2);
	near(o.bytes, 8 * GIB);
	near(o.total_ns, 8 * VIA_NS_PER_S);
	near(o.downtime_ns, 0);
	plan_postcopy(&m, &o);
	near(o.total_ns, 8 * VIA_NS_PER_S);
}

/* Half the bandwidth: 8 s, 4 s, 2 s, 1 s, 0.5 s, then 0.25 s are left, within the limit. */
Test(plan, rounds_are_a_geometric_series)
{
	struct plan_model m = model(512 * MIB);
	struct plan_outcome o;

	plan_precopy(&m, &o);
	cr_assert(o.converges);
	cr_assert_eq(o.rounds, 6);
	near(o.total_ns, 15.75 * (double)VIA_NS_PER_S);
	near(o.downtime_ns, 250 * VIA_NS_PER_MS);
	near(o.bytes, 15.75 * (double)GIB);
}

Test(plan, fixed_costs)
{
	struct plan_model m = model(0);
	struct plan_outcome o;

	m.setup_ns = 200 * VIA_NS_PER_MS;
	m.fence_ns = VIA_NS_PER_MS;
	m.seal_ns = 5 * VIA_NS_PER_MS;
	plan_precopy(&m, &o);
	/* A fence of the last round, the seal, an exchange. */
	near(o.downtime_ns, 7 * VIA_NS_PER_MS);
	near(o.total_ns, 8 * VIA_NS_PER_S + 208 * VIA_NS_PER_MS);
	plan_postcopy(&m, &o);
	near(o.downtime_ns, 6 * VIA_NS_PER_MS);
}

Test(plan, a_guest_that_writes_as_fast_as_it_is_sent)
{
	struct plan_outcome o;

	for (unsigned i = 0; i < 3; i++) {
		static const uint64_t rates[] = {GIB, 3 * GIB, UINT64_MAX};
		struct plan_model m = model(rates[i]);

		cr_assert(plan_is_hopeless(&m));
		plan_precopy(&m, &o);
		cr_assert_not(o.converges);
		cr_assert_eq(o.rounds, 31);
		near(o.downtime_ns, 8 * VIA_NS_PER_S); /* all of it, and no page twice */
		plan_postcopy(&m, &o);
		cr_assert(o.converges);
		near(o.downtime_ns, 0);
		near(o.total_ns, 16 * VIA_NS_PER_S);
	}
	struct plan_model m = model(GIB - 1);

	cr_assert_not(plan_is_hopeless(&m));
}

/* It gets nearer, and the rounds are over before it is there. */
Test(plan, rounds_run_out)
{
	struct plan_model m = model(512 * MIB);
	struct plan_outcome o;

	m.max_rounds = 3;
	plan_precopy(&m, &o);
	cr_assert_not(o.converges);
	cr_assert_eq(o.rounds, 4);
	near(o.downtime_ns, VIA_NS_PER_S);
}

/* The limit holds while the guest runs; the last round has all there is. */
Test(plan, limited_bandwidth)
{
	struct plan_model m = model(256 * MIB);
	struct plan_outcome o;

	m.max_bandwidth = 512 * MIB;
	cr_assert_not(plan_is_hopeless(&m));
	plan_precopy(&m, &o);
	cr_assert(o.converges);
	/* 16 s, 8 s, 4 s, 2 s, 1 s, 0.5 s; then 0.25 s at 512 MiB/s are left. */
	cr_assert_eq(o.rounds, 7);
	near(o.downtime_ns, 125 * VIA_NS_PER_MS);
	m.max_bandwidth = 128 * MIB;
	cr_assert(plan_is_hopeless(&m));
}

Test(plan, small_guest)
{
	struct plan_model m = model(UINT64_MAX);
	struct plan_outcome o;

	m.memory = 4096; /* fits into the limit whatever it writes */
	plan_precopy(&m, &o);
	cr_assert(o.converges);
	cr_assert_eq(o.rounds, 2);
}
