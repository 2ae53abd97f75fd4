/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fabrics.h -- the fabrics that the suite runs against. A new back end is a new line.
 */
#ifndef TESTS_CONTRACT_FABRICS_H
#define TESTS_CONTRACT_FABRICS_H

/* Of one process, seeded: these also run under ThreadSanitizer and valgrind. */
static const char *const simulated[] = {
	"sim",
	"sim,seed=2,delay=60,split=16",
	"sim,seed=3,delay=0,split=1,reorder=no",
	"sim,seed=4,silent=yes",
	"sim,seed=5,delay=30,tx-depth=1,rx-depth=1",
	"sim,seed=6,delay=200,split=3,tx-depth=256,rx-depth=256,silent=yes",
};

static const char *const real[] = {
	"ofi:tcp",
	"ofi:shm",
};

#define NSIMULATED (sizeof(simulated) / sizeof(simulated[0]))
#define NREAL      (sizeof(real) / sizeof(real[0]))

#endif
