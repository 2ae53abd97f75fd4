/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * probe.h -- what can be watched from outside while a migration runs.
 *
 * Each probe is a static tracepoint (USDT, <sys/sdt.h>) of provider "viaduct": a nop, until bpftrace,
 * perf or systemtap puts a breakpoint there. docs/trace/README.md has their arguments, the same
 * five 64-bit numbers for all: side (enum via_role), channel, and three of its own. The same call
 * sites feed one function, which tests set (tests/model): a load and a branch that is never taken.
 *
 * A probe that tells of something sent stands before it, and one that tells of something received or
 * done stands behind it and before anybody else is told: the order on each side is one in which it
 * can have happened.
 */
#ifndef VIA_CORE_PROBE_H
#define VIA_CORE_PROBE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__has_include)
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define VIA_HAVE_SDT 1
#endif
#endif
/* What <sys/sdt.h> makes of a probe clang calls an extension. */
#ifdef __clang__
#define VIA_SDT_BEGIN                                                                              \
	_Pragma("clang diagnostic push")                                                           \
		_Pragma("clang diagnostic ignored \"-Wgnu-zero-variadic-macro-arguments\"")
#define VIA_SDT_END _Pragma("clang diagnostic pop")
#else
#define VIA_SDT_BEGIN
#define VIA_SDT_END
#endif
#ifndef VIA_HAVE_SDT
#define STAP_PROBE5(provider, name, a, b, c, d, e)                                                 \
	do {                                                                                       \
	} while (0)
#endif

/* X(name, what its three numbers are) */
/* clang-format off */
#define VIA_PROBE_LIST(X)                                                                          \
	X(session, "state (1 set up, 2 failed), its first epoch or 0, error")                        \
	X(channel, "state (1 opening, 2 ready, 3 failed), epoch, 0")                               \
	X(phase,   "phase (enum via_phase), round, 0")                                             \
	X(guest,   "state (1 stopped, 2 resumed, 3 runs, 4 abandoned), 0, 0")                      \
	X(write,   "number on its channel, place, bytes")                                          \
	X(written, "how many of the channel have completed, how many have not, 0")                 \
	X(send,    "type of the message, number on its channel, epoch of the channel")             \
	X(receive, "type of the message, number on its channel, epoch of the channel")             \
	X(fence,   "epoch, writes, bytes")                                                         \
	X(drained, "epoch, 0, 0")                                                                  \
	X(sealed,  "epoch, 0, 0")                                                                  \
	X(discard, "place, bytes, 0")                                                              \
	X(fault,   "place, bytes, thread")                                                         \
	X(request, "place, bytes, 0")                                                              \
	X(answer,  "place, bytes, kind (enum engine_page_kind)")                                   \
	X(push,    "place, bytes, 1 if they are zero")                                             \
	X(install, "place, bytes, pages of them that were there")
/* clang-format on */

enum via_event {
#define VIA_EVENT(name, numbers) VIA_EVENT_##name,
	VIA_PROBE_LIST(VIA_EVENT)
#undef VIA_EVENT
		VIA_EVENTS
};

enum { VIA_PROBE_SET_UP = 1, VIA_PROBE_SESSION_FAILED };
enum { VIA_PROBE_STOPPED = 1, VIA_PROBE_RESUMED, VIA_PROBE_RUNS, VIA_PROBE_ABANDONED };

/* A channel in one number, and a place in guest RAM: bytes from the start of a region. */
#define VIA_PROBE_CHANNEL(kind, index) ((uint64_t)(kind) << 16 | (index))
#define VIA_PROBE_PLACE(region, off)   ((uint64_t)(region) << 48 | (off))
#define VIA_PROBE_STAGING              0xffffu /* as the region: a slot, and no guest RAM */

typedef void via_trace_fn(enum via_event event, uint64_t side, uint64_t channel, uint64_t a,
			  uint64_t b, uint64_t c);

/* NULL but in tests. Called from any thread, several at once. Set it while no session exists. */
extern _Atomic(via_trace_fn *) via_trace;

#define VIA_PROBE(name, side, channel, a, b, c)                                                    \
	do {                                                                                       \
		const uint64_t p_side = (uint64_t)(side), p_channel = (uint64_t)(channel);         \
		const uint64_t p_a = (uint64_t)(a), p_b = (uint64_t)(b), p_c = (uint64_t)(c);      \
		via_trace_fn *p_trace = atomic_load_explicit(&via_trace, memory_order_relaxed);    \
                                                                                                   \
		VIA_SDT_BEGIN                                                                      \
		STAP_PROBE5(viaduct, name, p_side, p_channel, p_a, p_b, p_c);                      \
		VIA_SDT_END                                                                        \
		if (__builtin_expect(p_trace != NULL, 0))                                          \
			p_trace(VIA_EVENT_##name, p_side, p_channel, p_a, p_b, p_c);               \
	} while (0)

#endif
