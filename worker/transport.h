// What a session needs from below: whole messages in, whole messages out, how
// much is waiting, pause and resume, and an end. A transport frames messages as
// its wire asks; TCP (transport_tcp.c) is the one there is.
//
// Loop thread only.
#ifndef JANUS_WORKER_TRANSPORT_H
#define JANUS_WORKER_TRANSPORT_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/close_reason.h"
#include "common/counters.h"
#include "common/error.h"

struct transport;
LIST_HEAD(transport_list, transport);

// Room that the caller of transport_send leaves before a message for the frame.
enum { TRANSPORT_HEADROOM_BYTES = 4 };

struct transport_events {
  // One message, writable, valid for the call. The session may close the
  // transport in answer.
  void (*on_message)(uint8_t *bytes, size_t len, void *owner);
  // The connection is at its end, for the reason given; still to be closed.
  void (*on_ended)(enum close_reason reason, void *owner);
  // What was waiting has fallen below low_bytes.
  void (*on_drained)(void *owner);
};

// What the transports of one worker share. Owned by the worker.
struct transport_shared {
  struct event_base *base;
  struct counters *counters;
  size_t frame_max_bytes;  // of a message from a client
  size_t low_bytes;        // on_drained comes below this
  int64_t linger_ms;       // for a client to take what is pending when it is closed
  uint8_t *read_buffer;    // TRANSPORT_READ_BUFFER_BYTES, used by one transport at a time
  // A transport is gone for good, its descriptor closed.
  void (*on_gone)(void *context, void *cookie);
  void *context;
  struct transport_list all;
};

enum { TRANSPORT_READ_BUFFER_BYTES = 64 << 10 };

// Takes over fd, a connected non-blocking TCP socket; reading starts at once.
// cookie comes back in on_gone, after the owner may long be free. NULL when out
// of memory: then fd is closed, and on_gone does not come.
struct transport *transport_tcp_new(struct transport_shared *shared, int fd,
                                    const struct transport_events *events, void *owner,
                                    void *cookie);

// Sends one message of len bytes. It stands behind TRANSPORT_HEADROOM_BYTES of
// room in buffer, which are written over. What the socket does not take at once
// is copied. ERROR_MEMORY.
int transport_send(struct transport *transport, uint8_t *buffer, size_t len) MUST_CHECK;

// Bytes that wait for the client.
size_t transport_queued_bytes(const struct transport *transport);
// The bytes that it has taken, ever: whether it reads at all.
uint64_t transport_taken_bytes(const struct transport *transport);

// Stops and restarts on_message (and the reading behind it).
void transport_pause(struct transport *transport);
void transport_resume(struct transport *transport);

// Gives the transport up: no callback comes after this. With flush it lives on by
// itself until the client has taken what is pending, or linger_ms have passed.
void transport_close(struct transport *transport, bool flush);

// Cuts off all that are still being flushed; none may have an owner any more.
void transport_cut_all(struct transport_shared *shared);

#endif
