/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * engine_messages.c -- the engines' messages as bytes. Decoders trust nothing.
 */
#include "migrate/engine_messages.h"

#include "core/wire.h"

void engine_zero_put_header(uint8_t *buf, const struct engine_zero *zero)
{
	struct via_wire w = via_wire_writer(buf, ENGINE_ZERO_HEADER_LEN);

	via_wire_put_u16(&w, zero->region);
	via_wire_put_u8(&w, zero->fresh);
	via_wire_put_u8(&w, 0);
	via_wire_put_u32(&w, zero->nranges);
}

void engine_zero_put_range(uint8_t *buf, unsigned i, const struct engine_zero_range *range)
{
	struct via_wire w =
		via_wire_writer(buf + ENGINE_ZERO_HEADER_LEN + (size_t)i * ENGINE_ZERO_RANGE_LEN,
				ENGINE_ZERO_RANGE_LEN);

	via_wire_put_u64(&w, range->first);
	via_wire_put_u32(&w, range->n);
}

int engine_zero_decode(const uint8_t *buf, size_t len, struct engine_zero *zero)
{
	struct via_wire w = via_wire_reader(buf, len);
	uint8_t fresh, reserved;

	zero->region = via_wire_get_u16(&w);
	fresh = via_wire_get_u8(&w);
	reserved = via_wire_get_u8(&w);
	zero->nranges = via_wire_get_u32(&w);
	zero->fresh = fresh;
	if (via_wire_status(&w) || fresh > 1 || reserved || zero->nranges == 0 ||
	    via_wire_left(&w) % ENGINE_ZERO_RANGE_LEN ||
	    via_wire_left(&w) / ENGINE_ZERO_RANGE_LEN != zero->nranges)
		return -EPROTO;
	return 0;
}

int engine_zero_get_range(const uint8_t *buf, unsigned i, uint64_t npages,
			  struct engine_zero_range *range)
{
	struct via_wire w =
		via_wire_reader(buf + ENGINE_ZERO_HEADER_LEN + (size_t)i * ENGINE_ZERO_RANGE_LEN,
				ENGINE_ZERO_RANGE_LEN);

	range->first = via_wire_get_u64(&w);
	range->n = via_wire_get_u32(&w);
	return range->n == 0 || range->first >= npages || range->n > npages - range->first ? -EPROTO
											   : 0;
}

void engine_page_encode(const struct engine_page *page, uint8_t buf[ENGINE_PAGE_LEN])
{
	struct via_wire w = via_wire_writer(buf, ENGINE_PAGE_LEN);

	via_wire_put_u16(&w, page->region);
	via_wire_put_u8(&w, page->kind);
	via_wire_put_u8(&w, 0);
	via_wire_put_u32(&w, page->len);
	via_wire_put_u64(&w, page->off);
}

int engine_page_decode(const uint8_t *buf, size_t len, struct engine_page *page)
{
	struct via_wire w = via_wire_reader(buf, len);
	uint8_t reserved;

	page->region = via_wire_get_u16(&w);
	page->kind = via_wire_get_u8(&w);
	reserved = via_wire_get_u8(&w);
	page->len = via_wire_get_u32(&w);
	page->off = via_wire_get_u64(&w);
	if (via_wire_status(&w) || reserved || page->kind > ENGINE_PAGE_COMING ||
	    via_wire_left(&w) != (page->kind == ENGINE_PAGE_HERE ? page->len : 0))
		return -EPROTO;
	return 0;
}

uint8_t *engine_digest_put_header(uint8_t *buf, unsigned nruns)
{
	struct via_wire w = via_wire_writer(buf, ENGINE_DIGEST_HEADER_LEN);

	via_wire_put_u16(&w, (uint16_t)nruns);
	via_wire_put_u16(&w, 0);
	via_wire_put_u32(&w, 0);
	return buf + ENGINE_DIGEST_HEADER_LEN;
}

uint8_t *engine_digest_put_run(uint8_t *buf, uint16_t region, uint64_t first, uint32_t n)
{
	struct via_wire w = via_wire_writer(buf, ENGINE_DIGEST_RUN_LEN);

	via_wire_put_u16(&w, region);
	via_wire_put_u16(&w, 0);
	via_wire_put_u32(&w, n);
	via_wire_put_u64(&w, first);
	return buf + ENGINE_DIGEST_RUN_LEN;
}

int engine_digest_decode(const uint8_t *buf, size_t len, struct engine_digest *digest)
{
	struct via_wire w = via_wire_reader(buf, len);
	unsigned reserved;

	digest->nruns = via_wire_get_u16(&w);
	reserved = via_wire_get_u16(&w);
	reserved |= via_wire_get_u32(&w);
	if (via_wire_status(&w) || reserved || !digest->nruns)
		return -EPROTO;
	digest->rest = buf + w.pos;
	digest->rest_len = len - w.pos;
	return 0;
}

int engine_digest_next_run(struct engine_digest *digest, struct engine_digest_run *run)
{
	struct via_wire w = via_wire_reader(digest->rest, digest->rest_len);
	uint16_t reserved;

	run->region = via_wire_get_u16(&w);
	reserved = via_wire_get_u16(&w);
	run->n = via_wire_get_u32(&w);
	run->first = via_wire_get_u64(&w);
	if (via_wire_status(&w) || reserved || !run->n ||
	    run->n > via_wire_left(&w) / ENGINE_DIGEST_LEN)
		return -EPROTO;
	run->digests = digest->rest + w.pos;
	digest->rest = run->digests + (size_t)run->n * ENGINE_DIGEST_LEN;
	digest->rest_len = via_wire_left(&w) - (size_t)run->n * ENGINE_DIGEST_LEN;
	digest->nruns--;
	return !digest->nruns && digest->rest_len ? -EPROTO : 0;
}

ssize_t engine_status_encode(const struct engine_status *status, void *buf, size_t cap)
{
	struct via_wire w = via_wire_writer(buf, cap);

	via_wire_put_u32(&w, status->round);
	via_wire_put_u8(&w, status->phase);
	via_wire_put_u8(&w, 0);
	via_wire_put_u16(&w, 0);
	via_wire_put_u64(&w, status->remaining);
	via_wire_put_u64(&w, status->sent);
	via_wire_put_u64(&w, status->rate);
	via_wire_put_u64(&w, status->dirty_rate);
	via_wire_put_u64(&w, status->expected_downtime_ns);
	return via_wire_status(&w) ? via_wire_status(&w) : (ssize_t)w.pos;
}

int engine_status_decode(const void *buf, size_t len, struct engine_status *status)
{
	struct via_wire w = via_wire_reader(buf, len);
	unsigned reserved;

	status->round = via_wire_get_u32(&w);
	status->phase = via_wire_get_u8(&w);
	reserved = via_wire_get_u8(&w);
	reserved |= via_wire_get_u16(&w);
	status->remaining = via_wire_get_u64(&w);
	status->sent = via_wire_get_u64(&w);
	status->rate = via_wire_get_u64(&w);
	status->dirty_rate = via_wire_get_u64(&w);
	status->expected_downtime_ns = via_wire_get_u64(&w);
	return reserved ? -EPROTO : via_wire_finish(&w);
}
