/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qmp.h -- a small client of QEMU's machine protocol (QMP) over its unix socket.
 *
 * One thread at a time uses a connection. Each call waits until @wait's deadline at most.
 * Once a call has failed with -ECONNRESET, -EPROTO or -EIO the connection is dead and every
 * later call returns that first error. After -ETIMEDOUT and -ECANCELED it can still be used: an
 * answer that comes late is dropped.
 */
#ifndef VIA_RELAY_QMP_H
#define VIA_RELAY_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "core/error.h"
#include "fabrics/fabric.h" /* struct via_wait */
#include "relay/facts.h"
#include "relay/identify.h"

#define RELAY_QMP_EVENTS_MAX  64u        /* kept; of more, the oldest go */
#define RELAY_QMP_MESSAGE_MAX (1u << 20) /* bytes; a longer one ends the connection */

struct relay_qmp;

/*
 * Connect to the unix socket @path, take QEMU's greeting and enter command mode, with
 * out-of-band commands where QEMU has them.
 *  -EINVAL        the path is too long
 *  -ENOENT, -ECONNREFUSED, -EPERM  nobody listens there, or not for this user
 *  -EAGAIN        others wait for it already
 *  -ETIMEDOUT     no greeting: QEMU talks to one client at a time
 *  -ECANCELED, -ECONNRESET, -EPROTO (not QMP), -ENOMEM, -EIO
 */
int relay_qmp_open(const char *path, const struct via_wait *wait, struct relay_qmp **qmp,
		   struct via_error *err);

/* Accepts NULL. */
void relay_qmp_close(struct relay_qmp *q);

/*
 * Run one command and wait for its answer. Events that come meanwhile are kept.
 * @arguments  consumed, also on failure; NULL: none
 * @oob        run it though QEMU's main loop may be stuck (migrate-pause, migrate-recover,
 *             yank); like any other where QEMU has no out-of-band commands
 * @result     "return" of the answer, the caller's reference; NULL: not wanted
 *
 *  -EOPNOTSUPP  QEMU does not know the command
 *  -EINVAL      QEMU refused it: its words are in @err
 *  -ETIMEDOUT   no answer until the deadline; QEMU may still have run it
 *  -ECANCELED, -ECONNRESET, -EPROTO, -ENOMEM, -EIO
 */
int relay_qmp_execute(struct relay_qmp *q, const char *command, json_t *arguments, bool oob,
		      const struct via_wait *wait, json_t **result, struct via_error *err);

/*
 * The oldest event that was kept, or the next that comes; *@event is the caller's reference.
 *  -ETIMEDOUT, -ECANCELED, -ECONNRESET, -EPROTO, -ENOMEM, -EIO
 */
int relay_qmp_event(struct relay_qmp *q, const struct via_wait *wait, json_t **event,
		    struct via_error *err);

/* What a QEMU says of itself as the source of a migration. */
struct relay_told {
	struct relay_expected expected; /* the channels that it opens */
	struct relay_facts facts;       /* what the destination's has to be set like; not binding */
};

/*
 * The user and group that QEMU runs as: who has to get at what it shall open. -EIO, when they
 * cannot be known.
 */
int relay_qmp_owner(const struct relay_qmp *q, uid_t *uid, gid_t *gid, struct via_error *err);

#define RELAY_QEMU(MAJOR, MINOR) ((MAJOR)*100 + (MINOR))

/* Which release it is: RELAY_QEMU(10, 1). Errors as of relay_qmp_execute(). */
int relay_qmp_version(struct relay_qmp *q, const struct via_wait *wait, int *version,
		      struct via_error *err);

/*
 * Does its machine open the preempt channel right after main (relay_machine_is_pre_8())?
 * Errors as of relay_qmp_execute().
 */
int relay_qmp_machine(struct relay_qmp *q, const struct via_wait *wait, bool *pre_8,
		      struct via_error *err);

/*
 * Ask this QEMU for the settings that it has now. A relay asks when the first connection is there:
 * before, they may still change.
 * Errors as of relay_qmp_execute(); -EPROTO also when an answer is not what QEMU says.
 */
int relay_qmp_ask(struct relay_qmp *q, const struct via_wait *wait, struct relay_told *told,
		  struct via_error *err);

#endif
