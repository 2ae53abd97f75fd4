/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay_qemu.c -- see relay_qemu.h. The children do nothing but send and receive, so that what is
 * measured is what carries their bytes; their CPU time is their own.
 *
 * Invariant: each connection carries a number of bytes that both children know beforehand. So the
 * destination knows when it has everything, and says so in the way of QEMU, on main's return path.
 */
#include "bench/relay_qemu.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/row.h"
#include "core/wire.h"
#include "relay/qemu_wire.h"

#define PAGE_LEN     4096u
#define PACKET_PAGES 128u
#define PAYLOAD_LEN  (PACKET_PAGES * PAGE_LEN)
#define HEADER_LEN   (320u + 8u * PACKET_PAGES)
#define MAIN_LEN     8u
#define LANES_MAX    17u

/* A section of main begins: what follows has no lengths that a relay could read. */
#define SECTION_START 1u

/* PONG 1, and SHUT with success: what the destination says on the return path. */
static const uint8_t pong[] = {0, 2, 0, 4, 0, 0, 0, 1};
static const uint8_t shut_well[] = {0, 1, 0, 4, 0, 0, 0, 0};

enum order { ORDER_CONNECTED = 1, ORDER_GO, ORDER_DONE };

/* One connection, and what one thread does with it. */
struct lane {
	pthread_t thread;
	int fd;
	const struct relay_load *load;
	bool sends;
};

/* How many connections carry memory. */
static unsigned carriers(const struct relay_load *load)
{
	return load->channels ? load->channels : 1;
}

static size_t piece_len(const struct relay_load *load)
{
	return PAYLOAD_LEN + (load->channels ? HEADER_LEN : 0);
}

/* Of each connection that carries memory. */
static uint64_t pieces(const struct relay_load *load)
{
	uint64_t n = load->bytes / PAYLOAD_LEN / carriers(load);

	return n ? n : 1;
}

uint64_t relay_load_bytes(const struct relay_load *load)
{
	return pieces(load) * piece_len(load) * carriers(load);
}

/* -- in the children ------------------------------------------------------------------------ */

static void put(int fd, const void *bytes, size_t len)
{
	const char *at = bytes;

	while (len) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		at += n;
		len -= (size_t)n;
	}
}

static void get(int fd, void *bytes, size_t len)
{
	char *at = bytes;

	while (len) {
		ssize_t n = recv(fd, at, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		at += n;
		len -= (size_t)n;
	}
}

static void expect(int fd, const void *bytes, size_t len)
{
	uint8_t seen[16];

	get(fd, seen, len);
	if (memcmp(seen, bytes, len) != 0)
		_exit(1);
}

static void put_init(int fd, unsigned id)
{
	uint8_t init[QEMU_MULTIFD_INIT_LEN] = {0};
	struct via_wire w = via_wire_writer(init, sizeof(init));

	via_wire_put_u32(&w, QEMU_MULTIFD_MAGIC);
	via_wire_put_u32(&w, QEMU_MULTIFD_VERSION);
	init[QEMU_MULTIFD_ID_OFF] = (uint8_t)id;
	put(fd, init, sizeof(init));
}

static void put_main(int fd)
{
	uint8_t header[MAIN_LEN];
	struct via_wire w = via_wire_writer(header, sizeof(header));

	via_wire_put_u32(&w, QEMU_MAIN_MAGIC);
	via_wire_put_u32(&w, QEMU_MAIN_VERSION);
	put(fd, header, sizeof(header));
}

/* A full packet of pages, as QEMU 9.0 and later: relay/multifd_stream.c has the offsets. */
static void put_packet_header(uint8_t *at)
{
	struct via_wire w = via_wire_writer(at, HEADER_LEN);

	memset(at, 0, HEADER_LEN);
	via_wire_put_u32(&w, QEMU_MULTIFD_MAGIC);
	via_wire_put_u32(&w, QEMU_MULTIFD_VERSION);
	via_wire_put_u32(&w, 0); /* flags */
	via_wire_put_u32(&w, PACKET_PAGES);
	via_wire_put_u32(&w, PACKET_PAGES);
	via_wire_put_u32(&w, PAYLOAD_LEN);
}

static void *run_lane(void *arg)
{
	const struct lane *l = arg;
	size_t len = piece_len(l->load);
	uint8_t *piece = malloc(len);

	if (!piece)
		_exit(1);
	memset(piece, SECTION_START, len);
	if (l->load->channels)
		put_packet_header(piece);
	for (uint64_t n = pieces(l->load); n; n--) {
		if (l->sends)
			put(l->fd, piece, len);
		else
			get(l->fd, piece, len);
	}
	free(piece);
	return NULL;
}

/* All connections that carry memory, each in a thread. @lane[0] is main. */
static void run_lanes(const struct relay_load *load, struct lane *lane, bool sends)
{
	unsigned first = load->channels ? 1 : 0, end = first + carriers(load);

	for (unsigned i = first; i < end; i++) {
		lane[i].load = load;
		lane[i].sends = sends;
		if (pthread_create(&lane[i].thread, NULL, run_lane, &lane[i]) != 0)
			_exit(1);
	}
	for (unsigned i = first; i < end; i++)
		pthread_join(lane[i].thread, NULL);
}

static int connect_unix(const char *address)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", address + strlen("unix:"));
	if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0)
		_exit(1);
	return fd;
}

static void tell(int fd, enum order order)
{
	uint8_t byte = (uint8_t)order;

	put(fd, &byte, 1);
}

/* The source's child. */
static void be_source(const char *address, const struct relay_load *load, int orders)
{
	struct lane lane[LANES_MAX] = {0};
	uint8_t go;

	lane[0].fd = connect_unix(address);
	put_main(lane[0].fd);
	for (unsigned i = 1; i <= load->channels; i++) {
		lane[i].fd = connect_unix(address);
		put_init(lane[i].fd, i - 1);
	}
	expect(lane[0].fd, pong, sizeof(pong));
	tell(orders, ORDER_CONNECTED);
	get(orders, &go, 1);
	run_lanes(load, lane, true);
	expect(lane[0].fd, shut_well, sizeof(shut_well));
	tell(orders, ORDER_DONE);
}

/* The destination's child. */
static void be_destination(int listen_fd, const struct relay_load *load)
{
	struct lane lane[LANES_MAX] = {0};
	uint8_t first[QEMU_MULTIFD_INIT_LEN], end;
	unsigned n = 0;

	while (n < load->channels || !lane[0].fd) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			_exit(1);
		get(fd, first, MAIN_LEN);
		if (first[0] == (uint8_t)(QEMU_MAIN_MAGIC >> 24)) {
			lane[0].fd = fd;
			continue;
		}
		get(fd, first, sizeof(first) - MAIN_LEN);
		if (++n > load->channels)
			_exit(1);
		lane[n].fd = fd;
	}
	put(lane[0].fd, pong, sizeof(pong));
	run_lanes(load, lane, false);
	put(lane[0].fd, shut_well, sizeof(shut_well));
	(void)recv(lane[0].fd, &end, 1, 0);
}

/* -- in the parent ------------------------------------------------------------------------- */

/* fork(2): @qemu is set in the parent; *orders is the child's end. True in the child. */
static bool fork_qemu(struct relay_qemu *qemu, int *orders, struct via_error *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		goto failed;
	qemu->fd = pair[0];
	*orders = pair[1];
	qemu->pid = fork();
	if (qemu->pid == 0) {
		close(pair[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		return true;
	}
	close(pair[1]);
	if (qemu->pid > 0)
		return false;
	close(pair[0]);
failed:
	qemu->pid = -1;
	via_fail(err, via_err_from_errno(errno), "start a process\n%s\nraise ulimit -u",
		 strerror(errno));
	return false;
}

int relay_qemu_source(const char *address, const struct relay_load *load, struct relay_qemu *qemu,
		      struct via_error *err)
{
	int orders;

	if (fork_qemu(qemu, &orders, err)) {
		be_source(address, load, orders);
		_exit(0);
	}
	return qemu->pid < 0 ? err->code : 0;
}

int relay_qemu_destination(int listen_fd, const struct relay_load *load, struct relay_qemu *qemu,
			   struct via_error *err)
{
	int orders;

	if (fork_qemu(qemu, &orders, err)) {
		be_destination(listen_fd, load);
		_exit(0);
	}
	close(listen_fd);
	return qemu->pid < 0 ? err->code : 0;
}

static int wait_told(const struct relay_qemu *qemu, enum order wanted, struct via_error *err)
{
	struct pollfd p = {.fd = qemu->fd, .events = POLLIN};
	uint64_t deadline = via_deadline_in(BENCH_STEP_NS);
	uint8_t told = 0;
	int n;

	do {
		n = poll(&p, 1, via_deadline_poll_ms(deadline));
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		return via_fail(err, -ETIMEDOUT,
				"relay bytes\nthey do not arrive\n"
				"look at the other end");
	if (recv(qemu->fd, &told, 1, 0) != 1 || told != wanted)
		return via_fail(err, -EIO,
				"relay bytes\na connection broke\n"
				"look at the other end");
	return 0;
}

int relay_qemu_wait_connected(const struct relay_qemu *qemu, struct via_error *err)
{
	return wait_told(qemu, ORDER_CONNECTED, err);
}

int relay_qemu_migrate(const struct relay_qemu *qemu, struct via_error *err)
{
	uint8_t go = ORDER_GO;

	if (send(qemu->fd, &go, 1, MSG_NOSIGNAL) != 1)
		return via_fail(err, -EIO, "relay bytes\nthe sender has gone\nreport this");
	return wait_told(qemu, ORDER_DONE, err);
}

void relay_qemu_end(struct relay_qemu *qemu)
{
	if (qemu->pid <= 0)
		return;
	kill(qemu->pid, SIGKILL);
	(void)waitpid(qemu->pid, NULL, 0);
	close(qemu->fd);
	qemu->pid = 0;
}
