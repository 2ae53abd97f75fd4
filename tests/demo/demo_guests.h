/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_guests.h -- demo guests for tests. A failure of any of these fails the test.
 */
#ifndef VIA_TESTS_DEMO_DEMO_GUESTS_H
#define VIA_TESTS_DEMO_DEMO_GUESTS_H

#include "demo/demo_guest.h"
#include "demo/demo_page.h"

#define PAGE  ((uint64_t)DEMO_PAGE_SIZE)
#define SPEED UINT64_MAX

struct demo_guest *new_guest(uint64_t pages, unsigned vcpus, uint64_t rate);
/* An empty guest with room for what @source has. */
struct demo_guest *new_destination(struct demo_guest *source);
char *page_at(struct demo_guest *g, uint64_t page);
void copy_all(struct demo_guest *from, struct demo_guest *to);
/* Take the device state of the paused or stopped @from over to @to. */
void move_state(struct demo_guest *from, struct demo_guest *to);
/* The check of @g's pages finds so many of each kind. */
void check_verify(struct demo_guest *g, uint64_t missing, uint64_t stale, uint64_t torn);
/* Let the vCPUs rewrite @bytes more. */
void let_run(struct demo_guest *g, uint64_t bytes);

#endif
