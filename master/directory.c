#include "master/directory.h"

#include <stdlib.h>
#include <string.h>

struct directory_player {
  int64_t uid;
  LIST_HEAD(directory_sessions, directory_session) sessions;
  UT_hash_handle hh;
};

TAILQ_HEAD(directory_dues, directory_session);

struct directory {
  struct directory_session *sessions;
  struct directory_player *players;
  struct directory_dues by_due;
  struct directory_dues unwritten;
};

struct directory *directory_new(void) {
  struct directory *directory = calloc(1, sizeof *directory);
  if (directory) {
    TAILQ_INIT(&directory->by_due);
    TAILQ_INIT(&directory->unwritten);
  }
  return directory;
}

static struct directory_dues *list_of(struct directory *directory,
                                      const struct directory_session *session) {
  return session->unwritten ? &directory->unwritten : &directory->by_due;
}

static struct directory_player *find_player(const struct directory *directory, int64_t uid) {
  struct directory_player *player = NULL;
  HASH_FIND(hh, directory->players, &uid, sizeof uid, player);
  return player;
}

static struct directory_player *get_player(struct directory *directory, int64_t uid) {
  struct directory_player *player = find_player(directory, uid);
  if (!player && (player = calloc(1, sizeof *player))) {
    player->uid = uid;
    LIST_INIT(&player->sessions);
    HASH_ADD(hh, directory->players, uid, sizeof player->uid, player);
  }
  return player;
}

struct directory_session *directory_add(struct directory *directory,
                                        const struct channel_session *session, int worker) {
  if (directory_find(directory, session->connection)) {
    return NULL;
  }
  struct directory_session *added = calloc(1, sizeof *added);
  struct directory_player *player = added ? get_player(directory, session->uid) : NULL;
  if (!player) {
    free(added);
    return NULL;
  }
  added->session = *session;
  added->worker = worker;
  LIST_INSERT_HEAD(&player->sessions, added, same_uid);
  TAILQ_INSERT_TAIL(&directory->by_due, added, due);
  HASH_ADD(hh, directory->sessions, session.connection, sizeof added->session.connection, added);
  return added;
}

struct directory_session *directory_find(struct directory *directory, uint64_t connection) {
  struct directory_session *session = NULL;
  HASH_FIND(hh, directory->sessions, &connection, sizeof connection, session);
  return session;
}

void directory_remove(struct directory *directory, struct directory_session *session) {
  struct directory_player *player = find_player(directory, session->session.uid);
  LIST_REMOVE(session, same_uid);
  TAILQ_REMOVE(list_of(directory, session), session, due);
  HASH_DELETE(hh, directory->sessions, session);
  free(session);
  if (LIST_EMPTY(&player->sessions)) {
    HASH_DELETE(hh, directory->players, player);
    free(player);
  }
}

bool directory_has_player(const struct directory *directory, int64_t uid, const char *color) {
  const struct directory_player *player = find_player(directory, uid);
  if (player) {
    const struct directory_session *session;
    LIST_FOREACH(session, &player->sessions, same_uid) {
      if (strcmp(session->session.color, color) == 0) {
        return true;
      }
    }
  }
  return false;
}

const struct directory_session *directory_session_of(const struct directory *directory,
                                                     int64_t uid) {
  const struct directory_player *player = find_player(directory, uid);
  const struct directory_session *session = player ? LIST_FIRST(&player->sessions) : NULL;
  const struct directory_session *chosen = session;
  if (session) {
    const uint64_t client = session->session.client;
    LIST_FOREACH(session, &player->sessions, same_uid) {
      chosen = session->session.client == client ? session : chosen;
    }
  }
  return chosen;
}

bool directory_is_oldest_sibling(const struct directory_session *session) {
  const uint64_t client = session->session.client;
  while ((session = LIST_NEXT(session, same_uid))) {
    if (session->session.client == client) {
      return false;
    }
  }
  return true;
}

int64_t directory_latest_since_ms(const struct directory *directory,
                                  const struct directory_session *session) {
  const struct directory_player *player = find_player(directory, session->session.uid);
  const struct directory_session *other;
  int64_t latest_ms = session->session.since_ms;
  LIST_FOREACH(other, &player->sessions, same_uid) {
    if (other->session.client == session->session.client && other->session.since_ms > latest_ms) {
      latest_ms = other->session.since_ms;
    }
  }
  return latest_ms;
}

void directory_each_of(struct directory *directory, int64_t uid, directory_visit *visit,
                       void *context) {
  struct directory_player *player = find_player(directory, uid);
  struct directory_session *next;
  for (struct directory_session *session = player ? LIST_FIRST(&player->sessions) : NULL; session;
       session = next) {
    next = LIST_NEXT(session, same_uid);
    if (!visit(session, context)) {
      return;
    }
  }
}

void directory_each(struct directory *directory, directory_visit *visit, void *context) {
  struct directory_session *session;
  struct directory_session *next;
  HASH_ITER(hh, directory->sessions, session, next) {
    if (!visit(session, context)) {
      return;
    }
  }
}

size_t directory_count(const struct directory *directory) {
  return HASH_COUNT(directory->sessions);
}

struct directory_session *directory_first_due(struct directory *directory) {
  return TAILQ_FIRST(&directory->by_due);
}

void directory_renewed(struct directory *directory, struct directory_session *session,
                       int64_t renew_at_ms) {
  TAILQ_REMOVE(list_of(directory, session), session, due);
  session->renew_at_ms = renew_at_ms;
  session->unwritten = false;
  TAILQ_INSERT_TAIL(&directory->by_due, session, due);
}

void directory_put_off(struct directory *directory, struct directory_session *session) {
  TAILQ_REMOVE(list_of(directory, session), session, due);
  session->unwritten = true;
  session->route_written = false;
  TAILQ_INSERT_TAIL(&directory->unwritten, session, due);
}

struct directory_session *directory_first_unwritten(struct directory *directory) {
  return TAILQ_FIRST(&directory->unwritten);
}

void directory_free(struct directory *directory) {
  if (!directory) {
    return;
  }
  struct directory_session *session;
  while ((session = TAILQ_FIRST(&directory->by_due)) ||
         (session = TAILQ_FIRST(&directory->unwritten))) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the one before has left the list
    directory_remove(directory, session);
  }
  free(directory);
}

void directory_renew_player(struct directory *directory, int64_t uid, const char *color) {
  struct directory_player *player = find_player(directory, uid);
  struct directory_session *session;
  if (!player) {
    return;
  }
  LIST_FOREACH(session, &player->sessions, same_uid) {
    if (strcmp(session->session.color, color) == 0 && !session->unwritten) {
      session->renew_at_ms = 0;
      TAILQ_REMOVE(&directory->by_due, session, due);
      TAILQ_INSERT_HEAD(&directory->by_due, session, due);
      return;
    }
  }
}

void directory_renew_all(struct directory *directory) {
  struct directory_session *session;
  TAILQ_FOREACH(session, &directory->by_due, due) { session->renew_at_ms = 0; }
}
