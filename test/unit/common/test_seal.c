#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdbool.h>
#include <string.h>

#include "common/seal.h"
#include "test/unit/vectors.h"

static const uint8_t key[33] = "0123456789abcdef0123456789abcdef";

// Every fact holds for both libraries and every length of key.
static const struct {
  bool aes_ni;
  size_t key_len;
} ways[] = {{true, 32}, {false, 32}, {true, 24}, {true, 16}};
enum { WAYS = sizeof ways / sizeof ways[0] };

static struct seal *new_seal(size_t way) {
  assert_int_equal(seal_global_init(ways[way].aes_ni), 0);
  struct seal *seal = seal_new(key, ways[way].key_len);
  assert_non_null(seal);
  return seal;
}

static void what_one_side_seals_the_other_opens(void **state) {
  (void)state;
  for (size_t way = 0; way < WAYS; way++) {
    struct seal *one = new_seal(way);
    struct seal *other = new_seal(way);
    for (size_t len = 0; len <= 5000; len = len * 3 + 1) {
      uint8_t buffer[5000 + SEAL_OVERHEAD_BYTES];
      uint8_t *plain;
      size_t plain_len;
      memset(buffer + SEAL_NONCE_BYTES, 'x', len);
      assert_int_equal(seal_in_place(one, buffer, len), 0);
      assert_int_equal(
          seal_open_in_place(other, buffer, len + SEAL_OVERHEAD_BYTES, &plain, &plain_len), 0);
      assert_int_equal(plain_len, len);
      for (size_t i = 0; i < len; i++) {
        assert_int_equal(plain[i], 'x');
      }
    }
    seal_free(one);
    seal_free(other);
  }
}

static void both_libraries_open_the_worked_message(void **state) {
  struct vector shared = vector_read("shared_key");
  struct vector frame = vector_read("encrypted_frame");
  struct vector packet = vector_read("packet_protobuf");
  (void)state;
  for (int aes_ni = 0; aes_ni < 2; aes_ni++) {
    uint8_t *plain;
    size_t plain_len;
    uint8_t copy[VECTOR_MAX_BYTES];
    memcpy(copy, frame.bytes, frame.len);
    assert_int_equal(seal_global_init(aes_ni), 0);
    struct seal *seal = seal_new(shared.bytes, shared.len);
    assert_int_equal(seal_open_in_place(seal, copy + 4, frame.len - 4, &plain, &plain_len), 0);
    assert_int_equal(plain_len, packet.len);
    assert_memory_equal(plain, packet.bytes, packet.len);
    seal_free(seal);
  }
}

static void one_bit_changed_anywhere_is_refused(void **state) {
  enum { LEN = 20 };
  (void)state;
  for (size_t way = 0; way < WAYS; way++) {
    struct seal *one = new_seal(way);
    struct seal *other = new_seal(way);
    for (size_t bit = 0; bit < (LEN + SEAL_OVERHEAD_BYTES) * 8; bit++) {
      uint8_t buffer[LEN + SEAL_OVERHEAD_BYTES] = {0};
      uint8_t *plain;
      size_t plain_len;
      assert_int_equal(seal_in_place(one, buffer, LEN), 0);
      buffer[bit / 8] ^= (uint8_t)(1 << bit % 8);
      assert_int_equal(seal_open_in_place(other, buffer, sizeof buffer, &plain, &plain_len),
                       ERROR_CRYPTO);
    }
    seal_free(one);
    seal_free(other);
  }
}

static void what_is_shorter_than_nonce_and_tag_is_truncated(void **state) {
  (void)state;
  for (size_t way = 0; way < WAYS; way++) {
    struct seal *seal = new_seal(way);
    uint8_t buffer[SEAL_OVERHEAD_BYTES] = {0};
    uint8_t *plain;
    size_t plain_len;
    for (size_t len = 0; len < SEAL_OVERHEAD_BYTES; len++) {
      assert_int_equal(seal_open_in_place(seal, buffer, len, &plain, &plain_len), ERROR_TRUNCATED);
    }
    seal_free(seal);
  }
}

static void its_own_message_played_back_is_known(void **state) {
  (void)state;
  for (size_t way = 0; way < WAYS; way++) {
    struct seal *seal = new_seal(way);
    uint8_t buffer[10 + SEAL_OVERHEAD_BYTES] = {0};
    uint8_t *plain;
    size_t plain_len;
    assert_int_equal(seal_in_place(seal, buffer, 10), 0);
    assert_int_equal(seal_open_in_place(seal, buffer, sizeof buffer, &plain, &plain_len),
                     ERROR_REPLAY);
    seal_free(seal);
  }
}

static void no_nonce_comes_twice(void **state) {
  enum { MESSAGES = 1000 };
  static uint8_t nonces[MESSAGES][SEAL_NONCE_BYTES];
  (void)state;
  struct seal *seal = new_seal(0);
  for (int i = 0; i < MESSAGES; i++) {
    uint8_t buffer[SEAL_OVERHEAD_BYTES];
    assert_int_equal(seal_in_place(seal, buffer, 0), 0);
    memcpy(nonces[i], buffer, SEAL_NONCE_BYTES);
    for (int j = 0; j < i; j++) {
      assert_memory_not_equal(nonces[i], nonces[j], SEAL_NONCE_BYTES);
    }
  }
  seal_free(seal);
}

static void a_key_of_another_length_makes_no_seal(void **state) {
  (void)state;
  assert_int_equal(seal_global_init(true), 0);
  for (size_t len = 0; len <= 32; len++) {
    struct seal *seal = seal_new(key, len);
    assert_int_equal(seal != NULL, len == 16 || len == 24 || len == 32);
    seal_free(seal);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_one_side_seals_the_other_opens),
      cmocka_unit_test(both_libraries_open_the_worked_message),
      cmocka_unit_test(one_bit_changed_anywhere_is_refused),
      cmocka_unit_test(what_is_shorter_than_nonce_and_tag_is_truncated),
      cmocka_unit_test(its_own_message_played_back_is_known),
      cmocka_unit_test(no_nonce_comes_twice),
      cmocka_unit_test(a_key_of_another_length_makes_no_seal),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
