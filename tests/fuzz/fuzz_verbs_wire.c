/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_verbs_wire.c -- addresses, greetings and keys of the verbs back end, as a peer may send
 * them: what is accepted is written again byte by byte.
 */
#include <stdlib.h>
#include <string.h>

#include "fabrics/verbs/verbs_choose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_same(const void *again, ssize_t len, const uint8_t *data, size_t size)
{
	if (len != (ssize_t)size || memcmp(again, data, size) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t nonce[VERBS_NONCE_LEN] = "sixteen bytes !";
	struct verbs_greeting greeting = {.passive = size & 1, .nonce = nonce};
	uint8_t buf[VERBS_ADDRESS_MAX];
	struct verbs_address address;
	struct verbs_key key;

	if (!verbs_address_decode(data, size, &address))
		must_be_same(buf, verbs_address_encode(&address, buf, sizeof(buf)), data, size);
	if (!verbs_key_decode(data, size, 4096, &key))
		must_be_same(buf, verbs_key_encode(&key, buf, sizeof(buf)), data, size);
	if (!verbs_greeting_check(data, size, &greeting)) {
		verbs_greeting_encode(&greeting, buf);
		must_be_same(buf, VERBS_GREETING, data, VERBS_GREETING);
	}
	if (verbs_refusal_decode(data, size) >= 0)
		abort();
	return 0;
}
