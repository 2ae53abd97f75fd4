/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log.h -- the one sink for the library's debug lines.
 *
 * The library never prints: it returns errors. What helps to understand it
 * from outside goes here, at debug level, and costs one load and a branch
 * when no sink is set. The data path does not log.
 */
#ifndef VIA_CORE_LOG_H
#define VIA_CORE_LOG_H

typedef void via_log_fn(void *arg, const char *line);

/*
 * Send the lines to @fn (NULL: nowhere, the default). @fn may be called from
 * any thread, one call at a time; it must not call back into the library. The
 * line has no newline and lives for the call only.
 */
void via_log_set(via_log_fn *fn, void *arg);

/* Format one line of at most 511 bytes and hand it to the sink. Preserves errno. */
void via_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
