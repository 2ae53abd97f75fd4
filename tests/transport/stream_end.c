/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream_end.c -- see stream_end.h.
 */
#include "tests/transport/stream_end.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "fabrics/fabric.h"
#include "tests/transport/stream_pair.h"

static const char *const fabrics[STREAM_FABRICS] = {
	"sim:stream,seed=1",
	"sim:stream,seed=2,delay=60,split=16",
	"sim:stream,seed=3,delay=0,split=1,reorder=no",
	"sim:stream,seed=4,delay=30,tx-depth=1",
	"sim:stream,seed=5,straggle=40,silent=yes",
	"ofi:tcp",
};

const char *stream_fabric(unsigned i)
{
	if (!strncmp(fabrics[i], "ofi", 3) && !via_fabric_find("ofi"))
		cr_skip_test("this build has no libfabric");
	return fabrics[i];
}

const struct stream_channel stream_channels[STREAM_CHANNELS] = {
	{VIA_MAIN, 0, VIA_STREAM_MAIN_SLOT},
	{VIA_MULTIFD, 7, VIA_STREAM_MULTIFD_SLOT},
	{VIA_PREEMPT, 1, 0},
};

static uint64_t random_state = 1;

static uint64_t below(uint64_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

void stream_seed(uint64_t seed)
{
	random_state = seed;
}

uint8_t stream_byte_at(uint64_t at)
{
	return (uint8_t)((at * 2654435761u) >> 13 ^ at);
}

void stream_fill(uint8_t *buf, uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = stream_byte_at(at + i);
}

void expect_ok(int rc)
{
	cr_assert_geq(rc, 0, "%s", via_err_name(rc));
}

bool stream_send_some(struct stream_end *e, size_t max)
{
	static uint8_t head[VIA_STREAM_MESSAGE_LEN];
	size_t cap, len, head_len = 0, left = e->total - e->sent;
	uint8_t *buf = via_stream_buffer(e->st, &cap);

	if (!buf)
		return false;
	cr_assert_eq(via_stream_buffer(e->st, &cap), buf, "the same until it is sent");
	if (max > cap)
		max = cap;
	len = 1 + below(below(4) ? max : 100);
	if (!below(3))
		head_len = 1 + below(VIA_STREAM_MESSAGE_LEN);
	if (head_len > left)
		head_len = left;
	if (len > left - head_len)
		len = left - head_len;
	if (cap == VIA_STREAM_MESSAGE_LEN && len > cap - head_len)
		len = cap - head_len;
	stream_fill(head, e->sent, head_len);
	stream_fill(buf, e->sent + head_len, len);
	expect_ok(via_stream_send(e->st, len, head, head_len));
	e->sent += head_len + len;
	return true;
}

bool stream_take_some(struct stream_end *e, size_t max)
{
	size_t len, n;
	const uint8_t *data = via_stream_data(e->st, &len);

	if (!data)
		return false;
	cr_assert_gt(len, 0);
	cr_assert_eq(via_stream_consume(e->st, len + 1), -EINVAL);
	cr_assert_not(via_stream_ended(e->st, &e->status));
	n = 1 + below(len < max ? len : max);
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(data[i], stream_byte_at(e->received + i), "byte %llu",
			     (unsigned long long)(e->received + i));
	e->received += n;
	expect_ok(via_stream_consume(e->st, n));
	return true;
}

void stream_poll(struct stream_end *e)
{
	expect_ok(via_stream_wait(e->st, 0, NULL, 0));
}

static void stream_step(struct stream_end *e, size_t max)
{
	if (e->sent < e->total)
		(void)stream_send_some(e, max);
	else
		expect_ok(via_stream_finish(e->st, e->finishes_with));
	if (below(4)) /* a receiver that is now and then slower */
		while (stream_take_some(e, max) && below(8))
			;
	(void)via_stream_ended(e->st, &e->status);
	stream_poll(e);
}

void stream_play(struct stream_end *source, struct stream_end *destination, size_t max)
{
	uint64_t deadline = via_deadline_in(STREAM_PATIENCE_NS),
		 wants[2] = {source->total, destination->total};

	while (!via_stream_done(source->st) || !via_stream_done(destination->st)) {
		stream_step(source, max);
		stream_step(destination, max);
		cr_assert_not(
			via_deadline_passed(deadline), "%llu of %llu and %llu of %llu bytes came",
			(unsigned long long)destination->received, (unsigned long long)wants[0],
			(unsigned long long)source->received, (unsigned long long)wants[1]);
	}
	cr_assert_eq(destination->received, wants[0]);
	cr_assert_eq(source->received, wants[1]);
}
