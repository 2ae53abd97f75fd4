/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * html_page.c -- what the pages about a migration and about a relay have in common: their file,
 * tiles, what a session agreed on, and where it was made.
 *
 * It must never empty a file before there is a page to take its place.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "tools/html.h"

/* -- the file ----------------------------------------------------------------------- */

int html_report_begin(struct html_report *report, const char *path, struct via_error *err)
{
	int fd;

	if (!path)
		return 0;
	report->path = path;
	report->series = series_new();
	if (!report->series)
		return via_fail(err, -ENOMEM, "make a report\nout of memory\nfree some memory");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	report->out = fd < 0 ? NULL : fdopen(fd, "w");
	if (report->out)
		return 0;
	via_fail(err, via_err_from_errno(errno),
		 "write the report\n%s: %s\nname a file that can be written: --report FILE", path,
		 strerror(errno));
	if (fd >= 0)
		close(fd);
	series_free(report->series);
	report->series = NULL;
	return err->code;
}

void html_report_write(struct html_report *report, html_put_fn *put, void *arg)
{
	struct via_error err = {0};

	rewind(report->out);
	if (!ftruncate(fileno(report->out), 0))
		put(report->out, arg);
	else
		via_fail(&err, -EIO, "write the report\n%s: %s\nname a file: --report FILE",
			 report->path, strerror(errno));
	if (fflush(report->out) || ferror(report->out))
		via_fail(&err, -EIO, "write the report\n%s: %s\nlook whether there is room for it",
			 report->path, strerror(errno));
	if (err.code)
		report_error(&err);
}

void html_report_end(struct html_report *report)
{
	if (report->out)
		fclose(report->out);
	series_free(report->series);
	*report = (struct html_report){0};
}

/* -- parts ---------------------------------------------------------------------------- */

void html_tile(FILE *out, const char *value, const char *name)
{
	fputs("<div class=\"tile\"><b>", out);
	html_text(out, value);
	fputs("</b><span>", out);
	html_text(out, name);
	fputs("</span></div>\n", out);
}

void html_rails(FILE *out, const struct via_session_stats *s)
{
	char bytes[32];

	if (!s->nrails)
		return;
	html_table(out, "Rails");
	for (unsigned i = 0; i < s->nrails; i++)
		html_row(out, s->rail[i].device, "%s",
			 format_bytes(s->rail[i].bytes, bytes, sizeof(bytes)));
	html_table_end(out);
}

/* Each candidate on a line of its own. */
static void put_choice(FILE *out, const char *choice)
{
	char lines[sizeof(((struct via_session_stats *)0)->choice)];

	snprintf(lines, sizeof(lines), "%s", choice);
	for (char *s = strstr(lines, "; "); s; s = strstr(s, "; "))
		*s = '\n';
	html_row(out, "why", "%s", lines);
}

void html_session(FILE *out, const struct via_session_stats *s)
{
	html_row(out, "fabric", "%s", s->fabric[0] ? s->fabric : "none");
	if (s->choice[0])
		put_choice(out, s->choice);
	html_row(out, "control connection", "%s", s->security[0] ? s->security : "none");
	html_row(out, "peer", "%s", s->peer[0] ? s->peer : "none");
}

void html_row_text(FILE *out, const char *name, const char *value)
{
	html_row(out, name, "%s", value ? value : "not set");
}

void html_row_switch(FILE *out, const char *name, bool value)
{
	html_row(out, name, "%s", value ? "yes" : "no");
}

void html_foot(FILE *out, const char *where)
{
	char when[64] = "";
	time_t now = time(NULL);
	struct utsname host;
	struct tm tm;

	if (gmtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", &tm);
	fputs("<p class=\"dim\">Made by viaduct", out);
	if (!uname(&host)) {
		fprintf(out, " %s, ", where);
		html_text(out, host.nodename);
		fputs(", ", out);
		html_text(out, host.sysname);
		fputs(" ", out);
		html_text(out, host.release);
	}
	fprintf(out, ", %s</p>\n", when);
}

json_t *html_points(const struct series *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < s->npoints; i++)
		json_array_append_new(list,
				      json_pack("[f, I, I, I, I]", (double)s->point[i].at_ns / 1e6,
						(json_int_t)s->point[i].round,
						(json_int_t)s->point[i].remaining,
						(json_int_t)s->point[i].sent,
						(json_int_t)s->point[i].dirty_rate));
	return list;
}
