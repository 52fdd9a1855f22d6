// The parts of the HTTP/2 stream engine (stream_http2.c), for its own files alone: an engine has
// backends, a backend has connections, a connection has streams.
//
//   stream_http2.c      the interface of common/stream.h; which connection a stream is put on
//   http2_connection.c  one connection: nghttp2's session, what it sends and what has come
//   http2_stream.c      one stream: its messages in both directions, and its end
//
// Loop thread only.
#ifndef JANUS_COMMON_HTTP2_ENGINE_H
#define JANUS_COMMON_HTTP2_ENGINE_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/grpc_rules.h"
#include "common/stream_engine.h"
#include "common/tcp_client.h"

enum {
  // One frame at most: the default of SETTINGS_MAX_FRAME_SIZE is all that we make use of.
  HTTP2_FRAME_HEAD_BYTES = 9,
  HTTP2_FRAME_MAX_BYTES = HTTP2_FRAME_HEAD_BYTES + 16384,
  HTTP2_OUT_BYTES = 256 << 10,     // written by one call at most
  HTTP2_ARENA_BYTES = 256 << 10,   // messages on their way out, within one turn of the loop
  HTTP2_READ_BYTES = 256 << 10,    // read by one call at most
  HTTP2_QUEUE_BYTES = 64 << 10,    // of one stream's messages, from which on it takes no more
  HTTP2_WINDOW_BYTES = 256 << 10,  // that a backend may send on a stream which is not read
  HTTP2_PROXY_HOLDS_BYTES = (64 + 3 * 16) << 10,
};
// HAProxy 2.6 reads no further on a connection while what it read for a stream waits to go on: our
// window updates then stand in line behind the stream's requests, by default a window of 64 KB and
// three buffers of 16 KB. If the backend is not free to answer those meanwhile, all wait for each
// other until a ping is not answered. We tell of what we have used when it is half of the window:
// the other half is for answers as long as the requests.
_Static_assert(HTTP2_WINDOW_BYTES / 2 >= HTTP2_PROXY_HOLDS_BYTES,
               "a proxy's streams stop when messages flow in both directions");
// Of a connection, as much as there can be: what its streams may hold is bounded by their own.
#define HTTP2_CONNECTION_WINDOW_BYTES INT32_MAX

#define HTTP2_CALL_IS_OVER "the time for the call is over"

struct http2_stream;
TAILQ_HEAD(http2_streams, http2_stream);
TAILQ_HEAD(http2_connections, http2_connection);
LIST_HEAD(http2_connection_list, http2_connection);

// Streams that are waiting for the same, in the order in which their time is over.
struct http2_deadlines {
  struct http2_streams streams;
  struct event timer;
  int64_t ms;  // 0: each has its own
};

struct http2_engine {
  struct stream_engine engine;
  struct event_base *base;
  struct stream_engine_options options;  // what is borrowed in it is not used any more
  struct tcp_client_shared tcp;
  SSL_CTX *tls;           // NULL: none given, and none needed so far
  char *tls_server_name;  // NULL: the host's
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *session_options;
  struct http2_backend *backends;
  struct http2_connection_list retired;  // that take no new streams, and have some still
  size_t connection_count;
  int64_t arrived_us;
  struct http2_deadlines opening;
  struct http2_deadlines calls;  // the streams with a time limit of their own
  struct http2_deadlines closing;
  // What is done once all other events of a turn have been heard.
  struct event turn;
  struct http2_connections dirty;  // with something to send
  struct http2_connections dead;   // to be freed
  struct http2_streams told;       // whose owners are to be told something
  size_t told_count;
  struct http2_streams in_arena;  // with messages there
  uint8_t *arena;
  size_t arena_used;
  uint8_t *out;  // HTTP2_OUT_BYTES, and room for one more frame
  size_t out_used;
  bool has_empty_backend;
  size_t calmed_count;  // backends with a keep-alive of their own
  bool has_room;        // some backend has, for streams that wait for it
};

// One address, and its connections.
struct http2_backend {
  struct http2_engine *engine;
  char *key;  // scheme and address
  const char *address;
  bool secure;
  size_t streams_max;    // on one connection: the setting, or fewer where the backend says so
  int64_t keepalive_ms;  // of new connections: the setting, or longer where the backend says so
  struct http2_connection_list connections;  // that take new streams
  size_t connection_count;                   // of all there are
  struct http2_streams waiting;              // for room, since no more connections may be made
  UT_hash_handle hh;
};

struct http2_connection {
  LIST_ENTRY(http2_connection) link;    // among the backend's, or the retired; not when dead
  TAILQ_ENTRY(http2_connection) dirty;  // while is_dirty; among the dead
  struct http2_engine *engine;
  struct http2_backend *backend;
  struct tcp_client *tcp;
  nghttp2_session *session;
  struct http2_streams waiting;  // that are not yet asked for
  struct http2_streams open;
  size_t stream_count;  // both
  size_t open_count;
  size_t streams_max;  // that the backend allows; 0: none just now
  uint8_t *rest;       // what the socket has not taken
  size_t rest_len;
  size_t rest_sent;      // of it
  size_t round;          // from 1; one more whenever the socket has taken all there was
  int64_t progress_ms;   // when the socket took some of it last, or it came about
  struct event stuck;    // while there is a rest
  struct event timer;    // to be up; for a sign of life; or until it is closed for want of streams
  int64_t keepalive_ms;  // between two pings at least
  int64_t pinged_ms;     // when the last one left; long ago: none has
  char goaway[256];      // what the backend said of that, hostile; "": it has not said it
  bool is_up;            // the backend's settings have come
  bool is_retired;       // takes no new streams
  bool is_dirty;
  bool is_dead;
  bool was_heard;  // since the timer was set
  bool has_pinged;
};

// A message on its way out, or what is left of it, with its prefix.
struct http2_piece {
  struct http2_piece *next;
  size_t len;
  size_t sent;
  bool is_in_arena;
  uint8_t bytes[];
};

struct http2_stream {
  struct stream stream;
  struct http2_engine *engine;
  struct http2_connection *connection;  // NULL once it has ended, and while it waits for room
  struct http2_backend *waits_for;      // NULL: it does not wait for room on a connection to this
  TAILQ_ENTRY(http2_stream) link;       // among the connection's, or those that wait for room
  TAILQ_ENTRY(http2_stream) told;       // while is_told
  TAILQ_ENTRY(http2_stream) in_arena;   // while is_in_arena
  TAILQ_ENTRY(http2_stream) timed;      // while deadlines is set
  struct http2_deadlines *deadlines;
  int64_t deadline_ms;
  int64_t call_deadline_ms;  // INT64_MAX: none
  const struct stream_events *events;
  void *owner;
  struct http2_request *request;  // until it can't be asked for again
  int32_t id;                     // 0 while it waits
  int16_t http_status;            // of the answer; 0: none yet
  int16_t status;                 // of gRPC; -1: none yet
  char *detail;
  // Out.
  struct http2_piece *building;  // that the caller fills in
  struct http2_piece *pieces;
  struct http2_piece *last_piece;
  size_t queued_bytes;
  size_t taken_messages;  // from the owner, in all,
  size_t given_messages;  // whole to its connection,
  size_t given_before;    // and before this round of the connection's:
  size_t round;           // 0: not a byte was given yet
  // In: what the owner has not asked for, and the message that is coming in.
  uint8_t *kept;
  size_t kept_len;
  size_t kept_capacity;
  uint8_t *message;
  uint32_t message_len;
  uint32_t message_got;
  uint8_t prefix[GRPC_PREFIX_BYTES];
  uint8_t prefix_got;
  uint8_t holds;  // functions that still need the memory
  bool has_owner : 1;
  bool wants : 1;      // the owner has asked for the next message
  bool is_opened : 1;  // the request has left, and the owner knows,
  bool tell_opened : 1;
  bool is_again : 1;     // it was asked for again already
  bool is_deferred : 1;  // nghttp2 was told that there is nothing to send
  bool was_full : 1;     // the owner waits for on_sent,
  bool tell_sent : 1;
  bool is_finishing : 1;      // half-closed, when its messages have left
  bool has_ended : 1;         // the status is known,
  bool told_end : 1;          // and was told
  bool has_encoding : 1;      // the backend compresses
  bool has_content_type : 1;  // which is gRPC's
  bool has_failed : 1;        // what came makes no sense, or was too much: no more is given out
  bool is_gone : 1;           // for the backend: there is nothing to reset
  bool is_told : 1;
  bool is_in_arena : 1;
};

// --- stream_http2.c ------------------------------------------------------------------------

// The turn is run before the loop waits.
void http2_engine_touch(struct http2_engine *engine);
// Puts a stream that waits on a connection that has room for it, or lets it wait until one has. It
// may have ended after this.
void http2_engine_place(struct http2_backend *backend, struct http2_stream *stream);

// The stream waits for room no more.
void http2_engine_leave(struct http2_stream *stream);
// A connection of the backend may take more than it did, or is gone.
void http2_engine_room(struct http2_backend *backend);

// Its time among these begins now, and is over with that of the call.
void http2_deadlines_set(struct http2_deadlines *deadlines, struct http2_stream *stream);
// The same with the time that it had.
void http2_deadlines_restore(struct http2_deadlines *deadlines, struct http2_stream *stream);
void http2_deadlines_clear(struct http2_stream *stream);

// --- http2_connection.c --------------------------------------------------------------------

// NULL when out of memory.
struct http2_connection *http2_connection_new(struct http2_backend *backend);
void http2_connection_free(struct http2_connection *connection);
// A stream that waits comes to it, and leaves it.
void http2_connection_add(struct http2_connection *connection, struct http2_stream *stream);
void http2_connection_remove(struct http2_connection *connection, struct http2_stream *stream);
// Whether it takes one more.
bool http2_connection_has_room(const struct http2_connection *connection);
// Resets an open stream; to be followed by http2_connection_remove.
void http2_connection_reset(struct http2_connection *connection, const struct http2_stream *stream,
                            uint32_t error_code);
// The stream has something to send that it had not.
void http2_connection_resume(struct http2_connection *connection, struct http2_stream *stream);
// So many bytes of the stream were used: the backend may send as many more.
void http2_connection_consumed(struct http2_connection *connection,
                               const struct http2_stream *stream, size_t len);
// Sends what there is to send.
void http2_connection_flush(struct http2_connection *connection);
// Ends it, with what is on it.
void http2_connection_cut(struct http2_connection *connection);

// nghttp2's callbacks, which all connections share. NULL when out of memory.
nghttp2_session_callbacks *http2_connection_callbacks(void);

// --- http2_stream.c ------------------------------------------------------------------------

// A request: copies of what it says. NULL when out of memory; for free.
struct http2_request *http2_request_new(const struct stream_target *target, const char *authority,
                                        const struct stream_metadata *metadata, size_t count);
// Hands it to nghttp2 for the stream. Its id, or a negative code of nghttp2's.
int32_t http2_request_submit(const struct http2_request *request, nghttp2_session *session,
                             const nghttp2_data_provider *data, struct http2_stream *stream);

// The request has left.
void http2_stream_opened(struct http2_stream *stream);
// One header of the answer, hostile; and the end of a block of them.
void http2_stream_header(struct http2_stream *stream, const uint8_t *name, size_t name_len,
                         const uint8_t *value, size_t value_len);
void http2_stream_headers_end(struct http2_stream *stream, bool is_last);
// Bytes of its body, hostile, borrowed for the call.
void http2_stream_bytes(struct http2_stream *stream, const uint8_t *bytes, size_t len);
// The body is over, and no trailers come.
void http2_stream_body_end(struct http2_stream *stream);
// The backend has certainly done nothing for it: it is put on a connection again, once, if that is
// possible: nothing of the answer has been seen, none of its messages has left, and there is time
// left to open it. It may have ended after this, when true.
bool http2_stream_again(struct http2_stream *stream);
// The backend has reset it.
void http2_stream_closed(struct http2_stream *stream, uint32_t error_code);
// It is over, with this status: it leaves its connection, and its owner is told. The stream may be
// gone after this.
void http2_stream_fail(struct http2_stream *stream, int status, const char *detail);
// Gives its owner what there is to tell. The stream may be gone after this.
void http2_stream_tell(struct http2_stream *stream);

// How many bytes there are to send, and whether the half-close comes with the last of them.
size_t http2_stream_ready(const struct http2_stream *stream, bool *then_closes);
// Moves that many to out.
void http2_stream_take(struct http2_stream *stream, uint8_t *out, size_t len);
// What is left in the arena becomes its own.
void http2_stream_leave_arena(struct http2_stream *stream);

// The methods of common/stream.h that concern one stream.
bool http2_takes(const struct stream *base);
uint8_t *http2_reserve(struct stream *base, size_t len);
void http2_send(struct stream *base);
size_t http2_unsure(const struct stream *base);
void http2_read(struct stream *base);
void http2_finish(struct stream *base, const struct stream_events *events, void *owner);
void http2_end(struct stream *base, bool graceful);

#endif
