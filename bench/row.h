/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * row.h -- private to bench/: what a row of the benchmark is, and what its two ends can use.
 *
 * A row has cases (sizes, channels), and each case is measured in two ways: ours, through the
 * engine, and bare, straight on the fabric's library. One measurement of one way is a job: a near
 * end, which drives it and keeps the time, and a far end. Each end of each job is a process of its
 * own: everything is cold, CPU time is its own, and a library that dies takes one job with it.
 *
 *   near                                  far
 *   (connection for the job is there: bench_send() and bench_receive() swap what is needed)
 *                                         bench_ready()
 *   bench_wait_ready()                    works until bench_stopped()
 *   bench_begin()  -- timed --  bench_end()
 *   bench_stop()                          returns
 *   returns                               (what it put into its result goes to the near end)
 */
#ifndef VIA_BENCH_ROW_H
#define VIA_BENCH_ROW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/hist.h"
#include "transport/transport.h"

#define BENCH_REPEAT_MAX  100u
#define BENCH_PARAMS_MAX  6u
#define BENCH_EXTRAS_MAX  24u
#define BENCH_SAMPLES_MAX 2048u
#define BENCH_COLUMNS     6u
#define BENCH_GIB         ((double)(UINT64_C(1) << 30))

/* How long one end waits for the other's next step. */
#define BENCH_STEP_NS (30 * VIA_NS_PER_S)

struct bench_param {
	const char *name; /* "size"; NULL ends a list */
	uint64_t value;
};

struct bench_case {
	struct bench_param param[BENCH_PARAMS_MAX + 1];
};

/* One point of a job over time, for rows that have such: times in ms, the rest as the row says. */
struct bench_sample {
	double value[BENCH_COLUMNS];
};

/* What one job found. The near end gets the far one's latency_ns, extra and samples as well. */
struct bench_result {
	struct via_error error; /* code 0: none */
	double value;           /* in the row's unit; left alone: the median of latency_ns, us */
	uint64_t bytes;         /* moved between begin and end; 0: this row moves none */
	uint64_t ns;            /* between begin and end */
	uint64_t near_cpu_ns, far_cpu_ns;
	struct via_hist latency_ns; /* empty: this row has none */
	unsigned nextras;
	struct {
		char name[32];
		double value;
	} extra[BENCH_EXTRAS_MAX];
	unsigned nsamples;
	struct bench_sample sample[BENCH_SAMPLES_MAX];
	char fabric[256]; /* the spec in use; ours sets it, and bare is given it */
	char device[64];
};

struct bench_row;
struct via_fabric_spec;

struct bench_job {
	const struct bench_row *row;
	bool bare;
	bool far;
	struct bench_case the_case;
	char fabric[256]; /* as asked for; of a bare job the one that ours has used. Far: its own
			   * --fabric, where there is one */
	uint64_t run_ns;  /* how long to measure, where that is the row's choice */
	uint64_t memory;  /* bytes that were asked for; 0: the row's own choice */
	struct via_credentials credentials;
	const char *address;         /* near: where the far end listens, for sessions of ours */
	int listen_fd;               /* far: of that */
	struct via_control *control; /* between the two ends */
	struct bench_result *result;
	/* far: the thread that answers the near end's marks */
	pthread_t answerer;
	bool has_answerer;
	_Atomic bool stopped;
	int stop_fd; /* eventfd, readable once stopped */
	int quit_fd; /* eventfd: the answerer ends */
	pthread_mutex_t session_lock;
	struct via_session *session; /* to be woken when stopped; under session_lock */
	/* near: at bench_begin() */
	uint64_t begun_ns, near_cpu_ns, far_cpu_ns;
};

/* One end of one way. 0, or a negated code with @err set. */
typedef int bench_end_fn(struct bench_job *job, struct via_error *err);

struct bench_way {
	bench_end_fn *near, *far;
};

struct bench_row {
	const char *name;
	const char *summary; /* one line for `viaduct bench list` */
	const char *unit;
	bool higher_is_better;
	const struct bench_case *cases;
	unsigned ncases;
	struct bench_way ours, bare;
	/*
	 * In words what the bare way does for this case over @fabric, into @buf, which it returns.
	 * Says it all where the libraries differ: "fi_write, 64 in flight, spinning".
	 */
	const char *(*bare_is)(const struct bench_case *c, const char *fabric, char *buf,
			       size_t cap);
	const char *columns[BENCH_COLUMNS]; /* names of struct bench_sample's; NULL ends */
};

/* rows.c: NULL-terminated. */
extern const struct bench_row *const bench_rows[];

/* The value of parameter @name of @c; it has one. */
uint64_t bench_param(const struct bench_case *c, const char *name);
bool bench_has_param(const struct bench_case *c, const char *name);
/* The one called `channels`, which most rows have. */
unsigned bench_channels(const struct bench_job *job);

/* -- for the ends of a job (job.c) ------------------------------------------------- */

/* Send bytes to the other end, before far is ready; at most 64 KiB. */
int bench_send(struct bench_job *job, const void *buf, size_t len, struct via_error *err);
/* Receive what it sent: at most @cap bytes, their number to *@len. Waits BENCH_STEP_NS. */
int bench_receive(struct bench_job *job, void *buf, size_t cap, size_t *len, struct via_error *err);

/* Far: from now on the near end may begin, and bench_stopped() has a meaning. */
int bench_ready(struct bench_job *job, struct via_error *err);
/* Far, once stopped: another ready, for which the near end waits before it stops working too. */
int bench_over(struct bench_job *job, struct via_error *err);
/* Far: has the near end stopped this job, or gone? Any thread. */
bool bench_stopped(const struct bench_job *job);
/* Far: sleep until then. */
void bench_wait_stopped(const struct bench_job *job);

/* Near: wait for the far end's bench_ready(). */
int bench_wait_ready(struct bench_job *job, struct via_error *err);
/* Near: the timed part begins and ends here. CPU time of both processes is taken as well. */
int bench_begin(struct bench_job *job, struct via_error *err);
int bench_end(struct bench_job *job, struct via_error *err);
/* Near: have the far end return. */
int bench_stop(struct bench_job *job, struct via_error *err);

/* Set bytes, and from them and the time between begin and end the value, in GiB/s. */
void bench_set_bandwidth(struct bench_job *job, uint64_t bytes);
/* Set another figure of the result: part of the JSON, as a median over the repeats. */
void bench_extra(struct bench_job *job, const char *name, double value);
/* What CPU time this process has used, all threads together. */
uint64_t bench_cpu_ns(void);

/* A failure in the middle of a loop that returns no errors. Ends this process. Any thread. */
void bench_die(const char *what, const char *seen) __attribute__((noreturn));

/* -- a session of ours (ours.c) ------------------------------------------------------ */

/* What both ends say: fabric, credentials, and how many channels of each kind. */
struct via_session_config bench_session_config(const struct bench_job *job, unsigned multifd,
					       unsigned preempt);
/* The job's fabric as a session would open it: it knows the local address. Not auto. -EINVAL */
int bench_fabric_spec(const struct bench_job *job, struct via_fabric_spec *spec,
		      struct via_error *err);

/*
 * Near: a session with @len bytes of @memory as its only region, of 4 KiB pages; notes the fabric
 * in the result. No channel is open yet.
 */
int bench_connect(struct bench_job *job, const struct via_session_config *config, void *memory,
		  size_t len, struct via_session **session, struct via_error *err);
/* What carries @session, into the result: the spec and the first device. */
void bench_note_fabric(struct bench_job *job, struct via_session *session);
/*
 * Near: such a session to a far end that is ready, with as many multifd channels as parameter
 * `channels` says, and their senders. @memory NULL: there was none: -ENOMEM
 */
int bench_open_senders(struct bench_job *job, void *memory, size_t len,
		       struct via_session **session, struct via_error *err);
/* Far: the other end of it, with memory of its own, *@memory of *@len bytes, all of it touched. */
int bench_accept(struct bench_job *job, const struct via_session_config *config,
		 struct via_session **session, void **memory, size_t *len, struct via_error *err);
/* Far: receive on main, and so answer drains, until stopped. */
int bench_serve(struct bench_job *job, struct via_session *session, struct via_error *err);

/*
 * Near: rounds of writes over parameter `channels` of the case, for run_ns: *result is in GiB/s.
 * Each begins with @begin, which returns the round's work and how many bytes it has. @memory (NULL:
 * there was none) stays mapped.
 */
typedef const struct via_work *bench_begin_fn(void *arg, uint64_t *bytes);
int bench_write_rounds(struct bench_job *job, void *memory, size_t len, bench_begin_fn *begin,
		       void *arg, struct via_error *err);
/* Far: the end of a session whose multifd channels are written, until stopped. */
int bench_be_written(struct bench_job *job, struct via_error *err);

/* @len bytes, all of them touched and not zero. NULL: no memory. From mmap(2). */
void *bench_memory(size_t len);

#endif
