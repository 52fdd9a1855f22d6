#include "master/route_feed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/unit/redis.h"

// What a feed reads of a real Redis.

enum {
  ROUTES = 2000,
  // A page is of 200 keys: Redis goes by its buckets, and may give a few more at a time.
  PAGE_MAX = 250,
};

struct fixture {
  struct redis_server redis;
  struct event_base *base;
  struct config config;
  struct secrets secrets;
  struct counters counters;
  struct redis_link *link;
  struct route_feed *feed;
  uint8_t told[ROUTES];  // how often each route was
};

static void on_master_up(void *owner) { (void)owner; }

static void on_masters_changed(void *owner) {
  struct fixture *fixture = owner;
  if (fixture->feed) {
    route_feed_follow(fixture->feed);
  }
}

static bool wants(const struct redis_routes_name *name, bool scanning, void *owner) {
  (void)name;
  (void)scanning;
  (void)owner;
  return true;
}

static void on_route(const struct redis_routes_name *name, const char *address, int64_t ttl_ms,
                     void *owner) {
  struct fixture *fixture = owner;
  (void)ttl_ms;
  assert_in_range(name->oid, 0, ROUTES - 1);
  assert_string_equal(address, "10.0.0.1:19200");
  fixture->told[name->oid]++;
}

static void on_void(const char *master, void *owner) {
  (void)master;
  (void)owner;
}

static void on_followed(void *owner) { (void)owner; }

static int set_up(void **state) {
  static const struct redis_link_events link_events = {on_master_up, on_master_up,
                                                       on_masters_changed};
  static const struct route_feed_events events = {wants, on_route, on_void, on_followed};
  char why[128];
  struct fixture *fixture = calloc(1, sizeof *fixture);
  redis_start(&fixture->redis);
  for (int i = 0; i < ROUTES; i++) {
    redis_do(&fixture->redis, "SET r_roma.room.service_{blue}_{%d} 10.0.0.1:19200 PX 600000", i);
  }
  struct config *config = &fixture->config;
  strcpy(config->data.redis.addr, fixture->redis.address);
  config->data.redis.dial_timeout_ms = 2000;
  config->data.redis.read_timeout_ms = 20000;
  config->data.redis.write_timeout_ms = 20000;
  config->data.redis.backoff_ms = 10;
  config->data.redis.backoff_max_ms = 50;
  config->data.app_route_table_alive_duration_ms = 600000;
  fixture->base = event_base_new();
  fixture->link = redis_link_new(fixture->base, config, &fixture->secrets, NULL, &link_events,
                                 fixture, why, sizeof why);
  assert_non_null(fixture->link);
  fixture->feed =
      route_feed_new(fixture->base, fixture->link, config, &fixture->counters, &events, fixture);
  *state = fixture;
  return fixture->feed ? 0 : -1;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  route_feed_free(fixture->feed);
  redis_link_free(fixture->link);
  event_base_free(fixture->base);
  redis_kill(&fixture->redis);
  free(fixture);
  return 0;
}

static void until_all_is_read(struct fixture *fixture) {
  int64_t until_ms = clock_monotonic_ms() + redis_patience_ms();
  struct route_feed_health health;
  do {
    const struct timeval moment = {.tv_usec = 2000};
    assert_true(clock_monotonic_ms() < until_ms);
    event_base_loopexit(fixture->base, &moment);
    event_base_dispatch(fixture->base);
    route_feed_health(fixture->feed, &health);
  } while (health.live == 0 || health.scanning > 0 || memchr(fixture->told, 0, ROUTES));
}

static long scans(struct fixture *fixture) {
  redisReply *reply = redis_ask(&fixture->redis, "INFO commandstats");
  const char *stat = strstr(reply->str, "cmdstat_scan:calls=");
  long calls = stat ? strtol(strchr(stat, '=') + 1, NULL, 10) : 0;
  freeReplyObject(reply);
  return calls;
}

static void routes_are_read_page_by_page(void **state) {
  struct fixture *fixture = *state;
  route_feed_follow(fixture->feed);
  until_all_is_read(fixture);
  assert_true(scans(fixture) >= ROUTES / PAGE_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(routes_are_read_page_by_page, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
