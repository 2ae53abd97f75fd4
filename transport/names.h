/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * names.h -- what both sides of a session, and what stands on it, call things: roles, kinds of
 * channels, regions, and how many there may be.
 *
 * Threads: any, and nothing blocks.
 */
#ifndef VIA_TRANSPORT_NAMES_H
#define VIA_TRANSPORT_NAMES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VIA_SESSION_ID_LEN 16u /* bytes */
#define VIA_REGIONS_MAX    256u
#define VIA_MULTIFD_MAX    256u
#define VIA_PREEMPT_MAX    64u

/* Types of messages from this one to 255 are of who uses a session; below, of the transport. */
#define VIA_MESSAGE_USER 64

/* Which side of a session. */
enum via_role { VIA_ROLE_SOURCE = 1, VIA_ROLE_DESTINATION };

/* What a channel is for. A session has one main channel, of the others what its source says. */
enum via_channel_kind { VIA_MAIN = 1, VIA_MULTIFD, VIA_PREEMPT };

/* A piece of guest RAM as both sides know it. */
struct via_region_desc {
	char name[64];      /* not empty, and no two the same */
	uint64_t len;       /* bytes, a multiple of page_size, not 0 */
	uint32_t page_size; /* bytes, a power of two from 4096 to 1 GiB */
};

/*
 * The name of a kind of channel.
 *
 * Returns "main", "multifd" or "preempt"; "?" for any other @kind. Static.
 */
const char *via_channel_kind_name(unsigned kind);

#ifdef __cplusplus
}
#endif

#endif
