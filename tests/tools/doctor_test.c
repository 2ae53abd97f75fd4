/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each check of viaduct doctor against a host that is made up: a tree of files below a folder, and
 * facts as probes would have found them. What can be provoked on a real host is in doctor.py.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/doctor_check.h"

#define GIB  (UINT64_C(1) << 30)
#define PORT "/sys/class/infiniband/mlx5_0/ports/1"

static char root[64];
static struct doctor_report report;
static struct via_inquiry inquiry;
static struct doctor_facts facts;

/* -- the host --------------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3))) put(const char *path, const char *fmt, ...)
{
	char full[512];
	va_list ap;
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		mkdir(full, 0755);
		*at = '/';
	}
	f = fopen(full, "w");
	cr_assert(f, "%s", full);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fclose(f);
}

/* A host on which nothing is wrong, with an RDMA device. */
static void make_host(void)
{
	snprintf(root, sizeof(root), "/tmp/doctor_test.XXXXXX");
	cr_assert(mkdtemp(root));
	put("/proc/meminfo", "MemTotal:       8388608 kB\nMemAvailable:   4194304 kB\n"
			     "HugePages_Total:       0\nHugePages_Free:        0\n"
			     "Hugepagesize:       2048 kB\n");
	put("/proc/self/limits", "Max open files            20000      20000     files\n"
				 "Max locked memory         unlimited  unlimited bytes\n");
	put("/proc/self/status", "CapEff:\t0000000000000000\nCpus_allowed_list:\t0-3\n");
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/proc/sys/kernel/osrelease", "6.12.1-test\n");
	put("/dev/infiniband/uverbs0", "%s", "");
	put("/dev/infiniband/rdma_cm", "%s", "");
	put(PORT "/state", "4: ACTIVE\n");
	put(PORT "/phys_state", "5: LinkUp\n");
	put(PORT "/link_layer", "Ethernet\n");
	put(PORT "/gids/0", "fe80:0000:0000:0000:0000:00ff:fe00:0001\n");
	put(PORT "/gids/1", "0000:0000:0000:0000:0000:ffff:0a00:0001\n");
	put(PORT "/gid_attrs/types/0", "RoCE v2\n");
	put(PORT "/gid_attrs/types/1", "RoCE v2\n");
	put(PORT "/gid_attrs/ndevs/0", "eth0\n");
	put(PORT "/pkeys/0", "0xffff\n");
	put("/sys/class/net/eth0/mtu", "9000\n");
	put("/sys/class/infiniband/mlx5_0/device/numa_node", "0\n");
	put("/sys/devices/system/node/node0/cpulist", "0-3\n");
	put("/sys/devices/system/node/node1/cpulist", "4-7\n");
	put("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "performance\n");
}

static struct via_fabric_info info[2];

static void set_up(void)
{
	make_host();
	info[0] = (struct via_fabric_info){
		.spec = "ofi:tcp", .library = "libfabric 1.17", .usable = true, .rank = 90};
	info[1] = (struct via_fabric_info){.spec = "verbs:mlx5_0",
					   .device = "mlx5_0/1",
					   .library = "rdma-core",
					   .usable = true,
					   .facts = "port: active\non-demand paging: yes\n"};
	inquiry = (struct via_inquiry){
		.connected = true,
		.security = "plain text",
		.mtu_here = 9000,
		.mtu_there = 9000,
		.ours = {.program = "viaduct 0.1.0", .noffers = 1, .offer = {{.kind = "ofi:tcp"}}},
		.theirs = {.program = "viaduct 0.1.0"}};
	facts = (struct doctor_facts){.root = root,
				      .memory = GIB,
				      .channels = 5,
				      .now = 1790000000,
				      .peer = "10.0.0.7:4444",
				      .info = info,
				      .ninfos = 2,
				      .shm_free = GIB,
				      .inquiry = &inquiry};
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void tear_down(void)
{
	nftw(root, unlink_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(doctor, .init = set_up, .fini = tear_down, .timeout = 30);

/* -- what is said of it ------------------------------------------------------------------- */

/* The first finding of check @name. */
static const struct doctor_finding *run(const char *name)
{
	doctor_run(&facts, &report);
	for (unsigned i = 0; i < report.n; i++)
		if (!strcmp(report.finding[i].check->name, name))
			return &report.finding[i];
	cr_assert_fail("check %s says nothing", name);
	return NULL;
}

/* It finds @seen, and has all three parts. */
static void expect(const char *name, enum doctor_verdict verdict, const char *seen,
		   const char *remedy)
{
	const struct doctor_finding *f = run(name);

	cr_assert_eq(f->verdict, verdict, "%s: %s: %s: %s", name, doctor_verdict_name(f->verdict),
		     f->text.what, f->text.seen);
	cr_assert(strstr(f->text.seen, seen), "%s: seen: %s", name, f->text.seen);
	if (verdict < DOCTOR_WARNING)
		return;
	cr_assert(f->text.what[0], "%s says not what", name);
	cr_assert(strstr(f->text.remedy, remedy), "%s: remedy: %s", name, f->text.remedy);
	/* None of them is cut. */
	cr_assert_lt(strlen(f->text.what), sizeof(f->text.what) - 1);
	cr_assert_lt(strlen(f->text.remedy), sizeof(f->text.remedy) - 1, "%s", f->text.remedy);
}

Test(doctor, a_host_without_faults)
{
	doctor_run(&facts, &report);
	for (unsigned i = 0; i < report.n; i++)
		cr_expect_lt(report.finding[i].verdict, DOCTOR_WARNING, "%s: %s: %s",
			     report.finding[i].check->name, report.finding[i].text.what,
			     report.finding[i].text.seen);
}

Test(doctor, every_check_says_something)
{
	unsigned n = 0;

	for (const struct doctor_check *c = doctor_checks; c->name; c++, n++)
		(void)run(c->name);
	cr_assert_gt(n, 20);
	facts.root = "/nonexistent";
	for (const struct doctor_check *c = doctor_checks; c->name; c++)
		(void)run(c->name);
}

Test(doctor, without_a_peer_nothing_is_said_of_it)
{
	facts.peer = NULL;
	facts.inquiry = NULL;
	doctor_run(&facts, &report);
	for (unsigned i = 0; i < report.n; i++)
		cr_expect_not(report.finding[i].check->of_peer, "%s",
			      report.finding[i].check->name);
}

Test(doctor, a_report_that_is_full_keeps_its_faults)
{
	report.n = 0;
	report.check = doctor_checks;
	for (unsigned i = 0; i < DOCTOR_FINDINGS_MAX; i++)
		doctor_say(&report, DOCTOR_OK, "well");
	doctor_say(&report, DOCTOR_FAULT, "what\nseen\nremedy");
	cr_assert_eq(report.n, DOCTOR_FINDINGS_MAX);
	cr_assert_eq(doctor_count(&report, DOCTOR_FAULT), 1);
	doctor_say(&report, DOCTOR_OK, "well");
	cr_assert_eq(doctor_count(&report, DOCTOR_FAULT), 1);
}

/* -- the host's memory, limits and kernel ------------------------------------------------------ */

Test(doctor, memory)
{
	facts.memory = 5 * GIB;
	expect("memory", DOCTOR_WARNING, "4.0 GiB", "free memory");
	facts.memory = 9 * GIB;
	expect("memory", DOCTOR_FAULT, "8.0 GiB", "--memory");
}

Test(doctor, control_group)
{
	put("/sys/fs/cgroup/a/b/memory.max", "max\n");
	put("/sys/fs/cgroup/a/memory.max", "2147483648\n");
	put("/sys/fs/cgroup/a/memory.current", "1610612736\n");
	expect("cgroup-memory", DOCTOR_WARNING, "1.5 GiB are in use", "MemoryMax");
	put("/sys/fs/cgroup/a/memory.current", "0\n");
	expect("cgroup-memory", DOCTOR_OK, "2.0 GiB", "");
	put("/sys/fs/cgroup/a/b/memory.max", "536870912\n");
	expect("cgroup-memory", DOCTOR_FAULT, "/sys/fs/cgroup/a/b is limited to 512.0 MiB",
	       "MemoryMax");
}

Test(doctor, control_group_of_version_1)
{
	put("/proc/self/cgroup", "11:pids:/\n4:memory:/x\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1048576\n");
	expect("cgroup-memory", DOCTOR_FAULT, "/memory/x is limited to 1.0 MiB", "MemoryMax");
}

Test(doctor, locked_memory)
{
	static const char limits[] = "Max locked memory         65536      65536     bytes\n";

	put("/proc/self/limits", "%s", limits);
	expect("memlock", DOCTOR_FAULT, "64 KiB", "ulimit -l");
	facts.memory = 65536;
	expect("memlock", DOCTOR_OK, "64 KiB", "");
	facts.memory = GIB;
	put("/proc/self/status", "CapEff:\t0000000000004000\n");
	expect("memlock", DOCTOR_OK, "CAP_IPC_LOCK", "");
}

Test(doctor, open_files)
{
	put("/proc/self/limits", "Max open files            100        20000     files\n");
	expect("open-files", DOCTOR_FAULT, "the limit is 100", "ulimit -n");
}

Test(doctor, userfaultfd)
{
	via_fail(&facts.uffd, -EPERM, "userfaultfd is not permitted\nit is 0\nsysctl -w ...=1");
	expect("userfaultfd", DOCTOR_FAULT, "it is 0", "sysctl -w");
}

Test(doctor, kernel_without_pagemap_scan)
{
	put("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n");
	via_fail(&facts.dirty_log, -EOPNOTSUPP, "this kernel\nlacks it\nuse another");
	expect("dirty-log", DOCTOR_WARNING, "6.1.0-18-amd64 has no PAGEMAP_SCAN", "6.7");
}

Test(doctor, huge_pages)
{
	put("/proc/meminfo", "HugePages_Total:     128\nHugePages_Free:      100\n"
			     "Hugepagesize:       2048 kB\n");
	expect("huge-pages", DOCTOR_WARNING, "100 of 128", "vm.nr_hugepages=540");
	facts.memory = 200 << 20;
	expect("huge-pages", DOCTOR_OK, "100 of 128", "");
}

Test(doctor, fork_with_pinned_memory)
{
	put("/proc/sys/kernel/osrelease", "5.11.22\n");
	expect("fork", DOCTOR_FAULT, "5.11.22", "RDMAV_FORK_SAFE=1");
	facts.fork_safe = true;
	expect("fork", DOCTOR_OK, "RDMAV_FORK_SAFE", "");
	facts.fork_safe = false;
	put("/proc/sys/kernel/osrelease", "5.12.0\n");
	expect("fork", DOCTOR_OK, "5.12.0", "");
}

Test(doctor, kernel_releases)
{
	cr_assert(doctor_kernel_at_least("6.7.0", 6, 7));
	cr_assert(doctor_kernel_at_least("6.18", 6, 7));
	cr_assert(doctor_kernel_at_least("10.0", 6, 7));
	cr_assert_not(doctor_kernel_at_least("6.6.99", 6, 7));
	cr_assert_not(doctor_kernel_at_least("5.19", 6, 7));
	cr_assert_not(doctor_kernel_at_least("", 6, 7));
}

Test(doctor, little_shared_memory)
{
	facts.shm_free = 64 << 20;
	expect("shm", DOCTOR_WARNING, "64.0 MiB", "/dev/shm");
	facts.shm_free = UINT64_MAX;
	expect("shm", DOCTOR_WARNING, "no /dev/shm", "mount");
}

Test(doctor, slow_governor)
{
	put("/sys/devices/system/cpu/cpufreq/policy1/scaling_governor", "powersave\n");
	expect("governor", DOCTOR_WARNING, "1 of 2", "performance");
	put("/sys/devices/system/cpu/cpufreq/policy1/scaling_driver", "intel_pstate\n");
	expect("governor", DOCTOR_OK, "", "");
}

/* -- RDMA devices ----------------------------------------------------------------------------- */

Test(doctor, port_down)
{
	put(PORT "/state", "1: DOWN\n");
	put(PORT "/phys_state", "3: Disabled\n");
	expect("port", DOCTOR_FAULT, "3: Disabled", "ip link set dev eth0 up");
	/* The second port of a device is often not in use. */
	put("/sys/class/infiniband/mlx5_1/ports/1/state", "4: ACTIVE\n");
	expect("port", DOCTOR_WARNING, "1: DOWN", "eth0");
}

Test(doctor, no_subnet_manager)
{
	put(PORT "/state", "2: INIT\n");
	put(PORT "/link_layer", "InfiniBand\n");
	expect("port", DOCTOR_FAULT, "2: INIT", "opensm");
}

Test(doctor, link_local_gid)
{
	put(PORT "/gids/1", "0000:0000:0000:0000:0000:0000:0000:0000\n");
	expect("gid", DOCTOR_FAULT, "fe80:", "ip addr add ADDRESS/LEN dev eth0");
	put(PORT "/gids/0", "0000:0000:0000:0000:0000:ffff:a9fe:0001\n");
	expect("gid", DOCTOR_FAULT, "a9fe", "ip addr add");
	put(PORT "/gids/0", "0000:0000:0000:0000:0000:0000:0000:0000\n");
	expect("gid", DOCTOR_FAULT, "empty", "ip link set dev eth0 up");
}

Test(doctor, gid_of_the_wrong_version)
{
	static const char mode[] = "/sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_mode";

	put(PORT "/gid_attrs/types/0", "IB/RoCE v1\n");
	put(PORT "/gid_attrs/types/1", "IB/RoCE v1\n");
	expect("roce-version", DOCTOR_WARNING, "it has no other", "cma_roce_mode");
	put(mode, "RoCE v2\n");
	expect("roce-version", DOCTOR_FAULT, "2 of v1, 0 of v2", "-d mlx5_0 -p 1 -m 1");
	put(PORT "/gid_attrs/types/1", "RoCE v2\n");
	put(mode, "IB/RoCE v1\n");
	expect("roce-version", DOCTOR_WARNING, "default_roce_mode", "-m 2");
	/* The one that can be routed is not of the version in use. */
	expect("gid", DOCTOR_FAULT, "fe80:", "ip addr add");
}

Test(doctor, small_packets)
{
	put("/sys/class/net/eth0/mtu", "1500\n");
	expect("mtu", DOCTOR_WARNING, "1024 bytes of 4096", "ip link set dev eth0 mtu");
	put("/sys/class/net/eth0/mtu", "4191\n");
	expect("mtu", DOCTOR_WARNING, "2048 bytes", "mtu");
	put("/sys/class/net/eth0/mtu", "4192\n");
	expect("mtu", DOCTOR_OK, "4096", "");
}

Test(doctor, partition_keys)
{
	put(PORT "/pkeys/0", "0x7fff\n");
	expect("pkey", DOCTOR_WARNING, "0x7fff", "partitions.conf");
	put(PORT "/pkeys/0", "0x0000\n");
	expect("pkey", DOCTOR_FAULT, "empty", "partitions.conf");
	put(PORT "/pkeys/1", "0x8001\n");
	expect("pkey", DOCTOR_FAULT, "1 keys stand behind", "pkey-index");
}

Test(doctor, device_of_a_far_node)
{
	put("/sys/class/infiniband/mlx5_0/device/numa_node", "1\n");
	expect("numa", DOCTOR_WARNING, "node 1 (CPUs 4-7)", "--cpunodebind=1");
	put("/proc/self/status", "Cpus_allowed_list:\t0-1,7\n");
	expect("numa", DOCTOR_OK, "1 of the 3 CPUs", "");
}

Test(doctor, lists_of_cpus)
{
	cr_assert(doctor_cpu_is_in(0, "0"));
	cr_assert(doctor_cpu_is_in(3, "0-3,8"));
	cr_assert_not(doctor_cpu_is_in(4, "0-3,8"));
	cr_assert(doctor_cpu_is_in(8, "0-3,8"));
	cr_assert_not(doctor_cpu_is_in(9, "0-3,8"));
	cr_assert_not(doctor_cpu_is_in(0, ""));
	cr_assert_not(doctor_cpu_is_in(1, "x,1"));
}

Test(doctor, no_device_files)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/dev/infiniband/rdma_cm", root);
	unlink(path);
	expect("rdma-driver", DOCTOR_FAULT, "/dev/infiniband/rdma_cm", "modprobe rdma_ucm");
	snprintf(path, sizeof(path), "%s/dev/infiniband/uverbs0", root);
	unlink(path);
	expect("rdma-driver", DOCTOR_FAULT, "/dev/infiniband/uverbs0", "modprobe ib_uverbs");
	facts.root = "/nonexistent";
	expect("rdma-driver", DOCTOR_WARNING, "/sys/class/infiniband", "rdma_rxe");
}

Test(doctor, no_on_demand_paging)
{
	facts.fabric = "verbs:mlx5_0,pin=no";
	expect("odp", DOCTOR_OK, "mlx5_0/1", "");
	snprintf(info[1].facts, sizeof(info[1].facts), "port: active\non-demand paging: no\n");
	expect("odp", DOCTOR_FAULT, "mlx5_0/1", "pin=no");
	facts.fabric = "verbs:mlx5_0";
	expect("odp", DOCTOR_SKIPPED, "", "");
}

Test(doctor, no_provider)
{
	info[0].usable = false;
	snprintf(info[0].reason, sizeof(info[0].reason), "libfabric shows no such provider");
	facts.fabric = "ofi:tcp";
	expect("fabrics", DOCTOR_FAULT, "no such provider", "libfabric1");
	info[1].usable = false;
	expect("fabrics", DOCTOR_FAULT, "none of 2", "apt-get install");
}

Test(doctor, back_end_that_is_not_built_in)
{
	info[1] = (struct via_fabric_info){.spec = "ucx", .reason = "this build has no UCX"};
	expect("fabrics", DOCTOR_WARNING, "no UCX", "build");
}

/* -- the peer ----------------------------------------------------------------------------------- */

static void fail_to_connect(int code)
{
	inquiry = (struct via_inquiry){.chosen = -1};
	via_fail(&facts.peer_error, code, "connect to 10.0.0.7:4444\nso it was\ndo something");
}

Test(doctor, refused_and_unanswered_are_not_the_same)
{
	fail_to_connect(-ECONNREFUSED);
	expect("peer-port", DOCTOR_FAULT, "nobody listens at port 4444", "viaduct receive");
	facts.peer_error.code = -ETIMEDOUT;
	expect("peer-port", DOCTOR_FAULT, "so it was", "tcp dport 4444 accept");
	facts.peer_error.code = -EHOSTUNREACH;
	expect("peer-port", DOCTOR_FAULT, "so it was", "ip route get 10.0.0.7");
	expect("peer-handshake", DOCTOR_SKIPPED, "", "");
	expect("peer-version", DOCTOR_SKIPPED, "", "");
	expect("peer-fabric", DOCTOR_SKIPPED, "", "");
	facts.peer_error.code = -ENODEV;
	expect("peer-handshake", DOCTOR_SKIPPED, "not connected", "");
}

Test(doctor, address_without_a_scope)
{
	facts.peer = "[fe80::1]:4444";
	expect("peer-address", DOCTOR_FAULT, "without its interface", "[fe80::1%INTERFACE]:PORT");
	facts.peer = "[FEBF::1]:4444";
	expect("peer-address", DOCTOR_FAULT, "FEBF::1", "%INTERFACE");
	facts.peer = "[fe80::1%eth0]:4444";
	expect("peer-address", DOCTOR_OK, "eth0", "");
	facts.peer = "[fec0::1]:4444";
	expect("peer-address", DOCTOR_OK, "", "");
	facts.peer = "fe80.example:4444";
	expect("peer-address", DOCTOR_OK, "", "");
}

Test(doctor, keys_that_do_not_fit)
{
	inquiry.theirs.program[0] = '\0';
	via_fail(&facts.peer_error, -EACCES, "TLS handshake\nwrong key\ngive both the same");
	expect("peer-handshake", DOCTOR_FAULT, "wrong key", "give both the same");
}

Test(doctor, other_versions)
{
	snprintf(inquiry.theirs.program, sizeof(inquiry.theirs.program), "viaduct 0.2.0");
	expect("peer-version", DOCTOR_WARNING, "there viaduct 0.2.0", "install the same");
	via_fail(&facts.peer_error, -EPROTONOSUPPORT, "agree\nthe peer speaks 7 to 8\ninstall it");
	expect("peer-version", DOCTOR_FAULT, "7 to 8", "install");
	expect("peer-handshake", DOCTOR_OK, "plain text", "");
}

Test(doctor, nothing_in_common)
{
	inquiry.chosen = -1;
	via_fail(&facts.peer_error, -ENODEV, "agree on a fabric\nhere a; the peer offers b\n-");
	expect("peer-fabric", DOCTOR_FAULT, "the peer offers b", "--fabric");
}

Test(doctor, other_mtu)
{
	inquiry.mtu_there = 1500;
	expect("peer-mtu", DOCTOR_FAULT, "9000 bytes leave here, the way there takes 1500", "mtu");
	facts.root = "/nonexistent"; /* no RDMA: TCP helps itself */
	expect("peer-mtu", DOCTOR_WARNING, "1500", "mtu");
}
