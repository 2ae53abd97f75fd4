/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * run.c -- see run.h.
 */
#include "relay/run.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "relay/identify.h"

void relay_note(const struct relay_config *config, const char *fmt, ...)
{
	char line[512];
	va_list args;

	if (!config->note)
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	config->note(config->arg, line);
}

void relay_session_config(const struct relay_config *config, const struct relay_lost *lost,
			  struct via_session_config *session)
{
	*session = config->session;
	session->resume = lost->is ? &lost->point : NULL;
	session->or_new = true;
	session->streams = true;
	session->multifd =
		VIA_MULTIFD_MAX < RELAY_MULTIFD_MAX ? VIA_MULTIFD_MAX : RELAY_MULTIFD_MAX;
	session->preempt = RELAY_PREEMPT_LANES;
}

void relay_note_session(const struct relay_config *config, const struct relay_lost *lost,
			const struct via_session *session)
{
	if (lost->is)
		relay_note(config, via_session_is_resumed(session)
					   ? "the session that was lost is resumed"
					   : "a new session: the peer has been started again");
}

void relay_keep_session(struct relay_lost *lost, struct via_session *session)
{
	via_session_resume_point(session, &lost->point);
	lost->is = true;
}

static bool is_canceled(const struct relay_config *config)
{
	struct pollfd p = {.fd = config->cancel_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

int relay_run(const struct relay_config *config, relay_serve_fn *serve, void *arg,
	      struct relay_result *result, struct via_error *err)
{
	struct relay_lost lost = {0};
	bool resumable = false; /* the last one may go on where it was cut off */
	bool hopeless = false;
	unsigned migrations = 0;

	for (;;) {
		struct via_error why = {0};
		int rc;

		memset(result, 0, sizeof(*result));
		result->outcome = RELAY_BROKEN;
		rc = serve(arg, &lost, result, &hopeless, &why);
		if (rc == -ECANCELED && config->keep && !resumable && !result->connections)
			return 0; /* it had nothing to carry: so it is meant to end */
		if (!rc && result->outcome == RELAY_BROKEN)
			via_fail(&why, -ECONNRESET,
				 "carry a migration\nQEMU has cut it off\n"
				 "see what query-migrate says on both hosts");
		result->migrations = ++migrations;
		if (result->outcome != RELAY_BROKEN)
			why.code = 0;
		if (config->ended)
			config->ended(config->arg, result, &why);
		resumable = result->outcome == RELAY_BROKEN && (resumable || result->postcopy);
		lost.is = lost.is && resumable;
		if (hopeless || is_canceled(config) || !(config->keep || resumable))
			return why.code ? via_error_pass(err, &why) : 0;
		relay_note(config,
			   resumable
				   ? "waiting: a paused postcopy can be resumed through this relay"
				   : "waiting for the next migration");
	}
}
