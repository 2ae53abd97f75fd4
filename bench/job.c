/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * job.c -- what the two ends of one job do for each other: the connection between them, marks
 * in time, and the far end's result.
 *
 * It must never wait without a limit: a row that hangs is a finding, and ends as one.
 */
#include "bench/job.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/wire.h"
#include "transport/frames.h"

#define PROTOCOL 1u /* changes with the frames below and what they carry */

/* After its stop the far end has so long to come to its end. */
#define STOP_S 20u

/* What the near end saw may have a cause at the far end: so long it waits to hear of it. */
#define CAUSE_NS (2 * VIA_NS_PER_S)

/* Of a connection that another job may have been given. */
#define TRIES 3u

enum frame {
	FRAME_JOB = 1,
	FRAME_DATA,
	FRAME_READY,
	FRAME_MARK,
	FRAME_STOP,
	FRAME_RESULT,
	FRAME_ERROR
};

/* Of this process; for bench_die() alone. */
static struct bench_job *current;

uint64_t bench_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * VIA_NS_PER_S + (uint64_t)t.tv_nsec;
}

static const struct bench_param *find_param(const struct bench_case *c, const char *name)
{
	const struct bench_param *p = c->param;

	while (p->name && strcmp(p->name, name) != 0)
		p++;
	return p->name ? p : NULL;
}

uint64_t bench_param(const struct bench_case *c, const char *name)
{
	const struct bench_param *p = find_param(c, name);

	if (!p)
		bench_die("take a case", "the other end does not know all of it");
	return p->value;
}

bool bench_has_param(const struct bench_case *c, const char *name)
{
	return find_param(c, name);
}

unsigned bench_channels(const struct bench_job *job)
{
	return (unsigned)bench_param(&job->the_case, "channels");
}

void bench_set_bandwidth(struct bench_job *job, uint64_t bytes)
{
	job->result->bytes = bytes;
	job->result->value = (double)bytes / BENCH_GIB / ((double)job->result->ns / 1e9);
}

void bench_extra(struct bench_job *job, const char *name, double value)
{
	struct bench_result *r = job->result;

	if (r->nextras == BENCH_EXTRAS_MAX)
		return;
	snprintf(r->extra[r->nextras].name, sizeof(r->extra[0].name), "%s", name);
	r->extra[r->nextras++].value = value;
}

/* -- frames ---------------------------------------------------------------------------- */

static int post(struct bench_job *job, enum frame type, const void *payload, size_t len,
		struct via_error *err)
{
	int rc = via_control_post(job->control, (uint16_t)type, payload, len);

	if (rc)
		return via_fail(err, rc, "tell the other end\n%s\nlook at it", via_err_text(rc));
	return 0;
}

static int flush(struct bench_job *job, struct via_error *err)
{
	struct via_wait wait = {via_deadline_in(BENCH_STEP_NS), -1};

	return via_control_flush(job->control, &wait, err);
}

static void put_double(struct via_wire *w, double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	via_wire_put_u64(w, bits);
}

static double get_double(struct via_wire *w)
{
	uint64_t bits = via_wire_get_u64(w);
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* The far end's cause, as it sent it. */
static int take_error(const struct via_control_frame *f, struct via_error *err)
{
	struct via_wire w = via_wire_reader(f->payload, f->len);
	struct via_error e = {.code = -(int)via_wire_get_u32(&w)};

	via_wire_get_str(&w, e.what, sizeof(e.what));
	via_wire_get_str(&w, e.seen, sizeof(e.seen));
	via_wire_get_str(&w, e.remedy, sizeof(e.remedy));
	if (via_wire_finish(&w) || e.code >= 0)
		return via_fail(err, -EPROTO,
				"hear of the far end\nno message of ours\n"
				"have the same version there");
	return via_fail(err, e.code, "far end: %.140s\n%s\n%s", e.what,
			e.seen[0] ? e.seen : via_err_text(e.code), e.remedy);
}

static int hear(struct bench_job *job, enum frame type, struct via_control_frame *f,
		struct via_error *err)
{
	struct via_wait wait = {via_deadline_in(BENCH_STEP_NS), -1};
	int rc = via_control_receive(job->control, &wait, f, err);

	if (rc == -EAGAIN)
		return via_fail(err, -ETIMEDOUT,
				"wait for the other end\nnothing for %llu s\nlook at it",
				(unsigned long long)(BENCH_STEP_NS / VIA_NS_PER_S));
	if (rc)
		return rc;
	if (f->type == FRAME_ERROR)
		return take_error(f, err);
	if (f->type != type)
		return via_fail(err, -EPROTO,
				"hear of the other end\na message of type %u, not %u\n"
				"have the same version there",
				f->type, (unsigned)type);
	return 0;
}

int bench_send(struct bench_job *job, const void *buf, size_t len, struct via_error *err)
{
	int rc = post(job, FRAME_DATA, buf, len, err);

	return rc ? rc : flush(job, err);
}

int bench_receive(struct bench_job *job, void *buf, size_t cap, size_t *len, struct via_error *err)
{
	struct via_control_frame f;
	int rc = hear(job, FRAME_DATA, &f, err);

	if (rc)
		return rc;
	if (f.len > cap)
		return via_fail(err, -EPROTO,
				"hear of the other end\n%zu bytes, at most %zu are known\n"
				"have the same version there",
				f.len, cap);
	memcpy(buf, f.payload, f.len);
	*len = f.len;
	return 0;
}

/* -- near ------------------------------------------------------------------------------- */

int bench_wait_ready(struct bench_job *job, struct via_error *err)
{
	struct via_control_frame f;

	return hear(job, FRAME_READY, &f, err);
}

/* What CPU time the far end has used. */
static int mark(struct bench_job *job, uint64_t *far_cpu_ns, struct via_error *err)
{
	struct via_control_frame f;
	struct via_wire w;
	int rc = post(job, FRAME_MARK, NULL, 0, err);

	if (!rc)
		rc = hear(job, FRAME_MARK, &f, err);
	if (rc)
		return rc;
	w = via_wire_reader(f.payload, f.len);
	*far_cpu_ns = via_wire_get_u64(&w);
	return via_wire_finish(&w) ? via_fail(err, -EPROTO,
					      "hear of the far end\nno mark\n"
					      "have the same version there")
				   : 0;
}

int bench_begin(struct bench_job *job, struct via_error *err)
{
	int rc = mark(job, &job->far_cpu_ns, err);

	job->near_cpu_ns = bench_cpu_ns();
	job->begun_ns = via_now_ns();
	return rc;
}

int bench_end(struct bench_job *job, struct via_error *err)
{
	struct bench_result *r = job->result;
	uint64_t far_cpu_ns;
	int rc;

	r->ns = via_now_ns() - job->begun_ns;
	r->near_cpu_ns = bench_cpu_ns() - job->near_cpu_ns;
	rc = mark(job, &far_cpu_ns, err);
	if (!rc)
		r->far_cpu_ns = far_cpu_ns - job->far_cpu_ns;
	return rc;
}

int bench_stop(struct bench_job *job, struct via_error *err)
{
	int rc = post(job, FRAME_STOP, NULL, 0, err);

	return rc ? rc : flush(job, err);
}

static int take_result(struct bench_job *job, struct via_error *err)
{
	struct bench_result *r = job->result;
	struct via_hist h = {0};
	struct via_control_frame f;
	struct via_wire w;
	int rc = hear(job, FRAME_RESULT, &f, err);

	if (rc)
		return rc;
	w = via_wire_reader(f.payload, f.len);
	for (uint32_t n = via_wire_get_u32(&w); n && !via_wire_status(&w); n--) {
		char name[sizeof(r->extra[0].name)];

		via_wire_get_str(&w, name, sizeof(name));
		bench_extra(job, name, get_double(&w));
	}
	h.count = via_wire_get_u64(&w);
	h.sum = via_wire_get_u64(&w);
	h.min = via_wire_get_u64(&w);
	h.max = via_wire_get_u64(&w);
	for (unsigned i = 0; h.count && i < VIA_HIST_BUCKETS; i++)
		h.bucket[i] = via_wire_get_u64(&w);
	via_hist_merge(&r->latency_ns, &h);
	for (uint32_t n = via_wire_get_u32(&w); n && !via_wire_status(&w); n--) {
		struct bench_sample s;

		for (unsigned c = 0; c < BENCH_COLUMNS; c++)
			s.value[c] = get_double(&w);
		if (r->nsamples < BENCH_SAMPLES_MAX)
			r->sample[r->nsamples++] = s;
	}
	return via_wire_finish(&w) ? via_fail(err, -EPROTO,
					      "hear of the far end\nno result\n"
					      "have the same version there")
				   : 0;
}

/* Returns when the far end has taken it. */
static int send_job(struct bench_job *job, struct via_error *err)
{
	uint8_t buf[2048];
	struct via_wire w = via_wire_writer(buf, sizeof(buf));
	const struct bench_param *p = job->the_case.param;
	struct via_control_frame f;
	uint8_t n = 0;
	int rc;

	while (p[n].name)
		n++;
	via_wire_put_u32(&w, PROTOCOL);
	via_wire_put_str(&w, job->row->name);
	via_wire_put_u8(&w, job->bare);
	via_wire_put_str(&w, job->fabric);
	via_wire_put_u64(&w, job->run_ns);
	via_wire_put_u64(&w, job->memory);
	via_wire_put_u8(&w, n);
	for (; p->name; p++) {
		via_wire_put_str(&w, p->name);
		via_wire_put_u64(&w, p->value);
	}
	rc = post(job, FRAME_JOB, buf, w.pos, err);
	return rc ? rc : hear(job, FRAME_JOB, &f, err);
}

/* The far end's cause, when it is a better one than ours. */
static void prefer_cause(struct bench_job *job, struct via_error *err)
{
	struct via_wait wait = {via_deadline_in(CAUSE_NS), -1};
	enum via_scope scope = via_err_scope(err->code);
	struct via_control_frame f;
	struct via_error cause = {0};

	if (scope != VIA_SCOPE_CHANNEL && err->code != -ETIMEDOUT)
		return;
	while (!via_control_receive(job->control, &wait, &f, NULL))
		if (f.type == FRAME_ERROR) {
			take_error(&f, &cause);
			*err = cause;
			return;
		}
}

static int try_to_hand_over(struct bench_job *job, struct via_error *err)
{
	struct via_wait wait = {via_deadline_in(BENCH_STEP_NS), -1};
	int rc = via_control_connect(job->address, &job->credentials, &wait, &job->control, err);

	if (rc)
		return rc;
	rc = send_job(job, err);
	if (!rc)
		return 0;
	via_control_close(job->control);
	job->control = NULL;
	return rc;
}

/*
 * A far end whose near end has died may take this connection for the session that it waits for, and
 * refuse it. The next one will not.
 */
static int hand_over(struct bench_job *job, struct via_error *err)
{
	struct via_error last = {0};
	int rc = -EPROTO;

	for (unsigned i = 0; i < TRIES && (rc == -EPROTO || rc == -ECONNRESET); i++) {
		last = (struct via_error){0};
		rc = try_to_hand_over(job, &last);
	}
	return rc ? via_error_pass(err, &last) : 0;
}

int job_near(struct bench_job *job, struct via_error *err)
{
	const struct bench_way *way = job->bare ? &job->row->bare : &job->row->ours;
	struct bench_result *r = job->result;
	int rc;

	current = job;
	rc = hand_over(job, err);
	if (rc)
		return rc;
	rc = way->near(job, err);
	if (!rc)
		rc = take_result(job, err);
	if (!rc && r->value == 0)
		r->value = (double)via_hist_permille(&r->latency_ns, 500) / 1e3;
	if (rc)
		prefer_cause(job, err);
	via_control_close(job->control);
	return rc;
}

/* -- far --------------------------------------------------------------------------------- */

bool bench_stopped(const struct bench_job *job)
{
	return atomic_load_explicit(&job->stopped, memory_order_relaxed);
}

void bench_wait_stopped(const struct bench_job *job)
{
	struct pollfd p = {.fd = job->stop_fd, .events = POLLIN};

	while (!bench_stopped(job))
		(void)poll(&p, 1, -1);
}

static void stop_far(struct bench_job *job)
{
	struct via_session *session;

	alarm(STOP_S); /* ends this process, if it does not do so by itself */
	atomic_store(&job->stopped, true);
	eventfd_write(job->stop_fd, 1);
	pthread_mutex_lock(&job->session_lock);
	session = job->session;
	if (session)
		via_session_wake(session);
	pthread_mutex_unlock(&job->session_lock);
}

static void *answer_marks(void *arg)
{
	struct bench_job *job = arg;
	struct via_wait wait = {VIA_NEVER, job->quit_fd};
	struct via_control_frame f;
	uint8_t buf[8];

	while (!via_control_receive(job->control, &wait, &f, NULL) && f.type == FRAME_MARK) {
		struct via_wire w = via_wire_writer(buf, sizeof(buf));

		via_wire_put_u64(&w, bench_cpu_ns());
		(void)via_control_post(job->control, FRAME_MARK, buf, w.pos);
	}
	stop_far(job); /* told to, or the near end is gone */
	return NULL;
}

int bench_ready(struct bench_job *job, struct via_error *err)
{
	int rc = post(job, FRAME_READY, NULL, 0, err);

	if (rc)
		return rc;
	rc = pthread_create(&job->answerer, NULL, answer_marks, job);
	if (rc)
		return via_fail(err, via_err_from_errno(rc),
				"serve a benchmark\nno more threads\nraise ulimit -u");
	job->has_answerer = true;
	return 0;
}

/* The connection is the caller's again. */
static void end_answerer(struct bench_job *job)
{
	if (!job->has_answerer)
		return;
	eventfd_write(job->quit_fd, 1);
	pthread_join(job->answerer, NULL);
	job->has_answerer = false;
}

int bench_over(struct bench_job *job, struct via_error *err)
{
	end_answerer(job);
	return post(job, FRAME_READY, NULL, 0, err);
}

static int send_result(struct bench_job *job, struct via_error *err)
{
	const struct bench_result *r = job->result;
	const struct via_hist *h = &r->latency_ns;
	size_t cap = 4096 + 8 * VIA_HIST_BUCKETS + r->nsamples * sizeof(r->sample[0]);
	uint8_t *buf = malloc(cap);
	struct via_wire w = via_wire_writer(buf, cap);
	int rc;

	if (!buf)
		return via_fail(err, -ENOMEM, "report\nout of memory\nfree some");
	via_wire_put_u32(&w, r->nextras);
	for (unsigned i = 0; i < r->nextras; i++) {
		via_wire_put_str(&w, r->extra[i].name);
		put_double(&w, r->extra[i].value);
	}
	via_wire_put_u64(&w, h->count);
	via_wire_put_u64(&w, h->sum);
	via_wire_put_u64(&w, h->min);
	via_wire_put_u64(&w, h->max);
	for (unsigned i = 0; h->count && i < VIA_HIST_BUCKETS; i++)
		via_wire_put_u64(&w, h->bucket[i]);
	via_wire_put_u32(&w, r->nsamples);
	for (unsigned i = 0; i < r->nsamples; i++)
		for (unsigned c = 0; c < BENCH_COLUMNS; c++)
			put_double(&w, r->sample[i].value[c]);
	rc = post(job, FRAME_RESULT, buf, w.pos, err);
	free(buf);
	return rc ? rc : flush(job, err);
}

static void send_error(struct bench_job *job, const struct via_error *e)
{
	uint8_t buf[1024];
	struct via_wire w = via_wire_writer(buf, sizeof(buf));

	via_wire_put_u32(&w, (uint32_t)-e->code);
	via_wire_put_str(&w, e->what);
	via_wire_put_str(&w, e->seen);
	via_wire_put_str(&w, e->remedy);
	(void)post(job, FRAME_ERROR, buf, w.pos, NULL);
}

/* Where the names of a job's parameters are kept. */
struct names {
	char param[BENCH_PARAMS_MAX][32];
};

static int take_job(struct bench_job *job, struct names *names, struct via_error *err)
{
	struct via_control_frame f;
	char row[32], fabric[sizeof(job->fabric)];
	struct via_wire w;
	unsigned n;
	int rc = hear(job, FRAME_JOB, &f, err);

	if (rc)
		return rc;
	w = via_wire_reader(f.payload, f.len);
	if (via_wire_get_u32(&w) != PROTOCOL)
		return via_fail(err, -EPROTONOSUPPORT,
				"serve a benchmark\nthe near end is of another version\n"
				"have the same version on both hosts");
	via_wire_get_str(&w, row, sizeof(row));
	job->bare = via_wire_get_u8(&w);
	via_wire_get_str(&w, fabric, sizeof(fabric));
	if (!job->fabric[0])
		memcpy(job->fabric, fabric, sizeof(fabric));
	job->run_ns = via_wire_get_u64(&w);
	job->memory = via_wire_get_u64(&w);
	n = via_wire_get_u8(&w);
	for (unsigned i = 0; i < n && i < BENCH_PARAMS_MAX; i++) {
		via_wire_get_str(&w, names->param[i], sizeof(names->param[i]));
		job->the_case.param[i] =
			(struct bench_param){names->param[i], via_wire_get_u64(&w)};
	}
	for (unsigned i = 0; bench_rows[i]; i++)
		if (!strcmp(bench_rows[i]->name, row))
			job->row = bench_rows[i];
	if (via_wire_finish(&w) || !job->row)
		return via_fail(err, -EPROTO,
				"serve a benchmark\na job that is not known\n"
				"have the same version on both hosts");
	rc = post(job, FRAME_JOB, NULL, 0, err);
	return rc ? rc : flush(job, err);
}

static int run_far(struct bench_job *job, struct via_error *err)
{
	const struct bench_way *way;
	struct names names;
	int rc = take_job(job, &names, err);

	if (rc)
		return rc;
	way = job->bare ? &job->row->bare : &job->row->ours;
	alarm((unsigned)(job_limit_ns(job) / VIA_NS_PER_S));
	rc = way->far(job, err);
	end_answerer(job);
	return rc ? rc : send_result(job, err);
}

int job_far(struct bench_job *job, struct via_error *err)
{
	struct via_wait wait = {via_deadline_in(BENCH_STEP_NS), -1};
	int rc = via_control_accept(job->listen_fd, &job->credentials, &wait, BENCH_STEP_NS,
				    &job->control, err);

	if (rc)
		return rc;
	current = job;
	job->far = true;
	job->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	job->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&job->session_lock, NULL);
	rc = job->stop_fd < 0 || job->quit_fd < 0
		     ? via_fail(err, -ENOMEM,
				"serve a benchmark\nno more open files\n"
				"raise ulimit -n")
		     : run_far(job, err);
	if (rc) {
		send_error(job, err);
		(void)flush(job, NULL);
	}
	via_control_close(job->control);
	return rc;
}

uint64_t job_limit_ns(const struct bench_job *job)
{
	return 120 * VIA_NS_PER_S + 20 * job->run_ns;
}

/* -- both ----------------------------------------------------------------------------------- */

void bench_die(const char *what, const char *seen)
{
	struct via_error err = {0};

	via_fail(&err, -EIO, "%s\n%s\nlook at `viaduct fabrics`", what, seen);
	if (!current->far) {
		if (current->control)
			prefer_cause(current, &err);
		current->result->error = err;
		_exit(1);
	}
	send_error(current, &err);
	if (current->has_answerer)
		pthread_join(current->answerer, NULL); /* it sends, until the near end has gone */
	else
		(void)flush(current, NULL);
	_exit(1);
}
