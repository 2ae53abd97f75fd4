/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * resume_pair.h -- both sides of a session, new or resumed, in the hands of one test. Everything here
 * fails the test when it cannot be done.
 *
 * One thread plays both sides where neither waits for the other: what the simulated fabric has under
 * way is moved by a poll of either end.
 */
#ifndef VIA_TESTS_RESUME_PAIR_H
#define VIA_TESTS_RESUME_PAIR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/clock.h"
#include "transport/transport.h"

#define MULTIFD 2u
#define PREEMPT 2u

/* Two regions of this length, the second in large pages. */
#define PAGE       4096u
#define LARGE_PAGE 65536u
#define REGION_LEN 262144u
#define SLICE_LEN  65536u /* a region has four */

#define PATIENCE_NS (20 * VIA_NS_PER_S)

enum { MESSAGE_HELLO = VIA_MESSAGE_USER, MESSAGE_END, MESSAGE_PAGES };

struct pair {
	/* set before; zero the rest */
	const char *fabric; /* NULL: an ordinary one */
	uint64_t stall_ns;
	bool streams;     /* instead of regions */
	bool or_new;      /* the destination takes another session as well */
	bool no_channels; /* the test opens them, and then joins the thread */
	/* what became of it */
	struct via_session *source, *destination;
	int source_rc, destination_rc;
	struct via_error source_err, destination_err;
	uint8_t *memory[2], *theirs[2]; /* regions of the source, and of the destination */
	/* its own */
	int fd, cut_fd;
	const struct via_resume *waits_for;
	pthread_t thread;
};

/*
 * The source begins (NULL), or resumes @resume, where a destination waits for anybody (NULL), or for
 * @waits_for. Without no_channels both have ended their part, well or not, when it returns.
 */
void pair_try(struct pair *p, const struct via_resume *resume, const struct via_resume *waits_for);
/* As that, and well. */
void pair_open(struct pair *p, const struct via_resume *resume, const struct via_resume *waits_for);
/* Close what there is of it, and zero it. */
void pair_close(struct pair *p);
/* The connection is lost. What each side needs to resume; closed. */
void pair_lose(struct pair *p, struct via_resume *source, struct via_resume *destination);

/* Open @n channels of @kind, and wait on both sides. */
void open_kind(struct pair *p, enum via_channel_kind kind, unsigned n);
/* An empty round, and the seal behind it. */
void drain_a_round(struct pair *p, bool seal);
/* A new session, sealed, and its multifd channels opened again. */
void open_sealed(struct pair *p);
/* A message on main arrives. */
void expect_message(struct via_session *from, struct via_session *to);

#endif
