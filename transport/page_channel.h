/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_channel.h -- a channel as a thread of the engine owns it: messages, and messages with
 * content of guest RAM that travels as a one-sided write into the receiver's staging.
 *
 * Preempt channels, and multifd channels that were opened after the seal, carry pages that way:
 * the key that comes with them opens the staging of that one channel and nothing else. Staging
 * is divided into slots. Each message that costs a credit has one, in turn, and may fill it; a
 * credit that comes back says that the slot is free again. So there is no accounting
 * of its own: a sender without credits waits.
 *
 * One owner thread for each channel. All functions but via_channel_take() return 0 or a
 * count, or the failure of the channel, which via_channel_fail() turns into that of the session.
 * Waits end by the session's stall_ns, by its failure, or as stated. Data path:
 * nothing here takes a lock, allocates or formats text.
 */
#ifndef VIA_TRANSPORT_PAGE_CHANNEL_H
#define VIA_TRANSPORT_PAGE_CHANNEL_H

#include "transport/transport.h"

struct via_channel;

/*
 * The longest page of guest RAM that staging is made for, bytes: longer ones would keep a vCPU waiting
 * for too long. A channel that would need it is refused with -EOPNOTSUPP.
 */
#define VIA_STAGED_PAGE_MAX (16u << 20)

/* Content of guest RAM in one staged message: as many runs, at least. */
#define VIA_STAGED_RUNS 64u

struct via_page_message {
	uint8_t type;
	const uint8_t *payload; /* until via_channel_done() */
	size_t len;
	const uint8_t *slot; /* destination: its slot of the staging, likewise; NULL: has none */
	size_t slot_len;     /* bytes of it; what a message filled, its payload says */
	void *own;           /* the channel's */
};

/*
 * The channel (@kind, @index), which is ready and has no owner: the calling engine owns it from here
 * on, until the close of the session. NULL when there is none such.
 */
struct via_channel *via_channel_take(struct via_session *session, enum via_channel_kind kind,
				     unsigned index);

/* As probes name it (core/probe.h). */
uint64_t via_channel_probe(const struct via_channel *ch);

/* Bytes of one slot of the channel's staging; 0: it has none. The same on both sides. */
size_t via_channel_slot_len(const struct via_channel *ch);

/* Messages that can be sent without waiting. */
unsigned via_channel_room(const struct via_channel *ch);

/* Send a message: @head and then @body (which may be absent), at most 8184 bytes together. */
int via_channel_send(struct via_channel *ch, uint8_t type, const void *head, size_t head_len,
		     const void *body, size_t body_len);

/*
 * Source: write @nruns pieces of guest RAM (at most VIA_STAGED_RUNS, and slot_len bytes
 * together), one after the other, into the next slot, and behind them the message with @payload.
 * First waits for a credit, and until the writes before it have retired: so at most one is ahead of
 * whatever else the link carries. The memory must not change until via_channel_settle().
 *  -ERANGE for a run outside its region, -EMSGSIZE
 */
int via_channel_send_staged(struct via_channel *ch, uint8_t type, const void *payload, size_t len,
			    const struct via_run *run, unsigned nruns);

/* Wait until no message or write of the channel is under way on this side. */
int via_channel_settle(struct via_channel *ch);

/*
 * Source: wait for the turn of @bytes within the session's bandwidth (via_session_set_bandwidth),
 * which all channels share.
 */
int via_channel_pace(struct via_channel *ch, uint64_t bytes);

/* Destination: the slot of a message that came brought so many bytes. For what is shown of the channel. */
void via_channel_placed(struct via_channel *ch, uint64_t bytes);

/* Move the channel forward: how many completions there were. */
int via_channel_progress(struct via_channel *ch);

/*
 * As progress; when there is nothing, sleep until there is, eventfd @wake_fd (or -1) is readable,
 * which empties it, or @deadline_ns.
 */
int via_channel_wait(struct via_channel *ch, uint64_t deadline_ns, int wake_fd);

/* The oldest message received, or false. Give each back, in the order in which they came. */
bool via_channel_next(struct via_channel *ch, struct via_page_message *message);
int via_channel_done(struct via_channel *ch, struct via_page_message *message);

/*
 * Progress of @n channels of one owner; when there is none, sleep until there is, one of
 * the @nfds descriptors @fd is readable (at most 2; left as they are), or @deadline_ns.
 * Returns the number of completions; a channel that fails has failed the session already.
 */
int via_channels_wait(struct via_channel *const *ch, unsigned n, uint64_t deadline_ns,
		      const int *fd, unsigned nfds);

/* The session fails with @code, put into words, unless it has failed already. */
void via_channel_fail(struct via_channel *ch, int code);

#endif
