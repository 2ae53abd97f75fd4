/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tune.h -- set QEMU through QMP, and say each thing that was set, with what it was before.
 */
#ifndef VIA_RELAY_TUNE_H
#define VIA_RELAY_TUNE_H

#include "relay/qmp.h"
#include "relay/relay.h"
#include "transport/stream.h"

/* QEMU as it is set now. One thread. */
struct tune {
	const struct relay_config *config; /* whom to tell */
	struct relay_qmp *qmp;             /* the caller's */
	uint64_t deadline_ns;              /* of all that is asked */
	json_t *capabilities;              /* as query-migrate-capabilities has them */
	json_t *parameters;
};

/*
 * Ask how QEMU is set. Errors as of relay_qmp_execute(); tune_fini() also after one.
 */
int tune_init(struct tune *t, struct relay_qmp *qmp, const struct relay_config *config,
	      uint64_t deadline_ns, struct via_error *err);
void tune_fini(struct tune *t);

/*
 * What is different from @wanted, {"multifd": true, ...}, is set in one command, all of it or
 * nothing. One that QEMU does not know counts as off. @wanted is consumed.
 *  -EINVAL QEMU's words are in @err; and the other errors of relay_qmp_execute()
 */
int tune_capabilities(struct tune *t, json_t *wanted, struct via_error *err);
/* The same with parameters, {"multifd-channels": 4, ...}. */
int tune_parameters(struct tune *t, json_t *wanted, struct via_error *err);

/* QEMU's answer to query-migrate, and the state in it: "none" when there is none. */
int tune_status(struct relay_qmp *qmp, const struct via_wait *wait, char status[32],
		struct via_error *err);

/* Destination: the record in front of main's bytes. -EPROTO, or the failure of the session. */
int tune_take_facts(struct via_stream *main, struct relay_facts *facts, struct via_error *err);

/*
 * Destination: main has something to say, and QEMU is to wait for it at @address. With config->qmp
 * its settings are compared with @facts, and with config->tune made so, and QEMU told to wait.
 * Blocks for seconds at most.
 *  -EOPNOTSUPP  @facts are binding, and nobody here can see to it
 *  -EINVAL      the settings differ, or QEMU refuses: its words are in @err
 *  and the errors of relay_qmp_open() and relay_qmp_execute()
 */
int tune_destination(const struct relay_config *config, const char *address,
		     const struct relay_facts *facts, struct via_error *err);

/*
 * Destination: a migration that could be switched to postcopy has completed. Note how long QEMU's
 * guest has waited for pages, where QEMU has counted that. Blocks for two seconds at most.
 */
void tune_note_faults(const struct relay_config *config);

#endif
