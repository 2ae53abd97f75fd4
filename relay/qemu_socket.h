/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_socket.h -- sockets to and from QEMU: "unix:PATH", "HOST:PORT" or, as in QEMU's own addresses, "tcp:HOST:PORT".
 */
#ifndef VIA_RELAY_QEMU_SOCKET_H
#define VIA_RELAY_QEMU_SOCKET_H

#include "core/error.h"

/* How long QEMU may take to accept. */
#define RELAY_DIAL_S 10

/*
 * Connect to the QEMU that waits at @address; *@fd is non-blocking. Blocks up to RELAY_DIAL_S.
 *  -EINVAL, -ENOENT, -ECONNREFUSED, -ETIMEDOUT, -EHOSTUNREACH, -EPERM, -EIO
 */
int qemu_dial(const char *address, int *fd, struct via_error *err);

#endif
