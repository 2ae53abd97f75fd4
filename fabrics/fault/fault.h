/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault.h -- any other fabric, with faults injected.
 *
 *   fault+X[:DEVICE][,fault-KEY=N...][,key=value...]
 *
 * For tests only. X is the name of another back end; DEVICE and every key that does not begin with
 * "fault-" are its own. It is in no list: `auto` never chooses it, `viaduct fabrics` does not
 * show it. Addresses and keys are X's, so one side may be X alone where nothing compares specs.
 *
 *   fault-after=N  each endpoint's link is cut after so many successful completions of that endpoint
 *                  as its seed says, 1 to N (default 0: never)
 *   fault-seed=N   where those choices start (default 1)
 *   fault-times=N  fault-after cuts only while fewer links than this were cut in the process
 *                  (default 1)
 *   fault-call=N   the N-th set-up call of the process fails: ep_open, ep_connect, mr_reg, rkey_pack
 *                  and rkey_unpack of every such fabric are counted together (default 0: none)
 *   fault-flip=N   one bit of the N-th write of the process is wrong (default 0: none)
 *   fault-delay=N  completions are held back for so many microseconds (default 0)
 *
 * It keeps the contract of fabric.h as far as X does.
 */
#ifndef VIA_FABRICS_FAULT_FAULT_H
#define VIA_FABRICS_FAULT_FAULT_H

#include "fabrics/fabric.h"

#define VIA_FAULT_PREFIX "fault+"

extern const struct via_fabric_ops via_fault_ops;

/*
 * The link of @ep, an endpoint of such a fabric, is lost now: what is outstanding completes
 * with -ECONNRESET, then poll() and every post return that. The peer sees what X shows of an
 * ep_abort(). Any thread, any time before ep_close(); idempotent; never blocks.
 */
void via_fault_cut(struct via_ep *ep);

/* Links cut in this process so far, by fault-after and by via_fault_cut(). Any thread. */
unsigned via_fault_cuts(void);

/* Set-up calls of this process so far, as fault-call counts them. Any thread. */
unsigned via_fault_calls(void);

/* No cuts and no set-up calls so far: between tests, while no such fabric is in use. */
void via_fault_reset(void);

#endif
