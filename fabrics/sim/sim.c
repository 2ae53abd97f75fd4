/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim.c -- the simulated fabric's table, and what its spec says.
 *
 * Must never be chosen by `auto`: its rank is 0.
 *
 * Invariant: a fabric's options do not change once it is open.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabrics/sim/link.h"

static const struct via_fabric_key keys[] = {
	{"seed", "where the adversary's choices start"},
	{"delay", "polls that an event may take at most"},
	{"straggle", "polls more that a piece of a write, one in eight, may take to land"},
	{"split", "pieces in which one write lands at most, 1 to 16"},
	{"reorder", "yes or no: events overtake each other"},
	{"silent", "yes or no: refused writes and lost peers are never told"},
	{"tx-depth", "writes and sends that one endpoint holds"},
	{"rx-depth", "receives that one endpoint holds"},
	{"break", "after-writes, dereg, exactly-once, order or completion, joined by '+'"},
	{NULL, NULL},
};

static const struct {
	const char *name;
	enum sim_break bit;
} breaks[] = {
	{"after-writes", SIM_BREAK_AFTER_WRITES}, {"dereg", SIM_BREAK_DEREG},
	{"exactly-once", SIM_BREAK_ONCE},         {"order", SIM_BREAK_ORDER},
	{"completion", SIM_BREAK_COMPLETION},
};

#define NBREAKS (sizeof(breaks) / sizeof(breaks[0]))

static int get_yes_no(const struct via_fabric_spec *spec, const char *key, bool *value,
		      struct via_error *err)
{
	const char *text = via_fabric_spec_get(spec, key);

	if (!text)
		return 0;
	if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
		return via_fail(err, -EINVAL, "fabric sim: %s\n\"%s\"\nsay yes or no", key, text);
	*value = *text == 'y';
	return 0;
}

static int get_breaks(const struct via_fabric_spec *spec, unsigned *bits, struct via_error *err)
{
	const char *text = via_fabric_spec_get(spec, "break");

	while (text) {
		size_t len = strcspn(text, "+"), i = 0;

		while (i < NBREAKS &&
		       (strlen(breaks[i].name) != len || strncmp(breaks[i].name, text, len) != 0))
			i++;
		if (i == NBREAKS)
			return via_fail(
				err, -EINVAL,
				"fabric sim: break\n\"%s\"\none or several of: after-writes, "
				"dereg, exactly-once, order, completion, joined by '+'",
				text);
		*bits |= breaks[i].bit;
		text = text[len] ? text + len + 1 : NULL;
	}
	return 0;
}

static int get_options(const struct via_fabric_spec *spec, struct sim_options *opt,
		       struct via_error *err)
{
	const struct {
		const char *key;
		uint64_t min, max;
		uint64_t *value;
	} numbers[] = {
		{"seed", 0, UINT64_MAX, &opt->seed},
		{"delay", 0, SIM_DELAY_MAX, &opt->delay},
		{"straggle", 0, SIM_DELAY_MAX, &opt->straggle},
		{"split", 1, SIM_SPLIT_MAX, &opt->split},
		{"tx-depth", 1, SIM_DEPTH_MAX, &opt->tx_depth},
		{"rx-depth", 1, SIM_DEPTH_MAX, &opt->rx_depth},
	};
	int ret = 0;

	for (size_t i = 0; !ret && i < sizeof(numbers) / sizeof(numbers[0]); i++)
		ret = via_fabric_spec_get_number(spec, numbers[i].key, numbers[i].min,
						 numbers[i].max, numbers[i].value, err);
	if (!ret)
		ret = get_yes_no(spec, "reorder", &opt->reorder, err);
	if (!ret)
		ret = get_yes_no(spec, "silent", &opt->silent, err);
	if (!ret)
		ret = get_breaks(spec, &opt->breaks, err);
	return ret;
}

static struct via_fabric_caps caps_of(const struct sim_options *opt)
{
	return (struct via_fabric_caps){
		.write_len_max = SIM_WRITE_LEN_MAX,
		.msg_len_max = SIM_MSG_LEN_MAX,
		.addr_len_max = sim_ep_address_max(),
		.rkey_len_max = sim_rkey_max(),
		.sge_max = SIM_SGE_MAX,
		.tx_depth = opt->tx_depth,
		.rx_depth = opt->rx_depth,
	};
}

static const struct sim_options defaults = {
	.seed = 1,
	.delay = 8,
	.split = 4,
	.tx_depth = 64,
	.rx_depth = 64,
	.reorder = true,
};

static int sim_open(const struct via_fabric_spec *spec, struct via_fabric **fab,
		    struct via_error *err)
{
	struct sim_fabric *sim = calloc(1, sizeof(*sim));
	int ret;

	if (!sim)
		return via_fail(err, -ENOMEM, "fabric sim\nno memory\nfree some memory");
	sim->opt = defaults;
	ret = get_options(spec, &sim->opt, err);
	if (ret) {
		free(sim);
		return ret;
	}
	snprintf(sim->network, sizeof(sim->network), "%s", spec->device);
	sim->base.ops = &via_sim_ops;
	sim->base.caps = caps_of(&sim->opt);
	*fab = &sim->base;
	return 0;
}

static void sim_close(struct via_fabric *fab)
{
	free((struct sim_fabric *)fab);
}

static int sim_probe(int (*found)(void *arg, const struct via_fabric_info *info), void *arg,
		     struct via_error *err)
{
	struct via_fabric_info info = {
		.spec = "sim",
		.library = "simulated, for tests",
		.usable = true,
		.caps = caps_of(&defaults),
	};

	(void)err;
	snprintf(info.reach, sizeof(info.reach), "process %d", (int)getpid());
	return found(arg, &info);
}

const struct via_fabric_ops via_sim_ops = {
	.name = "sim",
	.keys = keys,
	.provider = "",
	.probe = sim_probe,
	.open = sim_open,
	.close = sim_close,
	.ep_open = sim_ep_open,
	.ep_address = sim_ep_address,
	.ep_connect = sim_ep_connect,
	.ep_close = sim_ep_close,
	.ep_abort = sim_ep_abort,
	.mr_reg = sim_mr_reg,
	.mr_dereg = sim_mr_dereg,
	.rkey_pack = sim_rkey_pack,
	.rkey_unpack = sim_rkey_unpack,
	.rkey_free = sim_rkey_free,
	.post_write = sim_post_write,
	.post_send = sim_post_send,
	.post_recv = sim_post_recv,
	.poll = sim_poll,
	.arm = sim_arm,
};
