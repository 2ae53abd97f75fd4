/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics.c -- the numbers at hand: left by the migration thread, taken by those that show them.
 *
 * It must never make the migration wait for a reader: both copy under one lock, and format, write
 * and speak to others outside of it.
 */
#include "tools/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/live.h"
#include "tools/metrics_http.h"
#include "tools/metrics_write.h"

/* Between two lines of the file, but at the end and when the phase changes. */
#define LINE_NS VIA_NS_PER_S

struct metrics {
	pthread_mutex_t lock; /* of what follows, until the next comment */
	pthread_cond_t changed;
	struct metrics_sample last;
	struct relay_watch *watch;
	bool unended; /* last.now was seen, and metrics_relay_ended() has not had its end */
	bool stop, line_due;

	struct metrics_sample line; /* the writer's */
	const char *file_name;
	FILE *file;
	struct progress_view *view;
	bool told; /* that it cannot be written */
	pthread_t writer;
	bool writes;
	struct metrics_http *http;
};

/* -- samples -------------------------------------------------------------------------- */

/* Room for @n channels, only ever more. False: no memory, and they are not shown. */
static bool make_room(struct metrics_sample *s, unsigned n)
{
	struct via_channel_stats *channel = s->channel;

	if (n > s->room_for)
		channel = realloc(channel, n * sizeof(*channel));
	if (!channel && n)
		return false;
	s->channel = channel;
	s->room_for = n > s->room_for ? n : s->room_for;
	return true;
}

static void set_channels(struct metrics_sample *s, const struct via_channel_stats *channel,
			 unsigned n)
{
	s->nchannels = 0;
	if (!make_room(s, n))
		return;
	if (n)
		memcpy(s->channel, channel, n * sizeof(*channel));
	s->nchannels = n;
}

static void add_relay(struct metrics_sample *s, const struct relay_result *r)
{
	s->forward_bytes += r->forward_bytes;
	s->back_bytes += r->back_bytes;
	s->packets += r->packets;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * VIA_NS_PER_S + (uint64_t)ts.tv_nsec;
}

/*
 * What is seen of a migration counts until its end is told: between the two the relay shows
 * nothing, and a counter must not fall.
 */
static void look_at_relay(struct metrics *m)
{
	struct relay_result now;

	m->last.carries = m->watch && relay_look(m->watch, &now);
	if (!m->last.carries)
		return;
	m->last.now = now;
	m->unended = true;
}

/* A copy into @s, which is its owner's alone, for as long as he likes. */
static void take(struct metrics *m, struct metrics_sample *s)
{
	struct via_channel_stats *channel = s->channel;
	unsigned room_for = s->room_for;

	pthread_mutex_lock(&m->lock);
	look_at_relay(m);
	*s = m->last;
	s->channel = channel;
	s->room_for = room_for;
	set_channels(s, m->last.channel, m->last.nchannels);
	if (m->unended)
		add_relay(s, &s->now);
	pthread_mutex_unlock(&m->lock);
	s->cpu_ns = cpu_ns();
}

static char *make_page(void *arg, size_t *len)
{
	struct metrics *m = arg;
	struct metrics_sample *s = calloc(1, sizeof(*s)); /* too large for a small stack */
	char *page = NULL;
	FILE *out;

	if (!s)
		return NULL;
	take(m, s);
	out = open_memstream(&page, len);
	if (out) {
		metrics_write_page(s, out);
		if (fclose(out)) {
			free(page);
			page = NULL;
		}
	}
	free(s->channel);
	free(s);
	return page;
}

/* -- the file ------------------------------------------------------------------------- */

static void write_line(struct metrics *m)
{
	struct via_error err = {0};
	struct timespec now;

	take(m, &m->line);
	clock_gettime(CLOCK_REALTIME, &now);
	if (!metrics_write_line(&m->line, (double)now.tv_sec + (double)now.tv_nsec / 1e9,
				m->file) ||
	    m->told)
		return;
	via_fail(&err, via_err_from_errno(errno),
		 "write figures to %s\n%s\nmake room there: lines are missing, the migration goes "
		 "on",
		 m->file_name, strerror(errno));
	progress_say(m->view, &err);
	m->told = true;
}

static void *writer_main(void *arg)
{
	struct metrics *m = arg;
	bool stop = false;

	while (!stop) {
		uint64_t end = via_deadline_in(LINE_NS);
		struct timespec ts = {.tv_sec = (time_t)(end / VIA_NS_PER_S),
				      .tv_nsec = (long)(end % VIA_NS_PER_S)};
		int rc = 0;

		pthread_mutex_lock(&m->lock);
		while (!m->stop && !m->line_due && !rc)
			rc = pthread_cond_timedwait(&m->changed, &m->lock, &ts);
		stop = m->stop;
		m->line_due = false;
		pthread_mutex_unlock(&m->lock);
		write_line(m);
	}
	return NULL;
}

static int open_file(struct metrics *m, const char *name, struct via_error *err)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	m->file = fd >= 0 ? fdopen(fd, "a") : NULL;
	if (m->file)
		return 0;
	if (fd >= 0)
		close(fd);
	return via_fail(err, via_err_from_errno(errno),
			"write figures to %s\n%s\nname a file that this user may write", name,
			strerror(errno));
}

static int start_writer(struct metrics *m, struct via_error *err)
{
	int rc = pthread_create(&m->writer, NULL, writer_main, m);

	m->writes = !rc;
	if (rc)
		return via_fail(err, via_err_from_errno(rc), "write figures\n%s\nraise ulimit -u",
				strerror(rc));
	pthread_setname_np(m->writer, "stats");
	return 0;
}

/* -- its life ------------------------------------------------------------------------- */

static void init(struct metrics *m)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attr);
	pthread_condattr_destroy(&attr);
}

int metrics_start(const struct settings *s, struct progress_view *view, struct relay_watch *watch,
		  struct metrics **out, struct via_error *err)
{
	struct metrics *m;
	int rc = 0;

	*out = NULL;
	if (!s->metrics_listen && !s->stats_file)
		return 0;
	m = calloc(1, sizeof(*m));
	if (!m)
		return via_fail(err, -ENOMEM, "collect figures\nout of memory\nfree some memory");
	init(m);
	m->file_name = s->stats_file;
	m->view = view;
	m->watch = watch;
	m->last.relay = watch;
	if (s->stats_file)
		rc = open_file(m, s->stats_file, err);
	if (!rc && s->metrics_listen)
		rc = metrics_http_start(s->metrics_listen, make_page, m, s->quiet, &m->http, err);
	if (!rc && s->stats_file)
		rc = start_writer(m, err);
	if (rc) {
		metrics_stop(m);
		return rc;
	}
	*out = m;
	return 0;
}

void metrics_progress(struct metrics *m, const struct via_progress *p)
{
	struct metrics_sample *s;

	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	s = &m->last;
	if (!s->migration || s->p.phase != p->phase) {
		m->line_due = true;
		pthread_cond_signal(&m->changed);
	}
	s->migration = true;
	s->p = *p;
	s->p.session = NULL;
	s->p.channel = NULL;
	s->p.postcopy = NULL;
	s->round = p->round;
	if (p->session)
		s->session = *p->session;
	if (p->postcopy) {
		s->postcopy = *p->postcopy;
		s->recoveries = p->postcopy->recoveries;
	}
	set_channels(s, p->channel, p->nchannels);
	pthread_mutex_unlock(&m->lock);
}

/* A migration that failed has shown nothing at its end. */
void metrics_result(struct metrics *m, const struct via_migrate_result *r)
{
	struct metrics_sample *s;

	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	s = &m->last;
	s->migration = true;
	s->outcome = r->outcome;
	s->p.phase = VIA_PHASE_DONE;
	s->p.elapsed_ns = r->total_ns;
	s->p.steps = r->steps;
	s->session = r->session;
	s->postcopy = r->postcopy;
	s->recoveries = r->postcopy.recoveries;
	pthread_mutex_unlock(&m->lock);
}

void metrics_relay_ended(struct metrics *m, const struct relay_result *r)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	add_relay(&m->last, r);
	m->unended = false;
	m->last.now.session = r->session;
	m->last.ended[r->outcome]++;
	m->line_due = true;
	pthread_cond_signal(&m->changed);
	pthread_mutex_unlock(&m->lock);
}

void metrics_stop(struct metrics *m)
{
	if (!m)
		return;
	metrics_http_stop(m->http);
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	pthread_cond_signal(&m->changed);
	pthread_mutex_unlock(&m->lock);
	if (m->writes)
		pthread_join(m->writer, NULL);
	if (m->file)
		fclose(m->file);
	free(m->last.channel);
	free(m->line.channel);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
