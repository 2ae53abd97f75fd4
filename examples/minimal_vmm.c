/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * minimal_vmm.c -- the least that a VMM does to migrate its guest with libviaduct.
 *
 *   cc minimal_vmm.c -o minimal_vmm $(pkg-config --cflags --libs libviaduct)
 *   ./minimal_vmm receive 127.0.0.1:7700
 *   ./minimal_vmm send 127.0.0.1:7700 [FABRIC]            in another terminal
 *
 * The guest is 64 MiB of RAM and one vCPU, which writes the numbers 1, 2, 3, ... into one page
 * after the other, round and round. Its only device is the counter. So each page has one right
 * content, and the destination checks them all.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <viaduct/viaduct.h>

#define PAGE   4096u
#define RAM    ((size_t)64 << 20)
#define NPAGES (RAM / PAGE)

struct vmm {
	struct via_guest_region ram;               /* what the engine knows of the memory */
	uint64_t (*page)[PAGE / sizeof(uint64_t)]; /* the same */
	_Atomic uint64_t counter;                  /* the device */
	pthread_t vcpu;
	atomic_bool stop;
	struct via_dirty_tracker *tracker;
	struct via_session_config session_config; /* in both, zero is the default of every field */
	struct via_migrate_config config;
	struct via_migrate_result result;
};

/* The vCPU: number n goes to page n modulo NPAGES. Up to 40 MB of memory a second become dirty. */
static void *vcpu_main(void *arg)
{
	struct vmm *vmm = arg;

	while (!atomic_load(&vmm->stop)) {
		uint64_t n = atomic_load(&vmm->counter) + 1;

		vmm->page[n % NPAGES][0] = n;
		atomic_store(&vmm->counter, n);
		if (n % 10 == 0)
			usleep(1000);
	}
	return NULL;
}

static int run(void *arg, struct via_error *err)
{
	struct vmm *vmm = arg;

	atomic_store(&vmm->stop, false);
	return pthread_create(&vmm->vcpu, NULL, vcpu_main, vmm)
		       ? via_fail(err, -ENOMEM, "run the guest\nno thread\nraise ulimit -u")
		       : 0;
}

/* On its return nothing writes the RAM any more. */
static int pause_guest(void *arg, struct via_error *err)
{
	struct vmm *vmm = arg;

	atomic_store(&vmm->stop, true);
	return pthread_join(vmm->vcpu, NULL) ? via_fail(err, -EINVAL, "pause the guest") : 0;
}

static void resume(void *arg)
{
	run(arg, NULL); /* the migration has failed after the pause; the guest has lost nothing */
}

/* The dirty log is the library's own, for memory of this process; with KVM it is KVM's. */
static int dirty_start(void *arg, struct via_error *err)
{
	return via_dirty_tracker_start(((struct vmm *)arg)->tracker, err);
}

static int dirty_fetch(void *arg, unsigned index, struct via_bitmap *dirty, struct via_error *err)
{
	return via_dirty_tracker_fetch(((struct vmm *)arg)->tracker, index, dirty, err);
}

static void dirty_stop(void *arg)
{
	via_dirty_tracker_stop(((struct vmm *)arg)->tracker);
}

/* The state of all devices, in memory of malloc, which the engine frees. */
static int save(void *arg, void **state, size_t *len, struct via_error *err)
{
	uint64_t n = atomic_load(&((struct vmm *)arg)->counter);

	*len = sizeof(n);
	*state = malloc(*len);
	if (!*state)
		return via_fail(err, -ENOMEM, "save the guest\nout of memory\nfree some memory");
	memcpy(*state, &n, *len);
	return 0;
}

/* Destination: memory for what the source has, zeroed. What a peer says is not to be trusted. */
static int prepare(void *arg, unsigned nregions, struct via_guest_region *region,
		   struct via_error *err)
{
	if (nregions != 1 || region->len != RAM || region->page_size != PAGE)
		return via_fail(err, -EINVAL, "make RAM\nit is that of another guest");
	region->addr = ((struct vmm *)arg)->ram.addr;
	return 0;
}

/* Destination: all memory has come. Take the state; here, also look whether each page is right. */
static int load(void *arg, const void *state, size_t len, struct via_error *err)
{
	struct vmm *vmm = arg;
	uint64_t n;

	if (len != sizeof(n))
		return via_fail(err, -EPROTO, "load the guest\n%zu bytes of state", len);
	memcpy(&n, state, len);
	atomic_store(&vmm->counter, n);
	for (uint64_t i = 0; i < NPAGES; i++) /* page i: the last number that went there */
		if (vmm->page[i][0] != (n < i ? 0 : n - (n - i) % NPAGES))
			return via_fail(err, -EBADMSG, "check page %zu\nit is wrong", (size_t)i);
	return 0;
}

static int send_guest(struct vmm *vmm, const char *address, struct via_error *err)
{
	const struct via_source_guest guest = {.arg = vmm,
					       .nregions = 1,
					       .region = &vmm->ram,
					       .dirty_start = dirty_start,
					       .dirty_fetch = dirty_fetch,
					       .dirty_stop = dirty_stop,
					       .pause = pause_guest,
					       .resume = resume,
					       .save = save};
	struct via_session *session;
	int rc = via_dirty_tracker_open(&vmm->ram, 1, VIA_DIRTY_BEST, &vmm->tracker, err);

	if (!rc)
		rc = run(vmm, err);
	if (!rc)
		rc = via_migrate_connect(address, &vmm->session_config, &guest, -1, &session, err);
	if (rc)
		return rc;
	rc = via_migrate_source(&session, &guest, &vmm->config, &vmm->result, err);
	via_session_close(session);
	return rc; /* and vmm->result.outcome says where the guest is */
}

static int receive_guest(struct vmm *vmm, const char *address, struct via_error *err)
{
	const struct via_destination_guest guest = {
		.arg = vmm, .prepare = prepare, .load = load, .run = run};
	struct via_session *session;
	char text[64];
	int listen_fd, rc = via_control_listen(address, &listen_fd, err);

	if (rc || (rc = via_control_listen_address(listen_fd, text, sizeof(text))))
		return rc;
	fprintf(stderr, "waiting at %s\n", text); /* where port 0 has become a number */
	rc = via_migrate_accept(listen_fd, &vmm->session_config, &guest,
				&(struct via_wait){VIA_NEVER, -1}, &session, err);
	close(listen_fd);
	if (rc)
		return rc;
	rc = via_migrate_destination(&session, &guest, &vmm->config, &vmm->result, err);
	via_session_close(session);
	return rc;
}

int main(int argc, char **argv)
{
	struct vmm vmm = {.ram = {.name = "ram", .len = RAM, .page_size = PAGE}};
	struct via_error err = {0};

	vmm.ram.addr = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vmm.page = vmm.ram.addr;
	if (argc < 3 || vmm.ram.addr == MAP_FAILED)
		return 2;
	/* Plain text is for loopback; between hosts both sides need .credentials.psk_file. */
	vmm.session_config.fabric = argv[3]; /* NULL: the best that both sides have */
	if (strcmp(argv[1], "send") ? receive_guest(&vmm, argv[2], &err)
				    : send_guest(&vmm, argv[2], &err)) {
		fprintf(stderr, "%s: %s\n  try: %s\n", err.what, err.seen, err.remedy);
		return 1;
	}
	printf("%s over %s\n", via_outcome_name(vmm.result.outcome), vmm.result.session.fabric);
	via_dirty_tracker_close(vmm.tracker);
	return 0;
}
