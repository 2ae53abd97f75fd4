/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_guest.h -- a real running guest of our own: RAM, vCPU threads that keep
 * writing a self-describing pattern at a set rate, device state, and the check
 * that every page arrived in exactly the version it had when the source stopped.
 *
 * The content of a page is a function of (seed, page number, version) alone: a header
 * with all three, and a body and checksum computed from them. Version 0 is the all-zero page
 * that was never written; and every 64th version of a page is all-zero again, so
 * that pages turn to zero and back while they migrate. The device state
 * holds the version of every page at the stop. The vCPUs check each page
 * before they write it again, at the source and at the destination.
 *
 * Each vCPU rewrites random pages of its own (vCPU k: those whose number is k modulo the
 * number of vCPUs), three of four times in the first eighth of memory, so that a migration
 * can converge.
 *
 * One thread at a time calls these functions and those of the tables; any thread
 * bytes_written() and vcpu_errors().
 */
#ifndef VIA_DEMO_DEMO_GUEST_H
#define VIA_DEMO_DEMO_GUEST_H

#include <stdint.h>

#include "core/error.h"
#include "core/hist.h"
#include "migrate/guest.h"

struct demo_guest;

struct demo_guest_config {
	uint64_t memory;     /* bytes of RAM, a multiple of 4096, at least one page */
	unsigned vcpus;      /* 0 to 64 */
	uint64_t dirty_rate; /* bytes a second that all vCPUs together rewrite; 0: none;
			      * UINT64_MAX: as fast as they can */
	uint64_t seed;
};

/* What the check found, in pages. */
struct demo_verify {
	uint64_t pages;   /* checked */
	uint64_t missing; /* zero or another page's content where a written page belongs */
	uint64_t stale;   /* whole, but of another version than expected */
	uint64_t torn;    /* parts of several versions, or damaged */
};

/*
 * A source guest: RAM filled (three quarters of the pages written once, the rest
 * untouched; with several threads, since it may be GiBs), vCPUs not started.
 *  -ENOMEM  the host has not that much available (@err: needed, available)
 *  -EINVAL  @config outside its limits
 */
int demo_guest_new(const struct demo_guest_config *config, struct demo_guest **guest,
		   struct via_error *err);
/* A destination guest: no RAM until the engine's prepare(). -ENOMEM */
int demo_guest_new_empty(struct demo_guest **guest, struct via_error *err);
/* Stops the vCPUs first. Accepts NULL. */
void demo_guest_free(struct demo_guest *guest);

/*
 * Start the vCPU threads (source; the destination's are started by the engine's run()).
 * -EINVAL when they run or there is no RAM, -ENOMEM when a thread cannot be made.
 */
int demo_guest_start(struct demo_guest *guest, struct via_error *err);
/*
 * Stop them; each ends the page at hand first. Blocks for as long as one waits for a page that
 * userfaultfd holds back: end that first. Idempotent.
 */
void demo_guest_stop(struct demo_guest *guest);

/*
 * The engine's view of it. The tables live as long as the guest. A destination guest that runs is a
 * source for the next migration.
 *  pause    -ETIMEDOUT when a vCPU is stuck in a page for 10 s: they run on
 *  prepare  -EINVAL unless it is asked for the one region of a demo guest, and only once;
 *           -ENOMEM when the host has less than that available
 *  load     -EPROTO for a state that is cut short, changed, or of a guest of another size
 *  run      -EINVAL before load(); -ENOMEM
 *  abandon  the vCPUs end; one that waits for a page leaves it as it is once it is let go.
 *           demo_guest_stop() joins them
 */
const struct via_source_guest *demo_guest_source(struct demo_guest *guest);
const struct via_destination_guest *demo_guest_destination(struct demo_guest *guest);

/*
 * Check every page of the stopped or paused guest against the expected versions (those of the
 * device state, carried on by the vCPUs' later writes). What a vCPU found wrong before it rewrote
 * the page counts too; each page once. Uses several threads.
 */
void demo_guest_verify(struct demo_guest *guest, struct demo_verify *result);

/* Bytes that the vCPUs have rewritten since the start, and pages that a vCPU found wrong. */
uint64_t demo_guest_bytes_written(const struct demo_guest *guest);
uint64_t demo_guest_vcpu_errors(const struct demo_guest *guest);

/*
 * How long vCPUs stood still for pages that userfaultfd held back, nanoseconds: from
 * the load that trapped to its completion. At a destination, for each page at the first time that a
 * vCPU looks at it; elsewhere empty. While no vCPU runs.
 */
void demo_guest_fault_hist(const struct demo_guest *guest, struct via_hist *out);

/* CPU time that the vCPU threads have used, nanoseconds: what is the guest's, not the migration's. */
uint64_t demo_guest_cpu_ns(const struct demo_guest *guest);

/* "async" or "sync": the dirty tracker in use; "none" before the first dirty_start(). Static. */
const char *demo_guest_tracker(const struct demo_guest *guest);

/* The configuration; of a destination guest: what the device state said. */
const struct demo_guest_config *demo_guest_get_config(const struct demo_guest *guest);

#endif
