/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * help.c -- viaduct help: topics and commands, as manual pages or as text.
 *
 * The texts stand in for pages that are not installed, and are what the pages of errors and of
 * fabrics are made from (docs/man/fill.py): so they come out of the program's own tables, and
 * standard output that is no terminal always gets them.
 */
#include "tools/help.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabrics/fabric.h"
#include "tools/run.h"

struct topic {
	const char *name; /* its page is viaduct-NAME(7) */
	const char *summary;
	void (*print)(FILE *out);
};

static void print_errors(FILE *out)
{
	/* clang-format off */
	static const struct { int code; enum via_scope scope; } errors[] = {
#define X(code, scope, text) {code, VIA_SCOPE_##scope},
		VIA_ERROR_LIST(X)
#undef X
	};
	/* clang-format on */
	static const char *const lost[] = {
		[VIA_SCOPE_RETRY] = "nothing: it is tried again",
		[VIA_SCOPE_CALL] = "what was asked for, and nothing else",
		[VIA_SCOPE_CHANNEL] = "the channel that it came from",
		[VIA_SCOPE_SESSION] = "the session with this peer",
	};

	fprintf(out, "An error says what failed, the value seen and, behind `try:`, what to do\n"
		     "about it. --json has these three, and a code. Lost is, with each code:\n");
	for (int scope = VIA_SCOPE_RETRY; scope <= VIA_SCOPE_SESSION; scope++) {
		fprintf(out, "\n%s\n", lost[scope]);
		for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
			if ((int)errors[i].scope == scope)
				fprintf(out, "  %-16s %s\n", via_err_name(-errors[i].code),
					via_err_text(-errors[i].code));
	}
	fprintf(out,
		"\nA session that is lost before the guest has moved leaves it at the source;\n"
		"one that is lost in postcopy pauses the migration.\n"
		"Exit status: %d, done; %d, not; %d, the command line is wrong.\n",
		EXIT_OK, EXIT_FAILED, EXIT_USAGE);
}

static void print_keys(const struct via_fabric_ops *ops, FILE *out)
{
	fprintf(out, "\nkeys of %s\n", ops->name);
	for (const struct via_fabric_key *k = ops->keys; k && k->name; k++) {
		if (k->max)
			fprintf(out, "  %s=%" PRIu64 "...%" PRIu64 "\n", k->name, k->min, k->max);
		else
			fprintf(out, "  %s=TEXT\n", k->name);
		fprintf(out, "      %s\n", k->help);
	}
}

static void print_fabrics(FILE *out)
{
	const struct via_fabric_ops *const *ops;

	fprintf(out,
		"Where an option takes SPEC, a fabric is named NAME[:WHICH][,key=value...]:\n\n"
		"  ofi:tcp                   libfabric's provider tcp\n"
		"  ofi:shm,tx-depth=256      its provider shm, with a key\n"
		"  verbs:mlx5_0,gid-index=3  RDMA by that device\n"
		"  ucx:tcp                   UCX with that transport\n"
		"  auto                      the best that both sides have\n\n"
		"`viaduct fabrics` lists those of this host, and why the others are not there.\n");
	for (ops = via_fabric_list(); *ops; ops++)
		print_keys(*ops, out);
}

static void print_qemu(FILE *out)
{
	fprintf(out, "In one command. At the destination, QEMU with `-incoming defer` and -qmp, "
		     "then:\n\n"
		     "  viaduct relay --role destination --listen :4444 --psk keys.psk \\\n"
		     "      --qemu unix:/run/vm/incoming.sock --qmp /run/vm/qmp.sock --tune\n\n"
		     "at the source:\n\n"
		     "  viaduct migrate-qemu --qmp /run/vm/qmp.sock --to DESTINATION:4444 \\\n"
		     "      --psk keys.psk --multifd 4\n\n"
		     "By hand, or by libvirt, which is given unix sockets to migrate by:\n\n"
		     "  viaduct relay --role destination --listen :4444 --psk keys.psk \\\n"
		     "      --qemu unix:/run/vm/incoming.sock\n"
		     "  viaduct relay --role source --listen unix:/run/vm/relay.sock \\\n"
		     "      --peer DESTINATION:4444 --psk keys.psk\n\n"
		     "QEMU then migrates to unix:/run/vm/relay.sock, with `return-path` on.\n");
}

static const struct topic topics[] = {
	{"errors", "error codes, what is lost with each, and exit statuses", print_errors},
	{"fabrics", "how a fabric is named, and the keys of each", print_fabrics},
	{"qemu", "migrating an unmodified QEMU, by hand and by libvirt", print_qemu},
};

#define NTOPICS (sizeof(topics) / sizeof(topics[0]))

void help_topics(FILE *out)
{
	for (size_t i = 0; i < NTOPICS; i++)
		fprintf(out, "  %-12s %s\n", topics[i].name, topics[i].summary);
}

static bool is_installed(const char *section, const char *page)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (freopen("/dev/null", "w", stdout) && freopen("/dev/null", "w", stderr))
			execlp("man", "man", "-w", section, page, (char *)NULL);
		_exit(EXIT_FAILED);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == 0;
}

/* Become man(1), if there is a terminal to read on and a page to read. Else return. */
static void become_page(const char *section, const char *name)
{
	char page[64];

	snprintf(page, sizeof(page), "viaduct-%s", name);
	if (!isatty(STDOUT_FILENO) || !is_installed(section, page))
		return;
	signal(SIGPIPE, SIG_DFL); /* what is ignored stays so, and man writes to a pager */
	execlp("man", "man", section, page, (char *)NULL);
}

int help_show(const char *name, const struct command *command)
{
	struct via_error err = {0};

	for (size_t i = 0; i < NTOPICS; i++)
		if (!strcmp(topics[i].name, name)) {
			become_page("7", name);
			topics[i].print(stdout);
			return EXIT_OK;
		}
	if (command) {
		become_page("1", name);
		options_help(command, stdout);
		return EXIT_OK;
	}
	via_fail(&err, -EINVAL, "help %.80s\nno such topic\nsee `viaduct help`", name);
	report_error(&err);
	return EXIT_USAGE;
}
