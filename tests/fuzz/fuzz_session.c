/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_session.c -- the state machine of either side: a peer whose every message the input decides.
 *
 * The first byte says whom it plays, and which of its scripts it would follow
 * (tests/hostile/hand.h). Then each message that it is about to say takes a byte: below HONEST it
 * is said as it should be; else it is said otherwise, in a way that further bytes describe:
 * changed, cut off, twice, not at all, or another message in its place. So any sequence of
 * messages can be written down, and an input that is used up goes on honestly.
 *
 * Demanded is that the side under test ends, without a fault of a sanitizer, with a message that
 * has three parts when it failed, and with its guest where it should be.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "tests/hostile/hand.h"
#include "tests/hostile/target.h"

#define HONEST      160u
#define CHOICES_MAX 64u /* an input is a conversation, not a flood */
#define DEADLINE_NS (20 * VIA_NS_PER_MS)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                         \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

struct input {
	const uint8_t *data;
	size_t left;
	unsigned choices;
};

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t value = 0;

	for (; bytes && in->left; bytes--, in->left--)
		value = value << 8 | *in->data++;
	return value;
}

static bool choose(struct hand *h, enum spoken which, struct twisted *twisted)
{
	/* Those that wait are too slow for a fuzzer, and have tests of their own. */
	static const enum twist twists[] = {T_U8,      T_U16,       T_U32,        T_U64,
					    T_XOR,     T_HEADER_U8, T_HEADER_U16, T_HEADER_U32,
					    T_SHORTER, T_LONGER,    T_CUT,        T_TWICE,
					    T_SKIP,    T_BEFORE,    T_INSTEAD,    T_DIE};
	struct input *in = h->choose_arg;
	uint8_t choice;

	(void)which;
	if (!in->left || in->choices++ >= CHOICES_MAX)
		return false;
	choice = (uint8_t)take(in, 1);
	if (choice < HONEST)
		return false;
	twisted->twist = twists[(choice - HONEST) % (sizeof(twists) / sizeof(twists[0]))];
	twisted->at = take(in, 1);
	if (twisted->twist == T_BEFORE || twisted->twist == T_INSTEAD) {
		twisted->at %= HAND_LANES;
		twisted->value = take(in, 1) % SPOKEN;
	} else if (twisted->twist <= T_HEADER_U32) {
		twisted->value = take(in, twisted->twist == T_U64 ? 8 : 4);
	}
	return true;
}

static bool is_complete(const struct via_error *err)
{
	return err->code < 0 && err->what[0] && err->seen[0] && err->remedy[0];
}

static void judge(const struct hand *h, const struct target *t)
{
	REQUIRE(!t->rc || is_complete(&t->err));
	if (t->role == VIA_ROLE_DESTINATION)
		REQUIRE(!t->guest_runs || h->said[S_RUN]);
	else if (t->result.outcome == VIA_ABORTED)
		REQUIRE(t->guest_runs);
	else
		REQUIRE(!t->guest_runs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hand h;
	static struct target t;
	struct input in = {.data = data, .left = size};
	struct twisted none = {.twist = T_NONE};
	uint8_t first = (uint8_t)take(&in, 1);
	enum via_role role = first & 1 ? VIA_ROLE_SOURCE : VIA_ROLE_DESTINATION;
	enum hand_script script = first / 2 % (role == VIA_ROLE_SOURCE ? 3 : 2);
	int fd[2], second[2] = {-1, -1};

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	if (script == SCRIPT_RESUME)
		REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, second));
	t = (struct target){.role = role == VIA_ROLE_SOURCE ? VIA_ROLE_DESTINATION
							    : VIA_ROLE_SOURCE,
			    .fd = fd[1],
			    .second_fd = second[1],
			    .postcopy = script != SCRIPT_PRECOPY,
			    .deadline_ns = DEADLINE_NS};
	hand_init(&h, role, fd[0], &none);
	h.choose = choose;
	h.choose_arg = &in;
	h.patience_ns = DEADLINE_NS;
	target_start(&t);
	if (role == VIA_ROLE_SOURCE)
		second[0] = hand_source(&h, script, second[0]);
	else
		hand_destination(&h, script);
	if (second[0] >= 0)
		close(second[0]);
	hand_fini(&h);
	target_join(&t);
	judge(&h, &t);
	return 0;
}
