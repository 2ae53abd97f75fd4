/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log.h -- the one sink for the library's debug lines.
 *
 * The library never prints: it returns errors. What helps to understand it
 * from outside goes here, at debug level, and costs one load and a branch
 * when no sink is set. The data path does not log.
 *
 * Threads: any.
 */
#ifndef VIA_CORE_LOG_H
#define VIA_CORE_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What takes the lines. It is called from any thread, one call at a time, and must not call back
 * into the library. @line has no newline and lives for the call only.
 */
typedef void via_log_fn(void *arg, const char *line);

/*
 * Say where the lines go.
 *
 * They go to @fn, which gets @arg (NULL: nowhere, the default). Waits for a call of the former sink
 * that is under way; that one is not called again.
 */
void via_log_set(via_log_fn *fn, void *arg);

/*
 * Format one line and hand it to the sink.
 *
 * A line is cut after 511 bytes. errno is preserved. Waits while another thread is in the sink.
 */
void via_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#endif
