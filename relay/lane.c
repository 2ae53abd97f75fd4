/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lane.c -- see lane.h.
 *
 * Invariant: what QEMU sent was either handed to the stream or is in head; what the stream had
 * is consumed when QEMU's socket has taken it, or when that socket is broken.
 */
#include "relay/lane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "relay/qemu_socket.h"
#include "relay/tune.h"

/*
 * The first byte on the preempt stream, for the destination relay alone: QEMU's connection is there.
 * The channel may be open long before, and QEMU itself says nothing.
 */
#define PREEMPT_MARK 'P'

struct lane {
	struct lanes *lanes;
	struct lane *next;
	pthread_t thread;
	enum via_channel_kind kind;
	unsigned index;
	bool opaque;
	int fd;                    /* QEMU's; -1 before it is connected */
	int ready_fd;              /* preempt at the source, eventfd: see given_fd */
	_Atomic int given_fd;      /* QEMU's connection, once ready_fd says so; -1: never came */
	_Atomic bool counted;      /* in lanes.running */
	struct via_stream *stream; /* source: opened by the thread */

	uint8_t head[LANE_HEAD_MAX]; /* multifd header that its payload will follow; first bytes */
	size_t head_len;
	bool taken;   /* QEMU sends no more */
	bool given;   /* the peer's QEMU sends no more, and ours has all of it */
	bool refuses; /* QEMU's socket takes no more */

	/* of the kind at hand */
	struct relay_main main;
	struct relay_return back;
	struct relay_multifd multifd;
};

/* -- what passes ------------------------------------------------------------------ */

static void wake(struct lanes *l)
{
	(void)eventfd_write(l->wake_fd, 1);
}

/* What main says, for the thread that identifies connections: it wakes for it. */
static void learn(struct lanes *l, _Atomic bool *fact, bool is)
{
	if (is && !atomic_exchange(fact, true))
		wake(l);
}

/* Bytes to the destination have passed. */
static void saw_forward(struct lane *lane, const void *bytes, size_t len)
{
	struct lanes *l = lane->lanes;

	atomic_fetch_add_explicit(&l->forward_bytes, len, memory_order_relaxed);
	if (lane->kind != VIA_MAIN || lane->opaque || lane->main.body)
		return;
	relay_main_feed(&lane->main, bytes, len);
	learn(l, &l->return_path, lane->main.return_path || lane->main.recovery);
	learn(l, &l->unread, lane->main.note[0]);
	/* Where nobody can see that it is not, it may be. */
	learn(l, &l->postcopy, lane->main.postcopy || lane->main.recovery || lane->main.note[0]);
	learn(l, &l->early_preempt, relay_machine_is_pre_8(lane->main.machine));
}

/* Bytes to the source have passed. */
static void saw_back(struct lane *lane, const void *bytes, size_t len)
{
	struct lanes *l = lane->lanes;

	atomic_fetch_add_explicit(&l->back_bytes, len, memory_order_relaxed);
	if (lane->kind != VIA_MAIN || lane->opaque)
		return;
	relay_return_feed(&lane->back, bytes, len);
	learn(l, &l->answered, lane->back.pongs || lane->back.bitmaps);
	if (lane->back.shut) {
		atomic_store(&l->shut_well, lane->back.shut_value == 0);
		atomic_store(&l->shut, true);
	}
}

/* Taken from our QEMU; given to it. */
static void saw_taken(struct lane *lane, const void *bytes, size_t len)
{
	(lane->lanes->source ? saw_forward : saw_back)(lane, bytes, len);
}

static void saw_given(struct lane *lane, const void *bytes, size_t len)
{
	(lane->lanes->source ? saw_back : saw_forward)(lane, bytes, len);
}

/* -- from QEMU into the stream --------------------------------------------------------- */

enum from_qemu { TOOK_NOTHING, TOOK_SOME, TOOK_THE_END };

/*
 * Read what is there, up to @cap bytes. Slots are filled as far as the socket has bytes; what
 * goes within a message goes at once.
 */
static enum from_qemu receive(const struct lane *lane, uint8_t *buf, size_t cap, size_t *len)
{
	*len = 0;
	do {
		ssize_t n = recv(lane->fd, buf + *len, cap - *len, MSG_DONTWAIT);

		if (n > 0)
			*len += (size_t)n;
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && errno == EAGAIN)
			return *len ? TOOK_SOME : TOOK_NOTHING;
		else
			return TOOK_THE_END; /* or the socket is broken: the same to the peer */
	} while (*len < cap && cap > VIA_STREAM_MESSAGE_LEN);
	return TOOK_SOME;
}

/* Our QEMU has closed it. */
static int finish(struct lane *lane)
{
	struct lanes *l = lane->lanes;

	lane->taken = true;
	if (lane->kind == VIA_MAIN)
		atomic_store(&l->main_ends, true);
	if (lane->kind != VIA_PREEMPT)
		atomic_fetch_sub(&l->unclosed, 1);
	wake(l);
	return via_stream_finish(lane->stream, 0);
}

/* Send what is in head, with nothing behind it. */
static int send_head(struct lane *lane)
{
	size_t len = lane->head_len;

	lane->head_len = 0;
	return len ? via_stream_send(lane->stream, 0, lane->head, len) : 0;
}

/* Bytes of any kind, as they come. 1: the socket has no more for now. */
static int take_plain(struct lane *lane, uint8_t *buf, size_t cap)
{
	size_t len;
	enum from_qemu what = receive(lane, buf, cap, &len);
	int rc = 0;

	if (len) {
		saw_taken(lane, buf, len);
		rc = via_stream_send(lane->stream, len, NULL, 0);
	}
	if (!rc && what == TOOK_THE_END)
		rc = finish(lane);
	return rc ? rc : what == TOOK_NOTHING;
}

/* Let the parser see bytes of one part; all of them are. */
static enum relay_part feed_multifd(struct lane *lane, const uint8_t *bytes, size_t len)
{
	enum relay_part part = RELAY_PART_OPAQUE;
	size_t done = 0;

	while (done < len)
		done += relay_multifd_take(&lane->multifd, bytes + done, len - done, &part);
	saw_taken(lane, bytes, len);
	return part;
}

/* A header: it waits for its payload, or goes when it has none. 1 as above. */
static int take_header(struct lane *lane, size_t max)
{
	size_t len;
	enum from_qemu what = receive(lane, lane->head + lane->head_len, max, &len);
	int rc = 0;

	if (len)
		(void)feed_multifd(lane, lane->head + lane->head_len, len);
	lane->head_len += len;
	if (what == TOOK_THE_END) {
		rc = send_head(lane);
		return rc ? rc : finish(lane);
	}
	if (relay_multifd_may_end(&lane->multifd))
		rc = send_head(lane);
	return rc ? rc : what == TOOK_NOTHING;
}

/* Content of pages: one-sided, and the header in the message behind it. */
static int take_payload(struct lane *lane, uint8_t *buf, size_t cap, uint64_t left)
{
	size_t len, head_len = lane->head_len;
	enum from_qemu what = receive(lane, buf, left < cap ? (size_t)left : cap, &len);
	int rc = 0;

	if (len) {
		(void)feed_multifd(lane, buf, len);
		lane->head_len = 0;
		rc = via_stream_send(lane->stream, len, lane->head, head_len);
	}
	if (!rc && what == TOOK_THE_END) {
		rc = send_head(lane);
		if (!rc)
			rc = finish(lane);
	}
	return rc ? rc : what == TOOK_NOTHING;
}

static int take_multifd(struct lane *lane, uint8_t *buf, size_t cap)
{
	uint64_t left = relay_multifd_left(&lane->multifd);
	size_t room = sizeof(lane->head) - lane->head_len;

	if (lane->multifd.note[0] && lane->head_len)
		return send_head(lane);
	if (lane->multifd.note[0])
		return take_plain(lane, buf, cap);
	if (relay_multifd_in_payload(&lane->multifd))
		return take_payload(lane, buf, cap, left);
	if (!room)
		return send_head(lane);
	return take_header(lane, left < room ? (size_t)left : room);
}

/* All that the stream has room for. 1: wait for more of the socket; 0: not for the socket. */
static int take_from_qemu(struct lane *lane)
{
	bool parsed = lane->lanes->source && lane->kind == VIA_MULTIFD && !lane->opaque;
	int rc = 0;

	while (!rc && !lane->taken) {
		size_t cap;
		uint8_t *buf = via_stream_buffer(lane->stream, &cap);

		if (!buf)
			return 0;
		rc = parsed ? take_multifd(lane, buf, cap) : take_plain(lane, buf, cap);
	}
	return rc;
}

/* -- from the stream into QEMU ------------------------------------------------------------ */

/* 1: wait until the socket takes more. */
static int give_to_qemu(struct lane *lane)
{
	const void *bytes;
	size_t len;
	int rc = 0, status;

	while (!rc && (bytes = via_stream_data(lane->stream, &len))) {
		ssize_t n = lane->refuses ? (ssize_t)len
					  : send(lane->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 1;
		if (n < 0) {
			lane->refuses = true; /* it is gone: its own end tells the peer */
			continue;
		}
		if (!lane->refuses)
			saw_given(lane, bytes, (size_t)n);
		rc = via_stream_consume(lane->stream, (size_t)n);
	}
	if (!rc && !lane->given && via_stream_ended(lane->stream, &status)) {
		lane->given = true;
		if (lane->kind == VIA_MAIN) /* before QEMU sees it, and may be back at once */
			learn(lane->lanes, &lane->lanes->main_ends, true);
		/* As when the peer's QEMU closes: ours reads what it has, then the end. */
		(void)shutdown(lane->fd, SHUT_RDWR);
	}
	return rc;
}

/* -- the thread ----------------------------------------------------------------------- */

static int pump(struct lane *lane)
{
	int rc = 0;

	while (rc >= 0 && !via_stream_done(lane->stream)) {
		struct pollfd p = {.fd = lane->fd};
		int in = take_from_qemu(lane), out = in < 0 ? 0 : give_to_qemu(lane);

		if (in < 0 || out < 0)
			return in < 0 ? in : out;
		p.events = (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0));
		if (!p.events)
			p.fd = -1; /* else its end would be told again and again */
		rc = via_stream_wait(lane->stream, VIA_NEVER, &p, 1);
	}
	return rc < 0 ? rc : 0;
}

/* The destination's QEMU may see this connection when it has something to say. */
static int wait_for_turn(struct lane *lane)
{
	struct pollfd p = {.fd = lane->lanes->main_up_fd, .events = POLLIN};
	bool main_up = lane->kind == VIA_MAIN, spoken = false;
	size_t len;
	int rc = 0, status;

	while (rc >= 0) {
		spoken = spoken || via_stream_data(lane->stream, &len) ||
			 via_stream_ended(lane->stream, &status);
		main_up = main_up || poll(&p, 1, 0) > 0;
		if (spoken && main_up)
			return 0;
		p.fd = main_up ? -1 : lane->lanes->main_up_fd;
		rc = via_stream_wait(lane->stream, VIA_NEVER, &p, 1);
	}
	return rc;
}

/*
 * The source's QEMU has opened the preempt channel, or never will: then there is nothing to
 * connect. 1: connect.
 */
static int take_mark(struct lane *lane)
{
	size_t len;
	const uint8_t *mark = via_stream_data(lane->stream, &len);

	if (!mark)
		return via_stream_finish(lane->stream, 0);
	if (*mark != PREEMPT_MARK)
		return -EPROTO;
	return via_stream_consume(lane->stream, 1) ? -EPROTO : 1;
}

static int connect_qemu(struct lane *lane, struct via_error *err)
{
	struct relay_facts facts;
	int rc = lane->kind == VIA_MAIN ? tune_take_facts(lane->stream, &facts, err) : 0;

	if (!rc)
		rc = wait_for_turn(lane);
	if (!rc && lane->kind == VIA_PREEMPT) {
		rc = take_mark(lane);
		lane->taken = !rc;
		if (rc <= 0)
			return rc;
		rc = 0;
	}
	if (!rc && lane->kind == VIA_MAIN)
		rc = tune_destination(lane->lanes->config, lane->lanes->qemu, &facts, err);
	if (rc)
		return rc;
	rc = qemu_dial(lane->lanes->qemu, &lane->fd, err);
	if (!rc && lane->kind == VIA_MAIN)
		(void)eventfd_write(lane->lanes->main_up_fd, 1);
	return rc;
}

/* Source: QEMU's connection for a channel that is open. 1: it is there. */
static int wait_for_connection(struct lane *lane)
{
	struct pollfd p = {.fd = lane->ready_fd, .events = POLLIN};
	size_t cap;
	uint8_t *buf;
	int rc = 0;

	while (rc >= 0 && !(p.revents & POLLIN))
		rc = via_stream_wait(lane->stream, VIA_NEVER, &p, 1);
	if (rc < 0)
		return rc;
	lane->fd = atomic_load(&lane->given_fd);
	if (lane->fd < 0) {
		lane->taken = true;
		return via_stream_finish(lane->stream, 0);
	}
	buf = via_stream_buffer(lane->stream, &cap); /* of a new stream there is one */
	*buf = PREEMPT_MARK;
	memcpy(buf + 1, lane->head, lane->head_len);
	saw_taken(lane, lane->head, lane->head_len);
	return via_stream_send(lane->stream, 1 + lane->head_len, NULL, 0);
}

/* Source: the channel, and the bytes by which the connection was known. */
static int open_channel(struct lane *lane, struct via_error *err)
{
	size_t cap;
	uint8_t *buf;
	ssize_t facts_len = 0;
	int rc = via_stream_open(lane->lanes->session, lane->kind, lane->index, &lane->stream, err);

	if (!rc && lane->kind == VIA_PREEMPT)
		return wait_for_connection(lane);
	if (rc || !lane->head_len)
		return rc;
	buf = via_stream_buffer(lane->stream, &cap); /* of a new stream there is one */
	if (lane->kind == VIA_MAIN)
		facts_len = relay_facts_encode(&lane->lanes->facts, buf, cap);
	if (facts_len < 0)
		return (int)facts_len;
	buf += facts_len;
	memcpy(buf, lane->head, lane->head_len);
	if (lane->kind == VIA_MULTIFD && !lane->opaque)
		(void)feed_multifd(lane, buf, lane->head_len);
	else
		saw_taken(lane, buf, lane->head_len);
	rc = via_stream_send(lane->stream, (size_t)facts_len + lane->head_len, NULL, 0);
	lane->head_len = 0;
	return rc;
}

/* Where a parser has stopped to look the rest was carried as it is: once, for the user. */
static void note_unread(const struct lane *lane)
{
	const char *why[] = {lane->main.note, lane->back.note, lane->multifd.note};
	static const char *const what[] = {"main", "its return path", "multifd"};

	for (unsigned i = 0; lane->lanes->source && i < 3; i++)
		if (why[i][0])
			relay_note(lane->lanes->config,
				   "%s %u, %s: not understood, carried as it is", what[i],
				   lane->index, why[i]);
}

static void *lane_main(void *arg)
{
	struct lane *lane = arg;
	struct lanes *l = lane->lanes;
	struct via_error err = {0};
	int rc = lane->stream ? connect_qemu(lane, &err) : open_channel(lane, &err);

	if (!rc)
		rc = pump(lane);
	if (rc) {
		via_session_abort(l->session, err.code ? &err : NULL);
		atomic_store(&l->failed, true);
	}
	if (lane->kind == VIA_MAIN) /* known before QEMU sees the end, and may come back at once */
		atomic_store(&l->main_running, false);
	if (lane->fd >= 0) {
		(void)shutdown(lane->fd, SHUT_RDWR);
		close(lane->fd);
	}
	atomic_fetch_add(&l->packets, lane->multifd.stats.packets);
	note_unread(lane);
	via_log("relay: %s %u ended: %s", via_channel_kind_name(lane->kind), lane->index,
		via_err_text(rc));
	if (lane->counted)
		atomic_fetch_sub(&l->running, 1);
	wake(l);
	return NULL;
}

/* Its thread, if it had one, has ended. */
static void lane_free(struct lane *lane)
{
	if (lane->ready_fd >= 0)
		close(lane->ready_fd);
	if (lane->fd < 0 && lane->given_fd >= 0)
		close(lane->given_fd); /* came when the thread had ended */
	free(lane);
}

static struct lane *lane_new(struct lanes *l, enum via_channel_kind kind, unsigned index, int fd)
{
	struct lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return NULL;
	lane->lanes = l;
	lane->kind = kind;
	lane->index = index;
	lane->fd = fd;
	lane->given_fd = lane->ready_fd = -1;
	lane->counted = kind != VIA_PREEMPT || !l->source;
	relay_main_init(&lane->main);
	relay_return_init(&lane->back);
	relay_multifd_init(&lane->multifd, 0);
	return lane;
}

static int lane_start(struct lane *lane, struct via_error *err)
{
	struct lanes *l = lane->lanes;
	int rc;

	if (lane->counted)
		atomic_fetch_add(&l->running, 1);
	if (lane->kind != VIA_PREEMPT)
		atomic_fetch_add(&l->unclosed, 1);
	if (lane->kind == VIA_MAIN) {
		atomic_store(&l->had_main, true);
		atomic_store(&l->main_running, true);
	}
	rc = pthread_create(&lane->thread, NULL, lane_main, lane);
	if (rc) {
		if (lane->counted)
			atomic_fetch_sub(&l->running, 1);
		if (lane->fd >= 0)
			close(lane->fd);
		lane_free(lane);
		return via_fail(err, via_err_from_errno(rc),
				"carry a connection\nno more threads\nraise ulimit -u");
	}
	lane->next = l->list;
	l->list = lane;
	l->nlanes++;
	return 0;
}

static int no_memory(struct via_error *err)
{
	return via_fail(err, -ENOMEM, "carry a connection\nout of memory\nfree some memory");
}

int lane_prepare_preempt(struct lanes *l, struct via_error *err)
{
	struct lane *lane;
	int rc;

	if (l->preempt)
		return 0;
	lane = lane_new(l, VIA_PREEMPT, 0, -1);
	if (!lane)
		return no_memory(err);
	lane->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lane->ready_fd < 0) {
		lane_free(lane);
		return via_fail(err, via_err_from_errno(errno),
				"carry a connection\n%s\nraise ulimit -n", strerror(errno));
	}
	rc = lane_start(lane, err);
	l->preempt = rc ? NULL : lane;
	return rc;
}

/* The prepared channel is for @fd (-1: for nobody), which may have sent @first already. */
static void give_preempt(struct lanes *l, int fd, const struct relay_candidate *first)
{
	struct lane *lane = l->preempt;

	if (fd >= 0) {
		memcpy(lane->head, first->first, first->len);
		lane->head_len = first->len;
		lane->counted = true;
		atomic_fetch_add(&l->running, 1);
	}
	atomic_store(&lane->given_fd, fd);
	(void)eventfd_write(lane->ready_fd, 1);
}

static int start_preempt(struct lanes *l, int fd, const struct relay_candidate *first,
			 struct via_error *err)
{
	int rc = lane_prepare_preempt(l, err);

	if (rc)
		close(fd);
	else
		give_preempt(l, fd, first);
	return rc;
}

int lane_start_source(struct lanes *l, const struct relay_identity *who, int fd,
		      const struct relay_candidate *first, struct via_error *err)
{
	static const enum via_channel_kind kinds[] = {
		[RELAY_MAIN] = VIA_MAIN,
		[RELAY_MULTIFD] = VIA_MULTIFD,
	};
	struct lane *lane;

	if (who->role == RELAY_PREEMPT)
		return start_preempt(l, fd, first, err);
	lane = lane_new(l, kinds[who->role], who->index, fd);
	if (!lane) {
		close(fd);
		return no_memory(err);
	}
	lane->opaque = who->opaque;
	if (who->opaque && who->role == RELAY_MAIN) {
		atomic_store(&l->unread, true);
		atomic_store(&l->postcopy, true); /* nobody can see that it is not */
	}
	memcpy(lane->head, first->first, first->len);
	lane->head_len = first->len;
	return lane_start(lane, err);
}

int lane_start_destination(struct lanes *l, struct via_stream *stream, struct via_error *err)
{
	struct lane *lane = lane_new(l, via_stream_kind(stream), via_stream_index(stream), -1);

	if (!lane)
		return no_memory(err);
	lane->stream = stream;
	return lane_start(lane, err);
}

/* -- all of them ------------------------------------------------------------------------ */

int lanes_init(struct lanes *l, const struct relay_config *config, struct via_session *session,
	       bool source, struct via_error *err)
{
	memset(l, 0, sizeof(*l));
	l->config = config;
	l->session = session;
	l->source = source;
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->main_up_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0 || l->main_up_fd < 0)
		return via_fail(err, via_err_from_errno(errno),
				"carry a migration\n%s\nraise ulimit -n", strerror(errno));
	lanes_show(l, true);
	return 0;
}

void lanes_join(struct lanes *l)
{
	if (l->preempt && !l->preempt->counted)
		give_preempt(l, -1, NULL);
	while (l->list) {
		struct lane *lane = l->list;

		l->list = lane->next;
		pthread_join(lane->thread, NULL);
		lane_free(lane);
	}
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	if (l->main_up_fd >= 0)
		close(l->main_up_fd);
	l->wake_fd = l->main_up_fd = -1;
}

int lanes_failure(const struct lanes *l, struct via_error *err)
{
	return atomic_load(&l->failed) ? via_session_failure(l->session, err) : 0;
}

void lanes_count(const struct lanes *l, struct relay_result *r)
{
	r->postcopy = atomic_load(&l->postcopy);
	r->connections = l->nlanes;
	r->forward_bytes = atomic_load(&l->forward_bytes);
	r->back_bytes = atomic_load(&l->back_bytes);
	r->packets = atomic_load(&l->packets);
	via_session_stats(l->session, &r->session);
	r->outcome = RELAY_BROKEN;
}

/* Nobody has told the source's QEMU that the destination has everything; or not so that it was seen. */
static void note_end(const struct lanes *l)
{
	if (atomic_load(&l->unread))
		relay_note(l->config,
			   "main is not to be read here, TLS for one: only query-migrate, "
			   "on both hosts, says how the migration has ended");
	else
		relay_note(
			l->config,
			"QEMU's migration had no return path: the source may say completed before "
			"the destination has everything; set its capability return-path");
}

void lanes_result(struct lanes *l, int rc, struct relay_result *r)
{
	lanes_show(l, false);
	lanes_count(l, r);
	if (atomic_load(&l->shut) && atomic_load(&l->shut_well))
		r->outcome = RELAY_COMPLETED;
	else if (!rc && atomic_load(&l->had_main) && !atomic_load(&l->return_path))
		r->outcome = RELAY_ENDED;
	if (r->outcome == RELAY_ENDED)
		note_end(l);
}
