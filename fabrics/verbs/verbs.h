/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs.h -- the libibverbs back end: reliable connections (RC) over InfiniBand, RoCE and iWARP.
 *
 *   verbs[:DEVICE[:PORT][+DEVICE...]][,key=value...]        verbs alone chooses a device
 *
 * Each endpoint is one queue pair with one completion queue, connected through librdmacm. The
 * queue pair and all memory belong to a device context of this back end's own and not to
 * librdmacm's, which is one for the whole process: asynchronous events of a fabric then come to
 * that fabric alone. A rail is one device and port; with several, endpoint i uses rail i mod n, and
 * memory is registered with all.
 *
 * The key to memory is a type 2 memory window, bound on the queue pair of the endpoint whose peer
 * gets it, where the device has such windows: nobody else can use it, however it was learnt,
 * and the registration itself lets no peer in. Else it is the registration's own remote key.
 *
 * Which thread touches what: posts are the owner's, and so is the record of what was
 * posted. The completion queue is read by the owner, or by the set-up thread that waits for a
 * window to be bound; each enters only while the other is not inside (`inside`), and the
 * owner never waits for that. What the set-up thread finds is the owner's to report (`wc`).
 */
#ifndef VIA_FABRICS_VERBS_VERBS_H
#define VIA_FABRICS_VERBS_VERBS_H

#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>

#include "fabrics/fabric.h"
#include "fabrics/verbs/verbs_choose.h"

/*
 * Hidden, as libibverbs has functions called verbs_... of its own, some of which it calls by name:
 * one of ours of such a name would be called instead.
 */
#pragma GCC visibility push(hidden)

extern const struct via_fabric_ops via_verbs_ops;
extern const struct via_fabric_key verbs_keys[];

#define VERBS_SGE_MAX   4u
#define VERBS_CHAIN_MAX 16u
#define VERBS_DEPTH_MAX 8192u
#define VERBS_EPS_MAX   1024u

#define VERBS_WRITE_LEN_MAX ((size_t)1 << 20)
#define VERBS_MSG_LEN_MAX   8192u

/* One device and port. */
struct verbs_rail {
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	char name[72]; /* "mlx5_0/1" */
	char device[64];
	unsigned port;
	unsigned mtu; /* of the port, bytes */
	enum verbs_link link;
	struct verbs_source source;
	struct ibv_device_attr attr;
	bool odp;
};

struct verbs_fabric {
	struct via_fabric base;
	struct verbs_settings settings;
	bool windows;
	struct verbs_rail rail[VERBS_RAILS_MAX];
	unsigned nrails;
	struct verbs_mr *mrs; /* all registrations */
	/*
	 * Over ep[], for whoever hands out the events of a device. Set-up waits for it; owners only
	 * try, for then somebody else is handing them out.
	 */
	pthread_mutex_t events_lock;
	struct verbs_ep *ep[VERBS_EPS_MAX]; /* by via_ep.id; NULL: free */
};

struct verbs_mr {
	struct via_mr base;
	struct verbs_mr *next; /* of the same fabric */
	unsigned access;       /* enum via_mr_access */
	struct ibv_mr *by_rail[VERBS_RAILS_MAX];
	struct verbs_window {
		struct verbs_window *next; /* of the same memory */
		struct verbs_ep *ep;
		struct ibv_mw *mw;
		uint32_t rkey;
	} * windows;
};

struct verbs_rkey {
	struct via_rkey base;
	struct verbs_key key;
};

/* What happened to an endpoint, as bits: told by anybody, dealt with by its owner. */
enum verbs_alarm {
	VERBS_ABORTED = 1 << 0,
	VERBS_DISCONNECTED = 1 << 1,
	VERBS_ACCESS_ERR = 1 << 2,
	VERBS_QP_FATAL = 1 << 3,
	VERBS_CQ_ERR = 1 << 4,
	VERBS_PORT_ERR = 1 << 5,
	VERBS_DEVICE_GONE = 1 << 6,
};

/* What an endpoint's epoll joins. */
enum verbs_watch {
	VERBS_WATCH_COMP,  /* its completion queue */
	VERBS_WATCH_CM,    /* its connection */
	VERBS_WATCH_ASYNC, /* its device: all endpoints of the rail wake */
	VERBS_WATCH_WAKE,  /* an alarm, or completions that the set-up thread found */
	VERBS_WATCHES,
};

/* One posted operation. */
struct verbs_op {
	void *ctx;
	enum via_comp_kind kind;
};

/*
 * What was posted on one of the two queues and not reported, oldest first. A queue pair completes
 * each queue in order. Numbers count for ever and wrap.
 */
struct verbs_ring {
	struct verbs_op *op;
	uint32_t mask;  /* places - 1 */
	uint32_t depth; /* operations at most */
	uint32_t head;  /* number of the oldest */
	uint32_t tail;  /* number of the next */
};

enum verbs_bind { VERBS_BIND_NONE, VERBS_BIND_PENDING, VERBS_BIND_DONE, VERBS_BIND_FAILED };

struct verbs_ep {
	struct via_ep base;
	struct verbs_rail *rail;
	bool passive;
	uint8_t id[VERBS_ID_LEN];

	/* connection */
	struct rdma_event_channel *channel;
	struct rdma_cm_id *listener[VERBS_RAILS_MAX]; /* passive, until it is connected */
	struct rdma_cm_id *conn;
	bool connected; /* ep_connect() is through with the events of the channel */
	unsigned mtu;   /* bytes: what both sides take */

	/* queues */
	struct ibv_comp_channel *comp;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	uint32_t inline_max;
	unsigned cq_events; /* taken and not acknowledged */

	/* what the owner sleeps on */
	int epoll_fd;
	int wake_fd; /* eventfd */
	bool armed;  /* the next completion makes comp readable, or has */
	bool slept;  /* armed since the last look at the other descriptors */
	unsigned idle_polls;

	_Atomic unsigned alarms;
	_Atomic bool inside;
	_Atomic int bind; /* enum verbs_bind */

	int reason;     /* 0: alive; else what poll() ends with */
	int post_error; /* errno of a post the device did not take; poll() makes it the reason */
	bool cq_done;   /* dead, and nothing is left in the queue */

	/* completions taken off the queue and not dealt with: wc[wc_head .. wc_tail) */
	struct ibv_wc *wc;
	unsigned wc_head, wc_tail, wc_cap;

	struct verbs_ring tx, rx;

	/* posts that wait for the bell */
	unsigned nchain;
	unsigned unsignalled; /* since the last one that was signalled */
	unsigned signal_every;
	bool owed; /* one of those is to be reported */
	struct ibv_send_wr chain[VERBS_CHAIN_MAX];
	struct ibv_sge chain_sge[VERBS_CHAIN_MAX][VERBS_SGE_MAX];
};

/* -- verbs_device.c: what the host has -- */

struct verbs_host {
	struct verbs_port *port;
	unsigned nports;
};

/* Look at every port of every device. -ENODEV with what to do in @err; -ENOMEM. */
int verbs_host_open(struct verbs_host *host, struct via_error *err);
void verbs_host_close(struct verbs_host *host);
/* A context of the device called @name, or NULL with errno. */
struct ibv_context *verbs_device_open(const char *name);
/* Does the device, whose attributes are @basic, page on demand for all that an endpoint does? */
bool verbs_has_odp(struct ibv_context *ctx, const struct ibv_device_attr *basic);
bool verbs_has_windows(const struct ibv_device_attr *attr);
/* "libibverbs 1.14.44.0" */
void verbs_library(char *buf, size_t cap);

/* -- verbs_probe.c -- */
int verbs_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
		struct via_error *err);

/* -- verbs_fabric.c -- */
void verbs_fill_caps(const struct ibv_device_attr *attr, const struct verbs_settings *settings,
		     struct via_fabric_caps *caps);

/* -- verbs_ep.c -- */
int verbs_ep_open(struct via_fabric *fab, enum via_ep_side side, struct via_ep **ep,
		  struct via_error *err);
ssize_t verbs_ep_address(const struct via_ep *ep, void *buf, size_t cap);
void verbs_ep_close(struct via_ep *ep);
void verbs_ep_abort(struct via_ep *ep);
/* Move @ep, which is not connected, to another rail. */
int verbs_ep_change_rail(struct verbs_ep *ep, struct verbs_rail *rail, struct via_error *err);

/* Take no more requests. */
void verbs_close_listeners(struct verbs_ep *ep);

/* -- verbs_connect.c -- */
int verbs_ep_connect(struct via_ep *ep, const void *addr, size_t addr_len, const uint8_t nonce[16],
		     const struct via_wait *wait, struct via_error *err);

/* -- verbs_event.c: what befalls an endpoint beside completions -- */

/* Tell @ep of @alarm and wake its owner. Any thread. */
void verbs_alarm(struct verbs_ep *ep, enum verbs_alarm alarm);
/* Look at every descriptor that the owner sleeps on; owner's, inside. */
void verbs_look(struct verbs_ep *ep);
/* Die of what verbs_alarm() told, if of anything; owner's, inside. */
void verbs_heed(struct verbs_ep *ep);
/*
 * @ep is dead: its queue pair takes no more part in anything. The first reason stays, and @fmt's
 * words go to base.why. Owner's, inside.
 */
void verbs_die(struct verbs_ep *ep, int reason, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), cold));

/* -- verbs_mr.c -- */
int verbs_mr_reg(struct via_fabric *fab, void *addr, size_t len, unsigned access,
		 struct via_mr **mr, struct via_error *err);
void verbs_mr_dereg(struct via_mr *mr);
ssize_t verbs_rkey_pack(const struct via_mr *mr, struct via_ep *ep, void *buf, size_t cap);
int verbs_rkey_unpack(struct via_ep *ep, const void *buf, size_t len, uint64_t region_len,
		      struct via_rkey **rkey, struct via_error *err);
void verbs_rkey_free(struct via_rkey *rkey);
/* Free every window that is bound on @ep's queue pair: it cannot be destroyed before. */
void verbs_forget_windows(struct verbs_ep *ep);

/* -- verbs_data.c -- */
int verbs_post_write(struct via_ep *ep, const struct via_sge *sge, unsigned n,
		     const struct via_rkey *rkey, uint64_t off, void *ctx, unsigned flags);
int verbs_post_send(struct via_ep *ep, const struct via_sge *sge, unsigned n, void *ctx,
		    unsigned flags);
int verbs_post_recv(struct via_ep *ep, const struct via_sge *sge, void *ctx);
int verbs_poll(struct via_ep *ep, struct via_comp *comp, unsigned max);
int verbs_arm(struct via_ep *ep, int *fd);
/* An empty message, or the receive for one, with @ep as ctx: how a connection proves itself. */
int verbs_post_hello(struct verbs_ep *ep);
int verbs_post_hello_recv(struct verbs_ep *ep);
/*
 * Bind @mw to all of @mr on @ep's queue pair as @rkey, and wait until it is. Set-up's.
 * -ECONNRESET the endpoint is dead, -EIO the device refused.
 */
int verbs_bind(struct verbs_ep *ep, struct ibv_mw *mw, const struct verbs_mr *mr, uint32_t rkey);

/* -- verbs_text.c -- */

/* What a completion with @status means: a code of the list, and in words into @buf. */
int verbs_status_code(enum ibv_wc_status status);
const char *verbs_status_name(enum ibv_wc_status status);
/* What it means and what to look at; "" where the name says it all. */
const char *verbs_status_hint(enum ibv_wc_status status);
const char *verbs_alarm_text(enum verbs_alarm alarm);
/* A code of the list for @errnum of libibverbs or librdmacm. */
int verbs_code(int errnum);
/*
 * Why memory could not be had: @what failed with @errnum while @len bytes were to be pinned.
 * Names the limit of locked memory when that is it.
 */
int verbs_fail_memory(const char *what, size_t len, int errnum, struct via_error *err);
/* Is a limit of @limit bytes in the way of @len more than @pinned? Pure. */
bool verbs_memlock_is_cause(uint64_t limit, uint64_t pinned, uint64_t len, bool privileged);

#pragma GCC visibility pop

#endif
