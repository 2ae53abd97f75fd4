/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostile.c -- a peer that speaks the protocol and then breaks it, against either side.
 *
 *   hostile [STRIDE [PART OF A NAME]]   every STRIDE-th of the generated cases (default 1: all)
 *
 * Each case is a migration with one message said otherwise: those of cases.c, and generated ones:
 * each message of three scripts and both roles truncated at each byte, cut off there, one byte
 * longer, with other bits in each byte, twice, left out, followed by silence or an end; and each
 * other message in its place.
 *
 * Whatever the peer says, the other side ends in time, says why, tells the peer if it can, runs the
 * guest where it should (the source's until RUN was sent, the destination's only after it), and
 * needs no more memory than an honest migration does.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/hostile/cases.h"
#include "tests/hostile/target.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 4u
#else
#define SLOWER 1u
#endif

#define WORKERS     12u                                  /* most of the time they wait */
#define DEADLINE_NS (HAND_SLOWER * 1000 * VIA_NS_PER_MS) /* of the target */
/* A step, and what follows from it: its peer's channels, a goodbye that nobody answers. */
#define LIMIT_NS    (SLOWER * 10 * VIA_NS_PER_S)
#define HANGS_S     (SLOWER * 40u)
#define RSS_MAX_KIB (64u << 10) /* more than at the start; without a sanitizer */
#define CASES_MAX   120000u

static const char *const twist_names[] = {
	[T_NONE] = "honest",       [T_U8] = "u8",
	[T_U16] = "u16",           [T_U32] = "u32",
	[T_U64] = "u64",           [T_XOR] = "xor",
	[T_HEADER_U8] = "head8",   [T_HEADER_U16] = "head16",
	[T_HEADER_U32] = "head32", [T_SHORTER] = "shorter",
	[T_LONGER] = "longer",     [T_CUT] = "cut",
	[T_TWICE] = "twice",       [T_FLOOD] = "flood",
	[T_SKIP] = "left out",     [T_SILENT] = "silence",
	[T_DRIBBLE] = "dribble",   [T_BEFORE] = "before",
	[T_INSTEAD] = "instead",   [T_DIE] = "die",
};

/* Of all workers. */
struct tally {
	atomic_uint run, failed, refused, worked, untold, unreached, again;
	atomic_ullong slowest_ns;
	atomic_long rss_kib; /* the most that one grew */
};

static struct tally *tally;
static struct hostile_case *cases;
static unsigned ncases;
static char label[256];

static void describe(const struct hostile_case *c)
{
	static const char *const scripts[] = {"precopy", "postcopy", "resume"};
	const struct twisted *t = &c->twisted;
	int n = snprintf(label, sizeof(label), "%s %s: %s %u %s %llu",
			 c->role == VIA_ROLE_SOURCE ? "source" : "destination", scripts[c->script],
			 hand_names[t->which], t->turn, twist_names[t->twist],
			 (unsigned long long)t->at);

	if (t->twist == T_BEFORE || t->twist == T_INSTEAD)
		snprintf(label + n, sizeof(label) - (size_t)n, " %s", hand_names[t->value]);
	else
		snprintf(label + n, sizeof(label) - (size_t)n, " %llx",
			 (unsigned long long)t->value);
}

/* Which case it was, whatever ends this process. */
static void on_signal(int number)
{
	(void)!write(STDOUT_FILENO,
		     number == SIGALRM ? "# HANGS: " : "# DIES: ", number == SIGALRM ? 9 : 8);
	(void)!write(STDOUT_FILENO, label, strlen(label));
	(void)!write(STDOUT_FILENO, "\n", 1);
	signal(SIGABRT, SIG_DFL);
	signal(number, SIG_DFL);
	number == SIGALRM ? abort() : (void)raise(number);
}

/* -- one case ----------------------------------------------------------------------------- */

static void make_sockets(int fd[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		abort();
}

static void meet(const struct hostile_case *c, struct hand *h, struct target *t)
{
	int fd[2], second[2] = {-1, -1};

	make_sockets(fd);
	if (c->script == SCRIPT_RESUME)
		make_sockets(second);
	*t = (struct target){.role = c->role == VIA_ROLE_SOURCE ? VIA_ROLE_DESTINATION
								: VIA_ROLE_SOURCE,
			     .fd = fd[1],
			     .second_fd = second[1],
			     .postcopy = c->script != SCRIPT_PRECOPY,
			     .deadline_ns = DEADLINE_NS};
	hand_init(h, c->role, fd[0], &c->twisted);
	h->patience_ns = DEADLINE_NS + 600 * VIA_NS_PER_MS;
	target_start(t);
	if (c->role == VIA_ROLE_SOURCE)
		second[0] = hand_source(h, c->script, second[0]);
	else
		hand_destination(h, c->script);
	if (second[0] >= 0)
		close(second[0]);
	hand_fini(h);
	target_join(t);
}

static bool is_complete(const struct via_error *err)
{
	return err->code < 0 && err->what[0] && err->seen[0] && err->remedy[0];
}

/* Does the guest run where it should? */
static const char *judge_guest(const struct hand *h, const struct target *t)
{
	bool run_said = h->said[S_RUN] || h->said[S_RUNNING];

	if (t->role == VIA_ROLE_DESTINATION)
		return t->guest_runs && !run_said ? "the guest runs, and nobody said RUN" : NULL;
	if (t->result.outcome == VIA_ABORTED)
		return t->guest_runs ? NULL : "aborted, and the guest does not run on";
	return t->guest_runs ? "the guest runs on, and may run at the peer" : NULL;
}

/* What is wrong; NULL: nothing. */
static const char *judge(const struct hostile_case *c, const struct hand *h, const struct target *t)
{
	const char *wrong = judge_guest(h, t);

	if (wrong)
		return wrong;
	if (t->rc && !is_complete(&t->err))
		return "a message without one of its three parts";
	if (t->took_ns > LIMIT_NS)
		return "too late";
	if (c->verdict == MUST_FAIL && !t->rc)
		return "it should have failed";
	if (c->verdict == MUST_WORK && t->rc)
		return "it should have worked";
	if (c->verdict == MUST_FAIL && c->says && !strstr(t->err.what, c->says) &&
	    !strstr(t->err.seen, c->says))
		return "it does not say so";
	return NULL;
}

static void tell(const struct hand *h, const struct target *t, const char *wrong)
{
	printf("not ok: %s: %s\n#   %.2f s, %s, guest %s, rc %s: %s: %s: %s\n#   told: %s: %s: "
	       "%s\n",
	       label, wrong, (double)t->took_ns / 1e9, via_outcome_name(t->result.outcome),
	       t->guest_runs ? "runs" : "does not run", via_err_name(t->rc), t->err.what,
	       t->err.seen, t->err.remedy, via_err_name(h->why.code), h->why.what, h->why.seen);
	fflush(stdout);
}

static const char *try_case(const struct hostile_case *c, struct hand *h, struct target *t)
{
	const char *wrong;

	alarm(HANGS_S);
	meet(c, h, t);
	alarm(0);
	wrong = judge(c, h, t);
	if (!wrong && c->verdict == MUST_FAIL && c->twisted.twist && !h->applied)
		wrong = "the message was never said";
	return wrong;
}

/* On a machine with other work a deadline may pass for no fault of anybody's: then once more. */
static void run_case(const struct hostile_case *c)
{
	static struct hand h;
	static struct target t;
	const char *wrong;

	describe(c);
	wrong = try_case(c, &h, &t);
	if (wrong && t.rc == -ETIMEDOUT) {
		atomic_fetch_add(&tally->again, 1);
		wrong = try_case(c, &h, &t);
	}
	atomic_fetch_add(&tally->run, 1);
	atomic_fetch_add(t.rc ? &tally->refused : &tally->worked, 1);
	atomic_fetch_add(&tally->untold, t.rc && !h.why.code);
	atomic_fetch_add(&tally->unreached, c->twisted.twist && !h.applied);
	if (t.took_ns > atomic_load(&tally->slowest_ns))
		atomic_store(&tally->slowest_ns, t.took_ns);
	if (wrong) {
		atomic_fetch_add(&tally->failed, 1);
		tell(&h, &t, wrong);
	}
}

/* -- generated cases -------------------------------------------------------------------------- */

static void add(enum via_role role, enum hand_script script, struct twisted twisted,
		enum verdict verdict)
{
	if (ncases < CASES_MAX)
		cases[ncases++] = (struct hostile_case){
			.role = role, .script = script, .twisted = twisted, .verdict = verdict};
}

/* Everything that can be done to one message of @len bytes, its header included. */
static void add_twists(enum via_role role, enum hand_script script, enum spoken which,
		       unsigned turn, unsigned len)
{
	static const enum twist whole[] = {T_TWICE, T_SKIP, T_SILENT, T_DIE};
	static const uint8_t bits[] = {0x01, 0x80, 0xff};
	/* Behind the last message nobody listens. */
	bool last = which == S_BYE || which == S_COMPLETED ||
		    (which == S_RUNNING && script == SCRIPT_PRECOPY);
	enum verdict strict = last ? MAY_DO_EITHER : MUST_FAIL;

	for (unsigned at = 0; at + 8 < len; at += at < 64 ? 1 : 61) {
		add(role, script, (struct twisted){which, turn, T_SHORTER, at, 0}, strict);
		for (unsigned i = 0; i < sizeof(bits); i++)
			add(role, script, (struct twisted){which, turn, T_XOR, at, bits[i]},
			    MAY_DO_EITHER);
	}
	for (unsigned at = 0; at < len; at += at < 64 ? 1 : 61)
		add(role, script, (struct twisted){which, turn, T_CUT, at, 0}, strict);
	for (unsigned at = 0; at < 8; at++)
		for (unsigned value = 0; value < 256; value += 51)
			add(role, script, (struct twisted){which, turn, T_HEADER_U8, at, value},
			    MAY_DO_EITHER);
	/* A map may end in a run of no pages. */
	add(role, script, (struct twisted){which, turn, T_LONGER, 1, 0},
	    which == S_PAGE_MAP || which == S_PAGE_MAP_2 ? MAY_DO_EITHER : strict);
	for (unsigned i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		add(role, script, (struct twisted){which, turn, whole[i], 0, 0}, MAY_DO_EITHER);
}

/* Every message in place of this one and before it, on every channel. */
static void add_orders(enum via_role role, enum hand_script script, enum spoken which,
		       unsigned turn)
{
	for (unsigned other = 0; other < SPOKEN; other++)
		for (unsigned lane = 0; lane < HAND_LANES; lane++) {
			if (other < S_OPEN && lane)
				continue; /* frames that name no channel */
			add(role, script, (struct twisted){which, turn, T_BEFORE, lane, other},
			    MAY_DO_EITHER);
			add(role, script, (struct twisted){which, turn, T_INSTEAD, lane, other},
			    MAY_DO_EITHER);
		}
}

/*
 * What an honest peer says in this script, in a process of its own: threads and forks do not
 * mix.
 */
static void measure(enum via_role role, enum hand_script script, unsigned (*len)[HAND_TURNS])
{
	const struct hostile_case honest = {.role = role, .script = script, .verdict = MUST_WORK};
	pid_t pid = fork();

	if (pid == 0) {
		static struct hand h;
		static struct target t;
		const char *wrong;

		describe(&honest);
		alarm(HANGS_S);
		meet(&honest, &h, &t);
		wrong = judge(&honest, &h, &t);
		if (wrong)
			tell(&h, &t, wrong);
		memcpy(len, h.said_len, sizeof(h.said_len));
		_exit(wrong != NULL);
	}
	if (pid < 0 || waitpid(pid, &(int){0}, 0) != pid || !len[S_HELLO][0])
		atomic_fetch_add(&tally->failed, 1);
}

static void generate(enum via_role role, enum hand_script script)
{
	unsigned(*len)[HAND_TURNS] =
		mmap(NULL, sizeof(unsigned[SPOKEN][HAND_TURNS]), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (len == MAP_FAILED)
		abort();
	measure(role, script, len);
	for (unsigned which = 0; which < SPOKEN; which++)
		for (unsigned turn = 0; turn < HAND_TURNS; turn++) {
			/* Pings come when they come. */
			if (!len[which][turn] || which == S_PONG)
				continue;
			add_twists(role, script, which, turn, len[which][turn]);
			add_orders(role, script, which, turn);
		}
	munmap(len, sizeof(unsigned[SPOKEN][HAND_TURNS]));
}

/* -- all of them ------------------------------------------------------------------------------- */

static long rss_kib(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

static void work(unsigned worker, unsigned stride, const char *only)
{
	const struct hostile_case honest = {
		.role = VIA_ROLE_SOURCE, .script = SCRIPT_POSTCOPY, .verdict = MUST_WORK};
	unsigned turn = 0;
	long before, grown;

	run_case(&honest);
	before = rss_kib();
	for (unsigned i = 0; i < ncases; i++) {
		describe(&cases[i]);
		if (!strstr(label, only) || (i >= nhostile_cases && i % stride))
			continue;
		if (turn++ % WORKERS == worker)
			run_case(&cases[i]);
	}
	grown = rss_kib() - before;
	if (grown > atomic_load(&tally->rss_kib))
		atomic_store(&tally->rss_kib, grown);
	if (SLOWER == 1 && grown > (long)RSS_MAX_KIB) {
		printf("not ok: memory: worker %u has grown by %ld KiB\n", worker, grown);
		atomic_fetch_add(&tally->failed, 1);
	}
	fflush(stdout);
}

static void run_all(unsigned stride, const char *only)
{
	for (unsigned i = 0; i < WORKERS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			abort();
		if (pid == 0) {
			work(i, stride, only);
			exit(0); /* leaks are looked for */
		}
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		int status;

		if (wait(&status) < 0 || status)
			atomic_fetch_add(&tally->failed, 1);
	}
}

int main(int argc, char **argv)
{
	unsigned stride = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
	uint64_t start = via_now_ns();

	signal(SIGALRM, on_signal);
	signal(SIGABRT, on_signal);
	setvbuf(stdout, NULL, _IOLBF, 0);
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	cases = calloc(CASES_MAX, sizeof(*cases));
	if (tally == MAP_FAILED || !cases || !stride)
		abort();
	memcpy(cases, hostile_cases, nhostile_cases * sizeof(*cases));
	ncases = nhostile_cases;
	for (enum hand_script script = SCRIPT_PRECOPY; script <= SCRIPT_RESUME; script++)
		generate(VIA_ROLE_SOURCE, script);
	for (enum hand_script script = SCRIPT_PRECOPY; script <= SCRIPT_POSTCOPY; script++)
		generate(VIA_ROLE_DESTINATION, script);
	run_all(stride, argc > 2 ? argv[2] : "");
	printf("# %u cases of %u: %u refused, %u worked, %u failed; %u ends not told, %u messages "
	       "not reached, %u tried again; slowest %.2f s; memory grew by %ld KiB; %.1f s\n",
	       atomic_load(&tally->run), ncases, atomic_load(&tally->refused),
	       atomic_load(&tally->worked), atomic_load(&tally->failed),
	       atomic_load(&tally->untold), atomic_load(&tally->unreached),
	       atomic_load(&tally->again), (double)atomic_load(&tally->slowest_ns) / 1e9,
	       atomic_load(&tally->rss_kib), (double)(via_now_ns() - start) / 1e9);
	free(cases);
	return atomic_load(&tally->failed) != 0;
}
