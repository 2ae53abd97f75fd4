/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_psk.c -- the file with the pre-shared keys, in QEMU's and psktool's
 * format: lines of "identity:hexkey".
 *
 * Must never leave a copy of a key behind and never show one: an error names
 * the line, not what it says.
 *
 * Invariant: all that was read from the file lies in text, once, and is
 * overwritten before it is freed; keys are decoded in place.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "transport/control_internal.h"

#define FILE_MAX     (64u << 10)
#define IDENTITY_MAX 128u /* GnuTLS ignores longer ones */
#define KEY_MAX      512u /* as psktool */

static const char psktool[] = "make it with `psktool -u NAME -p FILE`";

static int file_failed(const char *path, int errnum, struct via_error *err)
{
	int code = errnum == EACCES ? -EPERM : via_err_from_errno(errnum);

	return via_fail(err, code, "read the key file %s\n%s\n%s, and let this user read it", path,
			strerror(errnum), psktool);
}

/* Not through stdio, which would keep a copy. Not from a pipe, which could block. */
static int read_file(const char *path, struct control_keys *keys, struct via_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n = 0;
	int rc;

	if (fd < 0)
		return file_failed(path, errno, err);
	if (fstat(fd, &st)) {
		rc = file_failed(path, errno, err);
		goto out;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
		rc = via_fail(err, -EINVAL, "read the key file %s\n%s\n%s", path,
			      S_ISREG(st.st_mode) ? "more than 64 KiB" : "not a regular file",
			      psktool);
		goto out;
	}
	if (st.st_mode & S_IROTH)
		via_log("control: the key file %s is readable by everybody: chmod 600", path);
	keys->text = malloc(FILE_MAX + 1);
	if (!keys->text) {
		rc = file_failed(path, ENOMEM, err);
		goto out;
	}
	do {
		keys->text_len += (size_t)n;
		n = read(fd, keys->text + keys->text_len, FILE_MAX - keys->text_len);
	} while (n > 0 || (n < 0 && errno == EINTR && !(n = 0)));
	rc = n < 0 ? file_failed(path, errno, err) : 0;
	keys->text[keys->text_len] = '\0';
out:
	close(fd);
	return rc;
}

/* The value of a hexadecimal digit, or -1. */
static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode @len digits in place. Returns the number of bytes; 0 when they are not a key. */
static size_t decode_hex(uint8_t *text, size_t len)
{
	if (len % 2 || len > 2 * KEY_MAX)
		return 0;
	for (size_t i = 0; i < len / 2; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return 0;
		text[i] = (uint8_t)(high << 4 | low);
	}
	return len / 2;
}

/* One line without its newline. NULL, or what is wrong with it. */
static const char *parse_line(uint8_t *line, size_t len, struct control_keys *keys)
{
	struct control_key *key = &keys->key[keys->n];
	uint8_t *colon;

	while (len && strchr(" \t\r", line[len - 1]))
		len--;
	if (!len || line[0] == '#')
		return NULL;
	colon = memchr(line, ':', len);
	if (!colon || memchr(line, '\0', len))
		return "not `identity:hexkey`";
	if (colon == line || colon - line > IDENTITY_MAX)
		return "an identity has 1 to 128 bytes";
	*colon = '\0';
	key->identity = (const char *)line;
	key->bytes = colon + 1;
	key->len = decode_hex(colon + 1, len - (size_t)(colon + 1 - line));
	if (!key->len)
		return "a key has 1 to 512 bytes of two hexadecimal digits each";
	keys->n++;
	return NULL;
}

static int parse(struct control_keys *keys, struct via_error *err)
{
	uint8_t *end = keys->text + keys->text_len, *line = keys->text, *next;
	unsigned number = 0;

	for (; line < end; line = next + 1) {
		const char *wrong;

		next = memchr(line, '\n', (size_t)(end - line));
		if (!next)
			next = end;
		number++;
		wrong = parse_line(line, (size_t)(next - line), keys);
		if (wrong)
			return via_fail(err, -EINVAL, "read the key file %s\nline %u: %s\n%s",
					keys->path, number, wrong, psktool);
	}
	if (!keys->n)
		return via_fail(err, -EINVAL, "read the key file %s\nit holds no key\n%s",
				keys->path, psktool);
	return 0;
}

int control_keys_load(const char *path, struct control_keys *keys, struct via_error *err)
{
	size_t lines = 1;
	int rc;

	*keys = (struct control_keys){.path = path};
	rc = read_file(path, keys, err);
	if (rc)
		goto fail;
	for (size_t i = 0; i < keys->text_len; i++)
		lines += keys->text[i] == '\n';
	keys->key = calloc(lines, sizeof(*keys->key));
	rc = keys->key ? parse(keys, err) : file_failed(path, ENOMEM, err);
	if (!rc)
		return 0;
fail:
	control_keys_wipe(keys);
	return rc;
}

const struct control_key *control_keys_find(const struct control_keys *keys, const void *identity,
					    size_t len)
{
	for (size_t i = 0; i < keys->n; i++) {
		const char *known = keys->key[i].identity;

		if (strlen(known) == len && !memcmp(known, identity, len))
			return &keys->key[i];
	}
	return NULL;
}

void control_keys_wipe(struct control_keys *keys)
{
	if (keys->text)
		gnutls_memset(keys->text, 0, FILE_MAX + 1);
	free(keys->text);
	free(keys->key);
	*keys = (struct control_keys){0};
}
