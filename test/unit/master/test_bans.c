#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "master/bans.h"

// Bans without Redis; with it: test_ban_store.c.

enum { NOW = 1000000 };

struct fixture {
  struct config config;
  struct counters counters;
  struct bans *bans;
  struct ban told;  // the last that the owner was told of
  size_t told_count;
};

static void on_ban(const struct ban *ban, void *owner) {
  struct fixture *fixture = owner;
  assert_non_null(ban);
  fixture->told = *ban;
  fixture->told_count++;
}

static int set_up(void **state) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  strcpy(fixture->config.server.grpc.advertise, "10.0.0.1:19100");
  const struct bans_options options = {.config = &fixture->config,
                                       .counters = &fixture->counters,
                                       .on_ban = on_ban,
                                       .owner = fixture};
  fixture->bans = bans_new(&options);
  *state = fixture;
  return fixture->bans ? 0 : -1;
}

static int tear_down(void **state) {
  struct fixture *fixture = *state;
  bans_free(fixture->bans);
  free(fixture);
  return 0;
}

static struct ban_subject subject_of(const char *field) {
  struct ban_subject subject;
  assert_int_equal(ban_parse_field(field, strlen(field), &subject), 0);
  return subject;
}

static int add(struct fixture *fixture, const char *field, int64_t until_ms, const char *reason) {
  struct ban_subject subject = subject_of(field);
  return bans_add(fixture->bans, &subject, until_ms, reason, NOW);
}

static int take_back(struct fixture *fixture, const char *field) {
  struct ban_subject subject = subject_of(field);
  return bans_remove(fixture->bans, &subject, NOW);
}

// The field of the ban that keeps out uid at address; "" for none.
static const char *keeps_out_at(struct fixture *fixture, int64_t uid, const char *address,
                                int64_t now_ms) {
  static char field[BAN_FIELD_BYTES];
  const struct ban *ban = bans_find(fixture->bans, uid, address, now_ms);
  field[0] = '\0';
  if (ban) {
    assert_true(ban_fits(ban, uid, address));
    ban_field(&ban->subject, field);
  }
  return field;
}

static const char *keeps_out(struct fixture *fixture, int64_t uid, const char *address) {
  return keeps_out_at(fixture, uid, address, NOW);
}

static bool count_one(const struct ban *ban, void *context) {
  size_t *count = context;
  assert_non_null(ban);
  (*count)++;
  return true;
}

static size_t listed(struct fixture *fixture, int64_t now_ms) {
  size_t count = 0;
  bans_each(fixture->bans, now_ms, count_one, &count);
  return count;
}

static size_t kept(struct fixture *fixture) {
  struct bans_health health;
  bans_health(fixture->bans, &health);
  assert_false(health.shared);
  assert_int_equal(health.store.pending_writes, 0);
  return health.uids + health.networks;
}

static void a_player_is_kept_out_by_uid(void **state) {
  assert_int_equal(add(*state, "uid:5", 0, ""), 0);
  assert_string_equal(keeps_out(*state, 5, "10.0.0.1:1"), "uid:5");
  assert_string_equal(keeps_out(*state, 5, "unknown:0"), "uid:5");
  assert_string_equal(keeps_out(*state, 6, "10.0.0.1:1"), "");
}

static void a_network_keeps_out_all_that_lies_in_it(void **state) {
  assert_int_equal(add(*state, "net:192.0.2.0/24", 0, ""), 0);
  assert_int_equal(add(*state, "net:198.51.100.7", 0, ""), 0);
  assert_int_equal(add(*state, "net:2001:db8::/32", 0, ""), 0);
  assert_string_equal(keeps_out(*state, 1, "192.0.2.77:1"), "net:192.0.2.0/24");
  assert_string_equal(keeps_out(*state, 1, "192.0.3.77:1"), "");
  assert_string_equal(keeps_out(*state, 1, "198.51.100.7:1"), "net:198.51.100.7");
  assert_string_equal(keeps_out(*state, 1, "198.51.100.8:1"), "");
  assert_string_equal(keeps_out(*state, 1, "[2001:db8::9]:1"), "net:2001:db8::/32");
  assert_string_equal(keeps_out(*state, 1, "[2001:db9::9]:1"), "");
  assert_string_equal(keeps_out(*state, 1, "unknown:0"), "");
}

static void a_mapped_client_is_the_ipv4_one(void **state) {
  assert_int_equal(add(*state, "net:192.0.2.0/24", 0, ""), 0);
  assert_string_equal(keeps_out(*state, 1, "[::ffff:192.0.2.7]:1"), "net:192.0.2.0/24");
}

static void a_ban_of_all_of_ipv6_leaves_ipv4_alone(void **state) {
  assert_int_equal(add(*state, "net:::/0", 0, ""), 0);
  assert_string_equal(keeps_out(*state, 1, "[2001:db8::1]:1"), "net:::/0");
  assert_string_equal(keeps_out(*state, 1, "192.0.2.7:1"), "");
}

static void of_networks_that_lie_in_each_other_one_is_enough(void **state) {
  assert_int_equal(add(*state, "net:10.0.0.0/8", 0, ""), 0);
  assert_int_equal(add(*state, "net:10.1.0.0/16", NOW + 10, ""), 0);
  assert_string_equal(keeps_out(*state, 1, "10.1.0.1:1"), "net:10.1.0.0/16");
  assert_string_equal(keeps_out_at(*state, 1, "10.1.0.1:1", NOW + 10), "net:10.0.0.0/8");
  assert_int_equal(take_back(*state, "net:10.0.0.0/8"), 0);
  assert_string_equal(keeps_out(*state, 1, "10.1.0.1:1"), "net:10.1.0.0/16");
  assert_string_equal(keeps_out(*state, 1, "10.2.0.1:1"), "");
}

static void a_ban_is_over_when_its_time_has_come(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(add(fixture, "uid:5", NOW + 100, ""), 0);
  assert_int_equal(add(fixture, "net:10.0.0.0/8", NOW + 200, ""), 0);
  assert_int_equal(add(fixture, "uid:6", 0, ""), 0);
  assert_string_equal(keeps_out_at(fixture, 5, "", NOW + 99), "uid:5");
  assert_string_equal(keeps_out_at(fixture, 5, "", NOW + 100), "");
  assert_int_equal(listed(fixture, NOW + 100), 2);
  bans_tick(fixture->bans, NOW + 99);
  assert_int_equal(kept(fixture), 3);
  bans_tick(fixture->bans, NOW + 100);
  assert_int_equal(kept(fixture), 2);
  assert_string_equal(keeps_out_at(fixture, 1, "10.0.0.1", NOW + 199), "net:10.0.0.0/8");
  bans_tick(fixture->bans, NOW + 200);
  assert_int_equal(kept(fixture), 1);
  bans_tick(fixture->bans, INT64_MAX);
  assert_string_equal(keeps_out_at(fixture, 6, "", INT64_MAX), "uid:6");
}

static void a_ban_that_is_over_is_found_neither_to_remove_nor_to_replace(void **state) {
  struct fixture *fixture = *state;
  struct ban_subject subject = subject_of("uid:5");
  assert_int_equal(add(fixture, "uid:5", NOW + 100, ""), 0);
  assert_int_equal(bans_remove(fixture->bans, &subject, NOW + 100), ERROR_NOT_FOUND);
  assert_int_equal(fixture->told_count, 1);
  assert_int_equal(bans_add(fixture->bans, &subject, 0, "", NOW + 100), 0);
  assert_int_equal(fixture->told_count, 2);
}

static void one_that_is_over_already_is_refused(void **state) {
  assert_int_equal(add(*state, "uid:5", NOW, ""), ERROR_EXPIRED);
  assert_int_equal(add(*state, "uid:5", 1, ""), ERROR_EXPIRED);
  assert_int_equal(add(*state, "uid:5", -1, ""), ERROR_EXPIRED);
  assert_int_equal(kept(*state), 0);
}

static void a_new_ban_takes_the_place_of_the_old_one(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(add(fixture, "uid:5", 0, "for ever"), 0);
  assert_int_equal(add(fixture, "uid:5", NOW + 100, "for a while"), 0);
  assert_int_equal(add(fixture, "net:10.0.0.0/8", NOW + 100, ""), 0);
  assert_int_equal(add(fixture, "net:10.0.0.0/8", 0, "all"), 0);
  assert_int_equal(kept(fixture), 2);
  assert_string_equal(bans_find(fixture->bans, 5, "", NOW)->reason, "for a while");
  bans_tick(fixture->bans, NOW + 100);
  assert_string_equal(keeps_out_at(fixture, 5, "", NOW + 100), "");
  assert_string_equal(bans_find(fixture->bans, 1, "10.0.0.1", NOW + 100)->reason, "all");
}

static void the_owner_is_told_of_what_is_new(void **state) {
  struct fixture *fixture = *state;
  assert_int_equal(add(fixture, "uid:5", 0, "cheating"), 0);
  assert_int_equal(fixture->told_count, 1);
  assert_int_equal(fixture->told.subject.uid, 5);
  assert_string_equal(fixture->told.reason, "cheating");
  assert_string_equal(fixture->told.by, "10.0.0.1:19100");
  assert_int_equal(fixture->told.since_ms, NOW);
  assert_int_equal(fixture->told.until_ms, 0);
  assert_int_equal(add(fixture, "uid:5", 0, "again"), 0);
  assert_int_equal(fixture->told_count, 1);
  assert_int_equal(add(fixture, "net:10.0.0.0/8", 0, ""), 0);
  assert_int_equal(fixture->told_count, 2);
}

static void what_is_taken_back_keeps_nobody_out(void **state) {
  assert_int_equal(add(*state, "uid:5", 0, ""), 0);
  assert_int_equal(add(*state, "net:10.0.0.0/8", 0, ""), 0);
  assert_int_equal(take_back(*state, "uid:6"), ERROR_NOT_FOUND);
  assert_int_equal(take_back(*state, "net:10.0.0.0/9"), ERROR_NOT_FOUND);
  assert_int_equal(take_back(*state, "uid:5"), 0);
  assert_int_equal(take_back(*state, "net:10.0.0.0/8"), 0);
  assert_int_equal(take_back(*state, "uid:5"), ERROR_NOT_FOUND);
  assert_string_equal(keeps_out(*state, 5, "10.0.0.1:1"), "");
  assert_int_equal(kept(*state), 0);
}

static void a_reason_that_is_no_plain_text_is_refused(void **state) {
  char reason[102] = {0};
  memset(reason, 'x', sizeof reason - 1);
  assert_int_equal(add(*state, "uid:5", 0, reason), ERROR_TOO_LARGE);
  assert_int_equal(add(*state, "uid:5", 0, "a\nb"), ERROR_INVALID);
  assert_int_equal(add(*state, "uid:5", 0, "\xff"), ERROR_INVALID);
  assert_int_equal(kept(*state), 0);
}

static bool stop_at_second(const struct ban *ban, void *context) {
  int *visits = context;
  (void)ban;
  return ++*visits < 2;
}

static void they_are_listed_until_the_visitor_has_enough(void **state) {
  struct fixture *fixture = *state;
  int visits = 0;
  assert_int_equal(listed(fixture, NOW), 0);
  assert_int_equal(add(fixture, "uid:1", 0, ""), 0);
  assert_int_equal(add(fixture, "net:10.0.0.0/8", 0, ""), 0);
  assert_int_equal(add(fixture, "uid:2", 0, ""), 0);
  assert_int_equal(listed(fixture, NOW), 3);
  bans_each(fixture->bans, NOW, stop_at_second, &visits);
  assert_int_equal(visits, 2);
}

static void there_is_room_for_so_many_and_no_more(void **state) {
  struct fixture *fixture = *state;
  char field[BAN_FIELD_BYTES];
  for (int i = 0; i < BANS_NETWORKS_MAX; i++) {
    snprintf(field, sizeof field, "net:10.%d.%d.0/24", i / 256, i % 256);
    assert_int_equal(add(fixture, field, NOW + 100, ""), 0);
  }
  assert_int_equal(add(fixture, "net:192.0.2.7", 0, ""), ERROR_EXHAUSTED);
  assert_int_equal(add(fixture, "net:10.0.7.0/24", NOW + 100, "in its place"), 0);
  for (int i = 0; i < BANS_MAX - BANS_NETWORKS_MAX; i++) {
    struct ban_subject subject = {.kind = BAN_UID, .uid = i};
    assert_int_equal(bans_add(fixture->bans, &subject, 0, "", NOW), 0);
  }
  assert_int_equal(kept(fixture), BANS_MAX);
  assert_int_equal(add(fixture, "uid:-1", 0, ""), ERROR_EXHAUSTED);
  assert_string_equal(keeps_out(fixture, 89999, ""), "uid:89999");
  assert_string_equal(keeps_out(fixture, -1, "10.39.15.200:1"), "net:10.39.15.0/24");
  assert_string_equal(keeps_out(fixture, -1, "10.39.16.200:1"), "");
  // What is over makes room at once.
  struct ban_subject subject = subject_of("net:192.0.2.7");
  assert_int_equal(bans_add(fixture->bans, &subject, 0, "", NOW + 100), 0);
  assert_int_equal(kept(fixture), BANS_MAX - BANS_NETWORKS_MAX + 1);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(a_player_is_kept_out_by_uid),
      FACT(a_network_keeps_out_all_that_lies_in_it),
      FACT(a_mapped_client_is_the_ipv4_one),
      FACT(a_ban_of_all_of_ipv6_leaves_ipv4_alone),
      FACT(of_networks_that_lie_in_each_other_one_is_enough),
      FACT(a_ban_is_over_when_its_time_has_come),
      FACT(a_ban_that_is_over_is_found_neither_to_remove_nor_to_replace),
      FACT(one_that_is_over_already_is_refused),
      FACT(a_new_ban_takes_the_place_of_the_old_one),
      FACT(the_owner_is_told_of_what_is_new),
      FACT(what_is_taken_back_keeps_nobody_out),
      FACT(a_reason_that_is_no_plain_text_is_refused),
      FACT(they_are_listed_until_the_visitor_has_enough),
      FACT(there_is_room_for_so_many_and_no_more),
  };
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_ERROR, "test");
  return cmocka_run_group_tests(tests, NULL, NULL);
}
