/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identify.h -- what a connection is that QEMU, the source of a migration, made to the relay.
 *
 * QEMU announces nothing: a connection says by its first bytes that it is main or multifd, or it is
 * TLS and says nothing at all, or it is the preempt channel, which is silent until the guest
 * at the destination runs. The relay accepts all connections at once, reads what they send and
 * asks here again, for each one in the order in which they were accepted, whenever something
 * has happened: bytes, an end, a new fact, another one that is known now, a deadline
 * (relay_identify_deadline).
 *
 * How each is known:
 *   main      begins with "QEVM"; or, when a paused postcopy is resumed, with RECV_BITMAP
 *   multifd   begins with an init of 64 bytes that has its id
 *   preempt   is silent, and the destination has answered on main: no QEMU answers there before
 *             it has all its multifd channels, so this one cannot be one of them. QEMU 7.2 and
 *             machines of its time open it before; then what QMP or the machine's name says
 *             decides. When a paused postcopy is resumed there are no multifd channels, and it is
 *             whatever is silent
 *   opaque    TLS, or first bytes that nobody here knows: main when there is none, else a multifd
 *             lane, and carried as it is
 * A connection that fits none of these is refused, with the reason: a second main, an id for
 * the second time, a silence that does not end. A main that resumes what the one at hand
 * belongs to, or comes when that one ends, stays unknown instead: it is for the state of the next
 * session, and so is who was accepted behind it.
 *
 * One thread owns the state. Nothing here blocks or allocates.
 */
#ifndef VIA_RELAY_IDENTIFY_H
#define VIA_RELAY_IDENTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/error.h"

/* Bytes that always suffice to know a connection: read no more before it is known. */
#define RELAY_FIRST_BYTES_MAX 64u
/* Multifd channels that QEMU can have: its ids are a byte. */
#define RELAY_MULTIFD_MAX 256u

/*
 * How long a silent connection is watched before it is the preempt channel of an old machine,
 * when nobody but the machine's name says so. Multifd channels send their init within
 * microseconds of their connection; only they are mistaken when this is too short.
 */
#define RELAY_EARLY_PREEMPT_NS (300 * VIA_NS_PER_MS)

/* What QMP says about the source (relay/qmp.h). */
struct relay_expected {
	bool known; /* false: nobody asked, or nobody answered; the rest means nothing */
	bool tls;
	bool preempt;       /* capability postcopy-preempt */
	bool early_preempt; /* ... whose channel is opened right after main: machine <= 7.2 */
	unsigned multifd;   /* channels; 0: capability multifd is off */
};

/* What has been seen on main; they only ever become true (relay/main_stream.h). */
struct relay_seen {
	bool postcopy;      /* POSTCOPY_ADVISE for RAM has passed, or cannot be seen (opaque) */
	bool answered;      /* a PONG was handed to QEMU, the source */
	bool early_preempt; /* by the machine's name, relay_machine_is_pre_8() */
	bool main_ends;     /* one of the QEMUs has closed it: the source's may come back at once */
};

enum relay_role {
	RELAY_PENDING = 0, /* not known yet */
	RELAY_MAIN,
	RELAY_MULTIFD,
	RELAY_PREEMPT,
};

/* A connection that is still to be known; the owner keeps it. */
struct relay_candidate {
	uint64_t accepted_ns;
	size_t len; /* bytes that it has sent so far */
	uint8_t first[RELAY_FIRST_BYTES_MAX];
	bool ended; /* and sends no more */
};

struct relay_identity {
	enum relay_role role;
	unsigned index; /* multifd: QEMU's id, or a free one from the top for an opaque lane */
	bool recovery;  /* main of a paused postcopy */
	bool opaque;    /* not to be parsed: TLS, or bytes that are not known here */
	bool next;      /* RELAY_PENDING, and main of the next session */
	char note[80];  /* worth telling the user, or empty */
};

struct relay_identify {
	struct relay_expected expected;
	struct relay_seen seen;

	/* private */
	uint64_t patience_ns;
	unsigned multifd_max;
	bool has_main, has_preempt, recovery;
	unsigned nmultifd;
	uint64_t taken[RELAY_MULTIFD_MAX / 64]; /* bit for each multifd index */
};

/*
 * A new migration, or a resumed one: no connection is known. Set expected and seen as they come.
 * @multifd_max  lanes that there are at most, up to RELAY_MULTIFD_MAX
 * @patience_ns  how long a connection may keep silent, or stop inside its first bytes
 */
void relay_identify_init(struct relay_identify *id, unsigned multifd_max, uint64_t patience_ns);

/*
 * What is @c? *@who is written when it is known, and from then on its role is taken; with
 * role RELAY_PENDING and 0 when it is not: ask again.
 *
 * An error refuses the connection; the others are not touched by it:
 *  -EEXIST      a second main, or an id that is there already
 *  -ERANGE      an id, or one lane more, than there are lanes
 *  -ETIMEDOUT   silent, or incomplete, for patience_ns
 *  -ECONNRESET  it ended before it was known
 */
int relay_identify(struct relay_identify *id, const struct relay_candidate *c, uint64_t now_ns,
		   struct relay_identity *who, struct via_error *err);

/* When to ask again about @c though nothing else has happened. */
uint64_t relay_identify_deadline(const struct relay_identify *id, const struct relay_candidate *c);

/*
 * Does @machine ("pc-q35-7.2", also with QOM's "-machine" behind it) open the preempt channel
 * right after main? True for versioned types up to 7.2, false for names without a version.
 */
bool relay_machine_is_pre_8(const char *machine);

#endif
