/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * contract_test.c -- every case of the contract against every fabric that is there.
 *
 *   contract_test --filter 'contract/after_writes'     one case, all fabrics
 *   VIA_CONTRACT_FABRIC=ofi:tcp contract_test          all cases, one fabric (any spec)
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "tests/contract/contract.h"
#include "tests/contract/fabrics.h"

#define NFABRICS (NSIMULATED + NREAL)
#define PATIENCE (10 * VIA_NS_PER_S)

/* A parameter must be an index: each test is a fresh process, where a pointer means nothing. */
static struct criterion_test_params all_fabrics(void)
{
	static size_t index[NFABRICS];
	bool one = getenv("VIA_CONTRACT_FABRIC");

	for (size_t i = 0; i < NFABRICS; i++)
		index[i] = i;
	return cr_make_param_array(size_t, index, one ? 1 : NFABRICS);
}

static void run(contract_case *run_case, const char *name, size_t i)
{
	const char *spec = getenv("VIA_CONTRACT_FABRIC");
	char text[800];

	if (!spec)
		spec = i < NSIMULATED ? simulated[i] : real[i - NSIMULATED];
	for (size_t k = 0; k < NIMPOSSIBLE; k++)
		if (!strcmp(impossible[k].spec, spec) && !strcmp(impossible[k].case_name, name))
			cr_skip_test("%s, %s: %s", spec, name, impossible[k].why);
	switch (contract_run(run_case, spec, PATIENCE, text, sizeof(text))) {
	case FAIL:
		cr_assert_fail("%s", text);
	case SKIP:
		cr_skip_test("%s", text);
	default:
		break;
	}
}

#define CONTRACT_TEST(name)                                                                        \
	ParameterizedTestParameters(contract, name)                                                \
	{                                                                                          \
		return all_fabrics();                                                              \
	}                                                                                          \
	ParameterizedTest(const size_t *i, contract, name, .timeout = 60)                          \
	{                                                                                          \
		run(case_##name, #name, *i);                                                       \
	}

CONTRACT_CASES(CONTRACT_TEST)
