// A product is the sum of those with the low and the high half of a byte: two tables of 16.
#include "common/kcp/reed_solomon_kernel.h"

enum { HALF = 16 };

// Twice value, in the field.
static uint8_t doubled(uint8_t value) {
  return (uint8_t)(value << 1 ^ (value & 0x80 ? REED_SOLOMON_POLYNOMIAL & 0xff : 0));
}

static void fill_half(uint8_t *table, uint8_t unit) {
  table[0] = 0;
  for (unsigned bit = 1; bit < HALF; bit <<= 1) {
    for (unsigned below = 0; below < bit; below++) {
      table[bit + below] = table[below] ^ unit;
    }
    unit = doubled(unit);
  }
}

static void prepare(const uint8_t *matrix, unsigned columns, unsigned rows, uint8_t *tables) {
  for (size_t i = 0; i < (size_t)columns * rows; i++) {
    uint8_t *table = tables + i * REED_SOLOMON_TABLE_BYTES;
    fill_half(table, matrix[i]);
    fill_half(table + HALF, doubled(table[HALF / 2]));
  }
}

// For more than a few bytes one table of all products, made on the way, is faster than two of
// half of them each: 256 steps that save one look-up for each byte.
static void add_row(const uint8_t *table, const uint8_t *shard, size_t len, uint8_t *out) {
  uint8_t products[HALF * HALF];
  for (unsigned high = 0; high < HALF; high++) {
    for (unsigned low = 0; low < HALF; low++) {
      products[high * HALF + low] = table[HALF + high] ^ table[low];
    }
  }
  for (size_t i = 0; i < len; i++) {
    out[i] ^= products[shard[i]];
  }
}

static void add(const uint8_t *tables, unsigned columns, unsigned rows, unsigned column,
                const uint8_t *shard, size_t len, uint8_t *const out[]) {
  for (unsigned row = 0; row < rows; row++) {
    add_row(tables + ((size_t)row * columns + column) * REED_SOLOMON_TABLE_BYTES, shard, len,
            out[row]);
  }
}

const struct reed_solomon_kernel *reed_solomon_portable(void) {
  static const struct reed_solomon_kernel kernel = {
      .name = "portable", .prepare = prepare, .add = add};
  return &kernel;
}
