/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * error.h -- the closed list of error codes, and the first cause in words.
 *
 * Every function of the project returns 0 or a count on success and a negated
 * code of VIA_ERROR_LIST on failure. Set-up functions also take a
 * struct via_error and leave the first cause there, in three parts: what
 * failed, the value seen, what to do about it. The data path returns the
 * number alone. Codes from providers that are not in the list become -EIO.
 *
 * Threads: any. Nothing here blocks or changes errno. A struct via_error is one thread's at a time.
 */
#ifndef VIA_CORE_ERROR_H
#define VIA_CORE_ERROR_H

#include <errno.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is lost when the code is seen. Callers branch on this, not on codes. */
enum via_scope {
	VIA_SCOPE_NONE = 0, /* 0 and counts: nothing is lost */
	VIA_SCOPE_RETRY,    /* nothing: do the named thing and call again */
	VIA_SCOPE_CALL,     /* this call: its arguments or a resource were wrong */
	VIA_SCOPE_CHANNEL,  /* the channel (endpoint) it came from */
	VIA_SCOPE_SESSION,  /* the session with this peer */
};

/* X(code, scope, text). docs/errors.md is generated from it; a test compares. */
#define VIA_ERROR_LIST(X)                                                                          \
	X(EAGAIN, RETRY, "queue full or nothing there yet")                                        \
	X(EINTR, RETRY, "interrupted")                                                             \
	X(EINVAL, CALL, "invalid argument")                                                        \
	X(ERANGE, CALL, "outside the region or the allowed range")                                 \
	X(EMSGSIZE, CALL, "larger than the limit")                                                 \
	X(ENOMEM, CALL, "out of memory")                                                           \
	X(EPERM, CALL, "not permitted by this host")                                               \
	X(ENODEV, CALL, "no such device, provider or fabric")                                      \
	X(ENOENT, CALL, "no such file")                                                            \
	X(EADDRINUSE, CALL, "address already in use")                                              \
	X(EADDRNOTAVAIL, CALL, "address is not of this host")                                      \
	X(EFAULT, CALL, "memory cannot be used")                                                   \
	X(EOPNOTSUPP, CALL, "not supported here")                                                  \
	X(ENOBUFS, CALL, "buffer too small")                                                       \
	X(EEXIST, CALL, "exists already")                                                          \
	X(ESTALE, CALL, "of an old epoch")                                                         \
	X(ECONNRESET, CHANNEL, "connection lost")                                                  \
	X(ECONNREFUSED, CHANNEL, "connection refused")                                             \
	X(EHOSTUNREACH, CHANNEL, "no route to the peer")                                           \
	X(EIO, CHANNEL, "input/output error")                                                      \
	X(EREMOTEIO, CHANNEL, "refused by the peer's memory protection")                           \
	X(EACCES, SESSION, "authentication failed")                                                \
	X(ETIMEDOUT, SESSION, "deadline passed")                                                   \
	X(ECANCELED, SESSION, "aborted")                                                           \
	X(EPROTO, SESSION, "protocol violation")                                                   \
	X(EPROTONOSUPPORT, SESSION, "no common protocol version")                                  \
	X(EBADMSG, SESSION, "the two sides disagree about what was transferred")

/*
 * The first cause of a failure. The caller's memory; zero it before use
 * (struct via_error err = {0}). Nothing here is allocated.
 */
struct via_error {
	int code;         /* negated code of the list; 0 while nothing has failed */
	char what[160];   /* what failed, with the name of the thing */
	char seen[224];   /* the value seen */
	char remedy[224]; /* what to do about it */
};

/*
 * Record a failure, unless one is recorded already: the first cause wins.
 *
 * @err may be NULL: then nothing is recorded. @code is a negated code of VIA_ERROR_LIST; any other
 * number is recorded as -EIO. @fmt is a printf format of the three parts, divided by two newlines:
 * "what failed\nthe value seen\nwhat to do". A missing part is empty; too long a part is cut.
 *
 * Returns the code as it stands in the list (the given one or -EIO), so that callers can write
 * `return via_fail(err, -EINVAL, ...)`.
 */
int via_fail(struct via_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), cold));

/*
 * Hand a first cause on to another error, unless that holds one already.
 *
 * The code of @from is not 0. @err may be NULL.
 *
 * Returns the code of @from.
 */
int via_error_pass(struct via_error *err, const struct via_error *from);

/*
 * What is lost with a code.
 *
 * @code is negated, 0 or a count.
 *
 * Returns VIA_SCOPE_NONE for 0 and counts, and VIA_SCOPE_CHANNEL for codes that are not in the
 * list.
 */
enum via_scope via_err_scope(int code);

/*
 * The name of a code.
 *
 * Returns "ETIMEDOUT" for -ETIMEDOUT, "OK" for 0 and counts, "EIO" for codes that are not in the
 * list. Static.
 */
const char *via_err_name(int code);

/*
 * What a code means, in a few words.
 *
 * Returns "deadline passed" for -ETIMEDOUT, "success" for 0 and counts, and the text of EIO for
 * codes that are not in the list. Static.
 */
const char *via_err_text(int code);

/*
 * An errno of the system as a code of the list.
 *
 * @errnum is positive, as errno is.
 *
 * Returns the negated code; -EIO when the list does not have it.
 */
int via_err_from_errno(int errnum);

/*
 * The whole error on one line: "what: seen (remedy)".
 *
 * Where nothing was seen the code's text stands. Writes at most @cap bytes, with the final NUL.
 *
 * Returns @buf.
 */
const char *via_error_format(const struct via_error *err, char *buf, size_t cap);

#ifdef __cplusplus
}
#endif

#endif
