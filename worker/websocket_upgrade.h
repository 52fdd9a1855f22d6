// The HTTP request with which a WebSocket begins (RFC 6455, section 4.2), and its answer. One
// head of a request and nothing else of HTTP: what is unusual is refused, such as
// a target with the host in it.
//
// Pure functions.
#ifndef JANUS_WORKER_WEBSOCKET_UPGRADE_H
#define JANUS_WORKER_WEBSOCKET_UPGRADE_H

#include <stddef.h>
#include <stdint.h>

enum {
  WEBSOCKET_REQUEST_MAX_BYTES = 8192,
  WEBSOCKET_REQUEST_HEADERS_MAX = 64,
};

struct websocket_rules {
  const char *path;
  const char *origins;       // with commas between them; "*": any. Who names none may come
  const char *subprotocols;  // with commas between them
};

struct websocket_answer {
  unsigned status;  // 101: it is a WebSocket from here on; any other: to be closed after it
  size_t len;
  char text[768];
  // The headers of those names, within the request; "" for one that is missing or there twice.
  const char *traceparent;
  size_t traceparent_len;
  const char *tracestate;
  size_t tracestate_len;
};

// Reads the request at the start of bytes. Returns how long it is, with the answer; 0 when
// more is needed. One that can become none is answered at once, as all of bytes.
size_t websocket_upgrade(const struct websocket_rules *rules, const uint8_t *bytes, size_t len,
                         struct websocket_answer *answer);

#endif
