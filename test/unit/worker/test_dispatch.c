#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>

#include "worker/dispatch.h"

static const struct config_tunnel_type types[] = {
    {.name = "player", .default_modules = true},
    {.name = "room", .modules = {6}, .module_count = 1},
    {.name = "chat", .modules = {70, 100000, -5}, .module_count = 3},
};

static void a_module_goes_to_the_type_that_names_it(void **state) {
  struct dispatch dispatch;
  (void)state;
  dispatch_init(&dispatch, types, 3);
  assert_int_equal(dispatch_find(&dispatch, 6), 1);
  assert_int_equal(dispatch_find(&dispatch, 70), 2);
}

static void every_other_module_goes_to_the_default_type(void **state) {
  struct dispatch dispatch;
  (void)state;
  dispatch_init(&dispatch, types, 3);
  assert_int_equal(dispatch_find(&dispatch, 0), 0);
  assert_int_equal(dispatch_find(&dispatch, 1), 0);
  assert_int_equal(dispatch_find(&dispatch, 255), 0);
  assert_int_equal(dispatch_find(&dispatch, 256), 0);
  assert_int_equal(dispatch_find(&dispatch, INT32_MAX), 0);
  assert_int_equal(dispatch_find(&dispatch, INT32_MIN), 0);
}

static void a_module_of_any_number_can_be_named(void **state) {
  struct dispatch dispatch;
  (void)state;
  dispatch_init(&dispatch, types, 3);
  assert_int_equal(dispatch_find(&dispatch, 100000), 2);
  assert_int_equal(dispatch_find(&dispatch, -5), 2);
}

static void without_a_default_an_unnamed_module_has_no_tunnel(void **state) {
  struct dispatch dispatch;
  (void)state;
  dispatch_init(&dispatch, types + 1, 2);
  assert_int_equal(dispatch_find(&dispatch, 3), DISPATCH_NONE);
  assert_int_equal(dispatch_find(&dispatch, 3000), DISPATCH_NONE);
  assert_int_equal(dispatch_find(&dispatch, 6), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_module_goes_to_the_type_that_names_it),
      cmocka_unit_test(every_other_module_goes_to_the_default_type),
      cmocka_unit_test(a_module_of_any_number_can_be_named),
      cmocka_unit_test(without_a_default_an_unnamed_module_has_no_tunnel),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
