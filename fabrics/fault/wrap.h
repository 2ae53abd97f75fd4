/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wrap.h -- what the files of the fault injector share: each object around the inner fabric's own.
 */
#ifndef VIA_FABRICS_FAULT_WRAP_H
#define VIA_FABRICS_FAULT_WRAP_H

#include <stdatomic.h>

#include "fabrics/fault/fault.h"

#define FAULT_SGE_MAX 16u

struct fault_fabric {
	struct via_fabric base;
	struct via_fabric *inner;
	uint64_t after, seed, times, call, flip, delay_ns;
	uint64_t eps_opened;
};

/* A completion that the owner has not been told of yet. */
struct fault_held {
	struct via_comp comp;
	uint64_t due_ns;
};

struct fault_ep {
	struct via_ep base;
	struct via_ep *inner;
	/* Set before the inner ep_abort() that they ask for, so that its -ECANCELED finds them. */
	atomic_bool cut, aborted;
	/* all below: the owner's */
	uint64_t cut_in;  /* successful completions until the cut; 0: none will come */
	unsigned tx_used; /* operations with a ctx that were taken and not reported */
	unsigned rx_used;
	/* with fault-flip only: where the write is made wrong, which leaves the caller's bytes alone */
	uint8_t *flip_buf;
	struct via_mr *flip_mr;
	/* with a delay only */
	int epoll_fd; /* joins the timer and the inner descriptor */
	int timer_fd;
	bool joined;    /* the inner descriptor is known */
	bool timer_set; /* it will be, or is, readable */
	unsigned held_cap, held_head, held_count;
	struct fault_held held[]; /* ring, by time */
};

struct fault_mr {
	struct via_mr base;
	struct via_mr *inner;
};

struct fault_rkey {
	struct via_rkey base;
	struct via_rkey *inner;
};

/* -- data.c ---------------------------------------------------------------- */

/* Descriptors of @ep, which has none; only with a delay. */
int fault_sleep_init(struct fault_ep *ep, struct via_error *err);
void fault_sleep_fini(struct fault_ep *ep);

void fault_reset_cuts(void);
void fault_reset_flips(void);

/* The memory for a write with a wrong bit, of @ep whose inner endpoint is open. -ENOMEM and the inner's. */
int fault_flip_init(struct fault_ep *ep, struct via_error *err);
void fault_flip_fini(struct fault_ep *ep);

/* Was the link cut, and not aborted by the caller? */
bool fault_is_lost(struct fault_ep *ep);

int fault_post_write(struct via_ep *ep, const struct via_sge *sge, unsigned n,
		     const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags);
int fault_post_send(struct via_ep *ep, const struct via_sge *sge, unsigned n, void *ctx,
		    unsigned flags);
int fault_post_recv(struct via_ep *ep, const struct via_sge *sge, void *ctx);
int fault_poll(struct via_ep *ep, struct via_comp *comp, unsigned max);
int fault_arm(struct via_ep *ep, int *fd);

#endif
