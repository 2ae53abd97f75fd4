/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * interrupt.c -- SIGINT, SIGTERM, SIGUSR1 and SIGUSR2, taken by a thread that waits for them:
 * it may lock and post as any other, which a signal handler may not.
 *
 * A wish that came before there was a session is kept for it: none is lost. Once the guest has
 * moved a guard is asked about SIGINT. Invariant: under the lock, whoever sets a guard knows that
 * a SIGINT without one has aborted the session before, or never will.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/run.h"

static struct {
	pthread_t thread;
	pthread_mutex_t lock; /* of those up to the descriptors */
	struct via_session *session;
	interrupt_guard_fn *guard;
	void *guard_arg;
	struct via_error why;    /* of a cancellation; code 0: it needs no words */
	bool canceled, postcopy; /* what has been asked for */
	uint64_t asked_ns;       /* the last SIGINT that a guard was asked about; 0: none */
	int cancel_fd, resume_fd;
	bool running;
	_Atomic bool stopping;
	sigset_t signals, before;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER, .cancel_fd = -1, .resume_fd = -1};

/* Under the lock. */
static void tell_session(void)
{
	if (watch.session && watch.canceled)
		via_session_abort(watch.session, watch.why.code ? &watch.why : NULL);
	if (watch.session && watch.postcopy)
		via_session_start_postcopy(watch.session);
}

bool interrupt_asked_again(void)
{
	uint64_t now = via_now_ns();
	bool again = watch.asked_ns && now - watch.asked_ns < INTERRUPT_AGAIN_S * VIA_NS_PER_S;

	watch.asked_ns = now;
	return again;
}

/* Under the lock. SIGTERM is meant, SIGINT is the guard's to judge. */
static bool is_meant(int number)
{
	struct via_error why = {0};

	if (watch.guard && !watch.guard(watch.guard_arg, number == SIGINT, &why))
		return false;
	if (!watch.canceled)
		watch.why = why;
	return true;
}

static void *watch_main(void *arg)
{
	int number;

	(void)arg;
	while (!sigwait(&watch.signals, &number) && !atomic_load(&watch.stopping)) {
		bool cancel = false;

		if (number == SIGUSR2) {
			eventfd_write(watch.resume_fd, 1);
			continue;
		}
		pthread_mutex_lock(&watch.lock);
		if (number == SIGUSR1)
			watch.postcopy = true;
		else
			cancel = is_meant(number);
		watch.canceled = watch.canceled || cancel;
		tell_session();
		pthread_mutex_unlock(&watch.lock);
		if (cancel)
			eventfd_write(watch.cancel_fd, 1);
	}
	return NULL;
}

/* A SIGINT that is ignored stays so: sigwait() would take it all the same. */
static void choose_signals(bool source)
{
	struct sigaction on_int;

	sigemptyset(&watch.signals);
	sigaddset(&watch.signals, SIGTERM);
	if (sigaction(SIGINT, NULL, &on_int) || on_int.sa_handler != SIG_IGN)
		sigaddset(&watch.signals, SIGINT);
	if (source) {
		sigaddset(&watch.signals, SIGUSR1);
		sigaddset(&watch.signals, SIGUSR2);
	}
}

int interrupt_start(int *cancel_fd, int *resume_fd, struct via_error *err)
{
	int rc;

	watch.canceled = watch.postcopy = false;
	watch.guard = NULL;
	watch.asked_ns = 0;
	watch.why = (struct via_error){0};
	watch.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	watch.resume_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (watch.cancel_fd < 0 || watch.resume_fd < 0)
		return via_fail(err, via_err_from_errno(errno),
				"watch for signals\n%s\nraise ulimit -n", strerror(errno));
	choose_signals(resume_fd);
	pthread_sigmask(SIG_BLOCK, &watch.signals, &watch.before);
	atomic_store(&watch.stopping, false);
	rc = pthread_create(&watch.thread, NULL, watch_main, NULL);
	if (rc) {
		pthread_sigmask(SIG_SETMASK, &watch.before, NULL);
		return via_fail(err, via_err_from_errno(rc),
				"watch for signals\n%s\nraise ulimit -u", strerror(rc));
	}
	watch.running = true;
	*cancel_fd = watch.cancel_fd;
	if (resume_fd)
		*resume_fd = watch.resume_fd;
	return 0;
}

void interrupt_watch(struct via_session *session)
{
	pthread_mutex_lock(&watch.lock);
	watch.session = session;
	tell_session();
	pthread_mutex_unlock(&watch.lock);
}

void interrupt_guard(interrupt_guard_fn *guard, void *arg)
{
	pthread_mutex_lock(&watch.lock);
	watch.guard = guard;
	watch.guard_arg = arg;
	pthread_mutex_unlock(&watch.lock);
}

bool interrupt_is_canceled(void)
{
	bool canceled;

	pthread_mutex_lock(&watch.lock);
	canceled = watch.canceled;
	pthread_mutex_unlock(&watch.lock);
	return canceled;
}

static void close_event(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
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
	close_event(&watch.cancel_fd);
	close_event(&watch.resume_fd);
}
