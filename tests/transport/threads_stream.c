/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * threads_stream.c -- streams that are opened at once by threads of their own, and carry bytes
 * between sockets, both ways, until they end or the session does.
 *
 * A plain program, because Criterion does not start under ThreadSanitizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/transport/stream_pair.h"

#define STREAMS 4u
#define CHUNK   50000u

static const struct {
	enum via_channel_kind kind;
	unsigned index;
} channels[STREAMS] = {{VIA_MAIN, 0}, {VIA_MULTIFD, 0}, {VIA_MULTIFD, 6}, {VIA_PREEMPT, 1}};

/* A program at each end of a stream, and the two relays between them. */
struct lane {
	struct stream_pair *pair;
	unsigned number;
	unsigned chunks; /* that each sends to the other */
	int source_fd[2], destination_fd[2];
	struct stream_relay relay[2];
	unsigned wrong;
	pthread_t opener, far;
};

/* Send chunks and receive as many, one after the other; what came instead counts as wrong. */
static unsigned talk(int fd, unsigned chunks)
{
	uint8_t *out = malloc(CHUNK), *in = malloc(CHUNK);
	unsigned wrong = 0;

	if (!out || !in)
		abort();
	for (unsigned i = 0; i < chunks; i++) {
		memset(out, (int)i + 1, CHUNK);
		if (send(fd, out, CHUNK, MSG_NOSIGNAL) != (ssize_t)CHUNK ||
		    recv(fd, in, CHUNK, MSG_WAITALL) != (ssize_t)CHUNK)
			break; /* the session has ended */
		wrong += memcmp(in, out, CHUNK) != 0;
	}
	shutdown(fd, SHUT_WR);
	while (recv(fd, in, CHUNK, 0) > 0)
		;
	free(out);
	free(in);
	return wrong;
}

static void *far_main(void *arg)
{
	struct lane *lane = arg;

	lane->wrong += talk(lane->destination_fd[0], lane->chunks);
	return NULL;
}

static void *open_main(void *arg)
{
	struct lane *lane = arg;
	struct via_stream *st;
	unsigned wrong = 0;

	lane->relay[0].rc = via_stream_open(lane->pair->source, channels[lane->number].kind,
					    channels[lane->number].index, &st, NULL);
	if (!lane->relay[0].rc) { /* else the session ended before this side knew that it is open */
		stream_relay_start(&lane->relay[0], st, lane->source_fd[1]);
		wrong = talk(lane->source_fd[0], lane->chunks);
		stream_relay_join(&lane->relay[0]);
	}
	pthread_join(lane->far, NULL);
	lane->wrong += wrong;
	return NULL;
}

static void lane_start(struct lane *lane)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lane->source_fd) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lane->destination_fd) ||
	    pthread_create(&lane->far, NULL, far_main, lane) ||
	    pthread_create(&lane->opener, NULL, open_main, lane))
		abort();
}

/* Whichever comes next, for the lane that it belongs to. */
static void accept_one(struct stream_pair *p, struct lane *lane)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(3 * STREAM_PATIENCE_NS),
				.cancel_fd = -1};
	struct via_stream *st;
	unsigned i = 0;

	if (via_stream_accept(p->destination, &wait, &st, NULL))
		abort();
	while (channels[i].kind != via_stream_kind(st) || channels[i].index != via_stream_index(st))
		i++;
	stream_relay_start(&lane[i].relay[1], st, lane[i].destination_fd[1]);
}

/* Play it, and abort the session in the middle where @chunks is 0. What went wrong. */
static unsigned play(unsigned chunks)
{
	struct stream_pair p = {.fabric = "sim:threads,delay=2"};
	struct lane lane[STREAMS];
	unsigned wrong = 0;

	stream_pair_open(&p);
	for (unsigned i = 0; i < STREAMS; i++) {
		lane[i] = (struct lane){
			.pair = &p, .number = i, .chunks = chunks ? chunks : UINT32_MAX};
		lane_start(&lane[i]);
	}
	for (unsigned i = 0; i < STREAMS; i++)
		accept_one(&p, lane);
	if (!chunks)
		via_session_abort(p.destination, NULL);
	for (unsigned i = 0; i < STREAMS; i++) {
		stream_relay_join(&lane[i].relay[1]);
		pthread_join(lane[i].opener, NULL);
		wrong += lane[i].wrong;
		for (unsigned k = 0; k < 2; k++) {
			wrong += (lane[i].relay[k].rc == 0) != (chunks > 0);
			close(lane[i].source_fd[k]);
			close(lane[i].destination_fd[k]);
		}
	}
	stream_pair_close(&p);
	return wrong;
}

int main(void)
{
	unsigned wrong = play(8) + play(0);

	if (wrong)
		fprintf(stderr, "%u things went wrong\n", wrong);
	return wrong ? 1 : 0;
}
