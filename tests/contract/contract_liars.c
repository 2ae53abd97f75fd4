/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * contract_liars.c -- the suite must say no to a fabric that breaks a promise.
 *
 * Each of the simulated fabric's breaks is caught by the case named for it, whatever the seed.
 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "tests/contract/contract.h"

#define SEEDS    8u
#define PATIENCE (500 * VIA_NS_PER_MS)

static void must_catch(contract_case *run, const char *broken)
{
	char spec[128], text[800];

	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		snprintf(spec, sizeof(spec), "sim,seed=%u,break=%s", seed, broken);
		cr_expect_eq(contract_run(run, spec, PATIENCE, text, sizeof(text)), FAIL,
			     "nobody noticed: %s", text);
		cr_log_info("%s", text);
	}
}

Test(liars, message_that_overtakes_writes)
{
	must_catch(case_after_writes, "after-writes");
	must_catch(case_after_writes_between, "after-writes");
}

Test(liars, write_that_lands_after_dereg)
{
	must_catch(case_dereg_refuses, "dereg");
}

Test(liars, both_at_once)
{
	must_catch(case_after_writes, "after-writes+dereg");
	must_catch(case_dereg_refuses, "after-writes+dereg");
}

Test(liars, completion_lost_or_told_twice)
{
	must_catch(case_completes_once, "exactly-once");
}

Test(liars, messages_out_of_order)
{
	must_catch(case_message_order, "order");
}

Test(liars, bytes_read_after_the_completion)
{
	must_catch(case_bytes_free_again, "completion");
}
