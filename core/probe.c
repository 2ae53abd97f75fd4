/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * probe.c -- the one function that every probe calls, if there is one. It is NULL outside of tests.
 */
#include "core/probe.h"

_Atomic(via_trace_fn *) via_trace;
