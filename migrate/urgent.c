/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * urgent.c -- see urgent.h.
 */
#include "migrate/urgent.h"

#include <sys/resource.h>

#define NICE_FIRST (-20)

void urgent_thread(void)
{
	/* 0 is the calling thread alone: setpriority(2), "C library/kernel differences". */
	(void)setpriority(PRIO_PROCESS, 0, NICE_FIRST);
}
