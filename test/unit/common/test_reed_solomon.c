#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka wants the four above first.
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/kcp/reed_solomon.h"
#include "common/kcp/reed_solomon_kernel.h"

enum { SHARDS = REED_SOLOMON_SHARDS_MAX, LEN_MAX = 1500 };

// Both ways to do the arithmetic, as far as this machine has them.
static const struct reed_solomon_kernel *kernels[2];
static unsigned kernel_count;

static uint8_t shards[SHARDS][LEN_MAX];

static struct reed_solomon *new_code(unsigned kernel, unsigned data, unsigned parity) {
  struct reed_solomon *code = reed_solomon_new_with(kernels[kernel], data, parity);
  assert_non_null(code);
  return code;
}

static uint64_t random_state;
static uint32_t random_next(void) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(random_state >> 33);
}

static void fill_random(uint8_t *bytes, size_t len) {
  for (size_t i = 0; i < len; i++) {
    bytes[i] = (uint8_t)random_next();
  }
}

static void assert_hex(const uint8_t *bytes, size_t len, const char *hex) {
  static char text[2 * LEN_MAX + 1];
  for (size_t i = 0; i < len; i++) {
    snprintf(text + 2 * i, 3, "%02x", bytes[i]);
  }
  assert_string_equal(text, hex);
}

// Makes the parity of the first D of shards, each of len bytes, behind them.
static void encode(const struct reed_solomon *code, size_t len) {
  unsigned data = reed_solomon_data(code);
  uint8_t *parity[SHARDS];
  for (unsigned i = 0; i < reed_solomon_parity(code); i++) {
    parity[i] = shards[data + i];
    memset(parity[i], 0, len);
  }
  for (unsigned i = 0; i < data; i++) {
    reed_solomon_add(code, i, shards[i], len, parity);
  }
}

// Takes away those that is_lost names, and holds what is recovered against what there was.
static void assert_recovers(const struct reed_solomon *code, const bool *is_lost, size_t len) {
  static uint8_t memory[SHARDS][LEN_MAX];
  const uint8_t *there[SHARDS];
  uint8_t *out[SHARDS] = {NULL};
  unsigned data = reed_solomon_data(code);
  for (unsigned i = 0; i < data + reed_solomon_parity(code); i++) {
    there[i] = is_lost[i] ? NULL : shards[i];
    if (i < data && is_lost[i]) {
      memset(memory[i], 0xee, len);
      out[i] = memory[i];
    }
  }
  assert_int_equal(reed_solomon_recover(code, there, len, out), 0);
  for (unsigned i = 0; i < data; i++) {
    if (is_lost[i]) {
      assert_memory_equal(memory[i], shards[i], len);
    }
  }
}

static void numbers_that_can_not_be_are_refused(void **state) {
  (void)state;
  assert_null(reed_solomon_new(0, 3));
  assert_null(reed_solomon_new(10, 0));
  assert_null(reed_solomon_new(200, 57));
  assert_null(reed_solomon_new(257, 1));
  assert_null(reed_solomon_new(1, UINT32_MAX));
  assert_null(reed_solomon_new(UINT32_MAX, 1));
  struct reed_solomon *code = reed_solomon_new(200, 56);
  assert_non_null(code);
  assert_int_equal(reed_solomon_data(code), 200);
  assert_int_equal(reed_solomon_parity(code), 56);
  reed_solomon_free(code);
  reed_solomon_free(NULL);
}

static void the_rows_are_those_of_the_ecosystem(void **state) {
  static const struct {
    unsigned data;
    unsigned parity;
    const char *rows[3];
  } codes[] = {
      {10, 3, {"8196afb8d2c4fee80302", "9681b8afc4d2e8fe0203", "bfd6620a066fdfb70504"}},
      {8, 2, {"1a84ba33e710c627", "841a33ba10e727c6"}},
      {4, 2, {"1b1c1214", "1c1b1412"}},
      {3, 2, {"010101", "0f0806"}},
      {2, 1, {"0302"}},
      {1, 1, {"01"}},
  };
  (void)state;
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    struct reed_solomon *code = reed_solomon_new(codes[i].data, codes[i].parity);
    assert_non_null(code);
    for (unsigned row = 0; row < codes[i].parity; row++) {
      assert_hex(reed_solomon_row(code, row), codes[i].data, codes[i].rows[row]);
    }
    reed_solomon_free(code);
  }
}

static uint8_t multiply(unsigned kernel, uint8_t a, uint8_t b) {
  uint8_t tables[REED_SOLOMON_TABLE_BYTES];
  uint8_t shard[64] = {b};  // long enough for ISA-L's vectors
  uint8_t product[64] = {0};
  uint8_t *out = product;
  struct reed_solomon_rows rows = {.count = 1, .columns = 1, .coefficients = &a, .tables = tables};
  if (kernels[kernel]->prepare) {
    kernels[kernel]->prepare(&rows);
  }
  kernels[kernel]->add(&rows, 0, shard, sizeof shard, &out);
  return product[0];
}

static void products_are_those_of_the_field(void **state) {
  static const uint8_t powers[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80,
                                   0x1d, 0x3a, 0x74, 0xe8, 0xcd, 0x87, 0x13, 0x26};
  (void)state;
  for (unsigned kernel = 0; kernel < kernel_count; kernel++) {
    assert_int_equal(multiply(kernel, 0x80, 2), 0x1d);
    assert_int_equal(multiply(kernel, 0x53, 0xca), 0x8f);
    assert_int_equal(multiply(kernel, 2, 0x8e), 1);
    assert_int_equal(multiply(kernel, 3, 0xf4), 1);
    assert_int_equal(multiply(kernel, 3, 7), 9);
    uint8_t power = 1;
    for (size_t i = 0; i < sizeof powers; i++) {
      assert_int_equal(power, powers[i]);
      power = multiply(kernel, power, 2);
    }
  }
  for (unsigned a = 0; a < 256; a++) {
    for (unsigned b = 0; b < 256; b++) {
      uint8_t product = multiply(0, (uint8_t)a, (uint8_t)b);
      assert_int_equal(product, multiply(0, (uint8_t)b, (uint8_t)a));
      assert_int_equal(product, multiply(kernel_count - 1, (uint8_t)a, (uint8_t)b));
    }
  }
}

static void three_shards_and_two_of_parity(void **state) {
  static const uint8_t data[3][4] = {
      {0x00, 0x01, 0x02, 0x03}, {0x10, 0x20, 0x30, 0x40}, {0xde, 0xad, 0xbe, 0xef}};
  static const bool is_lost[5] = {true, false, true, false, false};
  (void)state;
  for (unsigned kernel = 0; kernel < kernel_count; kernel++) {
    struct reed_solomon *code = new_code(kernel, 3, 2);
    for (unsigned i = 0; i < 3; i++) {
      memcpy(shards[i], data[i], 4);
    }
    encode(code, 4);
    assert_hex(shards[3], 4, "ce8c8cac");
    assert_hex(shards[4], 4, "7edb2073");
    assert_recovers(code, is_lost, 4);
    reed_solomon_free(code);
  }
}

static void ten_shards_and_three_of_parity(void **state) {
  static const bool is_lost[13] = {[0] = true, [4] = true, [9] = true};
  (void)state;
  for (unsigned kernel = 0; kernel < kernel_count; kernel++) {
    struct reed_solomon *code = new_code(kernel, 10, 3);
    for (unsigned i = 0; i < 10; i++) {
      for (unsigned j = 0; j < 8; j++) {
        shards[i][j] = (uint8_t)(i * i * 7 + j * 13 + (i ^ j) * 5 + 1);
      }
    }
    assert_hex(shards[0], 8, "01132537495b6d7f");
    encode(code, 8);
    assert_hex(shards[10], 8, "586d58c58dc5a596");
    assert_hex(shards[11], 8, "e95ca24d45638134");
    assert_hex(shards[12], 8, "dea3e3cd511e5894");
    assert_recovers(code, is_lost, 8);
    reed_solomon_free(code);
  }
}

static void shards_in_a_row_give_parity_in_a_row(void **state) {
  (void)state;
  for (unsigned kernel = 0; kernel < kernel_count; kernel++) {
    struct reed_solomon *code = new_code(kernel, 10, 3);
    for (unsigned i = 0; i < 10; i++) {
      for (unsigned j = 0; j < 8; j++) {
        shards[i][j] = (uint8_t)(16 * i + j);
      }
    }
    encode(code, 8);
    assert_hex(shards[10], 8, "a0a1a2a3a4a5a6a7");
    assert_hex(shards[11], 8, "b0b1b2b3b4b5b6b7");
    assert_hex(shards[12], 8, "c0c1c2c3c4c5c6c7");
    reed_solomon_free(code);
  }
}

// Loses to_lose shards of those from `from` on, in each way there is. Returns how many there were.
static unsigned try_patterns(const struct reed_solomon *code, size_t len, bool *is_lost,
                             unsigned from, unsigned to_lose) {
  unsigned tried = 0;
  if (to_lose == 0) {
    assert_recovers(code, is_lost, len);
    return 1;
  }
  for (unsigned i = from; i < reed_solomon_data(code) + reed_solomon_parity(code); i++) {
    is_lost[i] = true;
    tried += try_patterns(code, len, is_lost, i + 1, to_lose - 1);
    is_lost[i] = false;
  }
  return tried;
}

static void whatever_is_lost_is_recovered(void **state) {
  bool is_lost[SHARDS] = {false};
  (void)state;
  for (unsigned kernel = 0; kernel < kernel_count; kernel++) {
    struct reed_solomon *ten = new_code(kernel, 10, 3);
    struct reed_solomon *eight = new_code(kernel, 8, 2);
    random_state = 1;
    for (unsigned i = 0; i < 10; i++) {
      fill_random(shards[i], 67);
    }
    encode(ten, 67);
    assert_int_equal(try_patterns(ten, 67, is_lost, 0, 3), 286);
    assert_int_equal(try_patterns(ten, 67, is_lost, 0, 2), 78);
    encode(eight, 67);
    assert_int_equal(try_patterns(eight, 67, is_lost, 0, 2), 45);
    reed_solomon_free(ten);
    reed_solomon_free(eight);
  }
}

static void with_fewer_than_the_data_there_is_nothing_to_recover(void **state) {
  const uint8_t *there[13] = {NULL};
  uint8_t *out[10] = {NULL};
  struct reed_solomon *code = reed_solomon_new(10, 3);
  (void)state;
  for (unsigned i = 4; i < 13; i++) {
    there[i] = shards[i];
  }
  assert_int_equal(reed_solomon_recover(code, there, 8, out), ERROR_NOT_FOUND);
  reed_solomon_free(code);
}

// Of what a shorter shard lacks nothing is read, and behind the end nothing written.
static void what_is_missing_at_a_shards_end_counts_as_zeros(void **state) {
  enum { LEN = 200 };
  static const size_t lens[] = {0, 1, 15, 16, 31, 32, 33, 63, 64, 65, 66, 127, 130, 199, 200};
  (void)state;
  for (unsigned kernel = 0; kernel < kernel_count; kernel++) {
    struct reed_solomon *code = new_code(kernel, 2, 3);
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
      uint8_t *exact = malloc(lens[i] + 1);
      uint8_t parity[3][LEN] = {{0}};
      uint8_t *pointers[3] = {parity[0], parity[1], parity[2]};
      random_state = i + 1;
      memset(shards[0], 0, LEN);
      fill_random(shards[0], lens[i]);
      fill_random(shards[1], LEN);
      encode(code, LEN);
      memcpy(exact, shards[0], lens[i]);
      reed_solomon_add(code, 0, exact, lens[i], pointers);
      for (unsigned row = 0; row < 3; row++) {
        for (size_t at = lens[i]; at < LEN; at++) {
          assert_int_equal(parity[row][at], 0);
        }
      }
      reed_solomon_add(code, 1, shards[1], LEN, pointers);
      for (unsigned row = 0; row < 3; row++) {
        assert_memory_equal(parity[row], shards[2 + row], LEN);
      }
      free(exact);
    }
    reed_solomon_free(code);
  }
}

// Codes and lengths of all kinds: the two ways agree, and recover what was lost.
static void both_ways_give_the_same_bytes(void **state) {
  static uint8_t first[SHARDS][LEN_MAX];
  (void)state;
  random_state = 7;
  for (unsigned round = 0; round < 300; round++) {
    unsigned data = round == 0 ? 255 : 1 + random_next() % (round % 10 == 0 ? 200 : 20);
    unsigned parity = round == 0 ? 1 : 1 + random_next() % (round % 10 == 0 ? 56 : 6);
    size_t len = 1 + random_next() % (round % 3 == 0 ? LEN_MAX : 100);
    bool is_lost[SHARDS] = {false};
    for (unsigned i = 0; i < data; i++) {
      fill_random(shards[i], len);
    }
    for (unsigned i = 0; i < parity; i++) {
      is_lost[random_next() % (data + parity)] = true;
    }
    for (unsigned kernel = 0; kernel < kernel_count; kernel++) {
      struct reed_solomon *code = new_code(kernel, data, parity);
      encode(code, len);
      for (unsigned i = data; i < data + parity; i++) {
        if (kernel == 0) {
          memcpy(first[i], shards[i], len);
        }
        assert_memory_equal(first[i], shards[i], len);
      }
      assert_recovers(code, is_lost, len);
      reed_solomon_free(code);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numbers_that_can_not_be_are_refused),
      cmocka_unit_test(the_rows_are_those_of_the_ecosystem),
      cmocka_unit_test(products_are_those_of_the_field),
      cmocka_unit_test(three_shards_and_two_of_parity),
      cmocka_unit_test(ten_shards_and_three_of_parity),
      cmocka_unit_test(shards_in_a_row_give_parity_in_a_row),
      cmocka_unit_test(whatever_is_lost_is_recovered),
      cmocka_unit_test(with_fewer_than_the_data_there_is_nothing_to_recover),
      cmocka_unit_test(what_is_missing_at_a_shards_end_counts_as_zeros),
      cmocka_unit_test(both_ways_give_the_same_bytes),
  };
  kernels[kernel_count++] = reed_solomon_portable();
  if (reed_solomon_isal()) {
    kernels[kernel_count++] = reed_solomon_isal();
  }
  print_message("by %s\n", kernels[kernel_count - 1]->name);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
