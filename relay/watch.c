/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * watch.c -- a look at a relay from another thread, while it carries a migration.
 *
 * Must never touch a session that is closed: the lanes are shown as long as they have one, and
 * whoever looks holds the lock.
 */
#include <string.h>

#include "relay/lane.h"

void lanes_show(struct lanes *l, bool there)
{
	struct relay_watch *watch = l->config->watch;

	if (!watch)
		return;
	pthread_mutex_lock(&watch->lock);
	watch->lanes = there ? l : NULL;
	pthread_mutex_unlock(&watch->lock);
}

bool relay_look(struct relay_watch *watch, struct relay_result *now)
{
	bool there;

	memset(now, 0, sizeof(*now));
	pthread_mutex_lock(&watch->lock);
	there = watch->lanes;
	if (there)
		lanes_count(watch->lanes, now);
	pthread_mutex_unlock(&watch->lock);
	return there;
}
