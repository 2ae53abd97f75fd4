/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi.h -- the libfabric back end: reliable datagram endpoints (FI_EP_RDM) with messages
 * and remote writes, over any provider that has them.
 *
 *   ofi[:PROVIDER][,tx-depth=N][,rx-depth=N]     ofi alone is ofi:tcp
 *
 * Each endpoint of ours is up to three lanes of the provider's (messages, writes that come in,
 * writes that go out) and one epoll descriptor that joins what can wake the owner. The lane for
 * incoming writes opens with the first key that is packed for its peer, and the key names it. So
 * memory is revoked by closing that lane, and keys packed later name a new one: closing a
 * registration keeps new writes out, but a provider that has begun to receive one goes on (tcp
 * does: the rest of a write of 1 MiB lands after fi_close() of its memory region). Without its
 * lane nothing can.
 *
 * A lane is an endpoint with an address vector and a completion queue of its own, and with providers in
 * software (tcp, shm) also with a libfabric domain of its own: within one domain every thread's
 * progress touches every endpoint's sockets, and closing an endpoint whose queue or domain
 * another thread goes on to use crashes (libfabric 1.17). A NIC's domain is shared, because there
 * each registration pins its memory.
 */
#ifndef VIA_FABRICS_OFI_OFI_H
#define VIA_FABRICS_OFI_OFI_H

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdatomic.h>

#include "core/wire.h"
#include "fabrics/fabric.h"

extern const struct via_fabric_ops via_ofi_ops;

#define OFI_API_VERSION FI_VERSION(1, 14)
#define OFI_SGE_MAX     4u
#define OFI_NONCE_LEN   16u
#define OFI_ADDR_MAX    256u /* bytes of a provider's own address */
#define OFI_RAW_KEY_MAX 256u /* bytes of a raw key */
#define OFI_EPS_MAX     1024u

/* What the provider wants of memory registration, beyond what every one gets. */
#define OFI_MR_MODES                                                                               \
	(FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_RAW |            \
	 FI_MR_ENDPOINT)

struct ofi_fabric {
	struct via_fabric base;
	struct fi_info *info;
	struct ofi_domain {
		struct fid_fabric *fabric;
		struct fid_domain *domain;
	} shared;
	bool own_domains;   /* each endpoint has one of its own */
	struct ofi_mr *mrs; /* all registrations */
	struct ofi_mr *spare_mrs;
	uint64_t mr_mode;
	bool has_fd;                    /* completion queues have a descriptor to sleep on */
	bool copies_messages;           /* or needs no descriptors for them anyhow */
	bool places_in_order;           /* writes of one endpoint to one peer, all that land */
	char provider[48];              /* as in the spec: "tcp" */
	struct ofi_ep *ep[OFI_EPS_MAX]; /* by via_ep.id; NULL: free */
	uint64_t next_serial;
};

enum ofi_lane_kind { OFI_MSG, OFI_IN, OFI_OUT, OFI_LANES };

/*
 * A registration. Where lanes have domains of their own, and with providers that bind memory to
 * one endpoint (FI_MR_ENDPOINT), there is one fid for each lane that uses it, made at its first
 * use, in its own slot.
 */
struct ofi_mr {
	struct via_mr base;
	struct ofi_mr *next; /* of the same fabric, or spare: the fabric keeps it to its own end */
	/* 0: given up. A write that was held back looks at it before its descriptors are used. */
	_Atomic uint64_t serial;
	unsigned access;         /* enum via_mr_access */
	struct fid_mr *fid;      /* NULL: not needed, or by lane */
	struct fid_mr **by_lane; /* slots by via_ep.id and lane; NULL: fid serves all */
	struct ofi_given {       /* endpoints whose peers were given a key */
		unsigned id;
		uint64_t serial; /* an id is used again, a serial is not */
	} * given;
	unsigned ngiven;
};

struct ofi_rkey {
	struct via_rkey base;
	uint64_t key;
	uint64_t addr;  /* of byte 0 of the region, as the provider counts */
	fi_addr_t peer; /* the lane that takes the writes */
	bool mapped;    /* a raw key, to be unmapped */
};

/* One posted operation. The provider owns fi_context until the operation completes. */
struct ofi_op {
	struct fi_context2 fi_context;
	struct ofi_op *next; /* in a free list or in a queue of held ones */
	enum via_comp_kind kind;
	bool busy; /* posted or held, not reported */
	void *ctx;
	uint64_t generation; /* of a write; of a send: the last one it must follow */
	uint64_t key, addr;  /* of a write, and the lane that they are for */
	fi_addr_t peer;
	unsigned n;
	struct iovec iov[OFI_SGE_MAX];
	void *desc[OFI_SGE_MAX];
	const struct ofi_mr *mr[OFI_SGE_MAX];
	uint64_t mr_serial[OFI_SGE_MAX];
	size_t len;
};

/* Operations taken and not given to the provider yet, oldest first. */
struct ofi_queue {
	struct ofi_op *head, **tail;
};

struct ofi_lane {
	struct ofi_domain domain; /* its own, or the fabric's */
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_ep *ep; /* NULL: closed */
	/* the peer's lane at the other end: its name, and its place in av */
	uint8_t peer_name[OFI_ADDR_MAX];
	size_t peer_name_len;
	fi_addr_t peer;
};

struct ofi_ep {
	struct via_ep base;
	uint64_t serial;
	struct ofi_lane lane[OFI_LANES];

	/*
	 * Taken by the owner while it is inside the lanes for writes, and by whoever opens or closes
	 * one. The owner only tries: who finds it taken comes back later.
	 */
	_Atomic bool inside;

	/* what the owner sleeps on */
	int epoll_fd;
	int abort_fd; /* eventfd */
	/* where the provider has no descriptor; else -1, NULL */
	int timer_fd;
	struct fid_cntr *landed; /* writes of the peer: they complete nothing here */
	uint64_t landed_seen;
	bool progressed;    /* something completed since the last look */
	uint64_t active_ns; /* when something last happened */
	uint64_t timer_ns;  /* the next sleep */

	_Atomic bool aborted;
	int reason;          /* 0: alive; else what poll() ends with */
	unsigned flush_next; /* on a dead endpoint: operations before it were handed out */

	struct ofi_op *ops; /* tx_depth and then rx_depth of them */
	struct ofi_op *free_tx, *free_rx;

	/*
	 * Writes wait while the provider has no room; sends also while they must follow writes.
	 * Writes are counted by generation, held ones too: a new one begins with each send
	 * that must follow them.
	 */
	struct ofi_queue held_writes, held_sends;
	uint64_t generation, oldest_generation;
	unsigned *in_generation; /* writes outstanding, by generation modulo ngenerations */
	unsigned ngenerations;

	uint8_t hello[2][OFI_NONCE_LEN]; /* sent and received while connecting */
	struct via_mr *hello_mr;
};

/* -- ofi_fabric.c -- */

/* Open the provider's fabric and domain of fab->info. Nothing is open after a failure. */
int ofi_domain_open(const struct ofi_fabric *fab, struct ofi_domain *domain, struct via_error *err);
/* Accepts one that is not open. */
void ofi_domain_close(struct ofi_domain *domain);

/* A negated libfabric code as one of the closed list. */
int ofi_code(long code);
/*
 * The fi_info for provider @name with the capabilities @more beside the usual, bound to
 * @local_host (NULL or "": loopback). NULL when there is none.
 */
struct fi_info *ofi_select(const char *name, const char *local_host, uint64_t more);
/* Provider names as users type them: "tcp" for "tcp;ofi_rxm". */
void ofi_short_name(const char *prov_name, char *buf, size_t cap);
void ofi_fill_caps(const struct fi_info *info, uint64_t tx_depth, uint64_t rx_depth,
		   struct via_fabric_caps *caps);

/* -- ofi_probe.c -- */
int ofi_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
	      struct via_error *err);

/* -- ofi_mr.c -- */
int ofi_mr_reg(struct via_fabric *fab, void *addr, size_t len, unsigned access, struct via_mr **mr,
	       struct via_error *err);
void ofi_mr_dereg(struct via_mr *mr);
ssize_t ofi_rkey_pack(const struct via_mr *mr, struct via_ep *ep, void *buf, size_t cap);
int ofi_rkey_unpack(struct via_ep *ep, const void *buf, size_t len, uint64_t region_len,
		    struct via_rkey **rkey, struct via_error *err);
void ofi_rkey_free(struct via_rkey *rkey);
/* The descriptor that a post on a lane of @ep needs for @mr; may be NULL. 0 or a negated code. */
int ofi_mr_desc(const struct via_mr *mr, struct ofi_ep *ep, enum ofi_lane_kind kind, void **desc);
/* Free what the registrations of @fab, which are all given up, have left. */
void ofi_mr_fini(struct ofi_fabric *fab);
/* Close what is registered for that lane alone. */
void ofi_mr_forget(struct ofi_ep *ep, enum ofi_lane_kind kind);
size_t ofi_rkey_max(const struct fi_info *info);

/* -- ofi_ep.c -- */
int ofi_ep_open(struct via_fabric *fab, enum via_ep_side side, struct via_ep **ep,
		struct via_error *err);
ssize_t ofi_ep_address(const struct via_ep *ep, void *buf, size_t cap);
int ofi_ep_connect(struct via_ep *ep, const void *addr, size_t addr_len, const uint8_t nonce[16],
		   const struct via_wait *wait, struct via_error *err);
void ofi_ep_close(struct via_ep *ep);
void ofi_ep_abort(struct via_ep *ep);
/* The provider's part of @ep is closed: from here on no buffer is touched. Idempotent. Owner's. */
void ofi_ep_kill(struct ofi_ep *ep, int reason);
/* Close the lane that takes the peer's writes, and what is registered with it. Set-up. */
void ofi_ep_revoke(struct ofi_ep *ep);
/* Open a lane for writes, unless it is open. -ECONNRESET on a dead endpoint. Set-up. */
int ofi_ep_need_lane(struct ofi_ep *ep, enum ofi_lane_kind kind);
/* The name of an open lane, as u16 length and bytes, onto @w. */
int ofi_ep_put_name(struct via_wire *w, const struct ofi_lane *lane);
/*
 * Take a name from @w and make it the peer of @lane, *peer. -EPROTO when it is not one of this
 * provider or the lane's own: providers trust what they are given.
 */
int ofi_ep_take_name(const struct ofi_ep *ep, struct ofi_lane *lane, struct via_wire *w,
		     fi_addr_t *peer);
/* Try to enter the lanes for writes; leave when true. */
bool ofi_ep_enter(struct ofi_ep *ep);
void ofi_ep_leave(struct ofi_ep *ep);
/* Wait until whoever is inside has left. Set-up. */
void ofi_ep_pass(struct ofi_ep *ep);

/* -- ofi_data.c -- */
int ofi_post_write(struct via_ep *ep, const struct via_sge *sge, unsigned n,
		   const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags);
int ofi_post_send(struct via_ep *ep, const struct via_sge *sge, unsigned n, void *ctx,
		  unsigned flags);
int ofi_post_recv(struct via_ep *ep, const struct via_sge *sge, void *ctx);
int ofi_poll(struct via_ep *ep, struct via_comp *comp, unsigned max);
int ofi_arm(struct via_ep *ep, int *fd);

#endif
