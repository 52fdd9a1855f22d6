// ISA-L has the arithmetic of this field, though not this code's matrix, and chooses by itself
// what of the processor it uses.
#include "common/kcp/reed_solomon_kernel.h"

#ifdef HAVE_ISAL

#include <isa-l.h>
#include <stdbool.h>

// Of shorter shards it takes byte by byte, by logarithms.
enum { SHARD_MIN_BYTES = 64 };

static void prepare(const struct reed_solomon_rows *rows) {
  ec_init_tables((int)rows->columns, (int)rows->count, (unsigned char *)rows->coefficients,
                 rows->tables);
}

static void add(const struct reed_solomon_rows *rows, unsigned column, const uint8_t *shard,
                size_t len, uint8_t *const out[]) {
  if (len < SHARD_MIN_BYTES) {
    reed_solomon_portable()->add(rows, column, shard, len, out);
    return;
  }
  ec_encode_data_update((int)len, (int)rows->columns, (int)rows->count, (int)column, rows->tables,
                        (unsigned char *)shard, (unsigned char **)out);
}

// Below SSE4.1 it has nothing but those logarithms.
static bool is_worth_it(void) {
#ifdef __x86_64__
  return __builtin_cpu_supports("sse4.1");
#else
  return true;
#endif
}

const struct reed_solomon_kernel *reed_solomon_isal(void) {
  static const struct reed_solomon_kernel kernel = {
      .name = "ISA-L", .prepare = prepare, .add = add};
  return is_worth_it() ? &kernel : NULL;
}

#else

const struct reed_solomon_kernel *reed_solomon_isal(void) { return NULL; }

#endif
