/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_choose.h -- what the user wants, what the host has, and which of it is used; and the bytes
 * that travel. Nothing here touches a device, so that tests can.
 */
#ifndef VIA_FABRICS_VERBS_VERBS_CHOOSE_H
#define VIA_FABRICS_VERBS_VERBS_CHOOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/error.h"
#include "fabrics/spec.h"

#pragma GCC visibility push(hidden) /* see verbs.h */

#define VERBS_RAILS_MAX   4u
#define VERBS_NONCE_LEN   16u
#define VERBS_ID_LEN      8u
#define VERBS_ADDRESS_MAX (15u + VERBS_RAILS_MAX * 19u)
#define VERBS_GREETING    16u /* bytes of private data, either way */
#define VERBS_REFUSAL     5u
#define VERBS_KEY_LEN     16u

/* -- what the user wants (verbs_spec.c) ---------------------------------------------- */

enum verbs_windows { VERBS_WINDOWS_AUTO, VERBS_WINDOWS_NO, VERBS_WINDOWS_YES };

struct verbs_settings {
	struct verbs_name {
		char device[48]; /* "mlx5_0" */
		unsigned port;   /* 0: the best one */
	} name[VERBS_RAILS_MAX];
	unsigned nnames;   /* 0: any device */
	unsigned nrails;   /* devices to open; at least nnames, at least 1 */
	int gid_index;     /* -1 here and below: as rdma_cm and the device have it */
	int traffic_class; /* of packets that leave with a GRH: RoCE's and routed InfiniBand's */
	int service_level;
	int pkey_index;
	unsigned mtu;         /* bytes of a packet's payload at most; 0: as the path allows */
	unsigned retry_count; /* 7: for ever on some devices */
	unsigned rnr_retry_count;
	unsigned timeout; /* 4.096 us * 2^timeout before a packet is sent again; 0: never */
	unsigned tx_depth, rx_depth;
	enum verbs_windows windows;
	bool pin; /* false: on-demand paging */
};

/* The settings of @spec. -EINVAL with the known values in @err. */
int verbs_settings(const struct via_fabric_spec *spec, struct verbs_settings *out,
		   struct via_error *err);

/* -- addresses ------------------------------------------------------------------------ */

struct verbs_ip {
	int family; /* AF_INET, AF_INET6; 0: none */
	uint8_t bytes[16];
	uint32_t scope; /* interface of a link-local IPv6 address; not for the wire */
};

/* Numeric @text ("10.0.0.1", "fe80::1%eth0"), or none when it is neither. */
struct verbs_ip verbs_ip_parse(const char *text);
bool verbs_ip_equal(const struct verbs_ip *a, const struct verbs_ip *b);
bool verbs_ip_is_loopback(const struct verbs_ip *ip);
bool verbs_ip_is_link_local(const struct verbs_ip *ip);
/* Into @buf of at least INET6_ADDRSTRLEN bytes; returns @buf. */
const char *verbs_ip_text(const struct verbs_ip *ip, char *buf, size_t cap);
void verbs_ip_to_sockaddr(const struct verbs_ip *ip, uint16_t port, struct sockaddr_storage *out);
/* The IP address that a RoCE GID stands for. */
struct verbs_ip verbs_ip_of_gid(const uint8_t gid[16], uint32_t ifindex);

/* -- what the host has ---------------------------------------------------------------- */

enum verbs_link { VERBS_INFINIBAND, VERBS_ROCE, VERBS_IWARP };
enum verbs_gid_type { VERBS_GID_IB, VERBS_GID_ROCE_V1, VERBS_GID_ROCE_V2 };

struct verbs_gid {
	unsigned index;
	enum verbs_gid_type type;
	uint8_t raw[16];
	uint32_t ifindex;
};

/* An address that rdma_cm can bind to on a port. */
struct verbs_source {
	struct verbs_ip ip;
	int gid_index; /* -1: the device decides */
	enum verbs_gid_type type;
};

/* One port of one device, as verbs_device.c found it. */
struct verbs_port {
	char device[64];
	unsigned port;
	enum verbs_link link;
	bool active;
	char state[24]; /* in words: "down" */
	int numa_node;  /* -1: unknown */
	bool near;      /* of this process's node */
	unsigned mtu;   /* active, bytes */
	double gbit;    /* per second */
	unsigned gid_table_len;
	enum verbs_gid_type cm_type; /* what rdma_cm uses on RoCE */
	struct verbs_gid *gid;       /* the valid ones, in order of index */
	unsigned ngids;
	struct verbs_source *source; /* in order of index */
	unsigned nsources;
	char trouble[128]; /* why it could not be looked at; else empty */
};

/* "mlx5_0/1" */
const char *verbs_port_name(const struct verbs_port *port, char *buf, size_t cap);

/* -- the choice (verbs_choose.c) -------------------------------------------------------- */

/*
 * The address of @port to use: that of GID @gid_index when it is not -1, else @local when the
 * port carries it, else the best: the version rdma_cm uses, one that can be routed, the lowest
 * index.
 *  -ENODEV there is none that could be used, -EINVAL @gid_index cannot be
 */
int verbs_choose_source(const struct verbs_port *port, int gid_index, const struct verbs_ip *local,
			struct verbs_source *out, struct via_error *err);

/* A port that was chosen, and its address. */
struct verbs_choice {
	unsigned port; /* index into the ports that were given */
	struct verbs_source source;
};

/*
 * Choose want->nrails ports and their addresses. @local_host is the spec's: the port that carries
 * it comes first; loopback and empty mean that both ends are on this host.
 *  -ENODEV none of them can be used (or too few), -EINVAL a setting does not fit
 */
int verbs_choose(const struct verbs_port *ports, unsigned n, const struct verbs_settings *want,
		 const char *local_host, struct verbs_choice *out, struct via_error *err);

/* Preference of a port whose address is @source: 1 is best, at most 9. */
unsigned verbs_rank(const struct verbs_port *port, const struct verbs_source *source);

/* -- what travels (verbs_wire.c) -------------------------------------------------------- */

/* The address of an endpoint. An active one has no places: nobody connects to it. */
struct verbs_address {
	bool passive;
	uint8_t id[VERBS_ID_LEN]; /* random: names the endpoint */
	unsigned nplaces;         /* one for each rail */
	struct verbs_place {
		struct verbs_ip ip;
		uint16_t port;
	} place[VERBS_RAILS_MAX];
};

/* Bytes written, or -ENOBUFS. */
ssize_t verbs_address_encode(const struct verbs_address *a, void *buf, size_t cap);
/* -EPROTO */
int verbs_address_decode(const void *buf, size_t len, struct verbs_address *a);

/*
 * The private data of a request to connect and of its answer: the half of the nonce that this
 * side has to show, and the largest MTU it takes: rdma_cm knows the active side's only.
 */
struct verbs_greeting {
	bool passive;
	const uint8_t *nonce; /* all of it */
	unsigned mtu;         /* bytes */
};

void verbs_greeting_encode(const struct verbs_greeting *g, uint8_t buf[VERBS_GREETING]);
/*
 * Check the peer's greeting, @len bytes at least (transports pad), against g->passive and
 * g->nonce; its MTU into g->mtu. -EPROTO, -EACCES when the nonce differs.
 */
int verbs_greeting_check(const void *buf, size_t len, struct verbs_greeting *g);

/* The private data of a rejection: why. */
void verbs_refusal_encode(int code, uint8_t buf[VERBS_REFUSAL]);
/* -EACCES or -EPROTO as the peer said; -ECONNREFUSED when it said nothing. */
int verbs_refusal_decode(const void *buf, size_t len);

struct verbs_key {
	uint32_t rkey;
	uint64_t addr; /* of byte 0 of the region */
};

ssize_t verbs_key_encode(const struct verbs_key *key, void *buf, size_t cap);
/* -EPROTO, also where the region of @region_len bytes would wrap around. */
int verbs_key_decode(const void *buf, size_t len, uint64_t region_len, struct verbs_key *key);

#pragma GCC visibility pop

#endif
