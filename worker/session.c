#include "worker/session.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cache_line.h"
#include "common/clock.h"
#include "common/frame.h"
#include "common/loop.h"
#include "common/prefetch.h"
#include "worker/inbox.h"
#include "worker/login.h"
#include "worker/packing.h"
#include "worker/player.h"
#include "worker/pushes.h"
#include "worker/session_log.h"
#include "worker/session_output.h"
#include "worker/trace.h"
#include "worker/watch.h"

#define LOG_MODULE LOG_MODULE_SESSION

_Static_assert(offsetof(struct session, link) <= 2 * CACHE_LINE_BYTES,
               "what every message touches");

// --- The way out -------------------------------------------------------------

void session_log(struct session *session, enum worker_log kind, const char *reason) {
  uint64_t suppressed;
  if (!log_enabled(LOG_LEVEL_INFO) || !worker_may_log(session->worker, kind, &suppressed)) {
    return;
  }
  char color[2 * sizeof session->color];
  char fields[SESSION_LOG_BYTES];
  log_info(kind == WORKER_LOG_OPENED ? "session_opened" : "session_closed",
           "%s%s%s%s address=%s transport=%s sid=%" PRId64 " color=%s suppressed=%" PRIu64,
           reason ? "reason=" : "", reason ? reason : "", reason ? " " : "",
           session_log_fields(fields, session->connection, session->uid, session->trace),
           // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): it is not closed twice
           session->address, session->transport->name, session->sid,
           log_quote(color, sizeof color, session->color, strlen(session->color)), suppressed);
}

static void close_with(struct session *session, enum close_reason reason, enum logout_code code) {
  struct worker *worker = session->worker;
  if (session->state == SESSION_CLOSED) {
    return;
  }
  bool was_playing = session->state == SESSION_PLAYING;
  bool is_known = was_playing || session->state == SESSION_ADMISSION;  // to the master
  login_forget(session);
  counters_add(worker->counters, COUNTER_DROPPED_OUT, packing_drop(worker->packing, session));
  if (was_playing && code != LOGOUT_NONE) {
    session_send_logout(session, code);
  }
  if (is_known) {
    pushes_on_session_end(worker->pushes, session);
  }
  if (session->watched) {
    watch_session_end(session);
  }
  session->state = SESSION_CLOSED;
  trace_closing(session, reason);
  counters_closed(worker->counters, reason);
  session_log(session, WORKER_LOG_CLOSED, close_reason_name(reason));

  event_del(&session->timer);
  if (session->delays) {
    event_del(&session->delays->rate);
    event_del(&session->delays->grace);
  }
  session_leave_pushes(session, session->player ? player_leave(session) : NULL);
  bool client_is_there = reason != CLOSE_CLIENT_CLOSED && reason != CLOSE_CLIENT_RESET;
  transport_close(session->transport, reason, was_playing && client_is_there);
  session->transport = NULL;
  if (was_playing) {
    counters_split_add(worker->counters, SPLIT_SESSIONS, session->listener_kind, -1);
  }
  if (is_known) {
    struct channel_session_closed closed = {.connection = session->connection, .reason = reason};
    HASH_DELETE(hh, worker->logged_in, session);
    inbox_tell(worker->inbox, CHANNEL_SESSION_CLOSED, &closed);
  }
  LIST_REMOVE(session, link);
  LIST_INSERT_HEAD(&worker->dead_sessions, session, link);
  event_active(worker->bury, EV_TIMEOUT, 0);
}

void session_close(struct session *session, enum close_reason reason) {
  close_with(session, reason, close_reason_logout_code(reason));
}

static void close_player_with(struct session *session, enum close_reason reason,
                              enum logout_code code) {
  struct player *player = session->player;
  if (!player) {
    close_with(session, reason, code);
    return;
  }
  // The oldest last: what waits for the player waits there.
  while (!player_is_over(player)) {
    close_with(TAILQ_LAST(&player->sessions, player_sessions), reason, code);
  }
}

void session_close_player(struct session *session, enum close_reason reason) {
  close_player_with(session, reason, close_reason_logout_code(reason));
}

void session_bury_all(struct worker *worker) {
  struct session *session;
  while ((session = LIST_FIRST(&worker->dead_sessions))) {
    LIST_REMOVE(session, link);
    trace_forget_session(session);
    seal_free(session->seal);
    player_free(session->player);
    free(session->handshake);
    free(session->delays);
    free(session);
  }
}

// --- In ----------------------------------------------------------------------

void session_pause_input(struct session *session) { transport_pause(session->transport); }

void session_resume_input(struct session *session) {
  if (!session->rate_paused && !session->held_by && session->packing == 0) {
    transport_resume(session->transport);
  }
}

static void go_on(struct session *session) {
  session_resume_input(session);
  if (session->watched && !session->rate_paused && !session->held_by) {
    watch_event(session, WATCHED_INPUT_RESUMED);
  }
}

static void on_rate_allows(evutil_socket_t fd, short what, void *owner) {
  struct session *session = owner;
  (void)fd;
  (void)what;
  session->rate_paused = false;
  session->arrived_us = clock_monotonic_us();
  go_on(session);
}

struct session_delays *session_delays(struct session *session) {
  struct event_base *base = session->worker->base;
  if (!session->delays && (session->delays = calloc(1, sizeof *session->delays))) {
    evtimer_assign(&session->delays->rate, base, on_rate_allows, session);
    evtimer_assign(&session->delays->grace, base, session_on_grace_over, session);
  }
  return session->delays;
}

// Takes the message, or more bytes of it, from the session's rates. Over them the message at hand
// is still served, but the client is read no further until the rate allows it. False when out of
// memory.
static bool charge_rate(struct session *session, size_t messages, size_t bytes) {
  const struct client_rates *rates = &session->worker->client_rates;
  int64_t wait_ms =
      client_levels_charge(&session->levels, rates, messages, bytes, session->arrived_us / 1000);
  if (wait_ms == 0) {
    return true;
  }
  struct session_delays *delays = session_delays(session);
  if (!delays) {
    return false;
  }
  if (!session->rate_paused) {
    session->rate_paused = true;
    counters_add(session->worker->counters, COUNTER_RATE_PAUSES, 1);
    session_pause_input(session);
    if (session->watched) {
      watch_event(session, WATCHED_INPUT_PAUSED);
    }
  }
  loop_start_timer(&delays->rate, wait_ms);
  return true;
}

void session_rates_changed(struct session *session) {
  if (session->rate_paused) {
    int64_t wait_ms = client_levels_charge(&session->levels, &session->worker->client_rates, 0, 0,
                                           clock_monotonic_ms());
    loop_start_timer(&session->delays->rate, wait_ms > 0 ? wait_ms : 1);
  }
}

void session_tunnel_full(struct session *session, struct tunnel *tunnel) {
  if (!session->held_by) {
    session->held_by = tunnel;
    counters_add(session->worker->counters, COUNTER_INPUT_PAUSES, 1);
    session_pause_input(session);
    if (session->watched) {
      watch_event(session, WATCHED_INPUT_PAUSED);
    }
  }
}

void session_tunnel_relieved(struct session *session) {
  session->held_by = NULL;
  if (session->state == SESSION_PLAYING) {
    session->arrived_us = clock_monotonic_us();
    go_on(session);
  }
}

// Finds the tunnel for the message and queues it there.
static void forward(struct session *session, struct packet *packet) {
  struct worker *worker = session->worker;
  int type_index = dispatch_find(&worker->dispatch, packet->mod);
  if (type_index == DISPATCH_NONE) {
    counters_add(worker->counters, COUNTER_UNKNOWN_MODULES, 1);
    session_send_unexpected_error(session, packet->mod, packet->seq,
                                  "no tunnel serves this module");
    trace_unserved(session, packet, "unknown_module");
    return;
  }
  if (packet->obj == 0) {
    packet->obj = session->uid;
  }
  if (worker->config.tunnel.types[type_index].own_object_only && packet->obj != session->uid) {
    counters_add(worker->counters, COUNTER_FOREIGN_OBJECTS, 1);
    session_send_unexpected_error(session, packet->mod, packet->seq,
                                  "this object belongs to another player");
    trace_unserved(session, packet, "foreign_object");
    return;
  }
  bool limited = false;
  struct tunnel *tunnel = tunnel_get(session, type_index, packet->obj, &limited);
  if (tunnel) {
    tunnel_send(tunnel, session, packet);
  } else if (limited) {
    counters_add(worker->counters, COUNTER_TUNNEL_LIMITED, 1);
    session_send_unexpected_error(session, packet->mod, packet->seq,
                                  "this session has too many tunnels open");
    trace_unserved(session, packet, "tunnel_limited");
  } else {
    session_close(session, CLOSE_OUT_OF_MEMORY);
  }
}

static void on_packet(struct session *session, uint8_t *bytes, size_t len) {
  struct worker *worker = session->worker;
  struct packet packet;

  if (session->seal) {
    int error = seal_open_in_place(session->seal, bytes, len, &bytes, &len);
    if (error != 0) {
      session_close(session, error == ERROR_REPLAY ? CLOSE_SEAL_REPLAY : CLOSE_SEAL_BROKEN);
      return;
    }
  }
  if (packet_decode(&packet, bytes, len) != 0) {
    session_close(session, CLOSE_PACKET_MALFORMED);
    return;
  }
  if (session->seal) {
    if (packet.index != session->next_index) {
      session_close(session, CLOSE_INDEX_WRONG);
      return;
    }
    // Wraps as the client's int32 does.
    session->next_index = (int32_t)((uint32_t)session->next_index + 1);
    // Only who has the key can have sent it: a forger has another's address, but not that.
    if (session->traffic.messages_in == 1) {
      transport_address_validated(session->transport);
    }
  }
  size_t data_bytes = packet.data_len;
  if (packet.compress) {
    int error = deflater_inflate(worker->deflater, packet.data, packet.data_len,
                                 (size_t)worker->config.limits.inflated_bytes, &packet.data,
                                 &packet.data_len);
    if (error != 0) {
      session_close(session, error == ERROR_TOO_LARGE ? CLOSE_INFLATE_TOO_LARGE
                             : error == ERROR_MEMORY  ? CLOSE_OUT_OF_MEMORY
                                                      : CLOSE_INFLATE_MALFORMED);
      return;
    }
    counters_add(worker->counters, COUNTER_INFLATED, 1);
    // It was charged for as it came; but what it makes of itself is what a backend has to take.
    if (packet.data_len > data_bytes && !charge_rate(session, 0, packet.data_len - data_bytes)) {
      session_close(session, CLOSE_OUT_OF_MEMORY);
      return;
    }
  }
  if (session->watched) {
    watch_from_client(session, &packet, data_bytes, len);
  }
  forward(session, &packet);
}

void session_describe(const struct session *session, struct channel_session *described) {
  *described = (struct channel_session){.connection = session->connection,
                                        .client = session->client,
                                        .uid = session->uid,
                                        .sid = session->sid,
                                        .since_ms = session->since_ms};
  memcpy(described->color, session->color, sizeof session->color);
  memcpy(described->address, session->address, sizeof session->address);
  snprintf(described->transport, sizeof described->transport, "%s", session->transport->name);
}

struct session *session_find(struct worker *worker, uint64_t connection) {
  struct session *session = NULL;
  HASH_FIND(hh, worker->logged_in, &connection, sizeof connection, session);
  return session;
}

void session_prefetch(const struct session *session) {
  prefetch(session, offsetof(struct session, link));
}

void session_prefetch_parts(const struct session *session) {
  prefetch(session->player, sizeof *session->player);
  seal_prefetch(session->seal);
  transport_prefetch(session->transport);
}

void session_on_close(struct worker *worker, const struct channel_session_close *close) {
  struct session *session = session_find(worker, close->connection);
  bool is_reason = (unsigned)close->reason < CLOSE_REASON_COUNT;
  if (session) {
    close_player_with(session, is_reason ? (enum close_reason)close->reason : CLOSE_INTERNAL,
                      (enum logout_code)close->code);
  }
}

// Sealed with the session's key, and with the index that comes next: neither made by somebody else,
// nor recorded and sent again.
static bool is_next(const uint8_t *bytes, size_t len, void *owner) {
  struct session *session = owner;
  uint8_t copy[FRAME_BODY_MAX_BYTES];
  uint8_t *plain;
  struct packet packet;
  if (session->state != SESSION_PLAYING || !session->seal || len > sizeof copy) {
    return false;
  }
  memcpy(copy, bytes, len);
  return seal_open_in_place(session->seal, copy, len, &plain, &len) == 0 &&
         packet_decode(&packet, plain, len) == 0 && packet.index == session->next_index;
}

static void on_message(uint8_t *bytes, size_t len, void *owner) {
  struct session *session = owner;
  session->arrived_us = clock_monotonic_us();
  if (session->state == SESSION_HANDSHAKE) {
    login_on_handshake(session, bytes, len);
    return;
  }
  counters_add(session->worker->counters, COUNTER_MESSAGES_IN, 1);
  session->traffic.messages_in++;
  session->traffic.bytes_in += len;
  if (session->watched) {
    watch_arrived(session, len);
  }
  trace_message(session, len);
  if (!charge_rate(session, 1, len)) {
    session_close(session, CLOSE_OUT_OF_MEMORY);
    return;
  }
  on_packet(session, bytes, len);
  if (session->watched) {
    watch_done(session);
  }
}

static void on_trace_context(const char *parent, size_t parent_len, const char *state,
                             size_t state_len, void *owner) {
  trace_parent(owner, parent, parent_len, state, state_len);
}

static void on_ended(enum close_reason reason, void *owner) { session_close(owner, reason); }

// --- Time --------------------------------------------------------------------

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct session *session = owner;
  const struct config *config = &session->worker->config;
  (void)fd;
  (void)what;
  if (session->state != SESSION_PLAYING) {
    session_close(session, CLOSE_HANDSHAKE_TIMEOUT);
    return;
  }
  // The timer is not set anew with each message; it looks when it fires.
  int64_t quiet_ms = session->rate_paused ? 0 : session_quiet_ms(session);
  int64_t left_ms = config->limits.idle_timeout_ms - quiet_ms;
  if (left_ms > 0) {
    loop_start_timer(&session->timer, left_ms);
  } else if (session->held_by) {
    session_close_player(session, CLOSE_TUNNEL_STALLED);
  } else {
    session_close(session, CLOSE_IDLE_TIMEOUT);
  }
}

// --- The beginning -----------------------------------------------------------

// No two have the same, whichever worker they are in and however often it was started:
// microseconds since the epoch at the start, the worker's index in the low bits, counted up from
// there.
uint64_t session_draw_number(const struct worker *worker) {
  enum { INDEX_BITS = 7 };
  _Static_assert(1 << INDEX_BITS >= CONFIG_WORKER_NUMBERS, "every worker has a number");
  static uint64_t next;
  if (next == 0) {
    next = (uint64_t)clock_wall_ms() * 1000;
  }
  return next++ << INDEX_BITS | (uint64_t)worker->index;
}

bool session_new(struct worker *worker, enum listener_kind kind, const char *address,
                 uint64_t client, struct trace_connection *trace, transport_maker *make,
                 void *context) {
  static const struct transport_events events = {.on_message = on_message,
                                                 .is_next = is_next,
                                                 .on_ended = on_ended,
                                                 .on_drained = session_on_drained,
                                                 .on_trace_context = on_trace_context};
  struct session *session = cache_line_calloc(sizeof *session);
  if (!session) {
    return false;
  }
  session->worker = worker;
  session->listener_kind = kind;
  session->state = SESSION_HANDSHAKE;
  session->connection = session_draw_number(worker);
  session->client = client != 0 ? client : session->connection;
  session->arrived_us = clock_monotonic_us();
  strncpy(session->address, address, sizeof session->address - 1);
  client_levels_init(&session->levels, &worker->client_rates, session->arrived_us / 1000);
  session->transport = make(context, &events, session);
  if (!session->transport) {
    free(session);
    return false;
  }
  evtimer_assign(&session->timer, worker->base, on_timer, session);
  event_add(&session->timer, worker->handshake_timeout);
  LIST_INSERT_HEAD(&worker->sessions, session, link);
  trace_session(session, trace);
  return true;
}
