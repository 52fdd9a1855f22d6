#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

#include "common/clock.h"
#include "master/routes.h"

struct fixture {
  struct route_table *table;
  struct config config;
};

static int set_up(void **state) {
  static struct fixture fixture;
  const struct route_table_options options = {.capacity = {4, 4, 4}};
  int error;
  memset(&fixture, 0, sizeof fixture);
  fixture.table = route_table_create(&options, &error);
  struct config *config = &fixture.config;
  strcpy(config->label.service, "janus.gate.interface");
  strcpy(config->server.grpc.advertise, "10.0.0.1:19100");
  config->data.gateway_route_table_alive_duration_ms = 600000;
  config->data.app_route_table_alive_duration_ms = 600000;
  config->tunnel.type_count = 1;
  strcpy(config->tunnel.types[0].service, "roma.room.service");
  config->tunnel.types[0].tier = ROUTE_OBJECT;
  *state = &fixture;
  return fixture.table ? 0 : -1;
}

static int tear_down(void **state) {
  route_table_free(((struct fixture *)*state)->table);
  return 0;
}

static const char *settle(struct fixture *fixture, int64_t oid, const char *candidate,
                          const char *dead) {
  static struct channel_route_answer answer;
  struct channel_route_claim claim = {.id = 9, .oid = oid};
  strcpy(claim.candidate, candidate);
  strcpy(claim.dead, dead);
  routes_settle(fixture->table, &fixture->config, &claim, &answer);
  assert_int_equal(answer.id, 9);
  return answer.address;
}

static void the_first_claim_holds(void **state) {
  assert_string_equal(settle(*state, 1, "a:1", ""), "a:1");
  assert_string_equal(settle(*state, 1, "b:1", ""), "a:1");
  assert_string_equal(settle(*state, 2, "b:1", ""), "b:1");
}

static void a_dead_node_is_replaced_only_while_the_route_names_it(void **state) {
  assert_string_equal(settle(*state, 1, "a:1", ""), "a:1");
  assert_string_equal(settle(*state, 1, "b:1", "a:1"), "b:1");
  assert_string_equal(settle(*state, 1, "c:1", "a:1"), "b:1");
}

static void a_full_table_settles_nothing(void **state) {
  for (int64_t oid = 0; oid < 4; oid++) {
    assert_string_equal(settle(*state, oid, "a:1", ""), "a:1");
  }
  assert_string_equal(settle(*state, 4, "a:1", ""), "");
  assert_string_equal(settle(*state, 3, "b:1", ""), "a:1");
}

static void an_unknown_tunnel_type_settles_nothing(void **state) {
  struct fixture *fixture = *state;
  struct channel_route_answer answer;
  struct channel_route_claim claim = {.id = 1, .tunnel_type = 1, .candidate = "a:1"};
  routes_settle(fixture->table, &fixture->config, &claim, &answer);
  assert_string_equal(answer.address, "");
}

static void a_renewal_puts_back_what_is_gone_but_overrules_nobody(void **state) {
  struct fixture *fixture = *state;
  struct channel_route_renew renew = {.oid = 1, .address = "a:1"};
  routes_renew(fixture->table, &fixture->config, &renew);
  assert_string_equal(settle(fixture, 1, "b:1", ""), "a:1");
  assert_string_equal(settle(fixture, 1, "b:1", "a:1"), "b:1");
  routes_renew(fixture->table, &fixture->config, &renew);
  assert_string_equal(settle(fixture, 1, "c:1", ""), "b:1");
}

static void the_gateway_tier_names_this_gateway_while_the_player_is_here(void **state) {
  struct fixture *fixture = *state;
  const struct route_key key = {
      .tier = ROUTE_GATEWAY, .service = "janus.gate.interface", .color = "blue", .oid = 5};
  struct route route;
  routes_set_gateway(fixture->table, &fixture->config, 5, "blue");
  assert_int_equal(route_table_lookup(fixture->table, &key, clock_wall_ms(), &route), 0);
  assert_string_equal(route.address, "10.0.0.1:19100");
  assert_true(route.expires_at_ms > clock_wall_ms() + 500000);
  routes_remove_gateway(fixture->table, &fixture->config, 5, "blue");
  assert_int_equal(route_table_lookup(fixture->table, &key, clock_wall_ms(), &route),
                   ERROR_NOT_FOUND);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(the_first_claim_holds),
      FACT(a_dead_node_is_replaced_only_while_the_route_names_it),
      FACT(a_full_table_settles_nothing),
      FACT(an_unknown_tunnel_type_settles_nothing),
      FACT(a_renewal_puts_back_what_is_gone_but_overrules_nobody),
      FACT(the_gateway_tier_names_this_gateway_while_the_player_is_here),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
