/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hand.h -- a peer made by hand: it speaks the protocol (docs/wire.md) over a socket pair and the
 * simulated fabric, in one thread, and says one message otherwise than it should.
 *
 * What it says goes through hand_say(), which builds the honest message, applies the twist that the
 * case asks for, and sends what came of it. What it hears is read by hand_hear(). A peer that has
 * been told to go (ERROR, an end of the connection, a dead channel) is over: from there on it says
 * nothing, and every wait returns at once.
 */
#ifndef VIA_TESTS_HAND_H
#define VIA_TESTS_HAND_H

#include <stdbool.h>

#include "fabrics/fabric.h"
#include "transport/messages.h"

#define HAND_FABRIC "sim:hostile,delay=2"
#define HAND_KIND   "sim:hostile"

/* The session: 2 multifd channels and a preempt channel, two regions of so many pages. */
#define HAND_PAGE 4096u
/* ThreadSanitizer makes everything wait for so much longer. */
#ifdef __SANITIZE_THREAD__
#define HAND_SLOWER 4u
#else
#define HAND_SLOWER 1u
#endif

#define HAND_PAGES     16u
#define HAND_PAGES_2   4u
#define HAND_MULTIFD   2u
#define HAND_PREEMPT   1u
#define HAND_STATE_LEN 64u /* bytes of device state beside the versions of small_guest.h */
#define HAND_MEMORY    ((HAND_PAGES + HAND_PAGES_2) * HAND_PAGE)

enum hand_lane { LANE_MAIN, LANE_MULTIFD_0, LANE_MULTIFD_1, LANE_PREEMPT, HAND_LANES };

/* Everything that can be said; of a channel's messages, those before S_STATUS are frames. */
enum spoken {
	S_HELLO,
	S_SETUP,
	S_SETUP_OK,
	S_OPEN,
	S_ADDR,
	S_READY,
	S_REFUSED,
	S_PING,
	S_PONG,
	S_ERROR,
	S_BYE,
	S_STATUS,
	S_CREDIT,
	S_FENCE,
	S_DRAINED,
	S_SEAL,
	S_SEALED,
	S_ZERO,
	S_STATE,
	S_RUN,
	S_RUNNING,
	S_RUN_REFUSED,
	S_ADVISE,
	S_ADVISED,
	S_PAGE_MAP,
	S_PAGE_MAP_2,
	S_PAGE_MAP_LAST,
	S_ARMED,
	S_BULK,
	S_RESUME,
	S_COMPLETE,
	S_COMPLETED,
	S_REQUEST,
	S_PAGE,
	S_PAGES,
	SPOKEN,
};
extern const char *const hand_names[SPOKEN];

enum twist {
	T_NONE = 0,
	T_U8, /* @value, big-endian, at byte @at of the payload */
	T_U16,
	T_U32,
	T_U64,
	T_XOR,       /* byte @at of the payload is changed in the bits of @value */
	T_HEADER_U8, /* the same at byte @at of the header */
	T_HEADER_U16,
	T_HEADER_U32,
	T_SHORTER, /* the first @at bytes of the payload, and a header that says so */
	T_LONGER,  /* @at more bytes of zero, likewise */
	T_CUT, /* the first @at bytes, and the connection is closed; of a channel, nothing more */
	T_TWICE,
	T_FLOOD,   /* @value times, as fast as they are taken */
	T_SKIP,    /* left out */
	T_SILENT,  /* left out, and nothing more is said */
	T_DRIBBLE, /* a byte at a time, slower than a deadline allows */
	T_BEFORE,  /* the message @value is said before it, on channel @at */
	T_INSTEAD, /* and this one not at all */
	T_DIE,     /* the connection is closed instead */
};

#define HAND_TURNS 12u /* of one message that are remembered */

struct twisted {
	enum spoken which;
	/*
	 * Which of those that are said, from 0. Of OPEN, ADDR and READY: the channel, and HAND_LANES for
	 * each time that it was said of it before.
	 */
	unsigned turn;
	enum twist twist;
	uint64_t at, value;
};

struct hand_end {
	struct via_ep *ep;
	bool connected;
	struct via_mr *mr;
	uint8_t *buf; /* receives, and behind them what is sent */
	unsigned sent, credits, owed;
	struct via_mr *memory_mr;
	uint8_t *memory; /* staging */
	size_t memory_len;
	uint64_t nsent;
	struct via_rkey *rkey; /* a source's: to the slices of guest memory, or to staging */
	struct via_rkey *rkey_2;
	bool ready_heard;
	uint64_t epoch; /* that it was opened in */
};

struct hand {
	enum via_role role;
	int fd; /* of the control connection */
	struct via_fabric *fab;
	struct twisted twisted;
	/* Instead of that: decides of each message that is said. False: honest. May be NULL. */
	bool (*choose)(struct hand *h, enum spoken which, struct twisted *twisted);
	void *choose_arg;
	unsigned said[SPOKEN]; /* how often, honest or not */
	unsigned said_of[SPOKEN][HAND_LANES];
	unsigned news; /* frames and messages heard, but those that only show a sign of life */
	unsigned said_len[SPOKEN][HAND_TURNS]; /* bytes, header included */
	unsigned heard_frame[16], heard_message[256];
	bool over;            /* see above */
	bool hears_pings;     /* and answers */
	bool applied;         /* the twist was */
	struct via_error why; /* the peer's ERROR; code 0: none came */
	uint64_t patience_ns; /* of each wait */
	/* the session */
	uint8_t session_id[VIA_SESSION_ID_LEN];
	uint8_t nonce[HAND_LANES][VIA_NONCE_LEN];
	uint64_t epoch;      /* the current one */
	uint64_t last_fence; /* that was drained */
	uint8_t *memory;     /* destination: guest RAM; source: what is written from */
	struct via_mr *memory_mr, *memory_2_mr; /* of the two regions */
	struct hand_end lane[HAND_LANES];
	bool staged;   /* multifd channels carry pages */
	bool resuming; /* SETUP names a higher epoch */
	/* destination: what the fences said, and pages that came */
	struct via_fence_count fenced[HAND_MULTIFD];
	bool lacking[HAND_PAGES + HAND_PAGES_2];
	uint64_t run_epoch;
	bool holds_complete;
	/* the last of each that was heard: what there is to answer */
	uint8_t peer_addr[HAND_LANES][VIA_ADDRESS_MAX];
	size_t peer_addr_len[HAND_LANES];
	uint16_t asked_region;
	uint64_t asked_off;
	unsigned asked;
	uint64_t ping;
	uint8_t in[1 << 16];
	size_t in_len;
	/* what a role does with what it hears, beside what hand.c does */
	void (*on_frame)(struct hand *h, uint16_t type, const uint8_t *payload, size_t len);
	void (*on_message)(struct hand *h, enum hand_lane lane, uint8_t type,
			   const uint8_t *payload, size_t len);
};

/* Speak as @role over @fd, which is the hand's from here on. */
void hand_init(struct hand *h, enum via_role role, int fd, const struct twisted *twisted);
void hand_fini(struct hand *h);
/* Another control connection, the same session. */
void hand_come_again(struct hand *h, int fd);

/* Say it, twisted if it is its turn. */
void hand_say(struct hand *h, enum spoken which, enum hand_lane lane);
/* Wait until something was heard, and deal with it. False: over, or nothing came in time. */
bool hand_hear(struct hand *h);
/* Until a frame, or a message, of @type has been heard more than @before times. False as above. */
bool hand_want_frame(struct hand *h, uint16_t type, unsigned before);
bool hand_want_message(struct hand *h, uint8_t type, unsigned before);
/* Everything that the peer still says, until it goes. */
void hand_hear_out(struct hand *h);

/* Endpoints. The address is for OPEN or ADDR. */
void hand_open_lane(struct hand *h, enum hand_lane lane);
void hand_close_lane(struct hand *h, enum hand_lane lane);
bool hand_connect_lane(struct hand *h, enum hand_lane lane);
struct via_channel_id hand_id(const struct hand *h, enum hand_lane lane);
/* The lane that @id names, or HAND_LANES. */
enum hand_lane hand_lane_of(const struct via_channel_id *id);
/*
 * Source: write @len bytes to @off of the second region, which no ZERO of ours names, or of the
 * staging where the channel has it.
 */
void hand_write(struct hand *h, enum hand_lane lane, uint64_t off, size_t len);

/* -- the two roles: from HELLO to BYE ------------------------------------------------------ */

enum hand_script {
	SCRIPT_PRECOPY,
	SCRIPT_POSTCOPY,
	SCRIPT_RESUME, /* postcopy; lost when the guest runs, and resumed over a second connection */
};

/* Returns @second_fd, or -1 when it was used. */
int hand_source(struct hand *h, enum hand_script script, int second_fd);
void hand_destination(struct hand *h, enum hand_script script);

#endif
