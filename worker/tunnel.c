#include "worker/tunnel.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/player.h"
#include "worker/session_log.h"
#include "worker/trace.h"
#include "worker/tunnel_route.h"
#include "worker/watch.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_TUNNEL

const char *tunnel_state_name(enum tunnel_state state) {
  static const char *const names[] = {"routing", "opening", "open", "waiting"};
  return names[state];
}

void tunnel_close_player(struct tunnel *tunnel, enum close_reason reason) {
  session_close_player(player_oldest(tunnel->player), reason);
}

// --- The queue ---------------------------------------------------------------

static int queue_push(struct tunnel_queue *queue, const struct tunnel_queued *queued) {
  if (queue->count == queue->room) {
    size_t room = queue->room > 0 ? queue->room * 2 : 2;
    struct tunnel_queued *ring = malloc(room * sizeof *ring);
    if (!ring) {
      return ERROR_MEMORY;
    }
    for (size_t i = 0; i < queue->count; i++) {
      ring[i] = queue->ring[(queue->head + i) & (queue->room - 1)];
    }
    free(queue->ring);
    queue->ring = ring;
    queue->room = room;
    queue->head = 0;
  }
  queue->ring[(queue->head + queue->count) & (queue->room - 1)] = *queued;
  queue->count++;
  queue->bytes += queued->len;
  return 0;
}

// What a burst has made large goes with it: most tunnels wait for nothing most of the time.
static struct tunnel_queued queue_pop(struct tunnel_queue *queue) {
  struct tunnel_queued queued = queue->ring[queue->head];
  queue->head = (queue->head + 1) & (queue->room - 1);
  queue->count--;
  queue->bytes -= queued.len;
  if (queue->count == 0 && queue->room > TUNNEL_QUEUE_KEPT) {
    free(queue->ring);
    *queue = (struct tunnel_queue){0};
  }
  return queued;
}

// Those who have sent to it are read on.
static void relieve(struct tunnel *tunnel) {
  struct session *session;
  tunnel->full = false;
  TAILQ_FOREACH(session, &tunnel->player->sessions, sibling) {
    if (session->held_by == tunnel) {
      session_tunnel_relieved(session);
    }
  }
}

// Whoever sends to it while the queue is over its bound is read no further, and again when half of
// it is gone: beyond the bound there is at most one message of each session.
static void check_full(struct tunnel *tunnel, struct session *session) {
  const struct config *config = &tunnel->worker->config;
  const struct tunnel_queue *queue = &tunnel->queue;
  tunnel->full = tunnel->full || queue->count > (size_t)config->queue.tunnel_messages ||
                 queue->bytes > (size_t)config->queue.tunnel_bytes;
  if (tunnel->full) {
    session_tunnel_full(session, tunnel);
  }
}

static void check_relieved(struct tunnel *tunnel) {
  const struct config *config = &tunnel->worker->config;
  const struct tunnel_queue *queue = &tunnel->queue;
  if (tunnel->full && queue->count <= (size_t)config->queue.tunnel_messages / 2 &&
      queue->bytes <= (size_t)config->queue.tunnel_bytes / 2) {
    relieve(tunnel);
  }
}

static void queue_clear(struct tunnel *tunnel) {
  while (tunnel->queue.count > 0) {
    struct tunnel_queued queued = queue_pop(&tunnel->queue);
    counters_gauge_add(tunnel->worker->counters, GAUGE_QUEUED_IN_BYTES, -(int64_t)queued.len);
    counters_add(tunnel->worker->counters, COUNTER_DROPPED_IN, 1);
    trace_handed_over(tunnel, &queued, "dropped");
    free(queued.bytes);
  }
  free(tunnel->queue.ring);
  tunnel->queue = (struct tunnel_queue){0};
}

// --- The end -----------------------------------------------------------------

static void end_stream(struct tunnel *tunnel) {
  struct stream *stream = tunnel->stream;
  tunnel_release_route(tunnel);
  trace_opened(tunnel, STREAM_CANCELLED);  // if it was being opened
  if (tunnel->state == TUNNEL_OPEN) {
    counters_split_add(tunnel->worker->counters, SPLIT_TUNNELS, (size_t)tunnel->type, -1);
  }
  if (stream) {
    counters_add(tunnel->worker->counters, COUNTER_TUNNEL_UNSURE, stream_unsure(stream));
  }
  stream_end(stream, true);
  tunnel->stream = NULL;
  tunnel->waits_for = NULL;
}

// A stream that has worked for a good while is no sign of trouble to come, even if nothing ever
// came from there.
static void forget_old_trouble(struct tunnel *tunnel) {
  const struct config *config = &tunnel->worker->config;
  if (tunnel->state == TUNNEL_OPEN &&
      clock_monotonic_ms() - tunnel->opened_ms >= config->tunnel.reopen_timeout_ms) {
    tunnel->broken_ms = 0;
    tunnel->failures = 0;
  }
}

void tunnel_leave_stream(struct tunnel *tunnel) {
  struct stream *stream = tunnel->stream;
  struct session *waits_for = tunnel->waits_for;
  bool all_sent = tunnel->queue.count == 0;
  forget_old_trouble(tunnel);
  if (tunnel->state == TUNNEL_OPEN) {
    bool owed = stream_unsure(stream) > 0 || (tunnel->unanswered && all_sent);
    tunnel->stream = NULL;
    end_stream(tunnel);
    tunnel->unanswered = tunnel->unanswered && !all_sent;
    watch_tunnel_event(tunnel, WATCHED_TUNNEL_MOVED, STREAM_OK);
    farewell_begin(tunnel->player, tunnel->type, tunnel->oid, stream, waits_for, owed);
  } else {
    end_stream(tunnel);
  }
  tunnel->state = TUNNEL_WAITING;
}

static void tunnel_free(struct tunnel *tunnel) {
  end_stream(tunnel);
  event_del(&tunnel->timer);
  queue_clear(tunnel);
  LIST_REMOVE(tunnel, link);
  if (tunnel->player) {
    tunnel->player->tunnel_count--;
    relieve(tunnel);
  } else {
    worker_leave_if_done(tunnel->worker);
  }
  trace_forget_tunnel(tunnel);
  free(tunnel);
}

void tunnel_release(struct tunnel *tunnel) {
  if (!tunnel->stream || tunnel->queue.count == 0) {
    tunnel_free(tunnel);
    return;
  }
  LIST_REMOVE(tunnel, link);
  tunnel_release_route(tunnel);
  tunnel->player->tunnel_count--;
  tunnel->player = NULL;
  tunnel->waits_for = NULL;
  LIST_INSERT_HEAD(&tunnel->worker->draining_tunnels, tunnel, link);
  loop_start_timer(&tunnel->timer, tunnel->worker->config.worker.stop_timeout_ms);
}

void tunnel_cut_all(struct worker *worker) {
  while (!LIST_EMPTY(&worker->draining_tunnels)) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    tunnel_free(LIST_FIRST(&worker->draining_tunnels));
  }
}

// The backend has said no, and would say so again: what waits is answered, and a
// player whose main tunnel is refused has no business here.
static void refused(struct tunnel *tunnel) {
  const struct player *player = tunnel->player;
  if (tunnel_type(tunnel)->main) {
    tunnel_close_player(tunnel, CLOSE_TUNNEL_REFUSED);
    return;
  }
  if (tunnel->queue.count == 0 && tunnel->unanswered) {
    // It was with the stream already when the refusal came: one word for all of it.
    counters_add(tunnel->worker->counters, COUNTER_DROPPED_IN, 1);
    session_send_unexpected_error(player_session(player, tunnel->last_connection), tunnel->last_mod,
                                  tunnel->last_seq, "the server refused it");
  }
  while (!player_is_over(player) && tunnel->queue.count > 0) {
    struct tunnel_queued queued = queue_pop(&tunnel->queue);
    struct packet packet;
    counters_gauge_add(tunnel->worker->counters, GAUGE_QUEUED_IN_BYTES, -(int64_t)queued.len);
    counters_add(tunnel->worker->counters, COUNTER_DROPPED_IN, 1);
    trace_handed_over(tunnel, &queued, "refused");
    if (tunnel_message_decode(&packet, queued.bytes, queued.len) == 0) {
      session_send_unexpected_error(player_session(player, queued.connection), packet.mod,
                                    packet.seq, "the server refused it");
    }
    free(queued.bytes);
  }
  if (!player_is_over(player)) {  // else closing it has freed the tunnel
    tunnel_free(tunnel);
  }
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct tunnel *tunnel = owner;
  (void)fd;
  (void)what;
  if (!tunnel->player) {
    tunnel_free(tunnel);
  } else {
    tunnel_find_route(tunnel);
  }
}

// --- The stream ----------------------------------------------------------------

static void watch_sent(const struct tunnel *tunnel, const struct tunnel_queued *queued) {
  if (tunnel->player && !LIST_EMPTY(&tunnel->worker->watched_sessions)) {
    struct session *session = player_session(tunnel->player, queued->connection);
    if (session->watched) {
      watch_to_tunnel(session, tunnel, queued);
    }
  }
}

// The stream is given a message whose bytes are in the room that it gave for them.
static void hand_over(struct tunnel *tunnel, const struct tunnel_queued *message) {
  struct counters *counters = tunnel->worker->counters;
  counters_split_add(counters, SPLIT_TUNNEL_MESSAGES_OUT, (size_t)tunnel->type, 1);
  counters_record_us(counters, HISTOGRAM_MESSAGE_IN, clock_monotonic_us() - message->arrived_us);
  trace_handed_over(tunnel, message, NULL);
  watch_sent(tunnel, message);
  stream_send(tunnel->stream);
}

static bool takes_now(const struct tunnel *tunnel) {
  return tunnel->state == TUNNEL_OPEN && stream_takes(tunnel->stream);
}

// What waits goes to the stream, as far as that takes it. The tunnel may be gone after this, and so
// may its player's sessions.
static void pump(struct tunnel *tunnel) {
  while (tunnel->queue.count > 0 && takes_now(tunnel)) {
    struct tunnel_queued queued = queue_pop(&tunnel->queue);
    uint8_t *waited = queued.bytes;
    counters_gauge_add(tunnel->worker->counters, GAUGE_QUEUED_IN_BYTES, -(int64_t)queued.len);
    queued.bytes = stream_reserve(tunnel->stream, queued.len);
    if (queued.bytes) {
      memcpy(queued.bytes, waited, queued.len);
      hand_over(tunnel, &queued);
    }
    free(waited);
    if (!queued.bytes) {
      counters_add(tunnel->worker->counters, COUNTER_DROPPED_IN, 1);
      if (tunnel->player) {
        tunnel_close_player(tunnel, CLOSE_OUT_OF_MEMORY);
        return;
      }
    }
  }
  if (tunnel->player) {
    check_relieved(tunnel);
  } else if (tunnel->queue.count == 0 && takes_now(tunnel)) {
    tunnel_free(tunnel);  // drained
  }
}

// Goes on reading, unless the session that the latest message went to (NULL: there is none) has
// enough waiting for it.
static void read_on(struct tunnel *tunnel, struct session *latest) {
  if (!tunnel->player) {
    return;
  }
  tunnel->waits_for = player_blocked_by(tunnel->player, latest);
  if (!tunnel->waits_for) {
    stream_read(tunnel->stream);
  }
}

static void on_opened(void *owner) {
  struct tunnel *tunnel = owner;
  struct worker *worker = tunnel->worker;
  size_t type = (size_t)tunnel->type;
  counters_split_add(worker->counters,
                     tunnel->broken_ms != 0 ? SPLIT_TUNNELS_REOPENED : SPLIT_TUNNELS_OPENED, type,
                     1);
  counters_split_add(worker->counters, SPLIT_TUNNELS, type, 1);
  counters_record_us(worker->counters, HISTOGRAM_TUNNEL_OPEN,
                     clock_monotonic_us() - tunnel->sought_us);
  tunnel->sought_us = 0;
  trace_opened(tunnel, STREAM_OK);
  tunnel->state = TUNNEL_OPEN;
  tunnel->opened_ms = clock_monotonic_ms();
  if (tunnel->player) {
    watch_tunnel_event(tunnel,
                       tunnel->broken_ms != 0 ? WATCHED_TUNNEL_REOPENED : WATCHED_TUNNEL_OPENED,
                       STREAM_OK);
  }
  read_on(tunnel, NULL);
  pump(tunnel);
}

static void on_sent(void *owner) { pump(owner); }

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  struct tunnel *tunnel = owner;
  struct player *player = tunnel->player;
  struct session *session = NULL;
  struct worker *worker = tunnel->worker;
  struct packet packet;

  if (!player) {
    counters_add(worker->counters, COUNTER_DROPPED_OUT, 1);
    return;
  }
  tunnel->broken_ms = 0;
  tunnel->failures = 0;
  tunnel->unanswered = false;
  counters_split_add(worker->counters, SPLIT_TUNNEL_MESSAGES_IN, (size_t)tunnel->type, 1);
  if (tunnel_message_decode(&packet, bytes, len) != 0) {
    counters_add(worker->counters, COUNTER_TUNNEL_MALFORMED, 1);
    uint64_t suppressed;
    if (worker_may_log(worker, WORKER_LOG_TUNNEL, &suppressed)) {
      char fields[SESSION_LOG_BYTES];
      log_warn("tunnel_malformed", "%s address=%s type=%s bytes=%zu suppressed=%" PRIu64,
               session_log_fields(fields, tunnel->connection, tunnel->uid, tunnel->trace),
               tunnel->address, tunnel_type(tunnel)->name, len, suppressed);
    }
  } else {
    session = player_answered(player, tunnel->type, tunnel->oid, &packet);
    if (session->watched) {
      watch_from_tunnel(session, tunnel, &packet, len);
    }
    session_on_answer(session, &packet);
    watch_done(session);
    counters_record_us(worker->counters, HISTOGRAM_MESSAGE_OUT,
                       clock_monotonic_us() - stream_engine_arrived_us(worker->streams));
  }
  if (!player_is_over(player)) {  // else the tunnel is gone
    read_on(tunnel, session);
  }
}

// Statuses by which a backend refuses for good, rather than fails.
static bool is_refusal(int status) {
  switch (status) {
    case STREAM_INVALID_ARGUMENT:
    case STREAM_NOT_FOUND:
    case STREAM_PERMISSION_DENIED:
    case STREAM_FAILED_PRECONDITION:
    case STREAM_UNIMPLEMENTED:
    case STREAM_UNAUTHENTICATED: return true;
    default: return false;
  }
}

static void log_ended(struct tunnel *tunnel, bool was_open, int status, const char *detail) {
  struct worker *worker = tunnel->worker;
  uint64_t suppressed;
  if (!worker_may_log(worker, WORKER_LOG_TUNNEL, &suppressed)) {
    return;
  }
  char text[256];
  char fields[SESSION_LOG_BYTES];
  log_warn(was_open ? "tunnel_broken" : "tunnel_open_failed",
           "%s address=%s tls=%s type=%s oid=%" PRId64 " status=%d detail=%s suppressed=%" PRIu64,
           session_log_fields(fields, tunnel->connection, tunnel->uid, tunnel->trace),
           tunnel->address, tunnel->secure ? "true" : "false", tunnel_type(tunnel)->name,
           tunnel->oid, status, log_quote(text, sizeof text, detail, strlen(detail)), suppressed);
}

static void on_ended(void *owner, int status, const char *detail) {
  struct tunnel *tunnel = owner;
  struct worker *worker = tunnel->worker;
  const struct config *config = &worker->config;
  bool was_open = tunnel->state == TUNNEL_OPEN;
  int64_t now_ms = clock_monotonic_ms();

  if (status != STREAM_OK) {
    log_ended(tunnel, was_open, status, detail);
  }
  counters_split_add(worker->counters, was_open ? SPLIT_TUNNELS_BROKEN : SPLIT_TUNNEL_OPEN_FAILURES,
                     (size_t)tunnel->type, 1);
  if (tunnel->player) {
    watch_tunnel_event(tunnel, WATCHED_TUNNEL_BROKEN, status);
  }
  trace_opened(tunnel, status);
  forget_old_trouble(tunnel);
  end_stream(tunnel);
  tunnel->state = TUNNEL_WAITING;
  if (!tunnel->player) {
    tunnel_free(tunnel);
    return;
  }
  if (is_refusal(status)) {
    refused(tunnel);
    return;
  }
  if (status == STREAM_RESOURCE_EXHAUSTED && was_open && tunnel->unanswered) {
    // Most likely an answer over tunnel.message_bytes, which will not come again.
    const struct player *player = tunnel->player;
    tunnel->unanswered = false;
    session_send_unexpected_error(player_session(player, tunnel->last_connection), tunnel->last_mod,
                                  tunnel->last_seq,
                                  "the server's answer was too large or was refused");
    if (player_is_over(player)) {
      return;  // closing it has freed the tunnel
    }
  }
  if (status == STREAM_OK && !tunnel_type(tunnel)->main && tunnel->queue.count == 0) {
    tunnel_free(tunnel);  // the object has come to its end; the next message opens it again
    return;
  }
  if (status == STREAM_UNAVAILABLE || (!was_open && status != STREAM_RESOURCE_EXHAUSTED)) {
    node_picker_suspect(worker->node_picker, tunnel_type(tunnel)->service, tunnel_color(tunnel),
                        tunnel->address, now_ms + config->tunnel.suspect_ms);
  }
  tunnel_find_route_again(tunnel);
}

void tunnel_open_stream(struct tunnel *tunnel, const struct node *node, bool follows) {
  static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};
  struct worker *worker = tunnel->worker;
  const struct session *session = player_oldest(tunnel->player);
  char oid[24];
  char uid[24];
  char sid[24];
  char status[16];
  char referer[CONFIG_TEXT_BYTES + 24];
  snprintf(oid, sizeof oid, "%" PRId64, tunnel->oid);
  snprintf(uid, sizeof uid, "%" PRId64, session->uid);
  snprintf(sid, sizeof sid, "%" PRId64, session->sid);
  snprintf(status, sizeof status, "%" PRId32, session->status);
  snprintf(referer, sizeof referer, "%s#%" PRIu64, worker->config.server.grpc.advertise,
           session->connection);
  char traceparent[TRACE_PARENT_TEXT_BYTES];
  enum { COUNT = 8 };
  struct stream_metadata metadata[COUNT + TRACE_METADATA_MAX] = {
      {"x-md-global-oid", oid},
      {"x-md-global-uid", uid},
      {"x-md-global-sid", sid},
      {"x-md-global-status", status},
      {"x-md-global-color", session->color},
      {"x-md-global-client-ip", session->address},
      {"x-md-global-referer", referer},
      {"x-md-global-gate-referer", referer},
  };
  const struct stream_target target = {
      .address = node->address, .secure = node->secure, .method = tunnel_type(tunnel)->method};

  if (tunnel->sought_us == 0) {  // it has moved: nothing was looked up
    tunnel->sought_us = clock_monotonic_us();
  }
  memcpy(tunnel->address, node->address, sizeof tunnel->address);
  tunnel->secure = node->secure;
  tunnel_hold_route(tunnel, follows);
  size_t count = trace_opening(tunnel, metadata, COUNT, traceparent);
  tunnel->stream = stream_open(worker->streams, &target, metadata, count, &events, tunnel);
  if (!tunnel->stream) {
    tunnel_close_player(tunnel, CLOSE_OUT_OF_MEMORY);
    return;
  }
  tunnel->state = TUNNEL_OPENING;
}

// --- For the player --------------------------------------------------------------

struct tunnel *tunnel_get(struct session *session, int type, int64_t oid, bool *limited) {
  struct worker *worker = session->worker;
  struct player *player = session->player;
  struct tunnel *tunnel;
  LIST_FOREACH(tunnel, &player->tunnels, link) {
    if (tunnel->type == type && tunnel->oid == oid) {
      return tunnel;
    }
  }
  *limited = player->tunnel_count >= (size_t)worker->config.limits.tunnels_per_session;
  if (*limited) {
    return NULL;
  }
  tunnel = calloc(1, sizeof *tunnel);
  if (!tunnel) {
    return NULL;
  }
  tunnel->worker = worker;
  tunnel->player = player;
  tunnel->connection = session->connection;
  tunnel->uid = session->uid;
  tunnel->type = type;
  tunnel->oid = oid;
  trace_tunnel(tunnel, session);
  tunnel_init_route(tunnel);
  evtimer_assign(&tunnel->timer, worker->base, on_timer, tunnel);
  LIST_INSERT_HEAD(&player->tunnels, tunnel, link);
  player->tunnel_count++;
  tunnel->state = TUNNEL_WAITING;
  return tunnel;
}

// Puts the message into the queue, for when the stream takes it. False when out of memory.
static bool queue_message(struct tunnel *tunnel, struct tunnel_queued *queued,
                          const struct packet *packet) {
  queued->bytes = malloc(queued->len > 0 ? queued->len : 1);
  if (!queued->bytes || queue_push(&tunnel->queue, queued) != 0) {
    free(queued->bytes);
    return false;
  }
  tunnel_message_encode(packet, tunnel_type(tunnel)->fragments, queued->bytes);
  counters_gauge_add(tunnel->worker->counters, GAUGE_QUEUED_IN_BYTES, (int64_t)queued->len);
  return true;
}

void tunnel_send(struct tunnel *tunnel, struct session *session, const struct packet *packet) {
  bool fragments = tunnel_type(tunnel)->fragments;
  bool goes_now = tunnel->queue.count == 0 && takes_now(tunnel);
  struct tunnel_queued queued = {.len = tunnel_message_size(packet, fragments),
                                 .connection = session->connection,
                                 .arrived_us = session->arrived_us,
                                 .queued_us = session->watched ? clock_monotonic_us() : 0,
                                 .came_ns = trace_queued(session)};
  if (goes_now) {
    queued.bytes = stream_reserve(tunnel->stream, queued.len);
  }
  if (goes_now ? !queued.bytes : !queue_message(tunnel, &queued, packet)) {
    session_close(session, CLOSE_OUT_OF_MEMORY);
    return;
  }
  tunnel->last_mod = packet->mod;
  tunnel->last_seq = packet->seq;
  tunnel->last_connection = session->connection;
  tunnel->unanswered = true;
  player_asked(session, tunnel->type, tunnel->oid, packet);
  if (goes_now) {
    tunnel_message_encode(packet, fragments, queued.bytes);
    hand_over(tunnel, &queued);
    return;
  }
  check_full(tunnel, session);
  if (tunnel->state == TUNNEL_WAITING && !evtimer_pending(&tunnel->timer, NULL)) {
    tunnel_find_route(tunnel);  // its first message
  }
}

void tunnel_resume(struct tunnel *tunnel, const struct session *session) {
  if (tunnel->waits_for == session && tunnel->state == TUNNEL_OPEN) {
    tunnel->waits_for = NULL;
    stream_read(tunnel->stream);
  }
}
