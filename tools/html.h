/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * html.h -- pages about migrations: text that is safe in HTML, charts as SVG, the pages themselves.
 *
 * Pages load nothing and run nothing. Errors of @out are left to ferror().
 */
#ifndef VIA_TOOLS_HTML_H
#define VIA_TOOLS_HTML_H

#include <jansson.h>
#include <stdio.h>

#include "tools/run.h"
#include "tools/series.h"

/* @text, in an element or in a quoted attribute; bytes that are not UTF-8 become '?'. */
void html_text(FILE *out, const char *text);
/* @data in a script element that no browser runs, for programs that read the page. */
void html_data(FILE *out, json_t *data);
/* From the doctype to the first heading, and the end. */
void html_begin(FILE *out, const char *title);
void html_end(FILE *out);
/* A heading and a table with a row for each property; html_row() adds rows. */
void html_table(FILE *out, const char *heading);
void html_row(FILE *out, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void html_table_end(FILE *out);
/* Rows for all that is in @value, with its path: <td data-key="fence.sealed">true</td>. */
void html_leaves(FILE *out, json_t *value);

/* What @s says over time: what remains, then how fast it is sent and dirtied. */
void chart_remaining(FILE *out, const struct series *s, uint64_t memory);
void chart_rates(FILE *out, const struct series *s);

/* Bars of a distribution, one beside the other. */
void chart_bars(FILE *out, const struct latency_bar *bar, unsigned nbars, const char *label);

/* -- html_page.c: parts of both pages --------------------------------------------------- */

/* A page that will be written; zeroed: none. */
struct html_report {
	const char *path;
	FILE *out;
	struct series *series; /* what it shows over time */
};
/*
 * Can the file @path be written? What is there stays until the page is. NULL: no page is wanted.
 * -EPERM, -ENOENT, -EIO, -ENOMEM
 */
int html_report_begin(struct html_report *report, const char *path, struct via_error *err);
/* The page that @put makes, in place of what the file holds. What goes wrong is said on stderr. */
typedef void html_put_fn(FILE *out, void *arg);
void html_report_write(struct html_report *report, html_put_fn *put, void *arg);
void html_report_end(struct html_report *report);

/* A large word with a small one below it; between <div class="tiles"> and its end. */
void html_tile(FILE *out, const char *value, const char *name);
void html_rails(FILE *out, const struct via_session_stats *s);
/* Rows: fabric and why, control connection, peer. */
void html_session(FILE *out, const struct via_session_stats *s);
void html_row_text(FILE *out, const char *name, const char *value);
void html_row_switch(FILE *out, const char *name, bool value);
/* Who made it, @where, and when. */
void html_foot(FILE *out, const char *where);
/* The points as a list of lists, for html_data(). */
json_t *html_points(const struct series *s);

/* -- html_migration.c, html_relay.c: the pages -------------------------------------------- */

/* About @r, a source's. Nothing without a page. */
void html_migration(struct html_report *report, const struct settings *settings,
		    const struct run_result *r);
/* About what a relay has carried; @json is what --json prints. Likewise. */
void html_relay(struct html_report *report, const struct settings *settings,
		const struct relay_result *r, const struct via_error *why, json_t *json);

#endif
