/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * run.h -- one side of a migration of the demo guest, from connect to report: what
 * demo, send and receive have in common.
 */
#ifndef VIA_TOOLS_RUN_H
#define VIA_TOOLS_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "demo/demo_guest.h"
#include "migrate/migrate.h"
#include "tools/live.h"
#include "tools/options.h"

/* Of the values of a histogram, microseconds. */
struct quantiles {
	double p50, p90, p99, p999, max;
};

/* How many values of a histogram lie between the bar before and this one, microseconds. */
struct latency_bar {
	double upto_us;
	uint64_t count;
};
#define LATENCY_BARS 64u

/* What only the destination sees of postcopy. */
struct postcopy_seen {
	uint64_t faults;
	uint64_t duplicate_pages;
	struct quantiles latency; /* of vCPUs: from the trap to the wake-up */
	unsigned nbars;           /* of the same */
	struct latency_bar bar[LATENCY_BARS];
	struct quantiles request; /* from a request to its answer */
	struct quantiles install; /* of a page that was asked for */
};

/* What one side knows at its end. */
struct run_result {
	struct via_migrate_result migrate;
	struct via_error error;    /* code 0: none */
	struct demo_verify verify; /* of the destination, also at the source */
	bool verified;             /* verify is there */
	struct postcopy_seen seen; /* likewise; zero without postcopy */
	double cpu_source,
		cpu_destination; /* seconds of the engine and fabric; the guest's own not counted */
	uint64_t memory;
	uint64_t seed;
	const char *tracker; /* the dirty tracker's way */
};

/* Completed, and every page right? */
bool run_succeeded(const struct run_result *r);

struct metrics;
struct series; /* tools/series.h */

/* Source: a running guest, sent to settings->peer. @series (or NULL) gets how it goes. */
void run_source(const struct settings *settings, struct series *series, struct run_result *result);

/* Destination: wait on @listen_fd for a source, receive, run, verify, report. */
void run_destination(const struct settings *settings, int listen_fd, struct run_result *result);

/* -- interrupt.c: signals end a migration cleanly, or move it on ------------------ */

/*
 * Take over the signals: *cancel_fd becomes readable at the first SIGINT or SIGTERM. At a source
 * SIGUSR1 switches to postcopy, and *resume_fd becomes readable with SIGUSR2; a
 * destination (@resume_fd is NULL) leaves these two alone. 0 or a negated code.
 */
int interrupt_start(int *cancel_fd, int *resume_fd, struct via_error *err);
/*
 * Somebody wants to end it. False: not now, and the guard has told the user why; legal where
 * @may_wait (SIGINT, not SIGTERM). True, with *why for both sides, or code 0. Called in the
 * signals' thread.
 */
typedef bool interrupt_guard_fn(void *arg, bool may_wait, struct via_error *why);
/* For a guard: has this been asked within so many seconds before? Then a SIGINT is meant. */
#define INTERRUPT_AGAIN_S 10u
bool interrupt_asked_again(void);
/*
 * From now on @guard decides (NULL: nobody, every signal counts). One that was obeyed before this
 * returns has aborted the session. Not for a thread that holds what @guard takes.
 */
void interrupt_guard(interrupt_guard_fn *guard, void *arg);
/* From now on signals are for @session (NULL: none yet), and those that have come already. */
void interrupt_watch(struct via_session *session);
/* Has SIGINT or SIGTERM come, and counted? */
bool interrupt_is_canceled(void);
void interrupt_stop(void);

/* -- link.c: the session at hand, and how a lost one is replaced ------------------- */

struct link {
	const struct settings *settings;
	const struct via_session_config *config; /* of the first session */
	struct demo_guest *guest;
	struct live live;
	struct metrics *metrics;       /* or NULL */
	struct series *series;         /* what a report shows over time; NULL: there is none */
	struct via_session *session;   /* NULL while there is none */
	struct via_acceptor *acceptor; /* destination; NULL but while it waits for a source */
	int cancel_fd;
	int resume_fd;  /* source */
	int listen_fd;  /* destination */
	bool moved;     /* the guest runs at the destination */
	bool committed; /* it runs there, or may: nothing keeps it at the source any more */
	_Atomic uint64_t remaining; /* bytes that the destination lacked when last heard */
	uint64_t pulled;
	uint64_t pull_below; /* lacking bytes; 0: not known yet */
};

/* The strings and structs pointed to stay the caller's. */
void link_init(struct link *link, const struct settings *settings,
	       const struct via_session_config *config);
/* @session (NULL: none) is the one at hand, and the one that signals are for. */
void link_use(struct link *link, struct via_session *session);
/* The migration is over, whatever became of it: the view ends, and SIGINT counts at once again. */
void link_end(struct link *link);
/* For via_migrate_config; arg is a link. */
void link_progress(void *arg, const struct via_progress *progress);
via_recover_fn link_recover_source;
via_recover_fn link_recover_destination;
/* Destination: is this failure of via_acceptor_take() of this host, so that the next try has it too? */
bool link_is_ours(int code);
/* After one: some time, unless somebody wants the end. */
void link_pause(const struct link *link);

/* -- report.c: summary, JSON, and the bytes from destination to source ----------------- */

/* Print the summary, or one JSON object, to stdout; errors of a summary go to stderr. */
void report_print(const struct settings *settings, const struct run_result *result, bool source);
/* "viaduct: what: seen" and "  try: remedy" on stderr. */
void report_error(const struct via_error *err);
/* What --json prints: a json_t of jansson, the caller's. */
struct json_t *report_json(const struct run_result *result);
/* As json_string(), whatever bytes a peer or a file's name has put in. */
struct json_t *report_text(const char *text);
/* code, what, seen and remedy; null: there is no error. */
struct json_t *report_error_json(const struct via_error *err);
/* "latency_histogram_us": [[highest value, how many], ...]; likewise. */
struct json_t *report_bars_json(const struct postcopy_seen *seen);
/* Where the guest is, unless it is at the destination with all of its memory: NULL. Static. */
const char *report_whereabouts(const struct via_migrate_result *m, bool source);
/* What of @h is reported. */
void report_quantiles(const struct via_hist *h, struct quantiles *q);
/* Its bars, two to a power of two, from the first that is not empty to the last. How many. */
unsigned report_bars(const struct via_hist *h, struct latency_bar bar[LATENCY_BARS]);
/* The destination's report: verify, CPU, what it saw of postcopy. From malloc; NULL: no memory. */
char *report_encode(const struct run_result *result, size_t *len);
/* -EPROTO */
int report_decode(const void *report, size_t len, struct run_result *result, struct via_error *err);

/* "1.25 GiB" and the like, into @buf; returns it. */
const char *format_bytes(uint64_t bytes, char *buf, size_t cap);

#endif
