/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_control_messages.c -- the messages of the control connection. The first byte
 * picks the decoder.
 */
#include "tests/fuzz/round_trip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 0)
		round_trip(&control_codecs[data[0] % CONTROL_CODECS], data + 1, size - 1);
	return 0;
}
