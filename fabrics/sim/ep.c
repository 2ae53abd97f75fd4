/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ep.c -- endpoints, and how two of one process find each other.
 *
 * Must never sleep with the registry locked, and never connect an endpoint twice.
 *
 * Invariant: every endpoint between open and close is in the registry; two are CONNECTED only
 * together, by the thread that came second, and each found the other's number in its address.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/secret.h"
#include "core/wire.h"
#include "fabrics/sim/link.h"

#define ADDRESS_MAGIC   UINT32_C(0x5649534d) /* "VISM" */
#define ADDRESS_VERSION 1u

static struct {
	pthread_mutex_t lock;
	struct sim_ep *eps;
	uint64_t last_number;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

void sim_registry_lock(void)
{
	pthread_mutex_lock(&registry.lock);
}

void sim_registry_unlock(void)
{
	pthread_mutex_unlock(&registry.lock);
}

struct sim_ep *sim_registry_next(const struct via_fabric *fab, const struct sim_ep *ep)
{
	struct sim_ep *next = ep ? ep->next : registry.eps;

	while (next && next->base.fab != fab)
		next = next->next;
	return next;
}

static struct sim_ep *find(uint64_t number)
{
	struct sim_ep *ep = registry.eps;

	while (ep && ep->number != number)
		ep = ep->next;
	return ep;
}

/* -- life ------------------------------------------------------------------ */

int sim_ep_open(struct via_fabric *fab, enum via_ep_side side, struct via_ep **ep,
		struct via_error *err)
{
	struct sim_fabric *sim = (struct sim_fabric *)fab;
	struct sim_ep *new = calloc(1, sizeof(*new));

	if (!new)
		return via_fail(err, -ENOMEM, "simulated endpoint\nno memory\nfree some memory");
	new->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (new->event_fd < 0) {
		free(new);
		return via_fail(err, via_err_from_errno(errno),
				"simulated endpoint\neventfd: %s\nraise the limit of open files",
				strerror(errno));
	}
	new->base.fab = fab;
	new->side = side;
	sim_registry_lock();
	new->base.id = sim->eps_opened++;
	new->number = ++registry.last_number;
	new->next = registry.eps;
	registry.eps = new;
	sim_registry_unlock();
	*ep = &new->base;
	return 0;
}

/* Those who wait for this one in ep_connect() look again. With the registry locked. */
static void wake_waiting(uint64_t number)
{
	for (struct sim_ep *ep = registry.eps; ep; ep = ep->next)
		if (ep->state == SIM_EP_CONNECTING && ep->peer_number == number)
			eventfd_write(ep->event_fd, 1);
}

void sim_ep_close(struct via_ep *base)
{
	struct sim_ep *ep = (struct sim_ep *)base;
	struct sim_ep **at = &registry.eps;

	if (!ep)
		return;
	sim_registry_lock();
	while (*at != ep)
		at = &(*at)->next;
	*at = ep->next;
	wake_waiting(ep->number);
	if (ep->end)
		sim_link_close(ep->end);
	sim_registry_unlock();
	close(ep->event_fd);
	free(ep);
}

void sim_ep_abort(struct via_ep *base)
{
	struct sim_ep *ep = (struct sim_ep *)base;

	sim_registry_lock();
	ep->aborted = true;
	wake_waiting(ep->number);
	if (ep->end) {
		sim_link_lock(ep->end->link);
		ep->end->aborted = true;
		sim_end_kill(ep->end, -ECANCELED, -ECANCELED);
		sim_link_unlock(ep->end->link);
	}
	eventfd_write(ep->event_fd, 1);
	sim_registry_unlock();
}

/* -- addresses ------------------------------------------------------------- */

/*
 *  0  u32  magic
 *  4  u8   version
 *  5  u8   side
 *  6  u32  process
 * 10  u64  number of the endpoint in it
 * 18  str  network
 */
size_t sim_ep_address_max(void)
{
	return 18 + 2 + sizeof(((struct sim_fabric *)NULL)->network) - 1;
}

ssize_t sim_ep_address(const struct via_ep *base, void *buf, size_t cap)
{
	const struct sim_ep *ep = (const struct sim_ep *)base;
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_u32(&w, ADDRESS_MAGIC);
	via_wire_put_u8(&w, ADDRESS_VERSION);
	via_wire_put_u8(&w, ep->side);
	via_wire_put_u32(&w, (uint32_t)getpid());
	via_wire_put_u64(&w, ep->number);
	via_wire_put_str(&w, ((const struct sim_fabric *)base->fab)->network);
	return via_wire_status(&w) ? via_wire_status(&w) : (ssize_t)w.pos;
}

/* The number of the endpoint that @addr names and @ep could connect to. */
static int parse_address(const struct sim_ep *ep, const void *addr, size_t len, uint64_t *number,
			 struct via_error *err)
{
	const char *own = ((const struct sim_fabric *)ep->base.fab)->network;
	struct via_wire w = via_wire_reader(addr, len);
	char network[sizeof(((struct sim_fabric *)NULL)->network)];
	uint32_t magic = via_wire_get_u32(&w);
	uint8_t version = via_wire_get_u8(&w);
	uint8_t side = via_wire_get_u8(&w);
	uint32_t process = via_wire_get_u32(&w);

	*number = via_wire_get_u64(&w);
	via_wire_get_str(&w, network, sizeof(network));
	if (via_wire_finish(&w) || magic != ADDRESS_MAGIC || version != ADDRESS_VERSION ||
	    (side != VIA_EP_ACTIVE && side != VIA_EP_PASSIVE) || side == ep->side)
		return via_fail(err, -EPROTO,
				"simulated endpoint\naddress of %zu bytes is malformed\n"
				"both sides must use sim, and one of them be passive",
				len);
	if (process != (uint32_t)getpid() || strcmp(network, own) != 0)
		return via_fail(err, -EHOSTUNREACH,
				"simulated network \"%s\"\npeer is in \"%s\" of process %u\n"
				"both ends must be in one process and name one network",
				own, network, process);
	return 0;
}

/* -- connecting ------------------------------------------------------------ */

static int fail_connect(struct sim_ep *ep, int status)
{
	ep->state = SIM_EP_FAILED;
	ep->status = status;
	eventfd_write(ep->event_fd, 1);
	return status;
}

/* Connect if the other side is there too; -EAGAIN while it is not. With the registry locked. */
static int meet(struct sim_ep *ep)
{
	struct sim_ep *peer;
	int ret;

	if (ep->aborted)
		return fail_connect(ep, -ECANCELED);
	if (ep->state == SIM_EP_CONNECTED)
		return 0;
	if (ep->state == SIM_EP_FAILED)
		return ep->status;
	peer = find(ep->peer_number);
	/* The number came from the peer: it may name anything, even ourselves. */
	if (!peer || peer->side == ep->side || peer->aborted || peer->state == SIM_EP_FAILED)
		return fail_connect(ep, -ECONNREFUSED);
	if (peer->state == SIM_EP_IDLE)
		return -EAGAIN;
	if (peer->state == SIM_EP_CONNECTED || peer->peer_number != ep->number)
		return fail_connect(ep, -ECONNREFUSED);
	if (!via_secret_equal(peer->nonce, ep->nonce, sizeof(ep->nonce))) {
		/* The passive side judges, as where the nonce travels with the request. */
		fail_connect(peer, peer->side == VIA_EP_PASSIVE ? -EACCES : -ECONNREFUSED);
		return fail_connect(ep, ep->side == VIA_EP_PASSIVE ? -EACCES : -ECONNREFUSED);
	}
	ret = sim_link_open(ep, peer);
	if (ret) {
		fail_connect(peer, ret);
		return fail_connect(ep, ret);
	}
	ep->state = SIM_EP_CONNECTED;
	peer->state = SIM_EP_CONNECTED;
	eventfd_write(peer->event_fd, 1);
	return 0;
}

/* Sleep until the registry may look different. 0, -ETIMEDOUT, -ECANCELED. */
static int await_change(const struct sim_ep *ep, const struct via_wait *wait)
{
	struct pollfd fds[2] = {{.fd = ep->event_fd, .events = POLLIN},
				{.fd = wait->cancel_fd, .events = POLLIN}};
	eventfd_t seen;

	poll(fds, 2, via_deadline_poll_ms(wait->deadline_ns));
	if (fds[1].revents)
		return -ECANCELED;
	if (fds[0].revents)
		eventfd_read(ep->event_fd, &seen);
	else if (via_deadline_passed(wait->deadline_ns))
		return -ETIMEDOUT;
	return 0;
}

int sim_ep_connect(struct via_ep *base, const void *addr, size_t addr_len, const uint8_t nonce[16],
		   const struct via_wait *wait, struct via_error *err)
{
	struct sim_ep *ep = (struct sim_ep *)base;
	uint64_t number;
	int ret = parse_address(ep, addr, addr_len, &number, err);

	if (ret)
		return ret;
	sim_registry_lock();
	if (ep->state != SIM_EP_IDLE) {
		sim_registry_unlock();
		return sim_caller_error();
	}
	ep->state = SIM_EP_CONNECTING;
	ep->peer_number = number;
	memcpy(ep->nonce, nonce, sizeof(ep->nonce));
	while ((ret = meet(ep)) == -EAGAIN) {
		sim_registry_unlock();
		ret = await_change(ep, wait);
		sim_registry_lock();
		if (ret && ep->state == SIM_EP_CONNECTING) {
			fail_connect(ep, ret);
			wake_waiting(ep->number);
		}
	}
	sim_registry_unlock();
	return ret ? via_fail(err, ret,
			      "simulated endpoint %u\nno connection to number %llu: %s\n"
			      "look at what its peer does",
			      base->id, (unsigned long long)number, via_err_text(ret))
		   : 0;
}
