#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/deflate.h"

enum { SIZE = 100000, MAX = 1 << 20 };

static int set_up(void **state) {
  *state = deflater_new();
  return *state ? 0 : -1;
}

static int tear_down(void **state) {
  deflater_free(*state);
  return 0;
}

// Compressed bytes of one letter, SIZE of them; malloc'd.
static uint8_t *compressed(struct deflater *deflater, size_t size, size_t *len) {
  uint8_t *text = malloc(size);
  const uint8_t *out;
  memset(text, 'a', size);
  assert_int_equal(deflater_compress(deflater, 6, text, size, &out, len), 0);
  free(text);
  uint8_t *copy = malloc(*len);
  memcpy(copy, out, *len);
  return copy;
}

static void what_is_compressed_is_inflated_to_the_same(void **state) {
  static uint8_t text[SIZE];
  for (int level = 1; level <= 9; level++) {
    for (size_t size = 0; size <= SIZE; size = size * 7 + 1) {
      const uint8_t *out;
      size_t len;
      for (size_t i = 0; i < size; i++) {
        text[i] = (uint8_t)(random() % 7);
      }
      assert_int_equal(deflater_compress(*state, level, text, size, &out, &len), 0);
      uint8_t *copy = malloc(len);
      memcpy(copy, out, len);
      assert_int_equal(deflater_inflate(*state, copy, len, MAX, &out, &len), 0);
      free(copy);
      assert_int_equal(len, size);
      if (size > 0) {
        assert_memory_equal(out, text, size);
      }
    }
  }
}

static void the_bound_is_exact(void **state) {
  const uint8_t *out;
  size_t len;
  size_t out_len;
  uint8_t *bytes = compressed(*state, SIZE, &len);
  assert_int_equal(deflater_inflate(*state, bytes, len, SIZE, &out, &out_len), 0);
  assert_int_equal(out_len, SIZE);
  assert_int_equal(deflater_inflate(*state, bytes, len, SIZE - 1, &out, &out_len), ERROR_TOO_LARGE);
  free(bytes);
}

static void a_bomb_is_refused_within_the_bound(void **state) {
  const uint8_t *out;
  size_t len;
  size_t out_len;
  struct deflater *fresh = deflater_new();
  uint8_t *bytes = compressed(*state, 64 << 20, &len);
  assert_int_equal(deflater_inflate(fresh, bytes, len, 1000, &out, &out_len), ERROR_TOO_LARGE);
  assert_int_equal(deflater_inflate(fresh, bytes, len, MAX, &out, &out_len), ERROR_TOO_LARGE);
  free(bytes);
  deflater_free(fresh);
}

static void a_stream_cut_anywhere_is_truncated(void **state) {
  const uint8_t *out;
  size_t len;
  size_t out_len;
  uint8_t *bytes = compressed(*state, 1000, &len);
  for (size_t cut = 0; cut < len; cut++) {
    assert_int_equal(deflater_inflate(*state, bytes, cut, MAX, &out, &out_len), ERROR_TRUNCATED);
  }
  free(bytes);
}

static void bytes_behind_the_end_are_malformed(void **state) {
  const uint8_t *out;
  size_t len;
  size_t out_len;
  uint8_t *bytes = compressed(*state, 1000, &len);
  uint8_t *longer = malloc(len + 1);
  memcpy(longer, bytes, len);
  longer[len] = 0;
  assert_int_equal(deflater_inflate(*state, longer, len + 1, MAX, &out, &out_len), ERROR_MALFORMED);
  free(longer);
  free(bytes);
}

static void other_bytes_are_malformed_and_the_next_call_works(void **state) {
  const uint8_t *out;
  size_t len;
  size_t out_len;
  uint8_t *bytes = compressed(*state, 1000, &len);
  assert_int_equal(deflater_inflate(*state, (const uint8_t *)"no zlib", 7, MAX, &out, &out_len),
                   ERROR_MALFORMED);
  bytes[len - 1] ^= 1;  // the checksum
  assert_int_equal(deflater_inflate(*state, bytes, len, MAX, &out, &out_len), ERROR_MALFORMED);
  bytes[len - 1] ^= 1;
  assert_int_equal(deflater_inflate(*state, bytes, len, MAX, &out, &out_len), 0);
  free(bytes);
}

int main(void) {
#define FACT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      FACT(what_is_compressed_is_inflated_to_the_same),
      FACT(the_bound_is_exact),
      FACT(a_bomb_is_refused_within_the_bound),
      FACT(a_stream_cut_anywhere_is_truncated),
      FACT(bytes_behind_the_end_are_malformed),
      FACT(other_bytes_are_malformed_and_the_next_call_works),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
