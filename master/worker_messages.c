#include "master/worker_messages.h"

#include <inttypes.h>
#include <string.h>

#include "common/kcp_owners.h"
#include "master/admission.h"
#include "master/directory.h"
#include "master/master.h"
#include "master/player_watch.h"
#include "master/push_hub.h"
#include "master/routes.h"
#include "master/session_reports.h"
#include "master/trace_exporter.h"

#define LOG_MODULE LOG_MODULE_MASTER

// Takes the session from the directory, and its gateway route too when it was the
// player's last.
static void close_session(struct master *master, struct directory_session *session,
                          const char *why) {
  player_watch_session_closed(master->player_watch, session, why);
  struct channel_session was = session->session;
  directory_remove(master->directory, session);
  if (!directory_has_player(master->directory, was.uid, was.color)) {
    routes_player_left(master->routes, was.uid, was.color);
  }
}

struct same_player {
  struct master *master;
  const struct directory_session *here;
};

// The player has come once more while it was not known that he is here. Siblings stay or go
// together.
static bool close_rival(struct directory_session *session, void *context) {
  const struct same_player *same = context;
  const struct directory *directory = same->master->directory;
  if (session->session.client != same->here->session.client) {
    bool is_older = directory_latest_since_ms(directory, session) <=
                    directory_latest_since_ms(directory, same->here);
    bool older_goes = same->master->config.login.conflict == LOGIN_NEWEST_WINS;
    master_close_session(same->master, is_older == older_goes ? session : same->here,
                         CLOSE_CONFLICTING_LOGIN, LOGOUT_CONFLICTING_LOGIN);
  }
  return true;
}

// Of a worker that was there before this master: it has the player already.
static void on_session_here(struct master *master, int worker, const struct channel_session *here) {
  struct directory_session *session = directory_add(master->directory, here, worker);
  if (!session) {
    log_limited(LOG_LEVEL_ERROR, "session_not_listed", "connection=%" PRIu64 " of_worker=%d",
                here->connection, worker);
    return;
  }
  routes_player_came(master->routes, session);
  struct same_player same = {.master = master, .here = session};
  directory_each_of(master->directory, here->uid, close_rival, &same);
}

void worker_messages_on_message(int index, enum channel_type type, const void *content,
                                void *owner) {
  struct master *master = owner;
  switch (type) {
    case CHANNEL_LOGIN: admission_ask(master->admission, index, content); return;
    case CHANNEL_SESSION_HERE: on_session_here(master, index, content); return;
    case CHANNEL_SESSION_CLOSED: {
      const struct channel_session_closed *closed = content;
      struct directory_session *session = directory_find(master->directory, closed->connection);
      if (session && session->worker == index) {
        bool is_reason = closed->reason < CLOSE_REASON_COUNT;
        close_session(master, session,
                      is_reason ? close_reason_name((enum close_reason)closed->reason) : "unknown");
      } else {
        admission_cancel(master->admission, index, closed->connection);
      }
      return;
    }
    case CHANNEL_BROADCAST_DONE: {
      const struct channel_broadcast_done *done = content;
      push_hub_broadcast_done(master->push_hub, index, done->serial);
      return;
    }
    case CHANNEL_ROUTE_CLAIM: {
      struct channel_route_answer answer;
      routes_claim(master->routes, content, &answer);
      workers_send(master->workers, index, CHANNEL_ROUTE_ANSWER, &answer);
      return;
    }
    case CHANNEL_SESSION_REPORT:
    case CHANNEL_PATH_REPORT:
    case CHANNEL_TUNNEL_REPORT:
    case CHANNEL_REPORT_END:
      session_reports_on_message(master->session_reports, index, type, content);
      return;
    case CHANNEL_WATCHED_PACKET:
      player_watch_on_packet(master->player_watch, index, content);
      return;
    case CHANNEL_SPANS:
      if (master->trace_exporter) {
        trace_exporter_take(master->trace_exporter, content);
      }
      return;
    case CHANNEL_REDIS_HEALTH:
      memcpy(&master->worker_redis[index], content, sizeof master->worker_redis[index]);
      return;
    case CHANNEL_ROUTE_HELD: routes_held(master->routes, index, content); return;
    case CHANNEL_ROUTE_RELEASED: routes_released(master->routes, index, content); return;
    default:
      log_limited(LOG_LEVEL_ERROR, "channel_unexpected", "worker=%d type=%d", index, (int)type);
      return;
  }
}

struct dead_worker {
  struct master *master;
  int index;
};

static bool close_if_of_dead(struct directory_session *session, void *context) {
  struct dead_worker *dead = context;
  if (session->worker == dead->index) {
    close_session(dead->master, session, "worker_died");
  }
  return true;
}

void worker_messages_on_worker_dead(int index, void *owner) {
  struct dead_worker dead = {.master = owner, .index = index};
  kcp_owners_clear(dead.master->kcp_owners, (unsigned)index);
  routes_worker_gone(dead.master->routes, index);
  admission_worker_gone(dead.master->admission, index);
  push_hub_worker_gone(dead.master->push_hub, index);
  if (dead.master->session_reports) {
    session_reports_worker_gone(dead.master->session_reports, index);
  }
  dead.master->worker_redis[index] = (struct redis_link_health){0};
  directory_each(dead.master->directory, close_if_of_dead, &dead);
  master_look_at_readiness(dead.master);
}
