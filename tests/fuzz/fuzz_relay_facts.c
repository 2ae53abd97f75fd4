/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_relay_facts.c -- the record in front of main's bytes, as a peer may send it: what is
 * accepted is written again byte by byte, and what is not whole is not whole in fewer bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "relay/facts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct relay_facts facts;
	uint8_t buf[RELAY_FACTS_MAX];
	ssize_t n = relay_facts_decode(data, size, &facts);

	if (n > (ssize_t)size || (n == 0 && size >= RELAY_FACTS_MAX))
		abort();
	for (size_t len = 0; n > 0 && len < (size_t)n; len++)
		if (relay_facts_decode(data, len, &facts) != 0)
			abort();
	if (n > 0 && (relay_facts_encode(&facts, buf, sizeof(buf)) != n ||
		      memcmp(buf, data, (size_t)n) != 0))
		abort();
	return 0;
}
