#include "worker/farewell.h"

#include <stdlib.h>

#include "common/packet.h"
#include "common/stream.h"
#include "worker/player.h"
#include "worker/watch.h"
#include "worker/worker.h"

enum { FAREWELLS_MAX = 8 };  // of one player; a route does not move that often

struct farewell {
  LIST_ENTRY(farewell) link;  // among the player's
  struct player *player;
  int64_t oid;  // of its tunnel,
  int type;     // and the type
  struct stream *stream;
  struct session *waits_for;  // the next message was not asked for: its client is slow; or NULL
  bool unanswered;
};

static void end(struct farewell *farewell) {
  stream_end(farewell->stream, true);
  LIST_REMOVE(farewell, link);
  farewell->player->farewell_count--;
  free(farewell);
}

static void read_on(struct farewell *farewell, struct session *latest) {
  farewell->waits_for = player_blocked_by(farewell->player, latest);
  if (!farewell->waits_for) {
    stream_read(farewell->stream);
  }
}

static void on_opened(void *owner) { (void)owner; }

static void on_sent(void *owner) { (void)owner; }

static void on_message(void *owner, const uint8_t *bytes, size_t len) {
  struct farewell *farewell = owner;
  struct player *player = farewell->player;
  struct session *session = NULL;
  struct worker *worker = player_oldest(player)->worker;
  struct counters *counters = worker->counters;
  struct packet packet;
  farewell->unanswered = false;
  counters_split_add(counters, SPLIT_TUNNEL_MESSAGES_IN, (size_t)farewell->type, 1);
  if (tunnel_message_decode(&packet, bytes, len) != 0) {
    counters_add(counters, COUNTER_TUNNEL_MALFORMED, 1);
  } else if (session_is_logout(packet.mod, packet.seq)) {
    counters_add(counters, COUNTER_DROPPED_OUT, 1);  // the player is at the other node now
  } else {
    session = player_answered(player, farewell->type, farewell->oid, &packet);
    if (session->watched) {
      watch_from_tunnel(session, NULL, &packet, len);
    }
    session_on_answer(session, &packet);
    watch_done(session);
    counters_record_us(counters, HISTOGRAM_MESSAGE_OUT,
                       clock_monotonic_us() - stream_engine_arrived_us(worker->streams));
  }
  if (!player_is_over(player)) {  // else it has been ended
    read_on(farewell, session);
  }
}

static void on_ended(void *owner, int status, const char *detail) {
  struct farewell *farewell = owner;
  bool unsure = farewell->unanswered && status != STREAM_OK;
  (void)detail;
  counters_add(player_oldest(farewell->player)->worker->counters, COUNTER_TUNNEL_UNSURE, unsure);
  end(farewell);
}

void farewell_begin(struct player *player, int type, int64_t oid, struct stream *stream,
                    struct session *waits_for, bool unanswered) {
  static const struct stream_events events = {on_opened, on_sent, on_message, on_ended};
  struct farewell *farewell =
      player->farewell_count < FAREWELLS_MAX ? malloc(sizeof *farewell) : NULL;
  if (!farewell) {
    counters_add(player_oldest(player)->worker->counters, COUNTER_TUNNEL_UNSURE, unanswered);
    stream_end(stream, true);
    return;
  }
  *farewell = (struct farewell){
      .player = player, .oid = oid, .type = type, .stream = stream, .unanswered = unanswered};
  LIST_INSERT_HEAD(&player->farewells, farewell, link);
  player->farewell_count++;
  stream_finish(stream, &events, farewell);
  if (waits_for) {
    read_on(farewell, waits_for);
  }
}

void farewell_resume_all(struct player *player, const struct session *session) {
  struct farewell *farewell;
  LIST_FOREACH(farewell, &player->farewells, link) {
    if (farewell->waits_for == session) {
      farewell->waits_for = NULL;
      stream_read(farewell->stream);
    }
  }
}

void farewell_end_all(struct player *player) {
  while (!LIST_EMPTY(&player->farewells)) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    end(LIST_FIRST(&player->farewells));
  }
}
