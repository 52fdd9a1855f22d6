// The client's side of a WebSocket (RFC 6455): the upgrade of an HTTP connection and the
// frames after it. Pure functions on the caller's bytes; loop thread only.
#ifndef JANUS_TOOLS_CLIENT_WEBSOCKET_H
#define JANUS_TOOLS_CLIENT_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

enum {
  WEBSOCKET_HEADER_MAX_BYTES = 14,
  WEBSOCKET_CONTROL_MAX_BYTES = 125,
  WEBSOCKET_REQUEST_MAX_BYTES = 2048,
  WEBSOCKET_ANSWER_MAX_BYTES = 8192,  // of the server's answer to it
};

enum websocket_opcode {
  WEBSOCKET_CONTINUATION = 0,
  WEBSOCKET_TEXT = 1,
  WEBSOCKET_BINARY = 2,
  WEBSOCKET_CLOSE = 8,
  WEBSOCKET_PING = 9,
  WEBSOCKET_PONG = 10,
};

enum {  // codes of a close frame
  WEBSOCKET_NORMAL = 1000,
  WEBSOCKET_PROTOCOL_ERROR = 1002,
};

struct websocket {
  uint8_t accept[20];  // what the server's answer has to prove that it read the request
  bool in_message;     // fragments of a message have come, and not its last
  size_t assembled;    // bytes of them, which stand before what comes next
};

// Writes the request, of less than WEBSOCKET_REQUEST_MAX_BYTES, and begins anew. Returns
// its length.
size_t websocket_request(struct websocket *socket, const char *authority, const char *path,
                         char out[WEBSOCKET_REQUEST_MAX_BYTES]);

// Looks for the server's answer at the start of bytes. Returns its length when it is there
// and switches to what was asked for; 0 when more is needed; ERROR_MALFORMED with a sentence
// in fault for any other answer.
ssize_t websocket_take_answer(const struct websocket *socket, const uint8_t *bytes, size_t len,
                              char *fault, size_t fault_bytes);

// What websocket_take found.
struct websocket_found {
  // BINARY: a whole message, which stands at the start of bytes and was `taken` of them.
  // CLOSE, PING, PONG: a control frame, copied to control and gone from bytes.
  enum websocket_opcode opcode;
  uint8_t *message;
  size_t len;    // of the message or of control
  size_t taken;  // 0 for a control frame
  uint8_t control[WEBSOCKET_CONTROL_MAX_BYTES];
  const char *fault;  // why it is malformed
};

// Looks for the next thing in bytes: fragments of a message, which are joined in place
// (so *len may shrink), control frames, a message of up to message_max. What was not taken
// has to be offered again, from its start, with more behind it. Returns 1 with found; 0 when
// more is needed; ERROR_MALFORMED with found->fault.
int websocket_take(struct websocket *socket, uint8_t *bytes, size_t *len, size_t message_max,
                   struct websocket_found *found) MUST_CHECK;

// The bytes as text for a terminal: what can't be printed, and all that is not ASCII, is a
// question mark.
void websocket_show(const uint8_t *bytes, size_t len, char *out, size_t out_bytes);

// Masks len bytes and puts a frame's header before them, for which there has to be room.
// Returns where it begins: the frame goes from there to the end of bytes.
uint8_t *websocket_wrap(enum websocket_opcode opcode, uint8_t *bytes, size_t len);

#endif
