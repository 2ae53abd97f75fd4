/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_http.h -- private to metrics*.c: one page, served over HTTP in threads of its own.
 */
#ifndef VIA_TOOLS_METRICS_HTTP_H
#define VIA_TOOLS_METRICS_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct metrics_http;

/* The page, from malloc, of *len bytes; NULL: no memory. */
typedef char *metrics_page_fn(void *arg, size_t *len);

/*
 * Serve what @page returns as /metrics at @address, "HOST:PORT", or "PORT" of 127.0.0.1, and say
 * on stderr where, unless @quiet.
 *  -EOPNOTSUPP this build cannot; the errors of via_control_listen(); -EIO
 */
int metrics_http_start(const char *address, metrics_page_fn *page, void *arg, bool quiet,
		       struct metrics_http **http, struct via_error *err);
/* Accepts NULL. No page is made any more when it returns. */
void metrics_http_stop(struct metrics_http *http);

#endif
