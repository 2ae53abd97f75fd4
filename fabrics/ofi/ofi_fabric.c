/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ofi_fabric.c -- the back end's table; a provider chosen and opened.
 */
#include "fabrics/ofi/ofi.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PROVIDER "tcp"
#define DEPTH            128u
#define DEPTH_MIN        8u
#define DEPTH_MAX        4096u

/* One message stays below the size from which providers go over to a rendezvous. */
#define MSG_LEN_MAX 8192u

int ofi_code(long code)
{
	switch (-code) {
	case FI_ETRUNC:
	case FI_ETOOSMALL:
		return -EMSGSIZE;
	case FI_ENOTCONN:
	case FI_ESHUTDOWN:
	case FI_ECONNABORTED:
	case FI_ECONNRESET:
	case EPIPE:
		return -ECONNRESET;
	case FI_ENODATA:
		return -ENODEV;
	default:
		return via_err_from_errno((int)-code);
	}
}

void ofi_short_name(const char *prov_name, char *buf, size_t cap)
{
	static const char *const utility[] = {"ofi_rxm;", "ofi_rxd;"};
	size_t len;

	for (size_t i = 0; i < sizeof(utility) / sizeof(utility[0]); i++)
		if (!strncmp(prov_name, utility[i], strlen(utility[i])))
			prov_name += strlen(utility[i]);
	len = strcspn(prov_name, ";");
	snprintf(buf, cap, "%.*s", (int)len, prov_name);
}

/*
 * rxm (under tcp and verbs) is made for many peers of one endpoint, and ours has one. There is no
 * other way to tell it than the environment. A user's own setting is left alone.
 *
 *   BUFFER_SIZE    It makes thousands of buffers of 16 KiB for each lane and touches or pins
 *   MSG_RX_SIZE    them all, which takes longer than moving a small guest. Over tcp messages go from
 *   EAGER_LIMIT    and to memory of ours, and a buffer has to hold no more than their headers.
 *                  Over verbs it holds one message, and must be as large as the limit. There are
 *                  as many as an endpoint usually has receives, twice.
 *   UNIVERSE_SIZE  The queue of completions has room for this many peers. For 256 of them
 *                  it is longer than some devices can have (soft-RoCE: 32767 entries).
 *   USE_SRX        Receives that all connections share, as tcp has them anyhow. Without, closing
 *                  an endpoint may use what it has freed (libfabric 1.17, verbs: a
 *                  receive of the closed connection is found in the queue and posted anew).
 */
static void tune_rxm(void)
{
	char len[16];

	snprintf(len, sizeof(len), "%u", MSG_LEN_MAX + 256);
	setenv("FI_OFI_RXM_EAGER_LIMIT", len, 0);
	/* They are read once, before it is known what is used. */
	setenv("FI_OFI_RXM_BUFFER_SIZE", access("/sys/class/infiniband", F_OK) ? "128" : len, 0);
	setenv("FI_OFI_RXM_MSG_RX_SIZE", "256", 0);
	setenv("FI_UNIVERSE_SIZE", "16", 0);
	setenv("FI_OFI_RXM_USE_SRX", "1", 0);
}

static struct fi_info *hints_for(const char *prov_name, uint64_t more)
{
	struct fi_info *hints = fi_allocinfo();

	if (!hints)
		return NULL;
	/* Directed receives: a message from anybody but the peer is never taken for one of his. */
	hints->caps = FI_MSG | FI_RMA | FI_DIRECTED_RECV | more;
	hints->mode = FI_CONTEXT | FI_CONTEXT2;
	hints->ep_attr->type = FI_EP_RDM;
	hints->tx_attr->msg_order = FI_ORDER_SAS;
	hints->rx_attr->msg_order = FI_ORDER_SAS;
	hints->domain_attr->threading = FI_THREAD_SAFE;
	hints->domain_attr->mr_mode = OFI_MR_MODES;
	hints->domain_attr->av_type = FI_AV_TABLE;
	hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
	if (prov_name) {
		hints->fabric_attr->prov_name = strdup(prov_name);
		if (!hints->fabric_attr->prov_name) {
			fi_freeinfo(hints);
			return NULL;
		}
	}
	return hints;
}

static bool has_ip_addresses(const struct fi_info *info)
{
	return info->addr_format == FI_SOCKADDR || info->addr_format == FI_SOCKADDR_IN ||
	       info->addr_format == FI_SOCKADDR_IN6;
}

/* One of @short_name, rather with IP addresses: verbs lists the devices that have none, too. */
static const struct fi_info *first_of(const struct fi_info *info, const char *short_name)
{
	const struct fi_info *found = NULL;
	char got[48];

	for (; info; info = info->next) {
		ofi_short_name(info->fabric_attr->prov_name, got, sizeof(got));
		if (strcmp(got, short_name) != 0)
			continue;
		if (has_ip_addresses(info))
			return info;
		if (!found)
			found = info;
	}
	return found;
}

static struct fi_info *select_named(const char *prov_name, const char *short_name,
				    const char *local_host, uint64_t more)
{
	struct fi_info *hints = hints_for(prov_name, more), *info = NULL, *chosen;
	const struct fi_info *first;

	if (!hints)
		return NULL;
	if (fi_getinfo(OFI_API_VERSION, local_host, NULL, local_host ? FI_SOURCE : 0, hints, &info))
		info = NULL;
	fi_freeinfo(hints);
	first = first_of(info, short_name);
	chosen = first ? fi_dupinfo(first) : NULL;
	fi_freeinfo(info);
	return chosen;
}

static struct fi_info *select_either(const char *name, const char *local_host, uint64_t more)
{
	struct fi_info *info = select_named(name, name, local_host, more);
	char layered[64];

	if (info)
		return info;
	snprintf(layered, sizeof(layered), "%s;ofi_rxm", name);
	return select_named(layered, name, local_host, more);
}

struct fi_info *ofi_select(const char *name, const char *local_host, uint64_t more)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct fi_info *info;

	(void)pthread_once(&once, tune_rxm); /* before libfabric looks, at its first call */
	info = select_either(name, NULL, more);
	if (!info || !has_ip_addresses(info))
		return info;
	fi_freeinfo(info);
	return select_either(name, local_host && *local_host ? local_host : "127.0.0.1", more);
}

void ofi_fill_caps(const struct fi_info *info, uint64_t tx_depth, uint64_t rx_depth,
		   struct via_fabric_caps *caps)
{
	size_t max = info->ep_attr->max_msg_size, iov = info->tx_attr->iov_limit;

	caps->write_len_max = max < (UINT64_C(1) << 30) ? max : UINT64_C(1) << 30;
	caps->msg_len_max = max < MSG_LEN_MAX ? max : MSG_LEN_MAX;
	caps->addr_len_max = OFI_ADDR_MAX + 64;
	caps->rkey_len_max = ofi_rkey_max(info);
	caps->sge_max = iov > OFI_SGE_MAX ? OFI_SGE_MAX : iov ? (unsigned)iov : 1;
	caps->tx_depth =
		(unsigned)(tx_depth < info->tx_attr->size ? tx_depth : info->tx_attr->size);
	caps->rx_depth =
		(unsigned)(rx_depth < info->rx_attr->size ? rx_depth : info->rx_attr->size);
}

static int no_provider(const char *name, const struct via_fabric_spec *spec, struct via_error *err)
{
	uint32_t v = fi_version();

	return via_fail(err, -ENODEV,
			"open fabric ofi:%s\n"
			"libfabric %u.%u has no usable provider of that name%s%s\n"
			"see `viaduct fabrics` for the providers of this host",
			name, FI_MAJOR(v), FI_MINOR(v), spec->local_host[0] ? " at " : "",
			spec->local_host);
}

static int fail_call(const struct ofi_fabric *fab, const char *call, int rc, struct via_error *err)
{
	/* Which verbs offers, and rxm cannot use on Ethernet. */
	if (fab->info->addr_format == FI_SOCKADDR_IB)
		return via_fail(
			err, ofi_code(rc),
			"open fabric ofi:%s\n%s has no IP address (%s: %s)\n"
			"give its network interface one: ip addr add ADDRESS/LEN dev INTERFACE",
			fab->provider, fab->info->domain_attr->name, call, fi_strerror(-rc));
	return via_fail(err, ofi_code(rc),
			"open fabric ofi:%s\n%s: %s\n"
			"FI_LOG_LEVEL=warn shows the provider's own words",
			fab->provider, call, fi_strerror(-rc));
}

int ofi_domain_open(const struct ofi_fabric *fab, struct ofi_domain *d, struct via_error *err)
{
	int rc = fi_fabric(fab->info->fabric_attr, &d->fabric, NULL);

	if (rc)
		return fail_call(fab, "fi_fabric", rc, err);
	rc = fi_domain(d->fabric, fab->info, &d->domain, NULL);
	if (!rc)
		return 0;
	fi_close(&d->fabric->fid);
	d->fabric = NULL;
	return fail_call(fab, "fi_domain", rc, err);
}

void ofi_domain_close(struct ofi_domain *d)
{
	if (d->domain)
		fi_close(&d->domain->fid);
	if (d->fabric)
		fi_close(&d->fabric->fid);
	*d = (struct ofi_domain){0};
}

static bool queue_has_fd(struct ofi_fabric *fab)
{
	struct fi_cq_attr attr = {.size = 8, .format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_FD};
	struct fid_cq *cq;
	int fd, rc = fi_cq_open(fab->shared.domain, &attr, &cq, NULL);

	if (rc)
		return false;
	rc = fi_control(&cq->fid, FI_GETWAIT, &fd);
	fi_close(&cq->fid);
	return !rc;
}

/*
 * Without a descriptor an owner can only look again now and then, so it should know when
 * the peer is writing: reopened with counters of remote writes, where there are any.
 */
static int count_remote_writes(struct ofi_fabric *fab, const struct via_fabric_spec *spec,
			       struct via_error *err)
{
	struct fi_info *info = ofi_select(fab->provider, spec->local_host, FI_RMA_EVENT);

	if (!info)
		return 0;
	ofi_domain_close(&fab->shared);
	fi_freeinfo(fab->info);
	fab->info = info;
	return ofi_domain_open(fab, &fab->shared, err);
}

/*
 * No buffers for what is never in flight. shm has a region of a power of two for each endpoint, and fills what
 * its queues leave of it with zeros: 7.7 MiB with ours, 3.8 with its own.
 */
static void set_queue_sizes(struct ofi_fabric *fab)
{
	if (!strcmp(fab->provider, "shm"))
		return;
	fab->info->tx_attr->size = fab->base.caps.tx_depth;
	fab->info->rx_attr->size = fab->base.caps.rx_depth;
}

static int ofi_open(const struct via_fabric_spec *spec, struct via_fabric **out,
		    struct via_error *err)
{
	uint64_t tx_depth = DEPTH, rx_depth = DEPTH;
	struct ofi_fabric *fab;
	int rc = via_fabric_spec_get_number(spec, "tx-depth", DEPTH_MIN, DEPTH_MAX, &tx_depth, err);

	if (!rc)
		rc = via_fabric_spec_get_number(spec, "rx-depth", DEPTH_MIN, DEPTH_MAX, &rx_depth,
						err);
	if (rc)
		return rc;
	fab = calloc(1, sizeof(*fab));
	if (!fab)
		return via_fail(err, -ENOMEM, "open fabric ofi\nout of memory\nfree some memory");
	fab->base.ops = &via_ofi_ops;
	snprintf(fab->provider, sizeof(fab->provider), "%s",
		 spec->device[0] ? spec->device : DEFAULT_PROVIDER);
	fab->info = ofi_select(fab->provider, spec->local_host, 0);
	rc = fab->info ? ofi_domain_open(fab, &fab->shared, err)
		       : no_provider(fab->provider, spec, err);
	if (!rc) {
		fab->has_fd = queue_has_fd(fab);
		rc = fab->has_fd ? 0 : count_remote_writes(fab, spec, err);
	}
	if (rc) {
		fi_freeinfo(fab->info);
		free(fab);
		return rc;
	}
	fab->own_domains = !fab->info->nic;
	/*
	 * Over verbs a message of ours fits into rxm's own buffers, over tcp nothing needs a
	 * descriptor. It would look at one all the same, be it when the message comes and the
	 * memory has been given up.
	 */
	fab->places_in_order = !strcmp(fab->provider, "tcp");
	fab->copies_messages = strstr(fab->info->fabric_attr->prov_name, "ofi_rxm") != NULL;
	fab->mr_mode = (uint64_t)fab->info->domain_attr->mr_mode;
	ofi_fill_caps(fab->info, tx_depth, rx_depth, &fab->base.caps);
	set_queue_sizes(fab);
	*out = &fab->base;
	return 0;
}

static void ofi_close(struct via_fabric *base)
{
	struct ofi_fabric *fab = (struct ofi_fabric *)base;

	if (!fab)
		return;
	ofi_mr_fini(fab);
	ofi_domain_close(&fab->shared);
	fi_freeinfo(fab->info);
	free(fab);
}

static const struct via_fabric_key keys[] = {
	{"tx-depth", "writes and sends that one endpoint holds", DEPTH_MIN, DEPTH_MAX},
	{"rx-depth", "receives that one endpoint holds", DEPTH_MIN, DEPTH_MAX},
	{NULL, NULL, 0, 0},
};

const struct via_fabric_ops via_ofi_ops = {
	.name = "ofi",
	.keys = keys,
	.provider = DEFAULT_PROVIDER,
	.probe = ofi_probe,
	.open = ofi_open,
	.close = ofi_close,
	.ep_open = ofi_ep_open,
	.ep_address = ofi_ep_address,
	.ep_connect = ofi_ep_connect,
	.ep_close = ofi_ep_close,
	.ep_abort = ofi_ep_abort,
	.mr_reg = ofi_mr_reg,
	.mr_dereg = ofi_mr_dereg,
	.rkey_pack = ofi_rkey_pack,
	.rkey_unpack = ofi_rkey_unpack,
	.rkey_free = ofi_rkey_free,
	.post_write = ofi_post_write,
	.post_send = ofi_post_send,
	.post_recv = ofi_post_recv,
	.poll = ofi_poll,
	.arm = ofi_arm,
};
