/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * text.c -- what codes of the verbs libraries become, and when a limit is blamed.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/resource.h>

#include "fabrics/verbs/verbs.h"

Test(verbs_text, completions_become_codes_of_the_list)
{
	cr_assert_eq(verbs_status_code(IBV_WC_SUCCESS), 0);
	cr_assert_eq(verbs_status_code(IBV_WC_REM_ACCESS_ERR), -EREMOTEIO);
	cr_assert_eq(verbs_status_code(IBV_WC_WR_FLUSH_ERR), -ECONNRESET);
	cr_assert_eq(verbs_status_code(IBV_WC_RETRY_EXC_ERR), -ECONNRESET);
	cr_assert_eq(verbs_status_code(IBV_WC_RNR_RETRY_EXC_ERR), -ECONNRESET);
	for (int status = 1; status < 40; status++) {
		int code = verbs_status_code((enum ibv_wc_status)status);

		cr_assert_lt(code, 0);
		cr_assert_neq(code, -ECANCELED, "that is an abort and nothing else");
		cr_assert_eq(code, via_err_from_errno(-code), "status %d", status);
		cr_assert(verbs_status_name((enum ibv_wc_status)status)[0]);
	}
	cr_assert_str_eq(verbs_status_name(IBV_WC_RETRY_EXC_ERR), "IBV_WC_RETRY_EXC_ERR");
}

Test(verbs_text, errnos_become_codes_of_the_list)
{
	cr_assert_eq(verbs_code(ENETUNREACH), -EHOSTUNREACH);
	cr_assert_eq(verbs_code(ENOMEM), -ENOMEM);
	for (int e = 1; e < 140; e++)
		cr_assert_neq(verbs_code(e), -EAGAIN, "errno %d: set-up is not tried again", e);
}

Test(verbs_text, the_limit_is_blamed_only_when_it_is_the_cause)
{
	const uint64_t mib = 1 << 20;

	cr_assert(verbs_memlock_is_cause(8 * mib, 0, 16 * mib, false));
	cr_assert(verbs_memlock_is_cause(8 * mib, 5 * mib, 4 * mib, false), "the sum counts");
	cr_assert(verbs_memlock_is_cause(8 * mib, 9 * mib, 0, false));
	cr_assert_not(verbs_memlock_is_cause(8 * mib, 4 * mib, 4 * mib, false), "it just fits");
	cr_assert_not(verbs_memlock_is_cause(8 * mib, 0, 16 * mib, true), "CAP_IPC_LOCK");
	cr_assert_not(verbs_memlock_is_cause(RLIM_INFINITY, 0, 16 * mib, false));
	cr_assert(verbs_memlock_is_cause(8 * mib, mib, UINT64_MAX, false), "no sum that wraps");
}

Test(verbs_text, a_memlock_error_says_limit_need_and_remedy)
{
	struct rlimit small = {.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
	struct via_error err = {0};
	int rc;

	cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &small), 0);
	rc = verbs_fail_memory("register memory", (size_t)1 << 30, EFAULT, &err);
	cr_assert_eq(rc, -EFAULT, "another cause stays one");
	cr_assert_null(strstr(err.remedy, "ulimit"));
	err = (struct via_error){0};
	rc = verbs_fail_memory("register memory", (size_t)1 << 30, ENOMEM, &err);
	cr_assert_eq(rc, -ENOMEM);
	if (strstr(err.seen, "not the cause"))
		cr_skip_test(
			"this process may lock as much as it likes: run it without CAP_IPC_LOCK");
	cr_assert(strstr(err.seen, "64 KiB") && strstr(err.seen, "1048576 KiB"), "%s", err.seen);
	cr_assert(strstr(err.remedy, "ulimit -l"), "%s", err.remedy);
}
