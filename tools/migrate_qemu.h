/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * migrate_qemu.h -- what viaduct migrate-qemu consists of: a relay inside of the program, QEMU's
 * monitor, and what is shown of both.
 */
#ifndef VIA_TOOLS_MIGRATE_QEMU_H
#define VIA_TOOLS_MIGRATE_QEMU_H

#include <pthread.h>

#include "relay/qmp.h"
#include "relay/relay.h"
#include "tools/metrics.h"
#include "tools/run.h"

/* What query-migrate says, as far as it is looked at. What QEMU does not say is 0. */
struct qemu_view {
	char status[32];          /* "none" when there is none; "unknown": it answers no more */
	char why[224];            /* error-desc, in QEMU's words; empty: none */
	uint64_t round;           /* as QEMU counts: of looks for dirty pages */
	uint64_t memory, visited; /* bytes; what was sent of it, each time that it was */
	uint64_t remaining, transferred; /* bytes */
	uint64_t rate, dirty_rate;       /* bytes a second */
	uint64_t requests;               /* of pages, in postcopy */
	uint64_t total_ms, setup_ms, downtime_ms;
};

/* The source relay, on a socket that nobody but QEMU's user finds. */
struct own_relay {
	struct relay_config config;
	struct relay_watch watch;
	struct metrics *metrics; /* or NULL */
	struct relay_told told;  /* by QEMU */
	const char *peer;
	char folder[96], address[112]; /* "unix:FOLDER/relay" */
	int listen_fd;
	pthread_t thread;
	bool running;
	int ended_fd; /* eventfd: the migration has ended, as far as the relay sees it */
	struct relay_result result; /* of the first that has; valid once the thread has */
	struct via_error error;
};

struct qemu_migration {
	const struct settings *settings;
	struct relay_qmp *qmp;
	int cancel_fd; /* a count of signals that ask for the end */
	struct own_relay relay;
	struct qemu_view view;
	struct relay_result carried; /* when last looked at */

	bool begun;            /* QEMU has accepted `migrate` */
	bool left;             /* ... and is not in the state any more that it was resumed from */
	bool asked;            /* to switch to postcopy */
	bool postcopy;         /* and it does: nothing can be canceled any more */
	bool canceled;         /* QEMU was told */
	bool warned;           /* somebody wants to cancel it all the same */
	bool unanswered;       /* QEMU was asked, and the last time did not answer */
	unsigned counted;      /* looks for the time that it took, when it has completed */
	uint64_t deadline_ns;  /* of --timeout */
	uint64_t cut_ns;       /* what was canceled has to have ended; VIA_NEVER: nothing was */
	uint64_t resume_by_ns; /* QEMU has to leave its pause until then */

	pthread_mutex_t
		screen; /* of what follows: the relay's threads have something to say, too */
	struct progress_view progress;
	char shown[32]; /* status of the last line */
	uint64_t bytes, bytes_ns, rate;
	unsigned connections, connections_shown;
	struct via_error error; /* code 0: it has completed */
};

/* -- migrate_qemu_relay.c: the relay ---------------------------------------------- */

/* Listen for QEMU in a new folder, and serve it in a thread. */
int own_relay_start(struct own_relay *relay, struct relay_qmp *qmp, struct via_error *err);
/* Has the migration ended, as far as the relay sees it? */
bool own_relay_has_ended(const struct own_relay *relay);
/* End it; @patient: once it has seen the migration's end by itself, if that does not take long. */
void own_relay_stop(struct own_relay *relay, bool patient);

/* -- migrate_qemu_steps.c: QEMU ----------------------------------------------------- */

/* May it begin, with --resume go on? Set QEMU, unless it goes on, and ask how it is set. */
int qemu_set_up(struct qemu_migration *m, struct via_error *err);
/* Have QEMU begin, or go on. */
int qemu_begin(struct qemu_migration *m, struct via_error *err);
/* Until it has ended or paused. 0 whichever of it, or why QEMU cannot be asked. */
int qemu_watch(struct qemu_migration *m, struct via_error *err);

/* -- migrate_qemu_show.c: what is shown ---------------------------------------------- */

/* For relay_config.note; arg is a qemu_migration. One line, wherever the live line is. */
void qemu_note(void *arg, const char *line);
void qemu_say(struct qemu_migration *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* How far it is. */
void qemu_show(struct qemu_migration *m);
/* The end, as text or as JSON. */
void qemu_report(struct qemu_migration *m);

#endif
