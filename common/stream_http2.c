#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/http2_engine.h"
#include "common/tls.h"

// Streams on HTTP/2 in the loop itself. What has come is read and given out at once; what is to be
// sent is gathered, and leaves at the end of the turn, by one call for each connection. With TLS
// that is a call for each record of up to 16 KB: OpenSSL sends each when it is sealed, and to
// gather them would cost a copy of all for the sake of a turn that has more than that to send.

enum {
  HALF_CLOSE_MS = 15000,   // for a backend to end a stream that we have half-closed
  CONNECTIONS_MAX = 1000,  // to one backend, which may allow only few streams on each
  CALMED_MAX = 1000,       // backends that are remembered for what they said, without a connection
};

static struct http2_engine *of(struct stream_engine *engine) {
  return (struct http2_engine *)(void *)engine;
}

// --- Time --------------------------------------------------------------------------------------

static void arm(struct http2_deadlines *deadlines) {
  const struct http2_stream *first = TAILQ_FIRST(&deadlines->streams);
  if (first) {
    int64_t left_ms = first->deadline_ms - clock_monotonic_ms();
    const struct timeval time = clock_timeval(left_ms > 1 ? left_ms : 1);
    evtimer_add(&deadlines->timer, &time);
  } else {
    evtimer_del(&deadlines->timer);
  }
}

void http2_deadlines_set(struct http2_deadlines *deadlines, struct http2_stream *stream) {
  int64_t deadline_ms = clock_monotonic_ms() + deadlines->ms;
  stream->deadline_ms =
      deadline_ms < stream->call_deadline_ms ? deadline_ms : stream->call_deadline_ms;
  http2_deadlines_restore(deadlines, stream);
}

void http2_deadlines_restore(struct http2_deadlines *deadlines, struct http2_stream *stream) {
  struct http2_stream *before;
  http2_deadlines_clear(stream);
  stream->deadlines = deadlines;
  // Nearly always the last.
  TAILQ_FOREACH_REVERSE(before, &deadlines->streams, http2_streams, timed) {
    if (before->deadline_ms <= stream->deadline_ms) {
      break;
    }
  }
  if (before) {
    TAILQ_INSERT_AFTER(&deadlines->streams, before, stream, timed);
  } else {
    TAILQ_INSERT_HEAD(&deadlines->streams, stream, timed);
    arm(deadlines);
  }
}

// The timer stays, for the next one: it fires in vain at most once for all.
void http2_deadlines_clear(struct http2_stream *stream) {
  if (stream->deadlines) {
    TAILQ_REMOVE(&stream->deadlines->streams, stream, timed);
    stream->deadlines = NULL;
  }
}

static void on_deadline(evutil_socket_t fd, short what, void *context) {
  struct http2_deadlines *deadlines = context;
  int64_t now_ms = clock_monotonic_ms();
  struct http2_stream *stream;
  (void)fd;
  (void)what;
  while ((stream = TAILQ_FIRST(&deadlines->streams)) && stream->deadline_ms <= now_ms) {
    http2_deadlines_clear(stream);
    http2_stream_fail(stream, STREAM_DEADLINE_EXCEEDED,
                      stream->call_deadline_ms <= now_ms      ? HTTP2_CALL_IS_OVER
                      : deadlines == &stream->engine->closing ? "the backend did not end it in time"
                      : stream->waits_for ? "no room on the connections to the backend in time"
                                          : "not opened in time");
  }
  arm(deadlines);
}

static void deadlines_init(struct http2_deadlines *deadlines, struct event_base *base, int64_t ms) {
  TAILQ_INIT(&deadlines->streams);
  evtimer_assign(&deadlines->timer, base, on_deadline, deadlines);
  deadlines->ms = ms;
}

// --- Backends ----------------------------------------------------------------------------------

static struct http2_backend *backend_get(struct http2_engine *engine, const char *address,
                                         bool secure) {
  size_t size = strlen(address) + 3;
  char *key = malloc(size);
  struct http2_backend *backend = NULL;
  if (!key) {
    return NULL;
  }
  snprintf(key, size, "%c:%s", secure ? 's' : 'p', address);
  HASH_FIND_STR(engine->backends, key, backend);
  if (backend || !(backend = calloc(1, sizeof *backend))) {
    free(key);
    return backend;
  }
  backend->engine = engine;
  backend->key = key;
  backend->address = key + 2;
  backend->secure = secure;
  backend->streams_max = engine->options.streams_per_connection;
  backend->keepalive_ms = engine->options.keepalive_ms;
  LIST_INIT(&backend->connections);
  TAILQ_INIT(&backend->waiting);
  HASH_ADD_KEYPTR(hh, engine->backends, backend->key, strlen(backend->key), backend);
  return backend;
}

static bool is_calmed(const struct http2_backend *backend) {
  return backend->keepalive_ms > backend->engine->options.keepalive_ms;
}

static void backend_free(struct http2_backend *backend) {
  backend->engine->calmed_count -= is_calmed(backend);
  HASH_DELETE(hh, backend->engine->backends, backend);
  free(backend->key);
  free(backend);
}

// But for those whose next connection is not to be as the last was.
static void free_empty_backends(struct http2_engine *engine) {
  struct http2_backend *backend;
  struct http2_backend *next;
  engine->has_empty_backend = false;
  HASH_ITER(hh, engine->backends, backend, next) {
    bool is_kept = is_calmed(backend) && engine->calmed_count <= CALMED_MAX;
    if (backend->connection_count == 0 && TAILQ_EMPTY(&backend->waiting) && !is_kept) {
      backend_free(backend);
    }
  }
}

// NULL with is_full, or when out of memory.
static struct http2_connection *find_room(struct http2_backend *backend, bool *is_full) {
  struct http2_connection *connection;
  *is_full = false;
  LIST_FOREACH(connection, &backend->connections, link) {
    if (http2_connection_has_room(connection)) {
      return connection;
    }
  }
  *is_full = backend->connection_count >= backend->engine->options.connections_max;
  return *is_full ? NULL : http2_connection_new(backend);
}

static void put_on(struct http2_connection *connection, struct http2_stream *stream) {
  if (connection) {
    http2_connection_add(connection, stream);
  } else {
    stream->engine->has_empty_backend = true;
    http2_stream_fail(stream, STREAM_RESOURCE_EXHAUSTED, "out of memory");
  }
}

void http2_engine_place(struct http2_backend *backend, struct http2_stream *stream) {
  bool is_full;
  struct http2_connection *connection = find_room(backend, &is_full);
  if (is_full) {
    stream->waits_for = backend;
    TAILQ_INSERT_TAIL(&backend->waiting, stream, link);
  } else {
    put_on(connection, stream);
  }
}

void http2_engine_leave(struct http2_stream *stream) {
  if (stream->waits_for) {
    TAILQ_REMOVE(&stream->waits_for->waiting, stream, link);
    stream->waits_for = NULL;
    stream->engine->has_empty_backend = true;
  }
}

void http2_engine_room(struct http2_backend *backend) {
  if (!TAILQ_EMPTY(&backend->waiting)) {
    backend->engine->has_room = true;
    http2_engine_touch(backend->engine);
  }
}

static void place_waiting(struct http2_engine *engine) {
  struct http2_backend *backend;
  struct http2_backend *next;
  engine->has_room = false;
  HASH_ITER(hh, engine->backends, backend, next) {
    struct http2_stream *stream;
    while ((stream = TAILQ_FIRST(&backend->waiting))) {
      bool is_full;
      struct http2_connection *connection = find_room(backend, &is_full);
      if (is_full) {
        break;
      }
      http2_engine_leave(stream);
      put_on(connection, stream);
    }
  }
}

// --- A turn ------------------------------------------------------------------------------------

void http2_engine_touch(struct http2_engine *engine) { event_active(&engine->turn, EV_TIMEOUT, 0); }

static void send_all(struct http2_engine *engine) {
  struct http2_connection *connection;
  struct http2_stream *stream;
  while ((connection = TAILQ_FIRST(&engine->dirty))) {
    TAILQ_REMOVE(&engine->dirty, connection, dirty);
    connection->is_dirty = false;
    http2_connection_flush(connection);
  }
  while ((stream = TAILQ_FIRST(&engine->in_arena))) {
    http2_stream_leave_arena(stream);
  }
  engine->arena_used = 0;
}

static void bury_the_dead(struct http2_engine *engine) {
  struct http2_connection *connection;
  while ((connection = TAILQ_FIRST(&engine->dead))) {
    TAILQ_REMOVE(&engine->dead, connection, dirty);
    http2_connection_free(connection);
  }
  if (engine->has_empty_backend) {
    free_empty_backends(engine);
  }
}

static void on_turn(evutil_socket_t fd, short what, void *context) {
  struct http2_engine *engine = context;
  struct http2_stream *stream;
  (void)fd;
  (void)what;
  if (engine->has_room) {
    place_waiting(engine);
  }
  send_all(engine);
  // Those that are told something now may have more to be told: that is the next turn's.
  for (size_t left = engine->told_count; left > 0 && (stream = TAILQ_FIRST(&engine->told));
       left--) {
    http2_stream_tell(stream);
  }
  bury_the_dead(engine);
}

// --- The interface -----------------------------------------------------------------------------

static struct stream *http2_open(struct stream_engine *base, const struct stream_target *target,
                                 const struct stream_metadata *metadata, size_t metadata_count,
                                 const struct stream_events *events, void *owner) {
  struct http2_engine *engine = of(base);
  bool is_legal = true;
  if (target->secure && !engine->tls) {
    // The system's authorities are a megabyte and more, read when the first backend asks for TLS.
    static const struct config_tls nothing_given;
    char why[CONFIG_TEXT_BYTES];
    engine->tls = tls_client_context(&nothing_given, NULL, why, sizeof why);
  }
  struct http2_backend *backend = backend_get(engine, target->address, target->secure);
  struct http2_stream *stream = backend ? calloc(1, sizeof *stream) : NULL;
  if (!stream || (target->secure && !engine->tls)) {
    free(stream);
    engine->has_empty_backend = true;
    return NULL;
  }
  stream->stream.methods = engine->engine.methods;
  stream->engine = engine;
  stream->events = events;
  stream->owner = owner;
  stream->has_owner = true;
  stream->status = -1;
  stream->call_deadline_ms =
      target->timeout_ms > 0 ? clock_monotonic_ms() + target->timeout_ms : INT64_MAX;
  for (size_t i = 0; i < metadata_count && is_legal; i++) {
    is_legal = grpc_key_is_legal(metadata[i].key) &&
               (grpc_key_is_binary(metadata[i].key) || grpc_value_is_legal(metadata[i].value));
  }
  if (!is_legal) {
    http2_stream_fail(stream, STREAM_INVALID_ARGUMENT,
                      "its metadata has bytes that have no place there");
    engine->has_empty_backend = true;
    return &stream->stream;
  }
  bool is_renamed = target->secure && engine->tls_server_name;
  stream->request = http2_request_new(
      target, is_renamed ? engine->tls_server_name : target->address, metadata, metadata_count);
  if (!stream->request) {
    free(stream);
    engine->has_empty_backend = true;
    return NULL;
  }
  http2_deadlines_set(&engine->opening, stream);
  http2_engine_place(backend, stream);
  return &stream->stream;
}

static size_t http2_connections(const struct stream_engine *base) {
  return ((const struct http2_engine *)(const void *)base)->connection_count;
}

static int64_t http2_arrived_us(const struct stream_engine *base) {
  return ((const struct http2_engine *)(const void *)base)->arrived_us;
}

// Streams that were half-closed and still wait for their end are cut.
static void http2_free(struct stream_engine *base) {
  struct http2_engine *engine = of(base);
  struct http2_backend *backend;
  struct http2_backend *next;
  struct http2_connection *connection;
  struct http2_stream *stream;
  send_all(engine);
  HASH_ITER(hh, engine->backends, backend, next) {
    while ((stream = TAILQ_FIRST(&backend->waiting))) {
      http2_stream_fail(stream, STREAM_UNAVAILABLE, NULL);
    }
    while ((connection = LIST_FIRST(&backend->connections))) {
      http2_connection_cut(connection);
    }
  }
  while ((connection = LIST_FIRST(&engine->retired))) {
    http2_connection_cut(connection);
  }
  bury_the_dead(engine);
  // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the hash
  HASH_ITER(hh, engine->backends, backend, next) { backend_free(backend); }
  event_del(&engine->turn);
  event_del(&engine->opening.timer);
  event_del(&engine->calls.timer);
  event_del(&engine->closing.timer);
  tcp_client_shared_clear(&engine->tcp);
  nghttp2_session_callbacks_del(engine->callbacks);
  nghttp2_option_del(engine->session_options);
  SSL_CTX_free(engine->tls);
  free(engine->tls_server_name);
  free(engine->tcp.read_buffer);
  free(engine->arena);
  free(engine->out);
  free(engine);
}

static bool make_parts(struct http2_engine *engine, const struct stream_engine_options *options) {
  engine->tcp.read_buffer = malloc(HTTP2_READ_BYTES);
  engine->tcp.read_buffer_bytes = HTTP2_READ_BYTES;
  engine->arena = malloc(HTTP2_ARENA_BYTES);
  engine->out = malloc(HTTP2_OUT_BYTES + HTTP2_FRAME_MAX_BYTES);
  engine->callbacks = http2_connection_callbacks();
  if (nghttp2_option_new(&engine->session_options) != 0) {
    return false;
  }
  nghttp2_option_set_no_auto_window_update(engine->session_options, 1);
  nghttp2_option_set_no_closed_streams(engine->session_options, 1);
  if (options->tls) {
    SSL_CTX_up_ref(options->tls);
    engine->tls = options->tls;
  }
  if (options->tls_server_name && options->tls_server_name[0] != '\0' &&
      !(engine->tls_server_name = strdup(options->tls_server_name))) {
    return false;
  }
  return engine->tcp.read_buffer && engine->arena && engine->out && engine->callbacks;
}

struct stream_engine *stream_http2_new(struct event_base *base,
                                       const struct stream_engine_options *options, int *error) {
  static const struct stream_methods methods = {
      .free = http2_free,
      .connections = http2_connections,
      .arrived_us = http2_arrived_us,
      .open = http2_open,
      .takes = http2_takes,
      .reserve = http2_reserve,
      .send = http2_send,
      .unsure = http2_unsure,
      .read = http2_read,
      .finish = http2_finish,
      .end = http2_end,
  };
  struct http2_engine *engine = calloc(1, sizeof *engine);
  *error = ERROR_MEMORY;
  if (!engine) {
    return NULL;
  }
  engine->engine.methods = &methods;
  engine->base = base;
  engine->options = *options;
  if (options->connections_max == 0) {
    engine->options.connections_max = CONNECTIONS_MAX;
  }
  if (options->keepalive_ms == 0) {
    engine->options.keepalive_ms = STREAM_KEEPALIVE_MS;
  }
  engine->tcp.base = base;
  LIST_INIT(&engine->retired);
  TAILQ_INIT(&engine->dirty);
  TAILQ_INIT(&engine->dead);
  TAILQ_INIT(&engine->told);
  TAILQ_INIT(&engine->in_arena);
  deadlines_init(&engine->opening, base, options->open_timeout_ms);
  deadlines_init(&engine->calls, base, 0);
  deadlines_init(&engine->closing, base, HALF_CLOSE_MS);
  event_assign(&engine->turn, base, -1, 0, on_turn, engine);
  if (!make_parts(engine, options)) {
    http2_free(&engine->engine);
    return NULL;
  }
  return &engine->engine;
}
