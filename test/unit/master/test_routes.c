#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

#include "common/clock.h"
#include "master/routes.h"
#include "test/unit/redis.h"

struct fixture {
  struct event_base *base;
  struct route_table *table;
  struct directory *directory;
  struct routes *routes;
  struct counters counters;
  struct config config;
  struct channel_route_held moved;  // the last that a worker was told
  int moved_worker;                 // -1: none was
  int moved_count;
  struct redis_server redis;
  struct redis_link *link;  // NULL: routes in memory
  struct simulated_worker *simulated;
  int64_t expected_uid;  // 0: nobody is
};

// Two workers with some tunnels each, all of one room, and what is on the way between them and the
// master.
enum { TUNNELS = 3, ON_THE_WAY_MAX = 4096 };

struct simulated_worker {
  char at[TUNNELS];           // each tunnel's node; 0: none
  char told[ON_THE_WAY_MAX];  // nodes that it was told of, in order,
  size_t told_count, told_read;
  struct {
    char node;  // 0: a release
    bool follows;
  } said[ON_THE_WAY_MAX];
  size_t said_count, said_read;
};

static void on_moved(int worker, const struct channel_route_held *moved, void *owner) {
  struct fixture *fixture = owner;
  fixture->moved_worker = worker;
  fixture->moved = *moved;
  fixture->moved_count++;
  if (fixture->simulated) {
    struct simulated_worker *simulated = &fixture->simulated[worker];
    assert_true(simulated->told_count < ON_THE_WAY_MAX);
    simulated->told[simulated->told_count++] = moved->address[0];
  }
}

static bool is_expected(int64_t uid, const char *color, void *owner) {
  const struct fixture *fixture = owner;
  return uid == fixture->expected_uid && strcmp(color, "blue") == 0;
}

static void on_master_up(void *owner) {
  struct fixture *fixture = owner;
  routes_redis_up(fixture->routes);
}

static void on_master_down(void *owner) { (void)owner; }

static void on_masters_changed(void *owner) {
  struct fixture *fixture = owner;
  routes_redis_changed(fixture->routes);
}

static struct redis_link *link_to_redis(struct fixture *fixture) {
  static const struct redis_link_events events = {on_master_up, on_master_down, on_masters_changed};
  static struct secrets secrets;
  struct config *config = &fixture->config;
  char why[128] = "";
  redis_start(&fixture->redis);
  strcpy(config->data.redis.addr, fixture->redis.address);
  config->data.redis.dial_timeout_ms = 2000;
  config->data.redis.read_timeout_ms = 1000;
  config->data.redis.write_timeout_ms = 1000;
  config->data.redis.backoff_ms = 10;
  config->data.redis.backoff_max_ms = 50;
  config->data.redis.queued_writes = 100;
  fixture->link = redis_link_new(fixture->base, config, &secrets, &fixture->counters, &events,
                                 fixture, why, sizeof why);
  assert_string_equal(why, "");
  return fixture->link;
}

static int set_up_with(void **state, bool in_redis) {
  static struct fixture fixture;
  const struct route_table_options options = {.capacity = {4, 4, 4}};
  int error;
  memset(&fixture, 0, sizeof fixture);
  fixture.base = event_base_new();
  fixture.table = route_table_create(&options, &error);
  fixture.directory = directory_new();
  fixture.moved_worker = -1;
  struct config *config = &fixture.config;
  strcpy(config->label.service, "janus.gate.interface");
  strcpy(config->server.grpc.advertise, "10.0.0.1:19100");
  config->data.gateway_route_table_alive_duration_ms = 600000;
  config->data.app_route_table_alive_duration_ms = 600000;
  config->tunnel.type_count = 1;
  strcpy(config->tunnel.types[0].service, "roma.room.service");
  config->tunnel.types[0].tier = ROUTE_OBJECT;
  const struct routes_options routes_options = {
      .base = fixture.base,
      .config = config,
      .link = in_redis ? link_to_redis(&fixture) : NULL,
      .table = fixture.table,
      .directory = fixture.directory,
      .counters = &fixture.counters,
      .is_expected = is_expected,
      .on_moved = on_moved,
      .owner = &fixture,
  };
  fixture.routes = routes_new(&routes_options);
  *state = &fixture;
  return fixture.routes ? 0 : -1;
}

static int set_up(void **state) { return set_up_with(state, false); }

static int set_up_in_redis(void **state) { return set_up_with(state, true); }

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  redis_link_close(fixture->link);
  routes_free(fixture->routes);
  redis_link_free(fixture->link);
  redis_kill(&fixture->redis);
  directory_free(fixture->directory);
  route_table_free(fixture->table);
  event_base_free(fixture->base);
  return 0;
}

static const char *settle(struct fixture *fixture, int64_t oid, const char *candidate,
                          const char *dead) {
  static struct channel_route_answer answer;
  struct channel_route_claim claim = {.id = 9, .oid = oid};
  strcpy(claim.candidate, candidate);
  strcpy(claim.dead, dead);
  routes_claim(fixture->routes, &claim, &answer);
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
  routes_claim(fixture->routes, &claim, &answer);
  assert_string_equal(answer.address, "");
}

static void what_a_tunnel_holds_is_put_back_but_overrules_nobody(void **state) {
  struct fixture *fixture = *state;
  const struct channel_route_held held = {.oid = 1, .address = "a:1"};
  routes_held(fixture->routes, 0, &held);
  assert_string_equal(settle(fixture, 1, "b:1", ""), "a:1");
  assert_int_equal(fixture->moved_worker, -1);
  assert_string_equal(settle(fixture, 1, "b:1", "a:1"), "b:1");
  routes_held(fixture->routes, 1, &held);
  assert_string_equal(settle(fixture, 1, "c:1", ""), "b:1");
  // Both that hold it are told where it is.
  assert_int_equal(fixture->moved_worker, 1);
  assert_string_equal(fixture->moved.address, "b:1");
  assert_int_equal(fixture->moved.oid, 1);
}

static void whoever_holds_a_route_is_told_when_another_moves_it(void **state) {
  struct fixture *fixture = *state;
  const struct channel_route_held at_a = {.oid = 1, .address = "a:1"};
  const struct channel_route_held at_b = {.oid = 1, .address = "b:1"};
  const struct channel_route_released released = {.oid = 1};
  routes_held(fixture->routes, 0, &at_a);
  routes_held(fixture->routes, 1, &at_a);
  routes_released(fixture->routes, 0, &released);
  assert_string_equal(settle(fixture, 1, "b:1", "a:1"), "b:1");
  routes_held(fixture->routes, 0, &at_b);
  assert_int_equal(fixture->moved_worker, 1);
  assert_string_equal(fixture->moved.address, "b:1");
}

static void say(struct simulated_worker *simulated, char node, bool follows) {
  assert_true(simulated->said_count < ON_THE_WAY_MAX);
  simulated->said[simulated->said_count].node = node;
  simulated->said[simulated->said_count++].follows = follows;
}

static void go(struct simulated_worker *simulated, int tunnel, char node, bool follows) {
  if (simulated->at[tunnel]) {
    say(simulated, 0, false);
  }
  simulated->at[tunnel] = node;
  say(simulated, node, follows);
}

static bool worker_reads(struct simulated_worker *simulated) {
  if (simulated->told_read == simulated->told_count) {
    return false;
  }
  char node = simulated->told[simulated->told_read++];
  for (int i = 0; i < TUNNELS; i++) {
    if (simulated->at[i] != node) {
      go(simulated, i, node, true);
    }
  }
  return true;
}

static bool master_reads(struct fixture *fixture, int worker) {
  struct simulated_worker *simulated = &fixture->simulated[worker];
  if (simulated->said_read == simulated->said_count) {
    return false;
  }
  size_t i = simulated->said_read++;
  if (simulated->said[i].node) {
    const struct channel_route_held held = {.oid = 1,
                                            .follows = simulated->said[i].follows,
                                            .address = {simulated->said[i].node, ':', '1'}};
    routes_held(fixture->routes, worker, &held);
  } else {
    routes_released(fixture->routes, worker, &(struct channel_route_released){.oid = 1});
  }
  return true;
}

static void workers_that_choose_differently_in_an_outage_come_together(void **state) {
  struct fixture *fixture = *state;
  static struct simulated_worker simulated[2];
  route_table_trust(fixture->table, false);
  fixture->simulated = simulated;
  uint64_t random = 1;
  for (int run = 0; run < 2000; run++) {
    memset(simulated, 0, sizeof simulated);
    for (int i = 0; i < TUNNELS; i++) {
      go(&simulated[0], i, 'b', false);
      go(&simulated[1], i, 'c', false);
    }
    for (int quiet = 0; quiet < 400;) {
      random = random * 6364136223846793005 + 1442695040888963407;
      int worker = (int)(random >> 33 & 1);
      bool done =
          random >> 34 & 1 ? worker_reads(&simulated[worker]) : master_reads(fixture, worker);
      quiet = done ? 0 : quiet + 1;
    }
    for (int i = 0; i < TUNNELS; i++) {
      assert_int_equal(simulated[0].at[i], simulated[0].at[0]);
      assert_int_equal(simulated[1].at[i], simulated[0].at[0]);
    }
    routes_worker_gone(fixture->routes, 0);
    routes_worker_gone(fixture->routes, 1);
  }
}

static void the_gateway_tier_names_this_gateway_while_the_player_is_here(void **state) {
  struct fixture *fixture = *state;
  const struct route_key key = {
      .tier = ROUTE_GATEWAY, .service = "janus.gate.interface", .color = "blue", .oid = 5};
  struct route route;
  const struct channel_session session = {.connection = 1, .uid = 5, .color = "blue"};
  routes_player_came(fixture->routes, directory_add(fixture->directory, &session, 0));
  assert_int_equal(route_table_lookup(fixture->table, &key, clock_wall_ms(), &route), 0);
  assert_string_equal(route.address, "10.0.0.1:19100");
  assert_true(route.expires_at_ms > clock_wall_ms() + 500000);
  routes_player_left(fixture->routes, 5, "blue");
  assert_int_equal(route_table_lookup(fixture->table, &key, clock_wall_ms(), &route),
                   ERROR_NOT_FOUND);
}

// --- In Redis ------------------------------------------------------------------------

#define WAIT_FOR(fixture, condition)                                              \
  for (int64_t until_ms = clock_monotonic_ms() + redis_patience_ms();             \
       !(condition) && (check_time(until_ms, #condition), true); turn(fixture)) { \
  }

static void check_time(int64_t until_ms, const char *what) {
  if (clock_monotonic_ms() > until_ms) {
    fail_msg("it never came to: %s", what);
  }
}

static void turn(struct fixture *fixture) {
  const struct timeval moment = {.tv_usec = 2000};
  event_base_loopexit(fixture->base, &moment);
  event_base_dispatch(fixture->base);
}

static bool is_at(const struct fixture *fixture, int64_t oid, const char *address) {
  const struct route_key key = {
      .tier = ROUTE_OBJECT, .service = "roma.room.service", .color = "", .oid = oid};
  struct route route;
  return route_table_lookup(fixture->table, &key, clock_wall_ms(), &route) == 0 &&
         strcmp(route.address, address) == 0;
}

static void a_route_that_moves_is_told_once(void **state) {
  struct fixture *fixture = *state;
  const struct channel_route_held held = {.oid = 1, .address = "a:1"};
  redis_do(&fixture->redis, "SET r_roma.room.service_{}_{1} a:1 PX 600000");
  WAIT_FOR(fixture, is_at(fixture, 1, "a:1"));
  routes_held(fixture->routes, 0, &held);
  assert_int_equal(fixture->moved_count, 0);
  redis_do(&fixture->redis, "SET r_roma.room.service_{}_{1} b:1 PX 600000");
  WAIT_FOR(fixture, is_at(fixture, 1, "b:1"));
  assert_int_equal(fixture->moved_count, 1);
  assert_string_equal(fixture->moved.address, "b:1");
  // What the table knew already, and the tunnel did not.
  routes_held(fixture->routes, 0, &held);
  assert_int_equal(fixture->moved_count, 2);
}

static bool is_in_redis(struct fixture *fixture, int64_t uid) {
  redisReply *reply = redis_ask(&fixture->redis, "GET r_janus.gate.interface_{blue}_{%lld}", uid);
  bool found = reply->type == REDIS_REPLY_STRING;
  freeReplyObject(reply);
  return found;
}

static void a_player_s_route_of_an_earlier_run_is_removed(void **state) {
  struct fixture *fixture = *state;
  redis_do(&fixture->redis, "SET r_janus.gate.interface_{blue}_{7} 10.0.0.1:19100 PX 600000");
  redis_do(&fixture->redis, "SET r_janus.gate.interface_{blue}_{6} 10.0.0.2:19100 PX 600000");
  WAIT_FOR(fixture, !is_in_redis(fixture, 7));
  assert_true(is_in_redis(fixture, 6));
}

static void one_that_a_login_has_just_taken_is_not(void **state) {
  struct fixture *fixture = *state;
  fixture->expected_uid = 8;
  redis_do(&fixture->redis, "SET r_janus.gate.interface_{blue}_{8} 10.0.0.1:19100 PX 600000");
  redis_do(&fixture->redis, "SET r_janus.gate.interface_{blue}_{9} 10.0.0.1:19100 PX 600000");
  WAIT_FOR(fixture, !is_in_redis(fixture, 9));  // it is told in order
  assert_true(is_in_redis(fixture, 8));
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(the_first_claim_holds),
      FACT(a_dead_node_is_replaced_only_while_the_route_names_it),
      FACT(a_full_table_settles_nothing),
      FACT(an_unknown_tunnel_type_settles_nothing),
      FACT(what_a_tunnel_holds_is_put_back_but_overrules_nobody),
      FACT(whoever_holds_a_route_is_told_when_another_moves_it),
      FACT(workers_that_choose_differently_in_an_outage_come_together),
      FACT(the_gateway_tier_names_this_gateway_while_the_player_is_here),
#define FACT_IN_REDIS(test) cmocka_unit_test_setup_teardown(test, set_up_in_redis, tear_down)
      FACT_IN_REDIS(a_route_that_moves_is_told_once),
      FACT_IN_REDIS(a_player_s_route_of_an_earlier_run_is_removed),
      FACT_IN_REDIS(one_that_a_login_has_just_taken_is_not),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
