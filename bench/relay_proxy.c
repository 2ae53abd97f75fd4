/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_proxy.c -- see relay_proxy.h: a thread for each direction of each connection, which asks
 * the kernel to move the bytes, through a pipe, without a look at them.
 */
#include "bench/relay_proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/row.h"
#include "relay/qemu_socket.h"

#define PIPE_LEN (1 << 20)

struct listener {
	int fd;
	const char *address;
};

struct direction {
	int from, to;
};

static void start(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, arg) != 0)
		bench_die("start a proxy", "no more threads");
	pthread_detach(thread);
}

static bool move(int from, int to, size_t len)
{
	while (len) {
		ssize_t n = splice(from, NULL, to, NULL, len, SPLICE_F_MOVE);

		if (n <= 0)
			return false;
		len -= (size_t)n;
	}
	return true;
}

/* From the one to the other, until the one ends or the other takes no more. */
static void *forward(void *arg)
{
	struct direction *d = arg;
	int pipe_fd[2];
	ssize_t n;

	if (pipe2(pipe_fd, O_CLOEXEC) != 0)
		bench_die("start a proxy", strerror(errno));
	(void)fcntl(pipe_fd[1], F_SETPIPE_SZ, PIPE_LEN);
	do {
		n = splice(d->from, NULL, pipe_fd[1], NULL, PIPE_LEN, SPLICE_F_MOVE);
	} while (n > 0 && move(pipe_fd[0], d->to, (size_t)n));
	(void)shutdown(d->to, SHUT_WR);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	free(d);
	return NULL;
}

static void start_forward(int from, int to)
{
	struct direction *d = malloc(sizeof(*d));

	if (!d)
		bench_die("start a proxy", "out of memory");
	*d = (struct direction){from, to};
	start(forward, d);
}

static void *accept_all(void *arg)
{
	struct listener *l = arg;
	struct via_error err = {0};
	int near, far;

	while ((near = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		if (qemu_dial(l->address, &far, &err))
			bench_die(err.what, err.seen);
		(void)fcntl(far, F_SETFL, fcntl(far, F_GETFL) & ~O_NONBLOCK);
		start_forward(near, far);
		start_forward(far, near);
	}
	free(l);
	return NULL;
}

void relay_proxy_start(int listen_fd, const char *address)
{
	struct listener *l = malloc(sizeof(*l));

	if (!l)
		bench_die("start a proxy", "out of memory");
	*l = (struct listener){listen_fd, address};
	start(accept_all, l);
}
