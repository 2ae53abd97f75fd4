/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx.h -- the UCX back end: ucp workers and active messages, over any transport of UCX.
 *
 *   ucx[:TRANSPORT][,device=NAME][,gid-index=N][,...]
 *
 * TRANSPORT is a word of UCX_TLS: tcp, shm, rc, dc, ud, ib and their kin, the RDMA ones with UCX
 * 1.14 and newer. ucx alone leaves the choice to UCX (and to a UCX_TLS of the environment).
 *
 * Each endpoint of ours is a ucp worker with one connection, on which everything travels in its
 * order as active messages: the user's messages, pieces of writes, and acknowledgements. A piece of
 * a write names a key and an offset. The receiver looks both up and copies, so that a key that was
 * revoked is refused and the sender is told, over every transport alike.
 *
 * Why not ucp_put_nbx(): where the transport has no remote writes of its own (tcp, shared memory)
 * UCX 1.13 writes wherever a put asks it to, key or no key, also after ucp_mem_unmap(); and a
 * receiver whose sender dies in the middle of puts is aborted by the library ("Fatal: unexpected
 * error", from the acknowledgement it cannot send). docs/fence.md has what was measured.
 */
#ifndef VIA_FABRICS_UCX_UCX_H
#define VIA_FABRICS_UCX_UCX_H

#include <stdatomic.h>
#include <ucp/api/ucp.h>

#include "core/wire.h"
#include "fabrics/fabric.h"

extern const struct via_fabric_ops via_ucx_ops;

#define UCX_SGE_MAX   4u
#define UCX_NONCE_LEN 16u
#define UCX_NAME_MAX  448u /* bytes of UCX's own address of a worker */
#define UCX_ADDR_MAX  512u /* bytes of ep_address() */
#define UCX_EPS_MAX   1024u
#define UCX_DEPTH     128u /* tx and rx, where the spec does not say */
#define UCX_PARTS     64u  /* active messages of one endpoint that UCX holds at most */

struct ucx_fabric {
	struct via_fabric base;
	ucp_context_h context;
	char name[48];                  /* of the transport as in the spec: "tcp"; may be empty */
	char resources[128];            /* what UCX opened: "tcp/lo" */
	size_t piece_len;               /* of a write, in one active message */
	struct ucx_ep *ep[UCX_EPS_MAX]; /* by via_ep.id; NULL: free */
	uint64_t next_serial;
};

struct ucx_mr {
	struct via_mr base;
	unsigned access;   /* enum via_mr_access */
	struct ucx_given { /* endpoints whose peers were given a key */
		unsigned id;
		uint64_t serial; /* an id is used again, a serial is not */
		uint32_t index;  /* of the key there */
	} * given;
	unsigned ngiven;
};

/* A key that was given to the peer of an endpoint: its index there, and a secret. */
struct ucx_key {
	const struct ucx_mr *mr; /* NULL: none; the index is free */
	uint64_t secret;
	uint32_t next_free; /* index; UCX_NO_KEY ends the list */
};

#define UCX_NO_KEY UINT32_MAX

struct ucx_rkey {
	struct via_rkey base;
	uint32_t index;
	uint64_t secret;
};

/* One posted operation, in one of the endpoint's queues from its post until its report. */
struct ucx_op {
	struct ucx_op *next;
	enum via_comp_kind kind;
	bool busy; /* taken and not reported */
	void *ctx;
	size_t len; /* to transfer; of a receive that is through: received */
	int status, native;
	unsigned n;
	ucp_dt_iov_t iov[UCX_SGE_MAX];
	unsigned parts; /* active messages that UCX has not completed */
	/* of a write */
	uint32_t index;
	uint64_t secret, off; /* off: of the next piece */
	unsigned i;           /* iov that holds the next piece, from done on */
	size_t done;
	uint64_t number; /* counted from 1 */
};

struct ucx_queue {
	struct ucx_op *head, **tail;
};

/* What an active message is, by UCX's id of its handler. */
enum ucx_am { UCX_AM_MESSAGE, UCX_AM_WRITE, UCX_AM_PLACED, UCX_AM_REFUSED, UCX_AMS };

/*
 * The header of each, big-endian. Of all: nonce, u32 number of the active message, u64 writes of
 * the receiver that its sender has placed. Of a piece of a write also: u32 index and u64 secret of
 * the key, u64 offset, u8 1 when it is the last of its write.
 */
#define UCX_HEADER_LEN       (UCX_NONCE_LEN + 12u)
#define UCX_WRITE_HEADER_LEN (UCX_HEADER_LEN + 21u)

/* An active message under way. */
struct ucx_part {
	struct ucx_part *next; /* of the free ones */
	struct ucx_ep *ep;
	struct ucx_op *op; /* NULL: of our own */
	bool busy;
	uint8_t header[UCX_WRITE_HEADER_LEN];
};

struct ucx_ep {
	struct via_ep base;
	uint64_t serial;
	ucp_worker_h worker; /* NULL: closed */
	ucp_ep_h peer;       /* NULL: not connected */

	/*
	 * Taken by the owner while it takes what comes, and by whoever gives or revokes a key. The
	 * owner only tries: who finds it taken comes back later.
	 */
	_Atomic bool inside;
	struct ucx_key *keys;
	uint32_t nkeys, free_key;

	int epoll_fd; /* what the owner sleeps on */
	int abort_fd; /* eventfd */
	_Atomic bool aborted;
	int reason;          /* 0: alive; else what poll() ends with */
	int broken;          /* what a callback of UCX found: the reason, as soon as it is left */
	int native;          /* UCX's status with it */
	unsigned flush_next; /* on a dead endpoint: operations before it were handed out */

	struct ucx_op *ops; /* tx_depth and then rx_depth of them */
	struct ucx_op *free_tx, *free_rx;
	struct ucx_queue outgoing; /* writes and sends that UCX was not given to their end */
	struct ucx_queue issued;   /* writes that it was, oldest first */
	struct ucx_queue receives; /* posted, oldest first */
	struct ucx_queue done;     /* to be reported */
	struct ucx_part part[UCX_PARTS], *free_parts;
	struct ucx_part answer; /* for our own acknowledgements and refusals */

	uint64_t posted, acknowledged; /* our writes; acknowledged: the peer has placed them */
	uint64_t placed, told;         /* the peer's writes; told: it knows of */
	bool refused, refusal_sent; /* one of them: from there on nothing of the peer's is taken */

	uint8_t nonce[UCX_NONCE_LEN]; /* in the header of each active message */
	uint32_t sent, received;      /* active messages; number 0 is the hello, an empty message */
	bool stranger;                /* one showed another nonce */
};

/* -- ucx_fabric.c -- */

/* A status of UCX as one of the closed list. */
int ucx_code(ucs_status_t status);
/* Why RDMA transports cannot be used with this UCX; NULL when they can. */
const char *ucx_refuses_rdma(void);
/* Open a context. @tls NULL: all that UCX has. @spec may be NULL: no keys and no address. */
int ucx_context_open(const char *tls, const struct via_fabric_spec *spec, ucp_context_h *context,
		     struct via_error *err);
/* "tcp/lo tcp/eth0": transports and devices that @context opened. Cut to @cap. */
void ucx_resources(ucp_context_h context, char *buf, size_t cap);
void ucx_fill_caps(uint64_t tx_depth, uint64_t rx_depth, struct via_fabric_caps *caps);

/* -- ucx_probe.c -- */
int ucx_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
	      struct via_error *err);

/* -- ucx_worker.c -- */

/* Open the worker and let the owner be woken by it. Nothing of it is open after a failure. */
int ucx_worker_open(struct ucx_ep *ep, struct via_error *err);
/* Accepts one that is not open. From here on no buffer is touched. */
void ucx_worker_close(struct ucx_ep *ep);
/* The worker's name as u16 length and bytes, onto @w. */
int ucx_worker_put_name(const struct ucx_ep *ep, struct via_wire *w);
/* Connect to the worker whose name is in @w. -EPROTO when it is malformed or our own. */
int ucx_worker_connect(struct ucx_ep *ep, struct via_wire *w);
/* Ends an address: u64, of all bytes before it. */
void ucx_put_checksum(struct via_wire *w);
/* Is it right, at the end of the @len bytes? UCX trusts what it is given. */
bool ucx_checksum_is_right(const void *buf, size_t len);
#define UCX_CHECKSUM_LEN 8u

/* -- ucx_mr.c -- */
int ucx_mr_reg(struct via_fabric *fab, void *addr, size_t len, unsigned access, struct via_mr **mr,
	       struct via_error *err);
void ucx_mr_dereg(struct via_mr *mr);
ssize_t ucx_rkey_pack(const struct via_mr *mr, struct via_ep *ep, void *buf, size_t cap);
int ucx_rkey_unpack(struct via_ep *ep, const void *buf, size_t len, uint64_t region_len,
		    struct via_rkey **rkey, struct via_error *err);
void ucx_rkey_free(struct via_rkey *rkey);
#define UCX_RKEY_LEN (4u + 4u + 8u)
/* Where a piece of the peer's write goes; NULL: nowhere, it is to be refused. Inside. */
uint8_t *ucx_key_look_up(const struct ucx_ep *ep, uint32_t index, uint64_t secret, uint64_t off,
			 size_t len);

/* -- ucx_ep.c -- */
int ucx_ep_open(struct via_fabric *fab, enum via_ep_side side, struct via_ep **ep,
		struct via_error *err);
ssize_t ucx_ep_address(const struct via_ep *ep, void *buf, size_t cap);
int ucx_ep_connect(struct via_ep *ep, const void *addr, size_t addr_len, const uint8_t nonce[16],
		   const struct via_wait *wait, struct via_error *err);
void ucx_ep_close(struct via_ep *ep);
void ucx_ep_abort(struct via_ep *ep);
/* The worker is closed: from here on no buffer is touched. Idempotent. Owner's. */
void ucx_ep_kill(struct ucx_ep *ep, int reason);
/* Enter, leave; ucx_ep_try_enter() may find another inside. */
void ucx_ep_enter(struct ucx_ep *ep);
bool ucx_ep_try_enter(struct ucx_ep *ep);
void ucx_ep_leave(struct ucx_ep *ep);
/* Remember what the endpoint will die of, the first alone: for where it cannot be killed yet. */
void ucx_ep_break(struct ucx_ep *ep, const char *what, int code, ucs_status_t status);

/* -- ucx_queue.c -- */
struct ucx_op *ucx_op_take(struct ucx_op **list, enum via_comp_kind kind, void *ctx);
void ucx_op_free(struct ucx_ep *ep, struct ucx_op *op);
/* @op is through: it is reported, unless it is silent and went well. */
void ucx_op_finish(struct ucx_ep *ep, struct ucx_op *op, int status, int native);
void ucx_queue_init(struct ucx_queue *queue);
void ucx_queue_push(struct ucx_queue *queue, struct ucx_op *op);
/* The oldest; NULL when there is none. */
struct ucx_op *ucx_queue_pop(struct ucx_queue *queue);

/* -- ucx_am.c -- */

/* Have UCX call us with what comes. */
ucs_status_t ucx_am_listen(struct ucx_ep *ep);
/* Give UCX what it takes of the outgoing operations, and what the peer must be told. */
void ucx_am_push(struct ucx_ep *ep);
/* Is there something that ucx_am_push() would give it? */
bool ucx_am_can_push(const struct ucx_ep *ep);
/* Report writes that the peer has placed and UCX is through with. */
void ucx_am_retire(struct ucx_ep *ep);

/* -- ucx_data.c -- */
int ucx_post_write(struct via_ep *ep, const struct via_sge *sge, unsigned n,
		   const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags);
int ucx_post_send(struct via_ep *ep, const struct via_sge *sge, unsigned n, void *ctx,
		  unsigned flags);
int ucx_post_recv(struct via_ep *ep, const struct via_sge *sge, void *ctx);
int ucx_poll(struct via_ep *ep, struct via_comp *comp, unsigned max);
int ucx_arm(struct via_ep *ep, int *fd);
/* The first message, number 0: it shows the nonce. */
int ucx_post_hello(struct ucx_ep *ep);

#endif
