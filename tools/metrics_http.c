/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_http.c -- the page over HTTP, by libmicrohttpd.
 *
 * Who asks proves nothing and is told what is on the page, no more: nothing is read but the
 * method and the path, few may ask at once, and nobody may be slow about it.
 */
#include "tools/metrics_http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/control.h"

#ifdef VIA_HAVE_MICROHTTPD

#include <microhttpd.h>

#include "tools/metrics_write.h"

#define CONNECTIONS_MAX 8u
#define TIMEOUT_S       5u
#define MEMORY_MAX      16384u /* of one connection: all that a request may say */

struct metrics_http {
	struct MHD_Daemon *daemon;
	metrics_page_fn *page;
	void *arg;
};

/* @body is from malloc, or a constant. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
			      const char *body, size_t len, enum MHD_ResponseMemoryMode mode)
{
	/* The library takes it as one that it may write, and does not. */
	struct MHD_Response *r =
		MHD_create_response_from_buffer(len, (void *)(uintptr_t)body, mode);
	enum MHD_Result rc = MHD_NO;

	if (!r) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free((void *)(uintptr_t)body);
		return MHD_NO;
	}
	if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) &&
	    (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
	     MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD")))
		rc = MHD_queue_response(connection, status, r);
	MHD_destroy_response(r);
	return rc;
}

static enum MHD_Result say(struct MHD_Connection *connection, unsigned status, const char *text)
{
	return answer(connection, status, "text/plain; charset=utf-8", text, strlen(text),
		      MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_len, void **state)
{
	const struct metrics_http *http = arg;
	size_t len;
	char *page;

	(void)version;
	(void)upload;
	(void)state;
	if ((strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD)) ||
	    *upload_len)
		return say(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	if (strcmp(url, "/metrics") != 0)
		return say(connection, MHD_HTTP_NOT_FOUND, "there is /metrics, and no more\n");
	page = http->page(http->arg, &len);
	if (!page)
		return say(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	return answer(connection, MHD_HTTP_OK, METRICS_CONTENT_TYPE, page, len,
		      MHD_RESPMEM_MUST_FREE);
}

/* "9464" and ":9464" are ports of this host alone. */
static int listen_at(const char *address, int *fd, struct via_error *err)
{
	char local[32];

	if (*address == ':')
		address++;
	if (strchr(address, ':'))
		return via_control_listen(address, fd, err);
	snprintf(local, sizeof(local), "127.0.0.1:%s", address);
	return via_control_listen(local, fd, err);
}

int metrics_http_start(const char *address, metrics_page_fn *page, void *arg, bool quiet,
		       struct metrics_http **out, struct via_error *err)
{
	struct metrics_http *http = calloc(1, sizeof(*http));
	char where[64];
	int fd, rc;

	if (!http)
		return via_fail(err, -ENOMEM, "serve metrics\nout of memory\nfree some memory");
	http->page = page;
	http->arg = arg;
	rc = listen_at(address, &fd, err);
	if (rc) {
		free(http);
		return rc;
	}
	http->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, handle,
		http, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)MEMORY_MAX, MHD_OPTION_END);
	if (!http->daemon) {
		close(fd);
		free(http);
		return via_fail(err, -EIO,
				"serve metrics at %s\nlibmicrohttpd does not start\n"
				"raise ulimit -n and ulimit -u",
				address);
	}
	if (!quiet && !via_control_listen_address(fd, where, sizeof(where)))
		fprintf(stderr, "viaduct: metrics at http://%s/metrics\n", where);
	*out = http;
	return 0;
}

void metrics_http_stop(struct metrics_http *http)
{
	if (!http)
		return;
	MHD_stop_daemon(http->daemon); /* and closes its descriptor */
	free(http);
}

#else

int metrics_http_start(const char *address, metrics_page_fn *page, void *arg, bool quiet,
		       struct metrics_http **http, struct via_error *err)
{
	(void)page;
	(void)arg;
	(void)quiet;
	(void)http;
	return via_fail(
		err, -EOPNOTSUPP,
		"serve metrics at %s\nthis build cannot: it was made without libmicrohttpd\n"
		"install libmicrohttpd-dev and build again, or use --stats-file",
		address);
}

void metrics_http_stop(struct metrics_http *http)
{
	(void)http;
}

#endif
