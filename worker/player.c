#include "worker/player.h"

#include <stdlib.h>
#include <string.h>

#include "common/channel.h"
#include "worker/pushes.h"
#include "worker/worker.h"

// --- Who has asked -------------------------------------------------------------

// Each sibling counts its messages by itself, so an index alone does not tell whose answer it is,
// nor is every message answered: what has been asked is kept with all that an answer has in common
// with it, and the oldest is forgotten for the newest. One that is alone is remembered too:
// siblings log in one after the other, and the first may have asked by then.
enum { ASKS_AT_FIRST = 16, ASKS_MAX_ALONE = 64, ASKS_MAX = 1024 };

struct ask {
  struct session *session;  // NULL: gone
  int64_t oid;
  int32_t index;
  int32_t mod;
  int32_t seq;
  int32_t type;
};

// A ring.
struct player_asks {
  size_t count;
  size_t room;  // a power of two
  size_t head;
  struct ask list[];
};

// The oldest is 0.
static struct ask *ask_at(struct player_asks *asks, size_t i) {
  return &asks->list[(asks->head + i) & (asks->room - 1)];
}

// What is answered is mostly the oldest, or among the newest behind much that never is.
static void remove_ask(struct player_asks *asks, size_t i) {
  if (i < asks->count / 2) {
    for (; i > 0; i--) {
      *ask_at(asks, i) = *ask_at(asks, i - 1);
    }
    asks->head = (asks->head + 1) & (asks->room - 1);
  } else {
    for (; i + 1 < asks->count; i++) {
      *ask_at(asks, i) = *ask_at(asks, i + 1);
    }
  }
  asks->count--;
}

// Only a connection that carries several sessions has a number of its own.
static bool may_have_siblings(const struct session *session) {
  return session->client != session->connection;
}

// False: memory is out, and there is no room at all.
static bool make_room(struct player *player) {
  struct player_asks *asks = player->asks;
  if (asks && asks->count < asks->room) {
    return true;
  }
  size_t most = player_has_siblings(player) ? ASKS_MAX : ASKS_MAX_ALONE;
  if (!asks || asks->room < most) {
    size_t room = asks ? asks->room * 2 : ASKS_AT_FIRST;
    struct player_asks *larger = malloc(sizeof *larger + room * sizeof *larger->list);
    if (larger) {
      *larger = (struct player_asks){.count = asks ? asks->count : 0, .room = room};
      for (size_t i = 0; i < larger->count; i++) {
        larger->list[i] = *ask_at(asks, i);
      }
      free(asks);
      player->asks = larger;
      return true;
    }
  }
  if (asks) {
    remove_ask(asks, 0);
  }
  return asks != NULL;
}

void player_asked(struct session *session, int type, int64_t oid, const struct packet *packet) {
  struct player *player = session->player;
  if (!may_have_siblings(session) || !make_room(player)) {
    return;  // the answer will go to the oldest
  }
  *ask_at(player->asks, player->asks->count++) = (struct ask){.session = session,
                                                              .oid = oid,
                                                              .index = packet->index,
                                                              .mod = packet->mod,
                                                              .seq = packet->seq,
                                                              .type = type};
}

// The session that asked, and first of those that asked alike. An answer has the module and the
// sequence of its question; what has only the index is given to who used that last, and answers
// nothing. NULL: nobody has, or who has is gone.
static struct session *take_ask(struct player_asks *asks, const struct session *named, int type,
                                int64_t oid, const struct packet *packet) {
  struct session *last = NULL;
  for (size_t i = 0; asks && i < asks->count; i++) {
    struct ask *ask = ask_at(asks, i);
    if (ask->index != packet->index || ask->type != type || ask->oid != oid ||
        (named && ask->session != named)) {
      continue;
    }
    last = ask->session;
    if (ask->mod == packet->mod && ask->seq == packet->seq) {
      remove_ask(asks, i);
      return last;
    }
  }
  return last;
}

// NULL also where several have it: then it tells nothing.
static struct session *named_by(const struct player *player, int32_t conn_id) {
  struct session *session;
  struct session *named = NULL;
  TAILQ_FOREACH(session, &player->sessions, sibling) {
    if (session->conn_id == conn_id) {
      if (named) {
        return NULL;
      }
      named = session;
    }
  }
  return named;
}

struct session *player_answered(struct player *player, int type, int64_t oid,
                                const struct packet *packet) {
  struct session *oldest = player_oldest(player);
  struct session *named = packet->conn_id != 0 ? named_by(player, packet->conn_id) : NULL;
  struct session *asker = take_ask(player->asks, named, type, oid, packet);
  return named ? named : asker ? asker : oldest;
}

struct session *player_session(const struct player *player, uint64_t connection) {
  struct session *session;
  TAILQ_FOREACH(session, &player->sessions, sibling) {
    if (session->connection == connection) {
      return session;
    }
  }
  return player_oldest(player);
}

// --- Output ----------------------------------------------------------------------

struct session *player_blocked_by(const struct player *player, struct session *latest) {
  if (latest && latest->state == SESSION_PLAYING) {
    return session_takes_output(latest) ? NULL : latest;
  }
  struct session *session;
  TAILQ_FOREACH(session, &player->sessions, sibling) {
    if (session_takes_output(session)) {
      return NULL;
    }
  }
  return player_oldest(player);
}

void player_unblock(struct player *player, const struct session *session) {
  struct tunnel *tunnel;
  LIST_FOREACH(tunnel, &player->tunnels, link) { tunnel_resume(tunnel, session); }
  farewell_resume_all(player, session);
}

// --- Beginning and end -------------------------------------------------------------

static size_t bucket_of(uint64_t client, int64_t uid) {
  uint64_t hash = (client ^ (uint64_t)uid << 32) * 0x9e3779b97f4a7c15;
  return (hash >> 32) % PLAYER_BUCKETS;
}

struct player *player_find(const struct worker *worker, uint64_t client, int64_t uid) {
  struct player *player;
  LIST_FOREACH(player, &worker->shared_players[bucket_of(client, uid)], link) {
    const struct session *oldest = player_oldest(player);
    if (oldest->client == client && oldest->uid == uid) {
      return player;
    }
  }
  return NULL;
}

static bool agrees(const struct session *session, const struct session *sibling) {
  return session->sid == sibling->sid && strcmp(session->color, sibling->color) == 0;
}

int player_join(struct session *session) {
  struct worker *worker = session->worker;
  struct player *player =
      may_have_siblings(session) ? player_find(worker, session->client, session->uid) : NULL;
  if (player && !agrees(session, player_oldest(player))) {
    return CLOSE_CONFLICTING_LOGIN;
  }
  if (!player) {
    player = calloc(1, sizeof *player);
    if (!player) {
      return CLOSE_OUT_OF_MEMORY;
    }
    TAILQ_INIT(&player->sessions);
    LIST_INIT(&player->tunnels);
    LIST_INIT(&player->farewells);
    player->broadcast_seen = pushes_latest(worker->pushes);
    if (may_have_siblings(session)) {
      LIST_INSERT_HEAD(&worker->shared_players[bucket_of(session->client, session->uid)], player,
                       link);
    }
  }
  session->player = player;
  TAILQ_INSERT_TAIL(&player->sessions, session, sibling);
  return CHANNEL_LOGIN_ADMITTED;
}

// Its answers are not its siblings'.
static void forget_asker(struct player *player, const struct session *session) {
  if (!player_has_siblings(player)) {
    free(player->asks);
    player->asks = NULL;
  }
  for (size_t i = 0; player->asks && i < player->asks->count; i++) {
    struct ask *ask = ask_at(player->asks, i);
    ask->session = ask->session == session ? NULL : ask->session;
  }
}

struct session *player_leave(struct session *session) {
  struct player *player = session->player;
  if (player_has_siblings(player)) {
    TAILQ_REMOVE(&player->sessions, session, sibling);
    session->player = NULL;
    forget_asker(player, session);
    player_unblock(player, session);
    return player_oldest(player);
  }
  while (!LIST_EMPTY(&player->tunnels)) {
    tunnel_release(LIST_FIRST(&player->tunnels));
  }
  farewell_end_all(player);
  TAILQ_REMOVE(&player->sessions, session, sibling);
  if (may_have_siblings(session)) {
    LIST_REMOVE(player, link);
  }
  return NULL;
}

void player_free(struct player *player) {
  if (player) {
    free(player->asks);
    free(player);
  }
}
