#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

#include "master/directory.h"

static int set_up(void **state) {
  *state = directory_new();
  return *state ? 0 : -1;
}

static int tear_down(void **state) {
  directory_free(*state);
  return 0;
}

static struct directory_session *add(struct directory *directory, uint64_t connection, int64_t uid,
                                     const char *color) {
  struct channel_session session = {.connection = connection, .uid = uid};
  strcpy(session.color, color);
  return directory_add(directory, &session, 0);
}

static bool count_one(struct directory_session *session, void *context) {
  (void)session;
  ++*(int *)context;
  return true;
}

static int sessions_of(struct directory *directory, int64_t uid) {
  int count = 0;
  directory_each_of(directory, uid, count_one, &count);
  return count;
}

static void a_session_is_found_by_connection_and_by_uid(void **state) {
  struct directory *directory = *state;
  struct directory_session *session = add(directory, 1, 10001, "blue");
  assert_non_null(session);
  assert_ptr_equal(directory_find(directory, 1), session);
  assert_null(directory_find(directory, 2));
  assert_int_equal(sessions_of(directory, 10001), 1);
  assert_int_equal(sessions_of(directory, 10002), 0);
  assert_int_equal(directory_count(directory), 1);
}

static void a_player_may_have_several_sessions(void **state) {
  struct directory *directory = *state;
  struct directory_session *first = add(directory, 1, 10001, "blue");
  add(directory, 2, 10001, "blue");
  assert_int_equal(sessions_of(directory, 10001), 2);
  directory_remove(directory, first);
  assert_int_equal(sessions_of(directory, 10001), 1);
  assert_true(directory_has_player(directory, 10001, "blue"));
  directory_remove(directory, directory_find(directory, 2));
  assert_false(directory_has_player(directory, 10001, "blue"));
  assert_int_equal(directory_count(directory), 0);
}

static const struct directory_session *add_of_client(struct directory *directory,
                                                     uint64_t connection, uint64_t client,
                                                     int64_t since_ms) {
  const struct channel_session session = {
      .connection = connection, .client = client, .uid = 10001, .since_ms = since_ms};
  return directory_add(directory, &session, 0);
}

static void siblings_are_of_one_client(void **state) {
  struct directory *directory = *state;
  const struct directory_session *first = add_of_client(directory, 1, 9, 100);
  const struct directory_session *other = add_of_client(directory, 2, 2, 200);
  const struct directory_session *second = add_of_client(directory, 3, 9, 300);
  assert_true(directory_is_oldest_sibling(first));
  assert_true(directory_is_oldest_sibling(other));
  assert_false(directory_is_oldest_sibling(second));
  assert_int_equal(directory_latest_since_ms(directory, first), 300);
  assert_int_equal(directory_latest_since_ms(directory, other), 200);
  // A push goes to the client that came last, and there to the oldest.
  assert_ptr_equal(directory_session_of(directory, 10001), first);
  directory_remove(directory, directory_find(directory, 1));
  assert_true(directory_is_oldest_sibling(second));
  assert_ptr_equal(directory_session_of(directory, 10001), second);
}

static void a_player_is_told_apart_by_color(void **state) {
  struct directory *directory = *state;
  add(directory, 1, 10001, "blue");
  assert_true(directory_has_player(directory, 10001, "blue"));
  assert_false(directory_has_player(directory, 10001, "green"));
}

static void a_known_connection_is_not_added_again(void **state) {
  struct directory *directory = *state;
  assert_non_null(add(directory, 1, 10001, "blue"));
  assert_null(add(directory, 1, 10002, "blue"));
  assert_int_equal(directory_count(directory), 1);
}

static bool remove_one(struct directory_session *session, void *context) {
  directory_remove(context, session);
  return true;
}

static void a_visit_may_remove_what_it_is_shown(void **state) {
  struct directory *directory = *state;
  for (uint64_t i = 1; i <= 100; i++) {
    add(directory, i, (int64_t)(i % 7), "");
  }
  directory_each_of(directory, 3, remove_one, directory);
  assert_int_equal(sessions_of(directory, 3), 0);
  assert_int_equal(directory_count(directory), 86);
  directory_each(directory, remove_one, directory);
  assert_int_equal(directory_count(directory), 0);
}

static void the_session_renewed_longest_ago_is_due_first(void **state) {
  struct directory *directory = *state;
  struct directory_session *first = add(directory, 1, 1, "");
  struct directory_session *second = add(directory, 2, 2, "");
  assert_ptr_equal(directory_first_due(directory), first);
  directory_renewed(directory, first, 500);
  assert_ptr_equal(directory_first_due(directory), second);
  directory_remove(directory, second);
  assert_ptr_equal(directory_first_due(directory), first);
  assert_int_equal(first->renew_at_ms, 500);
}

static void one_that_is_put_off_holds_up_no_other(void **state) {
  struct directory *directory = *state;
  struct directory_session *first = add(directory, 1, 10001, "blue");
  struct directory_session *second = add(directory, 2, 10002, "blue");
  first->route_written = true;
  directory_put_off(directory, first);
  assert_false(first->route_written);
  assert_ptr_equal(directory_first_due(directory), second);
  assert_ptr_equal(directory_first_unwritten(directory), first);
  directory_renew_player(directory, 10001, "blue");  // it is to be written, not renewed
  assert_ptr_equal(directory_first_due(directory), second);
  directory_renewed(directory, first, 100);
  assert_null(directory_first_unwritten(directory));
  directory_put_off(directory, second);
  directory_put_off(directory, second);
  assert_ptr_equal(directory_first_due(directory), first);
  directory_remove(directory, second);
  assert_null(directory_first_unwritten(directory));
  directory_put_off(directory, first);  // freed with the directory
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_session_is_found_by_connection_and_by_uid),
      FACT(a_player_may_have_several_sessions),
      FACT(siblings_are_of_one_client),
      FACT(a_player_is_told_apart_by_color),
      FACT(a_known_connection_is_not_added_again),
      FACT(a_visit_may_remove_what_it_is_shown),
      FACT(the_session_renewed_longest_ago_is_due_first),
      FACT(one_that_is_put_off_holds_up_no_other),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
