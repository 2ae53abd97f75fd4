/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_fabric.c -- the back end's table; devices chosen and opened.
 *
 * Opens no connection. What a setting asks for and a device cannot do is refused here, not
 * when the first endpoint needs it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabrics/verbs/verbs.h"

static unsigned at_most(uint64_t wanted, int max)
{
	return max > 0 && wanted > (uint64_t)max ? (unsigned)max : (unsigned)wanted;
}

void verbs_fill_caps(const struct ibv_device_attr *attr, const struct verbs_settings *settings,
		     struct via_fabric_caps *caps)
{
	int queue = attr->max_qp_wr - 1; /* one place is kept for binding windows */

	caps->write_len_max = VERBS_WRITE_LEN_MAX;
	caps->msg_len_max = VERBS_MSG_LEN_MAX;
	caps->addr_len_max = VERBS_ADDRESS_MAX;
	caps->rkey_len_max = VERBS_KEY_LEN;
	caps->sge_max = at_most(VERBS_SGE_MAX, attr->max_sge);
	caps->tx_depth = at_most(settings->tx_depth, queue);
	caps->rx_depth = at_most(settings->rx_depth, queue);
}

/* The least of every rail's. */
static void join_caps(struct verbs_fabric *fab)
{
	verbs_fill_caps(&fab->rail[0].attr, &fab->settings, &fab->base.caps);
	for (unsigned i = 1; i < fab->nrails; i++) {
		struct via_fabric_caps more, *caps = &fab->base.caps;

		verbs_fill_caps(&fab->rail[i].attr, &fab->settings, &more);
		caps->sge_max = at_most(caps->sge_max, (int)more.sge_max);
		caps->tx_depth = at_most(caps->tx_depth, (int)more.tx_depth);
		caps->rx_depth = at_most(caps->rx_depth, (int)more.rx_depth);
	}
}

static void close_rail(struct verbs_rail *rail)
{
	if (rail->pd)
		ibv_dealloc_pd(rail->pd);
	if (rail->ctx)
		ibv_close_device(rail->ctx);
}

static int fail_rail(const struct verbs_rail *rail, const char *call, int errnum,
		     struct via_error *err)
{
	return via_fail(err, verbs_code(errnum),
			"open fabric verbs:%s\n%s: %s\ncheck the rights on /dev/infiniband",
			rail->device, call, strerror(errnum));
}

static int open_rail(const struct verbs_port *port, const struct verbs_source *source,
		     struct verbs_rail *rail, struct via_error *err)
{
	int rc;

	verbs_port_name(port, rail->name, sizeof(rail->name));
	snprintf(rail->device, sizeof(rail->device), "%s", port->device);
	rail->port = port->port;
	rail->mtu = port->mtu;
	rail->link = port->link;
	rail->source = *source;
	rail->ctx = verbs_device_open(port->device);
	if (!rail->ctx)
		return fail_rail(rail, "ibv_open_device", errno, err);
	rc = ibv_query_device(rail->ctx, &rail->attr);
	if (rc)
		return fail_rail(rail, "ibv_query_device", rc, err);
	rail->odp = verbs_has_odp(rail->ctx, &rail->attr);
	/* Whoever has time reads the device's events: nobody may get stuck in it. */
	if (fcntl(rail->ctx->async_fd, F_SETFL, fcntl(rail->ctx->async_fd, F_GETFL) | O_NONBLOCK) <
	    0)
		return fail_rail(rail, "fcntl", errno, err);
	rail->pd = ibv_alloc_pd(rail->ctx);
	return rail->pd ? 0 : fail_rail(rail, "ibv_alloc_pd", errno, err);
}

/* Can every rail do what was asked for? */
static int check_abilities(struct verbs_fabric *fab, struct via_error *err)
{
	const struct verbs_settings *s = &fab->settings;
	bool windows = s->windows != VERBS_WINDOWS_NO;

	for (unsigned i = 0; i < fab->nrails; i++) {
		const struct verbs_rail *rail = &fab->rail[i];

		if (!s->pin && !rail->odp)
			return via_fail(err, -EOPNOTSUPP,
					"fabric verbs: pin=no\n"
					"%s cannot page on demand what an RC queue pair does\n"
					"leave pin out (rc_odp_caps in `ibv_devinfo -v` shows it; "
					"soft-RoCE's is not used, for it is faulty)",
					rail->name);
		if (verbs_has_windows(&rail->attr))
			continue;
		if (s->windows == VERBS_WINDOWS_YES)
			return via_fail(err, -EOPNOTSUPP,
					"fabric verbs: windows=yes\n"
					"%s has no memory windows of type 2\n"
					"leave windows out: keys are then the registration's",
					rail->name);
		windows = false;
	}
	fab->windows = windows;
	return 0;
}

static int open_rails(struct verbs_fabric *fab, const char *local_host, struct via_error *err)
{
	struct verbs_choice choice[VERBS_RAILS_MAX];
	struct verbs_host host;
	int rc = verbs_host_open(&host, err);

	if (rc)
		return rc;
	rc = verbs_choose(host.port, host.nports, &fab->settings, local_host, choice, err);
	for (unsigned i = 0; i < fab->settings.nrails && !rc; i++) {
		fab->nrails = i + 1;
		rc = open_rail(&host.port[choice[i].port], &choice[i].source, &fab->rail[i], err);
	}
	verbs_host_close(&host);
	return rc;
}

static void verbs_close(struct via_fabric *base)
{
	struct verbs_fabric *fab = (struct verbs_fabric *)base;

	if (!fab)
		return;
	for (unsigned i = 0; i < fab->nrails; i++)
		close_rail(&fab->rail[i]);
	pthread_mutex_destroy(&fab->events_lock);
	free(fab);
}

static int verbs_open(const struct via_fabric_spec *spec, struct via_fabric **out,
		      struct via_error *err)
{
	struct verbs_fabric *fab = calloc(1, sizeof(*fab));
	int rc;

	if (!fab)
		return via_fail(err, -ENOMEM, "open fabric verbs\nout of memory\nfree some memory");
	fab->base.ops = &via_verbs_ops;
	pthread_mutex_init(&fab->events_lock, NULL);
	rc = verbs_settings(spec, &fab->settings, err);
	if (!rc)
		rc = open_rails(fab, spec->local_host, err);
	if (!rc)
		rc = check_abilities(fab, err);
	if (rc) {
		verbs_close(&fab->base);
		return rc;
	}
	join_caps(fab);
	*out = &fab->base;
	return 0;
}

const struct via_fabric_ops via_verbs_ops = {
	.name = "verbs",
	.keys = verbs_keys,
	.probe = verbs_probe,
	.open = verbs_open,
	.close = verbs_close,
	.ep_open = verbs_ep_open,
	.ep_address = verbs_ep_address,
	.ep_connect = verbs_ep_connect,
	.ep_close = verbs_ep_close,
	.ep_abort = verbs_ep_abort,
	.mr_reg = verbs_mr_reg,
	.mr_dereg = verbs_mr_dereg,
	.rkey_pack = verbs_rkey_pack,
	.rkey_unpack = verbs_rkey_unpack,
	.rkey_free = verbs_rkey_free,
	.post_write = verbs_post_write,
	.post_send = verbs_post_send,
	.post_recv = verbs_post_recv,
	.poll = verbs_poll,
	.arm = verbs_arm,
};
