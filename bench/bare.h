/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bare.h -- private to bench/: the baseline. For each library the least code that does what a row
 * does, straight on the library and as fast as the obvious code can: no thread, no protocol, no
 * check of what came.
 *
 * A bare end is memory and some endpoints to one peer, all of it used by one thread. Where not
 * said otherwise a failure ends the process (bench_die()).
 */
#ifndef VIA_BENCH_BARE_H
#define VIA_BENCH_BARE_H

#include "bench/row.h"
#include "fabrics/spec.h"

#define BARE_REQUEST_LEN 24u
#define BARE_ANSWER_LEN  (4096u + 24u) /* a page, and what ours has in front of it */
#define BARE_ADDRESS_MAX 16384u

struct bare_config {
	const struct via_fabric_spec *spec; /* as a session of ours has it, local_host set */
	bool near;                          /* of the two ends the one that connects */
	void *memory;                       /* to be written from, or into */
	size_t len;
	unsigned endpoints;
	bool sleeps; /* wait on a descriptor instead of spinning */
};

struct bare; /* of one library */

struct bare_ops {
	const char *fabric;  /* name of the back end that it stands beside */
	const char *library; /* "libfabric" */
	const char *writes;  /* in words, what write() posts: "fi_write, 32 in flight" */
	const char *sends;   /* and ask() and answer(): "fi_send" */
	/* Version of the library, into @buf. */
	void (*version)(char *buf, size_t cap);

	/* Everything that needs no peer; registers the memory. */
	struct bare *(*open)(const struct bare_config *config);
	/* What the peer must know, into @buf; returns its length. */
	size_t (*address)(struct bare *b, void *buf, size_t cap);
	/* Both ends, with the peer's address. On return both can be used. */
	void (*connect)(struct bare *b, const void *address, size_t len);
	void (*close)(struct bare *b);

	/*
	 * Write @len bytes from each of the @n offsets of the memory to the same one of the peer's,
	 * the endpoints taking turns. Returns when the local bytes may change again. The peer
	 * calls progress() meanwhile.
	 */
	void (*write)(struct bare *b, const uint64_t *off, size_t n, size_t len);
	/* Return when everything written is in the peer's memory. */
	void (*flush)(struct bare *b);
	/* Let the library work; with sleeps: sleep, at most 10 ms, while there is nothing. */
	void (*progress)(struct bare *b);
	/* Register more memory for the peer to write, until the process ends. */
	void (*add_memory)(struct bare *b, void *memory, size_t len);

	/* Send BARE_REQUEST_LEN bytes, and wait for the answer. On the first endpoint. */
	void (*ask)(struct bare *b);
	/* As progress(), and answer a request that has come with @len bytes. */
	void (*answer)(struct bare *b, size_t len);
};

/* Those that were built. NULL-terminated. */
extern const struct bare_ops *const bare_list[];

/* The one for fabric spec @text, or NULL. */
const struct bare_ops *bare_find(const char *text);

/*
 * One end of a job over bare code: opens it for the job's fabric, with @memory, and connects it to
 * the other end, which does the same. *ops and the end are then used as above. -ENODEV, -EINVAL
 */
int bare_meet(struct bench_job *job, void *memory, size_t len, unsigned endpoints, bool sleeps,
	      const struct bare_ops **ops, struct bare **b, struct via_error *err);

/*
 * The end of a job, at both ends, in two steps, so that nothing comes to an end that is closed: the
 * far end is stopped, and has stopped working when these return; and then, when the near end does
 * not work any more either, each is closed.
 */
int bare_stop(struct bench_job *job, struct via_error *err);
int bare_close(struct bench_job *job, const struct bare_ops *ops, struct bare *b,
	       struct via_error *err);
/* Both steps. */
int bare_part(struct bench_job *job, const struct bare_ops *ops, struct bare *b,
	      struct via_error *err);

/* The offsets of @n pieces of @size bytes, one behind the other; from malloc(3). */
uint64_t *bare_offsets(size_t n, size_t size);
/*
 * Near: write @size bytes at each of the @n offsets, again and again for run_ns, over as many
 * endpoints as parameter `channels` of the case says.
 */
int bare_write_rounds(struct bench_job *job, void *memory, size_t len, const uint64_t *off,
		      size_t n, size_t size, struct via_error *err);
/* Far: memory of @len bytes that is written, until stopped. */
int bare_be_written(struct bench_job *job, size_t len, unsigned endpoints, struct via_error *err);
/* The bare_is() of such a row. */
const char *bare_writes_is(const struct bench_case *c, const char *fabric, char *buf, size_t cap);

#endif
