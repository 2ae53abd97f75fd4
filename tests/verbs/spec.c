/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * spec.c -- the settings of a verbs spec: what is taken, and what is refused with the known values.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "fabrics/verbs/verbs_choose.h"

static int settings(const char *text, struct verbs_settings *s, struct via_error *err)
{
	struct via_fabric_spec spec;
	int rc = via_fabric_spec_parse(text, &spec, err);

	return rc ? rc : verbs_settings(&spec, s, err);
}

static struct verbs_settings good(const char *text)
{
	struct via_error err = {0};
	struct verbs_settings s;
	char line[640];

	cr_assert_eq(settings(text, &s, &err), 0, "%s: %s", text,
		     via_error_format(&err, line, sizeof(line)));
	return s;
}

Test(verbs_spec, defaults_find_a_lost_path_in_one_to_three_seconds)
{
	struct verbs_settings s = good("verbs");
	double seconds = (s.retry_count + 1) * 4.096e-6 * (1u << s.timeout);

	cr_assert(seconds >= 1 && seconds <= 3, "%f s", seconds);
	cr_assert_lt(s.retry_count, 7, "7 is for ever on soft-RoCE");
	cr_assert_lt(s.rnr_retry_count, 7);
	cr_assert_eq(s.nnames, 0);
	cr_assert_eq(s.nrails, 1);
	cr_assert(s.pin);
	cr_assert_eq(s.windows, VERBS_WINDOWS_AUTO);
	cr_assert(s.gid_index == -1 && s.traffic_class == -1 && s.service_level == -1 &&
		  s.pkey_index == -1 && s.mtu == 0);
}

Test(verbs_spec, every_key_is_taken)
{
	struct verbs_settings s =
		good("verbs:mlx5_0,port=2,gid-index=3,traffic-class=106,service-level=5,"
		     "pkey-index=1,mtu=2048,retry-count=3,rnr-retry-count=2,timeout=14,"
		     "tx-depth=64,rx-depth=80,windows=no,pin=no");

	cr_assert_str_eq(s.name[0].device, "mlx5_0");
	cr_assert_eq(s.name[0].port, 2);
	cr_assert_eq(s.gid_index, 3);
	cr_assert_eq(s.traffic_class, 106);
	cr_assert_eq(s.service_level, 5);
	cr_assert_eq(s.pkey_index, 1);
	cr_assert_eq(s.mtu, 2048);
	cr_assert_eq(s.retry_count, 3);
	cr_assert_eq(s.rnr_retry_count, 2);
	cr_assert_eq(s.timeout, 14);
	cr_assert_eq(s.tx_depth, 64);
	cr_assert_eq(s.rx_depth, 80);
	cr_assert_eq(s.windows, VERBS_WINDOWS_NO);
	cr_assert_not(s.pin);
	cr_assert_eq(good("verbs,ack-timeout=12").timeout, 12);
}

Test(verbs_spec, devices_by_name_and_port)
{
	struct verbs_settings s = good("verbs:mlx5_0+mlx5_1:2");

	cr_assert_eq(s.nnames, 2);
	cr_assert_eq(s.nrails, 2);
	cr_assert_str_eq(s.name[0].device, "mlx5_0");
	cr_assert_eq(s.name[0].port, 0);
	cr_assert_str_eq(s.name[1].device, "mlx5_1");
	cr_assert_eq(s.name[1].port, 2);
	s = good("verbs,device=rxe_a/1");
	cr_assert_str_eq(s.name[0].device, "rxe_a");
	cr_assert_eq(s.name[0].port, 1);
	s = good("verbs:mlx5_0+mlx5_1:2,port=1");
	cr_assert(s.name[0].port == 1 && s.name[1].port == 2, "its own goes before port=");
	cr_assert_eq(good("verbs,rails=3").nrails, 3);
	cr_assert_eq(good("verbs:a+b,rails=2").nrails, 2);
	cr_assert_eq(good("verbs:a,device=a").nnames, 1);
}

Test(verbs_spec, what_cannot_be_is_refused_in_three_parts)
{
	static const char *const bad[] = {
		"verbs,mtu=1500",
		"verbs,mtu=128",
		"verbs,windows=maybe",
		"verbs,pin=1",
		"verbs,timeout=32",
		"verbs,retry-count=8",
		"verbs,port=0",
		"verbs,port=1",
		"verbs,rails=0",
		"verbs,rails=5",
		"verbs:a,rails=2",
		"verbs:a,device=b",
		"verbs:a:0",
		"verbs:a:x",
		"verbs:a:1:2",
		"verbs:a:256",
		"verbs:+a",
		"verbs:a+",
		"verbs:a+b+c+d+e",
		"verbs,service-level=16",
		"verbs,tx-depth=0",
		"verbs,gid-index=-1",
		"verbs,bandwidth=1",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct via_error err = {0};
		struct verbs_settings s;

		cr_assert_eq(settings(bad[i], &s, &err), -EINVAL, "%s", bad[i]);
		cr_assert(err.what[0] && err.seen[0] && err.remedy[0], "%s: \"%s\" \"%s\" \"%s\"",
			  bad[i], err.what, err.seen, err.remedy);
	}
}
