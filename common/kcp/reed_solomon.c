#include "common/kcp/reed_solomon.h"

#include <stdlib.h>
#include <string.h>

#include "common/kcp/reed_solomon_kernel.h"

// A group's shards, position by position, are the values of a polynomial of degree < D at the
// points 0, 1, 2, ...: the data at the first D, the parity at those behind. So both parity and
// what is missing are interpolated from any D points (Lagrange), and a row of the matrix is the
// coefficients for one point to be found from D that are known.

enum { POINTS = 256, ORDER = POINTS - 1 };  // of the field, and of its multiplicative group

struct field {
  uint8_t power[2 * ORDER];  // of 2, twice around: the sum of two logarithms is an index
  uint8_t logarithm[POINTS];
};

struct reed_solomon {
  const struct reed_solomon_kernel *kernel;
  unsigned data;
  unsigned parity;
  struct field field;
  struct reed_solomon_rows rows;  // the parity's
  uint8_t memory[];               // theirs
};

static void prepare(const struct reed_solomon_kernel *kernel,
                    const struct reed_solomon_rows *rows) {
  if (kernel->prepare) {
    kernel->prepare(rows);
  }
}

static void fill_field(struct field *field) {
  unsigned value = 1;
  for (unsigned i = 0; i < ORDER; i++) {
    field->power[i] = field->power[i + ORDER] = (uint8_t)value;
    field->logarithm[value] = (uint8_t)i;
    value <<= 1;
    if (value >= POINTS) {
      value ^= REED_SOLOMON_POLYNOMIAL;
    }
  }
}

// The logarithm of the product of (point - each of the points) without those that are point
// itself. A difference is a sum in this field: exclusive or.
static unsigned distances(const struct field *field, const uint8_t *points, unsigned count,
                          uint8_t point) {
  unsigned sum = 0;
  for (unsigned i = 0; i < count; i++) {
    if (points[i] != point) {
      sum += field->logarithm[points[i] ^ point];
    }
  }
  return sum % ORDER;
}

// weights[i]: the logarithm of the product of (points[i] - each of the others).
static void fill_weights(const struct field *field, const uint8_t *points, unsigned count,
                         uint8_t *weights) {
  for (unsigned i = 0; i < count; i++) {
    weights[i] = (uint8_t)distances(field, points, count, points[i]);
  }
}

// The row of the value at point, which is none of the points.
static void fill_row(const struct field *field, const uint8_t *points, const uint8_t *weights,
                     unsigned count, uint8_t point, uint8_t *row) {
  unsigned all = distances(field, points, count, point);
  for (unsigned i = 0; i < count; i++) {
    unsigned divisor = weights[i] + field->logarithm[points[i] ^ point];
    row[i] = field->power[(all + 2 * ORDER - divisor) % ORDER];
  }
}

struct reed_solomon *reed_solomon_new_with(const struct reed_solomon_kernel *kernel, unsigned data,
                                           unsigned parity) {
  uint8_t points[POINTS];
  uint8_t weights[POINTS];
  if (data < 1 || parity < 1 || data > REED_SOLOMON_SHARDS_MAX - 1 ||
      parity > REED_SOLOMON_SHARDS_MAX - data) {
    return NULL;
  }
  size_t count = (size_t)data * parity;
  struct reed_solomon *code = calloc(1, sizeof *code + count + count * REED_SOLOMON_TABLE_BYTES);
  if (!code) {
    return NULL;
  }
  code->kernel = kernel;
  code->data = data;
  code->parity = parity;
  code->rows = (struct reed_solomon_rows){.count = parity,
                                          .columns = data,
                                          .coefficients = code->memory,
                                          .tables = code->memory + count};
  fill_field(&code->field);
  for (unsigned i = 0; i < data; i++) {
    points[i] = (uint8_t)i;
  }
  fill_weights(&code->field, points, data, weights);
  for (unsigned i = 0; i < parity; i++) {
    fill_row(&code->field, points, weights, data, (uint8_t)(data + i),
             code->memory + (size_t)i * data);
  }
  prepare(kernel, &code->rows);
  return code;
}

struct reed_solomon *reed_solomon_new(unsigned data, unsigned parity) {
  const struct reed_solomon_kernel *isal = reed_solomon_isal();
  return reed_solomon_new_with(isal ? isal : reed_solomon_portable(), data, parity);
}

void reed_solomon_free(struct reed_solomon *code) { free(code); }

unsigned reed_solomon_data(const struct reed_solomon *code) { return code->data; }

unsigned reed_solomon_parity(const struct reed_solomon *code) { return code->parity; }

const uint8_t *reed_solomon_row(const struct reed_solomon *code, unsigned parity) {
  return code->rows.coefficients + (size_t)parity * code->data;
}

void reed_solomon_add(const struct reed_solomon *code, unsigned index, const uint8_t *shard,
                      size_t len, uint8_t *const parity[]) {
  if (len > 0) {
    code->kernel->add(&code->rows, index, shard, len, parity);
  }
}

// The shard of one point, from those of the points that are there.
static void interpolate(const struct reed_solomon *code, const uint8_t *points,
                        const uint8_t *weights, uint8_t point, const uint8_t *const shards[],
                        size_t len, uint8_t *out) {
  uint8_t row[POINTS];
  uint8_t tables[POINTS * REED_SOLOMON_TABLE_BYTES];
  struct reed_solomon_rows rows = {
      .count = 1, .columns = code->data, .coefficients = row, .tables = tables};
  fill_row(&code->field, points, weights, code->data, point, row);
  prepare(code->kernel, &rows);
  memset(out, 0, len);
  for (unsigned i = 0; i < code->data; i++) {
    code->kernel->add(&rows, i, shards[points[i]], len, &out);
  }
}

int reed_solomon_recover(const struct reed_solomon *code, const uint8_t *const shards[], size_t len,
                         uint8_t *const out[]) {
  uint8_t points[POINTS];
  uint8_t weights[POINTS];
  unsigned there = 0;
  for (unsigned i = 0; i < code->data + code->parity && there < code->data; i++) {
    if (shards[i]) {
      points[there++] = (uint8_t)i;
    }
  }
  if (there < code->data) {
    return ERROR_NOT_FOUND;
  }
  fill_weights(&code->field, points, code->data, weights);
  for (unsigned i = 0; i < code->data; i++) {
    if (!shards[i] && len > 0) {
      interpolate(code, points, weights, (uint8_t)i, shards, len, out[i]);
    }
  }
  return 0;
}
