/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * integrity_test.c -- digests of pages: their bytes on the wire, what of a malformed message is
 * taken, that a batch is handed on whole however it is cut, and which pages are called wrong.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/integrity.h"

#define PAGE   4096u
#define NPAGES 600u

static _Alignas(PAGE) uint8_t memory[2][NPAGES * PAGE];

static void fill(void)
{
	uint64_t random = 1;

	for (size_t i = 0; i < sizeof(memory[0]); i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		memory[0][i] = memory[1][i] = (uint8_t)(random >> 56);
	}
}

/* -- bytes ------------------------------------------------------------------------------- */

/* docs/wire.md: two runs, of two pages and one, with digests of 0x11.., 0x22.., 0x33... */
/* clang-format off */
static const uint8_t golden[] = {
	0, 2, 0, 0, 0, 0, 0, 0, /* runs, reserved */
	0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, /* region 1, 2 pages from 256 on */
	0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
	0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22, 0x22,
	0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, /* region 0, 1 page, 2^32 */
	0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33,
};
/* clang-format on */

Test(integrity, digest_messages_have_these_bytes)
{
	uint8_t buf[sizeof(golden)], *pos = engine_digest_put_header(buf, 2);
	struct engine_digest_run run;
	struct engine_digest digest;

	pos = engine_digest_put_run(pos, 1, 256, 2);
	memset(pos, 0x11, 16);
	memset(pos + 16, 0x22, 16);
	pos = engine_digest_put_run(pos + 32, 0, UINT64_C(1) << 32, 1);
	memset(pos, 0x33, 16);
	cr_assert_eq(pos + 16, buf + sizeof(buf));
	cr_assert(!memcmp(buf, golden, sizeof(golden)));

	cr_assert_eq(engine_digest_decode(golden, sizeof(golden), &digest), 0);
	cr_assert_eq(engine_digest_next_run(&digest, &run), 0);
	cr_assert(run.region == 1 && run.first == 256 && run.n == 2 && run.digests[16] == 0x22);
	cr_assert_eq(engine_digest_next_run(&digest, &run), 0);
	cr_assert(run.region == 0 && run.first == UINT64_C(1) << 32 && run.n == 1);
	cr_assert_eq(digest.nruns, 0);
}

/* XXH3-128 without a seed, as `xxh128sum` prints it. */
Test(integrity, the_digest_is_xxh3)
{
	static const uint8_t of_nothing[16] = {0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47, 0x98, 0xd8,
					       0x60, 0x01, 0xc3, 0x24, 0x46, 0x8d, 0x49, 0x7f};
	uint8_t digest[16];

	integrity_digest("", 0, digest);
	cr_assert(!memcmp(digest, of_nothing, 16));
}

static int walk(const uint8_t *buf, size_t len)
{
	struct engine_digest_run run;
	struct engine_digest digest;
	int rc = engine_digest_decode(buf, len, &digest);

	while (!rc && digest.nruns)
		rc = engine_digest_next_run(&digest, &run);
	return rc;
}

Test(integrity, malformed_messages_are_refused)
{
	uint8_t buf[sizeof(golden) + 1];

	for (size_t len = 0; len < sizeof(golden); len++)
		cr_assert_eq(walk(golden, len), -EPROTO, "%zu bytes", len);
	memcpy(buf, golden, sizeof(golden));
	buf[sizeof(golden)] = 0;
	cr_assert_eq(walk(buf, sizeof(buf)), -EPROTO, "a byte too many");
	cr_assert_eq(walk(buf, sizeof(golden)), 0);
	for (size_t reserved = 2; reserved < 8; reserved++) {
		buf[reserved] = 1;
		cr_assert_eq(walk(buf, sizeof(golden)), -EPROTO, "reserved byte %zu", reserved);
		buf[reserved] = 0;
	}
	buf[10] = 1;
	cr_assert_eq(walk(buf, sizeof(golden)), -EPROTO);
	buf[10] = 0;
	buf[1] = 0;
	cr_assert_eq(walk(buf, sizeof(golden)), -EPROTO, "no runs");
	buf[1] = 1;
	cr_assert_eq(walk(buf, sizeof(golden)), -EPROTO, "fewer runs than there are");
	buf[1] = 3;
	cr_assert_eq(walk(buf, sizeof(golden)), -EPROTO, "more runs than there are");
	buf[1] = 2;
	memset(buf + 12, 0xff, 4);
	cr_assert_eq(walk(buf, sizeof(golden)), -EPROTO, "more pages than digests");
	memset(buf + 12, 0, 4);
	cr_assert_eq(walk(buf, sizeof(golden)), -EPROTO, "no pages");
}

/* -- both halves ---------------------------------------------------------------------------- */

static const struct via_guest_region region = {
	.name = "ram", .addr = memory[0], .len = sizeof(memory[0]), .page_size = PAGE};
static struct via_region there = {
	.desc = {.name = "ram", .len = sizeof(memory[1]), .page_size = PAGE}, .addr = memory[1]};

/* One batch: all pages in runs of different lengths, and a message. */
struct inner {
	bool done;
};

static int inner_next(void *arg, unsigned channel, struct via_batch *batch)
{
	struct inner *inner = arg;
	uint64_t page = 0;

	(void)channel;
	if (inner->done)
		return 0;
	inner->done = true;
	while (page < NPAGES) {
		uint64_t n = batch->nruns * 3 + 1;

		if (n > NPAGES - page)
			n = NPAGES - page;
		batch->run[batch->nruns++] = (struct via_run){.off = page * PAGE, .len = n * PAGE};
		page += n;
	}
	batch->message_type = ENGINE_ZERO;
	batch->message_len = 5;
	memcpy(batch->message, "zeros", 5);
	return 1;
}

/* Take it all; give what is a digest to @check. How many messages there were. */
static unsigned take_all(struct integrity_check *check)
{
	struct inner inner = {0};
	struct via_work work = {.arg = &inner, .next = inner_next};
	const struct via_work *outer;
	static uint8_t message[8184];
	struct integrity_work *iw;
	unsigned messages = 0, others = 0;
	uint64_t page = 0;

	cr_assert_eq(integrity_work_new(&region, 1, 1, &iw, NULL), 0);
	outer = integrity_work_begin(iw, &work);
	for (;; messages++) {
		struct via_batch batch = {.message = message, .message_cap = sizeof(message)};
		int rc = outer->next(outer->arg, 0, &batch);

		if (rc <= 0) {
			cr_assert_eq(rc, 0);
			break;
		}
		if (batch.message_type == ENGINE_ZERO) {
			cr_assert(batch.message_len == 5 && !memcmp(message, "zeros", 5));
			cr_assert(batch.nruns == 0 && !batch.after_writes);
			others++;
			continue;
		}
		cr_assert(batch.after_writes);
		cr_assert_leq(batch.message_len, sizeof(message));
		for (unsigned i = 0; i < batch.nruns; i++) {
			cr_assert_eq(batch.run[i].off, page * PAGE);
			page += batch.run[i].len / PAGE;
		}
		cr_assert_eq(integrity_check_pages(check, message, batch.message_len), 0);
	}
	cr_assert_eq(page, NPAGES, "every page was handed on once");
	cr_assert_eq(others, 1);
	integrity_work_free(iw);
	return messages;
}

Test(integrity, a_batch_is_handed_on_whole)
{
	struct integrity_check *check;

	fill();
	cr_assert_eq(integrity_check_new(&there, 1, &check, NULL), 0);
	cr_assert_gt(take_all(check), 2, "600 digests need more than one message");
	cr_assert_eq(integrity_check_result(check, NULL), 0);
	integrity_check_free(check);
}

Test(integrity, what_differs_is_named_until_it_fits)
{
	struct via_error err = {0};
	struct integrity_check *check;

	fill();
	cr_assert_eq(integrity_check_new(&there, 1, &check, NULL), 0);
	memory[1][7 * PAGE] ^= 1;
	memory[1][9 * PAGE - 1] ^= 0x80;
	memory[1][500 * PAGE + 17] ^= 4;
	take_all(check);
	cr_assert_eq(integrity_check_result(check, &err), -EBADMSG);
	cr_assert(strstr(err.seen, "region ram"), "%s", err.seen);
	cr_assert(strstr(err.seen, "2 x 4096 bytes from offset 0x7000, 3 pages"), "%s", err.seen);

	memory[1][500 * PAGE + 17] ^= 4;
	take_all(check);
	err = (struct via_error){0};
	cr_assert_eq(integrity_check_result(check, &err), -EBADMSG);
	cr_assert(strstr(err.seen, "0x7000, 2 pages"), "%s", err.seen);

	/* One comes again, right; the other is zero by now, and was announced so. */
	memory[1][7 * PAGE] ^= 1;
	memory[0][9 * PAGE - 1] = memory[1][9 * PAGE - 1];
	integrity_check_zero(check, 0, 8, 1);
	take_all(check);
	cr_assert_eq(integrity_check_result(check, NULL), 0);
	integrity_check_free(check);
}

/* A message of @n pages of @region from @first on, as the source would send it. */
static int check_run(struct integrity_check *check, uint16_t index, uint64_t first, uint32_t n)
{
	static uint8_t buf[64 + 16 * 16];
	uint8_t *pos = engine_digest_put_run(engine_digest_put_header(buf, 1), index, first, n);

	return integrity_check_pages(check, buf, (size_t)(pos - buf) + n * 16u);
}

Test(integrity, pages_outside_of_memory_are_refused)
{
	struct integrity_check *check;

	cr_assert_eq(integrity_check_new(&there, 1, &check, NULL), 0);
	cr_assert_eq(check_run(check, 0, NPAGES - 16, 16), 0);
	cr_assert_eq(check_run(check, 0, NPAGES - 15, 16), -EPROTO);
	cr_assert_eq(check_run(check, 0, NPAGES, 1), -EPROTO);
	cr_assert_eq(check_run(check, 0, UINT64_MAX, 1), -EPROTO);
	cr_assert_eq(check_run(check, 1, 0, 1), -EPROTO);
	integrity_check_free(check);
}
