/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * doctor_check.h -- the checks of viaduct doctor: what they look at, and what they say.
 *
 * A check is a function of struct doctor_facts alone: files below a root, and what was found out
 * before. It changes nothing, asks nobody and does not wait, so that a test can show it any host.
 */
#ifndef VIA_TOOLS_DOCTOR_CHECK_H
#define VIA_TOOLS_DOCTOR_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "core/error.h"
#include "fabrics/fabric.h"
#include "transport/inquire.h"

enum doctor_verdict {
	DOCTOR_OK = 1,
	DOCTOR_SKIPPED, /* could not be looked at, or has nothing to look at */
	DOCTOR_WARNING, /* costs time, or becomes a fault later */
	DOCTOR_FAULT,   /* a migration fails by it, or may */
};

struct doctor_facts {
	const char *root; /* before every path of /proc, /sys and /dev; "" for this host */
	uint64_t memory;  /* bytes of the guest that is to be moved */
	unsigned channels;
	time_t now;
	const char *fabric;                 /* as of --fabric; NULL: auto */
	const char *tls_creds;              /* a folder; NULL: none */
	const char *peer;                   /* as of --peer; NULL: none */
	const struct via_fabric_info *info; /* ninfos candidates, as probed */
	unsigned ninfos;
	uint64_t shm_free;                 /* bytes of /dev/shm; UINT64_MAX: not known */
	bool fork_safe;                    /* RDMAV_FORK_SAFE or IBV_FORK_SAFE is set */
	struct via_error uffd;             /* of opening a userfaultfd; code 0: it can be had */
	struct via_error dirty_log;        /* of opening the asynchronous dirty tracker; likewise */
	const struct via_inquiry *inquiry; /* of the peer; NULL: it was not asked */
	struct via_error peer_error;       /* why it gave no answer, or not the wanted; or code 0 */
};

struct doctor_check;

struct doctor_finding {
	const struct doctor_check *check;
	enum doctor_verdict verdict;
	struct via_error text; /* what, seen and remedy; of DOCTOR_OK what was seen alone */
};

#define DOCTOR_FINDINGS_MAX 256u

struct doctor_report {
	const struct doctor_check *check; /* the one at work */
	unsigned n;
	struct doctor_finding finding[DOCTOR_FINDINGS_MAX];
};

/* Leaves at least one finding. */
typedef void doctor_check_fn(const struct doctor_facts *facts, struct doctor_report *report);

struct doctor_check {
	const char *name;     /* "memlock" */
	const char *looks_at; /* for docs/doctor.md, which a test compares with it */
	bool of_peer;         /* only with a peer */
	doctor_check_fn *run;
};

/* All of them, in the order in which they are shown; ends with a NULL name. */
extern const struct doctor_check doctor_checks[];

/* Run all that @facts have something for. @report is overwritten. */
void doctor_run(const struct doctor_facts *facts, struct doctor_report *report);

/* How many findings of @report are of @verdict. */
unsigned doctor_count(const struct doctor_report *report, enum doctor_verdict verdict);

/* "ok", "skipped", "warning", "fault". Static. */
const char *doctor_verdict_name(enum doctor_verdict verdict);

/* -- for the checks ------------------------------------------------------------------- */

/*
 * Add a finding; @fmt as of via_fail(): "what\nseen\nremedy". DOCTOR_OK and DOCTOR_SKIPPED: what was seen,
 * or why not, alone.
 */
void doctor_say(struct doctor_report *report, enum doctor_verdict verdict, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As that, with the three parts of @why. */
void doctor_pass(struct doctor_report *report, enum doctor_verdict verdict,
		 const struct via_error *why);

/* The first line of a file below the root, without its newline; false: there is none. */
bool doctor_read(const struct doctor_facts *facts, char *buf, size_t cap, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* What follows @name in the first line of @path that begins with it, without blanks around. */
bool doctor_read_field(const struct doctor_facts *facts, const char *path, const char *name,
		       char *buf, size_t cap);

/* May this process read and write it? 0 or an errno. */
int doctor_access(const struct doctor_facts *facts, const char *path);

#define DOCTOR_NAME_MAX 64u

struct doctor_names {
	unsigned n;
	char name[64][DOCTOR_NAME_MAX];
};

/* The entries of a folder below the root, sorted; none when there is no such folder. */
void doctor_list(const struct doctor_facts *facts, struct doctor_names *names, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Is @release ("6.1.0-18-amd64") of the kernel at least MAJOR.MINOR? */
bool doctor_kernel_at_least(const char *release, unsigned major, unsigned minor);

/* Does this process have capability @bit of <linux/capability.h>? */
bool doctor_has_capability(const struct doctor_facts *facts, unsigned bit);

/* Is @cpu in a list like "0-3,8"? */
bool doctor_cpu_is_in(unsigned cpu, const char *list);

/* Has the host an RDMA device? */
bool doctor_has_rdma(const struct doctor_facts *facts);

/* doctor_host.c */
doctor_check_fn doctor_memory, doctor_cgroup, doctor_memlock, doctor_uffd, doctor_dirty_log,
	doctor_huge_pages, doctor_fork, doctor_open_files, doctor_shm, doctor_governor,
	doctor_certificates;

/* doctor_rdma.c */
doctor_check_fn doctor_fabrics, doctor_drivers, doctor_ports, doctor_gids, doctor_roce_version,
	doctor_mtu, doctor_pkeys, doctor_numa, doctor_odp;

/* doctor_peer.c */
doctor_check_fn doctor_peer_address, doctor_peer_port, doctor_peer_handshake, doctor_peer_version,
	doctor_peer_fabric, doctor_peer_mtu;

#endif
