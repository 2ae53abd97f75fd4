/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tell_random.c -- for LD_PRELOAD: has a program write down the random numbers of 16 bytes that it
 * draws (session id, nonces) into the file $TELL_RANDOM, so that a test knows what to look for.
 *
 * As hexadecimal text, by a write(2): what is looked for must not be left in memory by this.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LEN 16u

ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
	ssize_t n = syscall(SYS_getrandom, buf, len, flags);
	const char *path = getenv("TELL_RANDOM");
	char text[2 * LEN + 1];
	int fd =
		path && n == LEN ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;

	if (fd < 0)
		return n;
	for (unsigned i = 0; i < LEN; i++) {
		unsigned char byte = ((unsigned char *)buf)[i];

		text[2 * i] = "0123456789abcdef"[byte >> 4];
		text[2 * i + 1] = "0123456789abcdef"[byte & 15];
	}
	text[2 * LEN] = '\n';
	if (write(fd, text, sizeof(text)) < 0)
		abort();
	close(fd);
	explicit_bzero(text, sizeof(text));
	return n;
}
