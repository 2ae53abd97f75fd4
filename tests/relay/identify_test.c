/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identify_test.c -- connections in every order of events, and what each is taken for.
 *
 * A sequence is written as words. A connection is a letter.
 *   +a        accepted           a:BYTES   sends (names below)      a.   ends
 *   +a:BYTES  has sent them before the relay looks
 *   @300      so many ms pass    !postcopy, !answered, !early, !ends  seen on main
 *   a=WHAT    is taken for main, recovery, m3, preempt, with * when it is opaque; wait: not
 *             known yet; next: main of the next session; or refused as EEXIST, ERANGE, ETIMEDOUT,
 *             ECONNRESET
 * After each event all connections that are not known are asked for, as a relay does it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay/identify.h"

#define LANES       4u
#define PATIENCE_MS 10000u
#define CONNECTIONS 8u

/* -- the sequences ------------------------------------------------------------------- */

/* What QMP says: nothing, or the source's settings. */
enum qmp { NO_QMP, PLAIN, MULTIFD2, PREEMPT, MULTIFD2_PREEMPT, OLD_PREEMPT, TLS2_PREEMPT, QMPS };

static const struct relay_expected expected[QMPS] = {
	[PLAIN] = {.known = true},
	[MULTIFD2] = {.known = true, .multifd = 2},
	[PREEMPT] = {.known = true, .preempt = true},
	[MULTIFD2_PREEMPT] = {.known = true, .preempt = true, .multifd = 2},
	[OLD_PREEMPT] = {.known = true, .preempt = true, .early_preempt = true},
	[TLS2_PREEMPT] = {.known = true, .tls = true, .preempt = true, .multifd = 2},
};

struct sequence {
	const char *name;
	enum qmp qmp;
	const char *words;
};

static const struct sequence sequences[] = {
	{"plain", NO_QMP, "+a a=wait a:main a=main"},
	{"main byte by byte", NO_QMP, "+a a:Q a=wait a:E a=wait a:V a=wait a:M a=main"},
	{"main and more", NO_QMP, "+a a:main+ a=main"},

	/* 9.0 and later: main is silent until all multifd channels are connected. */
	{"multifd first", NO_QMP, "+a +b +c a=wait b:m0 b=m0 c:m1 c=m1 a=wait a:main a=main"},
	{"multifd in any order", NO_QMP, "+a +b +c +d c:m2 c=m2 b:m0 b=m0 a:main a=main d:m1 d=m1"},
	{"main connects last", NO_QMP, "+a +b a:m1 a=m1 b:m0 b=m0 +c c:main c=main"},
	/* 8.2 and before: they race. */
	{"multifd after main", NO_QMP, "+a a:main a=main +b +c c:m1 c=m1 b=wait b:m0 b=m0"},
	{"an init in pieces", NO_QMP, "+a a:m0/24 a=wait a:m0/25 a=wait a:m0/63 a=wait a:m0 a=m0"},
	{"the last lane", NO_QMP, "+a a:m3 a=m3"},
	{"one lane too many", NO_QMP, "+a a:m4 a=ERANGE +b b:main b=main"},
	{"an id twice", NO_QMP, "+a a:m1 a=m1 +b b:m1 b=EEXIST +c c:m0 c=m0"},
	{"two mains", NO_QMP, "+a a:main a=main +b b:main b=EEXIST"},
	{"a main behind one that ends", NO_QMP, "+a a:main a=main !ends +b b:main b=next"},
	{"a main behind one that does not end", NO_QMP,
	 "+a a:main a=main !ends +b b:main @9999 b=next @1 b=ETIMEDOUT"},

	/* Preempt: silent, and main has been answered. */
	{"preempt", NO_QMP, "+a a:main !postcopy !answered +b b=preempt"},
	{"preempt waits for the answer", NO_QMP,
	 "+a a:main !postcopy +b b=wait @9000 b=wait !answered b=preempt"},
	{"preempt and multifd", NO_QMP,
	 "+a +b +c b:m0 c:m1 a:main !postcopy !answered +d d=preempt b=m0 c=m1 a=main"},
	{"preempt whose page was faster", NO_QMP,
	 "+a a:main !postcopy !answered +b:page b=preempt"},
	{"preempt with the first byte of a page", NO_QMP,
	 "+a a:main !postcopy !answered +b:00 b=preempt"},
	{"one preempt only", NO_QMP,
	 "+a a:main !postcopy !answered +b b=preempt +c c=wait @10000 c=ETIMEDOUT"},
	{"no postcopy, no preempt", NO_QMP, "+a a:main !answered +b b=wait @10000 b=ETIMEDOUT"},
	{"QMP knows of postcopy", PREEMPT, "+a a:main !answered +b b=preempt"},
	{"QMP knows of no preempt", MULTIFD2, "+a a:main !postcopy !answered +b b=wait"},
	{"QMP knows, and the answer is needed", PREEMPT, "+a a:main !postcopy +b b=wait"},
	{"answered before main is known", NO_QMP, "!postcopy !answered +a a=wait a:main a=main"},
	{"a silent one that has ended", NO_QMP,
	 "+a a:main !postcopy +b b. b=ECONNRESET !answered +c c=preempt"},
	{"a late multifd says who it is", NO_QMP,
	 "+a a:main +b b:m0/30 !postcopy !answered b=wait b:m0 b=m0 +c c=preempt"},

	/* Machines up to 7.2 open preempt right after main, and main gets no answer before. */
	{"old machine, by QMP", OLD_PREEMPT, "+a +b b=wait a:main a=main b=preempt"},
	{"old machine, by its name", NO_QMP,
	 "+a +b a:main !postcopy !early b=wait @299 b=wait @1 b=preempt"},
	{"old machine without postcopy", NO_QMP, "+a +b a:main !early @5000 b=wait"},
	{"old machine, multifd is faster", NO_QMP,
	 "+a +b a:main !postcopy !early @200 b:m0 b=m0 @500 b=m0"},
	{"old machine, QMP knows of no preempt", PLAIN,
	 "+a +b a:main !postcopy !early @500 b=wait @9500 b=ETIMEDOUT"},

	/* A paused postcopy that is resumed: no header, no ADVISE, no multifd. */
	{"recovery", NO_QMP, "+a a:recovery a=recovery +b b=preempt"},
	{"recovery of 7.2, which answers when preempt is there", NO_QMP,
	 "+a +b a=wait b=wait a:recovery a=recovery b=preempt"},
	{"preempt connects before main in recovery", NO_QMP,
	 "+a +b a=wait b=wait b:recovery b=recovery a=preempt"},
	{"one preempt in recovery", NO_QMP, "+a a:recovery +b b=preempt +c c=wait"},
	{"recovery byte by byte", NO_QMP, "+a a:08 a=wait a:00 a=wait a:0a a=recovery"},
	{"recovery without preempt", PLAIN, "+a a:recovery a=recovery !answered +b b=wait"},
	{"a recovery waits until main has gone", NO_QMP,
	 "+a a:main +b b:recovery b=next @9999 b=next @1 b=ETIMEDOUT"},
	{"two recoveries", NO_QMP, "+a a:recovery +b:recovery a=recovery b=next"},

	/* TLS says nothing: order alone decides. */
	{"TLS", NO_QMP, "+a a:tls a=main* +b b:tls b=m3* +c c:tls c=m2*"},
	{"TLS, QMP knows how many", TLS2_PREEMPT,
	 "+a a:tls a=main* +b +c b:tls b=m3* c:tls c=m2* +d d=preempt"},
	{"one byte of TLS is not enough", NO_QMP, "+a a:16 a=wait a:03 a=main*"},
	{"more of TLS than lanes", NO_QMP,
	 "+a a:tls +b b:tls +c c:tls +d d:tls +e e:tls e=m0* +f f:tls f=ERANGE"},

	/* What nobody knows is carried as it is. */
	{"unknown first", NO_QMP, "+a a:junk a=main* +b b:junk b=m3* +c c:m0 c=m0"},
	{"an init of another version", NO_QMP, "+a a:main +b b:mnew b=m3*"},
	{"too little to be known", NO_QMP, "+a a:ju a=wait @10000 a=ETIMEDOUT"},
	{"little, and then the end", NO_QMP, "+a a:ju a=wait a. a=main*"},
	{"a command that is none of recovery's", NO_QMP, "+a a:command a=main*"},

	/* Those who never say anything. */
	{"silent for ever", NO_QMP, "+a @9999 a=wait @1 a=ETIMEDOUT +b b:main b=main"},
	{"half an init for ever", NO_QMP, "+a a:m0/63 @9999 a=wait @1 a=ETIMEDOUT"},
	{"ended in silence", NO_QMP, "+a a. a=ECONNRESET"},
	{"ended in its init", NO_QMP, "+a a:m0/63 a. a=ECONNRESET"},
	{"ended after main's first bytes", NO_QMP, "+a a:main a=main"},
	{"bytes and their end at once", NO_QMP, "+a a:m0+end a=m0"},
	{"known for ever", NO_QMP, "+a a:main @99999 a=main"},
};
#define SEQUENCES (sizeof(sequences) / sizeof(sequences[0]))

/* -- bytes by name ---------------------------------------------------------------------- */

static void add(struct relay_candidate *c, const void *bytes, size_t len)
{
	size_t room = sizeof(c->first) - c->len;

	len = len < room ? len : room;
	memcpy(c->first + c->len, bytes, len);
	c->len += len;
}

/* "m2": a whole init; "m2/30": the first 30 bytes of it, whatever was sent before. */
static void send_init(struct relay_candidate *c, const char *name)
{
	uint8_t init[64] = {0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1};
	const char *slash = strchr(name, '/');

	if (!strcmp(name, "mnew"))
		init[7] = 2;
	else
		init[24] = (uint8_t)strtoul(name + 1, NULL, 10);
	c->len = 0;
	add(c, init, slash ? strtoul(slash + 1, NULL, 10) : sizeof(init));
	c->ended = strstr(name, "+end");
}

static void send_named(struct relay_candidate *c, const char *name)
{
	static const struct {
		const char *name;
		const char *bytes;
		size_t len;
	} named[] = {
		{"main", "QEVM\0\0\0\3\7", 9},
		{"main+", "QEVM\0\0\0\3\7\0\0\0\x0bpc-q35-10.0\x08\0\1\0\0........................",
		 54},
		{"recovery", "\x08\0\x0a\0\7\6pc.ram", 12},
		{"command", "\x08\0\1\0\0", 5},
		{"tls", "\x16\3\1\2\0\1", 6},
		{"junk", "hello, world", 12},
		{"ju", "ju", 2},
		{"page", "\0\0\0\0\0\1\x20\x08\6pc.ram", 15},
		{"08", "\x08", 1},
		{"00", "\0", 1},
		{"0a", "\x0a", 1},
		{"16", "\x16", 1},
		{"03", "\3", 1},
	};

	for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++) {
		if (!strcmp(name, named[i].name)) {
			add(c, named[i].bytes, named[i].len);
			return;
		}
	}
	if (name[0] == 'm')
		send_init(c, name);
	else
		add(c, name, strlen(name));
}

/* -- the driver ------------------------------------------------------------------------ */

struct connection {
	bool accepted;
	int refused; /* code */
	struct relay_candidate candidate;
	struct relay_identity who;
};

struct drive {
	struct relay_identify id;
	struct connection connection[CONNECTIONS];
	uint64_t now_ns;
};

/* All in the order of their letters; true when one is known that was not before. */
static bool ask_once(struct drive *d)
{
	bool news = false;

	for (unsigned i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &d->connection[i];
		struct via_error err = {0};

		if (!c->accepted || c->who.role || c->refused)
			continue;
		c->refused = relay_identify(&d->id, &c->candidate, d->now_ns, &c->who, &err);
		cr_assert_eq(err.code, c->refused);
		cr_assert(!c->refused || (err.what[0] && err.seen[0] && err.remedy[0]));
		news = news || c->who.role;
	}
	return news;
}

static void ask(struct drive *d)
{
	while (ask_once(d))
		continue;
}

/* Time passes as it does for a relay: it is woken by the deadlines, not in between. */
static void pass(struct drive *d, uint64_t until_ns)
{
	for (;;) {
		uint64_t next_ns = until_ns;

		for (unsigned i = 0; i < CONNECTIONS; i++) {
			struct connection *c = &d->connection[i];
			uint64_t at_ns;

			if (!c->accepted || c->who.role || c->refused)
				continue;
			at_ns = relay_identify_deadline(&d->id, &c->candidate);
			cr_assert(at_ns > d->now_ns, "woken, and nothing is to be done");
			next_ns = at_ns < next_ns ? at_ns : next_ns;
		}
		d->now_ns = next_ns;
		if (d->now_ns == until_ns)
			return;
		ask(d);
	}
}

static void name_of(const struct connection *c, char *buf, size_t cap)
{
	static const char *const roles[] = {"wait", "main", "m", "preempt"};
	const char *role = c->who.recovery ? "recovery" : c->who.next ? "next" : roles[c->who.role];

	if (c->refused)
		snprintf(buf, cap, "%s", via_err_name(c->refused));
	else if (c->who.role == RELAY_MULTIFD)
		snprintf(buf, cap, "m%u%s", c->who.index, c->who.opaque ? "*" : "");
	else
		snprintf(buf, cap, "%s%s", role, c->who.opaque ? "*" : "");
}

static void seen(struct relay_seen *seen, const char *what)
{
	if (!strcmp(what, "postcopy"))
		seen->postcopy = true;
	else if (!strcmp(what, "answered"))
		seen->answered = true;
	else if (!strcmp(what, "early"))
		seen->early_preempt = true;
	else if (!strcmp(what, "ends"))
		seen->main_ends = true;
	else
		cr_assert(false, "%s", what);
}

static void happen(struct drive *d, struct connection *c, const char *word, const char *name)
{
	char is[32];

	if (word[0] == '+') {
		c->accepted = true;
		c->candidate.accepted_ns = d->now_ns;
		if (word[2] == ':')
			send_named(&c->candidate, word + 3);
	} else if (word[1] == ':') {
		send_named(&c->candidate, word + 2);
	} else if (word[1] == '.') {
		c->candidate.ended = true;
	} else {
		name_of(c, is, sizeof(is));
		cr_assert_str_eq(is, word + 2, "%s: %s, but is %s", name, word, is);
		cr_assert_eq(c->who.note[0] != '\0', c->who.opaque);
	}
}

static void step(struct drive *d, const char *word, const char *name)
{
	if (word[0] == '@')
		pass(d, d->now_ns + strtoul(word + 1, NULL, 10) * VIA_NS_PER_MS);
	else if (word[0] == '!')
		seen(&d->id.seen, word + 1);
	else
		happen(d, &d->connection[word[word[0] == '+'] - 'a'], word, name);
	ask(d);
}

static void run(const struct sequence *s)
{
	struct drive d = {.now_ns = 1000 * VIA_NS_PER_S};
	char words[256], *save = NULL;

	relay_identify_init(&d.id, LANES, PATIENCE_MS * VIA_NS_PER_MS);
	d.id.expected = expected[s->qmp];
	snprintf(words, sizeof(words), "%s", s->words);
	for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save))
		step(&d, word, s->name);
}

Test(identify, sequences)
{
	for (unsigned i = 0; i < SEQUENCES; i++)
		run(&sequences[i]);
}

/* -- the rest -------------------------------------------------------------------------- */

/* Whatever the order in which four connections say what they are, each is what it says. */
Test(identify, every_order)
{
	static const char *const who[] = {"main", "m0", "m1", "m2"};

	for (unsigned order = 0; order < 256; order++) {
		struct sequence s = {.name = "every order"};
		char words[128] = "+a +b +c +d";
		unsigned used = 0;

		for (unsigned i = 0; i < 4; i++)
			used |= 1u << (order >> 2 * i & 3);
		if (used != 15)
			continue;
		for (unsigned i = 0; i < 4; i++) {
			size_t len = strlen(words);
			unsigned c = order >> 2 * i & 3;

			snprintf(words + len, sizeof(words) - len, " %c:%s %c=%s", 'a' + c, who[c],
				 'a' + c, who[c]);
		}
		s.words = words;
		run(&s);
	}
}

Test(identify, refusals_say_what_and_why)
{
	struct relay_candidate c = {.len = 30};
	struct relay_identity who = {.role = RELAY_MAIN};
	struct relay_identify id;
	struct via_error err = {0};

	send_init(&c, "m3/30");
	relay_identify_init(&id, 4, 2 * VIA_NS_PER_S);
	cr_assert_eq(relay_identify(&id, &c, 2 * VIA_NS_PER_S, &who, &err), -ETIMEDOUT);
	cr_assert_eq(who.role, RELAY_MAIN, "written on success only");
	cr_assert(strstr(err.seen, "30 bytes in 2 seconds"));
	cr_assert(strstr(err.remedy, "QMP"));

	err = (struct via_error){0};
	send_init(&c, "m200");
	cr_assert_eq(relay_identify(&id, &c, 0, &who, &err), -ERANGE);
	cr_assert(strstr(err.seen, "200"));
	cr_assert(strstr(err.remedy, "multifd-channels"));
}

Test(identify, patience_may_be_endless)
{
	struct relay_candidate c = {.accepted_ns = 5};
	struct relay_identity who;
	struct relay_identify id;

	relay_identify_init(&id, 1000, VIA_NEVER);
	cr_assert_eq(relay_identify_deadline(&id, &c), VIA_NEVER);
	cr_assert_eq(relay_identify(&id, &c, VIA_NEVER - 1, &who, NULL), 0);
	cr_assert_eq(who.role, RELAY_PENDING);
	send_init(&c, "m255");
	cr_assert_eq(relay_identify(&id, &c, 6, &who, NULL), 0);
	cr_assert_eq(who.index, 255);
}

Test(identify, machines)
{
	static const char *const old[] = {"pc-q35-7.2", "pc-i440fx-2.12", "pc-i440fx-7.2-machine",
					  "virt-6.0", "s390-ccw-virtio-5.1-machine"};
	static const char *const today[] = {
		"pc-q35-8.0", "pc-q35-10.0-machine", "virt-7.3", "",  "microvm", "none-machine",
		"q35",        "pc-q35-rhel7.6.0",    "pc-7.2x",  "-", "--",      "virt-72.1"};

	for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++)
		cr_assert(relay_machine_is_pre_8(old[i]), "%s", old[i]);
	for (size_t i = 0; i < sizeof(today) / sizeof(today[0]); i++)
		cr_assert_not(relay_machine_is_pre_8(today[i]), "%s", today[i]);
}
