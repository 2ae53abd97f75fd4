/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * confine_test.c -- what a confined process can no longer do, and what it still can. Each case is a
 * process of its own: there is no way back.
 */
#include "tools/confine.h"

#include <criterion/criterion.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct settings by_default = {.sandbox = SANDBOX_DEFAULT};
static const struct settings on = {.sandbox = SANDBOX_ON};
static const struct settings off = {.sandbox = SANDBOX_OFF};

#ifdef VIA_SECCOMP
#define NEEDS_FILTER() ((void)0)
#else
#define NEEDS_FILTER() cr_skip_test("built without libseccomp, or with a sanitizer")
#endif

/* Of /proc/self/status; -1: not there. */
static long long status(const char *name, int base)
{
	FILE *f = fopen("/proc/self/status", "r");
	long long value = -1;
	char line[256];

	cr_assert(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			value = strtoll(line + strlen(name) + 1, NULL, base);
	fclose(f);
	return value;
}

static void is_refused(long rc, const char *what)
{
	cr_expect(rc == -1 && errno == ENOSYS, "%s: %ld, %s", what, rc, strerror(errno));
}

static void try_everything(void)
{
	char *const argv[] = {(char *)(uintptr_t) "/bin/true", NULL};
	pid_t none = (pid_t)syscall(SYS_gettid);

	is_refused(execve("/bin/true", argv, argv + 1), "another program");
	is_refused(unshare(CLONE_NEWUSER), "a user namespace");
	is_refused(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL),
		   "a process in a user namespace");
	is_refused(syscall(SYS_clone3, NULL, 0), "clone3");
	is_refused(syscall(SYS_ptrace, PTRACE_ATTACH, none, NULL, NULL), "tracing");
	is_refused(socket(AF_PACKET, SOCK_RAW, 0), "a socket for packets");
	is_refused(syscall(SYS_bpf, 0, NULL, 0), "bpf");
	is_refused(syscall(SYS_io_uring_setup, 1, NULL), "io_uring");
	is_refused(syscall(SYS_setresuid, 0, 0, 0), "another user");
	is_refused(syscall(SYS_mount, "none", "/", "tmpfs", 0, NULL), "mounting");
	is_refused(syscall(SYS_keyctl, 0, 0, 0, 0, 0), "keys");
}

Test(confine, refuses_what_a_migration_has_no_use_for)
{
	NEEDS_FILTER();
	cr_assert_eq(confine(&on, 0, NULL), 0);
	cr_assert_eq(status("NoNewPrivs", 10), 1);
	cr_assert_eq(status("Seccomp", 10), 2);
	try_everything();
}

static void *thread_main(void *gate)
{
	pthread_barrier_wait(gate);
	pthread_barrier_wait(gate);
	try_everything();
	return gate;
}

Test(confine, holds_for_threads_of_before_and_after)
{
	pthread_barrier_t gate;
	pthread_t before, after;
	void *ended = NULL;

	NEEDS_FILTER();
	pthread_barrier_init(&gate, NULL, 2);
	cr_assert_eq(pthread_create(&before, NULL, thread_main, &gate), 0);
	pthread_barrier_wait(&gate);
	cr_assert_eq(confine(&on, 0, NULL), 0);
	pthread_barrier_wait(&gate);
	pthread_join(before, &ended);
	cr_assert_eq(pthread_create(&after, NULL, thread_main, &gate), 0);
	pthread_barrier_wait(&gate);
	pthread_barrier_wait(&gate);
	pthread_join(after, &ended);
	cr_assert_eq(ended, &gate);
}

Test(confine, leaves_fork_and_signals_of_its_own)
{
	int ended = -1;
	pid_t pid;

	cr_assert_eq(confine(&by_default, 0, NULL), 0);
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(1);
	}
	cr_assert_gt(pid, 0);
	cr_assert_eq(kill(pid, SIGTERM), 0);
	cr_assert_eq(waitpid(pid, &ended, 0), pid);
	cr_assert(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGTERM);
}

static void keeps(unsigned needs, long long rights)
{
	long long had = status("CapPrm", 16);

	cr_assert_eq(confine(&by_default, needs, NULL), 0);
	cr_assert_eq(status("CapPrm", 16), had & rights);
	cr_assert_eq(status("CapEff", 16), had & rights);
	cr_assert_eq(status("NoNewPrivs", 10), 1);
}

#define EVERY (1LL << CAP_DAC_OVERRIDE | 1LL << CAP_IPC_LOCK | 1LL << CAP_SYS_NICE)

Test(confine, keeps_no_right_but_what_it_is_for)
{
	keeps(0, EVERY);
}

Test(confine, keeps_what_userfaultfd_takes_for_a_guest)
{
	keeps(CONFINE_GUEST, EVERY | 1LL << CAP_SYS_PTRACE);
}

Test(confine, keeps_what_giving_files_takes)
{
	keeps(CONFINE_GIVES_FILES, EVERY | 1LL << CAP_CHOWN | 1LL << CAP_FOWNER);
}

Test(confine, off_changes_nothing)
{
	long long had = status("CapPrm", 16), filters = status("Seccomp", 10);

	cr_assert_eq(confine(&off, 0, NULL), 0);
	cr_assert_eq(status("CapPrm", 16), had);
	cr_assert_eq(status("NoNewPrivs", 10), 0);
	cr_assert_eq(status("Seccomp", 10), filters);
}

Test(confine, says_what_cannot_be_had_when_it_was_asked_for)
{
	struct via_error err = {0};

#ifdef VIA_SECCOMP
	cr_skip_test("this build has libseccomp");
#endif
	cr_assert_eq(confine(&on, 0, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.remedy, "--sandbox off"));
}
