/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bite_criterion.c -- errors on purpose inside Criterion, for sanitizers_bite.sh. Each
 * case runs in a process of its own, whose exit status is not what counts by itself.
 */
#include <criterion/criterion.h>
#include <limits.h>
#include <stdlib.h>

static void *volatile kept;
static volatile int number;

Test(bite, nothing)
{
	cr_assert(1);
}

Test(bite, leak)
{
	kept = malloc(10);
	kept = NULL;
}

Test(bite, undefined)
{
	number = INT_MAX;
	number++;
}
