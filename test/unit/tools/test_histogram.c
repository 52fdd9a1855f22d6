#include "tools/client/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct histogram histogram;

static int clear(void **state) {
  (void)state;
  histogram_clear(&histogram);
  return 0;
}

static void an_empty_histogram_answers_zero(void **state) {
  (void)state;
  assert_int_equal(histogram_percentile(&histogram, 50), 0);
  assert_int_equal(histogram_percentile(&histogram, 100), 0);
  assert_true(histogram_mean(&histogram) == 0);
}

static void small_values_are_kept_exactly(void **state) {
  (void)state;
  for (uint64_t value = 1; value <= 100; value++) {
    histogram_record(&histogram, value);
  }
  assert_int_equal(histogram_percentile(&histogram, 1), 1);
  assert_int_equal(histogram_percentile(&histogram, 50), 50);
  assert_int_equal(histogram_percentile(&histogram, 99), 99);
  assert_int_equal(histogram_percentile(&histogram, 100), 100);
  assert_true(histogram_mean(&histogram) == 50.5);
}

static void a_percentile_is_never_below_and_at_most_a_64th_above_the_true_value(void **state) {
  (void)state;
  for (uint64_t value = 1; value < UINT64_MAX / 3; value = value * 3 + 1) {
    histogram_clear(&histogram);
    histogram_record(&histogram, value);
    histogram_record(&histogram, UINT64_MAX);
    uint64_t median = histogram_percentile(&histogram, 50);
    assert_true(median >= value);
    assert_true(median - value <= value / 64);
  }
}

static void the_largest_value_is_kept_exactly(void **state) {
  (void)state;
  histogram_record(&histogram, 1);
  histogram_record(&histogram, 123456789);
  assert_int_equal(histogram.max, 123456789);
  assert_int_equal(histogram_percentile(&histogram, 99.9), 123456789);
}

static void the_whole_range_has_a_bucket(void **state) {
  (void)state;
  histogram_record(&histogram, 0);
  histogram_record(&histogram, UINT64_MAX);
  assert_int_equal(histogram.count, 2);
  assert_int_equal(histogram_percentile(&histogram, 0), 0);
  assert_true(histogram_percentile(&histogram, 100) == UINT64_MAX);
}

static void one_slow_answer_in_a_thousand_shows_at_three_nines_only(void **state) {
  (void)state;
  for (int i = 0; i < 999; i++) {
    histogram_record(&histogram, 10);
  }
  histogram_record(&histogram, 50);
  assert_int_equal(histogram_percentile(&histogram, 99.9), 10);
  assert_int_equal(histogram_percentile(&histogram, 99.91), 50);
}

static void merging_counts_both(void **state) {
  (void)state;
  static struct histogram other;
  histogram_clear(&other);
  histogram_record(&histogram, 5);
  histogram_record(&other, 7);
  histogram_record(&other, 9);
  histogram_merge(&histogram, &other);
  assert_int_equal(histogram.count, 3);
  assert_int_equal(histogram.max, 9);
  assert_int_equal(histogram_percentile(&histogram, 50), 7);
  assert_true(histogram_mean(&histogram) == 7);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(an_empty_histogram_answers_zero, clear),
      cmocka_unit_test_setup(small_values_are_kept_exactly, clear),
      cmocka_unit_test_setup(a_percentile_is_never_below_and_at_most_a_64th_above_the_true_value,
                             clear),
      cmocka_unit_test_setup(the_largest_value_is_kept_exactly, clear),
      cmocka_unit_test_setup(the_whole_range_has_a_bucket, clear),
      cmocka_unit_test_setup(one_slow_answer_in_a_thousand_shows_at_three_nines_only, clear),
      cmocka_unit_test_setup(merging_counts_both, clear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
