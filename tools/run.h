/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * run.h -- one side of a migration of the demo guest, from connect to report: what
 * demo, send and receive have in common.
 */
#ifndef VIA_TOOLS_RUN_H
#define VIA_TOOLS_RUN_H

#include "migrate/migrate.h"
#include "tools/demo_guest.h"
#include "tools/options.h"

/* What one side knows at its end. */
struct run_result {
	struct via_migrate_result migrate;
	struct via_error error;    /* code 0: none */
	struct demo_verify verify; /* of the destination, also at the source */
	bool verified;             /* verify is there */
	double cpu_source,
		cpu_destination; /* seconds of the engine and fabric; the guest's own not counted */
	uint64_t memory;
	uint64_t seed;
	const char *tracker; /* the dirty tracker's way */
};

/* Completed, and every page right? */
bool run_succeeded(const struct run_result *r);

/* Source: a running guest, sent to settings->peer. */
void run_source(const struct settings *settings, struct run_result *result);

/* Destination: wait on @listen_fd for a source, receive, run, verify, report. */
void run_destination(const struct settings *settings, int listen_fd, struct run_result *result);

/* -- interrupt.c: SIGINT and SIGTERM end a migration cleanly ------------------ */

/* Take over the signals; *cancel_fd becomes readable at the first. 0 or a negated code. */
int interrupt_start(int *cancel_fd, struct via_error *err);
/* From now on a signal aborts @session (NULL: none). */
void interrupt_watch(struct via_session *session);
void interrupt_stop(void);

/* -- progress.c: the live line ---------------------------------------------------- */

struct progress_view {
	bool terminal, color, line_open;
	enum via_phase phase;
	unsigned round;
	uint64_t shown_ns;
};
void progress_init(struct progress_view *view);
/* For via_migrate_config.progress; arg is a progress_view. */
void progress_show(void *arg, const struct via_progress *progress);
/* End an open live line, so that other text can follow. */
void progress_end(struct progress_view *view);

/* -- report.c: summary, JSON, and the bytes from destination to source ----------------- */

/* Print the summary, or one JSON object, to stdout; errors of a summary go to stderr. */
void report_print(const struct settings *settings, const struct run_result *result, bool source);
/* "viaduct: what: seen" and "  try: remedy" on stderr. */
void report_error(const struct via_error *err);
/* The destination's report: verify and CPU. From malloc; NULL when out of memory. */
char *report_encode(const struct run_result *result, size_t *len);
/* -EPROTO */
int report_decode(const void *report, size_t len, struct run_result *result, struct via_error *err);

/* "1.25 GiB" and the like, into @buf; returns it. */
const char *format_bytes(uint64_t bytes, char *buf, size_t cap);

#endif
