/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * failing.h -- what the library asks the system for, one call of which fails: malloc() and its kin,
 * mmap(), threads, eventfds, timers. Wrapped at link time (meson.build), so that only calls of this
 * program's own objects are seen, and none of a library's.
 */
#ifndef VIA_TESTS_FAILING_H
#define VIA_TESTS_FAILING_H

/* First of all. */
void failing_init(void);

/* From here on calls are counted, and the @n-th fails; 0: none. */
void failing_begin(unsigned n);
/* No more. Returns how many calls there were. */
unsigned failing_end(void);

/*
 * Places in the code that have called so far, here and in children, and those of them where a
 * call has failed.
 */
unsigned failing_sites(void);
unsigned failing_sites_failed(void);

#endif
