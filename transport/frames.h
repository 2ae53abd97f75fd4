/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * frames.h -- what travels on a control connection (control.h): frames, each a fixed header and a
 * payload (docs/wire.md). What the payload means is messages.h.
 *
 * Threads: one thread at a time drives a connection (receive, flush, close).
 * via_control_post() alone may be called from any thread; it wakes the driver.
 */
#ifndef VIA_TRANSPORT_FRAMES_H
#define VIA_TRANSPORT_FRAMES_H

#include "transport/control.h"

#define VIA_CONTROL_PAYLOAD_MAX (4u << 20) /* bytes; a longer frame is refused unread */
#define VIA_CONTROL_HEADER_LEN  8u

/* One received frame. The payload belongs to the connection until the next receive. */
struct via_control_frame {
	uint16_t type; /* enum via_control_type of messages.h; not checked here */
	const uint8_t *payload;
	size_t len;
};

/*
 * Queue one frame, to be sent by the driver. Any thread; copies @payload; never blocks.
 *  -EMSGSIZE above VIA_CONTROL_PAYLOAD_MAX, -ENOMEM (more than 64 MiB queued: the
 *  peer does not read), -ECONNRESET the connection has failed
 */
int via_control_post(struct via_control *control, uint16_t type, const void *payload, size_t len);

/*
 * Send what is queued and wait for one whole frame.
 *  0            *frame is set
 *  -EAGAIN      @wait's deadline passed without one (the connection is fine; what
 *               was received of the next frame is kept)
 *  -ECANCELED   @wait's descriptor is readable
 *  -ECONNRESET  closed or lost (@err says by whom, when known)
 *  -EPROTO      header malformed or payload too long
 *  -EACCES      a TLS alert or a record that fails authentication
 * After any but the first three the connection is dead.
 */
int via_control_receive(struct via_control *control, const struct via_wait *wait,
			struct via_control_frame *frame, struct via_error *err);

/* Send all that is queued, no longer than @wait allows. Errors as above. */
int via_control_flush(struct via_control *control, const struct via_wait *wait,
		      struct via_error *err);

/*
 * Bytes of the largest packet: *@here what this host's route to the peer takes, *@there what the
 * path and the peer take, as far as TCP knows by now. Both 0 where it does not.
 */
void via_control_mtu(const struct via_control *control, unsigned *here, unsigned *there);

#endif
