/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * options.c -- one table of options: name, value, help, and how the value is taken.
 */
#include "tools/options.h"

#include <ctype.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "fabrics/spec.h"
#include "transport/messages.h"

#define FIRST_ID   256 /* what getopt_long() returns for an option: above every short one */
#define ROUNDS_MAX 1000000

#define REPEAT_MAX     100 /* of a benchmark */
#define SECONDS_MAX    3600
#define NEIGHBOURS_MAX 1024

#define HELP_COLUMN 22 /* of what stands left; a longer option has a line of its own */

typedef int take_fn(struct settings *s, const char *value, struct via_error *err);

static int take_text(char **into, const char *value, struct via_error *err)
{
	free(*into);
	*into = strdup(value);
	return *into ? 0 : via_fail(err, -ENOMEM, "read the options\nout of memory\nfree some");
}

static int take_number(const char *value, uint64_t min, uint64_t max, uint64_t *into,
		       struct via_error *err)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(value, &end, 10);
	/* strtoull() also takes blanks and signs. */
	if (errno || !isdigit((unsigned char)value[0]) || *end || n < min || n > max)
		return via_fail(err, -EINVAL,
				"a number\n\"%s\"\nwrite a whole number from %llu to %llu", value,
				(unsigned long long)min, (unsigned long long)max);
	*into = n;
	return 0;
}

static int take_fabric(struct settings *s, const char *v, struct via_error *err)
{
	struct via_fabric_spec spec;
	int rc = strcmp(v, "auto") != 0 ? via_fabric_spec_parse(v, &spec, err) : 0;

	return rc ? rc : take_text(&s->fabric, v, err);
}

static int take_peer(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->peer, v, err);
}

static int take_listen(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->listen, v, err);
}

static int take_psk(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->psk, v, err);
}

static int take_identity(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->psk_identity, v, err);
}

static int take_tls_creds(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->tls_creds, v, err);
}

static int take_tls_hostname(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->tls_hostname, v, err);
}

static int take_tls_authz_name(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->tls_authz_name, v, err);
}

static int take_insecure(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->insecure = true;
	return 0;
}

static int take_integrity(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->integrity = true;
	return 0;
}

static int take_memory(struct settings *s, const char *v, struct via_error *err)
{
	int rc = parse_size(v, &s->memory, err);

	s->has_memory = true;
	if (!rc && (s->memory == 0 || s->memory % 4096))
		rc = via_fail(err, -EINVAL,
			      "the guest's memory\n%s\nwrite a multiple of 4K, at least 4K", v);
	return rc;
}

static int take_vcpus(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 0, 64, &s->vcpus, err);
}

static int take_dirty_rate(struct settings *s, const char *v, struct via_error *err)
{
	return parse_rate(v, &s->dirty_rate, err);
}

static int take_multifd(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 1, VIA_MULTIFD_MAX, &s->multifd, err);
}

static int take_preempt(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 1, VIA_PREEMPT_MAX, &s->preempt, err);
}

static int take_max_rounds(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 1, ROUNDS_MAX, &s->max_rounds, err);
}

static int take_postcopy(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->postcopy_after = 1;
	return 0;
}

static int take_postcopy_after(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 1, ROUNDS_MAX, &s->postcopy_after, err);
}

static int take_postcopy_when_stuck(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 1, ROUNDS_MAX, &s->postcopy_when_stuck, err);
}

static int take_positive_duration(const char *v, uint64_t *ns, struct via_error *err)
{
	int rc = parse_duration(v, ns, err);

	if (!rc && *ns == 0)
		rc = via_fail(err, -EINVAL, "a duration\n%s\nwrite one longer than nothing", v);
	return rc;
}

static int take_downtime(struct settings *s, const char *v, struct via_error *err)
{
	return take_positive_duration(v, &s->downtime_ns, err);
}

/* 0 and "unlimited" are the same here. */
static int take_limit(const char *v, uint64_t *bytes_per_s, struct via_error *err)
{
	int rc = parse_rate(v, bytes_per_s, err);

	if (!rc && *bytes_per_s == UINT64_MAX)
		*bytes_per_s = 0;
	return rc;
}

static int take_bandwidth(struct settings *s, const char *v, struct via_error *err)
{
	return take_limit(v, &s->max_bandwidth, err);
}

static int take_postcopy_bandwidth(struct settings *s, const char *v, struct via_error *err)
{
	return take_limit(v, &s->max_postcopy_bandwidth, err);
}

static int take_dead_after(struct settings *s, const char *v, struct via_error *err)
{
	return take_positive_duration(v, &s->dead_after_ns, err);
}

static int take_retry(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->retry = true;
	return 0;
}

static int take_resume(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 1, INT32_MAX, &s->resume_pid, err);
}

static int take_recover_within(struct settings *s, const char *v, struct via_error *err)
{
	return take_positive_duration(v, &s->recover_within_ns, err);
}

static int take_pull_link(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 0, 1000, &s->pull_link, err);
}

static int take_seed(struct settings *s, const char *v, struct via_error *err)
{
	s->has_seed = true;
	return take_number(v, 0, INT64_MAX, &s->seed, err); /* as much as JSON has */
}

static int take_role(struct settings *s, const char *v, struct via_error *err)
{
	if (strcmp(v, "source") != 0 && strcmp(v, "destination") != 0)
		return via_fail(err, -EINVAL, "a role\n\"%s\"\nwrite source or destination", v);
	return take_text(&s->role, v, err);
}

static int take_qemu(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->qemu, v, err);
}

static int take_qmp(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->qmp, v, err);
}

static int take_tune(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->tune = true;
	return 0;
}

static int take_to(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->to, v, err);
}

static int take_qemu_multifd(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 0, 255, &s->channels, err); /* as many as QEMU has */
}

static int take_qemu_preempt(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->preempt_channel = true;
	return 0;
}

static int take_qemu_resume(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->resume_paused = true;
	return 0;
}

static int take_timeout(struct settings *s, const char *v, struct via_error *err)
{
	return take_positive_duration(v, &s->timeout_ns, err);
}

static int take_keep(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->keep = true;
	return 0;
}

static int take_only(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->only, v, err);
}

static int take_repeat(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 1, REPEAT_MAX, &s->repeat, err);
}

/* "2" are seconds here, and any duration will do. */
static int take_seconds(struct settings *s, const char *v, struct via_error *err)
{
	uint64_t seconds = 0;

	if (!v[strspn(v, "0123456789")] && !take_number(v, 1, SECONDS_MAX, &seconds, NULL)) {
		s->run_ns = seconds * VIA_NS_PER_S;
		return 0;
	}
	return take_positive_duration(v, &s->run_ns, err);
}

static int take_neighbour(struct settings *s, const char *v, struct via_error *err)
{
	return take_number(v, 0, NEIGHBOURS_MAX, &s->neighbours, err);
}

static int take_sandbox(struct settings *s, const char *v, struct via_error *err)
{
	if (strcmp(v, "on") != 0 && strcmp(v, "off") != 0)
		return via_fail(err, -EINVAL, "a sandbox\n\"%s\"\nwrite on or off", v);
	s->sandbox = strcmp(v, "on") ? SANDBOX_OFF : SANDBOX_ON;
	return 0;
}

/* "PORT", "HOST:PORT" or "[IPV6]:PORT". Whether there is such a host is known when it listens. */
static int take_metrics_listen(struct settings *s, const char *v, struct via_error *err)
{
	const char *colon = strrchr(v, ':');
	bool sound = !colon || strchr(v, ':') == colon || (v[0] == '[' && colon[-1] == ']');
	uint64_t port;

	if (!sound || take_number(colon ? colon + 1 : v, 0, UINT16_MAX, &port, NULL))
		return via_fail(err, -EINVAL,
				"an address\n\"%s\"\nwrite PORT, HOST:PORT or [IPV6]:PORT", v);
	return take_text(&s->metrics_listen, v, err);
}

static int take_stats_file(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->stats_file, v, err);
}

static int take_report(struct settings *s, const char *v, struct via_error *err)
{
	return take_text(&s->report, v, err);
}

static int take_verbose(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->verbose = true;
	return 0;
}

static int take_json(struct settings *s, const char *v, struct via_error *err)
{
	(void)v;
	(void)err;
	s->json = true;
	return 0;
}

/* clang-format off */
static const struct {
	const char *name;
	const char *value; /* NULL: a switch */
	const char *help;
	take_fn *take;
} table[OPTION_COUNT] = {
	[OPTION_FABRIC] = {"fabric", "SPEC", "one of `viaduct fabrics`[,key=value...], or auto", take_fabric},
	[OPTION_PEER] = {"peer", "HOST:PORT", "where the other end waits: receive, relay or bench", take_peer},
	[OPTION_LISTEN] = {"listen", "HOST:PORT", "where to wait; port 0: any. A relay: also unix:PATH", take_listen},
	[OPTION_PSK] = {"psk", "FILE", "pre-shared key for TLS, in a file like QEMU's keys.psk", take_psk},
	[OPTION_PSK_IDENTITY] = {"psk-identity", "NAME", "the line of the key file to use (default: the first)", take_identity},
	[OPTION_TLS_CREDS] = {"tls-creds", "FOLDER", "certificates for TLS, as QEMU's tls-creds-x509", take_tls_creds},
	[OPTION_TLS_HOSTNAME] = {"tls-hostname", "NAME", "whom the peer's certificate names (default: its host)", take_tls_hostname},
	[OPTION_TLS_AUTHZ_NAME] = {"tls-authz-name", "PATTERN", "subjects of certificates that may connect; * and ?", take_tls_authz_name},
	[OPTION_INSECURE] = {"insecure", NULL, "allow plain text to other hosts: no authentication", take_insecure},
	[OPTION_INTEGRITY] = {"integrity", NULL, "check each page that arrives by a digest of it", take_integrity},
	[OPTION_MEMORY] = {"memory", "SIZE", "guest RAM (default 512M; bench: as the row has it)", take_memory},
	[OPTION_VCPUS] = {"vcpus", "N", "vCPU threads that write it (default 2)", take_vcpus},
	[OPTION_DIRTY_RATE] = {"dirty-rate", "RATE", "how much they write (default 100M/s)", take_dirty_rate},
	[OPTION_MULTIFD] = {"multifd", "N", "multifd channels (default 2)", take_multifd},
	[OPTION_PREEMPT] = {"preempt", "N", "preempt channels, for page requests (default 2)", take_preempt},
	[OPTION_MAX_ROUNDS] = {"max-rounds", "N", "rounds before the guest is stopped anyway (default 30)", take_max_rounds},
	[OPTION_DOWNTIME_LIMIT] = {"downtime-limit", "TIME", "how long the guest may stand still (default 300ms)", take_downtime},
	[OPTION_MAX_BANDWIDTH] = {"max-bandwidth", "RATE", "limit while the guest runs (default unlimited)", take_bandwidth},
	[OPTION_POSTCOPY] = {"postcopy", NULL, "move the guest after round 1, and the rest behind it", take_postcopy},
	[OPTION_POSTCOPY_AFTER] = {"postcopy-after", "ROUNDS", "the same after so many rounds", take_postcopy_after},
	[OPTION_POSTCOPY_WHEN_STUCK] = {"postcopy-when-stuck", "ROUNDS", "the same after so many in a row without getting nearer", take_postcopy_when_stuck},
	[OPTION_MAX_POSTCOPY_BANDWIDTH] = {"max-postcopy-bandwidth", "RATE", "limit of what was not asked for (default unlimited)", take_postcopy_bandwidth},
	[OPTION_DEAD_AFTER] = {"dead-after", "TIME", "a peer silent for so long is lost (default 5s)", take_dead_after},
	[OPTION_RETRY] = {"retry", NULL, "resume a session lost in postcopy by itself", take_retry},
	[OPTION_RESUME] = {"resume", "PID", "tell the paused `viaduct send` PID to resume, and end", take_resume},
	[OPTION_RECOVER_WITHIN] = {"recover-within", "TIME", "wait so long for a lost source (default: for ever)", take_recover_within},
	[OPTION_PULL_LINK] = {"pull-link", "N", "lose the session N times in postcopy (default 0)", take_pull_link},
	[OPTION_SEED] = {"seed", "N", "of the guest's writes (default: by the clock)", take_seed},
	[OPTION_ROLE] = {"role", "ROLE", "source: beside the QEMU that sends; or destination", take_role},
	[OPTION_QEMU] = {"qemu", "ADDRESS", "where the QEMU beside it waits: unix:PATH or HOST:PORT", take_qemu},
	[OPTION_QMP] = {"qmp", "SOCKET", "the QMP socket of the QEMU on this host", take_qmp},
	[OPTION_TUNE] = {"tune", NULL, "set that QEMU, and say what; on both sides", take_tune},
	[OPTION_TO] = {"to", "HOST:PORT", "where the destination's `viaduct relay --tune` listens", take_to},
	[OPTION_QEMU_MULTIFD] = {"multifd", "N", "multifd channels (default 0: all on main)", take_qemu_multifd},
	[OPTION_QEMU_PREEMPT] = {"preempt", NULL, "with postcopy: a channel for pages that are asked for", take_qemu_preempt},
	[OPTION_QEMU_RESUME] = {"resume", NULL, "go on with a migration that has paused", take_qemu_resume},
	[OPTION_TIMEOUT] = {"timeout", "TIME", "cancel it after so long, if the guest has not moved", take_timeout},
	[OPTION_KEEP] = {"keep", NULL, "serve one migration after the other", take_keep},
	[OPTION_ONLY] = {"only", "CASE", "cases that have this: size=4096,channels=1", take_only},
	[OPTION_REPEAT] = {"repeat", "R", "measure each case so often (default 5)", take_repeat},
	[OPTION_SECONDS] = {"seconds", "S", "of each measurement, more or less (default 1)", take_seconds},
	[OPTION_NEIGHBOUR] = {"neighbour", "N", "so many busy processes beside (default 0)", take_neighbour},
	[OPTION_SANDBOX] = {"sandbox", "on|off", "keep no rights and system calls without use (on)", take_sandbox},
	[OPTION_METRICS_LISTEN] = {"metrics-listen", "[HOST:]PORT", "serve figures to Prometheus (of 127.0.0.1)", take_metrics_listen},
	[OPTION_STATS_FILE] = {"stats-file", "FILE", "add a line of JSON with figures each second", take_stats_file},
	[OPTION_REPORT] = {"report", "FILE", "write a page about it: one file of HTML", take_report},
	[OPTION_VERBOSE] = {"verbose", NULL, "debug lines on stderr", take_verbose},
	[OPTION_JSON] = {"json", NULL, "one JSON object on stdout", take_json},
};
/* clang-format on */

void settings_init(struct settings *s)
{
	*s = (struct settings){.memory = UINT64_C(512) << 20,
			       .vcpus = 2,
			       .dirty_rate = UINT64_C(100) << 20,
			       .multifd = 2,
			       .preempt = 2,
			       .max_rounds = 30,
			       .downtime_ns = 300 * VIA_NS_PER_MS,
			       .dead_after_ns = 5 * VIA_NS_PER_S,
			       .recover_within_ns = VIA_NEVER,
			       .seed = via_now_ns(),
			       .repeat = 5,
			       .run_ns = VIA_NS_PER_S};
}

void settings_free(struct settings *s)
{
	free(s->fabric);
	free(s->peer);
	free(s->listen);
	free(s->psk);
	free(s->psk_identity);
	free(s->tls_creds);
	free(s->tls_hostname);
	free(s->tls_authz_name);
	free(s->role);
	free(s->qemu);
	free(s->qmp);
	free(s->to);
	free(s->operand);
	free(s->only);
	free(s->report);
	free(s->metrics_listen);
	free(s->stats_file);
}

struct via_credentials settings_credentials(const struct settings *s)
{
	return (struct via_credentials){.psk_file = s->psk,
					.psk_identity = s->psk_identity,
					.tls_creds = s->tls_creds,
					.tls_hostname = s->tls_hostname,
					.tls_authz_name = s->tls_authz_name,
					.insecure = s->insecure};
}

void options_help(const struct command *command, FILE *out)
{
	fprintf(out, "usage: viaduct %s %s\n\n%s\n\n", command->name, command->usage,
		command->summary);
	for (const enum option_id *id = command->options; *id; id++) {
		char left[40];

		snprintf(left, sizeof(left), "--%s%s%s", table[*id].name,
			 table[*id].value ? " " : "", table[*id].value ? table[*id].value : "");
		if (strlen(left) > HELP_COLUMN)
			fprintf(out, "  %s\n  %-*s %s\n", left, HELP_COLUMN, "", table[*id].help);
		else
			fprintf(out, "  %-*s %s\n", HELP_COLUMN, left, table[*id].help);
	}
	fprintf(out, "  %-*s %s\n", HELP_COLUMN, "--help", "this text");
	if (command->more)
		fprintf(out, "\n%s\n", command->more);
}

static int take(const struct command *command, enum option_id id, struct settings *s,
		struct via_error *err)
{
	struct via_error first = {0};
	int rc = table[id].take(s, optarg, &first);

	if (!rc)
		return 0;
	return via_fail(err, -EINVAL, "%s --%s\n%s\n%s", command->name, table[id].name, first.seen,
			first.remedy);
}

static int misused(const struct command *command, const char *what, const char *name,
		   struct via_error *err)
{
	return via_fail(err, -EINVAL, "%s\n%s%.100s\nsee `viaduct %s --help`", command->name, what,
			name, command->name);
}

/* What getopt_long() means by ':' and '?'. */
static int refused(const struct command *command, int id, char **argv, struct via_error *err)
{
	char text[] = {'-', (char)optopt, '\0'};

	if (id == ':')
		return misused(command, "no value for --", table[optopt - FIRST_ID].name, err);
	if (optopt >= FIRST_ID)
		return via_fail(err, -EINVAL, "%s\n--%s takes no value\nsee `viaduct %s --help`",
				command->name, table[optopt - FIRST_ID].name, command->name);
	/* A short one may stand among others in one argument. */
	return misused(command, "unknown option ", optopt ? text : argv[optind - 1], err);
}

int options_parse(const struct command *command, int argc, char **argv, struct settings *s,
		  struct via_error *err)
{
	struct option longopts[OPTION_COUNT + 2] = {{"help", no_argument, NULL, 'h'}};
	unsigned n = 1;
	int id;

	for (const enum option_id *o = command->options; *o; o++)
		longopts[n++] = (struct option){.name = table[*o].name,
						.has_arg = table[*o].value ? required_argument
									   : no_argument,
						.val = FIRST_ID + (int)*o};
	opterr = 0;
	optind = 0;
	while ((id = getopt_long(argc, argv, ":h", longopts, NULL)) != -1) {
		int rc;

		if (id == 'h') {
			options_help(command, stdout);
			return 1;
		}
		if (id < FIRST_ID)
			return refused(command, id, argv, err);
		rc = take(command, (enum option_id)(id - FIRST_ID), s, err);
		if (rc)
			return rc;
	}
	if (command->takes_operand && optind < argc) {
		int rc = take_text(&s->operand, argv[optind++], err);

		if (rc)
			return rc;
	}
	return optind < argc ? misused(command, "unexpected argument ", argv[optind], err) : 0;
}
