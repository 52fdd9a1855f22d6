#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/timer_wheel.h"

enum { GRANULARITY_MS = 10, TIMERS = 300 };

// Beside each timer stands what a naive table says of it.
struct watched {
  struct wheel_timer timer;
  bool is_set;
  int64_t due_ms;
  int64_t set_ms;
  int fired;
};

static struct timer_wheel *wheel;
static struct watched timers[TIMERS];
static int64_t now_ms;
static unsigned seed;
static int fired_in_all;
static void (*and_then)(struct watched *watched);

static unsigned any(unsigned below) { return (unsigned)rand_r(&seed) % below; }

static void set(struct watched *watched, int64_t due_ms) {
  watched->is_set = due_ms != TIMER_WHEEL_NEVER;
  watched->due_ms = due_ms;
  watched->set_ms = now_ms;
  timer_wheel_set(wheel, &watched->timer, due_ms);
}

static void cancel(struct watched *watched) {
  watched->is_set = false;
  timer_wheel_cancel(wheel, &watched->timer);
}

static void on_due(void *owner) {
  struct watched *watched = owner;
  assert_true(watched->is_set);
  assert_false(wheel_timer_is_set(&watched->timer));
  assert_true(watched->due_ms <= now_ms);  // never early
  watched->is_set = false;
  watched->fired++;
  fired_in_all++;
  if (and_then) {
    and_then(watched);
  }
}

static void start(int64_t at_ms) {
  now_ms = at_ms;
  seed = 1;
  fired_in_all = 0;
  and_then = NULL;
  memset(timers, 0, sizeof timers);
  for (size_t i = 0; i < TIMERS; i++) {
    timers[i].timer.owner = &timers[i];
  }
  wheel = timer_wheel_new(GRANULARITY_MS, now_ms, on_due);
  assert_non_null(wheel);
}

// What is overdue by a granularity and was not set just now must have fired; the rest must wait,
// and the wheel must want to be called in time.
static void check(void) {
  int64_t next = timer_wheel_next(wheel);
  size_t waiting = 0;
  for (size_t i = 0; i < TIMERS; i++) {
    const struct watched *watched = &timers[i];
    assert_int_equal(watched->is_set, wheel_timer_is_set(&watched->timer));
    if (watched->is_set) {
      waiting++;
      int64_t from = watched->due_ms > watched->set_ms ? watched->due_ms : watched->set_ms;
      assert_true(now_ms < from + GRANULARITY_MS);
      assert_true(next < from + GRANULARITY_MS + 1);
    }
  }
  assert_int_equal(waiting == 0, next == TIMER_WHEEL_NEVER);
}

static void advance(int64_t by_ms) {
  now_ms += by_ms;
  timer_wheel_advance(wheel, now_ms);
  check();
}

static void a_timer_fires_within_a_granularity_after_it_is_due(void **state) {
  (void)state;
  for (int64_t begin = 0; begin < 5200; begin += 137) {
    for (int64_t ahead = 0; ahead < 800000; ahead = ahead * 3 / 2 + 1) {
      start(begin);
      set(&timers[0], begin + ahead);
      while (timers[0].fired == 0) {
        int64_t next = timer_wheel_next(wheel);
        assert_true(next > now_ms);
        assert_true(next <= begin + ahead + GRANULARITY_MS);
        advance(next - now_ms - 1);
        assert_int_equal(timers[0].fired, 0);
        advance(1);
      }
      assert_int_equal(timer_wheel_next(wheel), TIMER_WHEEL_NEVER);
      timer_wheel_free(wheel);
    }
  }
}

static void a_wheel_not_advanced_for_long_catches_up_at_once(void **state) {
  (void)state;
  start(12345);
  for (size_t i = 0; i < TIMERS; i++) {
    set(&timers[i], now_ms + (int64_t)any(3000000));
  }
  advance(INT64_C(400000000000));
  assert_int_equal(fired_in_all, TIMERS);
  timer_wheel_free(wheel);
}

static void never_cancels(void **state) {
  (void)state;
  start(0);
  set(&timers[0], 100);
  set(&timers[0], TIMER_WHEEL_NEVER);
  cancel(&timers[1]);  // was not set
  advance(1000);
  set(&timers[0], TIMER_WHEEL_NEVER - 100);  // as good as never
  set(&timers[1], -5);
  advance(GRANULARITY_MS);
  assert_int_equal(timers[1].fired, 1);
  cancel(&timers[0]);
  check();
  timer_wheel_free(wheel);
}

static void and_again_at_once(struct watched *watched) { set(watched, now_ms - 100000); }

static void what_sets_itself_again_fires_once_in_each_call(void **state) {
  (void)state;
  start(77);
  and_then = and_again_at_once;
  set(&timers[0], 80);
  set(&timers[1], 7000);
  for (int i = 1; i <= 5; i++) {
    advance(100000);
    assert_int_equal(timers[0].fired, i);
    assert_int_equal(timers[1].fired, i);
  }
  timer_wheel_free(wheel);
}

static void and_the_others_go(struct watched *watched) {
  for (size_t i = 0; i < TIMERS; i++) {
    if (&timers[i] != watched) {
      cancel(&timers[i]);
      memset(&timers[i].timer, 0x5a, sizeof timers[i].timer);  // as if it was freed
      timers[i].timer.slot = 0;
    }
  }
}

static void a_callback_may_cancel_those_due_with_it(void **state) {
  (void)state;
  start(0);
  and_then = and_the_others_go;
  for (size_t i = 0; i < TIMERS; i++) {
    set(&timers[i], 2560);
  }
  advance(5000);
  assert_int_equal(fired_in_all, 1);
  timer_wheel_free(wheel);
}

static int64_t any_due(void) {
  static const unsigned reach_ms[] = {1, 30, 3000, 60000, 700000, 3000000, 400000000};
  return now_ms - 20 + (int64_t)any(reach_ms[any(sizeof reach_ms / sizeof *reach_ms)]);
}

static void and_anything(struct watched *watched) {
  if (any(2) == 0) {
    set(watched, any_due());
  }
  if (any(3) == 0) {
    set(&timers[any(TIMERS)], any_due());
  }
  if (any(3) == 0) {
    cancel(&timers[any(TIMERS)]);
  }
}

static void it_does_what_a_naive_table_does(void **state) {
  (void)state;
  for (unsigned round = 0; round < 20; round++) {
    start(round * 977);
    seed = round + 1;
    and_then = and_anything;
    for (int step = 0; step < 3000; step++) {
      static const unsigned stride_ms[] = {2, 11, 100, 3000, 100000, 1000000, 300000000};
      set(&timers[any(TIMERS)], any_due());
      if (any(3) == 0) {
        cancel(&timers[any(TIMERS)]);
      }
      advance(any(stride_ms[any(step % 100 == 0 ? 7 : 3)]));
    }
    assert_true(fired_in_all > 100);
    timer_wheel_free(wheel);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_timer_fires_within_a_granularity_after_it_is_due),
      cmocka_unit_test(a_wheel_not_advanced_for_long_catches_up_at_once),
      cmocka_unit_test(never_cancels),
      cmocka_unit_test(what_sets_itself_again_fires_once_in_each_call),
      cmocka_unit_test(a_callback_may_cancel_those_due_with_it),
      cmocka_unit_test(it_does_what_a_naive_table_does),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
