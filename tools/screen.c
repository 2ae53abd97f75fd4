/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * screen.c -- the lines of a live view, made of a snapshot and of nothing else.
 *
 * It must never let through what a peer or a device may have put into its name: a byte that is no
 * printable ASCII would command the terminal. Invariant: no line is wider than SCREEN_COLUMNS,
 * whatever the numbers are.
 */
#include "tools/screen.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "tools/run.h"

#define BAR_COLUMNS   46u
#define LABEL_COLUMNS 12u
#define CELL_COLUMNS  40u /* two columns of channels */
#define RAILS_SHOWN   4u
#define SHORT         32u /* bytes of a formatted number */

enum style { PLAIN, BOLD, DIM, GOOD, WARN };

static const char *const sgr[] = {
	[BOLD] = "\033[1m", [DIM] = "\033[2m", [GOOD] = "\033[32m", [WARN] = "\033[33m"};

struct page {
	char *buf;
	size_t len, begun; /* of the line at hand */
	unsigned column, lines;
	bool color;
};

/* -- lines ---------------------------------------------------------------------------- */

/* There is always room for the end of a line. */
static void put_bytes(struct page *p, const char *bytes, size_t len)
{
	if (p->len + len + sizeof("\033[0m\n") > SCREEN_LEN)
		return;
	memcpy(p->buf + p->len, bytes, len);
	p->len += len;
}

static void put_text(struct page *p, enum style style, const char *text)
{
	bool dressed = p->color && style != PLAIN && *text && p->column < SCREEN_COLUMNS;

	if (dressed)
		put_bytes(p, sgr[style], strlen(sgr[style]));
	for (; *text && p->column < SCREEN_COLUMNS; text++, p->column++) {
		bool shown = *text >= ' ' && *text <= '~';

		put_bytes(p, shown ? text : "?", 1);
	}
	if (dressed)
		put_bytes(p, "\033[0m", 4);
}

static void __attribute__((format(printf, 3, 4)))
put(struct page *p, enum style style, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	put_text(p, style, text);
}

static void put_blank(struct page *p, unsigned upto)
{
	while (p->column < upto && p->column < SCREEN_COLUMNS)
		put_text(p, PLAIN, " ");
}

static void end_line(struct page *p)
{
	if (p->lines < SCREEN_LINES) {
		p->buf[p->len++] = '\n';
		p->begun = p->len;
		p->lines++;
	}
	p->len = p->begun;
	p->buf[p->len] = '\0';
	p->column = 0;
}

static void put_label(struct page *p, const char *label)
{
	put(p, DIM, "%s", label);
	put_blank(p, LABEL_COLUMNS);
}

static void begin(struct page *p, char *buf, bool color)
{
	*p = (struct page){.buf = buf, .color = color};
	buf[0] = '\0';
}

/* -- numbers --------------------------------------------------------------------------- */

/* "410 us", "12.3 ms", "4.1 s", "2 min 3 s" */
static const char *format_time(uint64_t ns, char *buf)
{
	if (ns < VIA_NS_PER_MS)
		snprintf(buf, SHORT, "%.0f us", (double)ns / 1e3);
	else if (ns < VIA_NS_PER_S)
		snprintf(buf, SHORT, ns < 100 * VIA_NS_PER_MS ? "%.1f ms" : "%.0f ms",
			 (double)ns / 1e6);
	else if (ns < 120 * VIA_NS_PER_S)
		snprintf(buf, SHORT, "%.1f s", (double)ns / 1e9);
	else
		snprintf(buf, SHORT, "%llu min %llu s",
			 (unsigned long long)(ns / (60 * VIA_NS_PER_S)),
			 (unsigned long long)(ns / VIA_NS_PER_S % 60));
	return buf;
}

static const char *format_rate(uint64_t rate, char *buf)
{
	size_t len = strlen(format_bytes(rate, buf, SHORT));

	snprintf(buf + len, SHORT - len, "/s");
	return buf;
}

static void put_quantiles(struct page *p, const struct via_hist *h)
{
	static const struct {
		const char *name;
		unsigned permille;
	} shown[] = {{"p50", 500}, {"p90", 900}, {"p99", 990}, {"p99.9", 999}};
	char time[SHORT];

	for (unsigned i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		put(p, PLAIN, "%s %s, ", shown[i].name,
		    format_time(via_hist_permille(h, shown[i].permille), time));
	put(p, PLAIN, "max %s", format_time(h->max, time));
}

/* -- parts of both screens --------------------------------------------------------------- */

static void put_title(struct page *p, const char *title, const char *state, enum style style,
		      uint64_t elapsed_ns)
{
	char time[SHORT] = "", right[96];
	unsigned width;

	if (elapsed_ns)
		format_time(elapsed_ns, time);
	width = (unsigned)snprintf(right, sizeof(right), "%s%s%s", state, *time ? ", " : "", time);
	put(p, BOLD, "viaduct: %.*s", (int)(SCREEN_COLUMNS - width - sizeof("viaduct: ")), title);
	put_blank(p, SCREEN_COLUMNS - width);
	put(p, style, "%s", right);
	end_line(p);
}

static void put_session(struct page *p, const struct via_session_stats *s)
{
	if (!s || !s->fabric[0]) {
		put(p, DIM, "no session yet");
	} else {
		put(p, DIM, "%s, %s", s->fabric, s->security);
		if (s->peer[0])
			put(p, DIM, ", peer %s", s->peer);
	}
	end_line(p);
}

static void put_rails(struct page *p, const struct via_session_stats *s, const uint64_t *rate)
{
	unsigned n = s && s->nrails < RAILS_SHOWN ? s->nrails : RAILS_SHOWN;
	char bytes[SHORT], speed[SHORT];

	for (unsigned i = 0; s && i < n; i++) {
		if (i == n - 1 && s->nrails > n) {
			put(p, PLAIN, "and %u rails more", s->nrails - i);
			break;
		}
		put(p, PLAIN, "%-13.13s %10s", s->rail[i].device,
		    format_bytes(s->rail[i].bytes, bytes, SHORT));
		if (rate)
			put(p, PLAIN, " %12s", format_rate(rate[i], speed));
		if (i % 2 || i == n - 1)
			end_line(p);
		else
			put_blank(p, CELL_COLUMNS);
	}
	if (p->column)
		end_line(p);
}

/* -- a migration ------------------------------------------------------------------------ */

static bool in_postcopy(const struct via_progress *p)
{
	return p->phase == VIA_PHASE_POSTCOPY || p->phase == VIA_PHASE_PAUSED;
}

static void put_state(struct page *p, const struct screen *s)
{
	const struct via_progress *now = s->progress;
	enum style style = now->phase == VIA_PHASE_PAUSED ? WARN : GOOD;
	char state[48];

	if (now->phase == VIA_PHASE_PRECOPY)
		snprintf(state, sizeof(state), "%s, round %u", progress_phase_name(now->phase),
			 now->round);
	else
		snprintf(state, sizeof(state), "%s", progress_phase_name(now->phase));
	put_title(p, s->title, state, style, now->elapsed_ns);
}

static void put_remaining(struct page *p, const struct via_progress *now)
{
	uint64_t left = now->remaining < now->memory ? now->remaining : now->memory;
	double done = now->memory ? 1 - (double)left / (double)now->memory : 0;
	unsigned full = (unsigned)(done * BAR_COLUMNS);
	char bar[BAR_COLUMNS + 1], bytes[SHORT];

	if (now->phase == VIA_PHASE_SETUP)
		full = 0;
	memset(bar, '#', full);
	memset(bar + full, '.', BAR_COLUMNS - full);
	bar[BAR_COLUMNS] = '\0';
	put_label(p, in_postcopy(now) ? "lacking" : "remaining");
	put(p, PLAIN, "[");
	put(p, GOOD, "%s", bar);
	put(p, PLAIN, "] %s", format_bytes(left, bytes, SHORT));
	end_line(p);
	put_label(p, "");
	put(p, PLAIN, "of %s of guest RAM, sent ", format_bytes(now->memory, bytes, SHORT));
	put(p, PLAIN, "%s", format_bytes(now->sent, bytes, SHORT));
	end_line(p);
}

static void put_rates(struct page *p, const struct via_progress *now)
{
	char rate[SHORT];
	bool behind = now->dirty_rate && now->bandwidth && now->dirty_rate >= now->bandwidth;

	put_label(p, "rate");
	put(p, PLAIN, "%s", format_rate(now->rate, rate));
	if (!in_postcopy(now) && now->round > 1) {
		put(p, PLAIN, "; the guest writes ");
		put(p, behind ? WARN : PLAIN, "%s", format_rate(now->dirty_rate, rate));
	}
	end_line(p);
}

static void put_expected(struct page *p, const struct via_progress *now)
{
	uint64_t total = now->expected_total_ns, elapsed = now->elapsed_ns;
	char time[SHORT];

	if (now->phase == VIA_PHASE_DONE)
		return;
	put_label(p, "expected");
	if (!total)
		put(p, PLAIN, "not known yet");
	else if (total == VIA_NEVER)
		put(p, WARN, "the guest writes faster than it is sent");
	else
		put(p, PLAIN, "%s to go", format_time(total > elapsed ? total - elapsed : 0, time));
	end_line(p);
}

static void put_downtime(struct page *p, const struct screen *s)
{
	uint64_t limit = s->downtime_limit_ns, expected = s->progress->expected_downtime_ns;
	char time[SHORT];

	if (!expected || in_postcopy(s->progress) || s->progress->phase == VIA_PHASE_DONE)
		return;
	put_label(p, "downtime");
	put(p, limit && expected > limit ? WARN : PLAIN, "%s", format_time(expected, time));
	put(p, PLAIN, ", were the guest stopped now");
	if (limit)
		put(p, PLAIN, "; the limit is %s", format_time(limit, time));
	end_line(p);
}

static void put_fence(struct page *p, const struct via_progress *now)
{
	const struct via_session_stats *s = now->session;
	char time[SHORT];

	if (!now->fence)
		return;
	put_label(p, "fence");
	put(p, PLAIN, "%s", via_fence_state_name(now->fence));
	if (s && s->epochs)
		put(p, PLAIN, "; %llu epoch%s drained", (unsigned long long)s->epochs,
		    s->epochs == 1 ? "" : "s");
	if (s && s->drain_ns.count)
		put(p, PLAIN, ", the slowest in %s", format_time(s->drain_ns.max, time));
	end_line(p);
}

static void put_postcopy(struct page *p, const struct via_progress *now)
{
	const struct via_postcopy_stats *s = now->postcopy;

	if (!s || !s->used)
		return;
	put_label(p, "requests");
	put(p, PLAIN, "%llu, %llu answered; %llu page%s came without",
	    (unsigned long long)s->requests, (unsigned long long)s->request_pages,
	    (unsigned long long)s->bulk_pages, s->bulk_pages == 1 ? "" : "s");
	if (s->recoveries)
		put(p, WARN, "; resumed %u time%s", s->recoveries, s->recoveries == 1 ? "" : "s");
	end_line(p);
	if (!s->request_ns.count)
		return;
	put_label(p, "answered in");
	put_quantiles(p, &s->request_ns);
	end_line(p);
}

/* -- its channels -------------------------------------------------------------------------- */

const char *screen_channel_kind(enum via_channel_kind kind)
{
	switch (kind) {
	case VIA_MAIN:
		return "main";
	case VIA_MULTIFD:
		return "multifd";
	case VIA_PREEMPT:
		return "preempt";
	}
	return "?";
}

uint64_t screen_channel_bytes(const struct via_channel_stats *c)
{
	return c->bytes + c->sent_bytes + c->received_bytes;
}

static void put_cell(struct page *p, const char *name, uint64_t bytes, const uint64_t *rate)
{
	char text[SHORT];

	put(p, PLAIN, "%-13.13s %10s", name, format_bytes(bytes, text, SHORT));
	if (rate)
		put(p, PLAIN, " %12s", format_rate(*rate, text));
}

static void put_each_channel(struct page *p, const struct screen *s)
{
	const struct via_progress *now = s->progress;

	for (unsigned i = 0; i < now->nchannels; i++) {
		const struct via_channel_stats *c = &now->channel[i];
		char name[SHORT];

		snprintf(name, sizeof(name), "%s %u", screen_channel_kind(c->kind), c->index);
		put_cell(p, c->kind == VIA_MAIN ? "main" : name, screen_channel_bytes(c),
			 s->channel_rate ? &s->channel_rate[i] : NULL);
		if (i % 2 || i == now->nchannels - 1)
			end_line(p);
		else
			put_blank(p, CELL_COLUMNS);
	}
}

/* One line for all channels of @kind, and how far apart they are. */
static void put_kind(struct page *p, const struct screen *s, enum via_channel_kind kind)
{
	const struct via_progress *now = s->progress;
	uint64_t bytes = 0, rate = 0, least = UINT64_MAX, most = 0;
	char name[SHORT], low[SHORT], high[SHORT];
	unsigned n = 0;

	for (unsigned i = 0; i < now->nchannels; i++) {
		uint64_t its = screen_channel_bytes(&now->channel[i]);

		if (now->channel[i].kind != kind)
			continue;
		n++;
		bytes += its;
		rate += s->channel_rate ? s->channel_rate[i] : 0;
		least = its < least ? its : least;
		most = its > most ? its : most;
	}
	if (!n)
		return;
	snprintf(name, sizeof(name), "%u %s", n, screen_channel_kind(kind));
	put_cell(p, kind == VIA_MAIN ? "main" : name, bytes, s->channel_rate ? &rate : NULL);
	if (n > 1) {
		put_blank(p, CELL_COLUMNS);
		put(p, PLAIN, "%s to %s each", format_bytes(least, low, SHORT),
		    format_bytes(most, high, SHORT));
	}
	end_line(p);
}

static void put_channels(struct page *p, const struct screen *s)
{
	if (!s->progress->nchannels)
		return;
	end_line(p);
	if (s->progress->nchannels <= SCREEN_CHANNELS) {
		put_each_channel(p, s);
	} else {
		put_kind(p, s, VIA_MAIN);
		put_kind(p, s, VIA_MULTIFD);
		put_kind(p, s, VIA_PREEMPT);
	}
	put_rails(p, s->progress->session, s->rail_rate);
}

static void put_hint(struct page *p, const char *hint)
{
	if (!hint)
		return;
	end_line(p);
	put(p, DIM, "%s", hint);
	end_line(p);
}

unsigned screen_render(const struct screen *s, char *buf)
{
	struct page p;

	begin(&p, buf, s->color);
	put_state(&p, s);
	put_session(&p, s->progress->session);
	end_line(&p);
	put_remaining(&p, s->progress);
	put_rates(&p, s->progress);
	put_expected(&p, s->progress);
	put_downtime(&p, s);
	put_fence(&p, s->progress);
	put_postcopy(&p, s->progress);
	put_channels(&p, s);
	put_hint(&p, s->hint);
	return p.lines;
}

/* -- a relay ---------------------------------------------------------------------------------- */

static void put_way(struct page *p, const char *label, uint64_t bytes, uint64_t rate)
{
	char text[SHORT];

	put_label(p, label);
	put(p, PLAIN, "%s, ", format_bytes(bytes, text, SHORT));
	put(p, PLAIN, "%s", format_rate(rate, text));
	end_line(p);
}

unsigned screen_render_relay(const struct screen_relay *s, char *buf)
{
	const struct relay_result *now = s->now;
	struct page p;

	begin(&p, buf, s->color);
	put_title(&p, s->title, now ? "carries a migration" : "waits for QEMU", now ? GOOD : DIM,
		  0);
	put_session(&p, now ? &now->session : NULL);
	if (now) {
		put_label(&p, "connections");
		put(&p, PLAIN, "%u%s", now->connections,
		    now->postcopy ? "; QEMU may switch to postcopy" : "");
		end_line(&p);
		put_way(&p, "forward", now->forward_bytes, s->forward_rate);
		put_way(&p, "back", now->back_bytes, s->back_rate);
		put_rails(&p, &now->session, s->rail_rate);
	}
	if (s->migrations) {
		put_label(&p, "before");
		put(&p, PLAIN, "%u migration%s", s->migrations, s->migrations == 1 ? "" : "s");
		end_line(&p);
	}
	put_hint(&p, s->hint);
	return p.lines;
}
