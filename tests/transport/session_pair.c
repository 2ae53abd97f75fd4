/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * session_pair.c -- see session_pair.h.
 */
#include "tests/transport/session_pair.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/buffer.h"
#include "core/clock.h"

static void receive_until_end(struct destination *d, struct via_session *session)
{
	struct via_message m;

	while (!via_main_receive(session, via_deadline_in(20 * VIA_NS_PER_S), &m, &d->end_error)) {
		d->messages++;
		if (m.type == PAIR_MESSAGE_END)
			return;
	}
}

static void *destination_main(void *arg)
{
	struct destination *d = arg;
	struct via_session_config config = {.fabric = d->fabric,
					    .handshake_ns = d->handshake_ns,
					    .dead_after_ns = d->dead_after_ns};
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	void *addr[1] = {d->memory};
	struct via_control *control;
	struct via_session *session = NULL;

	if (via_control_wrap(d->fd, &control, &d->accept_error) ||
	    via_session_accept_control(control, &config, &wait, &session, &d->accept_error) ||
	    via_session_provide(session, addr, &d->accept_error))
		goto out;
	if (via_session_wait_channel(session, VIA_CHANNEL_ESSENTIAL, 0, &d->channel_error) ||
	    via_session_start_receivers(session, NULL, NULL, &d->channel_error)) {
		via_session_abort(session, &d->channel_error);
		goto out;
	}
	receive_until_end(d, session);
out:
	via_session_close(session);
	return NULL;
}

int destination_start(struct destination *d)
{
	int fd[2];

	d->memory = via_pages_alloc(PAIR_MEMORY_LEN);
	if (!d->memory || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		abort();
	d->fd = fd[1];
	if (pthread_create(&d->thread, NULL, destination_main, d))
		abort();
	return fd[0];
}

void destination_join(struct destination *d)
{
	pthread_join(d->thread, NULL);
	via_pages_free(d->memory, PAIR_MEMORY_LEN);
}
