/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * integrity.c -- see integrity.h. Both halves run in the threads of the multifd channels: they
 * allocate nothing and take no lock.
 *
 * Must never call a page wrong that the guest was writing while it was sent, and never forget
 * one that was wrong when it came last.
 *
 * Invariant: between two drains a page is sent once, so a digest speaks of the one write that
 * is before it, and the bit of a page is that of its last digest.
 */
#include "migrate/integrity.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/bitmap.h"

void integrity_digest(const void *bytes, size_t len, uint8_t digest[ENGINE_DIGEST_LEN])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, len));
	memcpy(digest, canonical.digest, ENGINE_DIGEST_LEN);
}

/* -- source ----------------------------------------------------------------------- */

/* Of a message that comes with runs. */
#define MESSAGE_CAP 4096u

/* What one channel was handed out, and has not handed on yet. */
struct handout {
	struct via_batch batch;
	unsigned run; /* of the batch: those before it are done */
	uint8_t message[MESSAGE_CAP];
};

struct integrity_work {
	struct via_work work;
	const struct via_work *inner;
	const struct via_guest_region *region;
	unsigned nregions;
	struct handout *handout; /* one for each channel */
};

/* Take the front of the run at hand, of as many pages as there is room for. False: for none. */
static bool take_run(const struct integrity_work *iw, struct handout *h, struct via_batch *to,
		     size_t *len)
{
	struct via_run *run = &h->batch.run[h->run], *taken;
	uint64_t page_size = iw->region[run->region].page_size, n = run->len / page_size;
	size_t room = to->message_cap - *len;

	if (room < ENGINE_DIGEST_RUN_LEN + ENGINE_DIGEST_LEN || to->nruns == VIA_BATCH_RUNS)
		return false;
	room = (room - ENGINE_DIGEST_RUN_LEN) / ENGINE_DIGEST_LEN;
	taken = &to->run[to->nruns++];
	*taken = *run;
	taken->len = (n < room ? n : room) * page_size;
	*len += ENGINE_DIGEST_RUN_LEN + taken->len / page_size * ENGINE_DIGEST_LEN;
	run->off += taken->len;
	run->len -= taken->len;
	if (!run->len)
		h->run++;
	return true;
}

/* Describe the runs of @batch in its message. */
static void put_digests(const struct integrity_work *iw, struct via_batch *batch)
{
	uint8_t *pos = engine_digest_put_header(batch->message, batch->nruns);

	for (unsigned i = 0; i < batch->nruns; i++) {
		const struct via_run *run = &batch->run[i];
		const struct via_guest_region *r = &iw->region[run->region];
		const uint8_t *page = (const uint8_t *)r->addr + run->off;
		uint64_t n = run->len / r->page_size;

		pos = engine_digest_put_run(pos, run->region, run->off / r->page_size, (uint32_t)n);
		for (; n; n--, page += r->page_size, pos += ENGINE_DIGEST_LEN)
			integrity_digest(page, r->page_size, pos);
	}
	batch->message_type = ENGINE_DIGEST;
	batch->message_len = (size_t)(pos - batch->message);
	batch->after_writes = true;
}

/* The message that came with the runs has a turn of its own. */
static void hand_on_message(struct handout *h, struct via_batch *batch)
{
	memcpy(batch->message, h->message, h->batch.message_len);
	batch->message_type = h->batch.message_type;
	batch->message_len = h->batch.message_len;
	batch->after_writes = h->batch.after_writes;
	h->batch.message_len = 0;
}

static int next(void *arg, unsigned channel, struct via_batch *batch)
{
	struct integrity_work *iw = arg;
	struct handout *h = &iw->handout[channel];
	size_t len = ENGINE_DIGEST_HEADER_LEN;

	if (h->run == h->batch.nruns && !h->batch.message_len) {
		int rc;

		h->run = 0;
		h->batch = (struct via_batch){.message = h->message,
					      .message_cap = sizeof(h->message)};
		rc = iw->inner->next(iw->inner->arg, channel, &h->batch);
		if (rc <= 0) {
			h->batch.nruns = 0;
			h->batch.message_len = 0;
			return rc;
		}
	}
	while (h->run < h->batch.nruns && take_run(iw, h, batch, &len))
		;
	if (batch->nruns)
		put_digests(iw, batch);
	else
		hand_on_message(h, batch);
	return 1;
}

int integrity_work_new(const struct via_guest_region *regions, unsigned nregions,
		       unsigned nchannels, struct integrity_work **work, struct via_error *err)
{
	struct integrity_work *iw = calloc(1, sizeof(*iw));

	if (iw)
		iw->handout = calloc(nchannels, sizeof(*iw->handout));
	if (!iw || !iw->handout) {
		free(iw);
		return via_fail(err, -ENOMEM, "take digests\nout of memory\nfree some memory");
	}
	iw->work = (struct via_work){.arg = iw, .next = next};
	iw->region = regions;
	iw->nregions = nregions;
	*work = iw;
	return 0;
}

void integrity_work_free(struct integrity_work *iw)
{
	if (!iw)
		return;
	free(iw->handout);
	free(iw);
}

const struct via_work *integrity_work_begin(struct integrity_work *iw, const struct via_work *inner)
{
	iw->inner = inner;
	return &iw->work;
}

/* -- destination ------------------------------------------------------------------------ */

struct integrity_check {
	const struct via_region *region;
	unsigned nregions;
	struct via_bitmap wrong[]; /* pages whose last digest did not fit; one for each region */
};

int integrity_check_new(const struct via_region *regions, unsigned nregions,
			struct integrity_check **out, struct via_error *err)
{
	struct integrity_check *check =
		calloc(1, sizeof(*check) + nregions * sizeof(check->wrong[0]));

	if (!check)
		goto no_memory;
	check->region = regions;
	for (unsigned i = 0; i < nregions; i++) {
		const struct via_region_desc *d = &regions[i].desc;

		if (via_bitmap_init(&check->wrong[i], (size_t)(d->len / d->page_size)))
			goto no_memory;
		check->nregions++;
	}
	*out = check;
	return 0;
no_memory:
	integrity_check_free(check);
	return via_fail(err, -ENOMEM, "check digests\nout of memory\nfree some memory");
}

void integrity_check_free(struct integrity_check *check)
{
	if (!check)
		return;
	for (unsigned i = 0; i < check->nregions; i++)
		via_bitmap_fini(&check->wrong[i]);
	free(check);
}

static void compare(struct integrity_check *check, const struct engine_digest_run *run)
{
	const struct via_region *r = &check->region[run->region];
	const uint8_t *addr = (const uint8_t *)r->addr + run->first * r->desc.page_size;
	struct via_bitmap *wrong = &check->wrong[run->region];
	uint8_t digest[ENGINE_DIGEST_LEN];

	for (uint32_t i = 0; i < run->n; i++, addr += r->desc.page_size) {
		size_t page = (size_t)run->first + i;

		integrity_digest(addr, r->desc.page_size, digest);
		if (memcmp(digest, run->digests + (size_t)i * ENGINE_DIGEST_LEN, sizeof(digest)))
			via_bitmap_set(wrong, page, 1);
		else if (via_bitmap_test(wrong, page))
			via_bitmap_clear(wrong, page, 1);
	}
}

int integrity_check_pages(struct integrity_check *check, const uint8_t *payload, size_t len)
{
	struct engine_digest digest;
	struct engine_digest_run run;
	int rc = engine_digest_decode(payload, len, &digest);

	while (!rc && digest.nruns) {
		rc = engine_digest_next_run(&digest, &run);
		if (!rc &&
		    (run.region >= check->nregions || run.first >= check->wrong[run.region].nbits ||
		     run.n > check->wrong[run.region].nbits - run.first))
			rc = -EPROTO;
		if (!rc)
			compare(check, &run);
	}
	return rc;
}

void integrity_check_zero(struct integrity_check *check, unsigned index, uint64_t first, uint64_t n)
{
	via_bitmap_clear(&check->wrong[index], (size_t)first, (size_t)n);
}

int integrity_check_result(const struct integrity_check *check, struct via_error *err)
{
	const struct via_region_desc *d;
	uint64_t total = 0;
	size_t first = 0, n;
	unsigned region = 0;

	for (unsigned i = check->nregions; i-- > 0;) {
		size_t wrong = via_bitmap_count(&check->wrong[i]);

		total += wrong;
		if (wrong)
			region = i;
	}
	if (!total)
		return 0;
	d = &check->region[region].desc;
	n = via_bitmap_next_run(&check->wrong[region], 0, &first);
	return via_fail(
		err, -EBADMSG,
		"check what has arrived\n"
		"region %s differs from what was sent: %zu x %u bytes from offset 0x%llx, %llu "
		"pages in all\n"
		"use another fabric or device: this one changes what it carries",
		d->name, n, d->page_size, (unsigned long long)first * d->page_size,
		(unsigned long long)total);
}
