/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_channel.c -- main: the engine's messages between the two migration threads.
 *
 * While the destination waits here it also answers fences and seals: nobody else may use
 * main's endpoint.
 */
#include "transport/session.h"

static int fail_main(struct via_session *s, int code, struct via_error *err)
{
	session_fail_channel(s, &s->main_channel, code);
	return session_check(s, err);
}

int via_main_send(struct via_session *s, uint8_t type, const void *payload, size_t len,
		  struct via_error *err)
{
	int rc = session_check(s, err);

	if (rc)
		return rc;
	if (type < VIA_MESSAGE_USER)
		return via_fail(err, -EINVAL,
				"send on main\nmessage type %u\nthe engine's types start at %u",
				type, VIA_MESSAGE_USER);
	rc = channel_send(&s->main_channel, type, payload, len, 0);
	return rc ? fail_main(s, rc, err) : 0;
}

int via_main_receive(struct via_session *s, uint64_t deadline_ns, struct via_message *message,
		     struct via_error *err)
{
	struct via_channel *ch = &s->main_channel;
	int n, rc = session_check(s, err);

	if (!rc && ch->current.buf)
		rc = channel_give_back(ch, &ch->current);
	while (!rc && !channel_next(ch, &ch->current)) {
		if (atomic_exchange(&s->wake_wanted, false))
			return -EINTR;
		n = channel_wait(ch, deadline_ns, s->main_wake_fd);
		rc = n < 0 ? n : 0;
		/* Also at the deadline: it may have been woken for that, and will not be again. */
		if (!rc && s->role == VIA_ROLE_DESTINATION)
			rc = fence_answer(s);
		if (!rc && n == 0 && via_deadline_passed(deadline_ns) && !ch->queue_len)
			return -EAGAIN;
		if (!rc)
			rc = session_check(s, err);
	}
	if (rc)
		return fail_main(s, rc, err);
	*message = ch->current.message;
	return 0;
}
