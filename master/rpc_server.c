#include "master/rpc_server.h"

#include <event2/event_struct.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/config_value.h"
#include "common/grpc_bridge.h"
#include "common/log.h"
#include "master/listeners.h"

#define LOG_MODULE LOG_MODULE_GRPC

// A call has up to three batches under way: its end (the close, which is there from the
// first moment and finishes last or early), the read of its request, and one send. It is
// freed when none is. The close always finishes: when a status went out, when the client
// left, when the call was cancelled.

enum {
  ACCEPTS = 32,  // calls that gRPC may hand over before it hears of us again
  // What is more waits at the client. One that never acknowledges our settings is not held to
  // it (gRPC 1.51), and may make gRPC take calls in without end: who can reach the port is for
  // the network to say.
  STREAMS_PER_CONNECTION = 256,
  METADATA_MAX_BYTES = 16 << 10,
  // A client that reads nothing holds its refusals up until they time out. Further ones are
  // cut without a word.
  REFUSALS_MAX = 1024,
  // Answers on their way out, beyond calls_max; a client may ask again before we know that
  // its answer is through.
  ANSWERS_SPARE = 64,
  // What gRPC may hold in buffers besides the requests themselves. It ends connections that
  // take it beyond; how many there are it does not bound.
  MEMORY_BASE_BYTES = 64 << 20,
  CLIENT_PING_MIN_MS = 5000,  // clients that ping more often are shown the door
  IDLE_CONNECTION_MS = 300000,
};

enum call_state {
  CALL_NEW,      // its head is with the owner
  CALL_READING,  // let in; the request is awaited
  CALL_ASKED,    // the owner is to answer
  CALL_KEPT,     // the owner keeps it open as a stream
  CALL_ANSWERED,
  CALL_REFUSED,  // before its request was read
  CALL_OVER,     // nothing more can be said
  CALL_STATES,
};

LIST_HEAD(call_list, rpc_server_call);

// One place for a call that gRPC is asked for.
struct acceptor {
  struct grpc_operation operation;
  struct rpc_server *server;
  grpc_call *core;
  grpc_call_details details;
  grpc_metadata_array metadata;
};

struct rpc_server {
  struct event_base *base;
  struct grpc_bridge *bridge;
  struct rpc_server_options options;  // the address in it is not used any more
  struct rpc_server_events events;
  void *owner;
  grpc_server *core;
  const struct timeval *request_timeout;  // a common timeout of the loop
  int port;
  bool closing;
  size_t calls_in[CALL_STATES];
  struct rpc_server_counts counts;
  struct call_list calls;
  struct grpc_operation shut_down;
  struct acceptor acceptors[ACCEPTS];
};

struct rpc_server_call {
  LIST_ENTRY(rpc_server_call) link;
  struct rpc_server *server;
  grpc_call *core;
  enum call_state state;
  void *context;
  char *method;
  char *peer_uri;
  const char *peer;  // within it
  grpc_metadata_array metadata;
  char **metadata_texts;  // of those that were asked for; NULL: of none
  struct event timer;
  struct grpc_operation close;
  struct grpc_operation read;
  struct grpc_operation send;
  uint8_t under_way;          // batches
  grpc_byte_buffer *reading;  // the request
  grpc_byte_buffer *sending;
  grpc_byte_buffer *waiting;  // to be sent next
  grpc_status_code status;
  grpc_slice detail;
  int cancelled;
  bool head_sent;
  bool send_under_way;
  bool status_due;  // after what waits
};

#define CALL_OF(operation, member) \
  ((struct rpc_server_call *)(void *)((char *)(operation)-offsetof(struct rpc_server_call, member)))

// --- A call's life -----------------------------------------------------------------

static bool is_with_owner(enum call_state state) {
  return state == CALL_READING || state == CALL_ASKED || state == CALL_KEPT;
}

// The one place where a call's state changes. Time runs in every state but those of a
// stream that is kept and of a call that is over.
static void set_state(struct rpc_server_call *call, enum call_state state) {
  struct rpc_server *server = call->server;
  server->calls_in[call->state]--;
  server->calls_in[state]++;
  call->state = state;
  if (state == CALL_KEPT || state == CALL_OVER) {
    event_del(&call->timer);
  } else {
    evtimer_add(&call->timer, server->request_timeout);
  }
}

static void give_up(const char *what, grpc_call_error error) {
  // Only a fault of ours in the order of batches leads here.
  log_limited(LOG_LEVEL_ERROR, "rpc_server_fault", "call=%s error=\"%s\"", what,
              grpc_call_error_to_string(error));
  abort();
}

static void start(struct rpc_server_call *call, const grpc_op *ops, size_t count,
                  struct grpc_operation *operation,
                  void (*on_done)(struct grpc_operation *operation, bool ok)) {
  operation->on_done = on_done;
  call->under_way++;
  grpc_call_error error = grpc_bridge_start(call->core, ops, count, operation);
  if (error != GRPC_CALL_OK) {
    give_up("batch", error);
  }
}

static void free_if_done(struct rpc_server_call *call) {
  if (call->under_way > 0) {
    return;
  }
  event_del(&call->timer);
  call->server->calls_in[call->state]--;
  LIST_REMOVE(call, link);
  if (call->metadata_texts) {
    for (size_t i = 0; i < call->metadata.count; i++) {
      free(call->metadata_texts[i]);
    }
    free(call->metadata_texts);
  }
  grpc_byte_buffer_destroy(call->waiting);
  grpc_slice_unref(call->detail);
  grpc_metadata_array_destroy(&call->metadata);
  gpr_free(call->method);
  gpr_free(call->peer_uri);
  grpc_call_unref(call->core);
  free(call);
}

// --- What goes out -----------------------------------------------------------------

static void pump(struct rpc_server_call *call);

static void on_send_done(struct grpc_operation *operation, bool ok) {
  struct rpc_server_call *call = CALL_OF(operation, send);
  (void)ok;  // where it failed, the close is on its way
  grpc_byte_buffer_destroy(call->sending);
  call->sending = NULL;
  call->send_under_way = false;
  pump(call);
  call->under_way--;
  free_if_done(call);
}

// Gives gRPC what waits, in one batch; one batch at a time.
static void pump(struct rpc_server_call *call) {
  grpc_op ops[3];
  size_t count = 0;
  if (call->send_under_way || (!call->waiting && !call->status_due) || call->state == CALL_OVER ||
      call->server->closing) {
    return;
  }
  if (!call->head_sent) {
    ops[count++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    call->head_sent = true;
  }
  if (call->waiting) {
    call->sending = call->waiting;
    call->waiting = NULL;
    ops[count++] =
        (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->sending};
  }
  if (call->status_due) {
    ops[count++] = (grpc_op){
        .op = GRPC_OP_SEND_STATUS_FROM_SERVER,
        .data.send_status_from_server = {.status = call->status, .status_details = &call->detail}};
    call->status_due = false;
  }
  call->send_under_way = true;
  start(call, ops, count, &call->send, on_send_done);
}

static void wait_to_send(struct rpc_server_call *call, const uint8_t *bytes, size_t len) {
  grpc_slice slice = grpc_slice_from_copied_buffer(len > 0 ? (const char *)bytes : "", len);
  grpc_byte_buffer_destroy(call->waiting);
  call->waiting = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
}

static void end_with(struct rpc_server_call *call, enum call_state state, enum stream_status status,
                     const char *detail) {
  call->status = (grpc_status_code)status;
  call->detail = grpc_slice_from_copied_string(detail ? detail : "");
  call->status_due = true;
  set_state(call, state);
  pump(call);
}

// --- What comes in -----------------------------------------------------------------

// Tells the owner of a call that has just left it.
static void tell_gone(struct rpc_server_call *call) {
  call->server->events.on_gone(call, call->server->owner);
}

static void on_timeout(evutil_socket_t fd, short what, void *context) {
  struct rpc_server_call *call = context;
  struct rpc_server *server = call->server;
  (void)fd;
  (void)what;
  if (is_with_owner(call->state)) {
    bool asked = call->state == CALL_ASKED;
    server->counts.late++;
    end_with(call, CALL_ANSWERED, STREAM_DEADLINE_EXCEEDED,
             asked ? "not answered in time" : "the request did not come in time");
    tell_gone(call);
  } else {
    server->counts.cut++;
    set_state(call, CALL_OVER);
    grpc_call_cancel(call->core, NULL);
  }
}

static void on_close_done(struct grpc_operation *operation, bool ok) {
  struct rpc_server_call *call = CALL_OF(operation, close);
  bool with_owner = is_with_owner(call->state);
  (void)ok;
  set_state(call, CALL_OVER);
  if (with_owner) {
    tell_gone(call);
  }
  call->under_way--;
  free_if_done(call);
}

static void fail_for_client(struct rpc_server_call *call, const char *detail) {
  end_with(call, CALL_ANSWERED, STREAM_UNIMPLEMENTED, detail);
  tell_gone(call);
}

static void give_request(struct rpc_server_call *call) {
  struct rpc_server *server = call->server;
  grpc_byte_buffer_reader reader;
  if (call->reading->data.raw.compression != GRPC_COMPRESS_NONE ||
      !grpc_byte_buffer_reader_init(&reader, call->reading)) {
    fail_for_client(call, "requests are taken uncompressed");
    return;
  }
  grpc_slice whole = grpc_byte_buffer_reader_readall(&reader);
  set_state(call, CALL_ASKED);
  server->events.on_request(call, GRPC_SLICE_START_PTR(whole), GRPC_SLICE_LENGTH(whole),
                            server->owner);
  grpc_slice_unref(whole);
  grpc_byte_buffer_reader_destroy(&reader);
}

// Without a message: a client that ended its side without one, or one that broke a rule (a
// request over message_bytes), whose call gRPC itself has failed, so that the close comes.
static void on_read_done(struct grpc_operation *operation, bool ok) {
  struct rpc_server_call *call = CALL_OF(operation, read);
  bool awaited = call->state == CALL_READING && !call->server->closing;
  if (awaited && call->reading) {
    give_request(call);
  } else if (awaited && ok && !grpc_call_failed_before_recv_message(call->core)) {
    fail_for_client(call, "a request is one message, not none");
  }
  grpc_byte_buffer_destroy(call->reading);
  call->reading = NULL;
  call->under_way--;
  free_if_done(call);
}

static void read_request(struct rpc_server_call *call) {
  const grpc_op read = {.op = GRPC_OP_RECV_MESSAGE,
                        .data.recv_message.recv_message = &call->reading};
  set_state(call, CALL_READING);
  start(call, &read, 1, &call->read, on_read_done);
}

static void refuse(struct rpc_server_call *call, enum stream_status status, const char *detail) {
  struct rpc_server *server = call->server;
  if (server->calls_in[CALL_REFUSED] < REFUSALS_MAX) {
    end_with(call, CALL_REFUSED, status, detail);
  } else {
    server->counts.cut++;
    set_state(call, CALL_OVER);
    grpc_call_cancel(call->core, NULL);
  }
}

// --- Calls arrive ------------------------------------------------------------------

static bool is_full(const struct rpc_server *server) {
  const size_t *calls_in = server->calls_in;
  size_t max = server->options.calls_max;
  return calls_in[CALL_READING] + calls_in[CALL_ASKED] + calls_in[CALL_KEPT] >= max ||
         calls_in[CALL_ANSWERED] >= max + ANSWERS_SPARE;
}

static void begin(struct rpc_server_call *call, bool has_method) {
  struct rpc_server *server = call->server;
  const char *detail = NULL;
  const grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                         .data.recv_close_on_server.cancelled = &call->cancelled};
  start(call, &close, 1, &call->close, on_close_done);
  if (is_full(server)) {
    server->counts.refused++;
    refuse(call, STREAM_RESOURCE_EXHAUSTED, "too many calls");
    return;
  }
  enum stream_status status = STREAM_UNIMPLEMENTED;
  if (has_method) {
    status = server->events.on_head(call, &detail, server->owner);
  }
  if (status != STREAM_OK) {
    refuse(call, status, detail);
    return;
  }
  server->counts.let_in++;
  read_request(call);
}

static int hex_digit(char c) {
  const char *digits = "0123456789abcdef";
  const char *found = c ? strchr(digits, c | 0x20) : NULL;
  return found ? (int)(found - digits) : -1;
}

// In place: "%5B::1%5D:80" is "[::1]:80".
static void decode_percents(char *text) {
  char *out = text;
  for (const char *in = text; *in; in++) {
    int high = in[0] == '%' ? hex_digit(in[1]) : -1;
    int low = high >= 0 ? hex_digit(in[2]) : -1;
    if (low >= 0) {
      *out++ = (char)(high << 4 | low);
      in += 2;
    } else {
      *out++ = *in;
    }
  }
  *out = '\0';
}

// gRPC's is a URI: "ipv4:127.0.0.1:80", "ipv6:%5B::1%5D:80".
static void set_peer(struct rpc_server_call *call) {
  char *uri = grpc_call_get_peer(call->core);
  call->peer_uri = uri;
  call->peer = uri;
  if (strncmp(uri, "ipv4:", 5) == 0 || strncmp(uri, "ipv6:", 5) == 0) {
    decode_percents(uri + 5);
    call->peer = uri + 5;
  }
}

// Takes over what the acceptor got. NULL when out of memory; the client's call is then cut.
static struct rpc_server_call *call_new(struct acceptor *acceptor) {
  struct rpc_server *server = acceptor->server;
  struct rpc_server_call *call = calloc(1, sizeof *call);
  if (!call) {
    server->counts.cut++;
    grpc_metadata_array_destroy(&acceptor->metadata);
    grpc_call_unref(acceptor->core);
    return NULL;
  }
  call->server = server;
  call->core = acceptor->core;
  call->metadata = acceptor->metadata;
  call->method = grpc_slice_to_c_string(acceptor->details.method);
  call->detail = grpc_empty_slice();
  set_peer(call);
  evtimer_assign(&call->timer, server->base, on_timeout, call);
  server->calls_in[CALL_NEW]++;
  LIST_INSERT_HEAD(&server->calls, call, link);
  return call;
}

static void on_accepted(struct grpc_operation *operation, bool ok);

static void accept_next(struct acceptor *acceptor) {
  grpc_completion_queue *queue = grpc_bridge_queue(acceptor->server->bridge);
  grpc_metadata_array_init(&acceptor->metadata);
  grpc_call_details_init(&acceptor->details);
  acceptor->operation.on_done = on_accepted;
  grpc_bridge_expect(&acceptor->operation);
  grpc_call_error error =
      grpc_server_request_call(acceptor->server->core, &acceptor->core, &acceptor->details,
                               &acceptor->metadata, queue, queue, &acceptor->operation);
  if (error != GRPC_CALL_OK) {
    give_up("request for a call", error);
  }
}

static void on_accepted(struct grpc_operation *operation, bool ok) {
  struct acceptor *acceptor = (struct acceptor *)(void *)operation;
  struct rpc_server *server = acceptor->server;
  if (!ok || server->closing) {
    grpc_metadata_array_destroy(&acceptor->metadata);
    grpc_call_details_destroy(&acceptor->details);
    if (ok) {
      grpc_call_unref(acceptor->core);
    }
    return;
  }
  struct rpc_server_call *call = call_new(acceptor);
  // A NUL in it would make it look like another.
  bool has_method = call && strlen(call->method) == GRPC_SLICE_LENGTH(acceptor->details.method);
  grpc_call_details_destroy(&acceptor->details);
  accept_next(acceptor);
  if (call) {
    begin(call, has_method);
  }
}

// --- The owner's side of a call ------------------------------------------------------

const char *rpc_server_method(const struct rpc_server_call *call) { return call->method; }

const char *rpc_server_peer(const struct rpc_server_call *call) { return call->peer; }

static const char *metadata_text(struct rpc_server_call *call, size_t number) {
  const grpc_slice *value = &call->metadata.metadata[number].value;
  const char *text = (const char *)GRPC_SLICE_START_PTR(*value);
  size_t len = GRPC_SLICE_LENGTH(*value);
  if (memchr(text, '\0', len)) {
    return NULL;
  }
  if (!call->metadata_texts) {
    call->metadata_texts = calloc(call->metadata.count, sizeof *call->metadata_texts);
  }
  if (call->metadata_texts && !call->metadata_texts[number]) {
    call->metadata_texts[number] = strndup(text, len);
  }
  return call->metadata_texts ? call->metadata_texts[number] : NULL;
}

const char *rpc_server_metadata(struct rpc_server_call *call, const char *key) {
  for (size_t i = 0; i < call->metadata.count; i++) {
    if (grpc_slice_str_cmp(call->metadata.metadata[i].key, key) == 0) {
      return metadata_text(call, i);
    }
  }
  return NULL;
}

void rpc_server_set_context(struct rpc_server_call *call, void *context) {
  call->context = context;
}

void *rpc_server_context(const struct rpc_server_call *call) { return call->context; }

void rpc_server_reply(struct rpc_server_call *call, const uint8_t *bytes, size_t len) {
  wait_to_send(call, bytes, len);
  end_with(call, CALL_ANSWERED, STREAM_OK, NULL);
}

void rpc_server_fail(struct rpc_server_call *call, enum stream_status status, const char *detail) {
  end_with(call, CALL_ANSWERED, status, detail);
}

void rpc_server_send(struct rpc_server_call *call, const uint8_t *bytes, size_t len) {
  if (call->state != CALL_KEPT) {
    set_state(call, CALL_KEPT);
  }
  wait_to_send(call, bytes, len);
  pump(call);
}

// --- The server --------------------------------------------------------------------

static int clamp(uint64_t value) { return value < INT_MAX ? (int)value : INT_MAX; }

static grpc_arg integer_arg(const char *name, uint64_t value) {
  return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)name, .value.integer = clamp(value)};
}

static grpc_resource_quota *quota_new(const struct rpc_server_options *options) {
  grpc_resource_quota *quota = grpc_resource_quota_create("grpc_server");
  size_t requests = SIZE_MAX / 2;
  if (options->message_bytes == 0 || options->calls_max < requests / options->message_bytes) {
    requests = options->calls_max * options->message_bytes;
  }
  grpc_resource_quota_resize(quota, MEMORY_BASE_BYTES + requests);
  return quota;
}

static grpc_server *core_new(const struct rpc_server_options *options) {
  grpc_resource_quota *quota = quota_new(options);
  uint64_t keepalive_ms = (uint64_t)options->keepalive_ms;
  grpc_arg args[] = {
      integer_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
      integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
      integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, options->message_bytes),
      integer_arg(GRPC_ARG_MAX_METADATA_SIZE, METADATA_MAX_BYTES),
      integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_PER_CONNECTION),
      // gRPC would unpack a request before it looks at its size.
      integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
      integer_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, (uint64_t)options->request_timeout_ms),
      integer_arg(GRPC_ARG_MAX_CONNECTION_IDLE_MS, IDLE_CONNECTION_MS),
      integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms),
      integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_ms),
      integer_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
      integer_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),  // no bound: a watch is silent
      integer_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, CLIENT_PING_MIN_MS),
      {.type = GRPC_ARG_POINTER,
       .key = (char *)GRPC_ARG_RESOURCE_QUOTA,
       .value.pointer = {quota, grpc_resource_quota_arg_vtable()}},
  };
  const grpc_channel_args all = {.num_args = sizeof args / sizeof args[0], .args = args};
  grpc_server *core = grpc_server_create(&all, NULL);
  grpc_resource_quota_unref(quota);
  return core;
}

static bool listen_on(struct rpc_server *server, const char *address, char *why, size_t why_size) {
  struct listeners trial;
  if (!config_value_is_address(address, 0)) {
    snprintf(why, why_size, "%s is not an address to listen on: it is not host:port", address);
    return false;
  }
  // gRPC keeps to itself why it can't listen; trying it first tells.
  if (listeners_open(&trial, address, 1, 1, why, why_size) != 0) {
    return false;
  }
  listeners_close(&trial);
  grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
  server->port = grpc_server_add_http2_port(server->core, address, plain);
  grpc_server_credentials_release(plain);
  if (server->port == 0) {
    snprintf(why, why_size, "gRPC can't listen on %s", address);
  }
  return server->port != 0;
}

// gRPC has nothing of ours any more.
static void release(struct rpc_server *server) {
  grpc_init();  // kept up until the server is gone too
  grpc_bridge_free(server->bridge);
  grpc_server_destroy(server->core);
  // Not grpc_shutdown(), which leaves the rest to a thread that may outlive main().
  grpc_shutdown_blocking();
  free(server);
}

struct rpc_server *rpc_server_new(struct event_base *base, const struct rpc_server_options *options,
                                  const struct rpc_server_events *events, void *owner, char *why,
                                  size_t why_size) {
  const struct timeval request_timeout = clock_timeval(options->request_timeout_ms);
  struct rpc_server *server = calloc(1, sizeof *server);
  int error = ERROR_MEMORY;
  if (!server || !(server->bridge = grpc_bridge_new(base, &error))) {
    snprintf(why, why_size, "%s", error_text(error));
    free(server);
    return NULL;
  }
  grpc_bridge_keep_step(server->bridge);
  server->base = base;
  server->options = *options;
  server->events = *events;
  server->owner = owner;
  LIST_INIT(&server->calls);
  server->request_timeout = event_base_init_common_timeout(base, &request_timeout);
  server->core = core_new(options);
  grpc_server_register_completion_queue(server->core, grpc_bridge_queue(server->bridge), NULL);
  if (!listen_on(server, options->address, why, why_size)) {
    release(server);
    return NULL;
  }
  grpc_server_start(server->core);
  for (size_t i = 0; i < ACCEPTS; i++) {
    server->acceptors[i].server = server;
    accept_next(&server->acceptors[i]);
  }
  return server;
}

static void on_shut_down(struct grpc_operation *operation, bool ok) {
  (void)operation;
  (void)ok;
}

void rpc_server_free(struct rpc_server *server) {
  struct rpc_server_call *call;
  if (!server) {
    return;
  }
  server->closing = true;  // no batch is started from here on
  LIST_FOREACH(call, &server->calls, link) {
    bool with_owner = is_with_owner(call->state);
    set_state(call, CALL_OVER);
    if (with_owner) {
      tell_gone(call);
    }
  }
  server->shut_down.on_done = on_shut_down;
  grpc_bridge_expect(&server->shut_down);
  grpc_server_shutdown_and_notify(server->core, grpc_bridge_queue(server->bridge),
                                  &server->shut_down);
  grpc_server_cancel_all_calls(server->core);
  release(server);  // when every batch has finished
}

int rpc_server_port(const struct rpc_server *server) { return server->port; }

void rpc_server_counts(const struct rpc_server *server, struct rpc_server_counts *counts) {
  const size_t *calls_in = server->calls_in;
  *counts = server->counts;
  counts->open = calls_in[CALL_READING] + calls_in[CALL_ASKED] + calls_in[CALL_KEPT];
}
