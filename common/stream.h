// What a tunnel knows of the way to a backend, and the registry of that to etcd: a
// bidirectional stream of messages, and nothing of the engine that carries it: gRPC C core with
// its threads (stream_grpc.c), or HTTP/2 in the loop itself (stream_http2.c). A unary call is a
// stream of one message each way.
//
// Everything happens on the loop's thread. Callbacks never run from inside the functions below,
// always from the loop.
#ifndef JANUS_COMMON_STREAM_H
#define JANUS_COMMON_STREAM_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct stream_engine;
struct stream;

enum stream_engine_kind {
  STREAM_GRPC,   // gRPC C core
  STREAM_HTTP2,  // nghttp2, in the loop
};
#define STREAM_ENGINE_CHOICES "grpc|http2"

struct stream_engine_options {
  enum stream_engine_kind kind;
  int64_t open_timeout_ms;
  size_t streams_per_connection;  // a further connection is opened beyond it
  size_t connections_max;         // to one backend, of HTTP/2; 0: the engine's own choice
  size_t message_bytes;           // a larger message from a backend ends its stream
  int64_t keepalive_ms;           // between pings at least; 0: the engine's own choice
  // For secure targets; all borrowed for the call. NULL or "": the system's authorities, no
  // certificate of our own, the host's name.
  const char *tls_ca;      // PEM; for gRPC C core alone, as the next two
  const char *tls_cert;    // PEM
  const char *tls_key;     // PEM
  struct ssl_ctx_st *tls;  // for HTTP/2 alone, which keeps a reference of its own
  const char *tls_server_name;
};

// The gRPC status codes that the gateway tells apart; any other number is passed
// on as it is.
enum stream_status {
  STREAM_OK = 0,
  STREAM_CANCELLED = 1,
  STREAM_UNKNOWN = 2,
  STREAM_INVALID_ARGUMENT = 3,
  STREAM_DEADLINE_EXCEEDED = 4,
  STREAM_NOT_FOUND = 5,
  STREAM_PERMISSION_DENIED = 7,
  STREAM_RESOURCE_EXHAUSTED = 8,
  STREAM_FAILED_PRECONDITION = 9,
  STREAM_UNIMPLEMENTED = 12,
  STREAM_INTERNAL = 13,
  STREAM_UNAVAILABLE = 14,
  STREAM_UNAUTHENTICATED = 16,
};

struct stream_events {
  // The request headers went out: messages may be sent and read. Told once.
  void (*on_opened)(void *owner);
  // The stream takes the next message, after it did not (stream_takes). Says nothing about the
  // arrival of those before it.
  void (*on_sent)(void *owner);
  // One message, after stream_read. bytes are borrowed for the call.
  void (*on_message)(void *owner, const uint8_t *bytes, size_t len);
  // The stream is over, by the backend or by a failure (opened or not): always
  // the last callback, and every message that arrived before it has been given
  // out. detail is text from the backend, borrowed, possibly hostile. The stream
  // still has to be given to stream_end.
  void (*on_ended)(void *owner, int status, const char *detail);
};

struct stream_metadata {
  const char *key;
  const char *value;
};

struct stream_target {
  const char *address;  // host:port
  bool secure;
  const char *method;  // "/package.Service/Method"
  // The backend is told how long the call may take, and then it ends, with
  // STREAM_DEADLINE_EXCEEDED. 0: no limit, as for tunnels, which live as long as a player plays,
  // and for etcd's watch and the keeping of its lease.
  int64_t timeout_ms;
};

struct stream_engine *stream_engine_new(struct event_base *base,
                                        const struct stream_engine_options *options, int *error);
// All streams must have been ended; those that were half-closed and are still under way are cut.
void stream_engine_free(struct stream_engine *engine);
// Connections to backends now open or being opened.
size_t stream_engine_connections(const struct stream_engine *engine);
// When what the callbacks are giving out now had come: monotonic, of the first of its batch.
int64_t stream_engine_arrived_us(const struct stream_engine *engine);

// Starts a stream; NULL when out of memory. It is opened within the engine's
// open_timeout_ms or ends with STREAM_DEADLINE_EXCEEDED; once opened it has no
// deadline but its target's timeout_ms. One that a backend has certainly done nothing for (it
// refused it, or was leaving) is asked for once more, unnoticed, as long as none of its messages
// has left and it could still be opened in time. Streams to one address share connections: another
// connection is made when streams_per_connection are on each of them, and also when a backend turns
// out to allow fewer (an opening that timed out on a connection whose other
// streams are open lowers the number used for that address); over HTTP/2 not beyond
// connections_max, where streams wait for room. A connection without streams is closed after a
// while. Strings and metadata are copied, events are borrowed until stream_end or stream_finish; a
// stream whose metadata no header can carry ends with STREAM_INVALID_ARGUMENT.
struct stream *stream_open(struct stream_engine *engine, const struct stream_target *target,
                           const struct stream_metadata *metadata, size_t metadata_count,
                           const struct stream_events *events, void *owner);

// Whether the stream, which is opened and has not ended, takes a message now; if not, on_sent
// tells when.
bool stream_takes(const struct stream *stream);
// Sends one message, of a stream that takes it, in two steps: room for its len bytes, which the
// caller fills in before it does anything else, and then the word that it may go. NULL when out of
// memory.
uint8_t *stream_reserve(struct stream *stream, size_t len) MUST_CHECK;
void stream_send(struct stream *stream);
// A message that waits for its stream: malloc'd in one piece.
struct stream_waiting {
  size_t len;
  uint8_t bytes[];
};
// Sends one that has waited, and frees it. False when out of memory.
bool stream_send_waiting(struct stream *stream, struct stream_waiting *message) MUST_CHECK;
// How many of the messages that it took may not have left yet: what becomes of them is not known
// when the stream breaks.
size_t stream_unsure(const struct stream *stream);

// Asks for the next message; one at a time. Until it is called, flow control
// holds the backend back.
void stream_read(struct stream *stream);

// Half-closes a stream that has been opened: what was sent before arrives, then the backend
// sees the end. What it still says comes to the new owner, who reads on and hears of the end,
// at the latest after some seconds. Nothing may be sent any more.
void stream_finish(struct stream *stream, const struct stream_events *events, void *owner);

// Ends the stream and gives the handle up: no callback comes after this.
// A stream that is still going is half-closed when graceful (as by stream_finish, but for the
// answers), else cancelled. Accepts NULL.
void stream_end(struct stream *stream, bool graceful);

#endif
