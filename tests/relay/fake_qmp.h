/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fake_qmp.h -- the QEMU at the other end of a QMP socket: a thread that plays a script.
 */
#ifndef VIA_TESTS_RELAY_FAKE_QMP_H
#define VIA_TESTS_RELAY_FAKE_QMP_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum act_kind {
	END = 0, /* wait until the client has gone */
	SAY,     /* send the text; each @ID is the number of the last command */
	DRIP,    /* the same, byte by byte */
	HEAR,    /* read a command: its name, "oob NAME" when out of band */
	HAS,     /* that command has this text in it */
	GO,      /* wait for fake_qmp_go() */
	HANG_UP, /* close the connection */
};

struct act {
	enum act_kind kind;
	const char *text;
};

/* What QEMU says first, with and without out-of-band commands; and the whole beginning. */
#define GREETING_OOB                                                                               \
	"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10}}, \"capabilities\": [\"oob\"]}}\r\n"
#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define DONE     "{\"return\": {}, \"id\": @ID}\r\n"
/* clang-format off */
#define BEGIN_OOB {SAY, GREETING_OOB}, {HEAR, "qmp_capabilities"}, {SAY, DONE}
/* clang-format on */

struct fake_qmp {
	char dir[64];
	char path[96];
	const struct act *script;
	pthread_t thread;
	int listen_fd, fd;
	int go[2];       /* pipe */
	long long id;    /* of the last command */
	char heard[512]; /* the last command */
	char wrong[600]; /* what was not as in the script; empty: nothing */
};

/* Listen and play @script, which ends with END or HANG_UP, to the first client. */
void fake_qmp_start(struct fake_qmp *f, const struct act *script);
void fake_qmp_go(struct fake_qmp *f);
/* Wait for the script's end; asserts that the client did what was in it. */
void fake_qmp_join(struct fake_qmp *f);
/* What remains of it once its thread has been joined otherwise. */
void fake_qmp_clean(struct fake_qmp *f);

#endif
