/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * buffer.h -- page-aligned memory, and pools of equal buffers inside one block.
 *
 * A pool's block can be registered with a fabric as one region. A buffer is
 * poisoned under AddressSanitizer while it is free, so that a use after
 * via_pool_put() is found. A pool has one owner thread; get and put allocate
 * nothing.
 */
#ifndef VIA_CORE_BUFFER_H
#define VIA_CORE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * @len bytes of zeroed memory, rounded up to whole pages and aligned to them; no core dump holds it.
 * NULL when there is none. Release with via_pages_free() and the same @len.
 */
void *via_pages_alloc(size_t len);
void via_pages_free(void *addr, size_t len);

struct via_pool {
	uint8_t *block;   /* nbufs buffers, one after the other */
	size_t buf_len;   /* bytes of each buffer, a multiple of 64 */
	size_t block_len; /* bytes of the block */
	unsigned nbufs;
	unsigned nfree;
	unsigned *free_idx; /* stack of free buffers */
};

/* @nbufs free buffers of at least @buf_len bytes. -EINVAL for 0, -ENOMEM. */
int via_pool_init(struct via_pool *pool, unsigned nbufs, size_t buf_len);

/* Free the block; no buffer may be used any more. Accepts a zeroed or finished pool. */
void via_pool_fini(struct via_pool *pool);

/* A buffer, or NULL when all are in use. Its content is undefined. */
void *via_pool_get(struct via_pool *pool);

/* Give @buf (from via_pool_get) back. */
void via_pool_put(struct via_pool *pool, void *buf);

#endif
