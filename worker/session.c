#include "worker/session.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/packet_deflate.h"
#include "common/system_message.h"
#include "worker/inbox.h"
#include "worker/pushes.h"
#include "worker/tunnel.h"

// During the grace time so many times push.waiting_bytes may wait: a burst cuts nobody.
enum { PUSH_GRACE_FACTOR = 4 };

static void add_timer(struct event *timer, int64_t ms) {
  struct timeval time = clock_timeval(ms);
  evtimer_add(timer, &time);
}

// --- Out -------------------------------------------------------------------

// Seals and sends what stands at worker->send_buffer, behind the headroom and,
// with encryption on, the nonce.
static int send_sealed(struct session *session, size_t plain_len) {
  uint8_t *buffer = session->worker->send_buffer;
  size_t len = plain_len;
  if (session->seal) {
    int error = seal_in_place(session->seal, buffer + TRANSPORT_HEADROOM_BYTES, plain_len);
    if (error != 0) {
      return error;
    }
    len += SEAL_OVERHEAD_BYTES;
  }
  session->traffic.messages_out++;
  session->traffic.bytes_out += len;
  return transport_send(session->transport, buffer, len);
}

// Where a message is put together before send_plain.
static uint8_t *plain_place(const struct session *session) {
  return session->worker->send_buffer + TRANSPORT_HEADROOM_BYTES +
         (session->seal ? SEAL_NONCE_BYTES : 0);
}

static size_t sealed_size(const struct session *session, size_t plain_len) {
  return plain_len + (session->seal ? SEAL_OVERHEAD_BYTES : 0);
}

// Too much waits for the client: its tunnels are read no further, pushes wait aside, and
// it has the grace time to catch up.
static void check_output(struct session *session) {
  const struct config *config = &session->worker->config;
  if (!session->output_full &&
      transport_queued_bytes(session->transport) > (size_t)config->queue.client_high_bytes) {
    session->output_full = true;
    counters_add(session->worker->counters, COUNTER_OUTPUT_PAUSES, 1);
    add_timer(&session->grace_timer, config->queue.client_grace_ms);
  }
}

static int send_plain(struct session *session, size_t plain_len) {
  int error = send_sealed(session, plain_len);
  if (error == 0) {
    counters_add(session->worker->counters, COUNTER_MESSAGES_OUT, 1);
    check_output(session);
  }
  return error;
}

// ERROR_TOO_LARGE when the message is over what a client takes.
static int try_send(struct session *session, const struct packet *packet) {
  struct worker *worker = session->worker;
  struct packet packed;
  int error = packet_deflate(worker->deflater, &worker->config, packet, &packed);
  if (error != 0) {
    return error;
  }
  counters_add(worker->counters, COUNTER_DEFLATED, packed.compress && !packet->compress);
  size_t plain_len = packet_size(&packed);
  if (sealed_size(session, plain_len) > (size_t)worker->config.limits.message_to_client_bytes) {
    return ERROR_TOO_LARGE;
  }
  packet_encode(&packed, plain_place(session));
  return send_plain(session, plain_len);
}

// Why a session ends to which something could not be sent.
static enum close_reason reason_of(int error) {
  return error == ERROR_EXHAUSTED ? CLOSE_SEAL_EXHAUSTED
         : error == ERROR_MEMORY  ? CLOSE_OUT_OF_MEMORY
                                  : CLOSE_INTERNAL;
}

void session_send(struct session *session, const struct packet *packet) {
  struct worker *worker = session->worker;
  if (session->state != SESSION_PLAYING) {
    counters_add(worker->counters, COUNTER_DROPPED_OUT, 1);
    return;
  }
  int error = try_send(session, packet);
  switch (error) {
    case 0: return;
    case ERROR_TOO_LARGE: {
      uint64_t suppressed;
      counters_add(worker->counters, COUNTER_TOO_LARGE_OUT, 1);
      if (worker_may_log(worker, WORKER_LOG_MESSAGE, &suppressed)) {
        log_warn("message_too_large", "uid=%" PRId64 " mod=%d seq=%d data_bytes=%zu", session->uid,
                 packet->mod, packet->seq, packet->data_len);
      }
      session_send_unexpected_error(session, packet->mod, packet->seq,
                                    "the server's message is larger than a client takes");
      return;
    }
    default: session_close(session, reason_of(error)); return;
  }
}

void session_send_unexpected_error(struct session *session, int32_t mod, int32_t seq,
                                   const char *text) {
  uint8_t data[SYSTEM_MESSAGE_MAX_BYTES];
  struct packet packet = system_message_unexpected_error(mod, seq, text, data);
  counters_add(session->worker->counters, COUNTER_UNEXPECTED_ERRORS, 1);
  session_send(session, &packet);
}

static void send_logout(struct session *session, enum logout_code code) {
  uint8_t data[SYSTEM_MESSAGE_MAX_BYTES];
  struct packet packet = system_message_logout(code, data);
  if (try_send(session, &packet) != 0) {
    counters_add(session->worker->counters, COUNTER_DROPPED_OUT, 1);
  }
}

// --- Pushes ------------------------------------------------------------------

// Sends it. The session may be closed in consequence: by a failure, or by a logout.
static void deliver(struct session *session, const struct push *push) {
  struct worker *worker = session->worker;
  size_t len = push->about.packet_bytes;
  int error = ERROR_TOO_LARGE;
  if (sealed_size(session, len) <= (size_t)worker->config.limits.message_to_client_bytes) {
    memcpy(plain_place(session), push->packet, len);
    error = send_plain(session, len);
  }
  counters_add(worker->counters, error == 0 ? COUNTER_PUSHES_DELIVERED : COUNTER_PUSHES_MISSED, 1);
  if (error != 0) {
    session_close(session, reason_of(error));
  } else if (session_is_logout(push->about.mod, push->about.seq)) {
    session_close(session, CLOSE_ROMA_LOGOUT);
  }
}

// What waits is over a bound: something gives way, as the setting asks. Nothing does with
// `disconnect`, nor when all that waits is different with `conflate`.
static void make_room(struct session *session, size_t bytes) {
  struct counters *counters = session->worker->counters;
  enum slow_client policy = session->worker->config.push.slow_client;
  size_t gone = 0;
  if (policy == SLOW_CLIENT_DROP_OLDEST) {
    gone = push_queue_drop_oldest(&session->pushes, bytes);
    counters_add(counters, COUNTER_PUSHES_DROPPED_OLDEST, gone);
  } else if (policy == SLOW_CLIENT_CONFLATE) {
    gone = push_queue_conflate(&session->pushes);
    counters_add(counters, COUNTER_PUSHES_CONFLATED, gone);
  }
  counters_gauge_add(counters, GAUGE_PUSHES_WAITING, -(int64_t)gone);
}

// How many bytes of pushes may wait aside.
static size_t waiting_bound(const struct session *session) {
  size_t bytes = (size_t)session->worker->config.push.waiting_bytes;
  return session->grace_over ? bytes : PUSH_GRACE_FACTOR * bytes;
}

// The client is behind: the push waits, within bounds.
static void keep(struct session *session, struct push *push) {
  struct worker *worker = session->worker;
  size_t bound = waiting_bound(session);
  size_t gave_way = 0;
  bool fits = session->pushes.bytes + push_queue_cost(push) <= bound;
  if (!fits && worker->config.push.slow_client == SLOW_CLIENT_DROP_NEWEST) {
    counters_add(worker->counters, COUNTER_PUSHES_DROPPED_NEWEST, 1);
    return;
  }
  if (push_queue_add(&session->pushes, push, &gave_way) != 0) {
    counters_add(worker->counters, COUNTER_PUSHES_MISSED, 1);
    session_close(session, CLOSE_OUT_OF_MEMORY);
    return;
  }
  counters_add(worker->counters, COUNTER_PUSHES_CONFLATED, gave_way);
  counters_gauge_add(worker->counters, GAUGE_PUSHES_WAITING, 1 - (int64_t)gave_way);
  if (!fits) {
    make_room(session, bound);
    if (session->pushes.bytes > bound) {
      session_close(session, CLOSE_SLOW_CLIENT);
    }
  }
}

void session_push(struct session *session, struct push *push) {
  struct counters *counters = session->worker->counters;
  counters_add(counters, COUNTER_PUSHES_ADDRESSED, 1);
  if (session->state != SESSION_PLAYING) {
    counters_add(counters, COUNTER_PUSHES_MISSED, 1);
  } else if (session->output_full && !session_is_logout(push->about.mod, push->about.seq)) {
    keep(session, push);
  } else {
    deliver(session, push);
  }
}

// Sends what waited aside, for as long as there is room.
static void deliver_waiting(struct session *session) {
  size_t high = (size_t)session->worker->config.queue.client_high_bytes;
  struct push *push;
  while (session->state == SESSION_PLAYING && transport_queued_bytes(session->transport) <= high &&
         (push = push_queue_take(&session->pushes))) {
    counters_gauge_add(session->worker->counters, GAUGE_PUSHES_WAITING, -1);
    deliver(session, push);
    push_unref(push);
  }
}

// --- The way out -------------------------------------------------------------

// The beginning of a session, or its end (with the reason).
static void log_session(struct session *session, enum worker_log kind, const char *reason) {
  uint64_t suppressed;
  if (!log_enabled(LOG_LEVEL_INFO) || !worker_may_log(session->worker, kind, &suppressed)) {
    return;
  }
  char color[2 * sizeof session->color];
  log_info(kind == WORKER_LOG_OPENED ? "session_opened" : "session_closed",
           "%s%s%sconnection=%" PRIu64 " address=%s transport=%s uid=%" PRId64 " sid=%" PRId64
           " color=%s suppressed=%" PRIu64,
           reason ? "reason=" : "", reason ? reason : "", reason ? " " : "", session->connection,
           session->address, session->transport->kind->name, session->uid, session->sid,
           log_quote(color, sizeof color, session->color, strlen(session->color)), suppressed);
}

// Pushes that it will not get any more.
static void drop_waiting(struct session *session) {
  size_t gone = push_queue_clear(&session->pushes);
  counters_add(session->worker->counters, COUNTER_PUSHES_MISSED, gone);
  counters_gauge_add(session->worker->counters, GAUGE_PUSHES_WAITING, -(int64_t)gone);
}

static void close_with(struct session *session, enum close_reason reason, enum logout_code code) {
  struct worker *worker = session->worker;
  if (session->state == SESSION_CLOSED) {
    return;
  }
  bool was_playing = session->state == SESSION_PLAYING;
  bool is_known = was_playing || session->state == SESSION_ADMISSION;  // to the master
  if (was_playing && code != LOGOUT_NONE) {
    send_logout(session, code);
  }
  if (is_known) {
    pushes_on_session_end(worker->pushes, session);
  }
  drop_waiting(session);
  session->state = SESSION_CLOSED;
  counters_closed(worker->counters, reason);
  log_session(session, WORKER_LOG_CLOSED, close_reason_name(reason));

  event_del(&session->timer);
  event_del(&session->rate_timer);
  event_del(&session->grace_timer);
  while (!LIST_EMPTY(&session->tunnels)) {
    tunnel_release(LIST_FIRST(&session->tunnels));
  }
  farewell_end_all(session);
  bool client_is_there = reason != CLOSE_CLIENT_CLOSED && reason != CLOSE_CLIENT_RESET;
  transport_close(session->transport, reason, was_playing && client_is_there);
  session->transport = NULL;
  if (was_playing) {
    counters_gauge_add(worker->counters, GAUGE_SESSIONS, -1);
  }
  if (is_known) {
    struct channel_session_closed closed = {.connection = session->connection};
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

void session_bury_all(struct worker *worker) {
  struct session *session;
  while ((session = LIST_FIRST(&worker->dead_sessions))) {
    LIST_REMOVE(session, link);
    seal_free(session->seal);
    free(session->handshake);
    free(session);
  }
}

// --- In ----------------------------------------------------------------------

static void pause_input(struct session *session) { transport_pause(session->transport); }

static void resume_input(struct session *session) {
  if (!session->rate_paused && session->full_tunnels == 0) {
    transport_resume(session->transport);
  }
}

static void on_rate_allows(evutil_socket_t fd, short what, void *owner) {
  struct session *session = owner;
  (void)fd;
  (void)what;
  session->rate_paused = false;
  resume_input(session);
}

// Takes the message from the session's rates. Over them the message at hand is
// still served, but the client is read no further until the rate allows it.
static void charge_rate(struct session *session, size_t len, int64_t now_ms) {
  int64_t wait_ms = token_bucket_charge(&session->messages, 1, now_ms);
  int64_t bytes_wait_ms = token_bucket_charge(&session->bytes, (int64_t)len, now_ms);
  if (bytes_wait_ms > wait_ms) {
    wait_ms = bytes_wait_ms;
  }
  if (wait_ms > 0 && !session->rate_paused) {
    session->rate_paused = true;
    counters_add(session->worker->counters, COUNTER_RATE_PAUSES, 1);
    pause_input(session);
    add_timer(&session->rate_timer, wait_ms);
  }
}

void session_tunnel_full(struct session *session) {
  if (session->full_tunnels++ == 0) {
    counters_add(session->worker->counters, COUNTER_INPUT_PAUSES, 1);
    pause_input(session);
  }
}

void session_tunnel_relieved(struct session *session) {
  if (--session->full_tunnels == 0 && session->state == SESSION_PLAYING) {
    session->active_ms = clock_monotonic_ms();
    resume_input(session);
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
    return;
  }
  if (packet->obj == 0) {
    packet->obj = session->uid;
  }
  if (worker->config.tunnel.types[type_index].own_object_only && packet->obj != session->uid) {
    counters_add(worker->counters, COUNTER_FOREIGN_OBJECTS, 1);
    session_send_unexpected_error(session, packet->mod, packet->seq,
                                  "this object belongs to another player");
    return;
  }
  bool limited = false;
  struct tunnel *tunnel = tunnel_get(session, type_index, packet->obj, &limited);
  if (tunnel) {
    tunnel_send(tunnel, packet);
  } else if (limited) {
    counters_add(worker->counters, COUNTER_TUNNEL_LIMITED, 1);
    session_send_unexpected_error(session, packet->mod, packet->seq,
                                  "this session has too many tunnels open");
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
  }
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
  }
  forward(session, &packet);
}

// Answers the handshake, and the session is on. The answer goes out in the clear, for
// the client does not have the key yet.
static int answer_handshake(struct session *session) {
  struct worker *worker = session->worker;
  uint8_t answer[TRANSPORT_HEADROOM_BYTES + HANDSHAKE_ANSWER_MAX_BYTES];
  uint8_t shared[KEY_X25519_BYTES];
  size_t answer_len;

  int verdict =
      handshake_answer(&worker->handshake_keys, session->handshake, clock_wall_ms() / 1000,
                       answer + TRANSPORT_HEADROOM_BYTES, &answer_len, shared);
  if (verdict != HANDSHAKE_OK) {
    return verdict;
  }
  if (worker->config.label.encrypted) {
    session->seal = seal_new(shared, sizeof shared);
    sodium_memzero(shared, sizeof shared);
    if (!session->seal) {
      return CLOSE_OUT_OF_MEMORY;
    }
  }
  free(session->handshake);
  session->handshake = NULL;
  session->next_index = HANDSHAKE_START_INDEX;
  session->broadcast_seen = pushes_latest(worker->pushes);
  session->state = SESSION_PLAYING;
  log_session(session, WORKER_LOG_OPENED, NULL);
  counters_add(worker->counters, COUNTER_LOGINS, 1);
  counters_gauge_add(worker->counters, GAUGE_SESSIONS, 1);
  return transport_send(session->transport, answer, answer_len) == 0 ? HANDSHAKE_OK
                                                                     : CLOSE_OUT_OF_MEMORY;
}

// Ends the wait for the master's word. A client that it refuses is answered all the same
// where it is to be told why, since it can only read that with the session's key.
static void end_admission(struct session *session, int refusal) {
  bool is_told = refusal == CHANNEL_LOGIN_ADMITTED ||
                 close_reason_logout_code((enum close_reason)refusal) != LOGOUT_NONE;
  int verdict = is_told ? answer_handshake(session) : HANDSHAKE_OK;
  if (verdict != HANDSHAKE_OK) {
    session_close(session, (enum close_reason)verdict);
  } else if (refusal != CHANNEL_LOGIN_ADMITTED) {
    session_close(session, (enum close_reason)refusal);
  } else {
    session->active_ms = clock_monotonic_ms();
    event_add(&session->timer, session->worker->idle_timeout);
    resume_input(session);
  }
}

// Asks the master; it has the session in its directory when it answers.
static int ask_for_admission(struct session *session) {
  struct channel_login login = {.session = {.connection = session->connection,
                                            .client = session->connection,
                                            .uid = session->uid,
                                            .sid = session->sid,
                                            .since_ms = clock_wall_ms()}};
  memcpy(login.session.color, session->color, sizeof session->color);
  memcpy(login.session.address, session->address, sizeof session->address);
  snprintf(login.session.transport, sizeof login.session.transport, "%s",
           session->transport->kind->name);
  memcpy(login.client_key, session->handshake->client_public, sizeof login.client_key);
  return inbox_tell(session->worker->inbox, CHANNEL_LOGIN, &login);
}

static int log_in(struct session *session, const uint8_t *bytes, size_t len) {
  struct worker *worker = session->worker;
  struct handshake handshake = {.sid = 0};

  int verdict =
      handshake_check(&worker->handshake_keys, bytes, len, clock_wall_ms() / 1000, &handshake);
  if (verdict != HANDSHAKE_OK) {
    return verdict;
  }
  session->handshake = malloc(sizeof handshake);
  if (!session->handshake) {
    return CLOSE_OUT_OF_MEMORY;
  }
  *session->handshake = handshake;
  session->uid = handshake.token.account_id;
  session->sid = handshake.sid;
  session->status = handshake.token.status;
  memcpy(session->color, handshake.token.color, sizeof session->color);
  session->state = SESSION_ADMISSION;
  HASH_ADD(hh, worker->logged_in, connection, sizeof session->connection, session);
  if (!inbox_has_master(worker->inbox)) {
    end_admission(session, CHANNEL_LOGIN_ADMITTED);
    return HANDSHAKE_OK;
  }
  pause_input(session);
  return ask_for_admission(session) == 0 ? HANDSHAKE_OK : CLOSE_INTERNAL;
}

struct session *session_find(struct worker *worker, uint64_t connection) {
  struct session *session = NULL;
  HASH_FIND(hh, worker->logged_in, &connection, sizeof connection, session);
  return session;
}

void session_on_login_answer(struct worker *worker, const struct channel_login_answer *answer) {
  struct session *session = session_find(worker, answer->connection);
  bool is_refusal = (unsigned)answer->refusal < CLOSE_REASON_COUNT;
  if (session && session->state == SESSION_ADMISSION) {
    end_admission(session, is_refusal || answer->refusal == CHANNEL_LOGIN_ADMITTED
                               ? answer->refusal
                               : CLOSE_INTERNAL);
  }
}

void session_on_close(struct worker *worker, const struct channel_session_close *close) {
  struct session *session = session_find(worker, close->connection);
  bool is_reason = (unsigned)close->reason < CLOSE_REASON_COUNT;
  if (session) {
    close_with(session, is_reason ? (enum close_reason)close->reason : CLOSE_INTERNAL,
               (enum logout_code)close->code);
  }
}

void session_admit_all(struct worker *worker) {
  struct session *session;
  struct session *next;
  for (session = LIST_FIRST(&worker->sessions); session; session = next) {
    next = LIST_NEXT(session, link);
    if (session->state == SESSION_ADMISSION) {
      end_admission(session, CHANNEL_LOGIN_ADMITTED);
    }
  }
}

static void on_handshake(struct session *session, const uint8_t *bytes, size_t len) {
  struct worker *worker = session->worker;
  if (!token_bucket_take(&worker->handshakes, 1, session->active_ms)) {
    session_close(session, CLOSE_HANDSHAKE_RATE);
    return;
  }
  int verdict = log_in(session, bytes, len);
  if (verdict != HANDSHAKE_OK) {
    session_close(session, (enum close_reason)verdict);
  }
}

static void on_message(uint8_t *bytes, size_t len, void *owner) {
  struct session *session = owner;
  session->active_ms = clock_monotonic_ms();
  if (session->state == SESSION_HANDSHAKE) {
    on_handshake(session, bytes, len);
    return;
  }
  counters_add(session->worker->counters, COUNTER_MESSAGES_IN, 1);
  session->traffic.messages_in++;
  session->traffic.bytes_in += len;
  charge_rate(session, len, session->active_ms);
  on_packet(session, bytes, len);
}

static void on_ended(enum close_reason reason, void *owner) { session_close(owner, reason); }

// --- Answers -----------------------------------------------------------------

void session_on_answer(struct session *session, const struct packet *packet) {
  session_send(session, packet);
  if (session_is_logout(packet->mod, packet->seq)) {
    session_close(session, CLOSE_ROMA_LOGOUT);
  }
}

bool session_takes_output(const struct session *session) { return !session->output_full; }

static void on_drained(void *owner) {
  struct session *session = owner;
  size_t low = (size_t)session->worker->config.queue.client_low_bytes;
  if (!session->output_full) {
    return;
  }
  deliver_waiting(session);
  if (session->state != SESSION_PLAYING || session->pushes.count > 0 ||
      transport_queued_bytes(session->transport) >= low) {
    return;
  }
  session->output_full = false;
  session->grace_over = false;
  event_del(&session->grace_timer);
  struct tunnel *tunnel;
  LIST_FOREACH(tunnel, &session->tunnels, link) { tunnel_resume(tunnel); }
  farewell_resume_all(session);
}

static void on_grace_over(evutil_socket_t fd, short what, void *owner) {
  struct session *session = owner;
  const struct config *config = &session->worker->config;
  enum slow_client policy = config->push.slow_client;
  uint64_t taken_bytes = transport_taken_bytes(session->transport);
  (void)fd;
  (void)what;
  bool is_dead = session->grace_over && taken_bytes == session->taken_bytes;
  session->grace_over = true;
  make_room(session, waiting_bound(session));
  bool is_over = policy == SLOW_CLIENT_CONFLATE && session->pushes.bytes > waiting_bound(session);
  if (policy == SLOW_CLIENT_DISCONNECT || is_over || is_dead) {
    session_close(session, CLOSE_SLOW_CLIENT);
    return;
  }
  session->taken_bytes = taken_bytes;
  add_timer(&session->grace_timer, config->limits.idle_timeout_ms);
}

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
  int64_t quiet_ms = clock_monotonic_ms() - session->active_ms;
  int64_t left_ms = config->limits.idle_timeout_ms - quiet_ms;
  if (left_ms > 0) {
    add_timer(&session->timer, left_ms);
  } else if (session->full_tunnels > 0) {
    session_close(session, CLOSE_TUNNEL_STALLED);
  } else {
    session_close(session, CLOSE_IDLE_TIMEOUT);
  }
}

// --- The beginning -----------------------------------------------------------

// No two connections of this gateway have the same number, whichever worker they
// are in and however often it was started: microseconds since the epoch at the
// start, the worker's index in the low bits, counted up from there.
static uint64_t next_connection(const struct worker *worker) {
  enum { INDEX_BITS = 6 };
  _Static_assert(1 << INDEX_BITS >= CONFIG_WORKERS, "every worker has a number");
  static uint64_t next;
  if (next == 0) {
    next = (uint64_t)clock_wall_ms() * 1000;
  }
  return next++ << INDEX_BITS | (uint64_t)worker->index;
}

bool session_new(struct worker *worker, const char *address, transport_maker *make, void *context) {
  static const struct transport_events events = {on_message, on_ended, on_drained};
  const struct config *config = &worker->config;
  int64_t now_ms = clock_monotonic_ms();
  struct session *session = calloc(1, sizeof *session);
  if (!session) {
    return false;
  }
  session->worker = worker;
  session->state = SESSION_HANDSHAKE;
  session->connection = next_connection(worker);
  session->active_ms = now_ms;
  strncpy(session->address, address, sizeof session->address - 1);
  LIST_INIT(&session->tunnels);
  LIST_INIT(&session->farewells);
  token_bucket_init(&session->messages, config->limits.messages_per_s,
                    config->limits.messages_burst, now_ms);
  token_bucket_init(&session->bytes, config->limits.bytes_per_s, config->limits.bytes_burst,
                    now_ms);
  session->transport = make(context, &events, session);
  if (!session->transport) {
    free(session);
    return false;
  }
  evtimer_assign(&session->timer, worker->base, on_timer, session);
  evtimer_assign(&session->rate_timer, worker->base, on_rate_allows, session);
  evtimer_assign(&session->grace_timer, worker->base, on_grace_over, session);
  event_add(&session->timer, worker->handshake_timeout);
  LIST_INSERT_HEAD(&worker->sessions, session, link);
  return true;
}
