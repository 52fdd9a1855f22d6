#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/deflate.h"
#include "common/deflate_whole.h"

enum { SIZE = 100000, MAX = 1 << 20 };

static int zlib_inflates;  // calls

int __real_inflate(void *stream, int flush);
int __wrap_inflate(void *stream, int flush);
int __wrap_inflate(void *stream, int flush) {
  zlib_inflates++;
  return __real_inflate(stream, flush);
}

static int set_up(void **state) {
  *state = deflater_new();
  return *state ? 0 : -1;
}

static int set_up_zlib(void **state) {
  *state = deflater_new_zlib();
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
  assert_int_equal(deflater_compress(deflater, 6, text, size, SIZE_MAX, &out, len), 0);
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
      assert_int_equal(deflater_compress(*state, level, text, size, SIZE_MAX, &out, &len), 0);
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

// What a client gains by sending one must not be that it is done twice, the second time slowly.
static void a_bomb_is_inflated_once(void **state) {
  const uint8_t *out;
  size_t len;
  size_t out_len;
  struct deflate_whole *whole = deflate_whole_new();
  struct deflater *fresh = deflater_new();
  uint8_t *bytes = compressed(*state, 2 * MAX, &len);
  zlib_inflates = 0;
  assert_int_equal(deflater_inflate(fresh, bytes, len, MAX, &out, &out_len), ERROR_TOO_LARGE);
  assert_true(zlib_inflates == 0 || !whole);
  free(bytes);
  deflater_free(fresh);
  deflate_whole_free(whole);
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

// --- What both do alike -------------------------------------------------------------

static void fill(uint8_t *bytes, size_t len, int letters) {
  for (size_t i = 0; i < len; i++) {
    bytes[i] = (uint8_t)(random() % letters);
  }
}

// Whatever is done to a stream, both say the same of it.
static void what_is_refused_is_the_same_with_zlib_alone(void **state) {
  enum { ROUNDS = 20000, TEXT = 3000, BOUND = 2500 };
  static uint8_t text[TEXT];
  static uint8_t bytes[TEXT * 2];
  struct deflater *zlib = deflater_new_zlib();
  int seen[2] = {0, 0};
  int odd = 0;
  for (int round = 0; round < ROUNDS; round++) {
    const uint8_t *out[2];
    size_t out_len[2];
    size_t len;
    size_t size = (size_t)(random() % TEXT);
    fill(text, size, 1 + (int)(random() % 200));
    assert_int_equal(deflater_compress(round % 2 ? zlib : *state, 1 + (int)(random() % 9), text,
                                       size, SIZE_MAX, &out[0], &len),
                     0);
    memcpy(bytes, out[0], len);
    switch (random() % 4) {
      case 0: len = (size_t)random() % (len + 1); break;
      case 1: bytes[(size_t)random() % len] ^= (uint8_t)(1 << random() % 8); break;
      case 2: fill(bytes + len, 1 + (size_t)(random() % 8), 256), len++; break;
      default: break;
    }
    int ours = deflater_inflate(*state, bytes, len, BOUND, &out[0], &out_len[0]);
    int theirs = deflater_inflate(zlib, bytes, len, BOUND, &out[1], &out_len[1]);
    bool is_odd = ours == 0 && theirs == ERROR_MALFORMED;   // of a code word that means nothing
    bool is_both = ours == ERROR_TOO_LARGE && theirs != 0;  // too large, and wrong
    assert_true(ours == theirs || is_odd || is_both);
    odd += is_odd;
    if (ours == 0 && !is_odd) {
      assert_int_equal(out_len[0], out_len[1]);
      assert_memory_equal(out[0], out[1], out_len[0]);
    }
    seen[ours == 0]++;
  }
  assert_true(seen[0] > ROUNDS / 10 && seen[1] > ROUNDS / 10 && odd < ROUNDS / 1000);
  deflater_free(zlib);
}

static void more_than_the_bound_is_not_produced(void **state) {
  enum { BOUND = 5000 };
  static uint8_t text[SIZE];
  const uint8_t *out;
  size_t len;
  fill(text, SIZE, 256);
  assert_int_equal(deflater_compress(*state, 1, text, SIZE, SIZE - 1, &out, &len), ERROR_TOO_LARGE);
  assert_int_equal(deflater_compress(*state, 1, text, SIZE, BOUND, &out, &len), ERROR_TOO_LARGE);
  memset(text, 'a', SIZE);
  assert_int_equal(deflater_compress(*state, 1, text, SIZE, BOUND, &out, &len), 0);
  assert_in_range(len, 1, BOUND);
}

// --- In pieces ----------------------------------------------------------------------

static void pieces_become_one_stream(void **state) {
  static uint8_t text[SIZE];
  fill(text, SIZE, 7);
  for (size_t piece = 1000; piece <= SIZE; piece *= 10) {
    const uint8_t *out;
    size_t len;
    size_t turns = 1;
    int error;
    assert_int_equal(deflater_start(*state, 6, text, SIZE, SIZE), 0);
    while ((error = deflater_advance(*state, piece, &out, &len)) == ERROR_BUSY) {
      turns++;
    }
    assert_int_equal(error, 0);
    assert_int_equal(turns, SIZE / piece);
    uint8_t *copy = malloc(len);
    memcpy(copy, out, len);
    assert_int_equal(deflater_inflate(*state, copy, len, MAX, &out, &len), 0);
    free(copy);
    assert_int_equal(len, SIZE);
    assert_memory_equal(out, text, SIZE);
  }
}

static void pieces_end_as_soon_as_they_pass_the_bound(void **state) {
  enum { BOUND = 10000, PIECE = 1000 };
  static uint8_t text[MAX];
  const uint8_t *out;
  size_t len;
  size_t pieces = 1;
  int error;
  fill(text, MAX, 256);
  assert_int_equal(deflater_start(*state, 1, text, MAX, BOUND), 0);
  while ((error = deflater_advance(*state, PIECE, &out, &len)) == ERROR_BUSY) {
    pieces++;
  }
  assert_int_equal(error, ERROR_TOO_LARGE);
  assert_true(pieces < MAX / PIECE / 4);
  // It is ready for the next, begun in the middle of another.
  assert_int_equal(deflater_start(*state, 1, text, MAX, MAX), 0);
  assert_int_equal(deflater_advance(*state, PIECE, &out, &len), ERROR_BUSY);
  assert_int_equal(deflater_start(*state, 1, text, 3, 100), 0);
  assert_int_equal(deflater_advance(*state, PIECE, &out, &len), 0);
}

int main(void) {
#define FACT(test)                                            \
  cmocka_unit_test_setup_teardown(test, set_up, tear_down), { \
    "by zlib: " #test, (test), set_up_zlib, tear_down, NULL   \
  }
  const struct CMUnitTest tests[] = {
      FACT(what_is_compressed_is_inflated_to_the_same),
      FACT(the_bound_is_exact),
      FACT(a_bomb_is_refused_within_the_bound),
      FACT(a_bomb_is_inflated_once),
      FACT(a_stream_cut_anywhere_is_truncated),
      FACT(bytes_behind_the_end_are_malformed),
      FACT(other_bytes_are_malformed_and_the_next_call_works),
      FACT(what_is_refused_is_the_same_with_zlib_alone),
      FACT(more_than_the_bound_is_not_produced),
      FACT(pieces_become_one_stream),
      FACT(pieces_end_as_soon_as_they_pass_the_bound),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
