/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * case_connect.c -- addresses, keys and nonces that are not what they should be, and peers that
 * do not come.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/contract/contract.h"

#define SHORT_NS  (20 * VIA_NS_PER_MS)   /* a deadline that is meant to pass */
#define SLACK_NS  (1500 * VIA_NS_PER_MS) /* by which a busy machine may miss it */
#define BYTES_MAX 1024u

static const uint8_t nonce[16] = "contract's nonce";
static const uint8_t other_nonce[16] = "another's nonce.";

/* What back ends hand out starts and looks differently; none may take another's. */
static const struct {
	const char *bytes;
	size_t len;
} foreign[] = {
	{"", 0},
	{"\0", 1},
	{"VISM\x01\x01\0\0\x10\x01\0\0\0\0\0\0\0\x07\0\0", 20},
	{"VSKY\x01\0\xc0\xff\xee\0\0\0\x01\x12\x34\x56\x78\x9a\xbc\xde\xf0", 21},
	{"fi_shm://4711:0:0\0", 18},
	{"\x02\0\x1f\x90\x7f\0\0\x01\0\0\0\0\0\0\0\0", 16},
	{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 20},
};

#define NFOREIGN (sizeof(foreign) / sizeof(foreign[0]))

/* -- addresses ------------------------------------------------------------- */

/* A fresh endpoint of @side connects to @addr: what comes of it, within the deadline. */
static int try_connect(struct contract *t, struct side *side, const void *addr, size_t len)
{
	struct via_wait wait = {via_deadline_in(SHORT_NS), -1};
	struct via_error err = {0};
	/* Just so long, that a read beyond its end is seen. */
	void *copy = malloc(len ? len : 1);
	struct via_ep *ep;
	int ret = side->ops->ep_open(side->fab, VIA_EP_ACTIVE, &ep, &err);

	if (ret) {
		contract_fail(t, "ep_open: %s", via_err_name(ret));
		free(copy);
		return ret;
	}
	memcpy(copy, addr, len);
	ret = side->ops->ep_connect(ep, copy, len, nonce, &wait, &err);
	if (ret)
		contract_explained(t, "ep_connect", ret, &err);
	if (via_deadline_passed(wait.deadline_ns + SLACK_NS))
		contract_fail(t, "ep_connect kept no deadline");
	side->ops->ep_close(ep);
	free(copy);
	return ret;
}

void case_bad_address(struct contract *t)
{
	uint8_t addr[BYTES_MAX];
	struct side a = {0}, b = {0};
	uint64_t random = 3;
	ssize_t len;
	int ret;

	if (!side_open(t, &a, VIA_EP_ACTIVE, 0, 4096) || !side_open(t, &b, VIA_EP_PASSIVE, 1, 4096))
		goto out;
	len = b.ops->ep_address(b.end[0].ep, addr, sizeof(addr));
	/* Each needs a fresh endpoint, which some back ends make slowly: not quite every length. */
	for (ssize_t n = 0; t->verdict == PASS && n < len; n += n < 16 || n + 4 >= len ? 1 : 3)
		if ((ret = try_connect(t, &a, addr, (size_t)n)) != -EPROTO)
			contract_fail(t, "an address cut to %zd of %zd bytes: %s", n, len,
				      via_err_name(ret));
	for (unsigned i = 0; t->verdict == PASS && i < NFOREIGN; i++)
		if (!try_connect(t, &a, foreign[i].bytes, foreign[i].len))
			contract_fail(t, "another back end's address %u was taken", i);
	for (unsigned i = 0; t->verdict == PASS && i < 24; i++) {
		uint8_t bit = (uint8_t)(1u << pick(&random, 8));
		size_t at = pick(&random, (size_t)len);

		if (addr[at] == 127) /* of 127.0.0.1: nothing shall leave this host */
			continue;
		addr[at] ^= bit;
		if (!try_connect(t, &a, addr, (size_t)len))
			contract_fail(t, "address with byte %zu changed: connected", at);
		addr[at] ^= bit;
	}
out:
	side_close(&a);
	side_close(&b);
}

/* -- keys ------------------------------------------------------------------ */

static int try_key(struct contract *t, struct pair *pair, const void *bytes, size_t len)
{
	struct via_rkey *rkey = NULL;
	struct via_error err = {0};
	void *copy = malloc(len ? len : 1);
	int ret;

	memcpy(copy, bytes, len);
	ret = pair->a.ops->rkey_unpack(pair->a.end[0].ep, copy, len, 4096, &rkey, &err);
	if (!ret)
		pair->a.ops->rkey_free(rkey);
	else
		contract_explained(t, "rkey_unpack", ret, &err);
	free(copy);
	return ret;
}

void case_bad_key(struct contract *t)
{
	uint8_t key[BYTES_MAX];
	struct pair pair;
	ssize_t len;
	int ret;

	if (!pair_open(t, &pair, 1, 4096))
		goto out;
	len = pair.b.ops->rkey_pack(pair.b.mr, pair.b.end[0].ep, key, sizeof(key));
	for (ssize_t n = 0; t->verdict == PASS && n < len; n++)
		if ((ret = try_key(t, &pair, key, (size_t)n)) != -EPROTO)
			contract_fail(t, "a key cut to %zd of %zd bytes: %s", n, len,
				      via_err_name(ret));
	for (unsigned i = 0; t->verdict == PASS && i < NFOREIGN; i++)
		if ((ret = try_key(t, &pair, foreign[i].bytes, foreign[i].len)) != -EPROTO)
			contract_fail(t, "another back end's key %u: %s", i, via_err_name(ret));
	/* A changed key may look right; it must not hurt the one who unpacks it. */
	for (ssize_t bit = 0; t->verdict == PASS && bit < 8 * len; bit++) {
		key[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ret = try_key(t, &pair, key, (size_t)len);
		if (ret && ret != -EPROTO)
			contract_fail(t, "a key with bit %zd changed: %s", bit, via_err_name(ret));
		key[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	if (t->verdict == PASS && end_write(t, &pair.a.end[0], 0, 0, 64, ctx_of(0)))
		end_until(t, &pair.a.end[0], VIA_COMP_WRITE, 1);
out:
	pair_close(&pair);
}

/* -- the other side -------------------------------------------------------- */

struct connecting {
	struct side *side, *peer;
	const uint8_t *nonce;
	uint64_t deadline_ns;
	int cancel_fd;
	int ret;
	uint64_t returned_ns;
};

static void connect_side(struct contract *t, void *arg)
{
	struct connecting *c = arg;
	struct via_wait wait = {c->deadline_ns, c->cancel_fd};
	struct via_error err = {0};
	uint8_t addr[BYTES_MAX];
	ssize_t len = c->peer->ops->ep_address(c->peer->end[0].ep, addr, sizeof(addr));

	if (len <= 0) {
		contract_fail(t, "ep_address returns %zd", len);
		return;
	}
	c->ret = c->side->ops->ep_connect(c->side->end[0].ep, addr, (size_t)len, c->nonce, &wait,
					  &err);
	c->returned_ns = via_now_ns();
	if (c->ret)
		contract_explained(t, "ep_connect", c->ret, &err);
}

static bool open_sides(struct contract *t, struct side *a, struct side *b)
{
	return side_open(t, a, VIA_EP_ACTIVE, 1, 4096) && side_open(t, b, VIA_EP_PASSIVE, 1, 4096);
}

void case_wrong_nonce(struct contract *t)
{
	for (unsigned round = 0; t->verdict == PASS && round < 2; round++) {
		struct side a = {0}, b = {0};
		uint64_t deadline_ns = via_deadline_in(3 * VIA_NS_PER_S);
		struct connecting there = {&a, &b, nonce, deadline_ns, -1, 0, 0};
		struct connecting back = {&b, &a, other_nonce, deadline_ns, -1, 0, 0};
		struct worker w;

		if (open_sides(t, &a, &b)) {
			worker_start(&w, t, connect_side, round ? &there : &back);
			connect_side(t, round ? &back : &there);
			worker_join(&w, t);
			if (!there.ret || !back.ret ||
			    (there.ret != -EACCES && back.ret != -EACCES))
				contract_fail(t, "two nonces: active side %s, passive side %s",
					      via_err_name(there.ret), via_err_name(back.ret));
			if (via_deadline_passed(deadline_ns + SLACK_NS))
				contract_fail(t, "two nonces: the deadline was not kept");
		}
		side_close(&a);
		side_close(&b);
	}
}

void case_nobody_there(struct contract *t)
{
	for (unsigned round = 0; t->verdict == PASS && round < 4; round++) {
		struct side a = {0}, b = {0};
		struct connecting c = {
			round & 1 ? &b : &a, round & 1 ? &a : &b, nonce, 0, -1, 0, 0};
		uint8_t addr[BYTES_MAX];
		ssize_t len;

		if (open_sides(t, &a, &b) && round < 2) {
			/* The peer is there, but does not connect. */
			c.deadline_ns = via_deadline_in(100 * VIA_NS_PER_MS);
			connect_side(t, &c);
			if (t->verdict == PASS &&
			    (!c.ret || c.returned_ns > c.deadline_ns + SLACK_NS))
				contract_fail(
					t, "nobody connects: %s, %lld ms after the deadline",
					via_err_name(c.ret),
					((long long)c.returned_ns - (long long)c.deadline_ns) /
						1000000);
		} else if (t->verdict == PASS) {
			/* The peer was there once. */
			len = b.ops->ep_address(b.end[0].ep, addr, sizeof(addr));
			side_close(&b);
			if (!try_connect(t, &a, addr, (size_t)len))
				contract_fail(t, "connected to an endpoint that is closed");
		}
		side_close(&a);
		side_close(&b);
	}
}

/* -- giving up ------------------------------------------------------------- */

enum { CANCELED_BEFORE, CANCELED_MEANWHILE, ABORTED_MEANWHILE, GIVE_UPS };

static void give_up_once(struct contract *t, unsigned how, int event_fd)
{
	struct side a = {0}, b = {0};
	struct connecting c = {&a, &b, nonce, via_deadline_in(t->patience_ns), event_fd, 0, 0};
	uint64_t started_ns;
	struct worker w;

	if (!open_sides(t, &a, &b))
		goto out;
	started_ns = via_now_ns();
	if (how == CANCELED_BEFORE)
		eventfd_write(event_fd, 1);
	worker_start(&w, t, connect_side, &c);
	/* Long enough for it to be in the middle; right at any moment. */
	poll(NULL, 0, 20);
	if (how == CANCELED_MEANWHILE)
		eventfd_write(event_fd, 1);
	if (how == ABORTED_MEANWHILE)
		a.ops->ep_abort(a.end[0].ep);
	if (!worker_join(&w, t))
		goto out;
	if (c.ret != -ECANCELED)
		contract_fail(t, "ep_connect given up (%u): %s", how, via_err_name(c.ret));
	if (c.returned_ns - started_ns > SLACK_NS)
		contract_fail(t, "ep_connect given up (%u): only after %llu ms", how,
			      (unsigned long long)(c.returned_ns - started_ns) / VIA_NS_PER_MS);
out:
	side_close(&a);
	side_close(&b);
}

void case_cancel_connect(struct contract *t)
{
	for (unsigned how = 0; t->verdict == PASS && how < GIVE_UPS; how++) {
		int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		give_up_once(t, how, event_fd);
		close(event_fd);
	}
}
