/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cases.h -- what the peer made by hand says otherwise, one line each, and what is to come of it.
 */
#ifndef VIA_TESTS_HOSTILE_CASES_H
#define VIA_TESTS_HOSTILE_CASES_H

#include "tests/hostile/hand.h"

enum verdict {
	MUST_FAIL = 1, /* with a message that says @says */
	MUST_WORK,
	MAY_DO_EITHER, /* but nothing else */
};

struct hostile_case {
	enum via_role role; /* of the hand */
	enum hand_script script;
	struct twisted twisted;
	enum verdict verdict;
	const char *says; /* in what was seen, or what failed; NULL: anything */
};

extern const struct hostile_case hostile_cases[];
extern const unsigned nhostile_cases;

#endif
