/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * facts.h -- what the destination has to know of the source's QEMU, so that its own is set alike.
 *
 * QEMU does not say on the wire how it was set: two that are set differently find out when it is
 * too late, or not at all. So the source relay, which can ask, puts it in front of main's bytes
 * (docs/wire.md). Nothing here blocks or allocates; any thread.
 */
#ifndef VIA_RELAY_FACTS_H
#define VIA_RELAY_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The capabilities of QEMU that must be alike on both sides. Numbers of bits on the wire. */
enum relay_capability {
	RELAY_CAP_MULTIFD = 0,
	RELAY_CAP_POSTCOPY_RAM,
	RELAY_CAP_POSTCOPY_PREEMPT,
	RELAY_CAP_RETURN_PATH,
	RELAY_CAP_SWITCHOVER_ACK,
	RELAY_CAP_XBZRLE,
	RELAY_CAP_IGNORE_SHARED,
	RELAY_CAPS,
};

#define RELAY_COMPRESSION_MAX 15u /* bytes of a name */

/* Bytes of the longest record. */
#define RELAY_FACTS_MAX (6u + RELAY_COMPRESSION_MAX)

struct relay_facts {
	bool known;   /* false: the source's relay has no QMP; the rest means nothing */
	bool binding; /* they were set for this migration: go on with the same, or not at all */
	uint16_t on;  /* 1 << enum relay_capability */
	unsigned multifd_channels;                           /* 1 to 255; 0 without multifd */
	char multifd_compression[RELAY_COMPRESSION_MAX + 1]; /* "zstd"; empty without multifd */
};

/* QEMU's name of it. Static. */
const char *relay_capability_name(enum relay_capability capability);

/*
 * Into @buf of @cap bytes. Returns the length, -EINVAL for facts that no decoder takes, or
 * -ENOBUFS; RELAY_FACTS_MAX bytes are always enough.
 */
ssize_t relay_facts_encode(const struct relay_facts *facts, uint8_t *buf, size_t cap);

/*
 * From the first @len bytes of main. Returns how many of them the record has; 0 when more are
 * needed, which is never so with RELAY_FACTS_MAX; -EPROTO when they begin no record. *facts is
 * written when there is a record.
 */
ssize_t relay_facts_decode(const uint8_t *buf, size_t len, struct relay_facts *facts);

#endif
