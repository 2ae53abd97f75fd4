/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * error.c -- codes, scopes and the first cause in words.
 *
 * Must never replace a cause that is recorded, never allocate, and never let a
 * code out that is not in VIA_ERROR_LIST.
 *
 * Invariant: the three parts are NUL-terminated, hold no control character
 * and are not cut inside a UTF-8 sequence: they can go to a terminal and into JSON.
 */
#include "core/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Room for the three parts before each is cut to its own size. */
#define TEXT_MAX 2048

/* True, and all three outputs set, when @code (negated) is in the list. */
static bool lookup(int code, enum via_scope *scope, const char **name, const char **text)
{
	switch (code) {
#define X(e, s, t)                                                                                 \
	case -(e):                                                                                 \
		*scope = VIA_SCOPE_##s;                                                            \
		*name = #e;                                                                        \
		*text = t;                                                                         \
		return true;
		VIA_ERROR_LIST(X)
#undef X
	default:
		return false;
	}
}

/* @code if it is in the list, else -EIO. */
static int listed(int code)
{
	enum via_scope scope;
	const char *name, *text;

	return lookup(code, &scope, &name, &text) ? code : -EIO;
}

int via_error_pass(struct via_error *err, const struct via_error *from)
{
	if (err && !err->code)
		*err = *from;
	return from->code;
}

enum via_scope via_err_scope(int code)
{
	enum via_scope scope;
	const char *name, *text;

	if (code >= 0)
		return VIA_SCOPE_NONE;
	return lookup(code, &scope, &name, &text) ? scope : VIA_SCOPE_CHANNEL;
}

const char *via_err_name(int code)
{
	enum via_scope scope;
	const char *name, *text;

	if (code >= 0)
		return "OK";
	(void)lookup(listed(code), &scope, &name, &text); /* what listed() returns is listed */
	return name;
}

const char *via_err_text(int code)
{
	enum via_scope scope;
	const char *name, *text;

	if (code >= 0)
		return "success";
	(void)lookup(listed(code), &scope, &name, &text);
	return text;
}

int via_err_from_errno(int errnum)
{
	return errnum > 0 ? listed(-errnum) : -EIO;
}

/* The longest start of @s[0 .. len) of at most @max bytes that ends between characters. */
static size_t cut(const char *s, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max && ((unsigned char)s[max] & 0xc0) == 0x80)
		max--;
	return max;
}

/* Copy @len bytes of @src as one part of an error into @dst of @cap bytes. */
static void put_part(char *dst, size_t cap, const char *src, size_t len)
{
	size_t n = cut(src, len, cap - 1);

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)src[i];

		dst[i] = c < 0x20 || c == 0x7f ? ' ' : src[i];
	}
	dst[n] = '\0';
}

int via_fail(struct via_error *err, int code, const char *fmt, ...)
{
	int saved = errno;
	char text[TEXT_MAX];
	const char *seen, *remedy;
	va_list args;

	code = listed(code);
	if (!err || err->code)
		return code;

	va_start(args, fmt);
	if (vsnprintf(text, sizeof(text), fmt, args) < 0)
		text[0] = '\0';
	va_end(args);

	seen = strchrnul(text, '\n');
	put_part(err->what, sizeof(err->what), text, (size_t)(seen - text));
	seen += *seen == '\n';
	remedy = strchrnul(seen, '\n');
	put_part(err->seen, sizeof(err->seen), seen, (size_t)(remedy - seen));
	remedy += *remedy == '\n';
	put_part(err->remedy, sizeof(err->remedy), remedy, strlen(remedy));
	err->code = code;
	errno = saved;
	return code;
}

const char *via_error_format(const struct via_error *err, char *buf, size_t cap)
{
	char line[sizeof(*err) + 64]; /* the parts, a code's text, punctuation */
	const char *seen = err->seen[0] ? err->seen : via_err_text(err->code);
	size_t n;

	if (!cap)
		return buf;
	(void)snprintf(line, sizeof(line), "%s%s%s%s%s%s", err->what, err->what[0] ? ": " : "",
		       seen, err->remedy[0] ? " (" : "", err->remedy, err->remedy[0] ? ")" : "");
	n = cut(line, strlen(line), cap - 1);
	memcpy(buf, line, n);
	buf[n] = '\0';
	return buf;
}
