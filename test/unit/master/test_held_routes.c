#include "master/held_routes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static int set_up(void **state) {
  *state = held_routes_new();
  return *state ? 0 : -1;
}

static int tear_down(void **state) {
  held_routes_free(*state);
  return 0;
}

static struct held_route *hold(struct held_routes *held, int worker, int64_t oid,
                               const char *address) {
  const struct tunnel_route name = {.type = 1, .color = "blue", .oid = oid};
  return held_routes_hold(held, worker, &name, address, 100);
}

static void release(struct held_routes *held, int worker, int64_t oid) {
  const struct tunnel_route name = {.type = 1, .color = "blue", .oid = oid};
  held_routes_release(held, worker, &name);
}

static struct held_route *find(const struct held_routes *held, uint32_t type, const char *color,
                               int64_t oid) {
  const struct tunnel_route name = {.type = type, .color = color, .oid = oid};
  return held_routes_find(held, &name);
}

static void a_route_stays_until_as_many_let_go_as_held(void **state) {
  struct held_routes *held = *state;
  struct held_route *route = hold(held, 0, 7, "a:1");
  assert_ptr_equal(hold(held, 0, 7, "a:1"), route);
  assert_ptr_equal(hold(held, 2, 7, "b:1"), route);
  assert_string_equal(route->address, "b:1");
  assert_int_equal(route->total, 3);
  release(held, 0, 7);
  release(held, 2, 7);
  assert_ptr_equal(find(held, 1, "blue", 7), route);
  assert_int_equal(route->holder_count, 1);
  assert_int_equal(route->holders[0].worker, 0);
  assert_int_equal(route->holders[0].tunnels, 1);
  release(held, 2, 7);  // has none any more
  assert_int_equal(held_routes_count(held), 1);
  release(held, 0, 7);
  assert_null(find(held, 1, "blue", 7));
}

static void type_color_and_oid_name_a_route(void **state) {
  struct held_routes *held = *state;
  hold(held, 0, 7, "a:1");
  assert_null(find(held, 0, "blue", 7));
  assert_null(find(held, 1, "blu", 7));
  assert_null(find(held, 1, "blue1", 7));
  assert_null(find(held, 1, "blue", -7));
  assert_non_null(find(held, 1, "blue", 7));
}

static void a_dead_workers_holds_go_with_it(void **state) {
  struct held_routes *held = *state;
  hold(held, 0, 1, "a:1");
  hold(held, 1, 1, "a:1");
  hold(held, 1, 2, "a:1");
  held_routes_drop_worker(held, 1);
  assert_non_null(find(held, 1, "blue", 1));
  assert_null(find(held, 1, "blue", 2));
}

static void checks_come_round_in_order(void **state) {
  struct held_routes *held = *state;
  struct held_route *first = hold(held, 0, 1, "a:1");
  struct held_route *second = hold(held, 0, 2, "a:1");
  assert_ptr_equal(held_routes_first_check(held), first);
  held_routes_checked(held, first, 200);
  assert_ptr_equal(held_routes_first_check(held), second);
  release(held, 0, 2);
  assert_ptr_equal(held_routes_first_check(held), first);
  assert_int_equal(first->check_at_ms, 200);
}

static void a_route_is_in_one_queue_at_a_time_and_leaves_it_when_let_go(void **state) {
  struct held_routes *held = *state;
  struct held_route *one = hold(held, 0, 1, "a:1");
  struct held_route *two = hold(held, 0, 2, "a:1");
  assert_null(held_routes_first(held, HELD_URGENT));
  held_routes_enqueue_all(held, HELD_URGENT);
  assert_ptr_equal(held_routes_first(held, HELD_URGENT), one);
  held_routes_enqueue(held, one, HELD_LATER);
  assert_ptr_equal(held_routes_first(held, HELD_URGENT), two);
  assert_ptr_equal(held_routes_first(held, HELD_LATER), one);
  release(held, 0, 2);
  assert_null(held_routes_first(held, HELD_URGENT));
  held_routes_enqueue(held, one, HELD_SETTLED);
  assert_null(held_routes_first(held, HELD_LATER));
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_route_stays_until_as_many_let_go_as_held),
      FACT(type_color_and_oid_name_a_route),
      FACT(a_dead_workers_holds_go_with_it),
      FACT(checks_come_round_in_order),
      FACT(a_route_is_in_one_queue_at_a_time_and_leaves_it_when_let_go),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
