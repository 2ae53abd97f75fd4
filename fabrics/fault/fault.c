/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault.c -- the fault injector's table and spec, and all that is set up through it.
 *
 * Must never be in the list of fabrics: nobody shall choose it by chance.
 *
 * Invariant: each object holds exactly one of the inner fabric's, made and released with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "fabrics/fault/wrap.h"

#define OWN_KEYS "fault-"

enum own_key { KEY_AFTER, KEY_SEED, KEY_TIMES, KEY_CALL, KEY_FLIP, KEY_DELAY };

static const struct via_fabric_key keys[] = {
	[KEY_AFTER] = {"fault-after", "an endpoint's completions, at most, until its link is cut",
		       0, UINT32_MAX},
	[KEY_SEED] = {"fault-seed", "where the choices of fault-after start", 0, UINT64_MAX},
	[KEY_TIMES] = {"fault-times", "cuts in this process at most", 0, UINT32_MAX},
	[KEY_CALL] = {"fault-call", "the set-up call of this process that fails; 0: none", 0,
		      UINT32_MAX},
	[KEY_FLIP] = {"fault-flip", "the write of this process that carries a wrong bit; 0: none",
		      0, UINT32_MAX},
	[KEY_DELAY] = {"fault-delay", "microseconds for which completions are held back", 0,
		       1000000},
	{NULL, NULL},
};

#define NKEYS (sizeof(keys) / sizeof(keys[0]) - 1)

static atomic_uint calls;

static struct fault_fabric *fabric_of(struct via_fabric *fab)
{
	return (struct fault_fabric *)fab;
}

static const struct via_fabric_ops *inner_ops(struct via_fabric *fab)
{
	return fabric_of(fab)->inner->ops;
}

unsigned via_fault_calls(void)
{
	return atomic_load(&calls);
}

void via_fault_reset(void)
{
	fault_reset_cuts();
	fault_reset_flips();
	atomic_store(&calls, 0);
}

/* Is this set-up call the one that fails? Then says so, and returns @code. */
static int injected(struct via_fabric *fab, const char *call, int code, struct via_error *err)
{
	unsigned n = atomic_fetch_add(&calls, 1) + 1;

	if (n != fabric_of(fab)->call)
		return 0;
	return via_fail(err, code,
			"%s over fault+%s\nthe fault was injected: set-up call %u of this process\n"
			"leave fault-call out of the fabric's spec",
			call, inner_ops(fab)->name, n);
}

/* -- the fabric ------------------------------------------------------------ */

static int get_keys(const struct via_fabric_spec *spec, struct fault_fabric *fab,
		    struct via_error *err)
{
	uint64_t value[NKEYS] = {[KEY_SEED] = 1, [KEY_TIMES] = 1};

	for (size_t i = 0; i < NKEYS; i++) {
		int ret = via_fabric_spec_get_number(spec, keys[i].name, keys[i].min, keys[i].max,
						     &value[i], err);

		if (ret)
			return ret;
	}
	fab->after = value[KEY_AFTER];
	fab->seed = value[KEY_SEED];
	fab->times = value[KEY_TIMES];
	fab->call = value[KEY_CALL];
	fab->flip = value[KEY_FLIP];
	fab->delay_ns = value[KEY_DELAY] * VIA_NS_PER_US;
	return 0;
}

/* What the inner fabric is to open. */
static struct via_fabric_spec inner_spec(const struct via_fabric_spec *spec)
{
	struct via_fabric_spec inner = *spec;

	snprintf(inner.name, sizeof(inner.name), "%s", spec->name + strlen(VIA_FAULT_PREFIX));
	inner.nkeys = 0;
	for (unsigned i = 0; i < spec->nkeys; i++)
		if (strncmp(spec->key[i].name, OWN_KEYS, strlen(OWN_KEYS)) != 0)
			inner.key[inner.nkeys++] = spec->key[i];
	return inner;
}

static int fault_open(const struct via_fabric_spec *spec, struct via_fabric **fab,
		      struct via_error *err)
{
	struct via_fabric_spec inner = inner_spec(spec);
	struct fault_fabric *new = calloc(1, sizeof(*new));
	int ret;

	if (!new)
		return via_fail(err, -ENOMEM, "fabric %s\nno memory\nfree some memory", spec->name);
	ret = get_keys(spec, new, err);
	if (!ret)
		ret = via_fabric_open(&inner, &new->inner, err);
	if (ret) {
		free(new);
		return ret;
	}
	new->base.ops = &via_fault_ops;
	new->base.caps = new->inner->caps;
	if (new->base.caps.sge_max > FAULT_SGE_MAX)
		new->base.caps.sge_max = FAULT_SGE_MAX;
	*fab = &new->base;
	return 0;
}

static void fault_close(struct via_fabric *fab)
{
	if (fab)
		inner_ops(fab)->close(fabric_of(fab)->inner);
	free(fabric_of(fab));
}

/* Nothing to show. Who names such a fabric learns at open() whether it works. */
static int fault_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
		       struct via_error *err)
{
	(void)found;
	(void)arg;
	(void)err;
	return 0;
}

/* -- endpoints ------------------------------------------------------------- */

/* A number from 1 to fault-after that depends on the seed, the endpoint's turn and its side. */
static uint64_t choose_cut(const struct fault_fabric *fab, enum via_ep_side side)
{
	/* splitmix64 */
	uint64_t z = fab->seed + (2 * fab->eps_opened + (side == VIA_EP_PASSIVE) + 1) *
					 UINT64_C(0x9e3779b97f4a7c15);

	if (!fab->after)
		return 0;
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return 1 + (z ^ (z >> 31)) % fab->after;
}

static struct fault_ep *ep_new(struct via_fabric *base, struct via_error *err)
{
	const struct fault_fabric *fab = fabric_of(base);
	unsigned cap = fab->delay_ns ? base->caps.tx_depth + base->caps.rx_depth : 0;
	struct fault_ep *ep = calloc(1, sizeof(*ep) + cap * sizeof(ep->held[0]));

	if (!ep) {
		via_fail(err, -ENOMEM, "endpoint that injects faults\nno memory\nfree some memory");
		return NULL;
	}
	ep->base.fab = base;
	ep->held_cap = cap;
	ep->epoll_fd = -1;
	ep->timer_fd = -1;
	return ep;
}

static int fault_ep_open(struct via_fabric *base, enum via_ep_side side, struct via_ep **ep,
			 struct via_error *err)
{
	struct fault_fabric *fab = fabric_of(base);
	struct fault_ep *new;
	int ret = injected(base, "ep_open", -ENOMEM, err);

	if (ret)
		return ret;
	new = ep_new(base, err);
	if (!new)
		return -ENOMEM;
	if (fab->delay_ns)
		ret = fault_sleep_init(new, err);
	if (!ret)
		ret = inner_ops(base)->ep_open(fab->inner, side, &new->inner, err);
	if (!ret && fab->flip)
		ret = fault_flip_init(new, err);
	if (ret) {
		inner_ops(base)->ep_close(new->inner);
		fault_flip_fini(new);
		fault_sleep_fini(new);
		free(new);
		return ret;
	}
	new->base.id = new->inner->id;
	new->base.device = new->inner->device;
	new->cut_in = choose_cut(fab, side);
	fab->eps_opened++;
	*ep = &new->base;
	return 0;
}

static ssize_t fault_ep_address(const struct via_ep *base, void *buf, size_t cap)
{
	const struct fault_ep *ep = (const struct fault_ep *)base;

	return inner_ops(base->fab)->ep_address(ep->inner, buf, cap);
}

static int fault_ep_connect(struct via_ep *base, const void *addr, size_t addr_len,
			    const uint8_t nonce[16], const struct via_wait *wait,
			    struct via_error *err)
{
	struct fault_ep *ep = (struct fault_ep *)base;
	struct via_error why = {0};
	int ret = injected(base->fab, "ep_connect", -ECONNREFUSED, err);

	if (ret)
		return ret;
	ret = inner_ops(base->fab)->ep_connect(ep->inner, addr, addr_len, nonce, wait, &why);
	if (ret == -ECANCELED && fault_is_lost(ep))
		return via_fail(err, -ECONNREFUSED,
				"ep_connect over fault+%s\nthe fault was injected: its link was "
				"cut\nconnect another endpoint",
				inner_ops(base->fab)->name);
	if (ret)
		(void)via_error_pass(err, &why);
	return ret;
}

static void fault_ep_close(struct via_ep *base)
{
	struct fault_ep *ep = (struct fault_ep *)base;

	if (!ep)
		return;
	inner_ops(base->fab)->ep_close(ep->inner);
	fault_flip_fini(ep);
	fault_sleep_fini(ep);
	free(ep);
}

static void fault_ep_abort(struct via_ep *base)
{
	struct fault_ep *ep = (struct fault_ep *)base;

	atomic_store(&ep->aborted, true);
	inner_ops(base->fab)->ep_abort(ep->inner);
}

/* -- memory ---------------------------------------------------------------- */

static int fault_mr_reg(struct via_fabric *fab, void *addr, size_t len, unsigned access,
			struct via_mr **mr, struct via_error *err)
{
	struct fault_mr *new;
	int ret = injected(fab, "mr_reg", -ENOMEM, err);

	if (ret)
		return ret;
	new = calloc(1, sizeof(*new));
	if (!new)
		return via_fail(err, -ENOMEM,
				"region that injects faults\nno memory\nfree some memory");
	ret = inner_ops(fab)->mr_reg(fabric_of(fab)->inner, addr, len, access, &new->inner, err);
	if (ret) {
		free(new);
		return ret;
	}
	new->base = (struct via_mr){fab, addr, len};
	*mr = &new->base;
	return 0;
}

static void fault_mr_dereg(struct via_mr *base)
{
	struct fault_mr *mr = (struct fault_mr *)base;

	if (mr)
		inner_ops(base->fab)->mr_dereg(mr->inner);
	free(mr);
}

static ssize_t fault_rkey_pack(const struct via_mr *mr, struct via_ep *ep, void *buf, size_t cap)
{
	int ret = injected(mr->fab, "rkey_pack", -ENOMEM, NULL);

	return ret ? ret
		   : inner_ops(mr->fab)->rkey_pack(((const struct fault_mr *)mr)->inner,
						   ((struct fault_ep *)ep)->inner, buf, cap);
}

static int fault_rkey_unpack(struct via_ep *ep, const void *buf, size_t len, uint64_t region_len,
			     struct via_rkey **rkey, struct via_error *err)
{
	struct fault_rkey *new;
	int ret = injected(ep->fab, "rkey_unpack", -ENOMEM, err);

	if (ret)
		return ret;
	new = calloc(1, sizeof(*new));
	if (!new)
		return via_fail(err, -ENOMEM,
				"key that injects faults\nno memory\nfree some memory");
	ret = inner_ops(ep->fab)->rkey_unpack(((struct fault_ep *)ep)->inner, buf, len, region_len,
					      &new->inner, err);
	if (ret) {
		free(new);
		return ret;
	}
	new->base = (struct via_rkey){ep, region_len};
	*rkey = &new->base;
	return 0;
}

static void fault_rkey_free(struct via_rkey *base)
{
	struct fault_rkey *rkey = (struct fault_rkey *)base;

	if (rkey)
		inner_ops(base->ep->fab)->rkey_free(rkey->inner);
	free(rkey);
}

const struct via_fabric_ops via_fault_ops = {
	.name = "fault",
	.keys = keys,
	.probe = fault_probe,
	.open = fault_open,
	.close = fault_close,
	.ep_open = fault_ep_open,
	.ep_address = fault_ep_address,
	.ep_connect = fault_ep_connect,
	.ep_close = fault_ep_close,
	.ep_abort = fault_ep_abort,
	.mr_reg = fault_mr_reg,
	.mr_dereg = fault_mr_dereg,
	.rkey_pack = fault_rkey_pack,
	.rkey_unpack = fault_rkey_unpack,
	.rkey_free = fault_rkey_free,
	.post_write = fault_post_write,
	.post_send = fault_post_send,
	.post_recv = fault_post_recv,
	.poll = fault_poll,
	.arm = fault_arm,
};
