#include "common/stream.h"

#include <stdlib.h>
#include <string.h>

#include "common/stream_engine.h"

struct stream_engine *stream_engine_new(struct event_base *base,
                                        const struct stream_engine_options *options, int *error) {
  switch (options->kind) {
    case STREAM_HTTP2: return stream_http2_new(base, options, error);
    case STREAM_GRPC: break;
  }
  return stream_grpc_new(base, options, error);
}

void stream_engine_free(struct stream_engine *engine) {
  if (engine) {
    engine->methods->free(engine);
  }
}

size_t stream_engine_connections(const struct stream_engine *engine) {
  return engine->methods->connections(engine);
}

int64_t stream_engine_arrived_us(const struct stream_engine *engine) {
  return engine->methods->arrived_us(engine);
}

struct stream *stream_open(struct stream_engine *engine, const struct stream_target *target,
                           const struct stream_metadata *metadata, size_t metadata_count,
                           const struct stream_events *events, void *owner) {
  return engine->methods->open(engine, target, metadata, metadata_count, events, owner);
}

bool stream_takes(const struct stream *stream) { return stream->methods->takes(stream); }

uint8_t *stream_reserve(struct stream *stream, size_t len) {
  return stream->methods->reserve(stream, len);
}

void stream_send(struct stream *stream) { stream->methods->send(stream); }

bool stream_send_waiting(struct stream *stream, struct stream_waiting *message) {
  uint8_t *room = stream_reserve(stream, message->len);
  if (room) {
    memcpy(room, message->bytes, message->len);
    stream_send(stream);
  }
  free(message);
  return room != NULL;
}

size_t stream_unsure(const struct stream *stream) { return stream->methods->unsure(stream); }

void stream_read(struct stream *stream) { stream->methods->read(stream); }

void stream_finish(struct stream *stream, const struct stream_events *events, void *owner) {
  stream->methods->finish(stream, events, owner);
}

void stream_end(struct stream *stream, bool graceful) {
  if (stream) {
    stream->methods->end(stream, graceful);
  }
}
