/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * screen_test.c -- screens as text: those in golden/, and that none is wider, longer or less
 * printable than promised, whatever the numbers and names are.
 *
 * With VIA_GOLDEN_WRITE set the files are written instead of compared; look at them then.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "tools/live.h"
#include "tools/screen.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*VIA_NS_PER_MS)

/* -- what is shown -------------------------------------------------------------------- */

static struct via_session_stats session;
static struct via_postcopy_stats postcopy;
static struct via_channel_stats channel[RATES_MAX];
static uint64_t rate[RATES_MAX];
static struct via_progress progress;
static struct screen screen;
static struct relay_result carried;

static unsigned add_channels(unsigned n, enum via_channel_kind kind, unsigned count)
{
	for (unsigned i = 0; i < count; i++, n++) {
		channel[n] = (struct via_channel_stats){.kind = kind, .index = i, .ready = true};
		channel[n].sent_bytes = 1200 + 17 * i;
		if (kind == VIA_MULTIFD)
			channel[n].bytes = MIB(500) + MIB(i);
		rate[n] = kind == VIA_MULTIFD ? MIB(150) + (i << 18) : 0;
	}
	return n;
}

static void channels(unsigned multifd, unsigned preempt)
{
	unsigned n = add_channels(0, VIA_MAIN, 1);

	n = add_channels(n, VIA_MULTIFD, multifd);
	progress.nchannels = add_channels(n, VIA_PREEMPT, preempt);
	progress.channel = channel;
	screen.channel_rate = rate;
}

static void fill(uint64_t epochs)
{
	memset(&session, 0, sizeof(session));
	memset(&postcopy, 0, sizeof(postcopy));
	session.epochs = epochs;
	snprintf(session.fabric, sizeof(session.fabric), "ofi:tcp");
	snprintf(session.security, sizeof(session.security), "TLS 1.3, pre-shared key");
	snprintf(session.peer, sizeof(session.peer), "viaduct 0.1.0");
	for (unsigned i = 1; i <= epochs; i++)
		via_hist_add(&session.drain_ns, 410 * VIA_NS_PER_US * i);
	progress = (struct via_progress){.role = VIA_ROLE_SOURCE,
					 .memory = MIB(4096),
					 .fence = VIA_FENCE_OPEN,
					 .session = &session,
					 .postcopy = &postcopy};
	screen = (struct screen){.title = "source, to 10.0.0.7:4444",
				 .progress = &progress,
				 .downtime_limit_ns = MS(300),
				 .hint = "^C aborts it: the guest runs on here"};
}

static void set_up(void)
{
	fill(0);
	progress.session = NULL;
	progress.postcopy = NULL;
	progress.phase = VIA_PHASE_SETUP;
	progress.remaining = MIB(4096);
}

static void first_round(void)
{
	fill(0);
	channels(2, 2);
	progress.phase = VIA_PHASE_PRECOPY;
	progress.round = 1;
	progress.remaining = MIB(2900);
	progress.sent = MIB(1196);
	progress.rate = MIB(310);
	progress.elapsed_ns = MS(3850);
}

static void precopy(void)
{
	fill(2);
	channels(4, 2);
	progress.phase = VIA_PHASE_PRECOPY;
	progress.round = 3;
	progress.remaining = MIB(120);
	progress.sent = MIB(6033);
	progress.rate = MIB(310);
	progress.bandwidth = MIB(300);
	progress.dirty_rate = MIB(98);
	progress.expected_downtime_ns = MS(212);
	progress.expected_total_ns = MS(12790);
	progress.elapsed_ns = MS(12400);
	screen.color = true;
}

static void stuck(void)
{
	precopy();
	screen.color = false;
	progress.round = 17;
	progress.remaining = MIB(900);
	progress.dirty_rate = MIB(480);
	progress.expected_downtime_ns = MS(3123);
	progress.expected_total_ns = VIA_NEVER;
	progress.elapsed_ns = MS(187654);
	progress.fence = VIA_FENCE_FENCING;
}

static void rails(void)
{
	precopy();
	screen.color = false;
	session.nrails = 3;
	for (unsigned i = 0; i < 3; i++) {
		snprintf(session.rail[i].device, sizeof(session.rail[i].device), "mlx5_%u/1", i);
		session.rail[i].bytes = MIB(2000 + i);
	}
	screen.rail_rate = rate + 1;
}

static void many_channels(void)
{
	precopy();
	screen.color = false;
	channels(64, 8);
	rails();
	channels(64, 8);
	session.nrails = 8;
}

static void postcopy_source(void)
{
	fill(1);
	channels(2, 2);
	progress.phase = VIA_PHASE_POSTCOPY;
	progress.round = 1;
	progress.fence = VIA_FENCE_RUN;
	progress.committed = true;
	progress.remaining = MIB(207);
	progress.sent = MIB(4500);
	progress.rate = MIB(818);
	progress.expected_total_ns = MS(2500);
	progress.elapsed_ns = MS(2066);
	postcopy = (struct via_postcopy_stats){
		.used = true, .requests = 4370, .request_pages = 4369, .bulk_pages = 51187};
	screen.hint = "^C twice ends it all the same: the guest has moved, and may be lost then";
}

static void postcopy_destination(void)
{
	postcopy_source();
	screen.title = "destination, at :4444";
	screen.downtime_limit_ns = 0;
	progress.role = VIA_ROLE_DESTINATION;
	postcopy.recoveries = 2;
	for (unsigned i = 1; i <= 1000; i++)
		via_hist_add(&postcopy.request_ns, 70 * VIA_NS_PER_US * i);
}

static void paused(void)
{
	postcopy_source();
	progress.phase = VIA_PHASE_PAUSED;
	progress.session = NULL;
	progress.channel = NULL;
	progress.nchannels = 0;
	progress.rate = 0;
	progress.expected_total_ns = 0;
}

static void done(void)
{
	precopy();
	screen.color = false;
	screen.hint = NULL;
	progress.phase = VIA_PHASE_DONE;
	progress.remaining = 0;
	progress.fence = VIA_FENCE_RUN;
}

/* What a peer or a device calls itself is not for the terminal to obey. */
static void rude_names(void)
{
	rails();
	snprintf(session.peer, sizeof(session.peer), "\033]0;owned\a\033[2J viaduct\r\n");
	snprintf(session.rail[0].device, sizeof(session.rail[0].device),
		 "\xff\xfe\x9b"
		 "31mred");
	screen.title = "source, to a-host-with-a-name-that-is-much-too-long-for-any-title."
		       "of-any.screen.example.org:4444";
}

static const struct {
	const char *name;
	void (*make)(void);
} cases[] = {{"set_up", set_up},
	     {"first_round", first_round},
	     {"precopy", precopy},
	     {"stuck", stuck},
	     {"rails", rails},
	     {"many_channels", many_channels},
	     {"postcopy_source", postcopy_source},
	     {"postcopy_destination", postcopy_destination},
	     {"paused", paused},
	     {"done", done},
	     {"rude_names", rude_names}};

#define NCASES (sizeof(cases) / sizeof(cases[0]))

/* -- what holds of each -------------------------------------------------------------------- */

/* Columns of a line, without colours; -1 if there is anything else that does not print. */
static int columns(const char *line, size_t len)
{
	int n = 0;

	for (size_t i = 0; i < len; i++) {
		if (line[i] == '\033') {
			size_t end = i + 1 + strspn(line + i + 1, "[0123456789;");

			if (end >= len || line[end] != 'm')
				return -1;
			i = end;
		} else if (line[i] < ' ' || line[i] > '~') {
			return -1;
		} else {
			n++;
		}
	}
	return n;
}

static void check_frame(const char *text, unsigned lines)
{
	unsigned n = 0;

	cr_assert_lt(strlen(text), SCREEN_LEN);
	cr_assert_leq(lines, SCREEN_LINES);
	for (const char *s = text; *s; n++) {
		size_t len = strcspn(s, "\n");
		int width = columns(s, len);

		cr_assert(width >= 0, "line %u has something in it: %.*s", n, (int)len, s);
		cr_assert_leq(width, (int)SCREEN_COLUMNS, "line %u: %.*s", n, (int)len, s);
		cr_assert_eq(s[len], '\n');
		s += len + 1;
	}
	cr_assert_eq(n, lines, "%u lines, not %u", n, lines);
}

/* ESC as \e, so that the files can be looked at. */
static void make_visible(const char *text, char *visible)
{
	for (; *text; text++) {
		if (*text == '\033')
			*visible++ = '\\';
		*visible++ = *text == '\033' ? 'e' : *text;
	}
	*visible = '\0';
}

static void compare(const char *name, const char *text)
{
	char path[256], visible[2 * SCREEN_LEN], golden[2 * SCREEN_LEN] = "";
	FILE *f;

	make_visible(text, visible);
	snprintf(path, sizeof(path), "%s/%s.txt", GOLDEN, name);
	f = fopen(path, getenv("VIA_GOLDEN_WRITE") ? "we" : "re");
	cr_assert_not_null(f, "%s", path);
	if (getenv("VIA_GOLDEN_WRITE"))
		fputs(visible, f);
	else
		golden[fread(golden, 1, sizeof(golden) - 1, f)] = '\0';
	fclose(f);
	if (!getenv("VIA_GOLDEN_WRITE"))
		cr_assert_str_eq(visible, golden, "%s is otherwise now:\n%s", name, visible);
}

ParameterizedTestParameters(screen, golden)
{
	static size_t index[NCASES];

	for (size_t i = 0; i < NCASES; i++)
		index[i] = i;
	return cr_make_param_array(size_t, index, NCASES);
}

ParameterizedTest(const size_t *i, screen, golden)
{
	char text[SCREEN_LEN];
	unsigned lines;

	cases[*i].make();
	lines = screen_render(&screen, text);
	check_frame(text, lines);
	compare(cases[*i].name, text);
}

Test(screen, golden_relay)
{
	struct screen_relay relay = {.title = "relay, source, to 10.0.0.7:4444",
				     .hint = "^C ends it"};
	char text[SCREEN_LEN];

	check_frame(text, screen_render_relay(&relay, text));
	compare("relay_waits", text);
	rails();
	carried = (struct relay_result){.postcopy = true,
					.connections = 6,
					.forward_bytes = MIB(9999),
					.back_bytes = 1234,
					.session = session};
	relay.now = &carried;
	relay.migrations = 2;
	relay.forward_rate = MIB(900);
	relay.back_rate = 77;
	relay.rail_rate = rate + 1;
	check_frame(text, screen_render_relay(&relay, text));
	compare("relay_carries", text);
}

/* Every number at its largest, one after the other and all at once, in colour and without. */
Test(screen, any_numbers)
{
	char text[SCREEN_LEN];

	for (unsigned i = 0; i < 2 * NCASES; i++) {
		cases[i / 2].make();
		screen.color = i % 2;
		progress.remaining = progress.sent = progress.rate = progress.dirty_rate =
			UINT64_MAX;
		progress.bandwidth = progress.expected_downtime_ns = UINT64_MAX - 1;
		progress.expected_total_ns = progress.elapsed_ns = UINT64_MAX - 1;
		progress.round = UINT32_MAX;
		session.epochs = UINT64_MAX;
		via_hist_add(&session.drain_ns, UINT64_MAX);
		postcopy.used = true;
		postcopy.requests = postcopy.request_pages = postcopy.bulk_pages = UINT64_MAX;
		postcopy.recoveries = UINT32_MAX;
		via_hist_add(&postcopy.request_ns, UINT64_MAX);
		for (unsigned k = 0; k < RATES_MAX; k++) {
			rate[k] = UINT64_MAX;
			channel[k].bytes = UINT64_MAX;
		}
		check_frame(text, screen_render(&screen, text));
		progress.memory = 0;
		check_frame(text, screen_render(&screen, text));
	}
}

Test(screen, any_number_of_channels)
{
	char text[SCREEN_LEN];

	for (unsigned multifd = 0; multifd <= VIA_MULTIFD_MAX; multifd++)
		for (unsigned preempt = 0; preempt <= VIA_PREEMPT_MAX; preempt += 3) {
			rails();
			postcopy_destination();
			session.nrails = VIA_RAILS_MAX;
			channels(multifd, preempt);
			check_frame(text, screen_render(&screen, text));
			cr_assert_not_null(strstr(text, "\n^C"), "no room for the hint");
		}
}

/* -- rates --------------------------------------------------------------------------------- */

Test(screen, rates_of_counters)
{
	static struct rates r;
	uint64_t count[] = {1000, 0, 50};

	rates_take(&r, 1 * VIA_NS_PER_S, count, 3);
	cr_assert(!r.known);
	count[0] = 3000;
	count[2] = 40; /* a channel that was opened again, say */
	rates_take(&r, 1 * VIA_NS_PER_S + MS(100), count, 3);
	cr_assert(!r.known, "too soon to tell");
	rates_take(&r, 3 * VIA_NS_PER_S, count, 3);
	cr_assert(r.known);
	cr_assert_eq(r.rate[0], 1000);
	cr_assert_eq(r.rate[1], 0);
	cr_assert_eq(r.rate[2], 0, "a counter that goes back has no rate");
	rates_take(&r, 4 * VIA_NS_PER_S, count, 2);
	cr_assert(!r.known, "others than before");
	rates_take(&r, 5 * VIA_NS_PER_S, count, 2);
	cr_assert(r.known && r.rate[0] == 0);
}
