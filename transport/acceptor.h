/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * acceptor.h -- wait for a peer that shows who it is, among any number that do not.
 *
 * via_control_accept() deals with one connection at a time: whoever connects and says nothing keeps
 * the next one waiting. Here each has its own deadline and costs the others nothing.
 *
 * Threads: one at a time for each acceptor.
 */
#ifndef VIA_TRANSPORT_ACCEPTOR_H
#define VIA_TRANSPORT_ACCEPTOR_H

#include "transport/control.h"

/* So many may be on their way to show who they are; one more takes the place of another. */
#define VIA_STRANGERS_MAX 32u

struct via_acceptor;

/* For connections to @listen_fd, which stays the caller's. -ENOMEM */
int via_acceptor_new(int listen_fd, struct via_acceptor **acceptor, struct via_error *err);

/*
 * As via_control_accept(): the next one that is through, or the error of one that is not. The others
 * stay, for the next call. When there are too many, one that has said nothing goes first, then who
 * has been at it for the longest; that is an error of its own, -ETIMEDOUT.
 */
int via_acceptor_take(struct via_acceptor *acceptor, const struct via_credentials *creds,
		      const struct via_wait *wait, uint64_t handshake_ns,
		      struct via_control **control, struct via_error *err);

/* Close all that are left. Accepts NULL. */
void via_acceptor_free(struct via_acceptor *acceptor);

#endif
