#include "worker/wire_stream.h"

#include <stdlib.h>

#include "worker/kcp_connection.h"
#include "worker/trace.h"

static struct wire_stream *of(struct wire *wire) { return (struct wire_stream *)wire; }

static const struct wire_stream *of_const(const struct wire *wire) {
  return (const struct wire_stream *)wire;
}

// Brings the counters up to date: what waits for clients, and what has gone.
static void count_queued(struct wire_stream *stream) {
  size_t queued = stream->closed ? 0 : smux_queued_bytes(stream->stream);
  uint64_t sent = smux_sent_bytes(stream->stream);
  counters_add(stream->wire.shared->counters, COUNTER_BYTES_OUT, sent - stream->counted_sent);
  stream->counted_sent = sent;
  if (queued != stream->counted_bytes) {
    counters_gauge_add(stream->wire.shared->counters, GAUGE_QUEUED_OUT_BYTES,
                       (int64_t)queued - (int64_t)stream->counted_bytes);
    stream->counted_bytes = queued;
  }
}

static void stream_free(struct wire_stream *stream) {
  trace_gone(stream->trace);
  free(stream);
}

// It has been closed, and nothing of its owner is under way any more.
static void gone(struct wire_stream *stream) {
  struct wire *wire = &stream->wire;
  wire->events->on_gone(wire->owner);
  stream_free(stream);
}

static void enter(struct wire_stream *stream) { stream->calls++; }

static void leave(struct wire_stream *stream) {
  if (--stream->calls == 0 && stream->closed) {
    gone(stream);
  }
}

// --- From the link -----------------------------------------------------------------------------

size_t wire_stream_on_bytes(uint8_t *bytes, size_t len, void *stream_owner) {
  struct wire_stream *stream = stream_owner;
  struct wire *wire = &stream->wire;
  enter(stream);
  size_t used = wire->events->on_bytes(bytes, len, wire->owner);
  counters_add(wire->shared->counters, COUNTER_BYTES_IN, used);
  leave(stream);
  return used;
}

void wire_stream_end(struct wire_stream *stream, enum close_reason reason) {
  struct wire *wire = &stream->wire;
  enter(stream);
  wire->events->on_ended(reason, wire->owner);
  leave(stream);
}

void wire_stream_on_ended(void *stream_owner) {
  wire_stream_end(stream_owner, CLOSE_CLIENT_CLOSED);
}

void wire_stream_on_sent(void *stream_owner) {
  struct wire_stream *stream = stream_owner;
  struct wire *wire = &stream->wire;
  count_queued(stream);
  if (stream->counted_bytes < wire->shared->low_bytes) {
    enter(stream);
    wire->events->on_drained(wire->owner);
    leave(stream);
  }
}

bool wire_stream_is_next(struct wire_stream *stream, const uint8_t *bytes, size_t len) {
  struct wire *wire = &stream->wire;
  return !stream->closed && wire->events->is_next && wire->events->is_next(bytes, len, wire->owner);
}

void wire_stream_go_on(struct wire_stream *stream) {
  stream->resuming = false;
  enter(stream);
  smux_resume(stream->stream);
  leave(stream);
}

// --- From the transport ------------------------------------------------------------------------

static int stream_write(struct wire *wire, const uint8_t *bytes, size_t len) {
  struct wire_stream *stream = of(wire);
  int error = smux_write(stream->stream, bytes, len);
  count_queued(stream);
  link_touch(stream->connection->link);
  // The client has ended the stream: the session is told so, when all it sent was used.
  return error == ERROR_INVALID ? 0 : error;
}

static size_t stream_queued_bytes(const struct wire *wire) {
  return smux_queued_bytes(of_const(wire)->stream);
}

static uint64_t stream_taken_bytes(const struct wire *wire) {
  return smux_sent_bytes(of_const(wire)->stream);
}

static void stream_pause(struct wire *wire) {
  struct wire_stream *stream = of(wire);
  stream->resuming = false;
  smux_pause(stream->stream);
}

// What was kept is given out from the loop, not from within whatever resumes.
static void stream_resume(struct wire *wire) {
  struct wire_stream *stream = of(wire);
  stream->resuming = true;
  stream->connection->resuming = true;
  kcp_connection_touch(stream->connection);
}

static void stream_close(struct wire *wire, bool flush) {
  struct wire_stream *stream = of(wire);
  if (stream->closed) {
    return;
  }
  stream->closed = true;
  count_queued(stream);
  smux_close(stream->stream, flush);
  link_touch(stream->connection->link);
  kcp_connection_touch(stream->connection);  // it may have been the last
  LIST_REMOVE(stream, sibling);
  LIST_REMOVE(wire, link);
  if (stream->calls == 0) {
    gone(stream);
  }
}

static void stream_cut(struct wire *wire) { stream_close(wire, false); }

static void stream_logged_in(struct wire *wire) { kcp_connection_logged_in(of(wire)->connection); }

static void stream_address_validated(struct wire *wire) {
  kcp_connection_address_validated(of(wire)->connection);
}

static void stream_describe(const struct wire *wire, struct wire_path *path) {
  kcp_connection_describe(of_const(wire)->connection, of_const(wire)->stream, path);
}

// --- The whole ---------------------------------------------------------------------------------

struct wire_stream *wire_stream_new(struct kcp_connection *connection, struct smux_stream *stream,
                                    struct trace_connection *trace) {
  struct wire_stream *wire = calloc(1, sizeof *wire);
  if (wire) {
    wire->connection = connection;
    wire->stream = stream;
    wire->trace = trace;
  }
  return wire;
}

struct wire *wire_stream_attach(struct wire_stream *stream, const struct wire_events *events,
                                void *owner) {
  static const struct wire_kind kind = {.name = "kcp",
                                        .write = stream_write,
                                        .queued_bytes = stream_queued_bytes,
                                        .taken_bytes = stream_taken_bytes,
                                        .pause = stream_pause,
                                        .resume = stream_resume,
                                        .close = stream_close,
                                        .cut = stream_cut,
                                        .logged_in = stream_logged_in,
                                        .address_validated = stream_address_validated,
                                        .describe = stream_describe};
  struct wire_shared *shared = kcp_connection_wires(stream->connection);
  stream->wire = (struct wire){.kind = &kind, .events = events, .owner = owner, .shared = shared};
  LIST_INSERT_HEAD(&shared->all, &stream->wire, link);
  LIST_INSERT_HEAD(&stream->connection->wires, stream, sibling);
  return &stream->wire;
}

void wire_stream_drop(struct wire_stream *stream) { stream_free(stream); }
