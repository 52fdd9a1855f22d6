#include "worker/kcp_connection.h"

#include <sodium.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/networks.h"
#include "worker/acceptor.h"
#include "worker/kcp_closed.h"
#include "worker/kcp_engine.h"
#include "worker/kcp_forwarder.h"
#include "worker/kcp_listener.h"
#include "worker/session.h"
#include "worker/trace.h"

// An address gets no more than so many times what came from it, until somebody has logged in and it
// is known that the client is there: somebody may have put another's into his datagrams.
enum { AMPLIFICATION_MAX = 3 };
// Until somebody has logged in it takes up no more than a login on each of its streams needs.
enum { STRANGER_BYTES_MAX = 128 << 10 };
// It opens so many streams until it has shown that it is there; what comes behind them waits for
// that. The usual clients open 4.
enum { STRANGER_STREAMS = 8 };
// So often a client may open a stream, once it has opened kcp.streams of them and so many more:
// each is a session for us, and costs him 16 bytes to open and to end.
enum { STREAMS_PER_S = 10, STREAMS_MORE = 64 };

static struct worker *worker_of(const struct kcp_connection *connection) {
  return connection->engine->worker;
}

void kcp_connection_touch(struct kcp_connection *connection) {
  if (!connection->is_dirty) {
    connection->is_dirty = true;
    kcp_engine_touch(connection->engine, connection);
  }
}

// --- What the link says ------------------------------------------------------------------------

// Who only listens has sent no message of his own, but he acknowledges ours.
static bool is_bounded(const struct kcp_connection *connection) {
  return !connection->address_validated &&
         (connection->pending || !link_peer_is_there(connection->link));
}

static void on_output(const uint8_t *datagram, size_t len, void *owner) {
  struct kcp_connection *connection = owner;
  if (is_bounded(connection) &&
      connection->bytes_out + len > AMPLIFICATION_MAX * connection->bytes_in) {
    counters_add(worker_of(connection)->counters, COUNTER_KCP_DROPPED_AMPLIFICATION, 1);
    return;
  }
  connection->bytes_out += len;
  kcp_listener_send(connection->listener, &connection->peer, datagram, len);
}

static void on_dirty(void *owner) { kcp_connection_touch(owner); }

static struct wire *make_wire(void *context, const struct wire_events *events, void *owner) {
  return wire_stream_attach(context, events, owner);
}

// A stream's place is its connection's, and goes with it.
static void on_transport_gone(void *context, void *cookie) {
  (void)context;
  (void)cookie;
}

static struct transport *make_transport(void *context, const struct transport_events *events,
                                        void *owner) {
  static const struct transport_gone gone = {.on_gone = on_transport_gone};
  return transport_framed_new(make_wire, context, events, owner, &gone, NULL);
}

static bool may_open(struct kcp_connection *connection) {
  int64_t streams = worker_of(connection)->config.kcp.streams;
  int64_t now_ms = clock_monotonic_ms();
  if (connection->pending && connection->opened >= streams) {
    return false;
  }
  token_bucket_set(&connection->opening, STREAMS_PER_S, streams + STREAMS_MORE, now_ms);
  return token_bucket_take(&connection->opening, 1, now_ms);
}

static void *on_open(struct smux_stream *stream, void *owner) {
  struct kcp_connection *connection = owner;
  struct worker *worker = worker_of(connection);
  const struct listener *listener = connection->listener->listener;
  char address[64];
  if (connection->closing || worker->stopping) {
    return NULL;
  }
  if (!may_open(connection)) {
    counters_add(worker->counters, COUNTER_KCP_STREAMS_REFUSED, 1);
    return NULL;
  }
  struct trace_connection *trace = trace_accepted(worker->trace, listener->config, listener->port);
  struct wire_stream *wire = wire_stream_new(connection, stream, trace);
  if (!wire) {
    trace_gone(trace);
    return NULL;
  }
  trace_address(trace, &connection->peer.address.any);
  network_format_socket(&connection->peer.address.any, kcp_peer_address_len(&connection->peer),
                        address, sizeof address);
  if (!session_new(worker, LISTENER_KIND_KCP, address, connection->client, trace, make_transport,
                   wire)) {
    wire_stream_drop(wire);
    return NULL;
  }
  if (++connection->opened >= STRANGER_STREAMS) {
    link_wait_for_peer(connection->link);
  }
  return wire;
}

// --- The end -----------------------------------------------------------------------------------

// Counted this often while it is busy, and when nothing is due for as long.
enum { COUNT_INTERVAL_MS = 1000 };

// Adds what has come about since to the counters.
static void count(struct kcp_connection *connection, int64_t now_ms) {
  struct counters *counters = worker_of(connection)->counters;
  struct link_state now;
  const struct link_state *before = &connection->counted;
  link_describe(connection->link, &now);
  const struct {
    enum counter counter;
    uint64_t now, before;
  } all[] = {
      {COUNTER_KCP_MALFORMED, now.malformed_in, before->malformed_in},
      {COUNTER_KCP_SEGMENTS_IN, now.kcp_counts.segments_in, before->kcp_counts.segments_in},
      {COUNTER_KCP_SEGMENTS_OUT, now.kcp_counts.segments_out, before->kcp_counts.segments_out},
      {COUNTER_KCP_RETRANSMITS, now.kcp_counts.retransmits, before->kcp_counts.retransmits},
      {COUNTER_KCP_FAST_RETRANSMITS, now.kcp_counts.fast_retransmits,
       before->kcp_counts.fast_retransmits},
      {COUNTER_KCP_WINDOW_STALLS, now.kcp_counts.window_stalls, before->kcp_counts.window_stalls},
      {COUNTER_KCP_DUPLICATES, now.kcp_counts.duplicates_in, before->kcp_counts.duplicates_in},
      {COUNTER_KCP_FEC_PARITY, now.fec.parity_in, before->fec.parity_in},
      {COUNTER_KCP_FEC_RECOVERED, now.fec.recovered, before->fec.recovered},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    if (all[i].now != all[i].before) {
      counters_add(counters, all[i].counter, all[i].now - all[i].before);
    }
  }
  if (now.kcp.has_round_trip && now.kcp_counts.segments_out != before->kcp_counts.segments_out) {
    counters_record_us(counters, HISTOGRAM_KCP_ROUND_TRIP, (int64_t)now.kcp.srtt_ms * 1000);
  }
  connection->counted = now;
  connection->counted_ms = now_ms;
}

void kcp_connection_cut(struct kcp_connection *connection) {
  struct kcp_engine *engine = connection->engine;
  struct worker *worker = engine->worker;
  int64_t now_ms = clock_monotonic_ms();
  count(connection, now_ms);
  kcp_engine_set_timer(engine, &connection->timer, TIMER_WHEEL_NEVER);
  if (connection->is_dirty) {
    kcp_engine_untouch(engine, connection);
  }
  if (connection->pending) {
    kcp_engine_leave_pending(engine, connection);
  }
  kcp_listener_forget(connection->listener, connection);
  kcp_closed_add(engine->closed, &connection->peer, connection->conv, now_ms);
  link_free(connection->link);
  struct place *place = connection->place;
  free(connection);
  worker->transport_gone.on_gone(worker->transport_gone.context, place);
}

static void end_wires(struct kcp_connection *connection, enum close_reason reason) {
  while (!LIST_EMPTY(&connection->wires)) {
    wire_stream_end(LIST_FIRST(&connection->wires), reason);
  }
}

void kcp_connection_end(struct kcp_connection *connection, enum close_reason reason) {
  connection->closing = true;
  end_wires(connection, reason);
  kcp_connection_cut(connection);
}

static enum close_reason reason_of(int error) {
  switch (error) {
    case ERROR_EXPIRED: return CLOSE_KCP_SILENT;
    case ERROR_MALFORMED: return CLOSE_SMUX_MALFORMED;
    default: return CLOSE_OUT_OF_MEMORY;
  }
}

void kcp_connection_give_up(struct kcp_connection *connection, int64_t now_ms) {
  connection->closing = true;
  end_wires(connection, CLOSE_HANDSHAKE_TIMEOUT);
  int error = link_flush(connection->link, now_ms);
  (void)error;  // it changes nothing any more
  kcp_connection_cut(connection);
}

// After anything that the link did: what comes next, and when. The connection may be gone after
// this.
static void settle(struct kcp_connection *connection, int error, int64_t now_ms) {
  if (error != 0) {
    kcp_connection_end(connection, reason_of(error));
    return;
  }
  if (!connection->closing && connection->opened > 0 && LIST_EMPTY(&connection->wires)) {
    connection->closing = true;
    connection->give_up_ms = now_ms + worker_of(connection)->wires.linger_ms;
    kcp_connection_touch(connection);
  }
  bool is_limited = connection->closing || connection->pending;
  if (connection->closing && !connection->is_dirty && link_is_settled(connection->link)) {
    kcp_connection_cut(connection);
    return;
  }
  if (is_limited && now_ms >= connection->give_up_ms) {
    kcp_connection_give_up(connection, now_ms);
    return;
  }
  if (connection->is_dirty) {
    return;  // it is flushed in this turn of the loop, and comes here again
  }
  int64_t due_ms = link_due(connection->link, now_ms);
  if (due_ms - now_ms >= COUNT_INTERVAL_MS ||
      now_ms - connection->counted_ms >= COUNT_INTERVAL_MS) {
    count(connection, now_ms);
  }
  if (is_limited && connection->give_up_ms < due_ms) {
    due_ms = connection->give_up_ms;
  }
  kcp_engine_set_timer(connection->engine, &connection->timer, due_ms);
}

// --- Datagrams and time --------------------------------------------------------------------------

void kcp_connection_input(struct kcp_connection *connection, uint8_t *bytes, size_t len,
                          int64_t now_ms) {
  connection->bytes_in += len;
  if (connection->pending && connection->bytes_in > STRANGER_BYTES_MAX) {
    kcp_connection_end(connection, CLOSE_HANDSHAKE_UNEXPECTED);
    return;
  }
  int error = link_input(connection->link, bytes, len, now_ms);
  if (connection->pending && link_peer_is_there(connection->link)) {
    kcp_strangers_know(connection->engine->strangers, &connection->stranger);
  }
  settle(connection, error, now_ms);
}

bool kcp_connection_is_next(const struct kcp_connection *connection, const uint8_t *bytes,
                            size_t len) {
  uint8_t copy[FEC_DATAGRAM_MAX_BYTES];
  const uint8_t *payload;
  size_t payload_len;
  if (connection->closing || connection->pending) {
    return false;
  }
  struct wire_stream *wire = link_peek(connection->link, bytes, len, copy, &payload, &payload_len);
  return wire && wire_stream_is_next(wire, payload, payload_len);
}

// Those that were resumed get what they have not used. Each may close any other.
static void resume_wires(struct kcp_connection *connection) {
  struct wire_stream *wire;
  while (connection->resuming) {
    connection->resuming = false;
    LIST_FOREACH(wire, &connection->wires, sibling) {
      if (wire->resuming) {
        connection->resuming = true;
        wire_stream_go_on(wire);
        break;  // the list may be another now
      }
    }
  }
}

void kcp_connection_flush(struct kcp_connection *connection, int64_t now_ms) {
  connection->is_dirty = false;
  resume_wires(connection);
  int error = link_flush(connection->link, now_ms);
  settle(connection, error, now_ms);
}

void kcp_connection_on_timer(void *owner) {
  struct kcp_connection *connection = owner;
  int64_t now_ms = clock_monotonic_ms();
  settle(connection, link_tick(connection->link, now_ms), now_ms);
}

// --- The beginning -------------------------------------------------------------------------------

void kcp_connection_logged_in(struct kcp_connection *connection) {
  if (connection->pending) {
    kcp_engine_leave_pending(connection->engine, connection);
  }
}

void kcp_connection_address_validated(struct kcp_connection *connection) {
  if (!connection->address_validated) {
    connection->address_validated = true;
    kcp_forwarder_tell(connection->engine->forwarder, connection);
    kcp_listener_supersede(connection->listener, connection);
  }
}

struct wire_shared *kcp_connection_wires(const struct kcp_connection *connection) {
  return &worker_of(connection)->wires;
}

void kcp_connection_describe(const struct kcp_connection *connection,
                             const struct smux_stream *stream, struct wire_path *path) {
  struct link_state state;
  link_describe(connection->link, &state);
  *path = (struct wire_path){.srtt_ms = state.kcp.srtt_ms,
                             .rto_ms = state.kcp.rto_ms,
                             .client_window = state.kcp.peer_window,
                             .gateway_window = state.kcp.receive_window_free,
                             .in_flight = state.kcp.in_flight,
                             .stream_window = smux_send_window(stream),
                             .segments_in = state.kcp_counts.segments_in,
                             .segments_out = state.kcp_counts.segments_out,
                             .retransmits = state.kcp_counts.retransmits,
                             .recovered = state.fec.recovered,
                             .datagrams_in = state.datagrams_in,
                             .datagrams_out = state.datagrams_out,
                             .streams = (uint32_t)state.streams};
}

struct kcp_connection *kcp_connection_new(struct kcp_listener *listener,
                                          const struct kcp_peer *peer, uint32_t conv,
                                          struct place *place, int64_t now_ms) {
  static const struct link_events events = {.output = on_output,
                                            .on_dirty = on_dirty,
                                            .streams = {.on_open = on_open,
                                                        .on_bytes = wire_stream_on_bytes,
                                                        .on_ended = wire_stream_on_ended,
                                                        .on_sent = wire_stream_on_sent}};
  struct kcp_engine *engine = listener->engine;
  struct kcp_connection *connection = calloc(1, sizeof *connection);
  if (!connection) {
    return NULL;
  }
  connection->link = link_new(conv, &engine->link, &events, connection, now_ms);
  if (!connection->link) {
    free(connection);
    return NULL;
  }
  link_hide_clock(connection->link, randombytes_random());
  connection->engine = engine;
  connection->listener = listener;
  connection->peer = *peer;
  kcp_peer_key(peer, connection->key);
  connection->conv = conv;
  connection->client = session_draw_number(engine->worker);
  connection->place = place;
  connection->counted_ms = now_ms;
  connection->give_up_ms = now_ms + engine->worker->config.limits.handshake_timeout_ms;
  connection->timer.owner = connection;
  connection->stranger.owner = connection;
  LIST_INIT(&connection->wires);
  if (kcp_engine_add_pending(engine, connection, now_ms) != 0) {
    link_free(connection->link);
    free(connection);
    return NULL;
  }
  return connection;
}
