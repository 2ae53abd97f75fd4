/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hand_impl.h -- between the files of the peer made by hand.
 */
#ifndef VIA_TESTS_HAND_IMPL_H
#define VIA_TESTS_HAND_IMPL_H

#include "tests/hostile/hand.h"

#define HAND_SLOT_LEN 131072u /* of a multifd channel's staging */
#define HAND_CREDITS  8u      /* that a destination announces */

#define HAND_BUILD_MAX 16384u                      /* bytes of an honest payload */
#define HAND_SAY_MAX   ((4u << 20) + 8 + 8 + 4096) /* and of one that was made longer */

/* The payload of @which as an honest peer would say it now: its length, and the message's type. */
size_t hand_build(struct hand *h, enum spoken which, enum hand_lane lane, uint8_t *buf, size_t cap,
		  uint16_t *type);
/* Poll everything once. */
bool hand_move(struct hand *h);
void hand_over(struct hand *h);

#endif
