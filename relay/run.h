/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * run.h -- what both ends of a relay have in common: one migration after the other, or one.
 */
#ifndef VIA_RELAY_RUN_H
#define VIA_RELAY_RUN_H

#include "relay/relay.h"

/* When main is through the other connections close too; QEMU has no reason to keep one for longer. */
#define RELAY_LINGER_NS (5 * VIA_NS_PER_S)

/* Channels of a session: as many as QEMU can have of each kind. */
#define RELAY_PREEMPT_LANES 1u

/* The session with which a paused postcopy was lost, and goes on when its QEMUs do. */
struct relay_lost {
	bool is; /* there is one */
	struct via_resume point;
};

/*
 * Carry one migration, in the session @lost if there is one and the peer knows it. Fills *result, and
 * *lost with the session that it had; returns 0, or the first cause that there is none. *hopeless:
 * there never was one, nor will there be.
 */
typedef int relay_serve_fn(void *arg, struct relay_lost *lost, struct relay_result *result,
			   bool *hopeless, struct via_error *err);

/* Call @serve until @config, or how the last one ended, says that it was the last. */
int relay_run(const struct relay_config *config, relay_serve_fn *serve, void *arg,
	      struct relay_result *result, struct via_error *err);

/* The session's config of both sides. @lost is to live until it is made. */
void relay_session_config(const struct relay_config *config, const struct relay_lost *lost,
			  struct via_session_config *session);

/* Say whether @session goes on with the one that was @lost, if one was. */
void relay_note_session(const struct relay_config *config, const struct relay_lost *lost,
			const struct via_session *session);

/* @session ends: keep what it takes to go on with it. */
void relay_keep_session(struct relay_lost *lost, struct via_session *session);

/* One line for the user. */
void relay_note(const struct relay_config *config, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
