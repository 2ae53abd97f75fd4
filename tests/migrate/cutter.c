/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cutter.c -- see cutter.h. Threads that are at no wanted moment pass without a lock, so that
 * ThreadSanitizer sees them as they are.
 *
 * Invariant: the lock is held while a session of the other side is used, and no session is closed
 * before it was forgotten under the lock.
 */
#include "tests/migrate/cutter.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "fabrics/fault/fault.h"
#include "migrate/engine_messages.h"
#include "migrate/page_store.h"
#include "migrate/uffd.h"
#include "tests/migrate/small_guest.h"
#include "transport/page_channel.h"
#include "transport/session.h"

/* The other side is about to have the session too. */
#define JOIN_NS (200 * VIA_NS_PER_MS)

/* So long is nothing sent in bulk, at most, when a cut is not noticed. */
#define NOTICE_MS 1000

/* Two installers and the fault server have no more than these under way. */
#define LAST_PAGES (2u * 32u + 1u)

struct joined {
	struct via_session *session; /* NULL: none, or closed */
	int control_fd;
	bool fresh; /* no cut since it began */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct joined side[VIA_ROLE_DESTINATION + 1];
	const struct cut *cut;
	unsigned n;
	bool hold;
	_Atomic unsigned next;
	bool busy; /* a thread is at the next one */
	unsigned done;
	uint64_t lacking; /* when the first page of this session came; 0: none did */
	_Atomic uint64_t first_lacking;
	enum cut_failure failure;
	_Atomic bool failed;
} cutter = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

void cutter_begin(const struct cut *cut, unsigned n, bool hold, enum cut_failure failure)
{
	pthread_mutex_lock(&cutter.lock);
	memset(cutter.side, 0, sizeof(cutter.side));
	cutter.cut = cut;
	cutter.n = n;
	cutter.hold = hold;
	atomic_store(&cutter.next, 0);
	cutter.done = 0;
	cutter.lacking = 0;
	atomic_store(&cutter.first_lacking, 0);
	cutter.failure = failure;
	atomic_store(&cutter.failed, false);
	pthread_mutex_unlock(&cutter.lock);
}

struct cutter_result cutter_end(void)
{
	struct cutter_result r;

	pthread_mutex_lock(&cutter.lock);
	r = (struct cutter_result){.reached = atomic_load(&cutter.next),
				   .cut = cutter.done,
				   .first_lacking = atomic_load(&cutter.first_lacking)};
	cutter.n = 0;
	pthread_mutex_unlock(&cutter.lock);
	return r;
}

/* -- the cut ------------------------------------------------------------------------- */

/* Under the lock, which it lets go meanwhile. */
static void wait_for_session(const struct joined *side)
{
	struct timespec ts;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += JOIN_NS;
	ts.tv_sec += ts.tv_nsec / (long)VIA_NS_PER_S;
	ts.tv_nsec %= (long)VIA_NS_PER_S;
	while (!side->session && !rc)
		rc = pthread_cond_timedwait(&cutter.changed, &cutter.lock, &ts);
}

/* Under the lock. False: there is no such thing now. */
static bool cut_now(const struct cut *cut)
{
	const struct joined *side = &cutter.side[cut->side];
	struct via_channel *ch;
	bool there;

	wait_for_session(side);
	if (!side->session)
		return false;
	if (cut->kind == CUT_CONTROL)
		return shutdown(side->control_fd, SHUT_RDWR) == 0;
	pthread_mutex_lock(&side->session->lock);
	ch = session_channel(side->session, cut->kind, cut->index);
	there = ch && ch->ep;
	if (there)
		via_fault_cut(ch->ep);
	pthread_mutex_unlock(&side->session->lock);
	return there;
}

static const struct cut *wanted(enum cut_where where)
{
	unsigned i = atomic_load_explicit(&cutter.next, memory_order_relaxed);

	return i < cutter.n && cutter.cut[i].moment->where == where ? &cutter.cut[i] : NULL;
}

static void reach(enum via_role role, enum cut_where where, unsigned what)
{
	const struct cut *cut = wanted(where);

	if (!cut || cut->moment->role != role || cut->moment->what != what)
		return;
	pthread_mutex_lock(&cutter.lock);
	if (wanted(where) == cut && !cutter.busy && cutter.side[role].fresh) {
		cutter.busy = true;
		if (cut_now(cut)) {
			cutter.done++;
			via_fault_reset(); /* fault-call counts from here */
			cutter.lacking = 0;
			cutter.side[VIA_ROLE_SOURCE].fresh = false;
			cutter.side[VIA_ROLE_DESTINATION].fresh = false;
		}
		atomic_fetch_add(&cutter.next, 1);
		cutter.busy = false;
	}
	pthread_mutex_unlock(&cutter.lock);
}

/* -- moments ----------------------------------------------------------------------------- */

void cutter_joined(enum via_role role, struct via_session *session, int control_fd)
{
	pthread_mutex_lock(&cutter.lock);
	cutter.side[role] =
		(struct joined){.session = session, .control_fd = control_fd, .fresh = true};
	pthread_cond_broadcast(&cutter.changed);
	pthread_mutex_unlock(&cutter.lock);
	if (session->resumed)
		reach(role, CUT_JOINED, 0);
}

void cutter_at_guest(unsigned where)
{
	reach(where >= SMALL_FAIL_LOAD || where == SMALL_FAIL_PREPARE ? VIA_ROLE_DESTINATION
								      : VIA_ROLE_SOURCE,
	      CUT_GUEST, where);
}

/* clang-format off */
void __real_via_session_close(struct via_session *s);
void __wrap_via_session_close(struct via_session *s);
int __real_via_round_start(struct via_session *s, const struct via_work *work, struct via_error *err);
int __wrap_via_round_start(struct via_session *s, const struct via_work *work, struct via_error *err);
int __real_via_main_send(struct via_session *s, uint8_t type, const void *payload, size_t len,
			 struct via_error *err);
int __wrap_via_main_send(struct via_session *s, uint8_t type, const void *payload, size_t len,
			 struct via_error *err);
int __real_via_channel_send(struct via_channel *ch, uint8_t type, const void *head, size_t head_len,
			    const void *body, size_t body_len);
int __wrap_via_channel_send(struct via_channel *ch, uint8_t type, const void *head, size_t head_len,
			    const void *body, size_t body_len);
int __real_via_channel_send_staged(struct via_channel *ch, uint8_t type, const void *payload,
				   size_t len, const struct via_run *run, unsigned nruns);
int __wrap_via_channel_send_staged(struct via_channel *ch, uint8_t type, const void *payload,
				   size_t len, const struct via_run *run, unsigned nruns);
int __real_page_store_install(struct page_store *store, unsigned index, uint64_t first, uint64_t n,
			      const uint8_t *src);
int __wrap_page_store_install(struct page_store *store, unsigned index, uint64_t first, uint64_t n,
			      const uint8_t *src);
int __real_page_store_arm(struct page_store *store, struct via_error *err);
int __wrap_page_store_arm(struct page_store *store, struct via_error *err);
int __real_uffd_open(bool user_only, int *fd, struct via_error *err);
int __wrap_uffd_open(bool user_only, int *fd, struct via_error *err);
/* clang-format on */

void __wrap_via_session_close(struct via_session *s)
{
	pthread_mutex_lock(&cutter.lock);
	for (unsigned role = VIA_ROLE_SOURCE; role <= VIA_ROLE_DESTINATION; role++)
		if (cutter.side[role].session == s)
			cutter.side[role].session = NULL;
	pthread_mutex_unlock(&cutter.lock);
	__real_via_session_close(s);
}

int __wrap_via_round_start(struct via_session *s, const struct via_work *work,
			   struct via_error *err)
{
	int rc = __real_via_round_start(s, work, err);

	reach(s->role, CUT_ROUND, 0);
	return rc;
}

int __wrap_via_main_send(struct via_session *s, uint8_t type, const void *payload, size_t len,
			 struct via_error *err)
{
	int rc;

	reach(s->role, CUT_SENDING, type);
	rc = __real_via_main_send(s, type, payload, len, err);
	reach(s->role, CUT_SENT, type);
	return rc;
}

int __wrap_via_channel_send(struct via_channel *ch, uint8_t type, const void *head, size_t head_len,
			    const void *body, size_t body_len)
{
	int rc;

	reach(ch->session->role, CUT_SENDING, type);
	rc = __real_via_channel_send(ch, type, head, head_len, body, body_len);
	reach(ch->session->role, CUT_SENT, type);
	return rc;
}

/* The caller belongs to @session, which cannot be closed meanwhile. */
static void hold_until_noticed(const struct via_session *session)
{
	struct pollfd p = {.fd = session->cancel_fd, .events = POLLIN};
	bool was_cut;

	pthread_mutex_lock(&cutter.lock);
	was_cut =
		cutter.side[session->role].session == session && !cutter.side[session->role].fresh;
	pthread_mutex_unlock(&cutter.lock);
	if (was_cut)
		(void)poll(&p, 1, NOTICE_MS);
}

int __wrap_via_channel_send_staged(struct via_channel *ch, uint8_t type, const void *payload,
				   size_t len, const struct via_run *run, unsigned nruns)
{
	int rc;

	reach(ch->session->role, CUT_SENDING, type);
	if (cutter.hold)
		hold_until_noticed(ch->session);
	rc = __real_via_channel_send_staged(ch, type, payload, len, run, nruns);
	reach(ch->session->role, CUT_SENT, type);
	return rc;
}

/* -- the destination's memory ----------------------------------------------------------------- */

int __wrap_uffd_open(bool user_only, int *fd, struct via_error *err)
{
	if (cutter.failure != CUT_FAIL_UFFD)
		return __real_uffd_open(user_only, fd, err);
	return via_fail(err, -EOPNOTSUPP, "open userfaultfd\nfails by request\nnothing to do");
}

int __wrap_page_store_arm(struct page_store *store, struct via_error *err)
{
	if (cutter.failure != CUT_FAIL_ARM)
		return __real_page_store_arm(store, err);
	return via_fail(err, -EINVAL, "register memory\nfails by request\nnothing to do");
}

/* The moments of cut_install that come before and after (@done) some pages were installed. */
static void reach_install(const struct page_store *store, bool done)
{
	uint64_t missing = atomic_load(&store->missing), began;

	pthread_mutex_lock(&cutter.lock);
	if (!cutter.lacking)
		cutter.lacking = missing;
	began = cutter.lacking;
	pthread_mutex_unlock(&cutter.lock);
	if (!done && missing <= LAST_PAGES)
		reach(VIA_ROLE_DESTINATION, CUT_INSTALL, CUT_INSTALLING_LAST);
	if (!done)
		return;
	reach(VIA_ROLE_DESTINATION, CUT_INSTALL, CUT_INSTALLED_ONE);
	if (missing <= began / 2)
		reach(VIA_ROLE_DESTINATION, CUT_INSTALL, CUT_INSTALLED_HALF);
	if (!missing)
		reach(VIA_ROLE_DESTINATION, CUT_INSTALL, CUT_INSTALLED_ALL);
}

int __wrap_page_store_install(struct page_store *store, unsigned index, uint64_t first, uint64_t n,
			      const uint8_t *src)
{
	uint64_t none = 0, missing = atomic_load(&store->missing);
	int rc;

	/* Several threads install: the most that one of them saw is what there was at first. */
	while (missing > none &&
	       !atomic_compare_exchange_weak(&cutter.first_lacking, &none, missing))
		;
	if (cutter.failure == CUT_FAIL_INSTALL &&
	    missing <= atomic_load(&cutter.first_lacking) / 2 &&
	    !atomic_exchange(&cutter.failed, true))
		return -ENOMEM;
	if (wanted(CUT_INSTALL))
		reach_install(store, false);
	rc = __real_page_store_install(store, index, first, n, src);
	if (wanted(CUT_INSTALL))
		reach_install(store, true);
	return rc;
}
