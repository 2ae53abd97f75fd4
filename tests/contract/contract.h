/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * contract.h -- what fabric.h promises, as cases that run against every back end.
 *
 * A case is a plain function that leaves its verdict in struct contract, so that three programs
 * can use it: contract_test (Criterion, every fabric), contract_threads (no Criterion, for
 * ThreadSanitizer and valgrind) and contract_liars (fabrics that break a promise, which the
 * cases must notice).
 *
 * A case asks no more than fabric.h promises. Where that leaves a choice, it accepts each.
 */
#ifndef TESTS_CONTRACT_CONTRACT_H
#define TESTS_CONTRACT_CONTRACT_H

#include <pthread.h>

#include "fabrics/fabric.h"

enum verdict { PASS, FAIL, SKIP };

struct contract {
	const char *spec;     /* the fabric under test */
	uint64_t patience_ns; /* how long to wait for what must come */
	enum verdict verdict;
	char text[640]; /* why not PASS */
};

typedef void contract_case(struct contract *t);

/* X(name): case_name() */
/* clang-format off */
#define CONTRACT_CASES(X)                                                                         \
	X(limits)               X(write_bounds)         X(region_bounds)    X(message_bounds)     \
	X(queue_full)           X(completes_once)       X(bytes_free_again) X(sizes)              \
	X(pieces)               X(more)                 X(many_in_flight)   X(message_order)      \
	X(after_writes)         X(after_writes_between) X(dereg_refuses)    X(dereg_spares)       \
	X(after_writes_threads) X(endpoints_at_once)    X(dereg_while_busy) X(abort_outstanding)  \
	X(abort_wakes)          X(abort_while_busy)     X(close_orders)     X(ping_pong)          \
	X(idle_sleeps)          X(bad_address)          X(bad_key)          X(wrong_nonce)        \
	X(nobody_there)         X(cancel_connect)       X(two_processes)                          \
	X(two_processes_dereg)  X(peer_killed)
/* clang-format on */

#define CONTRACT_DECLARE(name) contract_case case_##name;
CONTRACT_CASES(CONTRACT_DECLARE)
#undef CONTRACT_DECLARE

/* -- verdicts -------------------------------------------------------------- */

/* The first verdict other than PASS stays. Returns false. */
bool contract_fail(struct contract *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool contract_skip(struct contract *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A set-up call failed with @ret: is its cause in @err? Then false; else fails the case. */
bool contract_explained(struct contract *t, const char *call, int ret, const struct via_error *err);

/* -- one side: a fabric, memory, endpoints --------------------------------- */

#define EPS_MAX 4u

struct side;
struct pair;

/* One endpoint, and all that it reported. */
struct end {
	struct side *side;
	struct pair *drive; /* end_step() polls all of this pair; NULL: this end alone */
	struct via_ep *ep;
	struct via_rkey *rkey; /* to the peer's mem */
	struct via_comp *log;  /* every completion, in order */
	unsigned nlog, log_cap;
	unsigned seen;                     /* handed out by end_next() */
	unsigned count[VIA_COMP_RECV + 1]; /* completions by kind */
	int status;                        /* 0; else why poll() says it is dead */
};

struct side {
	const struct via_fabric_ops *ops;
	struct via_fabric *fab;
	uint8_t *mem; /* registered as mr, writable by the peer */
	size_t mem_len;
	struct via_mr *mr;
	struct end end[EPS_MAX];
	unsigned neps;
};

/* Open the fabric, @mem_len bytes and @neps endpoints. False: see @t. Release with side_close(). */
bool side_open(struct contract *t, struct side *side, enum via_ep_side kind, unsigned neps,
	       size_t mem_len);
/* Release what there is of it, in the legal order. */
void side_close(struct side *side);

/* -- both sides in this process -------------------------------------------- */

struct pair {
	struct side a, b; /* a: active, posts the writes */
};

/* Both sides, connected, each end with the key to the other side's mem. Release always. */
bool pair_open(struct contract *t, struct pair *pair, unsigned neps, size_t mem_len);
void pair_close(struct pair *pair);
/* From now on each end is polled by its own thread only. */
void pair_part(struct pair *pair);
/* Poll everything until nothing has been reported for a good while. */
void pair_settle(struct pair *pair);

/* Key of @mr of @to's side for @from's endpoint. */
bool end_key(struct contract *t, const struct via_mr *mr, struct end *to, struct end *from,
	     struct via_rkey **rkey);

/* -- using an end ---------------------------------------------------------- */

/* Poll once, log what comes. Returns the number, or the negative reason of a dead endpoint. */
int end_poll(struct end *end);
/* Poll this end, and all others where one thread drives them all. */
void end_step(struct end *end);
/* The next completion that was not looked at yet, or NULL. Polls nothing. */
const struct via_comp *end_next(struct end *end);
/* Step until @end has @n completions of @kind. */
bool end_until(struct contract *t, struct end *end, enum via_comp_kind kind, unsigned n);
/* As end_until(), sleeping on the descriptor where there is nothing to do. */
bool end_sleep_until(struct contract *t, struct end *end, enum via_comp_kind kind, unsigned n);

/* @len bytes of mem at @src to the peer's mem at @dst; waits while the queue is full. */
bool end_write(struct contract *t, struct end *end, size_t src, size_t dst, size_t len, void *ctx);
/* As that, with VIA_MORE. */
bool end_write_more(struct contract *t, struct end *end, size_t src, size_t dst, size_t len,
		    void *ctx);
bool end_send(struct contract *t, struct end *end, size_t src, size_t len, void *ctx,
	      unsigned flags);
bool end_recv(struct contract *t, struct end *end, size_t dst, size_t len, void *ctx);
/* The same, without waiting: what the post returned. */
int end_try_write(struct end *end, size_t src, size_t dst, size_t len, void *ctx);
int end_try_send(struct end *end, size_t src, size_t len, void *ctx, unsigned flags);

/* A context that names number @i, and the number that it names. */
static inline void *ctx_of(unsigned i)
{
	return (void *)(uintptr_t)(i + 1);
}

static inline unsigned ctx_index(const void *ctx)
{
	return (unsigned)(uintptr_t)ctx - 1;
}

/* -- threads --------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	struct contract t; /* its own verdict */
	void (*run)(struct contract *t, void *arg);
	void *arg;
};

void worker_start(struct worker *w, const struct contract *t,
		  void (*run)(struct contract *t, void *arg), void *arg);
/* Join, and take over its verdict. */
bool worker_join(struct worker *w, struct contract *t);

/* -- bytes and numbers ----------------------------------------------------- */

/* Bytes that depend on @seed and position. */
void pattern_fill(uint8_t *buf, size_t len, uint64_t seed);
/* The first byte that pattern_fill() would have set otherwise; @len when none. */
size_t pattern_bad(const uint8_t *buf, size_t len, uint64_t seed);

/* A repeatable random number below @n. */
uint64_t pick(uint64_t *state, uint64_t n);

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* -- the programs ---------------------------------------------------------- */

/* Run one case; returns its verdict, with the reason in @text. */
enum verdict contract_run(contract_case *run, const char *spec, uint64_t patience_ns, char *text,
			  size_t cap);

#endif
