/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * open.c -- channels come into being: CHANNEL_OPEN, ADDR, READY, REFUSED.
 *
 * Each channel is connected by a thread of its own, its connector, so that a slow or
 * silent one holds up no other and any order works. The keeper hands it what arrives. Only
 * what was announced on the control connection, in this session, for this epoch, with this
 * nonce, becomes a channel; everything else is refused with its reason and changes nothing.
 *
 *   source's connector               destination's connector
 *   OPEN {nonce, address}  ->        (started by the keeper when OPEN comes)
 *                          <-        ADDR {address}
 *   ep_connect             <->       ep_connect
 *   READY {credits}        ->  <-    READY {credits, keys}
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "core/log.h"
#include "core/secret.h"
#include "transport/session.h"

/* Room for a CHANNEL_READY beside its keys, and for the other messages. */
#define MESSAGE_CAP 2048u

static struct via_channel_id id_of(const struct via_channel *ch)
{
	return (struct via_channel_id){.kind = ch->kind, .index = ch->index, .epoch = ch->epoch};
}

static int post(struct via_session *s, uint16_t type, const void *buf, ssize_t n)
{
	return n < 0 ? (int)n : via_control_post(s->control, type, buf, (size_t)n);
}

static void post_refused(struct via_session *s, const struct via_channel_id *id,
			 const struct via_error *why)
{
	struct via_channel_refused m = {.id = *id, .error = *why};
	uint8_t buf[MESSAGE_CAP];

	via_log("channel %s %u refused: %s: %s", via_channel_kind_name(id->kind), id->index,
		why->what, why->seen);
	(void)post(s, VIA_CONTROL_CHANNEL_REFUSED, buf,
		   via_channel_refused_encode(&m, buf, sizeof(buf)));
}

/* -- the connector --------------------------------------------------------------- */

typedef bool arrived_fn(const struct via_channel *ch);

static bool address_arrived(const struct via_channel *ch)
{
	return ch->peer_addr_len != 0;
}

static bool ready_arrived(const struct via_channel *ch)
{
	return ch->peer_ready != NULL;
}

/* Wait until the keeper has put down what @arrived looks for. */
static int wait_for(struct via_channel *ch, arrived_fn *arrived, const char *name,
		    uint64_t deadline_ns, struct via_error *err)
{
	struct via_session *s = ch->session;
	struct timespec ts = {.tv_sec = (time_t)(deadline_ns / VIA_NS_PER_S),
			      .tv_nsec = (long)(deadline_ns % VIA_NS_PER_S)};
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	while (!arrived(ch) && !ch->refused && !s->failed && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	rc = 0;
	if (s->failed) {
		rc = s->failure.code;
		*err = s->failure;
	} else if (ch->refused) {
		rc = ch->error.code;
		*err = ch->error;
	} else if (!arrived(ch)) {
		rc = via_fail(err, -ETIMEDOUT,
			      "open channel %s %u\nno %s from the peer within %.0f s\n"
			      "check that the peer runs and is not stopped",
			      via_channel_kind_name(ch->kind), ch->index, name,
			      (double)s->config.handshake_ns / 1e9);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static int open_endpoint(struct via_channel *ch, uint8_t *addr, size_t cap, ssize_t *addr_len,
			 struct via_error *err)
{
	struct via_session *s = ch->session;
	enum via_ep_side side = s->role == VIA_ROLE_SOURCE ? VIA_EP_ACTIVE : VIA_EP_PASSIVE;
	struct via_ep *ep;
	int rc;

	pthread_mutex_lock(&s->setup_lock);
	rc = s->fab->ops->ep_open(s->fab, side, &ep, err);
	if (!rc) {
		pthread_mutex_lock(&s->lock);
		ch->ep = ep;
		snprintf(ch->device, sizeof(ch->device), "%s", ep->device ? ep->device : "");
		if (s->failed)
			ep->fab->ops->ep_abort(ep);
		pthread_mutex_unlock(&s->lock);
		rc = channel_lane_init(ch, err);
	}
	if (!rc) {
		*addr_len = s->fab->ops->ep_address(ep, addr, cap);
		if (*addr_len < 0)
			rc = via_fail(err, (int)*addr_len,
				      "open channel\nthe endpoint's address is too long\n"
				      "report this fabric");
	}
	pthread_mutex_unlock(&s->setup_lock);
	return rc;
}

static int announce(struct via_channel *ch, struct via_error *err)
{
	struct via_session *s = ch->session;
	bool source = s->role == VIA_ROLE_SOURCE;
	uint8_t addr[VIA_ADDRESS_MAX], buf[MESSAGE_CAP];
	ssize_t addr_len = 0, n;
	int rc = open_endpoint(ch, addr, sizeof(addr), &addr_len, err);

	if (rc)
		return rc;
	if (source) {
		struct via_channel_open m = {
			.id = id_of(ch), .addr = addr, .addr_len = (uint16_t)addr_len};

		memcpy(m.session_id, s->id, sizeof(m.session_id));
		memcpy(m.nonce, ch->nonce, sizeof(m.nonce));
		n = via_channel_open_encode(&m, buf, sizeof(buf));
		via_secret_wipe(m.nonce, sizeof(m.nonce));
	} else {
		struct via_channel_addr m = {
			.id = id_of(ch), .addr = addr, .addr_len = (uint16_t)addr_len};

		n = via_channel_addr_encode(&m, buf, sizeof(buf));
	}
	rc = post(s, source ? VIA_CONTROL_CHANNEL_OPEN : VIA_CONTROL_CHANNEL_ADDR, buf, n);
	via_secret_wipe(buf, sizeof(buf));
	return rc ? via_fail(err, rc,
			     "open channel\nthe peer cannot be told: %s\n"
			     "check the control connection",
			     via_err_text(rc))
		  : 0;
}

/* Keys that come with @ch: to its staging where it has one, else to guest memory. */
static unsigned count_keys(const struct via_channel *ch)
{
	if (ch->slot_len)
		return 1;
	return ch->kind == VIA_MULTIFD ? ch->session->nslices : 0;
}

/* The keys for the peer of @ch. */
static int pack_keys(struct via_channel *ch, unsigned n, uint8_t *buf, size_t cap, size_t *pos)
{
	struct via_session *s = ch->session;
	uint8_t key[VIA_RKEY_MAX];
	int rc = 0;

	pthread_mutex_lock(&s->setup_lock);
	for (unsigned i = 0; i < n && !rc; i++) {
		struct via_packed_key packed = {.bytes = key};
		const struct via_mr *mr = ch->slot_len ? ch->staging_mr : s->slice_mr[i];
		ssize_t len = -EACCES; /* sealed meanwhile: there is nothing to write to */

		if (mr)
			len = s->fab->ops->rkey_pack(mr, ch->ep, key, sizeof(key));
		packed.len = (uint16_t)len;
		rc = len < 0 ? (int)len : via_packed_key_append(&packed, buf, cap, pos);
	}
	pthread_mutex_unlock(&s->setup_lock);
	via_secret_wipe(key, sizeof(key));
	return rc;
}

static int post_ready(struct via_channel *ch, struct via_error *err)
{
	struct via_session *s = ch->session;
	unsigned nkeys = s->role == VIA_ROLE_DESTINATION ? count_keys(ch) : 0;
	struct via_channel_ready m = {.id = id_of(ch),
				      .credits = (uint16_t)ch->receives,
				      .msg_len = (uint32_t)ch->message_len};
	size_t cap = nkeys * via_packed_key_len(s->fab->caps.rkey_len_max);
	uint8_t *keys = malloc(cap + 1), *buf = malloc(cap + MESSAGE_CAP);
	int rc = keys && buf ? 0 : -ENOMEM;

	if (!rc)
		rc = pack_keys(ch, nkeys, keys, cap, &m.keys_len);
	if (!rc) {
		m.keys = keys;
		m.nkeys = nkeys;
		rc = post(s, VIA_CONTROL_CHANNEL_READY, buf,
			  via_channel_ready_encode(&m, buf, cap + MESSAGE_CAP));
	}
	if (keys)
		via_secret_wipe(keys, cap);
	if (buf)
		via_secret_wipe(buf, cap + MESSAGE_CAP);
	free(keys);
	free(buf);
	return rc ? via_fail(err, rc,
			     "open channel %s %u\nits keys cannot be sent: %s\n"
			     "register larger slices",
			     via_channel_kind_name(ch->kind), ch->index, via_err_text(rc))
		  : 0;
}

static int unpack_keys(struct via_channel *ch, const struct via_channel_ready *m,
		       struct via_error *err)
{
	struct via_session *s = ch->session;
	struct via_packed_key key;
	unsigned n = count_keys(ch);
	size_t pos = 0;
	int rc = 0;

	ch->rkeys = calloc(n, sizeof(struct via_rkey *));
	if (!ch->rkeys)
		return via_fail(err, -ENOMEM,
				"open channel\nno memory for its keys\n"
				"register larger slices");
	pthread_mutex_lock(&s->setup_lock);
	while (!rc && ch->nrkeys < n && !via_channel_ready_next_key(m, &pos, &key)) {
		uint64_t len =
			ch->slot_len ? m->credits * ch->slot_len : regions_slice_len(s, ch->nrkeys);

		rc = s->fab->ops->rkey_unpack(ch->ep, key.bytes, key.len, len,
					      &ch->rkeys[ch->nrkeys], err);
		if (!rc)
			ch->nrkeys++;
	}
	pthread_mutex_unlock(&s->setup_lock);
	return rc;
}

/* The peer's READY: how much it takes, and at the source its keys. */
static int take_ready(struct via_channel *ch, struct via_error *err)
{
	struct via_session *s = ch->session;
	unsigned nkeys = s->role == VIA_ROLE_SOURCE ? count_keys(ch) : 0;
	struct via_channel_ready m;
	int rc = via_channel_ready_decode(ch->peer_ready, ch->peer_ready_len, &m);

	if (rc || m.credits == 0 || m.credits > CHANNEL_RECEIVES ||
	    m.msg_len < CHANNEL_MESSAGE_LEN || m.nkeys != nkeys)
		return via_fail(err, -EPROTO,
				"open channel %s %u\nthe peer's READY is malformed\n"
				"check that both sides run the same release",
				via_channel_kind_name(ch->kind), ch->index);
	ch->credits = ch->peer_receives = m.credits;
	ch->peer_message_len = m.msg_len;
	return nkeys ? unpack_keys(ch, &m, err) : 0;
}

/* What a user of any fabric should read; @why is the back end's own. */
static int fail_connect(const struct via_channel *ch, const struct via_error *why,
			struct via_error *err)
{
	const char *kind = via_channel_kind_name(ch->kind);

	if (why->code == -EACCES)
		return via_fail(err, why->code,
				"connect channel %s %u\n"
				"the peer's nonce is wrong: it is not the one announced for it\n"
				"check that nobody else connects to this host's ports",
				kind, ch->index);
	if (why->code == -ETIMEDOUT)
		return via_fail(err, why->code,
				"connect channel %s %u\n"
				"the peer did not connect it before the deadline of %.1f s\n"
				"check the firewall for the fabric's ports, and that the peer runs",
				kind, ch->index, (double)ch->session->config.handshake_ns / 1e9);
	return via_fail(err, why->code, "connect channel %s %u\n%s: %s\n%s", kind, ch->index,
			why->what, why->seen, why->remedy);
}

static int connect_channel(struct via_channel *ch, struct via_error *err)
{
	struct via_error why = {0};
	struct via_session *s = ch->session;
	struct via_wait wait = {.deadline_ns = via_deadline_in(s->config.handshake_ns),
				.cancel_fd = s->late_cancel_fd};
	int rc = announce(ch, err);

	if (!rc && s->role == VIA_ROLE_SOURCE)
		rc = wait_for(ch, address_arrived, "CHANNEL_ADDR", wait.deadline_ns, err);
	if (!rc) {
		rc = s->fab->ops->ep_connect(ch->ep, ch->peer_addr, ch->peer_addr_len, ch->nonce,
					     &wait, &why);
		via_secret_wipe(ch->nonce, sizeof(ch->nonce)); /* it has served */
		if (rc)
			return fail_connect(ch, &why, err);
		rc = channel_lane_start(ch);
		if (rc)
			via_fail(err, rc,
				 "open channel\nits receives cannot be posted: %s\n"
				 "raise rx-depth in the fabric spec",
				 via_err_text(rc));
	}
	if (!rc)
		rc = post_ready(ch, err);
	if (!rc)
		rc = wait_for(ch, ready_arrived, "CHANNEL_READY", wait.deadline_ns, err);
	if (rc)
		return rc;
	rc = take_ready(ch, err);
	via_secret_wipe(ch->peer_ready, ch->peer_ready_len); /* its keys are unpacked */
	return rc;
}

static void *connector_main(void *arg)
{
	struct via_channel *ch = arg;
	struct via_session *s = ch->session;
	struct via_error err = {0};
	struct via_channel_id id = id_of(ch);
	bool refused;
	int rc;

	/* What it was in an earlier epoch. */
	worker_stop(ch);
	channel_release_all(ch);
	rc = connect_channel(ch, &err);
	if (rc) {
		channel_release_all(ch);
		if (!err.code)
			via_fail(&err, rc, "open channel %s %u\n%s\nsee the peer's message",
				 via_channel_kind_name(ch->kind), ch->index, via_err_text(rc));
	} else {
		via_ledger_reopen(&ch->ledger, ch->epoch);
	}
	pthread_mutex_lock(&s->lock);
	refused = ch->refused;
	ch->state = rc || refused ? CHANNEL_FAILED : CHANNEL_READY;
	VIA_PROBE(channel, s->role, session_probe_channel(ch), ch->state, ch->epoch, 0);
	if (s->failed && ch->ep) /* meanwhile: who takes it shall not wait */
		ch->ep->fab->ops->ep_abort(ch->ep);
	if (s->config.streams) /* pairs with the read in via_stream_accept() */
		eventfd_write(s->main_wake_fd, 1);
	if (rc && !refused)
		ch->error = err; /* else the peer's stands there: ours only followed from it */
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (rc && !refused)
		post_refused(s, &id, &err);
	return NULL;
}

void open_join(struct via_channel *ch)
{
	if (ch->has_connector)
		pthread_join(ch->connector, NULL);
	ch->has_connector = false;
}

/* Begin to open @ch in @epoch. The caller made sure that it may. */
static int start_connector(struct via_channel *ch, uint64_t epoch, struct via_error *err)
{
	struct via_session *s = ch->session;
	int rc;

	open_join(ch); /* of an earlier epoch: it has ended */
	pthread_mutex_lock(&s->lock);
	ch->state = CHANNEL_OPENING;
	ch->epoch = epoch;
	VIA_PROBE(channel, s->role, session_probe_channel(ch), ch->state, epoch, 0);
	ch->refused = false;
	memset(&ch->error, 0, sizeof(ch->error));
	if (s->role == VIA_ROLE_SOURCE)
		ch->peer_addr_len = 0;
	rc = pthread_create(&ch->connector, NULL, connector_main, ch);
	ch->has_connector = !rc;
	if (rc)
		ch->state = CHANNEL_FAILED;
	pthread_mutex_unlock(&s->lock);
	return rc ? via_fail(err, via_err_from_errno(rc),
			     "open a channel\nno more threads\nraise ulimit -u")
		  : 0;
}

/* -- source's calls ------------------------------------------------------------------ */

static int may_open(struct via_session *s, const struct via_channel *ch, uint64_t epoch,
		    struct via_error *err)
{
	const char *kind = via_channel_kind_name(ch->kind);
	enum channel_state state;
	uint64_t last;
	bool again;

	pthread_mutex_lock(&s->lock);
	state = ch->state;
	/* It has keys to memory that is sealed: it may become one that carries pages. */
	again = state == CHANNEL_READY && ch->kind == VIA_MULTIFD && atomic_load(&s->sealed) &&
		!ch->slot_len && !ch->taken;
	last = ch->epoch;
	pthread_mutex_unlock(&s->lock);
	if (epoch == last && (state == CHANNEL_OPENING || state == CHANNEL_READY))
		return via_fail(err, -EEXIST,
				"open channel %s %u in epoch %llu\nit is open already\n"
				"open each channel once",
				kind, ch->index, (unsigned long long)epoch);
	if (epoch <= last)
		return via_fail(err, -ESTALE,
				"open channel %s %u in epoch %llu\nit was open in epoch %llu\n"
				"go on to a higher epoch first",
				kind, ch->index, (unsigned long long)epoch,
				(unsigned long long)last);
	if (state == CHANNEL_OPENING || (state == CHANNEL_READY && !again))
		return via_fail(err, -EEXIST,
				"open channel %s %u in epoch %llu\nit is open since epoch %llu\n"
				"open each channel once",
				kind, ch->index, (unsigned long long)epoch,
				(unsigned long long)last);
	return 0;
}

int via_session_open_channel(struct via_session *s, enum via_channel_kind kind, unsigned index,
			     struct via_error *err)
{
	struct via_channel *ch = session_channel(s, kind, index);
	int rc = session_check(s, err);

	if (rc)
		return rc;
	if (!ch)
		return via_fail(err, -ERANGE,
				"open channel %s %u\nthe session has %u multifd and %u preempt\n"
				"ask for more when the session is made",
				via_channel_kind_name(kind), index, s->nmultifd, s->npreempt);
	rc = may_open(s, ch, s->epoch, err);
	if (rc)
		return rc;
	if (getrandom(ch->nonce, sizeof(ch->nonce), 0) != (ssize_t)sizeof(ch->nonce))
		return via_fail(err, -EIO,
				"open a channel\nno random numbers\n"
				"check getrandom(2) on this host");
	return start_connector(ch, s->epoch, err);
}

/* Under the lock: the first channel of those waited for that is not ready; NULL when all are. */
static struct via_channel *not_ready(struct via_session *s, unsigned kind, unsigned index)
{
	if (kind != VIA_CHANNEL_ESSENTIAL) {
		struct via_channel *ch = session_channel(s, kind, index);

		return ch->state == CHANNEL_READY ? NULL : ch;
	}
	if (s->main_channel.state != CHANNEL_READY)
		return &s->main_channel;
	for (unsigned i = 0; i < s->nmultifd; i++)
		if (s->multifd[i].state != CHANNEL_READY)
			return &s->multifd[i];
	return NULL;
}

/*
 * Under the lock: has a channel that is waited for failed for good? At the destination
 * a source may try again in a higher epoch, so only the deadline ends the wait.
 */
static struct via_channel *given_up(struct via_session *s, unsigned kind, unsigned index)
{
	if (s->role == VIA_ROLE_DESTINATION)
		return NULL;
	if (kind != VIA_CHANNEL_ESSENTIAL) {
		struct via_channel *ch = session_channel(s, kind, index);

		return ch->state == CHANNEL_FAILED ? ch : NULL;
	}
	if (s->main_channel.state == CHANNEL_FAILED)
		return &s->main_channel;
	for (unsigned i = 0; i < s->nmultifd; i++)
		if (s->multifd[i].state == CHANNEL_FAILED)
			return &s->multifd[i];
	return NULL;
}

int via_session_wait_channel(struct via_session *s, unsigned kind, unsigned index,
			     struct via_error *err)
{
	/* The connectors' own deadline comes first, and with it the better message. */
	uint64_t deadline = via_deadline_in(s->config.handshake_ns + VIA_NS_PER_S / 2);
	struct timespec ts = {.tv_sec = (time_t)(deadline / VIA_NS_PER_S),
			      .tv_nsec = (long)(deadline % VIA_NS_PER_S)};
	struct via_channel *missing, *dead = NULL;
	int rc = 0;

	if (kind != VIA_CHANNEL_ESSENTIAL && !session_channel(s, kind, index))
		return via_fail(err, -ERANGE,
				"wait for channel %s %u\nno such channel\n"
				"ask for more when the session is made",
				via_channel_kind_name(kind), index);
	pthread_mutex_lock(&s->lock);
	while ((missing = not_ready(s, kind, index)) && !s->failed && rc != ETIMEDOUT &&
	       !(dead = given_up(s, kind, index)))
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	rc = 0;
	if (s->failed) {
		rc = s->failure.code;
		if (err && !err->code)
			*err = s->failure;
	} else if (dead || (missing && missing->state == CHANNEL_FAILED)) {
		missing = dead ? dead : missing;
		rc = missing->error.code;
		if (err && !err->code)
			*err = missing->error;
	} else if (missing) {
		rc = via_fail(err, -ETIMEDOUT,
			      "wait for the essential channels\n"
			      "channel %s %u was not opened within %.0f s\n"
			      "check the other side's messages",
			      via_channel_kind_name(missing->kind), missing->index,
			      (double)s->config.handshake_ns / 1e9);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int via_session_open_channels(struct via_session *s, struct via_error *err)
{
	int rc = via_session_open_channel(s, VIA_MAIN, 0, err);

	for (unsigned i = 0; i < s->nmultifd && !rc; i++)
		rc = via_session_open_channel(s, VIA_MULTIFD, i, err);
	return rc ? rc : via_session_wait_channel(s, VIA_CHANNEL_ESSENTIAL, 0, err);
}

/* -- what the keeper hands on ------------------------------------------------------------ */

static int malformed(struct via_error *err, const char *name)
{
	return via_fail(err, -EPROTO,
			"control connection\na malformed %s from the peer\n"
			"check that both sides run the same release",
			name);
}

/* May the channel of @m be? Why not is put into @err. */
static int check_open(struct via_session *s, const struct via_channel_open *m,
		      struct via_error *err)
{
	const struct via_channel *ch = session_channel(s, m->id.kind, m->id.index);

	if (memcmp(m->session_id, s->id, sizeof(s->id)) != 0)
		return via_fail(err, -EACCES,
				"open channel %s %u\nit names another session\n"
				"connect to the destination of this session",
				via_channel_kind_name(m->id.kind), m->id.index);
	if (!ch)
		return via_fail(err, -ERANGE,
				"open channel %s %u\nthe session has %u multifd and %u preempt\n"
				"open only the channels announced in SETUP",
				via_channel_kind_name(m->id.kind), m->id.index, s->nmultifd,
				s->npreempt);
	if (m->id.epoch < s->epoch)
		return via_fail(
			err, -ESTALE,
			"open channel %s %u in epoch %llu\nthe session began in epoch %llu\n"
			"only the source of this session can open its channels",
			via_channel_kind_name(m->id.kind), m->id.index,
			(unsigned long long)m->id.epoch, (unsigned long long)s->epoch);
	return may_open(s, ch, m->id.epoch, err);
}

int open_on_open(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err)
{
	struct via_channel_open m;
	struct via_error why = {0};
	struct via_channel *ch;

	if (s->role != VIA_ROLE_DESTINATION || via_channel_open_decode(payload, len, &m))
		return malformed(err, "CHANNEL_OPEN");
	if (check_open(s, &m, &why)) {
		post_refused(s, &m.id, &why);
		return 0;
	}
	ch = session_channel(s, m.id.kind, m.id.index);
	memcpy(ch->nonce, m.nonce, sizeof(ch->nonce));
	via_secret_wipe(m.nonce, sizeof(m.nonce));
	memcpy(ch->peer_addr, m.addr, m.addr_len);
	ch->peer_addr_len = m.addr_len;
	if (start_connector(ch, m.id.epoch, &why))
		post_refused(s, &m.id, &why);
	return 0;
}

/* The channel that @id names, if it is being opened in that epoch. Under the lock. */
static struct via_channel *opening(struct via_session *s, const struct via_channel_id *id)
{
	struct via_channel *ch = session_channel(s, id->kind, id->index);

	return ch && ch->state == CHANNEL_OPENING && ch->epoch == id->epoch ? ch : NULL;
}

int open_on_addr(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err)
{
	struct via_channel_addr m;
	struct via_channel *ch;

	if (s->role != VIA_ROLE_SOURCE || via_channel_addr_decode(payload, len, &m))
		return malformed(err, "CHANNEL_ADDR");
	pthread_mutex_lock(&s->lock);
	ch = opening(s, &m.id);
	if (ch && !ch->peer_addr_len) {
		memcpy(ch->peer_addr, m.addr, m.addr_len);
		ch->peer_addr_len = m.addr_len;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return 0; /* else it is late: the channel was given up meanwhile */
}

int open_on_ready(struct via_session *s, const uint8_t *payload, size_t len, struct via_error *err)
{
	struct via_channel_ready m;
	struct via_channel *ch;
	uint8_t *copy;

	if (via_channel_ready_decode(payload, len, &m))
		return malformed(err, "CHANNEL_READY");
	copy = malloc(len);
	if (!copy)
		return via_fail(err, -ENOMEM, "open channel\nout of memory\nfree some memory");
	memcpy(copy, payload, len);
	pthread_mutex_lock(&s->lock);
	ch = opening(s, &m.id);
	if (ch && !ch->peer_ready) {
		ch->peer_ready = copy;
		ch->peer_ready_len = len;
		copy = NULL;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	free(copy);
	return 0;
}

int open_on_refused(struct via_session *s, const uint8_t *payload, size_t len,
		    struct via_error *err)
{
	struct via_channel_refused m;
	struct via_channel *ch;
	bool lost = false;

	if (via_channel_refused_decode(payload, len, &m))
		return malformed(err, "CHANNEL_REFUSED");
	pthread_mutex_lock(&s->lock);
	ch = session_channel(s, m.id.kind, m.id.index);
	if (ch && ch->epoch == m.id.epoch && ch->state == CHANNEL_OPENING) {
		ch->refused = true;
		ch->error = m.error;
		if (ch->ep)
			ch->ep->fab->ops->ep_abort(ch->ep);
		pthread_cond_broadcast(&s->changed);
	} else if (ch && ch->epoch == m.id.epoch && ch->state == CHANNEL_READY) {
		lost = true; /* ready here, given up there: it would be half a channel */
	}
	pthread_mutex_unlock(&s->lock);
	return lost ? via_fail(err, m.error.code, "%s\n%s\n%s", m.error.what, m.error.seen,
			       m.error.remedy)
		    : 0;
}
