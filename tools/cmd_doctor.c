/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_doctor.c -- viaduct doctor: finds out what the checks look at, and prints what they say.
 *
 * It changes nothing, on neither host, and leaves a peer waiting for its source.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/clock.h"
#include "migrate/dirty_tracker.h"
#include "migrate/uffd.h"
#include "tools/candidates.h"
#include "tools/commands.h"
#include "tools/doctor_check.h"
#include "tools/run.h"

/* For each step of the connection to the peer. */
#define PEER_NS (5 * VIA_NS_PER_S)

#define NAME_WIDTH 15

/* clang-format off */
static const enum option_id options[] = {
	OPTION_PEER, OPTION_PSK, OPTION_PSK_IDENTITY, OPTION_TLS_CREDS, OPTION_TLS_HOSTNAME,
	OPTION_INSECURE, OPTION_FABRIC, OPTION_MEMORY, OPTION_MULTIFD, OPTION_PREEMPT,
	OPTION_VERBOSE, OPTION_JSON, 0};
/* clang-format on */

/* -- the facts --------------------------------------------------------------------------- */

struct infos {
	struct via_fabric_info *info;
	unsigned n;
};

static int found(void *arg, const struct via_fabric_info *info)
{
	struct infos *all = arg;
	struct via_fabric_info *more = realloc(all->info, (all->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	all->info = more;
	all->info[all->n++] = *info;
	return 0;
}

static int probe_fabrics(struct infos *all, struct via_error *err)
{
	const struct via_fabric_ops *const *ops;
	const struct via_fabric_absent *absent;
	int rc = 0;

	for (ops = via_fabric_list(); *ops && !rc; ops++)
		rc = (*ops)->probe(found, all, err);
	for (absent = via_fabric_absent_list(); absent->name && !rc; absent++) {
		struct via_fabric_info info = {0};

		snprintf(info.spec, sizeof(info.spec), "%s", absent->name);
		snprintf(info.reason, sizeof(info.reason), "%s", absent->reason);
		rc = found(all, &info);
	}
	return rc ? via_fail(err, rc, "look for fabrics\n%s\nfree some memory", via_err_text(rc))
		  : 0;
}

/* By trying, for rights may be taken away in more ways than can be looked up. */
static void try_userfaultfd(struct doctor_facts *f)
{
	struct via_guest_region region = {.name = "page", .page_size = 4096, .len = 4096};
	struct via_dirty_tracker *tracker = NULL;
	int fd;

	if (!uffd_open(false, &fd, &f->uffd))
		close(fd);
	region.addr =
		mmap(NULL, region.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region.addr == MAP_FAILED)
		return;
	(void)via_dirty_tracker_open(&region, 1, VIA_DIRTY_ASYNC, &tracker, &f->dirty_log);
	via_dirty_tracker_close(tracker);
	munmap(region.addr, region.len);
}

static uint64_t shm_free(void)
{
	struct statvfs st;

	return statvfs("/dev/shm", &st) ? UINT64_MAX : (uint64_t)st.f_bavail * st.f_frsize;
}

static void ask_peer(const struct settings *s, struct doctor_facts *f, struct via_inquiry *inquiry)
{
	struct via_session_config config = {.fabric = s->fabric,
					    .credentials = settings_credentials(s),
					    .handshake_ns = PEER_NS};

	(void)via_inquire(s->peer, &config, -1, inquiry, &f->peer_error);
	f->inquiry = inquiry;
}

static int find_out(const struct settings *s, struct infos *infos, struct via_inquiry *inquiry,
		    struct doctor_facts *f, struct via_error *err)
{
	int rc = probe_fabrics(infos, err);

	if (rc)
		return rc;
	*f = (struct doctor_facts){.root = "",
				   .memory = s->memory,
				   .channels = (unsigned)(1 + s->multifd + s->preempt),
				   .now = time(NULL),
				   .fabric = s->fabric,
				   .tls_creds = s->tls_creds,
				   .peer = s->peer,
				   .info = infos->info,
				   .ninfos = infos->n,
				   .shm_free = shm_free(),
				   .fork_safe =
					   getenv("RDMAV_FORK_SAFE") || getenv("IBV_FORK_SAFE")};
	try_userfaultfd(f);
	if (s->peer)
		ask_peer(s, f, inquiry);
	return 0;
}

/* -- what is printed ------------------------------------------------------------------------ */

/* "3 warnings", "1 fault" */
static const char *count_text(unsigned n, const char *what, char *buf, size_t cap)
{
	snprintf(buf, cap, "%u %s%s", n, what, n == 1 ? "" : "s");
	return buf;
}

static void print_finding(const struct doctor_finding *f)
{
	bool trouble = f->verdict >= DOCTOR_WARNING;
	const char *verdict =
		f->verdict == DOCTOR_FAULT ? "FAULT" : doctor_verdict_name(f->verdict);

	printf("%-8s %-*s %s\n", verdict, NAME_WIDTH, f->check->name,
	       trouble ? f->text.what : f->text.seen);
	if (!trouble)
		return;
	printf("%-8s %-*s %s\n", "", NAME_WIDTH, "", f->text.seen);
	printf("%-8s %-*s try: %s\n", "", NAME_WIDTH, "", f->text.remedy);
}

static void print_text(const struct doctor_report *r)
{
	char warnings[32], faults[32];

	for (unsigned i = 0; i < r->n; i++)
		print_finding(&r->finding[i]);
	printf("\n%s, %s\n",
	       count_text(doctor_count(r, DOCTOR_FAULT), "fault", faults, sizeof(faults)),
	       count_text(doctor_count(r, DOCTOR_WARNING), "warning", warnings, sizeof(warnings)));
}

static json_t *peer_object(const struct via_inquiry *q)
{
	if (!q || !q->theirs.program[0])
		return json_null();
	return json_pack("{s:o, s:I, s:I, s:s, s:s, s:o}", "program",
			 report_text(q->theirs.program), "version_min",
			 (json_int_t)q->theirs.version_min, "version_max",
			 (json_int_t)q->theirs.version_max, "control", q->security, "fabric",
			 q->chosen < 0 ? "" : q->ours.offer[q->chosen].kind, "candidates",
			 candidates_array(q));
}

static void print_json(const struct doctor_facts *f, const struct doctor_report *r)
{
	json_t *checks = json_array(), *root;

	for (unsigned i = 0; i < r->n; i++) {
		const struct doctor_finding *d = &r->finding[i];
		bool trouble = d->verdict >= DOCTOR_WARNING;

		json_array_append_new(checks,
				      json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "check",
						d->check->name, "looks_at", d->check->looks_at,
						"verdict", doctor_verdict_name(d->verdict), "what",
						report_text(trouble ? d->text.what : ""), "seen",
						report_text(d->text.seen), "remedy",
						report_text(trouble ? d->text.remedy : "")));
	}
	root = json_pack("{s:s, s:I, s:I, s:o, s:o}", "result",
			 doctor_count(r, DOCTOR_FAULT) ? "faults" : "ok", "faults",
			 (json_int_t)doctor_count(r, DOCTOR_FAULT), "warnings",
			 (json_int_t)doctor_count(r, DOCTOR_WARNING), "peer",
			 peer_object(f->inquiry), "checks", checks);
	json_dumpf(root, stdout, JSON_INDENT(2));
	fputc('\n', stdout);
	json_decref(root);
}

static int run(const struct settings *settings)
{
	static struct doctor_report report; /* too large for a stack */
	static struct via_inquiry inquiry;
	struct infos infos = {0};
	struct doctor_facts facts;
	struct via_error err = {0};
	int rc = find_out(settings, &infos, &inquiry, &facts, &err);

	if (rc) {
		report_error(&err);
	} else {
		doctor_run(&facts, &report);
		if (settings->json)
			print_json(&facts, &report);
		else
			print_text(&report);
	}
	free(infos.info);
	return rc || doctor_count(&report, DOCTOR_FAULT) ? EXIT_FAILED : EXIT_OK;
}

const struct command command_doctor = {
	.name = "doctor",
	.summary = "examine this host and the way to another; say what repairs it",
	.usage = "[--peer HOST:PORT] [OPTION...]",
	.options = options,
	.more = "Exit status: 0, no fault (there may be warnings); 1, faults.",
	.run = run,
};
