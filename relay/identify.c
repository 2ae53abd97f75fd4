/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identify.c -- main, multifd or preempt: by first bytes, silence, and what is known beside.
 *
 * Must never call a silent connection preempt while it may be a multifd channel: the QEMU
 * that it is connected to would wait for its first bytes and do nothing else.
 *
 * Invariant: has_main, has_preempt and taken hold exactly what was handed out as known.
 */
#include "relay/identify.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/wire.h"
#include "relay/qemu_wire.h"

enum kind {
	KIND_SILENT = 1,
	KIND_SHORT, /* a beginning of one of the below */
	KIND_MAIN,
	KIND_RECOVERY,
	KIND_MULTIFD,
	KIND_TLS,
	KIND_UNKNOWN,
};

/* First bytes by which a kind is known. */
static const struct mark {
	enum kind kind;
	size_t len;
	uint8_t bytes[8];
} marks[] = {
	{KIND_MAIN, 4, {'Q', 'E', 'V', 'M'}},
	{KIND_RECOVERY, 3, {QEMU_FRAME_COMMAND, 0, QEMU_CMD_RECV_BITMAP}},
	{KIND_MULTIFD, 8, {0x11, 0x22, 0x33, 0x44, 0, 0, 0, QEMU_MULTIFD_VERSION}},
	{KIND_TLS, 2, {0x16, 0x03}}, /* handshake record of any version */
};

static enum kind kind_of(const struct relay_candidate *c)
{
	if (!c->len)
		return KIND_SILENT;
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		size_t n = c->len < marks[i].len ? c->len : marks[i].len;

		if (memcmp(c->first, marks[i].bytes, n) == 0)
			return n == marks[i].len ? marks[i].kind : KIND_SHORT;
	}
	return KIND_UNKNOWN;
}

void relay_identify_init(struct relay_identify *id, unsigned multifd_max, uint64_t patience_ns)
{
	memset(id, 0, sizeof(*id));
	id->multifd_max = multifd_max < RELAY_MULTIFD_MAX ? multifd_max : RELAY_MULTIFD_MAX;
	id->patience_ns = patience_ns;
}

/* -- what is taken ------------------------------------------------------------------- */

static bool is_taken(const struct relay_identify *id, unsigned index)
{
	return id->taken[index / 64] >> index % 64 & 1;
}

static void take_multifd(struct relay_identify *id, unsigned index, struct relay_identity *who)
{
	id->taken[index / 64] |= UINT64_C(1) << index % 64;
	id->nmultifd++;
	who->role = RELAY_MULTIFD;
	who->index = index;
}

static int take_main(struct relay_identify *id, struct relay_identity *who, struct via_error *err)
{
	if (id->has_main)
		return via_fail(err, -EEXIST,
				"identify a connection of QEMU\n"
				"a second one begins as main does\n"
				"let only one QEMU migrate to this address at a time");
	id->has_main = true;
	who->role = RELAY_MAIN;
	return 0;
}

static void take_preempt(struct relay_identify *id, struct relay_identity *who)
{
	id->has_preempt = true;
	who->role = RELAY_PREEMPT;
}

static int too_many(const struct relay_identify *id, unsigned index, struct via_error *err)
{
	return via_fail(err, -ERANGE,
			"identify a connection of QEMU\n"
			"multifd channel %u, and there are lanes for %u\n"
			"set multifd-channels of QEMU to at most %u",
			index, id->multifd_max, id->multifd_max);
}

static int take_id(struct relay_identify *id, unsigned index, struct relay_identity *who,
		   struct via_error *err)
{
	if (index >= id->multifd_max)
		return too_many(id, index, err);
	if (is_taken(id, index))
		return via_fail(err, -EEXIST,
				"identify a connection of QEMU\n"
				"multifd channel %u for the second time\n"
				"let only one QEMU migrate to this address at a time",
				index);
	take_multifd(id, index, who);
	return 0;
}

/* From the top, out of the way of the ids that QEMU may still show. */
static int take_lane(struct relay_identify *id, struct relay_identity *who, struct via_error *err)
{
	for (unsigned i = id->multifd_max; i-- > 0;) {
		if (!is_taken(id, i)) {
			take_multifd(id, i, who);
			return 0;
		}
	}
	return too_many(id, id->nmultifd, err);
}

/* -- the preempt channel ------------------------------------------------------------- */

static bool preempt_is_wanted(const struct relay_identify *id)
{
	return id->has_main && !id->has_preempt && (!id->expected.known || id->expected.preempt);
}

/* From now on, whoever connects (and is not main, which says so) is preempt. */
static bool only_preempt_is_left(const struct relay_identify *id)
{
	if (!preempt_is_wanted(id))
		return false;
	if (id->recovery) /* which opens no multifd channel */
		return true;
	if (id->seen.answered && (id->seen.postcopy || id->expected.known))
		return true;
	return id->expected.known && (id->expected.early_preempt || id->expected.tls) &&
	       id->nmultifd >= id->expected.multifd;
}

/* @ns after @at_ns; VIA_NEVER stays that. */
static uint64_t later(uint64_t at_ns, uint64_t ns)
{
	return ns > VIA_NEVER - at_ns ? VIA_NEVER : at_ns + ns;
}

/* When silence alone says that @c is the preempt channel of an old machine; or never. */
static uint64_t early_preempt_ns(const struct relay_identify *id, const struct relay_candidate *c)
{
	if (!preempt_is_wanted(id) || id->expected.known || !id->seen.early_preempt ||
	    !id->seen.postcopy)
		return VIA_NEVER;
	return later(c->accepted_ns, RELAY_EARLY_PREEMPT_NS);
}

/* -- one connection ------------------------------------------------------------------ */

/* TLS, or bytes of a QEMU that is not known here: main comes first, then the lanes. */
static int identify_opaque(struct relay_identify *id, const struct relay_candidate *c, bool tls,
			   struct relay_identity *who, struct via_error *err)
{
	struct via_wire w = via_wire_reader(c->first, 4);
	uint32_t first = via_wire_get_u32(&w);

	if (only_preempt_is_left(id)) {
		take_preempt(id, who); /* its first page was faster than the relay */
		return 0;
	}
	if (!tls && c->len < 4 && !c->ended)
		return 0; /* not enough to tell the user */
	who->opaque = true;
	if (tls)
		(void)snprintf(who->note, sizeof(who->note), "TLS: carried as it is");
	else
		(void)snprintf(who->note, sizeof(who->note),
			       "begins with %08" PRIx32 ", which is not known: carried as it is",
			       first);
	return id->has_main ? take_lane(id, who, err) : take_main(id, who, err);
}

static int refuse(const struct relay_identify *id, const struct relay_candidate *c,
		  struct via_error *err)
{
	if (c->ended)
		return via_fail(err, -ECONNRESET,
				"identify a connection of QEMU\n"
				"it was closed after %zu bytes\n"
				"see why QEMU gave the migration up",
				c->len);
	return via_fail(err, -ETIMEDOUT,
			"identify a connection of QEMU\n"
			"%zu bytes in %" PRIu64 " seconds\n"
			"%s",
			c->len, id->patience_ns / VIA_NS_PER_S,
			id->expected.known ? "see what QEMU is waiting for"
					   : "let the relay ask QEMU over QMP what it opens");
}

/* What its bytes and its silence say; *@who keeps RELAY_PENDING when that is nothing yet. */
static int identify(struct relay_identify *id, const struct relay_candidate *c, uint64_t now_ns,
		    struct relay_identity *who, struct via_error *err)
{
	switch (kind_of(c)) {
	case KIND_SILENT:
		if (!c->ended && (only_preempt_is_left(id) || now_ns >= early_preempt_ns(id, c)))
			take_preempt(id, who);
		return 0;
	case KIND_SHORT:
		return 0;
	case KIND_MAIN:
		who->next = id->has_main && id->seen.main_ends;
		return who->next ? 0 : take_main(id, who, err);
	case KIND_RECOVERY:
		who->next = id->has_main; /* QEMU resumes before it is seen that that is gone */
		if (who->next)
			return 0;
		who->recovery = id->recovery = true;
		return take_main(id, who, err);
	case KIND_MULTIFD:
		return c->len < QEMU_MULTIFD_INIT_LEN
			       ? 0
			       : take_id(id, c->first[QEMU_MULTIFD_ID_OFF], who, err);
	case KIND_TLS:
		return identify_opaque(id, c, true, who, err);
	case KIND_UNKNOWN:
		return identify_opaque(id, c, false, who, err);
	}
	return 0;
}

int relay_identify(struct relay_identify *id, const struct relay_candidate *c, uint64_t now_ns,
		   struct relay_identity *who, struct via_error *err)
{
	struct relay_identity found = {0};
	int rc = identify(id, c, now_ns, &found, err);

	if (rc)
		return rc;
	if (!found.role && (c->ended || now_ns >= later(c->accepted_ns, id->patience_ns)))
		return refuse(id, c, err);
	*who = found;
	return 0;
}

uint64_t relay_identify_deadline(const struct relay_identify *id, const struct relay_candidate *c)
{
	uint64_t early = early_preempt_ns(id, c);
	uint64_t patience = later(c->accepted_ns, id->patience_ns);

	return !c->len && early < patience ? early : patience;
}

bool relay_machine_is_pre_8(const char *machine)
{
	/* The first part between dashes that is a version, "7.2". */
	for (const char *at = machine; at; at = strchr(at, '-')) {
		unsigned major, minor;
		char rest = '\0';
		int n;

		at += *at == '-';
		n = sscanf(at, "%2u.%2u%c", &major, &minor, &rest);
		if (n == 2 || (n == 3 && rest == '-'))
			return major < 7 || (major == 7 && minor <= 2);
	}
	return false;
}
