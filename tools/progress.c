/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * progress.c -- how far a migration is, on stderr: a screen that is redrawn in place on a terminal
 * that has room for it, one line that is written over and over on any other, and a plain line
 * now and then elsewhere.
 *
 * It must never leave a terminal other than it was: the cursor, all that is changed, is shown again
 * whichever way this process ends, SIGKILL excepted. Invariant: under the lock the cursor stands in
 * the first column below the screen's rows, or in the open line, or on neither.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/clock.h"
#include "tools/run.h"
#include "tools/screen.h"

#define PLAIN_NS VIA_NS_PER_S
#define LIVE_NS  (80 * VIA_NS_PER_MS)
#define WIDTH    79

#define HIDE_CURSOR "\033[?25l"
#define RESTORE     "\033[0m\033[?25h"

const char *format_bytes(uint64_t bytes, char *buf, size_t cap)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	unsigned i = 0;

	while (value >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		value /= 1024;
		i++;
	}
	snprintf(buf, cap, i ? "%.1f %s" : "%.0f %s", value, unit[i]);
	return buf;
}

/* -- the cursor ------------------------------------------------------------------ */

/* Signals that end or stop this process, and are nobody else's here. */
static const int leaving[] = {SIGHUP, SIGQUIT, SIGTSTP};

#define NLEAVING (sizeof(leaving) / sizeof(leaving[0]))

/* There is one terminal. */
static struct {
	struct sigaction before[NLEAVING];
	volatile sig_atomic_t hidden;
	volatile sig_atomic_t left; /* somebody else has written to it since */
} cursor;

static void on_leaving(int number);

static void catch_signal(int number, struct sigaction *before)
{
	struct sigaction action = {.sa_handler = on_leaving,
				   .sa_flags = (int)SA_RESETHAND | SA_NODEFER | SA_RESTART};

	if (sigaction(number, NULL, before) || before->sa_handler != SIG_DFL)
		return;
	sigaction(number, &action, NULL);
}

/* Only what is safe in a handler. After SIGTSTP it goes on. */
static void on_leaving(int number)
{
	struct sigaction ignored;
	int saved = errno;

	if (cursor.hidden)
		(void)!write(STDERR_FILENO, RESTORE, sizeof(RESTORE) - 1);
	cursor.left = 1;
	raise(number);
	catch_signal(number, &ignored);
	errno = saved;
}

static void hide_cursor(void)
{
	if (cursor.hidden)
		return;
	for (unsigned i = 0; i < NLEAVING; i++)
		catch_signal(leaving[i], &cursor.before[i]);
	cursor.hidden = 1;
}

static void show_cursor(void)
{
	if (!cursor.hidden)
		return;
	fputs(RESTORE, stderr);
	fflush(stderr);
	cursor.hidden = 0;
	for (unsigned i = 0; i < NLEAVING; i++)
		sigaction(leaving[i], &cursor.before[i], NULL);
}

/* -- a view --------------------------------------------------------------------------- */

void progress_init(struct progress_view *view)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	*view = (struct progress_view){0};
	pthread_mutex_init(&view->lock, NULL);
	view->terminal = isatty(STDERR_FILENO) && !(term && !strcmp(term, "dumb"));
	view->color = view->terminal && !(no_color && *no_color);
}

/* All zero: not known. */
static struct winsize window(void)
{
	struct winsize size = {0};

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) ? (struct winsize){0} : size;
}

bool progress_has_screen(const struct progress_view *view)
{
	struct winsize size = window();

	return view->terminal && size.ws_col > SCREEN_COLUMNS && size.ws_row > SCREEN_LINES;
}

/* Under the lock: leave what is there, and go below it. */
static void leave(struct progress_view *view)
{
	if (view->line_open)
		fputc('\n', stderr);
	view->line_open = false;
	view->rows = 0;
	show_cursor();
}

static bool too_soon(struct progress_view *view, bool changed)
{
	uint64_t now = via_now_ns();

	if (!changed && now - view->shown_ns < (view->terminal ? LIVE_NS : PLAIN_NS))
		return true;
	view->shown_ns = now;
	return false;
}

static void print_line(struct progress_view *view, const char *name, const char *line)
{
	int columns = window().ws_col, width;

	if (!view->terminal) {
		fprintf(stderr, "%s%s\n", name, line);
		return;
	}
	width = (columns && columns <= WIDTH ? columns - 1 : WIDTH) - (int)strlen(name);
	width = width > 0 ? width : 0;
	if (view->rows)
		leave(view); /* the window has become too small */
	fprintf(stderr, "\r%s%s%s%-*.*s", view->color ? "\033[1m" : "", name,
		view->color ? "\033[0m" : "", width, width, line);
	fflush(stderr);
	view->line_open = true;
}

void progress_print(struct progress_view *view, const char *name, bool changed, const char *line)
{
	pthread_mutex_lock(&view->lock);
	if (!too_soon(view, changed))
		print_line(view, name, line);
	pthread_mutex_unlock(&view->lock);
}

/* One write, so that a terminal does not show half of it. */
static void draw(struct progress_view *view, const char *screen, unsigned rows)
{
	char out[SCREEN_LEN + SCREEN_LINES * 8 + 64];
	size_t len = 0;

	if (view->line_open)
		leave(view);
	if (cursor.left) {
		cursor.left = 0;
		view->rows = 0;
	}
	hide_cursor();
	len = (size_t)snprintf(out, sizeof(out), HIDE_CURSOR "\r");
	if (view->rows)
		len += (size_t)snprintf(out + len, sizeof(out) - len, "\033[%uA", view->rows);
	while (*screen) {
		size_t line = strcspn(screen, "\n") + 1;

		len += (size_t)snprintf(out + len, sizeof(out) - len, "\033[2K%.*s", (int)line,
					screen);
		screen += line;
	}
	len += (size_t)snprintf(out + len, sizeof(out) - len, "\033[J");
	fwrite(out, 1, len, stderr);
	fflush(stderr);
	view->rows = rows;
}

void progress_draw(struct progress_view *view, bool changed, const char *screen, unsigned rows)
{
	pthread_mutex_lock(&view->lock);
	if (!too_soon(view, changed))
		draw(view, screen, rows);
	pthread_mutex_unlock(&view->lock);
}

/* Under the lock: make room for a message; the screen comes again below it. */
static void make_way(struct progress_view *view)
{
	if (view->rows)
		fprintf(stderr, "\r\033[%uA\033[J", view->rows);
	leave(view);
	view->shown_ns = 0;
}

void progress_pause(struct progress_view *view)
{
	pthread_mutex_lock(&view->lock);
	make_way(view);
}

void progress_resume(struct progress_view *view)
{
	pthread_mutex_unlock(&view->lock);
}

void progress_say(struct progress_view *view, const struct via_error *what)
{
	progress_pause(view);
	report_error(what);
	progress_resume(view);
}

void progress_note(struct progress_view *view, const char *line)
{
	progress_pause(view);
	fprintf(stderr, "viaduct: %s\n", line);
	progress_resume(view);
}

void progress_end(struct progress_view *view)
{
	pthread_mutex_lock(&view->lock);
	leave(view);
	pthread_mutex_unlock(&view->lock);
}

/* -- a migration's line ------------------------------------------------------------------ */

const char *progress_phase_name(enum via_phase phase)
{
	switch (phase) {
	case VIA_PHASE_SETUP:
		return "set-up";
	case VIA_PHASE_PRECOPY:
		return "precopy";
	case VIA_PHASE_SWITCHOVER:
		return "switch-over";
	case VIA_PHASE_POSTCOPY:
		return "postcopy";
	case VIA_PHASE_PAUSED:
		return "paused";
	case VIA_PHASE_DONE:
		return "done";
	}
	return "?";
}

/* Until it has the guest, a destination knows what its source has told it. */
static void format_told(const struct via_progress *p, const char *left, const char *rate,
			char *line, size_t cap)
{
	char memory[32];

	if (p->phase == VIA_PHASE_DONE)
		snprintf(line, cap, " round %u: all of %s has come, in %.1f s", p->round,
			 format_bytes(p->memory, memory, sizeof(memory)),
			 (double)p->elapsed_ns / 1e9);
	else if (p->round)
		snprintf(line, cap, " round %u: the source has %s left and sends %s/s", p->round,
			 left, rate);
	else
		snprintf(line, cap, ": the source has not begun to send");
}

/* What follows the phase's name. */
static void format_line(const struct via_progress *p, char *line, size_t cap)
{
	char left[32], rate[32], dirty[32], down[32] = "?";

	format_bytes(p->remaining, left, sizeof(left));
	format_bytes(p->rate, rate, sizeof(rate));
	if (p->phase == VIA_PHASE_POSTCOPY || p->phase == VIA_PHASE_PAUSED) {
		snprintf(line, cap, ": %s lacking, %s/s, %llu request%s", left, rate,
			 (unsigned long long)p->requests, p->requests == 1 ? "" : "s");
		return;
	}
	if (p->role == VIA_ROLE_DESTINATION) {
		format_told(p, left, rate, line, cap);
		return;
	}
	if (p->expected_downtime_ns)
		snprintf(down, sizeof(down), "%.0f ms", (double)p->expected_downtime_ns / 1e6);
	snprintf(line, cap, " round %u: %s left, %s/s, dirty %s/s, downtime %s", p->round, left,
		 rate, format_bytes(p->dirty_rate, dirty, sizeof(dirty)), down);
}

void progress_show(struct progress_view *view, const struct via_progress *p, bool changed)
{
	char line[160];

	format_line(p, line, sizeof(line));
	progress_print(view, progress_phase_name(p->phase), changed, line);
}
