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
#include <stdlib.h>
#include <string.h>

#include "transport/control_internal.h"

#define FILE_MAX     (64u << 10)
#define IDENTITY_MAX 128u /* GnuTLS ignores longer ones */
#define KEY_MAX      512u /* as psktool */

static const char psktool[] = "make it with `psktool -u NAME -p FILE`";

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
	uint8_t *end = keys->file.text + keys->file.len, *line = keys->file.text, *next;
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
					keys->file.path, number, wrong, psktool);
	}
	if (!keys->n)
		return via_fail(err, -EINVAL, "read the key file %s\nit holds no key\n%s",
				keys->file.path, psktool);
	return 0;
}

int control_keys_load(const char *path, struct control_keys *keys, struct via_error *err)
{
	size_t lines = 1;
	int rc;

	*keys = (struct control_keys){.file = {.path = path,
					       .kind = "key file",
					       .remedy = psktool,
					       .max = FILE_MAX,
					       .secret = true}};
	rc = control_file_read(&keys->file, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < keys->file.len; i++)
		lines += keys->file.text[i] == '\n';
	keys->key = calloc(lines, sizeof(*keys->key));
	rc = keys->key ? parse(keys, err)
		       : via_fail(err, -ENOMEM, "read the key file %s\nout of memory\nfree some",
				  path);
	if (rc)
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
	if (keys->file.text)
		control_file_wipe(&keys->file);
	free(keys->key);
	*keys = (struct control_keys){0};
}

/* -- GnuTLS --------------------------------------------------------------------- */

/* A copy that GnuTLS overwrites and frees. 0 or -1. */
static int give(gnutls_datum_t *to, const void *bytes, size_t len)
{
	to->data = gnutls_malloc(len);
	if (!to->data)
		return -1;
	memcpy(to->data, bytes, len);
	to->size = (unsigned)len;
	return 0;
}

static int on_server_key(gnutls_session_t session, const gnutls_datum_t *identity,
			 gnutls_datum_t *key)
{
	struct control_proof *proof = gnutls_session_get_ptr(session);
	const struct control_key *found =
		control_keys_find(&proof->keys, identity->data, identity->size);
	size_t n = identity->size < sizeof(proof->stranger) ? identity->size
							    : sizeof(proof->stranger) - 1;

	if (found)
		return give(key, found->bytes, found->len);
	/*
	 * 1 makes GnuTLS go on with a random key, so that the peer cannot tell an unknown
	 * identity from a wrong key. Our own user may know.
	 */
	for (size_t i = 0; i < n; i++)
		proof->stranger[i] = identity->data[i] < 0x20 || identity->data[i] >= 0x7f
					     ? '?'
					     : (char)identity->data[i];
	proof->stranger[n] = '\0';
	return 1;
}

static int on_client_key(gnutls_session_t session, gnutls_datum_t *identity, gnutls_datum_t *key)
{
	const struct control_proof *proof = gnutls_session_get_ptr(session);

	if (give(identity, proof->own->identity, strlen(proof->own->identity)))
		return -1;
	if (!give(key, proof->own->bytes, proof->own->len))
		return 0;
	gnutls_free(identity->data);
	return -1;
}

int control_psk_use(struct control_proof *proof, gnutls_session_t session)
{
	int ret = proof->client ? gnutls_psk_allocate_client_credentials(&proof->psk_client)
				: gnutls_psk_allocate_server_credentials(&proof->psk_server);

	if (ret < 0)
		return ret;
	if (proof->client) {
		gnutls_psk_set_client_credentials_function2(proof->psk_client, on_client_key);
		return gnutls_credentials_set(session, GNUTLS_CRD_PSK, proof->psk_client);
	}
	gnutls_psk_set_server_credentials_function2(proof->psk_server, on_server_key);
	return gnutls_credentials_set(session, GNUTLS_CRD_PSK, proof->psk_server);
}

void control_psk_unuse(struct control_proof *proof)
{
	if (proof->psk_client)
		gnutls_psk_free_client_credentials(proof->psk_client);
	if (proof->psk_server)
		gnutls_psk_free_server_credentials(proof->psk_server);
	proof->psk_client = NULL;
	proof->psk_server = NULL;
}
