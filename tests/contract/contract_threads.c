/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * contract_threads.c -- every case against the simulated fabric, without Criterion.
 *
 * For ThreadSanitizer, under which Criterion does not start, and for valgrind. With arguments,
 * against the fabrics that they name.
 */
#include <stdio.h>

#include "tests/contract/contract.h"
#include "tests/contract/fabrics.h"

#define PATIENCE (60 * VIA_NS_PER_S)

static const struct {
	const char *name;
	contract_case *run;
} cases[] = {
#define CONTRACT_ROW(name) {#name, case_##name},
	CONTRACT_CASES(CONTRACT_ROW)
#undef CONTRACT_ROW
};

#define NCASES (sizeof(cases) / sizeof(cases[0]))

static unsigned run_all(const char *spec)
{
	unsigned failed = 0;
	char text[800];

	for (size_t i = 0; i < NCASES; i++) {
		uint64_t started_ns = via_now_ns();
		enum verdict verdict =
			contract_run(cases[i].run, spec, PATIENCE, text, sizeof(text));

		printf("%s %5llu ms  %s, %s\n",
		       verdict == PASS   ? "pass"
		       : verdict == FAIL ? "FAIL"
					 : "skip",
		       (unsigned long long)((via_now_ns() - started_ns) / VIA_NS_PER_MS),
		       cases[i].name, text);
		fflush(stdout);
		failed += verdict == FAIL;
	}
	return failed;
}

int main(int argc, char **argv)
{
	unsigned failed = 0;

	for (int i = 1; i < argc; i++)
		failed += run_all(argv[i]);
	for (size_t i = 0; argc < 2 && i < NSIMULATED; i++)
		failed += run_all(simulated[i]);
	return failed != 0;
}
