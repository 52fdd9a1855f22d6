#include "worker/watch.h"

#include <string.h>

#include "common/clock.h"
#include "common/stream.h"
#include "worker/inbox.h"
#include "worker/player.h"

// What a worker tells in a second, at most: some 2 MB, and 2% of its time.
enum { PACKETS_PER_S = 5000 };

// --- Telling ---------------------------------------------------------------------

static bool may_tell(struct worker *worker) {
  return token_bucket_take(&worker->watched_packets, 1, clock_monotonic_ms());
}

static void count_lost(struct session *session, uint32_t packets) {
  session->watch.lost += packets;
  counters_add(session->worker->counters, COUNTER_WATCHED_LOST, packets);
}

static void tell(struct session *session, struct channel_watched_packet *told) {
  told->connection = session->connection;
  told->at_us = clock_wall_us();
  told->lost = session->watch.lost;
  if (inbox_report(session->worker->inbox, CHANNEL_WATCHED_PACKET, told)) {
    session->watch.lost = 0;
  } else {
    count_lost(session, told->kind != WATCHED_LOST);
  }
}

// Packets are what there may be too many of.
static void tell_packet(struct session *session, struct channel_watched_packet *told) {
  if (!may_tell(session->worker)) {
    count_lost(session, 1);
    return;
  }
  tell(session, told);
}

static void tell_lost(struct session *session) {
  if (session->watch.lost > 0) {
    struct channel_watched_packet told = {.kind = WATCHED_LOST};
    tell(session, &told);
  }
}

static struct channel_watched_packet header_of(const struct packet *packet,
                                               enum channel_watched_kind kind) {
  return (struct channel_watched_packet){
      .took_us = CHANNEL_WATCHED_UNKNOWN,
      .waited_us = CHANNEL_WATCHED_UNKNOWN,
      .tunnel_type = CHANNEL_WATCHED_UNKNOWN,
      .data_bytes = packet->data_len,
      .data_version = packet->data_version,
      .obj = packet->obj,
      .kind = (int32_t)kind,
      .mod = packet->mod,
      .seq = packet->seq,
      .ver = packet->ver,
      .index = packet->index,
      .conn_id = packet->conn_id,
      .frag_id = packet->frag_id,
      .frag_count = packet->frag_count,
      .frag_index = packet->frag_index,
      .compressed = packet->compress,
  };
}

static void name_tunnel(struct channel_watched_packet *told, const struct tunnel *tunnel) {
  told->tunnel_type = tunnel->type;
  told->oid = tunnel->oid;
  memcpy(told->address, tunnel->address, sizeof told->address);
}

// How long since; 0 stands for a time that nobody has taken.
static int64_t since(int64_t then_us) {
  return then_us != 0 ? clock_monotonic_us() - then_us : CHANNEL_WATCHED_UNKNOWN;
}

// --- Packets ---------------------------------------------------------------------

void watch_arrived(struct session *session, size_t wire_bytes) {
  session->watch.arrived_us = session->arrived_us;
  session->watch.wire_bytes = (uint32_t)wire_bytes;
}

void watch_done(struct session *session) {
  if (session->watched) {
    session->watch.arrived_us = 0;
  }
}

void watch_from_client(struct session *session, const struct packet *packet, size_t data_bytes,
                       size_t plain_bytes) {
  struct channel_watched_packet told = header_of(packet, WATCHED_CLIENT_TO_GATEWAY);
  told.data_bytes = data_bytes;
  told.plain_bytes = plain_bytes;
  told.sealed_bytes = session->watch.wire_bytes;
  tell_packet(session, &told);
}

void watch_to_client(struct session *session, const struct packet *packet, size_t plain_bytes,
                     size_t sealed_bytes) {
  struct channel_watched_packet told = header_of(packet, WATCHED_GATEWAY_TO_CLIENT);
  told.took_us = since(session->watch.arrived_us);
  told.plain_bytes = plain_bytes;
  told.sealed_bytes = sealed_bytes;
  told.queued_bytes = transport_queued_bytes(session->transport);
  tell_packet(session, &told);
}

void watch_push(struct session *session, const struct push *push, size_t sealed_bytes,
                bool waited) {
  struct packet packet;
  if (packet_decode(&packet, push->packet, push->about.packet_bytes) != 0) {
    return;  // the master made it
  }
  struct channel_watched_packet told = header_of(&packet, WATCHED_PUSH);
  told.took_us = since(push->came_us);
  told.waited_us = waited ? told.took_us : 0;
  told.plain_bytes = push->about.packet_bytes;
  told.sealed_bytes = sealed_bytes;
  told.queued_bytes = transport_queued_bytes(session->transport);
  tell_packet(session, &told);
}

void watch_to_tunnel(struct session *session, const struct tunnel *tunnel,
                     const struct tunnel_queued *queued) {
  struct packet packet;
  if (tunnel_message_decode(&packet, queued->bytes, queued->len) != 0) {
    return;  // it is our own
  }
  struct channel_watched_packet told = header_of(&packet, WATCHED_GATEWAY_TO_TUNNEL);
  name_tunnel(&told, tunnel);
  told.took_us = since(queued->arrived_us);
  told.waited_us = since(queued->queued_us);
  told.plain_bytes = queued->len;
  told.queued_bytes = tunnel->queue.bytes;
  tell_packet(session, &told);
}

void watch_from_tunnel(struct session *session, const struct tunnel *tunnel,
                       const struct packet *packet, size_t len) {
  struct channel_watched_packet told = header_of(packet, WATCHED_TUNNEL_TO_GATEWAY);
  if (tunnel) {
    name_tunnel(&told, tunnel);
  }
  told.plain_bytes = len;
  watch_arrived(session, len);
  tell_packet(session, &told);
}

// --- Events ----------------------------------------------------------------------

void watch_event(struct session *session, enum channel_watched_kind kind) {
  struct channel_watched_packet told = {.kind = (int32_t)kind,
                                        .tunnel_type = CHANNEL_WATCHED_UNKNOWN};
  told.queued_bytes = transport_queued_bytes(session->transport);
  tell(session, &told);
}

void watch_tunnel_event(const struct tunnel *tunnel, enum channel_watched_kind kind, int status) {
  struct channel_watched_packet told = {.kind = (int32_t)kind, .status = status};
  name_tunnel(&told, tunnel);
  told.queued_bytes = tunnel->queue.bytes;
  struct session *session;
  TAILQ_FOREACH(session, &tunnel->player->sessions, sibling) {
    if (session->watched) {
      tell(session, &told);
    }
  }
}

// --- Beginning and end -------------------------------------------------------------

static void begin(struct session *session) {
  struct worker *worker = session->worker;
  session->watched = true;
  session->watch = (struct session_watch){0};
  LIST_INSERT_HEAD(&worker->watched_sessions, session, watched_link);
  counters_gauge_add(worker->counters, GAUGE_WATCHED_SESSIONS, 1);
}

static void end(struct session *session) {
  session->watched = false;
  LIST_REMOVE(session, watched_link);
  counters_gauge_add(session->worker->counters, GAUGE_WATCHED_SESSIONS, -1);
}

void watch_on_watch(struct worker *worker, const struct channel_watch *watch) {
  struct session *session = session_find(worker, watch->connection);
  if (!session || session->watched == (watch->on != 0)) {
    return;
  }
  if (watch->on != 0) {
    if (LIST_EMPTY(&worker->watched_sessions)) {
      token_bucket_init(&worker->watched_packets, PACKETS_PER_S, PACKETS_PER_S,
                        clock_monotonic_ms());
    }
    begin(session);
  } else {
    end(session);
  }
}

void watch_end_all(struct worker *worker) {
  while (!LIST_EMPTY(&worker->watched_sessions)) {
    end(LIST_FIRST(&worker->watched_sessions));
  }
}

void watch_session_end(struct session *session) {
  tell_lost(session);
  end(session);
}

void watch_tick(struct worker *worker) {
  struct session *session;
  LIST_FOREACH(session, &worker->watched_sessions, watched_link) { tell_lost(session); }
}
