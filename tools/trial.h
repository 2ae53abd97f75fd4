/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trial.h -- a session that measures and moves no guest: viaduct plan at its source, `viaduct
 * receive` at its destination, which waits for its guest as before once the trial is over.
 *
 * To the protocol a trial is a session as any other. What marks it is the name of its only region.
 */
#ifndef VIA_TOOLS_TRIAL_H
#define VIA_TOOLS_TRIAL_H

#include "migrate/guest.h"
#include "transport/transport.h"

#define TRIAL_REGION "trial"

struct trial_result {
	uint64_t bytes, ns; /* written in large pieces, and drained */
	uint64_t setup_ns;  /* from the agreed session to channels that are ready */
	uint64_t fence_ns;  /* of a drain with nothing in flight: the median */
	uint64_t seal_ns;
	struct via_session_stats stats;
};

/*
 * Source: a session with @address and @len bytes of memory, written for @run_ns. Blocks that long and for the
 * session's own deadlines. -ENOMEM, and the errors of a session.
 */
int trial_measure(const char *address, const struct via_session_config *config, size_t len,
		  uint64_t run_ns, struct trial_result *result, struct via_error *err);

/* Destination: a guest for via_migrate_accept_control() that is a trial's, or else @guest. */
struct trial_guest {
	struct via_destination_guest either;
	const struct via_destination_guest *guest;
	void *memory; /* not NULL: a trial has come, and @guest was not touched */
	size_t len;
};
void trial_guest_init(struct trial_guest *trial, const struct via_destination_guest *guest);

/*
 * Destination: be written until the source leaves, a minute at most; then close @session and give the memory
 * back. 0, or why it did not come to an end of the source's choice.
 */
int trial_serve(struct trial_guest *trial, struct via_session *session, struct via_error *err);

/* When the session was never made. */
void trial_guest_fini(struct trial_guest *trial);

#endif
