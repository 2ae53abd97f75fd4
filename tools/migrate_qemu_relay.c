/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * migrate_qemu_relay.c -- a source relay in a thread of this program.
 *
 * Must never leave its folder behind, and never listen where others than QEMU's user could connect.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/migrate_qemu.h"

/* QEMU has ended its migration: its connections, and so the relay, end within that. */
#define PATIENCE_NS (10 * VIA_NS_PER_S)

/* The first end counts: a relay that waits for more is canceled, and ends again. */
static void ended(void *arg, const struct relay_result *result, const struct via_error *why)
{
	struct qemu_migration *m = arg;
	struct own_relay *relay = &m->relay;

	metrics_relay_ended(relay->metrics, result);
	if (relay->result.outcome)
		return;
	relay->result = *result;
	if (why->code)
		relay->error = *why;
	eventfd_write(relay->ended_fd, 1);
}

static void *relay_main(void *arg)
{
	struct own_relay *relay = arg;
	struct relay_result result;

	(void)relay_source(relay->listen_fd, relay->peer, &relay->config, &result, NULL);
	eventfd_write(relay->ended_fd, 1);
	return NULL;
}

static int failed(const char *what, struct via_error *err)
{
	return via_fail(err, via_err_from_errno(errno),
			"make a place for QEMU to connect to\n%s: %s\n"
			"set TMPDIR to a folder with a short name that may be written to",
			what, strerror(errno));
}

/* A folder for QEMU's user alone, and in it the socket. */
static int listen_in_folder(struct own_relay *relay, struct relay_qmp *qmp, struct via_error *err)
{
	const char *tmp = getenv("TMPDIR");
	bool root = geteuid() == 0;
	uid_t uid;
	gid_t gid;
	int rc;

	snprintf(relay->folder, sizeof(relay->folder), "%s/viaduct-XXXXXX",
		 tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(relay->folder)) {
		rc = failed(relay->folder, err);
		relay->folder[0] = '\0';
		return rc;
	}
	snprintf(relay->address, sizeof(relay->address), "unix:%s/relay", relay->folder);
	rc = relay_listen(relay->address, &relay->listen_fd, err);
	if (!rc && root)
		rc = relay_qmp_owner(qmp, &uid, &gid, err);
	if (!rc && root &&
	    (chown(relay->address + strlen("unix:"), uid, gid) || chown(relay->folder, uid, gid)))
		rc = failed("chown", err);
	return rc;
}

int own_relay_start(struct own_relay *relay, struct relay_qmp *qmp, struct via_error *err)
{
	int rc = listen_in_folder(relay, qmp, err);

	if (rc)
		return rc;
	relay->config.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	relay->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (relay->config.cancel_fd < 0 || relay->ended_fd < 0)
		return failed("eventfd", err);
	relay->config.ended = ended;
	relay->config.told = &relay->told;
	relay->config.watch = &relay->watch;
	rc = pthread_create(&relay->thread, NULL, relay_main, relay);
	if (rc)
		return via_fail(err, via_err_from_errno(rc), "start a relay\n%s\nraise ulimit -u",
				strerror(rc));
	relay->running = true;
	return 0;
}

bool own_relay_has_ended(const struct own_relay *relay)
{
	struct pollfd p = {.fd = relay->ended_fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void own_relay_stop(struct own_relay *relay, bool patient)
{
	struct pollfd p = {.fd = relay->ended_fd, .events = POLLIN};

	if (relay->running) {
		if (patient)
			(void)poll(&p, 1, (int)(PATIENCE_NS / VIA_NS_PER_MS));
		eventfd_write(relay->config.cancel_fd, 1);
		pthread_join(relay->thread, NULL);
		relay->running = false;
	}
	close_fd(&relay->config.cancel_fd);
	close_fd(&relay->ended_fd);
	close_fd(&relay->listen_fd);
	if (!relay->folder[0])
		return;
	(void)unlink(relay->address + strlen("unix:"));
	(void)rmdir(relay->folder);
	relay->folder[0] = '\0';
}
