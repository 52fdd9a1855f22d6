#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdbool.h>

#include "common/counters.h"

static void counts_go_to_their_own_cell(void **state) {
  static struct counters counters;
  struct counters_values values;
  (void)state;
  counters_add(&counters, COUNTER_RATE_PAUSES, 2);
  counters_add(&counters, COUNTER_RATE_PAUSES, 3);
  counters_closed(&counters, CLOSE_DRAIN);
  counters_gauge_add(&counters, GAUGE_PUSHES_WAITING, 5);
  counters_gauge_add(&counters, GAUGE_PUSHES_WAITING, -2);
  counters_gauge_set(&counters, GAUGE_QUEUED_IN_BYTES, 9);
  counters_read(&counters, &values);
  for (int i = 0; i < COUNTER_COUNT; i++) {
    assert_int_equal(values.counter[i], i == COUNTER_RATE_PAUSES ? 5 : 0);
  }
  for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
    assert_int_equal(values.closed[i], i == CLOSE_DRAIN ? 1 : 0);
  }
  assert_int_equal(values.gauge[GAUGE_PUSHES_WAITING], 3);
  assert_int_equal(values.gauge[GAUGE_QUEUED_IN_BYTES], 9);
}

static void the_gauges_of_the_dead_do_not_count(void **state) {
  const struct counters_values dead = {.counter = {7}, .closed = {8}, .gauge = {9}};
  struct counters_values sum = {.counter = {1}, .closed = {1}, .gauge = {1}};
  (void)state;
  counters_sum(&sum, &dead, false);
  assert_int_equal(sum.counter[0], 8);
  assert_int_equal(sum.closed[0], 9);
  assert_int_equal(sum.gauge[0], 1);
  counters_sum(&sum, &dead, true);
  assert_int_equal(sum.gauge[0], 10);
}

static void every_name_is_there_and_its_own(void **state) {
  (void)state;
  for (int i = 0; i < COUNTER_COUNT; i++) {
    assert_true(counter_about[i].name[0] && counter_about[i].help[0]);
    for (int j = 0; j < i; j++) {
      assert_string_not_equal(counter_about[i].name, counter_about[j].name);
    }
  }
  for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
    for (int j = 0; j < i; j++) {
      assert_string_not_equal(close_reason_name((enum close_reason)i),
                              close_reason_name((enum close_reason)j));
    }
  }
  for (int i = 0; i < GAUGE_COUNT; i++) {
    assert_true(gauge_about[i].name[0] && gauge_about[i].help[0]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(counts_go_to_their_own_cell),
      cmocka_unit_test(the_gauges_of_the_dead_do_not_count),
      cmocka_unit_test(every_name_is_there_and_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
