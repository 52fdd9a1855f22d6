// What a session needs from below: whole messages in, whole messages out, how much is
// waiting, pause and resume, and an end. A transport frames messages as its wire asks.
//
// To add one: embed struct transport at the beginning of its own, fill in a struct
// transport_kind, call transport->events for what comes, and give whoever accepts its clients
// a function like transport_framed_new. One that frames messages on a byte stream stands on a
// struct wire, and passes most of the rest on to it. test/unit/worker/test_session.c has one
// in memory.
//
// Loop thread only.
#ifndef JANUS_WORKER_TRANSPORT_H
#define JANUS_WORKER_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/close_reason.h"
#include "common/error.h"
#include "common/prefetch.h"
#include "worker/websocket_upgrade.h"
#include "worker/wire.h"

struct transport;

// Room that the caller of transport_send leaves before a message for the frame.
enum { TRANSPORT_HEADROOM_BYTES = 14 };

struct transport_events {
  // One message, writable, valid for the call. The session may close the
  // transport in answer.
  void (*on_message)(uint8_t *bytes, size_t len, void *owner);
  // Whether a message that might come next is one that only the client can have sent. Nothing is
  // taken in.
  bool (*is_next)(const uint8_t *bytes, size_t len, void *owner);
  // The connection is at its end, for the reason given; still to be closed.
  void (*on_ended)(enum close_reason reason, void *owner);
  // What was waiting has fallen below the wires' low_bytes.
  void (*on_drained)(void *owner);
  // The client's request had these headers, traceparent and tracestate: "" for one that it had
  // not. Hostile, and valid for the call; before all else. NULL: not wanted.
  void (*on_trace_context)(const char *parent, size_t parent_len, const char *state,
                           size_t state_len, void *owner);
};

struct transport_kind {
  int (*send)(struct transport *transport, uint8_t *buffer, size_t len);
  size_t (*queued_bytes)(const struct transport *transport);
  uint64_t (*taken_bytes)(const struct transport *transport);
  void (*pause)(struct transport *transport);
  void (*resume)(struct transport *transport);
  void (*close)(struct transport *transport, enum close_reason reason, bool flush);
  struct wire *(*wire)(const struct transport *transport);  // that it stands on; NULL: on none
};

// The beginning of every transport.
struct transport {
  const struct transport_kind *kind;
  const char *name;  // "tcp"
  const struct transport_events *events;
  void *owner;
};

// Makes the transport of a new session; NULL when out of memory.
typedef struct transport *transport_maker(void *context, const struct transport_events *events,
                                          void *owner);

// What comes when a transport is gone for good, its descriptor closed; after its owner may
// long be free.
struct transport_gone {
  void (*on_gone)(void *context, void *cookie);
  void *context;
};

// Messages of up to FRAME_BODY_MAX_BYTES, each behind its length (common/frame.h), on the byte
// stream that make makes, with context: the client protocol over TCP. cookie comes back in gone.
// NULL when out of memory: then there is no wire, and on_gone does not come.
struct transport *transport_framed_new(wire_maker *make, void *context,
                                       const struct transport_events *events, void *owner,
                                       const struct transport_gone *gone, void *cookie);

// What the WebSockets of one worker share. NULL when out of memory.
struct websocket_shared;
struct websocket_shared *websocket_shared_new(void);
void websocket_shared_free(struct websocket_shared *shared);  // accepts NULL

struct websocket_options {
  struct websocket_shared *shared;
  const struct websocket_rules *rules;
  const struct timeval *ping_interval;  // of quiet before a ping, and for its answer; NULL: never
};

// The same messages with the same length before them, each in a binary message of a WebSocket
// (RFC 6455) that the client first has to ask for over HTTP. options, and what they point to,
// are borrowed for the transport's life.
struct transport *transport_websocket_new(wire_maker *make, void *context,
                                          const struct websocket_options *options,
                                          const struct transport_events *events, void *owner,
                                          const struct transport_gone *gone, void *cookie);

// Sends one message of len bytes. It stands behind TRANSPORT_HEADROOM_BYTES of room in buffer,
// which are written over. It is copied, and leaves by the end of the loop's turn. ERROR_MEMORY.
static inline int MUST_CHECK transport_send(struct transport *transport, uint8_t *buffer,
                                            size_t len) {
  return transport->kind->send(transport, buffer, len);
}

// Bytes that wait for the client.
static inline size_t transport_queued_bytes(const struct transport *transport) {
  return transport->kind->queued_bytes(transport);
}
// The bytes that it has taken, ever: whether it reads at all.
static inline uint64_t transport_taken_bytes(const struct transport *transport) {
  return transport->kind->taken_bytes(transport);
}

// The client has logged in; and has sent what it could not without our answer to that.
static inline void transport_logged_in(struct transport *transport) {
  if (transport->kind->wire) {
    wire_logged_in(transport->kind->wire(transport));
  }
}
static inline void transport_address_validated(struct transport *transport) {
  if (transport->kind->wire) {
    wire_address_validated(transport->kind->wire(transport));
  }
}

// For its next message: itself, and when that has come what it stands on (common/prefetch.h). What
// every message touches of a framed transport and of a socket's wire is in so many lines; of others
// it is a part. Accept NULL.
static inline void transport_prefetch(const struct transport *transport) {
  prefetch(transport, CACHE_LINE_BYTES);
}
static inline void transport_prefetch_wire(const struct transport *transport) {
  if (transport && transport->kind->wire) {
    prefetch(transport->kind->wire(transport), 2 * CACHE_LINE_BYTES);
  }
}

// How the path to the client does; false: that is not known.
static inline bool transport_describe(const struct transport *transport, struct wire_path *path) {
  return transport->kind->wire && wire_describe(transport->kind->wire(transport), path);
}

// Stops and restarts on_message (and the reading behind it).
static inline void transport_pause(struct transport *transport) {
  transport->kind->pause(transport);
}
static inline void transport_resume(struct transport *transport) {
  transport->kind->resume(transport);
}

// Gives the transport up: no event comes after this. With flush it lives on by itself until
// the client has taken what is pending, or the wires' linger_ms have passed. The reason is
// told where the transport has words for it.
static inline void transport_close(struct transport *transport, enum close_reason reason,
                                   bool flush) {
  transport->kind->close(transport, reason, flush);
}

#endif
