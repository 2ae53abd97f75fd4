/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * error.c -- the closed list, the first cause, and texts that are too long.
 */
#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"

static const int listed[] = {
#define X(code, scope, text) code,
	VIA_ERROR_LIST(X)
#undef X
};

#define NLISTED (sizeof(listed) / sizeof(listed[0]))

Test(error, each_code_is_listed_once_with_its_own_name)
{
	for (size_t i = 0; i < NLISTED; i++) {
		cr_assert_gt(listed[i], 0);
		cr_assert_eq(via_err_from_errno(listed[i]), -listed[i]);
		cr_assert_neq(via_err_scope(-listed[i]), VIA_SCOPE_NONE);
		for (size_t k = 0; k < i; k++) {
			cr_assert_neq(listed[i], listed[k]);
			cr_assert_str_neq(via_err_name(-listed[i]), via_err_name(-listed[k]));
			cr_assert_str_neq(via_err_text(-listed[i]), via_err_text(-listed[k]));
		}
	}
}

/* Callers branch on these, so a code must not change its scope unnoticed. */
Test(error, scopes)
{
	cr_assert_eq(via_err_scope(0), VIA_SCOPE_NONE);
	cr_assert_eq(via_err_scope(17), VIA_SCOPE_NONE);
	cr_assert_eq(via_err_scope(-EAGAIN), VIA_SCOPE_RETRY);
	cr_assert_eq(via_err_scope(-EINVAL), VIA_SCOPE_CALL);
	cr_assert_eq(via_err_scope(-ERANGE), VIA_SCOPE_CALL);
	cr_assert_eq(via_err_scope(-EMSGSIZE), VIA_SCOPE_CALL);
	cr_assert_eq(via_err_scope(-ECONNRESET), VIA_SCOPE_CHANNEL);
	cr_assert_eq(via_err_scope(-EIO), VIA_SCOPE_CHANNEL);
	cr_assert_eq(via_err_scope(-EPROTO), VIA_SCOPE_SESSION);
	cr_assert_eq(via_err_scope(-EPROTONOSUPPORT), VIA_SCOPE_SESSION);
	cr_assert_eq(via_err_scope(-ETIMEDOUT), VIA_SCOPE_SESSION);
}

Test(error, names_and_texts)
{
	cr_assert_str_eq(via_err_name(-ETIMEDOUT), "ETIMEDOUT");
	cr_assert_str_eq(via_err_text(-ETIMEDOUT), "deadline passed");
	cr_assert_str_eq(via_err_name(0), "OK");
	cr_assert_str_eq(via_err_name(4096), "OK");
	cr_assert_str_eq(via_err_text(0), "success");
}

Test(error, unknown_codes_are_eio)
{
	static const int unknown[] = {-ENOTTY, -4096, -INT_MAX, INT_MIN};

	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		cr_assert_eq(via_err_scope(unknown[i]), VIA_SCOPE_CHANNEL);
		cr_assert_str_eq(via_err_name(unknown[i]), "EIO");
		cr_assert_str_eq(via_err_text(unknown[i]), via_err_text(-EIO));
		cr_assert_eq(via_fail(NULL, unknown[i], "x"), -EIO);
	}
	cr_assert_eq(via_err_from_errno(ENOTTY), -EIO);
	cr_assert_eq(via_err_from_errno(0), -EIO);
	cr_assert_eq(via_err_from_errno(-EINVAL), -EIO);
	cr_assert_eq(via_err_from_errno(INT_MIN), -EIO);
	cr_assert_eq(via_fail(NULL, 0, "x"), -EIO, "0 is not a failure");
	cr_assert_eq(via_fail(NULL, EINVAL, "x"), -EIO, "codes are negated");
}

Test(error, three_parts)
{
	struct via_error err = {0};

	cr_assert_eq(via_fail(&err, -ENODEV, "open %s\nno device %d\ninstall it", "ofi", 7),
		     -ENODEV);
	cr_assert_eq(err.code, -ENODEV);
	cr_assert_str_eq(err.what, "open ofi");
	cr_assert_str_eq(err.seen, "no device 7");
	cr_assert_str_eq(err.remedy, "install it");
}

Test(error, missing_parts_are_empty)
{
	static const char *const text[] = {"a", "a\nb", "a\n\nc", "\nb", "", "\n\n"};
	static const char *const want[][3] = {{"a", "", ""}, {"a", "b", ""}, {"a", "", "c"},
					      {"", "b", ""}, {"", "", ""},   {"", "", ""}};

	for (size_t i = 0; i < 6; i++) {
		struct via_error err = {0};

		cr_assert_eq(via_fail(&err, -EINVAL, "%s", text[i]), -EINVAL);
		cr_assert_str_eq(err.what, want[i][0]);
		cr_assert_str_eq(err.seen, want[i][1]);
		cr_assert_str_eq(err.remedy, want[i][2]);
	}
}

Test(error, first_cause_wins)
{
	struct via_error err = {0};

	via_fail(&err, -ECONNREFUSED, "connect\nrefused\nstart the peer");
	cr_assert_eq(via_fail(&err, -EIO, "session\nlost\ntry again"), -EIO);
	cr_assert_eq(err.code, -ECONNREFUSED);
	cr_assert_str_eq(err.what, "connect");
	cr_assert_str_eq(err.seen, "refused");
	cr_assert_str_eq(err.remedy, "start the peer");
}

Test(error, null_and_errno)
{
	struct via_error err = {0};

	errno = ENOSPC;
	cr_assert_eq(via_fail(NULL, -EINVAL, "x"), -EINVAL);
	cr_assert_eq(errno, ENOSPC);
	cr_assert_eq(via_fail(&err, -EINVAL, "x\n%s", strerror(errno)), -EINVAL);
	cr_assert_eq(errno, ENOSPC);
}

/* Each part by itself at its size - 1, at it, and above it; the others stay whole. */
Test(error, long_parts_are_cut)
{
	struct via_error err;
	const size_t caps[] = {sizeof(err.what), sizeof(err.seen), sizeof(err.remedy)};

	for (size_t part = 0; part < 3; part++) {
		for (size_t len = caps[part] - 2; len <= caps[part] + 300; len++) {
			const char *got[3] = {err.what, err.seen, err.remedy};
			char text[3][600] = {"what", "seen", "remedy"};
			size_t kept = len < caps[part] - 1 ? len : caps[part] - 1;

			memset(text[part], 'x', len);
			text[part][len] = '\0';
			memset(&err, 0, sizeof(err));
			via_fail(&err, -EINVAL, "%s\n%s\n%s", text[0], text[1], text[2]);
			text[part][kept] = '\0';
			for (size_t p = 0; p < 3; p++)
				cr_assert_str_eq(got[p], text[p], "part %zu, %zu bytes", p, len);
		}
	}
}

Test(error, cut_falls_between_characters)
{
	struct via_error err = {0};
	char text[400] = "";

	/* One byte, then characters of two: the limit of 159 bytes is inside none of them ... */
	for (size_t i = 1; i + 2 < sizeof(text); i += 2)
		memcpy(text + i, "\xc3\xa9", 3);
	text[0] = 'a';
	via_fail(&err, -EINVAL, "%s", text);
	cr_assert_eq(strlen(err.what), 159);
	/* ... and now it is. */
	memset(&err, 0, sizeof(err));
	via_fail(&err, -EINVAL, "%s", text + 1);
	cr_assert_eq(strlen(err.what), 158);
	cr_assert_eq((unsigned char)err.what[157], 0xa9);
}

Test(error, control_characters_do_not_reach_the_terminal)
{
	struct via_error err = {0};

	via_fail(&err, -EINVAL, "a\tb\nc\x1b[2Jd\x7f\none\ntwo");
	cr_assert_str_eq(err.what, "a b");
	cr_assert_str_eq(err.seen, "c [2Jd ");
	cr_assert_str_eq(err.remedy, "one two");
}

Test(error, format_on_one_line)
{
	static const char *const text[] = {"a\nb\nc", "a\nb", "a", "a\n\nc", ""};
	static const char *const want[] = {"a: b (c)", "a: b", "a: deadline passed",
					   "a: deadline passed (c)", "deadline passed"};

	for (size_t i = 0; i < 5; i++) {
		struct via_error err = {0};
		char buf[64];

		via_fail(&err, -ETIMEDOUT, "%s", text[i]);
		cr_assert_eq(via_error_format(&err, buf, sizeof(buf)), buf);
		cr_assert_str_eq(buf, want[i]);
	}
}

Test(error, format_of_nothing)
{
	struct via_error err = {0};
	char buf[64];

	cr_assert_str_eq(via_error_format(&err, buf, sizeof(buf)), "success");
}

Test(error, format_stays_inside_its_buffer)
{
	struct via_error err = {0};
	const char *whole = "one: two (three)";
	char buf[32];

	via_fail(&err, -EINVAL, "one\ntwo\nthree");
	for (size_t cap = 0; cap <= strlen(whole) + 2; cap++) {
		memset(buf, '#', sizeof(buf));
		via_error_format(&err, buf, cap);
		cr_assert_eq(buf[cap], '#', "wrote beyond %zu bytes", cap);
		if (!cap)
			continue;
		cr_assert_eq(strlen(buf), cap <= strlen(whole) ? cap - 1 : strlen(whole));
		cr_assert_eq(strncmp(buf, whole, strlen(buf)), 0);
	}
}

Test(error, longest_error_fits_one_line)
{
	struct via_error err = {0};
	char long_part[400], buf[1024];

	memset(long_part, 'x', sizeof(long_part));
	long_part[sizeof(long_part) - 1] = '\0';
	via_fail(&err, -EINVAL, "%s\n%s\n%s", long_part, long_part, long_part);
	via_error_format(&err, buf, sizeof(buf));
	cr_assert_eq(strlen(buf), 159 + 2 + 223 + 2 + 223 + 1);
	cr_assert_eq(buf[strlen(buf) - 1], ')');
}
