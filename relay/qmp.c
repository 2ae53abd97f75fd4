/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qmp.c -- QMP: greeting, commands and their answers, and the events between them.
 *
 * Must never wait past a deadline and never take one command's answer for another's.
 *
 * Invariant: each command carries a number that the answer repeats, so what comes late, after
 * its caller has gone, is known for that and dropped. The bytes in buf are what follows the
 * last whole message.
 */
#include "relay/qmp.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/clock.h"

#define RECEIVE_LEN 16384u

struct relay_qmp {
	int fd;
	bool oob;
	uint64_t last_id;
	struct via_error dead; /* code 0: alive */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];

	char *buf;
	size_t len, cap;
	size_t lines_len; /* bytes of whole lines at the start of buf */
	bool looked;      /* and they hold no whole message */

	json_t *event[RELAY_QMP_EVENTS_MAX];
	unsigned event_head, nevents;
};

/* -- the socket -------------------------------------------------------------------- */

/* The connection is of no more use, for the reason in q->dead. */
static int die(struct relay_qmp *q, struct via_error *err)
{
	return via_error_pass(err, &q->dead);
}

static int lost(struct relay_qmp *q, int errnum, struct via_error *err)
{
	int code = !errnum || errnum == EPIPE ? -ECONNRESET : via_err_from_errno(errnum);

	via_fail(&q->dead, code, "talk QMP at %s\n%s\nsee whether QEMU still runs", q->path,
		 errnum ? strerror(errnum) : "QEMU closed the connection");
	return die(q, err);
}

static int garbage(struct relay_qmp *q, const char *seen, struct via_error *err)
{
	via_fail(&q->dead, -EPROTO,
		 "talk QMP at %s\n%s\n"
		 "give the socket of `-qmp unix:PATH,server=on,wait=off`",
		 q->path, seen);
	return die(q, err);
}

static int no_memory(struct relay_qmp *q, struct via_error *err)
{
	return via_fail(err, -ENOMEM, "talk QMP at %s\nno memory\nfree some", q->path);
}

static int wait_for(struct relay_qmp *q, short events, const struct via_wait *wait,
		    struct via_error *err)
{
	/* poll(2) leaves out what is negative. */
	struct pollfd p[2] = {{.fd = q->fd, .events = events},
			      {.fd = wait->cancel_fd, .events = POLLIN}};

	for (;;) {
		int n = poll(p, 2, via_deadline_poll_ms(wait->deadline_ns));

		if (n < 0 && errno != EINTR)
			return lost(q, errno, err);
		if (n > 0 && p[1].revents)
			return via_fail(err, -ECANCELED, "talk QMP at %s\ncanceled\n", q->path);
		if (n > 0)
			return 0;
		if (via_deadline_passed(wait->deadline_ns))
			return via_fail(err, -ETIMEDOUT,
					"talk QMP at %s\nno answer until the deadline\n"
					"see whether QEMU runs, and talks to another client",
					q->path);
	}
}

static int send_all(struct relay_qmp *q, const char *text, size_t len, const struct via_wait *wait,
		    struct via_error *err)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = send(q->fd, text + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		int rc;

		if (n >= 0) {
			at += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return lost(q, errno, err);
		rc = wait_for(q, POLLOUT, wait, err);
		if (rc) {
			/* Half a command: the next one would be taken for its rest. */
			if (at)
				via_fail(&q->dead, rc, "talk QMP at %s\na command was cut off\n",
					 q->path);
			return rc;
		}
	}
	return 0;
}

static void find_lines(struct relay_qmp *q)
{
	const char *last = q->len ? memrchr(q->buf, '\n', q->len) : NULL;
	size_t len = last ? (size_t)(last + 1 - q->buf) : 0;

	q->looked = q->looked && len == q->lines_len;
	q->lines_len = len;
}

static int receive_some(struct relay_qmp *q, const struct via_wait *wait, struct via_error *err)
{
	ssize_t n;
	int rc;

	if (q->len == RELAY_QMP_MESSAGE_MAX)
		return garbage(q, "a message that does not end", err);
	if (q->len == q->cap) {
		size_t cap = q->cap + RECEIVE_LEN;
		char *buf = realloc(q->buf, cap);

		if (!buf)
			return no_memory(q, err);
		q->buf = buf;
		q->cap = cap;
	}
	do {
		n = recv(q->fd, q->buf + q->len, q->cap - q->len, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) {
			rc = wait_for(q, POLLIN, wait, err);
			if (rc)
				return rc;
		} else if (n <= 0 && !(n < 0 && errno == EINTR)) {
			return lost(q, n ? errno : 0, err);
		}
	} while (n < 0);
	q->len += (size_t)n;
	find_lines(q);
	return 0;
}

/* -- messages ------------------------------------------------------------------------ */

static void drop(struct relay_qmp *q, size_t n)
{
	memmove(q->buf, q->buf + n, q->len - n);
	q->len -= n;
	q->looked = false;
	find_lines(q);
}

/*
 * The next message, a JSON object. The end of a line only says that it is worth to look for one,
 * and that no character is cut: with pretty=on a message has many lines.
 */
static int receive(struct relay_qmp *q, const struct via_wait *wait, json_t **message,
		   struct via_error *err)
{
	const size_t flags = JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES;
	json_error_t why;
	int rc;

	for (;;) {
		if (q->lines_len && !q->looked) {
			*message = json_loadb(q->buf, q->lines_len, flags, &why);
			if (*message) {
				drop(q, (size_t)why.position);
				return 0;
			}
			if (json_error_code(&why) != json_error_premature_end_of_input)
				return garbage(q, why.text, err);
			q->looked = true;
		}
		rc = receive_some(q, wait, err);
		if (rc)
			return rc;
	}
}

static void keep_event(struct relay_qmp *q, json_t *event)
{
	if (q->nevents == RELAY_QMP_EVENTS_MAX) {
		json_decref(q->event[q->event_head]);
		q->event_head = (q->event_head + 1) % RELAY_QMP_EVENTS_MAX;
		q->nevents--;
	}
	q->event[(q->event_head + q->nevents++) % RELAY_QMP_EVENTS_MAX] = json_incref(event);
}

/* -- commands -------------------------------------------------------------------------- */

static int post(struct relay_qmp *q, const char *command, json_t *arguments, bool oob,
		const struct via_wait *wait, struct via_error *err)
{
	json_t *root = json_pack("{s:s, s:I}", oob && q->oob ? "exec-oob" : "execute", command,
				 "id", (json_int_t)++q->last_id);
	char *text;
	size_t len;
	int rc;

	if (arguments && json_object_set_new(root, "arguments", arguments)) {
		json_decref(root);
		return no_memory(q, err);
	}
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (!text)
		return no_memory(q, err);
	len = strlen(text);
	text[len] = '\n'; /* in place of the NUL */
	rc = send_all(q, text, len + 1, wait, err);
	free(text);
	return rc;
}

/* Is @message the answer to the last command? What QEMU could not read has no id. */
static bool is_answer(const struct relay_qmp *q, const json_t *message)
{
	const json_t *id = json_object_get(message, "id");

	if (!id)
		return json_object_get(message, "error");
	return json_is_integer(id) && json_integer_value(id) == (json_int_t)q->last_id;
}

static int refused(struct relay_qmp *q, const char *command, const json_t *error,
		   struct via_error *err)
{
	const char *class = json_string_value(json_object_get(error, "class"));
	const char *desc = json_string_value(json_object_get(error, "desc"));
	bool unknown = class && !strcmp(class, "CommandNotFound");

	return via_fail(err, unknown ? -EOPNOTSUPP : -EINVAL, "run %s over QMP at %s\n%s\n%s",
			command, q->path, desc ? desc : "refused without a reason",
			unknown ? "use a QEMU that has this command" : "see QEMU's reason");
}

int relay_qmp_execute(struct relay_qmp *q, const char *command, json_t *arguments, bool oob,
		      const struct via_wait *wait, json_t **result, struct via_error *err)
{
	json_t *message, *error, *value;
	int rc;

	if (q->dead.code) {
		json_decref(arguments);
		return die(q, err);
	}
	rc = post(q, command, arguments, oob, wait, err);
	while (!rc) {
		rc = receive(q, wait, &message, err);
		if (rc)
			break;
		error = json_object_get(message, "error");
		value = json_object_get(message, "return");
		if (json_object_get(message, "event")) {
			keep_event(q, message);
		} else if (!error && !value) {
			rc = garbage(q, "neither an answer nor an event", err);
		} else if (is_answer(q, message)) {
			if (error)
				rc = refused(q, command, error, err);
			else if (result)
				*result = json_incref(value);
			json_decref(message);
			return rc;
		}
		json_decref(message);
	}
	return rc;
}

int relay_qmp_event(struct relay_qmp *q, const struct via_wait *wait, json_t **event,
		    struct via_error *err)
{
	json_t *message;
	int rc;

	while (!q->nevents) {
		if (q->dead.code)
			return die(q, err);
		rc = receive(q, wait, &message, err);
		if (rc)
			return rc;
		if (json_object_get(message, "event"))
			keep_event(q, message);
		json_decref(message);
	}
	*event = q->event[q->event_head];
	q->event_head = (q->event_head + 1) % RELAY_QMP_EVENTS_MAX;
	q->nevents--;
	return 0;
}

/* -- open and close ---------------------------------------------------------------------- */

static int connect_failed(const char *path, int errnum, struct via_error *err)
{
	const char *remedy = "start QEMU with `-qmp unix:PATH,server=on,wait=off`";

	if (errnum == EACCES)
		remedy = "run as a user who may use the socket";
	else if (errnum == EAGAIN)
		remedy = "end the clients that use it";
	return via_fail(err, errnum == EACCES ? -EPERM : via_err_from_errno(errnum),
			"connect to QMP at %s\n%s\n%s", path, strerror(errnum), remedy);
}

static int connect_to(const char *path, int *result, struct via_error *err)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd, errnum;

	if (strlen(path) >= sizeof(sun.sun_path))
		return via_fail(err, -EINVAL,
				"connect to QMP at %s\n%zu bytes, and a socket's path has at most "
				"%zu\ntake a shorter path",
				path, strlen(path), sizeof(sun.sun_path) - 1);
	memcpy(sun.sun_path, path, strlen(path));
	/* A connect() that waits would know no deadline; this one says EAGAIN. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return connect_failed(path, errno, err);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		errnum = errno;
		close(fd);
		return connect_failed(path, errnum, err);
	}
	*result = fd;
	return 0;
}

/* {"QMP": {"version": ..., "capabilities": ["oob"]}} */
static int greet(struct relay_qmp *q, const struct via_wait *wait, struct via_error *err)
{
	json_t *message, *capabilities, *enable = NULL, *one;
	size_t i;
	int rc = receive(q, wait, &message, err);

	if (rc)
		return rc;
	capabilities = json_object_get(json_object_get(message, "QMP"), "capabilities");
	if (!capabilities)
		rc = garbage(q, "the greeting is not QMP's", err);
	json_array_foreach(capabilities, i, one) q->oob =
		q->oob || (json_is_string(one) && !strcmp(json_string_value(one), "oob"));
	json_decref(message);
	if (q->oob)
		enable = json_pack("{s:[s]}", "enable", "oob");
	if (rc) {
		json_decref(enable);
		return rc;
	}
	return relay_qmp_execute(q, "qmp_capabilities", enable, false, wait, NULL, err);
}

int relay_qmp_open(const char *path, const struct via_wait *wait, struct relay_qmp **qmp,
		   struct via_error *err)
{
	struct relay_qmp *q = calloc(1, sizeof(*q));
	int rc;

	if (!q)
		return via_fail(err, -ENOMEM, "connect to QMP at %s\nno memory\nfree some", path);
	q->fd = -1;
	rc = connect_to(path, &q->fd, err);
	if (!rc) {
		memcpy(q->path, path, strlen(path) + 1);
		rc = greet(q, wait, err);
	}
	if (rc) {
		relay_qmp_close(q);
		return rc;
	}
	*qmp = q;
	return 0;
}

void relay_qmp_close(struct relay_qmp *q)
{
	if (!q)
		return;
	for (; q->nevents; q->nevents--) {
		json_decref(q->event[q->event_head]);
		q->event_head = (q->event_head + 1) % RELAY_QMP_EVENTS_MAX;
	}
	if (q->fd >= 0)
		close(q->fd);
	free(q->buf);
	free(q);
}

/* Its process's: who has listened may have been root, that has become somebody else since. */
int relay_qmp_owner(const struct relay_qmp *q, uid_t *uid, gid_t *gid, struct via_error *err)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct stat process;
	char path[32];

	if (getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return via_fail(err, -EIO, "find QEMU's user\n%s\nsee whether QEMU still runs",
				strerror(errno));
	snprintf(path, sizeof(path), "/proc/%d", (int)peer.pid);
	*uid = peer.uid;
	*gid = peer.gid;
	if (!stat(path, &process)) {
		*uid = process.st_uid;
		*gid = process.st_gid;
	}
	return 0;
}

/* -- what a source is set to ----------------------------------------------------------------- */

/* @capabilities: [{"capability": "multifd", "state": true}, ...] */
static bool is_on(const json_t *capabilities, const char *name)
{
	const json_t *one;
	size_t i;

	json_array_foreach(capabilities, i, one)
	{
		const char *has = json_string_value(json_object_get(one, "capability"));

		if (has && !strcmp(has, name))
			return json_is_true(json_object_get(one, "state"));
	}
	return false;
}

int relay_qmp_version(struct relay_qmp *q, const struct via_wait *wait, int *version,
		      struct via_error *err)
{
	int major = 0, minor = 0;
	json_t *answer = NULL;
	int rc = relay_qmp_execute(q, "query-version", NULL, false, wait, &answer, err);

	if (rc)
		return rc;
	(void)json_unpack(answer, "{s:{s:i, s:i}}", "qemu", "major", &major, "minor", &minor);
	json_decref(answer);
	*version = RELAY_QEMU(major, minor);
	return 0;
}

/* A machine without a type is one whose channels come in today's order. */
int relay_qmp_machine(struct relay_qmp *q, const struct via_wait *wait, bool *pre_8,
		      struct via_error *err)
{
	json_t *arguments = json_pack("{s:s, s:s}", "path", "/machine", "property", "type");
	json_t *type = NULL;
	struct via_error refusal = {0};
	int rc = relay_qmp_execute(q, "qom-get", arguments, false, wait, &type, &refusal);

	if (rc && rc != -EINVAL)
		return via_error_pass(err, &refusal);
	*pre_8 = json_is_string(type) && relay_machine_is_pre_8(json_string_value(type));
	json_decref(type);
	return 0;
}

/* False: they are not what QEMU says. */
static bool read_settings(const json_t *capabilities, const json_t *parameters, bool pre_8,
			  struct relay_told *told)
{
	const char *tls_creds = json_string_value(json_object_get(parameters, "tls-creds"));
	const char *compression =
		json_string_value(json_object_get(parameters, "multifd-compression"));
	json_int_t channels = json_integer_value(json_object_get(parameters, "multifd-channels"));
	struct relay_expected *e = &told->expected;
	struct relay_facts *f = &told->facts;
	uint8_t record[RELAY_FACTS_MAX];

	memset(told, 0, sizeof(*told));
	f->known = e->known = true;
	for (enum relay_capability c = 0; c < RELAY_CAPS; c++)
		if (is_on(capabilities, relay_capability_name(c)))
			f->on |= (uint16_t)(1u << c);
	e->preempt = f->on & 1 << RELAY_CAP_POSTCOPY_PREEMPT;
	e->early_preempt = e->preempt && pre_8;
	e->tls = tls_creds && tls_creds[0];
	if (f->on & 1 << RELAY_CAP_MULTIFD) {
		if (channels < 1 || channels >= (json_int_t)RELAY_MULTIFD_MAX || !compression ||
		    strlen(compression) > RELAY_COMPRESSION_MAX)
			return false;
		e->multifd = f->multifd_channels = (unsigned)channels;
		snprintf(f->multifd_compression, sizeof(f->multifd_compression), "%s", compression);
	}
	return relay_facts_encode(f, record, sizeof(record)) > 0;
}

int relay_qmp_ask(struct relay_qmp *q, const struct via_wait *wait, struct relay_told *told,
		  struct via_error *err)
{
	json_t *capabilities = NULL, *parameters = NULL;
	struct relay_told found;
	bool pre_8;
	int rc = relay_qmp_execute(q, "query-migrate-capabilities", NULL, false, wait,
				   &capabilities, err);

	if (!rc)
		rc = relay_qmp_execute(q, "query-migrate-parameters", NULL, false, wait,
				       &parameters, err);
	if (!rc)
		rc = relay_qmp_machine(q, wait, &pre_8, err);
	if (!rc && !read_settings(capabilities, parameters, pre_8, &found))
		rc = garbage(q, "multifd without its number of channels, or its compression", err);
	else if (!rc)
		*told = found;
	json_decref(capabilities);
	json_decref(parameters);
	return rc;
}
