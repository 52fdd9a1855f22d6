// The length prefix before each message on a byte stream: 4 bytes, big endian,
// signed, then that many bytes. (Client protocol, "framing".)
// Pure functions, any thread.
#ifndef JANUS_COMMON_FRAME_H
#define JANUS_COMMON_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum { FRAME_HEADER_BYTES = 4 };

// What the wire allows from a client; also the default for what goes to one,
// since the clients of the ecosystem refuse more.
enum { FRAME_BODY_MAX_BYTES = 16384 };

// Looks for one whole frame at the start of bytes. Returns 1 and the length of
// its body (which starts FRAME_HEADER_BYTES in) when it is all there; 0 when
// more bytes are needed (*body_len is then set if the header is complete, else
// 0); ERROR_MALFORMED for a length of 0 or less, ERROR_TOO_LARGE for one over
// body_max, both as soon as the header is there.
int frame_parse(const uint8_t *bytes, size_t len, size_t body_max, size_t *body_len) MUST_CHECK;

// Writes the prefix for a body of body_len bytes (at most INT32_MAX).
void frame_write_header(uint8_t out[FRAME_HEADER_BYTES], size_t body_len);

#endif
