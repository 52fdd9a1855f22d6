#include "master/readiness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

// A gateway that is ready, with a main tunnel to "player" and another one to "room".
struct house {
  struct config config;
  struct node nodes[2];
  struct readiness_facts facts;
};

static int set_up(void **state) {
  static struct house house;
  house = (struct house){.nodes = {{.service = "player"}, {.service = "room"}}};
  house.config.tunnel.type_count = 2;
  strcpy(house.config.tunnel.types[0].name, "main");
  strcpy(house.config.tunnel.types[0].service, "player");
  house.config.tunnel.types[0].main = true;
  strcpy(house.config.tunnel.types[1].name, "room");
  strcpy(house.config.tunnel.types[1].service, "room");
  house.facts = (struct readiness_facts){.config = &house.config,
                                         .listeners = 1,
                                         .all_workers_served = true,
                                         .workers = 2,
                                         .workers_running = 2,
                                         .nodes = house.nodes,
                                         .node_count = 2};
  *state = &house;
  return 0;
}

// Of all checks just this one fails; READINESS_CHECKS: none.
static void expect(const struct house *house, enum readiness_state wanted,
                   enum readiness_check failing, const char *detail) {
  struct readiness readiness;
  readiness_evaluate(&house->facts, &readiness);
  assert_string_equal(readiness_state_name(readiness.state), readiness_state_name(wanted));
  for (int i = 0; i < READINESS_CHECKS; i++) {
    assert_int_equal(readiness.checks[i].ok, i != (int)failing);
  }
  if (failing != READINESS_CHECKS) {
    assert_string_equal(readiness.checks[failing].detail, detail);
  }
}

static void with_all_there_it_is_ready(void **state) {
  expect(*state, READINESS_READY, READINESS_CHECKS, NULL);
}

static void until_all_workers_have_run_it_is_not_ready(void **state) {
  struct house *house = *state;
  house->facts.all_workers_served = false;
  expect(house, READINESS_NOT_READY, READINESS_LISTENING, "1 listeners, workers are starting");
}

static void one_worker_is_enough_and_none_is_not(void **state) {
  struct house *house = *state;
  house->facts.workers_running = 1;
  expect(house, READINESS_READY, READINESS_CHECKS, NULL);
  house->facts.workers_running = 0;
  expect(house, READINESS_NOT_READY, READINESS_WORKERS, "0 of 2 running");
}

static void nodes_are_needed_for_the_main_tunnel_alone(void **state) {
  struct house *house = *state;
  house->facts.node_count = 1;
  expect(house, READINESS_READY, READINESS_CHECKS, NULL);
  house->facts.nodes = house->nodes + 1;
  expect(house, READINESS_NOT_READY, READINESS_NODES, "main: 0, room (optional): 1");
}

static void draining_is_said_before_all_else(void **state) {
  struct house *house = *state;
  house->facts.draining = true;
  expect(house, READINESS_IS_DRAINING, READINESS_DRAINING, "yes");
  struct readiness readiness;
  house->facts.workers_running = 0;
  readiness_evaluate(&house->facts, &readiness);
  assert_int_equal(readiness.state, READINESS_IS_DRAINING);
}

static void links_are_told_of_and_fail_nothing(void **state) {
  struct house *house = *state;
  struct readiness readiness;
  house->facts.etcd = "connecting";
  house->facts.redis = "down";
  readiness_evaluate(&house->facts, &readiness);
  assert_int_equal(readiness.state, READINESS_READY);
  assert_string_equal(readiness.checks[READINESS_LINKS].detail, "etcd connecting, redis down");
}

static void a_detail_that_is_too_long_is_cut(void **state) {
  struct house *house = *state;
  house->config.tunnel.type_count = CONFIG_TUNNEL_TYPES;
  for (int i = 0; i < CONFIG_TUNNEL_TYPES; i++) {
    memset(house->config.tunnel.types[i].name, 'x', 31);
  }
  struct readiness readiness;
  readiness_evaluate(&house->facts, &readiness);
  assert_true(strlen(readiness.checks[READINESS_NODES].detail) < READINESS_DETAIL_BYTES);
  assert_true(readiness.checks[READINESS_NODES].ok);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(with_all_there_it_is_ready, set_up),
      cmocka_unit_test_setup(until_all_workers_have_run_it_is_not_ready, set_up),
      cmocka_unit_test_setup(one_worker_is_enough_and_none_is_not, set_up),
      cmocka_unit_test_setup(nodes_are_needed_for_the_main_tunnel_alone, set_up),
      cmocka_unit_test_setup(draining_is_said_before_all_else, set_up),
      cmocka_unit_test_setup(links_are_told_of_and_fail_nothing, set_up),
      cmocka_unit_test_setup(a_detail_that_is_too_long_is_cut, set_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
