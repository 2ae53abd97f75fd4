/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * migrate_qemu_steps.c -- a migration from QEMU's side: it is set, begun, watched, switched to
 * postcopy, canceled.
 *
 * Must never cancel a migration whose guest may run at the destination, nor set a thing that is
 * not said. QEMU's own words are handed on as they are.
 *
 * Invariant: m->view is what QEMU has said last.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/clock.h"
#include "relay/tune.h"
#include "tools/migrate_qemu.h"

#define ASK_NS    (10 * VIA_NS_PER_S)   /* for an answer of QEMU */
#define LOOK_NS   (200 * VIA_NS_PER_MS) /* events come at once; counters are looked at so often */
#define RESUME_NS (10 * VIA_NS_PER_S)   /* for QEMU to leave its pause */
#define CANCEL_NS (3 * VIA_NS_PER_S)    /* to end what was canceled */

#define MOMENTS_PER_S    10
#define LOOKS_FOR_COUNTS 3

static struct via_wait wait_of(void)
{
	return (struct via_wait){.deadline_ns = via_deadline_in(ASK_NS), .cancel_fd = -1};
}

/* -- what QEMU says ----------------------------------------------------------------------- */

static uint64_t number(const json_t *object, const char *name)
{
	json_int_t n = json_integer_value(json_object_get(object, name));

	return n > 0 ? (uint64_t)n : 0;
}

static void take_text(char *into, size_t cap, const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	snprintf(into, cap, "%s", text ? text : "");
}

/* Ask QEMU how far it is. -ECANCELED: @cancel_fd was readable before it has answered. */
static int look(struct qemu_migration *m, int cancel_fd, struct via_error *err)
{
	uint64_t until = via_deadline_in(ASK_NS);
	struct via_wait wait = {.deadline_ns = until < m->cut_ns ? until : m->cut_ns,
				.cancel_fd = cancel_fd};
	struct qemu_view *v = &m->view;
	json_t *answer = NULL;
	const json_t *ram;
	int rc = relay_qmp_execute(m->qmp, "query-migrate", NULL, false, &wait, &answer, err);

	if (rc)
		return rc;
	ram = json_object_get(answer, "ram");
	take_text(v->status, sizeof(v->status), answer, "status");
	if (!v->status[0])
		memcpy(v->status, "none", sizeof("none"));
	take_text(v->why, sizeof(v->why), answer, "error-desc");
	v->total_ms = number(answer, "total-time");
	v->setup_ms = number(answer, "setup-time");
	v->downtime_ms = number(answer, "downtime");
	if (ram) {
		v->round = number(ram, "dirty-sync-count");
		v->memory = number(ram, "total");
		v->visited = (number(ram, "normal") + number(ram, "duplicate")) *
			     number(ram, "page-size");
		v->rate = (uint64_t)(json_number_value(json_object_get(ram, "mbps")) * 1e6 / 8);
		v->remaining = number(ram, "remaining");
		v->transferred = number(ram, "transferred");
		v->dirty_rate = number(ram, "dirty-pages-rate") * number(ram, "page-size");
		v->requests = number(ram, "postcopy-requests");
	}
	json_decref(answer);
	return 0;
}

static bool is(const struct qemu_migration *m, const char *status)
{
	return !strcmp(m->view.status, status);
}

static bool is_in_postcopy(const struct qemu_migration *m)
{
	return m->postcopy || !strncmp(m->view.status, "postcopy-", 9);
}

static bool is_idle(const struct qemu_migration *m)
{
	return is(m, "none") || is(m, "completed") || is(m, "failed") || is(m, "cancelled");
}

/* -- before it ---------------------------------------------------------------------------- */

static int check_state(const struct qemu_migration *m, struct via_error *err)
{
	bool paused = is(m, "postcopy-paused");

	if (m->settings->resume_paused)
		return paused ? 0
			      : via_fail(err, -EINVAL,
					 "resume QEMU's migration\nit is %s, not "
					 "postcopy-paused\n%s",
					 m->view.status,
					 is_idle(m) ? "leave out --resume" : "see query-migrate");
	return is_idle(m) ? 0
			  : via_fail(err, -EINVAL, "migrate QEMU\nits migration is %s already\n%s",
				     m->view.status,
				     paused ? "resume it with --resume" : "wait until it is over");
}

/* What QEMU takes, and what it then loses the guest by, or never begins. */
static int check_mix(struct qemu_migration *m, struct via_error *err)
{
	const struct settings *s = m->settings;
	struct via_wait wait = wait_of();
	bool pre_8 = false;
	int version, rc;

	if (!s->channels || !s->postcopy_after)
		return 0;
	rc = relay_qmp_version(m->qmp, &wait, &version, err);
	if (!rc)
		rc = relay_qmp_machine(m->qmp, &wait, &pre_8, err);
	if (rc)
		return rc;
	if (version < RELAY_QEMU(8, 1))
		return via_fail(
			err, -EINVAL,
			"migrate QEMU\nQEMU before 8.1 takes multifd with postcopy, and loses "
			"the guest by it\nleave out --multifd or --postcopy");
	if (pre_8 && s->preempt_channel)
		return via_fail(
			err, -EINVAL,
			"migrate QEMU\nwith multifd QEMU waits for ever for what a machine of "
			"7.2 or older calls preempt\nleave out --multifd or --preempt");
	return 0;
}

static json_t *wanted_capabilities(const struct settings *s)
{
	return json_pack("{s:b, s:b, s:b, s:b, s:b}", "events", 1, "return-path", 1, "multifd",
			 s->channels > 0, "postcopy-ram", s->postcopy_after > 0, "postcopy-preempt",
			 (int)s->preempt_channel);
}

static json_t *wanted_parameters(const struct settings *s)
{
	json_t *wanted =
		json_pack("{s:I, s:I, s:I}", "downtime-limit",
			  (json_int_t)((s->downtime_ns + VIA_NS_PER_MS - 1) / VIA_NS_PER_MS),
			  "max-bandwidth", (json_int_t)s->max_bandwidth, "max-postcopy-bandwidth",
			  (json_int_t)s->max_postcopy_bandwidth);

	if (s->channels)
		json_object_set_new(wanted, "multifd-channels",
				    json_integer((json_int_t)s->channels));
	return wanted;
}

static int set_qemu(struct qemu_migration *m, struct via_error *err)
{
	struct tune t;
	int rc = tune_init(&t, m->qmp, &m->relay.config, via_deadline_in(ASK_NS), err);

	if (!rc)
		rc = tune_capabilities(&t, wanted_capabilities(m->settings), err);
	if (!rc)
		rc = tune_parameters(&t, wanted_parameters(m->settings), err);
	tune_fini(&t);
	return rc;
}

int qemu_set_up(struct qemu_migration *m, struct via_error *err)
{
	struct via_wait wait = wait_of();
	int rc = look(m, -1, err);

	if (!rc)
		rc = check_state(m, err);
	if (!rc && !m->settings->resume_paused)
		rc = check_mix(m, err);
	if (!rc && !m->settings->resume_paused)
		rc = set_qemu(m, err);
	if (!rc)
		rc = relay_qmp_ask(m->qmp, &wait, &m->relay.told, err);
	m->relay.told.facts.binding = true;
	return rc;
}

int qemu_begin(struct qemu_migration *m, struct via_error *err)
{
	struct via_wait wait = wait_of();
	json_t *arguments = json_pack("{s:s}", "uri", m->relay.address);
	int rc;

	if (m->settings->resume_paused)
		json_object_set_new(arguments, "resume", json_true());
	rc = relay_qmp_execute(m->qmp, "migrate", arguments, false, &wait, NULL, err);
	m->begun = !rc;
	m->left = !m->settings->resume_paused;
	m->deadline_ns =
		m->settings->timeout_ns ? via_deadline_in(m->settings->timeout_ns) : VIA_NEVER;
	m->resume_by_ns = via_deadline_in(RESUME_NS);
	return rc;
}

/* -- while it runs -------------------------------------------------------------------------- */

/*
 * QEMU may be just about to end by itself: what it refuses now it says, and no more. *done: it has
 * taken the command, or will, for all that is known.
 */
static int command(struct qemu_migration *m, const char *name, bool *done, struct via_error *err)
{
	struct via_wait wait = wait_of();
	struct via_error why = {0};
	int rc = relay_qmp_execute(m->qmp, name, NULL, false, &wait, NULL, &why);

	*done = !rc || rc == -ETIMEDOUT;
	if (rc != -EINVAL)
		return rc ? via_error_pass(err, &why) : 0;
	qemu_say(m, "QEMU: %s: %s", name, why.seen);
	return 0;
}

static void cut_off(struct qemu_migration *m, const char *text)
{
	m->cut_ns = VIA_NEVER;
	qemu_say(m, "%s", text);
	eventfd_write(m->relay.config.cancel_fd, 1);
}

/*
 * A QEMU that is canceled while it sets multifd up may wait for its own channels for ever, some
 * with their main loop: it goes on once they are closed.
 */
static int cancel(struct qemu_migration *m, const char *reason, struct via_error *err)
{
	bool taken;
	int rc;

	if (m->canceled)
		return 0;
	m->canceled = true;
	via_fail(&m->error, -ECANCELED,
		 "migrate QEMU\n%s\nmigrate it again: the guest runs on here", reason);
	rc = command(m, "migrate_cancel", &taken, err);
	if (!rc && taken)
		m->cut_ns = via_deadline_in(CANCEL_NS);
	return rc;
}

/* A signal. Behind the switch the first one only tells what the second one does. */
static int interrupted(struct qemu_migration *m, struct via_error *err)
{
	char lacking[32];
	eventfd_t count;

	if (eventfd_read(m->cancel_fd, &count))
		return 0;
	if (!is_in_postcopy(m))
		return cancel(m, "canceled by request", err);
	if (!m->warned) {
		m->warned = true;
		qemu_say(m,
			 "too late to cancel: the guest runs at the destination, and %s of its "
			 "memory "
			 "is here alone, and would be lost; the migration goes on. Once more to "
			 "pause "
			 "it",
			 format_bytes(m->view.remaining, lacking, sizeof(lacking)));
		return 0;
	}
	cut_off(m, "QEMU's connections are cut off: the migration pauses");
	return 0;
}

/* The next event, for as long as no counter has to be looked at. */
static int wait_for_news(struct qemu_migration *m, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(LOOK_NS), .cancel_fd = m->cancel_fd};
	struct via_error why = {0};
	json_t *event = NULL;
	const char *name;
	int rc = relay_qmp_event(m->qmp, &wait, &event, &why);

	name = json_string_value(json_object_get(event, "event"));
	m->left = m->left || (name && !strcmp(name, "MIGRATION"));
	json_decref(event);
	if (rc == -ECANCELED)
		return interrupted(m, err);
	return rc && rc != -ETIMEDOUT ? via_error_pass(err, &why) : 0;
}

static bool is_over(struct qemu_migration *m)
{
	if (!is(m, "postcopy-paused"))
		m->left = true;
	else if (m->left || via_deadline_passed(m->resume_by_ns))
		return true;
	/* QEMU may say that it has completed before it has counted how long that took. */
	if (is(m, "completed"))
		return m->view.total_ms || m->counted++ >= LOOKS_FOR_COUNTS;
	return is(m, "failed") || is(m, "cancelled");
}

/*
 * A round is through when as many pages were sent as there are: QEMU's own count does not tell,
 * with postcopy some versions begin new rounds before the first is through. What is sent in a
 * moment precopy had better end by itself: a switch with nothing left to send fails in QEMU 11.1,
 * one time in four. But not for ever.
 */
static bool is_time_to_switch(const struct qemu_migration *m)
{
	const struct qemu_view *v = &m->view;

	if (!m->settings->postcopy_after || m->asked || m->canceled || !is(m, "active") ||
	    !v->memory)
		return false;
	return v->visited / v->memory > (v->remaining > v->rate / MOMENTS_PER_S ? 0 : 1);
}

/*
 * QEMU answers from its main loop, which may stand still for longer than anybody should have to
 * wait: while the guest moves, or a disk is slow. As long as its connections are carried, so be it.
 */
static int bear_silence(struct qemu_migration *m, int rc, const struct via_error *why,
			struct via_error *err)
{
	bool silent = rc == -ETIMEDOUT;

	if (silent && own_relay_has_ended(&m->relay) && m->cut_ns == VIA_NEVER)
		return via_error_pass(err, why);
	if (silent && !m->unanswered && !m->canceled)
		qemu_say(m, "QEMU has not answered for %u s: the migration goes on",
			 (unsigned)(ASK_NS / VIA_NS_PER_S));
	m->unanswered = silent;
	return rc && !silent ? via_error_pass(err, why) : 0;
}

/* The guest moves, and the rest of its memory follows; or it is too late for that. */
static int move_on(struct qemu_migration *m, struct via_error *err)
{
	struct via_error why = {0};
	int rc;

	if (is_time_to_switch(m)) {
		m->asked = true;
		rc = command(m, "migrate-start-postcopy", &m->postcopy, &why);
		return bear_silence(m, rc, &why, err);
	}
	if (via_deadline_passed(m->cut_ns))
		cut_off(m, "QEMU does not end what was canceled: its connections are cut off");
	if (via_deadline_passed(m->deadline_ns) && !is_in_postcopy(m))
		return cancel(m, "not done within --timeout", err);
	return 0;
}

static int look_again(struct qemu_migration *m, struct via_error *err)
{
	struct via_error why = {0};
	int rc = look(m, m->cancel_fd, &why);

	return rc == -ECANCELED ? interrupted(m, err) : bear_silence(m, rc, &why, err);
}

int qemu_watch(struct qemu_migration *m, struct via_error *err)
{
	int rc = look_again(m, err);

	while (!rc && !is_over(m)) {
		qemu_show(m);
		rc = move_on(m, err);
		if (!rc)
			rc = wait_for_news(m, err);
		if (!rc)
			rc = look_again(m, err);
	}
	if (rc)
		memcpy(m->view.status, "unknown", sizeof("unknown"));
	qemu_show(m);
	return rc;
}
