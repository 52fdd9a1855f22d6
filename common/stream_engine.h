// What an engine of common/stream.h provides: for the engines alone.
#ifndef JANUS_COMMON_STREAM_ENGINE_H
#define JANUS_COMMON_STREAM_ENGINE_H

#include "common/stream.h"

// Of a connection without a sign of life, unless the options say otherwise.
enum { STREAM_KEEPALIVE_MS = 310000, STREAM_KEEPALIVE_TIMEOUT_MS = 20000 };
_Static_assert(STREAM_KEEPALIVE_MS > 5 * 60 * 1000,
               "a default server of grpc-go sends clients away that ping more often");

struct stream_methods {
  void (*free)(struct stream_engine *engine);
  size_t (*connections)(const struct stream_engine *engine);
  int64_t (*arrived_us)(const struct stream_engine *engine);
  struct stream *(*open)(struct stream_engine *engine, const struct stream_target *target,
                         const struct stream_metadata *metadata, size_t metadata_count,
                         const struct stream_events *events, void *owner);
  bool (*takes)(const struct stream *stream);
  uint8_t *(*reserve)(struct stream *stream, size_t len);
  void (*send)(struct stream *stream);
  size_t (*unsure)(const struct stream *stream);
  void (*read)(struct stream *stream);
  void (*finish)(struct stream *stream, const struct stream_events *events, void *owner);
  void (*end)(struct stream *stream, bool graceful);
};

// What an engine's own structs begin with.
struct stream_engine {
  const struct stream_methods *methods;
};
struct stream {
  const struct stream_methods *methods;
};

// As stream_engine_new, which has looked at options->kind.
struct stream_engine *stream_grpc_new(struct event_base *base,
                                      const struct stream_engine_options *options, int *error);
struct stream_engine *stream_http2_new(struct event_base *base,
                                       const struct stream_engine_options *options, int *error);

#endif
