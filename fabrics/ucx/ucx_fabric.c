/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ucx_fabric.c -- the back end's table; a context of UCX configured and opened.
 *
 * What the user set in UCX_* variables holds, but for what the spec says and for what the contract
 * needs. UCX prints nothing here and keeps its hands off the process's signals, unless its user
 * asked for that by name (UCX_LOG_LEVEL, UCX_HANDLE_ERRORS).
 */
#include "fabrics/ucx/ucx.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MIN 8u
#define DEPTH_MAX 4096u

#define WRITE_LEN_MAX ((size_t)1 << 30)

#define MSG_LEN_MAX 8192u

/*
 * Shared memory in which the receiver copies what he fetches. The others (cma, xpmem, knem) need
 * more rights and only serve longer messages than ours.
 */
#define SHARED "posix,sysv"

/*
 * Pieces of writes, such that they travel in one fragment with their header: what the receiver
 * gets in several UCX first puts together in memory of its own.
 */
#define PIECE_TCP    ((size_t)60 << 10) /* UCX_TCP_RX_SEG_SIZE is 64k */
#define PIECE_SHARED ((size_t)32 << 10)
#define SEG_SHARED   "33k"
#define BUFS_SHARED  "128"          /* of those, where UCX makes 512 of 8k: /dev/shm may be small */
#define PIECE_IB     ((size_t)8000) /* the size of UCX's receive buffers is 8256 */

/* What a user may name, and what UCX is told. The first that is sound is taken. */
static const struct {
	const char *name, *tls;
	size_t piece_len;
} transports[] = {
	/* clang-format off */
	{"", "tcp," SHARED ",ib", PIECE_IB},
	{"", "tcp," SHARED, PIECE_SHARED},
	{"tcp", "tcp", PIECE_TCP},
	{"shm", SHARED, PIECE_SHARED},  {"sm", SHARED, PIECE_SHARED},
	{"mm", SHARED, PIECE_SHARED},   {"ib", "ib", PIECE_IB},
	/* "rc_verbs" would leave out the datagrams that rc is wired up with, its alias does not. */
	{"rc", "rc", PIECE_IB},         {"rc_v", "rc_v", PIECE_IB},
	{"rc_verbs", "rc_v", PIECE_IB}, {"rc_x", "rc_x", PIECE_IB},
	{"rc_mlx5", "rc_x", PIECE_IB},  {"dc", "dc", PIECE_IB},
	{"dc_x", "dc_x", PIECE_IB},     {"dc_mlx5", "dc_x", PIECE_IB},
	{"ud", "ud", PIECE_IB},         {"ud_v", "ud_v", PIECE_IB},
	{"ud_verbs", "ud_v", PIECE_IB}, {"ud_x", "ud_x", PIECE_IB},
	{"ud_mlx5", "ud_x", PIECE_IB},
	/* clang-format on */
};

#define NTRANSPORTS (sizeof(transports) / sizeof(transports[0]))

/* Keys of a spec that UCX has a variable for. */
static const struct {
	const char *key, *variable;
} settings[] = {
	{"device", "NET_DEVICES"},
	{"gid-index", "GID_INDEX"}, /* of the device, which has no prefix here */
	{"traffic-class", "IB_TRAFFIC_CLASS"},
	{"service-level", "IB_SL"},
};

#ifdef UCX_CAN_DISABLE_SIGNALS
void ucs_debug_disable_signals(void);

/*
 * libucs takes SIGSEGV and its like when it is loaded, to print a trace. They are given back before
 * main() starts, that is, before anybody else can have taken them.
 */
__attribute__((constructor)) static void give_signals_back(void)
{
	if (!getenv("UCX_HANDLE_ERRORS") && !getenv("UCX_ERROR_SIGNALS"))
		ucs_debug_disable_signals();
}
#endif

int ucx_code(ucs_status_t status)
{
	switch (status) {
	case UCS_OK:
		return 0;
	case UCS_ERR_NO_MEMORY:
	case UCS_ERR_EXCEEDS_LIMIT:
		return -ENOMEM;
	case UCS_ERR_NO_DEVICE:
		return -ENODEV;
	case UCS_ERR_INVALID_PARAM:
		return -EINVAL;
	case UCS_ERR_INVALID_ADDR:
		return -EPROTO;
	case UCS_ERR_UNSUPPORTED:
	case UCS_ERR_NOT_IMPLEMENTED:
		return -EOPNOTSUPP;
	case UCS_ERR_UNREACHABLE:
		return -EHOSTUNREACH;
	case UCS_ERR_REJECTED:
		return -ECONNREFUSED;
	case UCS_ERR_TIMED_OUT: /* of UCX's own, not of a deadline */
	case UCS_ERR_ENDPOINT_TIMEOUT:
	case UCS_ERR_CONNECTION_RESET:
	case UCS_ERR_NOT_CONNECTED:
	case UCS_ERR_CANCELED:
		return -ECONNRESET;
	default:
		return -EIO;
	}
}

/* -- the context ------------------------------------------------------------------ */

static bool has_address(const struct ifaddrs *ifa, const char *host)
{
	char text[INET6_ADDRSTRLEN];
	const void *addr;

	if (!ifa->ifa_addr)
		return false;
	if (ifa->ifa_addr->sa_family == AF_INET)
		addr = &((const struct sockaddr_in *)(const void *)ifa->ifa_addr)->sin_addr;
	else if (ifa->ifa_addr->sa_family == AF_INET6)
		addr = &((const struct sockaddr_in6 *)(const void *)ifa->ifa_addr)->sin6_addr;
	else
		return false;
	return inet_ntop(ifa->ifa_addr->sa_family, addr, text, sizeof(text)) && !strcmp(text, host);
}

/* The interface that carries the address @host. */
static int find_interface(const char *host, char *buf, size_t cap, struct via_error *err)
{
	struct ifaddrs *list, *ifa;

	if (getifaddrs(&list))
		return via_fail(err, via_err_from_errno(errno),
				"open fabric ucx\ngetifaddrs: %s\ngive device=INTERFACE",
				strerror(errno));
	for (ifa = list; ifa && !has_address(ifa, host); ifa = ifa->ifa_next)
		;
	if (ifa)
		snprintf(buf, cap, "%s", ifa->ifa_name);
	freeifaddrs(list);
	return ifa ? 0
		   : via_fail(err, -EADDRNOTAVAIL,
			      "open fabric ucx\nno interface has the address %s\n"
			      "give device=INTERFACE",
			      host);
}

static int set(ucp_config_t *config, const char *variable, const char *value, struct via_error *err)
{
	ucs_status_t status = ucp_config_modify(config, variable, value);

	if (status == UCS_OK)
		return 0;
	return via_fail(err, -EINVAL,
			"open fabric ucx\nUCX does not take UCX_%s=%s: %s\n"
			"see `ucx_info -c -f` for what it takes",
			variable, value, ucs_status_string(status));
}

/* What the user did not set. */
static int set_default(ucp_config_t *config, const char *variable, const char *value,
		       struct via_error *err)
{
	char name[64];

	snprintf(name, sizeof(name), "UCX_%s", variable);
	return getenv(name) ? 0 : set(config, variable, value, err);
}

/* tcp listens on each interface that it is not kept off. */
static int bind_to_host(ucp_config_t *config, const struct via_fabric_spec *spec,
			struct via_error *err)
{
	char interface[64];
	int rc;

	if (strcmp(spec->device, "tcp") != 0 || via_fabric_spec_get(spec, "device") ||
	    getenv("UCX_NET_DEVICES"))
		return 0;
	rc = find_interface(spec->local_host[0] ? spec->local_host : "127.0.0.1", interface,
			    sizeof(interface), err);
	return rc ? rc : set(config, "NET_DEVICES", interface, err);
}

static int configure_shared(ucp_config_t *config, struct via_error *err)
{
	/* Without it shared memory is not used where errors of the peer are to be told. */
	int rc = set_default(config, "MM_ERROR_HANDLING", "y", err);

	if (!rc)
		rc = set_default(config, "MM_SEG_SIZE", SEG_SHARED, err);
	return rc ? rc : set_default(config, "MM_RX_BUFS_GROW", BUFS_SHARED, err);
}

static int configure(ucp_config_t *config, const char *tls, const struct via_fabric_spec *spec,
		     struct via_error *err)
{
	int rc = set_default(config, "LOG_LEVEL", "fatal", err);

	if (!rc && tls)
		rc = set(config, "TLS", tls, err);
	if (!rc && (!tls || strstr(tls, SHARED)))
		rc = configure_shared(config, err);
	if (!rc && spec && strchr(spec->local_host, ':'))
		rc = set_default(config, "TCP_AF_PRIO", "inet6,inet", err);
	for (size_t i = 0; !rc && spec && i < sizeof(settings) / sizeof(settings[0]); i++) {
		const char *value = via_fabric_spec_get(spec, settings[i].key);

		if (value)
			rc = set(config, settings[i].variable, value, err);
	}
	return rc || !spec ? rc : bind_to_host(config, spec, err);
}

int ucx_context_open(const char *tls, const struct via_fabric_spec *spec, ucp_context_h *context,
		     struct via_error *err)
{
	ucp_params_t params = {.field_mask =
				       UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED,
			       .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
			       .mt_workers_shared = 1};
	ucp_config_t *config;
	ucs_status_t status = ucp_config_read(NULL, NULL, &config);
	int rc;

	if (status != UCS_OK)
		return via_fail(err, ucx_code(status),
				"open fabric ucx\nucp_config_read: %s\n"
				"check the UCX_* variables of the environment",
				ucs_status_string(status));
	rc = configure(config, tls, spec, err);
	if (!rc) {
		status = ucp_init(&params, config, context);
		rc = ucx_code(status);
	}
	ucp_config_release(config);
	if (!rc || status == UCS_OK)
		return rc;
	return via_fail(err, rc,
			"open fabric ucx\n"
			"UCX has none of the transports %s%s here: ucp_init: %s\n"
			"see `viaduct fabrics`; UCX_LOG_LEVEL=warn shows UCX's own words",
			tls ? tls : "that it was told to use",
			spec && via_fabric_spec_get(spec, "device") ? " on that device" : "",
			ucs_status_string(status));
}

void ucx_resources(ucp_context_h context, char *buf, size_t cap)
{
	char *text = NULL, *line, *rest = NULL;
	size_t len = 0;
	FILE *stream = open_memstream(&text, &len);

	buf[0] = '\0';
	if (!stream)
		return;
	ucp_context_print_info(context, stream);
	fclose(stream);
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		const char *name = strrchr(line, ' ');
		size_t used = strlen(buf);

		if (strstr(line, " resource ") && name && strchr(name, '/'))
			snprintf(buf + used, cap - used, "%s%s", used ? " " : "", name + 1);
	}
	free(text);
}

/* -- the fabric ------------------------------------------------------------------- */

void ucx_fill_caps(uint64_t tx_depth, uint64_t rx_depth, struct via_fabric_caps *caps)
{
	*caps = (struct via_fabric_caps){.write_len_max = WRITE_LEN_MAX,
					 .msg_len_max = MSG_LEN_MAX,
					 .addr_len_max = UCX_ADDR_MAX,
					 .rkey_len_max = UCX_RKEY_LEN,
					 .sge_max = UCX_SGE_MAX,
					 .tx_depth = (unsigned)tx_depth,
					 .rx_depth = (unsigned)rx_depth};
}

const char *ucx_refuses_rdma(void)
{
	unsigned major, minor, release;

	ucp_get_version(&major, &minor, &release);
	if (major > 1 || minor >= 14)
		return NULL;
	return "UCX before 1.14 aborts its process when an RDMA connection is given up while it is "
	       "being made: take verbs or ofi:verbs, or a newer UCX";
}

static bool is_rdma(const char *tls)
{
	return strstr(tls, "ib") || (!strstr(tls, "tcp") && !strstr(tls, SHARED));
}

/* What UCX is to use: what the spec says, or else the environment. */
static int choose_tls(struct ucx_fabric *fab, const char **tls, struct via_error *err)
{
	const char *why = "no transport of UCX that is known here";

	for (size_t i = 0; i < NTRANSPORTS; i++) {
		if (strcmp(transports[i].name, fab->name) != 0)
			continue;
		fab->piece_len = transports[i].piece_len;
		*tls = transports[i].tls;
		if (!fab->name[0] && getenv("UCX_TLS")) {
			*tls = NULL; /* who sets it knows */
			return 0;
		}
		if (!is_rdma(*tls) || !ucx_refuses_rdma())
			return 0;
		why = ucx_refuses_rdma();
	}
	return via_fail(err, -ENODEV, "open fabric ucx:%s\n%s\nsee `viaduct fabrics`", fab->name,
			why);
}

static int ucx_open(const struct via_fabric_spec *spec, struct via_fabric **out,
		    struct via_error *err)
{
	uint64_t tx_depth = UCX_DEPTH, rx_depth = UCX_DEPTH;
	struct ucx_fabric *fab;
	const char *tls = NULL;
	int rc = via_fabric_spec_get_number(spec, "tx-depth", DEPTH_MIN, DEPTH_MAX, &tx_depth, err);

	if (!rc)
		rc = via_fabric_spec_get_number(spec, "rx-depth", DEPTH_MIN, DEPTH_MAX, &rx_depth,
						err);
	if (rc)
		return rc;
	fab = calloc(1, sizeof(*fab));
	if (!fab)
		return via_fail(err, -ENOMEM, "open fabric ucx\nout of memory\nfree some memory");
	fab->base.ops = &via_ucx_ops;
	snprintf(fab->name, sizeof(fab->name), "%s", spec->device);
	rc = choose_tls(fab, &tls, err);
	if (!rc)
		rc = ucx_context_open(tls, spec, &fab->context, err);
	if (rc) {
		free(fab);
		return rc;
	}
	ucx_resources(fab->context, fab->resources, sizeof(fab->resources));
	ucx_fill_caps(tx_depth, rx_depth, &fab->base.caps);
	*out = &fab->base;
	return 0;
}

static void ucx_close(struct via_fabric *base)
{
	struct ucx_fabric *fab = (struct ucx_fabric *)base;

	if (!fab)
		return;
	ucp_cleanup(fab->context);
	free(fab);
}

static const struct via_fabric_key keys[] = {
	{"device", "network device: an interface for tcp, DEVICE:PORT for RDMA", 0, 0},
	{"gid-index", "which GID of an RDMA device to use", 0, 255},
	{"traffic-class", "traffic class of RDMA packets", 0, 255},
	{"service-level", "service level of RDMA packets", 0, 15},
	{"tx-depth", "writes and sends that one endpoint holds", DEPTH_MIN, DEPTH_MAX},
	{"rx-depth", "receives that one endpoint holds", DEPTH_MIN, DEPTH_MAX},
	{NULL, NULL, 0, 0},
};

const struct via_fabric_ops via_ucx_ops = {
	.name = "ucx",
	.provider = "",
	.keys = keys,
	.probe = ucx_probe,
	.open = ucx_open,
	.close = ucx_close,
	.ep_open = ucx_ep_open,
	.ep_address = ucx_ep_address,
	.ep_connect = ucx_ep_connect,
	.ep_close = ucx_ep_close,
	.ep_abort = ucx_ep_abort,
	.mr_reg = ucx_mr_reg,
	.mr_dereg = ucx_mr_dereg,
	.rkey_pack = ucx_rkey_pack,
	.rkey_unpack = ucx_rkey_unpack,
	.rkey_free = ucx_rkey_free,
	.post_write = ucx_post_write,
	.post_send = ucx_post_send,
	.post_recv = ucx_post_recv,
	.poll = ucx_poll,
	.arm = ucx_arm,
};
