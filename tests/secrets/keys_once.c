/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keys_once.c -- what opens memory to the peer is never used twice: the nonces of channels and the
 * keys of memory, as they are told over the control connection.
 *
 *   keys_once FABRIC...
 *
 * It listens in where the library posts its messages (via_control_post() is wrapped as the
 * program is linked), during migrations that are sealed, and that are lost and resumed: keys before and
 * after a seal, and of each epoch.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/migrate/pair.h"
#include "transport/frames.h"
#include "transport/messages.h"

#define MIGRATIONS 6u
#define SEEN_MAX   4096u
#define HANGS_S    60u

struct seen {
	uint8_t bytes[VIA_RKEY_MAX];
	size_t len;
	uint64_t epoch;
};

static struct {
	pthread_mutex_t lock;
	struct seen nonce[SEEN_MAX], key[SEEN_MAX];
	unsigned nonces, keys, twice, undecoded;
	uint64_t last_epoch;
} heard = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int source_fd = -1;
static bool lose;

static void note(struct seen *all, unsigned *n, const void *bytes, size_t len, uint64_t epoch)
{
	for (unsigned i = 0; i < *n; i++) {
		if (all[i].len != len || memcmp(all[i].bytes, bytes, len) != 0)
			continue;
		heard.twice++;
		printf("# %zu bytes of epoch %llu were those of epoch %llu before\n", len,
		       (unsigned long long)epoch, (unsigned long long)all[i].epoch);
	}
	if (*n == SEEN_MAX)
		abort();
	all[*n].len = len;
	all[*n].epoch = epoch;
	memcpy(all[*n].bytes, bytes, len);
	++*n;
}

static void note_keys(const struct via_channel_ready *m)
{
	struct via_packed_key key;
	size_t pos = 0;

	while (!via_channel_ready_next_key(m, &pos, &key))
		note(heard.key, &heard.keys, key.bytes, key.len, m->id.epoch);
}

int __real_via_control_post(struct via_control *c, uint16_t type, const void *payload, size_t len);
int __wrap_via_control_post(struct via_control *c, uint16_t type, const void *payload, size_t len);

int __wrap_via_control_post(struct via_control *c, uint16_t type, const void *payload, size_t len)
{
	struct via_channel_ready ready;
	struct via_channel_open open;
	uint64_t epoch = 0;

	pthread_mutex_lock(&heard.lock);
	if (type == VIA_CONTROL_CHANNEL_OPEN) {
		heard.undecoded += via_channel_open_decode(payload, len, &open) != 0;
		epoch = open.id.epoch;
		note(heard.nonce, &heard.nonces, open.nonce, sizeof(open.nonce), epoch);
	} else if (type == VIA_CONTROL_CHANNEL_READY) {
		heard.undecoded += via_channel_ready_decode(payload, len, &ready) != 0;
		note_keys(&ready);
	}
	heard.last_epoch = epoch > heard.last_epoch ? epoch : heard.last_epoch;
	pthread_mutex_unlock(&heard.lock);
	return __real_via_control_post(c, type, payload, len);
}

static void joined(enum via_role role, struct via_session *session, int control_fd)
{
	(void)session;
	if (role == VIA_ROLE_SOURCE)
		source_fd = control_fd;
}

static void at_guest(unsigned where)
{
	if (!lose || where != SMALL_FAIL_RUN)
		return;
	lose = false;
	shutdown(source_fd, SHUT_RDWR);
}

static bool migrate(const char *fabric, unsigned n)
{
	struct pair_result r;
	struct pair_config c = {
		.fabric_source = fabric,
		.fabric_destination = fabric,
		.multifd = 1 + n % 3,
		.preempt = n % 3 ? 1 + n % 2 : 0,
		.guest = {.seed = n + 1,
			  .pages = {200, 40},
			  .writes_per_round = 20,
			  .state_len = 1000,
			  .toucher_threads = n % 3 ? 1 : 0,
			  .touches = 20,
			  .postcopy = n % 3,
			  .at = at_guest},
		.migrate = {.postcopy_after = n % 3 ? 1 : 0,
			    .max_rounds = 3,
			    .downtime_limit_ns = 1},
		.joined = joined,
	};

	lose = n % 3 == 2;
	pair_migrate(&c, &r);
	if (r.source.outcome == VIA_COMPLETED && !r.wrong_pages)
		return true;
	printf("# migration %u over %s: %s: %s\n", n, fabric, r.source_error.what,
	       r.source_error.seen);
	return false;
}

/* Of all sessions over one fabric together. */
static bool is_right(const char *fabric)
{
	bool good = true;

	heard.nonces = heard.keys = heard.twice = heard.undecoded = 0;
	heard.last_epoch = 0;
	for (unsigned n = 0; n < MIGRATIONS && good; n++)
		good = migrate(fabric, n);
	printf("# %s: %u nonces and %u keys up to epoch %llu, %u of them twice\n", fabric,
	       heard.nonces, heard.keys, (unsigned long long)heard.last_epoch, heard.twice);
	return good && heard.keys && heard.nonces && heard.last_epoch > 1 && !heard.twice &&
	       !heard.undecoded;
}

int main(int argc, char **argv)
{
	int status = EXIT_SUCCESS;

	for (int i = 1; i < argc; i++) {
		alarm(HANGS_S);
		if (!is_right(argv[i]))
			status = EXIT_FAILURE;
	}
	return status;
}
