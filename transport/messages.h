/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * messages.h -- the messages of the control connection and of the channels, as
 * structs in memory and as bytes on the wire (docs/wire.md gives the offsets).
 *
 * Decoders trust nothing: every length, count and enumeration is checked, what
 * is left over is an error, and pointers in a decoded message point into the
 * buffer that was decoded. Encoders return the number of bytes or -ENOBUFS.
 * Decoders return 0, or -EPROTO.
 */
#ifndef VIA_TRANSPORT_MESSAGES_H
#define VIA_TRANSPORT_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/error.h"
#include "core/ledger.h"
#include "transport/names.h"

#define VIA_PROTOCOL_VERSION     1u /* what this build speaks */
#define VIA_PROTOCOL_VERSION_MIN 1u /* the oldest it accepts: one less, once there is one */

/* Bits of via_hello.features. */
#define VIA_FEATURE_INTEGRITY (UINT64_C(1) << 0) /* digests of pages follow them */

#define VIA_NONCE_LEN   16u
#define VIA_OFFERS_MAX  32u
#define VIA_ADDRESS_MAX 512u /* bytes of an endpoint address */
#define VIA_RKEY_MAX    512u /* bytes of one packed key */

/* -- control connection ---------------------------------------------------- */

enum via_control_type {
	VIA_CONTROL_HELLO = 1,       /* first frame of each side */
	VIA_CONTROL_SETUP,           /* source: fabric, channel counts, regions */
	VIA_CONTROL_SETUP_OK,        /* destination: regions are registered */
	VIA_CONTROL_CHANNEL_OPEN,    /* source */
	VIA_CONTROL_CHANNEL_ADDR,    /* destination */
	VIA_CONTROL_CHANNEL_READY,   /* each side: connected, receives posted; keys */
	VIA_CONTROL_CHANNEL_REFUSED, /* each side: this channel will not be */
	VIA_CONTROL_PING,
	VIA_CONTROL_PONG,
	VIA_CONTROL_ERROR, /* the sender ends the session, and why */
	VIA_CONTROL_BYE,   /* the sender is done; nothing follows */
};

/* One fabric that a side can use, or cannot and why. */
struct via_offer {
	char kind[64];    /* what both sides must have in common: see via_fabric_kind() */
	char spec[64];    /* what this side would open; does not travel */
	char reach[96];   /* as in struct via_fabric_info */
	char reason[192]; /* empty: usable */
	uint16_t rank;    /* as in struct via_fabric_info */
};

struct via_hello {
	uint16_t version_min, version_max;
	uint64_t features;                      /* VIA_FEATURE_... */
	uint8_t session_id[VIA_SESSION_ID_LEN]; /* source: the session's; destination: repeats it */
	uint8_t role;                           /* enum via_role */
	char program[64];                       /* "viaduct 0.1.0" */
	unsigned noffers;
	struct via_offer offer[VIA_OFFERS_MAX];
};

struct via_setup {
	uint16_t version; /* chosen by the source from both ranges */
	char fabric[64];  /* the kind that the source has chosen */
	uint16_t multifd; /* channels of each kind that this session has */
	uint16_t preempt;
	uint64_t slice_len; /* bytes of a registered slice; the last of a region may be shorter */
	uint64_t epoch;     /* the first of the session: 1; above, it resumes one that was lost */
	unsigned nregions;
	struct via_region_desc region[VIA_REGIONS_MAX];
};

/* Which channel a message is about. */
struct via_channel_id {
	uint8_t kind; /* enum via_channel_kind */
	uint16_t index;
	uint64_t epoch; /* the first epoch that it serves */
};

struct via_channel_open {
	struct via_channel_id id;
	uint8_t session_id[VIA_SESSION_ID_LEN];
	uint8_t nonce[VIA_NONCE_LEN];
	const uint8_t *addr;
	uint16_t addr_len; /* at most VIA_ADDRESS_MAX */
};

struct via_channel_addr {
	struct via_channel_id id;
	const uint8_t *addr;
	uint16_t addr_len;
};

/* One packed key; keys come in the order of regions and of slices within a region. */
struct via_packed_key {
	const uint8_t *bytes;
	uint16_t len;
};

struct via_channel_ready {
	struct via_channel_id id;
	uint16_t credits;    /* messages that the sender's posted receives can hold */
	uint32_t msg_len;    /* bytes of each of those receives */
	uint32_t nkeys;      /* 0 from the source; for main at most 1 */
	const uint8_t *keys; /* encoded: iterate with via_channel_ready_next_key() */
	size_t keys_len;
};

struct via_channel_refused {
	struct via_channel_id id;
	struct via_error error;
};

ssize_t via_hello_encode(const struct via_hello *m, void *buf, size_t cap);
/*
 * Reads the version range first: a range that does not meet this build's returns
 * -EPROTONOSUPPORT with only version_min and version_max set, whatever follows.
 */
int via_hello_decode(const void *buf, size_t len, struct via_hello *m);
ssize_t via_setup_encode(const struct via_setup *m, void *buf, size_t cap);
int via_setup_decode(const void *buf, size_t len, struct via_setup *m);
ssize_t via_channel_open_encode(const struct via_channel_open *m, void *buf, size_t cap);
int via_channel_open_decode(const void *buf, size_t len, struct via_channel_open *m);
ssize_t via_channel_addr_encode(const struct via_channel_addr *m, void *buf, size_t cap);
int via_channel_addr_decode(const void *buf, size_t len, struct via_channel_addr *m);
/* Bytes that one key of @key_len adds to the keys of a CHANNEL_READY. */
size_t via_packed_key_len(size_t key_len);
/* Append one key to @buf at *pos; *pos moves on. 0 or -ENOBUFS. */
int via_packed_key_append(const struct via_packed_key *key, void *buf, size_t cap, size_t *pos);
ssize_t via_channel_ready_encode(const struct via_channel_ready *m, void *buf, size_t cap);
/* Also walks through all keys: nkeys of them are there, each at most VIA_RKEY_MAX bytes. */
int via_channel_ready_decode(const void *buf, size_t len, struct via_channel_ready *m);
/* The key at *pos of @m's keys (0 first); *pos moves on. 0, or -ENOENT after the last. */
int via_channel_ready_next_key(const struct via_channel_ready *m, size_t *pos,
			       struct via_packed_key *key);
ssize_t via_channel_refused_encode(const struct via_channel_refused *m, void *buf, size_t cap);
int via_channel_refused_decode(const void *buf, size_t len, struct via_channel_refused *m);
/* ERROR: the code travels by its name; an unknown name decodes as -EIO. */
ssize_t via_error_encode(const struct via_error *m, void *buf, size_t cap);
int via_error_decode(const void *buf, size_t len, struct via_error *m);
/* PING and PONG: one opaque number, repeated in the answer. */
ssize_t via_ping_encode(uint64_t stamp, void *buf, size_t cap);
int via_ping_decode(const void *buf, size_t len, uint64_t *stamp);

/* -- channels --------------------------------------------------------------- */

/*
 * Every message on an endpoint starts with this header. A message longer than the
 * peer's receives travels in fragments: all but the last have VIA_MESSAGE_MORE,
 * all have the same type, and no other message comes between them.
 */
#define VIA_MESSAGE_HEADER_LEN 8u

enum via_message_flags { VIA_MESSAGE_MORE = 1 << 0 };

struct via_message_header {
	uint8_t type;
	uint8_t flags;    /* enum via_message_flags; other bits must be 0 */
	uint16_t credits; /* receives posted again since the last message */
	uint32_t len;     /* payload bytes of this fragment */
};

enum via_message_type {
	VIA_MESSAGE_CREDIT = 1, /* no payload: carries credits alone */
	VIA_MESSAGE_FENCE,      /* multifd, source: struct via_fence_message */
	VIA_MESSAGE_DRAINED,    /* main, destination: struct via_drained_message */
	VIA_MESSAGE_SEAL,       /* main, source: epoch */
	VIA_MESSAGE_SEALED,     /* main, destination: epoch */
	VIA_MESSAGE_STREAM,     /* of a session of streams: struct via_stream_message */
	VIA_MESSAGE_STREAM_END, /* likewise: status */
				/* VIA_MESSAGE_USER and above: the engine's own (migrate/) */
};

struct via_fence_message {
	uint16_t index; /* of the multifd channel */
	struct via_fence_count count;
};

struct via_drained_message {
	uint64_t epoch;
	unsigned n;                                    /* channels, in the order of their index */
	struct via_fence_count count[VIA_MULTIFD_MAX]; /* epoch of each equals epoch */
};

/* @buf has at least VIA_MESSAGE_HEADER_LEN bytes. */
void via_message_header_encode(const struct via_message_header *h, void *buf);
/* @len: bytes received, header included. -EPROTO when h->len is not exactly the rest. */
int via_message_header_decode(const void *buf, size_t len, struct via_message_header *h);
ssize_t via_fence_encode(const struct via_fence_message *m, void *buf, size_t cap);
int via_fence_decode(const void *buf, size_t len, struct via_fence_message *m);
ssize_t via_drained_encode(const struct via_drained_message *m, void *buf, size_t cap);
int via_drained_decode(const void *buf, size_t len, struct via_drained_message *m);
/* SEAL and SEALED. */
ssize_t via_epoch_encode(uint64_t epoch, void *buf, size_t cap);
int via_epoch_decode(const void *buf, size_t len, uint64_t *epoch);

/* STREAM: the next bytes of a stream. At least one in all. */
struct via_stream_message {
	uint32_t slot_len; /* in the message's slot, behind those */
	const uint8_t *bytes;
	size_t len;
};

/* Before the bytes, which the sender may have in place already. */
#define VIA_STREAM_PREFIX_LEN 4u

/* @buf has at least VIA_STREAM_PREFIX_LEN bytes. */
void via_stream_prefix_encode(uint32_t slot_len, void *buf);
/* Whether there is such a slot, the channel knows. */
int via_stream_decode(const void *buf, size_t len, struct via_stream_message *m);
/* STREAM_END: 0, or a code, which travels by its name; an unknown name decodes as -EIO. */
ssize_t via_stream_end_encode(int status, void *buf, size_t cap);
int via_stream_end_decode(const void *buf, size_t len, int *status);

#endif
