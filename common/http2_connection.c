#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/http2_engine.h"
#include "common/log.h"
#include "common/loop.h"

#define LOG_MODULE LOG_MODULE_TUNNEL

enum {
  IDLE_CONNECTION_MS = 10000,
  SILENCE_PART = 16,               // of the time between pings: so much silence calls for one
  KEEPALIVE_MAX_MS = 2 * 3600000,  // whatever a backend has to say to that
  GOAWAY_MAX_BYTES = 128,          // of what it says when it goes away
  // A backend that takes nothing for so long gets no new streams; after the longer time it counts
  // as gone, since what is to be sent to it would pile up.
  STUCK_MS = 1000,
  STUCK_MAX_MS = 20000,
  HEADER_LIST_MAX_BYTES = 16 << 10,  // that we take from a backend
};

static struct http2_stream *find(nghttp2_session *session, int32_t id) {
  return nghttp2_session_get_stream_user_data(session, id);
}

static void touch(struct http2_connection *connection) {
  if (!connection->is_dirty && !connection->is_dead) {
    connection->is_dirty = true;
    TAILQ_INSERT_TAIL(&connection->engine->dirty, connection, dirty);
    http2_engine_touch(connection->engine);
  }
}

// --- The end -----------------------------------------------------------------------------------

static void retire(struct http2_connection *connection) {
  if (!connection->is_retired) {
    connection->is_retired = true;
    LIST_REMOVE(connection, link);
    LIST_INSERT_HEAD(&connection->engine->retired, connection, link);
  }
}

// Freed at the end of the turn: something of it may be running.
static void bury(struct http2_connection *connection) {
  if (connection->is_dead) {
    return;
  }
  connection->is_dead = true;
  retire(connection);
  LIST_REMOVE(connection, link);
  event_del(&connection->timer);
  event_del(&connection->stuck);
  if (connection->is_dirty) {
    connection->is_dirty = false;
    TAILQ_REMOVE(&connection->engine->dirty, connection, dirty);
  }
  TAILQ_INSERT_TAIL(&connection->engine->dead, connection, dirty);
  http2_engine_touch(connection->engine);
}

static void fail_all(const struct http2_connection *connection, struct http2_streams *streams,
                     const char *why) {
  struct http2_stream *stream;
  while ((stream = TAILQ_FIRST(streams))) {
    bool has_left = stream->deadlines != &connection->engine->opening;
    if (has_left || !connection->is_up || !http2_stream_again(stream)) {
      stream->is_gone = true;
      http2_stream_fail(stream, STREAM_UNAVAILABLE, why);
    }
  }
}

static void break_it(struct http2_connection *connection, const char *why) {
  if (!connection->is_dead) {
    char text[sizeof connection->goaway + 512];
    bool said_why = connection->goaway[0] != '\0';
    snprintf(text, sizeof text, "%s%s%s", why, said_why ? "; " : "", connection->goaway);
    bury(connection);
    fail_all(connection, &connection->open, text);
    fail_all(connection, &connection->waiting, text);
  }
}

void http2_connection_cut(struct http2_connection *connection) {
  if (connection->session) {
    nghttp2_session_terminate_session(connection->session, NGHTTP2_NO_ERROR);
    http2_connection_flush(connection);
  }
  break_it(connection, "the gateway is leaving");
}

void http2_connection_free(struct http2_connection *connection) {
  connection->engine->connection_count--;
  connection->engine->has_empty_backend |= --connection->backend->connection_count == 0;
  http2_engine_room(connection->backend);
  event_del(&connection->timer);
  event_del(&connection->stuck);
  tcp_client_free(connection->tcp);
  nghttp2_session_del(connection->session);
  free(connection->rest);
  free(connection);
}

// --- Time ----------------------------------------------------------------------------------------

// Silence is soon asked about, but not again and again.
static void set_timer(struct http2_connection *connection) {
  int64_t silence_ms = connection->keepalive_ms / SILENCE_PART;
  int64_t may_ping_ms = connection->pinged_ms + connection->keepalive_ms - clock_monotonic_ms();
  connection->was_heard = false;
  connection->has_pinged = false;
  loop_start_timer(&connection->timer, connection->stream_count == 0 ? IDLE_CONNECTION_MS
                                       : may_ping_ms > silence_ms    ? may_ping_ms
                                                                     : silence_ms);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
  struct http2_connection *connection = context;
  (void)fd;
  (void)what;
  if (!connection->is_up) {
    break_it(connection, "no connection in time");
  } else if (connection->stream_count == 0) {
    http2_connection_cut(connection);
  } else if (connection->was_heard) {
    set_timer(connection);
  } else if (connection->has_pinged) {
    break_it(connection, "the backend does not answer a ping");
  } else if (nghttp2_submit_ping(connection->session, NGHTTP2_FLAG_NONE, NULL) == 0) {
    connection->has_pinged = true;
    connection->pinged_ms = clock_monotonic_ms();
    loop_start_timer(&connection->timer, STREAM_KEEPALIVE_TIMEOUT_MS < connection->keepalive_ms
                                             ? STREAM_KEEPALIVE_TIMEOUT_MS
                                             : connection->keepalive_ms);
    touch(connection);
  } else {
    break_it(connection, "out of memory");
  }
}

// --- What is sent -------------------------------------------------------------------------------

// NOLINTNEXTLINE(readability-non-const-parameter): the type is nghttp2's
static ssize_t on_data_wanted(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t len,
                              uint32_t *flags, nghttp2_data_source *source, void *context) {
  struct http2_stream *stream = find(session, id);
  bool then_closes;
  (void)buffer;
  (void)source;
  (void)context;
  if (!stream) {
    return NGHTTP2_ERR_DEFERRED;  // it was reset
  }
  size_t ready = http2_stream_ready(stream, &then_closes);
  if (ready == 0 && !then_closes) {
    stream->is_deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  if (then_closes && ready <= len) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  return (ssize_t)(ready < len ? ready : len);
}

static int on_data_sent(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                        size_t len, nghttp2_data_source *source, void *context) {
  const struct http2_connection *connection = context;
  struct http2_engine *engine = connection->engine;
  struct http2_stream *stream = find(session, frame->hd.stream_id);
  (void)source;
  if (engine->out_used + HTTP2_FRAME_MAX_BYTES > HTTP2_OUT_BYTES) {
    return NGHTTP2_ERR_WOULDBLOCK;  // again when that has gone
  }
  if (!stream) {
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }
  memcpy(engine->out + engine->out_used, head, HTTP2_FRAME_HEAD_BYTES);
  http2_stream_take(stream, engine->out + engine->out_used + HTTP2_FRAME_HEAD_BYTES, len);
  engine->out_used += HTTP2_FRAME_HEAD_BYTES + len;
  return 0;
}

// False: there is more than fits.
static bool fill(struct http2_connection *connection) {
  struct http2_engine *engine = connection->engine;
  while (engine->out_used + HTTP2_FRAME_MAX_BYTES <= HTTP2_OUT_BYTES) {
    const uint8_t *bytes;
    size_t before = engine->out_used;
    ssize_t len = nghttp2_session_mem_send(connection->session, &bytes);
    if (len < 0 || len > HTTP2_FRAME_MAX_BYTES) {
      break_it(connection, len < 0 ? nghttp2_strerror((int)len) : "a frame over our own limit");
      return true;
    }
    if (len == 0 && engine->out_used == before) {
      return true;
    }
    if (len > 0) {
      memcpy(engine->out + engine->out_used, bytes, (size_t)len);
      engine->out_used += (size_t)len;
    }
  }
  return false;
}

static void note_progress(struct http2_connection *connection) {
  connection->progress_ms = clock_monotonic_ms();
  loop_start_timer(&connection->stuck, STUCK_MAX_MS);
}

static void on_stuck(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  break_it(context, "the backend takes nothing");
}

static void keep_rest(struct http2_connection *connection, const uint8_t *bytes, size_t len) {
  uint8_t *rest = malloc(len);
  if (!rest) {
    break_it(connection, "out of memory");
    return;
  }
  memcpy(rest, bytes, len);
  connection->rest = rest;
  connection->rest_len = len;
  connection->rest_sent = 0;
  note_progress(connection);
}

// False: the socket has not taken all of it.
static bool send_rest(struct http2_connection *connection) {
  if (!connection->rest) {
    return true;
  }
  size_t left = connection->rest_len - connection->rest_sent;
  size_t taken = tcp_client_write(connection->tcp, connection->rest + connection->rest_sent, left);
  connection->rest_sent += taken;
  if (taken < left) {
    if (taken > 0) {
      note_progress(connection);
      http2_engine_room(connection->backend);
    }
    return false;
  }
  event_del(&connection->stuck);
  free(connection->rest);
  connection->rest = NULL;
  connection->round++;
  http2_engine_room(connection->backend);
  return true;
}

void http2_connection_flush(struct http2_connection *connection) {
  struct http2_engine *engine = connection->engine;
  bool all = false;
  if (!connection->session || !send_rest(connection)) {
    return;
  }
  while (!all && !connection->is_dead) {
    engine->out_used = 0;
    all = fill(connection);
    size_t taken = tcp_client_write(connection->tcp, engine->out, engine->out_used);
    if (taken < engine->out_used) {
      keep_rest(connection, engine->out + taken, engine->out_used - taken);
      break;
    }
    connection->round++;
  }
  engine->out_used = 0;
  if (!connection->is_dead && !nghttp2_session_want_read(connection->session) &&
      !nghttp2_session_want_write(connection->session)) {
    break_it(connection, "the backend broke the protocol, or has gone away");
  }
}

void http2_connection_resume(struct http2_connection *connection, struct http2_stream *stream) {
  if (stream->is_deferred) {
    stream->is_deferred = false;
    nghttp2_session_resume_data(connection->session, stream->id);
  }
  touch(connection);
}

void http2_connection_reset(struct http2_connection *connection, const struct http2_stream *stream,
                            uint32_t error_code) {
  bool is_over = error_code == NGHTTP2_NO_ERROR &&
                 nghttp2_session_get_stream_local_close(connection->session, stream->id) == 1;
  if (!is_over) {
    nghttp2_submit_rst_stream(connection->session, NGHTTP2_FLAG_NONE, stream->id, error_code);
    touch(connection);
  }
}

void http2_connection_consumed(struct http2_connection *connection,
                               const struct http2_stream *stream, size_t len) {
  if (stream->id > 0) {
    nghttp2_session_consume_stream(connection->session, stream->id, len);
    if (nghttp2_session_want_write(connection->session)) {
      touch(connection);
    }
  }
}

// --- Its streams --------------------------------------------------------------------------------

bool http2_connection_has_room(const struct http2_connection *connection) {
  const struct http2_backend *backend = connection->backend;
  size_t max = backend->streams_max < connection->streams_max || connection->streams_max == 0
                   ? backend->streams_max
                   : connection->streams_max;
  bool is_stuck = connection->rest && clock_monotonic_ms() - connection->progress_ms >= STUCK_MS;
  return connection->stream_count < max && !is_stuck;
}

void http2_connection_remove(struct http2_connection *connection, struct http2_stream *stream) {
  if (stream->id == 0) {
    TAILQ_REMOVE(&connection->waiting, stream, link);
  } else {
    TAILQ_REMOVE(&connection->open, stream, link);
    connection->open_count--;
    nghttp2_session_set_stream_user_data(connection->session, stream->id, NULL);
  }
  stream->connection = NULL;
  http2_engine_room(connection->backend);
  if (--connection->stream_count == 0 && !connection->is_dead) {
    if (!connection->is_retired) {
      if (connection->is_up) {
        set_timer(connection);
      }
    } else {
      nghttp2_session_terminate_session(connection->session, NGHTTP2_NO_ERROR);
      touch(connection);
    }
  }
}

// Puts those that wait, and find no room here, on others.
static void move_waiting(struct http2_connection *connection) {
  struct http2_stream *stream;
  while ((stream = TAILQ_FIRST(&connection->waiting))) {
    http2_connection_remove(connection, stream);
    http2_engine_place(connection->backend, stream);
  }
}

static bool submit(struct http2_connection *connection, struct http2_stream *stream) {
  const nghttp2_data_provider data = {.read_callback = on_data_wanted};
  int32_t id = http2_request_submit(stream->request, connection->session, &data, stream);
  if (id < 0) {
    return false;
  }
  TAILQ_REMOVE(&connection->waiting, stream, link);
  TAILQ_INSERT_TAIL(&connection->open, stream, link);
  connection->open_count++;
  stream->id = id;
  touch(connection);
  return true;
}

static void submit_waiting(struct http2_connection *connection) {
  struct http2_stream *stream;
  while (connection->open_count < connection->streams_max &&
         (stream = TAILQ_FIRST(&connection->waiting))) {
    if (!submit(connection, stream)) {
      // Its numbers are used up, or it is on its way out.
      retire(connection);
      break;
    }
  }
  // Where the backend allows none at all there is no use in trying others.
  if (connection->streams_max > 0) {
    move_waiting(connection);
  }
}

void http2_connection_add(struct http2_connection *connection, struct http2_stream *stream) {
  stream->connection = connection;
  TAILQ_INSERT_TAIL(&connection->waiting, stream, link);
  if (connection->stream_count++ == 0 && connection->is_up) {
    set_timer(connection);
  }
  if (connection->is_up) {
    submit_waiting(connection);
  }
}

// --- What comes ---------------------------------------------------------------------------------

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *context) {
  struct http2_stream *stream = find(session, frame->hd.stream_id);
  (void)flags;
  (void)context;
  if (stream) {
    http2_stream_header(stream, name, name_len, value, value_len);
  }
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes,
                   size_t len, void *context) {
  struct http2_stream *stream = find(session, id);
  (void)flags;
  (void)context;
  // The connection's window is no brake: one stream that is not read would hold up the others.
  nghttp2_session_consume_connection(session, len);
  if (stream) {
    http2_stream_bytes(stream, bytes, len);
  }
  return 0;
}

static void take_settings(struct http2_connection *connection) {
  struct http2_backend *backend = connection->backend;
  uint32_t max = nghttp2_session_get_remote_settings(connection->session,
                                                     NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  int64_t most = (int64_t)connection->engine->options.streams_per_connection;
  connection->streams_max = max;
  if (!connection->is_retired && max > 0) {
    backend->streams_max = max < most ? max : (size_t)most;
  }
  if (!connection->is_up) {
    connection->is_up = true;
    set_timer(connection);
  }
  submit_waiting(connection);
  http2_engine_room(connection->backend);
}

// The backend wants fewer pings: its next connections get half as many, as gRPC's proposal A8 asks.
static void calm_down(const struct http2_connection *connection) {
  struct http2_backend *backend = connection->backend;
  int64_t longer_ms = connection->keepalive_ms * 2;
  if (longer_ms > backend->keepalive_ms && longer_ms <= KEEPALIVE_MAX_MS) {
    connection->engine->calmed_count +=
        backend->keepalive_ms == connection->engine->options.keepalive_ms;
    backend->keepalive_ms = longer_ms;
    log_limited(LOG_LEVEL_WARN, "too_many_pings", "address=%s keepalive_ms=%" PRId64,
                backend->address, longer_ms);
  }
}

static void take_goaway(struct http2_connection *connection, const nghttp2_goaway *goaway) {
  static const char too_many_pings[] = "too_many_pings";
  size_t len = goaway->opaque_data_len;
  snprintf(connection->goaway, sizeof connection->goaway, "the backend is going away: %s%s%.*s",
           nghttp2_http2_strerror(goaway->error_code), len > 0 ? ": " : "",
           (int)(len < GOAWAY_MAX_BYTES ? len : GOAWAY_MAX_BYTES),
           len > 0 ? (const char *)goaway->opaque_data : "");
  if (goaway->error_code == NGHTTP2_ENHANCE_YOUR_CALM && len == sizeof too_many_pings - 1 &&
      memcmp(goaway->opaque_data, too_many_pings, len) == 0) {
    calm_down(connection);
  }
  retire(connection);
  // They have waited since it allows none. Once each: the next may allow none and leave as well.
  fail_all(connection, &connection->waiting, connection->goaway);
  if (connection->stream_count == 0) {
    nghttp2_session_terminate_session(connection->session, NGHTTP2_NO_ERROR);
    touch(connection);
  }
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
  struct http2_connection *connection = context;
  struct http2_stream *stream = find(session, frame->hd.stream_id);
  bool is_last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
  switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
      if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        take_settings(connection);
      }
      break;
    case NGHTTP2_GOAWAY: take_goaway(connection, &frame->goaway); break;
    case NGHTTP2_HEADERS:
      if (stream) {
        http2_stream_headers_end(stream, is_last);
      }
      break;
    case NGHTTP2_DATA:
      if (stream && is_last) {
        http2_stream_body_end(stream);
      }
      break;
    default: break;
  }
  return 0;
}

// Also of one whose request could not be sent after all, with REFUSED_STREAM.
static int on_stream_closed(nghttp2_session *session, int32_t id, uint32_t error_code,
                            void *context) {
  struct http2_stream *stream = find(session, id);
  if (!nghttp2_session_check_request_allowed(session)) {
    retire(context);  // it is not to be asked for again here
  }
  if (stream) {
    http2_stream_closed(stream, error_code);
  }
  return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
  struct http2_stream *stream = find(session, frame->hd.stream_id);
  (void)context;
  if (frame->hd.type == NGHTTP2_HEADERS && stream) {
    http2_stream_opened(stream);
  }
  return 0;
}

nghttp2_session_callbacks *http2_connection_callbacks(void) {
  nghttp2_session_callbacks *callbacks;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) {
    return NULL;
  }
  nghttp2_session_callbacks_set_send_data_callback(callbacks, on_data_sent);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_closed);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
  return callbacks;
}

// --- The socket ---------------------------------------------------------------------------------

static void on_bytes(const uint8_t *bytes, size_t len, void *owner) {
  struct http2_connection *connection = owner;
  if (connection->is_dead) {
    return;
  }
  connection->engine->arrived_us = clock_monotonic_us();
  connection->was_heard = true;
  ssize_t taken = nghttp2_session_mem_recv(connection->session, bytes, len);
  if (taken < 0) {
    http2_connection_flush(connection);  // it says why, where it can
    break_it(connection, nghttp2_strerror((int)taken));
    return;
  }
  if (nghttp2_session_want_write(connection->session) ||
      !nghttp2_session_want_read(connection->session)) {
    touch(connection);
  }
}

static void on_connected(void *owner) {
  struct http2_connection *connection = owner;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_WINDOW_BYTES},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_LIST_MAX_BYTES},
  };
  if (connection->is_dead) {
    return;
  }
  if (nghttp2_session_client_new2(&connection->session, connection->engine->callbacks, connection,
                                  connection->engine->session_options) != 0 ||
      nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings,
                              sizeof settings / sizeof settings[0]) != 0 ||
      nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0,
                                            HTTP2_CONNECTION_WINDOW_BYTES) != 0) {
    break_it(connection, "out of memory");
    return;
  }
  touch(connection);
}

static void on_writable(void *owner) {
  struct http2_connection *connection = owner;
  if (!connection->is_dead) {
    touch(connection);
  }
}

static void on_broken(const char *why, void *owner) { break_it(owner, why); }

struct http2_connection *http2_connection_new(struct http2_backend *backend) {
  static const struct tcp_client_events events = {on_connected, on_bytes, on_writable, on_broken};
  struct http2_engine *engine = backend->engine;
  struct http2_connection *connection = calloc(1, sizeof *connection);
  if (!connection) {
    return NULL;
  }
  const struct tcp_client_target target = {.address = backend->address,
                                           .tls = backend->secure ? engine->tls : NULL,
                                           .name = engine->tls_server_name,
                                           .alpn = "h2",
                                           .timeout_ms = engine->options.open_timeout_ms,
                                           // Of a node that vanishes while messages are on their
                                           // way, much sooner than a ping would tell.
                                           .user_timeout_ms = STREAM_KEEPALIVE_TIMEOUT_MS};
  connection->engine = engine;
  connection->backend = backend;
  connection->streams_max = backend->streams_max;
  connection->keepalive_ms = backend->keepalive_ms;
  connection->pinged_ms = -KEEPALIVE_MAX_MS;
  connection->round = 1;
  TAILQ_INIT(&connection->waiting);
  TAILQ_INIT(&connection->open);
  connection->tcp = tcp_client_new(&engine->tcp, &target, &events, connection);
  if (!connection->tcp) {
    free(connection);
    return NULL;
  }
  evtimer_assign(&connection->timer, engine->base, on_timer, connection);
  evtimer_assign(&connection->stuck, engine->base, on_stuck, connection);
  loop_start_timer(&connection->timer, engine->options.open_timeout_ms);
  LIST_INSERT_HEAD(&backend->connections, connection, link);
  engine->connection_count++;
  backend->connection_count++;
  return connection;
}
