/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_checks.h -- what the tests of the control connection check in plain text, with keys and
 * with certificates alike. Criterion's: a check that fails ends the test.
 */
#ifndef VIA_TESTS_TRANSPORT_CONTROL_CHECKS_H
#define VIA_TESTS_TRANSPORT_CONTROL_CHECKS_H

#include "tests/transport/control_pair.h"

/* For key_file(): "one:" KEY_A "\n". */
#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* A listener of via_control_listen() on a port of loopback, which goes into @address. */
int listener(char address[80]);
/* Likewise; it blocks, for accept(2). */
int raw_listener(char address[80]);

/* Two ends with @creds: both say @security, and frames go both ways. */
void check_pair(const struct via_credentials *creds, const char *security);

/*
 * Connect with @source to a listener with @destination: the destination fails, and so does the
 * source, at once or when it waits for the first answer. @destination_rc 0: that a source which has
 * no proof of the kind hangs up may be seen before its reason is.
 */
void check_misfit(const struct via_credentials *source, const struct via_credentials *destination,
		  int source_rc, const char *source_text, int destination_rc,
		  const char *destination_text);

/* How somebody begins who does not speak our protocol, and what we say of it. */
struct first_words {
	const char *bytes;
	size_t len;
	int code;
	const char *text;
};

/*
 * Peers that begin with each of the @n @words and then are silent, and one that hangs up at once:
 * each ends its own accept at listener @fd, which is at @address.
 */
void check_strangers(int fd, const char *address, const struct via_credentials *creds,
		     const struct first_words *words, size_t n);

#endif
