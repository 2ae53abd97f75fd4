/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inquire.h -- ask a destination what it has, and leave it waiting for its source.
 *
 * It is a handshake that ends after HELLO: for a program that examines two hosts before anything
 * is at stake. Nothing is registered, and no channel is opened.
 */
#ifndef VIA_TRANSPORT_INQUIRE_H
#define VIA_TRANSPORT_INQUIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "transport/messages.h"
#include "transport/transport.h"

struct via_inquiry {
	bool connected; /* the control connection came about: address and keys are right */
	char security[64];
	/*
	 * Bytes of the largest packet: what this host's route takes, and what the path and the peer
	 * take, as far as TCP knows. 0: it does not.
	 */
	unsigned mtu_here, mtu_there;
	struct via_hello ours, theirs; /* theirs.version_max 0: none came */
	int chosen;                    /* of ours.offer; -1: none */
	char choice[1024];             /* as in struct via_session_stats */
};

/*
 * Connect to @address as a source of @config would, swap HELLOs and leave. *inquiry is set in every case, as
 * far as it went. Blocks up to config->handshake_ns for each step; @cancel_fd (or -1) ends it
 * early once readable. The destination goes on waiting, and is told why nothing followed.
 *  the errors of via_control_connect(); -EPROTONOSUPPORT, -EPROTO, -EEXIST a paused migration
 *  waits there; -ENODEV no common fabric (@inquiry has what each side offers); -ENOMEM
 */
int via_inquire(const char *address, const struct via_session_config *config, int cancel_fd,
		struct via_inquiry *inquiry, struct via_error *err);

/* From when until when a certificate holds. */
struct via_validity {
	time_t from, to;
};

/*
 * Of each certificate in the PEM file @path, in their order, into @validity, at most @max; their number.
 * -ENOENT it cannot be read, -EINVAL it holds no certificates
 */
int via_certificate_dates(const char *path, struct via_validity *validity, unsigned max);

#endif
