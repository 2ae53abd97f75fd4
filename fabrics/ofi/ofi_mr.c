/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_mr.c -- memory registration and the keys that travel.
 *
 * Memory is registered with the least access: local memory only where the provider wants that
 * at all, guest memory for remote writes and nothing else. Where the application chooses
 * keys they are random 64-bit numbers, so that one cannot be guessed from another. Who was given a key
 * is written down: when the memory is given up, those endpoints take no more writes.
 *
 * A packed key, big-endian: u8 version (1), u8 flags (bit 0: raw), u16 length and name of the lane that
 * takes the writes, u64 address of byte 0 (0 where the provider counts from the region's
 * start), then u64 key, or u16 length and raw key.
 */
#include "fabrics/ofi/ofi.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/wire.h"

#define KEY_VERSION 1u
#define KEY_RAW     1u
#define KEY_TRIES   16u

static uint64_t provider_access(unsigned access)
{
	return access & VIA_MR_REMOTE_WRITE ? FI_REMOTE_WRITE : FI_SEND | FI_RECV | FI_WRITE;
}

static int random_key(const struct ofi_fabric *fab, uint64_t *key)
{
	size_t len = fab->info->domain_attr->mr_key_size;

	if (getrandom(key, sizeof(*key), 0) != (ssize_t)sizeof(*key))
		return -FI_EIO;
	if (len < sizeof(*key))
		*key &= (UINT64_C(1) << (8 * len)) - 1;
	return 0;
}

/* Register with the domain of @lane, or with the fabric's (NULL). */
static int register_with(struct ofi_fabric *fab, const struct ofi_mr *mr, struct ofi_lane *lane,
			 struct fid_mr **fid)
{
	struct fid_domain *domain = lane ? lane->domain.domain : fab->shared.domain;
	uint64_t key = 0;
	unsigned tries = 0;
	int rc;

	do {
		rc = fab->mr_mode & FI_MR_PROV_KEY ? 0 : random_key(fab, &key);
		if (!rc)
			rc = fi_mr_reg(domain, mr->base.addr, mr->base.len,
				       provider_access(mr->access), 0, key, 0, fid, NULL);
	} while (rc == -FI_ENOKEY && ++tries < KEY_TRIES); /* taken: choose another */
	if (rc || !(fab->mr_mode & FI_MR_ENDPOINT))
		return rc;
	rc = fi_mr_bind(*fid, &lane->ep->fid, 0);
	if (!rc)
		rc = fi_mr_enable(*fid);
	if (rc)
		fi_close(&(*fid)->fid);
	return rc;
}

/* Zeroed. One that was given up before, where there is any. */
static struct ofi_mr *new_mr(struct ofi_fabric *fab)
{
	struct ofi_mr *mr = fab->spare_mrs;

	if (!mr)
		return calloc(1, sizeof(*mr));
	fab->spare_mrs = mr->next;
	memset(mr, 0, sizeof(*mr));
	return mr;
}

static void retire_mr(struct ofi_fabric *fab, struct ofi_mr *mr)
{
	mr->next = fab->spare_mrs;
	fab->spare_mrs = mr;
}

void ofi_mr_fini(struct ofi_fabric *fab)
{
	struct ofi_mr *mr;

	while ((mr = fab->spare_mrs)) {
		fab->spare_mrs = mr->next;
		free(mr);
	}
}

int ofi_mr_reg(struct via_fabric *base, void *addr, size_t len, unsigned access,
	       struct via_mr **out, struct via_error *err)
{
	struct ofi_fabric *fab = (struct ofi_fabric *)base;
	bool needed = access & VIA_MR_REMOTE_WRITE || fab->mr_mode & FI_MR_LOCAL;
	struct ofi_mr *mr = new_mr(fab);
	int rc = 0;

	if (!mr)
		return via_fail(err, -ENOMEM, "register memory\nout of memory\nfree some memory");
	mr->base = (struct via_mr){.fab = base, .addr = addr, .len = len};
	mr->access = access;
	if (needed && (fab->own_domains || fab->mr_mode & FI_MR_ENDPOINT)) {
		mr->by_lane = calloc(OFI_EPS_MAX * OFI_LANES, sizeof(struct fid_mr *));
		rc = mr->by_lane ? 0 : -FI_ENOMEM;
	} else if (needed) {
		rc = register_with(fab, mr, NULL, &mr->fid);
	}
	if (rc) {
		retire_mr(fab, mr);
		return via_fail(err, ofi_code(rc),
				"register %zu bytes with ofi:%s\n%s\n"
				"check the limit of locked memory (ulimit -l) and free memory",
				len, fab->provider, fi_strerror(-rc));
	}
	atomic_store(&mr->serial, ++fab->next_serial);
	mr->next = fab->mrs;
	fab->mrs = mr;
	*out = &mr->base;
	return 0;
}

/* The endpoints whose peers hold a key take no write from here on. */
static void revoke_given(const struct ofi_mr *mr)
{
	const struct ofi_fabric *fab = (const struct ofi_fabric *)mr->base.fab;

	for (unsigned i = 0; i < mr->ngiven; i++) {
		struct ofi_ep *ep = fab->ep[mr->given[i].id];

		if (ep && ep->serial == mr->given[i].serial)
			ofi_ep_revoke(ep);
	}
}

static int note_given(struct ofi_mr *mr, const struct ofi_ep *ep)
{
	struct ofi_given *given;

	for (unsigned i = 0; i < mr->ngiven; i++)
		if (mr->given[i].serial == ep->serial)
			return 0;
	given = realloc(mr->given, (mr->ngiven + 1) * sizeof(*given));
	if (!given)
		return -ENOMEM;
	mr->given = given;
	mr->given[mr->ngiven++] = (struct ofi_given){.id = ep->base.id, .serial = ep->serial};
	return 0;
}

void ofi_mr_dereg(struct via_mr *base)
{
	struct ofi_mr *mr = (struct ofi_mr *)base, **at;
	struct ofi_fabric *fab;

	if (!mr)
		return;
	fab = (struct ofi_fabric *)base->fab;
	/* Writes from it that wait are given to the provider now or never. */
	atomic_store(&mr->serial, 0);
	for (unsigned i = 0; i < OFI_EPS_MAX; i++)
		if (fab->ep[i])
			ofi_ep_pass(fab->ep[i]);
	revoke_given(mr);
	for (at = &fab->mrs; *at != mr; at = &(*at)->next)
		;
	*at = mr->next;
	if (mr->fid)
		fi_close(&mr->fid->fid);
	for (unsigned i = 0; mr->by_lane && i < OFI_EPS_MAX * OFI_LANES; i++)
		if (mr->by_lane[i])
			fi_close(&mr->by_lane[i]->fid);
	free(mr->by_lane);
	free(mr->given);
	retire_mr(fab, mr);
}

static unsigned slot_of(const struct ofi_ep *ep, enum ofi_lane_kind kind)
{
	return ep->base.id * OFI_LANES + kind;
}

void ofi_mr_forget(struct ofi_ep *ep, enum ofi_lane_kind kind)
{
	unsigned slot = slot_of(ep, kind);

	for (struct ofi_mr *mr = ((struct ofi_fabric *)ep->base.fab)->mrs; mr; mr = mr->next) {
		if (!mr->by_lane || !mr->by_lane[slot])
			continue;
		fi_close(&mr->by_lane[slot]->fid);
		mr->by_lane[slot] = NULL;
	}
}

/*
 * The registration that serves a lane of @ep; NULL where none is needed. A slot is used by its
 * endpoint's owner alone.
 */
static int fid_for(const struct ofi_mr *mr, struct ofi_ep *ep, enum ofi_lane_kind kind,
		   struct fid_mr **fid)
{
	struct fid_mr **slot;

	*fid = mr->fid;
	if (!mr->by_lane)
		return 0;
	if (!ep->lane[kind].ep)
		return -ECONNRESET;
	slot = &mr->by_lane[slot_of(ep, kind)];
	if (!*slot) {
		int rc =
			register_with((struct ofi_fabric *)mr->base.fab, mr, &ep->lane[kind], slot);

		if (rc) {
			*slot = NULL;
			return ofi_code(rc);
		}
	}
	*fid = *slot;
	return 0;
}

int ofi_mr_desc(const struct via_mr *base, struct ofi_ep *ep, enum ofi_lane_kind kind, void **desc)
{
	struct fid_mr *fid;
	int rc = fid_for((const struct ofi_mr *)base, ep, kind, &fid);

	if (!rc)
		*desc = fid ? fi_mr_desc(fid) : NULL;
	return rc;
}

size_t ofi_rkey_max(const struct fi_info *info)
{
	return info->domain_attr->mr_mode & FI_MR_RAW ? 14 + OFI_ADDR_MAX + OFI_RAW_KEY_MAX
						      : 20 + OFI_ADDR_MAX;
}

static int put_raw(struct via_wire *w, struct fid_mr *fid)
{
	uint8_t raw[OFI_RAW_KEY_MAX];
	uint64_t addr;
	size_t len = sizeof(raw);
	int rc = fi_mr_raw_attr(fid, &addr, raw, &len, 0);

	if (rc)
		return ofi_code(rc);
	via_wire_put_u64(w, addr);
	via_wire_put_u16(w, (uint16_t)len);
	via_wire_put_bytes(w, raw, len);
	return 0;
}

ssize_t ofi_rkey_pack(const struct via_mr *base, struct via_ep *ep, void *buf, size_t cap)
{
	struct ofi_mr *mr = (struct ofi_mr *)(uintptr_t)base; /* const to its user, not to us */
	const struct ofi_fabric *fab = (const struct ofi_fabric *)base->fab;
	bool raw = fab->mr_mode & FI_MR_RAW;
	struct via_wire w = via_wire_writer(buf, cap);
	struct ofi_ep *oep = (struct ofi_ep *)ep;
	struct fid_mr *fid;
	int rc = mr->access & VIA_MR_REMOTE_WRITE ? ofi_ep_need_lane(oep, OFI_IN) : -EINVAL;

	if (!rc)
		rc = fid_for(mr, oep, OFI_IN, &fid);
	if (!rc)
		rc = note_given(mr, oep);
	if (rc)
		return rc;
	via_wire_put_u8(&w, KEY_VERSION);
	via_wire_put_u8(&w, raw ? KEY_RAW : 0);
	rc = ofi_ep_put_name(&w, &oep->lane[OFI_IN]);
	if (rc)
		return rc;
	if (raw) {
		rc = put_raw(&w, fid);
	} else {
		via_wire_put_u64(&w, fab->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)base->addr : 0);
		via_wire_put_u64(&w, fi_mr_key(fid));
	}
	if (!rc)
		rc = via_wire_status(&w);
	return rc ? rc : (ssize_t)w.pos;
}

static int get_raw(struct via_wire *w, struct fid_domain *domain, struct ofi_rkey *key)
{
	uint16_t len = via_wire_get_u16(w);
	const uint8_t *view = via_wire_get_view(w, len);
	uint8_t raw[OFI_RAW_KEY_MAX];

	if (!view || len > sizeof(raw) || via_wire_finish(w))
		return -EPROTO;
	memcpy(raw, view, len);
	if (fi_mr_map_raw(domain, key->addr, raw, len, &key->key, 0))
		return -EPROTO;
	key->mapped = true;
	return 0;
}

static int decode_key(struct ofi_ep *ep, struct via_wire *w, uint64_t region_len,
		      struct ofi_rkey *key)
{
	const struct ofi_fabric *fab = (const struct ofi_fabric *)ep->base.fab;
	bool raw = fab->mr_mode & FI_MR_RAW;
	struct ofi_lane *lane = &ep->lane[OFI_OUT];
	struct via_wire rest;

	if (via_wire_get_u8(w) != KEY_VERSION || via_wire_get_u8(w) != (raw ? KEY_RAW : 0))
		return -EPROTO;
	rest = *w; /* look behind the name first: nothing is taken of a malformed key */
	(void)via_wire_get_view(&rest, via_wire_get_u16(&rest));
	key->addr = via_wire_get_u64(&rest);
	if (!raw)
		key->key = via_wire_get_u64(&rest);
	if ((raw ? via_wire_status(&rest) : via_wire_finish(&rest)) ||
	    key->addr > UINT64_MAX - region_len || ofi_ep_take_name(ep, lane, w, &key->peer))
		return -EPROTO;
	return raw ? get_raw(&rest, lane->domain.domain, key) : 0;
}

int ofi_rkey_unpack(struct via_ep *base, const void *buf, size_t len, uint64_t region_len,
		    struct via_rkey **out, struct via_error *err)
{
	struct ofi_ep *ep = (struct ofi_ep *)base;
	struct via_wire w = via_wire_reader(buf, len);
	struct ofi_rkey *key = calloc(1, sizeof(*key));
	int rc = key ? ofi_ep_need_lane(ep, OFI_OUT) : -ENOMEM;

	if (rc) {
		free(key);
		return via_fail(err, rc,
				"take a key of the peer\n%s\nsee the first error of this session",
				via_err_text(rc));
	}
	key->base = (struct via_rkey){.ep = base, .len = region_len};
	rc = decode_key(ep, &w, region_len, key);
	if (!rc) {
		*out = &key->base;
		return 0;
	}
	free(key);
	return via_fail(err, rc,
			"take a key of the peer\n%zu bytes that are no key of ofi:%s\n"
			"give both sides the same --fabric",
			len, ((struct ofi_fabric *)base->fab)->provider);
}

void ofi_rkey_free(struct via_rkey *base)
{
	struct ofi_rkey *key = (struct ofi_rkey *)base;

	if (!key)
		return;
	if (key->mapped)
		fi_mr_unmap_key(((struct ofi_ep *)base->ep)->lane[OFI_OUT].domain.domain, key->key);
	free(key);
}
