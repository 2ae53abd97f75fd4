/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uffd.h -- userfaultfd: opening it within what this host permits, and the uapi that
 * the headers of older distributions lack (Debian 12 has those of Linux 6.1). The
 * numbers are the kernel's ABI.
 */
#ifndef VIA_MIGRATE_UFFD_H
#define VIA_MIGRATE_UFFD_H

#include <linux/fs.h>
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

#ifndef UFFD_USER_MODE_ONLY /* Linux 5.11 */
#define UFFD_USER_MODE_ONLY 1
#endif

#ifndef USERFAULTFD_IOC_NEW /* Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM /* Linux 5.19 */
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

#ifndef UFFD_FEATURE_WP_UNPOPULATED /* Linux 6.4 */
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif

#ifndef UFFD_FEATURE_WP_ASYNC /* Linux 6.7 */
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

#ifndef PAGEMAP_SCAN /* Linux 6.7 */
#define PAGE_IS_WRITTEN       (1 << 1)
#define PM_SCAN_WP_MATCHING   (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)

struct page_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

/*
 * A userfaultfd, non-blocking and close-on-exec, into *@fd.
 * @user_only: no messages for faults that the kernel takes for a thread (in read(2), say): any
 * process may have such a one, unless seccomp forbids the system call.
 *  -EPERM       not permitted (@err: sysctl and device, with the command)
 *  -EOPNOTSUPP  a kernel without userfaultfd
 *  -ENOMEM, -EIO
 */
int uffd_open(bool user_only, int *fd, struct via_error *err);

/*
 * Switch @fd on with UFFD_FEATURE_* @features. -EOPNOTSUPP when the kernel lacks one of them: it
 * may then be tried with fewer. Leaves no text: what is lacking is the caller's to tell.
 */
int uffd_enable(int fd, uint64_t features);

/*
 * Register the memory for write protection, and take that back (which unprotects it and
 * lets every thread that waits there go on).
 *  -EOPNOTSUPP  this kernel cannot protect this kind of memory
 *  -EINVAL      another userfaultfd has it
 *  -ENOMEM, -EIO
 */
int uffd_register_wp(int fd, const char *name, void *addr, uint64_t len, struct via_error *err);
void uffd_unregister(int fd, void *addr, uint64_t len);

/*
 * Register the memory for faults on absent pages. *@zeropage: UFFDIO_ZEROPAGE works on it, which it does
 * not on huge pages. Errors as above.
 */
int uffd_register_missing(int fd, const char *name, void *addr, uint64_t len, bool *zeropage,
			  struct via_error *err);

/*
 * Install the @len bytes at @src (NULL: zeros) where nothing is at @addr, and wake who waits there.
 * Returns how many bytes from the start on were installed, which may be fewer than @len: go on behind
 * them. 0: the first page is there already. -EAGAIN: try again; else a negated code, errno holds
 * the kernel's.
 */
int64_t uffd_install(int fd, void *addr, const void *src, uint64_t len);

/* Let go who waits for a page in this range that is there. */
void uffd_wake(int fd, void *addr, uint64_t len);

/*
 * Write-protect @len bytes, or (@on false) unprotect them and wake their writers. Negated code;
 * errno holds the kernel's.
 */
int uffd_protect(int fd, void *addr, uint64_t len, bool on);

#endif
