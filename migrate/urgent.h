/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * urgent.h -- threads that a vCPU waits for.
 */
#ifndef VIA_MIGRATE_URGENT_H
#define VIA_MIGRATE_URGENT_H

/*
 * The calling thread answers page faults: let it run before others that want its CPU, where this
 * process may (CAP_SYS_NICE, or RLIMIT_NICE of 40). Else it goes on as it was. For a thread that
 * sleeps most of the time: on a host whose CPUs are all busy it decides how long a vCPU stands still.
 */
void urgent_thread(void);

#endif
