/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host.c -- what the figures depend on, as the report says it: kernel, CPU, load, libraries.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench/bare.h"
#include "bench/report.h"

/* The value of @key in a file of lines "key : value", into @buf. */
static void find_line(const char *path, const char *key, char *buf, size_t cap)
{
	FILE *f = fopen(path, "re");
	char line[512];

	snprintf(buf, cap, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		char *value = strchr(line, ':');

		if (strncmp(line, key, strlen(key)) != 0 || !value)
			continue;
		value += strspn(value, ": \t");
		value[strcspn(value, "\n")] = '\0';
		snprintf(buf, cap, "%s", value);
		break;
	}
	if (f)
		fclose(f);
}

static unsigned cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

json_t *host_object(unsigned neighbours)
{
	struct utsname u;
	char cpu[128];
	double load = 0;
	json_int_t memory = (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);

	uname(&u);
	getloadavg(&load, 1);
	find_line("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
	return json_pack("{s:s, s:s, s:I, s:I, s:f, s:I}", "kernel", u.release, "cpu", cpu, "cpus",
			 (json_int_t)cpus(), "memory_bytes", memory, "load", load, "neighbours",
			 (json_int_t)neighbours);
}

json_t *host_libraries(void)
{
	json_t *object = json_object();

	for (unsigned i = 0; bare_list[i]; i++) {
		char version[64];

		bare_list[i]->version(version, sizeof(version));
		json_object_set_new(object, bare_list[i]->library, json_string(version));
	}
	return object;
}
