/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * interrupt.c -- SIGINT and SIGTERM, taken by a thread that waits for them: it may lock
 * and post as any other, which a signal handler may not.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tools/run.h"

static struct {
	pthread_t thread;
	pthread_mutex_t lock;
	struct via_session *session; /* under the lock */
	int fd;
	bool running;
	_Atomic bool stopping;
	sigset_t signals, before;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

static void *watch_main(void *arg)
{
	int number;

	(void)arg;
	while (!sigwait(&watch.signals, &number) && !atomic_load(&watch.stopping)) {
		eventfd_write(watch.fd, 1);
		pthread_mutex_lock(&watch.lock);
		if (watch.session)
			via_session_abort(watch.session, NULL);
		pthread_mutex_unlock(&watch.lock);
	}
	return NULL;
}

/* A SIGINT that is ignored stays so: sigwait() would take it all the same. */
static void choose_signals(void)
{
	struct sigaction on_int;

	sigemptyset(&watch.signals);
	sigaddset(&watch.signals, SIGTERM);
	if (sigaction(SIGINT, NULL, &on_int) || on_int.sa_handler != SIG_IGN)
		sigaddset(&watch.signals, SIGINT);
}

int interrupt_start(int *cancel_fd, struct via_error *err)
{
	int rc;

	watch.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (watch.fd < 0)
		return via_fail(err, via_err_from_errno(errno),
				"watch for signals\n%s\nraise ulimit -n", strerror(errno));
	choose_signals();
	pthread_sigmask(SIG_BLOCK, &watch.signals, &watch.before);
	atomic_store(&watch.stopping, false);
	rc = pthread_create(&watch.thread, NULL, watch_main, NULL);
	if (rc)
		return via_fail(err, via_err_from_errno(rc),
				"watch for signals\n%s\nraise ulimit -u", strerror(rc));
	watch.running = true;
	*cancel_fd = watch.fd;
	return 0;
}

void interrupt_watch(struct via_session *session)
{
	pthread_mutex_lock(&watch.lock);
	watch.session = session;
	pthread_mutex_unlock(&watch.lock);
}

void interrupt_stop(void)
{
	if (watch.running) {
		atomic_store(&watch.stopping, true);
		pthread_kill(watch.thread, SIGTERM);
		pthread_join(watch.thread, NULL);
		pthread_sigmask(SIG_SETMASK, &watch.before, NULL);
		watch.running = false;
	}
	if (watch.fd >= 0)
		close(watch.fd);
	watch.fd = -1;
}
