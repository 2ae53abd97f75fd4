/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * secret.c -- what is kept secret is compared right, overwritten, and in no core dump.
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/secret.h"

Test(secret, equal_means_every_byte)
{
	uint8_t a[16] = {1, 2, 3}, b[16] = {1, 2, 3};

	cr_assert(via_secret_equal(a, b, sizeof(a)));
	cr_assert(via_secret_equal(a, b, 0));
	for (size_t i = 0; i < sizeof(a); i++)
		for (unsigned bit = 0; bit < 8; bit++) {
			b[i] ^= (uint8_t)(1u << bit);
			cr_assert_not(via_secret_equal(a, b, sizeof(a)), "byte %zu", i);
			cr_assert(via_secret_equal(a, b, i));
			b[i] ^= (uint8_t)(1u << bit);
		}
}

Test(secret, wiped_is_zero)
{
	uint8_t a[16], zero[16] = {0};

	memset(a, 0x5a, sizeof(a));
	via_secret_wipe(a, 8);
	cr_assert(!memcmp(a, zero, 8));
	cr_assert_eq(a[8], 0x5a);
	via_secret_wipe(a, sizeof(a));
	cr_assert(!memcmp(a, zero, sizeof(a)));
	via_secret_wipe(NULL, 0);
}

/* The flags of the mapping that @addr is in, as the kernel tells them. */
static void flags_of(const void *addr, char *flags, size_t cap)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	bool mine = false;

	cr_assert_not_null(f);
	flags[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			mine = from <= (uintptr_t)addr && (uintptr_t)addr < to;
		else if (mine && !strncmp(line, "VmFlags:", 8))
			snprintf(flags, cap, "%s", line);
	}
	fclose(f);
}

Test(secret, its_memory_is_not_dumped)
{
	char flags[512];
	uint8_t *a = via_secret_alloc(100);

	cr_assert_not_null(a);
	for (size_t i = 0; i < 100; i++)
		cr_assert_eq(a[i], 0);
	a[99] = 1;
	flags_of(a, flags, sizeof(flags));
	cr_assert(strstr(flags, " dd"), "%s", flags);
	via_secret_free(a, 100);
	via_secret_free(NULL, 100);
	cr_assert_null(via_secret_alloc(0));
}
