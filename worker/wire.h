// A client's connection as bytes: what a transport that frames messages on a byte stream
// stands on. A socket (wire_socket.c) is one; the rules are the same for each.
//
// Loop thread only.
#ifndef JANUS_WORKER_WIRE_H
#define JANUS_WORKER_WIRE_H

#include <event2/event.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/close_reason.h"
#include "common/counters.h"
#include "common/error.h"

struct wire;
struct wire_gather;
LIST_HEAD(wire_list, wire);

struct wire_events {
  // Bytes that came, writable, valid for the call. Returns how many were used: the rest comes
  // again with more behind it, or when the wire is resumed. May pause and close the wire.
  size_t (*on_bytes)(uint8_t *bytes, size_t len, void *owner);
  // The connection is at its end, for the reason given; still to be closed.
  void (*on_ended)(enum close_reason reason, void *owner);
  // What was waiting has fallen below low_bytes.
  void (*on_drained)(void *owner);
  // Whether bytes that might come next are what only the client can have sent. Nothing is taken
  // in. NULL: that can't be told.
  bool (*is_next)(const uint8_t *bytes, size_t len, void *owner);
  // The wire has been closed and is gone, with all that it had to flush. The last call.
  void (*on_gone)(void *owner);
};

// What the wires of one worker share. Owned by the worker.
struct wire_shared {
  struct event_base *base;
  struct counters *counters;
  size_t low_bytes;      // on_drained comes below this
  int64_t linger_ms;     // for a client to take what is pending when it is closed
  uint8_t *read_buffer;  // WIRE_READ_BUFFER_BYTES, used by one wire at a time
  struct wire_gather *gather;
  struct wire_list all;
};

enum {
  WIRE_READ_BUFFER_BYTES = 64 << 10,
  WIRE_UNUSED_MAX_BYTES = 32 << 10,  // that an owner may leave while it is not paused; more ends it
};

// The shared part is as zero, but for base and counters. ERROR_MEMORY: there is nothing to free.
int wire_shared_init(struct wire_shared *shared) MUST_CHECK;
// No wire is left.
void wire_shared_fini(struct wire_shared *shared);

// Makes the wire of a new transport; NULL when out of memory.
typedef struct wire *wire_maker(void *context, const struct wire_events *events, void *owner);

// How a path to a client does, where the wire knows it.
struct wire_path {
  uint32_t srtt_ms;
  uint32_t rto_ms;
  uint32_t client_window;   // segments that the client takes
  uint32_t gateway_window;  // and that the gateway takes
  uint32_t in_flight;
  uint32_t stream_window;  // bytes that the client takes on this stream
  uint64_t segments_in;
  uint64_t segments_out;
  uint64_t retransmits;
  uint64_t recovered;  // datagrams, by FEC
  uint64_t datagrams_in;
  uint64_t datagrams_out;
  uint32_t streams;
};

// What a kind of wire does.
struct wire_kind {
  const char *name;  // of the transport that frames messages on it: "tcp"
  int (*write)(struct wire *wire, const uint8_t *bytes, size_t len);
  size_t (*queued_bytes)(const struct wire *wire);
  uint64_t (*taken_bytes)(const struct wire *wire);
  void (*pause)(struct wire *wire);
  void (*resume)(struct wire *wire);
  void (*close)(struct wire *wire, bool flush);
  void (*cut)(struct wire *wire);
  void (*logged_in)(struct wire *wire);                               // NULL: no matter
  void (*address_validated)(struct wire *wire);                       // NULL: no matter
  void (*describe)(const struct wire *wire, struct wire_path *path);  // NULL: it knows nothing
};

// The beginning of every wire.
struct wire {
  const struct wire_kind *kind;
  const struct wire_events *events;
  void *owner;
  struct wire_shared *shared;
  LIST_ENTRY(wire) link;
};

// Takes over fd, a connected non-blocking stream socket, and ssl, the established TLS on it
// (NULL: none); reading starts at once. NULL when out of memory: then both are closed, and
// on_gone does not come.
struct wire *wire_socket_new(struct wire_shared *shared, int fd, SSL *ssl,
                             const struct wire_events *events, void *owner);

// The bytes are copied. They leave at the end of the loop's turn, with all others that were written
// in it, or before. ERROR_MEMORY.
static inline int MUST_CHECK wire_write(struct wire *wire, const uint8_t *bytes, size_t len) {
  return wire->kind->write(wire, bytes, len);
}

// Bytes that wait for the client, since it has not taken them.
static inline size_t wire_queued_bytes(const struct wire *wire) {
  return wire->kind->queued_bytes(wire);
}

// The bytes that it has taken, ever: whether it reads at all.
static inline uint64_t wire_taken_bytes(const struct wire *wire) {
  return wire->kind->taken_bytes(wire);
}

// Stops and restarts on_bytes (and the reading behind it).
static inline void wire_pause(struct wire *wire) { wire->kind->pause(wire); }
static inline void wire_resume(struct wire *wire) { wire->kind->resume(wire); }

// The client has logged in.
static inline void wire_logged_in(struct wire *wire) {
  if (wire->kind->logged_in) {
    wire->kind->logged_in(wire);
  }
}

// And has sent what nobody can who has not had our answer: it is where its bytes say that they come
// from.
static inline void wire_address_validated(struct wire *wire) {
  if (wire->kind->address_validated) {
    wire->kind->address_validated(wire);
  }
}

// False: the wire knows nothing of its path.
static inline bool wire_describe(const struct wire *wire, struct wire_path *path) {
  if (wire->kind->describe) {
    wire->kind->describe(wire, path);
  }
  return wire->kind->describe != NULL;
}

// Gives the wire up: of its events only on_gone comes after this. With flush it lives on by
// itself until the client has taken what is pending, or linger_ms have passed.
static inline void wire_close(struct wire *wire, bool flush) { wire->kind->close(wire, flush); }

// Has what was written to sockets in this turn leave now, rather than at its end: for work that is
// to know how long it takes. Nobody is told anything from in here.
void wire_send_gathered(struct wire_shared *shared);

// Cuts off all that are still being flushed, when what was written in this turn has left; none may
// have an owner that still uses it.
void wire_cut_all(struct wire_shared *shared);

#endif
