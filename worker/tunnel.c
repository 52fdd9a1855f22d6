#include "worker/tunnel.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/backoff.h"
#include "common/clock.h"
#include "common/loop.h"
#include "worker/inbox.h"
#include "worker/player.h"
#include "worker/session_log.h"
#include "worker/trace.h"
#include "worker/watch.h"
#include "worker/worker.h"

#define LOG_MODULE LOG_MODULE_TUNNEL

const char *tunnel_state_name(enum tunnel_state state) {
  static const char *const names[] = {"routing", "opening", "open", "waiting"};
  return names[state];
}

static const struct config_tunnel_type *tunnel_type(const struct tunnel *tunnel) {
  return &tunnel->worker->config.tunnel.types[tunnel->type];
}

static const char *color_of(const struct tunnel *tunnel) {
  return player_oldest(tunnel->player)->color;
}

// What ails one of its tunnels is a matter of the whole player. Frees the tunnel.
static void close_player(struct tunnel *tunnel, enum close_reason reason) {
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

static struct tunnel_queued queue_pop(struct tunnel_queue *queue) {
  struct tunnel_queued queued = queue->ring[queue->head];
  queue->head = (queue->head + 1) & (queue->room - 1);
  queue->count--;
  queue->bytes -= queued.len;
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

static struct tunnel_list *held_bucket(struct worker *worker, int type, int64_t oid) {
  uint64_t hash = ((uint64_t)oid * CONFIG_TUNNEL_TYPES + (uint64_t)type) * 0x9e3779b97f4a7c15;
  return &worker->held_tunnels[(hash >> 32) % TUNNEL_HELD_BUCKETS];
}

// The route of a tunnel is held from before its stream is opened until that has ended.
static void hold_route(struct tunnel *tunnel, bool follows) {
  struct worker *worker = tunnel->worker;
  route_store_hold(worker->route_store, tunnel->type, color_of(tunnel), tunnel->oid,
                   tunnel->address, follows);
  LIST_INSERT_HEAD(held_bucket(worker, tunnel->type, tunnel->oid), tunnel, held);
  tunnel->holds = true;
}

void tunnel_tell_held(struct worker *worker) {
  for (size_t i = 0; i < TUNNEL_HELD_BUCKETS; i++) {
    const struct tunnel *tunnel;
    LIST_FOREACH(tunnel, &worker->held_tunnels[i], held) {
      route_store_hold(worker->route_store, tunnel->type, color_of(tunnel), tunnel->oid,
                       tunnel->address, false);
    }
  }
}

static void release_route(struct tunnel *tunnel) {
  if (tunnel->holds) {
    route_store_release(tunnel->worker->route_store, tunnel->type, color_of(tunnel), tunnel->oid);
    LIST_REMOVE(tunnel, held);
    tunnel->holds = false;
  }
}

static void forget_move(struct tunnel *tunnel) {
  if (tunnel->moved_to) {
    event_del(&tunnel->timer);
    route_store_withdraw(&tunnel->claim);
    free(tunnel->moved_to);
    tunnel->moved_to = NULL;
  }
}

static void end_stream(struct tunnel *tunnel) {
  struct stream *stream = tunnel->stream;
  release_route(tunnel);
  forget_move(tunnel);
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

// For another node. What the one of until now has been sent, it still answers.
static void leave_stream(struct tunnel *tunnel) {
  struct stream *stream = tunnel->stream;
  struct session *waits_for = tunnel->waits_for;
  bool all_sent = tunnel->queue.count == 0;
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
  route_store_withdraw(&tunnel->claim);
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
  release_route(tunnel);
  forget_move(tunnel);
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
    close_player(tunnel, CLOSE_TUNNEL_REFUSED);
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

// --- Finding the node ----------------------------------------------------------

// follows: the tunnel goes there because the master said so.
static void open_stream(struct tunnel *tunnel, const struct node *node, bool follows);
static void catch_up(struct tunnel *tunnel);
static void on_taken_back(struct tunnel *tunnel, const char *address);

// A further try after a while, or the end of the player's sessions when tries have come to
// nothing for too long.
static void try_later(struct tunnel *tunnel) {
  const struct config *config = &tunnel->worker->config;
  int64_t now_ms = clock_monotonic_ms();
  if (tunnel->broken_ms == 0) {
    tunnel->broken_ms = now_ms;
  }
  if (now_ms - tunnel->broken_ms >= config->tunnel.reopen_timeout_ms) {
    close_player(tunnel, CLOSE_TUNNEL_LOST);
    return;
  }
  int64_t wait_ms =
      backoff_ms(config->tunnel.backoff_ms, config->tunnel.backoff_max_ms, tunnel->failures);
  tunnel->failures++;
  tunnel->state = TUNNEL_WAITING;
  loop_start_timer(&tunnel->timer, wait_ms);
}

static struct node_picker *fresh_picker(struct worker *worker) {
  node_picker_refresh(worker->node_picker, worker->nodes);
  return worker->node_picker;
}

// The node at address, if the registry has it and it is not under suspicion.
static const struct node *usable_node(struct tunnel *tunnel, const char *address) {
  return node_picker_find(fresh_picker(tunnel->worker), tunnel_type(tunnel)->service,
                          color_of(tunnel), address, clock_monotonic_ms());
}

// Whether to wait for a node that a route names and the registry does not have.
static bool may_come(struct tunnel *tunnel, const char *address) {
  return node_picker_may_come(
      tunnel->worker->node_picker, tunnel_type(tunnel)->service, color_of(tunnel), address,
      tunnel->worker->config.tunnel.unknown_node_grace_ms, clock_monotonic_ms());
}

static bool sees_registry(const struct worker *worker) {
  return node_table_is_current(worker->nodes) && inbox_has_master(worker->inbox);
}

// The node that a route names. While the registry can't be seen, one that it has not told
// of may have come meanwhile: it is tried, for its players are there.
static const struct node *named_node(struct tunnel *tunnel, const char *address) {
  struct worker *worker = tunnel->worker;
  const struct node *node = usable_node(tunnel, address);
  if (!node && !sees_registry(worker)) {
    node = node_picker_unseen(worker->node_picker, tunnel_type(tunnel)->service, color_of(tunnel),
                              address, clock_monotonic_ms());
  }
  return node;
}

static int look_up(struct tunnel *tunnel, struct route *route) {
  struct worker *worker = tunnel->worker;
  const struct config_tunnel_type *type = tunnel_type(tunnel);
  struct route_key key = {
      .tier = type->tier, .service = type->service, .color = color_of(tunnel), .oid = tunnel->oid};
  int error = route_table_lookup(worker->routes, &key, clock_wall_ms(), route);
  return error == 0 && route_store_knows_better(worker->route_store) ? ERROR_EXPIRED : error;
}

// Where the object was when that was last known. Others may be there still, and all
// gateways remember the same.
static const struct node *last_node(struct tunnel *tunnel) {
  struct route route;
  return look_up(tunnel, &route) == ERROR_EXPIRED ? named_node(tunnel, route.address) : NULL;
}

// Asks the store, with a node of our choice; dead is what the route names now and
// must not, or "".
static void claim(struct tunnel *tunnel, const char *dead) {
  struct worker *worker = tunnel->worker;
  const struct node *candidate = last_node(tunnel);
  // One that takes nobody new is not proposed: if others are there still, the store has it.
  if (!candidate || candidate->weight == 0) {
    candidate = node_picker_pick(fresh_picker(worker), tunnel_type(tunnel)->service,
                                 color_of(tunnel), clock_monotonic_ms());
  }
  if (!candidate) {
    try_later(tunnel);
    return;
  }
  tunnel->state = TUNNEL_ROUTING;
  if (dead[0] != '\0') {
    counters_add(worker->counters, COUNTER_ROUTE_REPLACED, 1);
  }
  route_store_claim(worker->route_store, &tunnel->claim, tunnel->type, color_of(tunnel),
                    tunnel->oid, candidate->address, dead);
}

// Nobody can settle it: it is where it was, or else where every gateway computes that it
// is.
static const struct node *fallback_node(struct tunnel *tunnel) {
  const struct node *node = last_node(tunnel);
  return node ? node
              : node_picker_fallback(fresh_picker(tunnel->worker), tunnel_type(tunnel)->service,
                                     color_of(tunnel), tunnel->oid, clock_monotonic_ms());
}

// The store's answer holds, whoever's choice it is.
static void on_settled(struct route_claim *route_claim, const char *address) {
  struct tunnel *tunnel = (struct tunnel *)((char *)route_claim - offsetof(struct tunnel, claim));
  const struct node *node;

  if (tunnel->moved_to) {
    on_taken_back(tunnel, address);
    return;
  }
  if (address[0] == '\0') {
    counters_add(tunnel->worker->counters, COUNTER_ROUTE_FALLBACKS, 1);
    node = fallback_node(tunnel);
  } else {
    node = named_node(tunnel, address);
  }
  if (node) {
    open_stream(tunnel, node, false);
  } else if (address[0] != '\0' && !may_come(tunnel, address)) {
    claim(tunnel, address);
  } else {
    try_later(tunnel);
  }
}

static void find_route(struct tunnel *tunnel) {
  struct worker *worker = tunnel->worker;
  struct route route;
  if (tunnel->sought_us == 0) {
    tunnel->sought_us = clock_monotonic_us();
  }
  int error = look_up(tunnel, &route);
  if (error != 0) {
    counters_add(worker->counters, error == ERROR_BUSY ? COUNTER_ROUTE_TORN : COUNTER_ROUTE_MISSES,
                 1);
    claim(tunnel, "");
    return;
  }
  counters_add(worker->counters, COUNTER_ROUTE_HITS, 1);
  const struct node *node = named_node(tunnel, route.address);
  if (node) {
    open_stream(tunnel, node, false);
  } else if (may_come(tunnel, route.address)) {
    try_later(tunnel);
  } else {
    claim(tunnel, route.address);
  }
}

static void on_timer(evutil_socket_t fd, short what, void *owner) {
  struct tunnel *tunnel = owner;
  (void)fd;
  (void)what;
  if (!tunnel->player) {
    tunnel_free(tunnel);
  } else if (tunnel->moved_to) {
    catch_up(tunnel);
  } else {
    find_route(tunnel);
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
        close_player(tunnel, CLOSE_OUT_OF_MEMORY);
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
    node_picker_suspect(worker->node_picker, tunnel_type(tunnel)->service, color_of(tunnel),
                        tunnel->address, now_ms + config->tunnel.suspect_ms);
  }
  // A stream that had worked for a good while is no sign of trouble to come.
  if (was_open && now_ms - tunnel->opened_ms >= config->tunnel.reopen_timeout_ms) {
    tunnel->broken_ms = 0;
    tunnel->failures = 0;
  }
  if (tunnel->failures > 0) {
    try_later(tunnel);
    return;
  }
  tunnel->failures = 1;  // the first time at once
  if (tunnel->broken_ms == 0) {
    tunnel->broken_ms = now_ms;
  }
  find_route(tunnel);
}

static void open_stream(struct tunnel *tunnel, const struct node *node, bool follows) {
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
  hold_route(tunnel, follows);
  size_t count = trace_opening(tunnel, metadata, COUNT, traceparent);
  tunnel->stream = stream_open(worker->streams, &target, metadata, count, &events, tunnel);
  if (!tunnel->stream) {
    close_player(tunnel, CLOSE_OUT_OF_MEMORY);
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
  tunnel->claim.on_settled = on_settled;
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
    find_route(tunnel);  // its first message
  }
}

void tunnel_resume(struct tunnel *tunnel, const struct session *session) {
  if (tunnel->waits_for == session && tunnel->state == TUNNEL_OPEN) {
    tunnel->waits_for = NULL;
    stream_read(tunnel->stream);
  }
}

// --- A route that moves ------------------------------------------------------------

// Goes to the node at address, if it can be: the backend ends what has no route. False: not
// now. Otherwise the session may have been closed, and tunnels with it.
static bool follow(struct tunnel *tunnel, const char *address) {
  const struct node *node = named_node(tunnel, address);
  if (!node) {
    return false;
  }
  counters_add(tunnel->worker->counters, COUNTER_ROUTES_MOVED, 1);
  leave_stream(tunnel);
  open_stream(tunnel, node, true);
  return true;
}

// Whether the registry is sure that there is no such node as the route names.
static bool names_nowhere(struct tunnel *tunnel) {
  struct worker *worker = tunnel->worker;
  return sees_registry(worker) &&
         node_picker_is_gone(fresh_picker(worker), tunnel_type(tunnel)->service, color_of(tunnel),
                             tunnel->moved_to, worker->config.tunnel.unknown_node_grace_ms,
                             clock_monotonic_ms());
}

// By then the node is not under suspicion any more, or else for something new; and of one that
// is gone, another gateway has said where the object is, or the registry that it is back.
static void await_move(struct tunnel *tunnel) {
  enum { AGAIN_MIN_MS = 1000 };
  int64_t suspect_ms = tunnel->worker->config.tunnel.suspect_ms;
  bool soon =
      suspect_ms < AGAIN_MIN_MS || may_come(tunnel, tunnel->moved_to) || names_nowhere(tunnel);
  loop_start_timer(&tunnel->timer, soon ? AGAIN_MIN_MS : suspect_ms);
}

static bool goes_by(const struct tunnel *tunnel, const struct channel_route_held *route) {
  return tunnel->type == (int)route->tunnel_type && tunnel->oid == route->oid &&
         strcmp(color_of(tunnel), route->color) == 0;
}

static struct channel_route_held route_of(const struct tunnel *tunnel, const char *address) {
  struct channel_route_held route = {.oid = tunnel->oid, .tunnel_type = (uint32_t)tunnel->type};
  snprintf(route.color, sizeof route.color, "%s", color_of(tunnel));
  snprintf(route.address, sizeof route.address, "%s", address);
  return route;
}

static bool is_being_taken_back(const struct tunnel *tunnel) {
  const struct channel_route_held route = route_of(tunnel, "");
  const struct tunnel *other;
  LIST_FOREACH(other, held_bucket(tunnel->worker, tunnel->type, tunnel->oid), held) {
    if (other->claim.id != 0 && goes_by(other, &route)) {
      return true;
    }
  }
  return false;
}

// A Redis that comes back after an outage with what it had before may name a node that has died
// meanwhile. Nobody can go there, and without Redis gateways may have gone to different
// ones: of those whose tunnels are open, the first to say so has the route, and the others
// follow. False: not now.
static bool take_back(struct tunnel *tunnel) {
  if (tunnel->state != TUNNEL_OPEN || !names_nowhere(tunnel) ||
      !usable_node(tunnel, tunnel->address) || is_being_taken_back(tunnel)) {
    return false;
  }
  counters_add(tunnel->worker->counters, COUNTER_ROUTE_REPLACED, 1);
  route_store_claim(tunnel->worker->route_store, &tunnel->claim, tunnel->type, color_of(tunnel),
                    tunnel->oid, tunnel->address, tunnel->moved_to);
  return true;
}

// The store's answer is for all of the object's tunnels here. The tunnel may be gone after this.
static void on_taken_back(struct tunnel *tunnel, const char *address) {
  if (address[0] == '\0') {
    await_move(tunnel);
    return;
  }
  const struct channel_route_held route = route_of(tunnel, address);
  forget_move(tunnel);
  tunnel_on_route_moved(tunnel->worker, &route);
}

static void catch_up(struct tunnel *tunnel) {
  if (!follow(tunnel, tunnel->moved_to) && !take_back(tunnel)) {
    await_move(tunnel);
  }
}

// The master may not say it again, and a node that is under suspicion here, or not known yet,
// may well serve the others.
static void remember_move(struct tunnel *tunnel, const char *address) {
  if (!tunnel->moved_to || strcmp(tunnel->moved_to, address) != 0) {
    forget_move(tunnel);
    tunnel->moved_to = strdup(address);
    if (tunnel->moved_to) {
      await_move(tunnel);
    }
  }
}

// True: it has gone there, and may have taken other tunnels with it (follow).
static bool keep_up(struct tunnel *tunnel, const char *address) {
  if (strcmp(tunnel->address, address) == 0) {
    forget_move(tunnel);
    return false;
  }
  if (!follow(tunnel, address)) {
    remember_move(tunnel, address);
    return false;
  }
  return true;
}

void tunnel_on_route_moved(struct worker *worker, const struct channel_route_held *moved) {
  if (moved->tunnel_type >= worker->config.tunnel.type_count) {
    return;
  }
  struct tunnel_list *bucket = held_bucket(worker, (int)moved->tunnel_type, moved->oid);
  struct tunnel *tunnel = LIST_FIRST(bucket);
  while (tunnel) {
    struct tunnel *next = LIST_NEXT(tunnel, held);
    if (goes_by(tunnel, moved) && keep_up(tunnel, moved->address)) {
      next = LIST_FIRST(bucket);
    }
    tunnel = next;
  }
}
