/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * multifd_receive.c -- the receivers: one thread for each multifd channel of the destination.
 *
 * Writes land without it where a NIC does the work, but some providers move bytes only while
 * the target polls. What a receiver sees are the messages between the writes: the
 * engine's, which it hands on, and the fence, which it counts once all before it was dealt with.
 */
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport/session.h"

static int deal_with(struct via_channel *ch, struct channel_rx *rx)
{
	struct via_session *s = ch->session;
	const struct via_message *m = &rx->message;
	int rc = -EPROTO;

	if (m->more)
		return -EPROTO;
	if (m->type == VIA_MESSAGE_FENCE)
		return fence_on_multifd(ch, m->payload, m->len);
	if (m->type < VIA_MESSAGE_USER || !s->batch_message)
		return -EPROTO;
	/* Counted before the look: whoever seals waits for those that did not see it. */
	atomic_fetch_add(&s->in_batch, 1);
	if (!atomic_load(&s->sealed))
		rc = s->batch_message(s->batch_arg, ch->index, m->type, m->payload, m->len);
	atomic_fetch_sub(&s->in_batch, 1);
	return rc;
}

static void *receiver_main(void *arg)
{
	struct via_channel *ch = arg;
	struct via_session *s = ch->session;
	struct channel_rx rx;
	int rc = 0;

	while (rc >= 0 && !atomic_load(&ch->worker_stop)) {
		rc = channel_wait(ch, VIA_NEVER, ch->wake_fd);
		while (rc >= 0 && channel_next(ch, &rx)) {
			rc = deal_with(ch, &rx);
			if (rc >= 0)
				rc = channel_give_back(ch, &rx);
		}
	}
	/* Behind the seal this channel is done: the source may close it, to open it again for pages. */
	if (rc < 0 && !(atomic_load(&s->sealed) && via_err_scope(rc) == VIA_SCOPE_CHANNEL))
		session_fail_channel(s, ch, rc);
	return NULL;
}

int via_session_start_receivers(struct via_session *s, via_batch_message_fn *message, void *arg,
				struct via_error *err)
{
	int rc = session_check(s, err);

	s->batch_message = message;
	s->batch_arg = arg;
	for (unsigned i = 0; i < s->nmultifd && !rc; i++)
		rc = worker_start(&s->multifd[i], receiver_main, err);
	return rc;
}

/* -- workers of both sides ---------------------------------------------------- */

int worker_start(struct via_channel *ch, void *(*main_fn)(void *), struct via_error *err)
{
	char name[16];
	int rc;

	atomic_store(&ch->worker_stop, false);
	ch->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ch->wake_fd < 0)
		return via_fail(err, via_err_from_errno(errno),
				"start a channel's thread\nno more open files\nraise ulimit -n");
	rc = pthread_create(&ch->worker, NULL, main_fn, ch);
	if (rc)
		return via_fail(err, via_err_from_errno(rc),
				"start a channel's thread\nno more threads\nraise ulimit -u");
	ch->has_worker = true;
	snprintf(name, sizeof(name), "multifd/%u", ch->index);
	pthread_setname_np(ch->worker, name);
	return 0;
}

void worker_stop(struct via_channel *ch)
{
	pthread_mutex_lock(&ch->session->worker_lock);
	atomic_store(&ch->worker_stop, true);
	if (ch->has_worker) {
		eventfd_write(ch->wake_fd, 1);
		pthread_join(ch->worker, NULL);
		ch->has_worker = false;
	}
	if (ch->wake_fd >= 0)
		close(ch->wake_fd);
	ch->wake_fd = -1;
	pthread_mutex_unlock(&ch->session->worker_lock);
}
