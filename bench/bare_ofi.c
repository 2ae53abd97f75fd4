/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bare_ofi.c -- the baseline: one-sided writes straight on libfabric, between two processes
 * of this host, with the least code that does it.
 *
 *   bare_ofi PROVIDER [MIB [WRITE_LEN]]     e.g. bare_ofi "tcp;ofi_rxm" 2048
 *
 * Writes MIB (default 2048) of memory once, in writes of WRITE_LEN (default 1 MiB), 32 in
 * flight, both ends spinning, and prints GiB/s. Source and target memory is touched before, so
 * that no page fault is counted.
 */
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 32u
#define KEY   1u

struct bare {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_ep *ep;
	struct fid_mr *mr;
	fi_addr_t peer;
	char *mem;
	size_t len, write_len;
	bool serving; /* the target's side */
};

/* What the other side must know. Both are one program on one host. */
struct card {
	char name[256];
	size_t name_len;
	uint64_t addr, key;
};

static void check(long rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "bare_ofi: %s: %s\n", what, fi_strerror((int)-rc));
	exit(1);
}

static void open_bare(struct bare *b, const char *provider)
{
	struct fi_info *hints = fi_allocinfo();
	struct fi_cq_attr cq = {.size = 4 * DEPTH, .format = FI_CQ_FORMAT_CONTEXT};
	struct fi_av_attr av = {.type = FI_AV_TABLE};
	const char *host = strstr(provider, "shm") ? NULL : "127.0.0.1";

	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT;
	hints->ep_attr->type = FI_EP_RDM;
	hints->domain_attr->mr_mode = FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_LOCAL;
	hints->fabric_attr->prov_name = strdup(provider);
	check(fi_getinfo(FI_VERSION(1, 14), host, NULL, host ? FI_SOURCE : 0, hints, &b->info),
	      "fi_getinfo");
	fi_freeinfo(hints);
	check(fi_fabric(b->info->fabric_attr, &b->fabric, NULL), "fi_fabric");
	check(fi_domain(b->fabric, b->info, &b->domain, NULL), "fi_domain");
	check(fi_cq_open(b->domain, &cq, &b->cq, NULL), "fi_cq_open");
	check(fi_av_open(b->domain, &av, &b->av, NULL), "fi_av_open");
	check(fi_endpoint(b->domain, b->info, &b->ep, NULL), "fi_endpoint");
	check(fi_ep_bind(b->ep, &b->av->fid, 0), "fi_ep_bind");
	check(fi_ep_bind(b->ep, &b->cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
	check(fi_enable(b->ep), "fi_enable");
	b->mem = mmap(NULL, b->len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	check(b->mem == MAP_FAILED ? -1 : 0, "mmap");
	memset(b->mem, 0x5a, b->len);
	check(fi_mr_reg(b->domain, b->mem, b->len, FI_WRITE | FI_REMOTE_WRITE, 0, KEY, 0, &b->mr,
			NULL),
	      "fi_mr_reg");
}

static struct card swap_cards(struct bare *b, int fd)
{
	struct card mine = {.name_len = sizeof(mine.name), .key = fi_mr_key(b->mr)}, theirs;

	if (b->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR)
		mine.addr = (uintptr_t)b->mem;
	check(fi_getname(&b->ep->fid, mine.name, &mine.name_len), "fi_getname");
	if (write(fd, &mine, sizeof(mine)) != sizeof(mine) ||
	    recv(fd, &theirs, sizeof(theirs), MSG_WAITALL) != sizeof(theirs))
		check(-FI_EIO, "swap addresses");
	check(fi_av_insert(b->av, theirs.name, 1, &b->peer, 0, NULL) == 1 ? 0 : -FI_EINVAL,
	      "fi_av_insert");
	return theirs;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Returns how many operations completed. */
static unsigned reap(struct bare *b)
{
	struct fi_cq_entry entry[DEPTH];
	ssize_t n = fi_cq_read(b->cq, entry, DEPTH);

	if (n == -FI_EAGAIN)
		return 0;
	check(n, "fi_cq_read");
	return (unsigned)n;
}

static void write_all(struct bare *b, const struct card *to, size_t len)
{
	static struct fi_context context[DEPTH];
	size_t posted = 0, n = len / b->write_len;
	unsigned done = 0;

	while (done < n) {
		while (posted < n && posted - done < DEPTH) {
			size_t off = posted * b->write_len;
			ssize_t rc = fi_write(b->ep, b->mem + off, b->write_len, fi_mr_desc(b->mr),
					      b->peer, to->addr + off, to->key,
					      &context[posted % DEPTH]);

			if (rc == -FI_EAGAIN)
				break;
			check(rc, "fi_write");
			posted++;
		}
		done += reap(b);
	}
}

int main(int argc, char **argv)
{
	const char *provider = argc > 1 ? argv[1] : "tcp;ofi_rxm";
	struct bare b = {.len = (argc > 2 ? strtoul(argv[2], NULL, 10) : 2048) << 20,
			 .write_len = argc > 3 ? strtoul(argv[3], NULL, 10) : 1 << 20};
	struct card to;
	double start, seconds;
	int fd[2];
	pid_t pid;

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), "socketpair");
	pid = fork();
	b.serving = pid == 0;
	open_bare(&b, provider);
	to = swap_cards(&b, fd[pid == 0]);
	while (b.serving)
		(void)reap(&b);        /* until killed */
	write_all(&b, &to, b.len / 8); /* connects and warms up */
	start = now();
	write_all(&b, &to, b.len);
	seconds = now() - start;
	printf("%.3f GiB/s\n", (double)b.len / (double)(1 << 30) / seconds);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return 0;
}
