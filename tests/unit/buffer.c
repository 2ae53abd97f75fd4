/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * buffer.c -- page-aligned memory and pools: alignment, exhaustion, poison.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/buffer.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifndef HAVE_ASAN
#define HAVE_ASAN 0
#endif

Test(pages, aligned_zeroed_and_whole)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t lens[] = {1, page - 1, page, page + 1, 10 * page};

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		size_t whole = (lens[i] + page - 1) / page * page;
		uint8_t *addr = via_pages_alloc(lens[i]);

		cr_assert_not_null(addr);
		cr_assert_eq((uintptr_t)addr % page, 0);
		for (size_t b = 0; b < whole; b++)
			cr_assert_eq(addr[b], 0, "byte %zu of %zu", b, lens[i]);
		memset(addr, 0xff, whole);
		via_pages_free(addr, lens[i]);
	}
}

Test(pages, nothing_and_too_much)
{
	cr_assert_null(via_pages_alloc(0));
	cr_assert_null(via_pages_alloc(SIZE_MAX));
	cr_assert_null(via_pages_alloc(SIZE_MAX / 2));
	via_pages_free(NULL, 4096);
}

Test(pool, refuses_nothing_and_too_much)
{
	struct via_pool pool;

	cr_assert_eq(via_pool_init(&pool, 0, 64), -EINVAL);
	cr_assert_eq(via_pool_init(&pool, 1, 0), -EINVAL);
	cr_assert_eq(via_pool_init(&pool, 1, SIZE_MAX), -ENOMEM);
	cr_assert_eq(via_pool_init(&pool, 4, SIZE_MAX / 4 + 65), -ENOMEM, "the product wrapped");
	via_pool_fini(&pool);
}

Test(pool, length_is_rounded_up_to_64)
{
	static const size_t asked[] = {1, 63, 64, 65}, got[] = {64, 64, 64, 128};

	for (size_t i = 0; i < 4; i++) {
		struct via_pool pool;

		cr_assert_eq(via_pool_init(&pool, 2, asked[i]), 0);
		cr_assert_eq(pool.buf_len, got[i]);
		cr_assert_geq(pool.block_len, 2 * got[i]);
		via_pool_fini(&pool);
	}
}

Test(pool, each_buffer_once_until_empty)
{
	enum { N = 5 };
	struct via_pool pool;
	uint8_t *buf[N];

	cr_assert_eq(via_pool_init(&pool, N, 100), 0);
	for (int i = 0; i < N; i++) {
		buf[i] = via_pool_get(&pool);
		cr_assert_not_null(buf[i]);
		cr_assert_eq((uintptr_t)buf[i] % 64, 0);
		memset(buf[i], i, pool.buf_len);
	}
	cr_assert_null(via_pool_get(&pool), "one more than there are");
	for (int i = 0; i < N; i++) {
		for (size_t b = 0; b < pool.buf_len; b++)
			cr_assert_eq(buf[i][b], i, "buffers overlap");
	}
	via_pool_put(&pool, buf[2]);
	cr_assert_eq(via_pool_get(&pool), buf[2]);
	cr_assert_null(via_pool_get(&pool));
	for (int i = 0; i < N; i++)
		via_pool_put(&pool, buf[i]);
	cr_assert_eq(pool.nfree, N);
	via_pool_fini(&pool);
}

Test(pool, fini_accepts_zeroed_finished_and_half_used)
{
	struct via_pool pool = {0};

	via_pool_fini(&pool);
	cr_assert_eq(via_pool_init(&pool, 2, 64), 0);
	cr_assert_not_null(via_pool_get(&pool));
	via_pool_fini(&pool);
	via_pool_fini(&pool);
	cr_assert_null(via_pool_get(&pool));
}

/* Poison must not stay behind on addresses that somebody else maps next. */
Test(pool, fini_lifts_the_poison)
{
	struct via_pool pool;
	size_t len;
	uint8_t *again;

	cr_assert_eq(via_pool_init(&pool, 4, 4096), 0);
	len = pool.block_len;
	via_pool_fini(&pool);
	again = via_pages_alloc(len);
	cr_assert_not_null(again);
	memset(again, 1, len);
	via_pages_free(again, len);
}

Test(pool, use_after_put_is_found, .signal = HAVE_ASAN ? SIGABRT : 0)
{
	struct via_pool pool;
	volatile uint8_t *buf;

	if (!HAVE_ASAN)
		cr_skip_test("needs AddressSanitizer: scripts/test --sanitize");
	cr_assert_eq(via_pool_init(&pool, 2, 64), 0);
	buf = via_pool_get(&pool);
	buf[63] = 1;
	via_pool_put(&pool, (void *)(uintptr_t)buf);
	buf[63] = 2;
}
