// ISA-L has the arithmetic of this field, though not this code's matrix, and chooses by itself
// what of the processor it uses.
#include "common/kcp/reed_solomon_kernel.h"

#ifdef HAVE_ISAL

#include <isa-l.h>
#include <stdbool.h>

static void prepare(const uint8_t *matrix, unsigned columns, unsigned rows, uint8_t *tables) {
  ec_init_tables((int)columns, (int)rows, (unsigned char *)matrix, tables);
}

static void add(const uint8_t *tables, unsigned columns, unsigned rows, unsigned column,
                const uint8_t *shard, size_t len, uint8_t *const out[]) {
  ec_encode_data_update((int)len, (int)columns, (int)rows, (int)column, (unsigned char *)tables,
                        (unsigned char *)shard, (unsigned char **)out);
}

// Below SSE4.1 it multiplies byte by byte by logarithms.
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
