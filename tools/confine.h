/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * confine.h -- a process that gives up what it has no use for: rights of root, other programs,
 * and most of the kernel's system calls.
 */
#ifndef VIA_TOOLS_CONFINE_H
#define VIA_TOOLS_CONFINE_H

#include "tools/options.h"

/* What a command does beyond carrying a migration. */
enum confine_needs {
	CONFINE_GUEST = 1 << 0,       /* it has a guest of its own: userfaultfd */
	CONFINE_GIVES_FILES = 1 << 1, /* it gives files to QEMU's user */
};

/*
 * Confine this process as s->sandbox says, for good and with all that its libraries will do: once
 * it listens (a low port takes a right), before it has a second thread or a fabric. What
 * the kernel or the build does not have is left out, unless the user has asked for it.
 *  -EOPNOTSUPP, -EIO  with --sandbox on: it cannot be had
 */
int confine(const struct settings *s, unsigned needs, struct via_error *err);

#endif
