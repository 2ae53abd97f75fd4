/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * suppressions.c -- leaks that LeakSanitizer finds in libraries and that are none of ours.
 *
 * libuct (UCX 1.13.1): a shared memory connection to a worker that is gone leaves 100 bytes behind,
 * as in the case nobody_there. The library has no symbols, so its name is all there is to name.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);

const char *__lsan_default_suppressions(void)
{
	return "leak:libuct.so\n";
}

/* Nothing of it among the tests' own output. */
const char *__lsan_default_options(void)
{
	return "print_suppressions=0";
}
