/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * codecs.c -- the table of codecs and the golden vectors: what docs/wire.md says,
 * written out by hand, field by field.
 */
#include "tests/transport/codecs.h"

#include "core/error.h"
#include "transport/messages.h"

/* clang-format off */

static const uint8_t hello[] = {
	'V', 'I', 'A', 'D', 'U', 'C', 'T', 0x0a,        /* magic */
	0x00, 0x01, 0x00, 0x01,                         /* versions 1 to 1 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, /* features */
	0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, /* session id */
	0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
	0x01, 0x00,                                     /* source, reserved */
	0x00, 0x02,                                     /* offers */
	0x00, 0x0d, 'v', 'i', 'a', 'd', 'u', 'c', 't', ' ', '0', '.', '1', '.', '0',
	0x00, 0x03,                                     /* rank */
	0x00, 0x07, 'o', 'f', 'i', ':', 't', 'c', 'p',  /* spec */
	0x00, 0x00,                                     /* reaches everybody */
	0x00, 0x00,                                     /* usable */
	0x00, 0x00,                                     /* rank */
	0x00, 0x07, 'o', 'f', 'i', ':', 's', 'h', 'm',  /* spec */
	0x00, 0x02, 'h', '7',                           /* reach */
	0x00, 0x04, 'f', 'u', 'l', 'l',                 /* reason */
};

static const uint8_t setup[] = {
	0x00, 0x01,                                     /* version */
	0x00, 0x04, 0x00, 0x01,                         /* 4 multifd, 1 preempt */
	0x00, 0x02,                                     /* regions */
	0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, /* slices of 1 GiB */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, /* resumes, in epoch 7 */
	0x00, 0x07, 'o', 'f', 'i', ':', 't', 'c', 'p',  /* fabric */
	0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, /* 4 GiB */
	0x00, 0x00, 0x10, 0x00,                         /* in pages of 4 KiB */
	0x00, 0x03, 'r', 'a', 'm',
	0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, /* 4 MiB */
	0x00, 0x20, 0x00, 0x00,                         /* in pages of 2 MiB */
	0x00, 0x04, 'v', 'r', 'a', 'm',
};

static const uint8_t channel_open[] = {
	0x02, 0x00, 0x00, 0x03,                         /* multifd, reserved, index 3 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, /* epoch */
	0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, /* session id */
	0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
	0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, /* nonce */
	0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf,
	0x00, 0x04, 0x0a, 0x00, 0x00, 0x07,             /* address */
};

static const uint8_t channel_addr[] = {
	0x03, 0x00, 0x00, 0x3f,                         /* preempt, reserved, index 63 */
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, /* epoch */
	0x00, 0x03, 0x01, 0x02, 0x03,                   /* address */
};

static const uint8_t channel_ready[] = {
	0x02, 0x00, 0x00, 0x00,                         /* multifd, reserved, index 0 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, /* epoch */
	0x00, 0x40, 0x00, 0x00,                         /* 64 credits, reserved */
	0x00, 0x00, 0x20, 0x00,                         /* receives of 8 KiB */
	0x00, 0x00, 0x00, 0x02,                         /* keys */
	0x00, 0x02, 0xc0, 0xc1,
	0x00, 0x03, 0xc2, 0xc3, 0xc4,
};

static const uint8_t channel_refused[] = {
	0x01, 0x00, 0x00, 0x00,                         /* main, reserved, index 0 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, /* epoch */
	0x00, 0x06, 'E', 'S', 'T', 'A', 'L', 'E',
	0x00, 0x04, 'o', 'p', 'e', 'n',
	0x00, 0x01, '2',
	0x00, 0x00,
};

static const uint8_t error[] = {
	0x00, 0x09, 'E', 'T', 'I', 'M', 'E', 'D', 'O', 'U', 'T',
	0x00, 0x05, 'd', 'r', 'a', 'i', 'n',
	0x00, 0x03, '1', '0', 's',
	0x00, 0x04, 'w', 'a', 'i', 't',
};

static const uint8_t ping[] = {
	0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
};

static const uint8_t fence[] = {
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, /* epoch */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, /* writes */
	0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, /* bytes */
	0x00, 0x02,                                     /* index */
};

static const uint8_t drained[] = {
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, /* epoch */
	0x00, 0x02,                                     /* channels */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x11, /* writes and bytes of 0 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x22, 0x00,
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* and of 1 */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

static const uint8_t epoch[] = {
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
};

static const uint8_t stream_end[] = {
	0x00, 0x0a, 'E', 'C', 'O', 'N', 'N', 'R', 'E', 'S', 'E', 'T',
};

/* clang-format on */

/* The functions of messages.h with the types that the table needs. */
#define WRAP(name, type)                                                                           \
	static ssize_t name##_encode(const void *m, void *buf, size_t cap)                         \
	{                                                                                          \
		const type *typed = m;                                                             \
		return via_##name##_encode(typed, buf, cap);                                       \
	}                                                                                          \
	static int name##_decode(const void *buf, size_t len, void *m)                             \
	{                                                                                          \
		type *typed = m;                                                                   \
		return via_##name##_decode(buf, len, typed);                                       \
	}
WRAP(hello, struct via_hello)
WRAP(setup, struct via_setup)
WRAP(channel_open, struct via_channel_open)
WRAP(channel_addr, struct via_channel_addr)
WRAP(channel_ready, struct via_channel_ready)
WRAP(channel_refused, struct via_channel_refused)
WRAP(error, struct via_error)
WRAP(fence, struct via_fence_message)
WRAP(drained, struct via_drained_message)
#undef WRAP

static ssize_t ping_encode(const void *m, void *buf, size_t cap)
{
	return via_ping_encode(*(const uint64_t *)m, buf, cap);
}

static int ping_decode(const void *buf, size_t len, void *m)
{
	return via_ping_decode(buf, len, m);
}

static ssize_t epoch_encode(const void *m, void *buf, size_t cap)
{
	return via_epoch_encode(*(const uint64_t *)m, buf, cap);
}

static int epoch_decode(const void *buf, size_t len, void *m)
{
	return via_epoch_decode(buf, len, m);
}

static ssize_t stream_end_encode(const void *m, void *buf, size_t cap)
{
	return via_stream_end_encode(*(const int *)m, buf, cap);
}

static int stream_end_decode(const void *buf, size_t len, void *m)
{
	return via_stream_end_decode(buf, len, m);
}

#define FIELDS(name, type) #name, sizeof(type), name##_encode, name##_decode, name, sizeof(name)

const struct codec control_codecs[CONTROL_CODECS] = {
	[CODEC_HELLO] = {FIELDS(hello, struct via_hello)},
	[CODEC_SETUP] = {FIELDS(setup, struct via_setup)},
	[CODEC_OPEN] = {FIELDS(channel_open, struct via_channel_open)},
	[CODEC_ADDR] = {FIELDS(channel_addr, struct via_channel_addr)},
	[CODEC_READY] = {FIELDS(channel_ready, struct via_channel_ready)},
	[CODEC_REFUSED] = {FIELDS(channel_refused, struct via_channel_refused)},
	[CODEC_ERROR] = {FIELDS(error, struct via_error)},
	[CODEC_PING] = {FIELDS(ping, uint64_t)},
};

const struct codec channel_codecs[CHANNEL_CODECS] = {
	[CODEC_FENCE] = {FIELDS(fence, struct via_fence_message)},
	[CODEC_DRAINED] = {FIELDS(drained, struct via_drained_message)},
	[CODEC_EPOCH] = {FIELDS(epoch, uint64_t)},
	[CODEC_STREAM_END] = {FIELDS(stream_end, int)},
};
