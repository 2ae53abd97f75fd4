/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * secret.c -- memory for keys, and what is done with them.
 *
 * Must never leave a secret behind in memory that is used again, and never branch on one.
 *
 * Invariant: memory from via_secret_alloc() shares no page with anything else, so that what is
 * advised for it holds for the secret alone.
 */
#include "core/secret.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "core/buffer.h"

bool via_secret_equal(const void *a, const void *b, size_t len)
{
	const volatile uint8_t *x = a, *y = b;
	uint8_t difference = 0;

	for (size_t i = 0; i < len; i++)
		difference |= x[i] ^ y[i];
	return !difference;
}

void via_secret_wipe(void *addr, size_t len)
{
	if (len)
		explicit_bzero(addr, len);
}

void *via_secret_alloc(size_t len)
{
	void *addr = via_pages_alloc(len);

	if (!addr)
		return NULL;
	(void)mlock(addr, len); /* as far as the limit goes */
	return addr;
}

void via_secret_free(void *addr, size_t len)
{
	if (!addr)
		return;
	via_secret_wipe(addr, len);
	via_pages_free(addr, len);
}
