/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_write_test.c -- names that a peer or a device has chosen, on the page and in the file:
 * whatever bytes they are, both stay whole.
 */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/metrics_write.h"

static struct metrics_sample sample;

/* A session with a peer that calls itself so. */
static void meet(const char *peer)
{
	memset(&sample, 0, sizeof(sample));
	sample.migration = true;
	snprintf(sample.session.fabric, sizeof(sample.session.fabric), "ofi:tcp");
	snprintf(sample.session.peer, sizeof(sample.session.peer), "%s", peer);
}

/* Does the page have @line? */
static bool page_has(const char *line)
{
	size_t len;
	char *page = NULL;
	FILE *out = open_memstream(&page, &len);
	bool found;

	metrics_write_page(&sample, out);
	fclose(out);
	found = strstr(page, line);
	free(page);
	return found;
}

/* By the rules of OpenMetrics 1.0 a backslash, a quote and a line feed are escaped, and no more. */
Test(metrics_write, a_label_of_the_page)
{
	meet("a\\b\"c\nd\te");
	cr_expect(page_has("peer=\"a\\\\b\\\"c\\nd\te\"} 1\n"));
	meet("caf\xc3\xa9 \xff");
	cr_expect(page_has("peer=\"caf?? ?\"} 1\n"), "what is no UTF-8 would spoil the page");
}

/* The peer of the one line, as a reader takes it. From malloc. */
static char *peer_of_line(void)
{
	size_t len;
	char *line = NULL, *peer = NULL;
	FILE *out = open_memstream(&line, &len);
	json_t *root;

	cr_assert_eq(metrics_write_line(&sample, 1, out), 0);
	fclose(out);
	cr_expect_eq(strchr(line, '\n'), line + len - 1, "it is not one line");
	root = json_loads(line, 0, NULL);
	cr_assert_not_null(root, "no JSON: %s", line);
	if (!json_unpack(root, "{s:[{s:s}]}", "viaduct_session", "peer", &peer))
		peer = strdup(peer);
	json_decref(root);
	free(line);
	return peer;
}

Test(metrics_write, a_label_of_the_file)
{
	static const char *const names[][2] = {
		{"viaduct 0.1.0", "viaduct 0.1.0"},
		{"a\\b\"c\nd\te\x01", "a\\b\"c\nd\te\x01"},
		{"caf\xc3\xa9", "caf\xc3\xa9"},
		{"viaduct \xff\xfe", "viaduct ??"},
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char *peer;

		meet(names[i][0]);
		peer = peer_of_line();
		cr_assert_not_null(peer, "name %u is not in the line", i);
		cr_expect_str_eq(peer, names[i][1]);
		free(peer);
	}
}
