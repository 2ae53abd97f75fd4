/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_wire.h -- the numbers of QEMU's migration streams that more than one file here needs.
 * All of them are big-endian on the wire and have not changed from QEMU 7.2 to 11.1.
 */
#ifndef VIA_RELAY_QEMU_WIRE_H
#define VIA_RELAY_QEMU_WIRE_H

#include <stdint.h>

/* Main: u32 magic "QEVM", u32 version. */
#define QEMU_MAIN_MAGIC   UINT32_C(0x5145564d)
#define QEMU_MAIN_VERSION 3u

/* A command on main: u8 QEMU_FRAME_COMMAND, u16 command, u16 length, data. */
#define QEMU_FRAME_COMMAND   0x08u
#define QEMU_CMD_RECV_BITMAP 10u

/*
 * Multifd, once at the start: u32 magic, u32 version, 16 bytes UUID, u8 channel id, 39 bytes
 * that nobody reads. Packets begin with the same magic and version.
 */
#define QEMU_MULTIFD_MAGIC    UINT32_C(0x11223344)
#define QEMU_MULTIFD_VERSION  1u
#define QEMU_MULTIFD_INIT_LEN 64u
#define QEMU_MULTIFD_ID_OFF   24u

#endif
