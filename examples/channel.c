/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * channel.c -- libviaduct without its migration engine: memory written over channels, and the fence
 * that proves that it has arrived.
 *
 *   cc channel.c -o channel $(pkg-config --cflags --libs libviaduct)
 *   ./channel receive 127.0.0.1:7700
 *   ./channel send 127.0.0.1:7700 [FABRIC]                in another terminal
 *
 * The source writes 16 MiB into memory of the destination, which does nothing for that but offer
 * it. Both take the sum of what they have: the source sends its own behind the fence, the
 * destination answers.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <viaduct/viaduct.h>

#define PAGE  4096u
#define LEN   ((size_t)16 << 20)
#define CHUNK ((size_t)256 << 10)

/* Our messages on main. Types below VIA_MESSAGE_USER are the transport's. */
enum { SUM = VIA_MESSAGE_USER, ANSWER };

static uint64_t sum_of(const uint64_t *numbers)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < LEN / sizeof(*numbers); i++)
		sum = sum * 31 + numbers[i];
	return sum;
}

/* Both sides: the next message of main, which has to be a number of @type. */
static int receive_number(struct via_session *session, uint8_t type, uint64_t *number,
			  struct via_error *err)
{
	struct via_message message;
	int rc = via_main_receive(session, via_deadline_in(10 * VIA_NS_PER_S), &message, err);

	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT, "wait for a message\nnone came in 10 s");
	if (rc)
		return rc;
	if (message.type != type || message.more || message.len != sizeof(*number))
		return via_fail(err, -EPROTO, "receive\na message of type %u", message.type);
	memcpy(number, message.payload, sizeof(*number)); /* real ones choose a byte order */
	return 0;
}

/* The next chunk that nobody has, for whichever channel has room. Called by all their threads. */
static int next_chunk(void *arg, unsigned channel, struct via_batch *batch)
{
	size_t off = atomic_fetch_add((_Atomic size_t *)arg, CHUNK);

	(void)channel;
	if (off >= LEN)
		return 0;
	batch->run[0] = (struct via_run){.region = 0, .off = off, .len = CHUNK};
	batch->nruns = 1;
	return 1;
}

static int send_numbers(struct via_session *session, const uint64_t *numbers, struct via_error *err)
{
	_Atomic size_t next = 0;
	struct via_work work = {.arg = &next, .next = next_chunk};
	uint64_t sum = sum_of(numbers), theirs;
	int rc = via_session_open_channels(session, err); /* main, and the multifd channels */

	if (!rc)
		rc = via_session_start_senders(session, err);
	if (!rc)
		rc = via_round_start(session, &work, err);
	/* Once it is drained every write is placed: the destination has acknowledged each fence. */
	if (!rc)
		rc = via_round_drain(session, via_deadline_in(30 * VIA_NS_PER_S), err);
	/* And once it is sealed no write of this session can land there any more. */
	if (!rc)
		rc = via_session_seal(session, err);
	if (!rc)
		rc = via_main_send(session, SUM, &sum, sizeof(sum), err);
	if (!rc)
		rc = receive_number(session, ANSWER, &theirs, err);
	if (!rc && theirs != sum)
		rc = via_fail(err, -EBADMSG, "compare\nthe destination has another sum");
	return rc;
}

static int source(const char *address, const struct via_session_config *config,
		  struct via_error *err)
{
	uint64_t *numbers = aligned_alloc(PAGE, LEN);
	struct via_region region = {.desc = {.name = "numbers", .len = LEN, .page_size = PAGE},
				    .addr = numbers};
	struct via_session *session;
	int rc;

	for (size_t i = 0; numbers && i < LEN / sizeof(*numbers); i++)
		numbers[i] = i * i;
	rc = numbers ? via_session_connect(address, config, &region, 1, -1, &session, err)
		     : via_fail(err, -ENOMEM, "make numbers\nout of memory");
	if (!rc) {
		rc = send_numbers(session, numbers, err);
		via_session_close(session);
	}
	free(numbers);
	return rc;
}

static int receive_numbers(struct via_session *session, const uint64_t *numbers,
			   struct via_error *err)
{
	uint64_t theirs, ours;
	int rc = via_session_wait_channel(session, VIA_CHANNEL_ESSENTIAL, 0, err);

	if (!rc)
		rc = via_session_start_receivers(session, NULL, NULL, err);
	/* Here fences are acknowledged, too, and the seal: while this side waits for a message. */
	if (!rc)
		rc = receive_number(session, SUM, &theirs, err);
	if (rc)
		return rc;
	ours = sum_of(numbers);
	rc = via_main_send(session, ANSWER, &ours, sizeof(ours), err);
	return !rc && ours != theirs ? via_fail(err, -EBADMSG, "compare\nanother sum") : rc;
}

static int destination(const char *address, const struct via_session_config *config,
		       struct via_error *err)
{
	struct via_wait wait = {.deadline_ns = VIA_NEVER, .cancel_fd = -1};
	uint64_t *numbers = aligned_alloc(PAGE, LEN);
	void *memory[] = {numbers};
	const struct via_region *regions;
	struct via_session *session;
	char text[64];
	unsigned n;
	int listen_fd, rc = via_control_listen(address, &listen_fd, err);

	if (!rc && !(rc = via_control_listen_address(listen_fd, text, sizeof(text)))) {
		fprintf(stderr, "waiting at %s\n", text);
		rc = via_session_accept(listen_fd, config, &wait, &session, err);
		close(listen_fd);
	}
	if (rc)
		goto free_numbers;
	regions = via_session_regions(session, &n); /* what the peer says is not to be trusted */
	if (!numbers || n != 1 || regions[0].desc.len != LEN) {
		rc = via_fail(err, -EINVAL, "take numbers\nno memory, or another program's");
		via_session_refuse(session, err);
	}
	if (!rc)
		rc = via_session_provide(session, memory, err);
	if (!rc)
		rc = receive_numbers(session, numbers, err);
	via_session_close(session); /* only now is the memory ours alone */
free_numbers:
	free(numbers);
	return rc;
}

int main(int argc, char **argv)
{
	/* Plain text is for loopback; between hosts both sides need .credentials.psk_file. */
	struct via_session_config config = {.multifd = 2};
	struct via_error err = {0};

	if (argc < 3)
		return 2;
	config.fabric = argv[3]; /* NULL: the best that both sides have */
	if (strcmp(argv[1], "send") ? destination(argv[2], &config, &err)
				    : source(argv[2], &config, &err)) {
		fprintf(stderr, "%s: %s\n  try: %s\n", err.what, err.seen, err.remedy);
		return 1;
	}
	printf("%zu bytes, drained and sealed; the sums are equal\n", LEN);
	return 0;
}
