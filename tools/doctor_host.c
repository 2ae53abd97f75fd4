/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * doctor_host.c -- checks of the host and of this process: memory, limits, rights, kernel, clock.
 *
 * Must name a cause only where it is one: a limit that nothing here runs into is no fault.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/doctor_check.h"
#include "tools/run.h"

#define CAP_IPC_LOCK_BIT 14u

/* What a process needs of descriptors, and each of its channels: over the hungriest of the fabrics. */
#define FILES_BASE        64u
#define FILES_PER_CHANNEL 16u

/* Of /dev/shm, for each channel: libfabric's shm takes a region of 8 MiB for each of two queues. */
#define SHM_PER_CHANNEL (UINT64_C(16) << 20)

/* A certificate that expires so soon is better replaced now. */
#define EXPIRES_SOON_S (14 * 24 * 3600)

/* Of one file: a chain, or all authorities. */
#define CERTIFICATES_MAX 64u

/* -- memory --------------------------------------------------------------------------- */

/* A line of /proc/meminfo in bytes; UINT64_MAX where there is none. */
static uint64_t meminfo(const struct doctor_facts *f, const char *name)
{
	char value[64];

	return doctor_read_field(f, "/proc/meminfo", name, value, sizeof(value))
		       ? strtoull(value, NULL, 10) << 10
		       : UINT64_MAX;
}

void doctor_memory(const struct doctor_facts *f, struct doctor_report *r)
{
	uint64_t total = meminfo(f, "MemTotal:"), available = meminfo(f, "MemAvailable:");
	char guest[32], there[32], all[32];

	format_bytes(f->memory, guest, sizeof(guest));
	format_bytes(available, there, sizeof(there));
	format_bytes(total, all, sizeof(all));
	if (total == UINT64_MAX || available == UINT64_MAX)
		doctor_say(r, DOCTOR_SKIPPED, "no /proc/meminfo");
	else if (f->memory > total)
		doctor_say(r, DOCTOR_FAULT,
			   "a guest of %s has no place on this host\nMemTotal is %s\n"
			   "take a host with more memory, or name the guest's: --memory SIZE",
			   guest, all);
	else if (f->memory > available)
		doctor_say(
			r, DOCTOR_WARNING,
			"a guest of %s does not fit into what is free\nMemAvailable is %s of %s\n"
			"free memory before it comes; where it runs already, this is as it should "
			"be",
			guest, there, all);
	else
		doctor_say(r, DOCTOR_OK, "%s of %s are free, for a guest of %s", there, all, guest);
}

/* -- the control group ------------------------------------------------------------------ */

struct cgroup {
	uint64_t limit; /* the lowest on the way up; UINT64_MAX: none */
	uint64_t used;  /* of that one */
	char path[256];
};

/* "max" and what is as much as there can be count as no limit. */
static uint64_t limit_of(const char *text)
{
	uint64_t n = strncmp(text, "max", 3) != 0 ? strtoull(text, NULL, 10) : UINT64_MAX;

	return n >= UINT64_C(1) << 60 ? UINT64_MAX : n;
}

/* From @path up to the root of the hierarchy that is mounted at @mount. */
static void walk_up(const struct doctor_facts *f, const char *mount, const char *path,
		    const char *limit_file, const char *used_file, struct cgroup *out)
{
	char at[256], text[64];
	char *slash;

	snprintf(at, sizeof(at), "%.255s", path);
	for (;;) {
		const char *here = strcmp(at, "/") != 0 ? at : "";
		uint64_t limit = UINT64_MAX;

		if (doctor_read(f, text, sizeof(text), "%s%s/%s", mount, here, limit_file))
			limit = limit_of(text);
		if (limit < out->limit) {
			out->limit = limit;
			out->used = doctor_read(f, text, sizeof(text), "%s%s/%s", mount, here,
						used_file)
					    ? strtoull(text, NULL, 10)
					    : 0;
			snprintf(out->path, sizeof(out->path), "%.128s%.120s", mount, here);
		}
		slash = strrchr(at, '/');
		if (!slash || !*here)
			return;
		*slash = '\0';
	}
}

/* Version 2 ("0::/path") or 1 ("4:memory:/path"). False: this process is in none. */
static bool find_cgroup(const struct doctor_facts *f, struct cgroup *out)
{
	char path[256];
	bool found = false;

	*out = (struct cgroup){.limit = UINT64_MAX};
	if (doctor_read_field(f, "/proc/self/cgroup", "0::", path, sizeof(path))) {
		walk_up(f, "/sys/fs/cgroup", path, "memory.max", "memory.current", out);
		found = true;
	}
	for (unsigned i = 1; i < 32; i++) {
		char name[24];

		snprintf(name, sizeof(name), "%u:memory:", i);
		if (!doctor_read_field(f, "/proc/self/cgroup", name, path, sizeof(path)))
			continue;
		walk_up(f, "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes",
			"memory.usage_in_bytes", out);
		found = true;
	}
	return found;
}

void doctor_cgroup(const struct doctor_facts *f, struct doctor_report *r)
{
	char guest[32], limit[32], used[32];
	struct cgroup g;

	if (!find_cgroup(f, &g)) {
		doctor_say(r, DOCTOR_SKIPPED, "this process is in no control group");
		return;
	}
	format_bytes(f->memory, guest, sizeof(guest));
	format_bytes(g.limit, limit, sizeof(limit));
	format_bytes(g.used, used, sizeof(used));
	if (g.limit == UINT64_MAX)
		doctor_say(r, DOCTOR_OK, "no limit of memory");
	else if (f->memory > g.limit)
		doctor_say(
			r, DOCTOR_FAULT,
			"a guest of %s is killed for want of memory\n%.120s is limited to %s\n"
			"raise it: MemoryMax= of the systemd unit, resources.limits.memory of the "
			"pod",
			guest, g.path, limit);
	else if (g.used > g.limit || f->memory > g.limit - g.used)
		doctor_say(
			r, DOCTOR_WARNING,
			"a guest of %s does not fit into what the control group has left\n"
			"%.120s is limited to %s, %s are in use\n"
			"raise it: MemoryMax= of the systemd unit, resources.limits.memory of the "
			"pod",
			guest, g.path, limit, used);
	else
		doctor_say(r, DOCTOR_OK, "limited to %s, %s are in use", limit, used);
}

void doctor_huge_pages(const struct doctor_facts *f, struct doctor_report *r)
{
	uint64_t size = meminfo(f, "Hugepagesize:"), need;
	char total[32], nfree[32], text[32];
	uint64_t n, left;

	if (size == UINT64_MAX || !size ||
	    !doctor_read_field(f, "/proc/meminfo", "HugePages_Total:", total, sizeof(total)) ||
	    !doctor_read_field(f, "/proc/meminfo", "HugePages_Free:", nfree, sizeof(nfree))) {
		doctor_say(r, DOCTOR_SKIPPED, "this kernel has no huge pages");
		return;
	}
	need = f->memory / size + (f->memory % size != 0);
	n = strtoull(total, NULL, 10);
	left = strtoull(nfree, NULL, 10);
	format_bytes(size, text, sizeof(text));
	if (!n)
		doctor_say(r, DOCTOR_OK, "no pool: for guests of ordinary pages");
	else if (left < need)
		doctor_say(r, DOCTOR_WARNING,
			   "a guest of huge pages does not fit into the pool\n"
			   "%s of %s pages of %s are free, it needs %" PRIu64 "\n"
			   "sysctl -w vm.nr_hugepages=%" PRIu64,
			   nfree, total, text, need, n - left + need);
	else
		doctor_say(r, DOCTOR_OK, "%s of %s pages of %s are free", nfree, total, text);
}

void doctor_shm(const struct doctor_facts *f, struct doctor_report *r)
{
	uint64_t need = SHM_PER_CHANNEL * f->channels;
	char room[32], text[32];

	format_bytes(f->shm_free, room, sizeof(room));
	format_bytes(need, text, sizeof(text));
	if (f->shm_free == UINT64_MAX)
		doctor_say(r, DOCTOR_WARNING,
			   "fabrics of shared memory cannot be used\nthere is no /dev/shm\n"
			   "mount -t tmpfs tmpfs /dev/shm");
	else if (f->shm_free < need)
		doctor_say(r, DOCTOR_WARNING,
			   "fabrics of shared memory may die of SIGBUS\n"
			   "/dev/shm has %s left, %u channels need up to %s\n"
			   "mount -o remount,size=1G /dev/shm; in a container: --shm-size=1g",
			   room, f->channels, text);
	else
		doctor_say(r, DOCTOR_OK, "%s left in /dev/shm", room);
}

/* -- limits ------------------------------------------------------------------------------ */

/* The soft limit in a line of /proc/self/limits; UINT64_MAX: none. False: there is no such line. */
static bool soft_limit(const struct doctor_facts *f, const char *name, uint64_t *limit)
{
	char value[128];

	if (!doctor_read_field(f, "/proc/self/limits", name, value, sizeof(value)))
		return false;
	*limit = strncmp(value, "unlimited", 9) != 0 ? strtoull(value, NULL, 10) : UINT64_MAX;
	return true;
}

void doctor_memlock(const struct doctor_facts *f, struct doctor_report *r)
{
	bool rdma = doctor_has_rdma(f);
	char guest[32];
	uint64_t limit;

	format_bytes(f->memory, guest, sizeof(guest));
	if (!soft_limit(f, "Max locked memory", &limit))
		doctor_say(r, DOCTOR_SKIPPED, "no /proc/self/limits");
	else if (limit == UINT64_MAX)
		doctor_say(r, DOCTOR_OK, "unlimited");
	else if (doctor_has_capability(f, CAP_IPC_LOCK_BIT))
		doctor_say(r, DOCTOR_OK, "%" PRIu64 " KiB, and CAP_IPC_LOCK, which needs no limit",
			   limit >> 10);
	else if (limit >= f->memory)
		doctor_say(r, DOCTOR_OK, "%" PRIu64 " KiB, for a guest of %s", limit >> 10, guest);
	else
		doctor_say(r, rdma ? DOCTOR_FAULT : DOCTOR_WARNING,
			   "an RDMA device cannot register a guest of %s\n"
			   "the limit of locked memory is %" PRIu64 " KiB%s\n"
			   "ulimit -l unlimited; LimitMEMLOCK=infinity in the systemd unit",
			   guest, limit >> 10, rdma ? "" : "; there is no such device here now");
}

void doctor_open_files(const struct doctor_facts *f, struct doctor_report *r)
{
	uint64_t limit, need = FILES_BASE + FILES_PER_CHANNEL * f->channels;

	if (!soft_limit(f, "Max open files", &limit))
		doctor_say(r, DOCTOR_SKIPPED, "no /proc/self/limits");
	else if (limit == UINT64_MAX)
		doctor_say(r, DOCTOR_OK, "unlimited");
	else if (limit < need)
		doctor_say(r, DOCTOR_FAULT,
			   "%u channels may need more open files than are allowed\n"
			   "the limit is %" PRIu64 ", they need up to %" PRIu64 "\n"
			   "ulimit -n 4096; LimitNOFILE=4096 in the systemd unit",
			   f->channels, limit, need);
	else
		doctor_say(r, DOCTOR_OK, "%" PRIu64 ", for %u channels", limit, f->channels);
}

/* -- rights, and what the kernel has --------------------------------------------------------- */

void doctor_uffd(const struct doctor_facts *f, struct doctor_report *r)
{
	char release[128];

	if (f->uffd.code)
		doctor_pass(r, DOCTOR_FAULT, &f->uffd);
	else if (doctor_read(f, release, sizeof(release), "/proc/sys/kernel/osrelease"))
		doctor_say(r, DOCTOR_OK, "permitted, by Linux %s", release);
	else
		doctor_say(r, DOCTOR_OK, "permitted");
}

void doctor_dirty_log(const struct doctor_facts *f, struct doctor_report *r)
{
	char release[128] = "of unknown release";

	(void)doctor_read(f, release, sizeof(release), "/proc/sys/kernel/osrelease");
	if (!f->dirty_log.code)
		doctor_say(r, DOCTOR_OK, "asynchronous write protection and PAGEMAP_SCAN");
	else if (f->dirty_log.code == -EOPNOTSUPP)
		doctor_say(r, DOCTOR_WARNING,
			   "each first write of a guest to a page is a fault, which its vCPU waits "
			   "for\n"
			   "Linux %s has no PAGEMAP_SCAN (%s)\n"
			   "use Linux 6.7 or later; a VMM with a dirty log of its own does not "
			   "need it",
			   release, f->dirty_log.seen);
	else
		doctor_pass(r, DOCTOR_WARNING, &f->dirty_log);
}

void doctor_fork(const struct doctor_facts *f, struct doctor_report *r)
{
	char release[128];

	if (!doctor_read(f, release, sizeof(release), "/proc/sys/kernel/osrelease"))
		doctor_say(r, DOCTOR_SKIPPED, "no /proc/sys/kernel/osrelease");
	else if (doctor_kernel_at_least(release, 5, 12))
		doctor_say(r, DOCTOR_OK, "Linux %s copies pinned pages for the child", release);
	else if (f->fork_safe)
		doctor_say(r, DOCTOR_OK, "Linux %s, and RDMAV_FORK_SAFE is set", release);
	else
		doctor_say(r, doctor_has_rdma(f) ? DOCTOR_FAULT : DOCTOR_WARNING,
			   "a VMM that forks with registered memory loses its pages to the child\n"
			   "Linux %s: pinned pages are copied on fork from 5.12 on\n"
			   "use that; or export RDMAV_FORK_SAFE=1 RDMAV_HUGEPAGES_SAFE=1 before it "
			   "starts",
			   release);
}

/* Those drivers have a "powersave" that goes as fast as is needed. */
static bool scales_by_itself(const char *driver)
{
	return !strncmp(driver, "intel_pstate", 12) || !strncmp(driver, "amd-pstate", 10) ||
	       !strncmp(driver, "amd_pstate", 10);
}

void doctor_governor(const struct doctor_facts *f, struct doctor_report *r)
{
	static const char dir[] = "/sys/devices/system/cpu/cpufreq";
	char governor[64] = "", driver[64] = "";
	struct doctor_names names;
	unsigned slow = 0;

	doctor_list(f, &names, dir);
	for (unsigned i = 0; i < names.n; i++) {
		char seen[64];

		if (!doctor_read(f, seen, sizeof(seen), "%s/%s/scaling_governor", dir,
				 names.name[i]))
			continue;
		if (!doctor_read(f, driver, sizeof(driver), "%s/%s/scaling_driver", dir,
				 names.name[i]))
			driver[0] = '\0';
		slow += !strcmp(seen, "powersave") && !scales_by_itself(driver);
		if (!governor[0] || !strcmp(seen, "powersave"))
			memcpy(governor, seen, sizeof(governor));
	}
	if (!governor[0])
		doctor_say(r, DOCTOR_SKIPPED, "nobody sets the CPUs' frequency here");
	else if (slow)
		doctor_say(r, DOCTOR_WARNING,
			   "page requests wait for CPUs at their lowest frequency\n"
			   "%u of %u frequency policies are `powersave`\n"
			   "cpupower frequency-set -g performance",
			   slow, names.n);
	else
		doctor_say(r, DOCTOR_OK, "%s", governor);
}

/* -- certificates, and the clock ------------------------------------------------------------- */

static const char *show_time(time_t when, char *buf, size_t cap)
{
	struct tm tm;

	if (!gmtime_r(&when, &tm) || !strftime(buf, cap, "%Y-%m-%d %H:%M UTC", &tm))
		snprintf(buf, cap, "?");
	return buf;
}

static void judge_dates(const struct doctor_facts *f, struct doctor_report *r, const char *name,
			const struct via_validity *v)
{
	char when[32], now[32];

	show_time(f->now, now, sizeof(now));
	show_time(v->from > f->now ? v->from : v->to, when, sizeof(when));
	if (v->from > f->now)
		doctor_say(r, DOCTOR_FAULT,
			   "%s is not valid yet\nit is from %s on; this host's clock says %s\n"
			   "set the clock: timedatectl set-ntp true; if it is right, make another "
			   "with certtool",
			   name, when, now);
	else if (v->to < f->now)
		doctor_say(r, DOCTOR_FAULT,
			   "%s has expired\nit was valid until %s; this host's clock says %s\n"
			   "make another with certtool; if the clock is wrong: timedatectl set-ntp "
			   "true",
			   name, when, now);
	else if (v->to - f->now < EXPIRES_SOON_S)
		doctor_say(r, DOCTOR_WARNING,
			   "%s expires soon\non %s; this host's clock says %s\n"
			   "make another with certtool",
			   name, when, now);
	else
		doctor_say(r, DOCTOR_OK, "%s is valid until %s", name, when);
}

/* False: there is no such file. */
static bool judge_file(const struct doctor_facts *f, struct doctor_report *r, const char *name)
{
	struct via_validity dates[CERTIFICATES_MAX];
	char path[512];
	int n;

	snprintf(path, sizeof(path), "%.400s/%s", f->tls_creds, name);
	n = via_certificate_dates(path, dates, CERTIFICATES_MAX);
	if (n == -EINVAL)
		doctor_say(r, DOCTOR_FAULT,
			   "%s cannot be used\nit holds no certificate\n"
			   "make another with certtool, in PEM",
			   name);
	for (int i = 0; i < n; i++)
		judge_dates(f, r, name, &dates[i]);
	return n != -ENOENT;
}

void doctor_certificates(const struct doctor_facts *f, struct doctor_report *r)
{
	bool own;

	if (!f->tls_creds) {
		doctor_say(r, DOCTOR_SKIPPED, "no --tls-creds");
		return;
	}
	if (!judge_file(f, r, "ca-cert.pem"))
		doctor_say(r, DOCTOR_FAULT,
			   "there is no authority to trust\n%.180s/ca-cert.pem cannot be read\n"
			   "put it there, as for QEMU's tls-creds-x509",
			   f->tls_creds);
	own = judge_file(f, r, "server-cert.pem");
	own = judge_file(f, r, "client-cert.pem") || own;
	if (!own)
		doctor_say(r, DOCTOR_FAULT,
			   "this host has no certificate of its own\n"
			   "neither server-cert.pem nor client-cert.pem in %.120s can be read\n"
			   "put the one of its side there: a source is the client",
			   f->tls_creds);
}
