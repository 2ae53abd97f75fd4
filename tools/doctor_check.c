/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * doctor_check.c -- the table of checks, and what all of them read and write by.
 *
 * It must never touch anything outside the facts' root, and never leave a check without a word: a
 * check that says nothing would pass for one that found nothing.
 */
#include "tools/doctor_check.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX 1024

/* clang-format off */
const struct doctor_check doctor_checks[] = {
	{"memory", "MemAvailable of `/proc/meminfo`, for the guest of `--memory`", false, doctor_memory},
	{"cgroup-memory", "the limit of the control group, its parents included", false, doctor_cgroup},
	{"memlock", "the limit of locked memory (`ulimit -l`), and CAP_IPC_LOCK", false, doctor_memlock},
	{"open-files", "the limit of open files (`ulimit -n`)", false, doctor_open_files},
	{"userfaultfd", "opens one: vm.unprivileged_userfaultfd, `/dev/userfaultfd`, CAP_SYS_PTRACE, seccomp", false, doctor_uffd},
	{"dirty-log", "opens the dirty tracker that needs PAGEMAP_SCAN", false, doctor_dirty_log},
	{"huge-pages", "the pool of huge pages, where there is one", false, doctor_huge_pages},
	{"fork", "the kernel's release, and RDMAV_FORK_SAFE: memory that is pinned when a process forks", false, doctor_fork},
	{"shm", "room in `/dev/shm`", false, doctor_shm},
	{"governor", "the CPUs' frequency governor", false, doctor_governor},
	{"certificates", "the dates of the certificates in `--tls-creds`, and this host's clock", false, doctor_certificates},
	{"fabrics", "libfabric's providers, UCX's transports, verbs devices, and `--fabric`", false, doctor_fabrics},
	{"rdma-driver", "`/sys/class/infiniband` and `/dev/infiniband`", false, doctor_drivers},
	{"port", "the state of each port", false, doctor_ports},
	{"gid", "RoCE: is there a GID that can be routed?", false, doctor_gids},
	{"roce-version", "RoCE: the GIDs' version, and the one that rdma_cm uses", false, doctor_roce_version},
	{"mtu", "RoCE: what its interface's MTU leaves of a packet", false, doctor_mtu},
	{"pkey", "the partition keys of each port", false, doctor_pkeys},
	{"numa", "the node of each device, and the CPUs that this process may use", false, doctor_numa},
	{"odp", "on-demand paging, where `--fabric` has pin=no", false, doctor_odp},
	{"peer-address", "`--peer`: a link-local IPv6 address needs its interface", true, doctor_peer_address},
	{"peer-port", "the TCP connection: refused, unanswered, no route", true, doctor_peer_port},
	{"peer-handshake", "keys and certificates of both sides, TLS or plain text, whether the peer is free", true, doctor_peer_handshake},
	{"peer-version", "the protocol's versions, and the peer's release", true, doctor_peer_version},
	{"peer-fabric", "what both sides have in common", true, doctor_peer_fabric},
	{"peer-mtu", "packets that leave here and do not fit there, as TCP sees it", true, doctor_peer_mtu},
	{NULL, NULL, false, NULL},
};
/* clang-format on */

void doctor_run(const struct doctor_facts *facts, struct doctor_report *report)
{
	report->n = 0;
	for (const struct doctor_check *c = doctor_checks; c->name; c++) {
		if (c->of_peer && !facts->peer)
			continue;
		report->check = c;
		c->run(facts, report);
	}
}

unsigned doctor_count(const struct doctor_report *report, enum doctor_verdict verdict)
{
	unsigned n = 0;

	for (unsigned i = 0; i < report->n; i++)
		n += report->finding[i].verdict == verdict;
	return n;
}

const char *doctor_verdict_name(enum doctor_verdict verdict)
{
	static const char *const names[] = {[DOCTOR_OK] = "ok",
					    [DOCTOR_SKIPPED] = "skipped",
					    [DOCTOR_WARNING] = "warning",
					    [DOCTOR_FAULT] = "fault"};

	return names[verdict];
}

/* -- findings --------------------------------------------------------------------------- */

/* The last one is kept for what comes when there is no more room: faults must not be lost. */
static struct doctor_finding *add(struct doctor_report *report, enum doctor_verdict verdict)
{
	struct doctor_finding *f;

	if (report->n == DOCTOR_FINDINGS_MAX) {
		if (verdict < report->finding[report->n - 1].verdict)
			return NULL;
		report->n--;
	}
	f = &report->finding[report->n++];
	*f = (struct doctor_finding){.check = report->check, .verdict = verdict};
	return f;
}

void doctor_say(struct doctor_report *report, enum doctor_verdict verdict, const char *fmt, ...)
{
	struct doctor_finding *f = add(report, verdict);
	char text[TEXT_MAX];
	va_list ap;

	if (!f)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (verdict == DOCTOR_OK || verdict == DOCTOR_SKIPPED)
		via_fail(&f->text, -EIO, "%s\n%s", report->check->name, text);
	else
		via_fail(&f->text, -EIO, "%s", text);
}

void doctor_pass(struct doctor_report *report, enum doctor_verdict verdict,
		 const struct via_error *why)
{
	struct doctor_finding *f = add(report, verdict);

	if (f)
		f->text = *why;
}

/* -- files below the root ------------------------------------------------------------------ */

static FILE *open_below(const struct doctor_facts *facts, const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", facts->root, path);
	return fopen(full, "re");
}

bool doctor_read(const struct doctor_facts *facts, char *buf, size_t cap, const char *fmt, ...)
{
	char path[512];
	va_list ap;
	FILE *f;
	bool ok;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	f = open_below(facts, path);
	ok = f && fgets(buf, (int)cap, f);
	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

static void take_value(const char *from, char *buf, size_t cap)
{
	size_t len;

	from += strspn(from, " \t");
	len = strcspn(from, "\n");
	while (len && isspace((unsigned char)from[len - 1]))
		len--;
	snprintf(buf, cap, "%.*s", (int)len, from);
}

bool doctor_read_field(const struct doctor_facts *facts, const char *path, const char *name,
		       char *buf, size_t cap)
{
	FILE *f = open_below(facts, path);
	size_t len = strlen(name);
	bool found = false;
	char line[1024];

	while (f && !found && fgets(line, sizeof(line), f)) {
		found = !strncmp(line, name, len);
		if (found)
			take_value(line + len, buf, cap);
	}
	if (f)
		fclose(f);
	return found;
}

int doctor_access(const struct doctor_facts *facts, const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", facts->root, path);
	return access(full, R_OK | W_OK) ? errno : 0;
}

static int is_visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

void doctor_list(const struct doctor_facts *facts, struct doctor_names *names, const char *fmt, ...)
{
	char path[512], full[PATH_MAX];
	struct dirent **list = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	snprintf(full, sizeof(full), "%s%s", facts->root, path);
	names->n = 0;
	n = scandir(full, &list, is_visible, versionsort);
	for (int i = 0; i < n; i++) {
		if (names->n < sizeof(names->name) / sizeof(names->name[0]))
			snprintf(names->name[names->n++], DOCTOR_NAME_MAX, "%.63s",
				 list[i]->d_name);
		free(list[i]);
	}
	free(list);
}

/* -- what more than one of them asks ----------------------------------------------------------- */

bool doctor_kernel_at_least(const char *release, unsigned major, unsigned minor)
{
	char *dot;
	unsigned long has_major = strtoul(release, &dot, 10);
	unsigned long has_minor = *dot == '.' ? strtoul(dot + 1, NULL, 10) : 0;

	return has_major > major || (has_major == major && has_minor >= minor);
}

bool doctor_has_capability(const struct doctor_facts *facts, unsigned bit)
{
	char value[32];

	return doctor_read_field(facts, "/proc/self/status", "CapEff:", value, sizeof(value)) &&
	       strtoull(value, NULL, 16) >> bit & 1;
}

bool doctor_cpu_is_in(unsigned cpu, const char *list)
{
	while (*list) {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (end == list)
			return false;
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (cpu >= first && cpu <= last)
			return true;
		list = *end == ',' ? end + 1 : end;
	}
	return false;
}

bool doctor_has_rdma(const struct doctor_facts *facts)
{
	struct doctor_names names;

	doctor_list(facts, &names, "/sys/class/infiniband");
	return names.n > 0;
}
