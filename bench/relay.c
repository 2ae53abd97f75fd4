/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay.c -- bytes of QEMU's connections through a unix socket, the fabric, and a unix socket: a
 * relay on each side. Two more processes stand where QEMU would (relay_qemu.h); their CPU time
 * does not count.
 *
 * Timed is from the moment when all connections are there until the destination has all bytes.
 * Bare: proxies in the relays' place that move bytes from socket to socket, and TCP between them
 * whatever the fabric is.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bench/relay_proxy.h"
#include "bench/relay_qemu.h"
#include "bench/row.h"
#include "relay/relay.h"

#define BYTES (UINT64_C(1) << 30)

/* clang-format off */
static const struct bench_case cases[] = {
	{{{"channels", 0}}}, {{{"channels", 2}}}, {{{"channels", 4}}},
};
/* clang-format on */

static struct relay_load load_of(const struct bench_job *job)
{
	return (struct relay_load){.channels = bench_channels(job),
				   .bytes = job->memory ? job->memory : BYTES};
}

/* -- one end: a QEMU, and what carries its bytes ---------------------------------------------- */

struct end {
	struct bench_job *job;
	struct relay_load load;
	char folder[64], address[96]; /* the unix socket between the two */
	int listen_fd;                /* near: there; far: it is the QEMU's */
	struct relay_qemu qemu;
	/* ours */
	pthread_t thread;
	bool has_thread;
	int cancel_fd;
	struct relay_result result;
	struct via_error err; /* the relay's */
};

/* Whoever accepts there has nothing else to do. */
static void make_blocking(int fd)
{
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

/* To be closed also when it fails. */
static int end_open(struct end *e, struct bench_job *job, struct via_error *err)
{
	int rc;

	*e = (struct end){.job = job,
			  .load = load_of(job),
			  .folder = "/tmp/viaduct-bench-XXXXXX",
			  .cancel_fd = -1};
	if (!mkdtemp(e->folder))
		return via_fail(err, -EIO, "make a folder for a socket\n%s\nlook at /tmp",
				e->folder);
	snprintf(e->address, sizeof(e->address), "unix:%s/qemu", e->folder);
	rc = relay_listen(e->address, &e->listen_fd, err);
	if (rc)
		return rc;
	if (!job->far)
		return relay_qemu_source(e->address, &e->load, &e->qemu, err);
	make_blocking(e->listen_fd);
	return relay_qemu_destination(e->listen_fd, &e->load, &e->qemu, err);
}

/* A relay that has carried all ends by itself; one that has not (@rc) is told to. */
static void end_close(struct end *e, int rc)
{
	if (e->has_thread && rc)
		(void)eventfd_write(e->cancel_fd, 1);
	if (e->has_thread)
		pthread_join(e->thread, NULL);
	relay_qemu_end(&e->qemu);
	(void)unlink(e->address + strlen("unix:"));
	(void)rmdir(e->folder);
}

/* -- ours ----------------------------------------------------------------------------------- */

static void *relay_main(void *arg)
{
	struct end *e = arg;
	struct relay_config config = {.session = bench_session_config(e->job, 0, 0),
				      .cancel_fd = e->cancel_fd};
	int rc = e->job->far ? relay_destination(e->job->listen_fd, e->address, &config, &e->result,
						 &e->err)
			     : relay_source(e->listen_fd, e->job->address, &config, &e->result,
					    &e->err);

	if (rc)
		kill(e->qemu.pid, SIGKILL); /* who waits for it learns of it */
	return NULL;
}

static int start_relay(struct end *e, struct via_error *err)
{
	e->cancel_fd = eventfd(0, EFD_CLOEXEC);
	e->has_thread = pthread_create(&e->thread, NULL, relay_main, e) == 0;
	return e->has_thread
		       ? 0
		       : via_fail(err, -ENOMEM, "start a relay\nno more threads\nraise ulimit -u");
}

/* -- both ----------------------------------------------------------------------------------- */

static int carry(struct end *e, struct via_error *err)
{
	int rc = relay_qemu_wait_connected(&e->qemu, err);

	if (!rc)
		rc = bench_begin(e->job, err);
	if (!rc)
		rc = relay_qemu_migrate(&e->qemu, err);
	if (!rc)
		rc = bench_end(e->job, err);
	if (rc)
		return rc;
	bench_set_bandwidth(e->job, relay_load_bytes(&e->load));
	return bench_stop(e->job, err);
}

static int ours_near(struct bench_job *job, struct via_error *err)
{
	struct end e;
	int rc = end_open(&e, job, err);

	if (!rc)
		rc = bench_wait_ready(job, err);
	if (!rc)
		rc = start_relay(&e, err);
	if (!rc)
		rc = carry(&e, err);
	end_close(&e, rc);
	if (rc && e.err.code && e.err.code != -ECANCELED)
		*err = e.err; /* it knows more */
	snprintf(job->result->fabric, sizeof(job->result->fabric), "%.255s",
		 e.result.session.fabric);
	return rc;
}

static int ours_far(struct bench_job *job, struct via_error *err)
{
	struct end e;
	int rc = end_open(&e, job, err);

	if (!rc)
		rc = start_relay(&e, err);
	if (!rc)
		rc = bench_ready(job, err);
	if (!rc)
		bench_wait_stopped(job);
	end_close(&e, rc);
	return rc;
}

/* -- bare ----------------------------------------------------------------------------------- */

static const char *bare_is(const struct bench_case *c, const char *fabric, char *buf, size_t cap)
{
	(void)c;
	(void)fabric;
	snprintf(buf, cap,
		 "a proxy on each side, splice(2) by a thread for each connection, TCP "
		 "between them");
	return buf;
}

static int bare_near(struct bench_job *job, struct via_error *err)
{
	static char peer[128]; /* the proxy keeps it */
	size_t len;
	struct end e;
	int rc = end_open(&e, job, err);

	if (!rc)
		rc = bench_receive(job, peer, sizeof(peer) - 1, &len, err);
	if (!rc)
		rc = bench_wait_ready(job, err);
	if (!rc) {
		make_blocking(e.listen_fd);
		relay_proxy_start(e.listen_fd, peer);
		rc = carry(&e, err);
	}
	end_close(&e, rc);
	return rc;
}

/* Listen where the near end came to; tell it. */
static int listen_tcp(struct bench_job *job, int *fd, struct via_error *err)
{
	const char *host = via_control_local_host(job->control);
	char address[128];
	int rc;

	snprintf(address, sizeof(address), strchr(host, ':') ? "[%s]:0" : "%s:0", host);
	rc = relay_listen(address, fd, err);
	if (!rc)
		rc = via_control_listen_address(*fd, address, sizeof(address));
	return rc ? rc : bench_send(job, address, strlen(address), err);
}

static int bare_far(struct bench_job *job, struct via_error *err)
{
	struct end e;
	int listen_fd, rc = end_open(&e, job, err);

	if (!rc)
		rc = listen_tcp(job, &listen_fd, err);
	if (!rc) {
		make_blocking(listen_fd);
		relay_proxy_start(listen_fd, e.address);
		rc = bench_ready(job, err);
	}
	if (!rc)
		bench_wait_stopped(job);
	end_close(&e, rc);
	return rc;
}

const struct bench_row bench_relay = {
	.name = "relay",
	.summary =
		"QEMU's connections through a relay on each side; channels: multifd, 0: main alone",
	.unit = "GiB/s",
	.higher_is_better = true,
	.cases = cases,
	.ncases = sizeof(cases) / sizeof(cases[0]),
	.ours = {ours_near, ours_far},
	.bare = {bare_near, bare_far},
	.bare_is = bare_is,
};
