/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * candidates.h -- the fabrics that two hosts could use, and why one of them is used: what
 * doctor and plan show of an inquiry.
 */
#ifndef VIA_TOOLS_CANDIDATES_H
#define VIA_TOOLS_CANDIDATES_H

#include <jansson.h>

#include "transport/inquire.h"

/* A table with a line for each candidate of either side, to stdout. */
void candidates_print(const struct via_inquiry *inquiry);

/* The same as an array of objects: fabric, here, there ("yes" or the reason), verdict. */
json_t *candidates_array(const struct via_inquiry *inquiry);

#endif
