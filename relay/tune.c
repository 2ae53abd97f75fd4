/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tune.c -- what a relay sets in its QEMU, and when.
 *
 * Must never set a thing without saying so, and never let a migration begin whose two QEMUs are
 * known to be set differently: postcopy is where that would show, and too late.
 *
 * Invariant: what is different is set in one command, so that QEMU takes all of it or nothing.
 */
#include "relay/tune.h"

#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "relay/run.h"

#define ASK_NS    (10 * VIA_NS_PER_S)   /* for all that is asked of QEMU */
#define FAULTS_NS (2 * VIA_NS_PER_S)    /* the same, when it is over */
#define LOOK_NS   (100 * VIA_NS_PER_MS) /* for QEMU without events: look again */
#define LIST_MAX  200u                  /* bytes of a list of differences */

/* QEMU's own limit, where nobody has chosen one: less than any fabric here can do. */
#define DEFAULT_BANDWIDTH (INT64_C(128) << 20)

/* -- what QEMU is set to ---------------------------------------------------------------- */

static struct via_wait wait_of(const struct tune *t)
{
	return (struct via_wait){.deadline_ns = t->deadline_ns, .cancel_fd = t->config->cancel_fd};
}

static int ask(const struct tune *t, const char *command, json_t **answer, struct via_error *err)
{
	struct via_wait wait = wait_of(t);

	return relay_qmp_execute(t->qmp, command, NULL, false, &wait, answer, err);
}

/* [{"capability": NAME, "state": BOOLEAN}, ...] as {NAME: BOOLEAN, ...} */
static json_t *by_name(const json_t *list)
{
	json_t *object = json_object(), *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		const char *name = json_string_value(json_object_get(one, "capability"));

		if (name)
			json_object_set(object, name, json_object_get(one, "state"));
	}
	return object;
}

int tune_init(struct tune *t, struct relay_qmp *qmp, const struct relay_config *config,
	      uint64_t deadline_ns, struct via_error *err)
{
	json_t *list = NULL;
	int rc;

	*t = (struct tune){.config = config, .qmp = qmp, .deadline_ns = deadline_ns};
	rc = ask(t, "query-migrate-capabilities", &list, err);
	if (rc)
		return rc;
	t->capabilities = by_name(list);
	json_decref(list);
	return ask(t, "query-migrate-parameters", &t->parameters, err);
}

void tune_fini(struct tune *t)
{
	json_decref(t->capabilities);
	json_decref(t->parameters);
}

int tune_status(struct relay_qmp *qmp, const struct via_wait *wait, char status[32],
		struct via_error *err)
{
	json_t *answer = NULL;
	const char *is;
	int rc = relay_qmp_execute(qmp, "query-migrate", NULL, false, wait, &answer, err);

	if (rc)
		return rc;
	is = json_string_value(json_object_get(answer, "status"));
	snprintf(status, 32, "%s", is ? is : "none");
	json_decref(answer);
	return 0;
}

static bool is_on(const struct tune *t, const char *capability)
{
	return json_is_true(json_object_get(t->capabilities, capability));
}

/* -- setting it ------------------------------------------------------------------------- */

static const char *format_value(const json_t *value, char *buf, size_t cap)
{
	if (json_is_integer(value))
		snprintf(buf, cap, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_string(value))
		snprintf(buf, cap, "%s", json_string_value(value));
	else
		snprintf(buf, cap, "%s", json_is_true(value) ? "on" : "off");
	return buf;
}

/* Those of @wanted that are not so in @is; what is not there is off. */
static json_t *different(const json_t *is, json_t *wanted)
{
	json_t *found = json_object(), *value;
	const char *name;

	json_object_foreach(wanted, name, value)
	{
		const json_t *now = json_object_get(is, name);

		if (json_is_boolean(value) ? json_is_true(now) != json_is_true(value)
					   : !json_equal(now, value))
			json_object_set(found, name, value);
	}
	return found;
}

/* They were set. */
static void note_changes(const struct tune *t, json_t *is, json_t *changes)
{
	char before[64], after[64];
	const char *name;
	json_t *value;

	json_object_foreach(changes, name, value)
	{
		format_value(json_object_get(is, name), before, sizeof(before));
		relay_note(t->config, "QEMU: %s: %s -> %s", name, before,
			   format_value(value, after, sizeof(after)));
	}
	json_object_update(is, changes);
}

/* @arguments of @command, which sets @changes of what @is; consumed, as is @changes. */
static int set(struct tune *t, const char *command, json_t *arguments, json_t *is, json_t *changes,
	       struct via_error *err)
{
	struct via_wait wait = wait_of(t);
	int rc = 0;

	if (json_object_size(changes))
		rc = relay_qmp_execute(t->qmp, command, json_incref(arguments), false, &wait, NULL,
				       err);
	if (!rc)
		note_changes(t, is, changes);
	json_decref(arguments);
	json_decref(changes);
	return rc;
}

int tune_capabilities(struct tune *t, json_t *wanted, struct via_error *err)
{
	json_t *changes = different(t->capabilities, wanted), *list = json_array(), *value;
	const char *name;

	json_decref(wanted);
	json_object_foreach(changes, name, value)
	{
		json_array_append_new(list,
				      json_pack("{s:s, s:O}", "capability", name, "state", value));
	}
	return set(t, "migrate-set-capabilities", json_pack("{s:o}", "capabilities", list),
		   t->capabilities, changes, err);
}

int tune_parameters(struct tune *t, json_t *wanted, struct via_error *err)
{
	json_t *changes = different(t->parameters, wanted);

	json_decref(wanted);
	return set(t, "migrate-set-parameters", json_incref(changes), t->parameters, changes, err);
}

/* -- a source --------------------------------------------------------------------------- */

/* Recommended, not required: what QEMU refuses stays as it is. */
static int try_on(struct tune *t, const char *capability, struct via_error *err)
{
	struct via_error why = {0};
	int rc = tune_capabilities(t, json_pack("{s:b}", capability, 1), &why);

	if (rc != -EINVAL)
		return rc ? via_error_pass(err, &why) : 0;
	relay_note(t->config, "QEMU: %s stays off: %s", capability, why.seen);
	return 0;
}

/* Multifd beside postcopy is for QEMU 10.1 and later: others refuse it, or lose the guest. */
static int recommend(struct tune *t, bool pre_8, int version, struct via_error *err)
{
	bool postcopy = is_on(t, "postcopy-ram");
	json_t *bandwidth = json_object_get(t->parameters, "max-bandwidth");
	int rc = try_on(t, "return-path", err);

	/* Where it is opened early QEMU 10.1 and later wait for its first bytes, with multifd. */
	if (!rc && postcopy && !pre_8 && json_object_get(t->capabilities, "postcopy-preempt"))
		rc = try_on(t, "postcopy-preempt", err);
	if (!rc && !is_on(t, "xbzrle") && !is_on(t, "compress") &&
	    (!postcopy || (version >= RELAY_QEMU(10, 1) && !pre_8)))
		rc = try_on(t, "multifd", err);
	if (!rc && json_integer_value(bandwidth) == DEFAULT_BANDWIDTH)
		rc = tune_parameters(t, json_pack("{s:i}", "max-bandwidth", 0), err);
	return rc;
}

static bool is_idle(const char *status)
{
	static const char *const idle[] = {"none", "completed", "failed", "cancelled"};

	for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
		if (!strcmp(status, idle[i]))
			return true;
	return false;
}

int relay_tune(const struct relay_config *config, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(ASK_NS),
				.cancel_fd = config->cancel_fd};
	struct relay_qmp *qmp = NULL;
	struct tune t = {0};
	char status[32];
	bool pre_8;
	int version, rc = relay_qmp_open(config->qmp, &wait, &qmp, err);

	if (!rc)
		rc = tune_status(qmp, &wait, status, err);
	if (!rc && !is_idle(status)) {
		relay_note(config, "QEMU: nothing is set: its migration is %s", status);
		goto out;
	}
	if (!rc)
		rc = tune_init(&t, qmp, config, wait.deadline_ns, err);
	if (!rc)
		rc = relay_qmp_machine(qmp, &wait, &pre_8, err);
	if (!rc)
		rc = relay_qmp_version(qmp, &wait, &version, err);
	if (!rc)
		rc = recommend(&t, pre_8, version, err);
out:
	tune_fini(&t);
	relay_qmp_close(qmp);
	return rc;
}

/* -- a destination ------------------------------------------------------------------------ */

int tune_take_facts(struct via_stream *main, struct relay_facts *facts, struct via_error *err)
{
	uint8_t record[RELAY_FACTS_MAX];
	size_t have = 0, len;
	ssize_t n = 0;
	int rc = 0, status;

	while (rc >= 0 && !n) {
		const uint8_t *bytes = via_stream_data(main, &len);

		if (bytes) {
			record[have++] = *bytes;
			rc = via_stream_consume(main, 1);
			n = relay_facts_decode(record, have, facts);
		} else if (via_stream_ended(main, &status)) {
			n = -EPROTO;
		} else {
			rc = via_stream_wait(main, VIA_NEVER, NULL, 0);
		}
	}
	if (rc >= 0 && n < 0)
		return via_fail(err, -EPROTO,
				"take what the source's relay says of its QEMU\n%zu bytes that are "
				"no such record\nrun the same release on both sides",
				have);
	return rc < 0 ? rc : 0;
}

static json_t *wanted_capabilities(const struct relay_facts *facts)
{
	json_t *wanted = json_object();

	for (enum relay_capability c = 0; c < RELAY_CAPS; c++)
		json_object_set_new(wanted, relay_capability_name(c),
				    json_boolean(facts->on & 1u << c));
	return wanted;
}

static json_t *wanted_parameters(const struct relay_facts *facts)
{
	if (!facts->multifd_channels)
		return json_object();
	return json_pack("{s:i, s:s}", "multifd-channels", (int)facts->multifd_channels,
			 "multifd-compression", facts->multifd_compression);
}

/* "multifd off, not on" */
static void list_differences(const json_t *is, json_t *wanted, char *list)
{
	json_t *changes = different(is, wanted), *value;
	char here[64], there[64];
	const char *name;

	json_object_foreach(changes, name, value)
	{
		size_t len = strlen(list);

		snprintf(list + len, LIST_MAX - len, "%s%s %s, not %s", len ? "; " : "", name,
			 format_value(json_object_get(is, name), here, sizeof(here)),
			 format_value(value, there, sizeof(there)));
	}
	json_decref(changes);
	json_decref(wanted);
}

static int compare(const struct tune *t, const struct relay_facts *facts, struct via_error *err)
{
	char list[LIST_MAX] = "";

	list_differences(t->capabilities, wanted_capabilities(facts), list);
	list_differences(t->parameters, wanted_parameters(facts), list);
	if (!list[0])
		return 0;
	return via_fail(err, -EINVAL,
			"compare the destination's QEMU with the source's\n%s\n"
			"set both alike, or start the destination's relay with --tune",
			list);
}

/* Like the source's. */
static int prepare(struct tune *t, const struct relay_facts *facts, struct via_error *err)
{
	bool postcopy = facts->on & 1 << RELAY_CAP_POSTCOPY_RAM;
	struct via_wait wait = wait_of(t);
	int version = 0, rc = 0;

	if (!facts->known) {
		relay_note(t->config, "QEMU: nothing is set: the source's relay has no --qmp, and "
				      "cannot say how its QEMU is set");
		return 0;
	}
	if (postcopy)
		rc = relay_qmp_version(t->qmp, &wait, &version, err);
	if (!rc && postcopy && facts->multifd_channels && version < RELAY_QEMU(8, 1))
		return via_fail(err, -EINVAL,
				"set the destination's QEMU like the source's\nbefore 8.1 it takes "
				"multifd with postcopy, and loses the guest by it\n"
				"leave out one of the two");
	if (rc || !t->config->tune)
		return rc ? rc : compare(t, facts, err);
	rc = tune_capabilities(t, wanted_capabilities(facts), err);
	if (!rc)
		rc = tune_parameters(t, wanted_parameters(facts), err);
	/* For tune_note_faults(), where it costs little. */
	if (!rc && postcopy && version >= RELAY_QEMU(10, 1) &&
	    json_object_get(t->capabilities, "postcopy-blocktime"))
		rc = try_on(t, "postcopy-blocktime", err);
	return rc;
}

/* Have QEMU wait at @address. */
static int expect(const struct tune *t, const char *command, const char *address,
		  struct via_error *err)
{
	const char *transport =
		!strncmp(address, "unix:", 5) || !strncmp(address, "tcp:", 4) ? "" : "tcp:";
	struct via_wait wait = wait_of(t);
	json_t *uri = json_sprintf("%s%s", transport, address);
	int rc = relay_qmp_execute(t->qmp, command, json_pack("{s:o}", "uri", uri),
				   !strcmp(command, "migrate-recover"), &wait, NULL, err);

	if (!rc)
		relay_note(t->config, "QEMU: %s %s%s", command, transport, address);
	return rc;
}

/* The relay may know of an end, or of a loss, before this QEMU has come to it. */
static int wait_for_end(const struct tune *t, char status[32], struct via_error *err)
{
	struct via_wait wait = wait_of(t);
	int rc = 0;

	while (!rc && !strcmp(status, "postcopy-active")) {
		struct via_wait soon = {.deadline_ns = via_deadline_in(LOOK_NS),
					.cancel_fd = wait.cancel_fd};
		struct via_error why = {0};
		json_t *event = NULL;

		if (via_deadline_passed(wait.deadline_ns))
			return 0;
		rc = relay_qmp_event(t->qmp, &soon, &event, &why);
		json_decref(event);
		if (rc && rc != -ETIMEDOUT)
			return via_error_pass(err, &why);
		rc = tune_status(t->qmp, &wait, status, err);
	}
	return rc;
}

/* By its own state: is this a new migration, or the rest of one that has paused? */
static int set_up(struct tune *t, const char *address, const struct relay_facts *facts,
		  struct via_error *err)
{
	struct via_wait wait = wait_of(t);
	char status[32];
	int rc = tune_status(t->qmp, &wait, status, err);

	if (!rc)
		rc = wait_for_end(t, status, err);
	if (rc)
		return rc;
	if (!strncmp(status, "postcopy-", 9))
		return t->config->tune ? expect(t, "migrate-recover", address, err) : 0;
	rc = prepare(t, facts, err);
	/* "setup": it waits already, by its -incoming or somebody's command. */
	if (!rc && t->config->tune && strcmp(status, "setup") != 0)
		rc = expect(t, "migrate-incoming", address, err);
	return rc;
}

int tune_destination(const struct relay_config *config, const char *address,
		     const struct relay_facts *facts, struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = via_deadline_in(ASK_NS),
				.cancel_fd = config->cancel_fd};
	bool needed = config->tune || (facts->known && facts->binding);
	struct via_error why = {0};
	struct relay_qmp *qmp = NULL;
	struct tune t = {0};
	int rc;

	if (!config->qmp && !needed)
		return 0;
	if (!config->qmp)
		return via_fail(err, -EOPNOTSUPP,
				"set the destination's QEMU like the source's\n"
				"the relay beside it has no --qmp\n"
				"start it with --qmp SOCKET --tune");
	rc = relay_qmp_open(config->qmp, &wait, &qmp, &why);
	if (rc && !needed) {
		relay_note(config, "%s: %s: nothing is compared", why.what, why.seen);
		return 0;
	}
	if (!rc)
		rc = tune_init(&t, qmp, config, wait.deadline_ns, &why);
	if (!rc)
		rc = set_up(&t, address, facts, &why);
	tune_fini(&t);
	relay_qmp_close(qmp);
	return rc ? via_error_pass(err, &why) : 0;
}

void tune_note_faults(const struct relay_config *config)
{
	struct tune t = {.config = config, .deadline_ns = via_deadline_in(FAULTS_NS)};
	struct via_wait wait = wait_of(&t);
	json_t *answer = NULL;
	json_int_t mean_ns;
	char status[32];

	if (!config->qmp || relay_qmp_open(config->qmp, &wait, &t.qmp, NULL))
		return;
	if (!tune_status(t.qmp, &wait, status, NULL) && !wait_for_end(&t, status, NULL))
		(void)ask(&t, "query-migrate", &answer, NULL);
	mean_ns = json_integer_value(json_object_get(answer, "postcopy-latency"));
	if (mean_ns)
		relay_note(config,
			   "QEMU: a page that was missing was there after %.0f us, the mean",
			   (double)mean_ns / 1e3);
	json_decref(answer);
	relay_qmp_close(t.qmp);
}
