/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaduct.c -- the program: one table of subcommands for dispatch and for help.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "core/log.h"
#include "tools/commands.h"
#include "tools/help.h"
#include "tools/run.h"

static const struct command *const commands[] = {
	&command_demo,    &command_receive, &command_send, &command_relay, &command_migrate_qemu,
	&command_fabrics, &command_doctor,  &command_plan, &command_bench,
};

#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

/* A channel takes a dozen or two, and there may be 256. */
#define DESCRIPTORS ((rlim_t)1 << 16)

static void print_help(FILE *out)
{
	fprintf(out, "usage: viaduct COMMAND [OPTION...]\n\n"
		     "Live migration of virtual machines over RDMA and other fast fabrics.\n\n");
	for (size_t i = 0; i < NCOMMANDS; i++)
		fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
	fprintf(out, "\n`viaduct COMMAND --help` shows the options of a command, and\n"
		     "`viaduct help NAME` its manual, or that of:\n\n");
	help_topics(out);
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < NCOMMANDS; i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

static void log_line(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "debug: %s\n", line);
}

/* What a shell or a service has at first, 1024, is for programs that select(2), which none here does. */
static void allow_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= DESCRIPTORS)
		return;
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int run(const struct command *command, int argc, char **argv)
{
	struct settings settings;
	struct via_error err = {0};
	int rc;

	settings_init(&settings);
	rc = options_parse(command, argc, argv, &settings, &err);
	if (rc < 0) {
		report_error(&err);
		rc = EXIT_USAGE;
	} else if (rc > 0) {
		rc = EXIT_OK;
	} else {
		if (settings.verbose)
			via_log_set(log_line, NULL);
		allow_descriptors();
		rc = command->run(&settings);
	}
	settings_free(&settings);
	return rc;
}

int main(int argc, char **argv)
{
	const struct command *command;

	signal(SIGPIPE, SIG_IGN);
	/* They are for a source, while it migrates; sent too early or late they do no harm. */
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	if (argc < 2) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "help") && argc == 3 && argv[2][0] != '-')
		return help_show(argv[2], find(argv[2]));
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_help(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("viaduct %s\n", VIA_VERSION);
		return EXIT_OK;
	}
	command = find(argv[1]);
	if (!command) {
		struct via_error err = {0};

		via_fail(&err, -EINVAL, "%s\nno such command\nsee `viaduct --help`", argv[1]);
		report_error(&err);
		return EXIT_USAGE;
	}
	return run(command, argc - 1, argv + 1);
}
