/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * threads_control.c -- many threads post to both ends while each end has one driver:
 * every frame arrives once, those of one thread in their order. And lookups of names
 * that are given up while they run.
 *
 * A plain program, because Criterion does not start under ThreadSanitizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/transport/control_pair.h"

#define POSTERS 3u
#define FRAMES  400u

struct poster {
	struct via_control *control;
	uint16_t number;
	pthread_t thread;
};

struct end {
	struct via_control *control;
	struct poster poster[POSTERS];
	unsigned wrong;
	pthread_t driver;
};

static void *post_main(void *arg)
{
	struct poster *p = arg;

	for (uint32_t i = 0; i < FRAMES; i++)
		if (via_control_post(p->control, p->number, &i, sizeof(i)))
			abort();
	return NULL;
}

/* Receive what the other end's threads post, and send what this end's do. */
static void *drive_main(void *arg)
{
	struct via_wait wait = wait_ns(3 * PATIENCE_NS);
	uint32_t next[POSTERS] = {0}, number;
	struct via_control_frame frame;
	struct end *end = arg;

	for (unsigned n = 0; n < POSTERS * FRAMES; n++) {
		if (via_control_receive(end->control, &wait, &frame, NULL) ||
		    frame.type >= POSTERS || frame.len != sizeof(number))
			abort();
		memcpy(&number, frame.payload, sizeof(number));
		end->wrong += number != next[frame.type]++;
	}
	/* Nobody else sends what they post. */
	for (unsigned i = 0; i < POSTERS; i++)
		pthread_join(end->poster[i].thread, NULL);
	flush_all(end->control);
	return NULL;
}

static unsigned run(struct pair *p)
{
	struct end end[2] = {{.control = p->source}, {.control = p->destination}};

	for (uint16_t i = 0; i < 2 * POSTERS; i++) {
		struct poster *one = &end[i % 2].poster[i / 2];

		*one = (struct poster){.control = end[i % 2].control, .number = i / 2};
		if (pthread_create(&one->thread, NULL, post_main, one))
			abort();
	}
	for (unsigned e = 0; e < 2; e++)
		if (pthread_create(&end[e].driver, NULL, drive_main, &end[e]))
			abort();
	for (unsigned e = 0; e < 2; e++)
		pthread_join(end[e].driver, NULL);
	pair_close(p);
	return end[0].wrong + end[1].wrong;
}

/* Either the lookup or the caller may be done first; nothing is lost or used after. */
static void give_up_lookups(void)
{
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = eventfd(1, 0)};
	const struct via_credentials plain = {0};
	struct via_control *c;

	for (unsigned i = 0; i < 20; i++) {
		wait.deadline_ns = i % 2 ? VIA_NEVER : 1;
		if (via_control_connect("localhost:1", &plain, &wait, &c, NULL) != -ECANCELED)
			abort();
	}
	close(wait.cancel_fd);
}

int main(void)
{
	struct via_credentials creds = {.psk_file = key_file("one:00112233445566778899\n")};
	struct pair p;
	unsigned wrong;

	pair_wrap(&p);
	wrong = run(&p);
	pair_open(&p, "127.0.0.1:0", &creds, &creds);
	wrong += run(&p);
	give_up_lookups();
	if (wrong)
		fprintf(stderr, "%u frames out of order\n", wrong);
	return wrong != 0;
}
