/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaduct.h -- live migration of virtual machines over high-performance fabrics.
 *
 * A VMM describes its guest (guest.h), joins two processes (transport.h) and has the guest carried
 * from one to the other (migrate.h). Who has an engine of their own uses the transport alone:
 * regions that are written one-sided, and fences that prove what has arrived (transport.h), or
 * streams of bytes (stream.h).
 *
 * The same program runs over every fabric that the library was built for; which one, and by which
 * device, says struct via_session_config. With none named the two sides choose the best that they
 * have in common.
 *
 * Functions return 0 or a count, and a negated code of a closed list on failure. Set-up functions
 * also take a struct via_error, in which the first cause stands in words. Every wait has a deadline
 * and ends when the peer is lost. The library prints nothing and does not end the process.
 *
 * Threads: say what each header says. Those that the library makes inherit the signal mask of who
 * calls it: block there what they shall not take.
 */
#ifndef VIA_LIBRARY_VIADUCT_H
#define VIA_LIBRARY_VIADUCT_H

#include "core/bitmap.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/hist.h"
#include "core/log.h"
#include "migrate/dirty_tracker.h"
#include "migrate/guest.h"
#include "migrate/migrate.h"
#include "transport/control.h"
#include "transport/names.h"
#include "transport/stream.h"
#include "transport/transport.h"

#endif
