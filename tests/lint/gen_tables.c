/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gen_tables.c -- the tables of docs/metrics.md and docs/trace/README.md, from what the program has.
 *
 *   gen_tables metrics|probes
 */
#include <stdio.h>
#include <string.h>

#include "core/probe.h"
#include "tools/metrics_table.h"

static const char *sample_suffix(enum metric_type type)
{
	return type == METRIC_COUNTER ? "_total" : type == METRIC_INFO ? "_info" : "";
}

static const char *whose(const struct metric *m)
{
	return m->of_relay ? "relay" : m->of_migration ? "guest" : "all";
}

static void metrics(void)
{
	puts("| metric | type | of | what |\n|---|---|---|---|");
	for (unsigned i = 0; i < metrics_table_len; i++) {
		const struct metric *m = &metrics_table[i];

		printf("| `%s%s` | %s | %s | %s |\n", m->name, sample_suffix(m->type),
		       metric_type_name(m->type), whose(m), m->help);
	}
}

static void probes(void)
{
	puts("| probe | `arg2`, `arg3`, `arg4` |\n|---|---|");
#define ROW(name, numbers) printf("| `%s` | %s |\n", #name, numbers);
	VIA_PROBE_LIST(ROW)
#undef ROW
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "metrics"))
		metrics();
	else if (argc == 2 && !strcmp(argv[1], "probes"))
		probes();
	else
		return 2;
	return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
