#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

#include "master/replays.h"

enum { KEEP_MS = 11000, CAPACITY = 4 };

static int set_up(void **state) {
  *state = replays_new(KEEP_MS, CAPACITY);
  return *state ? 0 : -1;
}

static int tear_down(void **state) {
  replays_free(*state);
  return 0;
}

static enum replays_verdict check(struct replays *replays, uint8_t number, int64_t now_ms) {
  uint8_t key[KEY_X25519_BYTES] = {0};
  key[sizeof key - 1] = number;
  return replays_check(replays, key, now_ms);
}

static void a_key_is_known_the_second_time(void **state) {
  assert_int_equal(check(*state, 1, 0), REPLAYS_FIRST);
  assert_int_equal(check(*state, 2, 0), REPLAYS_FIRST);
  assert_int_equal(check(*state, 1, 5), REPLAYS_AGAIN);
  assert_int_equal(check(*state, 2, KEEP_MS - 1), REPLAYS_AGAIN);
}

static void a_key_is_forgotten_when_its_time_is_over(void **state) {
  check(*state, 1, 0);
  check(*state, 2, 1);
  assert_int_equal(check(*state, 1, KEEP_MS), REPLAYS_FIRST);
  assert_int_equal(replays_count(*state), 2);
  assert_int_equal(check(*state, 2, KEEP_MS), REPLAYS_AGAIN);
}

static void a_replay_does_not_lengthen_the_time(void **state) {
  check(*state, 1, 0);
  assert_int_equal(check(*state, 1, KEEP_MS - 1), REPLAYS_AGAIN);
  assert_int_equal(check(*state, 1, KEEP_MS), REPLAYS_FIRST);
}

static void the_oldest_gives_way_when_there_is_no_room(void **state) {
  for (uint8_t i = 0; i < CAPACITY; i++) {
    assert_int_equal(check(*state, i, i), REPLAYS_FIRST);
  }
  assert_int_equal(check(*state, 100, CAPACITY), REPLAYS_FIRST_FULL);
  assert_int_equal(replays_count(*state), CAPACITY);
  assert_int_equal(check(*state, 1, CAPACITY), REPLAYS_AGAIN);
  assert_int_equal(check(*state, 0, CAPACITY), REPLAYS_FIRST_FULL);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_key_is_known_the_second_time),
      FACT(a_key_is_forgotten_when_its_time_is_over),
      FACT(a_replay_does_not_lengthen_the_time),
      FACT(the_oldest_gives_way_when_there_is_no_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
