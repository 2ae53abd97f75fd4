/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fabric.h -- the contract between transport/ and one fabric back end.
 *
 * A back end is one folder under fabrics/ that fills in one
 * `const struct via_fabric_ops` and is named in the list in fabric.c.
 * There are no optional operations and no capability that changes what an
 * operation means: struct via_fabric_caps holds limits, never semantics.
 * tests/contract/ runs the same cases against every back end.
 *
 * Rules that hold for every operation
 *
 *   Units      _len and _off are bytes, _depth is operations. Times are
 *              absolute CLOCK_MONOTONIC nanoseconds; VIA_NEVER is no limit.
 *   Returns    0 or a count on success, a negated errno on failure. Output
 *              arguments are written on success only.
 *   Errors     Set-up operations take @err (may be NULL) and put the first
 *              cause there. Data operations return the number alone: no text
 *              is formatted and no memory is allocated on the data path.
 *   Threads    One endpoint has one owner thread at a time. Different
 *              endpoints of one fabric may be used from different threads at
 *              once. Set-up operations of one fabric are serialised by the
 *              caller, but for ep_connect(), which counts as the endpoint's
 *              own. ep_abort() alone may be called from any thread.
 *   Blocking   Only ep_connect() may block, no longer than its via_wait allows.
 *   Lifetime   fabric > mr, endpoint > rkey. The caller releases in reverse
 *              order.
 */
#ifndef VIA_FABRICS_FABRIC_H
#define VIA_FABRICS_FABRIC_H

/* clang-format off */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/clock.h"
#include "core/error.h"
#include "fabrics/spec.h"

struct via_fabric_caps {
	size_t write_len_max;   /* bytes in one post_write(); at least 64 KiB */
	size_t msg_len_max;     /* bytes in one post_send(); at least 8 KiB */
	size_t addr_len_max;    /* bytes ep_address() may need */
	size_t rkey_len_max;    /* bytes rkey_pack() may need */
	unsigned sge_max;       /* local pieces in one post; at least 1 */
	unsigned tx_depth;      /* writes and sends one endpoint can hold at most */
	unsigned rx_depth;      /* receives one endpoint can hold */
};

/* A back end embeds these as the FIRST member of its own struct. */
struct via_fabric { const struct via_fabric_ops *ops; struct via_fabric_caps caps; };
struct via_ep {
	struct via_fabric *fab;
	unsigned id;            /* of the fabric's; the lowest that is free when it opens */
	const char *device;     /* what carries it, "mlx5_0/1"; NULL where a fabric has no such
	                         * thing. Lives as long as the endpoint */
	/*
	 * In words, what the endpoint died of, where more is known than the code: "write:
	 * transport retry counter exceeded (IBV_WC_RETRY_EXC_ERR, vendor code 0x81)". Set before
	 * poll() or a post first returns the reason; the owner reads it. Else empty.
	 */
	char why[192];
};
struct via_mr     { struct via_fabric *fab; void *addr; size_t len; };
struct via_rkey   { struct via_ep *ep; uint64_t len; };

/* One local piece of a transfer. [addr, addr+len) lies inside mr. */
struct via_sge { const struct via_mr *mr; void *addr; size_t len; };

/* 0 is not a kind, so that a zeroed record is never valid. */
enum via_comp_kind { VIA_COMP_WRITE = 1, VIA_COMP_SEND, VIA_COMP_RECV };

struct via_comp {
	void *ctx;              /* as given when the operation was posted */
	size_t len;             /* bytes received; 0 for every other kind */
	int status;             /* 0 or a negated errno; -ECANCELED only after ep_abort() */
	enum via_comp_kind kind;
	int native;             /* the provider's own code; for logs, never for logic */
};

enum via_mr_access {
	VIA_MR_LOCAL = 0,               /* source of writes and sends */
	VIA_MR_REMOTE_WRITE = 1 << 0,   /* a peer holding the rkey may write */
};

enum via_post_flags {
	VIA_MORE         = 1 << 0, /* another post follows at once: ringing the device may wait */
	VIA_AFTER_WRITES = 1 << 1, /* post_send only: the message is received only when every
	                            * write posted earlier on this endpoint is in the peer's
	                            * memory and visible to the thread that receives it */
};

enum via_ep_side { VIA_EP_ACTIVE = 1, VIA_EP_PASSIVE };

/*
 * One candidate that probe() found: what `viaduct fabrics` prints and `auto`
 * chooses from. All strings are NUL-terminated and printable.
 */
struct via_fabric_info {
	char spec[64];          /* what names it on the command line: "ofi:tcp", "verbs:mlx5_0" */
	char device[64];        /* what it would use: "lo", "mlx5_0/1"; may be empty */
	char library[64];       /* "libfabric 1.17" */
	bool usable;
	char reason[192];       /* why not, when not usable; else empty */
	struct via_fabric_caps caps; /* zero when not usable */
	/*
	 * Which peers it reaches. Empty: every host with a route. Else both sides must
	 * show the same text (for shared memory: one host, one set of namespaces).
	 */
	char reach[96];
	unsigned rank;          /* preference of `auto`, 1 is best; 0: never chosen by it */
	/* More about it for `viaduct fabrics`: lines of "name: value", each ended by a newline. */
	char facts[2048];
};

/* A key that a back end's spec may carry, and what its value may be. */
struct via_fabric_key {
	const char *name;       /* "device"; NULL ends a list */
	const char *help;       /* "name of the device, as in `viaduct fabrics`" */
	uint64_t min, max;      /* of a whole number; max 0: a text, which open() checks */
};

struct via_fabric_ops {
	const char *name;       /* "verbs", "ofi", "ucx" */
	const struct via_fabric_key *keys; /* the keys its spec may carry */
	/*
	 * What NAME:DEVICE names in its spec. NULL: a device of this host; the peer's may be
	 * called otherwise. Else a provider, which both sides must have in common; this is the
	 * one that NAME alone stands for.
	 */
	const char *provider;

	/*
	 * Describe every device or provider this back end could use, and for each
	 * that it could not, why. @found returns 0 to go on, else that is returned.
	 */
	int (*probe)(int (*found)(void *arg, const struct via_fabric_info *info),
		     void *arg, struct via_error *err);

	/*
	 * Open what @spec names and fill caps. Opens no connection.
	 *  -ENODEV no such device, -EINVAL bad key, -ENOMEM, -EPERM (memlock limit
	 *  or a missing right: say which, its value and the remedy in @err)
	 */
	int (*open)(const struct via_fabric_spec *spec, struct via_fabric **fab,
		    struct via_error *err);
	void (*close)(struct via_fabric *fab);

	/* -- endpoints: both sides create one, swap addresses over the control
	 *    connection, and connect; who the peer is, is settled there ------- */

	int (*ep_open)(struct via_fabric *fab, enum via_ep_side side,
		       struct via_ep **ep, struct via_error *err);
	/* Opaque bytes for the peer's ep_connect(). Returns their number; -ENOBUFS. */
	ssize_t (*ep_address)(const struct via_ep *ep, void *buf, size_t cap);
	/*
	 * Both sides call it, at about the same time, each with the other's address.
	 * Returns when the endpoint can carry data; receives may be posted from then
	 * on, and the caller sees to it that the peer has posted some before it sends.
	 * After a failure only ep_close() remains. @nonce (16 bytes, from the
	 * control connection) proves to each side that the other is the right one.
	 *  -ETIMEDOUT, -ECANCELED, -ECONNREFUSED, -EHOSTUNREACH, -EACCES (wrong
	 *  nonce), -EPROTO (@addr is malformed or of another back end)
	 */
	int (*ep_connect)(struct via_ep *ep, const void *addr, size_t addr_len,
			  const uint8_t nonce[16], const struct via_wait *wait,
			  struct via_error *err);
	/* Free at once. What was outstanding is dropped and never reported. */
	void (*ep_close)(struct via_ep *ep);
	/*
	 * No new post succeeds, everything outstanding completes with -ECANCELED
	 * through poll(), a sleeper on the armed descriptor wakes. Any thread, any
	 * time before ep_close(); idempotent; never blocks.
	 */
	void (*ep_abort)(struct via_ep *ep);

	/* -- memory --------------------------------------------------------- */

	/* May pin: milliseconds per GiB. -ENOMEM pin limit, -EFAULT, -EOPNOTSUPP */
	int (*mr_reg)(struct via_fabric *fab, void *addr, size_t len,
		      unsigned access, struct via_mr **mr, struct via_error *err);
	/*
	 * When this returns no write of any peer can land here any more: one that
	 * is still on its way fails at its sender (-EREMOTEIO; its endpoint may die of
	 * it) or, where the provider never tells, stays outstanding until the sender's
	 * ep_abort(). This is what sealing stands on. Keys to other memory that the
	 * peers of the same endpoints were given before may be revoked with it; those
	 * packed afterwards are good, and with no write on its way the endpoints go
	 * on. Endpoints of the fabric may be in use by their threads meanwhile.
	 */
	void (*mr_dereg)(struct via_mr *mr);
	/*
	 * The key that the peer of @ep (connected) needs to write here, opaque above
	 * this line. Returns its bytes; -ENOBUFS. A key serves its own endpoint only:
	 * what a back end may rely on, and what lets it revoke one channel.
	 */
	ssize_t (*rkey_pack)(const struct via_mr *mr, struct via_ep *ep, void *buf,
			     size_t cap);
	/* @buf came from the peer and is not to be trusted. -EPROTO, -ENOMEM */
	int (*rkey_unpack)(struct via_ep *ep, const void *buf, size_t len,
			   uint64_t region_len, struct via_rkey **rkey,
			   struct via_error *err);
	void (*rkey_free)(struct via_rkey *rkey);

	/* -- data -----------------------------------------------------------
	 * Each post takes the operation or refuses it whole:
	 *  -EAGAIN      queue full, nothing was taken: poll(), then try again
	 *  -ECONNRESET  the peer or the path is gone } the endpoint is dead: only
	 *  -ECANCELED   ep_abort() was called        } poll() and ep_close() remain
	 *  -EINVAL      error of the caller (asserted in debug builds)
	 * A taken operation with a non-NULL ctx completes exactly once, whatever
	 * happens; with a NULL ctx it is silent on success and reported, with ctx
	 * NULL, on failure. Operations may complete in any order.
	 */

	/*
	 * Copy the @n pieces, one after the other, to byte @off of the peer's
	 * region. Completion means that the local bytes may change again; it says
	 * nothing about the peer (see VIA_AFTER_WRITES). Two writes to the same
	 * bytes with no such message between them leave the bytes undefined.
	 *  -ERANGE outside the region, -EMSGSIZE above write_len_max
	 */
	int (*post_write)(struct via_ep *ep, const struct via_sge *sge, unsigned n,
			  const struct via_rkey *rkey, uint64_t off, void *ctx,
			  unsigned flags);
	/*
	 * Send one message to the peer's oldest posted receive. Messages of one
	 * endpoint arrive whole and in order. The caller keeps the credits.
	 */
	int (*post_send)(struct via_ep *ep, const struct via_sge *sge, unsigned n,
			 void *ctx, unsigned flags);
	/* Lend @sge to the next message; the caller's again when its RECV completes. */
	int (*post_recv)(struct via_ep *ep, const struct via_sge *sge, void *ctx);

	/* -- progress ------------------------------------------------------- */

	/*
	 * Move work forward and report up to @max completions. Returns how many
	 * and never sleeps. On a dead endpoint it first hands out every remaining
	 * completion and only then returns the reason. A peer that is being
	 * written to must poll as well: some providers move bytes only then.
	 */
	int (*poll)(struct via_ep *ep, struct via_comp *comp, unsigned max);
	/*
	 * 0: sleep until *@fd is readable, then poll(). -EAGAIN: something is
	 * there already: do not sleep. *@fd stays the same for the endpoint's life,
	 * belongs to the endpoint, and is never read by the caller. The descriptor may
	 * become readable with nothing to report.
	 */
	int (*arm)(struct via_ep *ep, int *fd);
};

/* -- the list of back ends (fabric.c) ------------------------------------- */

/*
 * The back ends that this build holds, in the order in which they are shown.
 * NULL-terminated, static. "sim" is in it in test builds only.
 */
const struct via_fabric_ops *const *via_fabric_list(void);

/* The back end called @name, or NULL. */
const struct via_fabric_ops *via_fabric_find(const char *name);

/*
 * Back ends that this build lacks, for `viaduct fabrics`: name and reason
 * ("built without libfabric: install libfabric-dev and rebuild"). Ends with a NULL name.
 */
struct via_fabric_absent { const char *name; const char *reason; };
const struct via_fabric_absent *via_fabric_absent_list(void);

/*
 * What two sides must have in common to talk to each other, into @buf: "verbs" for
 * verbs:mlx5_0,mtu=4096, and "ofi:tcp" for ofi. 64 bytes are always enough.
 */
void via_fabric_kind(const struct via_fabric_spec *spec, char *buf, size_t cap);

/*
 * Open the back end that @spec names (see its open()). -ENODEV with the known
 * names in @err when there is none.
 */
int via_fabric_open(const struct via_fabric_spec *spec, struct via_fabric **fab,
		    struct via_error *err);

#endif
