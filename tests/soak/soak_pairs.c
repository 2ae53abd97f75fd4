/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * soak_pairs.c -- migrations one after the other in one process, which must not come to hold more
 * memory or more descriptors for it.
 *
 *   soak_pairs [N [FABRIC]]   N migrations (default 1000), over FABRIC (default: the simulated one)
 *
 * By turns: precopy, postcopy, postcopy that is lost and resumed, and one that is aborted by the
 * loss of its session in precopy. What the first quarter needs is taken as given (pools, caches,
 * arenas).
 */
#include <dirent.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/migrate/pair.h"

#define HANGS_S 60u

/* Of resident memory, however many migrations there were: the allocator's business. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GROWTH_MAX LLONG_MAX /* they keep what was freed; AddressSanitizer looks for leaks itself */
#else
#define GROWTH_MAX (8 << 20) /* bytes */
#endif

/* Descriptors that a fabric's library closes when it likes; and its memory, once and for all. */
#define LIBRARY_MAX    8u
#define LIBRARY_GROWTH 4

/* libfabric 1.17 loses what describes a connection that is given up while it is made. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libfabric.so\n";
}

enum kind { PRECOPY, POSTCOPY, RECOVERY, ABORTED, KINDS };

static int source_fd;
static unsigned lose_at; /* enum small_fail; 0: nowhere */

static void joined(enum via_role role, struct via_session *session, int control_fd)
{
	(void)session;
	if (role == VIA_ROLE_SOURCE)
		source_fd = control_fd;
}

static void at_guest(unsigned where)
{
	if (where != lose_at)
		return;
	lose_at = 0;
	shutdown(source_fd, SHUT_RDWR);
}

static void migrate(const char *fabric, unsigned n, enum kind kind, struct pair_result *r)
{
	char spec[2][128];
	bool postcopy = kind == POSTCOPY || kind == RECOVERY;
	struct pair_config c = {
		.fabric_source = fabric ? fabric : spec[0],
		.fabric_destination = fabric ? fabric : spec[1],
		.multifd = 1 + n % 4,
		.preempt = postcopy ? 1 + n % 3 : 0,
		.guest = {.seed = n + 1,
			  .pages = {100 + n % 300, n % 40},
			  .writes_per_round = n % 50,
			  .state_len = n % 20000,
			  .toucher_threads = postcopy ? 1 + n % 3 : 0,
			  .touches = 20,
			  .postcopy = postcopy,
			  .at = at_guest},
		.migrate = {.postcopy_after = postcopy, .max_rounds = 3, .downtime_limit_ns = 1},
		.joined = joined,
	};

	for (unsigned i = 0; i < 2; i++)
		snprintf(spec[i], sizeof(spec[i]), "sim:soak,seed=%u,delay=%u", 2 * n + i + 1,
			 1 + n % 8);
	lose_at = kind == RECOVERY ? SMALL_FAIL_RUN : kind == ABORTED ? SMALL_FAIL_DIRTY_FETCH : 0;
	pair_migrate(&c, r);
}

static bool is_right(enum kind kind, const struct pair_result *r)
{
	/* It may be over before the loss is noticed. */
	if (kind == ABORTED && r->source.outcome == VIA_ABORTED)
		return r->source_runs && !r->destination_runs;
	return r->source.outcome == VIA_COMPLETED && r->destination.outcome == VIA_COMPLETED &&
	       !r->source_runs && r->destination_runs && !r->wrong_pages &&
	       (kind != RECOVERY || r->destination.postcopy.recoveries);
}

static unsigned descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static void show_descriptors(void)
{
	char path[64], name[256];

	for (int fd = 0; fd < 1024; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, name, sizeof(name) - 1);
		if (n > 0)
			printf("#   %d: %.*s\n", fd, (int)n, name);
	}
}

/* Resident bytes, without what the allocator keeps for later. */
static long long resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long long pages = 0;

	(void)malloc_trim(0);
	if (!f || fscanf(f, "%*s %lld", &pages) != 1)
		abort();
	fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

static void on_alarm(int number)
{
	(void)number;
	(void)!write(STDOUT_FILENO, "# HANGS\n", 8);
	abort();
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000, failed = 0;
	const char *fabric = argc > 2 ? argv[2] : NULL;
	unsigned done[KINDS] = {0}, fds = 0, fds_end;
	uint64_t start = via_now_ns();
	long long bytes = 0, growth;

	signal(SIGALRM, on_alarm);
	for (unsigned i = 0; i < n; i++) {
		enum kind kind = i % KINDS;
		struct pair_result r;

		if (i == n / 4) {
			fds = descriptors();
			bytes = resident();
		}
		alarm(HANGS_S);
		migrate(fabric, i, kind, &r);
		done[kind]++;
		if (!is_right(kind, &r)) {
			printf("not ok: migration %u: %s: %s: %s\n", i,
			       via_outcome_name(r.source.outcome), r.source_error.what,
			       r.source_error.seen);
			failed++;
		}
	}
	alarm(0);
	fds_end = descriptors();
	growth = resident() - bytes;
	printf("# %u precopy, %u postcopy, %u lost and resumed, %u aborted; %u failed; %d "
	       "descriptors "
	       "and %lld KiB more than after a quarter; %.1f s\n",
	       done[PRECOPY], done[POSTCOPY], done[RECOVERY], done[ABORTED], failed,
	       (int)(fds_end - fds), growth >> 10, (double)(via_now_ns() - start) / 1e9);
	if (fds_end > fds)
		show_descriptors();
	return failed || fds_end > fds + (fabric ? LIBRARY_MAX : 0) ||
	       growth / (fabric ? LIBRARY_GROWTH : 1) > GROWTH_MAX;
}
