/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim.h -- the simulated fabric: a seeded adversary between endpoints of one process.
 *
 *   sim[:NETWORK][,key=value...]
 *
 * For tests only. It keeps every promise of fabric.h and no other: whatever the contract
 * leaves open it decides by its seed, and mostly against the caller.
 *
 *   seed=N      where its choices start (default 1)
 *   delay=N     polls of either end that one event may take at most (default 8)
 *   straggle=N  polls more that a piece of a write, one in eight, may take to land (default 0)
 *   split=N     pieces in which one write lands at most (default 4)
 *   reorder=    yes: events of one endpoint overtake each other (default); no: they do not
 *   silent=     yes: a refused write and a lost peer are never told, as shared memory does:
 *               what depends on them stays outstanding until ep_abort() (default no)
 *   tx-depth=N  rx-depth=N  (default 64)
 *   break=P     break the promise P, or several joined by '+': the contract suite must notice
 *
 * Endpoints reach each other when their NETWORK is the same. Time is counted in polls, so
 * nothing here waits; while anything is under way on a connection, the descriptors of both its
 * ends are readable, because a poll of either moves it.
 */
#ifndef VIA_FABRICS_SIM_SIM_H
#define VIA_FABRICS_SIM_SIM_H

#include "fabrics/fabric.h"

extern const struct via_fabric_ops via_sim_ops;

/* What a completion's native code says. */
enum via_sim_native {
	VIA_SIM_NATIVE_NONE = 0,
	VIA_SIM_NATIVE_REFUSED,    /* no such key (any more), or not that range */
	VIA_SIM_NATIVE_NO_RECEIVE, /* a message was sent while the peer had no receive for it */
	VIA_SIM_NATIVE_TRUNCATED,  /* the peer's receive was too small for the message */
	VIA_SIM_NATIVE_FLUSHED,    /* outstanding when the endpoint died */
};

#endif
