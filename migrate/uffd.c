/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uffd.c -- userfaultfd: open, features, registration, write protection.
 *
 * It must never leave a caller with a descriptor that was not asked for, nor say "not
 * permitted" without the command that permits it.
 */
#include "migrate/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"

/* The value of vm.unprivileged_userfaultfd as a digit; '?' where the kernel has none. */
static char sysctl_value(void)
{
	char value = '?';
	int fd = open(SYSCTL, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return value;
	if (read(fd, &value, 1) != 1)
		value = '?';
	close(fd);
	return value;
}

/* The second way in: whoever may open the device may have any userfaultfd (Linux 6.1). */
static int open_by_device(int flags, struct via_error *err)
{
	int fd, cause;
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
		cause = errno;
		close(dev);
		if (fd >= 0)
			return fd;
	} else {
		cause = errno;
	}
	return via_fail(err, -EPERM,
			"userfaultfd (for dirty pages, for postcopy) is not permitted\n"
			"vm.unprivileged_userfaultfd is %c; /dev/userfaultfd: %s\n"
			"run with CAP_SYS_PTRACE, or give this user read and write access to "
			"/dev/userfaultfd, or: sysctl -w vm.unprivileged_userfaultfd=1",
			sysctl_value(), strerror(cause));
}

int uffd_open(bool user_only, int *fd, struct via_error *err)
{
	int flags = O_CLOEXEC | O_NONBLOCK | (user_only ? UFFD_USER_MODE_ONLY : 0);
	int got = (int)syscall(SYS_userfaultfd, flags);

	if (got < 0 && errno == EPERM)
		got = open_by_device(flags, err);
	else if (got < 0 && (errno == ENOSYS || errno == EINVAL))
		/* EINVAL: before 5.11 there was no UFFD_USER_MODE_ONLY. */
		got = via_fail(err, -EOPNOTSUPP,
			       "this kernel has no userfaultfd\n"
			       "userfaultfd: %s\n"
			       "use Linux 5.7 or later with CONFIG_USERFAULTFD",
			       strerror(errno));
	else if (got < 0)
		got = via_fail(err, via_err_from_errno(errno), "userfaultfd failed\n%s",
			       strerror(errno));
	if (got < 0)
		return got;
	*fd = got;
	return 0;
}

int uffd_enable(int fd, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	return ioctl(fd, UFFDIO_API, &api) ? -EOPNOTSUPP : 0;
}

int uffd_register_wp(int fd, const char *name, void *addr, uint64_t len, struct via_error *err)
{
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)addr, .len = len},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (!ioctl(fd, UFFDIO_REGISTER, &reg)) {
		if (reg.ioctls & UINT64_C(1) << _UFFDIO_WRITEPROTECT)
			return 0;
		uffd_unregister(fd, addr, len);
		errno = EINVAL;
	}
	if (errno == EBUSY)
		return via_fail(err, -EINVAL,
				"region %s cannot be write-protected\n"
				"another userfaultfd has its memory already\n"
				"end the other use of it (postcopy, a second dirty tracker) first",
				name);
	if (errno == EINVAL)
		return via_fail(err, -EOPNOTSUPP,
				"region %s cannot be write-protected\n"
				"this kernel does not protect its kind of memory\n"
				"use anonymous private memory, or Linux 5.19 or later for memfd, "
				"shared memory and huge pages, 6.7 for files on disk",
				name);
	return via_fail(err, via_err_from_errno(errno),
			"region %s cannot be write-protected\nUFFDIO_REGISTER: %s", name,
			strerror(errno));
}

void uffd_unregister(int fd, void *addr, uint64_t len)
{
	struct uffdio_range range = {.start = (uintptr_t)addr, .len = len};

	/* Fails only when the memory is gone, and its protection with it. */
	(void)ioctl(fd, UFFDIO_UNREGISTER, &range);
}

int uffd_register_missing(int fd, const char *name, void *addr, uint64_t len, bool *zeropage,
			  struct via_error *err)
{
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)addr, .len = len},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(fd, UFFDIO_REGISTER, &reg)) {
		if (errno == EBUSY)
			return via_fail(err, -EINVAL,
					"region %s cannot be watched for missing pages\n"
					"another userfaultfd has its memory already\n"
					"end the other use of it (a dirty tracker, say) first",
					name);
		return via_fail(err, errno == EINVAL ? -EOPNOTSUPP : via_err_from_errno(errno),
				"region %s cannot be watched for missing pages\n"
				"UFFDIO_REGISTER: %s\n"
				"use anonymous, shared (memfd) or hugetlbfs memory; or do without "
				"postcopy",
				name, strerror(errno));
	}
	*zeropage = reg.ioctls & UINT64_C(1) << _UFFDIO_ZEROPAGE;
	return 0;
}

int64_t uffd_install(int fd, void *addr, const void *src, uint64_t len)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)addr, .src = (uintptr_t)src, .len = len, .mode = 0};
	struct uffdio_zeropage zero = {.range = {.start = (uintptr_t)addr, .len = len}};
	int64_t done;
	int rc;

	rc = src ? ioctl(fd, UFFDIO_COPY, &copy) : ioctl(fd, UFFDIO_ZEROPAGE, &zero);
	if (!rc)
		return (int64_t)len;
	done = src ? copy.copy : zero.zeropage;
	if (done > 0)
		return done;
	if (errno == EEXIST)
		return 0;
	return errno == EAGAIN ? -EAGAIN : via_err_from_errno(errno);
}

void uffd_wake(int fd, void *addr, uint64_t len)
{
	struct uffdio_range range = {.start = (uintptr_t)addr, .len = len};

	(void)ioctl(fd, UFFDIO_WAKE, &range);
}

int uffd_protect(int fd, void *addr, uint64_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = (uintptr_t)addr, .len = len},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &wp) ? via_err_from_errno(errno) : 0;
}
