/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * contract_rxe.c -- the contract on real devices, as TAP: each case in a process of its own.
 *
 *   contract_rxe SPEC [CASE...]      without CASE: all
 *
 * For the machine of scripts/rxe-vm, where starting a program takes half a second: the processes
 * are forked, which is safe because this one never touches a fabric. A case that crashes or
 * hangs is a failure of that case alone.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/contract/contract.h"
#include "tests/contract/fabrics.h"

#define PATIENCE   (20 * VIA_NS_PER_S)
#define CASE_LIMIT 60000 /* ms */

static const struct {
	const char *name;
	contract_case *run;
} cases[] = {
#define CONTRACT_ROW(name) {#name, case_##name},
	CONTRACT_CASES(CONTRACT_ROW)
#undef CONTRACT_ROW
};

#define NCASES (sizeof(cases) / sizeof(cases[0]))

/* Of the process of one case: its text goes through the pipe, its verdict is the exit status. */
static void run_here(size_t i, const char *spec, int fd)
{
	char text[800] = "";
	enum verdict verdict = SKIP;

	for (size_t k = 0; k < NIMPOSSIBLE; k++)
		if (!strcmp(impossible[k].spec, spec) &&
		    !strcmp(impossible[k].case_name, cases[i].name))
			snprintf(text, sizeof(text), "%s: %s", spec, impossible[k].why);
	if (!text[0])
		verdict = contract_run(cases[i].run, spec, PATIENCE, text, sizeof(text));
	if (write(fd, text, strlen(text)) < 0)
		_exit(FAIL);
	_exit((int)verdict);
}

/* The verdict of the process that writes to @fd. */
static enum verdict wait_for(pid_t pid, int fd, char *text, size_t cap)
{
	int status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd ends = {.fd = pidfd, .events = POLLIN};
	bool hangs = poll(&ends, 1, CASE_LIMIT) == 0;
	ssize_t n;

	close(pidfd);
	if (hangs)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	n = read(fd, text, cap - 1);
	text[n > 0 ? n : 0] = '\0';
	if (hangs)
		snprintf(text, cap, "still running after %d ms", CASE_LIMIT);
	else if (WIFSIGNALED(status))
		snprintf(text, cap, "killed by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) <= SKIP)
		return (enum verdict)WEXITSTATUS(status);
	return FAIL;
}

static bool run_apart(size_t i, unsigned number, const char *spec)
{
	uint64_t started_ns = via_now_ns();
	enum verdict verdict;
	char text[800];
	int fds[2];
	pid_t pid;

	if (pipe(fds)) {
		perror("pipe");
		return false;
	}
	pid = fork();
	if (!pid)
		run_here(i, spec, fds[1]);
	close(fds[1]);
	verdict = wait_for(pid, fds[0], text, sizeof(text));
	close(fds[0]);
	for (char *c = text; *c; c++)
		if (*c == '\n')
			*c = ' ';
	printf("%sok %u - %s %s%s%s\n", verdict == FAIL ? "not " : "", number, cases[i].name, spec,
	       verdict == SKIP ? " # SKIP " : "", verdict == SKIP ? text : "");
	printf("# %llu ms%s%s\n", (unsigned long long)((via_now_ns() - started_ns) / VIA_NS_PER_MS),
	       verdict == FAIL ? ": " : "", verdict == FAIL ? text : "");
	fflush(stdout);
	return verdict != FAIL;
}

static bool is_chosen(size_t i, int argc, char **argv)
{
	bool chosen = argc == 2;

	for (int a = 2; a < argc; a++)
		chosen = chosen || !strcmp(argv[a], cases[i].name);
	return chosen;
}

int main(int argc, char **argv)
{
	unsigned number = 0;
	bool good = true;

	if (argc < 2) {
		fputs("usage: contract_rxe SPEC [CASE...]\n", stderr);
		return 2;
	}
	puts("TAP version 13");
	fflush(stdout);
	for (size_t i = 0; i < NCASES; i++)
		if (is_chosen(i, argc, argv))
			good = run_apart(i, ++number, argv[1]) && good;
	printf("1..%u\n", number);
	return good ? 0 : 1;
}
