/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * link.c -- the session at hand, how one that was lost in postcopy is replaced, what a SIGINT does
 * to it, and how viaduct demo --pull-link loses it.
 *
 * It must never give a guest up for a failure that may pass: only the destination's own word, a
 * refused connection, the user or --recover-within end the wait. Nor for a single SIGINT.
 */
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/metrics.h"
#include "tools/run.h"
#include "tools/series.h"
#include "transport/acceptor.h"

/* Between two tries of the source with --retry. */
#define PAUSE_MIN_NS (100 * VIA_NS_PER_MS)
#define PAUSE_MAX_NS (2 * VIA_NS_PER_S)

/* The destination waits so long before it listens again with what cannot work (a lost key file). */
#define OURS_NS VIA_NS_PER_S

/* --pull-link does not wait for less than this to be lacking: it could be gone at once. */
#define PULL_ANYWAY (UINT64_C(1) << 20)

void link_init(struct link *link, const struct settings *settings,
	       const struct via_session_config *config)
{
	*link = (struct link){.settings = settings,
			      .config = config,
			      .listen_fd = -1,
			      .resume_fd = -1,
			      .cancel_fd = -1};
	live_init(&link->live, settings);
}

void link_use(struct link *link, struct via_session *session)
{
	link->session = session;
	interrupt_watch(session);
}

void link_end(struct link *link)
{
	interrupt_guard(NULL, NULL);
	progress_end(&link->live.view);
}

static void say(struct link *link, const struct via_error *what)
{
	if (!link->settings->quiet)
		progress_say(&link->live.view, what);
}

static void say_paused(struct link *link, const struct via_error *why, const char *remedy)
{
	struct via_error paused = {0};

	via_fail(&paused, why->code, "the migration is paused\n%s: %s\n%s", why->what,
		 why->seen[0] ? why->seen : via_err_text(why->code), remedy);
	say(link, &paused);
}

/* -- SIGINT once the guest has moved ------------------------------------------------ */

/* In words that are right on either side. Is the guest lost? Else it may be complete there. */
static bool cost_of_ending(struct link *link, char *cost, size_t cap)
{
	uint64_t lacking = atomic_load(&link->remaining);
	char bytes[32];

	if (lacking)
		snprintf(cost, cap, "%s of its memory are at the source alone",
			 format_bytes(lacking, bytes, sizeof(bytes)));
	else
		snprintf(cost, cap, "the source may not know whether it runs");
	return lacking;
}

static bool guard(void *arg, bool may_wait, struct via_error *why)
{
	struct link *link = arg;
	struct via_error not_yet = {0};
	char cost[128];
	bool lost = cost_of_ending(link, cost, sizeof(cost));

	if (may_wait && !interrupt_asked_again()) {
		via_fail(&not_yet, -ECANCELED,
			 "SIGINT\ntoo late to abort, the guest has moved: %s\n"
			 "let it go on. A second SIGINT within %u s ends it, and the guest",
			 cost, INTERRUPT_AGAIN_S);
		say(link, &not_yet);
		return false;
	}
	via_fail(why, -ECANCELED, "migration\naborted by request after the guest had moved: %s\n%s",
		 cost,
		 lost ? "start it again from its disk"
		      : "look where it runs before you start it again");
	return true;
}

/* The engine has come to the point from which the guest is not kept at the source any more. */
static void commit(struct link *link)
{
	link->committed = true;
	interrupt_guard(guard, link);
}

/* -- source -------------------------------------------------------------------- */

/* Until it is time for the next try. False: the user gives up. */
static bool wait_to_try(const struct link *link, uint64_t pause_ns)
{
	uint64_t deadline = link->settings->retry ? via_deadline_in(pause_ns) : VIA_NEVER;
	struct pollfd p[] = {{.fd = link->cancel_fd, .events = POLLIN},
			     {.fd = link->resume_fd, .events = POLLIN}};
	eventfd_t ignored;

	while (poll(p, 2, via_deadline_poll_ms(deadline)) < 0 && errno == EINTR)
		;
	(void)eventfd_read(link->resume_fd, &ignored);
	return !interrupt_is_canceled();
}

static int gave_up(struct via_error *err)
{
	return via_fail(err, -ECANCELED,
			"resume the migration\nit was given up by request\n"
			"the guest ran at the destination and lacks pages there: start it again "
			"from its disk");
}

static int is_gone(const struct link *link, int code, struct via_error *err)
{
	if (!link->moved)
		return via_fail(err, code,
				"resume the migration: the destination's process is gone\n"
				"whether the guest had begun to run there was not confirmed\n"
				"start it again from its disk");
	if (!atomic_load(&link->remaining))
		return via_fail(err, code,
				"resume the migration: the destination's process is gone\n"
				"it had been sent every page, and may have finished\n"
				"look for the guest there before you start it again");
	return via_fail(err, code,
			"resume the migration: the destination's process is gone\n"
			"the guest ran there and its memory was never complete anywhere else: it "
			"is lost\nstart it again from its disk");
}

int link_recover_source(void *arg, const struct via_resume *lost, const struct via_error *why,
			uint64_t deadline_ns, struct via_session **session, struct via_error *err)
{
	struct link *link = arg;
	struct via_session_config config = *link->config;
	uint64_t pause_ns = PAUSE_MIN_NS;
	eventfd_t ignored;
	char remedy[128];
	int last = 0;

	(void)deadline_ns; /* a source has none */
	config.resume = lost;
	link_use(link, NULL);
	(void)eventfd_read(link->resume_fd, &ignored); /* of before: not meant for this loss */
	snprintf(remedy, sizeof(remedy),
		 link->settings->retry
			 ? "wait: it is resumed as soon as that works (SIGINT twice gives it up)"
			 : "once that is mended: viaduct send --resume %d (SIGINT twice gives it "
			   "up)",
		 (int)getpid());
	say_paused(link, why, remedy);
	while (wait_to_try(link, pause_ns)) {
		struct via_error failed = {0};
		int rc = via_migrate_connect(link->settings->peer, &config,
					     demo_guest_source(link->guest), link->cancel_fd,
					     session, &failed);

		if (!rc) {
			link_use(link, *session);
			return 0;
		}
		if (rc == -ECONNREFUSED || rc == -ESTALE)
			return is_gone(link, rc, err);
		/* Without end by itself: not the same again and again. */
		if (!interrupt_is_canceled() && (!link->settings->retry || rc != last))
			say_paused(link, &failed, remedy);
		last = rc;
		pause_ns = 2 * pause_ns < PAUSE_MAX_NS ? 2 * pause_ns : PAUSE_MAX_NS;
	}
	return gave_up(err);
}

/* -- destination ------------------------------------------------------------------ */

static int fail_wait(uint64_t waited_ns, bool needed, struct via_error *err)
{
	const char *state = needed ? "the guest here lacks pages and was stopped"
				   : "this side needs nothing of it: see how it ends here";
	const char *remedy = needed ? "start it again from its disk"
				    : "look at the source before you start the guest there";

	if (interrupt_is_canceled())
		return via_fail(err, -ECANCELED,
				"wait for the source to resume\nit was given up by request; %s\n%s",
				state, remedy);
	return via_fail(err, -ETIMEDOUT,
			"wait for the source to resume\nit did not within %.3g s; %s\n%s",
			(double)waited_ns / 1e9, state, remedy);
}

/* What a peer has done has another code: accept(2) itself has failed. */
bool link_is_ours(int code)
{
	return code == -EIO || via_err_scope(code) == VIA_SCOPE_CALL;
}

void link_pause(const struct link *link)
{
	struct pollfd p = {.fd = link->cancel_fd, .events = POLLIN};

	(void)poll(&p, 1, (int)(OURS_NS / VIA_NS_PER_MS));
}

static int accept_again(struct link *link, const struct via_session_config *config,
			const struct via_wait *wait, struct via_session **session,
			struct via_error *err)
{
	struct via_control *control;
	int rc = 0;

	if (!link->acceptor)
		rc = via_acceptor_new(link->listen_fd, &link->acceptor, err);
	if (!rc)
		rc = via_acceptor_take(link->acceptor, &config->credentials, wait,
				       config->handshake_ns, &control, err);
	return rc ? rc
		  : via_migrate_accept_control(control, config, demo_guest_destination(link->guest),
					       wait, session, err);
}

/* Until it is there, or the wait is over. */
static int wait_for_source(struct link *link, const struct via_session_config *config,
			   const struct via_wait *wait, const char *remedy,
			   struct via_session **session)
{
	for (;;) {
		struct via_error failed = {0};
		int rc = accept_again(link, config, wait, session, &failed);

		if (!rc || interrupt_is_canceled() || via_deadline_passed(wait->deadline_ns))
			return rc;
		say_paused(link, &failed, remedy);
		if (link_is_ours(rc))
			link_pause(link);
	}
}

int link_recover_destination(void *arg, const struct via_resume *lost, const struct via_error *why,
			     uint64_t deadline_ns, struct via_session **session,
			     struct via_error *err)
{
	const char *remedy =
		deadline_ns == VIA_NEVER
			? "have the source resume it: viaduct send --resume PID there"
			: "wait: this side needs nothing of its source, which may not know it";
	struct link *link = arg;
	struct via_session_config config = *link->config;
	struct via_wait wait = {.deadline_ns = via_deadline_in(link->settings->recover_within_ns),
				.cancel_fd = link->cancel_fd};
	uint64_t begun = via_now_ns();
	int rc;

	if (deadline_ns < wait.deadline_ns)
		wait.deadline_ns = deadline_ns;
	config.resume = lost;
	link_use(link, NULL);
	say_paused(link, why, remedy);
	rc = wait_for_source(link, &config, &wait, remedy, session);
	via_acceptor_free(link->acceptor);
	link->acceptor = NULL;
	if (rc)
		return fail_wait(via_now_ns() - begun, deadline_ns == VIA_NEVER, err);
	link_use(link, *session);
	return 0;
}

/* -- progress ------------------------------------------------------------------------ */

/* Lose the session each time that a quarter of what was lacking has come. */
static void pull(struct link *link, const struct via_progress *p)
{
	struct via_error why = {0};

	if (p->phase != VIA_PHASE_POSTCOPY || link->pulled == link->settings->pull_link ||
	    !link->session)
		return;
	if (!link->pull_below)
		link->pull_below = p->remaining - p->remaining / 4;
	if (p->remaining > PULL_ANYWAY && p->remaining >= link->pull_below)
		return;
	link->pulled++;
	link->pull_below -= link->pull_below / 4;
	via_fail(&why, -ECONNRESET, "session\nlink pulled by --pull-link (%llu of %llu)\nwait",
		 (unsigned long long)link->pulled, (unsigned long long)link->settings->pull_link);
	via_session_abort(link->session, &why);
	link->session = NULL; /* lost: once is enough */
}

void link_progress(void *arg, const struct via_progress *p)
{
	struct link *link = arg;

	if (p->phase == VIA_PHASE_PAUSED)
		link_use(link, NULL);
	if (p->phase == VIA_PHASE_POSTCOPY)
		link->moved = true;
	atomic_store(&link->remaining, p->remaining);
	metrics_progress(link->metrics, p);
	if (link->series)
		series_add(link->series, p);
	if (p->committed && !link->committed) {
		commit(link);
		return; /* the guest stands still: it is no time to draw */
	}
	if (!link->settings->quiet)
		live_show(&link->live, p);
	pull(link, p);
}
