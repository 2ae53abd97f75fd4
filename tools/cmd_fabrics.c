/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd_fabrics.c -- viaduct fabrics: every back end, provider and device that was found, with
 * its limits, and each that was not, with the reason.
 */
#include <jansson.h>
#include <string.h>

#include "fabrics/fabric.h"
#include "tools/commands.h"
#include "tools/run.h"

static const enum option_id options[] = {OPTION_JSON, 0};

static const char *next_line(const char *line)
{
	line += strcspn(line, "\n");
	return line + (*line != '\0');
}

static void print_facts(const struct via_fabric_info *info)
{
	for (const char *line = info->facts; *line; line = next_line(line))
		printf("%-21s%.*s\n", "", (int)strcspn(line, "\n"), line);
}

static void print_entry(const struct via_fabric_info *info)
{
	char write_max[32];

	if (!info->usable) {
		printf("%-16s no   %s\n", info->spec, info->reason);
		print_facts(info);
		return;
	}
	printf("%-16s yes  %s%s%s; writes to %s, messages to %zu B, depth %u/%u\n", info->spec,
	       info->library, info->device[0] ? ", " : "", info->device,
	       format_bytes(info->caps.write_len_max, write_max, sizeof(write_max)),
	       info->caps.msg_len_max, info->caps.tx_depth, info->caps.rx_depth);
	print_facts(info);
}

static json_t *facts_object(const struct via_fabric_info *info)
{
	json_t *facts = json_object();

	for (const char *line = info->facts; *line; line = next_line(line)) {
		size_t len = strcspn(line, "\n"), name = strcspn(line, ":");
		char key[64];

		snprintf(key, sizeof(key), "%.*s", (int)name, line);
		if (name + 2 <= len)
			json_object_set_new(facts, key,
					    json_stringn(line + name + 2, len - name - 2));
	}
	return facts;
}

static json_t *info_object(const struct via_fabric_info *info)
{
	const struct via_fabric_caps *c = &info->caps;

	return json_pack("{s:s, s:b, s:s, s:s, s:s, s:I, s:s, s:{s:I, s:I, s:I, s:I, s:I}, s:o}",
			 "fabric", info->spec, "usable", (int)info->usable, "reason", info->reason,
			 "device", info->device, "library", info->library, "rank",
			 (json_int_t)info->rank, "reach", info->reach, "limits", "write_len_max",
			 (json_int_t)c->write_len_max, "msg_len_max", (json_int_t)c->msg_len_max,
			 "sge_max", (json_int_t)c->sge_max, "tx_depth", (json_int_t)c->tx_depth,
			 "rx_depth", (json_int_t)c->rx_depth, "facts", facts_object(info));
}

static int found(void *arg, const struct via_fabric_info *info)
{
	if (arg)
		json_array_append_new(arg, info_object(info));
	else
		print_entry(info);
	return 0;
}

static int run(const struct settings *settings)
{
	json_t *list = settings->json ? json_array() : NULL;
	const struct via_fabric_ops *const *ops;
	const struct via_fabric_absent *absent;
	struct via_error err = {0};
	int status = EXIT_OK;

	for (ops = via_fabric_list(); *ops; ops++)
		if ((*ops)->probe(found, list, &err)) {
			report_error(&err);
			status = EXIT_FAILED;
		}
	for (absent = via_fabric_absent_list(); absent->name; absent++) {
		struct via_fabric_info info = {0};

		snprintf(info.spec, sizeof(info.spec), "%s", absent->name);
		snprintf(info.reason, sizeof(info.reason), "%s", absent->reason);
		(void)found(list, &info);
	}
	if (list) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		fputc('\n', stdout);
		json_decref(list);
	}
	return status;
}

const struct command command_fabrics = {
	.name = "fabrics",
	.summary = "list the fabrics of this host, and why the others are not there",
	.usage = "[--json]",
	.options = options,
	.run = run,
};
