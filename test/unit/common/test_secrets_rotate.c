#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <string.h>

#include "common/secrets_rotate.h"

static const int64_t now_ms = 1750000000000;
enum { HOUR_MS = 3600 * 1000 };

// Of each kind the keys are told apart by a number; 0: there are none.
static struct login_keys keys_of(int account, int certs, int64_t until_ms) {
  struct login_keys keys;
  memset(&keys, 0, sizeof keys);
  keys.account_aes_key_len = account != 0 ? 16 : 0;
  memset(keys.account_aes_key, account, keys.account_aes_key_len);
  if (certs != 0) {
    keys.has_certs = true;
    memset(&keys.server_key, certs, sizeof keys.server_key);
    memset(&keys.client_key, certs, sizeof keys.client_key);
    keys.server_cert_version = keys.client_cert_version = certs;
  }
  keys.until_ms = until_ms;
  return keys;
}

static struct secrets secrets_of(int account, int certs) {
  struct secrets secrets;
  memset(&secrets, 0, sizeof secrets);
  secrets.current = keys_of(account, certs, 0);
  return secrets;
}

static void add(struct secrets *secrets, int account, int certs, int64_t until_ms) {
  secrets->previous[secrets->previous_count++] = keys_of(account, certs, until_ms);
}

static void expect(const struct secrets *secrets, size_t i, int account, int certs,
                   int64_t until_ms) {
  const struct login_keys *keys = &secrets->previous[i];
  assert_true(i < secrets->previous_count);
  assert_int_equal(keys->account_aes_key_len, account != 0 ? 16 : 0);
  assert_int_equal(keys->account_aes_key[0], account);
  assert_int_equal(keys->has_certs, certs != 0);
  assert_int_equal(keys->server_key.secret[0], certs);
  assert_int_equal(keys->client_key.public[0], certs);
  assert_int_equal(keys->server_cert_version, certs);
  assert_int_equal(keys->client_cert_version, certs);
  assert_int_equal(keys->until_ms, until_ms);
}

static size_t rotate(struct secrets *fresh, const struct secrets *running) {
  return secrets_rotate(fresh, running, now_ms, HOUR_MS);
}

static void replaced_keys_stay_good_for_the_overlap(void **state) {
  (void)state;
  struct secrets running = secrets_of(1, 1), fresh = secrets_of(2, 2);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 1);
  expect(&fresh, 0, 1, 1, now_ms + HOUR_MS);
  assert_true(login_keys_valid(&fresh.previous[0], now_ms + HOUR_MS - 1));
  assert_false(login_keys_valid(&fresh.previous[0], now_ms + HOUR_MS));
  assert_true(login_keys_valid(&fresh.current, INT64_MAX));
}

static void only_the_part_that_changed_is_kept(void **state) {
  (void)state;
  struct secrets running = secrets_of(1, 1), fresh = secrets_of(2, 1);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 1);
  expect(&fresh, 0, 1, 0, now_ms + HOUR_MS);
  fresh = secrets_of(1, 2);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 1);
  expect(&fresh, 0, 0, 1, now_ms + HOUR_MS);
  // Another version of the same keys is another.
  fresh = secrets_of(1, 1);
  fresh.current.client_cert_version = 5;
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 1);
  expect(&fresh, 0, 0, 1, now_ms + HOUR_MS);
  // And so is a key that the other begins with.
  fresh = secrets_of(1, 1);
  fresh.current.account_aes_key_len = 24;
  assert_int_equal(rotate(&fresh, &running), 0);
  expect(&fresh, 0, 1, 0, now_ms + HOUR_MS);
}

static void equal_secrets_stay_as_they_are_however_often(void **state) {
  (void)state;
  struct secrets running = secrets_of(2, 2), fresh = secrets_of(2, 2);
  add(&running, 1, 1, now_ms + 500);
  for (int i = 0; i < 10; i++) {
    fresh = secrets_of(2, 2);
    assert_int_equal(rotate(&fresh, &running), 0);
    assert_memory_equal(&fresh, &running, sizeof fresh);
    running = fresh;
  }
}

static void what_was_kept_is_carried_along_but_not_longer_than_the_overlap(void **state) {
  (void)state;
  struct secrets running = secrets_of(4, 4), fresh = secrets_of(5, 5);
  add(&running, 3, 3, now_ms + 500);
  add(&running, 2, 2, now_ms + 9 * HOUR_MS);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 3);
  expect(&fresh, 0, 4, 4, now_ms + HOUR_MS);
  expect(&fresh, 1, 3, 3, now_ms + 500);
  expect(&fresh, 2, 2, 2, now_ms + HOUR_MS);
  // Also one that stood in the file for good, and does so no longer.
  fresh = secrets_of(4, 4);
  running.previous[0].until_ms = 0;
  assert_int_equal(rotate(&fresh, &running), 0);
  expect(&fresh, 0, 3, 3, now_ms + HOUR_MS);
}

static void what_is_no_longer_good_is_left_out(void **state) {
  (void)state;
  struct secrets running = secrets_of(4, 4), fresh = secrets_of(4, 4);
  add(&running, 3, 3, now_ms);
  add(&fresh, 2, 2, now_ms - 1);
  add(&fresh, 1, 1, now_ms + 1);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 1);
  expect(&fresh, 0, 1, 1, now_ms + 1);
  const struct login_keys none = {0};
  assert_memory_equal(&fresh.previous[1], &none, sizeof none);
}

static void a_time_in_the_new_file_goes_before_the_overlap(void **state) {
  (void)state;
  struct secrets running = secrets_of(1, 1), fresh = secrets_of(2, 2);
  add(&fresh, 1, 1, now_ms + 9 * HOUR_MS);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 1);
  expect(&fresh, 0, 1, 1, now_ms + 9 * HOUR_MS);
  // One that is over revokes the key, where it was the current one and where it was kept.
  fresh = secrets_of(2, 2);
  add(&fresh, 1, 1, now_ms - 1);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 0);
  running = secrets_of(2, 2);
  add(&running, 1, 1, now_ms + 500);
  fresh = secrets_of(2, 2);
  add(&fresh, 1, 1, now_ms - 1);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 0);
}

static void without_overlap_nothing_is_kept(void **state) {
  (void)state;
  struct secrets running = secrets_of(2, 2), fresh = secrets_of(3, 3);
  add(&running, 1, 1, now_ms + 500);
  assert_int_equal(secrets_rotate(&fresh, &running, now_ms, 0), 0);
  assert_int_equal(fresh.previous_count, 0);
}

static void going_back_to_the_old_keys_keeps_the_new_ones(void **state) {
  (void)state;
  struct secrets running = secrets_of(2, 2), fresh = secrets_of(1, 1);
  add(&running, 1, 1, now_ms + 500);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 1);
  expect(&fresh, 0, 2, 2, now_ms + HOUR_MS);
}

static void the_oldest_fall_out_and_are_counted(void **state) {
  (void)state;
  struct secrets running = secrets_of(4, 4), fresh = secrets_of(5, 5);
  add(&running, 3, 3, now_ms + 500);
  add(&running, 2, 2, now_ms + 400);
  add(&running, 1, 1, now_ms + 300);
  assert_int_equal(rotate(&fresh, &running), 1);
  assert_int_equal(fresh.previous_count, LOGIN_KEYS_PREVIOUS);
  expect(&fresh, 0, 4, 4, now_ms + HOUR_MS);
  expect(&fresh, 1, 3, 3, now_ms + 500);
  expect(&fresh, 2, 2, 2, now_ms + 400);
  // What was just current goes before what the file has kept for long.
  fresh = secrets_of(5, 5);
  add(&fresh, 8, 8, 0);
  add(&fresh, 7, 7, 0);
  add(&fresh, 6, 6, 0);
  assert_int_equal(rotate(&fresh, &running), 4);
  expect(&fresh, 0, 4, 4, now_ms + HOUR_MS);
  expect(&fresh, 1, 8, 8, 0);
  expect(&fresh, 2, 7, 7, 0);
}

static void one_that_is_over_takes_no_room(void **state) {
  (void)state;
  struct secrets running = secrets_of(1, 1), fresh = secrets_of(5, 5);
  add(&fresh, 4, 4, now_ms - 1);
  add(&fresh, 3, 3, 0);
  add(&fresh, 2, 2, 0);
  assert_int_equal(rotate(&fresh, &running), 0);
  assert_int_equal(fresh.previous_count, 3);
  expect(&fresh, 0, 1, 1, now_ms + HOUR_MS);
  expect(&fresh, 1, 3, 3, 0);
  expect(&fresh, 2, 2, 2, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(replaced_keys_stay_good_for_the_overlap),
      cmocka_unit_test(only_the_part_that_changed_is_kept),
      cmocka_unit_test(equal_secrets_stay_as_they_are_however_often),
      cmocka_unit_test(what_was_kept_is_carried_along_but_not_longer_than_the_overlap),
      cmocka_unit_test(what_is_no_longer_good_is_left_out),
      cmocka_unit_test(a_time_in_the_new_file_goes_before_the_overlap),
      cmocka_unit_test(without_overlap_nothing_is_kept),
      cmocka_unit_test(going_back_to_the_old_keys_keeps_the_new_ones),
      cmocka_unit_test(the_oldest_fall_out_and_are_counted),
      cmocka_unit_test(one_that_is_over_takes_no_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
