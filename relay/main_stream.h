/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main_stream.h -- what a relay has to know of the main channel's bytes, as they pass.
 *
 * From source to destination: the header, the configuration and the commands in front of the
 * first section. What follows has no lengths that could be read without QEMU's own tables, and
 * nothing in it matters here: it is not looked at. From destination to source, the return
 * path: all messages are framed, and are followed to the end.
 *
 * The parsers look; they hold no byte back and change none. Where one does not understand a byte
 * it stops to look, and note says why: that is never an error of the relay. One thread owns a
 * parser. Nothing here blocks, allocates or fails.
 */
#ifndef VIA_RELAY_MAIN_STREAM_H
#define VIA_RELAY_MAIN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of one frame, gathered until it can be understood. */
struct relay_frame {
	uint8_t bytes[272];
	size_t have, need;
	uint64_t skip;     /* bytes to step over before the next frame */
	uint64_t position; /* bytes seen */
	bool done;         /* looks at nothing any more */
};

struct relay_main {
	bool header;       /* "QEVM" of version 3 has passed */
	bool recovery;     /* begins with a command: the source resumes a paused postcopy */
	bool return_path;  /* OPEN_RETURN_PATH has passed: success is SHUT on the way back */
	bool postcopy;     /* POSTCOPY_ADVISE of postcopy-ram has passed */
	bool body;         /* the first section has begun: nothing above changes any more */
	uint32_t page_len; /* of the target, bytes; 0: not said (x86: always 4096) */
	char machine[64];  /* the machine's type, "pc-q35-10.0"; empty: not said */
	char note[96];     /* why it has stopped to look; empty: it has not, or body */

	/* private */
	struct relay_frame frame;
	uint32_t capabilities; /* names of the configuration that are still to come */
};

struct relay_return {
	/* messages that have passed */
	uint64_t pongs;
	uint64_t bitmaps;    /* counted when the bitmap itself begins */
	uint64_t requests;   /* of pages, in postcopy */
	uint32_t last_pong;  /* value */
	bool resumed;        /* RESUME_ACK */
	bool shut;           /* SHUT, the last message */
	uint32_t shut_value; /* 0: success */
	char note[96];       /* why it has stopped to look; empty: it has not */

	struct relay_frame frame; /* private */
};

/* Start at the first byte of a connection. */
void relay_main_init(struct relay_main *m);
void relay_return_init(struct relay_return *r);

/* The next @len bytes of the connection have passed. */
void relay_main_feed(struct relay_main *m, const void *bytes, size_t len);
void relay_return_feed(struct relay_return *r, const void *bytes, size_t len);

#endif
