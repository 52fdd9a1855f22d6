// janusctl trace: the answer is a stream of lines, as long as it is listened to.
#include <stdlib.h>
#include <string.h>

#include "master/control.h"
#include "master/control_command.h"
#include "master/player_watch.h"

static void on_gone(void *owner) { player_watch_remove(owner); }

// Returns what is wrong with it, or NULL.
static const char *read_wish(const json_t *request, struct watch_wish *wish) {
  const json_t *uid = json_object_get(request, "uid");
  const char *color = json_string_value(json_object_get(request, "color"));
  if (!json_is_integer(uid)) {
    return "whose? name a uid";
  }
  if (color && strlen(color) > ROUTE_COLOR_MAX_BYTES) {
    return "no color is that long";
  }
  *wish = (struct watch_wish){
      .uid = json_integer_value(uid),
      .has_color = color != NULL,
      .connection = (uint64_t)json_integer_value(json_object_get(request, "connection"))};
  memcpy(wish->color, color ? color : "", color ? strlen(color) + 1 : 1);
  return NULL;
}

json_t *control_trace(struct master *master, const json_t *request, struct question *question) {
  struct player_watch *watch = master->player_watch;
  struct watch_wish wish;
  const char *wrong = read_wish(request, &wish);
  if (wrong || !watch) {
    return control_error(wrong ? wrong : "the gateway is still starting");
  }
  size_t sessions = player_watch_sessions(watch, &wish);
  if (sessions == 0 && json_is_true(json_object_get(request, "once"))) {
    return control_error("the player is not here");
  }
  if (player_watch_count(watch) >= PLAYER_WATCHERS_MAX) {
    return control_error("too many traces are going on already: 8");
  }
  control_stream_begin(question->context);
  control_stream_line(json_pack("{s:b, s:s, s:I, s:I}", "ok", 1, "event", "following", "uid",
                                (json_int_t)wish.uid, "sessions", (json_int_t)sessions),
                      question->context);
  struct watcher *watcher = player_watch_add(watch, &wish, control_stream_line, question->context);
  if (watcher) {
    control_stream_owned(question->context, on_gone, watcher);
  } else {
    control_stream_end(question->context);
  }
  return NULL;
}
