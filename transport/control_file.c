/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_file.c -- reads the files that hold keys and certificates.
 *
 * Must never leave a copy of what it has read behind: no stdio, memory that no core dump holds. Must
 * never block: what is not a regular file is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/secret.h"
#include "transport/control_internal.h"

static int fail(const struct control_file *f, int errnum, struct via_error *err)
{
	int code = errnum == EACCES ? -EPERM : via_err_from_errno(errnum);

	return via_fail(err, code, "read the %s %s\n%s\n%s, and let this user read it", f->kind,
			f->path, strerror(errnum), f->remedy);
}

static int read_all(int fd, struct control_file *f, struct via_error *err)
{
	ssize_t n = 0;

	f->text = via_secret_alloc(f->max + 1);
	if (!f->text)
		return fail(f, ENOMEM, err);
	do {
		f->len += (size_t)n;
		n = read(fd, f->text + f->len, f->max - f->len);
	} while (n > 0 || (n < 0 && errno == EINTR && !(n = 0)));
	f->text[f->len] = '\0';
	return n < 0 ? fail(f, errno, err) : 0;
}

int control_file_read(struct control_file *f, struct via_error *err)
{
	/* Not from a pipe, which could block. */
	int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
	struct stat st;

	if (fd < 0)
		return fail(f, errno, err);
	if (fstat(fd, &st)) {
		rc = fail(f, errno, err);
	} else if (!S_ISREG(st.st_mode)) {
		rc = via_fail(err, -EINVAL, "read the %s %s\nnot a regular file\n%s", f->kind,
			      f->path, f->remedy);
	} else if ((uintmax_t)st.st_size > f->max) {
		rc = via_fail(err, -EINVAL, "read the %s %s\nmore than %zu KiB\n%s", f->kind,
			      f->path, f->max >> 10, f->remedy);
	} else {
		if (f->secret && st.st_mode & S_IROTH)
			via_log("control: the %s %s is readable by everybody: chmod 600", f->kind,
				f->path);
		rc = read_all(fd, f, err);
	}
	close(fd);
	if (rc)
		control_file_wipe(f);
	return rc;
}

void control_file_wipe(struct control_file *f)
{
	via_secret_free(f->text, f->max + 1);
	f->text = NULL;
	f->len = 0;
}
