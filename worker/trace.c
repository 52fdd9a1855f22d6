#include "worker/trace.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/loop.h"
#include "common/networks.h"
#include "worker/inbox.h"
#include "worker/limits.h"
#include "worker/span.h"

enum {
  FLUSH_MS = 100,
  BATCH_BYTES = 32 << 10,
  NUMBER_BYTES = 24,
};
_Static_assert((int)BATCH_BYTES <= (int)CHANNEL_SPANS_MAX_BYTES, "a batch is one message");

struct trace {
  struct worker *worker;
  struct trace_sampler sampler;
  struct token_bucket rate;
  struct event *flush;

  // The message that the loop is busy with.
  struct trace_connection *of_message;
  uint64_t message_ns;
  size_t message_bytes;

  // The span under construction, and texts of its attributes.
  struct span span;
  char session_id[NUMBER_BYTES];
  char user_id[NUMBER_BYTES];
  char text[NETWORK_TEXT_BYTES];
  char host[CONFIG_TEXT_BYTES];
  char service[CONFIG_TEXT_BYTES];

  uint32_t count;
  uint32_t bytes;
  uint8_t batch[BATCH_BYTES];
};

struct trace_connection {
  struct trace *trace;
  uint32_t references;
  int port;  // of the listener
  const struct config_listener *listener;
  struct trace_context self;
  struct trace_context parent;  // of the upgrade request, or none
  char *state;                  // tracestate, or NULL
  uint64_t start_ns;
  uint64_t handshake_ns;  // when it began; 0: not yet, or it is over
  uint64_t checked_ns;    // when the worker's own checks were passed
  uint64_t closing_ns;
  uint64_t session_id;  // 0: there has been none
  int64_t uid;
  bool is_known;  // uid is
  uint16_t client_port;
  enum close_reason reason;
  uint8_t address[NETWORK_ADDRESS_BYTES];
};

static uint64_t now_ns(void) { return (uint64_t)clock_wall_us() * 1000; }

// --- Spans -------------------------------------------------------------------------------

// A new one that is to be recorded; NULL when there are too many.
static struct span *begin(struct trace *trace, const char *name, Otlp__Span__SpanKind kind,
                          const struct trace_context *self, const uint8_t *parent_id) {
  struct counters *counters = trace->worker->counters;
  counters_add(counters, COUNTER_SPANS_FINISHED, 1);
  if (!token_bucket_take(&trace->rate, 1, clock_monotonic_ms())) {
    counters_add(counters, COUNTER_SPANS_DROPPED, 1);
    return NULL;
  }
  span_init(&trace->span, name, kind, self, parent_id);
  span_add_integer(&trace->span, "janus.worker", trace->worker->index);
  return &trace->span;
}

// The same as a part of a connection, with what tells whose it is.
static struct span *begin_within(struct trace_connection *connection, const char *name,
                                 Otlp__Span__SpanKind kind, const struct trace_context *self,
                                 const uint8_t *parent_id) {
  struct trace *trace = connection->trace;
  struct span *span = begin(trace, name, kind, self, parent_id);
  if (!span) {
    return NULL;
  }
  if (connection->session_id != 0) {
    snprintf(trace->session_id, NUMBER_BYTES, "%" PRIu64, connection->session_id);
    span_add_text(span, "session.id", trace->session_id);
  }
  if (connection->is_known) {
    snprintf(trace->user_id, NUMBER_BYTES, "%" PRId64, connection->uid);
    span_add_text(span, "user.id", trace->user_id);
  }
  return span;
}

// A child of the connection's own span.
static struct span *begin_child(struct trace_connection *connection, const char *name,
                                Otlp__Span__SpanKind kind, struct trace_context *self) {
  *self = connection->self;
  trace_span_id_make(self->span_id);
  struct span *span = begin_within(connection, name, kind, self, connection->self.span_id);
  if (span && connection->state) {
    span->span.trace_state = connection->state;
  }
  return span;
}

static void finish(struct trace *trace, const struct span *span) {
  static const struct timeval flush_time = {.tv_usec = FLUSH_MS * 1000};
  uint32_t size = (uint32_t)span_encoded_bytes(span);
  if (sizeof size + size > BATCH_BYTES - trace->bytes) {
    trace_flush(trace);
  }
  if (sizeof size + size > BATCH_BYTES) {
    counters_add(trace->worker->counters, COUNTER_SPANS_DROPPED, 1);
    return;
  }
  memcpy(trace->batch + trace->bytes, &size, sizeof size);
  span_encode(span, trace->batch + trace->bytes + sizeof size);
  trace->bytes += (uint32_t)sizeof size + size;
  if (trace->count++ == 0) {
    event_add(trace->flush, &flush_time);
  }
}

void trace_flush(struct trace *trace) {
  const struct channel_spans spans = {.count = trace->count, .bytes = trace->bytes};
  event_del(trace->flush);
  if (trace->count > 0 && !inbox_hand_spans(trace->worker->inbox, &spans, trace->batch)) {
    counters_add(trace->worker->counters, COUNTER_SPANS_DROPPED, trace->count);
  }
  trace->count = 0;
  trace->bytes = 0;
}

static void on_flush(evutil_socket_t fd, short what, void *owner) {
  (void)fd;
  (void)what;
  trace_flush(owner);
}

// --- A connection --------------------------------------------------------------------------

static void decide(struct trace_connection *connection) {
  connection->self.sampled = trace_sampler_takes(&connection->trace->sampler,
                                                 connection->self.trace_id, &connection->parent);
}

struct trace_connection *trace_connection_new(struct trace *trace,
                                              const struct config_listener *listener, int port) {
  struct trace_connection *connection = calloc(1, sizeof *connection);
  if (connection) {
    connection->trace = trace;
    connection->references = 1;
    connection->listener = listener;
    connection->port = port;
    connection->start_ns = now_ns();
    connection->reason = CLOSE_CLIENT_CLOSED;
    trace_id_make(connection->self.trace_id);
    trace_span_id_make(connection->self.span_id);
    decide(connection);
  }
  return connection;
}

struct trace_connection *trace_connection_ref(struct trace_connection *connection) {
  connection->references++;
  return connection;
}

void trace_connection_unref(struct trace_connection *connection) {
  if (--connection->references == 0) {
    free(connection->state);
    free(connection);
  }
}

const uint8_t *trace_connection_trace_id(const struct trace_connection *connection) {
  return connection->self.trace_id;
}

void trace_connection_set_address(struct trace_connection *connection,
                                  const struct sockaddr *address) {
  network_address_of_socket(address, connection->address);
  connection->client_port =
      ntohs(address->sa_family == AF_INET
                ? ((const struct sockaddr_in *)(const void *)address)->sin_port
                : ((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
}

void trace_connection_set_parent(struct trace_connection *connection, const char *parent,
                                 size_t parent_len, const char *state, size_t state_len) {
  if (trace_context_parse(parent, parent_len, &connection->parent) != 0) {
    return;
  }
  memcpy(connection->self.trace_id, connection->parent.trace_id, TRACE_ID_BYTES);
  decide(connection);
  if (trace_state_is_sound(state, state_len)) {
    connection->state = strndup(state, state_len);  // without memory it goes without
  }
}

void trace_connection_set_reason(struct trace_connection *connection, enum close_reason reason) {
  connection->reason = reason;
}

// Where the listener is bound to one address, that; else the client's port alone is known.
static void add_server(struct trace_connection *connection, struct span *span) {
  struct trace *trace = connection->trace;
  const char *addr = connection->listener->addr;
  const char *colon = strrchr(addr, ':');
  bool everywhere = strncmp(addr, "0.0.0.0:", 8) == 0 || strncmp(addr, "[::]:", 5) == 0;
  if (colon && !everywhere) {
    snprintf(trace->host, sizeof trace->host, "%.*s", (int)(colon - addr), addr);
    span_add_text(span, "server.address", trace->host);
  }
  span_add_integer(span, "server.port", connection->port);
}

static void add_client(struct trace_connection *connection, struct span *span) {
  static const uint8_t unknown[NETWORK_ADDRESS_BYTES];
  struct trace *trace = connection->trace;
  if (memcmp(connection->address, unknown, sizeof unknown) == 0) {
    return;
  }
  struct network network = {.prefix_bits = NETWORK_PREFIX_MAX_BITS};
  memcpy(network.address, connection->address, sizeof network.address);
  span_add_text(span, "network.type", network_is_ipv4(&network) ? "ipv4" : "ipv6");
  span_add_text(span, "client.address", network_format(&network, trace->text));
  span_add_integer(span, "client.port", connection->client_port);
}

static void record_close(struct trace_connection *connection, uint64_t end_ns) {
  struct trace_context self;
  struct span *span = connection->self.sampled && connection->closing_ns != 0
                          ? begin_child(connection, "close", OTLP__SPAN__SPAN_KIND__INTERNAL, &self)
                          : NULL;
  if (span) {
    span_set_times(span, connection->closing_ns, end_ns);
    span_add_text(span, "janus.close.reason", close_reason_name(connection->reason));
    finish(connection->trace, span);
  }
}

static void record_connection(struct trace_connection *connection, uint64_t end_ns) {
  const struct config_listener *listener = connection->listener;
  bool has_parent = trace_context_is_set(&connection->parent);
  bool failed = close_reason_is_failure(connection->reason);
  struct span *span =
      connection->self.sampled || failed
          ? begin_within(connection, "connection", OTLP__SPAN__SPAN_KIND__SERVER, &connection->self,
                         has_parent ? connection->parent.span_id : NULL)
          : NULL;
  if (!span) {
    return;
  }
  span_set_times(span, connection->start_ns, end_ns);
  if (connection->state) {
    span->span.trace_state = connection->state;
  }
  span_add_text(span, "network.transport", "tcp");
  span_add_text(span, "network.protocol.name",
                listener->transport == TRANSPORT_WS ? "websocket" : "janus");
  span_add_text(span, "janus.listener", config_listener_name(listener));
  add_client(connection, span);
  add_server(connection, span);
  span_add_text(span, "janus.close.reason", close_reason_name(connection->reason));
  if (failed) {
    span_set_error(span, close_reason_name(connection->reason));
  }
  finish(connection->trace, span);
}

void trace_connection_gone(struct trace_connection *connection) {
  uint64_t end_ns = now_ns();
  record_close(connection, end_ns);
  record_connection(connection, end_ns);
  trace_connection_unref(connection);
}

// --- The handshake -------------------------------------------------------------------------

// In their order: what each refuses for, and whether it is the master's.
static const struct check {
  enum close_reason reason;
  const char *name;
  bool of_keys;  // only with encryption on
  bool of_master;
} checks[] = {
    {CLOSE_HANDSHAKE_MALFORMED, "form", false, false},
    {CLOSE_HANDSHAKE_UNEXPECTED, "first_message", false, false},
    {CLOSE_TOKEN_EMPTY, "token_present", false, false},
    {CLOSE_HANDSHAKE_CLOCK, "clock", false, false},
    {CLOSE_TOKEN_ENCODING, "token_encoding", false, false},
    {CLOSE_TOKEN_SEAL, "token_seal", false, false},
    {CLOSE_TOKEN_CONTENT, "token_content", false, false},
    {CLOSE_TOKEN_EXPIRED, "token_expiry", false, false},
    {CLOSE_HANDSHAKE_RATE, "rate", false, false},
    {CLOSE_HANDSHAKE_SIGNATURE, "signature", true, false},
    {CLOSE_HANDSHAKE_KEY, "key", true, false},
    {CLOSE_HANDSHAKE_REPLAY, "replay", false, true},
    {CLOSE_BANNED, "ban", false, true},
    {CLOSE_CONFLICTING_LOGIN, "conflict", false, true},
};
enum { CHECKS = sizeof checks / sizeof checks[0] };

// Each check until the one that failed; none did with -1.
static void add_checks(struct trace_connection *connection, struct span *span, int failed,
                       uint64_t end_ns) {
  bool has_master = inbox_has_master(connection->trace->worker->inbox);
  bool encrypted = connection->trace->worker->config.label.encrypted;
  uint64_t checked_ns = connection->checked_ns != 0 ? connection->checked_ns : end_ns;
  for (int i = 0; i < CHECKS && (failed < 0 || i <= failed); i++) {
    if ((checks[i].of_keys && !encrypted) || (checks[i].of_master && !has_master)) {
      continue;
    }
    span_add_check(span, checks[i].of_master ? end_ns : checked_ns, checks[i].name, i != failed);
  }
}

static void record_handshake(struct trace_connection *connection, bool admitted,
                             enum close_reason reason) {
  bool failed = !admitted && close_reason_is_failure(reason);
  uint64_t start_ns = connection->handshake_ns;
  uint64_t end_ns = now_ns();
  struct trace_context self;
  int at = 0;
  connection->handshake_ns = 0;
  // One that the client gave up before it said a word is none.
  if (!failed && (!connection->self.sampled || (!admitted && connection->checked_ns == 0))) {
    return;
  }
  struct span *span = begin_child(connection, "handshake", OTLP__SPAN__SPAN_KIND__INTERNAL, &self);
  if (!span) {
    return;
  }
  span_set_times(span, start_ns, end_ns);
  while (!admitted && at < CHECKS && checks[at].reason != reason) {
    at++;
  }
  if (admitted || at < CHECKS) {
    add_checks(connection, span, admitted ? -1 : at, end_ns);
  }
  if (failed) {
    span_set_error(span, close_reason_name(reason));
  }
  finish(connection->trace, span);
}

// --- A session -----------------------------------------------------------------------------

void trace_session_began(struct session *session) {
  session->trace->handshake_ns = now_ns();
  session->trace->session_id = session->connection;
}

void trace_session_checked(struct session *session) {
  session->trace->checked_ns = now_ns();
  session->trace->uid = session->uid;
  session->trace->is_known = true;
}

void trace_session_admitted(struct session *session) {
  record_handshake(session->trace, true, CLOSE_INTERNAL);
}

// The message at hand goes nowhere.
static void record_refused(struct session *session, const struct packet *packet,
                           const char *error) {
  struct trace_connection *connection = session->trace;
  struct trace *trace = connection->trace;
  struct trace_context self;
  struct span *span = begin_child(connection, "message", OTLP__SPAN__SPAN_KIND__INTERNAL, &self);
  trace->of_message = NULL;
  if (!span) {
    return;
  }
  span_set_times(span, trace->message_ns, now_ns());
  if (packet) {
    span_add_integer(span, "janus.mod", packet->mod);
    span_add_integer(span, "janus.seq", packet->seq);
  }
  span_add_integer(span, "janus.message.bytes", (int64_t)trace->message_bytes);
  span_set_error(span, error);
  finish(trace, span);
}

void trace_session_closing(struct session *session, enum close_reason reason) {
  struct trace_connection *connection = session->trace;
  connection->reason = reason;
  connection->closing_ns = now_ns();
  if (connection->handshake_ns != 0) {
    record_handshake(connection, false, reason);
  }
  if (connection->trace->of_message == connection) {
    record_refused(session, NULL, close_reason_name(reason));
  }
}

// --- A message from the client --------------------------------------------------------------

void trace_message_came(struct session *session, size_t bytes) {
  struct trace *trace = session->trace->trace;
  trace->of_message = session->trace;
  trace->message_ns = now_ns();
  trace->message_bytes = bytes;
}

void trace_message_refused(struct session *session, const struct packet *packet,
                           const char *error) {
  record_refused(session, packet, error);
}

uint64_t trace_message_taken(struct session *session) {
  struct trace *trace = session->trace->trace;
  trace->of_message = NULL;
  return trace->message_ns;
}

static void add_tunnel(const struct tunnel *tunnel, struct span *span) {
  span_add_text(span, "janus.tunnel.type", tunnel->worker->config.tunnel.types[tunnel->type].name);
  span_add_integer(span, "janus.tunnel.object", tunnel->oid);
}

void trace_message_ended(struct tunnel *tunnel, const struct tunnel_queued *queued,
                         const char *error) {
  struct trace_connection *connection = tunnel->trace;
  struct trace_context self;
  struct packet packet;
  if (!connection->self.sampled && !error) {
    return;
  }
  struct span *span = begin_child(connection, "message", OTLP__SPAN__SPAN_KIND__INTERNAL, &self);
  if (!span) {
    return;
  }
  span_set_times(span, queued->came_ns, now_ns());
  add_tunnel(tunnel, span);
  if (tunnel_message_decode(&packet, queued->bytes, queued->len) == 0) {
    span_add_integer(span, "janus.mod", packet.mod);
    span_add_integer(span, "janus.seq", packet.seq);
  }
  span_add_integer(span, "janus.message.bytes", (int64_t)queued->len);
  if (error) {
    span_set_error(span, error);
  }
  finish(connection->trace, span);
}

// --- A tunnel --------------------------------------------------------------------------------

void trace_tunnel_began(struct tunnel *tunnel) {
  tunnel->opening.start_ns = now_ns();
  tunnel->opening.context = tunnel->trace->self;
  trace_span_id_make(tunnel->opening.context.span_id);
}

const char *trace_tunnel_state(const struct tunnel *tunnel) { return tunnel->trace->state; }

// server.address and server.port; the peer's address where the node is named by one.
static void add_node(struct trace *trace, const struct tunnel *tunnel, struct span *span) {
  const char *colon = strrchr(tunnel->address, ':');
  uint8_t address[NETWORK_ADDRESS_BYTES];
  if (!colon) {
    return;
  }
  bool in_brackets = tunnel->address[0] == '[' && colon[-1] == ']';
  snprintf(trace->host, sizeof trace->host, "%.*s",
           (int)(colon - tunnel->address) - 2 * in_brackets, tunnel->address + in_brackets);
  span_add_text(span, "server.address", trace->host);
  span_add_integer(span, "server.port", strtol(colon + 1, NULL, 10));
  if (network_parse_address(tunnel->address, address) == 0) {
    span_add_text(span, "network.peer.address", trace->host);
  }
}

void trace_tunnel_ended(struct tunnel *tunnel, int status) {
  static const char *const names[] = {"OK",
                                      "CANCELLED",
                                      "UNKNOWN",
                                      "INVALID_ARGUMENT",
                                      "DEADLINE_EXCEEDED",
                                      "NOT_FOUND",
                                      "ALREADY_EXISTS",
                                      "PERMISSION_DENIED",
                                      "RESOURCE_EXHAUSTED",
                                      "FAILED_PRECONDITION",
                                      "ABORTED",
                                      "OUT_OF_RANGE",
                                      "UNIMPLEMENTED",
                                      "INTERNAL",
                                      "UNAVAILABLE",
                                      "DATA_LOSS",
                                      "UNAUTHENTICATED"};
  struct trace_connection *connection = tunnel->trace;
  struct trace *trace = connection->trace;
  const char *method = tunnel->worker->config.tunnel.types[tunnel->type].method;
  const char *slash = strrchr(method, '/');
  uint64_t start_ns = tunnel->opening.start_ns;
  bool failed = status != STREAM_OK && status != STREAM_CANCELLED;  // the latter is our doing
  tunnel->opening.start_ns = 0;
  struct span *span = connection->self.sampled || failed
                          ? begin_within(connection, method + 1, OTLP__SPAN__SPAN_KIND__CLIENT,
                                         &tunnel->opening.context, connection->self.span_id)
                          : NULL;
  if (!span) {
    return;
  }
  span_set_times(span, start_ns, now_ns());
  if (connection->state) {
    span->span.trace_state = connection->state;
  }
  snprintf(trace->service, sizeof trace->service, "%.*s", (int)(slash - method) - 1, method + 1);
  span_add_text(span, "rpc.system", "grpc");
  span_add_text(span, "rpc.service", trace->service);
  span_add_text(span, "rpc.method", slash + 1);
  span_add_integer(span, "rpc.grpc.status_code", status);
  add_node(trace, tunnel, span);
  add_tunnel(tunnel, span);
  span_add_bool(span, "janus.tunnel.again", tunnel->broken_ms != 0);
  if (failed) {
    bool is_known = status > 0 && status < (int)(sizeof names / sizeof names[0]);
    span_set_error(span, is_known ? names[status] : "UNKNOWN");
  }
  finish(trace, span);
}

// --- A push ----------------------------------------------------------------------------------

void trace_push_ended(struct session *session, const struct push *push, const char *error) {
  struct trace_connection *connection = session->trace;
  struct trace *trace = connection->trace;
  const struct trace_context *parent = &push->about.parent;
  struct trace_context self;
  struct span *span = NULL;
  if (trace_context_is_set(parent)) {
    self = *parent;
    self.sampled = trace_sampler_takes(&trace->sampler, self.trace_id, parent);
    if (self.sampled || error) {
      trace_span_id_make(self.span_id);
      span =
          begin_within(connection, "push", OTLP__SPAN__SPAN_KIND__CONSUMER, &self, parent->span_id);
    }
  } else if (connection->self.sampled || error) {
    span = begin_child(connection, "push", OTLP__SPAN__SPAN_KIND__CONSUMER, &self);
  }
  if (!span) {
    return;
  }
  span_set_times(span, push->about.taken_ns, now_ns());
  span_add_integer(span, "janus.mod", push->about.mod);
  span_add_integer(span, "janus.seq", push->about.seq);
  span_add_integer(span, "janus.message.bytes", push->about.packet_bytes);
  span_add_bool(span, "janus.push.broadcast", push->about.serial != 0);
  if (error) {
    span_set_error(span, error);
  }
  finish(trace, span);
}

// --- Beginning and end -------------------------------------------------------------------------

struct trace *trace_new(struct worker *worker) {
  const struct config *config = &worker->config;
  double ratio = 1;
  struct trace *trace = calloc(1, sizeof *trace);
  if (!trace || !(trace->flush = evtimer_new(worker->base, on_flush, trace))) {
    free(trace);
    return NULL;
  }
  trace->worker = worker;
  (void)trace_ratio_parse(config->trace.ratio, &ratio);  // the configuration has been checked
  trace_sampler_init(&trace->sampler, config->trace.sampler, ratio);
  token_bucket_init(&trace->rate, config->trace.spans_per_s, config->trace.spans_per_s,
                    clock_monotonic_ms());
  return trace;
}

void trace_free(struct trace *trace) {
  if (trace) {
    event_free(trace->flush);
    free(trace);
  }
}
