/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * options.h -- the settings that the subcommands share, and one table of options from
 * which they are parsed and their help is printed.
 */
#ifndef VIA_TOOLS_OPTIONS_H
#define VIA_TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/error.h"
#include "transport/control.h"

/* Whether the process is confined; by default as far as that can be had. */
enum sandbox { SANDBOX_DEFAULT, SANDBOX_ON, SANDBOX_OFF };

/* Exit statuses of the program. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct settings {
	char *fabric;
	char *peer;
	char *listen;
	char *psk;
	char *psk_identity;
	char *tls_creds;
	char *tls_hostname;
	char *tls_authz_name;
	char *role;           /* of a relay: "source" or "destination" */
	char *qemu;           /* where a destination relay's QEMU waits */
	char *qmp;            /* socket of a relay's QEMU */
	bool tune;            /* a relay that sets its QEMU */
	char *to;             /* the relay that a QEMU is migrated to */
	uint64_t channels;    /* multifd of a QEMU; 0: none */
	bool preempt_channel; /* of a QEMU */
	bool resume_paused;   /* a QEMU's migration */
	uint64_t timeout_ns;  /* 0: none */
	bool keep;            /* a relay that serves one migration after the other */
	bool insecure;
	enum sandbox sandbox;
	bool integrity;
	bool json;
	bool verbose;
	bool quiet;      /* no progress; set by demo for its second process */
	bool once;       /* a source that fails the handshake ends the wait; likewise */
	uint64_t memory; /* bytes */
	uint64_t vcpus;
	uint64_t dirty_rate; /* bytes a second; UINT64_MAX: as fast as they can */
	uint64_t multifd;
	uint64_t preempt;
	uint64_t max_rounds;
	uint64_t postcopy_after;         /* rounds; 0: not by their number */
	uint64_t postcopy_when_stuck;    /* likewise */
	uint64_t max_postcopy_bandwidth; /* bytes a second; 0: no limit */
	uint64_t downtime_ns;
	uint64_t max_bandwidth; /* bytes a second; 0: no limit */
	uint64_t dead_after_ns;
	uint64_t recover_within_ns; /* VIA_NEVER: for ever */
	uint64_t pull_link;         /* so many times */
	uint64_t resume_pid;        /* 0: this is no such call */
	bool retry;                 /* resume a lost session without being told */
	uint64_t seed;
	bool has_seed;
	bool has_memory;
	char *operand;        /* the argument that is no option, where the command takes one */
	char *only;           /* cases of a benchmark */
	char *metrics_listen; /* where a page of figures is served; NULL: nowhere */
	char *stats_file;     /* for lines of figures; NULL: none */
	char *report;         /* file for a page about the migration; NULL: none */
	uint64_t repeat;
	uint64_t run_ns; /* of one measurement */
	uint64_t neighbours;
};

enum option_id {
	OPTION_FABRIC = 1,
	OPTION_PEER,
	OPTION_LISTEN,
	OPTION_PSK,
	OPTION_PSK_IDENTITY,
	OPTION_TLS_CREDS,
	OPTION_TLS_HOSTNAME,
	OPTION_TLS_AUTHZ_NAME,
	OPTION_INSECURE,
	OPTION_INTEGRITY,
	OPTION_MEMORY,
	OPTION_VCPUS,
	OPTION_DIRTY_RATE,
	OPTION_MULTIFD,
	OPTION_PREEMPT,
	OPTION_MAX_ROUNDS,
	OPTION_DOWNTIME_LIMIT,
	OPTION_MAX_BANDWIDTH,
	OPTION_POSTCOPY,
	OPTION_POSTCOPY_AFTER,
	OPTION_POSTCOPY_WHEN_STUCK,
	OPTION_MAX_POSTCOPY_BANDWIDTH,
	OPTION_DEAD_AFTER,
	OPTION_RETRY,
	OPTION_RESUME,
	OPTION_RECOVER_WITHIN,
	OPTION_PULL_LINK,
	OPTION_SEED,
	OPTION_ROLE,
	OPTION_QEMU,
	OPTION_QMP,
	OPTION_TUNE,
	OPTION_TO,
	OPTION_QEMU_MULTIFD,
	OPTION_QEMU_PREEMPT,
	OPTION_QEMU_RESUME,
	OPTION_TIMEOUT,
	OPTION_KEEP,
	OPTION_ONLY,
	OPTION_REPEAT,
	OPTION_SECONDS,
	OPTION_NEIGHBOUR,
	OPTION_SANDBOX,
	OPTION_REPORT,
	OPTION_METRICS_LISTEN,
	OPTION_STATS_FILE,
	OPTION_VERBOSE,
	OPTION_JSON,
	OPTION_COUNT,
};

/* A subcommand; one table of these serves dispatch and help. */
struct command {
	const char *name;
	const char *summary;           /* one line for `viaduct --help` */
	const char *usage;             /* behind "viaduct NAME" */
	const enum option_id *options; /* ends with 0 */
	bool takes_operand;            /* one argument that is no option */
	const char *more;              /* behind the options in its help; may be NULL */
	int (*run)(const struct settings *settings);
};

/* The defaults. */
void settings_init(struct settings *s);
void settings_free(struct settings *s);

/*
 * Parse argv[1..] of @command into *settings. Returns 0 to go on, 1 when help was
 * printed, or a negated code with @err set.
 */
int options_parse(const struct command *command, int argc, char **argv, struct settings *s,
		  struct via_error *err);

/* What of @s proves who this is; the strings stay its own. */
struct via_credentials settings_credentials(const struct settings *s);

/* Print the help of @command. */
void options_help(const struct command *command, FILE *out);

/*
 * Numbers with units, as QEMU and perftest users type them: "512M", "2GiB", "4096";
 * "100M/s", "0", "unlimited"; "300ms", "5s", "250us", "2m". -EINVAL with what is accepted.
 */
int parse_size(const char *text, uint64_t *bytes, struct via_error *err);
int parse_rate(const char *text, uint64_t *bytes_per_s, struct via_error *err);
int parse_duration(const char *text, uint64_t *ns, struct via_error *err);

#endif
