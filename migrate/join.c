/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * join.c -- a guest and a session brought together: the guest's regions become the
 * session's, on both sides.
 */
#include <stdlib.h>
#include <string.h>

#include "migrate/migrate.h"

/* The guest's regions as the transport's. From malloc; NULL when there is no memory. */
static struct via_region *as_session_regions(const struct via_source_guest *guest)
{
	struct via_region *regions =
		calloc(guest->nregions ? guest->nregions : 1, sizeof(*regions));

	for (unsigned i = 0; regions && i < guest->nregions; i++) {
		const struct via_guest_region *g = &guest->region[i];

		memcpy(regions[i].desc.name, g->name, sizeof(regions[i].desc.name));
		regions[i].desc.len = g->len;
		regions[i].desc.page_size = g->page_size;
		regions[i].addr = g->addr;
	}
	return regions;
}

static int fail_memory(struct via_error *err)
{
	return via_fail(err, -ENOMEM, "describe the guest\nout of memory\nfree some memory");
}

int via_migrate_connect(const char *address, const struct via_session_config *config,
			const struct via_source_guest *guest, int cancel_fd,
			struct via_session **session, struct via_error *err)
{
	struct via_region *regions = as_session_regions(guest);
	int rc = regions ? via_session_connect(address, config, regions, guest->nregions, cancel_fd,
					       session, err)
			 : fail_memory(err);

	free(regions);
	return rc;
}

int via_migrate_connect_control(struct via_control *control,
				const struct via_session_config *config,
				const struct via_source_guest *guest, int cancel_fd,
				struct via_session **session, struct via_error *err)
{
	struct via_region *regions = as_session_regions(guest);
	int rc;

	if (!regions) {
		via_control_close(control);
		return fail_memory(err);
	}
	rc = via_session_connect_control(control, config, regions, guest->nregions, cancel_fd,
					 session, err);
	free(regions);
	return rc;
}

/* Have the guest make its regions, and register them. */
static int prepare(struct via_session *session, const struct via_destination_guest *guest,
		   struct via_error *err)
{
	unsigned n;
	const struct via_region *regions = via_session_regions(session, &n);
	struct via_guest_region *g = calloc(n, sizeof(*g));
	void **addr = calloc(n, sizeof(*addr));
	int rc = g && addr ? 0 : fail_memory(err);

	for (unsigned i = 0; i < n && !rc; i++) {
		memcpy(g[i].name, regions[i].desc.name, sizeof(g[i].name));
		g[i].len = regions[i].desc.len;
		g[i].page_size = regions[i].desc.page_size;
	}
	if (!rc)
		rc = guest->prepare(guest->arg, n, g, err);
	if (rc) {
		/* For a guest that leaves no words. */
		via_fail(err, rc, "prepare the guest\n%s\nsee the guest's own messages",
			 via_err_text(rc));
		via_session_refuse(session, err);
	} else {
		for (unsigned i = 0; i < n; i++)
			addr[i] = g[i].addr;
		rc = via_session_provide(session, addr, err);
	}
	free(g);
	free(addr);
	return rc;
}

/*
 * Of a resumed session the guest is there already, and its memory is registered with nobody.
 */
static int prepare_or_close(struct via_session *s, bool resumed,
			    const struct via_destination_guest *guest, struct via_session **session,
			    struct via_error *err)
{
	struct via_error first = {0};
	int rc = resumed ? via_session_provide(s, NULL, &first) : prepare(s, guest, &first);

	if (!rc) {
		*session = s;
		return 0;
	}
	via_session_close(s);
	return via_error_pass(err, &first);
}

int via_migrate_accept(int listen_fd, const struct via_session_config *config,
		       const struct via_destination_guest *guest, const struct via_wait *wait,
		       struct via_session **session, struct via_error *err)
{
	struct via_session *s;
	int rc = via_session_accept(listen_fd, config, wait, &s, err);

	return rc ? rc : prepare_or_close(s, config->resume, guest, session, err);
}

int via_migrate_accept_control(struct via_control *control, const struct via_session_config *config,
			       const struct via_destination_guest *guest,
			       const struct via_wait *wait, struct via_session **session,
			       struct via_error *err)
{
	struct via_session *s;
	int rc = via_session_accept_control(control, config, wait, &s, err);

	return rc ? rc : prepare_or_close(s, config->resume, guest, session, err);
}
