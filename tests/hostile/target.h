/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * target.h -- the side that is put to the test: the engine and all below it, with a small guest,
 * in a thread of its own.
 */
#ifndef VIA_TESTS_TARGET_H
#define VIA_TESTS_TARGET_H

#include <pthread.h>

#include "migrate/migrate.h"
#include "tests/migrate/small_guest.h"

#define TARGET_STATE_MAX (1u << 20)

struct target {
	/* set before the start */
	enum via_role role;
	int fd;        /* of the control connection; the target's from the start on */
	int second_fd; /* destination: of the session that resumes the first; -1: none */
	bool postcopy; /* source: after the first round */
	uint64_t
		deadline_ns; /* of a handshake's step, of silence, and of work that does not move */
	/* what became of it */
	int rc;
	struct via_error err;
	struct via_migrate_result result;
	bool guest_runs;
	uint64_t took_ns;
	/* its own */
	struct small_guest guest;
	struct via_destination_guest small; /* with a wary prepare() */
	pthread_t thread;
};

void target_start(struct target *t);
/* Wait for its end. */
void target_join(struct target *t);

#endif
