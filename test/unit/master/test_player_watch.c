#include "master/player_watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

struct fixture {
  struct config config;
  struct directory *directory;
  struct player_watch *watch;
  int begun;  // words to workers
  int ended;
  uint64_t last_connection;
};

struct lines {
  int count;
  char last[64];
};

static bool send_watch(int worker, const struct channel_watch *watch, void *owner) {
  struct fixture *fixture = owner;
  (void)worker;
  fixture->begun += watch->on != 0;
  fixture->ended += watch->on == 0;
  fixture->last_connection = watch->connection;
  return true;
}

static void on_line(json_t *line, void *context) {
  struct lines *lines = context;
  lines->count++;
  strncpy(lines->last, json_string_value(json_object_get(line, "event")), sizeof lines->last - 1);
  json_decref(line);
}

static int set_up(void **state) {
  static struct fixture fixture;
  memset(&fixture, 0, sizeof fixture);
  fixture.directory = directory_new();
  const struct player_watch_options options = {.config = &fixture.config,
                                               .directory = fixture.directory,
                                               .send = send_watch,
                                               .owner = &fixture};
  fixture.watch = player_watch_new(&options);
  *state = &fixture;
  return fixture.directory && fixture.watch ? 0 : -1;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  player_watch_free(fixture->watch);
  directory_free(fixture->directory);
  return 0;
}

static struct directory_session *add(struct fixture *fixture, uint64_t connection, int64_t uid,
                                     const char *color) {
  struct channel_session session = {.connection = connection, .uid = uid};
  strcpy(session.color, color);
  struct directory_session *added = directory_add(fixture->directory, &session, 1);
  player_watch_session_opened(fixture->watch, added);
  return added;
}

static void tell(struct fixture *fixture, uint64_t connection, uint64_t lost) {
  const struct channel_watched_packet packet = {.connection = connection, .lost = lost};
  player_watch_on_packet(fixture->watch, 1, &packet);
}

static void a_session_is_watched_while_anybody_follows_it(void **state) {
  struct fixture *fixture = *state;
  const struct watch_wish wish = {.uid = 5};
  struct lines first = {0}, second = {0};
  add(fixture, 1, 5, "blue");
  assert_int_equal(fixture->begun, 0);
  struct watcher *one = player_watch_add(fixture->watch, &wish, on_line, &first);
  struct watcher *two = player_watch_add(fixture->watch, &wish, on_line, &second);
  assert_int_equal(fixture->last_connection, 1);
  tell(fixture, 1, 0);
  assert_string_equal(first.last, "packet");
  assert_string_equal(second.last, "packet");
  player_watch_remove(one);
  assert_int_equal(fixture->ended, 0);
  player_watch_remove(two);
  assert_int_equal(fixture->ended, 1);
  assert_int_equal(player_watch_count(fixture->watch), 0);
  tell(fixture, 1, 0);  // the worker goes on: it is told again
  assert_int_equal(fixture->ended, 2);
}

static void only_the_sessions_that_were_asked_for_are_followed(void **state) {
  struct fixture *fixture = *state;
  const struct watch_wish wish = {.uid = 5, .has_color = true, .color = "blue"};
  struct lines lines = {0};
  add(fixture, 1, 5, "red");
  add(fixture, 2, 6, "blue");
  struct watcher *watcher = player_watch_add(fixture->watch, &wish, on_line, &lines);
  assert_int_equal(player_watch_sessions(fixture->watch, &wish), 0);
  assert_int_equal(fixture->begun, 0);
  struct directory_session *his = add(fixture, 3, 5, "blue");
  assert_int_equal(fixture->begun, 1);
  assert_string_equal(lines.last, "session_opened");
  tell(fixture, 1, 0);
  tell(fixture, 2, 0);
  assert_int_equal(lines.count, 1);
  player_watch_session_closed(fixture->watch, his, "kicked");
  assert_string_equal(lines.last, "session_closed");
  player_watch_remove(watcher);
}

static void what_was_left_out_is_said_before_the_next_packet(void **state) {
  struct fixture *fixture = *state;
  const struct watch_wish wish = {.uid = 5, .connection = 1};
  struct lines lines = {0};
  add(fixture, 1, 5, "blue");
  struct watcher *watcher = player_watch_add(fixture->watch, &wish, on_line, &lines);
  int before = lines.count;
  tell(fixture, 1, 7);
  assert_int_equal(lines.count, before + 2);
  player_watch_remove(watcher);
}

static void there_is_a_bound_on_watchers(void **state) {
  struct fixture *fixture = *state;
  const struct watch_wish wish = {.uid = 5};
  struct lines lines = {0};
  struct watcher *watchers[PLAYER_WATCHERS_MAX];
  for (int i = 0; i < PLAYER_WATCHERS_MAX; i++) {
    assert_non_null(watchers[i] = player_watch_add(fixture->watch, &wish, on_line, &lines));
  }
  assert_null(player_watch_add(fixture->watch, &wish, on_line, &lines));
  for (int i = 0; i < PLAYER_WATCHERS_MAX; i++) {
    player_watch_remove(watchers[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_session_is_watched_while_anybody_follows_it, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(only_the_sessions_that_were_asked_for_are_followed, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(what_was_left_out_is_said_before_the_next_packet, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(there_is_a_bound_on_watchers, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
