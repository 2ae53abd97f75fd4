/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * link.h -- what the files of the simulated fabric share: fabric, endpoint, connection.
 *
 * Two levels of locks, always taken in this order:
 *   sim_registry_lock()  the list of endpoints, and everything about connecting
 *   link->lock           everything that a connected pair shares, both directions
 * A thread holds at most one link's lock. Posts and polls take only that, so that the
 * simulation orders no two connections against each other and ThreadSanitizer still sees the
 * races of its users.
 */
#ifndef VIA_FABRICS_SIM_LINK_H
#define VIA_FABRICS_SIM_LINK_H

#include <pthread.h>

#include "fabrics/sim/sim.h"

#define SIM_SGE_MAX       4u
#define SIM_SPLIT_MAX     16u
#define SIM_DELAY_MAX     1000000u
#define SIM_DEPTH_MAX     4096u
#define SIM_WRITE_LEN_MAX ((size_t)1 << 20)
#define SIM_MSG_LEN_MAX   ((size_t)8 << 10)

/* The promises that break= can break. */
enum sim_break {
	SIM_BREAK_AFTER_WRITES = 1 << 0, /* VIA_AFTER_WRITES holds nothing back */
	SIM_BREAK_DEREG = 1 << 1,        /* writes land after mr_dereg() */
	SIM_BREAK_ONCE = 1 << 2,         /* completions are lost or reported twice */
	SIM_BREAK_ORDER = 1 << 3,        /* messages overtake each other */
	SIM_BREAK_COMPLETION = 1 << 4,   /* local bytes are read after the completion */
};

struct sim_options {
	uint64_t seed;
	uint64_t delay;    /* polls */
	uint64_t straggle; /* polls */
	uint64_t split;    /* pieces of one write */
	uint64_t tx_depth, rx_depth;
	bool reorder, silent;
	unsigned breaks; /* enum sim_break */
};

struct sim_fabric {
	struct via_fabric base;
	struct sim_options opt;
	char network[48];
	unsigned eps_opened;
};

struct sim_mr {
	struct via_mr base;
	unsigned access;
};

/* A key of one region for one connection. Gone from the list, it is revoked. */
struct sim_key {
	struct sim_key *next;
	const struct via_mr *mr;
	uint64_t number;
	uint8_t *addr;
	size_t len;
	unsigned access;
};

struct sim_rkey {
	struct via_rkey base;
	uint64_t number;
};

/* A part of one operation's bytes: read from the sender once, landed at the peer once. */
struct sim_piece {
	size_t off, len;
	uint64_t due; /* the step from which on it may land */
	bool read, landed;
};

/* A write or message on its way. Its slot in tx_used is free again before it has landed. */
struct sim_op {
	struct sim_op *next; /* posted after this one */
	enum via_comp_kind kind;
	void *ctx;
	struct via_sge sge[SIM_SGE_MAX];
	unsigned nsge, npieces;
	uint64_t key, off; /* writes */
	size_t len;
	uint64_t complete_due; /* the step from which on it may complete */
	bool after_writes;
	bool held;      /* posted with VIA_MORE and not rung yet */
	bool completed; /* the sender's bytes are its own again */
	bool lost;      /* what has not landed never will */
	struct sim_piece piece[SIM_SPLIT_MAX];
	uint8_t data[]; /* len bytes, filled piece by piece */
};

struct sim_recv {
	struct via_sge sge;
	void *ctx;
	bool revoked; /* its memory was deregistered */
};

/* A completion not reported yet; an extra one (SIM_BREAK_ONCE) holds no queue slot. */
struct sim_entry {
	struct via_comp comp;
	bool extra;
};

/*
 * One end of a connection. It outlives its endpoint for as long as the other end is open,
 * because what it has sent may still be on its way.
 */
struct sim_end {
	struct sim_link *link;
	struct sim_end *peer;
	struct sim_ep *ep; /* NULL: closed */
	struct sim_options opt;
	int reason; /* 0: alive; else what poll() ends with */
	bool aborted;
	bool armed;         /* a sleeper counts on the descriptor */
	uint64_t reset_due; /* the step at which it learns that the peer is gone; 0: never */
	struct sim_op *ops, **ops_tail; /* oldest first */
	uint64_t last_land_due, last_complete_due;
	struct sim_key *keys; /* to this end's memory */
	unsigned tx_used;     /* operations posted and not reported yet */
	unsigned rx_used;
	struct sim_recv *rx; /* ring of posted receives */
	unsigned rx_head, rx_count;
	struct sim_entry *cq; /* ring */
	unsigned cq_cap, cq_head, cq_count;
};

struct sim_link {
	pthread_mutex_t lock;
	uint64_t id;
	uint64_t random;
	uint64_t step;
	bool silent;
	unsigned open_ends;
	struct sim_end end[2];
};

enum sim_ep_state { SIM_EP_IDLE, SIM_EP_CONNECTING, SIM_EP_CONNECTED, SIM_EP_FAILED };

struct sim_ep {
	struct via_ep base;
	struct sim_ep *next; /* in the registry */
	uint64_t number;     /* unique in the process */
	enum via_ep_side side;
	int event_fd;
	/* under the registry lock */
	enum sim_ep_state state;
	int status; /* why FAILED */
	bool aborted;
	uint64_t peer_number;
	uint8_t nonce[16];
	/* set when CONNECTED; from then on the owner reads it without a lock */
	struct sim_end *end;
};

/* -- ep.c: the registry ---------------------------------------------------- */

void sim_registry_lock(void);
void sim_registry_unlock(void);
/* The first endpoint, or the one after @ep, of @fab. With the registry locked. */
struct sim_ep *sim_registry_next(const struct via_fabric *fab, const struct sim_ep *ep);

int sim_ep_open(struct via_fabric *fab, enum via_ep_side side, struct via_ep **ep,
		struct via_error *err);
ssize_t sim_ep_address(const struct via_ep *ep, void *buf, size_t cap);
int sim_ep_connect(struct via_ep *ep, const void *addr, size_t addr_len, const uint8_t nonce[16],
		   const struct via_wait *wait, struct via_error *err);
void sim_ep_close(struct via_ep *ep);
void sim_ep_abort(struct via_ep *ep);
size_t sim_ep_address_max(void);

/* -- mr.c ------------------------------------------------------------------ */

int sim_mr_reg(struct via_fabric *fab, void *addr, size_t len, unsigned access, struct via_mr **mr,
	       struct via_error *err);
void sim_mr_dereg(struct via_mr *mr);
ssize_t sim_rkey_pack(const struct via_mr *mr, struct via_ep *ep, void *buf, size_t cap);
int sim_rkey_unpack(struct via_ep *ep, const void *buf, size_t len, uint64_t region_len,
		    struct via_rkey **rkey, struct via_error *err);
void sim_rkey_free(struct via_rkey *rkey);
size_t sim_rkey_max(void);

/* -- post.c ---------------------------------------------------------------- */

int sim_post_write(struct via_ep *ep, const struct via_sge *sge, unsigned n,
		   const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags);
int sim_post_send(struct via_ep *ep, const struct via_sge *sge, unsigned n, void *ctx,
		  unsigned flags);
int sim_post_recv(struct via_ep *ep, const struct via_sge *sge, void *ctx);
int sim_poll(struct via_ep *ep, struct via_comp *comp, unsigned max);
int sim_arm(struct via_ep *ep, int *fd);

/* -- link.c: a connection, and the events on it ---------------------------- */

/* Connect @a and @b, which are not connected yet. -ENOMEM. */
int sim_link_open(struct sim_ep *a, struct sim_ep *b);
/* The end's endpoint goes away; frees the link after its second end. */
void sim_link_close(struct sim_end *end);

void sim_link_lock(struct sim_link *link);
/* Wakes whoever sleeps and has something to do. */
void sim_link_unlock(struct sim_link *link);

/* All below: with the link locked. */

/* One poll's worth of time: every event that is due happens. */
void sim_link_step(struct sim_link *link);
/* Something will happen if either end polls. */
bool sim_link_busy(const struct sim_link *link);
/* The key of that number at @end, or NULL. */
struct sim_key *sim_end_key(const struct sim_end *end, uint64_t number);
/* Copy into the peer's memory what has not landed of @op, each piece with probability 1/2. */
void sim_op_land_some(struct sim_end *end, struct sim_op *op);
/* The peer's memory protection refuses @op. */
void sim_op_refuse(struct sim_end *end, struct sim_op *op);
bool sim_op_landed(const struct sim_op *op);

/* -- end.c: one end's queues ----------------------------------------------- */

/* Pseudo-random numbers of the link: any, and below @n (at least 1). */
uint64_t sim_random(struct sim_link *link);
uint64_t sim_below(struct sim_link *link, uint64_t n);

/* Append @op and choose its pieces. Its times are chosen when it is rung. */
void sim_end_append(struct sim_end *end, struct sim_op *op);
/* What was held by VIA_MORE goes on its way. */
void sim_end_ring(struct sim_end *end);
/* Fetch the sender's bytes of what has not been fetched yet. */
void sim_op_read(struct sim_op *op);
void sim_op_read_piece(struct sim_op *op, struct sim_piece *piece);
/* @op completes with @status. */
void sim_op_complete(struct sim_end *end, struct sim_op *op, int status, int native);
/* The oldest posted receive completes. */
void sim_recv_complete(struct sim_end *end, size_t len, int status, int native);
/* Report up to @max completions. */
unsigned sim_end_take(struct sim_end *end, struct via_comp *comp, unsigned max);
/*
 * @end dies of @reason, once: what is outstanding completes with @status, and the peer learns
 * of it unless the link is silent.
 */
void sim_end_kill(struct sim_end *end, int reason, int status);

/* An error of the caller: asserts in debug builds, -EINVAL otherwise. */
int sim_caller_error(void);

#endif
