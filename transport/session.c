/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * session.c -- a session's life: made, failed, closed.
 *
 * The first cause of a failure is kept and everything else follows from it: cancel_fd becomes
 * readable for ever and every endpoint is aborted, so that no thread of the session can
 * go on waiting. What is freed is freed in one place, in the reverse order of its making.
 */
#include "transport/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/log.h"

#define HANDSHAKE_NS  (10 * VIA_NS_PER_S)
#define DEAD_AFTER_NS (5 * VIA_NS_PER_S)
#define STALL_NS      (30 * VIA_NS_PER_S)
#define SLICE_LEN     (UINT64_C(1) << 30)
#define MULTIFD       2u

/* The peer's own words about the end of a channel come no later than this, or not at all. */
#define REASON_NS (200 * VIA_NS_PER_MS)

/* A channel that is being connected when the session fails gets there, or not, within this. */
static const struct itimerspec connect_grace = {.it_value = {.tv_sec = 1}};

unsigned via_session_test_switches;

static void fill_defaults(struct via_session_config *c)
{
	if (!c->multifd)
		c->multifd = MULTIFD;
	if (!c->handshake_ns)
		c->handshake_ns = HANDSHAKE_NS;
	if (!c->dead_after_ns)
		c->dead_after_ns = DEAD_AFTER_NS;
	if (!c->stall_ns)
		c->stall_ns = STALL_NS;
	if (!c->slice_len)
		c->slice_len = SLICE_LEN;
}

static void init_locks(struct via_session *s)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->setup_lock, NULL);
	pthread_mutex_init(&s->worker_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
}

static void channel_init(struct via_session *s, struct via_channel *ch, uint8_t kind,
			 uint16_t index)
{
	ch->session = s;
	ch->kind = kind;
	ch->index = index;
	ch->wake_fd = -1;
}

struct via_session *session_new(enum via_role role, const struct via_session_config *config,
				struct via_error *err)
{
	struct via_session *s = calloc(1, sizeof(*s));

	if (!s) {
		via_fail(err, -ENOMEM, "start a session\nout of memory\nfree some memory");
		return NULL;
	}
	s->role = role;
	s->config = *config;
	fill_defaults(&s->config);
	s->epoch = 1;
	if (config->resume) {
		/* The old session's memory stays sealed. */
		s->resumed = true;
		atomic_store(&s->sealed, true);
		memcpy(s->id, config->resume->id, sizeof(s->id));
		s->epoch = config->resume->epoch + 1;
	}
	s->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->late_cancel_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	s->main_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->keeper_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->fabric_spec = strdup(config->fabric ? config->fabric : "auto");
	init_locks(s);
	channel_init(s, &s->main_channel, VIA_MAIN, 0);
	if (s->cancel_fd < 0 || s->late_cancel_fd < 0 || s->main_wake_fd < 0 || s->keeper_fd < 0 ||
	    !s->fabric_spec ||
	    (role == VIA_ROLE_SOURCE && !s->resumed &&
	     getrandom(s->id, sizeof(s->id), 0) != (ssize_t)sizeof(s->id))) {
		via_fail(err, via_err_from_errno(errno),
			 "start a session\n%s\nraise the limit of open files (ulimit -n)",
			 strerror(errno));
		via_session_close(s);
		return NULL;
	}
	return s;
}

int session_make_channels(struct via_session *s, unsigned nmultifd, unsigned npreempt,
			  struct via_error *err)
{
	s->multifd = calloc(nmultifd, sizeof(*s->multifd));
	s->preempt = calloc(npreempt ? npreempt : 1, sizeof(*s->preempt));
	if (!s->multifd || !s->preempt)
		return via_fail(err, -ENOMEM,
				"make %u channels\nout of memory\nask for fewer channels",
				nmultifd + npreempt);
	s->nmultifd = nmultifd;
	s->npreempt = npreempt;
	for (unsigned i = 0; i < nmultifd; i++)
		channel_init(s, &s->multifd[i], VIA_MULTIFD, (uint16_t)i);
	for (unsigned i = 0; i < npreempt; i++)
		channel_init(s, &s->preempt[i], VIA_PREEMPT, (uint16_t)i);
	atomic_store(&s->fences_missing, nmultifd);
	return 0;
}

struct via_channel *session_channel(struct via_session *s, unsigned kind, unsigned index)
{
	if (kind == VIA_MAIN && index == 0)
		return &s->main_channel;
	if (kind == VIA_MULTIFD && index < s->nmultifd)
		return &s->multifd[index];
	if (kind == VIA_PREEMPT && index < s->npreempt)
		return &s->preempt[index];
	return NULL;
}

void session_each_channel(struct via_session *s, void (*fn)(struct via_channel *ch))
{
	fn(&s->main_channel);
	for (unsigned i = 0; i < s->nmultifd; i++)
		fn(&s->multifd[i]);
	for (unsigned i = 0; i < s->npreempt; i++)
		fn(&s->preempt[i]);
}

/*
 * Under s->lock, so that the endpoint cannot be closed meanwhile. One that is being connected may go on
 * with that for a while: libraries do not take it well when the other end closes half-way.
 */
static void abort_endpoint(struct via_channel *ch)
{
	if (ch->ep && ch->state != CHANNEL_OPENING)
		ch->ep->fab->ops->ep_abort(ch->ep);
}

static void tell_peer(struct via_session *s, const struct via_error *why)
{
	uint8_t buf[1024];
	ssize_t n = via_error_encode(why, buf, sizeof(buf));

	if (n > 0 && s->control)
		(void)via_control_post(s->control, VIA_CONTROL_ERROR, buf, (size_t)n);
}

int session_fail(struct via_session *s, const struct via_error *why, bool tell)
{
	int code;

	pthread_mutex_lock(&s->lock);
	if (!s->failed) {
		s->failed = true;
		s->failure = *why;
		/* Whoever asks again later is told this code: none that means "try once more". */
		if (s->failure.code >= 0 || via_err_scope(s->failure.code) == VIA_SCOPE_RETRY)
			s->failure.code = -EIO;
		atomic_store(&s->failure_code, s->failure.code);
		if (tell)
			tell_peer(s, &s->failure);
		via_log("session failed: %s: %s", s->failure.what, s->failure.seen);
		VIA_PROBE(session, s->role, 0, VIA_PROBE_SESSION_FAILED, 0, -s->failure.code);
		eventfd_write(s->cancel_fd, 1);
		(void)timerfd_settime(s->late_cancel_fd, 0, &connect_grace, NULL);
		session_each_channel(s, abort_endpoint);
		pthread_cond_broadcast(&s->changed);
	}
	code = s->failure.code;
	pthread_mutex_unlock(&s->lock);
	return code;
}

/*
 * A peer that gives up says why before it aborts its channels, but on another connection, where that
 * may come later. The answer to a ping comes behind it.
 */
static void hear_peer_out(struct via_session *s)
{
	uint64_t stamp = via_now_ns(), deadline = stamp + REASON_NS;
	struct timespec ts = {.tv_sec = (time_t)(deadline / VIA_NS_PER_S),
			      .tv_nsec = (long)(deadline % VIA_NS_PER_S)};
	int rc = atomic_load(&s->failure_code) ? 0 : keeper_ping(s, stamp);

	pthread_mutex_lock(&s->lock);
	while (!rc && !s->failed && !s->control_ended && !s->peer_said_bye && s->ponged < stamp)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	pthread_mutex_unlock(&s->lock);
}

int session_fail_channel(struct via_session *s, const struct via_channel *ch, int code)
{
	struct via_error err = {0};
	const char *kind = via_channel_kind_name(ch->kind);
	const char *why = ch->ep && ch->ep->why[0] ? ch->ep->why : via_err_text(code);

	if (code == -ECONNRESET)
		hear_peer_out(s);
	if (code == -ETIMEDOUT)
		via_fail(&err, code,
			 "channel %s %u\nnothing moved for %.0f s with work in flight\n"
			 "check that the peer runs and the link is up",
			 kind, ch->index, (double)s->config.stall_ns / 1e9);
	else if (code == -EREMOTEIO)
		via_fail(&err, code,
			 "write on channel %s %u\nthe destination refused it, its key is revoked: "
			 "%s\n"
			 "a write after the seal is a fault of the fabric or of this program: "
			 "report it",
			 kind, ch->index, why);
	else
		via_fail(&err, code,
			 "channel %s %u\n%s\ncheck the peer's own message, and that the link is up",
			 kind, ch->index, why);
	return session_fail(s, &err, true);
}

int session_check(struct via_session *s, struct via_error *err)
{
	int code = atomic_load(&s->failure_code);

	if (!code)
		return 0;
	pthread_mutex_lock(&s->lock);
	if (err && !err->code)
		*err = s->failure;
	pthread_mutex_unlock(&s->lock);
	return code;
}

int via_session_failure(struct via_session *s, struct via_error *err)
{
	return session_check(s, err);
}

void via_session_abort(struct via_session *s, const struct via_error *why)
{
	struct via_error err = {0};

	via_fail(&err, -ECANCELED, "migration\naborted by request\nstart it again when you want");
	session_fail(s, why ? why : &err, true);
}

void via_session_start_postcopy(struct via_session *s)
{
	atomic_store(&s->postcopy_wanted, true);
}

void via_session_wake(struct via_session *s)
{
	atomic_store(&s->wake_wanted, true);
	eventfd_write(s->main_wake_fd, 1);
}

bool via_session_postcopy_wanted(const struct via_session *s)
{
	return atomic_load(&s->postcopy_wanted);
}

bool via_session_integrity(const struct via_session *s)
{
	return s->integrity;
}

bool via_session_is_resumed(const struct via_session *s)
{
	return s->resumed;
}

void via_session_resume_point(struct via_session *s, struct via_resume *resume)
{
	pthread_mutex_lock(&s->lock);
	memcpy(resume->id, s->id, sizeof(resume->id));
	/* One that resumed and opened no channel used no epoch: its source may not even know of it. */
	resume->epoch = s->resumed ? s->epoch - 1 : s->epoch;
	if (s->main_channel.epoch > resume->epoch)
		resume->epoch = s->main_channel.epoch;
	for (unsigned i = 0; i < s->nmultifd; i++)
		if (s->multifd[i].epoch > resume->epoch)
			resume->epoch = s->multifd[i].epoch;
	for (unsigned i = 0; i < s->npreempt; i++)
		if (s->preempt[i].epoch > resume->epoch)
			resume->epoch = s->preempt[i].epoch;
	pthread_mutex_unlock(&s->lock);
}

void via_session_set_bandwidth(struct via_session *s, uint64_t bytes_per_s)
{
	atomic_store(&s->bandwidth, bytes_per_s);
}

const struct via_region *via_session_regions(const struct via_session *s, unsigned *nregions)
{
	*nregions = s->nregions;
	return s->region_view;
}

/* Devices beyond the table's end count as its last. */
static void add_rail(struct via_session_stats *stats, const char *device, uint64_t bytes)
{
	unsigned i = 0;

	if (!device[0])
		return;
	while (i < stats->nrails && strcmp(stats->rail[i].device, device) != 0)
		i++;
	if (i == VIA_RAILS_MAX)
		i--;
	if (i == stats->nrails) {
		snprintf(stats->rail[i].device, sizeof(stats->rail[i].device), "%s", device);
		stats->nrails++;
	}
	stats->rail[i].bytes += bytes;
}

void via_session_stats_add(struct via_session_stats *stats, const struct via_session_stats *earlier)
{
	stats->writes += earlier->writes;
	stats->bytes += earlier->bytes;
	stats->epochs += earlier->epochs;
	via_hist_merge(&stats->drain_ns, &earlier->drain_ns);
	for (unsigned i = 0; i < earlier->nrails; i++)
		add_rail(stats, earlier->rail[i].device, earlier->rail[i].bytes);
}

void via_session_stats(struct via_session *s, struct via_session_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	pthread_mutex_lock(&s->lock); /* a channel may be opened just now */
	for (unsigned i = 0; i < s->nmultifd; i++) {
		uint64_t bytes = atomic_load(&s->multifd[i].ledger.total_bytes);

		stats->writes += atomic_load(&s->multifd[i].ledger.total_writes);
		stats->bytes += bytes;
		add_rail(stats, s->multifd[i].device, bytes);
	}
	pthread_mutex_unlock(&s->lock);
	stats->epochs = atomic_load(&s->epochs_drained);
	stats->sealed = atomic_load(&s->sealed);
	stats->drain_ns = s->drain_ns;
	stats->multifd = s->nmultifd;
	stats->preempt = s->npreempt;
	via_fabric_spec_format(&s->spec, stats->fabric, sizeof(stats->fabric));
	snprintf(stats->choice, sizeof(stats->choice), "%s", s->choice);
	snprintf(stats->peer, sizeof(stats->peer), "%s", s->peer);
	if (s->control)
		snprintf(stats->security, sizeof(stats->security), "%s",
			 via_control_security(s->control));
}

void via_session_stop_workers(struct via_session *s)
{
	session_each_channel(s, worker_stop);
}

void via_session_close(struct via_session *s)
{
	if (!s)
		return;
	if (s->round.under_way)
		via_session_abort(s, NULL);
	via_session_stop_workers(s);
	keeper_stop(s);
	session_each_channel(s, open_join);
	session_each_channel(s, channel_release_all);
	regions_fini(s);
	if (s->fab)
		s->fab->ops->close(s->fab);
	via_control_close(s->control);
	free(s->multifd);
	free(s->preempt);
	free(s->fabric_spec);
	if (s->cancel_fd >= 0)
		close(s->cancel_fd);
	if (s->late_cancel_fd >= 0)
		close(s->late_cancel_fd);
	if (s->main_wake_fd >= 0)
		close(s->main_wake_fd);
	if (s->keeper_fd >= 0)
		close(s->keeper_fd);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->setup_lock);
	pthread_mutex_destroy(&s->worker_lock);
	free(s);
}
