/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_table.c -- every metric, once: name, type, unit, help, and how its value is got. The page,
 * the lines of the file and the table in docs/metrics.md are made of it.
 *
 * A name says its unit, and is never given another meaning: what was scraped is kept for years.
 */
#include "tools/metrics_table.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"

#ifndef VIA_VERSION
#define VIA_VERSION "0"
#endif

/* -- states ------------------------------------------------------------------------- */

/* All @n names, 1 for the one that is @current. */
static void put_states(const char *label, const char *const *name, unsigned n, unsigned current,
		       metric_put_fn *put, void *arg)
{
	for (unsigned i = 1; i < n; i++) {
		struct metric_label l = {label, name[i]};

		put(arg, &l, 1, i == current);
	}
}

static void put_phase(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	static const char *const name[] = {
		[VIA_PHASE_SETUP] = "setup",           [VIA_PHASE_PRECOPY] = "precopy",
		[VIA_PHASE_SWITCHOVER] = "switchover", [VIA_PHASE_POSTCOPY] = "postcopy",
		[VIA_PHASE_PAUSED] = "paused",         [VIA_PHASE_DONE] = "done"};

	put_states("viaduct_phase", name, sizeof(name) / sizeof(name[0]), s->p.phase, put, arg);
}

static void put_fence(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	const char *name[VIA_FENCE_RUN + 1];

	for (unsigned i = VIA_FENCE_OPEN; i <= VIA_FENCE_RUN; i++)
		name[i] = via_fence_state_name((enum via_fence_state)i);
	put_states("viaduct_fence", name, VIA_FENCE_RUN + 1, s->p.fence, put, arg);
}

static void put_outcome(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	const char *name[VIA_LOST + 1];

	for (unsigned i = VIA_COMPLETED; i <= VIA_LOST; i++)
		name[i] = via_outcome_name((enum via_outcome)i);
	put_states("viaduct_outcome", name, VIA_LOST + 1, s->outcome, put, arg);
}

/* -- info --------------------------------------------------------------------------- */

static void put_build(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	struct metric_label l = {"version", VIA_VERSION};

	(void)s;
	put(arg, &l, 1, 1);
}

static void put_session(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	const struct via_session_stats *session = s->relay ? &s->now.session : &s->session;
	struct metric_label l[] = {{"fabric", session->fabric},
				   {"control", session->security},
				   {"peer", session->peer}};

	if (session->fabric[0])
		put(arg, l, sizeof(l) / sizeof(l[0]), 1);
}

static void put_role(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	struct metric_label l = {"role", s->p.role == VIA_ROLE_SOURCE ? "source" : "destination"};

	put(arg, &l, 1, 1);
}

/* -- several of a kind -------------------------------------------------------------- */

static void put_expected_total(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	uint64_t ns = s->p.expected_total_ns;

	if (ns)
		put(arg, NULL, 0, ns == VIA_NEVER ? (double)INFINITY : (double)ns / 1e9);
}

static void put_steps(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	const struct via_steps *t = &s->p.steps;
	const struct {
		const char *name;
		uint64_t ns;
	} step[] = {{"paused", t->paused_ns}, {"drained", t->drained_ns}, {"sealed", t->sealed_ns},
		    {"armed", t->armed_ns},   {"state", t->state_ns},     {"run", t->run_ns}};

	for (unsigned i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
		struct metric_label l = {"step", step[i].name};

		if (step[i].ns)
			put(arg, &l, 1, (double)step[i].ns / 1e9);
	}
}

/* The labels of a channel, and room for one more. */
struct channel_labels {
	struct metric_label l[4];
	char index[16];
};

static void name_channel(struct channel_labels *c, const struct via_channel_stats *ch)
{
	static const char *const kind[] = {
		[VIA_MAIN] = "main", [VIA_MULTIFD] = "multifd", [VIA_PREEMPT] = "preempt"};

	snprintf(c->index, sizeof(c->index), "%u", ch->index);
	c->l[0] = (struct metric_label){"channel", kind[ch->kind]};
	c->l[1] = (struct metric_label){"index", c->index};
	c->l[2] = (struct metric_label){"device", ch->device};
}

static void put_ready(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	for (unsigned i = 0; i < s->nchannels; i++) {
		struct channel_labels c;

		name_channel(&c, &s->channel[i]);
		put(arg, c.l, 3, s->channel[i].ready);
	}
}

static void put_writes(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	for (unsigned i = 0; i < s->nchannels; i++) {
		struct channel_labels c;

		name_channel(&c, &s->channel[i]);
		put(arg, c.l, 3, (double)s->channel[i].writes);
	}
}

static void put_write_bytes(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	for (unsigned i = 0; i < s->nchannels; i++) {
		struct channel_labels c;

		name_channel(&c, &s->channel[i]);
		put(arg, c.l, 3, (double)s->channel[i].bytes);
	}
}

static void put_both_ways(const struct via_channel_stats *ch, uint64_t sent, uint64_t received,
			  metric_put_fn *put, void *arg)
{
	struct channel_labels c;

	name_channel(&c, ch);
	c.l[3] = (struct metric_label){"direction", "sent"};
	put(arg, c.l, 4, (double)sent);
	c.l[3] = (struct metric_label){"direction", "received"};
	put(arg, c.l, 4, (double)received);
}

static void put_messages(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	for (unsigned i = 0; i < s->nchannels; i++)
		put_both_ways(&s->channel[i], s->channel[i].sent, s->channel[i].received, put, arg);
}

static void put_message_bytes(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	for (unsigned i = 0; i < s->nchannels; i++)
		put_both_ways(&s->channel[i], s->channel[i].sent_bytes,
			      s->channel[i].received_bytes, put, arg);
}

static void put_carries(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	put(arg, NULL, 0, s->carries);
}

static void put_connections(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	put(arg, NULL, 0, s->now.connections);
}

static void put_ended(const struct metrics_sample *s, metric_put_fn *put, void *arg)
{
	static const char *const name[] = {[RELAY_COMPLETED] = "completed",
					   [RELAY_ENDED] = "ended",
					   [RELAY_BROKEN] = "broken"};

	for (unsigned i = RELAY_COMPLETED; i <= RELAY_BROKEN; i++) {
		struct metric_label l = {"outcome", name[i]};

		put(arg, &l, 1, (double)s->ended[i]);
	}
}

/* -- the table ---------------------------------------------------------------------- */

#define AT(field) offsetof(struct metrics_sample, field)
#define OF_ALL    false, false
#define OF_RELAY  true, false
#define OF_GUEST  false, true

/* clang-format off */
const struct metric metrics_table[] = {
	{"viaduct_build", METRIC_INFO, "", "The version of the program.", OF_ALL, .put = put_build},
	{"process_cpu_seconds", METRIC_COUNTER, "seconds", "CPU time of the process, the guest of demo and send included.", OF_ALL, .at = AT(cpu_ns)},
	{"viaduct_session", METRIC_INFO, "", "The fabric, how the control connection is secured, and the peer's program.", OF_ALL, .put = put_session},

	{"viaduct_side", METRIC_INFO, "", "Whose numbers these are.", OF_GUEST, .put = put_role},
	{"viaduct_phase", METRIC_STATESET, "", "What the migration does at the moment.", OF_GUEST, .put = put_phase},
	{"viaduct_fence", METRIC_STATESET, "", "How far the fence of the epoch at hand is.", OF_GUEST, .put = put_fence},
	{"viaduct_outcome", METRIC_STATESET, "", "How it has ended; none of them before.", OF_GUEST, .put = put_outcome},
	{"viaduct_elapsed_seconds", METRIC_GAUGE, "seconds", "Since the migration began.", OF_GUEST, .at = AT(p.elapsed_ns)},
	{"viaduct_expected_total_seconds", METRIC_GAUGE, "seconds", "How long all of it will have taken, if it goes on like this; +Inf: it does not converge.", OF_GUEST, .put = put_expected_total},
	{"viaduct_expected_downtime_seconds", METRIC_GAUGE, "seconds", "How long the guest would stand still, were it stopped now.", OF_GUEST, true, .at = AT(p.expected_downtime_ns)},
	{"viaduct_step_seconds", METRIC_GAUGE, "seconds", "When each step of the switch was done, since the migration began.", OF_GUEST, .put = put_steps},
	{"viaduct_rounds", METRIC_COUNTER, "", "Rounds of precopy that were begun.", OF_GUEST, .at = AT(round)},
	{"viaduct_memory_bytes", METRIC_GAUGE, "bytes", "Guest RAM.", OF_GUEST, .at = AT(p.memory)},
	{"viaduct_remaining_bytes", METRIC_GAUGE, "bytes", "Guest RAM that is still dirty in this round; in postcopy, that the destination lacks.", OF_GUEST, .at = AT(p.remaining)},
	{"viaduct_sent_bytes", METRIC_COUNTER, "bytes", "Written one-sided by the source, postcopy included.", OF_GUEST, .at = AT(p.sent)},
	{"viaduct_pages_sent", METRIC_COUNTER, "", "Source: pages with content, in rounds that are drained and in postcopy.", OF_GUEST, .at = AT(p.pages_sent)},
	{"viaduct_zero_pages_sent", METRIC_COUNTER, "", "Source: pages that were announced as zero, likewise.", OF_GUEST, .at = AT(p.zero_pages)},
	{"viaduct_sent_bytes_per_second", METRIC_GAUGE, "bytes_per_second", "Over the last interval. Destination in postcopy: the rate at which pages come.", OF_GUEST, .at = AT(p.rate)},
	{"viaduct_bandwidth_bytes_per_second", METRIC_GAUGE, "bytes_per_second", "Source: as the last round has measured it, drain included.", OF_GUEST, true, .at = AT(p.bandwidth)},
	{"viaduct_dirty_bytes_per_second", METRIC_GAUGE, "bytes_per_second", "What the guest wrote during the last round.", OF_GUEST, .at = AT(p.dirty_rate)},
	{"viaduct_epochs_drained", METRIC_COUNTER, "", "Fences that were acknowledged for all channels.", OF_GUEST, .at = AT(session.epochs)},
	{"viaduct_drain_seconds", METRIC_HISTOGRAM, "seconds", "Source: from the last channel's fence to the comparison of what was acknowledged.", OF_GUEST, .hist_at = AT(session.drain_ns)},

	{"viaduct_channel_ready", METRIC_GAUGE, "", "1 while the channel is open.", OF_GUEST, .put = put_ready},
	{"viaduct_channel_writes", METRIC_COUNTER, "", "One-sided writes: posted, or at the destination told by fences and by messages about pages.", OF_GUEST, .put = put_writes},
	{"viaduct_channel_write_bytes", METRIC_COUNTER, "bytes", "Bytes of these.", OF_GUEST, .put = put_write_bytes},
	{"viaduct_channel_messages", METRIC_COUNTER, "", "Messages, but those that carry credits alone.", OF_GUEST, .put = put_messages},
	{"viaduct_channel_message_bytes", METRIC_COUNTER, "bytes", "Bytes of these, without headers.", OF_GUEST, .put = put_message_bytes},

	{"viaduct_page_faults", METRIC_COUNTER, "", "Destination: faults on pages of the guest, as userfaultfd tells.", OF_GUEST, .at = AT(postcopy.faults)},
	{"viaduct_page_requests", METRIC_COUNTER, "", "Pages that the destination asked for.", OF_GUEST, .at = AT(p.requests)},
	{"viaduct_requested_pages", METRIC_COUNTER, "", "Pages that came as the answer to a request.", OF_GUEST, .at = AT(postcopy.request_pages)},
	{"viaduct_bulk_pages", METRIC_COUNTER, "", "Pages of postcopy that came without being asked for.", OF_GUEST, .at = AT(postcopy.bulk_pages)},
	{"viaduct_duplicate_pages", METRIC_COUNTER, "", "Destination: pages that came and were there already.", OF_GUEST, .at = AT(postcopy.duplicate_pages)},
	{"viaduct_recoveries", METRIC_COUNTER, "", "Sessions that were lost in postcopy, and resumed.", OF_GUEST, .at = AT(recoveries)},
	{"viaduct_page_request_seconds", METRIC_HISTOGRAM, "seconds", "Destination: from a fault's request to the answer.", OF_GUEST, .hist_at = AT(postcopy.request_ns)},
	{"viaduct_page_install_seconds", METRIC_HISTOGRAM, "seconds", "Destination: from the answer to the guest's having the page.", OF_GUEST, .hist_at = AT(postcopy.install_ns)},

	{"viaduct_relay_carries", METRIC_GAUGE, "", "1 while a migration goes through this relay.", OF_RELAY, .put = put_carries},
	{"viaduct_relay_connections", METRIC_GAUGE, "", "Connections of QEMU that the migration at hand has had.", OF_RELAY, .put = put_connections},
	{"viaduct_relay_forward_bytes", METRIC_COUNTER, "bytes", "Carried to the destination, by all migrations.", OF_RELAY, .at = AT(forward_bytes)},
	{"viaduct_relay_back_bytes", METRIC_COUNTER, "bytes", "Carried to the source, by all migrations.", OF_RELAY, .at = AT(back_bytes)},
	{"viaduct_relay_packets", METRIC_COUNTER, "", "Packets of multifd that were understood, of all migrations.", OF_RELAY, .at = AT(packets)},
	{"viaduct_relay_migrations", METRIC_COUNTER, "", "Migrations that have ended, by how.", OF_RELAY, .put = put_ended},
};
/* clang-format on */

const unsigned metrics_table_len = sizeof(metrics_table) / sizeof(metrics_table[0]);

bool metric_applies(const struct metric *metric, const struct metrics_sample *s)
{
	return metric->of_relay ? s->relay : metric->of_migration ? s->migration : true;
}

void metric_values(const struct metric *metric, const struct metrics_sample *s, metric_put_fn *put,
		   void *arg)
{
	uint64_t value;

	if (metric->put) {
		metric->put(s, put, arg);
		return;
	}
	memcpy(&value, (const char *)s + metric->at, sizeof(value));
	if (value || !metric->zero_is_unknown)
		put(arg, NULL, 0,
		    strcmp(metric->unit, "seconds") ? (double)value : (double)value / 1e9);
}

const struct via_hist *metric_hist(const struct metric *metric, const struct metrics_sample *s)
{
	return (const struct via_hist *)(const void *)((const char *)s + metric->hist_at);
}

const char *metric_type_name(enum metric_type type)
{
	static const char *const name[] = {[METRIC_COUNTER] = "counter",
					   [METRIC_GAUGE] = "gauge",
					   [METRIC_HISTOGRAM] = "histogram",
					   [METRIC_INFO] = "info",
					   [METRIC_STATESET] = "stateset"};

	return name[type];
}
