/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_qemu.h -- private to bench/: two processes that stand where QEMU would, at the ends of
 * whatever carries its connections. Main says what an idle guest's main says; guest memory goes
 * over it, or in packets over the multifd channels.
 */
#ifndef VIA_BENCH_RELAY_QEMU_H
#define VIA_BENCH_RELAY_QEMU_H

#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"

struct relay_load {
	unsigned channels; /* multifd; 0: all goes over main */
	uint64_t bytes;    /* of guest memory, about: full packets */
};

/* What will really be carried: headers too, in full packets. */
uint64_t relay_load_bytes(const struct relay_load *load);

/* A QEMU: a child of this process, which ends with it. */
struct relay_qemu {
	pid_t pid;
	int fd; /* source: to talk to it */
};

/*
 * The source: comes to "unix:PATH" @address with all its connections. Destination: waits at
 * @listen_fd, which becomes its own. -ENOMEM, -EIO
 */
int relay_qemu_source(const char *address, const struct relay_load *load, struct relay_qemu *qemu,
		      struct via_error *err);
int relay_qemu_destination(int listen_fd, const struct relay_load *load, struct relay_qemu *qemu,
			   struct via_error *err);

/*
 * Source: wait until the destination has answered: all connections are there.
 * -ETIMEDOUT, -EIO one of them broke
 */
int relay_qemu_wait_connected(const struct relay_qemu *qemu, struct via_error *err);
/* Source: have it send everything, and wait until the destination has it all. Likewise. */
int relay_qemu_migrate(const struct relay_qemu *qemu, struct via_error *err);
/* End it, if it has not by itself. */
void relay_qemu_end(struct relay_qemu *qemu);

#endif
