/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gen_errors_doc.c -- write docs/errors.md from VIA_ERROR_LIST to the standard output.
 *
 * The list in core/error.h is the only place that is kept by hand.
 */
#include <stdio.h>

#include "core/error.h"

struct row {
	const char *name;
	enum via_scope scope;
	const char *text;
};

static const struct row rows[] = {
#define X(code, scope, text) {#code, VIA_SCOPE_##scope, text},
	VIA_ERROR_LIST(X)
#undef X
};

static const struct {
	enum via_scope scope;
	const char *title;
	const char *lost;
} scopes[] = {
	{VIA_SCOPE_RETRY, "Retry", "Nothing is lost. Do what the call asks for, then call again."},
	{VIA_SCOPE_CALL, "Call",
	 "This call failed: its arguments or a resource were wrong. Everything else goes on."},
	{VIA_SCOPE_CHANNEL, "Channel", "The channel (endpoint) that reported it is lost."},
	{VIA_SCOPE_SESSION, "Session", "The session with this peer is lost."},
};

static const char head[] =
	"<!-- Generated from VIA_ERROR_LIST in core/error.h. Change it there, then run\n"
	"     `meson compile -C build-test errors-doc`. -->\n"
	"# Errors\n"
	"\n"
	"Every function returns 0 or a count on success and one of these codes, negated, on\n"
	"failure. The list is closed: what a provider reports beyond it becomes `-EIO`, and the\n"
	"provider's own number is in `via_comp.native`.\n"
	"\n"
	"Branch on the scope (`via_err_scope()`), which says what is lost, not on the code.\n"
	"Functions that set something up also take a `struct via_error`, which keeps the first\n"
	"cause in words: what failed, the value seen, and what to do about it.\n";

int main(void)
{
	fputs(head, stdout);
	for (size_t s = 0; s < sizeof(scopes) / sizeof(scopes[0]); s++) {
		printf("\n## %s\n\n%s\n\n| code | meaning |\n|---|---|\n", scopes[s].title,
		       scopes[s].lost);
		for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
			if (rows[r].scope == scopes[s].scope)
				printf("| `%s` | %s |\n", rows[r].name, rows[r].text);
		}
	}
	return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
