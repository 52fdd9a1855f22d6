#include "worker/session_output.h"

#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/loop.h"
#include "common/packet_deflate.h"
#include "common/system_message.h"
#include "worker/packing.h"
#include "worker/player.h"
#include "worker/session_log.h"
#include "worker/trace.h"
#include "worker/watch.h"

#define LOG_MODULE LOG_MODULE_SESSION

// During the grace time so many times push.waiting_bytes may wait: a burst cuts nobody.
enum { PUSH_GRACE_FACTOR = 4 };

// --- Messages -------------------------------------------------------------------

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
// it has the grace time to catch up. ERROR_MEMORY.
static int check_output(struct session *session) {
  const struct config *config = &session->worker->config;
  if (!session->output_full &&
      transport_queued_bytes(session->transport) > (size_t)config->queue.client_high_bytes) {
    session->output_full = true;
    if (session->watched) {
      watch_event(session, WATCHED_OUTPUT_PAUSED);
    }
    counters_add(session->worker->counters, COUNTER_OUTPUT_PAUSES, 1);
    struct session_delays *delays = session_delays(session);
    if (!delays) {
      return ERROR_MEMORY;
    }
    loop_start_timer(&delays->grace, config->queue.client_grace_ms);
  }
  return 0;
}

static int send_plain(struct session *session, size_t plain_len) {
  int error = send_sealed(session, plain_len);
  if (error == 0) {
    counters_add(session->worker->counters, COUNTER_MESSAGES_OUT, 1);
    error = check_output(session);
  }
  return error;
}

// packet as it goes to the client is packed. ERROR_TOO_LARGE when that is over what a client takes.
static int send_packed(struct session *session, const struct packet *packet,
                       const struct packet *packed) {
  struct worker *worker = session->worker;
  counters_add(worker->counters, COUNTER_DEFLATED, packed->compress && !packet->compress);
  size_t plain_len = packet_size(packed);
  if (sealed_size(session, plain_len) > (size_t)worker->config.limits.message_to_client_bytes) {
    return ERROR_TOO_LARGE;
  }
  packet_encode(packed, plain_place(session));
  int error = send_plain(session, plain_len);
  if (session->watched && error == 0) {
    watch_to_client(session, packed, plain_len, sealed_size(session, plain_len));
  }
  return error;
}

static int try_send(struct session *session, const struct packet *packet) {
  struct worker *worker = session->worker;
  struct packet packed;
  int error = packet_deflate(worker->deflater, &worker->config, packet, &packed);
  return error != 0 ? error : send_packed(session, packet, &packed);
}

// Why a session ends to which something could not be sent.
static enum close_reason reason_of(int error) {
  return error == ERROR_EXHAUSTED ? CLOSE_SEAL_EXHAUSTED
         : error == ERROR_MEMORY  ? CLOSE_OUT_OF_MEMORY
                                  : CLOSE_INTERNAL;
}

static void too_large(struct session *session, const struct packet *packet) {
  struct worker *worker = session->worker;
  uint64_t suppressed;
  counters_add(worker->counters, COUNTER_TOO_LARGE_OUT, 1);
  if (worker_may_log(worker, WORKER_LOG_MESSAGE, &suppressed)) {
    char fields[SESSION_LOG_BYTES];
    log_warn("message_too_large", "%s mod=%d seq=%d data_bytes=%zu suppressed=%" PRIu64,
             session_log_fields(fields, session->connection, session->uid, session->trace),
             packet->mod, packet->seq, packet->data_len, suppressed);
  }
}

// What came of sending packet; who asked for it is told in its place when it is too large.
static void sent(struct session *session, const struct packet *packet, int error) {
  if (error == ERROR_TOO_LARGE) {
    uint8_t data[SYSTEM_MESSAGE_MAX_BYTES];
    const struct packet told = system_message_unexpected_error(
        packet->mod, packet->seq, "the server's message is larger than a client takes", data);
    too_large(session, packet);
    counters_add(session->worker->counters, COUNTER_UNEXPECTED_ERRORS, 1);
    error = try_send(session, &told);
  }
  if (error != 0) {
    session_close(session, reason_of(error));
  }
}

void session_send(struct session *session, const struct packet *packet) {
  struct worker *worker = session->worker;
  if (session->state != SESSION_PLAYING) {
    counters_add(worker->counters, COUNTER_DROPPED_OUT, 1);
  } else if (!packing_takes(worker->packing, session, packet)) {
    sent(session, packet, try_send(session, packet));
  } else if (packing_add(worker->packing, session, packet) == 0) {
    session_pause_input(session);
  } else {
    session_close(session, CLOSE_OUT_OF_MEMORY);
  }
}

void session_send_unexpected_error(struct session *session, int32_t mod, int32_t seq,
                                   const char *text) {
  uint8_t data[SYSTEM_MESSAGE_MAX_BYTES];
  struct packet packet = system_message_unexpected_error(mod, seq, text, data);
  counters_add(session->worker->counters, COUNTER_UNEXPECTED_ERRORS, 1);
  session_send(session, &packet);
}

void session_send_logout(struct session *session, enum logout_code code) {
  uint8_t data[SYSTEM_MESSAGE_MAX_BYTES];
  struct packet packet = system_message_logout(code, data);
  if (try_send(session, &packet) != 0) {
    counters_add(session->worker->counters, COUNTER_DROPPED_OUT, 1);
  }
}

// --- Pushes ------------------------------------------------------------------

// A logout that the session has got is for its siblings too.
static void log_out_siblings(const struct player *player, const struct session *session,
                             const struct packet *packet) {
  struct session *sibling;
  TAILQ_FOREACH(sibling, &player->sessions, sibling) {
    if (sibling != session && try_send(sibling, packet) != 0) {
      counters_add(sibling->worker->counters, COUNTER_DROPPED_OUT, 1);
    }
  }
}

// Sends it, who may have waited aside. The session may be closed in consequence: by a failure, or
// by a logout.
static void deliver(struct session *session, const struct push *push, bool waited) {
  struct worker *worker = session->worker;
  size_t len = push->about.packet_bytes;
  int error = ERROR_TOO_LARGE;
  if (sealed_size(session, len) <= (size_t)worker->config.limits.message_to_client_bytes) {
    memcpy(plain_place(session), push->packet, len);
    error = send_plain(session, len);
  }
  if (session->watched && error == 0) {
    watch_push(session, push, sealed_size(session, len), waited);
  }
  counters_add(worker->counters, error == 0 ? COUNTER_PUSHES_DELIVERED : COUNTER_PUSHES_MISSED, 1);
  trace_pushed(session, push, error == 0 ? NULL : "not_sent");
  if (error == ERROR_TOO_LARGE) {  // it came before a reload that set another limit
    counters_add(worker->counters, COUNTER_TOO_LARGE_OUT, 1);
  } else if (error != 0) {
    session_close(session, reason_of(error));
  } else if (session_is_logout(push->about.mod, push->about.seq)) {
    struct packet packet;
    if (packet_decode(&packet, push->packet, len) == 0) {
      log_out_siblings(session->player, session, &packet);
    }
    session_close_player(session, CLOSE_ROMA_LOGOUT);
  }
}

static void on_dropped(const struct push *push, void *owner) {
  trace_pushed(owner, push, "dropped_oldest");
}

static void on_missed(const struct push *push, void *owner) {
  trace_pushed(owner, push, "session_ended");
}

// What waits is over a bound: something gives way, as the setting asks. Nothing does with
// `disconnect`, nor when all that waits is different with `conflate`.
static void make_room(struct session *session, size_t bytes) {
  struct counters *counters = session->worker->counters;
  enum slow_client policy = session->worker->config.push.slow_client;
  size_t gone = 0;
  if (policy == SLOW_CLIENT_DROP_OLDEST) {
    gone = push_queue_drop_oldest(&session->pushes, bytes, on_dropped, session);
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
    trace_pushed(session, push, "dropped_newest");
    return;
  }
  if (push_queue_add(&session->pushes, push, &gave_way) != 0) {
    counters_add(worker->counters, COUNTER_PUSHES_MISSED, 1);
    trace_pushed(session, push, "out_of_memory");
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

static void take(struct session *session, struct push *push) {
  if (session->state != SESSION_PLAYING) {
    counters_add(session->worker->counters, COUNTER_PUSHES_MISSED, 1);
    trace_pushed(session, push, "session_ended");
  } else if (!session_takes_output(session) &&
             !session_is_logout(push->about.mod, push->about.seq)) {
    keep(session, push);
  } else {
    deliver(session, push, false);
  }
}

void session_push(struct session *session, struct push *push) {
  counters_add(session->worker->counters, COUNTER_PUSHES_ADDRESSED, 1);
  take(session, push);
}

// Sends what waited aside, for as long as there is room.
static void deliver_waiting(struct session *session) {
  size_t high = (size_t)session->worker->config.queue.client_high_bytes;
  struct push *push;
  while (session->state == SESSION_PLAYING && session->packing == 0 &&
         transport_queued_bytes(session->transport) <= high &&
         (push = push_queue_take(&session->pushes))) {
    counters_gauge_add(session->worker->counters, GAUGE_PUSHES_WAITING, -1);
    deliver(session, push, true);
    push_unref(push);
  }
}

void session_leave_pushes(struct session *session, struct session *sibling) {
  struct push *push;
  while (sibling && (push = push_queue_take(&session->pushes))) {
    counters_gauge_add(session->worker->counters, GAUGE_PUSHES_WAITING, -1);
    take(sibling, push);
    push_unref(push);
  }
  size_t gone = push_queue_clear(&session->pushes, on_missed, session);
  counters_add(session->worker->counters, COUNTER_PUSHES_MISSED, gone);
  counters_gauge_add(session->worker->counters, GAUGE_PUSHES_WAITING, -(int64_t)gone);
}

// --- Answers -----------------------------------------------------------------

// To the player's session, which may have left him for it.
static void on_answered(struct session *session, const struct player *player,
                        const struct packet *packet) {
  if (session_is_logout(packet->mod, packet->seq) && !player_is_over(player)) {
    log_out_siblings(player, session, packet);
    session_close_player(player_oldest(player), CLOSE_ROMA_LOGOUT);
  }
}

void session_on_answer(struct session *session, const struct packet *packet) {
  const struct player *player = session->player;
  session_send(session, packet);
  if (session->packing == 0) {
    on_answered(session, player, packet);
  }
}

// What waits is sent, and then more is read for the session.
static void go_on(struct session *session) {
  deliver_waiting(session);
  if (session->state == SESSION_PLAYING && session_takes_output(session)) {
    player_unblock(session->player, session);
  }
}

void session_on_packed(struct session *session, const struct packet *packet,
                       const struct packet *packed, int error) {
  const struct player *player = session->player;
  sent(session, packet, error != 0 ? error : send_packed(session, packet, packed));
  on_answered(session, player, packet);
  if (session->state == SESSION_PLAYING && session->packing == 0) {
    session_resume_input(session);
    go_on(session);
  }
}

bool session_takes_output(const struct session *session) {
  return !session->output_full && session->packing == 0;
}

void session_on_drained(void *owner) {
  struct session *session = owner;
  size_t low = (size_t)session->worker->config.queue.client_low_bytes;
  if (!session->output_full) {
    return;
  }
  deliver_waiting(session);
  if (session->state != SESSION_PLAYING || (session->pushes.count > 0 && session->packing == 0) ||
      transport_queued_bytes(session->transport) >= low) {
    return;
  }
  session->output_full = false;
  if (session->watched) {
    watch_event(session, WATCHED_OUTPUT_RESUMED);
  }
  session->grace_over = false;
  event_del(&session->delays->grace);
  if (session_takes_output(session)) {
    player_unblock(session->player, session);
  }
}

void session_on_grace_over(evutil_socket_t fd, short what, void *owner) {
  struct session *session = owner;
  const struct config *config = &session->worker->config;
  enum slow_client policy = config->push.slow_client;
  uint64_t taken_bytes = transport_taken_bytes(session->transport);
  (void)fd;
  (void)what;
  bool is_dead = session->grace_over && taken_bytes == session->delays->taken_bytes;
  session->grace_over = true;
  make_room(session, waiting_bound(session));
  bool is_over = policy == SLOW_CLIENT_CONFLATE && session->pushes.bytes > waiting_bound(session);
  if (policy == SLOW_CLIENT_DISCONNECT || is_over || is_dead) {
    session_close(session, CLOSE_SLOW_CLIENT);
    return;
  }
  session->delays->taken_bytes = taken_bytes;
  loop_start_timer(&session->delays->grace, config->limits.idle_timeout_ms);
}
