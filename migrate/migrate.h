/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * migrate.h -- the migration engine: carries a guest (guest.h) over a session (transport.h).
 *
 *   source                               destination
 *   via_migrate_connect                  via_migrate_accept
 *   via_migrate_source                   via_migrate_destination
 *   (via_migrate_get_report)             (via_migrate_send_report)
 *   via_session_close                    via_session_close
 *
 * Precopy sends memory while the guest runs at the source. With postcopy the guest moves before all
 * of its memory has: pages that it touches at the destination are asked for, the rest is
 * pushed behind it, and a session that is lost meanwhile can be resumed.
 *
 * Threads: each side's calls come from one thread, its migration thread. via_session_abort()
 * ends a migration from any other, via_session_start_postcopy() switches it to postcopy.
 */
#ifndef VIA_MIGRATE_MIGRATE_H
#define VIA_MIGRATE_MIGRATE_H

#include "core/error.h"
#include "core/hist.h"
#include "migrate/guest.h"
#include "transport/transport.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every migration ends in one of these; what a guest does then is certain. */
enum via_outcome {
	VIA_COMPLETED = 1, /* the guest runs at the destination */
	VIA_ABORTED,       /* the guest runs on at the source; the destination has none */
	VIA_PAUSED, /* the session was lost once RUN had been sent, and was not resumed: each side
			    * keeps what it has. The source's guest stays paused; it must not be
			    * resumed unless the destination's is known not to run */
	VIA_LOST,   /* postcopy: the destination that ran the guest is gone. Its memory was
			    * never complete anywhere else */
};

/* Where a migration stands. */
enum via_phase {
	VIA_PHASE_SETUP = 1,
	VIA_PHASE_PRECOPY,    /* the guest runs while its RAM is sent */
	VIA_PHASE_SWITCHOVER, /* the guest is stopped; last round, fence, seal, device state */
	VIA_PHASE_POSTCOPY,   /* the guest runs at the destination, which lacks some pages */
	VIA_PHASE_PAUSED, /* as before, and the session is lost: recovery. It is closed after the
			       * progress function was told: whoever else knows it, lets it go there */
	VIA_PHASE_DONE,
};

/* Postcopy in numbers. At the source what it sent, at the destination what it saw. */
struct via_postcopy_stats {
	bool used;
	uint64_t faults;            /* destination: messages of userfaultfd */
	uint64_t requests;          /* pages asked for */
	uint64_t request_pages;     /* pages that came as the answer to a request */
	uint64_t bulk_pages;        /* pages that came without */
	uint64_t zero_pages;        /* source: of both, those that were zero */
	uint64_t duplicate_pages;   /* destination: came, and were there already */
	unsigned recoveries;        /* sessions resumed */
	struct via_hist request_ns; /* destination: request sent to answer here */
	struct via_hist install_ns; /* destination: of a page that was asked for */
};

/* When the steps of the switch were done, ns since the call; 0: not yet. */
struct via_steps {
	uint64_t paused_ns;  /* source: the guest stands still */
	uint64_t drained_ns; /* the last round. By postcopy there is none after the stop */
	uint64_t sealed_ns;
	uint64_t armed_ns; /* postcopy: what is lacking was discarded, and faults are answered */
	uint64_t state_ns; /* the device state. Source: it was sent; destination: it is loaded */
	uint64_t run_ns;   /* the guest runs at the destination; source: it has said so */
};

/* How far it is. What is pointed to lives for the call. */
struct via_progress {
	enum via_phase phase;
	unsigned round;      /* from 1 */
	uint64_t memory;     /* bytes of guest RAM */
	uint64_t remaining;  /* bytes of it still dirty in this round; postcopy: lacking */
	uint64_t sent;       /* bytes written so far */
	uint64_t rate;       /* bytes a second, over the last interval */
	uint64_t dirty_rate; /* bytes a second, over the last round; 0 in the first */
	uint64_t expected_downtime_ns; /* were the guest stopped now; 0: not known yet */
	uint64_t requests;             /* postcopy: pages that the destination asked for */
	uint64_t elapsed_ns;

	enum via_role role; /* whose view it is */
	/*
	 * RUN is about to be sent, or obeyed: the function is called for it, and what it does is
	 * downtime. An abort before it returns still keeps the guest at the source, none later does.
	 */
	bool committed;
	/*
	 * Of the whole migration, if it goes on like this; 0: not known. VIA_NEVER: the guest writes
	 * faster than its memory is sent, and only max_rounds or postcopy will end that. In
	 * the first round nothing is known of what the guest writes.
	 */
	uint64_t expected_total_ns;
	uint64_t bandwidth;  /* source: bytes a second of the last round that sent any; or 0 */
	uint64_t pages_sent; /* source: with content. Rounds count once they are drained */
	uint64_t zero_pages; /* source: announced; likewise */
	enum via_fence_state fence;
	struct via_steps steps;
	/* The session at hand with those that were lost before; NULL: there is none, or none yet. */
	const struct via_session_stats *session;
	const struct via_channel_stats *channel; /* nchannels of them, likewise; main first */
	unsigned nchannels;
	const struct via_postcopy_stats *postcopy; /* so far */
};

/*
 * The session was lost after the guest had moved and before all of its pages had. Bring one that
 * resumes it: via_migrate_connect() or via_migrate_accept() with config.resume = @lost, as often
 * and after as long a wait as the caller likes; @why is the loss. Called in the migration thread.
 * Meanwhile vCPUs of the destination that need a missing page stand still. @deadline_ns: VIA_NEVER;
 * but how long to wait for the source at most when the destination could do without it: it is
 * complete, or does not run yet.
 *  0 with *session; any failure gives the migration up (with -ECONNREFUSED and -ESTALE, which say
 *  that the destination is gone or another one, the source's outcome is VIA_LOST)
 */
typedef int via_recover_fn(void *arg, const struct via_resume *lost, const struct via_error *why,
			   uint64_t deadline_ns, struct via_session **session,
			   struct via_error *err);

/* How to migrate. Zeroed, every field has its default. The engine takes a copy. */
struct via_migrate_config {
	uint64_t downtime_limit_ns; /* 0: 300 ms */
	unsigned max_rounds;        /* then stop the guest whatever is left; 0: 30 */
	uint64_t max_bandwidth;     /* bytes a second while the guest runs; 0: no limit */
	size_t max_state_len;       /* destination: longest device state taken; 0: 1 GiB */

	/* Source: when to switch to postcopy. All 0: only when via_session_start_postcopy() asks. */
	unsigned postcopy_after;         /* after so many rounds; 0: not by their number */
	unsigned postcopy_when_stuck;    /* after so many rounds in a row in which the guest wrote
					  * faster than its memory was sent; 0: not for that */
	uint64_t max_postcopy_bandwidth; /* bytes a second of what was not asked for; 0: no limit */

	/* What to do about a session lost in postcopy. NULL: give up. */
	via_recover_fn *recover;
	void *recover_arg;

	/*
	 * Called in the migration thread, at least every interval_ns (0: 100 ms), and with VIA_PHASE_DONE
	 * when it has completed. While the guest stands still what it does is downtime. May be NULL.
	 */
	void (*progress)(void *arg, const struct via_progress *progress);
	void *progress_arg;
	uint64_t interval_ns;
};

/* How a migration ended, and its numbers. */
struct via_migrate_result {
	enum via_outcome outcome;
	unsigned rounds;         /* the one with the guest stopped included */
	uint64_t total_ns;       /* from the call to the confirmation that the guest runs */
	uint64_t setup_ns;       /* of total_ns: channels, threads and bitmap made; source only */
	uint64_t downtime_ns;    /* from the guest's stop to that confirmation; source only */
	uint64_t bytes_sent;     /* written one-sided */
	uint64_t pages_sent;     /* among them, pages with content */
	uint64_t zero_pages;     /* pages announced as zero */
	uint64_t dirty_fetch_ns; /* spent in dirty_fetch() */
	struct via_steps steps;
	struct via_postcopy_stats postcopy;
	struct via_session_stats session;
};

/*
 * Source: begin a session with the regions of a guest.
 *
 * via_session_connect(), which says what the parameters are, when it returns, and what its errors
 * mean. *@session is the caller's to close.
 *
 *  -ENOMEM  no memory
 *  else     the errors of via_session_connect()
 */
int via_migrate_connect(const char *address, const struct via_session_config *config,
			const struct via_source_guest *guest, int cancel_fd,
			struct via_session **session, struct via_error *err);

/*
 * Destination: accept a source and make the memory for its guest.
 *
 * via_session_accept(), guest->prepare(), via_session_provide(): see the first for the parameters
 * and for when it returns. A failure is told to the source and leaves @listen_fd usable. With
 * config->resume the guest is there already and is not prepared. *@session is the caller's to
 * close.
 *
 *  -ENOMEM  no memory
 *  else     the errors of via_session_accept() and via_session_provide(), or of guest->prepare()
 */
int via_migrate_accept(int listen_fd, const struct via_session_config *config,
		       const struct via_destination_guest *guest, const struct via_wait *wait,
		       struct via_session **session, struct via_error *err);

/*
 * Source: begin a session with the regions of a guest, over a control connection that exists
 * already.
 *
 * The session owns @control from then on; a failure closes it.
 *
 *  else  the errors of via_migrate_connect()
 */
int via_migrate_connect_control(struct via_control *control,
				const struct via_session_config *config,
				const struct via_source_guest *guest, int cancel_fd,
				struct via_session **session, struct via_error *err);

/*
 * Destination: accept a source over a control connection that exists already, and make the memory.
 *
 * The session owns @control from then on; a failure closes it.
 *
 *  else  the errors of via_migrate_accept()
 */
int via_migrate_accept_control(struct via_control *control, const struct via_session_config *config,
			       const struct via_destination_guest *guest,
			       const struct via_wait *wait, struct via_session **session,
			       struct via_error *err);

/*
 * Source: migrate a guest.
 *
 * Blocks until the end, in which @guest is where result->outcome says; *@result is set in every
 * case. *@session, of via_migrate_connect(), may be another one afterwards, or NULL, if it was lost
 * and resumed: the caller closes what is there, the others are closed.
 *
 * Returns 0 when completed.
 *
 *  -EINVAL     config asks for postcopy, which the session or the guest cannot do
 *  -ENOMEM     no memory
 *  -ECANCELED  via_session_abort() without a reason, on either side
 *  -ETIMEDOUT, -ECONNRESET  the destination is silent or gone
 *  else        the failure of the session, what a function of @guest returned, or what the
 *              destination reported
 */
int via_migrate_source(struct via_session **session, const struct via_source_guest *guest,
		       const struct via_migrate_config *config, struct via_migrate_result *result,
		       struct via_error *err);

/*
 * Destination: receive a guest and run it.
 *
 * Blocks until @guest runs and has all of its memory, or there is no hope of that; *@result is set
 * in every case. *@session, of via_migrate_accept(), may be another one afterwards, or NULL, if it
 * was lost and resumed: the caller closes what is there, the others are closed. When postcopy is
 * given up (VIA_PAUSED) guest->abandon() has been called. Completed with a session that is NULL, or
 * failed: the guest is complete, but the session was lost before the source could say that it
 * knows.
 *
 * Returns 0 when completed.
 *
 *  -EMSGSIZE    the device state is longer than config->max_state_len
 *  -ENOMEM      no memory
 *  -EPROTO      the source does not follow the protocol
 *  -EBADMSG     what was written here is not what was sent (integrity)
 *  -EOPNOTSUPP  postcopy, and guest->abandon is NULL or this kernel cannot do it
 *  -EPERM       postcopy, and userfaultfd is not permitted
 *  -ECANCELED   via_session_abort() without a reason, on either side; or the source gave up
 *  -ETIMEDOUT, -ECONNRESET  the source is silent or gone
 *  else         the failure of the session, or what a function of @guest returned
 */
int via_migrate_destination(struct via_session **session, const struct via_destination_guest *guest,
			    const struct via_migrate_config *config,
			    struct via_migrate_result *result, struct via_error *err);

/*
 * Destination: send the source some bytes of your own, after completion.
 *
 * The result of a check, say. @len may be 0. Waits for credits of the source, as via_main_send()
 * does.
 *
 *  -ECONNRESET  @session is NULL: it was lost
 *  else         the failure of the session
 */
int via_migrate_send_report(struct via_session *session, const void *report, size_t len,
			    struct via_error *err);

/*
 * Source: wait for the bytes that the destination sends after completion.
 *
 * Blocks until @deadline_ns. *@report, of *@len bytes, is from malloc and the caller's to free.
 *
 *  -ETIMEDOUT  none came before the deadline
 *  -EPROTO     something else came
 *  -ENOMEM     no memory
 *  else        the failure of the session
 */
int via_migrate_get_report(struct via_session *session, uint64_t deadline_ns, void **report,
			   size_t *len, struct via_error *err);

/* The name of an outcome. Returns "completed", "aborted", "paused" or "lost"; "?" else. Static. */
const char *via_outcome_name(enum via_outcome outcome);

#ifdef __cplusplus
}
#endif

#endif
