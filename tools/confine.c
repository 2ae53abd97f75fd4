/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * confine.c -- least privilege: capabilities, no_new_privs, and an allow-list of system calls.
 *
 * It must never end or break a migration: a process that carries a guest is worth more than a
 * strict filter. So a call that is not in the list is not answered with a signal. It fails with
 * ENOSYS, as on a kernel that does not have it, which libraries know how to do without (they take
 * EPERM for an answer about the thing asked for); and the kernel's log names it, as "type=1326".
 *
 * Invariant: whatever is refused here is refused to every thread, also of later sessions.
 */
#include "tools/confine.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/log.h"

/* -- capabilities ---------------------------------------------------------------- */

static uint64_t kept_capabilities(unsigned needs)
{
	/* Sockets of QEMU and key files belong to others; memory is pinned; urgent.h. */
	uint64_t kept = UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_IPC_LOCK |
			UINT64_C(1) << CAP_SYS_NICE;

	if (needs & CONFINE_GUEST) /* a userfaultfd that takes the kernel's faults as well */
		kept |= UINT64_C(1) << CAP_SYS_PTRACE;
	if (needs & CONFINE_GIVES_FILES)
		kept |= UINT64_C(1) << CAP_CHOWN | UINT64_C(1) << CAP_FOWNER;
	return kept;
}

/* All but @kept are gone from this thread, and so from those that it makes. */
static int drop_capabilities(uint64_t kept)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	bool any = false;

	if (syscall(SYS_capget, &header, data))
		return -errno;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		uint32_t mask = (uint32_t)(kept >> 32 * i);

		any = any || (data[i].permitted & ~mask);
		data[i].effective &= mask;
		data[i].permitted &= mask;
		data[i].inheritable = 0;
	}
	/* Not asked for where nothing changes: a service manager may refuse the call. */
	return any && syscall(SYS_capset, &header, data) ? -errno : 0;
}

/* -- system calls ---------------------------------------------------------------- */

#ifdef VIA_SECCOMP
#include <seccomp.h>

/*
 * What this program, libfabric, UCX, libibverbs with its drivers, GnuTLS and the C library use or
 * may come to use, by name: those that this architecture lacks are passed over. Generous with what
 * acts on the process itself. Not in it, above all: other programs (execve), namespaces, the
 * memory and descriptors of other processes but what shared-memory fabrics copy (ptrace,
 * pidfd_getfd), mounts, keys, modules, BPF, io_uring, clocks, users, and this filter.
 */
/* clang-format off */
static const char *const allowed[] = {
	/* memory */
	"brk", "get_mempolicy", "madvise", "mbind", "membarrier", "memfd_create", "mincore",
	"mlock", "mlock2", "mlockall", "mmap", "move_pages", "mprotect", "mremap", "msync",
	"munlock", "munlockall", "munmap", "set_mempolicy", "set_mempolicy_home_node",
	"userfaultfd",
	/* memory that is shared between processes */
	"process_vm_readv", "process_vm_writev", "shmat", "shmctl", "shmdt", "shmget",
	/* files and devices */
	"access", "chmod", "chown", "close", "close_range", "dup", "dup2", "dup3", "faccessat",
	"faccessat2", "fadvise64", "fallocate", "fchmod", "fchmodat", "fchmodat2", "fchown",
	"fchownat", "fcntl", "fdatasync", "flock", "fstat", "fstatfs", "fsync", "ftruncate",
	"getcwd", "getdents", "getdents64", "inotify_add_watch", "inotify_init",
	"inotify_init1", "inotify_rm_watch", "ioctl", "lseek", "lstat", "mkdir", "mkdirat",
	"newfstatat", "open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv",
	"preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readlink", "readlinkat", "readv",
	"rename", "renameat", "renameat2", "rmdir", "sendfile", "stat", "statfs", "statx",
	"umask", "unlink", "unlinkat", "write", "writev",
	/* the network; socket() is below */
	"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt",
	"listen", "recv", "recvfrom", "recvmmsg", "recvmsg", "send", "sendmmsg", "sendmsg",
	"sendto", "setsockopt", "shutdown", "socketpair",
	/* waiting, and time */
	"clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create", "epoll_create1",
	"epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
	"getitimer", "gettimeofday", "nanosleep", "pause", "poll", "ppoll", "pselect6",
	"select", "setitimer", "signalfd", "signalfd4", "time", "timer_create", "timer_delete",
	"timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create",
	"timerfd_gettime", "timerfd_settime", "times",
	/* threads; clone() is below */
	"arch_prctl", "clone3", "exit", "exit_group", "futex", "futex_waitv", "get_robust_list",
	"getcpu", "getpriority", "gettid", "map_shadow_stack", "prctl", "restart_syscall",
	"riscv_flush_icache", "riscv_hwprobe", "rseq", "sched_get_priority_max",
	"sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
	"sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr",
	"sched_setparam", "sched_setscheduler", "sched_yield", "set_robust_list",
	"set_tid_address", "setpriority",
	/* the process, its signals, and the second process of a demo */
	"alarm", "capget", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp",
	"getpid", "getppid", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage",
	"getsid", "getuid", "kill", "pidfd_open", "pidfd_send_signal", "prlimit64",
	"rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
	"rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "setrlimit", "sigaltstack",
	"sysinfo", "tgkill", "uname", "wait4", "waitid",
};
/* clang-format on */

/* Netlink lists the network's and RDMA's devices. */
static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

#ifdef __s390x__
#define CLONE_FLAGS_ARG 1
#else
#define CLONE_FLAGS_ARG 0
#endif

/* In one of its own a process has all rights, over parts of the kernel that nobody else lets it at. */
#define NAMESPACES                                                                                 \
	(CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID |              \
	 CLONE_NEWUSER | CLONE_NEWUTS)

static int allow_by_name(scmp_filter_ctx filter)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(allowed) / sizeof(allowed[0]); i++) {
		int number = seccomp_syscall_resolve_name(allowed[i]);

		if (number != __NR_SCMP_ERROR)
			rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
	}
	return rc;
}

static int allow_by_argument(scmp_filter_ctx filter)
{
	int rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				  SCMP_CMP(CLONE_FLAGS_ARG, SCMP_CMP_MASKED_EQ, NAMESPACES, 0));

	for (size_t i = 0; !rc && i < sizeof(families) / sizeof(families[0]); i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				      SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]));
	return rc;
}

static int load(scmp_filter_ctx filter)
{
	int rc = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

	/* What is left out is slower on kernels before 5.11; nothing is lost. */
	(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	return rc ? rc : seccomp_load(filter);
}

/*
 * clone3() keeps its flags where a filter cannot see them: the C library has clone() for that case.
 * It tries for each thread, which need not be in the log: so a filter of its own.
 */
static int refuse_clone3(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int rc = filter ? seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0)
			: -ENOMEM;

	if (!rc)
		rc = load(filter);
	seccomp_release(filter);
	return rc;
}

static int filter_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	int rc = filter ? allow_by_name(filter) : -ENOMEM;

	if (!rc)
		rc = allow_by_argument(filter);
	if (!rc)
		rc = refuse_clone3();
	if (!rc) {
		/* Kernels before 4.14 do not say what they refuse. */
		(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
		rc = load(filter);
	}
	seccomp_release(filter);
	return rc;
}
#else
static int filter_calls(void)
{
	return -EOPNOTSUPP; /* built without libseccomp, or with a sanitizer */
}
#endif

/* -- both ------------------------------------------------------------------------- */

int confine(const struct settings *s, unsigned needs, struct via_error *err)
{
	const char *what = "drop capabilities";
	int rc;

	if (s->sandbox == SANDBOX_OFF)
		return 0;
	rc = drop_capabilities(kept_capabilities(needs));
	if (!rc) {
		what = "refuse new rights";
		rc = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
	}
	if (!rc) {
		what = "filter system calls";
		rc = filter_calls();
	}
	if (!rc)
		return 0;
	via_log("sandbox: %s: %s", what, strerror(-rc));
	if (s->sandbox != SANDBOX_ON)
		return 0;
	return via_fail(err, rc == -EOPNOTSUPP ? rc : -EIO,
			"confine this process\n%s: %s\n"
			"use a build and a kernel with seccomp filters, or --sandbox off",
			what, strerror(-rc));
}
