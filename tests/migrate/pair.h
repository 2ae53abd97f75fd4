/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pair.h -- both sides of a migration in one process: two threads, a socket pair as control
 * connection, and any fabric. A session that is lost in postcopy is resumed, over another.
 */
#ifndef VIA_TESTS_PAIR_H
#define VIA_TESTS_PAIR_H

#include "migrate/migrate.h"
#include "tests/migrate/small_guest.h"

struct pair_config {
	const char *fabric_source; /* specs */
	const char *fabric_destination;
	unsigned multifd, preempt;
	uint64_t stall_ns;     /* 0: the default */
	uint64_t handshake_ns; /* 0: 20 s */
	uint64_t slice_len;    /* 0: the default */
	struct small_guest_config guest;
	int destination_fails_at; /* enum small_fail of the destination's guest */
	struct via_migrate_config migrate;
	/*
	 * A side has a session, over @control_fd: the first, or one that resumes it. Called in its
	 * migration thread. May be NULL.
	 */
	void (*joined)(enum via_role role, struct via_session *session, int control_fd);
	const char *fabric_resumed; /* spec of sessions that resume one; NULL: as the first */
	void (*begins)(
		void); /* the guests are made, and from here on all is the library's; may be NULL */
};

struct pair_result {
	struct via_migrate_result source, destination;
	struct via_error source_error, destination_error;
	unsigned wrong_pages; /* at the destination, at its start and at the end */
	bool source_runs, destination_runs;
	unsigned tries; /* of the source to resume */
	bool lingered;  /* the destination waited for a source that it could do without, in vain */
};

/* One migration, from connect to close. */
void pair_migrate(const struct pair_config *config, struct pair_result *result);

#endif
