/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * secret.h -- bytes that nobody else may learn: compared without telling where they differ, kept
 * out of core dumps and, where the limit of locked memory permits, off the disk, and overwritten.
 */
#ifndef VIA_CORE_SECRET_H
#define VIA_CORE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

/* Are the @len bytes equal? Takes as long whatever they are. */
bool via_secret_equal(const void *a, const void *b, size_t len);

/* Overwrite @len bytes; the compiler does not leave it out. Accepts NULL with 0. */
void via_secret_wipe(void *addr, size_t len);

/*
 * @len bytes of zeroed memory in pages of its own, which no core dump holds. NULL when there is
 * none. Release with via_secret_free() and the same @len, which overwrites it; accepts NULL.
 */
void *via_secret_alloc(size_t len);
void via_secret_free(void *addr, size_t len);

#endif
