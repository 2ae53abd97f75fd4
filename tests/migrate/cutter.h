/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cutter.h -- cuts one channel, or the control connection, of a pair's session at one side at a moment
 * that is a step of the two engines, not a time. For one migration at a time in the process.
 *
 * The moments come from the guest, from the pair, and from wrappers of functions that the engine
 * calls (the linker's --wrap, tests/migrate/meson.build). The thread that reaches a moment makes the cut.
 */
#ifndef VIA_TESTS_CUTTER_H
#define VIA_TESTS_CUTTER_H

#include <stdbool.h>

#include "transport/transport.h"

enum cut_where {
	CUT_GUEST = 1, /* a function of the guest begins; what: enum small_fail */
	CUT_ROUND,     /* the senders have begun a round of precopy */
	CUT_SENDING,   /* a message is about to be sent; what: its enum engine_message_type */
	CUT_SENT,      /* and was */
	CUT_INSTALL,   /* what: enum cut_install */
	CUT_JOINED,    /* the side has a session that resumes one */
};

enum cut_install {
	CUT_INSTALLED_ONE = 1, /* a page that was lacking, or some, came */
	CUT_INSTALLED_HALF,    /* of what the session began with */
	CUT_INSTALLING_LAST,   /* what is missing is about to be installed */
	CUT_INSTALLED_ALL,     /* nothing is missing; COMPLETE is not sent yet */
};

struct cut_moment {
	enum via_role role; /* the side that gets there */
	enum cut_where where;
	unsigned what;
};

#define CUT_CONTROL 0u /* the kind of a target that is no channel */

struct cut {
	const struct cut_moment
		*moment; /* of the first session, or of one that begins after the last cut */
	unsigned kind;   /* enum via_channel_kind, or CUT_CONTROL */
	unsigned index;
	enum via_role side; /* whose end of it */
};

/* What fails in a destination, instead of a link. */
enum cut_failure {
	CUT_FAIL_NOTHING = 0,
	CUT_FAIL_UFFD,    /* there is no userfaultfd */
	CUT_FAIL_ARM,     /* memory cannot be registered with it */
	CUT_FAIL_INSTALL, /* a page cannot be installed, once, in the middle */
};

/*
 * Before a migration: make these @n cuts, in this order. They stay the caller's. @hold: between a cut and
 * the time when the source notices, it sends nothing in bulk.
 */
void cutter_begin(const struct cut *cut, unsigned n, bool hold, enum cut_failure failure);

struct cutter_result {
	unsigned reached;       /* moments */
	unsigned cut;           /* among them, those with something to cut */
	uint64_t first_lacking; /* pages, when the destination's first one came */
};
/* After it. */
struct cutter_result cutter_end(void);

/* For pair_config.joined and small_guest_config.at. */
void cutter_joined(enum via_role role, struct via_session *session, int control_fd);
void cutter_at_guest(unsigned where);

#endif
