#include "master/player_watch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "master/json_text.h"

struct watcher {
  LIST_ENTRY(watcher) link;
  struct player_watch *watch;
  struct watch_wish wish;
  watcher_on_line *on_line;
  void *context;
};

struct player_watch {
  struct player_watch_options options;
  LIST_HEAD(watchers, watcher) watchers;
  size_t count;
};

struct player_watch *player_watch_new(const struct player_watch_options *options) {
  struct player_watch *watch = calloc(1, sizeof *watch);
  if (watch) {
    watch->options = *options;
    LIST_INIT(&watch->watchers);
  }
  return watch;
}

void player_watch_free(struct player_watch *watch) { free(watch); }

size_t player_watch_count(const struct player_watch *watch) {
  return watch ? watch->count : 0;  // NULL while the gateway starts
}

// --- Who follows what ------------------------------------------------------------------

static bool fits(const struct watch_wish *wish, const struct channel_session *session) {
  return wish->uid == session->uid &&
         (!wish->has_color || strcmp(wish->color, session->color) == 0) &&
         (wish->connection == 0 || wish->connection == session->connection);
}

static bool is_followed(const struct player_watch *watch, const struct channel_session *session) {
  const struct watcher *watcher;
  LIST_FOREACH(watcher, &watch->watchers, link) {
    if (fits(&watcher->wish, session)) {
      return true;
    }
  }
  return false;
}

static bool tell_worker(const struct player_watch *watch, const struct directory_session *session,
                        bool on) {
  const struct channel_watch told = {.connection = session->session.connection, .on = on};
  return watch->options.send(session->worker, &told, watch->options.owner);
}

struct count {
  const struct watch_wish *wish;
  size_t sessions;
};

static bool count_fitting(struct directory_session *session, void *context) {
  struct count *count = context;
  count->sessions += fits(count->wish, &session->session);
  return true;
}

size_t player_watch_sessions(struct player_watch *watch, const struct watch_wish *wish) {
  struct count count = {.wish = wish};
  directory_each_of(watch->options.directory, wish->uid, count_fitting, &count);
  return count.sessions;
}

// --- Lines -------------------------------------------------------------------------------

static json_t *line_of(const char *event, int64_t at_us, const struct directory_session *session) {
  return json_pack("{s:s, s:I, s:I, s:i}", "event", event, "at_us", (json_int_t)at_us, "connection",
                   (json_int_t)session->session.connection, "worker", session->worker);
}

// Takes over the line.
static void give(struct player_watch *watch, const struct channel_session *session, json_t *line) {
  struct watcher *watcher;
  LIST_FOREACH(watcher, &watch->watchers, link) {
    if (line && fits(&watcher->wish, session)) {
      watcher->on_line(json_incref(line), watcher->context);
    }
  }
  json_decref(line);
}

static json_t *opened_line(const char *event, const struct directory_session *session) {
  const struct channel_session *one = &session->session;
  json_t *line = line_of(event, clock_wall_us(), session);
  json_object_set_new(line, "color", json_foreign_text(one->color));
  json_object_set_new(line, "sid", json_integer((json_int_t)one->sid));
  json_object_set_new(line, "address", json_string(one->address));
  json_object_set_new(line, "transport", json_string(one->transport));
  return line;
}

static const char *kind_name(int32_t kind) {
  static const char *const names[WATCHED_KINDS] = {
      [WATCHED_CLIENT_TO_GATEWAY] = "client_to_gateway",
      [WATCHED_GATEWAY_TO_TUNNEL] = "gateway_to_tunnel",
      [WATCHED_TUNNEL_TO_GATEWAY] = "tunnel_to_gateway",
      [WATCHED_GATEWAY_TO_CLIENT] = "gateway_to_client",
      [WATCHED_PUSH] = "push",
      [WATCHED_TUNNEL_OPENED] = "tunnel_opened",
      [WATCHED_TUNNEL_REOPENED] = "tunnel_reopened",
      [WATCHED_TUNNEL_BROKEN] = "tunnel_broken",
      [WATCHED_TUNNEL_MOVED] = "tunnel_moved",
      [WATCHED_INPUT_PAUSED] = "input_paused",
      [WATCHED_INPUT_RESUMED] = "input_resumed",
      [WATCHED_OUTPUT_PAUSED] = "output_paused",
      [WATCHED_OUTPUT_RESUMED] = "output_resumed",
      [WATCHED_LOST] = "lost",
  };
  return kind >= 0 && kind < WATCHED_KINDS ? names[kind] : "unknown";
}

static void set_number(json_t *line, const char *name, int64_t number) {
  json_object_set_new(line, name, json_integer((json_int_t)number));
}

static void add_header(json_t *line, const struct channel_watched_packet *packet) {
  set_number(line, "mod", packet->mod);
  set_number(line, "seq", packet->seq);
  set_number(line, "obj", packet->obj);
  set_number(line, "index", packet->index);
  set_number(line, "ver", packet->ver);
  set_number(line, "data_version", (int64_t)packet->data_version);
  json_object_set_new(line, "compressed", json_boolean(packet->compressed));
  if (packet->conn_id != 0 || packet->frag_id != 0 || packet->frag_count != 0) {
    set_number(line, "conn_id", packet->conn_id);
    set_number(line, "frag_id", packet->frag_id);
    set_number(line, "frag_count", packet->frag_count);
    set_number(line, "frag_index", packet->frag_index);
  }
  set_number(line, "data_bytes", (int64_t)packet->data_bytes);
  set_number(line, "plain_bytes", (int64_t)packet->plain_bytes);
  if (packet->sealed_bytes > 0) {
    set_number(line, "sealed_bytes", (int64_t)packet->sealed_bytes);
  }
  if (packet->took_us >= 0) {
    set_number(line, "took_us", packet->took_us);
  }
  if (packet->waited_us >= 0) {
    set_number(line, "waited_us", packet->waited_us);
  }
}

static void add_tunnel(json_t *line, const struct config *config,
                       const struct channel_watched_packet *packet) {
  if (packet->tunnel_type >= 0 && (size_t)packet->tunnel_type < config->tunnel.type_count) {
    json_object_set_new(line, "tunnel",
                        json_string(config->tunnel.types[packet->tunnel_type].name));
    json_object_set_new(line, "node", json_string(packet->address));
    set_number(line, "oid", packet->oid);
  }
  if (packet->kind == WATCHED_TUNNEL_BROKEN) {
    set_number(line, "status", packet->status);
  }
}

void player_watch_on_packet(struct player_watch *watch, int worker,
                            const struct channel_watched_packet *packet) {
  const struct directory_session *session =
      directory_find(watch->options.directory, packet->connection);
  if (!session || session->worker != worker) {
    return;
  }
  if (!is_followed(watch, &session->session)) {
    tell_worker(watch, session, false);  // the word that nobody follows it has not come there
    return;
  }
  if (packet->lost > 0) {
    json_t *line = line_of("lost", packet->at_us, session);
    set_number(line, "lost", (int64_t)packet->lost);
    give(watch, &session->session, line);
  }
  if (packet->kind == WATCHED_LOST) {
    return;
  }
  bool is_packet = packet->kind >= 0 && packet->kind < WATCHED_PACKETS;
  json_t *line = line_of(is_packet ? "packet" : kind_name(packet->kind), packet->at_us, session);
  if (is_packet) {
    json_object_set_new(line, "direction", json_string(kind_name(packet->kind)));
    add_header(line, packet);
  }
  add_tunnel(line, watch->options.config, packet);
  set_number(line, "queued_bytes", (int64_t)packet->queued_bytes);
  give(watch, &session->session, line);
}

// --- Beginning and end ---------------------------------------------------------------------

static bool begin_session(struct directory_session *session, void *context) {
  struct watcher *watcher = context;
  if (fits(&watcher->wish, &session->session)) {
    bool told = tell_worker(watcher->watch, session, true);
    watcher->on_line(opened_line(told ? "session" : "session_not_watched", session),
                     watcher->context);
  }
  return true;
}

struct watcher *player_watch_add(struct player_watch *watch, const struct watch_wish *wish,
                                 watcher_on_line *on_line, void *context) {
  struct watcher *watcher = watch->count < PLAYER_WATCHERS_MAX ? calloc(1, sizeof *watcher) : NULL;
  if (watcher) {
    *watcher =
        (struct watcher){.watch = watch, .wish = *wish, .on_line = on_line, .context = context};
    LIST_INSERT_HEAD(&watch->watchers, watcher, link);
    watch->count++;
    directory_each_of(watch->options.directory, wish->uid, begin_session, watcher);
  }
  return watcher;
}

static bool end_session(struct directory_session *session, void *context) {
  struct watcher *watcher = context;
  if (fits(&watcher->wish, &session->session) && !is_followed(watcher->watch, &session->session)) {
    tell_worker(watcher->watch, session, false);
  }
  return true;
}

void player_watch_remove(struct watcher *watcher) {
  LIST_REMOVE(watcher, link);
  watcher->watch->count--;
  directory_each_of(watcher->watch->options.directory, watcher->wish.uid, end_session, watcher);
  free(watcher);
}

void player_watch_session_opened(struct player_watch *watch,
                                 const struct directory_session *session) {
  if (is_followed(watch, &session->session)) {
    bool told = tell_worker(watch, session, true);
    give(watch, &session->session,
         opened_line(told ? "session_opened" : "session_not_watched", session));
  }
}

void player_watch_session_closed(struct player_watch *watch,
                                 const struct directory_session *session, const char *why) {
  if (is_followed(watch, &session->session)) {
    json_t *line = line_of("session_closed", clock_wall_us(), session);
    json_object_set_new(line, "reason", json_string(why));
    give(watch, &session->session, line);
  }
}
