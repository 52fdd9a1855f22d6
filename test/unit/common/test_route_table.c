#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/route_table.h"

enum { CAPACITY = 16380 };
static const int64_t now_ms = 1750000000000;
static const int64_t later_ms = 1750000600000;

static int set_up(void **state) {
  const struct route_table_options options = {.capacity = {CAPACITY, CAPACITY, CAPACITY}};
  int error;
  *state = route_table_create(&options, &error);
  return *state ? 0 : -1;
}

static int tear_down(void **state) {
  route_table_free(*state);
  return 0;
}

static struct route_key player(int64_t uid) {
  return (struct route_key){
      .tier = ROUTE_PLAYER, .service = "roma.player.service", .color = "blue", .oid = uid};
}

static int put(struct route_table *table, struct route_key key, const char *address) {
  return route_table_put(table, &key, address, later_ms, now_ms);
}

static void assert_route(struct route_table *table, struct route_key key, const char *address) {
  struct route route;
  int result = route_table_lookup(table, &key, now_ms, &route);
  if (address) {
    assert_int_equal(result, 0);
    assert_string_equal(route.address, address);
  } else {
    assert_int_equal(result, ERROR_NOT_FOUND);
  }
}

static void a_route_is_found_by_all_of_its_key(void **state) {
  struct route_key other;
  assert_int_equal(put(*state, player(1), "a:1"), 0);
  assert_route(*state, player(1), "a:1");
  assert_route(*state, player(2), NULL);
  other = player(1);
  other.tier = ROUTE_OBJECT;
  assert_route(*state, other, NULL);
  other = player(1);
  other.color = "green";
  assert_route(*state, other, NULL);
  other.color = "";
  assert_route(*state, other, NULL);
  other = player(1);
  other.service = "roma.room.service";
  assert_route(*state, other, NULL);
  // The border between service and color counts.
  other.service = "roma.player.serviceb";
  other.color = "lue";
  assert_route(*state, other, NULL);
}

static void a_put_replaces_and_a_remove_removes(void **state) {
  struct route_key key = player(-1);
  assert_int_equal(put(*state, key, "a:1"), 0);
  assert_int_equal(put(*state, key, "b:1"), 0);
  assert_route(*state, key, "b:1");
  assert_int_equal(route_table_remove(*state, &key), 0);
  assert_route(*state, key, NULL);
  assert_int_equal(route_table_remove(*state, &key), ERROR_NOT_FOUND);
}

static void assert_guess(struct route_table *table, struct route_key key, int64_t at_ms,
                         const char *address) {
  struct route route;
  assert_int_equal(route_table_lookup(table, &key, at_ms, &route), ERROR_EXPIRED);
  assert_string_equal(route.address, address);
}

static void an_expired_route_is_a_guess(void **state) {
  struct route_key key = player(1);
  struct route route;
  assert_int_equal(put(*state, key, "a:1"), 0);
  assert_int_equal(route_table_lookup(*state, &key, later_ms - 1, &route), 0);
  assert_int_equal(route.expires_at_ms, later_ms);
  assert_guess(*state, key, later_ms, "a:1");
}

static bool is_odd(const struct route_key *key, void *context) {
  ++*(int *)context;
  return key->oid % 2 != 0;
}

static void a_route_in_doubt_is_a_guess_until_it_is_put_again(void **state) {
  int asked = 0;
  struct route_key key = player(1);
  struct route_key other_tier = player(1);
  other_tier.tier = ROUTE_OBJECT;
  assert_int_equal(route_table_doubt(*state, &key), ERROR_NOT_FOUND);
  for (int64_t uid = 1; uid <= 10; uid++) {
    assert_int_equal(put(*state, player(uid), "a:1"), 0);
  }
  assert_int_equal(put(*state, other_tier, "b:1"), 0);
  assert_int_equal(route_table_doubt(*state, &key), 0);
  assert_guess(*state, key, now_ms, "a:1");
  assert_route(*state, player(2), "a:1");
  assert_int_equal(put(*state, key, "c:1"), 0);
  assert_route(*state, key, "c:1");
  route_table_doubt_if(*state, ROUTE_PLAYER, is_odd, &asked);
  assert_int_equal(asked, 10);
  assert_guess(*state, key, now_ms, "c:1");
  assert_guess(*state, player(9), now_ms, "a:1");
  assert_route(*state, player(2), "a:1");
  assert_route(*state, other_tier, "b:1");
  route_table_doubt_if(*state, ROUTE_PLAYER, NULL, NULL);
  assert_guess(*state, player(2), now_ms, "a:1");
  assert_route(*state, other_tier, "b:1");
}

static void a_table_that_is_not_trusted_has_only_guesses(void **state) {
  struct route_key doubted = player(2);
  int error;
  struct route_table *reader = route_table_open(dup(route_table_fd(*state)), &error);
  put(*state, player(1), "a:1");
  put(*state, doubted, "b:1");
  route_table_doubt(*state, &doubted);
  route_table_trust(*state, false);
  assert_guess(reader, player(1), now_ms, "a:1");
  put(*state, player(3), "c:1");
  assert_guess(reader, player(3), now_ms, "c:1");
  route_table_trust(*state, true);
  assert_route(reader, player(1), "a:1");
  assert_route(reader, player(3), "c:1");
  assert_guess(reader, doubted, now_ms, "b:1");
  route_table_free(reader);
}

static void routes_in_doubt_give_way_when_the_table_is_nearly_full(void **state) {
  struct route_table_stats stats;
  for (int64_t uid = 0; uid < CAPACITY / 2; uid++) {
    assert_int_equal(put(*state, player(uid), "a:1"), 0);
  }
  route_table_doubt_if(*state, ROUTE_PLAYER, NULL, NULL);
  route_table_sweep(*state, now_ms, 1 << 20);
  route_table_stats(*state, &stats);
  assert_int_equal(stats.used[ROUTE_PLAYER], CAPACITY / 2);
  for (int64_t uid = CAPACITY; uid < CAPACITY + CAPACITY / 2 - 1; uid++) {
    assert_int_equal(put(*state, player(uid), "a:1"), 0);
  }
  route_table_sweep(*state, now_ms, 1 << 20);
  route_table_stats(*state, &stats);
  assert_in_range(stats.used[ROUTE_PLAYER], CAPACITY / 2 - 1, CAPACITY / 8 * 7);
  for (int64_t uid = CAPACITY; uid < CAPACITY + CAPACITY / 2 - 1; uid++) {
    assert_route(*state, player(uid), "a:1");
  }
}

static void a_full_table_takes_a_new_route_in_the_place_of_a_guess(void **state) {
  struct route_table_stats stats;
  for (int64_t uid = 0; uid < CAPACITY; uid++) {
    assert_int_equal(put(*state, player(uid), "a:1"), 0);
  }
  assert_int_equal(put(*state, player(CAPACITY), "a:1"), ERROR_EXHAUSTED);
  route_table_doubt_if(*state, ROUTE_PLAYER, NULL, NULL);
  route_table_stats(*state, &stats);
  assert_int_equal(stats.doubted[ROUTE_PLAYER], CAPACITY);
  for (int64_t uid = CAPACITY; uid < CAPACITY + 1000; uid++) {
    assert_int_equal(put(*state, player(uid), "b:1"), 0);
  }
  for (int64_t uid = CAPACITY; uid < CAPACITY + 1000; uid++) {
    assert_route(*state, player(uid), "b:1");
  }
  route_table_stats(*state, &stats);
  assert_int_equal(stats.used[ROUTE_PLAYER], CAPACITY);
  assert_int_equal(stats.doubted[ROUTE_PLAYER], CAPACITY - 1000);
  // Put again, a route is in doubt no more; and a repair counts the same.
  struct route_key doubted = {0};
  for (int64_t uid = 0; doubted.service == NULL; uid++) {
    struct route_key key = player(uid);
    struct route route;
    doubted = route_table_lookup(*state, &key, now_ms, &route) == ERROR_EXPIRED ? key : doubted;
  }
  assert_int_equal(put(*state, doubted, "c:1"), 0);
  route_table_repair(*state);
  route_table_stats(*state, &stats);
  assert_int_equal(stats.doubted[ROUTE_PLAYER], CAPACITY - 1001);
}

static void all_of_a_tier_can_be_removed(void **state) {
  struct route_key other_tier = player(1);
  struct route_table_stats stats;
  other_tier.tier = ROUTE_GATEWAY;
  put(*state, player(1), "a:1");
  put(*state, player(2), "a:1");
  put(*state, other_tier, "b:1");
  route_table_remove_if(*state, ROUTE_PLAYER, NULL, NULL);
  route_table_stats(*state, &stats);
  assert_int_equal(stats.used[ROUTE_PLAYER], 0);
  assert_route(*state, player(1), NULL);
  assert_route(*state, other_tier, "b:1");
}

static void the_table_takes_its_capacity_and_then_refuses(void **state) {
  struct route_table_stats stats;
  for (int64_t uid = 0; uid < CAPACITY; uid++) {
    assert_int_equal(put(*state, player(uid), "a:1"), 0);
  }
  for (int64_t uid = CAPACITY; uid < 2 * CAPACITY; uid++) {
    assert_int_equal(put(*state, player(uid), "a:1"), ERROR_EXHAUSTED);
  }
  assert_int_equal(put(*state, player(5), "b:1"), 0);  // replacing needs no room
  for (int64_t uid = 0; uid < CAPACITY; uid++) {
    assert_route(*state, player(uid), uid == 5 ? "b:1" : "a:1");
  }
  route_table_stats(*state, &stats);
  assert_int_equal(stats.used[ROUTE_PLAYER], CAPACITY);
  assert_int_equal(stats.used[ROUTE_OBJECT], 0);
  assert_int_equal(stats.capacity[ROUTE_PLAYER], CAPACITY);
}

// As uids and rooms are numbered. Each table has its own secret factors, and a hash that
// is linear in the oid is refused by one in a hundred.
static void consecutive_oids_fill_no_bucket_early(void **state) {
  enum { TABLES = 100, FULL = 4092 };
  const struct route_table_options options = {.capacity = {FULL, FULL, FULL}};
  (void)state;
  for (int i = 0; i < TABLES; i++) {
    int error;
    struct route_table *table = route_table_create(&options, &error);
    assert_non_null(table);
    for (int64_t oid = 0; oid < FULL; oid++) {
      assert_int_equal(put(table, player(oid), "a:1"), 0);
    }
    route_table_free(table);
  }
}

static void a_sweep_makes_room_from_what_expired(void **state) {
  struct route_table_stats stats;
  for (int64_t uid = 0; uid < CAPACITY; uid++) {
    assert_int_equal(put(*state, player(uid), "a:1"), 0);
  }
  route_table_sweep(*state, now_ms, 1 << 20);
  route_table_stats(*state, &stats);
  assert_int_equal(stats.used[ROUTE_PLAYER], CAPACITY);
  route_table_sweep(*state, later_ms, 1 << 20);
  route_table_stats(*state, &stats);
  assert_int_equal(stats.used[ROUTE_PLAYER], 0);
  for (int64_t uid = CAPACITY; uid < 2 * CAPACITY; uid++) {
    struct route_key key = player(uid);
    assert_int_equal(route_table_put(*state, &key, "b:1", later_ms + 1000, later_ms), 0);
  }
}

static void ever_new_addresses_and_colors_do_not_use_the_table_up(void **state) {
  for (int i = 0; i < 50000; i++) {
    char address[32];
    char color[32];
    snprintf(address, sizeof address, "host-%d:1", i);
    snprintf(color, sizeof color, "color-%d", i);
    struct route_key key = player(i);
    key.color = color;
    assert_int_equal(put(*state, key, address), 0);
    assert_route(*state, key, address);
    assert_int_equal(route_table_remove(*state, &key), 0);
  }
}

static void more_addresses_at_once_than_there_is_room_for_are_refused(void **state) {
  int refused = 0;
  for (int i = 0; i < CAPACITY; i++) {
    char address[32];
    snprintf(address, sizeof address, "host-%d:1", i);
    int error = put(*state, player(i), address);
    assert_true(error == 0 || error == ERROR_EXHAUSTED);
    refused += error != 0;
    assert_route(*state, player(i), error == 0 ? address : NULL);
  }
  assert_in_range(refused, 1, CAPACITY - 1);
}

static void a_text_over_its_bound_is_refused(void **state) {
  char text[200];
  struct route route;
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  struct route_key key = player(1);
  assert_int_equal(put(*state, key, text), ERROR_TOO_LARGE);
  assert_int_equal(put(*state, key, ""), ERROR_TOO_LARGE);
  key.color = text;
  assert_int_equal(put(*state, key, "a:1"), ERROR_TOO_LARGE);
  assert_int_equal(route_table_lookup(*state, &key, now_ms, &route), ERROR_TOO_LARGE);
  text[ROUTE_ADDRESS_MAX_BYTES] = '\0';
  assert_int_equal(put(*state, player(2), text), 0);
  assert_route(*state, player(2), text);
}

static bool count_route(const struct route_key *key, const struct route *route, void *context) {
  assert_int_equal(key->tier, ROUTE_PLAYER);
  assert_string_equal(key->service, "roma.player.service");
  assert_string_equal(key->color, "blue");
  assert_string_equal(route->address, key->oid % 2 ? "a:1" : "b:1");
  return ++*(int *)context < 50;
}

static void a_visit_sees_each_route_until_it_has_enough(void **state) {
  int count = 0;
  for (int64_t uid = 0; uid < 40; uid++) {
    put(*state, player(uid), uid % 2 ? "a:1" : "b:1");
  }
  route_table_each(*state, now_ms, count_route, &count);
  assert_int_equal(count, 40);
  for (int64_t uid = 40; uid < 80; uid++) {
    put(*state, player(uid), uid % 2 ? "a:1" : "b:1");
  }
  count = 0;
  route_table_each(*state, now_ms, count_route, &count);
  assert_int_equal(count, 50);
  count = 0;
  route_table_each(*state, later_ms, count_route, &count);
  assert_int_equal(count, 0);
}

static void a_reader_sees_what_the_writer_puts(void **state) {
  int error;
  struct route_table *reader = route_table_open(dup(route_table_fd(*state)), &error);
  assert_non_null(reader);
  put(*state, player(1), "a:1");
  assert_route(reader, player(1), "a:1");
  route_table_free(reader);
}

static void a_segment_of_another_kind_is_not_opened(void **state) {
  struct shm shm;
  int error;
  (void)state;
  assert_int_equal(shm_create(&shm, "test", 1 << 20, true), 0);
  assert_null(route_table_open(dup(shm.fd), &error));
  assert_int_equal(error, ERROR_INVALID);
  shm_unmap(&shm);
  assert_int_equal(shm_create(&shm, "test", 10, true), 0);
  assert_null(route_table_open(dup(shm.fd), &error));
  assert_int_equal(error, ERROR_INVALID);
  shm_unmap(&shm);
}

// The bucket that holds oid, in the writer's own mapping of the segment: two cache
// lines, the sequence first.
static uint64_t *find_bucket(uint64_t oid) {
  char line[512];
  uint64_t *found = NULL;
  FILE *maps = fopen("/proc/self/maps", "r");
  assert_non_null(maps);
  while (!found && fgets(line, sizeof line, maps)) {
    uintptr_t start;
    uintptr_t end;
    if (!strstr(line, "janus-routes") || !strstr(line, "rw-s") ||
        sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) != 2) {
      continue;
    }
    for (uintptr_t at = start; !found && at < end; at += sizeof oid) {
      if (*(uint64_t *)at == oid) {
        found = (uint64_t *)(at & ~(uintptr_t)127);
      }
    }
  }
  fclose(maps);
  assert_non_null(found);
  return found;
}

static void a_bucket_left_torn_is_a_miss_until_it_is_repaired(void **state) {
  const uint64_t oid = 0x1122334455667788;
  struct route_key torn = player((int64_t)oid);
  struct route_table_stats stats;
  struct route route;
  put(*state, torn, "a:1");
  // Its writer dies with the sequence odd.
  ++*find_bucket(oid);
  assert_int_equal(route_table_lookup(*state, &torn, now_ms, &route), ERROR_BUSY);
  route_table_repair(*state);
  assert_int_equal(route_table_lookup(*state, &torn, now_ms, &route), ERROR_NOT_FOUND);
  route_table_stats(*state, &stats);
  assert_int_equal(stats.used[ROUTE_PLAYER], 0);
  // The others are untouched by a repair.
  put(*state, player(1), "b:1");
  route_table_repair(*state);
  assert_route(*state, player(1), "b:1");
  put(*state, torn, "c:1");
  assert_route(*state, torn, "c:1");
}

// Bytes thrown into the segment behind its header: no answer is right then, but none
// may reach outside of it.
static void corrupted_content_never_leads_a_reader_astray(void **state) {
  struct shm shm;
  int error;
  for (int64_t uid = 0; uid < 1000; uid++) {
    put(*state, player(uid), "a:1");
  }
  struct route_table *reader = route_table_open(dup(route_table_fd(*state)), &error);
  assert_int_equal(shm_map(&shm, dup(route_table_fd(*state)), false), 0);
  // A copy of the segment, whose content may be written.
  struct shm copy;
  assert_int_equal(shm_create(&copy, "copy", shm.size, true), 0);
  memcpy(copy.base, shm.base, shm.size);
  struct route_table *corrupt = route_table_open(dup(copy.fd), &error);
  assert_non_null(corrupt);
  for (size_t i = shm.size / 4; i < shm.size; i++) {
    ((uint8_t *)copy.base)[i] = (uint8_t)random();
  }
  for (int64_t uid = 0; uid < 1000; uid++) {
    struct route_key key = player(uid);
    struct route route;
    int result = route_table_lookup(corrupt, &key, now_ms, &route);
    assert_true(result == 0 || result == ERROR_NOT_FOUND || result == ERROR_BUSY ||
                result == ERROR_EXPIRED);
    if (result == 0) {
      assert_non_null(memchr(route.address, '\0', sizeof route.address));
    }
  }
  route_table_free(corrupt);
  route_table_free(reader);
  shm_unmap(&copy);
  shm_unmap(&shm);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_route_is_found_by_all_of_its_key),
      FACT(a_put_replaces_and_a_remove_removes),
      FACT(an_expired_route_is_a_guess),
      FACT(a_route_in_doubt_is_a_guess_until_it_is_put_again),
      FACT(a_table_that_is_not_trusted_has_only_guesses),
      FACT(routes_in_doubt_give_way_when_the_table_is_nearly_full),
      FACT(a_full_table_takes_a_new_route_in_the_place_of_a_guess),
      FACT(all_of_a_tier_can_be_removed),
      FACT(the_table_takes_its_capacity_and_then_refuses),
      cmocka_unit_test(consecutive_oids_fill_no_bucket_early),
      FACT(a_sweep_makes_room_from_what_expired),
      FACT(ever_new_addresses_and_colors_do_not_use_the_table_up),
      FACT(more_addresses_at_once_than_there_is_room_for_are_refused),
      FACT(a_text_over_its_bound_is_refused),
      FACT(a_visit_sees_each_route_until_it_has_enough),
      FACT(a_reader_sees_what_the_writer_puts),
      FACT(a_segment_of_another_kind_is_not_opened),
      FACT(a_bucket_left_torn_is_a_miss_until_it_is_repaired),
      FACT(corrupted_content_never_leads_a_reader_astray),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
