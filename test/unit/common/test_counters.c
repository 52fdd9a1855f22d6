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

static void what_is_split_adds_up_to_its_counter_or_gauge(void **state) {
  static struct counters counters;
  struct counters_values values;
  (void)state;
  counters_split_add(&counters, SPLIT_LOGINS, LISTENER_KIND_TCP, 2);
  counters_split_add(&counters, SPLIT_LOGINS, LISTENER_KIND_WSS, 3);
  counters_split_add(&counters, SPLIT_TUNNELS, SPLIT_PARTS - 1, 4);
  counters_split_add(&counters, SPLIT_TUNNELS, SPLIT_PARTS - 1, -1);
  counters_read(&counters, &values);
  assert_int_equal(values.split[SPLIT_LOGINS][LISTENER_KIND_WSS], 3);
  assert_int_equal(values.counter[COUNTER_LOGINS], 5);
  assert_int_equal(values.gauge[GAUGE_TUNNELS], 3);

  struct counters_values sum = {.counter = {0}};
  counters_sum(&sum, &values, false);  // as of a worker that is dead
  assert_int_equal(sum.counter[COUNTER_LOGINS], 5);
  assert_int_equal(sum.split[SPLIT_LOGINS][LISTENER_KIND_TCP], 2);
  assert_int_equal(sum.split[SPLIT_TUNNELS][SPLIT_PARTS - 1], 0);
}

static void a_duration_goes_to_the_first_bucket_that_has_it(void **state) {
  static struct counters counters;
  struct counters_values values;
  const struct histogram_values *lag = &values.histogram[HISTOGRAM_LOOP_LAG];
  (void)state;
  counters_record_us(&counters, HISTOGRAM_LOOP_LAG, -5);  // a clock that is not to be trusted
  counters_record_us(&counters, HISTOGRAM_LOOP_LAG, 0);
  counters_record_us(&counters, HISTOGRAM_LOOP_LAG, histogram_bounds_us[3]);
  counters_record_us(&counters, HISTOGRAM_LOOP_LAG, histogram_bounds_us[3] + 1);
  counters_record_us(&counters, HISTOGRAM_LOOP_LAG, 3600 * INT64_C(1000000));
  counters_read(&counters, &values);
  assert_int_equal(lag->bucket[0], 2);
  assert_int_equal(lag->bucket[3], 1);
  assert_int_equal(lag->bucket[4], 1);
  assert_int_equal(lag->bucket[HISTOGRAM_BOUNDS], 1);
  assert_int_equal(lag->sum_us, 2 * histogram_bounds_us[3] + 1 + 3600 * INT64_C(1000000));
}

static void a_quantile_lies_in_the_bucket_that_has_it(void **state) {
  struct histogram_values histogram = {.sum_us = 0};
  (void)state;
  assert_true(histogram_quantile_us(&histogram, 0.5) == 0);
  histogram.bucket[5] = 90;
  histogram.bucket[8] = 10;
  double median = histogram_quantile_us(&histogram, 0.5);
  double p99 = histogram_quantile_us(&histogram, 0.99);
  assert_true(median > histogram_bounds_us[4] && median <= histogram_bounds_us[5]);
  assert_true(p99 > histogram_bounds_us[7] && p99 <= histogram_bounds_us[8]);
  histogram.bucket[HISTOGRAM_BOUNDS] = 900;
  assert_true(histogram_quantile_us(&histogram, 0.99) == histogram_bounds_us[HISTOGRAM_BOUNDS - 1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(counts_go_to_their_own_cell),
      cmocka_unit_test(the_gauges_of_the_dead_do_not_count),
      cmocka_unit_test(every_name_is_there_and_its_own),
      cmocka_unit_test(what_is_split_adds_up_to_its_counter_or_gauge),
      cmocka_unit_test(a_duration_goes_to_the_first_bucket_that_has_it),
      cmocka_unit_test(a_quantile_lies_in_the_bucket_that_has_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
