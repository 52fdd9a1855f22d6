// One player at one client: the sessions of one connection that have logged in with the same uid,
// which are siblings, and what they share. Over TCP and WebSocket a player has one session; over
// KCP as many as the streams that its client has logged in on.
//
// Towards the backends siblings are one: the player's tunnels are open from the first login until
// the last session has ended, whichever of them sends. What comes back goes to the sibling that
// asked; a push goes to the oldest. Siblings agree in color and sid, or the later login is refused:
// the color says which backends a tunnel goes to, the sid is told to them when it is opened, and
// there is one tunnel for all.
//
// Loop thread only.
#ifndef JANUS_WORKER_PLAYER_H
#define JANUS_WORKER_PLAYER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/error.h"
#include "common/packet.h"
#include "worker/farewell.h"
#include "worker/session.h"
#include "worker/tunnel.h"

struct player_asks;

struct player {
  // What every message touches.
  TAILQ_HEAD(player_sessions, session) sessions;  // the oldest first; empty: it is over
  struct tunnel_list tunnels;
  struct player_asks *asks;  // NULL: nobody has asked, or only one whose siblings have ended

  struct farewell_list farewells;
  uint32_t tunnel_count;
  uint32_t farewell_count;
  uint64_t broadcast_seen;  // serial of the latest that it was looked at for
  LIST_ENTRY(player) link;  // among the worker's with the same hash, where siblings may come
};

// The session's login is good: it is its player's youngest from now on. CHANNEL_LOGIN_ADMITTED, or
// why it can't be: CLOSE_CONFLICTING_LOGIN, its color or sid is not that of its siblings;
// CLOSE_OUT_OF_MEMORY.
int player_join(struct session *session) MUST_CHECK;

// The session ends. Returns the oldest of its siblings. NULL: it has none, and the tunnels were
// released; the player is over then, and freed with the session (player_free).
struct session *player_leave(struct session *session);
void player_free(struct player *player);  // accepts NULL

// None: it is over.
static inline struct session *player_oldest(const struct player *player) {
  return TAILQ_FIRST(&player->sessions);
}
static inline bool player_is_over(const struct player *player) {
  return TAILQ_EMPTY(&player->sessions);
}
static inline bool player_has_siblings(const struct player *player) {
  const struct session *oldest = player_oldest(player);
  return oldest && TAILQ_NEXT(oldest, sibling);
}

// The one of this client and uid, whose client may log in on more streams; or NULL.
struct player *player_find(const struct worker *worker, uint64_t client, int64_t uid);

// Its session with this connection; the oldest where that has gone.
struct session *player_session(const struct player *player, uint64_t connection);

// A message of the session's goes to the tunnel of this type and object.
void player_asked(struct session *session, int type, int64_t oid, const struct packet *packet);

// Whom a message from there is for: the sibling that it names by its conn_id; else the one that has
// asked with its index and has had no answer; else the oldest.
struct session *player_answered(struct player *player, int type, int64_t oid,
                                const struct packet *packet);

// For those who read messages for the player, the latest of which went to this session (NULL: none
// has): who has to take what waits for it before they may go on. NULL: they may.
struct session *player_blocked_by(const struct player *player, struct session *latest);

// Those who wait for the session go on: it takes output again, or is gone.
void player_unblock(struct player *player, const struct session *session);

#endif
