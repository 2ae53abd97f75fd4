/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * choose.c -- which device, port and address the verbs back end takes, out of tables as hosts
 * have them.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fabrics/verbs/verbs_choose.h"

#define GIDS 6u

/* A RoCE port as mlx5 has them: each address in both versions. */
struct host_port {
	struct verbs_port port;
	struct verbs_gid gid[GIDS];
	struct verbs_source source[GIDS];
};

static void add_gid(struct host_port *h, const char *ip, enum verbs_gid_type type)
{
	unsigned i = h->port.ngids++;

	inet_pton(AF_INET6, ip, h->gid[i].raw);
	h->gid[i].index = i;
	h->gid[i].type = type;
	h->gid[i].ifindex = 2;
	h->source[i] = (struct verbs_source){
		.ip = verbs_ip_of_gid(h->gid[i].raw, 2), .gid_index = (int)i, .type = type};
	h->port.nsources++;
	h->port.gid = h->gid;
	h->port.source = h->source;
}

static void roce_port(struct host_port *h, const char *device, const char *ip)
{
	*h = (struct host_port){.port = {.port = 1,
					 .link = VERBS_ROCE,
					 .active = true,
					 .state = "active",
					 .near = true,
					 .gid_table_len = 256,
					 .cm_type = VERBS_GID_ROCE_V2}};
	snprintf(h->port.device, sizeof(h->port.device), "%s", device);
	add_gid(h, "fe80::1234:56ff:fe78:9abc", VERBS_GID_ROCE_V1);
	add_gid(h, "fe80::1234:56ff:fe78:9abc", VERBS_GID_ROCE_V2);
	if (!ip)
		return;
	add_gid(h, ip, VERBS_GID_ROCE_V1);
	add_gid(h, ip, VERBS_GID_ROCE_V2);
}

static struct verbs_settings any(void)
{
	return (struct verbs_settings){.nrails = 1, .gid_index = -1};
}

static void assert_ip(const struct verbs_source *s, const char *ip)
{
	char text[64];

	cr_assert_str_eq(verbs_ip_text(&s->ip, text, sizeof(text)), ip);
}

static void assert_three_parts(const struct via_error *err)
{
	cr_assert(err->what[0] && err->seen[0] && err->remedy[0], "\"%s\" \"%s\" \"%s\"", err->what,
		  err->seen, err->remedy);
}

/* -- one port -- */

Test(verbs_choose, routable_address_of_the_cm_version)
{
	struct verbs_source s;
	struct host_port h;

	roce_port(&h, "mlx5_0", "::ffff:10.0.0.7");
	cr_assert_eq(verbs_choose_source(&h.port, -1, NULL, &s, NULL), 0);
	cr_assert_eq(s.gid_index, 3, "neither link-local nor RoCE v1");
	assert_ip(&s, "10.0.0.7");
	h.port.cm_type = VERBS_GID_ROCE_V1;
	cr_assert_eq(verbs_choose_source(&h.port, -1, NULL, &s, NULL), 0);
	cr_assert_eq(s.gid_index, 2);
}

Test(verbs_choose, the_address_the_peer_knows_goes_first)
{
	struct verbs_ip local = verbs_ip_parse("fd00:5::1");
	struct verbs_source s;
	struct host_port h;

	roce_port(&h, "mlx5_0", "::ffff:10.0.0.7");
	add_gid(&h, "fd00:5::1", VERBS_GID_ROCE_V1);
	add_gid(&h, "fd00:5::1", VERBS_GID_ROCE_V2);
	cr_assert_eq(verbs_choose_source(&h.port, -1, &local, &s, NULL), 0);
	cr_assert_eq(s.gid_index, 5);
	local = verbs_ip_parse("10.9.9.9");
	cr_assert_eq(verbs_choose_source(&h.port, -1, &local, &s, NULL), 0);
	cr_assert_eq(s.gid_index, 3, "another device carries it: the best of this one");
}

Test(verbs_choose, gid_index_is_obeyed_or_explained)
{
	static const struct {
		int index;
		const char *says;
	} bad[] = {{2, "RoCE v1"}, {4, "no GID there"}, {300, "256 places"}};
	struct verbs_source s;
	struct host_port h;

	roce_port(&h, "mlx5_0", "::ffff:10.0.0.7");
	cr_assert_eq(verbs_choose_source(&h.port, 3, NULL, &s, NULL), 0);
	assert_ip(&s, "10.0.0.7");
	cr_assert_eq(verbs_choose_source(&h.port, 1, NULL, &s, NULL), 0, "link-local, when asked");
	cr_assert_eq(s.ip.scope, 2);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct via_error err = {0};

		cr_assert_eq(verbs_choose_source(&h.port, bad[i].index, NULL, &s, &err), -EINVAL);
		assert_three_parts(&err);
		cr_assert(strstr(err.seen, bad[i].says), "%s", err.seen);
	}
}

Test(verbs_choose, a_port_without_a_usable_address_says_why)
{
	struct via_error err = {0};
	struct verbs_source s;
	struct host_port h;

	roce_port(&h, "mlx5_0", NULL);
	cr_assert_eq(verbs_choose_source(&h.port, -1, NULL, &s, &err), -ENODEV);
	assert_three_parts(&err);
	cr_assert(strstr(err.seen, "link-local"), "%s", err.seen);
	h.port.nsources = 1; /* RoCE v1 alone */
	err = (struct via_error){0};
	cr_assert_eq(verbs_choose_source(&h.port, -1, NULL, &s, &err), -ENODEV);
	cr_assert(strstr(err.seen, "version"), "%s", err.seen);
	h.port.ngids = h.port.nsources = 0;
	err = (struct via_error){0};
	cr_assert_eq(verbs_choose_source(&h.port, -1, NULL, &s, &err), -ENODEV);
	cr_assert(strstr(err.seen, "empty"), "%s", err.seen);
}

Test(verbs_choose, loopback_is_better_than_nothing)
{
	struct verbs_source s;
	struct host_port h;

	roce_port(&h, "rxe0", "::ffff:127.0.0.1");
	cr_assert_eq(verbs_choose_source(&h.port, -1, NULL, &s, NULL), 0);
	assert_ip(&s, "127.0.0.1");
	cr_assert_eq(verbs_rank(&h.port, &s), 9, "last of all");
}

/* -- among ports -- */

struct host {
	struct host_port h[3];
	struct verbs_port port[3];
};

static void three_devices(struct host *host)
{
	static const char *const name[] = {"mlx5_0", "mlx5_1", "mlx5_2"};
	static const char *const ip[] = {"::ffff:10.0.0.7", "::ffff:10.0.1.7", "::ffff:10.0.2.7"};

	for (unsigned i = 0; i < 3; i++) {
		roce_port(&host->h[i], name[i], ip[i]);
		host->port[i] = host->h[i].port;
	}
}

Test(verbs_choose, the_device_that_carries_the_local_address)
{
	struct verbs_settings want = any();
	struct verbs_choice c;
	struct host host;

	three_devices(&host);
	host.port[1].near = false; /* what the peer can reach counts for more */
	cr_assert_eq(verbs_choose(host.port, 3, &want, "10.0.1.7", &c, NULL), 0);
	cr_assert_eq(c.port, 1);
	assert_ip(&c.source, "10.0.1.7");
}

Test(verbs_choose, a_local_address_of_no_device)
{
	static const char *const local[] = {"192.0.2.1", "127.0.0.1", "::1", "", "nonsense"};
	struct verbs_settings want = any();
	struct host host;

	three_devices(&host);
	host.port[0].near = false;
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		struct verbs_choice c;

		cr_assert_eq(verbs_choose(host.port, 3, &want, local[i], &c, NULL), 0);
		cr_assert_eq(c.port, 1, "the first one that is near, for \"%s\"", local[i]);
	}
}

Test(verbs_choose, a_port_that_is_down_is_passed_over)
{
	struct verbs_settings want = any();
	struct via_error err = {0};
	struct verbs_choice c;
	struct host host;

	three_devices(&host);
	host.port[0].active = false;
	snprintf(host.port[0].state, sizeof(host.port[0].state), "down");
	cr_assert_eq(verbs_choose(host.port, 3, &want, "10.0.0.7", &c, NULL), 0);
	cr_assert_eq(c.port, 1);
	want.nnames = 1;
	want.name[0] = (struct verbs_name){.device = "mlx5_0"};
	cr_assert_eq(verbs_choose(host.port, 3, &want, "", &c, &err), -ENODEV);
	assert_three_parts(&err);
	cr_assert(strstr(err.seen, "down"), "%s", err.seen);
}

Test(verbs_choose, a_name_is_obeyed)
{
	struct verbs_settings want = any();
	struct via_error err = {0};
	struct verbs_choice c;
	struct host host;

	three_devices(&host);
	want.nnames = 1;
	want.name[0] = (struct verbs_name){.device = "mlx5_2", .port = 1};
	cr_assert_eq(verbs_choose(host.port, 3, &want, "10.0.0.7", &c, NULL), 0);
	cr_assert_eq(c.port, 2);
	assert_ip(&c.source, "10.0.2.7");
	want.name[0].port = 2;
	cr_assert_eq(verbs_choose(host.port, 3, &want, "", &c, &err), -ENODEV);
	assert_three_parts(&err);
	cr_assert(strstr(err.what, "mlx5_2/2") && strstr(err.seen, "mlx5_0/1, mlx5_1/1"), "%s: %s",
		  err.what, err.seen);
}

Test(verbs_choose, rails_are_different_ports)
{
	struct verbs_choice c[VERBS_RAILS_MAX];
	struct verbs_settings want = any();
	struct via_error err = {0};
	struct host host;

	three_devices(&host);
	host.port[0].near = false;
	want.nrails = 2;
	cr_assert_eq(verbs_choose(host.port, 3, &want, "", c, NULL), 0);
	cr_assert(c[0].port == 1 && c[1].port == 2, "near ones first");
	want.nnames = 2;
	want.name[0] = (struct verbs_name){.device = "mlx5_2"};
	want.name[1] = (struct verbs_name){.device = "mlx5_0"};
	cr_assert_eq(verbs_choose(host.port, 3, &want, "", c, NULL), 0);
	cr_assert(c[0].port == 2 && c[1].port == 0, "named ones in their order");
	want.nnames = 0;
	want.nrails = 4;
	cr_assert_eq(verbs_choose(host.port, 3, &want, "", c, &err), -ENODEV);
	assert_three_parts(&err);
	cr_assert(strstr(err.seen, "3 usable"), "%s", err.seen);
}

Test(verbs_choose, infiniband_takes_the_address_of_ipoib)
{
	struct verbs_source ipoib = {.ip = verbs_ip_parse("10.1.0.7"), .gid_index = -1};
	struct verbs_port port = {.device = "mlx5_0",
				  .port = 1,
				  .link = VERBS_INFINIBAND,
				  .active = true,
				  .near = true,
				  .source = &ipoib,
				  .nsources = 1};
	struct via_error err = {0};
	struct verbs_source s;

	cr_assert_eq(verbs_choose_source(&port, -1, NULL, &s, NULL), 0);
	assert_ip(&s, "10.1.0.7");
	cr_assert_eq(verbs_rank(&port, &s), 1);
	port.nsources = 0;
	port.ngids = 1;
	cr_assert_eq(verbs_choose_source(&port, -1, NULL, &s, &err), -ENODEV);
	assert_three_parts(&err);
	cr_assert(strstr(err.seen, "no IP address"), "%s", err.seen);
}

Test(verbs_choose, ranks_stay_below_ten_and_in_order)
{
	struct verbs_source v1 = {.type = VERBS_GID_ROCE_V1}, v2 = {.type = VERBS_GID_ROCE_V2};
	struct verbs_port ib = {.link = VERBS_INFINIBAND}, roce = {.link = VERBS_ROCE};
	struct verbs_port iwarp = {.link = VERBS_IWARP};

	cr_assert_lt(verbs_rank(&ib, &v2), verbs_rank(&roce, &v2));
	cr_assert_lt(verbs_rank(&roce, &v2), verbs_rank(&roce, &v1));
	cr_assert_lt(verbs_rank(&roce, &v1), verbs_rank(&iwarp, &v2));
	cr_assert_lt(verbs_rank(&iwarp, &v2), 10);
	roce.near = true;
	cr_assert_leq(verbs_rank(&roce, &v2), 3);
}
