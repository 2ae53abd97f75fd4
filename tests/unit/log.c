/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log.c -- the sink: set, unset, long lines, newlines, errno.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/log.h"

struct seen {
	unsigned lines;
	char last[1024];
};

static void keep(void *arg, const char *line)
{
	struct seen *seen = arg;

	seen->lines++;
	memcpy(seen->last, line, strlen(line) + 1);
	errno = EBADF;
}

Test(log, goes_nowhere_by_default)
{
	via_log("nobody %s", "listens");
}

Test(log, goes_to_the_sink_that_is_set)
{
	struct seen one = {0}, two = {0};

	via_log_set(keep, &one);
	via_log("a %d", 1);
	cr_assert_str_eq(one.last, "a 1");
	via_log_set(keep, &two);
	via_log("b");
	cr_assert_eq(one.lines, 1);
	cr_assert_str_eq(two.last, "b");
	via_log_set(NULL, NULL);
	via_log("c");
	cr_assert_eq(one.lines, 1);
	cr_assert_eq(two.lines, 1);
}

Test(log, lines_are_cut_at_511_bytes)
{
	struct seen seen = {0};
	char text[600];

	via_log_set(keep, &seen);
	for (size_t len = 509; len <= 514; len++) {
		memset(text, 'x', len);
		text[len] = '\0';
		via_log("%s", text);
		cr_assert_eq(strlen(seen.last), len < 511 ? len : 511);
	}
	via_log("%s", "");
	cr_assert_str_empty(seen.last);
	via_log_set(NULL, NULL);
}

Test(log, one_call_is_one_line)
{
	struct seen seen = {0};

	via_log_set(keep, &seen);
	via_log("what\nseen\nremedy\n");
	cr_assert_eq(seen.lines, 1);
	cr_assert_str_eq(seen.last, "what seen remedy ");
	via_log_set(NULL, NULL);
}

Test(log, preserves_errno)
{
	struct seen seen = {0};

	errno = ENOSPC;
	via_log("x");
	cr_assert_eq(errno, ENOSPC);
	via_log_set(keep, &seen);
	errno = ENOSPC;
	via_log("%s", strerror(errno));
	cr_assert_eq(errno, ENOSPC);
	via_log_set(NULL, NULL);
}
