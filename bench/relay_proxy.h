/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_proxy.h -- private to bench/: a proxy that knows nothing of QEMU, the baseline of the
 * relay.
 */
#ifndef VIA_BENCH_RELAY_PROXY_H
#define VIA_BENCH_RELAY_PROXY_H

/*
 * For each connection that comes to @listen_fd connect to @address ("unix:PATH" or "HOST:PORT"),
 * and move bytes both ways until both have ended. In threads of its own; returns at once. What
 * fails ends the process (bench_die()). @address stays the caller's, for ever.
 */
void relay_proxy_start(int listen_fd, const char *address);

#endif
