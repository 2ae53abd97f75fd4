/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reach.h -- via_fabric_info.reach of fabrics that stay on one host.
 */
#ifndef VIA_FABRICS_REACH_H
#define VIA_FABRICS_REACH_H

#include <stddef.h>

/*
 * One text for all processes that share memory with this one, into @buf of @cap bytes (96 are
 * enough): the same boot, and the namespaces that shared memory and reading each other's memory
 * depend on (boot_id of proc(5), namespaces(7)). Empty where /proc is not mounted. Any thread.
 */
void via_reach_local(char *buf, size_t cap);

#endif
