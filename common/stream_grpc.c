#include <event2/event_struct.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/clock.h"
#include "common/grpc_bridge.h"
#include "common/stream_engine.h"

// Streams on gRPC C core. A call has up to five batches under way: the opening
// (initial metadata out), the end (initial metadata in, status), one send, one
// read, and the half-close. A stream is freed once its handle is given up and none
// is under way any more.
//
// The opening completes when the headers are on the wire. Where a backend allows
// fewer streams on a connection than are asked for, the surplus waits without a
// word: that is what the time limit on the opening is for.

enum {
  IDLE_CONNECTION_S = 10,
  HALF_CLOSE_S = 15,  // for a backend to end a stream that we have half-closed
  RECONNECT_FIRST_MS = 100,
  RECONNECT_MAX_MS = 2000,
  TRY_MORE_MS = 60000,  // until a backend that seemed to allow few streams is asked again
};

LIST_HEAD(connection_list, connection);
LIST_HEAD(stream_list, core_stream);

struct core_engine {
  struct stream_engine engine;
  struct event_base *base;
  struct grpc_bridge *bridge;
  struct stream_engine_options options;  // what is borrowed in it is not used any more
  grpc_channel_credentials *plain_credentials;
  grpc_channel_credentials *tls_credentials;  // NULL: none given, and none needed so far
  char *tls_server_name;                      // NULL: the host's
  int keepalive_ms;
  const struct timeval *open_timeout;  // common timeouts of the loop
  const struct timeval *half_close_timeout;
  struct backend *backends;
  struct stream_list streams;
  size_t connection_count;
  bool closing;
};

// One address, and its connections.
struct backend {
  struct core_engine *engine;
  char *key;  // scheme and address
  const char *address;
  bool secure;
  size_t streams_per_connection;  // lowered when the backend seems to allow fewer
  int64_t tried_ms;               // when that was, or when one more was tried last
  struct connection_list connections;
  UT_hash_handle hh;
};

struct connection {
  LIST_ENTRY(connection) link;
  struct backend *backend;
  grpc_channel *channel;
  size_t streams;  // all calls on it
  size_t opened;   // those whose opening is through
  struct event idle;
};

struct core_stream {
  struct stream stream;
  LIST_ENTRY(core_stream) link;
  struct core_engine *engine;
  struct connection *connection;
  grpc_call *call;
  struct stream_events events;
  void *owner;  // NULL: the handle was given up
  struct grpc_operation open;
  struct grpc_operation end;
  struct grpc_operation send;
  struct grpc_operation read;
  struct grpc_operation close;
  struct event timer;  // the opening's time, later the half-close's
  grpc_metadata *metadata;
  size_t metadata_count;
  grpc_metadata_array initial_metadata;
  grpc_metadata_array trailing_metadata;
  grpc_slice detail;
  uint8_t *message;  // that the caller fills in,
  size_t message_len;
  grpc_byte_buffer *sending;  // and that is being sent
  grpc_byte_buffer *reading;
  grpc_status_code status;
  uint8_t under_way;  // batches
  bool has_owner;
  bool opened;
  bool read_under_way;
  bool finishing;  // half-closed
  bool ended;      // the status is known
  bool timed_out;  // the opening took too long
};

#define STREAM_OF(operation, member) \
  ((struct core_stream *)(void *)((char *)(operation)-offsetof(struct core_stream, member)))

static struct core_engine *engine_of(struct stream_engine *engine) {
  return (struct core_engine *)(void *)engine;
}

static struct core_stream *stream_of(struct stream *stream) {
  return (struct core_stream *)(void *)stream;
}

static const struct core_stream *stream_of_const(const struct stream *stream) {
  return (const struct core_stream *)(const void *)stream;
}

// --- Connections -----------------------------------------------------------------

static void backend_free_if_unused(struct backend *backend) {
  if (LIST_EMPTY(&backend->connections)) {
    HASH_DELETE(hh, backend->engine->backends, backend);
    free(backend->key);
    free(backend);
  }
}

static void connection_free(struct connection *connection) {
  struct backend *backend = connection->backend;
  event_del(&connection->idle);
  LIST_REMOVE(connection, link);
  backend->engine->connection_count--;
  grpc_channel_destroy(connection->channel);
  free(connection);
  backend_free_if_unused(backend);
}

static void on_idle(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  connection_free(context);
}

static grpc_arg integer_arg(const char *name, int value) {
  return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)name, .value.integer = value};
}

// The system's certificate authorities are a megabyte and more, read when the first
// backend asks for TLS.
static grpc_channel_credentials *credentials(struct core_engine *engine, bool secure) {
  if (!secure) {
    return engine->plain_credentials;
  }
  if (!engine->tls_credentials) {
    engine->tls_credentials = grpc_ssl_credentials_create(NULL, NULL, NULL, NULL);
  }
  return engine->tls_credentials;
}

static grpc_channel *channel_new(const struct backend *backend) {
  struct core_engine *engine = backend->engine;
  grpc_arg args[] = {
      integer_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),  // a connection is a connection
      integer_arg(GRPC_ARG_ENABLE_RETRIES, 0),
      integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
      integer_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
      integer_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
      integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)engine->options.message_bytes),
      integer_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_FIRST_MS),
      integer_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, (int)engine->options.open_timeout_ms),
      integer_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS),
      integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, engine->keepalive_ms),
      integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, STREAM_KEEPALIVE_TIMEOUT_MS),
      {.type = GRPC_ARG_STRING,
       .key = (char *)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
       .value.string = engine->tls_server_name},  // the last, for only some have it
  };
  bool renamed = backend->secure && engine->tls_server_name;
  const grpc_channel_args all = {.num_args = sizeof args / sizeof args[0] - !renamed, .args = args};
  return grpc_channel_create(backend->address, credentials(engine, backend->secure), &all);
}

static struct connection *connection_new(struct backend *backend) {
  struct connection *connection = calloc(1, sizeof *connection);
  if (!connection) {
    return NULL;
  }
  connection->backend = backend;
  connection->channel = channel_new(backend);
  evtimer_assign(&connection->idle, backend->engine->base, on_idle, connection);
  LIST_INSERT_HEAD(&backend->connections, connection, link);
  backend->engine->connection_count++;
  return connection;
}

static struct backend *backend_get(struct core_engine *engine, const char *address, bool secure) {
  size_t size = strlen(address) + 3;
  char *key = malloc(size);
  struct backend *backend = NULL;
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
  backend->streams_per_connection = engine->options.streams_per_connection;
  LIST_INIT(&backend->connections);
  HASH_ADD_KEYPTR(hh, engine->backends, backend->key, strlen(backend->key), backend);
  return backend;
}

// An opening also times out where a slow backend or a bad path holds up what is written, and is
// then taken for one too many. So one goes beyond the bound now and then: if that opens, there is
// no such bound.
static bool tries_more(struct backend *backend) {
  int64_t now_ms = clock_monotonic_ms();
  bool tries = backend->streams_per_connection < backend->engine->options.streams_per_connection &&
               now_ms - backend->tried_ms >= TRY_MORE_MS;
  if (tries) {
    backend->tried_ms = now_ms;
  }
  return tries;
}

// A connection with room for one more stream.
static struct connection *connection_get(struct core_engine *engine, const char *address,
                                         bool secure) {
  struct backend *backend = backend_get(engine, address, secure);
  struct connection *connection;
  if (!backend) {
    return NULL;
  }
  LIST_FOREACH(connection, &backend->connections, link) {
    if (connection->streams < backend->streams_per_connection) {
      return connection;
    }
  }
  connection = LIST_FIRST(&backend->connections);
  if (!connection || !tries_more(backend)) {
    connection = connection_new(backend);
    backend_free_if_unused(backend);  // when out of memory
  }
  return connection;
}

static void connection_leave(struct connection *connection) {
  const struct timeval idle = {.tv_sec = IDLE_CONNECTION_S};
  if (--connection->streams == 0) {
    evtimer_add(&connection->idle, &idle);
  }
}

// An opening timed out although the connection works for others: the backend
// allows no more streams on one than those.
static void learn_limit(struct connection *connection) {
  struct backend *backend = connection->backend;
  if (connection->opened > 0 && connection->opened < backend->streams_per_connection) {
    backend->streams_per_connection = connection->opened;
    backend->tried_ms = clock_monotonic_ms();
  }
}

static void unlearn_limit(struct connection *connection) {
  struct backend *backend = connection->backend;
  if (connection->opened > backend->streams_per_connection) {
    backend->streams_per_connection = backend->engine->options.streams_per_connection;
  }
}

// --- A stream's life ----------------------------------------------------------------

static void start(struct core_stream *stream, const grpc_op *ops, size_t count,
                  struct grpc_operation *operation,
                  void (*on_done)(struct grpc_operation *operation, bool ok)) {
  operation->on_done = on_done;
  stream->under_way++;
  grpc_call_error error = grpc_bridge_start(stream->call, ops, count, operation);
  if (error != GRPC_CALL_OK) {
    // Only a fault of ours in the order of batches leads here (start_call looks at what else is
    // refused).
    fprintf(stderr, "stream_grpc: batch refused: %s\n", grpc_call_error_to_string(error));
    abort();
  }
}

static void free_metadata(struct core_stream *stream) {
  for (size_t i = 0; i < stream->metadata_count; i++) {
    grpc_slice_unref(stream->metadata[i].key);
    grpc_slice_unref(stream->metadata[i].value);
  }
  free(stream->metadata);
  stream->metadata = NULL;
  stream->metadata_count = 0;
}

static void free_if_done(struct core_stream *stream) {
  if (stream->has_owner || stream->under_way > 0) {
    return;
  }
  event_del(&stream->timer);
  free_metadata(stream);
  grpc_metadata_array_destroy(&stream->initial_metadata);
  grpc_metadata_array_destroy(&stream->trailing_metadata);
  grpc_slice_unref(stream->detail);
  grpc_call_unref(stream->call);
  LIST_REMOVE(stream, link);
  connection_leave(stream->connection);
  free(stream);
}

// Tells the end once the status is known and no read, which may hold the last
// message, is out. The owner may give the stream up in answer.
static void tell_end(struct core_stream *stream) {
  if (!stream->ended || stream->read_under_way || !stream->has_owner) {
    return;
  }
  int status = stream->timed_out ? STREAM_DEADLINE_EXCEEDED : (int)stream->status;
  char *detail = stream->timed_out ? NULL : grpc_slice_to_c_string(stream->detail);
  stream->events.on_ended(stream->owner, status, detail ? detail : "not opened in time");
  gpr_free(detail);
}

static void on_open_done(struct grpc_operation *operation, bool ok) {
  struct core_stream *stream = STREAM_OF(operation, open);
  stream->under_way--;
  free_metadata(stream);
  if (ok && !stream->ended) {
    stream->opened = true;
    stream->connection->opened++;
    unlearn_limit(stream->connection);
    if (stream->has_owner) {
      event_del(&stream->timer);
      stream->events.on_opened(stream->owner);
    }
  }
  free_if_done(stream);
}

static void on_end_done(struct grpc_operation *operation, bool ok) {
  struct core_stream *stream = STREAM_OF(operation, end);
  (void)ok;
  stream->under_way--;
  stream->ended = true;
  event_del(&stream->timer);
  if (stream->opened) {
    stream->connection->opened--;
  }
  // The handle's owner may give it up in tell_end; hold the stream until then.
  stream->under_way++;
  tell_end(stream);
  stream->under_way--;
  free_if_done(stream);
}

static void on_send_done(struct grpc_operation *operation, bool ok) {
  struct core_stream *stream = STREAM_OF(operation, send);
  grpc_byte_buffer_destroy(stream->sending);
  stream->sending = NULL;
  if (ok && stream->has_owner && !stream->ended) {
    stream->events.on_sent(stream->owner);
  }
  stream->under_way--;
  free_if_done(stream);
}

static void give_message(struct core_stream *stream, grpc_byte_buffer *buffer) {
  const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
  if (slices->count == 1) {
    stream->events.on_message(stream->owner, GRPC_SLICE_START_PTR(slices->slices[0]),
                              GRPC_SLICE_LENGTH(slices->slices[0]));
    return;
  }
  grpc_byte_buffer_reader reader;
  if (grpc_byte_buffer_reader_init(&reader, buffer)) {
    grpc_slice whole = grpc_byte_buffer_reader_readall(&reader);
    stream->events.on_message(stream->owner, GRPC_SLICE_START_PTR(whole), GRPC_SLICE_LENGTH(whole));
    grpc_slice_unref(whole);
    grpc_byte_buffer_reader_destroy(&reader);
  }
}

static void start_read(struct core_stream *stream);

static void on_read_done(struct grpc_operation *operation, bool ok) {
  struct core_stream *stream = STREAM_OF(operation, read);
  grpc_byte_buffer *buffer = stream->reading;
  stream->reading = NULL;
  stream->read_under_way = false;
  // Held until the owner has been heard.
  if (ok && buffer && stream->has_owner) {
    give_message(stream, buffer);
  } else if (ok && buffer && !stream->ended && !stream->engine->closing) {
    start_read(stream);  // half-closed: read away what still comes, so that the end can
  }
  grpc_byte_buffer_destroy(buffer);
  tell_end(stream);
  stream->under_way--;
  free_if_done(stream);
}

static void start_read(struct core_stream *stream) {
  const grpc_op read = {.op = GRPC_OP_RECV_MESSAGE,
                        .data.recv_message.recv_message = &stream->reading};
  stream->read_under_way = true;
  start(stream, &read, 1, &stream->read, on_read_done);
}

static void on_close_done(struct grpc_operation *operation, bool ok) {
  struct core_stream *stream = STREAM_OF(operation, close);
  (void)ok;
  stream->under_way--;
  free_if_done(stream);
}

// The opening has taken too long, or the backend has not ended a stream that we
// half-closed. The status that follows from cancelling ends the stream.
static void on_timeout(evutil_socket_t fd, short what, void *context) {
  struct core_stream *stream = context;
  (void)fd;
  (void)what;
  if (stream->has_owner && !stream->finishing) {
    stream->timed_out = true;
    learn_limit(stream->connection);
  }
  grpc_call_cancel(stream->call, NULL);
}

// --- The interface ---------------------------------------------------------------------

static bool set_metadata(struct core_stream *stream, const struct stream_metadata *metadata,
                         size_t count) {
  stream->metadata = calloc(count > 0 ? count : 1, sizeof *stream->metadata);
  if (!stream->metadata) {
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    stream->metadata[i].key = grpc_slice_from_copied_string(metadata[i].key);
    stream->metadata[i].value = grpc_slice_from_copied_string(metadata[i].value);
  }
  stream->metadata_count = count;
  return true;
}

// gRPC refuses a batch with such metadata, whoever's text it is.
static bool metadata_is_legal(const struct core_stream *stream) {
  for (size_t i = 0; i < stream->metadata_count; i++) {
    if (!grpc_header_key_is_legal(stream->metadata[i].key) ||
        !grpc_header_nonbin_value_is_legal(stream->metadata[i].value)) {
      return false;
    }
  }
  return true;
}

static void start_call(struct core_stream *stream) {
  if (!metadata_is_legal(stream)) {
    grpc_call_cancel_with_status(stream->call, GRPC_STATUS_INVALID_ARGUMENT,
                                 "its metadata has bytes that have no place there", NULL);
    free_metadata(stream);
  }
  const grpc_op open = {.op = GRPC_OP_SEND_INITIAL_METADATA,
                        .data.send_initial_metadata = {.count = stream->metadata_count,
                                                       .metadata = stream->metadata}};
  const grpc_op end[] = {
      {.op = GRPC_OP_RECV_INITIAL_METADATA,
       .data.recv_initial_metadata.recv_initial_metadata = &stream->initial_metadata},
      {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
       .data.recv_status_on_client = {.trailing_metadata = &stream->trailing_metadata,
                                      .status = &stream->status,
                                      .status_details = &stream->detail}},
  };
  start(stream, &open, 1, &stream->open, on_open_done);
  start(stream, end, 2, &stream->end, on_end_done);
}

static gpr_timespec deadline_in(int64_t ms) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

static struct stream *core_open(struct stream_engine *base, const struct stream_target *target,
                                const struct stream_metadata *metadata, size_t metadata_count,
                                const struct stream_events *events, void *owner) {
  struct core_engine *engine = engine_of(base);
  struct core_stream *stream = calloc(1, sizeof *stream);
  struct connection *connection = NULL;
  if (stream && set_metadata(stream, metadata, metadata_count)) {
    connection = connection_get(engine, target->address, target->secure);
  }
  if (!connection) {
    if (stream) {
      free_metadata(stream);
    }
    free(stream);
    return NULL;
  }
  if (connection->streams++ == 0) {
    event_del(&connection->idle);
  }
  stream->stream.methods = engine->engine.methods;
  stream->engine = engine;
  stream->connection = connection;
  stream->events = *events;
  stream->owner = owner;
  stream->has_owner = true;
  stream->detail = grpc_empty_slice();
  grpc_metadata_array_init(&stream->initial_metadata);
  grpc_metadata_array_init(&stream->trailing_metadata);
  grpc_slice method = grpc_slice_from_copied_string(target->method);
  gpr_timespec deadline =
      target->timeout_ms > 0 ? deadline_in(target->timeout_ms) : gpr_inf_future(GPR_CLOCK_REALTIME);
  stream->call =
      grpc_channel_create_call(connection->channel, NULL, 0, grpc_bridge_queue(engine->bridge),
                               method, NULL, deadline, NULL);
  grpc_slice_unref(method);
  evtimer_assign(&stream->timer, engine->base, on_timeout, stream);
  evtimer_add(&stream->timer, engine->open_timeout);
  LIST_INSERT_HEAD(&engine->streams, stream, link);
  start_call(stream);
  return &stream->stream;
}

static bool core_takes(const struct stream *base) { return !stream_of_const(base)->sending; }

static size_t core_unsure(const struct stream *base) {
  return stream_of_const(base)->sending ? 1 : 0;
}

static uint8_t *core_reserve(struct stream *base, size_t len) {
  struct core_stream *stream = stream_of(base);
  stream->message = malloc(len > 0 ? len : 1);
  stream->message_len = len;
  return stream->message;
}

static void core_send(struct stream *base) {
  struct core_stream *stream = stream_of(base);
  grpc_slice slice =
      grpc_slice_new_with_user_data(stream->message, stream->message_len, free, stream->message);
  stream->message = NULL;
  stream->sending = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  const grpc_op send = {.op = GRPC_OP_SEND_MESSAGE,
                        .data.send_message.send_message = stream->sending};
  start(stream, &send, 1, &stream->send, on_send_done);
}

static void core_read(struct stream *base) { start_read(stream_of(base)); }

static void half_close(struct core_stream *stream) {
  const grpc_op close = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
  if (!stream->finishing && !stream->ended) {
    stream->finishing = true;
    start(stream, &close, 1, &stream->close, on_close_done);
    evtimer_add(&stream->timer, stream->engine->half_close_timeout);
  }
}

static void core_finish(struct stream *base, const struct stream_events *events, void *owner) {
  struct core_stream *stream = stream_of(base);
  stream->events = *events;
  stream->owner = owner;
  half_close(stream);
}

static void core_end(struct stream *base, bool graceful) {
  struct core_stream *stream = stream_of(base);
  stream->has_owner = false;
  stream->owner = NULL;
  if (!stream->ended && graceful && stream->opened) {
    half_close(stream);
    if (!stream->read_under_way) {
      start_read(stream);
    }
  } else if (!stream->ended) {
    grpc_call_cancel(stream->call, NULL);
  }
  free_if_done(stream);
}

static void core_free(struct stream_engine *base) {
  struct core_engine *engine = engine_of(base);
  struct core_stream *stream;
  struct backend *backend;
  struct backend *next;
  engine->closing = true;
  LIST_FOREACH(stream, &engine->streams, link) { grpc_call_cancel(stream->call, NULL); }
  grpc_init();  // kept up until the channels are gone too
  grpc_bridge_free(engine->bridge);
  HASH_ITER(hh, engine->backends, backend, next) {
    struct connection_list *connections = &backend->connections;
    struct connection *connection;
    while ((connection = LIST_FIRST(connections))) {
      bool last = LIST_NEXT(connection, link) == NULL;
      connection_free(connection);
      if (last) {
        break;  // and the backend with it
      }
    }
  }
  grpc_channel_credentials_release(engine->plain_credentials);
  if (engine->tls_credentials) {
    grpc_channel_credentials_release(engine->tls_credentials);
  }
  // Not grpc_shutdown(), which leaves the rest to a thread that may outlive main().
  grpc_shutdown_blocking();
  free(engine->tls_server_name);
  free(engine);
}

static size_t core_connections(const struct stream_engine *base) {
  return ((const struct core_engine *)(const void *)base)->connection_count;
}

static int64_t core_arrived_us(const struct stream_engine *base) {
  return grpc_bridge_arrived_us(((const struct core_engine *)(const void *)base)->bridge);
}

static bool given(const char *text) { return text && text[0] != '\0'; }

struct stream_engine *stream_grpc_new(struct event_base *base,
                                      const struct stream_engine_options *options, int *error) {
  static const struct stream_methods methods = {
      .free = core_free,
      .connections = core_connections,
      .arrived_us = core_arrived_us,
      .open = core_open,
      .takes = core_takes,
      .reserve = core_reserve,
      .send = core_send,
      .unsure = core_unsure,
      .read = core_read,
      .finish = core_finish,
      .end = core_end,
  };
  struct core_engine *engine = calloc(1, sizeof *engine);
  if (!engine) {
    *error = ERROR_MEMORY;
    return NULL;
  }
  const struct timeval open_timeout = clock_timeval(options->open_timeout_ms);
  const struct timeval half_close_timeout = {.tv_sec = HALF_CLOSE_S};
  engine->engine.methods = &methods;
  engine->base = base;
  engine->options = *options;
  engine->open_timeout = event_base_init_common_timeout(base, &open_timeout);
  engine->half_close_timeout = event_base_init_common_timeout(base, &half_close_timeout);
  LIST_INIT(&engine->streams);
  engine->bridge = grpc_bridge_new(base, error);
  if (!engine->bridge) {
    free(engine);
    return NULL;
  }
  engine->keepalive_ms =
      options->keepalive_ms > 0 ? (int)options->keepalive_ms : STREAM_KEEPALIVE_MS;
  if (given(options->tls_server_name)) {
    engine->tls_server_name = strdup(options->tls_server_name);
  }
  engine->plain_credentials = grpc_insecure_credentials_create();
  if (given(options->tls_ca) || given(options->tls_cert)) {
    grpc_ssl_pem_key_cert_pair own = {options->tls_key, options->tls_cert};
    engine->tls_credentials =
        grpc_ssl_credentials_create(given(options->tls_ca) ? options->tls_ca : NULL,
                                    given(options->tls_cert) ? &own : NULL, NULL, NULL);
  }
  return &engine->engine;
}
