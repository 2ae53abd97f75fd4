/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_mr.c -- memory registration, the keys that travel, and how they are revoked.
 *
 * With memory windows the registration gives no peer any right; each key is a window bound on one
 * endpoint's queue pair, with the right to write and no other. Without, the key is the
 * registration's. Never with relaxed ordering: what has been placed before a message must be
 * seen by who receives it.
 *
 * Invariant: a registration is given up only after all windows onto it, and only the set-up
 * thread touches either. Freeing a window needs no queue, so that it never waits for an owner.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "fabrics/verbs/verbs.h"

/* -- windows ------------------------------------------------------------------------ */

/* Unbinds it as well: from here on its key opens nothing. */
static void free_window(struct verbs_window *w)
{
	int rc = ibv_dealloc_mw(w->mw);

	if (rc)
		via_log("verbs: ibv_dealloc_mw on %s: %s", w->ep->rail->name, strerror(rc));
	free(w);
}

static void free_windows(struct verbs_mr *mr, const struct verbs_ep *of)
{
	struct verbs_window **at = &mr->windows;

	while (*at) {
		struct verbs_window *w = *at;

		if (of && w->ep != of) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free_window(w);
	}
}

void verbs_forget_windows(struct verbs_ep *ep)
{
	for (struct verbs_mr *mr = ((struct verbs_fabric *)ep->base.fab)->mrs; mr; mr = mr->next)
		free_windows(mr, ep);
}

/* The window of @ep's peer onto @mr, made at first use. */
static int need_window(struct verbs_mr *mr, struct verbs_ep *ep, uint32_t *rkey)
{
	struct verbs_window *w;
	int rc;

	for (w = mr->windows; w; w = w->next)
		if (w->ep == ep) {
			*rkey = w->rkey;
			return 0;
		}
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->ep = ep;
	w->mw = ibv_alloc_mw(ep->rail->pd, IBV_MW_TYPE_2);
	if (!w->mw) {
		rc = verbs_code(errno);
		free(w);
		return rc;
	}
	w->rkey = ibv_inc_rkey(w->mw->rkey);
	rc = verbs_bind(ep, w->mw, mr, w->rkey);
	if (rc) {
		free_window(w);
		return rc;
	}
	w->mw->rkey = w->rkey; /* libibverbs leaves it to the caller after a bind that was posted */
	w->next = mr->windows;
	mr->windows = w;
	*rkey = w->rkey;
	return 0;
}

/* -- registration ------------------------------------------------------------------- */

static int access_flags(const struct verbs_fabric *fab, unsigned access)
{
	int flags = IBV_ACCESS_LOCAL_WRITE;

	if (access & VIA_MR_REMOTE_WRITE)
		flags |= fab->windows ? IBV_ACCESS_MW_BIND : IBV_ACCESS_REMOTE_WRITE;
	if (!fab->settings.pin)
		flags |= IBV_ACCESS_ON_DEMAND;
	return flags;
}

/* With every rail, for any endpoint may use it. Nothing is registered after a failure. */
static int register_all(const struct verbs_fabric *fab, struct verbs_mr *mr, struct via_error *err)
{
	int flags = access_flags(fab, mr->access), rc;

	for (unsigned i = 0; i < fab->nrails; i++) {
		mr->by_rail[i] = ibv_reg_mr(fab->rail[i].pd, mr->base.addr, mr->base.len, flags);
		if (mr->by_rail[i])
			continue;
		rc = verbs_fail_memory("register memory with verbs", mr->base.len, errno, err);
		while (i--)
			ibv_dereg_mr(mr->by_rail[i]);
		return rc;
	}
	return 0;
}

int verbs_mr_reg(struct via_fabric *base, void *addr, size_t len, unsigned access,
		 struct via_mr **out, struct via_error *err)
{
	struct verbs_fabric *fab = (struct verbs_fabric *)base;
	struct verbs_mr *mr = calloc(1, sizeof(*mr));
	int rc;

	if (!mr)
		return via_fail(err, -ENOMEM, "register memory\nout of memory\nfree some memory");
	mr->base = (struct via_mr){.fab = base, .addr = addr, .len = len};
	mr->access = access;
	rc = register_all(fab, mr, err);
	if (rc) {
		free(mr);
		return rc;
	}
	mr->next = fab->mrs;
	fab->mrs = mr;
	*out = &mr->base;
	return 0;
}

/*
 * The registration could not be given up, which no device should refuse: shut every door to it.
 * A queue pair in the error state takes no more writes, whatever key they show.
 */
static void revoke_by_force(struct verbs_fabric *fab, struct ibv_mr *mr, unsigned rail, int errnum)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	via_log("verbs: ibv_dereg_mr on %s: %s: its endpoints are stopped", fab->rail[rail].name,
		strerror(errnum));
	for (unsigned i = 0; i < VERBS_EPS_MAX; i++)
		if (fab->ep[i] && fab->ep[i]->rail == &fab->rail[rail])
			(void)ibv_modify_qp(fab->ep[i]->qp, &attr, IBV_QP_STATE);
	(void)ibv_dereg_mr(mr);
}

void verbs_mr_dereg(struct via_mr *base)
{
	struct verbs_mr *mr = (struct verbs_mr *)base, **at;
	struct verbs_fabric *fab;

	if (!mr)
		return;
	fab = (struct verbs_fabric *)base->fab;
	for (at = &fab->mrs; *at != mr; at = &(*at)->next)
		;
	*at = mr->next;
	free_windows(mr, NULL);
	for (unsigned i = 0; i < fab->nrails; i++) {
		int rc = ibv_dereg_mr(mr->by_rail[i]);

		if (rc)
			revoke_by_force(fab, mr->by_rail[i], i, rc);
	}
	free(mr);
}

/* -- keys --------------------------------------------------------------------------- */

ssize_t verbs_rkey_pack(const struct via_mr *base, struct via_ep *bep, void *buf, size_t cap)
{
	struct verbs_mr *mr = (struct verbs_mr *)(uintptr_t)base; /* const to its user, not to us */
	const struct verbs_fabric *fab = (const struct verbs_fabric *)base->fab;
	struct verbs_ep *ep = (struct verbs_ep *)bep;
	struct verbs_key key = {.addr = (uintptr_t)base->addr};

	if (!(mr->access & VIA_MR_REMOTE_WRITE))
		return -EINVAL;
	if (cap < VERBS_KEY_LEN)
		return -ENOBUFS;
	if (fab->windows) {
		int rc = need_window(mr, ep, &key.rkey);

		if (rc)
			return rc;
	} else {
		key.rkey = mr->by_rail[ep->rail - fab->rail]->rkey;
	}
	return verbs_key_encode(&key, buf, cap);
}

int verbs_rkey_unpack(struct via_ep *ep, const void *buf, size_t len, uint64_t region_len,
		      struct via_rkey **out, struct via_error *err)
{
	struct verbs_rkey *key = calloc(1, sizeof(*key));
	int rc = key ? verbs_key_decode(buf, len, region_len, &key->key) : -ENOMEM;

	if (rc) {
		free(key);
		return via_fail(err, rc,
				"take a key of the peer\n%zu bytes that are no key of verbs: %s\n"
				"give both sides the same --fabric",
				len, via_err_text(rc));
	}
	key->base = (struct via_rkey){.ep = ep, .len = region_len};
	*out = &key->base;
	return 0;
}

void verbs_rkey_free(struct via_rkey *key)
{
	free(key);
}
