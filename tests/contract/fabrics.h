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
	"fault+sim",
	"fault+sim,seed=7,fault-delay=50",
};

static const char *const real[] = {
	"ofi:tcp", "ofi:shm", "ucx:tcp", "ucx:shm", "verbs",
};

/*
 * What a fabric cannot do with both ends in one process, as most cases have them. It runs in the
 * cases of two processes, and wherever two processes migrate.
 */
static const struct {
	const char *spec, *case_name, *why;
} impossible[] = {
#define SHM_WHY                                                                                    \
	"within one process libfabric's shm ends share their mappings by pointer, and one that "   \
	"closes takes the other's with it; the two_processes cases enable the same between two"
	{"ofi:shm", "abort_outstanding", SHM_WHY},
	{"ofi:shm", "bad_address", SHM_WHY},
	{"ofi:shm", "close_orders", SHM_WHY},
	{"ofi:shm", "dereg_refuses", SHM_WHY},
	{"ofi:shm", "dereg_spares", SHM_WHY},
	{"ofi:shm", "nobody_there", SHM_WHY},
	{"ofi:shm", "peer_killed",
	 "a process that is killed inside libfabric's shm leaves a spinlock of the shared memory "
	 "held, and its peer spins for ever; the case runs on ofi:tcp"},
#undef SHM_WHY
};

#define NIMPOSSIBLE (sizeof(impossible) / sizeof(impossible[0]))

#define NSIMULATED (sizeof(simulated) / sizeof(simulated[0]))
#define NREAL      (sizeof(real) / sizeof(real[0]))

#endif
