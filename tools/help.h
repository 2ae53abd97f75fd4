/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * help.h -- `viaduct help`: what there is to read, and how it comes to the screen.
 */
#ifndef VIA_TOOLS_HELP_H
#define VIA_TOOLS_HELP_H

#include <stdio.h>

#include "tools/options.h"

/* The topics that are no commands, a line each. */
void help_topics(FILE *out);

/*
 * `viaduct help @name`. On a terminal its manual page, where there is one; else a topic's
 * text, or the help of @command, which is the command of that name or NULL. Does not return
 * once the page is shown. Returns EXIT_OK, or EXIT_USAGE after a message when nothing is
 * called so.
 */
int help_show(const char *name, const struct command *command);

#endif
