/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * region.c -- guest RAM as regions, divided into slices that are registered one by one.
 *
 * Both sides divide alike (slice_len comes with SETUP), so that a position is (region, offset)
 * on the wire and (slice, offset) at the fabric. Every offset is checked against its region.
 */
#include <stdlib.h>
#include <string.h>

#include "transport/session.h"

/* Their keys must fit into one CHANNEL_READY. */
#define SLICES_MAX 8192u

static uint64_t count_slices(const struct via_region *region, uint64_t slice_len)
{
	return region->desc.len / slice_len + (region->desc.len % slice_len != 0);
}

int regions_init(struct via_session *s, const struct via_region *regions, unsigned n,
		 uint64_t slice_len, struct via_error *err)
{
	uint64_t total = 0;

	s->slice_len = slice_len;
	if (n == 0 && s->config.streams)
		return 0;
	if (n == 0 || n > VIA_REGIONS_MAX || s->config.streams)
		return via_fail(err, -EINVAL,
				"describe guest RAM\n%u regions\n"
				"give 1 to %u of them, or none where streams are carried",
				n, VIA_REGIONS_MAX);
	for (unsigned i = 0; i < n; i++)
		if (slice_len < regions[i].desc.page_size)
			return via_fail(err, -EINVAL,
					"describe guest RAM\nslices of %llu bytes, pages of %u\n"
					"choose slices that are at least as long as a page",
					(unsigned long long)slice_len, regions[i].desc.page_size);
	for (unsigned i = 0; i < n && total <= SLICES_MAX; i++)
		total += count_slices(&regions[i], slice_len);
	if (total > SLICES_MAX)
		return via_fail(err, -EINVAL,
				"describe guest RAM\nmore than %u slices of %llu bytes\n"
				"choose larger slices, or less memory",
				SLICES_MAX, (unsigned long long)slice_len);
	s->region = calloc(n, sizeof(*s->region));
	s->region_view = calloc(n, sizeof(*s->region_view));
	if (!s->region || !s->region_view)
		goto no_memory;
	s->nregions = n;
	for (unsigned i = 0; i < n; i++) {
		struct session_region *r = &s->region[i];

		r->region = s->region_view[i] = regions[i];
		r->first_slice = s->nslices;
		r->nslices = (unsigned)count_slices(&regions[i], slice_len);
		s->nslices += r->nslices;
	}
	s->slice_mr = calloc(s->nslices, sizeof(*s->slice_mr));
	if (s->slice_mr)
		return 0;
no_memory:
	return via_fail(err, -ENOMEM, "describe guest RAM\nout of memory\nfree some memory");
}

static struct session_region *region_of_slice(const struct via_session *s, unsigned slice)
{
	unsigned i = 0;

	while (i + 1 < s->nregions && s->region[i + 1].first_slice <= slice)
		i++;
	return &s->region[i];
}

uint64_t regions_slice_len(const struct via_session *s, unsigned slice)
{
	const struct session_region *r = region_of_slice(s, slice);
	uint64_t off = (uint64_t)(slice - r->first_slice) * s->slice_len;
	uint64_t left = r->region.desc.len - off;

	return left < s->slice_len ? left : s->slice_len;
}

int regions_register(struct via_session *s, unsigned access, struct via_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&s->setup_lock);
	for (unsigned i = 0; i < s->nslices && !rc; i++) {
		struct session_region *r = region_of_slice(s, i);
		uint8_t *base = r->region.addr;
		uint64_t off = (uint64_t)(i - r->first_slice) * s->slice_len;

		rc = s->fab->ops->mr_reg(s->fab, base + off, (size_t)regions_slice_len(s, i),
					 access, &s->slice_mr[i], err);
	}
	pthread_mutex_unlock(&s->setup_lock);
	return rc;
}

void regions_revoke(struct via_session *s)
{
	pthread_mutex_lock(&s->setup_lock);
	for (unsigned i = 0; i < s->nslices; i++) {
		if (s->slice_mr && s->slice_mr[i])
			s->fab->ops->mr_dereg(s->slice_mr[i]);
		if (s->slice_mr)
			s->slice_mr[i] = NULL;
	}
	pthread_mutex_unlock(&s->setup_lock);
}

void regions_fini(struct via_session *s)
{
	regions_revoke(s);
	free(s->slice_mr);
	free(s->region);
	free(s->region_view);
}

int regions_piece(const struct via_session *s, const struct via_run *run, size_t max,
		  struct region_piece *piece)
{
	const struct session_region *r;
	uint64_t slice_off, left;

	if (run->region >= s->nregions)
		return -ERANGE;
	r = &s->region[run->region];
	if (run->len == 0 || run->off >= r->region.desc.len ||
	    run->len > r->region.desc.len - run->off)
		return -ERANGE;
	slice_off = run->off % s->slice_len;
	left = s->slice_len - slice_off;
	piece->slice = r->first_slice + (unsigned)(run->off / s->slice_len);
	piece->slice_off = slice_off;
	piece->addr = (uint8_t *)r->region.addr + run->off;
	piece->len = (size_t)(run->len < left ? run->len : left);
	if (piece->len > max)
		piece->len = max;
	return 0;
}
