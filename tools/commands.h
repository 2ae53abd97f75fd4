/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * commands.h -- the subcommands of viaduct, one file each.
 */
#ifndef VIA_TOOLS_COMMANDS_H
#define VIA_TOOLS_COMMANDS_H

#include "tools/options.h"

extern const struct command command_demo;
extern const struct command command_send;
extern const struct command command_receive;
extern const struct command command_relay;
extern const struct command command_migrate_qemu;
extern const struct command command_fabrics;
extern const struct command command_bench;
extern const struct command command_doctor;
extern const struct command command_plan;

#endif
