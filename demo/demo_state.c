/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_state.c -- the device state of the demo guest, big-endian:
 *
 *   offset  bytes
 *        0      8  MAGIC
 *        8      4  FORMAT
 *       12      4  vCPUs
 *       16      8  memory, bytes
 *       24      8  dirty rate, bytes a second
 *       32      8  seed
 *       40     4n  version of each of the n = memory / 4096 pages
 *   40 + 4n     8  checksum of all before
 *
 * It must never take a state that is not, byte for byte, what a demo guest with as much
 * RAM has saved: a wrong version would be reported as a page that the migration lost.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/wire.h"
#include "demo/demo_guest_impl.h"

#define MAGIC    UINT64_C(0x566961647563740a) /* "Viaduct\n" */
#define FORMAT   1u
#define HEADER   40u
#define CHECKSUM 8u

static uint64_t checksum(const void *state, size_t len)
{
	struct via_wire r = via_wire_reader(state, len);
	uint64_t sum = len;

	while (via_wire_left(&r)) {
		uint64_t next = via_wire_left(&r) < 8 ? via_wire_get_u8(&r) : via_wire_get_u64(&r);

		/* Each step is one-to-one in sum: a change of any one word stays visible. */
		sum = (sum ^ next) * UINT64_C(0x9e3779b97f4a7c15);
		sum ^= sum >> 32;
	}
	return sum;
}

int demo_state_save(struct demo_guest *g, void **state, size_t *len, struct via_error *err)
{
	size_t size = HEADER + 4 * g->npages + CHECKSUM;
	struct via_wire w;
	void *buf;

	if (g->nrunning && g->order == DEMO_RUN)
		return via_fail(err, -EINVAL,
				"the device state of a running demo guest\n"
				"its vCPUs are not paused\npause it first");
	buf = malloc(size);
	if (!buf)
		return via_fail(err, -ENOMEM,
				"no memory for the demo guest's device state\n%zu bytes", size);
	w = via_wire_writer(buf, size);
	via_wire_put_u64(&w, MAGIC);
	via_wire_put_u32(&w, FORMAT);
	via_wire_put_u32(&w, g->config.vcpus);
	via_wire_put_u64(&w, g->config.memory);
	via_wire_put_u64(&w, g->config.dirty_rate);
	via_wire_put_u64(&w, g->config.seed);
	for (uint64_t i = 0; i < g->npages; i++)
		via_wire_put_u32(&w, g->version[i]);
	via_wire_put_u64(&w, checksum(buf, size - CHECKSUM));
	*state = buf;
	*len = size;
	return 0;
}

/* Everything but the versions. */
static int load_header(const struct demo_guest *g, const void *state, size_t len,
		       struct demo_guest_config *config, struct via_error *err)
{
	struct via_wire r = via_wire_reader(state, len);
	uint64_t magic = via_wire_get_u64(&r);
	uint32_t format = via_wire_get_u32(&r);

	config->vcpus = via_wire_get_u32(&r);
	config->memory = via_wire_get_u64(&r);
	config->dirty_rate = via_wire_get_u64(&r);
	config->seed = via_wire_get_u64(&r);
	if (via_wire_status(&r) || magic != MAGIC || format != FORMAT)
		return via_fail(err, -EPROTO,
				"not the device state of a demo guest\n"
				"%zu bytes, magic %016llx, format %u (this release: %016llx, %u)\n"
				"use the same release at both ends",
				len, (unsigned long long)magic, format, (unsigned long long)MAGIC,
				FORMAT);
	if (demo_guest_check_config(config, err))
		return -EPROTO;
	if (config->memory != g->region.len)
		return via_fail(err, -EPROTO,
				"the device state is of another demo guest\n"
				"it says %llu bytes of RAM; prepared were %llu",
				(unsigned long long)config->memory,
				(unsigned long long)g->region.len);
	return 0;
}

int demo_state_load(struct demo_guest *g, const void *state, size_t len, struct via_error *err)
{
	struct demo_guest_config config;
	struct via_wire r = via_wire_reader(state, len);
	int ret;

	if (g->nrunning)
		return via_fail(err, -EINVAL, "device state for a demo guest that runs already");
	ret = load_header(g, state, len, &config, err);
	if (ret)
		return ret;
	if (len != HEADER + 4 * g->npages + CHECKSUM)
		return via_fail(err, -EPROTO,
				"the demo guest's device state has the wrong length\n"
				"%zu bytes for %llu pages",
				len, (unsigned long long)g->npages);
	(void)via_wire_get_view(&r, len - CHECKSUM);
	if (via_wire_get_u64(&r) != checksum(state, len - CHECKSUM))
		return via_fail(err, -EPROTO,
				"the demo guest's device state is damaged\nits checksum differs");
	r = via_wire_reader(state, len);
	(void)via_wire_get_view(&r, HEADER);
	for (uint64_t i = 0; i < g->npages; i++)
		g->version[i] = via_wire_get_u32(&r);
	g->config = config;
	g->loaded = true;
	return 0;
}
