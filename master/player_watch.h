// Who follows a player (janusctl trace), and what is told to whom: the sessions that there are
// and those that come later, whichever worker has them. The workers tell of packets only while
// somebody follows the session.
//
// Loop thread only.
#ifndef JANUS_MASTER_PLAYER_WATCH_H
#define JANUS_MASTER_PLAYER_WATCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/channel.h"
#include "common/config.h"
#include "master/directory.h"

enum { PLAYER_WATCHERS_MAX = 8 };

struct player_watch;
struct watcher;

struct player_watch_options {
  const struct config *config;
  struct directory *directory;
  // Has the worker begin or end. False: it can't be told now.
  bool (*send)(int worker, const struct channel_watch *watch, void *owner);
  void *owner;
};

// Of a player: all sessions, or those of that color, or one.
struct watch_wish {
  int64_t uid;
  bool has_color;
  char color[ROUTE_COLOR_MAX_BYTES + 1];
  uint64_t connection;  // 0: any
};

// Takes over the line, an object.
typedef void watcher_on_line(json_t *line, void *context);

struct player_watch *player_watch_new(const struct player_watch_options *options);
// There must be no watcher any more. Accepts NULL.
void player_watch_free(struct player_watch *watch);
size_t player_watch_count(const struct player_watch *watch);

// How many of its sessions are here.
size_t player_watch_sessions(struct player_watch *watch, const struct watch_wish *wish);
// NULL: there are PLAYER_WATCHERS_MAX, or memory is out. Lines come from inside already.
struct watcher *player_watch_add(struct player_watch *watch, const struct watch_wish *wish,
                                 watcher_on_line *on_line, void *context);
void player_watch_remove(struct watcher *watcher);

// It is in the directory now; it is about to leave it, since (why).
void player_watch_session_opened(struct player_watch *watch,
                                 const struct directory_session *session);
void player_watch_session_closed(struct player_watch *watch,
                                 const struct directory_session *session, const char *why);
void player_watch_on_packet(struct player_watch *watch, int worker,
                            const struct channel_watched_packet *packet);

#endif
