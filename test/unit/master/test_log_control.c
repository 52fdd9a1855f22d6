#include "master/log_control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct log_control control;

static int set_up(void **state) {
  (void)state;
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "master");
  log_control_init(&control, NULL, LOG_LEVEL_INFO);
  return 0;
}

static void a_level_for_a_time_goes_back_to_the_one_before(void **state) {
  (void)state;
  log_control_set(&control, LOG_MODULE_SESSION, LOG_LEVEL_WARN, 0, 1000);
  log_control_set(&control, LOG_MODULE_SESSION, LOG_LEVEL_DEBUG, 500, 1000);
  log_control_tick(&control, 1499);
  assert_int_equal(log_level_of(LOG_MODULE_SESSION), LOG_LEVEL_DEBUG);
  assert_int_equal(log_level_of(LOG_MODULE_TUNNEL), LOG_LEVEL_INFO);
  log_control_tick(&control, 1500);
  assert_int_equal(log_level_of(LOG_MODULE_SESSION), LOG_LEVEL_WARN);
}

static void a_later_level_for_good_is_not_put_back(void **state) {
  (void)state;
  log_control_set(&control, LOG_EVERY_MODULE, LOG_LEVEL_DEBUG, 500, 1000);
  log_control_set(&control, LOG_MODULE_TUNNEL, LOG_LEVEL_ERROR, 0, 1100);
  log_control_tick(&control, 5000);
  assert_int_equal(log_level_of(LOG_MODULE_TUNNEL), LOG_LEVEL_ERROR);
  assert_int_equal(log_level_of(LOG_MODULE_SESSION), LOG_LEVEL_INFO);
}

static void a_reset_ends_all_of_it(void **state) {
  (void)state;
  log_control_set(&control, LOG_EVERY_MODULE, LOG_LEVEL_ERROR, 0, 1000);
  log_control_set(&control, LOG_MODULE_ETCD, LOG_LEVEL_DEBUG, 500, 1000);
  log_control_reset(&control);
  for (int i = 0; i < LOG_MODULE_COUNT; i++) {
    assert_int_equal(log_level_of((enum log_module)i), LOG_LEVEL_INFO);
    assert_int_equal(control.until_ms[i], 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(a_level_for_a_time_goes_back_to_the_one_before, set_up),
      cmocka_unit_test_setup(a_later_level_for_good_is_not_put_back, set_up),
      cmocka_unit_test_setup(a_reset_ends_all_of_it, set_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
