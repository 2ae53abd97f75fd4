/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control.c -- framed messages over the control connection: the queue that any
 * thread may fill, and the one driver that sends, receives and waits.
 *
 * Must never block but in poll(2) with a deadline, never raise SIGPIPE, and never
 * keep more memory for a frame than has arrived of it.
 *
 * Invariants: the driver polls for input only after a read said that there is none, so
 * that nothing stays unseen in GnuTLS's buffers. A frame leaves the queue when its
 * last byte is sent, and a partly sent one is always continued with the same bytes.
 * What has arrived is handed out before the connection is declared dead: a peer's last
 * words explain why sending to it fails.
 */
#include "transport/control.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/log.h"
#include "core/secret.h"
#include "core/wire.h"
#include "transport/control_internal.h"

#define QUEUED_MAX (64u << 20) /* bytes */
#define CHUNK      (64u << 10) /* bytes of one read */
#define BURST      (1u << 20)  /* bytes sent before reading has its turn */

/*
 * Frames carry nonces and keys of memory: a queued one is overwritten before it is freed, a received
 * one when the next takes its place.
 */
struct control_outgoing {
	struct control_outgoing *next;
	size_t len; /* header included */
	uint8_t bytes[];
};

/* -- open and close -------------------------------------------------------------- */

static void free_outgoing(struct control_outgoing *out)
{
	if (out)
		via_secret_wipe(out->bytes, out->len);
	free(out);
}

static int prepare_fd(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	int yes = 1;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return -errno;
	/* Small frames that somebody waits for. Not there on AF_UNIX, and not missed. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	return 0;
}

int control_new(int fd, struct via_control **control, struct via_error *err)
{
	struct via_control *c = calloc(1, sizeof(*c));
	uint8_t *in = malloc(CHUNK);
	int rc;

	if (!c || !in) {
		free(c);
		free(in);
		close(fd);
		return via_fail(err, -ENOMEM, "control connection\nout of memory\nfree some");
	}
	c->fd = fd;
	c->wake_fd = -1;
	c->in = in;
	c->in_cap = CHUNK;
	pthread_mutex_init(&c->lock, NULL);
	rc = prepare_fd(fd);
	if (!rc) {
		c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		rc = c->wake_fd < 0 ? -errno : 0;
	}
	if (rc)
		rc = via_fail(err, via_err_from_errno(-rc),
			      "control connection\n%s\ncheck the limit of open files (ulimit -n)",
			      strerror(-rc));
	else
		rc = control_socket_names(c, err);
	if (rc) {
		via_control_close(c);
		return rc;
	}
	*control = c;
	return 0;
}

int via_control_wrap(int fd, struct via_control **control, struct via_error *err)
{
	return control_new(fd, control, err);
}

void via_control_close(struct via_control *c)
{
	struct control_outgoing *out;

	if (!c)
		return;
	control_tls_end(c);
	free_outgoing(c->sending);
	while ((out = c->head)) {
		c->head = out->next;
		free_outgoing(out);
	}
	via_secret_wipe(c->in, c->in_cap);
	free(c->in);
	pthread_mutex_destroy(&c->lock);
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	close(c->fd);
	free(c);
}

const char *via_control_local_host(const struct via_control *c)
{
	return c->local_host;
}

const char *via_control_peer_host(const struct via_control *c)
{
	return c->peer_host;
}

const char *via_control_security(const struct via_control *c)
{
	if (!c->tls)
		return "plain text";
	return c->certificates ? "TLS 1.3, X.509" : "TLS 1.3, pre-shared key";
}

const char *control_hex(const uint8_t *bytes, size_t len, char buf[CONTROL_HEX_LEN])
{
	size_t n = len < CONTROL_FIRST_LEN ? len : CONTROL_FIRST_LEN;

	buf[0] = '\0';
	for (size_t i = 0; i < n; i++)
		snprintf(buf + 3 * i, 4, i + 1 < n ? "%02x " : "%02x", bytes[i]);
	return buf;
}

/* -- sending --------------------------------------------------------------------- */

int via_control_post(struct via_control *c, uint16_t type, const void *payload, size_t len)
{
	struct control_outgoing *out;
	struct via_wire w;
	bool was_empty = false;
	int rc = 0;

	if (len > VIA_CONTROL_PAYLOAD_MAX)
		return -EMSGSIZE;
	if (atomic_load(&c->broken))
		return -ECONNRESET;
	out = malloc(sizeof(*out) + VIA_CONTROL_HEADER_LEN + len);
	if (!out)
		return -ENOMEM;
	out->next = NULL;
	out->len = VIA_CONTROL_HEADER_LEN + len;
	w = via_wire_writer(out->bytes, out->len);
	via_wire_put_u32(&w, (uint32_t)len);
	via_wire_put_u16(&w, type);
	via_wire_put_u16(&w, 0);
	via_wire_put_bytes(&w, payload, len);

	pthread_mutex_lock(&c->lock);
	if (c->queued + out->len > QUEUED_MAX) {
		rc = -ENOMEM;
	} else {
		was_empty = !c->head;
		if (was_empty)
			c->head = out;
		else
			c->tail->next = out;
		c->tail = out;
		c->queued += out->len;
	}
	pthread_mutex_unlock(&c->lock);
	if (rc)
		free_outgoing(out);
	/* With frames in the queue the driver is awake, or waits for room in the socket. */
	if (was_empty)
		(void)eventfd_write(c->wake_fd, 1);
	return rc;
}

static ssize_t socket_failed(struct via_control *c, int errnum, struct via_error *err)
{
	if (errnum == EAGAIN || errnum == EWOULDBLOCK)
		return -EAGAIN;
	return via_fail(err, -ECONNRESET,
			"control connection with %s\n%s\ncheck the peer and the network", c->peer,
			strerror(errnum));
}

static ssize_t write_some(struct via_control *c, const void *buf, size_t len, struct via_error *err)
{
	ssize_t n;

	if (c->tls)
		return control_tls_write(c, buf, len, err);
	do {
		n = send(c->fd, buf, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? socket_failed(c, errno, err) : n;
}

/* The frame to go on with, or NULL. */
static struct control_outgoing *next_frame(struct via_control *c)
{
	if (c->sending)
		return c->sending;
	pthread_mutex_lock(&c->lock);
	c->sending = c->head;
	if (c->head)
		c->head = c->head->next;
	pthread_mutex_unlock(&c->lock);
	c->sent_len = 0;
	return c->sending;
}

static void frame_sent(struct via_control *c)
{
	pthread_mutex_lock(&c->lock);
	c->queued -= c->sending->len;
	pthread_mutex_unlock(&c->lock);
	free_outgoing(c->sending);
	c->sending = NULL;
}

/* Send what the socket takes. 0 all is sent; 1 a good deal; -EAGAIN; else send_error's code. */
static int send_burst(struct via_control *c)
{
	struct control_outgoing *out;
	ssize_t n;

	if (c->send_error.code)
		return c->send_error.code;
	for (size_t sum = 0; sum < BURST; sum += (size_t)n) {
		out = next_frame(c);
		if (!out)
			return 0;
		n = write_some(c, out->bytes + c->sent_len, out->len - c->sent_len, &c->send_error);
		if (n == -EAGAIN)
			return -EAGAIN;
		if (n < 0) {
			atomic_store(&c->broken, true);
			return (int)n;
		}
		c->sent_len += (size_t)n;
		if (c->sent_len == out->len)
			frame_sent(c);
	}
	return 1;
}

/* -- receiving ------------------------------------------------------------------- */

/* Room for CHUNK more bytes. The buffer doubles: it never runs ahead of what has come. */
static int make_room(struct via_control *c, struct via_error *err)
{
	size_t len = c->in_end - c->in_start, cap;
	uint8_t *in;

	if (c->in_cap - c->in_end >= CHUNK)
		return 0;
	if (c->in_start) {
		memmove(c->in, c->in + c->in_start, len);
		via_secret_wipe(c->in + len, c->in_start);
		c->in_start = 0;
		c->in_end = len;
	}
	if (c->in_cap - c->in_end >= CHUNK)
		return 0;
	cap = 2 * c->in_cap;
	in = malloc(cap);
	if (!in)
		return via_fail(err, -ENOMEM,
				"control connection with %s\nout of memory\nfree some", c->peer);
	memcpy(in, c->in, len);
	via_secret_wipe(c->in, c->in_cap);
	free(c->in);
	c->in = in;
	c->in_cap = cap;
	return 0;
}

static ssize_t read_some(struct via_control *c, void *buf, size_t len, struct via_error *err)
{
	ssize_t n;

	if (c->tls) {
		n = control_tls_read(c, buf, len, err);
	} else {
		do {
			n = recv(c->fd, buf, len, 0);
		} while (n < 0 && errno == EINTR);
		if (n < 0)
			n = socket_failed(c, errno, err);
	}
	if (n != 0)
		return n;
	return via_fail(err, -ECONNRESET,
			"control connection with %s\nclosed by the peer%s\nsee why at the peer",
			c->peer, c->in_end > c->in_start ? " in the middle of a message" : "");
}

/* What does not begin like a frame: say what it may be instead. */
static int bad_header(const struct via_control *c, struct via_error *err)
{
	const uint8_t *p = c->in + c->in_start;
	size_t n = c->in_end - c->in_start;
	char hex[CONTROL_HEX_LEN];

	if (!c->frame_seen && (p[0] == 0x15 || p[0] == 0x16) && (n < 2 || p[1] == 0x03))
		return via_fail(err, -EPROTO,
				"control connection with %s\n"
				"the peer speaks TLS and this side has no key\n"
				"give both sides the same key file with --psk",
				c->peer);
	return via_fail(err, -EPROTO, "control connection with %s\n%s %s\n%s", c->peer,
			c->frame_seen ? "no message can begin with" : "it begins with",
			control_hex(p, n, hex),
			c->frame_seen ? "check that both sides run the same release"
				      : "check that the address and the port are Viaduct's");
}

/* The header of the frame that begins the buffer. 1 and *f (but its payload); 0: not whole yet. */
static int parse_header(const struct via_control *c, struct via_control_frame *f,
			struct via_error *err)
{
	struct via_wire r = via_wire_reader(c->in + c->in_start, c->in_end - c->in_start);
	uint16_t reserved;

	f->len = via_wire_get_u32(&r);
	f->type = via_wire_get_u16(&r);
	reserved = via_wire_get_u16(&r);
	if (via_wire_status(&r)) {
		/* One byte tells: no payload is so long that its length begins with another. */
		if (c->in_end > c->in_start && c->in[c->in_start] != 0)
			return bad_header(c, err);
		return 0;
	}
	if (f->len > VIA_CONTROL_PAYLOAD_MAX || reserved)
		return bad_header(c, err);
	return 1;
}

/* Read once. 0 something came; -EAGAIN nothing is there; else the end. */
static int read_more(struct via_control *c, struct via_error *err)
{
	int rc = make_room(c, err);
	ssize_t n;

	if (rc)
		return rc;
	n = read_some(c, c->in + c->in_end, CHUNK, err);
	if (n < 0)
		return (int)n;
	c->in_end += (size_t)n;
	return 0;
}

/* The frame that begins the buffer. 1 and *frame; 0: not whole yet; -EPROTO. */
static int take_frame(struct via_control *c, struct via_control_frame *frame, struct via_error *err)
{
	struct via_control_frame f;
	int rc = parse_header(c, &f, err);

	if (rc <= 0)
		return rc;
	if (c->in_end - c->in_start < VIA_CONTROL_HEADER_LEN + f.len)
		return 0;
	f.payload = c->in + c->in_start + VIA_CONTROL_HEADER_LEN;
	c->frame_len = VIA_CONTROL_HEADER_LEN + f.len;
	c->frame_seen = true;
	*frame = f;
	return 1;
}

/* A frame from the buffer, or after reading once. 1; 0: some bytes came; else as read_more(). */
static int read_frame(struct via_control *c, struct via_control_frame *frame, struct via_error *err)
{
	int rc = take_frame(c, frame, err);

	if (rc)
		return rc;
	rc = read_more(c, err);
	return rc ? rc : take_frame(c, frame, err);
}

/* Forget the frame that the last receive handed out. */
static void drop_frame(struct via_control *c)
{
	via_secret_wipe(c->in + c->in_start, c->frame_len);
	c->in_start += c->frame_len;
	c->frame_len = 0;
	if (c->in_start == c->in_end)
		c->in_start = c->in_end = 0;
}

/* No more than this can be done for the connection. */
static int dead(struct via_control *c, const struct via_error *why, struct via_error *err)
{
	c->error = *why;
	atomic_store(&c->broken, true);
	return via_error_pass(err, why);
}

int via_control_receive(struct via_control *c, const struct via_wait *wait,
			struct via_control_frame *frame, struct via_error *err)
{
	struct via_error why = {0};
	int sent, got;

	if (c->error.code)
		return via_error_pass(err, &c->error);
	drop_frame(c);
	if (control_canceled(wait))
		return -ECANCELED;
	for (;;) {
		sent = send_burst(c);
		got = read_frame(c, frame, &why);
		if (got == 1)
			return 0;
		if (got < 0 && got != -EAGAIN)
			return dead(c, &why, err);
		if (got == -EAGAIN && c->send_error.code)
			return dead(c, &c->send_error, err);
		if (got == -EAGAIN && sent <= 0)
			got = control_poll(c->fd, sent ? POLLIN | POLLOUT : POLLIN, c->wake_fd,
					   wait);
		else
			got = via_deadline_passed(wait->deadline_ns) ? -EAGAIN : 0;
		if (got)
			return got;
	}
}

int via_control_flush(struct via_control *c, const struct via_wait *wait, struct via_error *err)
{
	int rc;

	if (c->error.code)
		return via_error_pass(err, &c->error);
	for (;;) {
		rc = send_burst(c);
		if (rc == 0)
			return 0;
		/* Not dead: the peer's last words may still be there to be received. */
		if (c->send_error.code)
			return via_error_pass(err, &c->send_error);
		if (rc == -EAGAIN)
			rc = control_poll(c->fd, POLLOUT, -1, wait);
		else
			rc = via_deadline_passed(wait->deadline_ns) ? -EAGAIN : 0;
		if (rc)
			return rc;
	}
}

/* -- connect --------------------------------------------------------------------- */

int control_read_header(struct via_control *c, struct via_error *err)
{
	struct via_control_frame f;
	int rc;

	while ((rc = parse_header(c, &f, err)) == 0) {
		rc = read_more(c, err);
		if (rc)
			break;
	}
	if (rc == -EPROTO && (c->in[0] == 0x15 || c->in[0] == 0x16))
		control_tls_refuse_plain(c->fd);
	return rc < 0 ? rc : 0;
}

/* The key that the source proves to have. */
static int choose_key(const struct control_keys *keys, const char *identity,
		      const struct control_key **own, struct via_error *err)
{
	*own = identity ? control_keys_find(keys, identity, strlen(identity)) : &keys->key[0];
	if (!*own)
		return via_fail(err, -EINVAL,
				"read the key file %s\nit has no identity `%s`\n"
				"add its line, or pass --psk-identity",
				keys->file.path, identity);
	return 0;
}

void control_proof_wipe(struct control_proof *proof)
{
	control_keys_wipe(&proof->keys);
	control_x509_free(proof->x509);
	proof->x509 = NULL;
}

int control_proof_load(const struct via_credentials *creds, const char *address,
		       struct control_proof *proof, struct via_error *err)
{
	int rc;

	*proof = (struct control_proof){.client = address};
	if (creds->psk_file && creds->tls_creds)
		return via_fail(err, -EINVAL,
				"prove who this is\nthere are a key file and certificates\n"
				"pass --psk or --tls-creds, the same as the other side");
	if (creds->tls_creds)
		return control_x509_load(creds, address, &proof->x509, err);
	if (!creds->psk_file)
		return 0;
	rc = control_keys_load(creds->psk_file, &proof->keys, err);
	if (!rc && address)
		rc = choose_key(&proof->keys, creds->psk_identity, &proof->own, err);
	if (rc)
		control_proof_wipe(proof);
	return rc;
}

bool control_has_proof(const struct via_credentials *creds)
{
	return creds->psk_file || creds->tls_creds;
}

int via_control_connect(const char *address, const struct via_credentials *creds,
			const struct via_wait *wait, struct via_control **control,
			struct via_error *err)
{
	bool anywhere = control_has_proof(creds) || creds->insecure;
	struct control_proof proof;
	struct via_control *c = NULL;
	int fd, rc = control_proof_load(creds, address, &proof, err);

	if (rc)
		return rc;
	rc = control_socket_connect(address, anywhere, wait, &fd, err);
	if (!rc)
		rc = control_new(fd, &c, err);
	if (!rc && control_has_proof(creds))
		rc = control_tls_start(c, &proof, wait, err);
	control_proof_wipe(&proof);
	if (rc) {
		via_control_close(c);
		return rc;
	}
	via_log("control: connected to %s, %s", c->peer, via_control_security(c));
	*control = c;
	return 0;
}
