/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_text.c -- what the libraries' codes mean: a code of the closed list, and words.
 *
 * Must name a cause only where it is known to be one: a wrong hint costs more than none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "fabrics/verbs/verbs.h"

#define CAP_IPC_LOCK_BIT 14

/* -- completions -------------------------------------------------------------------- */

static const struct {
	enum ibv_wc_status status;
	int code;
	const char *name, *hint;
} statuses[] = {
#define STATUS(name, code, hint)                                                                   \
	{                                                                                          \
		name, code, #name, hint                                                            \
	}
	STATUS(IBV_WC_LOC_LEN_ERR, -EIO, "a message is longer than its receive"),
	STATUS(IBV_WC_LOC_QP_OP_ERR, -EIO, ""),
	STATUS(IBV_WC_LOC_PROT_ERR, -EIO, "the local memory is not registered any more"),
	STATUS(IBV_WC_WR_FLUSH_ERR, -ECONNRESET, ""),
	STATUS(IBV_WC_MW_BIND_ERR, -EIO, "a memory window could not be bound: try windows=no"),
	STATUS(IBV_WC_BAD_RESP_ERR, -EIO, ""),
	STATUS(IBV_WC_LOC_ACCESS_ERR, -EIO, ""),
	STATUS(IBV_WC_REM_INV_REQ_ERR, -EIO, "the peer could not take the request"),
	STATUS(IBV_WC_REM_ACCESS_ERR, -EREMOTEIO, "the peer has revoked the key, or never gave it"),
	STATUS(IBV_WC_REM_OP_ERR, -EIO, "see the peer's own error"),
	STATUS(IBV_WC_RETRY_EXC_ERR, -ECONNRESET,
	       "the peer does not answer: check link, route, GID and MTU of the path"),
	STATUS(IBV_WC_RNR_RETRY_EXC_ERR, -ECONNRESET,
	       "the peer has no receive posted: raise rnr-retry-count"),
	STATUS(IBV_WC_REM_ABORT_ERR, -ECONNRESET, ""),
	STATUS(IBV_WC_FATAL_ERR, -EIO, "see the kernel's log"),
	STATUS(IBV_WC_RESP_TIMEOUT_ERR, -ECONNRESET, ""),
	STATUS(IBV_WC_GENERAL_ERR, -EIO, "see the kernel's log"),
#undef STATUS
};

#define NSTATUSES (sizeof(statuses) / sizeof(statuses[0]))

int verbs_status_code(enum ibv_wc_status status)
{
	for (size_t i = 0; i < NSTATUSES; i++)
		if (statuses[i].status == status)
			return statuses[i].code;
	return status == IBV_WC_SUCCESS ? 0 : -EIO;
}

const char *verbs_status_name(enum ibv_wc_status status)
{
	for (size_t i = 0; i < NSTATUSES; i++)
		if (statuses[i].status == status)
			return statuses[i].name;
	return "IBV_WC_?";
}

const char *verbs_status_hint(enum ibv_wc_status status)
{
	for (size_t i = 0; i < NSTATUSES; i++)
		if (statuses[i].status == status)
			return statuses[i].hint;
	return "";
}

/* -- events ------------------------------------------------------------------------- */

const char *verbs_alarm_text(enum verbs_alarm alarm)
{
	switch (alarm) {
	case VERBS_ABORTED:
		return "aborted";
	case VERBS_DISCONNECTED:
		return "the peer closed the connection, or its process ended "
		       "(RDMA_CM_EVENT_DISCONNECTED)";
	case VERBS_ACCESS_ERR:
		return "an access of the peer to memory it has no key for was refused "
		       "(IBV_EVENT_QP_ACCESS_ERR)";
	case VERBS_QP_FATAL:
		return "the queue pair failed (IBV_EVENT_QP_FATAL): see the kernel's log";
	case VERBS_CQ_ERR:
		return "the completion queue failed (IBV_EVENT_CQ_ERR): see the kernel's log";
	case VERBS_PORT_ERR:
		return "the port went down (IBV_EVENT_PORT_ERR): check cable, switch and "
		       "interface";
	case VERBS_DEVICE_GONE:
		return "the device failed or was removed (IBV_EVENT_DEVICE_FATAL)";
	}
	return "";
}

/* -- errno -------------------------------------------------------------------------- */

int verbs_code(int errnum)
{
	switch (errnum) {
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENETDOWN:
		return -EHOSTUNREACH;
	case EAGAIN: /* a lack of resources, not "try again" */
		return -ENOMEM;
	case ENXIO:
		return -ENODEV;
	default:
		return via_err_from_errno(errnum);
	}
}

/* A line of /proc/self/status as a number in base @base; 0 when it is not there. */
static uint64_t own_status(const char *name, int base)
{
	FILE *f = fopen("/proc/self/status", "re");
	size_t len = strlen(name);
	uint64_t value = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len)) {
			value = strtoull(line + len, NULL, base);
			break;
		}
	if (f)
		fclose(f);
	return value;
}

bool verbs_memlock_is_cause(uint64_t limit, uint64_t pinned, uint64_t len, bool privileged)
{
	return !privileged && limit != RLIM_INFINITY && (len > limit || pinned > limit - len);
}

int verbs_fail_memory(const char *what, size_t len, int errnum, struct via_error *err)
{
	struct rlimit r = {.rlim_cur = RLIM_INFINITY};
	uint64_t pinned = own_status("VmPin:", 10) << 10;
	bool privileged = own_status("CapEff:", 16) >> CAP_IPC_LOCK_BIT & 1;

	getrlimit(RLIMIT_MEMLOCK, &r);
	if ((errnum == ENOMEM || errnum == EPERM) &&
	    verbs_memlock_is_cause(r.rlim_cur, pinned, len, privileged))
		return via_fail(err, -ENOMEM,
				"%s\nthe limit of locked memory is %" PRIu64 " KiB; %" PRIu64
				" KiB are locked, %zu KiB more are needed\n"
				"raise it: ulimit -l unlimited, LimitMEMLOCK=infinity in the "
				"systemd unit, or pin=no",
				what, (uint64_t)r.rlim_cur >> 10, pinned >> 10,
				len / 1024 + (len % 1024 != 0));
	return via_fail(err, verbs_code(errnum),
			"%s\n%s (%zu bytes; the limit of locked memory is not the cause)\n%s", what,
			strerror(errnum), len,
			errnum == ENOMEM ? "free memory, or check the device's limits with "
					   "`ibv_devinfo -v`"
					 : "see the kernel's log");
}
