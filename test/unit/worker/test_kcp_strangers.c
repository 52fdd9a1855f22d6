#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "worker/kcp_strangers.h"

enum { BEGAN_MS = 1700000, PATIENCE_MS = 1000, MANY = 64 };

struct connection {
  struct kcp_stranger stranger;
  struct fixture *fixture;
  bool is_there;
};

struct fixture {
  struct kcp_strangers *strangers;
  struct connection connections[2 * MANY];
  size_t used;
  int64_t now_ms;
};

static void on_gives_way(void *owner, int64_t now_ms) {
  struct connection *connection = owner;
  assert_true(connection->is_there);
  assert_int_equal(now_ms, connection->fixture->now_ms);
  connection->is_there = false;
  kcp_strangers_remove(connection->fixture->strangers, &connection->stranger);
}

static void begin(struct fixture *fixture, size_t max, size_t max_per_address) {
  *fixture = (struct fixture){.strangers = kcp_strangers_new(on_gives_way), .now_ms = BEGAN_MS};
  assert_non_null(fixture->strangers);
  kcp_strangers_set(fixture->strangers, max, max_per_address);
}

static void end(struct fixture *fixture) {
  for (size_t i = 0; i < fixture->used; i++) {
    if (fixture->connections[i].is_there) {
      kcp_strangers_remove(fixture->strangers, &fixture->connections[i].stranger);
    }
  }
  kcp_strangers_free(fixture->strangers);
}

// NULL: it may not come.
static struct connection *come(struct fixture *fixture, const char *address) {
  struct sockaddr_in6 from = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)fixture->used)};
  char mapped[64];
  snprintf(mapped, sizeof mapped, "%s%s", strchr(address, ':') ? "" : "::ffff:", address);
  assert_int_equal(inet_pton(AF_INET6, mapped, &from.sin6_addr), 1);
  if (!kcp_strangers_make_room(fixture->strangers, (struct sockaddr *)&from, fixture->now_ms)) {
    return NULL;
  }
  struct connection *connection = &fixture->connections[fixture->used++];
  connection->fixture = fixture;
  connection->is_there = true;
  connection->stranger.owner = connection;
  assert_int_equal(kcp_strangers_add(fixture->strangers, &connection->stranger,
                                     (struct sockaddr *)&from, fixture->now_ms),
                   0);
  return connection;
}

static void a_flood_in_somebody_s_name_keeps_him_out_for_a_moment_only(void **state) {
  (void)state;
  struct fixture fixture;
  begin(&fixture, SIZE_MAX, MANY);
  struct connection *elsewhere = come(&fixture, "192.0.2.9");
  struct connection *first = come(&fixture, "192.0.2.1");
  for (size_t i = 1; i < MANY; i++) {
    assert_non_null(come(&fixture, "192.0.2.1"));
  }
  fixture.now_ms += PATIENCE_MS - 1;
  assert_null(come(&fixture, "192.0.2.1"));
  fixture.now_ms++;
  assert_non_null(come(&fixture, "192.0.2.1"));
  assert_false(first->is_there);
  assert_true(elsewhere->is_there);
  end(&fixture);
}

static void whoever_is_there_does_not_count_for_his_address(void **state) {
  (void)state;
  struct fixture fixture;
  begin(&fixture, SIZE_MAX, 2);
  for (size_t i = 0; i < MANY; i++) {
    struct connection *one = come(&fixture, "192.0.2.1");
    assert_non_null(one);
    kcp_strangers_know(fixture.strangers, &one->stranger);
    kcp_strangers_know(fixture.strangers, &one->stranger);
  }
  assert_non_null(come(&fixture, "192.0.2.1"));
  assert_non_null(come(&fixture, "192.0.2.1"));
  fixture.now_ms += PATIENCE_MS - 1;
  assert_null(come(&fixture, "192.0.2.1"));
  end(&fixture);
}

static void a_network_of_ipv6_counts_as_one_address(void **state) {
  (void)state;
  struct fixture fixture;
  begin(&fixture, SIZE_MAX, 2);
  assert_non_null(come(&fixture, "2001:db8::1"));
  assert_non_null(come(&fixture, "2001:db8::2:1"));
  assert_null(come(&fixture, "2001:db8::3:0:0:1"));
  assert_non_null(come(&fixture, "2001:db8:0:1::1"));
  end(&fixture);
}

static void over_the_bound_for_all_the_oldest_gives_way(void **state) {
  (void)state;
  struct fixture fixture;
  begin(&fixture, 2, SIZE_MAX);
  struct connection *first = come(&fixture, "192.0.2.1");
  struct connection *second = come(&fixture, "192.0.2.2");
  assert_null(come(&fixture, "192.0.2.3"));
  fixture.now_ms += PATIENCE_MS;
  assert_non_null(come(&fixture, "192.0.2.3"));
  assert_false(first->is_there);
  assert_true(second->is_there);
  end(&fixture);
}

static void whoever_is_over_the_bound_of_his_address_makes_nobody_else_give_way(void **state) {
  (void)state;
  struct fixture fixture;
  begin(&fixture, 2, 1);
  struct connection *elsewhere = come(&fixture, "192.0.2.9");
  fixture.now_ms += PATIENCE_MS;
  assert_non_null(come(&fixture, "192.0.2.1"));
  assert_null(come(&fixture, "192.0.2.1"));
  assert_true(elsewhere->is_there);
  end(&fixture);
}

static struct connection *come_known(struct fixture *fixture, const char *address) {
  struct connection *connection = come(fixture, address);
  assert_non_null(connection);
  kcp_strangers_know(fixture->strangers, &connection->stranger);
  return connection;
}

static void a_flood_ends_nobody_who_is_known_to_be_there(void **state) {
  (void)state;
  struct fixture fixture;
  struct connection *known[4];
  begin(&fixture, 8, SIZE_MAX);
  for (size_t i = 0; i < 4; i++) {
    known[i] = come_known(&fixture, "192.0.2.1");
  }
  for (size_t i = 0; i < MANY; i++) {
    fixture.now_ms += PATIENCE_MS / 2;
    (void)come(&fixture, "192.0.2.2");
  }
  for (size_t i = 0; i < 4; i++) {
    assert_true(known[i]->is_there);
  }
  end(&fixture);
}

static void when_all_are_known_to_be_there_the_oldest_gives_way(void **state) {
  (void)state;
  struct fixture fixture;
  begin(&fixture, 2, SIZE_MAX);
  struct connection *first = come_known(&fixture, "192.0.2.1");
  struct connection *second = come_known(&fixture, "192.0.2.1");
  fixture.now_ms += PATIENCE_MS - 1;
  assert_null(come(&fixture, "192.0.2.2"));
  fixture.now_ms++;
  assert_non_null(come(&fixture, "192.0.2.2"));
  assert_false(first->is_there);
  assert_true(second->is_there);
  end(&fixture);
}

static void those_known_to_be_there_leave_half_of_the_places_to_others(void **state) {
  (void)state;
  struct fixture fixture;
  struct connection *known[8];
  begin(&fixture, 8, SIZE_MAX);
  for (size_t i = 0; i < 8; i++) {
    known[i] = come_known(&fixture, "192.0.2.1");
  }
  fixture.now_ms += PATIENCE_MS;
  for (size_t i = 0; i < 4; i++) {
    assert_non_null(come(&fixture, "192.0.2.2"));
    assert_false(known[i]->is_there);
  }
  assert_null(come(&fixture, "192.0.2.2"));
  assert_true(known[4]->is_there);
  end(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_flood_in_somebody_s_name_keeps_him_out_for_a_moment_only),
      cmocka_unit_test(whoever_is_there_does_not_count_for_his_address),
      cmocka_unit_test(a_network_of_ipv6_counts_as_one_address),
      cmocka_unit_test(over_the_bound_for_all_the_oldest_gives_way),
      cmocka_unit_test(whoever_is_over_the_bound_of_his_address_makes_nobody_else_give_way),
      cmocka_unit_test(a_flood_ends_nobody_who_is_known_to_be_there),
      cmocka_unit_test(when_all_are_known_to_be_there_the_oldest_gives_way),
      cmocka_unit_test(those_known_to_be_there_leave_half_of_the_places_to_others),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
