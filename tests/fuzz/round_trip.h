/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * round_trip.h -- what must hold for every codec and any bytes at all.
 */
#ifndef VIA_TESTS_FUZZ_ROUND_TRIP_H
#define VIA_TESTS_FUZZ_ROUND_TRIP_H

#include <stddef.h>
#include <stdint.h>

#include "tests/transport/codecs.h"

/* The one entry of a libFuzzer target. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * Decode @data. What is accepted is encoded, decoded and encoded again: the two encodings
 * are the same. Aborts when they are not, and when an error is not one of the header's.
 */
void round_trip(const struct codec *codec, const uint8_t *data, size_t size);

#endif
