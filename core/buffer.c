/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * buffer.c -- page-aligned memory and pools.
 *
 * Must never hand out a buffer that is in use, and never touch the heap in get
 * and put.
 *
 * Invariant: free_idx[0 .. nfree) names each free buffer once; under
 * AddressSanitizer exactly the free buffers are poisoned.
 */
#include "core/buffer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define BUFFER_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BUFFER_ASAN
#endif
#endif

#ifdef BUFFER_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(addr, len)   ASAN_POISON_MEMORY_REGION(addr, len)
#define UNPOISON(addr, len) ASAN_UNPOISON_MEMORY_REGION(addr, len)
#define POISONED(addr)      __asan_address_is_poisoned(addr)
#else
#define POISON(addr, len)   ((void)(addr), (void)(len))
#define UNPOISON(addr, len) ((void)(addr), (void)(len))
#define POISONED(addr)      ((void)(addr), 0)
#endif

/* Buffers begin on a cache line, so that two owners never share one. */
#define BUF_ALIGN 64u

/* @len as whole pages; 0 for nothing, and for too much, where the sum wraps below one page. */
static size_t whole_pages(size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (len + page - 1) / page * page;
}

void *via_pages_alloc(size_t len)
{
	size_t whole = whole_pages(len);
	void *addr;

	if (!whole)
		return NULL;
	addr = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		return NULL;
	/* Messages, pages on their way: the guest's, and of no use to whoever looks for our mistakes. */
	(void)madvise(addr, whole, MADV_DONTDUMP);
	return addr;
}

void via_pages_free(void *addr, size_t len)
{
	if (addr)
		munmap(addr, whole_pages(len));
}

int via_pool_init(struct via_pool *pool, unsigned nbufs, size_t buf_len)
{
	*pool = (struct via_pool){0};
	if (!nbufs || !buf_len)
		return -EINVAL;
	if (buf_len > SIZE_MAX - (BUF_ALIGN - 1))
		return -ENOMEM;
	buf_len = (buf_len + BUF_ALIGN - 1) / BUF_ALIGN * BUF_ALIGN;
	if (buf_len > SIZE_MAX / nbufs)
		return -ENOMEM;

	pool->block = via_pages_alloc(buf_len * nbufs);
	if (!pool->block)
		return -ENOMEM;
	pool->free_idx = calloc(nbufs, sizeof(*pool->free_idx));
	if (!pool->free_idx) {
		via_pages_free(pool->block, buf_len * nbufs);
		pool->block = NULL;
		return -ENOMEM;
	}
	pool->buf_len = buf_len;
	pool->block_len = buf_len * nbufs;
	pool->nbufs = nbufs;
	pool->nfree = nbufs;
	/* The lowest address on top: a pool that is used little touches few pages. */
	for (unsigned i = 0; i < nbufs; i++)
		pool->free_idx[i] = nbufs - 1 - i;
	POISON(pool->block, pool->block_len);
	return 0;
}

void via_pool_fini(struct via_pool *pool)
{
	if (pool->block) {
		/* The addresses may be mapped again by others. */
		UNPOISON(pool->block, pool->block_len);
		via_pages_free(pool->block, pool->block_len);
	}
	free(pool->free_idx);
	*pool = (struct via_pool){0};
}

void *via_pool_get(struct via_pool *pool)
{
	uint8_t *buf;

	if (!pool->nfree)
		return NULL;
	buf = pool->block + pool->free_idx[--pool->nfree] * pool->buf_len;
	UNPOISON(buf, pool->buf_len);
	return buf;
}

void via_pool_put(struct via_pool *pool, void *buf)
{
	size_t off = (size_t)((uint8_t *)buf - pool->block);

	assert(off < pool->block_len && off % pool->buf_len == 0);
	assert(pool->nfree < pool->nbufs);
	assert(!POISONED(buf)); /* given back twice */
	POISON(buf, pool->buf_len);
	pool->free_idx[pool->nfree++] = (unsigned)(off / pool->buf_len);
}
