// A smux stream of a KCP connection, as the wire of one session.
//
// Loop thread only.
#ifndef JANUS_WORKER_WIRE_STREAM_H
#define JANUS_WORKER_WIRE_STREAM_H

#include <sys/queue.h>

#include "common/kcp/smux.h"
#include "worker/wire.h"

struct kcp_connection;
struct trace_connection;

struct wire_stream {
  struct wire wire;
  LIST_ENTRY(wire_stream) sibling;  // among the connection's
  struct kcp_connection *connection;
  struct smux_stream *stream;
  struct trace_connection *trace;  // NULL without tracing
  size_t counted_bytes;            // of what waits, in the counters' gauge
  uint64_t counted_sent;           // of what the link has taken, in the counters
  unsigned calls;                  // of its owner that are under way: it is not freed under them
  bool closed;
  bool resuming;
};
LIST_HEAD(wire_stream_list, wire_stream);

// For the connection's link: what befalls a stream, whose owner is its wire_stream.
size_t wire_stream_on_bytes(uint8_t *bytes, size_t len, void *stream_owner);
void wire_stream_on_ended(void *stream_owner);
void wire_stream_on_sent(void *stream_owner);

// The wire of a stream that the client has opened. NULL when out of memory. trace is taken over.
struct wire_stream *wire_stream_new(struct kcp_connection *connection, struct smux_stream *stream,
                                    struct trace_connection *trace);
// Gives it its owner, before anything comes.
struct wire *wire_stream_attach(struct wire_stream *stream, const struct wire_events *events,
                                void *owner);
// Without an owner: frees it.
void wire_stream_drop(struct wire_stream *stream);
// Goes on with what was kept while it was paused.
void wire_stream_go_on(struct wire_stream *stream);
// Whether bytes that might come next on it are what only its client can have sent.
bool wire_stream_is_next(struct wire_stream *stream, const uint8_t *bytes, size_t len);
// The connection is at its end.
void wire_stream_end(struct wire_stream *stream, enum close_reason reason);

#endif
