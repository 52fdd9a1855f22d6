// A client's connection as bytes: a connected non-blocking socket, with TLS on it or
// without. Lives in its client; loop thread only.
#ifndef JANUS_TOOLS_CLIENT_BYTE_STREAM_H
#define JANUS_TOOLS_CLIENT_BYTE_STREAM_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

enum { BYTE_STREAM_AGAIN = -1, BYTE_STREAM_FAILED = -2 };

struct byte_stream {
  int fd;    // -1: closed
  SSL *ssl;  // NULL: plain
};

// Puts TLS on the socket, to be accepted only from host where the context verifies at all;
// session, which may be NULL, is shown to be resumed. ERROR_MEMORY.
int byte_stream_use_tls(struct byte_stream *stream, SSL_CTX *context, const char *host,
                        SSL_SESSION *session) MUST_CHECK;
// Takes the TLS handshake on: 0 when it is done; BYTE_STREAM_AGAIN, with *for_writing what
// to wait for; BYTE_STREAM_FAILED.
int byte_stream_handshake(struct byte_stream *stream, bool *for_writing) MUST_CHECK;

// What was read, 0 at the end, BYTE_STREAM_AGAIN or BYTE_STREAM_FAILED.
ssize_t byte_stream_read(struct byte_stream *stream, uint8_t *out, size_t len);
// What was taken, BYTE_STREAM_AGAIN or BYTE_STREAM_FAILED. What was not taken has to be
// offered again, with or without more behind it.
ssize_t byte_stream_write(struct byte_stream *stream, const uint8_t *bytes, size_t len);
// Whether bytes have been taken from the socket that were not read yet: the socket does
// not become readable for them.
bool byte_stream_pending(const struct byte_stream *stream);

// Why the call before failed. Borrowed until the next call on any stream.
const char *byte_stream_fault(const struct byte_stream *stream);

// Takes leave of the other side, as far as that goes without waiting, and closes.
void byte_stream_close(struct byte_stream *stream);

#endif
